//! Shared libraries that may be missing, older than this build, or broken.

use std::error::Error;
use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use libloading::Library;

/// No file of these loads: each, with what the system's loader says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound(pub Vec<(PathBuf, String)>);

impl std::fmt::Display for NotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let absent = |said: &str| said.contains("No such file or directory");
        // Where nothing lies there is nothing to explain; a file that does not load is what its user wants to see.
        for (file, said) in self.0.iter().filter(|(_, said)| !absent(said)) {
            write!(f, "{} does not load ({said}); ", file.display())?;
        }
        let names: Vec<_> = self.0.iter().map(|(file, _)| file.display().to_string()).collect();
        write!(f, "looked for {}", names.join(", "))
    }
}

/// The first of the files that loads, and its name. A name without a folder is found by the loader's own rules:
/// `LD_LIBRARY_PATH`, then what the system has installed.
///
/// It stays loaded for as long as the process runs: NVIDIA's libraries start threads, which must not lose their code.
pub fn open(files: impl IntoIterator<Item = PathBuf>) -> Result<(ManuallyDrop<Library>, PathBuf), NotFound> {
    let mut failed = Vec::new();
    for file in files {
        // SAFETY: only NVIDIA's libraries are named here; loading them runs their own initialisers.
        match unsafe { Library::new(&file) } {
            Ok(library) => return Ok((ManuallyDrop::new(library), file)),
            Err(e) => failed.push((file, said(&e))),
        }
    }
    Err(NotFound(failed))
}

/// The loader's own words in an error.
pub fn said(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |said| said.to_string())
}

/// A function of a library by its name alone.
pub type Symbol = unsafe extern "C" fn();

/// Names functions that are called of a library, all of which `cudarc` declares. `load` looks up all of them, or says which
/// are missing.
macro_rules! symbols {
    ($(#[$doc:meta])* $vis:vis struct $table:ident { $($name:ident),* $(,)? }) => {
        $(#[$doc])*
        #[allow(non_snake_case)]
        $vis struct $table { $($vis $name: $crate::gpu::library::Symbol,)* }

        #[allow(non_snake_case)]
        impl $table {
            $vis fn load(library: &libloading::Library) -> Result<$table, Vec<&'static str>> {
                let mut missing = Vec::new();
                $(
                    // SAFETY: any address is a symbol; only to call it takes more. One that is null is missing.
                    let $name = unsafe { library.get::<Option<$crate::gpu::library::Symbol>>(stringify!($name)) };
                    let $name = $name.ok().and_then(|found| *found);
                    if $name.is_none() {
                        missing.push(stringify!($name));
                    }
                )*
                match ($($name,)*) {
                    ($(Some($name),)*) => Ok($table { $($name,)* }),
                    _ => Err(missing),
                }
            }
        }
    };
}
pub(crate) use symbols;

/// Calls a function of a table, of those that `cudarc` declares in a module; only its arguments compile. What it returns is
/// a number. Whoever writes a call vouches for what its pointers point at, as NVIDIA's header asks.
macro_rules! number_of {
    (@any $argument:expr) => { _ };
    ($sys:ident, $table:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let declared: unsafe fn($($crate::gpu::library::number_of!(@any $argument)),*) -> _ = $sys::$name;
        // SAFETY: the arguments are what NVIDIA's header asks for, and what they point at outlives the call.
        unsafe { $crate::gpu::library::Declared::in_c(declared, $table.$name)($($argument),*) }
    }};
}
pub(crate) use number_of;

/// `CUresult` and `nvrtcResult`: C's enums, of which a library may return values that their declaration lacks. In Rust such a
/// value is undefined behaviour, so none is ever made of what a library returns.
pub trait Code {}
impl Code for cudarc::driver::sys::CUresult {}
impl Code for cudarc::nvrtc::sys::nvrtcResult {}
const _: () = assert!(size_of::<cudarc::driver::sys::CUresult>() == size_of::<c_int>());
const _: () = assert!(size_of::<cudarc::nvrtc::sys::nvrtcResult>() == size_of::<c_int>());

/// A function as `cudarc` declares it.
pub trait Declared {
    /// The same as the library has it, but for a number in the place of the [`Code`].
    type InC;

    /// # Safety
    /// The symbol is the function that is declared.
    unsafe fn in_c(self, symbol: Symbol) -> Self::InC;
}

macro_rules! declared {
    ($($argument:ident)*) => {
        impl<R: Code, $($argument),*> Declared for unsafe fn($($argument),*) -> R {
            type InC = unsafe extern "C" fn($($argument),*) -> c_int;

            unsafe fn in_c(self, symbol: Symbol) -> Self::InC {
                // SAFETY: the caller's; C passes an enum as it passes its number.
                unsafe { std::mem::transmute::<Symbol, Self::InC>(symbol) }
            }
        }
    };
}
declared!(A);
declared!(A B);
declared!(A B C);
declared!(A B C D);
declared!(A B C D E F);
declared!(A B C D E F G H I J);
