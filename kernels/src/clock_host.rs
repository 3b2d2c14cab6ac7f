//! The host's end of a device's clock: asks for its time, and publishes what [`crate::clock_map`] makes of it.
//!
//! Both go through the segment's [`ClockLine`]. Its words from `reference_ns` on are one value: the host makes
//! `version` odd, stores them, and makes it even again (a sequence lock with one writer); a reader that saw `version`
//! odd or changed reads once more.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use crate::clock::SteadyClock;
use crate::clock_map::{ClockMap, Effect, Figures, Mapping, Options, Sample};
use crate::segment::{ClockLine, Segment};

/// How long [`ClockHost::step`] looks at the line for the reply to what it has just asked. A device answers in a few
/// microseconds; a reply that is later is taken by the next step, and its sample says less.
const REPLY_SPIN_NS: u64 = 20_000;
/// How often it is looked whether such a late reply has come.
const LATE_LOOK_NS: u64 = 50_000;
/// A reply that has not come for so long is waited for no more. A device that is paused waits for these replies too, so even
/// one that is slow to answer is heard.
const REPLY_DEADLINE_NS: u64 = 1_000_000_000;

/// What is known of a device's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub mapping: Mapping,
    pub samples: u64,
    pub pauses: u64,
    /// The device may not tell time now.
    pub paused: bool,
}

/// See the module's documentation. One thread of the device host has it, and calls [`ClockHost::step`] now and then.
pub struct ClockHost {
    segment: Arc<Segment>,
    clock: Box<dyn SteadyClock>,
    map: ClockMap,
    /// The number of the last request, and when it was made, as long as its reply is waited for.
    asked: u64,
    waits: Option<u64>,
    due_ns: u64,
}

impl ClockHost {
    /// Takes up the host's end. The device may tell no time until the first [`Effect::Resume`].
    pub fn new(segment: Arc<Segment>, clock: Box<dyn SteadyClock>, options: Options) -> ClockHost {
        segment.clock().paused.store(1, Relaxed);
        ClockHost { segment, clock, map: ClockMap::new(options), asked: 0, waits: None, due_ns: 0 }
    }

    /// Asks the device for its time, if that is due, and takes the reply, if it is there. It takes at most 20 µs. While
    /// the clock is calibrated it is always due: call it again at once, or between other work.
    ///
    /// A pause or a new mapping is published already when it is returned.
    pub fn step(&mut self) -> Option<Effect> {
        if self.waits.is_none() {
            let now_ns = self.clock.now_ns();
            if now_ns < self.due_ns {
                return None;
            }
            self.asked += 1;
            self.waits = Some(now_ns);
            // Pairs with the device's acquire load: whatever was published, a pause above all, is seen with it.
            self.segment.clock().request.store(self.asked, Release);
        }
        let effect = self.reply().and_then(|sample| self.map.step(sample));
        if self.waits.is_none() {
            self.due_ns = self.clock.now_ns() + self.map.sample_after_ns();
        }
        if let Some(effect) = &effect {
            self.segment.clock().publish(effect, self.map.figures());
        }
        effect
    }

    /// How long [`ClockHost::step`] need not be called.
    pub fn idle_ns(&self) -> u64 {
        match self.waits {
            Some(_) => LATE_LOOK_NS,
            None => self.due_ns.saturating_sub(self.clock.now_ns()),
        }
    }

    pub fn figures(&self) -> Figures {
        self.map.figures()
    }

    fn reply(&mut self) -> Option<Sample> {
        let before_ns = self.waits?;
        let line = self.segment.clock();
        let from_ns = self.clock.now_ns();
        loop {
            // Pairs with the device's release store: `device_ns` is that of this reply.
            let replied = line.reply.load(Acquire) == self.asked;
            let now_ns = self.clock.now_ns();
            if replied {
                self.waits = None;
                return Some(Sample { before_ns, device_ns: line.device_ns.load(Relaxed), after_ns: now_ns });
            }
            if now_ns.saturating_sub(before_ns) > REPLY_DEADLINE_NS {
                self.waits = None;
                return None;
            }
            if now_ns.saturating_sub(from_ns) > REPLY_SPIN_NS {
                return None;
            }
            std::hint::spin_loop();
        }
    }
}

/// How often a reader tries again while the host publishes.
const READ_TRIES: usize = 64;

impl ClockLine {
    /// What the host has published. `None` while there is no mapping, which is always where a device has no clock of
    /// its own; also if the host died while it published.
    pub fn read(&self) -> Option<Known> {
        (0..READ_TRIES)
            .find_map(|_| {
                // Pairs with the last store of `publish`: the words below are at least as new.
                let version = self.version.load(Acquire);
                let known = Known {
                    mapping: Mapping {
                        reference_ns: self.reference_ns.load(Relaxed),
                        offset_ns: self.offset_ns.load(Relaxed) as i64,
                        rate_ppb: self.rate_ppb.load(Relaxed) as i64,
                        floor_ns: self.floor_ns.load(Relaxed),
                        error_ns: self.error_ns.load(Relaxed),
                        error_ppb: self.error_ppb.load(Relaxed),
                        drift_ppb: self.drift_ppb.load(Relaxed) as i64,
                    },
                    samples: self.samples.load(Relaxed),
                    pauses: self.pauses.load(Relaxed),
                    paused: self.paused.load(Relaxed) != 0,
                };
                // Pairs with the fence in `publish`: who has read a word stored after it sees the odd version.
                fence(Acquire);
                let whole = version.is_multiple_of(2) && self.version.load(Relaxed) == version;
                whole.then_some(known)
            })
            .filter(|known| known.samples > 0)
    }

    fn publish(&self, effect: &Effect, figures: Figures) {
        if matches!(effect, Effect::Pause { .. }) {
            // Before the next request, which is stored with release.
            self.paused.store(1, Relaxed);
        }
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Relaxed);
        // Pairs with the fence in `read`.
        fence(Release);
        if let Effect::Resume(mapping) | Effect::Update(mapping) = effect {
            self.reference_ns.store(mapping.reference_ns, Relaxed);
            self.offset_ns.store(mapping.offset_ns as u64, Relaxed);
            self.rate_ppb.store(mapping.rate_ppb as u64, Relaxed);
            self.floor_ns.store(mapping.floor_ns, Relaxed);
            self.error_ns.store(mapping.error_ns, Relaxed);
            self.error_ppb.store(mapping.error_ppb, Relaxed);
            self.drift_ppb.store(mapping.drift_ppb as u64, Relaxed);
        }
        self.samples.store(figures.samples, Relaxed);
        self.pauses.store(figures.pauses, Relaxed);
        self.version.store(version + 2, Release);
        if matches!(effect, Effect::Resume(_)) {
            // Pairs with the device's acquire load: it sees the mapping by which it goes on.
            self.paused.store(0, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::clock::MonotonicClock;
    use crate::outbox::Owners;
    use crate::segment::Shape;

    fn segment() -> Arc<Segment> {
        Segment::create(Shape::default(), 0, &Owners::from_fn(|_| 0)).unwrap()
    }

    /// A device with a clock of its own, which answers as a GPU's I/O block does.
    struct Device {
        clock: MonotonicClock,
        start_ns: u64,
        ahead_ns: AtomicI64,
        over: AtomicBool,
        /// Requests that it saw while it was told to pause.
        paused: AtomicU64,
    }

    const DRIFT_PPB: i64 = 150_000;

    impl Device {
        /// What its clock says at a time of the host: it runs fast.
        fn at(&self, host_ns: u64) -> u64 {
            let fast_ns = (host_ns - self.start_ns) as i128 * DRIFT_PPB as i128 / 1_000_000_000;
            (host_ns as i128 + fast_ns + self.ahead_ns.load(Relaxed) as i128) as u64
        }

        fn serve(&self, line: &ClockLine) {
            let mut answered = 0;
            while !self.over.load(Relaxed) {
                let request = line.request.load(Acquire);
                if request == answered {
                    std::thread::yield_now();
                    continue;
                }
                self.paused.fetch_add(line.paused.load(Relaxed), Relaxed);
                line.device_ns.store(self.at(self.clock.now_ns()), Relaxed);
                line.reply.store(request, Release);
                answered = request;
            }
        }
    }

    #[test]
    fn a_device_with_another_clock_is_followed_and_a_step_of_it_is_found() {
        let segment = segment();
        let clock = MonotonicClock::start();
        let device = Device {
            clock,
            start_ns: clock.now_ns(),
            ahead_ns: AtomicI64::new(-1_000_000_000_000),
            over: AtomicBool::new(false),
            paused: AtomicU64::new(0),
        };
        let line = segment.clock();
        assert_eq!(line.read(), None, "nothing is known before the first samples");
        let mut host = ClockHost::new(segment.clone(), Box::new(clock), Options::default());
        std::thread::scope(|scope| {
            scope.spawn(|| device.serve(line));
            // A failed assertion must not leave the device running.
            let _over = OnDrop(&device.over);
            let limit = Instant::now() + Duration::from_secs(30);
            let mut until = |done: &dyn Fn(Option<Known>) -> bool| {
                let mut effects = vec![];
                while !done(line.read()) {
                    assert!(Instant::now() < limit, "{:?} {:?}", line.read(), host.figures());
                    effects.extend(host.step());
                    std::thread::sleep(Duration::from_nanos(host.idle_ns().min(1_000_000)));
                }
                effects
            };
            let is_right = |known: &Known| {
                let host_ns = clock.now_ns();
                let device_ns = device.at(host_ns);
                let (mapped, error) = (known.mapping.host_ns(device_ns), known.mapping.error_at_ns(device_ns));
                assert!(mapped.abs_diff(host_ns) <= error, "{} off: {known:?}", mapped.abs_diff(host_ns));
                assert!(known.mapping.offset_at_ns(host_ns).abs_diff(1_000_000_000_000) < 100_000_000);
            };

            let first = until(&|known| known.is_some());
            assert!(matches!(first[..], [Effect::Resume(_)]), "{first:?}");
            assert_eq!(line.paused.load(Relaxed), 0);
            assert!(device.paused.load(Relaxed) >= 8, "it tells no time before the first mapping");
            until(&|known| {
                let known = known.unwrap();
                is_right(&known);
                known.samples > 100
            });

            let told = line.read().unwrap().mapping.host_ns(device.at(clock.now_ns()));
            device.ahead_ns.fetch_sub(3_600_000_000_000, Relaxed);
            let paused = until(&|known| known.unwrap().paused);
            assert!(matches!(paused[..], [.., Effect::Pause { off_by_ns: 3_500_000_000_000.. }]), "{paused:?}");
            let resumed = until(&|known| !known.unwrap().paused);
            assert!(matches!(resumed[..], [.., Effect::Resume(_)]), "{resumed:?}");
            let known = line.read().unwrap();
            assert!(known.pauses >= 1);
            let host_ns = clock.now_ns();
            let mapped = known.mapping.host_ns(device.at(host_ns));
            assert!(mapped >= told && mapped.abs_diff(host_ns) <= known.mapping.error_at_ns(device.at(host_ns)));
        });
    }

    struct OnDrop<'a>(&'a AtomicBool);

    impl Drop for OnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }

    /// Goes on by a microsecond with every look at it.
    #[derive(Clone)]
    struct Ticking(Arc<AtomicU64>);

    impl SteadyClock for Ticking {
        fn now_ns(&self) -> u64 {
            self.0.fetch_add(1_000, Relaxed) + 1_000
        }
    }

    #[test]
    fn a_device_that_does_not_answer_keeps_nobody_and_its_late_answers_are_told_apart() {
        let segment = segment();
        let line = segment.clock();
        let clock = Ticking(Arc::default());
        let mut host = ClockHost::new(segment.clone(), Box::new(clock.clone()), Options::default());
        let from = clock.now_ns();
        assert_eq!(host.step(), None);
        assert!(clock.now_ns() - from < 40_000, "a step looks for a reply for 20 µs");
        assert_eq!(line.request.load(Relaxed), 1);
        // Past the deadline another is asked for, and the answer to the first is none to it.
        clock.0.fetch_add(REPLY_DEADLINE_NS, Relaxed);
        host.step();
        host.step();
        assert_eq!(line.request.load(Relaxed), 2);
        line.reply.store(1, Relaxed);
        host.step();
        assert_eq!(host.figures(), Figures::default());
        // One that is late, but not too late, is a sample with a long round trip.
        line.device_ns.store(5, Relaxed);
        line.reply.store(2, Relaxed);
        host.step();
        assert_eq!(host.figures().samples, 1);
        assert_eq!(line.read(), None, "one sample is no mapping");
    }

    #[test]
    fn a_reader_sees_the_words_of_one_publication() {
        const LAST: u64 = 200_000;
        let segment = segment();
        let line = segment.clock();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=LAST {
                    let mapping = Mapping {
                        reference_ns: n,
                        offset_ns: -(n as i64),
                        rate_ppb: n as i64,
                        floor_ns: n,
                        error_ns: n,
                        error_ppb: n,
                        drift_ppb: -(n as i64),
                    };
                    let figures = Figures { samples: n, pauses: n, ..Figures::default() };
                    line.publish(&Effect::Update(mapping), figures);
                }
            });
            let mut seen = 0;
            while seen < LAST {
                let Some(Known { mapping: m, samples, pauses, .. }) = line.read() else { continue };
                let (offset, drift) = (m.offset_ns.unsigned_abs(), m.drift_ppb.unsigned_abs());
                let words = [m.reference_ns, offset, m.rate_ppb as u64, m.floor_ns, m.error_ns, m.error_ppb, drift];
                assert!(words.iter().all(|word| *word == samples) && pauses == samples, "{m:?} {samples} {pauses}");
                assert!(samples >= seen, "the newest is never older than the one before");
                seen = samples;
            }
        });
    }

    #[test]
    fn a_new_host_starts_without_the_mapping_of_the_last() {
        let segment = segment();
        let line = segment.clock();
        line.publish(&Effect::Resume(Mapping::default()), Figures { samples: 1, ..Figures::default() });
        line.request.store(7, Relaxed);
        assert!(line.read().is_some());
        segment.reset_telemetry();
        assert_eq!(line.read(), None);
        assert_eq!((line.request.load(Relaxed), line.version.load(Relaxed)), (0, 0));
    }
}
