//! How fast the device is. What was timed is counted afterwards: if less was handled, it is no measurement.

use std::time::{Duration, Instant};

use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::{Header, Kind};
use ringhold_kernels::outbox::AWAY;
use ringhold_kernels::plain::Plain;

use super::Suite;
use super::actors::{self, echo, hop, spray};
use super::ceilings::{COPY, L2, PCIE};
use super::device::{Device, Failed, Kernel, expect};
use super::report::Figure;

pub type Measured = Result<Vec<Figure>, Failed>;

/// Of rates the lower ones are the worse: p1 is what 99 % reach.
const RATES: [f64; 2] = [50.0, 1.0];

pub fn compile_and_start(suite: &Suite) -> Measured {
    // A folder in which nothing is kept yet.
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let compile = |sizes| Kernel::compile(&suite.machine, actors::for_kernels(), sizes, folder.path());
    let (kernel, short) = (compile(suite.usual())?, compile(suite.short())?);
    let mut starts = Vec::new();
    for _ in 0..20 {
        let device = Device::start(&kernel)?;
        starts.push(device.start_time.as_secs_f64() * 1e3);
        device.end()?;
    }
    let compiled = [kernel, short].map(|kernel| kernel.compile_time.as_secs_f64()).to_vec();
    Ok(vec![
        Figure::new("compile", "s", compiled, &[50.0, 99.0]).method("two kernels, each with all actors of the suite"),
        Figure::new("start", "ms", starts, &[50.0, 99.0]).method("from the launch until every block is up, 20 times"),
    ])
}

pub fn ask(suite: &Suite) -> Measured {
    let kernel = suite.kernel(suite.usual())?;
    let mut device = Device::start(&kernel)?;
    let (warm, asks) = suite.size((20u64, 300u64), (1_000, 100_000));
    let message = echo::Message::Ask { value: 1, padding: 0 }.to_bytes();
    let mut samples = Vec::new();
    for number in 0..warm + asks {
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
    Ok(vec![figure.budget("p50 2.5 us").ceiling(PCIE).method(method)])
}

/// At most so many, and none after a few seconds.
fn repetitions(most: u64) -> impl Iterator<Item = u64> {
    let until = Instant::now() + Duration::from_secs(4);
    (0..most.min(20_000)).take_while(move |repetition| *repetition < 3 || Instant::now() < until)
}

pub fn ingest(suite: &Suite) -> Measured {
    let kernel = suite.kernel(suite.usual())?;
    let mut figures = Vec::new();
    let (batches, total): (&[u64], u64) =
        suite.size((&[1, 64], 2_000), (&[1, 16, 64, 256, 1_024, 4_096, 16_384], 8_000_000));
    let tell = echo::Message::Tell { value: 1, padding: 0 }.to_bytes();
    let client = ActorId::new(TypeId::CLIENT, Key(0));
    for &batch in batches {
        let mut device = Device::start(&kernel)?;
        let actors = 1_024.min(batch * 8);
        let mut samples = Vec::new();
        for repetition in repetitions(total / batch) {
            let before = device.consumed();
            let began = Instant::now();
            for number in 0..batch {
                let to = echo::id((repetition * batch + number) % actors);
                device.push_message(&Header::new(Kind::Tell, to, client, tell.len(), Hlc(0)), &tell)?;
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
                device.ask_meanwhile(echo::id(key), echo::Message::Ask { value: 0, padding: 0 })?;
            told += one;
        }
        let expected = batch * samples.len() as u64;
        expect(told == expected, || format!("{told} messages were handled, not {expected}"))?;
        device.end()?;
        let figure = Figure::new(format!("ingest, batches of {batch}"), "messages/s", samples, &RATES);
        let method = "64-byte tells of one host thread, from the first push until the device has freed the last slot; all \
            counted by their actors";
        figures.push(figure.budget("5e7, aim 2e8").ceiling(PCIE).method(method));
    }
    Ok(figures)
}

pub fn egress(suite: &Suite) -> Measured {
    let kernel = suite.kernel(suite.usual())?;
    let mut figures = Vec::new();
    let (batches, total): (&[u64], u64) =
        suite.size((&[1, 64], 1_000), (&[1, 16, 64, 256, 1_024, 4_096, 16_384], 4_000_000));
    let owners = kernel.owners(true);
    let key =
        |away: bool| (0..).find(|key| (owners.of(Key(*key)) == AWAY) == away).expect("half of the shards are away");
    let (here, away) = (key(false), key(true));
    for &batch in batches {
        let mut device = Device::start_with(&kernel, &owners)?;
        let mut samples = Vec::new();
        for _ in repetitions(total / batch) {
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
        figures.push(figure.ceiling(PCIE).method(method));
    }
    Ok(figures)
}

pub fn hot(suite: &Suite) -> Measured {
    let kernel = suite.kernel(suite.usual())?;
    let mut device = Device::start(&kernel)?;
    let (sprays, count, repetitions) = suite.size((8u64, 50u64, 3u64), (256, 4_000, 20));
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
    Ok(vec![figure.budget("1e7, aim 3e7").ceiling(L2).method(method)])
}

pub fn to_anyone(suite: &Suite) -> Measured {
    aggregate(suite, "to anyone", |left, mask, random| hop::Message::Anyone { left, mask, random })
}

pub fn to_the_next(suite: &Suite) -> Measured {
    aggregate(suite, "to the next", |left, mask, _| hop::Message::Next { left, mask })
}

fn aggregate(suite: &Suite, name: &str, token: impl Fn(u32, u32, u32) -> hop::Message) -> Measured {
    let kernel = suite.kernel(suite.usual())?;
    let mut device = Device::start(&kernel)?;
    let actors = suite.many_actors();
    let mask = (actors - 1) as u32;
    for key in 0..actors {
        device.tell(hop::id(key), hop::Message::Next { left: 0, mask })?;
    }
    device.quiet()?;

    let (tokens, run_s, repetitions) = suite.size((200u64, 0.2, 2), (200_000, 1.0, 3));
    let mut run = |hops: u32| {
        let before = device.sum(|r| r.finished);
        let began = Instant::now();
        for number in 0..tokens {
            device.tell(hop::id(number * (actors / tokens).max(1) % actors), token(hops, mask, number as u32))?;
        }
        let expected = tokens * (u64::from(hops) + 1);
        let windows = watch(&mut device, before + expected * 9 / 10)?;
        let (took, handled) = (began.elapsed(), device.sum(|r| r.finished) - before);
        expect(handled == expected, || format!("{handled} messages were handled, not {expected}"))?;
        Ok::<_, Failed>((expected as f64 / took.as_secs_f64(), windows))
    };
    // How long a run is depends on how fast the device is.
    let (pilot, _) = run(20)?;
    let hops = (pilot * run_s / tokens as f64).clamp(20.0, 1e6) as u32;
    let (mut whole, mut windows) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        let (rate, rates) = run(hops)?;
        whole.push(rate);
        windows.extend(rates);
    }
    let exist = device.sum(|r| r.actors);
    expect(exist == actors, || format!("{exist} actors exist, not {actors}"))?;
    expect(!windows.is_empty(), || format!("a run of {hops} hops is over before it could be looked at: {whole:?}"))?;
    device.end()?;

    let figure = |what: &str, samples| {
        let figure =
            Figure::new(format!("actor to actor, {name}{what}, {actors} actors"), "messages/s", samples, &RATES);
        figure.budget("1e9 (H200), aim 4e9").ceiling(COPY)
    };
    Ok(vec![
        figure("", windows).method(
            "tokens that actors pass on: what the device's workers have handled, looked at every few milliseconds from when \
             all tokens are under way until nine tenths of all messages are handled; each run counted to the last message",
        ),
        figure(", whole runs", whole)
            .method("the same runs, from the first push until the device is at rest: with what starting and ending take"),
    ])
}

/// Waits for rest. The rates at which messages are handled meanwhile, until the device has handled `until`.
fn watch(device: &mut Device, until: u64) -> Result<Vec<f64>, Failed> {
    /// Its ends are off by what the control block takes to carry the counters: some tens of microseconds.
    const WINDOW: Duration = Duration::from_millis(5);
    let began = Instant::now();
    let (mut rates, mut since, mut last) = (Vec::new(), began, device.sum(|r| r.finished));
    loop {
        device.collect();
        if device.link.is_quiet() {
            return Ok(rates);
        }
        device.pause(began, "come to rest")?;
        // The counters lie where the device writes them, and looking slows that.
        std::thread::sleep(Duration::from_micros(100));
        let took = since.elapsed();
        if took >= WINDOW && last < until {
            let now = device.sum(|r| r.finished);
            if now < until {
                rates.push((now - last) as f64 / took.as_secs_f64());
            }
            (since, last) = (Instant::now(), now);
        }
    }
}

pub fn idle(suite: &Suite) -> Measured {
    let kernel = suite.kernel(suite.usual())?;
    let mut device = Device::start(&kernel)?;
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
