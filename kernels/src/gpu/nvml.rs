//! NVIDIA's management library, NVML: how a GPU's memory does, what it is linked to, and what the driver reports of it.
//!
//! A device runs without it. Declarations are those of `nvml-wrapper-sys`, whose results are plain numbers and in which
//! each function is there or is not; so no library makes a call of it panic.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_uint};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::path::PathBuf;
use std::time::Duration;

use nvml_wrapper_sys::bindings as sys;
use nvml_wrapper_sys::bindings::NvmlLib;
use serde::{Deserialize, Serialize};

use super::library::{NotFound, said};
use super::pci;
use super::xid::Xid;

/// What the loader is asked for: the driver's installer puts it beside libcuda.so.1.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// The library, started.
pub struct Nvml {
    /// Never unloaded: see [`super::library::open`].
    library: ManuallyDrop<NvmlLib>,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    #[error("there is no NVML, NVIDIA's management library, here: {0}; the driver brings it")]
    NoLibrary(NotFound),
    #[error("NVML, NVIDIA's management library, does not start: {0}")]
    NotStarted(Error),
}

/// What the library answered to a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed with {code}{}", if .said.is_empty() { String::new() } else { format!(" ({said})") })]
pub struct Error {
    pub call: &'static str,
    /// `nvmlReturn_t`
    pub code: u32,
    /// The code in the library's own words, if it has any for it.
    pub said: String,
}

/// How the memory of a GPU does. What it cannot tell, because it has no such thing or it is switched off, is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Errors since the driver was loaded that could not be corrected.
    pub ecc_uncorrected: Option<u64>,
    /// Whether a faulty part waits for a reset, to be replaced by a spare one.
    pub repair_pending: Option<bool>,
    /// Whether a faulty part could not be replaced.
    pub repair_failed: Option<bool>,
}

/// What the driver reports of one GPU, from when this was made.
pub struct Events {
    nvml: Nvml,
    set: sys::nvmlEventSet_t,
}

// SAFETY: a set may be waited on by any thread, one at a time, which `&mut` sees to.
unsafe impl Send for Events {}

/// Calls a function of the library, if it has it.
macro_rules! call {
    ($nvml:expr, $name:ident($($argument:expr),* $(,)?)) => {
        match &$nvml.library.$name {
            // SAFETY: the arguments are what `nvml.h` asks for, and what they point at outlives the call.
            Ok(function) => $nvml.result(stringify!($name), unsafe { function($($argument),*) }),
            Err(_) => Err(Error {
                call: stringify!($name),
                code: sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND,
                said: "the library has no such function".into(),
            }),
        }
    };
}

impl Nvml {
    /// Loads and starts the library.
    pub fn open() -> Result<Nvml, Absent> {
        // SAFETY: only NVIDIA's library is named; loading it runs its own initialisers.
        let library = unsafe { NvmlLib::new(LIBRARY) };
        let library = library.map_err(|e| Absent::NoLibrary(NotFound(vec![(PathBuf::from(LIBRARY), said(&e))])))?;
        let nvml = Nvml { library: ManuallyDrop::new(library) };
        // Before it has started there is nothing to shut down, which harms nothing.
        call!(nvml, nvmlInit_v2()).map_err(Absent::NotStarted)?;
        Ok(nvml)
    }

    /// How the memory of the GPU with this PCI bus id does.
    pub fn health(&self, pci_bus_id: &str) -> Result<Health, Error> {
        let device = self.device(pci_bus_id)?;
        let (uncorrected, volatile) = (
            sys::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            sys::nvmlEccCounterType_enum_NVML_VOLATILE_ECC,
        );
        let mut count = 0;
        let counted = call!(self, nvmlDeviceGetTotalEccErrors(device, uncorrected, volatile, &mut count));
        let mut health = Health { ecc_uncorrected: supported(counted)?.then_some(count), ..Health::default() };
        // Ampere and later replace rows of memory; those before give up pages.
        let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
        let rows =
            call!(self, nvmlDeviceGetRemappedRows(device, &mut corrected, &mut uncorrected, &mut pending, &mut failed));
        if supported(rows)? {
            (health.repair_pending, health.repair_failed) = (Some(pending != 0), Some(failed != 0));
        } else {
            let mut pending = 0;
            let pages = call!(self, nvmlDeviceGetRetiredPagesPendingStatus(device, &mut pending));
            health.repair_pending = supported(pages)?.then_some(pending != 0);
        }
        Ok(health)
    }

    /// Where on the PCI bus the GPU with this PCI bus id is, as this library has it and the system writes it.
    pub fn address(&self, pci_bus_id: &str) -> Result<Option<String>, Error> {
        let device = self.device(pci_bus_id)?;
        let mut info = no_info();
        call!(self, nvmlDeviceGetPciInfo_v3(device, &mut info)).map(|()| address(&info))
    }

    /// Where on the PCI bus those NVLinks of the GPU with this PCI bus id end that are up: at other GPUs, or NVLink switches. None
    /// of a GPU that has none, or where the library is too old to tell. An end that it has no address for is left out.
    pub fn nvlinks(&self, pci_bus_id: &str) -> Result<BTreeSet<String>, Error> {
        let device = self.device(pci_bus_id)?;
        let mut ends = BTreeSet::new();
        for link in 0..sys::NVML_NVLINK_MAX_LINKS {
            let mut state = sys::nvmlEnableState_enum_NVML_FEATURE_DISABLED;
            let answer = call!(self, nvmlDeviceGetNvLinkState(device, link, &mut state));
            // Also what says that a GPU has not so many.
            let no_such_link = |e: &Error| e.code == sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
            if answer.as_ref().is_err_and(no_such_link) || !supported(answer)? {
                break;
            }
            if state != sys::nvmlEnableState_enum_NVML_FEATURE_ENABLED {
                continue;
            }
            let mut end = no_info();
            if supported(call!(self, nvmlDeviceGetNvLinkRemotePciInfo_v2(device, link, &mut end)))? {
                ends.extend(address(&end));
            }
        }
        Ok(ends)
    }

    /// The Xids of the GPU with this PCI bus id.
    ///
    /// # Errors
    /// Also where its GPU, or the machine, reports none.
    pub fn events(self, pci_bus_id: &str) -> Result<Events, Error> {
        let device = self.device(pci_bus_id)?;
        let mut set = std::ptr::null_mut();
        call!(self, nvmlEventSetCreate(&mut set))?;
        // From here on it is given back when dropped.
        let events = Events { nvml: self, set };
        let xids = u64::from(sys::nvmlEventTypeXidCriticalError);
        call!(events.nvml, nvmlDeviceRegisterEvents(device, xids, events.set))?;
        Ok(events)
    }

    fn device(&self, pci_bus_id: &str) -> Result<sys::nvmlDevice_t, Error> {
        let id = CString::new(pci_bus_id).unwrap_or_default();
        let mut device = std::ptr::null_mut();
        call!(self, nvmlDeviceGetHandleByPciBusId_v2(id.as_ptr(), &mut device)).map(|()| device)
    }

    fn result(&self, call: &'static str, code: sys::nvmlReturn_t) -> Result<(), Error> {
        if code == sys::nvmlReturn_enum_NVML_SUCCESS {
            return Ok(());
        }
        let said = self.library.nvmlErrorString.as_ref().ok().and_then(|say| {
            // SAFETY: the library returns a text of its own, which ends in zero, or nothing.
            unsafe {
                let text = say(code);
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        });
        Err(Error { call, code, said: said.unwrap_or_default() })
    }
}

fn no_info() -> sys::nvmlPciInfo_t {
    // SAFETY: numbers and texts: all zeros are a value of it.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// `None` where there is none, or all zeros, where no GPU and no NVLink switch can be.
fn address(info: &sys::nvmlPciInfo_t) -> Option<String> {
    let text: Vec<u8> = info.busId.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    pci::address(&String::from_utf8_lossy(&text)).filter(|address| address != "0000:00:00.0")
}

/// Whether there is what was asked for.
fn supported(answer: Result<(), Error>) -> Result<bool, Error> {
    match answer {
        Ok(()) => Ok(true),
        Err(e) if e.code == sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED => Ok(false),
        Err(e) if e.code == sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND => Ok(false),
        Err(e) => Err(e),
    }
}

impl Events {
    /// The next Xid, or `None` if there is none for so long. Of several at once NVML tells only the last, several times. A
    /// GPU that it says is lost has fallen off the bus, whether that is reported or not.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<Xid>, Error> {
        let mut event = MaybeUninit::<sys::nvmlEventData_t>::zeroed();
        let limit_ms = c_uint::try_from(limit.as_millis()).unwrap_or(c_uint::MAX);
        match call!(self.nvml, nvmlEventSetWait_v2(self.set, event.as_mut_ptr(), limit_ms)) {
            // SAFETY: numbers and a pointer that nobody follows: all zeros are a value of it.
            Ok(()) => Ok(Some(Xid(unsafe { event.assume_init() }.eventData))),
            Err(e) if e.code == sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT => Ok(None),
            Err(e) if e.code == sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST => Ok(Some(Xid::OFF_THE_BUS)),
            Err(e) => Err(e),
        }
    }
}

// There is nobody to tell what cannot be given back.

impl Drop for Events {
    fn drop(&mut self) {
        let _ = call!(self.nvml, nvmlEventSetFree(self.set));
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        let _ = call!(self, nvmlShutdown());
    }
}

impl Health {
    /// In a word or two, for a table. Empty where it cannot tell anything.
    pub fn summary(&self) -> String {
        match self {
            Health { repair_failed: Some(true), .. } => "repair failed".into(),
            Health { ecc_uncorrected: Some(count @ 1..), .. } => format!("{count} uncorrected"),
            Health { repair_pending: Some(true), .. } => "repair pending".into(),
            Health { ecc_uncorrected: Some(0), .. } => "ok".into(),
            Health { ecc_uncorrected: None, .. } => "off".into(),
        }
    }

    /// What somebody should see to, and how.
    pub fn notes(&self) -> Vec<String> {
        const RESET: &str = "end what uses it and reset it (`nvidia-smi --gpu-reset -i GPU`), or restart the machine";
        let mut notes = Vec::new();
        if let Some(count @ 1..) = self.ecc_uncorrected {
            notes.push(format!(
                "{count} error{} of its memory could not be corrected since the driver was loaded: {RESET}",
                if count == 1 { "" } else { "s" }
            ));
        }
        if self.repair_pending == Some(true) {
            notes
                .push(format!("a faulty part of its memory waits for a reset, to be replaced by a spare one: {RESET}"));
        }
        if self.repair_failed == Some(true) {
            notes.push("a faulty part of its memory could not be replaced: have its maker look at it".into());
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told_first_and_everything_is_noted() {
        let healthy = Health { ecc_uncorrected: Some(0), repair_pending: Some(false), repair_failed: Some(false) };
        assert_eq!((healthy.summary().as_str(), healthy.notes().len()), ("ok", 0));
        let off = Health { ecc_uncorrected: None, ..healthy };
        assert_eq!((off.summary().as_str(), off.notes().len()), ("off", 0));
        let pending = Health { repair_pending: Some(true), ..healthy };
        assert_eq!((pending.summary().as_str(), pending.notes().len()), ("repair pending", 1));
        let errors = Health { ecc_uncorrected: Some(1), ..pending };
        assert_eq!((errors.summary().as_str(), errors.notes().len()), ("1 uncorrected", 2));
        assert!(errors.notes()[0].starts_with("1 error of its memory could not be corrected"));
        let failed = Health { repair_failed: Some(true), ..errors };
        assert_eq!((failed.summary().as_str(), failed.notes().len()), ("repair failed", 3));
    }
}
