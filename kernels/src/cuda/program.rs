//! Kernels: compiled by NVRTC for the device at hand, kept as cubins, launched by name.

use super::{
    CudaError,
    abi::{Launch, NVRTC_OPTIONS, Source},
    context::Context,
};
use cudarc::{
    driver::{
        result::{self, DriverError},
        sys,
    },
    nvrtc,
};
use std::{
    collections::HashMap,
    ffi::{CString, c_char, c_void},
    path::PathBuf,
    sync::Arc,
};

/// The kernels of a device.
pub(super) struct Program {
    kernels: HashMap<&'static str, sys::CUfunction>,
    modules: Vec<sys::CUmodule>,
    digest: String,
    context: Arc<Context>,
}

// SAFETY: modules and functions are handles that any thread may use.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    pub(super) fn load(context: &Arc<Context>, sources: &[Source]) -> Result<Program, CudaError> {
        let (architecture, version) = (context.architecture(), version());
        let mut digest = blake3::Hasher::new();
        digest.update(version.as_bytes());
        let mut program = Program {
            kernels: HashMap::new(),
            modules: Vec::new(),
            digest: String::new(),
            context: Arc::clone(context),
        };
        for source in sources {
            digest.update(source.text.as_bytes());
            let cubin = cubin(source, &architecture, &version)?;
            // SAFETY: the image is whole, and stays until the call returns.
            let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) };
            let module = module.map_err(CudaError::driver("cuModuleLoadData"))?;
            program.modules.push(module);
            for &kernel in source.kernels {
                let name = CString::new(kernel).expect("kernels' names have no zero");
                // SAFETY: the module is loaded, and is unloaded after its functions were last used.
                let function = unsafe { result::module::get_function(module, name) };
                let function = function.map_err(CudaError::driver("cuModuleGetFunction"))?;
                program.kernels.insert(kernel, function);
            }
        }
        let hash = digest.finalize().to_hex();
        program.digest = format!("{} by {version}", &hash[..16]);
        Ok(program)
    }

    /// What the kernels are made of and by what.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// # Safety
    /// As `Device::launch`; the stream is alive.
    pub(super) unsafe fn launch(
        &self,
        launch: &Launch,
        stream: sys::CUstream,
    ) -> Result<(), DriverError> {
        let function = self.kernels.get(launch.kernel).copied();
        let function = function.expect("every kernel that is launched was loaded");
        let arguments = launch.arguments.iter();
        let mut parameters: Vec<*mut c_void> = arguments
            .map(|argument| (&raw const *argument).cast_mut().cast())
            .collect();
        let [x, y, z] = launch.blocks;
        // SAFETY: the driver copies as many bytes of each argument as the parameter has, at most eight, before it returns,
        // and writes none.
        unsafe {
            if launch.shared > 48 << 10 {
                use sys::CUfunction_attribute as Attribute;
                let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                result::function::set_function_attribute(
                    function,
                    attribute,
                    launch.shared as i32,
                )?;
            }
            result::launch_kernel(
                function,
                (x, y, z),
                (launch.threads, 1, 1),
                launch.shared,
                stream,
                &mut parameters,
            )
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.context.enter();
        for module in &self.modules {
            // SAFETY: it was loaded above and its functions aren't used any more.
            let _ = unsafe { result::module::unload(*module) };
        }
    }
}

fn version() -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are there to be written.
    let told = unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    match told.result() {
        Ok(()) => format!("NVRTC {major}.{minor}"),
        Err(_) => "NVRTC of an unknown version".to_owned(),
    }
}

/// A source's cubin, from the cache if it has been compiled before.
fn cubin(source: &Source, architecture: &str, version: &str) -> Result<Vec<u8>, CudaError> {
    let mut key = blake3::Hasher::new();
    for part in [source.text, architecture, version]
        .into_iter()
        .chain(NVRTC_OPTIONS)
    {
        key.update(&(part.len() as u64).to_le_bytes());
        key.update(part.as_bytes());
    }
    let kept = cache().map(|folder| folder.join(format!("{}.cubin", key.finalize().to_hex())));
    if let Some(cubin) = kept.as_ref().and_then(|path| std::fs::read(path).ok()) {
        return Ok(cubin);
    }
    let cubin = compile(source, architecture)?;
    if let Some(path) = kept {
        // Beside it first: another process may read at the same time. A cache that can't be written costs time only.
        let beside = path.with_extension(format!("{}", std::process::id()));
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = written.and_then(|()| std::fs::write(&beside, &cubin));
        let _ = written.and_then(|()| std::fs::rename(&beside, &path));
    }
    Ok(cubin)
}

/// Where cubins are kept, if there is a place for what programs keep.
fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let folder = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    Some(folder.join("polestar").join("cubin"))
}

fn compile(source: &Source, architecture: &str) -> Result<Vec<u8>, CudaError> {
    let refused = |log: String| CudaError::Compile {
        file: source.file.to_owned(),
        architecture: architecture.to_owned(),
        log,
    };
    let text = CString::new(source.text).expect("sources have no zero");
    let name = CString::new(source.file).expect("names have no zero");
    let program = nvrtc::result::create_program(&text, Some(&name));
    let program = Compiling(program.map_err(|error| refused(error.to_string()))?);
    let mut options: Vec<String> = NVRTC_OPTIONS.map(str::to_owned).into();
    options.push(format!("--gpu-architecture={architecture}"));
    // SAFETY: the program was created above and is destroyed when it is dropped.
    unsafe {
        if nvrtc::result::compile_program(program.0, &options).is_err() {
            let log = nvrtc::result::get_program_log(program.0);
            let log = log.map_err(|error| refused(format!("it doesn't say why: {error}")))?;
            let bytes = log.iter().map(|&c| c as u8).take_while(|&c| c != 0);
            let bytes: Vec<u8> = bytes.collect();
            return Err(refused(String::from_utf8_lossy(&bytes).into_owned()));
        }
        let failed = |error: nvrtc::result::NvrtcError| refused(error.to_string());
        let mut bytes = 0;
        let told = nvrtc::sys::nvrtcGetCUBINSize(program.0, &raw mut bytes);
        told.result().map_err(failed)?;
        let mut cubin = vec![0_u8; bytes];
        let told = nvrtc::sys::nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast::<c_char>());
        told.result().map_err(failed)?;
        Ok(cubin)
    }
}

struct Compiling(nvrtc::sys::nvrtcProgram);

impl Drop for Compiling {
    fn drop(&mut self) {
        // SAFETY: it was created and is used no more.
        let _ = unsafe { nvrtc::result::destroy_program(self.0) };
    }
}
