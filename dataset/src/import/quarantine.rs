//! Records that can't be used, set aside with the reason: one line of JSON each.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
};

use serde_json::json;

use super::{Error, convert::Bad};

/// The file of one input's bad records; there is none without one.
pub(super) struct Quarantine {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Quarantine {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    pub(super) fn add(&mut self, input: &str, bad: &Bad) -> Result<(), Error> {
        let failed = |source| Error::Spill {
            path: self.path.clone(),
            source,
        };
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = File::create(&self.path).map_err(failed)?;
                self.file.insert(BufWriter::new(file))
            }
        };
        // What is no JSON is kept as text.
        let record: serde_json::Value = serde_json::from_slice(&bad.record)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bad.record).into());
        let line = json!({
            "file": input, "place": bad.place, "reason": bad.reason, "record": record,
        });
        writeln!(file, "{line}").map_err(failed)
    }

    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let Some(mut file) = self.file.take() else {
            // A stopped import may have left one.
            let _ = std::fs::remove_file(&self.path);
            return Ok(());
        };
        file.flush().map_err(|source| Error::Spill {
            path: self.path.clone(),
            source,
        })
    }
}
