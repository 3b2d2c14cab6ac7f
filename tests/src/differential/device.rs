//! The C++ of actors inside the ring kernel of an emulated device: what a GPU would run, with its rings, its batches and its
//! threads, against the native handlers.
//!
//! All shards are another device's. So whatever an actor sends leaves the device, where it can be seen, and nothing comes to
//! an actor but what the test sends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringhold_kernels::bell::Bell;
use ringhold_kernels::emulated::{Host, Program};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::json::TypeNames;
use ringhold_kernels::link::Link;
use ringhold_kernels::message::{Header, Inspected, Kind, Reason};
use ringhold_kernels::outbox::{AWAY, Owners};
use ringhold_kernels::registry::Registry;
use ringhold_kernels::ring::Producer;
use ringhold_kernels::ring_kernel::{self, Plan as Sizes};
use ringhold_kernels::schema::Schema;
use ringhold_kernels::segment::{Framing, Segment, SegmentRing, Shape};
use ringhold_kernels::trial::{Outcome, Sent};

use super::compare::{Mismatch, Plan, Tally, differences, hex, json};
use super::random::Random;
use super::{Subject, values};

/// Threads of a block, as of the emulated devices that ship.
const THREADS: u32 = 32;
/// Room for the largest message of any program.
const SLOT_BYTES: u32 = 1024;
const RING_SLOTS: u32 = 1024;
const MEMORY_BYTES: u64 = 512 << 20;
/// How long the device has for what is expected of it: many times what it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Messages' stamps lie so far apart, and in a time to come (the year 2077), so that each is run with its own plus one where it
/// is alone.
const STAMP_FIRST: u64 = 3 << 62;
const STAMP_STEP: u64 = 1 << 20;

/// Several actor types as one compiled ring kernel.
pub struct Kernel {
    program: Arc<Program>,
    shape: Shape,
    layout_hash: u64,
    _folder: tempfile::TempDir,
}

impl Kernel {
    /// Compiles the ring kernel with these actors. `foreign` are those that they send to.
    ///
    /// # Errors
    /// The compiler's own words where it refuses the code; what to install where there is none.
    pub fn compile(subjects: &[&Subject], foreign: &[&Subject]) -> Result<Kernel, String> {
        let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let mut registry = Registry::new();
        for subject in foreign.iter().chain(subjects) {
            (subject.register)(&mut registry).map_err(|e| e.to_string())?;
        }
        let shape = Shape {
            workers: 1,
            lanes: 1,
            framing: Framing::Flits as u32,
            types: registry.types().len() as u32,
            slot_bytes: SLOT_BYTES,
            ingress_slots: RING_SLOTS,
            egress_slots: RING_SLOTS,
            inbox_slots: RING_SLOTS,
            ..Shape::default()
        };
        let sizes = Sizes::divide(MEMORY_BYTES, THREADS, &registry, &shape);
        let source = ring_kernel::source(&registry, &shape, &sizes).map_err(|e| e.to_string())?;
        let program = Program::compile(&source, &[], folder.path()).map_err(|e| e.to_string())?;
        Ok(Kernel { program: Arc::new(program), shape, layout_hash: registry.layout_hash(), _folder: folder })
    }

    /// Starts a device, sends it random sequences of messages, each to an actor of its own, and ends it. Everything that
    /// comes out is what the native handler does.
    ///
    /// An actor begins at the zero state. What it does with replies after its first is not seen here.
    pub fn compare(&self, subject: &Subject, plan: Plan) -> Result<Tally, Box<Mismatch>> {
        let schema = (subject.schema)();
        // The stamp that a handler sees is known beforehand only of a message that is alone.
        let stamped = subject.source.functions.contains("->now()");
        let mut sequences: Vec<Sequence> = Vec::new();
        let mut keys = HashSet::new();
        let mut tally = Tally::default();
        for number in 0..plan.sequences {
            let sequence = Sequence::new(subject, &schema, plan, number, &mut keys, &mut tally);
            sequences.push(sequence);
        }
        let mut device = Device::start(self);
        let by_key: HashMap<Key, usize> = sequences.iter().enumerate().map(|(at, s)| (s.id.key, at)).collect();
        for at in 0..sequences.len() {
            for (header, payload) in std::mem::take(&mut sequences[at].messages) {
                while !device.ingress.push(&header, &payload) {
                    device.collect(&by_key, &mut sequences);
                }
            }
            if stamped || at + 1 == sequences.len() {
                let waited = Instant::now();
                let first = if stamped { at } else { 0 };
                while sequences[first..=at].iter().any(Sequence::waits) && waited.elapsed() < LIMIT {
                    device.collect(&by_key, &mut sequences);
                }
            }
        }
        device.end(&by_key, &mut sequences);
        for sequence in &mut sequences {
            sequence.check(&schema, plan)?;
        }
        Ok(tally)
    }
}

/// One actor's messages, and what is expected of them.
struct Sequence {
    number: u32,
    id: ActorId,
    messages: Vec<(Header, Vec<u8>)>,
    /// For each message of the subject: the state before it, its bytes, and what comes of it; `None` where it is no message.
    steps: Vec<(Vec<u8>, Vec<u8>, Option<Outcome>)>,
    /// Afterwards; `None` where the last message has stopped the actor.
    state: Option<Vec<u8>>,
    /// Answers expected, those to the inspects included, and messages that leave at once.
    answers_due: usize,
    sends_due: usize,
    /// What came, in order.
    answers: Vec<Answer>,
    sends: Vec<(Came, Sent)>,
}

/// What an ask or an inspect got.
struct Answer {
    kind: Option<Kind>,
    reason: Option<Reason>,
    payload: Vec<u8>,
}

/// How a message left the device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// So long after its sequence's device was started.
    After(Duration),
    /// At the end, when the device gave up its timers.
    GivenUp,
}

/// Bytes of state in one answer to an inspect.
fn inspected_bytes() -> usize {
    Shape { slot_bytes: SLOT_BYTES, ..Shape::default() }.payload_bytes_max() - size_of::<Inspected>()
}

impl Sequence {
    /// Makes up messages, and has the native handler run them.
    fn new(
        subject: &Subject,
        schema: &Schema,
        plan: Plan,
        number: u32,
        keys: &mut HashSet<u64>,
        tally: &mut Tally,
    ) -> Sequence {
        let own_type = schema.type_id();
        let types = [own_type, own_type, TypeId::of("sink"), TypeId(0x1234_5678)];
        let mut random = Random::new(plan.seed ^ (u64::from(number) << 32) ^ 0xde71ce);
        let key = loop {
            let key = random.bits() >> random.below(48);
            if keys.insert(key) {
                break key;
            }
        };
        let id = ActorId::new(own_type, Key(key));
        let mut stamp = STAMP_FIRST + u64::from(number) * STAMP_STEP * (plan.messages_max as u64 + 1);
        let (zero, mut steps, mut messages) = (vec![0; schema.state.size()], Vec::new(), Vec::new());
        let mut state = None;
        for _ in 0..1 + random.below(plan.messages_max) {
            let mut message = values::value(&schema.message, &types, &mut random);
            if random.chance(5) && !message.is_empty() {
                // It may be no message any more.
                let at = random.below(message.len());
                message[at] = random.bits() as u8;
            }
            let sender = ActorId::new(*random.pick(&types), Key(random.bits() >> random.below(64)));
            stamp += STAMP_STEP;
            let before: Vec<u8> = state.take().unwrap_or_else(|| zero.clone());
            let mut after = before.clone();
            let did =
                (subject.accepts)(&message).then(|| (subject.run)(&mut after, &message, id, sender, Hlc(stamp + 1)));
            state = (!did.as_ref().is_some_and(|did| did.stopped)).then(|| (subject.tidy)(&after));
            messages.push((Header::new(Kind::Ask, id, sender, message.len(), Hlc(stamp)), message.clone()));
            if let Some(did) = &did {
                tally.add(Tally {
                    messages: 1,
                    faults: did.fault.is_some().into(),
                    replies: did.reply.is_some().into(),
                    sends: did.sends.len() as u64,
                    stops: did.stopped.into(),
                });
            }
            steps.push((before, message, did));
        }
        for offset in (0..zero.len().max(1)).step_by(inspected_bytes()) {
            let payload = (offset as u32).to_le_bytes().to_vec();
            messages.push((Header::new(Kind::Inspect, id, id, payload.len(), Hlc(stamp)), payload));
        }
        let all = steps.iter().filter_map(|(.., did)| did.as_ref()).flat_map(|did| &did.sends);
        Sequence {
            number,
            id,
            state,
            answers_due: messages.len(),
            sends_due: all.filter(|sent| sent.delay_us == 0).count(),
            messages,
            steps,
            answers: Vec::new(),
            sends: Vec::new(),
        }
    }

    fn waits(&self) -> bool {
        self.answers.len() < self.answers_due || self.sends.len() < self.sends_due
    }

    /// What the device did is what the native handler did.
    fn check(&mut self, schema: &Schema, plan: Plan) -> Result<(), Box<Mismatch>> {
        let names = TypeNames::of(std::slice::from_ref(schema));
        let mut sends: VecDeque<_> = std::mem::take(&mut self.sends).into();
        let mut answers: VecDeque<_> = std::mem::take(&mut self.answers).into();
        let mismatch = |step: usize, differences: Vec<String>| {
            let (before, message, _) = &self.steps[step];
            Box::new(Mismatch {
                name: format!("{} in a ring kernel", schema.name),
                seed: plan.seed,
                sequence: self.number,
                step,
                state_before: json(&schema.state, before, &names).to_string(),
                message: json(&schema.message, message, &names).to_string(),
                differences,
            })
        };
        // Those that the handler sent with a delay: they leave when they are due, between others, or at the end.
        let mut delayed: Vec<(usize, &Sent)> = Vec::new();
        for (step, (before, message, did)) in self.steps.iter().enumerate() {
            let Some(answer) = answers.pop_front() else { return Err(mismatch(step, vec!["no answer came".into()])) };
            let Some(native) = did else {
                if answer.kind != Some(Kind::Error) || answer.reason != Some(Reason::Malformed) {
                    let got = answer.describe();
                    return Err(mismatch(step, vec![format!("{} is no message, and got {got}", hex(message))]));
                }
                continue;
            };
            delayed.extend(native.sends.iter().filter(|sent| sent.delay_us > 0).map(|sent| (step, sent)));
            let mut device = match answer.outcome() {
                Ok(outcome) => outcome,
                Err(got) => return Err(mismatch(step, vec![format!("the answer is {got}")])),
            };
            for sent in &native.sends {
                if sent.delay_us > 0 {
                    device.sends.push(sent.clone());
                    continue;
                }
                // Whatever had to wait for its time may have come before it.
                while let Some((came, next)) = sends.pop_front() {
                    if next == *sent {
                        device.sends.push(next);
                        break;
                    }
                    if let Err(why) = take(&mut delayed, came, &next) {
                        return Err(mismatch(step, vec![why]));
                    }
                }
            }
            // Not seen from outside.
            (device.stopped, device.replies_extra) = (native.stopped, native.replies_extra);
            if device != *native {
                return Err(mismatch(step, differences(schema, (native, before), (&device, before), &names)));
            }
        }
        let last = self.steps.len() - 1;
        for (came, sent) in sends {
            take(&mut delayed, came, &sent).map_err(|why| mismatch(last, vec![why]))?;
        }
        if let Some((step, sent)) = delayed.first() {
            return Err(mismatch(
                *step,
                vec![format!("a message to {:?} after {} us never left", sent.to, sent.delay_us)],
            ));
        }
        let mut state = Vec::new();
        for answer in answers {
            match (&self.state, answer.kind, answer.payload.get(size_of::<Inspected>()..)) {
                (Some(_), Some(Kind::Inspected), Some(bytes)) => state.extend_from_slice(bytes),
                (None, Some(Kind::Error), _) if answer.reason == Some(Reason::NoActor) => {}
                _ => return Err(mismatch(last, vec![format!("an inspect got {}", answer.describe())])),
            }
        }
        match &self.state {
            Some(native) if *native != state => {
                let did = Outcome::default();
                let found = differences(schema, (&did, native), (&did, &state), &names);
                Err(mismatch(last, found.iter().map(|difference| format!("after it, {difference}")).collect()))
            }
            _ => Ok(()),
        }
    }
}

/// Takes a message that has come out of those that wait for their time.
fn take(delayed: &mut Vec<(usize, &Sent)>, came: Came, sent: &Sent) -> Result<(), String> {
    let same = |other: &Sent| other.to == sent.to && other.payload == sent.payload;
    // Of several that are the same, the first to be due.
    let which = (0..delayed.len()).filter(|at| same(delayed[*at].1)).min_by_key(|at| delayed[*at].1.delay_us);
    let Some(which) = which else {
        return Err(format!("a message to {:?} that no handler sends, or not now: {}", sent.to, hex(&sent.payload)));
    };
    let (_, expected) = delayed.remove(which);
    match came {
        Came::After(time) if time < Duration::from_micros(expected.delay_us) => {
            Err(format!("a message after {} us left {time:?} after the device was started", expected.delay_us))
        }
        _ => Ok(()),
    }
}

impl Answer {
    /// What the handler did, as far as its answer tells.
    fn outcome(&self) -> Result<Outcome, String> {
        use ringhold_kernels::actor::{Fault, FaultKind};
        let kind = match (self.kind, self.reason) {
            (Some(Kind::Reply), _) => return Ok(Outcome { reply: Some(self.payload.clone()), ..Outcome::default() }),
            (Some(Kind::Error), Some(Reason::NoReply)) => return Ok(Outcome::default()),
            (Some(Kind::Error), Some(Reason::FaultDivisionByZero)) => FaultKind::DivisionByZero,
            (Some(Kind::Error), Some(Reason::FaultIndexOutOfBounds)) => FaultKind::IndexOutOfBounds,
            (Some(Kind::Error), Some(Reason::FaultClampBounds)) => FaultKind::ClampBounds,
            _ => return Err(self.describe()),
        };
        let text = String::from_utf8_lossy(&self.payload);
        let line =
            text.strip_prefix("line ").and_then(|rest| rest.strip_suffix(" of the actor's source")?.parse().ok());
        let line = line.ok_or_else(|| self.describe())?;
        Ok(Outcome { fault: Some(Fault { kind, line }), ..Outcome::default() })
    }

    fn describe(&self) -> String {
        format!("{:?} ({:?}) {}", self.kind, self.reason, hex(&self.payload))
    }
}

struct NoBell;

impl Bell for NoBell {
    fn ring(&self) {}
}

/// A device that runs.
struct Device {
    link: Link,
    /// Past the link, which would hold back what is for a shard of another device.
    ingress: Producer<SegmentRing>,
    host: Option<Host>,
    began: Instant,
}

impl Device {
    fn start(kernel: &Kernel) -> Device {
        let owners = Owners::from_fn(|_| AWAY);
        let segment = Segment::create(kernel.shape, kernel.layout_hash, &owners).expect("memory for a segment");
        let bell: Arc<dyn Bell> = Arc::new(NoBell);
        let mut link = Link::new(segment.clone(), Arc::new(vec![bell.clone()]));
        link.begin_term();
        let ingress = Producer::attach(segment.ingress(0));
        let host = kernel.program.start(&segment, bell).expect("threads for a device");
        Device { link, ingress, host: Some(host), began: Instant::now() }
    }

    /// Takes what has come out, or waits a moment.
    fn collect(&mut self, by_key: &HashMap<Key, usize>, sequences: &mut [Sequence]) {
        let after = self.began.elapsed();
        let taken = self.link.drain(RING_SLOTS as usize, |header, payload| {
            let at = by_key.get(&header.from().key);
            let sequence = &mut sequences[*at.unwrap_or_else(|| panic!("nobody has sent {header:?}"))];
            let (kind, reason) = (header.kind(), header.reason());
            if !matches!(kind, Some(Kind::Tell | Kind::DeadLetter)) {
                return sequence.answers.push(Answer { kind, reason, payload: payload.to_vec() });
            }
            let came = if reason == Some(Reason::Stopping) { Came::GivenUp } else { Came::After(after) };
            // A dead letter but for that is one to an id of another type.
            let message_type = (reason != Some(Reason::WrongType)).then_some(header.to().type_id);
            sequence.sends.push((came, Sent { delay_us: 0, to: header.to(), message_type, payload: payload.to_vec() }));
        });
        if taken == 0 {
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Ends it in order, and takes what leaves it then: messages whose time had not come.
    fn end(mut self, by_key: &HashMap<Key, usize>, sequences: &mut [Sequence]) {
        self.link.stop();
        let host = self.host.take().expect("it runs");
        let began = Instant::now();
        while !host.is_over() {
            assert!(began.elapsed() < LIMIT, "the device does not end");
            self.collect(by_key, sequences);
        }
        host.join().unwrap_or_else(|why| panic!("{why}"));
        self.collect(by_key, sequences);
    }
}
