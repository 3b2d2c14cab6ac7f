//! Hybrid logical clocks in one 64-bit word.
//!
//! The high 52 bits are microseconds since the Unix epoch, the low 12 a logical counter; a counter that
//! overflows carries into the microseconds, so a stamp never repeats and never goes back (Kulkarni et al.,
//! "Logical Physical Clocks", 2014, folded into one word).

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of the logical counter.
pub const LOGICAL_BITS: u32 = 12;

/// One stamp. Ordering is causality's: if a stamp was seen when another was made, it is smaller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, serde::Serialize, serde::Deserialize)]
#[repr(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The smallest stamp of a microsecond.
    #[inline(always)]
    pub const fn at_us(us: u64) -> Hlc {
        Hlc(us << LOGICAL_BITS)
    }

    pub const fn us(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    pub const fn logical(self) -> u64 {
        self.0 & ((1 << LOGICAL_BITS) - 1)
    }

    /// The next stamp of a clock that stands at `self`: later than it, and not before `now`.
    #[inline(always)]
    #[must_use]
    pub fn tick(self, now: Hlc) -> Hlc {
        Hlc(self.0 + 1).max(now)
    }

    /// The clock's stamp after it has seen a message stamped `seen`.
    #[inline(always)]
    #[must_use]
    pub fn merge(self, seen: Hlc) -> Hlc {
        Hlc(self.0.max(seen.0) + 1)
    }
}

/// A clock that several threads may tick: one word, advanced by compare-and-swap.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// A new stamp, later than every stamp made or seen before, and not before `now_us`.
    pub fn tick(&self, now_us: u64) -> Hlc {
        self.advance(Hlc::at_us(now_us))
    }

    /// Takes a stamp from elsewhere in, so that what follows is later than it.
    pub fn merge(&self, seen: Hlc) -> Hlc {
        self.advance(Hlc(seen.0 + 1))
    }

    fn advance(&self, floor: Hlc) -> Hlc {
        // Relaxed: the word carries no other data with it, and compare-and-swap alone keeps it unique.
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(Hlc(last).tick(floor).0));
        Hlc(before.expect("the update always returns a value")).tick(floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_when_time_stands_still_or_runs_back() {
        let clock = Clock::default();
        let mut last = clock.tick(1_000);
        for now in [1_000, 999, 1_000, 5, 1_001] {
            let next = clock.tick(now);
            assert!(next > last);
            last = next;
        }
        assert!(clock.merge(Hlc::at_us(9_000)) > Hlc::at_us(9_000));
        assert!(clock.tick(1) > Hlc::at_us(9_000));
    }

    #[test]
    fn stamps_of_two_threads_never_repeat() {
        let clock = Clock::default();
        let mut all: Vec<Hlc> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..2).map(|_| s.spawn(|| (0..10_000).map(|_| clock.tick(7)).collect())).collect();
            threads.into_iter().flat_map(|t: std::thread::ScopedJoinHandle<'_, Vec<Hlc>>| t.join().unwrap()).collect()
        });
        all.sort();
        assert!(all.windows(2).all(|w| w[0] < w[1]));
    }
}
