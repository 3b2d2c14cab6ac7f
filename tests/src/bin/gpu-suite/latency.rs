//! How long a message takes from one actor to another, and a tick of a worker's clock: timed on the device itself.
//!
//! An actor reads its multiprocessor's clock where its handler sends, and again where its handler for the answer begins. Half of
//! that is one way: from the sender's call to the handler that observes it. The functions that read the clock are written by
//! hand (`actors::stopwatch`); everything that the message passes is the kernel that ships.

use std::time::{Duration, Instant};

use ringhold_kernels::id::Key;
use ringhold_kernels::outbox::Owner;
use ringhold_kernels::plain::Plain;

use super::Suite;
use super::actors::{crowd, stopwatch};
use super::ceilings::{FLAGS, L2};
use super::device::{Device, Failed, expect};
use super::report::Figure;
use super::speed::Measured;

/// Round trips of a pair that are not counted: the first make actors, and fill caches.
const WARM: usize = 16;

pub fn idle(suite: &Suite) -> Measured {
    measure(suite, None)
}

pub fn loaded(suite: &Suite) -> Measured {
    measure(suite, Some(suite.size(4, 32)))
}

/// With so many messages for each worker that go round among other actors meanwhile.
fn measure(suite: &Suite, load: Option<u32>) -> Measured {
    let workers = suite.usual().workers;
    let (pairs, rounds) = suite.size((2, 64), (16.min(workers), stopwatch::SAMPLES));
    let kernel = suite.kernel(suite.usual())?;
    let owners = kernel.owners(false);
    let mut device = Device::start(&kernel)?;
    let crowd = match load {
        Some(each) => Some(Crowd::start(&mut device, workers, each)?),
        None => None,
    };
    // Of one worker, the first actors from a key on.
    let on = |worker: u32, from: u64| {
        let here = |key: &u64| owners.of(Key(*key)) == worker as Owner;
        (from..).find(here).expect("a worker has shards")
    };
    let mut timed = Vec::new();
    let mut next = 0;
    for other_block in [false, true] {
        for pair in 0..pairs {
            let worker = pair * workers / pairs;
            let peer = if other_block { (worker + workers / 2) % workers } else { worker };
            let from = on(worker, next);
            let to = on(peer, from + 1);
            next = to + 1;
            let before = now(&mut device, from)?;
            device.tell(stopwatch::id(from), stopwatch::Message::Start { peer: to, rounds })?;
            let began = Instant::now();
            loop {
                // Seldom: it is a message too.
                std::thread::sleep(Duration::from_millis(2));
                match device.ask_meanwhile(stopwatch::id(from), stopwatch::Message::Left)? {
                    stopwatch::Reply::Left { left: 0 } => break,
                    _ => device.pause(began, "send a message to and fro")?,
                }
            }
            timed.push((other_block, from, before));
        }
    }
    let during = match crowd {
        Some(crowd) => Some(crowd.end(&mut device)?),
        None => None,
    };
    device.quiet()?;

    let (mut same, mut other) = (Vec::new(), Vec::new());
    for (other_block, key, before) in timed {
        let cycles_per_ns = rate(before, now(&mut device, key)?)?;
        let state = device.inspect(stopwatch::id(key), stopwatch::State::SIZE)?;
        let state = state.and_then(|bytes| stopwatch::State::from_bytes(&bytes));
        let state = state.filter(|state| state.count == rounds && state.left == 0);
        let state = state.ok_or_else(|| format!("stopwatch {key} has not timed {rounds} round trips"))?;
        let samples = state.samples[WARM..rounds as usize].iter();
        let ns = samples.map(|cycles| f64::from(*cycles) / cycles_per_ns / 2.0);
        if other_block { &mut other } else { &mut same }.extend(ns);
    }
    device.end()?;

    let how = match (load, during) {
        (Some(each), Some(rate)) => format!(
            "; meanwhile {each} messages for each worker go round among other actors, from before the first to after the last: \
             {rate:.2e} a second"
        ),
        _ => "; nothing else happens".into(),
    };
    let loaded = if load.is_some() { "loaded" } else { "idle" };
    let figure = |name: &str, samples, budget: &str, ceiling: &str| {
        let figure = Figure::new(format!("latency, {name}, {loaded}"), "ns", samples, &[50.0, 99.0, 99.9]);
        let method = format!(
            "half of a round trip between two actors, from the call of `send` in a handler to the beginning of the handler of \
             the answer, by the clock of the sender's multiprocessor; {pairs} pairs, {rounds} round trips each, without the \
             first {WARM}{how}"
        );
        let figure = if load.is_some() { figure } else { figure.budget(budget) };
        figure.ceiling(ceiling).method(&method)
    };
    Ok(vec![
        figure("same block", same, "p50 150 ns, p99 1 us", L2),
        figure("other block", other, "p50 300 ns, p99 1 us", FLAGS),
    ])
}

/// Cycles of its multiprocessor, and nanoseconds of the GPU, at one moment.
fn now(device: &mut Device, key: u64) -> Result<(u64, u64), Failed> {
    match device.ask_meanwhile(stopwatch::id(key), stopwatch::Message::Now)? {
        stopwatch::Reply::Now { cycles, ns } => Ok((cycles, ns)),
        other => Err(format!("stopwatch {key} tells the time as {other:?}")),
    }
}

/// Cycles in a nanosecond.
fn rate((cycles_before, ns_before): (u64, u64), (cycles, ns): (u64, u64)) -> Result<f64, Failed> {
    // A GPU's clock goes on in steps of up to a microsecond.
    expect(ns > ns_before + 100_000 && cycles > cycles_before, || {
        format!("from {cycles_before} cycles at {ns_before} ns to {cycles} at {ns}: too little to tell the rate")
    })?;
    Ok((cycles - cycles_before) as f64 / (ns - ns_before) as f64)
}

/// Messages that go round.
struct Crowd {
    actors: u64,
    tokens: u64,
    handled_before: u64,
    began: Instant,
}

impl Crowd {
    fn start(device: &mut Device, workers: u32, each: u32) -> Result<Crowd, Failed> {
        let actors = (u64::from(workers) * 8).next_power_of_two();
        let tokens = u64::from(workers * each);
        for number in 0..tokens {
            let token = crowd::Message::Token { mask: (actors - 1) as u32, random: number as u32 };
            device.tell(crowd::id(number % actors), token)?;
        }
        Ok(Crowd { actors, tokens, handled_before: device.sum(|r| r.finished), began: Instant::now() })
    }

    /// Halts it. Messages handled in a second until then.
    fn end(self, device: &mut Device) -> Result<f64, Failed> {
        let handled = device.sum(|r| r.finished) - self.handled_before;
        let took = self.began.elapsed();
        for key in 0..self.actors {
            device.tell(crowd::id(key), crowd::Message::Halt)?;
        }
        device.quiet()?;
        let (mut kept, mut passed) = (0, 0);
        for key in 0..self.actors {
            let state = device.inspect(crowd::id(key), crowd::State::SIZE)?;
            let state =
                state.and_then(|bytes| crowd::State::from_bytes(&bytes)).ok_or("an actor of the load is gone")?;
            (kept, passed) = (kept + u64::from(state.kept), passed + state.passed);
        }
        expect(kept == self.tokens && passed > self.tokens, || {
            format!("of {} messages of the load {kept} went round to its end, {passed} times in all", self.tokens)
        })?;
        Ok(handled as f64 / took.as_secs_f64())
    }
}

pub fn tick(suite: &Suite) -> Measured {
    let kernel = suite.kernel(suite.usual())?;
    let mut device = Device::start(&kernel)?;
    let (count, repetitions) = (100u32, suite.size(200, 5_000));
    let before = now(&mut device, 0)?;
    let mut cycles = Vec::new();
    for _ in 0..repetitions {
        match device.ask_meanwhile(stopwatch::id(0), stopwatch::Message::Tick { count })? {
            stopwatch::Reply::Took { cycles: took } => cycles.push(took as f64 / f64::from(count)),
            other => return Err(format!("ticks are answered with {other:?}")),
        }
    }
    let cycles_per_ns = rate(before, now(&mut device, 0)?)?;
    device.end()?;
    let ns = cycles.iter().map(|cycles| cycles / cycles_per_ns).collect();
    let method = format!(
        "{count} stamps of a worker's hybrid logical clock one after the other in a handler, by the clock of its \
         multiprocessor; one sample is a hundredth of that"
    );
    Ok(vec![Figure::new("clock tick", "ns", ns, &[50.0, 99.0]).method(&method)])
}
