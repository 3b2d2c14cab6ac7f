//! Time as a dependency: chosen once, in `main` or by the simulator.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Tells the time. It may jump, backwards too: stamps made with [`crate::hlc`] do not follow it there.
pub trait Clock: Send + Sync {
    /// Microseconds since the Unix epoch.
    fn now_us(&self) -> u64;
}

/// Tells a time that does not jump.
pub trait SteadyClock: Send {
    /// Nanoseconds since the Unix epoch, as the machine knew it when this clock was made.
    fn now_ns(&self) -> u64;
}

/// The machine's monotonic clock, counted from the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    /// What to add to the machine's own count.
    pub offset_ns: u64,
}

impl MonotonicClock {
    /// A clock that starts at the wall time of now.
    pub fn start() -> MonotonicClock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        MonotonicClock { offset_ns: since.wrapping_sub(monotonic_ns()) }
    }

    /// The one of this process, started when it was first asked for. Who shares a segment with the process goes by it too.
    pub fn of_this_process() -> MonotonicClock {
        static STARTED: OnceLock<MonotonicClock> = OnceLock::new();
        *STARTED.get_or_init(MonotonicClock::start)
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl SteadyClock for MonotonicClock {
    fn now_ns(&self) -> u64 {
        monotonic_ns().wrapping_add(self.offset_ns)
    }
}

impl Clock for MonotonicClock {
    fn now_us(&self) -> u64 {
        self.now_ns() / 1_000
    }
}
