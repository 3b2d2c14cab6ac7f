//! How long a node waits before it tries again to reach another.

use std::time::Duration;

/// After the first failure, and at most.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Doubles with each failure in a row. Half of each wait is chance, so that nodes that lost one another do not all come back
/// at the same moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait now that it has failed. `chance` is anything.
    pub fn failed(&mut self, chance: u64) -> Duration {
        let whole = LONGEST.min(FIRST.saturating_mul(1 << self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + 0.5 * (chance as f64 / u64::MAX as f64))
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_grows_to_a_bound_and_begins_anew() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.failed(0), FIRST / 2);
        assert_eq!(backoff.failed(u64::MAX), FIRST * 2);
        for _ in 0..100 {
            assert!(backoff.failed(u64::MAX) <= LONGEST);
        }
        assert_eq!((backoff.failed(0), backoff.failed(u64::MAX)), (LONGEST / 2, LONGEST));
        backoff.succeeded();
        assert_eq!(backoff.failed(u64::MAX), FIRST);
    }
}
