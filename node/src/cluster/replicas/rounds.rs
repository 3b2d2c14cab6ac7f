//! When a device waits for a replica that is about to come in: a pure decision.
//!
//! A replica that lacks much gets it beside everything else, in rounds: each sends what there is when it begins, and what the device
//! has made meanwhile is the next one's. A device whose checkpoints take less time to make than to send would be ahead for ever, and
//! nobody in sync with it. So in the end it waits, for about as long as the last round took: commits nothing that the replica lacks.

use std::time::Duration;

/// A device always waits for a replica whose last round took no longer.
const BRIEF: Duration = Duration::from_millis(100);

/// The rounds in which a replica is brought up to date.
#[derive(Default)]
pub struct Rounds {
    last: Option<Duration>,
}

impl Rounds {
    /// One has ended that took so long, and the device is ahead again. Whether it is to wait for the next one: that is brief, or the
    /// rounds do not get any shorter by themselves.
    pub fn ended(&mut self, took: Duration) -> bool {
        let is_no_shorter = self.last.is_some_and(|last| took >= last);
        self.last = Some(took);
        took <= BRIEF || is_no_shorter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In which of these rounds, in milliseconds, the device is first waited for.
    fn waits_after(rounds: &[u64]) -> Option<usize> {
        let mut known = Rounds::default();
        rounds.iter().position(|took| known.ended(Duration::from_millis(*took)))
    }

    #[test]
    fn a_device_waits_once_little_is_missing_or_the_rest_does_not_shrink() {
        assert_eq!(waits_after(&[60_000, 5_000, 400, 101]), None, "the next round is shorter yet");
        assert_eq!(waits_after(&[60_000, 5_000, 400, 100]), Some(3));
        assert_eq!(waits_after(&[80]), Some(0));
        assert_eq!(waits_after(&[390, 210, 440]), Some(2), "checkpoints are made as fast as they are sent");
        assert_eq!(waits_after(&[2_000, 2_000]), Some(1));
    }
}
