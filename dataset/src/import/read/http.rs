//! Files of web servers, streamed.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode};
use tokio::runtime::Runtime;
use url::Url;

use super::InputError;
use super::expand::{Input, Location};
use super::layers::Source;
use super::remote::runtime;

/// Times that something is asked before its failure is told.
const TRIES: u32 = 4;
/// Wait before the second try; each further one is doubled.
const WAIT: Duration = Duration::from_millis(500);

/// What a URL stands for.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) url: Url,
    /// As errors show it.
    pub(super) shown: String,
    /// Sent to its server, and not where that redirects to.
    pub(super) token: Option<Arc<str>>,
}

/// Without what may be secret.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Page").field(&self.shown).finish()
    }
}

/// The URL without what may be a secret: credentials, and the signature in a query.
pub(super) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // URLs that have no host have no credentials either.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}

pub(super) fn expand(given: &str, temp: &Arc<Path>) -> Result<Input, InputError> {
    let url = Url::parse(given).map_err(|error| InputError::Name {
        given: given.split('?').next().unwrap_or(given).into(),
        reason: format!("it is no URL: {error}"),
    })?;
    let page = Page {
        shown: shown(&url),
        url,
        token: None,
    };
    let asking = Asking::new(&page)?;
    // Servers that sign URLs allow nothing but to get them; the body is left unread.
    let response = asking.ask(&page, 0)?;
    let headers = response.headers();
    let text = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    };
    let bytes = length(headers);
    let version = format!("{}\0{}\0{bytes:?}", text(ETAG), text(LAST_MODIFIED));
    let last = page
        .url
        .path_segments()
        .and_then(|mut path| path.next_back());
    let name = last.filter(|name| !name.is_empty()).unwrap_or(&page.shown);
    Ok(Input {
        name: name.to_owned(),
        shown: page.shown.clone(),
        bytes,
        identity: format!("{}\0{version}", page.shown).into_bytes(),
        location: Location::Web(page),
        temp: Arc::clone(temp),
    })
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A client on a runtime of its own.
pub(super) struct Asking {
    runtime: Runtime,
    client: Client,
}

impl Asking {
    pub(super) fn new(page: &Page) -> Result<Self, InputError> {
        polestar_store::install_tls();
        let runtime = runtime().map_err(|source| InputError::Read {
            path: page.shown.clone(),
            source,
        })?;
        let client = Client::builder()
            .user_agent(concat!("polestar/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(60))
            .build();
        let client = client.map_err(|error| network(page, error))?;
        Ok(Self { runtime, client })
    }

    /// The server's answer, from a byte on if it can; a few times if it is busy.
    pub(super) fn ask(&self, page: &Page, from: u64) -> Result<Response, InputError> {
        let mut wait = WAIT;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut request = self.client.get(page.url.clone());
            if let Some(token) = &page.token {
                request = request.bearer_auth(token);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let answer = self.runtime.block_on(async { request.send().await });
            let passing = match &answer {
                Ok(response) => {
                    let status = response.status();
                    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
                }
                Err(error) => error.is_timeout(),
            };
            if !passing || attempt == TRIES {
                let response = answer.map_err(|error| network(page, error))?;
                return good(page, response);
            }
            self.runtime
                .block_on(async { tokio::time::sleep(wait).await });
            wait *= 2;
        }
    }

    /// A whole answer that is small.
    pub(super) fn body(&self, page: &Page) -> Result<Bytes, InputError> {
        let response = self.ask(page, 0)?;
        let body = self.runtime.block_on(response.bytes());
        body.map_err(|error| network(page, error))
    }
}

fn network(page: &Page, error: reqwest::Error) -> InputError {
    InputError::Network {
        path: page.shown.clone(),
        // The client's message quotes the URL.
        source: error.without_url().into(),
    }
}

fn good(page: &Page, response: Response) -> Result<Response, InputError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let what = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => "there is nothing at this address",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "the server wants to know who asks; give a URL that carries its permission, or \
             download the file and name that"
        }
        _ => "the server refuses to give it",
    };
    Err(InputError::Web {
        path: page.shown.clone(),
        answer: format!("{what} ({status})"),
    })
}

impl Page {
    /// Its body from the first byte to the last.
    pub(super) fn open(&self) -> Result<Source<'static>, InputError> {
        let asking = Asking::new(self)?;
        let response = asking.ask(self, 0)?;
        Ok(Box::new(Body {
            page: self.clone(),
            asking,
            response,
            at: 0,
            chunk: Bytes::new(),
            broken: 0,
        }))
    }
}

/// A body that is asked for again from where it broke off.
struct Body {
    page: Page,
    asking: Asking,
    response: Response,
    /// Bytes that have come.
    at: u64,
    chunk: Bytes,
    /// Times that it broke off without a byte in between.
    broken: u32,
}

impl Body {
    /// The next bytes; none at the end.
    fn next(&mut self) -> io::Result<Bytes> {
        loop {
            match self.asking.runtime.block_on(self.response.chunk()) {
                Ok(chunk) => {
                    let chunk = chunk.unwrap_or_default();
                    self.at += chunk.len() as u64;
                    self.broken = 0;
                    return Ok(chunk);
                }
                Err(error) if self.broken + 1 == TRIES => {
                    return Err(io::Error::other(error.without_url()));
                }
                Err(_) => {
                    self.broken += 1;
                    self.again()?;
                }
            }
        }
    }

    /// Asks for the rest.
    fn again(&mut self) -> io::Result<()> {
        let asked = self.asking.ask(&self.page, self.at);
        self.response = asked.map_err(io::Error::other)?;
        if self.response.status() == StatusCode::PARTIAL_CONTENT {
            return Ok(());
        }
        // The server begins anew: what is known already is passed over.
        let mut known = self.at;
        while known > 0 {
            let chunk = self.asking.runtime.block_on(self.response.chunk());
            let chunk = chunk.map_err(|error| io::Error::other(error.without_url()))?;
            let Some(mut chunk) = chunk else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let old = known.min(chunk.len() as u64);
            chunk.advance(old as usize);
            known -= old;
            self.at += chunk.len() as u64;
            self.chunk = chunk;
        }
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            let chunk = self.next()?;
            // Beginning anew may have brought some already.
            self.chunk = match std::mem::take(&mut self.chunk) {
                known if known.is_empty() => chunk,
                known => [known, chunk].concat().into(),
            };
        }
        let length = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
