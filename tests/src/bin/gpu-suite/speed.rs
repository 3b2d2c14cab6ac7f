//! How fast the device is. What was timed is counted afterwards: if less was handled, it is no measurement.

use std::time::Instant;

use ringhold_kernels::id::Key;
use ringhold_kernels::message::Kind;
use ringhold_kernels::outbox::AWAY;
use ringhold_kernels::plain::Plain;

use super::Suite;
use super::actors::{echo, hop, spray};
use super::device::{Device, Failed, expect};
use super::report::Figure;

type Measured = Result<Vec<Figure>, Failed>;
pub type Measure = fn(&Suite) -> Measured;

/// Every measurement, with its name.
pub const MEASUREMENTS: [(&str, Measure); 7] = [
    ("compile and start time", compile_and_start),
    ("host ask round trip", ask),
    ("ingest", ingest),
    ("egress", egress),
    ("one hot actor", hot),
    ("actor to actor", aggregate),
    ("bytes of an idle actor", idle),
];

/// Of rates the lower ones are the worse: p1 is what 99 % reach.
const RATES: [f64; 2] = [50.0, 1.0];

fn compile_and_start(suite: &Suite) -> Measured {
    let mut starts = Vec::new();
    for _ in 0..5 {
        let device = Device::start(&suite.kernel)?;
        starts.push(device.start_time.as_secs_f64());
        device.end()?;
    }
    let compile = vec![suite.kernel.compile_time.as_secs_f64(), suite.short.compile_time.as_secs_f64()];
    Ok(vec![
        Figure::new("compile", "s", compile, &[50.0]).method("two kernels, each with all actors of the suite"),
        Figure::new("start", "s", starts, &[50.0, 99.0]).method("from the launch until every block is up, 5 times"),
    ])
}

fn ask(suite: &Suite) -> Measured {
    let mut device = Device::start(&suite.kernel)?;
    let (warm, asks) = if suite.is_emulated() { (20u64, 300u64) } else { (1_000, 100_000) };
    let mut samples = Vec::new();
    for number in 0..warm + asks {
        let message = echo::Message::Ask { value: 1, padding: 0 }.to_bytes();
        device.answers.clear();
        let began = Instant::now();
        device.push(Kind::Ask, echo::id(0), number, &message)?;
        while device.collect() == 0 {
            device.pause(began, "answer")?;
        }
        let took = began.elapsed();
        let sum = device.answers.first().and_then(|(_, payload)| echo::Reply::from_bytes(payload));
        let expected = echo::Reply::Sum { sum: number + 1, told: 0 };
        expect(sum == Some(expected), || format!("ask {number} was answered {sum:?}, not {expected:?}"))?;
        if number >= warm {
            samples.push(took.as_secs_f64() * 1e6);
        }
    }
    device.end()?;
    let figure = Figure::new("host ask round trip", "us", samples, &[50.0, 99.0, 99.9]);
    let method =
        "one ask at a time, from before the push until the reply is read by a host that polls; every reply checked";
    Ok(vec![figure.budget("p50 2.5 us").method(method)])
}

fn ingest(suite: &Suite) -> Measured {
    let mut figures = Vec::new();
    let (batches, total): (&[u64], u64) =
        if suite.is_emulated() { (&[1, 64], 2_000) } else { (&[1, 64, 1_024, 16_384], 4_000_000) };
    for &batch in batches {
        let mut device = Device::start(&suite.kernel)?;
        let (actors, repetitions) = (1_024.min(batch * 8), (total / batch).min(100_000));
        let mut samples = Vec::new();
        for repetition in 0..repetitions {
            let before = device.consumed();
            let began = Instant::now();
            for number in 0..batch {
                let to = echo::id((repetition * batch + number) % actors);
                device.tell(to, echo::Message::Tell { value: 1, padding: 0 })?;
            }
            while device.consumed() - before < batch {
                device.pause(began, "take the messages")?;
            }
            samples.push(batch as f64 / began.elapsed().as_secs_f64());
        }
        device.quiet()?;
        let mut told = 0;
        for key in 0..actors {
            let echo::Reply::Sum { told: one, .. } =
                device.ask(echo::id(key), echo::Message::Ask { value: 0, padding: 0 })?;
            told += one;
        }
        let expected = batch * repetitions;
        expect(told == expected, || format!("{told} messages were handled, not {expected}"))?;
        device.end()?;
        let figure = Figure::new(format!("ingest, batches of {batch}"), "messages/s", samples, &RATES);
        let method = "64-byte tells of one host thread, from the first push until the device has freed the last slot; all \
            counted by their actors";
        figures.push(figure.budget("5e7, aim 2e8").method(method));
    }
    Ok(figures)
}

fn egress(suite: &Suite) -> Measured {
    let mut figures = Vec::new();
    let (batches, total): (&[u64], u64) =
        if suite.is_emulated() { (&[1, 64], 1_000) } else { (&[1, 64, 1_024, 16_384], 2_000_000) };
    let owners = suite.kernel.owners(true);
    let key =
        |away: bool| (0..).find(|key| (owners.of(Key(*key)) == AWAY) == away).expect("half of the shards are away");
    let (here, away) = (key(false), key(true));
    for &batch in batches {
        let mut device = Device::start_with(&suite.kernel, &owners)?;
        let mut samples = Vec::new();
        for _ in 0..(total / batch).min(20_000) {
            let (mut taken, mut wrong) = (0, 0);
            let began = Instant::now();
            device.tell(spray::id(here), spray::Message::Burst { count: batch, to: away })?;
            while taken < batch {
                let (first, mut next) = (taken, taken);
                device.link.drain(1024, |header, payload| {
                    // In the order sent, as every pair's messages are.
                    let sent = echo::Message::Tell { value: next, padding: 0 };
                    let right = header.is(Kind::Tell) && header.to() == echo::id(away);
                    wrong += u64::from(!right || echo::Message::from_bytes(payload) != Some(sent));
                    next += 1;
                });
                taken = next;
                if taken == first {
                    device.pause(began, "send them off")?;
                }
            }
            samples.push(batch as f64 / began.elapsed().as_secs_f64());
            expect(taken == batch && wrong == 0, || {
                format!("of {batch} messages {taken} came, {wrong} of them wrong")
            })?;
        }
        device.end()?;
        let figure = Figure::new(format!("egress, bursts of {batch}"), "messages/s", samples, &RATES);
        let method = "one actor tells 64-byte messages to an actor that is not on the device, from the push of what sets it \
            off until the host has read the last; each one checked";
        figures.push(figure.method(method));
    }
    Ok(figures)
}

fn hot(suite: &Suite) -> Measured {
    let mut device = Device::start(&suite.kernel)?;
    let (sprays, count, repetitions) = if suite.is_emulated() { (8u64, 50u64, 3u64) } else { (256, 4_000, 20) };
    let mut samples = Vec::new();
    for _ in 0..repetitions {
        let began = Instant::now();
        for key in 1..=sprays {
            device.tell(spray::id(key), spray::Message::Burst { count, to: 0 })?;
        }
        device.quiet()?;
        samples.push((sprays * count) as f64 / began.elapsed().as_secs_f64());
    }
    let echo::Reply::Sum { told, .. } = device.ask(echo::id(0u64), echo::Message::Ask { value: 0, padding: 0 })?;
    let expected = sprays * count * repetitions;
    expect(told == expected, || format!("the actor was told {told} messages, not {expected}"))?;
    device.end()?;
    let figure = Figure::new("one hot actor", "messages/s", samples, &RATES);
    let method = "many actors send to one, from the first push until the device is at rest; counted by the actor";
    Ok(vec![figure.budget("1e7, aim 3e7").method(method)])
}

fn aggregate(suite: &Suite) -> Measured {
    let mut device = Device::start(&suite.kernel)?;
    let actors = suite.many_actors();
    let mask = (actors - 1) as u32;
    let (tokens, hops, repetitions) = if suite.is_emulated() { (200u64, 20u32, 3) } else { (200_000, 1_000, 5) };
    for key in 0..actors {
        device.tell(hop::id(key), hop::Message::Next { left: 0, mask })?;
    }
    device.quiet()?;
    let mut figures = Vec::new();
    for name in ["anyone", "the next"] {
        let mut samples = Vec::new();
        for _ in 0..repetitions {
            let before = device.sum(|r| r.finished);
            let began = Instant::now();
            for token in 0..tokens {
                let message = match name {
                    "anyone" => hop::Message::Anyone { left: hops, mask, random: token as u32 },
                    _ => hop::Message::Next { left: hops, mask },
                };
                device.tell(hop::id(token * (actors / tokens).max(1) % actors), message)?;
            }
            device.quiet()?;
            let took = began.elapsed();
            let (handled, expected) = (device.sum(|r| r.finished) - before, tokens * (u64::from(hops) + 1));
            expect(handled == expected, || format!("{handled} messages were handled, not {expected}"))?;
            samples.push(expected as f64 / took.as_secs_f64());
        }
        let figure = Figure::new(format!("actor to actor, to {name}, {actors} actors"), "messages/s", samples, &RATES);
        let method = "tokens that actors pass on, from the first push until the device is at rest; counted by the device's \
            workers";
        figures.push(figure.budget("1e9 (H200), aim 4e9").method(method));
    }
    let exist = device.sum(|r| r.actors);
    expect(exist == actors, || format!("{exist} actors exist, not {actors}"))?;
    device.end()?;
    Ok(figures)
}

fn idle(suite: &Suite) -> Measured {
    let mut device = Device::start(&suite.kernel)?;
    let actors = suite.many_actors();
    let mut held = Vec::new();
    for keys in [0..actors, actors..2 * actors] {
        for key in keys {
            device.tell(echo::id(key), echo::Message::Tell { value: 1, padding: 0 })?;
        }
        device.quiet()?;
        held.push((device.sum(|r| r.actors), device.sum(|r| r.table_bytes)));
    }
    let [(half, bytes_before), (all, bytes)] = held[..] else { unreachable!("there are two ranges") };
    expect(half == actors && all == 2 * actors, || format!("{half} and {all} actors exist, not {actors} and twice"))?;
    expect(bytes > bytes_before, || "the device says that its actors take no memory".into())?;
    device.end()?;
    let each = (bytes - bytes_before) as f64 / actors as f64 - size_of::<echo::State>() as f64;
    let figure = Figure::new("bytes of an idle actor, over its state", "B", vec![each], &[50.0]);
    let method = "how much more the tables hold after twice as many actors, less the states. Whole pages; without the index, \
        which is reserved at the launch: 8 B a place, of which three quarters are used at most";
    Ok(vec![figure.budget("256 B").method(method)])
}
