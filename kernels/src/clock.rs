//! Time as a dependency: chosen once, in `main` or by the simulator.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

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

/// Tells a time that does not jump.
pub trait SteadyClock: Send {
    /// Nanoseconds since the Unix epoch, as the machine knew it when this clock was made.
    fn now_ns(&self) -> u64;
}

/// The machine's monotonic clock, counted from the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    origin: Instant,
    origin_ns: u64,
}

impl MonotonicClock {
    /// A clock that starts at the wall time of now.
    pub fn start() -> MonotonicClock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        MonotonicClock { origin: Instant::now(), origin_ns: since.map_or(0, |since| since.as_nanos() as u64) }
    }
}

impl SteadyClock for MonotonicClock {
    fn now_ns(&self) -> u64 {
        self.origin_ns + self.origin.elapsed().as_nanos() as u64
    }
}
