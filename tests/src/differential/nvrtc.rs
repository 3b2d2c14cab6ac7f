//! NVIDIA's run-time compiler, loaded where there is one: it needs no GPU.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;

use libloading::{Library, Symbol};
use ringhold_kernels::cuda;

/// How to get it, for whoever reads that its checks were skipped.
pub const HOW_TO_GET_IT: &str = "pip install --target DIR 'nvidia-cuda-nvrtc-cu12==12.9.*', then set RINGHOLD_NVRTC \
    to the folder in it that holds libnvrtc.so.12";

const NAMES: [&str; 3] = ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"];

pub struct Nvrtc(Library);

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
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
type Count = unsafe extern "C" fn(*mut c_int) -> c_int;

impl Nvrtc {
    /// From the folder in `RINGHOLD_NVRTC`, or by the loader's own rules (`LD_LIBRARY_PATH`).
    ///
    /// # Panics
    /// If `RINGHOLD_NVRTC` is set and holds none that loads: whoever sets it wants the checks.
    pub fn find() -> Option<Nvrtc> {
        let folder = std::env::var_os("RINGHOLD_NVRTC").map(PathBuf::from);
        let load = |name: &&str| {
            let path = folder.as_ref().map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
            // SAFETY: loading NVRTC runs nothing but its own initialisers.
            unsafe { Library::new(path) }.ok()
        };
        let found = NAMES.iter().find_map(load);
        assert!(found.is_some() || folder.is_none(), "RINGHOLD_NVRTC={folder:?} holds none of {NAMES:?} that loads");
        found.map(Nvrtc)
    }

    /// The architectures it compiles for, as in 70 for `sm_70`.
    pub fn architectures(&self) -> Vec<u32> {
        let (count, list) =
            (self.function::<Count>("nvrtcGetNumSupportedArchs"), self.function("nvrtcGetSupportedArchs"));
        let list: Symbol<Count> = list;
        let mut number = 0;
        // SAFETY: the second call writes as many numbers as the first one says.
        let numbers = unsafe {
            assert_eq!(count(&mut number), 0);
            let mut numbers = vec![0; number as usize];
            assert_eq!(list(numbers.as_mut_ptr()), 0);
            numbers
        };
        numbers.into_iter().map(|number| number as u32).collect()
    }

    /// Compiles to machine code, with the options that Ringhold uses. What the compiler says, if it refuses, and
    /// also if it warns.
    pub fn compile(&self, source: &str, architecture: u32) -> Result<(), String> {
        self.run(source, &format!("sm_{architecture}")).map(drop)
    }

    /// The same as PTX, for `ptxas`.
    pub fn ptx(&self, source: &str, architecture: u32) -> Result<Vec<u8>, String> {
        self.run(source, &format!("compute_{architecture}"))
    }

    /// Compiles; what comes out is PTX for a `compute_` architecture, and otherwise empty.
    fn run(&self, source: &str, architecture: &str) -> Result<Vec<u8>, String> {
        let create: Symbol<Create> = self.function("nvrtcCreateProgram");
        let compile: Symbol<Compile> = self.function("nvrtcCompileProgram");
        let log_size: Symbol<Size> = self.function("nvrtcGetProgramLogSize");
        let log: Symbol<Text> = self.function("nvrtcGetProgramLog");
        let ptx_size: Symbol<Size> = self.function("nvrtcGetPTXSize");
        let ptx: Symbol<Text> = self.function("nvrtcGetPTX");
        let destroy: Symbol<Destroy> = self.function("nvrtcDestroyProgram");
        let source = CString::new(source).expect("no zero in generated code");
        let architecture = format!("--gpu-architecture={architecture}");
        let options: Vec<CString> = (cuda::NVRTC_OPTIONS.into_iter())
            .chain([architecture.as_str()])
            .map(|option| CString::new(option).expect("no zero in an option"))
            .collect();
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let none = std::ptr::null();
        let mut program = std::ptr::null_mut();
        // SAFETY: all texts end in zero and outlive the calls; log and PTX have the sizes that were asked for.
        let (status, said, made) = unsafe {
            assert_eq!(create(&mut program, source.as_ptr(), c"actors.cu".as_ptr(), 0, none, none), 0);
            let status = compile(program, options.len() as c_int, options.as_ptr());
            let mut size = 0;
            assert_eq!(log_size(program, &mut size), 0);
            let mut text = vec![0u8; size.max(1)];
            assert_eq!(log(program, text.as_mut_ptr().cast()), 0);
            let mut made = Vec::new();
            if status == 0 && architecture.contains("compute_") {
                assert_eq!(ptx_size(program, &mut size), 0);
                made = vec![0u8; size];
                assert_eq!(ptx(program, made.as_mut_ptr().cast()), 0);
                // The zero at its end is no PTX.
                made.pop();
            }
            destroy(&mut program);
            let text = CStr::from_bytes_until_nul(&text).map(|text| text.to_string_lossy().into_owned());
            (status, text.unwrap_or_default(), made)
        };
        // That an old architecture will go one day is no fault of the code.
        let of_the_code = |line: &&str| !line.trim().is_empty() && !line.contains("Architectures prior to");
        if status == 0 && said.lines().filter(of_the_code).count() == 0 {
            Ok(made)
        } else {
            Err(said.chars().take(6000).collect())
        }
    }

    fn function<T>(&self, name: &str) -> Symbol<'_, T> {
        // SAFETY: the types above are those of nvrtc.h, which has not changed them since CUDA 11.2.
        unsafe { self.0.get(name.as_bytes()) }.unwrap_or_else(|e| panic!("NVRTC lacks {name}: {e}"))
    }
}
