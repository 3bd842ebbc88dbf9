//! Every format within every layer gives the rows that were written.

use super::*;
use arrow_array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use std::sync::Arc;

/// What is around a format: a name, and how it is put around.
type Layer = (&'static str, fn(&[u8]) -> Vec<u8>);

fn table(rows: &[Map<String, Value>]) -> RecordBatch {
    let text = |name: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter(
            rows.iter().map(|row| row[name].as_str()),
        ))
    };
    let numbers = rows.iter().map(|row| row["sample"].as_i64());
    let tags = rows.iter().map(|row| {
        let tags = row["tags"].as_array().unwrap();
        Some(vec![Some(tags.len() as i64)])
    });
    let tags = ListArray::from_iter_primitive::<arrow_array::types::Int64Type, _, _>(tags);
    RecordBatch::try_from_iter([
        ("policy", text("policy")),
        ("prompt", text("prompt")),
        ("response", text("response")),
        ("sample", Arc::new(Int64Array::from_iter(numbers)) as _),
        ("tags", Arc::new(tags) as _),
    ])
    .unwrap()
}

/// What the table holds.
fn of_table(rows: &[Map<String, Value>]) -> Vec<Map<String, Value>> {
    let mut rows = rows.to_vec();
    for row in &mut rows {
        row["tags"] = json!([2]);
    }
    rows
}

pub(super) fn parquet(
    rows: &[Map<String, Value>],
    compression: parquet::basic::Compression,
) -> Vec<u8> {
    let table = table(rows);
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(300))
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).unwrap();
    writer.write(&table).unwrap();
    writer.close().unwrap();
    bytes
}

pub(super) fn arrow_file(
    rows: &[Map<String, Value>],
    packed: Option<arrow_ipc::CompressionType>,
) -> Vec<u8> {
    let table = table(rows);
    let options = arrow_ipc::writer::IpcWriteOptions::default()
        .try_with_compression(packed)
        .unwrap();
    let mut writer =
        arrow_ipc::writer::FileWriter::try_new_with_options(Vec::new(), &table.schema(), options)
            .unwrap();
    writer.write(&table).unwrap();
    writer.into_inner().unwrap()
}

pub(super) fn arrow_stream(rows: &[Map<String, Value>]) -> Vec<u8> {
    let table = table(rows);
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &table.schema()).unwrap();
    writer.write(&table).unwrap();
    writer.write(&table.slice(0, 0)).unwrap();
    writer.into_inner().unwrap()
}

pub(super) fn delimited(rows: &[Map<String, Value>], delimiter: u8) -> Vec<u8> {
    let rows = as_text(rows);
    let mut writer = csv::WriterBuilder::new()
        .delimiter(delimiter)
        .from_writer(Vec::new());
    writer.write_record(rows[0].keys()).unwrap();
    for row in &rows {
        writer
            .write_record(row.values().map(|value| value.as_str().unwrap()))
            .unwrap();
    }
    writer.into_inner().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

pub(super) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn utf16(text: &[u8], unit: fn(u16) -> [u8; 2], mark: bool) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    let units = mark
        .then_some(0xfeff)
        .into_iter()
        .chain(text.encode_utf16());
    units.flat_map(unit).collect()
}

/// Bytes in a form, by its name, and the rows that are in them.
struct Form {
    name: &'static str,
    bytes: Vec<u8>,
    rows: Vec<Map<String, Value>>,
}

pub(super) fn json_forms(rows: &[Map<String, Value>]) -> Vec<(&'static str, Vec<u8>)> {
    let objects: Vec<Value> = rows.iter().cloned().map(Value::Object).collect();
    let plain = lines(rows);
    let join = |between: &str, pretty: bool| {
        let texts: Vec<String> = objects
            .iter()
            .map(|object| match pretty {
                true => serde_json::to_string_pretty(object).unwrap(),
                false => object.to_string(),
            })
            .collect();
        texts.join(between).into_bytes()
    };
    let text = String::from_utf8(plain.clone()).unwrap();
    vec![
        ("lines", plain.clone()),
        (
            "lines without the last newline",
            plain[..plain.len() - 1].to_vec(),
        ),
        ("lines with \\r\\n", text.replace('\n', "\r\n").into_bytes()),
        (
            "lines with blank ones",
            text.replace('\n', "\n \n\n").into_bytes(),
        ),
        ("lines with a mark", [&b"\xef\xbb\xbf"[..], &plain].concat()),
        ("lines of two files with marks", {
            let (first, second) = text.split_at(text.find('\n').unwrap() + 1);
            ["\u{feff}", first, "\u{feff}", second]
                .concat()
                .into_bytes()
        }),
        ("UTF-16", utf16(&plain, u16::to_le_bytes, true)),
        ("big-endian UTF-16", utf16(&plain, u16::to_be_bytes, true)),
        (
            "UTF-16 without a mark",
            utf16(&plain, u16::to_le_bytes, false),
        ),
        ("a list", serde_json::to_vec(&objects).unwrap()),
        (
            "a pretty list",
            serde_json::to_vec_pretty(&objects).unwrap(),
        ),
        ("pretty objects", join("\n", true)),
        ("objects without newlines", join("", false)),
        ("objects with spaces", join(" ", false)),
        (
            "a text sequence",
            [&b"\x1e"[..], &join("\n\x1e", false)].concat(),
        ),
    ]
}

fn forms(rows: &[Map<String, Value>]) -> Vec<Form> {
    use arrow_ipc::CompressionType as Packed;
    use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
    let mut forms: Vec<Form> = json_forms(rows)
        .into_iter()
        .map(|(name, bytes)| Form {
            name,
            bytes,
            rows: rows.to_vec(),
        })
        .collect();
    let delimiters = [
        ("CSV", b','),
        ("TSV", b'\t'),
        ("CSV with semicolons", b';'),
        ("bars", b'|'),
    ];
    for (name, delimiter) in delimiters {
        forms.push(Form {
            name,
            bytes: delimited(rows, delimiter),
            rows: as_text(rows),
        });
    }
    let tables = [
        ("Parquet", parquet(rows, Compression::UNCOMPRESSED)),
        ("Parquet with snappy", parquet(rows, Compression::SNAPPY)),
        (
            "Parquet with gzip",
            parquet(rows, Compression::GZIP(GzipLevel::default())),
        ),
        (
            "Parquet with brotli",
            parquet(rows, Compression::BROTLI(BrotliLevel::default())),
        ),
        ("Parquet with lz4", parquet(rows, Compression::LZ4)),
        ("Parquet with raw lz4", parquet(rows, Compression::LZ4_RAW)),
        (
            "Parquet with zstd",
            parquet(rows, Compression::ZSTD(ZstdLevel::default())),
        ),
        ("Arrow file", arrow_file(rows, None)),
        (
            "Arrow file with lz4",
            arrow_file(rows, Some(Packed::LZ4_FRAME)),
        ),
        ("Arrow file with zstd", arrow_file(rows, Some(Packed::ZSTD))),
        ("Arrow stream", arrow_stream(rows)),
    ];
    for (name, bytes) in tables {
        forms.push(Form {
            name,
            bytes,
            rows: of_table(rows),
        });
    }
    forms
}

fn same(place: &Place, what: &str, bytes: &[u8], rows: &[Map<String, Value>]) {
    let read = place.read(bytes);
    assert_eq!(read.error, None, "{what}");
    assert!(
        read.malformed.is_empty(),
        "{what}: {:?}",
        read.malformed.first()
    );
    assert_eq!(read.values.len(), rows.len(), "{what}");
    for (read, row) in read.values.iter().zip(rows) {
        assert_eq!(read, row, "{what}");
    }
    assert_eq!(read.repairs, 0, "{what}");
}

#[test]
fn every_format_in_every_layer_gives_the_same_rows() {
    let place = Place::new();
    let rows = rows(700);
    for Form { name, bytes, rows } in forms(&rows) {
        same(&place, name, &bytes, &rows);
        let layers: [Layer; 4] = [("gzip", gzip), ("zstd", zstd), ("xz", xz), ("bzip2", bzip2)];
        for (layer, pack) in layers {
            same(&place, &format!("{name} in {layer}"), &pack(&bytes), &rows);
        }
        let twice = gzip(&zstd(&bytes));
        same(&place, &format!("{name} in zstd in gzip"), &twice, &rows);
        let members: [(&str, &[u8]); 1] = [("in", &bytes)];
        same(&place, &format!("{name} in zip"), &zip(&members), &rows);
        same(&place, &format!("{name} in tar"), &tar(&members), &rows);
        same(
            &place,
            &format!("{name} in tar in gzip"),
            &gzip(&tar(&members)),
            &rows,
        );
    }
}

#[test]
fn layers_may_come_in_pieces() {
    let place = Place::new();
    let rows = rows(90);
    let text = lines(&rows);
    let middle = text.len() / 3;
    let pieces =
        |pack: fn(&[u8]) -> Vec<u8>| [pack(&text[..middle]), pack(&text[middle..])].concat();
    same(&place, "gzip of two members", &pieces(gzip), &rows);
    same(&place, "zstd of two frames", &pieces(zstd), &rows);
    same(&place, "xz of two streams", &pieces(xz), &rows);
    same(&place, "bzip2 of two streams", &pieces(bzip2), &rows);

    let padded = [pieces(gzip), vec![0; 4096]].concat();
    same(&place, "gzip with zeros after it", &padded, &rows);
    let skippable: [&[u8]; 3] = [
        b"\x50\x2a\x4d\x18\x04\0\0\0abcd",
        &pieces(zstd),
        b"\x5f\x2a\x4d\x18\0\0\0\0",
    ];
    same(
        &place,
        "zstd with skippable frames",
        &skippable.concat(),
        &rows,
    );
    let mut wide = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(28).unwrap();
    wide.long_distance_matching(true).unwrap();
    wide.write_all(&text).unwrap();
    same(
        &place,
        "zstd with a large window",
        &wide.finish().unwrap(),
        &rows,
    );

    let nothing: [(&str, Vec<u8>); 8] = [
        ("no bytes", vec![]),
        ("blank lines", b"\n \n".to_vec()),
        ("a mark", b"\xef\xbb\xbf".to_vec()),
        ("gzip of nothing", gzip(b"")),
        ("zstd of nothing", zstd(b"")),
        ("an empty list", b"[]\n".to_vec()),
        ("an empty zip", zip(&[])),
        (
            "Parquet without rows",
            parquet(&[], parquet::basic::Compression::SNAPPY),
        ),
    ];
    for (what, bytes) in nothing {
        same(&place, what, &bytes, &[]);
    }
}

#[test]
fn archives_hold_inputs() {
    let place = Place::new();
    let all = rows(50);
    let (first, rest) = all.split_at(20);
    let (second, third) = rest.split_at(20);
    let packed = parquet(third, parquet::basic::Compression::SNAPPY);
    let members: [(&str, &[u8]); 6] = [
        ("data/README.md", b"# Read me"),
        ("data/a.jsonl", &lines(first)),
        ("__MACOSX/data/._a.jsonl", b"\0\x05\x16\x07"),
        ("data/b.jsonl.gz", &gzip(&lines(second))),
        ("data/empty.jsonl", b""),
        ("data/c.parquet", &packed),
    ];
    for (name, bytes) in [
        ("in.zip", zip(&members)),
        ("in.tar.gz", gzip(&tar(&members))),
    ] {
        let path = place.write(name, &bytes);
        let path = path.to_str().unwrap();
        let read = place.read_named(path, &wanted(&["policy", "prompt", "sample"]));
        assert_eq!(read.error, None);
        assert_eq!(read.values.len(), all.len());
        for (read, row) in read.values.iter().zip(&all) {
            assert_eq!(read["prompt"], row["prompt"]);
            assert_eq!(read.get("response"), None);
        }
        assert_eq!(read.places[0], "line 1 of its member data/a.jsonl");
        assert_eq!(read.places[20], "line 1 of its member data/b.jsonl.gz");
        assert_eq!(read.places[49], "row 10 of its member data/c.parquet");
        let skipped: Vec<_> = read.skipped.iter().map(|s| s.name.as_str()).collect();
        let expected = [
            format!("{path}/data/README.md"),
            format!("{path}/__MACOSX/data/._a.jsonl"),
        ];
        assert_eq!(skipped, expected);
        assert_eq!(read.consumed, bytes.len() as u64);
    }
}

#[test]
fn rows_longer_than_any_buffer_are_read() {
    let place = Place::new();
    let long = "x\\\"{[".repeat(2_000_000);
    let mut rows = rows(3);
    rows[0]["response"] = long.clone().into();
    rows[2]["response"] = long.into();
    for (name, bytes) in json_forms(&rows) {
        same(&place, name, &bytes, &rows);
    }
    same(&place, "CSV", &delimited(&rows, b','), &as_text(&rows));
}
