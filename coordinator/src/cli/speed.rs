//! How fast a worker of this machine trains: measured once, kept in a cache folder, and read from there by every
//! plan. Small models use a processor worse than large ones, so it is measured at several sizes.

use super::Error;
use crate::{calendar, launcher::threads_each, sweep::Sweep};
use polestar_core::{Precision, digest::hex};
use polestar_model::{ModelConfig, count};
use polestar_run::config::Backend;
use polestar_worker::engine::Probe;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Sizes that are measured, in non-embedding parameters. What is larger than the last trains as fast.
const SIZES: [u64; 3] = [20_000, 400_000, 4_000_000];
/// Vocabulary of the models that are measured.
const VOCABULARY: u32 = 4096;
/// How long each is measured, if three steps don't take longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the speed of a worker is a matter of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    processor: String,
    threads: usize,
    precision: Precision,
    version: String,
}

/// A measurement at one size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    non_embedding: f64,
    flops_per_second: f64,
}

/// What was measured, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measured {
    of: Key,
    date: String,
    /// By size, ascending.
    points: Vec<Point>,
}

/// What is known of a worker's speed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Speed {
    /// The sweep file says it, in FLOPs a second, convention `6ND`.
    Told(f64),
    /// It was measured, convention `executed`.
    Measured(Measured),
    /// Why nothing is known, and what to do.
    Unknown(&'static str),
}

impl Measured {
    /// When, by this machine's clock.
    pub(super) fn date(&self) -> &str {
        &self.date
    }

    /// FLOPs a second, convention `executed`, of a worker that trains a model of so many non-embedding parameters:
    /// between the sizes that were measured by a line in logarithms, beyond them as at the last.
    pub(super) fn flops_per_second(&self, non_embedding: f64) -> f64 {
        let log = |point: &Point| (point.non_embedding.ln(), point.flops_per_second.ln());
        let at = non_embedding.max(1.0).ln();
        let above = self.points.iter().position(|p| p.non_embedding.ln() >= at);
        let rate = match above {
            Some(above) if above > 0 => {
                let ((x0, y0), (x1, y1)) = (log(&self.points[above - 1]), log(&self.points[above]));
                y0 + (y1 - y0) * (at - x0) / (x1 - x0)
            }
            Some(_) => log(&self.points[0]).1,
            None => self.points.last().map_or(f64::NEG_INFINITY, |p| log(p).1),
        };
        rate.exp()
    }

    /// Whether it can be what was written: three sizes, in order, with a speed each.
    fn is_sound(&self, of: &Key) -> bool {
        let positive = |p: &Point| p.non_embedding > 0.0 && p.flops_per_second > 0.0;
        self.of == *of
            && !self.points.is_empty()
            && self.points.iter().all(positive)
            && self
                .points
                .is_sorted_by(|a, b| a.non_embedding < b.non_embedding)
    }
}

impl Speed {
    /// What is known without measuring.
    pub(super) fn known(sweep: &Sweep) -> Speed {
        if let Some(rate) = sweep.pool.worker_flops {
            return Speed::Told(rate);
        }
        if sweep.train.backend != Backend::Flex {
            return Speed::Unknown("set pool.worker_flops, which a launch prints at its end");
        }
        let key = Key::of(sweep);
        match folder().and_then(|folder| read(&folder, &key)) {
            Some(measured) => Speed::Measured(measured),
            None => Speed::Unknown("`coordinator plan` measures it once"),
        }
    }

    /// What is known, or is after a few seconds.
    ///
    /// # Errors
    /// When this machine can't train at all.
    pub(super) async fn known_or_measured(sweep: &Sweep) -> Result<Speed, Error> {
        let known = Speed::known(sweep);
        if !matches!(known, Speed::Unknown(_)) || sweep.train.backend != Backend::Flex {
            return Ok(known);
        }
        let key = Key::of(sweep);
        eprintln!(
            "measuring once how fast a worker of {} threads trains here (--no-measure skips that)",
            key.threads
        );
        let measured = measure(key).await?;
        // Without a place for it, it is measured again the next time.
        if let Some(folder) = folder()
            && let Err(error) = write(&folder, &measured)
        {
            tracing::warn!(
                "{}: the measured speed can't be kept: {error}",
                folder.display()
            );
        }
        Ok(Speed::Measured(measured))
    }
}

impl Key {
    fn of(sweep: &Sweep) -> Key {
        let threads = match sweep.pool.threads {
            0 => threads_each(sweep.pool.workers.number()),
            given => given,
        };
        let name = std::fs::read_to_string("/proc/cpuinfo").ok();
        let name = name.and_then(|info| {
            info.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == "model name").then(|| value.trim().to_owned())
            })
        });
        Key {
            processor: name.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            threads,
            precision: sweep.train.precision,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The file that holds what was measured.
    fn file(&self) -> String {
        let json = serde_json::to_vec(self).expect("text and numbers serialize");
        format!("{}.json", &hex(&json)[..16])
    }
}

async fn measure(of: Key) -> Result<Measured, Error> {
    let runtime = tokio::runtime::Handle::current();
    let (precision, threads) = (of.precision, of.threads);
    let points = tokio::task::spawn_blocking(move || {
        let point = |size| {
            let model = ModelConfig::near(size, VOCABULARY);
            let probe = Probe {
                model: model.clone(),
                precision,
                threads,
                patience: PATIENCE,
            };
            Ok::<Point, Error>(Point {
                non_embedding: count::parameters(&model).non_embedding as f64,
                flops_per_second: probe.flops_per_second(&runtime)?,
            })
        };
        SIZES.into_iter().map(point).collect::<Result<_, _>>()
    });
    Ok(Measured {
        of,
        date: calendar::now(),
        points: points.await??,
    })
}

/// Where measurements are kept: `polestar/speed` in the user's cache folder, if there is one.
fn folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || Some(PathBuf::from(variable("HOME")?).join(".cache"));
    let base = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home)?;
    Some(base.join("polestar").join("speed"))
}

/// What is in a folder of measurements. What can't be read is as good as not there.
fn read(folder: &Path, key: &Key) -> Option<Measured> {
    let bytes = std::fs::read(folder.join(key.file())).ok()?;
    let measured: Measured = serde_json::from_slice(&bytes).ok()?;
    measured.is_sound(key).then_some(measured)
}

fn write(folder: &Path, measured: &Measured) -> Result<(), Error> {
    std::fs::create_dir_all(folder)?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::write(file.path(), serde_json::to_vec_pretty(measured)?)?;
    file.persist(folder.join(measured.of.file()))?;
    Ok(())
}

#[cfg(test)]
pub(super) fn measured_at(points: &[[f64; 2]]) -> Measured {
    let points = points
        .iter()
        .map(|&[non_embedding, flops_per_second]| Point {
            non_embedding,
            flops_per_second,
        });
    Measured {
        of: Key {
            processor: "p".to_owned(),
            threads: 2,
            precision: Precision::F32,
            version: "v".to_owned(),
        },
        date: "2025-01-31 23:59 UTC".to_owned(),
        points: points.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_lies_on_a_line_between_sizes_and_stays_beyond_them() {
        let measured = measured_at(&[[1e4, 1e9], [1e6, 1e10]]);
        let at = |size: f64| measured.flops_per_second(size);
        assert!((at(1e5) / 10f64.powf(9.5) - 1.0).abs() < 1e-9);
        assert!((at(1e4) / 1e9 - 1.0).abs() < 1e-9 && (at(1.0) / 1e9 - 1.0).abs() < 1e-9);
        assert!((at(1e9) / 1e10 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_measurement_is_kept_for_its_machine_and_damage_is_measured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("speed");
        let measured = measured_at(&[[1e4, 1e9], [1e6, 1e10]]);
        assert_eq!(read(&folder, &measured.of), None);
        write(&folder, &measured).unwrap();
        assert_eq!(read(&folder, &measured.of), Some(measured.clone()));
        let other = Key {
            threads: 3,
            ..measured.of.clone()
        };
        assert_eq!(read(&folder, &other), None);
        for damage in ["", "{}", &serde_json::to_string(&measured_at(&[])).unwrap()] {
            std::fs::write(folder.join(measured.of.file()), damage).unwrap();
            assert_eq!(read(&folder, &measured.of), None, "{damage}");
        }
    }
}
