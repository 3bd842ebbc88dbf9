//! Inputs that are not on this machine: stores, web servers, the Hub.

use super::server::{Served, Server};
use super::*;
use crate::import::read::hub::{self, Settings};
use polestar_store::Store;
use std::sync::Arc;

fn put(url: &str, objects: &[(&str, &[u8])]) {
    let store = Store::open(url).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (key, bytes) in objects {
        runtime
            .block_on(store.put(key, bytes.to_vec().into()))
            .unwrap();
    }
}

#[test]
fn stores_have_objects_folders_and_patterns() {
    let place = Place::new();
    let rows = rows(20_000);
    let (first, second) = rows.split_at(15_000);
    let table = super::formats::parquet(second, ::parquet::basic::Compression::SNAPPY);
    put(
        "memory://readers",
        &[
            ("in/a b%1.jsonl", &lines(first)),
            ("in/sub/b.parquet", &table),
            ("in/_SUCCESS", b""),
            ("in/README.md", b"#"),
            ("other/c.jsonl", b"{}\n"),
        ],
    );
    let columns = wanted(&["prompt", "sample"]);
    let all = place.read_named("memory://readers/in", &columns);
    assert_eq!(all.error, None);
    assert_eq!(all.values.len(), rows.len());
    for (read, row) in all.values.iter().zip(&rows) {
        assert_eq!(read["prompt"], row["prompt"]);
    }
    let one = place.read_named("memory://readers/in/a b%1.jsonl", &columns);
    assert_eq!((one.error, one.values.len()), (None, first.len()));
    assert_eq!(one.consumed, lines(first).len() as u64);
    assert_eq!(
        place.names(&["memory://readers/in/"]),
        ["a b%1.jsonl", "sub/b.parquet"]
    );
    assert_eq!(
        place.names(&["memory://readers/*/*.jsonl"]),
        ["in/a b%1.jsonl", "other/c.jsonl"]
    );
    assert_eq!(
        place.names(&["memory://readers/in/**/*.parquet"]),
        ["sub/b.parquet"]
    );
    let found = place.expand(&["memory://readers/in"]).unwrap();
    assert_eq!(found.skipped.len(), 2);
    for (name, said) in [
        (
            "memory://readers/inn",
            "there is no file or folder memory://readers/inn",
        ),
        (
            "memory://readers/*.csv",
            "nothing matches memory://readers/*.csv",
        ),
        ("memory:///x", "no bucket"),
    ] {
        let error = told(&place.expand(&[name]).unwrap_err());
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn web_servers_are_read_through_redirects_and_interruptions() {
    let place = Place::new();
    let rows = rows(3000);
    let text = lines(&rows);
    let table = super::formats::parquet(&rows, ::parquet::basic::Compression::SNAPPY);
    let server = Server::start(&[
        ("/a.jsonl.gz", Served::Body(gzip(&text))),
        ("/signed?key=secret", Served::Body(text.clone())),
        ("/old", Served::Moved("/a.jsonl.gz".into())),
        ("/broken.jsonl", Served::Broken(text.clone())),
        ("/t.parquet", Served::Body(table)),
        ("/forbidden", Served::Status(403)),
        ("/page", Served::Body(b"<!DOCTYPE html>".to_vec())),
    ]);
    let url = |path: &str| format!("{}{path}", server.url);
    for path in ["/a.jsonl.gz", "/signed?key=secret", "/old", "/broken.jsonl"] {
        let read = place.read_named(&url(path), &Wanted::All);
        assert_eq!(read.error, None, "{path}");
        assert!(read.values == rows, "{path}");
    }
    let read = place.read_named(&url("/t.parquet"), &wanted(&["sample"]));
    assert_eq!((read.error, read.values.len()), (None, rows.len()));
    let found = place.expand(&[&url("/signed?key=secret")]).unwrap();
    assert_eq!(found.inputs[0].bytes, Some(text.len() as u64));
    assert_eq!(
        (&*found.inputs[0].name, &*found.inputs[0].shown),
        ("signed", &*url("/signed"))
    );
    assert!(!format!("{:?}", found.inputs[0]).contains("secret"));
    for (path, said) in [
        (
            "/absent",
            "/absent: there is nothing at this address (404 Not Found)",
        ),
        ("/forbidden", "the server wants to know who asks"),
        ("/page", "/page is an HTML page"),
    ] {
        let error = place.read_named(&url(path), &Wanted::All).error.unwrap();
        assert!(error.contains(said), "{error}");
    }
}

/// What the Hub serves of a data set: its list of files, and them.
fn hub(rows: &[Map<String, Value>]) -> Server {
    let list = json!({"sha": "c0ffee", "siblings": [
        {"rfilename": "README.md", "size": 3},
        {"rfilename": "data/train-1 ü.jsonl", "size": lines(rows).len()},
        {"rfilename": "data/train-0.jsonl.gz"},
        {"rfilename": "data/test.jsonl"},
    ]});
    let list = Served::Body(list.to_string().into_bytes());
    let file = "/datasets/me/set/resolve/c0ffee/data/";
    Server::start(&[
        (
            "/api/datasets/me/set/revision/main?blobs=true",
            list.clone(),
        ),
        (
            "/api/datasets/me/set/revision/refs%2Fconvert%2Fparquet?blobs=true",
            list,
        ),
        (
            &format!("{file}train-1%20%C3%BC.jsonl"),
            Served::Body(lines(rows)),
        ),
        (
            &format!("{file}train-0.jsonl.gz"),
            Served::Moved("/elsewhere".into()),
        ),
        ("/elsewhere", Served::Body(gzip(&lines(rows)))),
        (&format!("{file}test.jsonl"), Served::Body(lines(rows))),
    ])
}

struct Asked<'a> {
    place: &'a Place,
    settings: Settings,
}

impl Asked<'_> {
    fn expand(&self, rest: &str) -> Result<Expanded, String> {
        let temp: Arc<Path> = self.place.path().into();
        let mut to = Expanded::default();
        hub::expand(rest, &self.settings, &temp, &mut to).map_err(|error| told(&error))?;
        Ok(to)
    }

    fn names(&self, rest: &str) -> Vec<String> {
        self.expand(rest)
            .unwrap()
            .inputs
            .into_iter()
            .map(|input| input.name)
            .collect()
    }
}

#[test]
fn the_hub_gives_files_of_a_data_set() {
    let place = Place::new();
    let rows = rows(40);
    let server = hub(&rows);
    let settings = Settings {
        endpoint: server.url.clone(),
        token: Some("secret".into()),
        cache: place.path().join("hub"),
        offline: false,
    };
    let asked = Asked {
        place: &place,
        settings,
    };
    let train = ["data/train-0.jsonl.gz", "data/train-1 ü.jsonl"];
    assert_eq!(asked.names("datasets/me/set/data/train*"), train);
    let found = asked.expand("datasets/me/set").unwrap();
    assert_eq!((found.inputs.len(), found.skipped.len()), (3, 1));
    let read = gather(&found, &Wanted::All);
    assert_eq!((read.error, read.values.len()), (None, 3 * rows.len()));
    assert_eq!(asked.names("datasets/me/set@~parquet/data").len(), 3);
    assert_eq!(
        asked
            .names("datasets/me/set@refs%2Fconvert%2Fparquet/data/test.jsonl")
            .len(),
        1
    );
    // The token stays with the Hub.
    let requests = server.asked();
    assert!(requests.contains(&"/api/datasets/me/set/revision/main?blobs=true secret".to_owned()));
    assert!(!format!("{found:?}").contains("secret"));
    for (rest, said) in [
        (
            "datasets/me/set/data/test1.jsonl",
            "did you mean data/test.jsonl",
        ),
        (
            "datasets/me/set/*.csv",
            "nothing matches hf://datasets/me/set/*.csv",
        ),
        (
            "datasets/me/sett",
            "hf://datasets/me/sett: the Hub has no such data set or revision",
        ),
        ("me/set", "write hf://datasets/owner/name"),
        ("datasets/me/set/../../x", "has no '..'"),
    ] {
        let error = asked.expand(rest).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    // A file that the Hub's libraries have fetched is not fetched again.
    let snapshot = "hub/datasets--me--set/snapshots/c0ffee/";
    place.write(&format!("{snapshot}data/test.jsonl"), &lines(&rows));
    let before = server.asked().len();
    let read = gather(
        &asked.expand("datasets/me/set/data/test.jsonl").unwrap(),
        &Wanted::All,
    );
    assert_eq!((read.error, read.values.len()), (None, rows.len()));
    assert_eq!(server.asked().len(), before + 1);
}

#[test]
fn the_hubs_cache_needs_no_network() {
    let place = Place::new();
    let rows = rows(7);
    let commit = "0123456789012345678901234567890123456789";
    let folder = "hub/datasets--me--set";
    place.write(&format!("{folder}/refs/main"), commit.as_bytes());
    place.write(&format!("{folder}/blobs/abc"), &lines(&rows));
    place.write(&format!("{folder}/snapshots/{commit}/README.md"), b"#");
    let link = place
        .path()
        .join(folder)
        .join("snapshots")
        .join(commit)
        .join("a.jsonl");
    std::os::unix::fs::symlink("../../blobs/abc", link).unwrap();
    let nobody = "http://127.0.0.1:9";
    let mut asked = Asked {
        place: &place,
        settings: Settings {
            endpoint: nobody.into(),
            token: None,
            cache: place.path().join("hub"),
            offline: false,
        },
    };
    let rows_of =
        |found: Result<Expanded, String>| gather(&found.unwrap(), &Wanted::All).values.len();
    // One file of a commit, or of a branch where nobody answers.
    assert_eq!(
        rows_of(asked.expand(&format!("datasets/me/set@{commit}/a.jsonl"))),
        7
    );
    assert_eq!(rows_of(asked.expand("datasets/me/set/a.jsonl")), 7);
    // The cache may lack some of many.
    let error = asked.expand("datasets/me/set").unwrap_err();
    assert!(error.contains(nobody), "{error}");
    assert!(error.contains("HF_HUB_OFFLINE=1"), "{error}");
    asked.settings.offline = true;
    assert_eq!(rows_of(asked.expand("datasets/me/set")), 7);
    assert_eq!(asked.names("datasets/me/set/*.jsonl"), ["a.jsonl"]);
    let error = asked.expand("datasets/me/other").unwrap_err();
    assert!(
        error.contains("HF_HUB_OFFLINE keeps the Hub from being asked"),
        "{error}"
    );
}

#[test]
fn the_hubs_settings_come_from_its_variables() {
    let place = Place::new();
    place.write("token", b"kept\n");
    let home = place.path().to_str().unwrap().to_owned();
    let variable = |name: &str| match name {
        "HF_HOME" => Some(home.clone()),
        "HF_ENDPOINT" => Some("https://mirror/".into()),
        _ => None,
    };
    let settings = Settings::of(&variable);
    assert_eq!(settings.cache, place.path().join("hub"));
    assert_eq!(settings.token.as_deref(), Some("kept"));
    assert_eq!(
        (&*settings.endpoint, settings.offline),
        ("https://mirror", false)
    );
    let given = Settings::of(&|name| match name {
        "HF_TOKEN" => Some("given".into()),
        "HF_HUB_OFFLINE" => Some("1".into()),
        "HF_HUB_CACHE" => Some("/cache".into()),
        "HOME" => Some("/home/me".into()),
        _ => None,
    });
    assert_eq!(
        (given.token.as_deref(), given.offline),
        (Some("given"), true)
    );
    assert_eq!(given.cache, Path::new("/cache"));
}
