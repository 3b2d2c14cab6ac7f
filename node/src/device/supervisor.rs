//! When to start, end and restart a device's host: decisions only.
//!
//! A state machine with no clock, process or segment in it. Its driver ([`super::Device::supervise`]) tells it what happened and
//! does what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ringhold_kernels::id::TypeId;

/// Limits by which a host is judged.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a worker may hold one message …
    pub stalled_after: Duration,
    /// … unless it is of one of these types.
    pub deadlines: BTreeMap<TypeId, Duration>,
    /// How long a host may take until its workers are up, from the last that it was given to begin with.
    pub start_timeout: Duration,
    /// How long a host that is to die has to leave by itself, once asked; zero where it is killed unasked.
    pub leave_timeout: Duration,
    /// How long to wait before a restart, if it is not the first; doubles with each that follows soon, up to the most. Of that up
    /// to half is left out, at random.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

/// What a worker's heartbeat said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// False while it has nothing to do: an idle worker makes no progress, and must not be restarted for it.
    pub busy: bool,
    /// Messages finished.
    pub finished: u64,
    /// When it last began a batch: this moves, and nothing is finished, while it waits for room at another worker.
    pub begun_us: u64,
    /// The type of the actor whose message it has in hand, where it says.
    pub hand: Option<TypeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The host was started, and it is not known yet whether it comes up.
    Launched,
    LaunchFailed(Over),
    /// The host takes in what it begins with, and there has been more of it.
    Restoring,
    /// All workers run.
    Up,
    /// Every worker's heartbeat, looked at now and then.
    Beats(Vec<Beat>),
    Over(Over),
    /// The device is not to stand still any more.
    GoOn,
    /// The node wants to end.
    Stop,
    /// Time has passed.
    Tick,
}

/// A host that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// How it ended, for people.
    pub how: String,
    pub remedy: Remedy,
    /// What it ran when it ended may be to blame: it stalled, or crashed by itself.
    pub blames: bool,
}

/// What to do when a host is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Start another: at once, and later each time that it ends soon.
    Restart,
    /// Start another, but not at once: what it lacked is not there yet.
    RestartLater,
    /// Start another. What it ran when it ended is not run again.
    Quarantine,
    /// Start no other: the device is not to be trusted.
    GiveUp,
    /// Start another at once, of another backend.
    Move,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remedy::Restart => "starting another",
            Remedy::RestartLater => "starting another in a while",
            Remedy::Quarantine => "starting another; what this one ran is not run again",
            Remedy::GiveUp => "the device is given up",
            Remedy::Move => "going on elsewhere",
        })
    }
}

impl<T: Into<String>> From<T> for Over {
    /// For a reason that may pass.
    fn from(how: T) -> Over {
        Over { how: how.into(), remedy: Remedy::Restart, blames: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Begin a new term and start a host for it.
    Launch,
    /// Ask the host to leave what it has and end, for this reason: it is killed if it does not.
    AskToLeave(String),
    /// Kill the host, for this reason.
    Kill(String),
    /// The host is gone and its actors' state with it: answer whoever waits for it, and say so.
    Lost(Over),
    /// There will be no other host: turn away what waits, and whatever comes.
    GiveUp,
    /// Ask the workers to finish what they have and end.
    AskToEnd,
    /// There is no host any more, and there will be none.
    Ended,
}

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Starting {
        since: Duration,
    },
    Running {
        since: Duration,
        workers: Vec<Progress>,
    },
    /// It was asked to leave, and is killed at `until`.
    Leaving {
        until: Duration,
        why: String,
    },
    /// It was told to die, and has not yet.
    Killed {
        why: String,
    },
    /// Gone; the next start is due at `until`.
    Waiting {
        until: Duration,
        why: String,
    },
    /// Ended, because the device is to stand still; the next start is asked for.
    Still,
    /// Gone, and there will be no other.
    GivenUp {
        why: String,
    },
    Stopping {
        /// When the host is killed, where it was leaving already.
        kill_at: Option<Duration>,
    },
    Stopped,
}

/// When a worker was last seen to make progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub beat: Beat,
    pub since: Duration,
}

/// The supervisor of one device. See the module's documentation.
#[derive(Debug)]
pub struct Supervisor {
    limits: Limits,
    state: State,
    /// Restarts since the host last ran for a while.
    failures: u32,
    pub restarts: u32,
    /// Where the next pause's random part comes from.
    random: u64,
}

/// A host that has run for so long has proven itself: the next restart is prompt again.
pub const PROVEN_AFTER: Duration = Duration::from_secs(30);

impl Supervisor {
    /// A supervisor whose first effect, a launch, is asked for by the caller. Of two with other seeds the pauses before restarts
    /// differ.
    pub fn new(limits: Limits, seed: u64, now: Duration) -> Supervisor {
        Supervisor { limits, state: State::Starting { since: now }, failures: 0, restarts: 0, random: seed }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the host is to die for, where it is being ended.
    pub fn condemned(&self) -> Option<&str> {
        match &self.state {
            State::Leaving { why, .. } | State::Killed { why } => Some(why),
            _ => None,
        }
    }

    /// Takes in that hosts are judged by other limits from now on: those of another backend.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes in that another host, which had been started beside the last one, is to take over and begins to load.
    pub fn taken_over(&mut self, now: Duration, limits: Limits) {
        (self.limits, self.failures) = (limits, 0);
        self.state = State::Starting { since: now };
    }

    /// Takes in that the host was ended so that the device stands still: it has not failed.
    pub fn stands_still(&mut self) {
        self.state = State::Still;
    }

    /// Takes an event in, at a time since any fixed point, and says what to do.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        match (&mut self.state, event) {
            (State::Stopped, _) => vec![],
            (State::Starting { .. } | State::Running { .. }, Event::Stop) => {
                self.state = State::Stopping { kill_at: None };
                vec![Effect::AskToEnd]
            }
            (State::Waiting { .. } | State::Still | State::GivenUp { .. }, Event::Stop) => self.end(),
            (State::GivenUp { .. }, _) => vec![],
            (State::Still, Event::GoOn) => {
                self.state = State::Starting { since: now };
                vec![Effect::Launch]
            }
            (State::Still, _) => vec![],
            // What it was to die for still holds; its end is near.
            (State::Leaving { until, .. }, Event::Stop) => {
                self.state = State::Stopping { kill_at: Some(*until) };
                vec![]
            }
            (State::Killed { .. }, Event::Stop) => {
                self.state = State::Stopping { kill_at: None };
                vec![]
            }
            (State::Stopping { .. }, Event::Stop) => vec![],
            (State::Stopping { .. }, Event::Over(_) | Event::LaunchFailed(_)) => self.end(),
            (State::Stopping { kill_at }, Event::Tick) if kill_at.is_some_and(|at| now >= at) => {
                *kill_at = None;
                vec![Effect::Kill("it did not leave, and its node ends".into())]
            }

            (State::Starting { .. }, Event::Up) => {
                self.state = State::Running { since: now, workers: vec![] };
                vec![]
            }
            (State::Starting { since }, Event::Restoring) => {
                *since = now;
                vec![]
            }
            (State::Starting { .. }, Event::LaunchFailed(over)) => {
                self.wait(now, over.how, over.remedy);
                vec![]
            }
            (State::Starting { since }, Event::Tick | Event::Beats(_)) => {
                if now < *since + self.limits.start_timeout {
                    return vec![];
                }
                let limit_ms = self.limits.start_timeout.as_millis();
                self.give_up_on(now, format!("its workers were not up after {limit_ms} ms"))
            }
            (State::Running { workers, .. }, Event::Beats(beats)) => match stalled(workers, beats, now, &self.limits) {
                Some(why) => self.give_up_on(now, why),
                None => vec![],
            },
            (State::Leaving { until, why }, Event::Tick | Event::Beats(_)) if now >= *until => {
                let why = std::mem::take(why);
                self.kill(why)
            }
            (State::Running { since, .. }, Event::Over(over)) => {
                if now >= *since + PROVEN_AFTER {
                    self.failures = 0;
                }
                self.lose(now, over)
            }
            (State::Starting { .. }, Event::Over(over)) => self.lose(now, over),
            (State::Leaving { why, .. } | State::Killed { why }, Event::Over(over)) => {
                let how = std::mem::take(why);
                self.lose(now, Over { how, blames: true, ..over })
            }
            (State::Waiting { until, .. }, Event::Tick) if now >= *until => {
                self.restarts += 1;
                self.state = State::Starting { since: now };
                vec![Effect::Launch]
            }
            (
                State::Running { .. }
                | State::Leaving { .. }
                | State::Killed { .. }
                | State::Waiting { .. }
                | State::Stopping { .. },
                Event::Tick | Event::Beats(_) | Event::Up | Event::Restoring,
            )
            | (_, Event::Launched | Event::GoOn)
            | (State::Waiting { .. }, Event::Over(_))
            | (
                State::Running { .. } | State::Leaving { .. } | State::Killed { .. } | State::Waiting { .. },
                Event::LaunchFailed(_),
            ) => vec![],
        }
    }

    /// The host is to die: asked first, where it can be.
    fn give_up_on(&mut self, now: Duration, why: String) -> Vec<Effect> {
        if self.limits.leave_timeout.is_zero() {
            return self.kill(why);
        }
        self.state = State::Leaving { until: now + self.limits.leave_timeout, why: why.clone() };
        vec![Effect::AskToLeave(why)]
    }

    fn kill(&mut self, why: String) -> Vec<Effect> {
        self.state = State::Killed { why: why.clone() };
        vec![Effect::Kill(why)]
    }

    fn lose(&mut self, now: Duration, over: Over) -> Vec<Effect> {
        let why = over.how.clone();
        if over.remedy == Remedy::GiveUp {
            self.state = State::GivenUp { why };
            return vec![Effect::Lost(over), Effect::GiveUp];
        }
        self.wait(now, why, over.remedy);
        vec![Effect::Lost(over)]
    }

    fn wait(&mut self, now: Duration, why: String, remedy: Remedy) {
        if remedy == Remedy::Move {
            // It has failed nowhere else yet.
            self.failures = 0;
        }
        let doubled = self.limits.backoff_min.saturating_mul(1u32 << self.failures.min(20));
        // The first restart is at once: most failures do not repeat.
        let at_once = self.failures == 0 && remedy != Remedy::RestartLater;
        let backoff = if at_once { Duration::ZERO } else { self.shortened(doubled.min(self.limits.backoff_max)) };
        self.failures += 1;
        self.state = State::Waiting { until: now + backoff, why };
    }

    /// From half of it to all of it: devices that failed for one reason must not all start at one moment.
    fn shortened(&mut self, pause: Duration) -> Duration {
        // Splitmix64: <https://prng.di.unimi.it/splitmix64.c>.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64;
        pause.mul_f64(1.0 - part / 2.0)
    }

    fn end(&mut self) -> Vec<Effect> {
        self.state = State::Stopped;
        vec![Effect::Ended]
    }
}

/// Takes the beats in and names the first worker that has held one message for too long.
fn stalled(workers: &mut Vec<Progress>, beats: Vec<Beat>, now: Duration, limits: &Limits) -> Option<String> {
    let none = Beat { busy: false, finished: 0, begun_us: 0, hand: None };
    workers.resize(beats.len(), Progress { beat: none, since: now });
    let mut why = None;
    for (number, (worker, beat)) in workers.iter_mut().zip(beats).enumerate() {
        if !beat.busy || beat != worker.beat {
            worker.since = now;
        }
        worker.beat = beat;
        let deadline = beat.hand.and_then(|hand| limits.deadlines.get(&hand)).unwrap_or(&limits.stalled_after);
        if now >= worker.since + *deadline && why.is_none() {
            why = Some(format!("worker {number} held one message for {} ms", (now - worker.since).as_millis()));
        }
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        stalled_after: Duration::from_secs(5),
        deadlines: BTreeMap::new(),
        start_timeout: Duration::from_secs(10),
        leave_timeout: Duration::ZERO,
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
    };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn running() -> Supervisor {
        let mut s = Supervisor::new(LIMITS, 1, at(0));
        s.step(at(0), Event::Launched);
        s.step(at(1), Event::Up);
        s
    }

    fn beats(busy: bool, finished: u64) -> Event {
        Event::Beats(vec![Beat { busy, finished, begun_us: 0, hand: None }])
    }

    #[test]
    fn an_idle_worker_is_never_stalled() {
        let mut s = running();
        for second in 0..3_600 {
            assert_eq!(s.step(at(second * 1000), beats(false, 7)), vec![]);
        }
    }

    #[test]
    fn a_worker_that_waits_for_room_elsewhere_is_not_stalled() {
        let mut s = running();
        for second in 0..60 {
            let beat = Beat { busy: true, finished: 7, begun_us: second, hand: None };
            assert_eq!(s.step(at(second * 1000), Event::Beats(vec![beat])), vec![]);
        }
    }

    #[test]
    fn a_busy_worker_is_stalled_only_when_nothing_is_finished() {
        let mut s = running();
        for second in 0..60 {
            assert_eq!(s.step(at(second * 1000), beats(true, second)), vec![]);
        }
        for second in 60..64 {
            assert_eq!(s.step(at(second * 1000), beats(true, 59)), vec![]);
        }
        let effects = s.step(at(64_000), beats(true, 59));
        assert!(matches!(&effects[..], [Effect::Kill(why)] if why.contains("held one message")), "{effects:?}");
        let effects = s.step(at(64_100), Event::Over("killed by signal 9".into()));
        assert!(matches!(&effects[..], [Effect::Lost(over)] if over.how.contains("held one message")));
        assert_eq!(s.step(at(64_100), Event::Tick), vec![Effect::Launch]);
        assert_eq!(s.restarts, 1);
    }

    /// One that runs a ring kernel, stalled at 6,000 ms.
    fn leaving() -> Supervisor {
        let limits = Limits { leave_timeout: Duration::from_secs(1), ..LIMITS };
        let mut s = Supervisor::new(limits, 1, at(0));
        s.step(at(0), Event::Launched);
        s.step(at(1), Event::Up);
        s.step(at(1_000), beats(true, 7));
        let effects = s.step(at(6_000), beats(true, 7));
        assert!(matches!(&effects[..], [Effect::AskToLeave(why)] if why.contains("held one message")), "{effects:?}");
        s
    }

    #[test]
    fn a_ring_kernel_is_asked_to_leave_before_its_host_is_killed() {
        let mut s = leaving();
        assert_eq!(s.step(at(6_999), Event::Tick), vec![]);
        assert_eq!(s.step(at(6_999), beats(false, 8)), vec![], "it is to go, though it goes on");
        let effects = s.step(at(7_000), Event::Tick);
        assert!(matches!(&effects[..], [Effect::Kill(why)] if why.contains("held one message")), "{effects:?}");
        assert_eq!(s.step(at(7_001), Event::Tick), vec![], "once");
        let effects = s.step(at(7_002), Event::Over("killed by signal 9".into()));
        assert!(matches!(&effects[..], [Effect::Lost(over)] if over.how.contains("held one message")), "{effects:?}");
    }

    #[test]
    fn what_a_host_had_that_leaves_when_asked_is_lost_as_after_a_kill() {
        let mut s = leaving();
        let effects = s.step(at(6_500), Event::Over("ended in order".into()));
        assert!(matches!(&effects[..], [Effect::Lost(over)] if over.how.contains("held one message")), "{effects:?}");
        assert_eq!(s.step(at(7_000), Event::Tick), vec![Effect::Launch], "there is nobody to kill");
    }

    #[test]
    fn a_host_that_was_asked_to_leave_is_killed_though_its_node_ends() {
        let mut s = leaving();
        assert_eq!(s.step(at(6_500), Event::Stop), vec![], "what it was asked for is more");
        assert_eq!(s.step(at(6_999), Event::Tick), vec![]);
        assert!(matches!(&s.step(at(7_000), Event::Tick)[..], [Effect::Kill(_)]));
        assert_eq!(s.step(at(7_001), Event::Tick), vec![]);
        assert_eq!(s.step(at(7_002), Event::Over("killed by signal 9".into())), vec![Effect::Ended]);
        let mut s = leaving();
        s.step(at(6_500), Event::Stop);
        assert_eq!(s.step(at(6_600), Event::Over("ended in order".into())), vec![Effect::Ended]);
    }

    #[test]
    fn restarts_that_follow_closely_wait_longer_each_time() {
        let mut s = running();
        let mut now = 100;
        let mut waits = vec![];
        for _ in 0..6 {
            s.step(at(now), Event::Over("crash".into()));
            let gone = now;
            while s.step(at(now), Event::Tick).is_empty() {
                now += 10;
            }
            waits.push(now - gone);
            s.step(at(now), Event::Up);
        }
        // Up to half of each is left out.
        for (wait, whole) in waits.into_iter().zip([0, 200, 400, 800, 1000, 1000]) {
            assert!((whole / 2..=whole + 9).contains(&wait), "{wait} of {whole}");
        }
        now += 60_000;
        s.step(at(now), Event::Over("crash".into()));
        assert_eq!(s.step(at(now), Event::Tick), vec![Effect::Launch], "a proven host is restarted at once");
    }

    #[test]
    fn a_host_that_lacked_something_is_not_started_again_at_once() {
        let mut s = running();
        s.step(at(100), Event::Over(Over { how: "no memory".into(), remedy: Remedy::RestartLater, blames: false }));
        assert_eq!(s.step(at(149), Event::Tick), vec![]);
        assert_eq!(s.step(at(200), Event::Tick), vec![Effect::Launch]);
    }

    #[test]
    fn a_device_that_is_not_to_be_trusted_is_never_started_again() {
        let mut s = running();
        let over = Over { how: "it fell off the bus".into(), remedy: Remedy::GiveUp, blames: false };
        assert_eq!(s.step(at(100), Event::Over(over.clone())), vec![Effect::Lost(over), Effect::GiveUp]);
        for hour in 1..24 {
            assert_eq!(s.step(at(hour * 3_600_000), Event::Tick), vec![]);
        }
        assert_eq!(*s.state(), State::GivenUp { why: "it fell off the bus".into() });
        assert_eq!(s.step(at(90_000_000), Event::Stop), vec![Effect::Ended]);
    }

    #[test]
    fn a_device_that_stands_still_begins_again_when_it_is_to_and_has_not_failed() {
        let mut s = running();
        assert_eq!(s.step(at(5), Event::GoOn), vec![], "it runs");
        s.stands_still();
        for event in [Event::Tick, beats(true, 1), Event::Over("late".into()), Event::Up] {
            assert_eq!(s.step(at(60_000), event), vec![]);
        }
        assert_eq!(s.step(at(60_001), Event::GoOn), vec![Effect::Launch]);
        s.step(at(60_002), Event::Up);
        s.step(at(60_003), Event::Over("crash".into()));
        assert_eq!(s.step(at(60_003), Event::Tick), vec![Effect::Launch], "the first failure");
        assert_eq!(s.restarts, 1, "a device that stood still was not restarted");
        s.stands_still();
        assert_eq!(s.step(at(60_004), Event::Stop), vec![Effect::Ended]);
    }

    #[test]
    fn stopping_asks_first_and_ends_once() {
        let mut s = running();
        assert_eq!(s.step(at(5), Event::Stop), vec![Effect::AskToEnd]);
        assert_eq!(s.step(at(6), Event::Stop), vec![]);
        assert_eq!(s.step(at(7), Event::Over("ended in order".into())), vec![Effect::Ended]);
        assert_eq!(s.step(at(8), Event::Over("again".into())), vec![]);
    }

    #[test]
    fn a_host_that_does_not_come_up_is_killed() {
        let mut s = Supervisor::new(LIMITS, 1, at(0));
        assert_eq!(s.step(at(9_999), Event::Tick), vec![]);
        assert!(matches!(&s.step(at(10_000), Event::Tick)[..], [Effect::Kill(_)]));
    }

    #[test]
    fn a_host_with_much_to_begin_with_has_all_the_time_that_it_takes() {
        let mut s = Supervisor::new(LIMITS, 1, at(0));
        assert_eq!(s.step(at(9_000), Event::Restoring), vec![]);
        assert_eq!(s.step(at(18_999), Event::Tick), vec![]);
        assert!(matches!(&s.step(at(19_000), Event::Tick)[..], [Effect::Kill(_)]));
    }

    #[test]
    fn a_worker_is_judged_by_the_deadline_of_the_type_it_has_in_hand() {
        let (quick, slow) = (TypeId(1), TypeId(2));
        let deadlines = [(quick, Duration::from_millis(200)), (slow, Duration::from_secs(60))].into();
        let limits = Limits { deadlines, ..LIMITS };
        let stalls_after = |hand| {
            let mut s = Supervisor::new(limits.clone(), 1, at(0));
            s.step(at(0), Event::Launched);
            s.step(at(1), Event::Up);
            let beat = Beat { busy: true, finished: 7, begun_us: 0, hand };
            (0..1_000).map(|n| n * 100).find(|ms| !s.step(at(*ms), Event::Beats(vec![beat])).is_empty())
        };
        assert_eq!(stalls_after(Some(quick)), Some(200));
        assert_eq!(stalls_after(Some(slow)), Some(60_000));
        assert_eq!(stalls_after(Some(TypeId(3))), Some(5_000), "a type without one has what all have");
        assert_eq!(stalls_after(None), Some(5_000), "nothing in hand, and something waits");
    }

    #[test]
    fn each_worker_has_its_own_deadline() {
        let limits = Limits { deadlines: [(TypeId(2), Duration::from_secs(60))].into(), ..LIMITS };
        let mut s = Supervisor::new(limits, 1, at(0));
        s.step(at(0), Event::Launched);
        s.step(at(1), Event::Up);
        let beat = |hand| Beat { busy: true, finished: 7, begun_us: 0, hand };
        let both = Event::Beats(vec![beat(Some(TypeId(2))), beat(Some(TypeId(1)))]);
        assert_eq!(s.step(at(1_000), both.clone()), vec![]);
        let effects = s.step(at(6_000), both);
        assert!(matches!(&effects[..], [Effect::Kill(why)] if why.starts_with("worker 1 held")), "{effects:?}");
    }

    #[test]
    fn pauses_before_restarts_double_up_to_the_most_and_are_not_alike() {
        let pauses = |seed| {
            let mut s = Supervisor::new(LIMITS, seed, at(0));
            let pause = |s: &mut Supervisor| {
                s.step(at(0), Event::Over("gone".into()));
                let State::Waiting { until, .. } = *s.state() else { panic!("{:?}", s.state()) };
                s.step(until, Event::Tick);
                until
            };
            (0..8).map(|_| pause(&mut s)).collect::<Vec<_>>()
        };
        let ours = pauses(1);
        assert_eq!(ours[0], Duration::ZERO, "the first is at once");
        for (failure, pause) in ours.iter().enumerate().skip(1) {
            let whole = at(100 << failure).min(LIMITS.backoff_max);
            assert!(whole / 2 <= *pause && *pause <= whole, "{failure}: {pause:?} of {whole:?}");
        }
        assert_eq!(ours, pauses(1), "a seed repeats");
        assert_ne!(ours, pauses(2));
    }
}
