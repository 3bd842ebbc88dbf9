//! Builds the stand-ins for CUDA's libraries, and runs tests in a process that finds them. See README.md.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::{
    collections::hash_map::DefaultHasher,
    ffi::OsString,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

/// Where the stand-ins are, once they are built.
pub(crate) struct StandIns {
    folder: PathBuf,
}

/// What kernels are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kernels {
    /// Plain loops.
    #[default]
    Plain,
    /// The product's sources, compiled for the host.
    Product,
}

/// What a process is told of them besides.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setting {
    /// What is launched.
    pub(crate) kernels: Kernels,
    /// Draws the order in which streams advance.
    pub(crate) seed: u64,
    /// Waits between streams are ignored.
    pub(crate) forgets_events: bool,
    /// How many devices there are; 0 for one.
    pub(crate) devices: u32,
    /// The devices' name, if it is to be another one.
    pub(crate) name: Option<&'static str>,
    /// What goes wrong in NCCL, once.
    pub(crate) nccl_fault: Option<&'static str>,
}

/// Tests of one process build one after the other.
static BUILDS: Mutex<()> = Mutex::new(());

const KERNELS: &str = "POLESTAR_STANDIN_KERNELS";
const DEVICES: &str = "POLESTAR_STANDIN_DEVICES";

/// Faults that were planted: each has a file of its own.
static PLANTED: AtomicU32 = AtomicU32::new(0);

impl StandIns {
    /// Builds them, or finds them built before in `folder`. None where there is no g++, which is said.
    pub(crate) fn build(folder: &str) -> Option<StandIns> {
        let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/standin"));
        let mut hasher = DefaultHasher::new();
        for file in [
            "build",
            "driver.h",
            "driver.cpp",
            "nvrtc.cpp",
            "products.cpp",
            "kernels.cpp",
            "nccl.cpp",
        ] {
            let text = std::fs::read(sources.join(file)).expect("the stand-ins' sources");
            text.hash(&mut hasher);
        }
        let folder = Path::new(folder).join(format!("standin-{:016x}", hasher.finish()));
        let _alone = BUILDS.lock();
        if folder.exists() {
            return Some(StandIns { folder });
        }
        if Command::new("g++").arg("--version").output().is_err() {
            println!("skipped: there is no g++ to build the stand-ins for CUDA's libraries with");
            return None;
        }
        // Beside it first: another test may build at the same time.
        let beside = folder.with_extension(std::process::id().to_string());
        std::fs::create_dir_all(&beside).expect("a folder for the stand-ins");
        let built = Command::new(sources.join("build")).arg(&beside).output();
        let built = built.expect("the script that builds the stand-ins");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{said}");
        // Whoever was first has built the same.
        if std::fs::rename(&beside, &folder).is_err() {
            let _ = std::fs::remove_dir_all(&beside);
        }
        Some(StandIns { folder })
    }

    /// The environment of a process that finds them.
    pub(crate) fn environment(&self, setting: Setting) -> Vec<(&'static str, OsString)> {
        let mut paths = self.folder.clone().into_os_string();
        if let Some(others) = std::env::var_os("LD_LIBRARY_PATH") {
            paths.push(":");
            paths.push(others);
        }
        let kernels = match setting.kernels {
            Kernels::Plain => self.folder.join("libpolestar_kernels.so"),
            Kernels::Product => self.product_kernels(),
        };
        let mut environment = vec![
            ("LD_LIBRARY_PATH", paths),
            (KERNELS, kernels.into()),
            ("POLESTAR_STANDIN_SEED", setting.seed.to_string().into()),
            // A cubin of theirs must never be found by a real driver.
            ("XDG_CACHE_HOME", self.folder.join("cache").into()),
        ];
        if setting.forgets_events {
            environment.push(("POLESTAR_STANDIN_FORGET", "events".into()));
        }
        if setting.devices > 0 {
            environment.push((DEVICES, setting.devices.to_string().into()));
        }
        if let Some(name) = setting.name {
            environment.push(("POLESTAR_STANDIN_NAME", name.into()));
        }
        if let Some(fault) = setting.nccl_fault {
            let once = format!(
                "planted-{}-{}",
                std::process::id(),
                PLANTED.fetch_add(1, Relaxed)
            );
            environment.push(("POLESTAR_STANDIN_NCCL", fault.into()));
            environment.push(("POLESTAR_STANDIN_NCCL_ONCE", self.folder.join(once).into()));
        }
        environment
    }

    /// The product's kernels, compiled for the host.
    fn product_kernels(&self) -> PathBuf {
        let build = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/cuda/host/build");
        let library = self.folder.join("libpolestar_kernels_host.so");
        let _alone = BUILDS.lock();
        let built = Command::new(build).arg(&library).env("CXX", "g++").output();
        let built = built.expect("the script that builds kernels for the host");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{build}: {said}");
        library
    }

    /// Runs a test of this program again where it finds the stand-ins, and returns what it printed.
    pub(crate) fn run(&self, test: &str, setting: Setting) -> String {
        let program = std::env::current_exe().expect("this program");
        let output = Command::new(program)
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .envs(self.environment(setting))
            .output()
            .expect("this program runs again");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }
}

/// Whether this process finds the stand-ins.
pub(crate) fn are_here() -> bool {
    std::env::var_os(KERNELS).is_some()
}

/// How many devices the stand-ins have for this process.
pub(crate) fn devices() -> u32 {
    let devices = std::env::var(DEVICES).ok();
    devices.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The lines that a test printed behind this word.
pub(crate) fn told<'a>(said: &'a str, word: &str) -> Vec<&'a str> {
    let lines = said.lines().filter_map(|line| line.strip_prefix(word));
    lines.map(str::trim).collect()
}
