//! What a device promises, tried on this one.

use ringhold::demo::actors::{aircraft, airport, carrier};
use ringhold::rt::Actor;
use ringhold::shipped::{account, counter, rod};
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::plain::Plain;
use ringhold_tests::differential::random::Random;
use ringhold_tests::differential::values;

use super::Suite;
use super::actors::{circle, echo, listener, row, slab, talker};
use super::device::{Device, Failed, Kernel, expect};
use super::model::Model;

/// What a check has seen, in words, or why it has failed.
pub type Checked = Result<String, Failed>;

/// Compiles what the steps after it take, side by side.
pub fn compile(suite: &Suite) -> Checked {
    let done = std::thread::scope(|scope| {
        let usual = [suite.usual(), suite.short()].map(|sizes| scope.spawn(move || suite.kernel(sizes)));
        let wide = suite.size(BLOCKS_EMULATED, BLOCKS).iter();
        let wide: Vec<_> = wide.map(|threads| scope.spawn(|| suite.wide_kernel(*threads))).collect();
        let done = usual.into_iter().chain(wide).map(|kernel| kernel.join());
        done.map(|kernel| kernel.unwrap_or_else(|_| Err("its compiler panicked".into()))).collect::<Vec<_>>()
    });
    let count = done.len();
    done.into_iter().try_for_each(|kernel| kernel.map(drop))?;
    Ok(format!("{count} of them"))
}

pub fn ordering_and_spill(suite: &Suite) -> Checked {
    let kernel = suite.kernel(suite.short())?;
    let mut device = Device::start(&kernel)?;
    let (talkers, listeners, rounds) = (48u64, 9u32, suite.size(40u32, 1_000));
    for talker in 0..talkers {
        device.tell(talker::id(talker), talker::Message::Talk { rounds, listeners })?;
    }
    device.quiet()?;
    let heard = talkers * u64::from(rounds);
    for key in 0..u64::from(listeners) {
        let reply = device.ask(listener::id(key), listener::Message::Read)?;
        let expected = listener::Reply::Heard { heard, out_of_order: 0 };
        expect(reply == expected, || format!("listener {key}: {reply:?}, not {expected:?}"))?;
    }
    let spilled = device.sum(|r| r.spilled);
    expect(spilled > 0, || "nothing was spilled: the check did not try what it is for".into())?;
    device.end()?;
    Ok(format!("{} messages in order, {spilled} of them spilled", heard * u64::from(listeners)))
}

pub fn cyclic_saturation(suite: &Suite) -> Checked {
    let kernel = suite.kernel(suite.short())?;
    let mut device = Device::start(&kernel)?;
    let (tokens, left) = suite.size((10u64, 40u32), (200, 400));
    for start in 0..tokens {
        device.tell(circle::id(start), circle::Message::Token { left, double: 7, members: 97 })?;
    }
    device.quiet()?;
    // Each token doubles 7 times, and its 128 copies live on: 2^8 - 1 + 128 × (left - 7) runs.
    let expected = tokens * (255 + 128 * u64::from(left - 7));
    let (finished, sent, spilled) = (device.sum(|r| r.finished), device.sum(|r| r.sent), device.sum(|r| r.spilled));
    expect(finished == expected, || format!("{finished} messages were handled, not {expected}"))?;
    expect(sent + tokens == expected, || format!("{sent} messages were sent, not {}", expected - tokens))?;
    expect(spilled > 0, || "nothing was spilled: the inboxes were never full".into())?;
    device.end()?;
    Ok(format!("{expected} messages in circles, {spilled} of them spilled"))
}

pub fn many_actors(suite: &Suite) -> Checked {
    let kernel = suite.kernel(suite.usual())?;
    let mut device = Device::start(&kernel)?;
    let count = suite.many_actors();
    for key in 0..count {
        device.tell(echo::id(key), echo::Message::Tell { value: key, padding: 1 })?;
    }
    device.quiet()?;
    let actors = device.sum(|r| r.actors);
    expect(actors == count, || format!("{actors} actors exist, not {count}"))?;
    let mut random = Random::new(1);
    for _ in 0..200 {
        let key = random.bits() % count;
        let state = device.inspect(echo::id(key), size_of::<echo::State>())?;
        let expected = echo::State { sum: key + 1, told: 1 }.to_bytes();
        expect(state.as_ref() == Some(&expected), || format!("actor {key} holds {state:?}, not {expected:?}"))?;
    }
    device.end()?;
    Ok(format!("{count} actors, 200 of them inspected"))
}

/// Threads of a block with which wide actors are tried: fewer than they want, and as many or more.
const BLOCKS_EMULATED: &[u32] = &[32, 64];
pub const BLOCKS: &[u32] = &[128, 256, 1024];

fn wide_is_native(
    suite: &Suite,
    model: impl Fn() -> Model,
    next: impl Fn(&mut Random) -> (ActorId, Vec<u8>) + Copy,
) -> Checked {
    let mut said = Vec::new();
    for &threads in suite.size(BLOCKS_EMULATED, BLOCKS) {
        let kernel = suite.wide_kernel(threads)?;
        let compared = compare(&kernel, model(), suite.asks(), next);
        said.push(format!("blocks of {threads}: {}", compared.map_err(|why| format!("blocks of {threads}: {why}"))?));
    }
    Ok(said.join("; "))
}

pub fn row_is_native(suite: &Suite) -> Checked {
    use row::Message;
    let model = || Model::default().with::<row::Actor>();
    wide_is_native(suite, model, |random| {
        let message = match random.below(4) {
            0 => Message::Fill { seed: random.bits() as u32 },
            1 => Message::Spoil { at: random.below(100) as u32 },
            _ => Message::Mix { by: random.below(200) as u32 },
        };
        (row::id(random.below(5) as u64), message.to_bytes())
    })
}

pub fn rod_is_native(suite: &Suite) -> Checked {
    use rod::Message;
    let model = || Model::default().with::<rod::Actor>();
    wide_is_native(suite, model, |random| {
        let message = match random.below(4) {
            // Sometimes beyond the rod's end: a fault.
            0 | 1 => Message::Warm { cell: random.below(1100) as u32, millidegrees: random.bits() as i32 >> 8 },
            2 => Message::Flow { steps: random.below(9) as u32 },
            _ => Message::Read,
        };
        (rod::id(random.below(4) as u64), message.to_bytes())
    })
}

pub fn slab_is_native(suite: &Suite) -> Checked {
    let model = || Model::default().with::<slab::Actor>();
    wide_is_native(suite, model, |random| {
        // One in three faults, in the middle of a loop.
        let at = random.below(4500) as u32;
        (slab::id(random.below(3) as u64), slab::Message::Mix { by: random.bits() as u32, at }.to_bytes())
    })
}

pub fn shipped_are_native(suite: &Suite) -> Checked {
    let kernel = suite.kernel(suite.usual())?;
    let mut said = Vec::new();
    let schemas = [
        account::Actor::schema(),
        counter::Actor::schema(),
        aircraft::Actor::schema(),
        airport::Actor::schema(),
        carrier::Actor::schema(),
    ];
    for schema in schemas {
        // All of them: an aircraft tells airports and carriers.
        let model = Model::default().with::<account::Actor>().with::<counter::Actor>().with::<aircraft::Actor>();
        let model = model.with::<airport::Actor>().with::<carrier::Actor>();
        let own = schema.type_id();
        let compared = compare(&kernel, model, suite.asks(), |random| {
            (ActorId::new(own, Key(random.below(4) as u64)), values::value(&schema.message, &[own], random))
        })?;
        said.push(format!("{}: {compared}", schema.name));
    }
    Ok(said.join("; "))
}

/// Asks the device and the native handlers the same, one message after the other: the same answers, and the same states
/// of all actors in the end.
fn compare(
    kernel: &Kernel,
    mut model: Model,
    asks: u32,
    mut next: impl FnMut(&mut Random) -> (ActorId, Vec<u8>),
) -> Checked {
    let mut device = Device::start(kernel)?;
    let mut random = Random::new(7);
    for ask in 0..asks {
        let (to, message) = next(&mut random);
        let (native, ours) = (model.ask(to, &message), device.ask_bytes(to, &message)?);
        if native != ours {
            return Err(format!("ask {ask} of {to:?}, {message:02x?}: native {native:02x?}, the device {ours:02x?}"));
        }
    }
    let handled = device.sum(|r| r.finished);
    expect(handled == model.messages, || {
        format!("the device has handled {handled} messages, the native handlers {}", model.messages)
    })?;
    for (id, native) in &model.states {
        let ours = device.inspect(*id, model.state_bytes(id.type_id))?;
        expect(ours == *native, || format!("{id:?} ends as {native:02x?} natively, as {ours:02x?} on the device"))?;
    }
    device.end()?;
    Ok(format!("{asks} asks, {handled} messages, {} states", model.states.len()))
}

const LAUNCHES: u64 = 50;

pub fn relaunch(suite: &Suite) -> Checked {
    let kernel = suite.kernel(suite.usual())?;
    let mut device = Device::start(&kernel)?;
    // What the first launch takes for ever, it has taken by now. No kernel runs while the GPU is asked.
    device.stop()?;
    let free_before = suite.machine.free_bytes();
    let mapped_before = mappings()?;
    for launch in 1..=LAUNCHES {
        device.launch()?;
        for key in 0..8 {
            let reply = device.ask(counter::id(key), counter::Message::Add { amount: launch })?;
            expect(reply == counter::Reply::Count { count: launch }, || {
                format!("launch {launch}: counter {key} has {reply:?}: it is not new")
            })?;
        }
        let never = device.inspect(counter::id(1000u64), size_of::<counter::State>())?;
        expect(never.is_none(), || format!("launch {launch}: an actor that never was has {never:?}"))?;
        device.stop()?;
    }
    let mapped = mappings()?;
    expect(mapped < mapped_before + LAUNCHES as usize / 2, || {
        format!("this process has {mapped_before} mappings before {LAUNCHES} launches, and {mapped} after")
    })?;
    let (Some(before), Some(after)) = (free_before, suite.machine.free_bytes()) else {
        return Ok(format!("{LAUNCHES} launches, and no more of the process's memory is mapped"));
    };
    let lost = before.saturating_sub(after);
    expect(lost < 16 << 20, || format!("{lost} bytes of GPU memory are gone after {LAUNCHES} launches"))?;
    Ok(format!("{LAUNCHES} launches, {lost} bytes of GPU memory lost"))
}

/// Of this process's memory: arenas, stacks, pinned segments. A launch that gives back less than it takes adds one each time.
fn mappings() -> Result<usize, Failed> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| format!("/proc/self/maps: {e}"))?;
    Ok(maps.lines().count())
}
