//! NVRTC, as far as a compilation needs it.

use libloading::{Library, Symbol};
use polestar_kernels::cuda::abi::{NVRTC_OPTIONS, Source};
use std::{
    ffi::{CString, c_char, c_int, c_void},
    path::Path,
    ptr::{null, null_mut},
};

/// What the assembler says of a kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compiled {
    /// Of a thread.
    pub(crate) registers: u32,
    /// Bytes whose number is known.
    pub(crate) shared: u32,
    /// Bytes of registers that are kept in memory.
    pub(crate) spilled: u32,
}

/// The library.
pub(crate) struct Nvrtc {
    library: Library,
    /// Found by the library under its own name, once it is loaded.
    _builtins: Library,
}

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Log = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;

impl Nvrtc {
    /// From a folder.
    pub(crate) fn load(folder: &Path) -> Nvrtc {
        let load = |name: &str| {
            let path = folder.join(name);
            // SAFETY: NVIDIA's libraries may be loaded; they do nothing before they are called.
            unsafe { Library::new(&path) }
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        Nvrtc {
            _builtins: load("libnvrtc-builtins.so.13.0"),
            library: load("libnvrtc.so.13"),
        }
    }

    fn symbol<T>(&self, name: &str) -> Symbol<'_, T> {
        // SAFETY: callers name the type that nvrtc.h gives the symbol.
        unsafe { self.library.get(name) }.expect("NVRTC has its functions")
    }

    /// Its name and version.
    pub(crate) fn version(&self) -> String {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are there to be written.
        let failed =
            unsafe { self.symbol::<Version>("nvrtcVersion")(&raw mut major, &raw mut minor) };
        assert_eq!(failed, 0, "nvrtcVersion");
        format!("NVRTC {major}.{minor}")
    }

    /// Compiles a source to machine code.
    pub(crate) fn compile(&self, source: &Source, architecture: &str) -> Vec<(String, Compiled)> {
        let text = CString::new(source.text).expect("sources have no zero");
        let name = CString::new(source.file).expect("names have no zero");
        let wanted = [
            format!("--gpu-architecture={architecture}"),
            "--ptxas-options=-v".to_owned(),
        ];
        let options = NVRTC_OPTIONS.map(str::to_owned).into_iter().chain(wanted);
        let options: Vec<CString> = options.map(|o| CString::new(o).expect("no zero")).collect();
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let mut program = null_mut();
        // SAFETY: all strings end with a zero and live until the program is destroyed.
        let (failed, log) = unsafe {
            let create = self.symbol::<Create>("nvrtcCreateProgram");
            let made = create(
                &raw mut program,
                text.as_ptr(),
                name.as_ptr(),
                0,
                null(),
                null(),
            );
            assert_eq!(made, 0, "nvrtcCreateProgram");
            let compile = self.symbol::<Compile>("nvrtcCompileProgram");
            let failed = compile(program, options.len() as c_int, options.as_ptr());
            let log = self.log(program);
            self.symbol::<Destroy>("nvrtcDestroyProgram")(&raw mut program);
            (failed, log)
        };
        assert_eq!(failed, 0, "{} for {architecture}:\n{log}", source.file);
        parse(&log)
    }

    /// # Safety
    /// The program is alive.
    unsafe fn log(&self, program: Program) -> String {
        let mut bytes = 0;
        // SAFETY: the log is as long as the library says.
        let log = unsafe {
            self.symbol::<Size>("nvrtcGetProgramLogSize")(program, &raw mut bytes);
            let mut log = vec![0_u8; bytes];
            self.symbol::<Log>("nvrtcGetProgramLog")(program, log.as_mut_ptr().cast());
            log
        };
        String::from_utf8_lossy(log.strip_suffix(&[0]).unwrap_or(&log)).into_owned()
    }
}

/// What the assembler's log says, kernel by kernel.
fn parse(log: &str) -> Vec<(String, Compiled)> {
    let mut kernels: Vec<(String, Compiled)> = Vec::new();
    for line in log.lines() {
        if let Some((_, name)) = line.split_once("Compiling entry function '") {
            let name = name.split('\'').next().unwrap_or_default();
            kernels.push((name.to_owned(), Compiled::default()));
        }
        // Functions that are called from a kernel are listed after it, and spill on its account.
        let Some((_, compiled)) = kernels.last_mut() else {
            continue;
        };
        for part in line
            .split(',')
            .map(|part| part.trim().trim_start_matches("ptxas info    : "))
        {
            let number = part
                .split_whitespace()
                .find_map(|word| word.parse::<u32>().ok())
                .unwrap_or(0);
            if part.ends_with("bytes spill stores") {
                compiled.spilled += number;
            } else if part.ends_with("registers") {
                compiled.registers = number;
            } else if part.ends_with("bytes smem") {
                compiled.shared = number;
            }
        }
    }
    kernels
}
