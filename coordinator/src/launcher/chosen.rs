//! The launcher that a sweep file or a command line names.

use super::{Ending, Join, LaunchEvent, LaunchId, Launcher, Local, Slurm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where worker processes come from.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum LauncherKind {
    /// `launch` starts them on this machine.
    Local,
    /// Somebody else starts them, with `coordinator worker join`.
    Join,
    /// `launch` submits them to SLURM, as `[pool.slurm]` says.
    Slurm,
}

/// One of them.
#[derive(Debug)]
pub enum Chosen {
    /// Processes on this machine.
    Local(Box<Local>),
    /// Processes that join by themselves.
    Join(Join),
    /// Jobs of a SLURM cluster.
    Slurm(Slurm),
}

impl Launcher for Chosen {
    fn scale(&mut self, workers: u32) {
        match self {
            Chosen::Local(launcher) => launcher.scale(workers),
            Chosen::Join(launcher) => launcher.scale(workers),
            Chosen::Slurm(launcher) => launcher.scale(workers),
        }
    }

    fn retire(&mut self, launch: &LaunchId, ending: Ending) {
        match self {
            Chosen::Local(launcher) => launcher.retire(launch, ending),
            Chosen::Join(launcher) => launcher.retire(launch, ending),
            Chosen::Slurm(launcher) => launcher.retire(launch, ending),
        }
    }

    async fn next(&mut self) -> LaunchEvent {
        match self {
            Chosen::Local(launcher) => launcher.next().await,
            Chosen::Join(launcher) => launcher.next().await,
            Chosen::Slurm(launcher) => launcher.next().await,
        }
    }

    async fn close(&mut self, grace: Duration) -> usize {
        match self {
            Chosen::Local(launcher) => launcher.close(grace).await,
            Chosen::Join(launcher) => launcher.close(grace).await,
            Chosen::Slurm(launcher) => launcher.close(grace).await,
        }
    }
}
