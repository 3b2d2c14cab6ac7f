//! How many a second, over about the last second.

use std::collections::VecDeque;
use std::time::Duration;

/// Looks at a counter, of the last second. No clock in it: a time is one since any fixed point.
#[derive(Debug, Default)]
pub struct Rate {
    /// The oldest is the newest that is a second old, once there is such a one.
    looks: VecDeque<(Duration, u64)>,
}

/// Over how long the rate is taken.
const OVER: Duration = Duration::from_secs(1);
/// Looks closer together than this are no new ones.
const GRAIN: Duration = Duration::from_millis(50);

impl Rate {
    /// Takes note of the counter.
    pub fn look(&mut self, now: Duration, count: u64) {
        if self.looks.back().is_none_or(|(at, _)| now >= *at + GRAIN) {
            self.looks.push_back((now, count));
        }
        while self.looks.get(1).is_some_and(|(at, _)| *at + OVER <= now) {
            self.looks.pop_front();
        }
    }

    /// How fast the counter grew until now. Zero before two looks.
    pub fn per_second(&self, now: Duration, count: u64) -> u64 {
        let Some((at, before)) = self.looks.front() else { return 0 };
        let passed = now.saturating_sub(*at);
        if passed < GRAIN {
            return 0;
        }
        (count.saturating_sub(*before) as f64 / passed.as_secs_f64()).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_is_that_of_the_last_second_and_falls_to_zero_with_the_traffic() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(ms(500), 7), 0, "nothing is known yet");
        for n in 0..50 {
            rate.look(ms(n * 100), n * 20);
        }
        assert_eq!(rate.per_second(ms(4_950), 990), 200);
        // Three times as much from here on: half a second later the last second is half and half.
        for n in 1..=5 {
            rate.look(ms(4_900 + n * 100), 980 + n * 60);
        }
        assert_eq!(rate.per_second(ms(5_400), 1_280), 400);
        for n in 1..=11 {
            rate.look(ms(5_400 + n * 100), 1_280);
        }
        assert_eq!(rate.per_second(ms(6_500), 1_280), 0);
        assert!(rate.looks.len() <= 12, "{}", rate.looks.len());
    }

    #[test]
    fn many_looks_at_once_are_few_and_one_look_is_no_rate() {
        let mut rate = Rate::default();
        (0..1_000).for_each(|n| rate.look(Duration::from_micros(n), n));
        assert_eq!((rate.looks.len(), rate.per_second(ms(1), 1_000)), (1, 0));
        assert_eq!(rate.per_second(ms(2_000), 1_000), 500);
    }
}
