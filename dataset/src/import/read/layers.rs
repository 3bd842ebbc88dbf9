//! Bytes within bytes: compressed, or in another encoding.

use std::io::{self, BufRead, BufReader, Read};

use super::sniff::Packing;

/// Bytes, wherever they come from.
pub(super) type Source<'a> = Box<dyn Read + 'a>;

/// zstd's largest window: archives of text are often packed with more than the default limit.
const ZSTD_WINDOW_LOG: u32 = 31;
/// More than the largest preset of xz needs, and a bound for made-up headers.
const XZ_MEMORY: u64 = 2 << 30;
/// Compressed bytes that are read at a time.
const BUFFER: usize = 1 << 18;

/// What went wrong inside of compressed data.
#[derive(Debug, thiserror::Error)]
#[error("{what} are damaged: {why}")]
pub(super) struct Damage {
    /// "its gzip data".
    pub(super) what: &'static str,
    /// They end early.
    pub(super) cut: bool,
    pub(super) why: String,
}

/// An error of what the bytes come from: no fault of theirs.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Outside(pub(super) io::Error);

impl Packing {
    fn data(self) -> &'static str {
        match self {
            Self::Gzip => "its gzip data",
            Self::Zstd => "its zstd data",
            Self::Xz => "its xz data",
            Self::Bzip2 => "its bzip2 data",
        }
    }
}

/// What is packed in a source.
pub(super) fn unpacked(source: Source<'_>, packing: Packing) -> io::Result<Source<'_>> {
    let source = BufReader::with_capacity(BUFFER, source);
    let inner: Source<'_> = match packing {
        Packing::Gzip => Box::new(Gzip::new(source)),
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Packing::Xz => {
            let concatenated = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, concatenated)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
        }
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
    };
    let what = packing.data();
    Ok(Box::new(Named { inner, what }))
}

/// Says of an error whose data it is in.
struct Named<'a> {
    inner: Source<'a>,
    what: &'static str,
}

impl Read for Named<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let known = error
                .get_ref()
                .is_some_and(|inner| inner.is::<Damage>() || inner.is::<Outside>());
            if known || error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let why = error.to_string();
            let cut = error.kind() == io::ErrorKind::UnexpectedEof
                || why.contains("incomplete")
                || why.contains("premature");
            let what = self.what;
            io::Error::other(Damage { what, cut, why })
        })
    }
}

/// gzip of any number of members, which zeros may follow: tapes and block devices pad with them.
struct Gzip<R> {
    state: Member<R>,
}

enum Member<R> {
    Within(Box<flate2::bufread::GzDecoder<R>>),
    Ended,
}

impl<R: BufRead> Gzip<R> {
    fn new(source: R) -> Self {
        let state = Member::Within(Box::new(flate2::bufread::GzDecoder::new(source)));
        Self { state }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Member::Within(decoder) = &mut self.state else {
                return Ok(0);
            };
            let length = decoder.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            let Member::Within(decoder) = std::mem::replace(&mut self.state, Member::Ended) else {
                return Ok(0);
            };
            let mut source = decoder.into_inner();
            if begins_member(&mut source)? {
                self.state = Member::Within(Box::new(flate2::bufread::GzDecoder::new(source)));
            }
        }
    }
}

/// Goes over zeros; whether another member follows.
fn begins_member(source: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = source.fill_buf()?;
        let Some(&first) = bytes.first() else {
            return Ok(false);
        };
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        match (zeros, first) {
            (0, 0x1f) => return Ok(true),
            (0, _) => {
                let why = "something that is no gzip follows the last member";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            _ => source.consume(zeros),
        }
    }
}

/// UTF-16 as UTF-8, without its byte order mark. What is no UTF-16 becomes U+FFFD, as everywhere.
pub(super) fn utf16(source: Source<'_>, big_endian: bool) -> Source<'_> {
    let encoding = match big_endian {
        true => encoding_rs::UTF_16BE,
        false => encoding_rs::UTF_16LE,
    };
    let decoder = encoding_rs_io::DecodeReaderBytesBuilder::new()
        .encoding(Some(encoding))
        .build(source);
    Box::new(decoder)
}
