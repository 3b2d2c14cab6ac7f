//! NVIDIA's run-time compiler, NVRTC: from a [`Program`] to machine code for one architecture.
//!
//! It needs no GPU. It makes machine code and not PTX, which a driver that is older than the compiler refuses.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::sys::{self, nvrtcResult};
use libloading::Library;

use super::driver::Version;
use super::library::{self, NotFound, number_of, symbols};
use super::needs::Toolchain;
use super::program::{Place, Program};
use crate::cuda::NVRTC_OPTIONS;

/// The variable that names the folder to take the compiler from.
pub const FOLDER_VARIABLE: &str = "RINGHOLD_NVRTC";

/// How to get the compiler.
pub const HOW_TO_GET_IT: &str = "install the CUDA toolkit, or the compiler alone (`pip install --target FOLDER \
    'nvidia-cuda-nvrtc-cu12==12.9.*'`), and set RINGHOLD_NVRTC to the folder that holds libnvrtc.so.12";

/// The oldest first: what it makes runs on the most drivers.
const LIBRARIES: [&str; 3] = ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"];

/// What the compiler calls the program in what it says.
const PROGRAM_NAME: &CStr = c"actors.cu";

symbols! {
    struct Calls {
        nvrtcVersion,
        nvrtcGetNumSupportedArchs,
        nvrtcGetSupportedArchs,
        nvrtcCreateProgram,
        nvrtcCompileProgram,
        nvrtcGetProgramLogSize,
        nvrtcGetProgramLog,
        nvrtcGetCUBINSize,
        nvrtcGetCUBIN,
        nvrtcDestroyProgram,
    }
}

const SUCCESS: c_int = nvrtcResult::NVRTC_SUCCESS as c_int;
const REFUSED: c_int = nvrtcResult::NVRTC_ERROR_COMPILATION as c_int;

/// A loaded compiler.
pub struct Compiler {
    calls: Calls,
    toolchain: Toolchain,
    file: PathBuf,
}

/// Machine code for one architecture.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub cubin: Vec<u8>,
    /// What the compiler had to say nevertheless: warnings.
    pub log: String,
}

/// Why there is no compiler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    #[error("there is no NVRTC, NVIDIA's run-time compiler, here: {0}; {HOW_TO_GET_IT}")]
    NoLibrary(NotFound),
    #[error("RINGHOLD_NVRTC names {} and no NVRTC loads from there: {looked}; {HOW_TO_GET_IT}", folder.display())]
    NotInFolder { folder: PathBuf, looked: NotFound },
    #[error(
        "{} lacks {}: it is broken, or older than CUDA 11.2; {HOW_TO_GET_IT}", library.display(), missing.join(", ")
    )]
    Broken { library: PathBuf, missing: Vec<&'static str> },
    #[error("{} does not tell what it can do: {error}", library.display())]
    Silent { library: PathBuf, error: Failed },
}

/// A call of the compiler that went wrong for another reason than the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub call: &'static str,
    /// `nvrtcResult`
    pub code: i32,
    /// What the compiler had said by then.
    pub log: String,
}

/// Why there is no machine code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(Refused),
    #[error(transparent)]
    Failed(Failed),
}

/// The compiler refuses the program. As the macro has accepted the actors, it is a fault of Ringhold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub architecture: u32,
    /// In the compiler's order.
    pub complaints: Vec<Complaint>,
    /// All that the compiler said.
    pub log: String,
}

/// One error of the compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where it comes from; `None` if it is in the device's own code.
    pub place: Option<Place>,
    /// The line of the program's text, from 1.
    pub line: usize,
    pub text: String,
}

impl Compiler {
    /// The compiler in the folder that `RINGHOLD_NVRTC` names; where it is not set, the one that the loader finds
    /// (`LD_LIBRARY_PATH`, what the system has installed), or that of a CUDA toolkit in its usual place.
    pub fn find() -> Result<Compiler, Absent> {
        let names = LIBRARIES.map(PathBuf::from);
        let Some(folder) = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from) else {
            let toolkit = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
            let toolkit = toolkit.chain([PathBuf::from("/usr/local/cuda")]).map(|folder| folder.join("lib64"));
            let files =
                names.clone().into_iter().chain(toolkit.flat_map(|folder| names.clone().map(|n| folder.join(n))));
            return Compiler::load(library::open(files).map_err(Absent::NoLibrary)?);
        };
        match library::open(names.map(|name| folder.join(name))) {
            Ok(found) => Compiler::load(found),
            Err(looked) => Err(Absent::NotInFolder { folder, looked }),
        }
    }

    fn load((library, file): (ManuallyDrop<Library>, PathBuf)) -> Result<Compiler, Absent> {
        let calls = match Calls::load(&library) {
            Ok(calls) => calls,
            Err(missing) => return Err(Absent::Broken { library: file, missing }),
        };
        match toolchain(&calls) {
            Ok(toolchain) => Ok(Compiler { calls, toolchain, file }),
            Err(error) => Err(Absent::Silent { library: file, error }),
        }
    }

    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// What it was loaded from: a path, or a name that the loader found.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Compiles to machine code for `architecture`, as in 90 for `sm_90`.
    pub fn compile(&self, program: &Program, architecture: u32) -> Result<Compiled, Error> {
        let c_string = |text: &str| CString::new(text).expect("neither generated code nor an option holds a zero");
        let source = c_string(program.text());
        let options: Vec<CString> = options(architecture).iter().map(|option| c_string(option)).collect();
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let none = std::ptr::null();
        let mut handle = std::ptr::null_mut();
        let create = number_of!(
            sys,
            self.calls,
            nvrtcCreateProgram(&mut handle, source.as_ptr(), PROGRAM_NAME.as_ptr(), 0, none, none)
        );
        failed("nvrtcCreateProgram", create).map_err(Error::Failed)?;
        // From here on the handle is a program, until it is destroyed.
        let status = number_of!(sys, self.calls, nvrtcCompileProgram(handle, options.len() as c_int, options.as_ptr()));
        let log = take(
            "nvrtcGetProgramLog",
            |bytes| number_of!(sys, self.calls, nvrtcGetProgramLogSize(handle, bytes)),
            |to| number_of!(sys, self.calls, nvrtcGetProgramLog(handle, to)),
        );
        let log = log.map(|log| String::from_utf8_lossy(&log).trim_end_matches('\0').to_string());
        let cubin = match status {
            SUCCESS => take(
                "nvrtcGetCUBIN",
                |bytes| number_of!(sys, self.calls, nvrtcGetCUBINSize(handle, bytes)),
                |to| number_of!(sys, self.calls, nvrtcGetCUBIN(handle, to)),
            ),
            _ => Ok(Vec::new()),
        };
        // It can fail only for one that is no program.
        number_of!(sys, self.calls, nvrtcDestroyProgram(&mut handle));
        let log = log.unwrap_or_default();
        match status {
            SUCCESS => Ok(Compiled { cubin: cubin.map_err(Error::Failed)?, log }),
            REFUSED => {
                let complaints = complaints(program, &log);
                Err(Error::Refused(Refused { architecture, complaints, log }))
            }
            code => Err(Error::Failed(Failed { call: "nvrtcCompileProgram", code, log })),
        }
    }
}

/// Bytes of a program, whose number is asked for first.
fn take(
    call: &'static str,
    size: impl FnOnce(&mut usize) -> c_int,
    get: impl FnOnce(*mut c_char) -> c_int,
) -> Result<Vec<u8>, Failed> {
    let mut bytes = 0;
    failed(call, size(&mut bytes))?;
    // As many are written as were announced.
    let mut taken = vec![0u8; bytes];
    failed(call, get(taken.as_mut_ptr().cast()))?;
    Ok(taken)
}

/// All that the compiler is told, besides the program.
pub fn options(architecture: u32) -> Vec<String> {
    NVRTC_OPTIONS.into_iter().map(str::to_string).chain([format!("--gpu-architecture=sm_{architecture}")]).collect()
}

fn toolchain(calls: &Calls) -> Result<Toolchain, Failed> {
    let (mut major, mut minor, mut count) = (0, 0, 0);
    failed("nvrtcVersion", number_of!(sys, calls, nvrtcVersion(&mut major, &mut minor)))?;
    failed("nvrtcGetNumSupportedArchs", number_of!(sys, calls, nvrtcGetNumSupportedArchs(&mut count)))?;
    let mut architectures: Vec<c_int> = vec![0; count.max(0) as usize];
    // As many numbers are written as were announced.
    let got = number_of!(sys, calls, nvrtcGetSupportedArchs(architectures.as_mut_ptr()));
    failed("nvrtcGetSupportedArchs", got)?;
    Ok(Toolchain {
        version: Version { major: major.max(0) as u32, minor: minor.max(0) as u32 },
        architectures: architectures.into_iter().map(|number| number.max(0) as u32).collect(),
    })
}

fn failed(call: &'static str, code: c_int) -> Result<(), Failed> {
    if code == SUCCESS { Ok(()) } else { Err(Failed { call, code, log: String::new() }) }
}

/// The errors in a log, as in `actors.cu(123): error: identifier "x" is undefined`.
fn complaints(program: &Program, log: &str) -> Vec<Complaint> {
    let name = PROGRAM_NAME.to_str().expect("it is plain");
    let complaint = |line: &str| {
        let (number, said) = line.strip_prefix(name)?.strip_prefix('(')?.split_once("): ")?;
        let (severity, text) = said.split_once(": ")?;
        let line = number.parse().ok().filter(|_| severity.contains("error"))?;
        Some(Complaint { place: program.place(line), line, text: text.to_string() })
    };
    log.lines().filter_map(complaint).collect()
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.code {
            1 => " (out of memory)",
            5 => " (an option that it does not know: it is too old, or too new)",
            7 => " (its libnvrtc-builtins is not beside it, or is of another release)",
            _ => "",
        };
        write!(f, "{} failed with {}{meaning}", self.call, self.code)?;
        if self.log.trim().is_empty() { Ok(()) } else { write!(f, ": {}", self.log.trim()) }
    }
}

impl std::error::Error for Failed {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the device's program does not compile for sm_{}", self.architecture)?;
        // The first that points at an actor is worth more than one in code that its user has not written.
        let first = self.complaints.iter().find(|complaint| complaint.place.is_some()).or(self.complaints.first());
        match first {
            Some(Complaint { place: Some(place), text, .. }) => write!(f, ": {place}: {text}")?,
            Some(Complaint { line, text, .. }) => write!(f, ": line {line} of the device's own code: {text}")?,
            None => write!(f, ": {}", self.log.trim())?,
        }
        match self.complaints.len() {
            0 | 1 => {}
            count => write!(f, ", and {} more", count - 1)?,
        }
        write!(f, "; no actor should be able to cause that, so please report it as a bug of Ringhold")
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::{Source, translation_unit};

    fn program(functions: &'static str) -> Program {
        let source = Source { module: "bank", types: "", functions };
        Program::new(translation_unit(&[source]), &[("bank.account", source)])
    }

    /// # Panics
    /// If `RINGHOLD_NVRTC` is set and is of no use: whoever sets it wants the checks.
    fn compiler() -> Option<Compiler> {
        match Compiler::find() {
            Ok(compiler) => Some(compiler),
            Err(Absent::NoLibrary(_)) => {
                println!("skipped: no NVRTC ({HOW_TO_GET_IT})");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_program_becomes_machine_code_for_the_architecture_asked_for() {
        let Some(compiler) = compiler() else { return };
        let program = program("extern \"C\" __global__ void bank(unsigned* to) { *to = 1; }\n");
        let compiled = compiler.compile(&program, 90).unwrap();
        assert!(compiled.cubin.starts_with(b"\x7fELF"), "{:?}", &compiled.cubin[..4.min(compiled.cubin.len())]);
        assert_eq!(compiled.log, "");
        assert_ne!(compiled.cubin, compiler.compile(&program, 80).unwrap().cubin);
        assert!(compiler.toolchain().version >= Version { major: 12, minor: 0 });
        assert!(compiler.toolchain().architectures.contains(&90));
    }

    #[test]
    fn a_refused_program_names_the_actor_type_and_the_line_of_rust() {
        let Some(compiler) = compiler() else { return };
        let program = program("__device__ int bank() {\n    // line 12\n    return missing;\n}\n");
        let Err(Error::Refused(refused)) = compiler.compile(&program, 90) else { panic!("it compiled") };
        let place = Place { actor: "bank.account".into(), line: Some(12) };
        assert_eq!(refused.complaints.len(), 1, "{refused:?}");
        assert_eq!(refused.complaints[0].place, Some(place));
        assert!(refused.log.contains("return missing;"), "{}", refused.log);
        let said = refused.to_string();
        assert!(
            said.starts_with(
                "the device's program does not compile for sm_90: actor type `bank.account`, line 12 of its Rust \
                 file: identifier \"missing\" is undefined;"
            ),
            "{said}"
        );
    }

    #[test]
    fn an_architecture_that_the_compiler_does_not_know_is_an_error_and_not_a_refusal() {
        let Some(compiler) = compiler() else { return };
        let error = compiler.compile(&program(""), 35).unwrap_err();
        let Error::Failed(failed) = error else { panic!("{error}") };
        assert_eq!((failed.call, failed.code), ("nvrtcCompileProgram", 5), "{failed}");
    }

    #[test]
    fn the_log_is_read_as_the_compiler_writes_it() {
        let program = program("");
        let log = "actors.cu(7): warning #177-D: unused\nactors.cu(3): error: x\n  code\n\n\
                   actors.cu(9): catastrophic error: y: z\n2 errors detected\n";
        let found = complaints(&program, log);
        let found: Vec<_> = found.iter().map(|complaint| (complaint.line, complaint.text.as_str())).collect();
        assert_eq!(found, [(3, "x"), (9, "y: z")]);
    }
}
