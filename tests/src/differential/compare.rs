//! One subject, many messages, both sides.

use std::fmt;

use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::schema::Schema;
use ringhold_kernels::trial::Outcome;

use super::random::Random;
use super::{Library, Subject, values};

/// How much is compared.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub sequences: u32,
    /// Messages in a sequence, at most.
    pub messages_max: usize,
    pub seed: u64,
}

/// What was compared, and how much of it was worth comparing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub messages: u64,
    pub faults: u64,
    pub replies: u64,
    pub sends: u64,
    pub stops: u64,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.messages += other.messages;
        self.faults += other.faults;
        self.replies += other.replies;
        self.sends += other.sends;
        self.stops += other.stops;
    }
}

/// The first message on which the two sides differ.
#[derive(Debug)]
pub struct Mismatch {
    pub name: String,
    pub seed: u64,
    pub sequence: u32,
    pub step: usize,
    pub message: String,
    pub state_before: String,
    pub native: String,
    pub cpp: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` is not the same on both sides", self.name)?;
        writeln!(f, "  messages of seed {}, sequence {}, step {}", self.seed, self.sequence, self.step)?;
        writeln!(f, "  state before  {}", self.state_before)?;
        writeln!(f, "  message       {}", self.message)?;
        writeln!(f, "  native        {}", self.native)?;
        write!(f, "  C++           {}", self.cpp)
    }
}

/// Runs random sequences of messages through both sides of `library`'s `index`th subject. Half of the
/// sequences start at the zero state, half at a random one.
pub fn compare(subject: &Subject, library: &mut Library, index: usize, plan: Plan) -> Result<Tally, Box<Mismatch>> {
    let schema = (subject.schema)();
    let own_type = schema.type_id();
    let types = [own_type, own_type, TypeId::of("sink"), TypeId(0x1234_5678)];
    let mut tally = Tally::default();
    for sequence in 0..plan.sequences {
        let mut random = Random::new(plan.seed ^ (u64::from(sequence) << 32));
        let mut native = match sequence % 2 {
            0 => vec![0; schema.state.size()],
            _ => values::value(&schema.state, &types, &mut random),
        };
        let mut cpp = native.clone();
        let id = ActorId::new(own_type, Key(random.bits() >> random.below(64)));
        for step in 0..1 + random.below(plan.messages_max) {
            let message = values::value(&schema.message, &types, &mut random);
            let sender = ActorId::new(*random.pick(&types), Key(random.bits() >> random.below(64)));
            let now = Hlc(random.bits() >> 2);
            let before = native.clone();
            let native_did = (subject.run)(&mut native, &message, id, sender, now);
            let cpp_did = library.run(index, &mut cpp, &message, id, sender, now);
            if native_did != cpp_did || native != cpp {
                return Err(Box::new(Mismatch {
                    name: schema.name.clone(),
                    seed: plan.seed,
                    sequence,
                    step,
                    message: hex(&message),
                    state_before: hex(&before),
                    native: told(&native_did, &before, &native),
                    cpp: told(&cpp_did, &before, &cpp),
                }));
            }
            tally.add(Tally {
                messages: 1,
                faults: native_did.fault.is_some().into(),
                replies: native_did.reply.is_some().into(),
                sends: native_did.sends.len() as u64,
                stops: native_did.stopped.into(),
            });
            agree_on_what_is_a_message(subject, &schema, library, index, message, &mut random);
        }
    }
    Ok(tally)
}

/// Changes a byte of a message: both readers take what comes out, or neither.
fn agree_on_what_is_a_message(
    subject: &Subject,
    schema: &Schema,
    library: &Library,
    index: usize,
    mut message: Vec<u8>,
    random: &mut Random,
) {
    if message.is_empty() {
        return;
    }
    let at = random.below(message.len());
    message[at] = random.bits() as u8;
    let (native, cpp) = ((subject.accepts)(&message), library.accepts(index, &message));
    let name = &schema.name;
    assert_eq!(native, cpp, "`{name}`: whether {} is a message (native, C++)", hex(&message));
    assert_eq!(native, schema.message.accepts(&message), "`{name}`: {} by the schema", hex(&message));
}

/// An outcome and what became of the state, in one line.
fn told(outcome: &Outcome, before: &[u8], after: &[u8]) -> String {
    let changed: Vec<_> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
    let changed = match changed.as_slice() {
        [] => "unchanged".to_owned(),
        [first, .., last] => format!("bytes {first}..={last} now {}", hex(&after[*first..=*last])),
        [only] => format!("byte {only} now {}", hex(&after[*only..=*only])),
    };
    let mut text = match &outcome.fault {
        Some(fault) => format!("fault: {fault}; "),
        None => String::new(),
    };
    for sent in &outcome.sends {
        let delay = if sent.delay_us == 0 { String::new() } else { format!(" after {} us", sent.delay_us) };
        let dead = if sent.message_type.is_none() { " (dead letter)" } else { "" };
        text.push_str(&format!("sends {} to {:?}{delay}{dead}; ", hex(&sent.payload), sent.to));
    }
    if let Some(reply) = &outcome.reply {
        text.push_str(&format!("replies {} and {} more; ", hex(reply), outcome.replies_extra));
    }
    if outcome.stopped {
        text.push_str("stops; ");
    }
    format!("{text}state {changed}")
}

fn hex(bytes: &[u8]) -> String {
    let hex: Vec<String> =
        bytes.chunks(4).map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    hex.join(" ")
}
