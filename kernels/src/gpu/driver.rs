//! The GPUs of this machine, or why there are none.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::mem::{ManuallyDrop, transmute};
use std::path::PathBuf;

use cudarc::driver::sys::{self, CUcomputemode, CUdevice, CUdevice_attribute as Attribute, CUresult};
use libloading::Library;
use serde::Serialize;

use super::library::{self, NotFound, Symbol, symbols};

/// What the loader is asked for, in this order.
pub const LIBRARIES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// The oldest driver that Ringhold has been written for.
pub const OLDEST: Version = Version { major: 12, minor: 0 };

symbols! {
    /// What is asked of a driver before anything runs on it.
    struct Calls {
        cuInit,
        cuDriverGetVersion,
        cuGetErrorName,
        cuGetErrorString,
        cuDeviceGetCount,
        cuDeviceGet,
        cuDeviceGetName,
        cuDeviceGetAttribute,
        cuDeviceGetPCIBusId,
        cuDeviceTotalMem_v2,
        cuDevicePrimaryCtxRetain,
        cuDevicePrimaryCtxRelease_v2,
        cuCtxPushCurrent_v2,
        cuCtxPopCurrent_v2,
        cuMemGetInfo_v2,
    }
}

pub(super) const SUCCESS: c_int = CUresult::CUDA_SUCCESS as c_int;
pub(super) const OUT_OF_MEMORY: c_int = CUresult::CUDA_ERROR_OUT_OF_MEMORY as c_int;
const NO_DEVICE: c_int = CUresult::CUDA_ERROR_NO_DEVICE as c_int;

/// A loaded driver that is ready to be asked.
pub struct Driver {
    calls: Calls,
    library: ManuallyDrop<Library>,
    file: PathBuf,
    /// The newest CUDA it runs code of.
    pub version: Version,
    /// Its own release, such as 580.65.06, where the system tells.
    pub release: Option<String>,
}

/// A release of CUDA: of what a driver runs, or of what a compiler is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

/// What a GPU can do; `sm_90` is 9.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Capability {
    pub major: u32,
    pub minor: u32,
}

/// A GPU, as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its number among the GPUs that this process may see, from 0: the N of `cuda:N`.
    pub number: u32,
    pub name: String,
    pub capability: Capability,
    pub memory_bytes: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// `0000:3b:00.0`
    pub pci_bus_id: String,
    /// The newest CUDA that its driver runs code of.
    pub driver: Version,
    /// Whether all blocks of a kernel can be made to run at once.
    pub cooperative_launch: bool,
    /// Whether the driver ends kernels that run for long, because the GPU drives a display.
    pub kernel_timeout: bool,
    /// Whether the machine's owner lets nobody compute on it.
    pub compute_prohibited: bool,
}

/// Why there is no GPU to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    #[error(
        "there is no NVIDIA driver here: {0}; install one, and name its folder with LD_LIBRARY_PATH if it lies in an unusual place"
    )]
    NoLibrary(NotFound),
    #[error(
        "the driver library {} lacks {}: it is broken, or older than CUDA {OLDEST}; install the NVIDIA driver anew",
        library.display(), missing.join(", ")
    )]
    Broken { library: PathBuf, missing: Vec<&'static str> },
    #[error("the NVIDIA driver runs CUDA up to {0} and Ringhold needs {OLDEST}: install a newer driver")]
    Old(Version),
    #[error("the NVIDIA driver does not start: {0}; `nvidia-smi` may say more, and so may the kernel's log")]
    NotStarted(Error),
    #[error("the NVIDIA driver sees no GPU{}", match .0 {
        Some(visible) => format!(": CUDA_VISIBLE_DEVICES={visible:?} hides them, or there are none"),
        None => String::new(),
    })]
    NoGpu(Option<String>),
}

/// What the driver answered to a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed with {code}{}", if .said.is_empty() { String::new() } else { format!(" ({said})") })]
pub struct Error {
    pub call: &'static str,
    /// `CUresult`
    pub code: i32,
    /// The code in the driver's own words, if it has any for it.
    pub said: String,
}

impl Error {
    /// Whether nothing works in this process any more: a kernel's error is every later call's.
    pub fn is_sticky(&self) -> bool {
        matches!(self.code, 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Capability {
    /// 90 for `sm_90`.
    pub fn architecture(self) -> u32 {
        self.major * 10 + self.minor
    }
}

/// Calls a function of a driver, by its name, out of a table.
macro_rules! call {
    ($driver:expr, $calls:expr, $name:ident($($argument:expr),* $(,)?)) => {
        $driver.result(stringify!($name), $crate::gpu::library::number_of!(sys, $calls, $name($($argument),*)))
    };
}
pub(super) use call;

impl Driver {
    /// Loads and starts the driver.
    pub fn open() -> Result<Driver, Absent> {
        Driver::load(LIBRARIES.map(PathBuf::from))
    }

    /// The same of the first of these files that loads, which must be NVIDIA's driver.
    pub fn load(files: impl IntoIterator<Item = PathBuf>) -> Result<Driver, Absent> {
        let (library, file) = library::open(files).map_err(Absent::NoLibrary)?;
        let calls = match Calls::load(&library) {
            Ok(calls) => calls,
            Err(missing) => return Err(Absent::Broken { library: file, missing }),
        };
        let release = std::fs::read_to_string("/sys/module/nvidia/version").ok();
        let release = release.map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
        let mut driver = Driver { calls, library, file, version: Version { major: 0, minor: 0 }, release };
        // It tells its version before it is started, and a driver that is too old may fail to start.
        let mut version = 0;
        call!(driver, driver.calls, cuDriverGetVersion(&mut version)).map_err(Absent::NotStarted)?;
        driver.version = version_of(version);
        if driver.version < OLDEST {
            return Err(Absent::Old(driver.version));
        }
        match call!(driver, driver.calls, cuInit(0)) {
            Ok(()) => Ok(driver),
            Err(e) if e.code == NO_DEVICE => Err(no_gpu()),
            Err(e) => Err(Absent::NotStarted(e)),
        }
    }

    /// Every GPU that this process may see, in the driver's order. One that does not answer costs none of the others.
    ///
    /// # Errors
    /// If there are none.
    pub fn gpus(&self) -> Result<Vec<Result<Gpu, Error>>, Absent> {
        let mut count = 0;
        call!(self, self.calls, cuDeviceGetCount(&mut count)).map_err(Absent::NotStarted)?;
        if count <= 0 {
            return Err(no_gpu());
        }
        Ok((0..count).map(|number| self.gpu(number)).collect())
    }

    fn gpu(&self, number: c_int) -> Result<Gpu, Error> {
        let device = self.device(number)?;
        let (mut name, mut bus_id) = ([0u8; 256], [0u8; 64]);
        // One less: the last byte stays zero, whatever the driver writes.
        call!(self, self.calls, cuDeviceGetName(name.as_mut_ptr().cast(), 255, device))?;
        call!(self, self.calls, cuDeviceGetPCIBusId(bus_id.as_mut_ptr().cast(), 63, device))?;
        let mut memory_bytes = 0;
        call!(self, self.calls, cuDeviceTotalMem_v2(&mut memory_bytes, device))?;
        let attribute = |which| {
            let mut value = 0;
            call!(self, self.calls, cuDeviceGetAttribute(&mut value, which, device)).map(|()| value)
        };
        let pci_bus_id = text(&bus_id).to_ascii_lowercase();
        Ok(Gpu {
            number: number as u32,
            name: text(&name),
            capability: Capability {
                major: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
                minor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
            },
            memory_bytes: memory_bytes as u64,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            pci_bus_id,
            driver: self.version,
            cooperative_launch: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
            kernel_timeout: attribute(Attribute::CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT)? != 0,
            compute_prohibited: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE)?
                == CUcomputemode::CU_COMPUTEMODE_PROHIBITED as c_int,
        })
    }

    /// The memory of a GPU that nobody uses now, in bytes. It takes some tenths of a second, and while it is asked
    /// some memory of the GPU: this process becomes one that uses it.
    pub fn memory_free_bytes(&self, gpu: &Gpu) -> Result<u64, Error> {
        let device = self.device(gpu.number as c_int)?;
        let mut context = std::ptr::null_mut();
        call!(self, self.calls, cuDevicePrimaryCtxRetain(&mut context, device))?;
        let (mut free, mut total) = (0, 0);
        let asked = call!(self, self.calls, cuCtxPushCurrent_v2(context)).and_then(|()| {
            let asked = call!(self, self.calls, cuMemGetInfo_v2(&mut free, &mut total));
            call!(self, self.calls, cuCtxPopCurrent_v2(&mut context)).and(asked)
        });
        call!(self, self.calls, cuDevicePrimaryCtxRelease_v2(device)).and(asked)?;
        Ok(free as u64)
    }

    /// The functions of a table that are not needed to ask what there is.
    pub(super) fn more<T>(&self, load: fn(&Library) -> Result<T, Vec<&'static str>>) -> Result<T, Absent> {
        load(&self.library).map_err(|missing| Absent::Broken { library: self.file.clone(), missing })
    }

    pub(super) fn device(&self, number: c_int) -> Result<CUdevice, Error> {
        let mut device = 0;
        call!(self, self.calls, cuDeviceGet(&mut device, number)).map(|()| device)
    }

    pub(super) fn result(&self, call: &'static str, code: c_int) -> Result<(), Error> {
        if code == SUCCESS {
            return Ok(());
        }
        let say = |ask: Symbol| {
            let mut said = std::ptr::null();
            // SAFETY: these are the arguments of both functions, with the code as a number here too. The driver writes
            // where a text of its own lies, which ends in zero, or nothing.
            unsafe {
                let ask = transmute::<Symbol, unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int>(ask);
                (ask(code, &mut said) == SUCCESS && !said.is_null())
                    .then(|| CStr::from_ptr(said).to_string_lossy().into_owned())
            }
        };
        let said = [say(self.calls.cuGetErrorName), say(self.calls.cuGetErrorString)];
        Err(Error { call, code, said: said.into_iter().flatten().collect::<Vec<_>>().join(": ") })
    }
}

fn no_gpu() -> Absent {
    Absent::NoGpu(std::env::var("CUDA_VISIBLE_DEVICES").ok())
}

/// 12090 is 12.9.
pub(super) fn version_of(number: c_int) -> Version {
    let number = number.max(0) as u32;
    Version { major: number / 1000, minor: number % 1000 / 10 }
}

/// What stands before the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_cuda_writes_them() {
        assert_eq!(version_of(12090), Version { major: 12, minor: 9 });
        assert_eq!(version_of(13000).to_string(), "13.0");
        assert_eq!(version_of(-5).to_string(), "0.0");
        assert_eq!(Capability { major: 12, minor: 1 }.architecture(), 121);
    }
}
