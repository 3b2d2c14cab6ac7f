//! The emulated device: the ring kernel of a GPU, compiled by the host's C++ compiler and run by threads of this process.
//!
//! It runs what a GPU would run, warps and barriers included, and is slow. It is there to try and to test the device
//! runtime where there is no GPU; the CPU device is the one to use for work.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bell::Bell;
use crate::clock_map::Options;
use crate::cuda::HOST_OPTIONS;
use crate::id::fnv1a;
use crate::pump::Pump;
use crate::ring_kernel;
use crate::segment::Segment;

/// Why there is no emulated device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no C++ compiler `{compiler}` ({error}): install one, or name one in the environment variable CXX")]
    NoCompiler { compiler: String, error: io::Error },
    #[error("`{compiler}` refused the ring kernel, kept as {source_file}:\n{said}", source_file = source_file.display())]
    Refused { compiler: String, source_file: PathBuf, said: String },
    #[error("{what} {path}: {error}", path = path.display())]
    Io { what: &'static str, path: PathBuf, error: io::Error },
    #[error("cannot load {path}: {error}", path = path.display())]
    Load { path: PathBuf, error: libloading::Error },
}

/// How a device ended that did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(
        "the ring kernel has no memory left for its actors, what they send, or their timers: give the device more (`memory_bytes`)"
    )]
    OutOfMemory,
    #[error("the ring kernel has no room for what the checkpoint holds: give the device more (`memory_bytes`)")]
    RestoreOutOfMemory,
    #[error("the ring kernel ended by itself, with reason {0}")]
    Kernel(u32),
    #[error("{0}")]
    Host(String),
}

type Kernel = unsafe extern "C" fn(segment: *mut u8, epoch_offset_ns: u64) -> i32;
/// The name of a word of the emulated device: see [`Program::set_clock_ahead_ns`].
const CLOCK_AHEAD: &str = "rh_clock_ahead_ns";

/// At rest an emulated device looks for requests once a millisecond, or when its processor has time for it. So its clock is
/// known no better, and a mapping that turns out to be off by less is none to be paused for.
const CLOCK_ROUND_TRIP_MAX_NS: u64 = 5_000_000;

/// A compiled ring kernel.
pub struct Program {
    kernel: Kernel,
    clock_ahead_ns: *const AtomicU64,
    // Last, so that it is unloaded after what points into it is gone.
    _library: libloading::Library,
}

// SAFETY: what it points at is code, and a word that is only accessed as an atomic.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    /// Compiles the text of [`ring_kernel::source`] in a folder, or takes what was compiled there from the same text.
    /// `options` go to the compiler besides those that give the right bits.
    ///
    /// # Errors
    /// Where there is no compiler, or it refuses the text, or the folder cannot be written to.
    pub fn compile(source: &str, options: &[&str], folder: &Path) -> Result<Program, Error> {
        let hash = fnv1a(format!("{options:?}{source}").as_bytes());
        let library = folder.join(format!("ring-kernel-{hash:016x}.so"));
        if !library.exists() {
            compile(source, options, folder, &library, hash)?;
        }
        // SAFETY: the library was made from our own text; nothing runs when it is loaded.
        let loaded = unsafe { libloading::Library::new(&library) }
            .map_err(|error| Error::Load { path: library.clone(), error })?;
        // SAFETY: `kernel.cuh` defines it with this type.
        let kernel = unsafe { loaded.get::<Kernel>(ring_kernel::KERNEL.as_bytes()) };
        let kernel = *kernel.map_err(|error| Error::Load { path: library.clone(), error })?;
        // SAFETY: `emulated.cuh` defines it as a word of 64 bits, and accesses it as an atomic.
        let clock_ahead_ns = unsafe { loaded.get::<*const AtomicU64>(CLOCK_AHEAD.as_bytes()) };
        let clock_ahead_ns = *clock_ahead_ns.map_err(|error| Error::Load { path: library, error })?;
        Ok(Program { kernel, clock_ahead_ns, _library: loaded })
    }

    /// Sets the clock of this program's devices so far ahead of the host's, or behind it: what a device does whose clock
    /// was set, or runs wrong.
    pub fn set_clock_ahead_ns(&self, ahead_ns: i64) {
        // SAFETY: it lies in the library, which is unloaded after this.
        unsafe { (*self.clock_ahead_ns).store(ahead_ns as u64, Relaxed) }
    }

    /// Starts a device that serves the segment, and returns at once. The node is told by the segment and its bell.
    ///
    /// # Errors
    /// Where there is no thread for it.
    pub fn start(self: &Arc<Program>, segment: &Arc<Segment>, node: Arc<dyn Bell>) -> Result<Host, Error> {
        let (program, served) = (self.clone(), segment.clone());
        let thread = |error| Error::Io { what: "cannot start a thread for", path: "the device".into(), error };
        // Before the kernel, which is to tell no time of its own from the start.
        let options = Options {
            round_trip_max_ns: CLOCK_ROUND_TRIP_MAX_NS,
            pause_ns: CLOCK_ROUND_TRIP_MAX_NS,
            ..Options::default()
        };
        let mut pump = Pump::new(segment.clone(), node, options);
        let kernel = std::thread::Builder::new()
            .name("ring-kernel".into())
            .spawn(move || {
                // SAFETY: the kernel was compiled for this segment's shape, and the segment outlives the call.
                match unsafe { (program.kernel)(served.base().as_ptr(), epoch_offset_ns()) } {
                    0 => Ok(()),
                    code => Err(format!("no memory for the emulated device: {}", io::Error::from_raw_os_error(code))),
                }
            })
            .map_err(thread)?;
        let pumped = std::thread::Builder::new()
            .name("pump".into())
            .spawn(move || {
                while !kernel.is_finished() {
                    std::thread::sleep(pump.look());
                }
                pump.look();
                kernel.join().map_err(|_| "the emulated ring kernel panicked".to_owned())?
            })
            .map_err(thread)?;
        Ok(Host { pumped, segment: segment.clone() })
    }
}

fn compile(source: &str, options: &[&str], folder: &Path, library: &Path, hash: u64) -> Result<(), Error> {
    // Others may compile the same at once: each under a name of its own, and the last one renamed stays.
    static MADE: AtomicU64 = AtomicU64::new(0);
    let own = format!("ring-kernel-{hash:016x}-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
    let (file, made) = (folder.join(format!("{own}.cpp")), folder.join(format!("{own}.so")));
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |error| Error::Io { what, path, error }
    };
    std::fs::create_dir_all(folder).map_err(io("cannot make the folder", folder))?;
    std::fs::write(&file, source).map_err(io("cannot write", &file))?;
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
    let name = compiler.to_string_lossy().into_owned();
    let output = Command::new(&compiler)
        .args(HOST_OPTIONS)
        .args(["-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra", "-Wno-unused"])
        .args(["-Wno-unused-parameter", "-Wno-maybe-uninitialized", "-Wno-unknown-pragmas"])
        .args(options)
        .arg("-o")
        .args([&made, &file])
        .output()
        .map_err(|error| Error::NoCompiler { compiler: name.clone(), error })?;
    if !output.status.success() {
        let said: String = String::from_utf8_lossy(&output.stderr).chars().take(6000).collect();
        return Err(Error::Refused { compiler: name, source_file: file, said });
    }
    std::fs::rename(&made, library).map_err(io("cannot rename to", library))?;
    let _ = std::fs::remove_file(&file);
    Ok(())
}

/// What to add to the device's clock, which is the system's monotonic one, for the time since the Unix epoch.
fn epoch_offset_ns() -> u64 {
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since_boot = Duration::new(monotonic.tv_sec as u64, monotonic.tv_nsec as u32);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.saturating_sub(since_boot).as_nanos() as u64
}

/// A device that runs. Dropping it does not stop it: the segment's stop word does.
pub struct Host {
    pumped: JoinHandle<Result<(), String>>,
    segment: Arc<Segment>,
}

impl Host {
    pub fn is_over(&self) -> bool {
        self.pumped.is_finished()
    }

    /// Waits until the kernel has ended. An error says why it did not end in order.
    pub fn join(self) -> Result<(), Failure> {
        let pumped = self.pumped.join().unwrap_or_else(|_| Err("the pump of the emulated device panicked".into()));
        pumped.map_err(Failure::Host)?;
        match self.segment.kernel().failed.load(Acquire) {
            0 => Ok(()),
            1 => Err(Failure::OutOfMemory),
            2 => Err(Failure::RestoreOutOfMemory),
            code => Err(Failure::Kernel(code)),
        }
    }
}
