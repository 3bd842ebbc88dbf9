//! From an input to records: layer by layer, until bytes are of a format that holds some.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::expand::{Input, Location, Skipped};
use super::layers::{self, Damage, Outside, Source};
use super::record::RawRecord;
use super::sniff::{self, Kind};
use super::{InputError, Sink, Wanted, archive, arrow, delimited, lines, objects, parquet};

/// Layers of compression and archives around data; more are no accident.
const LAYERS: usize = 5;

/// What went wrong, before the input's name is said.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Cut {
        what: &'static str,
        place: String,
    },
    Damaged(String),
    Long(String),
    Mistaken(String),
    Unknown(String),
    Unsupported(String),
    Copy(io::Error),
    /// Said already.
    Said(InputError),
}

impl Fault {
    /// Of an error while reading, at a place in it.
    pub(super) fn at(error: io::Error, place: &str) -> Self {
        let inner = error.get_ref();
        match inner.and_then(|inner| inner.downcast_ref::<Damage>()) {
            Some(Damage {
                what, cut: true, ..
            }) => Self::Cut {
                what,
                place: format!("in the middle, {place}"),
            },
            Some(Damage { what, why, .. }) => {
                Self::Damaged(format!("{what} are wrong {place} ({why})"))
            }
            None => Self::Read(error),
        }
    }

    fn of(self, input: &Input) -> InputError {
        let path = input.shown.clone();
        match self {
            Self::Read(source) => InputError::Read { path, source },
            Self::Cut { what, place } => InputError::Cut { path, what, place },
            Self::Damaged(what) => InputError::Damaged { path, what },
            Self::Long(place) => InputError::Long {
                path,
                place,
                mib: (super::RECORD_BYTES >> 20) as u64,
            },
            Self::Mistaken(what) => InputError::Mistaken { path, what },
            Self::Unknown(begins) => InputError::Unknown { path, begins },
            Self::Unsupported(what) => InputError::Unsupported { path, what },
            Self::Copy(source) => InputError::Copy {
                path,
                folder: input.temp.to_path_buf(),
                source,
            },
            Self::Said(error) => error,
        }
    }

    /// Said of a member of an archive.
    pub(super) fn within(self, member: &str) -> Self {
        let of = |text: String| format!("its member {member}: {text}");
        match self {
            Self::Damaged(what) => Self::Damaged(of(what)),
            Self::Long(place) => Self::Long(format!("{place} of its member {member}")),
            Self::Cut { what, place } => Self::Cut {
                what,
                place: format!("{place} of its member {member}"),
            },
            Self::Mistaken(what) => {
                Self::Mistaken(format!("an archive whose member {member} is {what}"))
            }
            Self::Unknown(begins) => Self::Unknown(format!("{begins} in its member {member}")),
            Self::Unsupported(what) => Self::Unsupported(of(what)),
            other => other,
        }
    }
}

/// Bytes of an input that are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Consumed(Arc<AtomicU64>);

impl Consumed {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// The reading of one input.
pub(super) struct Reading<'a> {
    input: &'a Input,
    pub(super) wanted: &'a Wanted,
    consumed: Consumed,
    /// Members of archives that were left out.
    pub(super) skipped: Vec<Skipped>,
    /// Of archives within archives, those that are being read.
    members: Vec<String>,
    layers: usize,
}

/// Where bytes come from: Parquet, Arrow files and zip need to go to and fro.
enum Bytes<'a> {
    File(File),
    Stream(Source<'a>),
}

impl<'a> Reading<'a> {
    pub(super) fn new(input: &'a Input, wanted: &'a Wanted) -> Self {
        Self {
            input,
            wanted,
            consumed: Consumed::default(),
            skipped: vec![],
            members: vec![],
            layers: 0,
        }
    }

    pub(super) fn consumed(&self) -> Consumed {
        self.consumed.clone()
    }

    pub(super) fn run(&mut self, sink: Sink<'_>) -> Result<(), InputError> {
        let mut stopped = false;
        let mut watched = |records| {
            stopped = !sink(records);
            !stopped
        };
        let ended = self
            .open()
            .and_then(|bytes| self.bytes(bytes, &mut watched));
        ended.map_err(|fault| fault.of(self.input))?;
        if let Some(bytes) = self.input.bytes.filter(|_| !stopped) {
            // What says where things are was read too.
            self.consumed.set(bytes);
        }
        Ok(())
    }

    fn open(&self) -> Result<Bytes<'a>, Fault> {
        let path: &Path = match &self.input.location {
            Location::File(path) => path,
            Location::Spooled(path) => path,
            Location::Store(object) => return Ok(self.stream(object.open().map_err(Fault::Said)?)),
            Location::Web(page) => return Ok(self.stream(page.open().map_err(Fault::Said)?)),
        };
        File::open(path).map(Bytes::File).map_err(Fault::Read)
    }

    fn stream(&self, source: Source<'a>) -> Bytes<'a> {
        Bytes::Stream(Box::new(Counted {
            inner: source,
            consumed: self.consumed(),
        }))
    }

    /// Reads bytes of any kind.
    fn bytes(&mut self, bytes: Bytes<'_>, sink: Sink<'_>) -> Result<(), Fault> {
        let mut source = match bytes {
            Bytes::File(mut file) => {
                match look(&mut file)?.kind() {
                    Kind::Parquet => return parquet::read(file, self, sink),
                    Kind::ArrowFile => return arrow::file(file, self, sink),
                    Kind::Zip => return archive::zip(file, self, sink),
                    _ => {}
                }
                file.rewind().map_err(Fault::Read)?;
                let consumed = self.consumed();
                Box::new(Counted {
                    inner: Box::new(file),
                    consumed,
                }) as Source<'_>
            }
            Bytes::Stream(source) => source,
        };
        let looked = look(&mut source)?;
        let kind = looked.kind();
        let head = io::Cursor::new(looked.head.clone());
        let rest: Source<'_> = match looked.tail {
            Tail::Whole => Box::new(head),
            Tail::More => Box::new(head.chain(source)),
            Tail::Failed(error) => Box::new(head.chain(Failing(Some(error)))),
        };
        self.kind(kind, &looked.head, rest, sink)
    }

    /// Reads a stream whose kind is known. `head`: what it begins with.
    fn kind(
        &mut self,
        kind: Kind,
        head: &[u8],
        mut source: Source<'_>,
        sink: Sink<'_>,
    ) -> Result<(), Fault> {
        match kind {
            Kind::Empty => Ok(()),
            Kind::Packed(packing) => {
                let inner = layers::unpacked(source, packing).map_err(Fault::Read)?;
                self.layer(inner, sink)
            }
            Kind::Utf16 { big_endian } => self.layer(layers::utf16(source, big_endian), sink),
            Kind::Tar => archive::tar(source, self, sink),
            Kind::Zip | Kind::Parquet | Kind::ArrowFile => {
                let file = self.copy(&mut source)?;
                self.bytes(Bytes::File(file), sink)
            }
            Kind::ArrowStream => arrow::stream(source, self, sink),
            Kind::Lines => lines::lines(without_mark(head, source)?, sink),
            Kind::Objects => objects::objects(without_mark(head, source)?, sink),
            Kind::Delimited(delimiter) => {
                delimited::read(without_mark(head, source)?, delimiter, sink)
            }
            Kind::Mistaken(what) => Err(Fault::Mistaken(what)),
            Kind::Unknown => Err(Fault::Unknown(sniff::shown(head))),
        }
    }

    /// Reads what is within what was read so far.
    pub(super) fn layer(&mut self, source: Source<'_>, sink: Sink<'_>) -> Result<(), Fault> {
        if self.layers == LAYERS {
            let what = format!("it is packed more than {LAYERS} times over; unpack it first");
            return Err(Fault::Unsupported(what));
        }
        self.layers += 1;
        let ended = self.bytes(Bytes::Stream(source), sink);
        self.layers -= 1;
        ended
    }

    /// Reads a member of an archive; its records say so.
    pub(super) fn member(
        &mut self,
        name: &str,
        source: Source<'_>,
        sink: Sink<'_>,
    ) -> Result<(), Fault> {
        let shared: Arc<str> = name.into();
        let mut named = |mut records: Vec<RawRecord>| {
            for record in &mut records {
                let inner = record.place.member.take();
                record.place.member = Some(match inner {
                    Some(inner) => format!("{name}/{inner}").into(),
                    None => Arc::clone(&shared),
                });
            }
            sink(records)
        };
        self.members.push(name.to_owned());
        let ended = self.layer(source, &mut named);
        self.members.pop();
        ended.map_err(|fault| fault.within(name))
    }

    /// How a member of the archive that is being read is called in a list of inputs.
    pub(super) fn member_name(&self, name: &str) -> String {
        let mut shown = self.input.shown.clone();
        for outer in &self.members {
            shown = format!("{shown}/{outer}");
        }
        format!("{shown}/{name}")
    }

    /// A temporary file of what a stream holds, which is gone when it is closed.
    fn copy(&self, source: &mut Source<'_>) -> Result<File, Fault> {
        let folder: &Path = &self.input.temp;
        let mut file = std::fs::create_dir_all(folder)
            .and_then(|()| tempfile::tempfile_in(folder))
            .map_err(Fault::Copy)?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let length = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Fault::at(error, "while it was copied")),
            };
            io::Write::write_all(&mut file, &buffer[..length]).map_err(Fault::Copy)?;
        }
        file.rewind().map_err(Fault::Copy)?;
        Ok(file)
    }

    /// Bytes of the input, where they are known and it is read directly: what a reader that goes to and fro
    /// divides by its rows.
    pub(super) fn direct(&self) -> Option<u64> {
        let is_file = matches!(
            self.input.location,
            Location::File(_) | Location::Spooled(_)
        );
        (self.layers == 0 && is_file)
            .then_some(self.input.bytes)
            .flatten()
    }
}

/// What a source begins with, and what comes after.
struct Looked {
    head: Vec<u8>,
    tail: Tail,
}

enum Tail {
    /// Nothing: the head is all there is.
    Whole,
    More,
    /// What lies in the head is good all the same.
    Failed(io::Error),
}

impl Looked {
    /// What can't be told by so much is told as if it were all.
    fn kind(&self) -> Kind {
        let whole = !matches!(self.tail, Tail::More);
        let kind = sniff::kind(&self.head, whole).or_else(|| sniff::kind(&self.head, true));
        match kind {
            // Nothing but blanks so far; lines of them are passed over.
            Some(Kind::Empty) if !whole => Kind::Lines,
            kind => kind.unwrap_or(Kind::Unknown),
        }
    }
}

/// Reads as much as is needed to know what it is.
fn look(source: &mut impl Read) -> Result<Looked, Fault> {
    let (mut head, mut aim) = (Vec::new(), sniff::HEAD);
    loop {
        let more = aim - head.len();
        let tail = match source.by_ref().take(more as u64).read_to_end(&mut head) {
            Err(error) if head.is_empty() => return Err(Fault::at(error, "at the start")),
            Err(error) => Tail::Failed(error),
            Ok(read) if read < more => Tail::Whole,
            Ok(_) => Tail::More,
        };
        let known = || sniff::kind(&head, false).is_some();
        if !matches!(tail, Tail::More) || head.len() >= sniff::LONG_HEAD || known() {
            return Ok(Looked { head, tail });
        }
        aim = (aim * 4).min(sniff::LONG_HEAD);
    }
}

/// Fails where another reader failed.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// The source past its byte order mark.
fn without_mark<'a>(head: &[u8], mut source: Source<'a>) -> Result<Source<'a>, Fault> {
    let mark = super::json::BOM;
    if head.starts_with(mark) {
        source.read_exact(&mut [0; 3]).map_err(Fault::Read)?;
    }
    Ok(source)
}

/// Counts the bytes that are read, and marks errors as those of the place they come from.
struct Counted<'a> {
    inner: Source<'a>,
    consumed: Consumed,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self
            .inner
            .read(buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::Interrupted => error,
                // Some decoders take an early end for a late one.
                _ => io::Error::other(Outside(error)),
            })?;
        self.consumed.0.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
