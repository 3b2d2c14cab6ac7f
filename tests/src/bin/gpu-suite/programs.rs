//! Random programs do on the device what they do natively, one message at a time.
//!
//! They are those of `tests/differential` (`tests/build.rs` writes them), compiled into this binary for the native side, and by
//! the device's own compiler for the other. On the device an actor is here and everybody it can send to is on another: what it
//! sends leaves the device, and is compared. The stamps of the messages are far in the future, so that the device's clock
//! follows them, and `ctx.now()` is known before.
//!
//! Much of what a program does shows only from other states than the first, which is zero. So a stamp can also say at which of
//! some random states a handler is to begin; the C++ that does so is the one thing that is not the macro's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringhold::rt::Actor;
use ringhold_kernels::actor::FaultKind;
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::{Header, Kind, Reason};
use ringhold_kernels::outbox::{AWAY, Owners, shard_of};
use ringhold_kernels::plain::Plain;
use ringhold_kernels::registry::{self, ActorType, Registry};
use ringhold_kernels::ring_kernel::THREADS_MIN;
use ringhold_kernels::schema::Schema;
use ringhold_kernels::segment::{Framing, Shape};
use ringhold_kernels::trial::{Outcome, Sent};
use ringhold_tests::differential::Subject;
use ringhold_tests::differential::random::Random;
use ringhold_tests::differential::values;

use super::Suite;
use super::correctness::Checked;
use super::device::{Device, Failed, Kernel, Sizes, expect, failed};

/// A program, and what makes it known to a device.
pub struct Specimen {
    subject: Subject,
    register: fn(&mut Registry) -> Result<(), registry::Error>,
    /// The bytes of the same state with zeros where no value is: behind a variant that is smaller than another.
    tidy: fn(&[u8]) -> Vec<u8>,
}

impl Specimen {
    pub fn of<A: Actor>() -> Specimen {
        Specimen {
            subject: Subject::of::<A>(),
            register: |registry| registry.register::<A>().map(drop),
            tidy: |bytes| A::State::from_bytes(bytes).expect("the bytes of a state").to_bytes(),
        }
    }
}

/// As the build script wrote them.
#[allow(warnings, clippy::all)]
mod list {
    use super::Specimen;
    include!(concat!(env!("OUT_DIR"), "/suite_programs.rs"));
}

/// Programs in one ring kernel: so many that the kernel itself is little of it, and so few that all cores have some to compile.
const GROUP: usize = 25;
/// Actors of each program.
const ACTORS: u64 = 4;
/// How long the device has for one message.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn are_native(suite: &Suite) -> Checked {
    let (began, specimens) = (Instant::now(), list::subjects());
    let seeds: Vec<u64> = list::SOURCES.iter().map(|(seed, _)| *seed).collect();
    let groups: Vec<(&[Specimen], &[u64])> = specimens.chunks(GROUP).zip(seeds.chunks(GROUP)).collect();
    let next = AtomicUsize::new(0);
    let (mut tally, mut differ) = (Tally::default(), Vec::new());
    let mut compiled_after = Duration::ZERO;
    std::thread::scope(|scope| {
        // Compiled side by side, and run as they come.
        let (made, compiled) = mpsc::channel();
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()).min(groups.len()) {
            let (made, next, groups) = (made.clone(), &next, &groups);
            scope.spawn(move || {
                while let Some(group) = groups.get(next.fetch_add(1, Relaxed)) {
                    // Nobody takes any more where one has failed.
                    let _ = made.send((group, compile(suite, group.0)));
                }
            });
        }
        drop(made);
        for ((specimens, seeds), kernel) in compiled {
            compiled_after = began.elapsed();
            let ran = kernel.and_then(|kernel| run_group(suite, &kernel, specimens, seeds, &mut tally, &mut differ));
            if let Err(why) = ran {
                next.store(groups.len(), Relaxed);
                return Err(format!("the programs of seeds {} and on: {why}", seeds[0]));
            }
        }
        Ok(())
    })?;
    expect(differ.is_empty(), || {
        format!("{} of {} programs differ; the first: {}", differ.len(), seeds.len(), differ[0])
    })?;
    expect(tally.sends > tally.messages / 20 && tally.faults > 0, || format!("the programs do too little: {tally:?}"))?;
    let Tally { messages, sends, replies, faults, stops } = tally;
    Ok(format!(
        "{} programs in {} kernels, the last compiled after {:.1} s; {messages} messages, {sends} sends, {replies} replies, \
         {faults} faults, {stops} stops: all equal, and every state",
        seeds.len(),
        groups.len(),
        compiled_after.as_secs_f64(),
    ))
}

/// How much of what was compared was worth it.
#[derive(Debug, Default)]
struct Tally {
    messages: u64,
    sends: u64,
    replies: u64,
    faults: u64,
    stops: u64,
}

fn compile(suite: &Suite, specimens: &[Specimen]) -> Result<Kernel, Failed> {
    let (registry, sizes) = recipe(specimens, suite.usual())?;
    Kernel::compile(&suite.machine, registry, sizes, &suite.folder)
}

/// What makes a kernel of one worker with these programs in it.
fn recipe(specimens: &[Specimen], usual: Sizes) -> Result<(Registry, Sizes), Failed> {
    let mut registry = Registry::new();
    registry.register::<list::sink::Actor>().map_err(failed)?;
    for specimen in specimens {
        (specimen.register)(&mut registry).map_err(failed)?;
        begin_anywhere(&mut registry, &(specimen.subject.schema)());
    }
    let bytes = |t: &ActorType| t.message_bytes.max(t.reply_bytes);
    let largest = registry.types().iter().map(bytes).max().unwrap_or(0);
    let room = |slot_bytes: &u32| {
        let shape = Shape { slot_bytes: *slot_bytes, framing: Framing::Flits as u32, ..Shape::default() };
        shape.payload_bytes_max() >= largest
    };
    let slot_bytes = [128, 256, 512, 1024, 2048].into_iter().find(room).ok_or("a program's messages are too large")?;
    // As many as a device without wider actors has.
    let threads = usual.threads.min(THREADS_MIN);
    Ok((registry, Sizes { workers: 1, lanes: 1, threads, slots: 1024, slot_bytes, memory: 256 << 20 }))
}

/// Random states that a program's handler can be told to begin at; a power of two.
const STATES: usize = 8;
/// The low bits of a stamp that tells it to. The bits above are the number of the state.
const BEGIN: u64 = 0xfff;

/// The states of a type, as bytes: the same in the device's code and here.
fn states(schema: &Schema) -> Vec<Vec<u8>> {
    let own_type = schema.type_id();
    let mut random = Random::new(u64::from(own_type.0));
    (0..STATES).map(|_| values::value(&schema.state, &types(own_type), &mut random)).collect()
}

/// Types of the ids in states and messages.
fn types(own: TypeId) -> [TypeId; 4] {
    [own, own, TypeId::of("sink"), TypeId(0x1234_5678)]
}

/// Has what devices compile of a type begin at one of its states where the stamp of a message says so.
fn begin_anywhere(registry: &mut Registry, schema: &Schema) {
    const CHECK: &str = "rh::check_context<Message, Reply>(context, context);";
    let actor = registry.get_mut(schema.type_id()).expect("it was registered just now");
    assert_eq!(actor.cuda_functions.matches(CHECK).count(), 1, "where a handler begins in {}", actor.cuda_functions);
    let rows: Vec<String> = states(schema).iter().map(|state| format!("{{{}}}", comma_separated(state))).collect();
    let begin = format!(
        "namespace rh_{} {{
RH_FN void suite_begin(T_State& state, rh::u64 stamp) {{
    alignas(8) static constexpr rh::u8 states[{STATES}][{}] = {{{}}};
    if ((stamp & {BEGIN}u) == {BEGIN}u) load(state, states[stamp >> 12 & {}u]);
}}
}}
",
        actor.module,
        schema.state.size().next_multiple_of(8),
        rows.join(",\n        "),
        STATES - 1,
    );
    let handler = actor.cuda_functions.replace(CHECK, &format!("{CHECK} suite_begin(state, context.header.hlc);"));
    actor.cuda_functions = (begin + &handler).leak();
}

fn comma_separated(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| byte.to_string()).collect::<Vec<_>>().join(",")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run_group(
    suite: &Suite,
    kernel: &Kernel,
    specimens: &[Specimen],
    seeds: &[u64],
    tally: &mut Tally,
    differ: &mut Vec<String>,
) -> Result<(), Failed> {
    let mut random = Random::new(seeds[0]);
    let keys: Vec<Key> = (0..ACTORS).map(|_| Key(random.bits())).collect();
    let owners = Owners::from_fn(|shard| if keys.iter().any(|key| shard_of(*key) == shard) { 0 } else { AWAY });
    let mut group = Group {
        device: Device::start_with(kernel, &owners)?,
        owners,
        waiting: HashMap::new(),
        stamp: 1 << 63,
        messages: suite.size(8, 25),
    };
    for (specimen, seed) in specimens.iter().zip(seeds) {
        for key in &keys {
            if let Err(why) = group.compare(specimen, *seed, *key, tally) {
                differ.push(format!(
                    "the program of seed {seed}: {why}; natively against C++ again with: RINGHOLD_PROGRAMS=1 \
                     RINGHOLD_PROGRAM_SEED={seed} cargo test -p ringhold-tests --test differential random_programs"
                ));
                break;
            }
        }
    }
    group.end(differ)
}

struct Group<'a> {
    device: Device<'a>,
    owners: Owners,
    /// Of each type, what was sent to be delivered later: it comes when it is due, or when the device ends.
    waiting: HashMap<TypeId, Vec<(ActorId, Vec<u8>)>>,
    /// The last one given to a message.
    stamp: u64,
    /// For each actor.
    messages: u32,
}

impl Group<'_> {
    /// Sends one actor of a program messages, from the first on.
    fn compare(&mut self, specimen: &Specimen, seed: u64, key: Key, tally: &mut Tally) -> Result<(), String> {
        let subject = &specimen.subject;
        let schema = (subject.schema)();
        let own_type = schema.type_id();
        let id = ActorId::new(own_type, key);
        let (types, states) = (types(own_type), states(&schema));
        let mut random = Random::new(seed ^ key.0);
        // There is no actor yet, and none after it has stopped.
        let mut state: Option<Vec<u8>> = None;
        for step in 0..self.messages {
            let message = values::value(&schema.message, &types, &mut random);
            let sender = ActorId::new(*random.pick(&types), Key(random.bits() >> random.below(64)));
            // By more than the device's clock ticks by itself meanwhile.
            self.stamp = (self.stamp + (1 << 20) + (random.bits() >> 30)) & !BEGIN;
            let mut native_state = state.clone().unwrap_or_else(|| vec![0; schema.state.size()]);
            if random.chance(50) {
                native_state.clone_from(&states[(self.stamp >> 12) as usize % STATES]);
                self.stamp |= BEGIN;
            }
            let now = Hlc(self.stamp + 1);
            let native = (subject.run)(&mut native_state, &message, id, sender, now);
            // It would be delivered here, and run: the next message is tried.
            let comes_back = |sent: &Sent| sent.message_type.is_some() && self.owners.of(sent.to.key) != AWAY;
            if native.sends.iter().any(comes_back) {
                continue;
            }
            tally.messages += 1;
            tally.sends += native.sends.len() as u64;
            tally.replies += u64::from(native.reply.is_some());
            tally.faults += u64::from(native.fault.is_some());
            tally.stops += u64::from(native.stopped);
            state = match native.fault {
                _ if native.stopped => None,
                // It is as if the handler had not begun, there or anywhere.
                Some(_) => Some(state.unwrap_or_else(|| vec![0; schema.state.size()])),
                None => Some((specimen.tidy)(&native_state)),
            };

            let header = Header::new(Kind::Ask, id, sender, message.len(), Hlc(self.stamp));
            self.device.push_message(&header, &message)?;
            let about = || format!("message {step} to {key:?}, {}", hex(&message));
            self.take_all(id, sender, &native).map_err(|why| format!("{}: {why}", about()))?;
            let ours = self.device.inspect(id, schema.state.size())?;
            expect(ours == state, || {
                let [state, ours] = [&state, &ours].map(|of| of.as_ref().map_or("no actor".into(), |bytes| hex(bytes)));
                format!("{} leaves, natively, {state}, and on the device {ours}", about())
            })?;
        }
        Ok(())
    }

    /// Waits for the answer and for what was sent at once. What an earlier message sent for later may come in between.
    fn take_all(&mut self, id: ActorId, sender: ActorId, native: &Outcome) -> Result<(), String> {
        let (at_once, later): (Vec<&Sent>, Vec<&Sent>) =
            native.sends.iter().partition(|sent| sent.delay_us == 0 || sent.message_type.is_none());
        let later = later.into_iter().map(|sent| (sent.to, sent.payload.clone()));
        self.waiting.entry(id.type_id).or_default().extend(later);
        let (mut at_once, mut answered) = (at_once.into_iter(), false);
        let (mut expected, began) = (at_once.next(), Instant::now());
        while !answered || expected.is_some() {
            self.device.collect();
            if self.device.answers.is_empty() {
                expect(began.elapsed() < PATIENCE, || {
                    let answered = if answered { "is there" } else { "is not" };
                    format!(
                        "natively {native:02x?}; on the device, the answer {answered}, and still to come is {expected:02x?}"
                    )
                })?;
                self.device.pause(began, "answer")?;
            }
            for (header, payload) in std::mem::take(&mut self.device.answers) {
                let is_answer = header.is(Kind::Reply) || header.is(Kind::Error);
                if is_answer && !answered && header.from() == id && header.to() == sender {
                    expect(is_outcome(native, &header, &payload), || {
                        let reason = header.reason();
                        format!("natively {native:02x?}; on the device the answer is {reason:?}, {payload:02x?}")
                    })?;
                    answered = true;
                } else if expected.is_some_and(|sent| is_sent(sent, id, &header, &payload)) {
                    expected = at_once.next();
                } else if !self.was_due(&header, &payload) {
                    return Err(format!(
                        "natively {native:02x?}; from the device comes {header:?}, {payload:02x?}, where {expected:02x?} was \
                         to come"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes a message out of those that were sent for later.
    fn was_due(&mut self, header: &Header, payload: &[u8]) -> bool {
        let Some(waiting) = self.waiting.get_mut(&header.from().type_id) else { return false };
        let found = waiting.iter().position(|(to, bytes)| *to == header.to() && bytes == payload);
        found.map(|at| waiting.swap_remove(at)).is_some()
    }

    /// Ends the device. What waited for its time comes now, and nothing else.
    fn end(mut self, differ: &mut Vec<String>) -> Result<(), Failed> {
        self.device.stop()?;
        for (header, payload) in std::mem::take(&mut self.device.answers) {
            let given_up = header.is(Kind::DeadLetter) && header.reason() == Some(Reason::Stopping);
            if !(given_up || header.is(Kind::Tell)) || !self.was_due(&header, &payload) {
                differ
                    .push(format!("at the end of the device comes {header:?}, {payload:02x?}, which nobody has sent"));
            }
        }
        let lost: Vec<_> = self.waiting.iter().filter(|(_, waiting)| !waiting.is_empty()).collect();
        if !lost.is_empty() {
            differ.push(format!("sent for later, and neither delivered nor given up: {lost:02x?}"));
        }
        Ok(())
    }
}

/// Whether it is the answer to a message that natively came to this.
fn is_outcome(native: &Outcome, header: &Header, payload: &[u8]) -> bool {
    match (&native.fault, &native.reply) {
        (Some(fault), _) => {
            let reason = match fault.kind {
                FaultKind::DivisionByZero => Reason::FaultDivisionByZero,
                FaultKind::IndexOutOfBounds => Reason::FaultIndexOutOfBounds,
                FaultKind::ClampBounds => Reason::FaultClampBounds,
            };
            let text = format!("line {} of the actor's source", fault.line);
            header.reason() == Some(reason) && payload == text.as_bytes()
        }
        (None, Some(reply)) => header.is(Kind::Reply) && payload == reply,
        (None, None) => header.reason() == Some(Reason::NoReply),
    }
}

/// Whether it is what an actor sent.
fn is_sent(sent: &Sent, from: ActorId, header: &Header, payload: &[u8]) -> bool {
    let kind = match sent.message_type {
        Some(_) => header.is(Kind::Tell),
        None => header.is(Kind::DeadLetter) && header.reason() == Some(Reason::WrongType),
    };
    kind && header.from() == from && header.to() == sent.to && payload == sent.payload
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What makes a kernel with the first programs in it.
    pub fn first(count: usize, usual: Sizes) -> (Registry, Sizes) {
        recipe(&list::subjects()[..count.min(list::SOURCES.len())], usual).expect("the programs fit")
    }
}
