//! What a device's own clock says in the host's time: decisions only.
//!
//! A state machine with no clock, thread or device in it. Its driver ([`crate::clock_host`]) asks the device for its
//! time and gives what came of it to [`ClockMap::step`], which now and then hands out a new [`Mapping`].
//!
//! **One sample** is a time of the host, one of the device, and one of the host again. The device read its clock
//! somewhere between the host's two, so the offset is that to the middle, and wrong by at most half the round trip,
//! however lopsided the ways there and back were (Cristian, "Probabilistic clock synchronization", 1989). Of each few
//! samples the one with the shortest round trip is kept, as NTP's clock filter does (RFC 5905, section 10).
//!
//! **The fit** is a line through the kept samples by least squares, weighted by how tight they are,
//! over values centred on their mean. Its error is
//! not an estimate but a bound. At a sample, the line is off by at most the sample's half round trip and its distance
//! from the line (for the sample with the shortest round trip: half of that, and the fit's residual). The slope is a
//! weighted sum of the samples' offsets, so it is off by at most that sum of their half round trips. All of it holds
//! while the device's clock runs evenly, within [`Options::drift_max_ppb`] of the host's.
//!
//! **A sample that contradicts the fit** proves that it does not: a clock was stepped, or changed its pace. Then
//! everything known is forgotten. Where the mapping in use is off by more than [`Options::pause_ns`] for certain, the
//! device must tell no time ([`Effect::Pause`]) until a new mapping is there ([`Effect::Resume`]).
//!
//! **Mapped time never runs backwards** while the device's clock does not. A mapping that is a little off is not set
//! right but bent towards the truth (it is *slewed*). One that was far off is set right at once if that leads forward,
//! and otherwise stands still until time has caught up with what it told before ([`Mapping::floor_ns`]). If the
//! device's clock itself runs backwards, time may follow it until the next sample, and is then past everything told.

use std::collections::VecDeque;

/// One second, in nanoseconds; also one, in parts per billion.
const BILLION: i128 = 1_000_000_000;
/// No clock tells a time from here on before the year 2116: a sample that does is refused.
const TIME_MAX_NS: u64 = 1 << 62;

/// By what a mapping is made and judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A sample whose round trip takes longer is not used, but while there is no mapping: then any is better than none.
    pub round_trip_max_ns: u64,
    /// Of so many samples the tightest is kept.
    pub filter_samples: u32,
    /// So many kept samples are fitted.
    pub window: usize,
    /// How far apart the paces of two clocks that work can be.
    pub drift_max_ppb: u64,
    /// How far a mapping may be off, for certain, before the device is paused.
    pub pause_ns: u64,
    /// How fast a mapping may be bent.
    pub slew_max_ppb: u64,
    /// In which time a mapping that is off is to be right again, if [`Options::slew_max_ppb`] allows.
    pub slew_over_ns: u64,
    /// In which time a device takes up a mapping that was handed out.
    pub adopt_ns: u64,
    /// How far the device's clock goes at a time.
    pub device_tick_ns: u64,
    /// The longest time between two samples; it is shorter at first.
    pub sample_every_ns: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            round_trip_max_ns: 1_000_000,
            filter_samples: 8,
            window: 32,
            drift_max_ppb: 500_000,
            pause_ns: 100_000,
            slew_max_ppb: 500_000,
            slew_over_ns: 1_000_000_000,
            adopt_ns: 10_000_000,
            device_tick_ns: 1,
            sample_every_ns: 32_000_000,
        }
    }
}

/// The first wait between two samples; it doubles with every one that is kept.
const SAMPLE_EVERY_MIN_NS: u64 = 1_000_000;

/// The device's time between two times of the host. The host's may jump, but do not run back in one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub before_ns: u64,
    pub device_ns: u64,
    pub after_ns: u64,
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The device may tell time, by this mapping.
    Resume(Mapping),
    /// The device goes on by this mapping, which it takes up within [`Options::adopt_ns`].
    Update(Mapping),
    /// The device may tell no time: its mapping is off by at least so much.
    Pause { off_by_ns: u64 },
}

/// A line from device time to host time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The device's time at which it was made.
    pub reference_ns: u64,
    /// Host time less device time at the reference.
    pub offset_ns: i64,
    /// By how much the offset grows; positive where the device's clock is made to go faster.
    pub rate_ppb: i64,
    /// It tells no time before this.
    pub floor_ns: u64,
    /// How far the line may be off at the reference.
    pub error_ns: u64,
    /// How fast that grows with the distance from the reference.
    pub error_ppb: u64,
    /// By how much the true offset is estimated to grow: `rate_ppb` but for slewing.
    pub drift_ppb: i64,
}

impl Mapping {
    /// The host's time at a time of the device.
    pub fn host_ns(&self, device_ns: u64) -> u64 {
        self.line_ns(device_ns).clamp(self.floor_ns as i128, u64::MAX as i128) as u64
    }

    /// How far [`Mapping::host_ns`] may be off there.
    pub fn error_at_ns(&self, device_ns: u64) -> u64 {
        let line = self.line_ns(device_ns);
        let distance = device_ns.abs_diff(self.reference_ns) as i128;
        let grown = (distance * self.error_ppb as i128).unsigned_abs().div_ceil(BILLION as u128) as i128;
        let held = (self.floor_ns as i128 - line).max(0);
        // One for the rounding of the line.
        (self.error_ns as i128 + grown + held + 1).clamp(0, u64::MAX as i128) as u64
    }

    /// Host time less device time at a time of the host.
    pub fn offset_at_ns(&self, host_ns: u64) -> i64 {
        self.offset_ns.saturating_add(self.grown(self.device_ns(host_ns)) as i64)
    }

    /// About which time of the device a time of the host is: exact but for what the clocks drift.
    pub fn device_ns(&self, host_ns: u64) -> u64 {
        (host_ns as i128 - self.offset_ns as i128).clamp(0, u64::MAX as i128) as u64
    }

    fn line_ns(&self, device_ns: u64) -> i128 {
        device_ns as i128 + self.offset_ns as i128 + self.grown(device_ns)
    }

    fn grown(&self, device_ns: u64) -> i128 {
        (device_ns as i128 - self.reference_ns as i128) * self.rate_ppb as i128 / BILLION
    }
}

/// What is known of the device's clock. See the module's documentation.
#[derive(Debug)]
pub struct ClockMap {
    options: Options,
    state: State,
    /// The tightest sample since one was last kept, and out of how many.
    tightest: Option<Point>,
    taken: u32,
    kept: VecDeque<Point>,
    fit: Fit,
    /// The one that was handed out last.
    mapping: Option<Mapping>,
    /// The last sample that made sense.
    last: Option<Sample>,
    /// No mapping may tell a time before this: an earlier one may have told it already.
    told_ns: u64,
    figures: Figures,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no mapping, or none that may be used.
    Calibrating,
    Running,
}

/// Counted since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Samples taken into account.
    pub samples: u64,
    /// Samples that were not used: their round trip was too long, or their times made no sense.
    pub refused: u64,
    /// How often everything known was forgotten, because a sample contradicted it.
    pub contradictions: u64,
    /// How often the device was paused for that.
    pub pauses: u64,
}

/// A sample as the fit sees it.
#[derive(Clone, Copy, Debug)]
struct Point {
    device_ns: i64,
    offset_ns: i64,
    /// The true offset is nearer than this.
    radius_ns: i64,
}

impl Point {
    /// How far apart the two would be even if each were off as far as it can.
    fn excess(&self, other: &Point, drift_max: f64) -> f64 {
        let apart = (self.offset_ns - other.offset_ns).unsigned_abs() as f64;
        let drifted = (self.device_ns - other.device_ns).unsigned_abs() as f64 * drift_max;
        apart - drifted - (self.radius_ns + other.radius_ns) as f64 - 1.0
    }
}

impl ClockMap {
    /// # Panics
    /// If the mapping could bend by more than 1,000 ppm: devices compute with 64 bits.
    pub fn new(options: Options) -> ClockMap {
        assert!(options.drift_max_ppb + options.slew_max_ppb <= 1_000_000, "a mapping bends by at most 1,000 ppm");
        assert!(options.filter_samples > 0 && options.window > 1 && options.slew_over_ns > 0);
        ClockMap {
            options,
            state: State::Calibrating,
            tightest: None,
            taken: 0,
            kept: VecDeque::new(),
            fit: Fit::default(),
            mapping: None,
            last: None,
            told_ns: 0,
            figures: Figures::default(),
        }
    }

    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// How long to wait before the next sample.
    pub fn sample_after_ns(&self) -> u64 {
        match self.state {
            State::Calibrating => 0,
            State::Running => (SAMPLE_EVERY_MIN_NS << self.kept.len().min(16)).min(self.options.sample_every_ns),
        }
    }

    /// Takes a sample in, and says what follows from it.
    pub fn step(&mut self, sample: Sample) -> Option<Effect> {
        let Some(point) = self.point(&sample) else {
            self.figures.refused += 1;
            return None;
        };
        self.figures.samples += 1;
        let effect = match self.state {
            State::Calibrating => self.calibrate(&sample, point),
            State::Running => self.run(&sample, point),
        };
        self.last = Some(sample);
        effect
    }

    fn point(&self, sample: &Sample) -> Option<Point> {
        let Sample { before_ns, device_ns, after_ns } = *sample;
        let round_trip_ns = after_ns.checked_sub(before_ns)?;
        let loose = self.state == State::Running && round_trip_ns > self.options.round_trip_max_ns;
        if loose || after_ns >= TIME_MAX_NS || device_ns >= TIME_MAX_NS {
            return None;
        }
        Some(Point {
            device_ns: device_ns as i64,
            offset_ns: (before_ns + round_trip_ns / 2) as i64 - device_ns as i64,
            radius_ns: (round_trip_ns.div_ceil(2) + self.options.device_tick_ns.div_ceil(2)).max(1) as i64,
        })
    }

    /// Keeps the tightest of a few samples; `Some` once there were enough.
    fn filter(&mut self, point: Point) -> Option<Point> {
        let tightest = self.tightest.get_or_insert(point);
        if point.radius_ns < tightest.radius_ns {
            *tightest = point;
        }
        self.taken += 1;
        if self.taken < self.options.filter_samples {
            return None;
        }
        self.taken = 0;
        self.tightest.take()
    }

    fn calibrate(&mut self, sample: &Sample, point: Point) -> Option<Effect> {
        self.note_told(sample);
        if self.tightest.is_some_and(|other| point.excess(&other, self.drift_max()) > 0.0) {
            // A clock was stepped meanwhile: what came before says nothing any more.
            (self.tightest, self.taken) = (None, 0);
        }
        let kept = self.filter(point)?;
        self.keep(kept);
        self.state = State::Running;
        Some(Effect::Resume(self.hand_out(sample, self.fit.offset_at(point.device_ns), self.fit.drift_ppb())))
    }

    fn run(&mut self, sample: &Sample, point: Point) -> Option<Effect> {
        let contradiction = {
            let apart = (point.offset_ns - self.fit.offset_at(point.device_ns)).unsigned_abs() as f64;
            apart > point.radius_ns as f64 + self.fit.error_at(point.device_ns)
        };
        let mapping = self.mapping.expect("without one the state is another");
        let line_offset_ns = mapping.line_ns(sample.device_ns) - sample.device_ns as i128;
        let off_by_ns = (point.offset_ns as i128 - line_offset_ns).unsigned_abs() as u64;
        let off_by_ns = off_by_ns.saturating_sub(point.radius_ns as u64);
        let pause = off_by_ns > self.options.pause_ns;
        if contradiction || pause {
            self.figures.contradictions += 1;
            self.note_told(sample);
            self.kept.clear();
            self.fit.forget();
            (self.tightest, self.taken) = (None, 0);
        }
        if pause {
            self.figures.pauses += 1;
            self.state = State::Calibrating;
            // The first of the new samples.
            (self.tightest, self.taken) = (Some(point), 1);
            return Some(Effect::Pause { off_by_ns });
        }
        let kept = if contradiction { point } else { self.filter(point)? };
        self.keep(kept);
        Some(Effect::Update(self.slew(sample, &mapping)))
    }

    fn keep(&mut self, point: Point) {
        if self.kept.len() == self.options.window {
            self.kept.pop_front();
        }
        self.kept.push_back(point);
        self.fit = Fit::new(&self.kept, &self.fit, self.drift_max());
    }

    /// Bends the mapping in use towards the truth.
    fn slew(&mut self, sample: &Sample, old: &Mapping) -> Mapping {
        let Options { slew_max_ppb, slew_over_ns, adopt_ns, .. } = self.options;
        let at = sample.device_ns;
        let offset_ns = (old.line_ns(at) - at as i128) as i64;
        let behind_ns = self.fit.offset_at(at as i64) - offset_ns;
        let slew_ppb = behind_ns as i128 * BILLION / slew_over_ns as i128;
        let slew_ppb = slew_ppb.clamp(-(slew_max_ppb as i128), slew_max_ppb as i128) as i64;
        let rate_ppb = self.fit.drift_ppb() + slew_ppb;
        // A flatter line starts so much higher that it is above the old one until the device has taken it up: that
        // long after the sample's end, in which the device's clock may go 1,000 ppm faster. The last two are for the
        // rounding of both lines.
        let until_ns = (sample.after_ns - sample.before_ns + adopt_ns) as i128 * 1_001 / 1_000;
        let flatter_ppb = (old.rate_ppb - rate_ppb).max(0) as i128;
        let lift_ns = flatter_ppb * until_ns / BILLION + 2;
        self.hand_out(sample, offset_ns + lift_ns as i64, rate_ppb)
    }

    /// Makes the mapping that has this offset at a sample's device time.
    fn hand_out(&mut self, sample: &Sample, offset_ns: i64, rate_ppb: i64) -> Mapping {
        let at = sample.device_ns as i64;
        let off_ns = (offset_ns - self.fit.offset_at(at)).unsigned_abs();
        let bent_ppb = (rate_ppb - self.fit.drift_ppb()).unsigned_abs();
        *self.mapping.insert(Mapping {
            reference_ns: sample.device_ns,
            offset_ns,
            rate_ppb,
            floor_ns: self.told_ns,
            // A time that the device reads may be a tick old.
            error_ns: off_ns + self.fit.error_at(at).ceil() as u64 + self.options.device_tick_ns.div_ceil(2),
            error_ppb: bent_ppb + (self.fit.slope_error * BILLION as f64).ceil() as u64 + 1,
            drift_ppb: self.fit.drift_ppb(),
        })
    }

    /// Notes what the mapping in use may have told until the end of a sample, though a clock was stepped since the
    /// one before.
    fn note_told(&mut self, sample: &Sample) {
        let (Some(mapping), Some(last)) = (&self.mapping, &self.last) else { return };
        // As if the device's clock had run on as fast as it can, until it was set back just now. Its drift and the
        // mapping's bend are each below 1,000 ppm.
        let passed_ns = sample.after_ns.saturating_sub(last.before_ns);
        self.told_ns = self.told_ns.max(mapping.host_ns(last.device_ns) + passed_ns + passed_ns / 400);
    }

    fn drift_max(&self) -> f64 {
        self.options.drift_max_ppb as f64 / BILLION as f64
    }
}

/// A line through the kept samples, and how far it may be off. Values are distances from one of the samples, so that
/// they fit a float.
#[derive(Clone, Copy, Debug, Default)]
struct Fit {
    origin: (i64, i64),
    mean: (f64, f64),
    /// Nanoseconds of offset per nanosecond.
    slope: f64,
    slope_error: f64,
    /// Where the line is known best, and how far it may be off there.
    anchor: (f64, f64),
}

impl Fit {
    /// `prior` is the fit before, of which the slope is kept where the points do not tell it better.
    fn new(points: &VecDeque<Point>, prior: &Fit, slope_max: f64) -> Fit {
        let newest = points.back().expect("a fit is made of what was just kept");
        let origin = (newest.device_ns, newest.offset_ns);
        let centred = |p: &Point| ((p.device_ns - origin.0) as f64, (p.offset_ns - origin.1) as f64);
        // A loose sample says less than a tight one, and counts less.
        let weight = |p: &Point| 1.0 / (p.radius_ns as f64 * p.radius_ns as f64);
        let mut sum = (0.0, 0.0, 0.0);
        for point in points {
            let ((x, y), w) = (centred(point), weight(point));
            sum = (sum.0 + w, sum.1 + w * x, sum.2 + w * y);
        }
        let mean = (sum.1 / sum.0, sum.2 / sum.0);

        let (mut xx, mut xy, mut xr) = (0.0, 0.0, 0.0);
        for point in points {
            let ((x, y), w) = (centred(point), weight(point));
            xx += w * (x - mean.0) * (x - mean.0);
            xy += w * (x - mean.0) * (y - mean.1);
            xr += w * (x - mean.0).abs() * point.radius_ns as f64;
        }
        // What is known without any point: that the true slope is not beyond the most.
        let slope = prior.slope;
        let slope_error = slope.abs() + slope_max;
        let (slope, slope_error) = match xr / xx {
            // The truth is not beyond the most either, so moving the slope there moves it towards the truth.
            error if xx > 0.0 && error < slope_error => ((xy / xx).clamp(-slope_max, slope_max), error),
            _ => (slope, slope_error),
        };

        let off = |p: &Point| {
            let (x, y) = centred(p);
            (x, p.radius_ns as f64 + (y - mean.1 - slope * (x - mean.0)).abs())
        };
        // The newest is at zero, and that is about where the line will be asked for.
        let at_newest = |&(x, error): &(f64, f64)| error + slope_error * x.abs();
        let anchor = points.iter().map(off).min_by(|a, b| at_newest(a).total_cmp(&at_newest(b)));
        Fit { origin, mean, slope, slope_error, anchor: anchor.expect("there is the newest") }
    }

    /// The points are no longer worth anything; their slope is still the best guess.
    fn forget(&mut self) {
        *self = Fit { slope: self.slope, ..Fit::default() };
    }

    fn offset_at(&self, device_ns: i64) -> i64 {
        let x = (device_ns - self.origin.0) as f64;
        self.origin.1 + (self.mean.1 + self.slope * (x - self.mean.0)).round() as i64
    }

    fn error_at(&self, device_ns: i64) -> f64 {
        let x = (device_ns - self.origin.0) as f64;
        // One for the rounding of offsets to nanoseconds.
        self.anchor.1 + self.slope_error * (x - self.anchor.0).abs() + 1.0
    }

    fn drift_ppb(&self) -> i64 {
        (self.slope * BILLION as f64).round() as i64
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{RngCore, SeedableRng};

    use super::*;

    const SECOND: i128 = BILLION;

    /// A host and a device, whose clocks are known to the nanosecond, and a reader of mapped time on the device.
    struct World {
        random: ChaCha8Rng,
        /// True time since the world began.
        now: i128,
        host_origin: i128,
        device_origin: i128,
        device_ppb: i128,
        device_tick: i128,
        /// Round trips are shorter than this, but for the odd one.
        trip_max: u64,
        map: ClockMap,
        reader: Reader,
    }

    #[derive(Default)]
    struct Reader {
        mapping: Option<Mapping>,
        /// Handed out and not taken up yet, and when it will be.
        next: Option<(Mapping, i128)>,
        told: u64,
        /// A clock was stepped, and no mapping was made since that knows it: errors are not what they seem.
        stepped: bool,
        /// It was the device's, backwards.
        ran_back: bool,
    }

    impl World {
        fn new(seed: u64) -> World {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut below = |n: u64| random.next_u64() % n;
            let host_origin = 1_600_000_000 * SECOND + below(1 << 58) as i128;
            // Since the epoch, since the device was switched on, or from anywhere.
            let device_origin = match below(3) {
                0 => host_origin + below(2_000_000_000) as i128 - SECOND,
                1 => below(1 << 50) as i128 + 10_000 * SECOND,
                _ => below(1 << 61) as i128 + 10_000 * SECOND,
            };
            let device_tick = [1, 1, 32, 1_000][below(4) as usize];
            let device_ppb = below(400_001) as i128 - 200_000;
            let trip_max = 1_000 + below(20_000);
            let map = ClockMap::new(Options { device_tick_ns: device_tick as u64, ..Options::default() });
            let reader = Reader::default();
            World { random, now: 0, host_origin, device_origin, device_ppb, device_tick, trip_max, map, reader }
        }

        fn below(&mut self, n: u64) -> u64 {
            self.random.next_u64() % n
        }

        fn host(&self) -> u64 {
            (self.host_origin + self.now) as u64
        }

        fn device(&self) -> u64 {
            let exact = self.device_origin + self.now + self.now * self.device_ppb / BILLION;
            (exact / self.device_tick * self.device_tick) as u64
        }

        /// One way there or back: mostly short, sometimes long.
        fn trip(&mut self) -> i128 {
            let max = if self.below(20) == 0 { self.trip_max * 100 } else { self.trip_max };
            200 + self.below(max) as i128
        }

        /// Lets time pass, in which the device reads its mapped time.
        fn pass(&mut self, ns: i128) {
            let until = self.now + ns;
            for looks_left in (0..4).rev() {
                let then = match looks_left {
                    0 => until,
                    _ => self.now + self.below(1 + (until - self.now) as u64) as i128,
                };
                if let Some((mapping, at)) = self.reader.next
                    && at <= then
                {
                    // Right before and right after it takes up another mapping.
                    self.now = self.now.max(at);
                    self.read();
                    (self.reader.mapping, self.reader.next) = (Some(mapping), None);
                    self.read();
                }
                self.now = self.now.max(then);
                self.read();
            }
        }

        fn read(&mut self) {
            let Some(mapping) = self.reader.mapping else { return };
            let (device, truth) = (self.device(), self.host());
            let (time, error) = (mapping.host_ns(device), mapping.error_at_ns(device));
            if !self.reader.stepped {
                let off = time.abs_diff(truth);
                assert!(off <= error, "off by {off} ns and said {error}: {mapping:?} {:?}", self.map);
            }
            if !self.reader.ran_back {
                let told = self.reader.told;
                assert!(time >= told, "time ran back by {} ns: {mapping:?} {:?}", told - time, self.map);
            }
            self.reader.told = self.reader.told.max(time);
        }

        fn sample(&mut self) -> Option<Effect> {
            let before_ns = self.host();
            let there = self.trip();
            self.pass(there);
            if self.map.state == State::Calibrating {
                // What the device does before it replies.
                (self.reader.mapping, self.reader.next) = (None, None);
            }
            let device_ns = self.device();
            let back = self.trip();
            self.pass(back);
            let effect = self.map.step(Sample { before_ns, device_ns, after_ns: self.host() });
            match effect {
                Some(Effect::Resume(mapping)) => {
                    self.reader = Reader { mapping: Some(mapping), told: self.reader.told, ..Reader::default() }
                }
                Some(Effect::Update(mapping)) => {
                    // It may come late, so that the device skips some.
                    let adopt = self.below(self.map.options.adopt_ns) as i128;
                    self.reader.next = Some((mapping, self.now + adopt));
                }
                // The device learns of it with the next request.
                Some(Effect::Pause { .. }) | None => {}
            }
            effect
        }

        /// Samples for so long, as far apart as the map wants them.
        fn run(&mut self, ns: i128) {
            let until = self.now + ns;
            while self.now < until {
                self.sample();
                let wait = self.map.sample_after_ns();
                let late = self.below(1 + wait / 4);
                self.pass((wait + late) as i128);
            }
        }

        /// Something that no working clock does; the size leaves no doubt about it.
        fn step_a_clock(&mut self) {
            let size = 5_000_000 << self.below(20);
            let size = size + self.below(size as u64) as i128;
            let size = if self.below(2) == 0 { size } else { -size };
            self.reader.stepped = true;
            if self.below(2) == 0 {
                self.host_origin += size;
            } else {
                self.device_origin += size;
                self.reader.ran_back |= size < 0;
            }
        }
    }

    #[test]
    fn the_truth_is_within_the_error_stated_and_time_never_runs_back() {
        for seed in 0..200 {
            let mut world = World::new(seed);
            world.run(20 * SECOND);
            let figures = world.map.figures();
            assert_eq!((figures.contradictions, figures.pauses), (0, 0), "seed {seed}: clocks that run evenly");
        }
    }

    #[test]
    fn the_error_stated_is_small_and_the_drift_is_found() {
        for seed in 0..200 {
            let mut world = World::new(seed);
            world.run(20 * SECOND);
            let mapping = world.map.mapping.unwrap();
            // A twentieth of the samples is not tight, so the tightest of eight is well below the mean round trip.
            let error = mapping.error_at_ns(world.device()) as i128;
            assert!(error < world.trip_max as i128 * 2 + world.device_tick * 3 + 500, "seed {seed}: {error} ns");
            // The offset grows where the device's clock is slow.
            let drift = mapping.drift_ppb as i128;
            assert!((drift + world.device_ppb).abs() < 3_000, "seed {seed}: {drift} for {}", -world.device_ppb);
        }
    }

    #[test]
    fn a_clock_that_is_stepped_costs_a_pause_and_time_goes_on_from_what_was_told() {
        let mut pauses = 0;
        for seed in 0..200 {
            let mut world = World::new(seed);
            world.run(SECOND);
            for _ in 0..4 {
                world.step_a_clock();
                // Found by the next samples, and right again soon: so `run` checks the errors from there on.
                world.run(2 * SECOND);
                assert!(!world.reader.stepped, "seed {seed}: the step was not found");
            }
            pauses += world.map.figures().pauses;
        }
        assert!(pauses >= 200 * 4, "{pauses}");
    }

    #[test]
    fn steps_may_come_while_the_device_is_paused() {
        for seed in 0..200 {
            let mut world = World::new(seed);
            world.run(SECOND / 10);
            for _ in 0..20 {
                world.step_a_clock();
                // Two at once cannot be told from none.
                let samples = world.map.figures().samples + 1 + world.below(12);
                while world.map.figures().samples < samples {
                    world.sample();
                }
            }
            world.run(2 * SECOND);
            assert!(!world.reader.stepped, "seed {seed}");
        }
    }

    #[test]
    fn a_small_step_is_slewed_and_needs_no_pause() {
        for seed in 0..200 {
            let mut world = World::new(seed);
            (world.trip_max, world.device_tick) = (2_000, 1);
            world.run(5 * SECOND);
            world.reader.stepped = true;
            world.device_origin += [-60_000, 60_000][world.below(2) as usize];
            world.reader.ran_back = true;
            // Nothing runs back once the step is known.
            while world.map.figures().contradictions == 0 {
                world.sample();
                world.pass(1_000_000);
            }
            (world.reader.stepped, world.reader.ran_back) = (true, false);
            world.pass(world.map.options.adopt_ns as i128);
            world.reader.stepped = false;
            world.run(3 * SECOND);
            assert_eq!(world.map.figures().pauses, 0, "seed {seed} {:?}", world.map);
            let mapping = world.map.mapping.unwrap();
            let off = mapping.host_ns(world.device()).abs_diff(world.host());
            assert!(off < 10_000, "seed {seed}: {off} ns after three seconds");
        }
    }

    #[test]
    fn a_mapping_that_is_not_renewed_says_how_wrong_it_becomes() {
        for seed in 0..200 {
            let mut world = World::new(seed);
            (world.trip_max, world.device_tick) = (2_000, 1);
            world.run(5 * SECOND);
            (world.reader.stepped, world.reader.ran_back) = (true, true);
            world.device_origin += [-60_000, 60_000][world.below(2) as usize];
            world.run(SECOND);
            // It is still bent towards the truth, and goes past it.
            (world.reader.stepped, world.reader.ran_back) = (false, false);
            world.pass(20 * SECOND);
        }
    }

    #[test]
    fn a_pace_that_changes_is_followed() {
        for seed in 0..200 {
            let mut world = World::new(seed);
            world.trip_max = 2_000;
            world.run(5 * SECOND);
            // The clock goes on from where it is, at another pace.
            let device = world.device() as i128;
            world.device_ppb = -world.device_ppb;
            world.device_origin += device - world.device() as i128;
            world.reader.stepped = true;
            world.run(20 * SECOND);
            let mapping = world.map.mapping.unwrap();
            let drift = mapping.drift_ppb as i128;
            assert!((drift + world.device_ppb).abs() < 3_000, "seed {seed}: {drift} for {}", -world.device_ppb);
            let off = mapping.host_ns(world.device()).abs_diff(world.host());
            assert!(off < 10_000, "seed {seed}: {off} ns");
        }
    }

    #[test]
    fn samples_that_make_no_sense_change_nothing() {
        let mut world = World::new(1);
        world.run(SECOND);
        let (mapping, samples) = (world.map.mapping, world.map.figures().samples);
        let (host, device) = (world.host(), world.device());
        for (before_ns, device_ns, after_ns) in [
            (host, device, host - 1),
            (host, device, host + 1_000_001),
            (host, u64::MAX, host + 1_000),
            (u64::MAX - 1, device, u64::MAX),
        ] {
            assert_eq!(world.map.step(Sample { before_ns, device_ns, after_ns }), None);
        }
        assert_eq!((world.map.mapping, world.map.figures().samples), (mapping, samples));
        assert!(world.map.figures().refused >= 4);
    }

    #[test]
    fn whatever_a_device_says_the_map_goes_on() {
        for seed in 0..200 {
            let mut world = World::new(seed);
            world.run(SECOND / 10);
            let mut told = 0;
            for _ in 0..1_000 {
                let before_ns = world.host();
                world.now += 1_000 + world.below(10_000) as i128;
                let shift = world.below(64);
                let device_ns = match world.below(4) {
                    0 => world.device(),
                    1 => world.device().wrapping_sub(world.random.next_u64() >> shift),
                    _ => world.random.next_u64() >> shift,
                };
                let effect = world.map.step(Sample { before_ns, device_ns, after_ns: world.host() });
                if let Some(Effect::Resume(mapping) | Effect::Update(mapping)) = effect {
                    assert!(mapping.floor_ns >= told, "what was told is never forgotten");
                    told = mapping.floor_ns;
                    assert!(mapping.error_at_ns(device_ns) > 0 && mapping.host_ns(device_ns) >= told);
                }
            }
            assert!(world.map.figures().contradictions > 0, "seed {seed}");
        }
    }

    #[test]
    fn a_mapping_computes_without_overflow_wherever_it_is_asked() {
        let mapping = Mapping { offset_ns: -7, rate_ppb: 1_000_000, error_ppb: 1_000_000, ..Mapping::default() };
        assert_eq!(mapping.host_ns(0), 0, "it tells no time before its floor");
        assert_eq!(mapping.host_ns(1_000_000_000), 1_000_999_993);
        assert_eq!(mapping.host_ns(u64::MAX), u64::MAX);
        assert!(mapping.error_at_ns(u64::MAX) > u64::MAX / 1_001);
    }
}
