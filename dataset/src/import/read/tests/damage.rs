//! What is damaged or taken for data by mistake is called by its name.

use super::formats::{arrow_file, arrow_stream, bzip2, parquet, tar, xz, zip, zstd};
use super::*;
use ::parquet::basic::Compression;

fn refused(place: &Place, bytes: &[u8]) -> String {
    let read = place.read(bytes);
    assert!(read.values.is_empty(), "{read:?}");
    read.error.unwrap()
}

#[test]
fn what_is_no_data_is_named() {
    let place = Place::new();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    let mistakes: [(&[u8], &str); 18] = [
        (
            pointer,
            "a Git LFS pointer, not the data it stands for; run `git lfs pull`",
        ),
        (b"\n<!DOCTYPE html><html lang=en>", "an HTML page"),
        (b"<html><head>", "an HTML page"),
        (
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied",
            "an XML document",
        ),
        (b"\x80\x04\x95\x10\0\0\0\0\0\0\0]\x94.", "a Python pickle"),
        (b"\x80\x03]q\0.", "a Python pickle"),
        (
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            "a PyTorch file",
        ),
        (b"\x93NUMPY\x01\0v\0{'descr'", "a NumPy array"),
        (b"SQLite format 3\0\x10\0", "an SQLite database"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\x40\0\0\0\0\0\0\0{\"weight\":{}}", "a safetensors file"),
        (b"Obj\x01\x04\x14avro.codec", "an Avro file"),
        (b"ORC\x11\0\0", "an ORC file"),
        (b"FEA1\0\0\0\0", "a Feather file of the first version"),
        (b"\x04\x22\x4d\x18\x64\x40\xa7", "compressed with lz4"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
        (b"\x7fELF\x02\x01\x01", "a program"),
        (b"#!/bin/sh\necho a, b\n", "a script"),
    ];
    for (bytes, what) in mistakes {
        let error = refused(&place, bytes);
        let path = place.named("input.data");
        assert!(error.starts_with(&format!("{path} is {what}")), "{error}");
        // Within a layer it is the same mistake.
        let error = refused(&place, &gzip(bytes));
        assert!(error.starts_with(&format!("{path} is {what}")), "{error}");
    }
    let torch = zip(&[
        ("archive/data.pkl", b"\x80\x02}q\0."),
        ("archive/version", b"3\n"),
    ]);
    assert!(refused(&place, &torch).contains("is a PyTorch file"));
    let sheet = zip(&[
        ("[Content_Types].xml", b"<Types/>"),
        ("xl/workbook.xml", b"<workbook/>"),
    ]);
    assert!(refused(&place, &sheet).contains("is an Office document"));
    let member = tar(&[("a/page.jsonl", b"<!doctype html>")]);
    let error = refused(&place, &member);
    assert!(
        error.contains("an archive whose member a/page.jsonl is an HTML page"),
        "{error}"
    );

    let error = refused(&place, b"once upon a time\nthere was no comma\n");
    assert!(
        error.contains(r#"it begins with "once upon a time\nthere w"; give JSON lines"#),
        "{error}"
    );
    let error = refused(&place, b"\x01\x02\x03\x04rest");
    assert!(
        error.contains("it begins with the bytes 01 02 03 04 72 65"),
        "{error}"
    );
}

#[test]
fn what_is_cut_off_says_so_after_the_good_rows() {
    let place = Place::new();
    let rows = rows(4000);
    let text = lines(&rows);
    let packings: [(&str, Vec<u8>); 4] = [
        ("gzip", gzip(&text)),
        ("zstd", zstd(&text)),
        ("xz", xz(&text)),
        ("bzip2", bzip2(&text)),
    ];
    for (name, packed) in packings {
        let read = place.read(&packed[..packed.len() * 3 / 4]);
        let error = read.error.unwrap();
        let said = format!("is cut off: its {name} data end in the middle, after line");
        assert!(error.contains(&said), "{error}");
        assert!(!read.values.is_empty(), "{name}");
        assert_eq!(read.values[..], rows[..read.values.len()]);
        assert!(read.malformed.is_empty());

        let read = place.read(&packed[..packed.len() - 1]);
        assert!(read.error.unwrap().contains("is cut off"), "{name}");

        let mut damaged = packed.clone();
        damaged[packed.len() / 2] ^= 0x55;
        let error = place.read(&damaged).error.unwrap();
        assert!(
            error.contains("is damaged") || error.contains("is cut off"),
            "{error}"
        );
    }
    let small = gzip(&lines(&rows[..9]));
    let read = place.read(&small[..small.len() - 9]);
    assert!(
        read.error
            .unwrap()
            .contains("its gzip data end in the middle")
    );
    assert!(read.values.len() >= 8);

    let table = parquet(&rows, Compression::SNAPPY);
    let error = refused(&place, &table[..table.len() - 100]);
    assert!(
        error.contains("its Parquet data end without the footer"),
        "{error}"
    );
    let table = arrow_file(&rows, None);
    let error = refused(&place, &table[..table.len() - 100]);
    assert!(
        error.contains("its Arrow data end without the footer"),
        "{error}"
    );
    let stream = arrow_stream(&rows);
    let error = refused(&place, &stream[..stream.len() / 2]);
    assert!(
        error.contains("its Arrow data end in the middle"),
        "{error}"
    );
    let archive = zip(&[("a.jsonl", &text)]);
    let error = refused(&place, &archive[..archive.len() - 30]);
    assert!(
        error.contains("its zip data end without the directory"),
        "{error}"
    );
    let archive = tar(&[("a.jsonl", &text), ("b.jsonl", &text)]);
    let read = place.read(&archive[..archive.len() / 3]);
    assert!(read.error.unwrap().contains("cut off"));
}

#[test]
fn plain_text_with_a_packed_name_is_plain() {
    let place = Place::new();
    let rows = rows(9);
    for name in ["in.jsonl.gz", "in.jsonl.zst", "in.parquet", "in.csv"] {
        let path = place.write(name, &lines(&rows));
        let read = place.read_named(path.to_str().unwrap(), &Wanted::All);
        assert_eq!((read.error, read.values), (None, rows.clone()));
    }
    let trailing = [gzip(&lines(&rows)), b"not gzip".to_vec()].concat();
    let read = place.read(&trailing);
    let error = read.error.unwrap();
    assert!(
        error.contains("something that is no gzip follows the last member"),
        "{error}"
    );
    assert_eq!(read.values, rows);
}

#[test]
fn bombs_do_not_fill_memory() {
    let place = Place::new();
    let zeros = vec![b' '; 64 << 20];
    let mut bomb = zstd(&zeros);
    for _ in 0..3 {
        bomb = zstd(&bomb);
    }
    assert_eq!(place.read(&bomb).error, None);
    for _ in 0..4 {
        bomb = gzip(&bomb);
    }
    let error = place.read(&bomb).error.unwrap();
    assert!(error.contains("packed more than 5 times over"), "{error}");
}
