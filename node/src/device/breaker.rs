//! Which backend is to run a device: decisions only.
//!
//! A *backend* is what can run a device: its GPU, another one, the CPU. They are in the order in which they are preferred, and
//! each has a *circuit breaker* (M. Nygard, *Release It!*, 2007). A closed one may be used. It opens after too many failures
//! within a while, or after one that says that the backend is not to be trusted; then the device moves to the first backend
//! whose breaker is closed. An open one is tried again after a pause, which doubles each time it does not help, while the
//! device runs on elsewhere; it closes when the device has moved back.
//!
//! The last backend is never left for none: its host is started again and again, as that of a device with one backend is.

use std::collections::VecDeque;
use std::time::Duration;

use super::supervisor::Remedy;

/// When breakers open, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many failures …
    pub failures: u32,
    /// … within so long open a breaker.
    pub window: Duration,
    /// How long one stays open, the first time and at most.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

/// What is known of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    /// `until`: when it is tried again; `None` where somebody has to see to it first.
    Open {
        why: String,
        until: Option<Duration>,
    },
    /// A host of it is being started while another backend runs the device.
    Trying {
        why: String,
    },
}

/// The breakers of one device's backends. See the module's documentation.
#[derive(Debug)]
pub struct Breakers {
    limits: Limits,
    breakers: Vec<Breaker>,
    current: usize,
    /// Why somebody wants the device to leave the backend in use, until it has.
    leaving: Option<String>,
}

#[derive(Debug)]
struct Breaker {
    state: State,
    /// When its hosts failed, as far as that still counts.
    failed: VecDeque<Duration>,
    /// How often in a row it opened.
    opened: u32,
    /// Why it was left, the first time since it was last in use.
    first: Option<String>,
    /// It was left as one that is not to be trusted.
    untrusted: bool,
}

/// What is to be done about a host that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start another host of the same backend, or give up, as the remedy says.
    Stay,
    /// Go on with this backend.
    Move(usize),
}

impl Breakers {
    /// Of so many backends, all closed; the first is in use.
    pub fn new(limits: Limits, backends: usize) -> Breakers {
        let breaker =
            || Breaker { state: State::Closed, failed: VecDeque::new(), opened: 0, first: None, untrusted: false };
        Breakers { limits, breakers: (0..backends.max(1)).map(|_| breaker()).collect(), current: 0, leaving: None }
    }

    /// The backend in use.
    pub fn current(&self) -> usize {
        self.current
    }

    pub fn state(&self, backend: usize) -> &State {
        &self.breakers[backend].state
    }

    /// Takes in that a host of the backend in use has failed. `jitter`, from 0 to 1, is by how much of itself a pause is
    /// shortened, up to half: devices that failed together are not all tried again together.
    pub fn failed(&mut self, now: Duration, remedy: Remedy, why: &str, jitter: f64) -> Verdict {
        let window = self.limits.window;
        let breaker = &mut self.breakers[self.current];
        breaker.failed.push_back(now);
        while breaker.failed.front().is_some_and(|at| *at + window < now) {
            breaker.failed.pop_front();
        }
        let untrusted = remedy == Remedy::GiveUp || self.leaving.is_some();
        if !untrusted && breaker.failed.len() < self.limits.failures as usize {
            return Verdict::Stay;
        }
        let Some(to) = self.others().find(|other| self.may_be_used(*other, now)) else { return Verdict::Stay };
        let why = self.leaving.take().unwrap_or_else(|| why.into());
        self.open(self.current, now, untrusted, &why, jitter);
        self.take(to);
        Verdict::Move(to)
    }

    /// Opens the breaker of the backend in use, which cannot be had from the start, and says what to begin with.
    pub fn begin_without(&mut self, now: Duration, why: &str, jitter: f64) -> Verdict {
        if self.breakers.len() == 1 {
            return Verdict::Stay;
        }
        self.open(self.current, now, false, why, jitter);
        self.take(self.current + 1);
        Verdict::Move(self.current)
    }

    fn may_be_used(&self, backend: usize, now: Duration) -> bool {
        match &self.breakers[backend].state {
            State::Closed => true,
            State::Open { until, .. } => until.is_some_and(|until| now >= until),
            State::Trying { .. } => false,
        }
    }

    fn open(&mut self, backend: usize, now: Duration, untrusted: bool, why: &str, jitter: f64) {
        let Limits { retry_min, retry_max, .. } = self.limits;
        let breaker = &mut self.breakers[backend];
        let pause = retry_min.saturating_mul(1 << breaker.opened.min(20)).min(retry_max);
        let pause = pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        breaker.opened += 1;
        breaker.failed.clear();
        // Until it is in use again: whoever has it tried has to look once more where that is in vain.
        breaker.untrusted |= untrusted;
        let why = match &breaker.first {
            Some(first) if first != why => format!("{first}; tried since: {why}"),
            _ => breaker.first.insert(why.into()).clone(),
        };
        breaker.state = State::Open { why, until: (!breaker.untrusted).then(|| now + pause) };
    }

    fn take(&mut self, backend: usize) {
        self.current = backend;
        let breaker = &mut self.breakers[backend];
        (breaker.state, breaker.first, breaker.untrusted) = (State::Closed, None, false);
    }

    /// Somebody wants the device to leave the backend in use, which is not tried again unasked then. Returns with which it is to go
    /// on, where there is one that can be used.
    pub fn leave(&mut self, now: Duration, why: &str) -> Option<usize> {
        let to = self.others().find(|other| self.may_be_used(*other, now))?;
        self.leaving = Some(why.into());
        Some(to)
    }

    /// All but the one in use, in the order in which they are preferred.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let current = self.current;
        (0..self.breakers.len()).filter(move |other| *other != current)
    }

    /// A backend that is preferred to the one in use and due to be tried again, or any, where that is to be left: it is being tried
    /// from now on.
    pub fn trial(&mut self, now: Duration) -> Option<usize> {
        let trying = |breaker: &Breaker| matches!(breaker.state, State::Trying { .. });
        if self.breakers.iter().any(trying) {
            return None;
        }
        let last = if self.leaving.is_some() { self.breakers.len() } else { self.current };
        let backend = self.others().take_while(|other| *other < last).find(|other| self.may_be_used(*other, now))?;
        let why = match &self.breakers[backend].state {
            State::Open { why, .. } => why.clone(),
            State::Closed | State::Trying { .. } => String::new(),
        };
        self.breakers[backend].state = State::Trying { why };
        Some(backend)
    }

    /// Takes in that the backend that is tried has failed.
    pub fn trial_failed(&mut self, backend: usize, now: Duration, remedy: Remedy, why: &str, jitter: f64) {
        self.open(backend, now, remedy == Remedy::GiveUp, why, jitter);
    }

    /// Takes in that the backend that is tried is not tried any more, for no fault of its own: it is tried again in a while.
    pub fn trial_abandoned(&mut self, backend: usize, now: Duration) {
        let until = Some(now + self.limits.retry_min);
        let breaker = &mut self.breakers[backend];
        if let State::Trying { why } = &breaker.state {
            breaker.state = State::Open { why: why.clone(), until };
        }
    }

    /// Takes in that the device has moved to the backend that was tried.
    pub fn trial_succeeded(&mut self, backend: usize, now: Duration) {
        if let Some(why) = self.leaving.take() {
            self.open(self.current, now, true, &why, 0.0);
        }
        self.take(backend);
    }

    /// Takes in that the host of the backend in use has proven itself: what its backend did before is forgiven.
    pub fn proven(&mut self) {
        self.breakers[self.current].opened = 0;
    }

    /// Somebody has seen to the device: every open breaker is due to be tried, and none is left unless it fails. Returns how many
    /// there are.
    pub fn retry(&mut self, now: Duration) -> usize {
        self.leaving = None;
        let mut due = 0;
        for breaker in &mut self.breakers {
            if let State::Open { until, .. } = &mut breaker.state {
                (*until, due) = (Some(now), due + 1);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        failures: 3,
        window: Duration::from_secs(60),
        retry_min: Duration::from_secs(10),
        retry_max: Duration::from_secs(35),
    };

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn fails(breakers: &mut Breakers, s: u64) -> Verdict {
        breakers.failed(at(s), Remedy::Restart, "crash", 0.0)
    }

    #[test]
    fn failures_open_a_breaker_only_where_they_come_close_together() {
        let mut breakers = Breakers::new(LIMITS, 2);
        for hour in 1..100 {
            assert_eq!(fails(&mut breakers, hour * 3_600), Verdict::Stay);
            assert_eq!(fails(&mut breakers, hour * 3_600 + 59), Verdict::Stay);
        }
        let mut breakers = Breakers::new(LIMITS, 2);
        assert_eq!((fails(&mut breakers, 0), fails(&mut breakers, 30)), (Verdict::Stay, Verdict::Stay));
        assert_eq!(fails(&mut breakers, 60), Verdict::Move(1));
        assert_eq!(breakers.current(), 1);
        assert_eq!(breakers.state(0), &State::Open { why: "crash".into(), until: Some(at(70)) });
    }

    #[test]
    fn a_backend_that_is_not_to_be_trusted_is_left_at_once_and_not_tried_again_unasked() {
        let mut breakers = Breakers::new(LIMITS, 3);
        assert_eq!(breakers.failed(at(1), Remedy::GiveUp, "Xid 79", 0.0), Verdict::Move(1));
        assert_eq!(breakers.trial(at(1_000_000)), None);
        assert_eq!(breakers.retry(at(1_000_000)), 1);
        assert_eq!(breakers.trial(at(1_000_000)), Some(0));
    }

    #[test]
    fn a_backend_that_is_not_to_be_trusted_is_not_tried_for_ever_because_it_was_asked_for_once() {
        let mut breakers = Breakers::new(LIMITS, 2);
        breakers.failed(at(1), Remedy::GiveUp, "Xid 79", 0.0);
        breakers.retry(at(2));
        assert_eq!(breakers.trial(at(2)), Some(0));
        // What the device did meanwhile is no fault of it.
        breakers.trial_abandoned(0, at(3));
        assert_eq!(breakers.state(0), &State::Open { why: "Xid 79".into(), until: Some(at(13)) });
        assert_eq!((breakers.trial(at(12)), breakers.trial(at(13))), (None, Some(0)));
        breakers.trial_failed(0, at(14), Remedy::Restart, "it was not there", 0.0);
        assert_eq!(
            breakers.state(0),
            &State::Open { why: "Xid 79; tried since: it was not there".into(), until: None }
        );
        assert_eq!(breakers.trial(at(1_000_000)), None);
    }

    #[test]
    fn the_last_backend_is_not_left_for_none() {
        let mut breakers = Breakers::new(LIMITS, 1);
        assert!((0..100).all(|s| fails(&mut breakers, s) == Verdict::Stay));
        assert_eq!(breakers.failed(at(100), Remedy::GiveUp, "gone", 0.0), Verdict::Stay);
        assert_eq!(breakers.state(0), &State::Closed);
        let mut breakers = Breakers::new(LIMITS, 2);
        assert_eq!(breakers.failed(at(1), Remedy::GiveUp, "gone", 0.0), Verdict::Move(1));
        assert!((1..100).all(|s| fails(&mut breakers, s) == Verdict::Stay), "the other is not to be trusted");
    }

    #[test]
    fn an_open_breaker_is_tried_once_at_a_time_and_later_each_time() {
        let mut breakers = Breakers::new(LIMITS, 2);
        (0..3).for_each(|s| _ = fails(&mut breakers, s));
        let (mut now, mut waits) = (2, vec![]);
        for _ in 0..4 {
            let since = now;
            while breakers.trial(at(now)).is_none() {
                now += 1;
            }
            waits.push(now - since);
            assert_eq!(breakers.trial(at(now)), None, "it is being tried");
            breakers.trial_failed(0, at(now), Remedy::Restart, "again", 0.0);
        }
        assert_eq!(waits, [10, 20, 35, 35]);
        assert!(breakers.retry(at(now)) == 1 && breakers.trial(at(now)) == Some(0));
        breakers.trial_succeeded(0, at(now));
        assert_eq!((breakers.current(), breakers.state(0)), (0, &State::Closed));
        breakers.proven();
        (now..now + 3).for_each(|s| _ = fails(&mut breakers, s));
        assert_eq!(breakers.state(0), &State::Open { why: "crash".into(), until: Some(at(now + 2 + 10)) });
    }

    #[test]
    fn a_backend_is_left_because_somebody_wants_so_and_comes_back_only_when_asked_to() {
        let mut breakers = Breakers::new(LIMITS, 3);
        assert_eq!(breakers.trial(at(0)), None);
        assert_eq!(breakers.leave(at(0), "by hand"), Some(1));
        assert_eq!((breakers.trial(at(0)), breakers.current()), (Some(1), 0));
        // For no fault of its own it was not to be had just then: that changes nothing about what is wanted.
        breakers.trial_abandoned(1, at(1));
        assert_eq!(breakers.trial(at(1)), Some(2));
        breakers.trial_failed(2, at(2), Remedy::Restart, "crash", 0.0);
        assert_eq!((breakers.trial(at(10)), breakers.trial(at(11))), (None, Some(1)));
        breakers.trial_succeeded(1, at(12));
        assert_eq!((breakers.current(), breakers.state(1)), (1, &State::Closed));
        assert_eq!(breakers.state(0), &State::Open { why: "by hand".into(), until: None });
        assert_eq!(breakers.trial(at(1_000_000)), None, "another that is less preferred is no reason to move");
        assert_eq!(breakers.retry(at(1_000_000)), 2);
        assert_eq!(breakers.trial(at(1_000_000)), Some(0));
        breakers.trial_succeeded(0, at(1_000_001));
        assert_eq!((breakers.current(), breakers.state(0), breakers.state(1)), (0, &State::Closed, &State::Closed));
        // One that fails before it is left is left at once.
        breakers.leave(at(2_000_000), "by hand");
        assert_eq!(fails(&mut breakers, 2_000_000), Verdict::Move(1));
        assert_eq!(breakers.state(0), &State::Open { why: "by hand".into(), until: None });
        assert_eq!(Breakers::new(LIMITS, 1).leave(at(0), "by hand"), None);
    }

    #[test]
    fn jitter_shortens_a_pause_by_half_of_it_at_most() {
        for (jitter, until) in [(0.0, 10_000), (0.5, 7_500), (1.0, 5_000)] {
            let mut breakers = Breakers::new(LIMITS, 2);
            (0..2).for_each(|_| _ = fails(&mut breakers, 0));
            breakers.failed(at(0), Remedy::RestartLater, "no driver", jitter);
            let expected = State::Open { why: "no driver".into(), until: Some(Duration::from_millis(until)) };
            assert_eq!(breakers.state(0), &expected);
        }
    }

    #[test]
    fn a_device_whose_gpu_is_gone_when_its_node_starts_begins_with_the_next_backend() {
        let mut breakers = Breakers::new(LIMITS, 2);
        assert_eq!(breakers.begin_without(at(0), "no driver", 0.0), Verdict::Move(1));
        assert_eq!(breakers.trial(at(9)), None);
        assert_eq!(breakers.trial(at(10)), Some(0));
        assert_eq!(Breakers::new(LIMITS, 1).begin_without(at(0), "no driver", 0.0), Verdict::Stay);
    }
}
