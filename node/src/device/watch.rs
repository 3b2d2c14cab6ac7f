//! What a GPU reports of itself while a device runs on it: read from NVML by a thread of its own, logged, and told to whom
//! it ends. For the process of a device host alone, which it ends where that does not end by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ringhold_kernels::gpu::class::Class;
use ringhold_kernels::gpu::driver::Gpu;
use ringhold_kernels::gpu::nvml::Nvml;
use ringhold_kernels::gpu::xid::Xid;
use tracing::{error, info, warn};

use super::ending::Ending;

/// How long the thread waits for the next report before it looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the process has to end by itself after a report that ends it.
const END_LIMIT: Duration = Duration::from_secs(2);

/// A watched GPU. Not watched any more when dropped.
pub struct Watch {
    fatal: Receiver<Xid>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Watches a GPU from now on. Where there is no NVML, the log says why, and nothing is ever reported.
    pub fn start(gpu: &Gpu) -> Watch {
        let (tell, fatal) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (number, pci_bus_id, stopped) = (gpu.number, gpu.pci_bus_id.clone(), stop.clone());
        let unwatched = move |why: String| info!("what cuda:{number} reports of itself is not read: {why}");
        let nvml = match Nvml::open() {
            Ok(nvml) => nvml,
            Err(absent) => {
                unwatched(absent.to_string());
                return Watch { fatal, stop };
            }
        };
        let mut events = match nvml.events(&pci_bus_id) {
            Ok(events) => events,
            Err(e) => {
                unwatched(e.to_string());
                return Watch { fatal, stop };
            }
        };
        std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                let xid = match events.wait(LOOK_EVERY) {
                    Ok(Some(xid)) => xid,
                    Ok(None) => continue,
                    Err(e) => return unwatched(e.to_string()),
                };
                match xid.class() {
                    Class::Fatal => {
                        error!("cuda:{number} reports {xid} (fatal error)");
                        let _ = tell.send(xid);
                        drop(tell);
                        // Whoever is in a call of the driver need never come back from it.
                        std::thread::sleep(END_LIMIT);
                        std::process::exit(Ending::Xid(xid.0).code().into());
                    }
                    class => {
                        warn!("cuda:{number} reports {xid} ({class}); it may be of another process on that GPU")
                    }
                }
            }
        });
        Watch { fatal, stop }
    }

    /// What the GPU has reported after which it is not to be trusted, if it does so within this time.
    pub fn fatal(&self, within: Duration) -> Option<Xid> {
        self.fatal.recv_timeout(within).ok()
    }
}

impl Drop for Watch {
    /// Waits for the thread, which is not to be in NVML when the process ends; but not for ever, as a GPU that is gone may
    /// never answer.
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let began = Instant::now();
        while began.elapsed() < LOOK_EVERY * 4 {
            if self.fatal.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }
}
