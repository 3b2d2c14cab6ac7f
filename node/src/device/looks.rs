//! The time by which a device's host is judged: that in which somebody looked.
//!
//! A node that stands still, because it is stopped, or its machine is or has far too much to do, sees nothing of what a host does
//! meanwhile; often the host stood still with it. When it goes on, all that it can say is that the host did not move between two
//! looks. So a long gap between looks counts as an ordinary one, and a host is found stalled only by looks that follow each other.

use std::time::Duration;

/// See the module's documentation.
#[derive(Debug)]
pub struct Looks {
    /// How far one look is from the next, where nothing keeps who looks from it.
    every: Duration,
    /// When the last look was.
    last: Duration,
    /// The time that counts, at the last look.
    now: Duration,
}

impl Looks {
    pub fn new(every: Duration, at: Duration) -> Looks {
        Looks { every, last: at, now: at }
    }

    /// The time that counts. It never goes back, and is never later than the time by the clock.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Takes in that there is a look at this time, and says the time that counts.
    pub fn look(&mut self, at: Duration) -> Duration {
        let gap = at.saturating_sub(self.last);
        // One that is a little late is no less of a look.
        self.now += if gap <= self.every * 2 { gap } else { self.every };
        self.last = at;
        self.now
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::device::supervisor::{Beat, Effect, Event, Limits, Supervisor};

    const EVERY: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The supervisor of a host that runs, with what it is judged by.
    fn running() -> (Supervisor, Looks) {
        let limits = Limits {
            stalled_after: Duration::from_secs(5),
            deadlines: BTreeMap::new(),
            start_timeout: Duration::from_secs(10),
            leave_timeout: Duration::ZERO,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
        };
        let (mut supervisor, mut looks) = (Supervisor::new(limits, 1, at(0)), Looks::new(EVERY, at(0)));
        supervisor.step(looks.look(at(0)), Event::Launched);
        supervisor.step(looks.look(at(10)), Event::Up);
        (supervisor, looks)
    }

    fn busy() -> Event {
        Event::Beats(vec![Beat { busy: true, finished: 7, begun_us: 0, hand: None }])
    }

    #[test]
    fn a_look_that_comes_late_is_no_stall() {
        let (mut supervisor, mut looks) = running();
        let mut now = 100;
        for pause in [5_000u64, 1_000, 60_000, 5_000] {
            for _ in 0..3 {
                assert_eq!(supervisor.step(looks.look(at(now)), busy()), vec![]);
                now += 100;
            }
            now += pause;
            assert_eq!(supervisor.step(looks.look(at(now)), busy()), vec![], "after {pause} ms in which nobody looked");
        }
    }

    #[test]
    fn a_host_that_hangs_is_found_though_looks_come_late() {
        let found_after = |late: u64| {
            let (mut supervisor, mut looks) = running();
            let mut now: u64 = 100;
            while supervisor.step(looks.look(at(now)), busy()).is_empty() {
                now += 100 + late;
            }
            now - 100
        };
        assert_eq!(found_after(0), 5_000);
        assert!((5_000..5_190).contains(&found_after(90)), "each of them a little");
        assert_eq!(found_after(900), 50_000, "each of them far too late");
    }

    #[test]
    fn a_host_that_is_slow_to_come_up_is_not_killed_for_a_pause_of_its_node() {
        let (mut supervisor, mut looks) = running();
        supervisor.step(looks.look(at(20)), Event::Over("crash".into()));
        assert_eq!(supervisor.step(looks.look(at(20)), Event::Tick), vec![Effect::Launch]);
        assert_eq!(supervisor.step(looks.look(at(60_000)), Event::Tick), vec![]);
        assert_eq!(supervisor.step(looks.look(at(60_002)), Event::Up), vec![]);
    }
}
