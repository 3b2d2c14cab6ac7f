//! Wall time as a dependency: chosen once, in `main` or by the simulator.

use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time. It may jump, backwards too: stamps made with [`crate::hlc`] do not follow it there.
pub trait Clock: Send + Sync {
    /// Microseconds since the Unix epoch.
    fn now_us(&self) -> u64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }
}
