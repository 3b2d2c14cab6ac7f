//! What a device promises, tried on this one.

use ringhold::demo::actors::{aircraft, airport, carrier};
use ringhold::rt::Actor;
use ringhold::shipped::{account, counter, rod};
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::message::{Kind, Reason};
use ringhold_kernels::plain::Plain;
use ringhold_tests::differential::random::Random;
use ringhold_tests::differential::values;

use super::Suite;
use super::actors::{circle, echo, listener, row, talker};
use super::device::{Device, Failed, expect, wrong};
use super::model::Model;

/// What a check has seen, in words, or why it has failed.
pub type Checked = Result<String, Failed>;
pub type Check = fn(&Suite) -> Checked;

/// Every check, with its name.
pub const CHECKS: [(&str, Check); 7] = [
    ("ordering and spill", ordering_and_spill),
    ("cyclic saturation", cyclic_saturation),
    ("many actors", many_actors),
    ("wide actor of 32 threads", row_is_native),
    ("wide actor of 256 threads", rod_is_native),
    ("shipped actors equal to native", shipped_are_native),
    ("launch, stop, relaunch", relaunch),
];

fn ordering_and_spill(suite: &Suite) -> Checked {
    let mut device = Device::start(&suite.short)?;
    let (talkers, listeners, rounds) = (48u64, 9u32, if suite.is_emulated() { 40u32 } else { 1_000 });
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

fn cyclic_saturation(suite: &Suite) -> Checked {
    let mut device = Device::start(&suite.short)?;
    let (tokens, left) = if suite.is_emulated() { (10u64, 40u32) } else { (200, 400) };
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

fn many_actors(suite: &Suite) -> Checked {
    let mut device = Device::start(&suite.kernel)?;
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

fn row_is_native(suite: &Suite) -> Checked {
    use row::Message;
    let model = Model::default().with::<row::Actor>();
    compare(suite, model, suite.asks(), |random| {
        let message = match random.below(4) {
            0 => Message::Fill { seed: random.bits() as u32 },
            1 => Message::Spoil { at: random.below(100) as u32 },
            _ => Message::Mix { by: random.below(200) as u32 },
        };
        (row::id(random.below(5) as u64), message.to_bytes())
    })
}

fn rod_is_native(suite: &Suite) -> Checked {
    use rod::Message;
    let model = Model::default().with::<rod::Actor>();
    compare(suite, model, suite.asks(), |random| {
        let message = match random.below(4) {
            // Sometimes beyond the rod's end: a fault.
            0 | 1 => Message::Warm { cell: random.below(1100) as u32, millidegrees: random.bits() as i32 >> 8 },
            2 => Message::Flow { steps: random.below(9) as u32 },
            _ => Message::Read,
        };
        (rod::id(random.below(4) as u64), message.to_bytes())
    })
}

fn shipped_are_native(suite: &Suite) -> Checked {
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
        let compared = compare(suite, model, suite.asks(), |random| {
            (ActorId::new(own, Key(random.below(4) as u64)), values::value(&schema.message, &[own], random))
        })?;
        said.push(format!("{}: {compared}", schema.name));
    }
    Ok(said.join("; "))
}

/// Asks the device and the native handlers the same, one message after the other: the same answers, and the same states
/// of all actors in the end.
fn compare(
    suite: &Suite,
    mut model: Model,
    asks: u32,
    mut next: impl FnMut(&mut Random) -> (ActorId, Vec<u8>),
) -> Checked {
    let mut device = Device::start(&suite.kernel)?;
    let mut random = Random::new(7);
    for ask in 0..asks {
        let (to, message) = next(&mut random);
        let (native, ours) = (model.ask(to, &message), device.ask_bytes(to, &message)?);
        if native != ours {
            return wrong(format!("ask {ask} of {to:?}, {message:02x?}: native {native:02x?}, the device {ours:02x?}"));
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

fn relaunch(suite: &Suite) -> Checked {
    let rounds = if suite.is_emulated() { 3 } else { 50 };
    let mut device = Device::start(&suite.kernel)?;
    // What the first launch takes for ever, it has taken by now. No kernel runs while the GPU is asked.
    device.stop()?;
    let free_before = suite.machine.free_bytes();
    for round in 1..=rounds {
        device.launch()?;
        for key in 0..64 {
            let reply = device.ask(counter::id(key), counter::Message::Add { amount: round })?;
            expect(reply == counter::Reply::Count { count: round }, || {
                format!("launch {round}: counter {key} has {reply:?}: it is not new")
            })?;
        }
        device.push(Kind::Inspect, counter::id(1000u64), 5, &0u32.to_le_bytes())?;
        device.quiet()?;
        let last = device.answers.last().and_then(|(header, _)| header.reason());
        expect(last == Some(Reason::NoActor), || format!("launch {round}: an actor that never was: {last:?}"))?;
        device.stop()?;
    }
    let free_after = suite.machine.free_bytes();
    match (free_before, free_after) {
        (Some(before), Some(after)) => {
            let lost = before.saturating_sub(after);
            expect(lost < 16 << 20, || format!("{lost} bytes of GPU memory are gone after {rounds} launches"))?;
            Ok(format!("{rounds} launches, {lost} bytes of GPU memory lost"))
        }
        _ => Ok(format!("{rounds} launches; memory is not looked at")),
    }
}
