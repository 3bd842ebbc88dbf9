//! Fuzz targets of the readers: whatever is given to be read ends as records or as an error, never as a
//! panic; and bytes that carry a checksum give the rows that were written or an error.
//!
//! `POLESTAR_FUZZ_SECONDS=1200 cargo test -p polestar-dataset --lib read::tests::fuzz` runs them for longer.

#[path = "../../../../../tests/common/mutate.rs"]
#[expect(dead_code, reason = "other targets change documents instead of bytes")]
mod mutate;

use super::formats::{
    arrow_file, arrow_stream, bzip2, delimited, json_forms, parquet, tar, xz, zip, zstd,
};
use super::*;
use ::parquet::basic::Compression;
use mutate::{fuzz, mutate};
use rand::RngExt;

/// Reads mutations of these, and asks every record for all that it has.
fn survives(name: &str, seeds: &[Vec<u8>]) {
    let place = Place::new();
    let (mut read_whole, mut refused) = (0, 0);
    fuzz(name, |random| {
        let seed = &seeds[random.random_range(0..seeds.len())];
        let path = place.write("in", &mutate(seed, random));
        let found = place.expand(&[path.to_str().unwrap()]).unwrap();
        let columns = match random.random_range(0..2) {
            0 => Wanted::All,
            _ => wanted(&["prompt", "tags"]),
        };
        let ended = read(&found.inputs[0], &columns, &mut |batch| {
            for record in &batch.records {
                let fields = record.fields(&columns);
                assert!(!record.place().to_string().is_empty());
                if let Err(why) = fields {
                    assert!(!why.to_string().is_empty());
                    record.to_json();
                }
            }
            Ok(true)
        });
        match ended {
            Ok(_) => read_whole += 1,
            Err(error) => {
                assert!(!told(&error).is_empty());
                refused += 1;
            }
        }
    });
    println!("{name}: {read_whole} read, {refused} refused");
    assert!(read_whole + refused > 0);
}

#[test]
fn any_json_is_split() {
    let seeds: Vec<Vec<u8>> = json_forms(&rows(12))
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    survives("JSON", &seeds);
}

#[test]
fn any_table_of_text_is_split() {
    let rows = rows(12);
    survives(
        "CSV",
        &[b',', b'\t', b';'].map(|delimiter| delimited(&rows, delimiter)),
    );
}

#[test]
fn any_parquet_is_read_or_refused() {
    let rows = rows(40);
    let plain = parquet(&rows, Compression::UNCOMPRESSED);
    survives("Parquet", &[plain, parquet(&rows, Compression::SNAPPY)]);
}

#[test]
fn any_arrow_is_read_or_refused() {
    let rows = rows(40);
    let packed = arrow_file(&rows, Some(arrow_ipc::CompressionType::LZ4_FRAME));
    survives(
        "Arrow",
        &[arrow_file(&rows, None), packed, arrow_stream(&rows)],
    );
}

#[test]
fn any_archive_is_read_or_refused() {
    let rows = rows(12);
    let text = lines(&rows);
    let table = parquet(&rows, Compression::SNAPPY);
    let members: [(&str, &[u8]); 3] = [("a.jsonl", &text), ("README", b"#"), ("b.parquet", &table)];
    survives(
        "archives",
        &[zip(&members), tar(&members), gzip(&tar(&members))],
    );
}

#[test]
fn packed_rows_are_those_that_were_written() {
    let place = Place::new();
    let rows = rows(60);
    let text = lines(&rows);
    let seeds = [
        gzip(&text),
        zstd(&text),
        xz(&text),
        bzip2(&text),
        gzip(&zstd(&text)),
    ];
    fuzz("packed lines", |random| {
        let seed = &seeds[random.random_range(0..seeds.len())];
        let bytes = mutate(seed, random);
        let read = place.read(&bytes);
        // What a mutation takes away or repeats is whole members only.
        if read.error.is_none() && !read.values.is_empty() {
            assert_eq!(read.values.len() % rows.len(), 0);
            for (at, values) in read.values.iter().enumerate() {
                assert_eq!(*values, rows[at % rows.len()]);
            }
        }
    });
}

/// Things that once broke a reader, and must not again.
#[test]
fn what_broke_a_reader_once_is_read_or_refused() {
    let place = Place::new();
    let broken: [&[u8]; 6] = [
        b"{\"a\": \"\\",
        b"[\"\\",
        b"\xff\xff\xff\xff\xff\xff\xff\x00",
        b"PAR1PAR1",
        b"PAR1\xff\xff\xff\xffPAR1",
        b"ARROW1\0\0\xff\xff\xff\x7fARROW1",
    ];
    for bytes in broken {
        let read = place.read(bytes);
        assert!(read.values.is_empty());
    }
}
