//! What bytes are, by the first of them.

use super::delimited;

/// What an input begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, or white space only.
    Empty,
    Packed(Packing),
    Zip,
    Tar,
    Parquet,
    ArrowFile,
    ArrowStream,
    /// UTF-16, with a byte order mark or without.
    Utf16 {
        big_endian: bool,
    },
    /// One JSON object a line.
    Lines,
    /// JSON objects in a list, on several lines, or several on one.
    Objects,
    /// CSV and its kin, with what stands between the columns.
    Delimited(u8),
    /// Something else, by name: completes "… is".
    Mistaken(String),
    Unknown,
}

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

/// Enough to know every kind but the shape of JSON whose first object is longer.
pub(super) const HEAD: usize = 64 << 10;
/// Where longer objects are looked at, to see where the first one ends.
pub(super) const LONG_HEAD: usize = 32 << 20;

/// The kind of what begins so; `None` if more has to be seen. `whole`: there is no more.
pub(super) fn kind(head: &[u8], whole: bool) -> Option<Kind> {
    if let Some(kind) = magic(head) {
        return Some(kind);
    }
    if let Some(big_endian) = utf16(head) {
        return Some(Kind::Utf16 { big_endian });
    }
    let text = head.strip_prefix(super::json::BOM).unwrap_or(head);
    let text = text.trim_ascii_start();
    match text.first() {
        None if whole => return Some(Kind::Empty),
        None => return None,
        // A record separator begins each object of a JSON text sequence.
        Some(b'[' | 0x1e) => return Some(Kind::Objects),
        Some(b'{') => return shape(text, whole),
        Some(_) => {}
    }
    if let Some(what) = text_by_mistake(text) {
        return Some(Kind::Mistaken(what.to_owned()));
    }
    if second_line_is_object(text) {
        return Some(Kind::Lines);
    }
    let delimiter = delimited::delimiter(text, whole);
    Some(delimiter.map_or(Kind::Unknown, Kind::Delimited))
}

fn magic(head: &[u8]) -> Option<Kind> {
    let is = |magic: &[u8]| head.starts_with(magic);
    let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == *b"\x2a\x4d\x18";
    let bzip2 = is(b"BZh")
        && head.len() >= 10
        && (head[4..10] == *b"\x31\x41\x59\x26\x53\x59"
            || head[4..10] == *b"\x17\x72\x45\x38\x50\x90");
    Some(match () {
        () if is(b"\x1f\x8b") => Kind::Packed(Packing::Gzip),
        () if is(b"\x28\xb5\x2f\xfd") || skippable => Kind::Packed(Packing::Zstd),
        () if is(b"\xfd7zXZ\x00") => Kind::Packed(Packing::Xz),
        () if bzip2 => Kind::Packed(Packing::Bzip2),
        () if is(b"PK\x03\x04") || is(b"PK\x05\x06") => Kind::Zip,
        () if is(b"PAR1") => Kind::Parquet,
        () if is(b"ARROW1") => Kind::ArrowFile,
        () if is(b"\xff\xff\xff\xff") && head.len() >= 8 && head[7] == 0 => Kind::ArrowStream,
        () if head.get(257..262) == Some(b"ustar") => Kind::Tar,
        () => return binary_by_mistake(head).map(|what| Kind::Mistaken(what.to_owned())),
    })
}

/// Files of other kinds that are taken for data.
const BINARY: [(&[u8], &str); 22] = [
    (
        b"PARE",
        "an encrypted Parquet file; write it without encryption",
    ),
    (
        b"FEA1",
        "a Feather file of the first version; write it as Parquet or as Feather of version 2",
    ),
    (
        b"\x93NUMPY",
        "a NumPy array; write the rows as JSON lines or Parquet",
    ),
    (
        b"SQLite format 3\0",
        "an SQLite database; export the table as CSV or JSON lines",
    ),
    (b"%PDF", "a PDF document, not data"),
    (
        b"\x89HDF\r\n",
        "an HDF5 file; write the rows as JSON lines or Parquet",
    ),
    (b"ORC", "an ORC file; write it as Parquet"),
    (
        b"Obj\x01",
        "an Avro file; write it as Parquet or JSON lines",
    ),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (
        b"\x04\x22\x4d\x18",
        "compressed with lz4; unpack it first with `lz4 -d`",
    ),
    (
        b"\xff\x06\x00\x00sNaPpY",
        "compressed with Snappy; unpack it first",
    ),
    (
        b"\x1f\x9d",
        "compressed with `compress`; unpack it first with `gzip -d`",
    ),
    (
        b"LZIP",
        "compressed with lzip; unpack it first with `lzip -d`",
    ),
    (b"GGUF", "a model of GGUF, not data"),
    (b"\x7fELF", "a program, not data"),
    (b"\x89PNG", "a picture (PNG), not data"),
    (b"\xff\xd8\xff", "a picture (JPEG), not data"),
    (b"GIF8", "a picture (GIF), not data"),
    (
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9",
        "a PyTorch file; write the rows as JSON lines or Parquet",
    ),
    (
        b"\xd0\xcf\x11\xe0",
        "an old Office document; export the sheet as CSV",
    ),
    (b"RIFF", "sound or video, not data"),
];

fn binary_by_mistake(head: &[u8]) -> Option<&'static str> {
    let known = BINARY.iter().find(|(magic, _)| head.starts_with(magic));
    if let Some((_, what)) = known {
        return Some(what);
    }
    // A pickle says its protocol first, and ends with a dot; from protocol 4 on it comes in frames.
    let pickle = match head {
        [0x80, 2 | 3, op, ..] => b"}]()cXU\x8a\x8cqK".contains(op),
        [0x80, 4 | 5, 0x95, ..] => true,
        _ => false,
    };
    if pickle {
        return Some("a Python pickle; write the rows as JSON lines or Parquet");
    }
    // Safetensors: the length of a JSON header, and the header.
    let (length, header) = head.split_first_chunk::<8>()?;
    let plausible = (2..1 << 32).contains(&u64::from_le_bytes(*length));
    (plausible && header.starts_with(b"{\""))
        .then_some("a safetensors file: weights of a model, not data")
}

fn text_by_mistake(text: &[u8]) -> Option<&'static str> {
    let begins = text[..text.len().min(64)].to_ascii_lowercase();
    let is = |word: &str| begins.starts_with(word.as_bytes());
    match () {
        () if is("version https://git-lfs") => Some(
            "a Git LFS pointer, not the data it stands for; run `git lfs pull` in its repository",
        ),
        () if is("<!doctype html") || is("<html") || is("<head") || is("<body") => Some(
            "an HTML page, not data: perhaps a login or error page was saved; download the file \
             itself",
        ),
        () if is("<?xml") || is("<error>") => {
            Some("an XML document, not data: perhaps the error message of a store was saved")
        }
        () if is("%!ps") => Some("a PostScript document, not data"),
        () if is("#!/") => Some("a script, not data"),
        () => None,
    }
}

/// Whether it is UTF-16, and big-endian.
fn utf16(head: &[u8]) -> Option<bool> {
    match head {
        [0xff, 0xfe, ..] => Some(false),
        [0xfe, 0xff, ..] => Some(true),
        [b'{' | b'[' | b'"', 0, second, 0, ..] if *second != 0 => Some(false),
        [0, b'{' | b'[' | b'"', 0, second, ..] if *second != 0 => Some(true),
        _ => None,
    }
}

/// Whether a text that begins with an object has one on each line.
fn shape(text: &[u8], whole: bool) -> Option<Kind> {
    let Some((end, broken)) = first_object(text, whole) else {
        // A long first line is a long row.
        let settled = whole || text.len() >= LONG_HEAD - super::json::BOM.len();
        return settled.then_some(Kind::Lines);
    };
    if let Some(newline) = broken {
        // It goes on after a newline: printed over several lines, or a damaged first line.
        let before = text[..newline].trim_ascii_end().last();
        let printed = matches!(before, Some(b'{' | b'[' | b',' | b':'));
        let next = text[newline + 1..].split(|b| *b == b'\n').next();
        let next = next.unwrap_or_default().trim_ascii();
        let damaged = !printed && next.starts_with(b"{") && super::json::is_value(next);
        return Some(if damaged { Kind::Lines } else { Kind::Objects });
    }
    let after = &text[end..];
    let blank = after
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    match &after[blank..] {
        [] if whole => Some(Kind::Lines),
        [] => None,
        [b'\n', ..] | [b'\r', b'\n', ..] => Some(Kind::Lines),
        // Something else follows: a line that is wrong, unless it is another object.
        [b'{' | b',' | b'\r' | 0x1e, ..] => Some(Kind::Objects),
        _ => Some(Kind::Lines),
    }
}

/// Where the first object ends, if that can be seen, and the newline within it if there is one; a newline in
/// a text ends the search, since no JSON has that.
fn first_object(text: &[u8], whole: bool) -> Option<(usize, Option<usize>)> {
    let (mut depth, mut in_string, mut escaped, mut newline) = (0_usize, false, false, None);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'\n' if in_string => return Some((at, Some(newline.unwrap_or(at)))),
            _ if in_string => {}
            b'\n' => newline = newline.or(Some(at)),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some((at + 1, newline));
                }
            }
            _ => {}
        }
    }
    // What a newline interrupts can be judged where enough follows.
    let enough = whole || text.len() >= HEAD / 2;
    newline.filter(|_| enough).map(|at| (text.len(), Some(at)))
}

/// Whether the first line alone is wrong.
fn second_line_is_object(text: &[u8]) -> bool {
    let mut lines = text.split(|b| *b == b'\n').skip(1);
    let mut next = || lines.find(|line| !line.trim_ascii().is_empty());
    next().is_some_and(|line| {
        line.trim_ascii_start().starts_with(b"{") && super::json::is_value(line)
    })
}

/// The first bytes, for an error.
pub(super) fn shown(head: &[u8]) -> String {
    let head = &head[..head.len().min(24)];
    let text = std::str::from_utf8(head).ok().or_else(|| {
        // A character may be cut through.
        (1..4).find_map(|cut| std::str::from_utf8(head.get(..head.len().checked_sub(cut)?)?).ok())
    });
    match text {
        Some(text)
            if !text.is_empty() && text.chars().all(|c| !c.is_control() || c.is_whitespace()) =>
        {
            format!("{text:?}")
        }
        _ => {
            let bytes: Vec<String> = head.iter().take(12).map(|b| format!("{b:02x}")).collect();
            format!("the bytes {}", bytes.join(" "))
        }
    }
}
