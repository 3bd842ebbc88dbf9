//! The kernels as a library of this process.

use libloading::{Library, Symbol};
use polestar_kernels::cuda::abi::Launch;
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Names the library that a test process is to use, where it is not the one that it builds.
pub(crate) const OTHER: &str = "POLESTAR_HOST_KERNELS";

/// Orders of warps and lanes that every launch is tried in.
const SEEDS: [u64; 3] = [1, 2, 3];

/// The library, loaded. One user at a time: the order of warps is the process's.
pub(crate) struct Host(MutexGuard<'static, Library>);

/// Builds a variant of the library; none if this machine has no C++ compiler.
pub(crate) fn build(variant: Option<&str>) -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let there = Command::new(&compiler).arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        println!("skipped: no C++ compiler ({compiler})");
        return None;
    }
    let name = format!(
        "libpolestar_kernels_host{}.so",
        variant.map_or(String::new(), |v| format!("_{v}"))
    );
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/host/build");
    let output = Command::new(script).arg(&out).args(variant).output();
    let output = output.expect("the build script runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the kernels compile for the host:\n{text}"
    );
    Some(out)
}

impl Host {
    /// The library of this process; none if it can't be built.
    pub(crate) fn open() -> Option<Host> {
        static LIBRARY: OnceLock<Option<Mutex<Library>>> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| {
            let path = match std::env::var_os(OTHER) {
                Some(path) => PathBuf::from(path),
                None => build(None)?,
            };
            // SAFETY: it has no initializers but those of its own tables.
            let library = unsafe { Library::new(&path) };
            Some(Mutex::new(
                library.expect("the library that was built loads"),
            ))
        });
        let library = library.as_ref()?;
        Some(Host(library.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn symbol<T>(&self, name: &str) -> Symbol<'_, T> {
        // SAFETY: callers name the type that kernels.cpp gives the symbol.
        let symbol = unsafe { self.0.get(name) };
        symbol.expect("the library has its functions")
    }

    /// Parameters of a kernel, if there is one of this name.
    pub(crate) fn parameters(&self, kernel: &str) -> Option<usize> {
        type Parameters = unsafe extern "C" fn(*const c_char) -> c_int;
        let name = CString::new(kernel).expect("no zero");
        let of = self.symbol::<Parameters>("polestar_host_parameters");
        // SAFETY: the name ends with a zero.
        usize::try_from(unsafe { of(name.as_ptr()) }).ok()
    }

    /// Launches of a kernel so far.
    pub(crate) fn launches(&self, kernel: &str) -> u64 {
        type Launches = unsafe extern "C" fn(*const c_char) -> u64;
        let name = CString::new(kernel).expect("no zero");
        let of = self.symbol::<Launches>("polestar_host_launches");
        // SAFETY: the name ends with a zero.
        unsafe { of(name.as_ptr()) }
    }

    /// Runs a kernel in the order of a seed; what went wrong, if anything did.
    pub(crate) fn try_launch(&self, launch: &Launch, seed: u64) -> Result<(), String> {
        type Run = unsafe extern "C" fn(
            *const c_char,
            *const u32,
            u32,
            u32,
            *const *const c_void,
        ) -> c_int;
        type Seed = unsafe extern "C" fn(u64);
        type Error = unsafe extern "C" fn() -> *const c_char;
        let name = CString::new(launch.kernel).expect("no zero");
        let arguments: Vec<*const c_void> = launch
            .arguments
            .iter()
            .map(|a| (&raw const *a).cast())
            .collect();
        let (run, set) = (
            self.symbol::<Run>("polestar_host_launch"),
            self.symbol::<Seed>("polestar_host_seed"),
        );
        let error = self.symbol::<Error>("polestar_host_error");
        // SAFETY: a kernel is given addresses of vectors that live and are as long as its shapes say; that it keeps to
        // them is what the sanitized run looks at.
        let text = unsafe {
            set(seed);
            if run(
                name.as_ptr(),
                launch.blocks.as_ptr(),
                launch.threads,
                launch.shared,
                arguments.as_ptr(),
            ) == 0
            {
                return Ok(());
            }
            CStr::from_ptr(error())
        };
        Err(text.to_string_lossy().into_owned())
    }

    /// Runs `launches` once for each seed, each time on copies of `outputs`, and returns what all agree on.
    ///
    /// `launches` is given the addresses of the copies.
    pub(crate) fn run<const N: usize>(
        &self,
        outputs: [Output; N],
        launches: impl Fn([u64; N]) -> Vec<Launch>,
    ) -> [Output; N] {
        let mut agreed: Option<[Output; N]> = None;
        // The sanitizers look at addresses, which hardly depend on the order.
        let seeds = match std::env::var_os(OTHER) {
            Some(_) => &SEEDS[..1],
            None => &SEEDS[..],
        };
        for &seed in seeds {
            let mut copies = outputs.clone();
            let addresses = copies.each_mut().map(Output::address);
            for launch in launches(addresses) {
                if launch.is_empty() {
                    continue;
                }
                assert_eq!(
                    self.parameters(launch.kernel),
                    Some(launch.arguments.len()),
                    "{}",
                    launch.kernel
                );
                if let Err(error) = self.try_launch(&launch, seed) {
                    panic!("{error} ({launch:?})");
                }
            }
            match &agreed {
                None => agreed = Some(copies),
                Some(agreed) => assert!(*agreed == copies, "seed {seed} gives other bits: a race"),
            }
        }
        agreed.expect("there are seeds")
    }
}

/// Memory that kernels write.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// bf16, as bits.
    Bf16(Vec<u16>),
    /// f32.
    F32(Vec<f32>),
    /// f64.
    F64(Vec<f64>),
    /// u32.
    U32(Vec<u32>),
    /// u64.
    U64(Vec<u64>),
}

impl PartialEq for Output {
    /// Bit for bit.
    fn eq(&self, other: &Output) -> bool {
        match (self, other) {
            (Output::Bf16(a), Output::Bf16(b)) => a == b,
            (Output::F32(a), Output::F32(b)) => a
                .iter()
                .map(|x| x.to_bits())
                .eq(b.iter().map(|x| x.to_bits())),
            (Output::F64(a), Output::F64(b)) => a
                .iter()
                .map(|x| x.to_bits())
                .eq(b.iter().map(|x| x.to_bits())),
            (Output::U32(a), Output::U32(b)) => a == b,
            (Output::U64(a), Output::U64(b)) => a == b,
            _ => false,
        }
    }
}

impl Output {
    /// bf16 NaN: an element that no kernel writes stays one.
    pub(crate) fn bf16(len: usize) -> Output {
        Output::Bf16(vec![0xffff; len])
    }

    /// f32 NaN.
    pub(crate) fn f32(len: usize) -> Output {
        Output::F32(vec![f32::NAN; len])
    }

    /// f64 NaN.
    pub(crate) fn f64(len: usize) -> Output {
        Output::F64(vec![f64::NAN; len])
    }

    pub(crate) fn address(&mut self) -> u64 {
        match self {
            Output::Bf16(v) => v.as_mut_ptr() as u64,
            Output::F32(v) => v.as_mut_ptr() as u64,
            Output::F64(v) => v.as_mut_ptr() as u64,
            Output::U32(v) => v.as_mut_ptr() as u64,
            Output::U64(v) => v.as_mut_ptr() as u64,
        }
    }

    /// Its elements as f64; of integers, their values.
    pub(crate) fn values(&self) -> Vec<f64> {
        match self {
            Output::Bf16(v) => v.iter().map(|&bits| f64::from(widen(bits))).collect(),
            Output::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Output::F64(v) => v.clone(),
            Output::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Output::U64(v) => v.iter().map(|&x| x as f64).collect(),
        }
    }
}

/// Where a vector is, for a kernel that only reads it.
pub(crate) fn at<T>(values: &[T]) -> u64 {
    values.as_ptr() as u64
}

/// bf16 to f32.
pub(crate) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// f32 to bf16, to nearest, ties to even.
pub(crate) fn narrow(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return 0x7fff;
    }
    ((u64::from(bits) + 0x7fff + u64::from(bits >> 16 & 1)) >> 16) as u16
}
