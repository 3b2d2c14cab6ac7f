//! Hybrid logical clocks in one 64-bit word.
//!
//! The high 52 bits are microseconds since the Unix epoch, the low 12 a logical counter; a counter that
//! overflows carries into the microseconds, so a stamp never repeats and never goes back (Kulkarni et al.,
//! "Logical Physical Clocks", 2014, folded into one word).

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_when_time_stands_still_or_runs_back() {
        let mut last = Hlc(0).tick(Hlc::at_us(1_000));
        for now in [1_000, 999, 1_000, 5, 1_001] {
            let next = last.tick(Hlc::at_us(now));
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.us(), 1_001, "it follows the time when that is ahead");
    }

    #[test]
    fn what_follows_a_message_is_later_than_it() {
        let seen = Hlc::at_us(9_000);
        let clock = Hlc::at_us(1_000).merge(seen);
        assert!(clock > seen && clock.tick(Hlc::at_us(1)) > clock);
    }

    #[test]
    fn a_counter_that_overflows_carries_into_the_microseconds() {
        let mut clock = Hlc::at_us(7);
        for _ in 0..1 << LOGICAL_BITS {
            clock = clock.tick(Hlc::at_us(7));
        }
        assert_eq!((clock.us(), clock.logical()), (8, 0));
    }
}
