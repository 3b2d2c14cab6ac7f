//! Shared libraries that may be missing, older than this build, or broken.

use std::error::Error;
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
            Err(e) => failed.push((file, e.source().map_or_else(|| e.to_string(), |said| said.to_string()))),
        }
    }
    Err(NotFound(failed))
}

/// Declares the functions that are called of a library, each by the name that the library exports. `load` looks up all of
/// them, or says which are missing.
macro_rules! functions {
    ($(#[$doc:meta])* $vis:vis struct $table:ident { $($name:ident($($argument:ty),* $(,)?);)* }) => {
        $(#[$doc])*
        #[allow(non_snake_case)]
        $vis struct $table { $($vis $name: unsafe extern "C" fn($($argument),*) -> std::ffi::c_int,)* }

        #[allow(non_snake_case)]
        impl $table {
            /// # Safety
            /// The library's functions of these names take these arguments, and it stays loaded.
            $vis unsafe fn load(library: &libloading::Library) -> Result<$table, Vec<&'static str>> {
                let mut missing = Vec::new();
                $(
                    // SAFETY: the caller's.
                    let $name = unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) -> std::ffi::c_int>(stringify!($name))
                    };
                    let $name = $name.map(|found| *found).map_err(|_| missing.push(stringify!($name)));
                )*
                match ($($name,)*) {
                    ($(Ok($name),)*) => Ok($table { $($name,)* }),
                    _ => Err(missing),
                }
            }
        }
    };
}
pub(crate) use functions;
