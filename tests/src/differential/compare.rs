//! One subject, many messages, both sides.

use std::fmt;

use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::json::{self, TypeNames};
use ringhold_kernels::schema::{Schema, Type};
use ringhold_kernels::trial::{Outcome, Sent};
use serde_json::Value;

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
    /// As JSON.
    pub state_before: String,
    pub message: String,
    /// What differs, with what each side has there.
    pub differences: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` is not the same on both sides", self.name)?;
        writeln!(f, "  messages of seed {}, sequence {}, step {}", self.seed, self.sequence, self.step)?;
        writeln!(f, "  state before: {}", self.state_before)?;
        writeln!(f, "  message: {}", self.message)?;
        write!(f, "  differs in:\n    {}", self.differences.join("\n    "))
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
                let names = TypeNames::of(std::slice::from_ref(&schema));
                return Err(Box::new(Mismatch {
                    name: schema.name.clone(),
                    seed: plan.seed,
                    sequence,
                    step,
                    state_before: json(&schema.state, &before, &names).to_string(),
                    message: json(&schema.message, &message, &names).to_string(),
                    differences: differences(&schema, (&native_did, &native), (&cpp_did, &cpp), &names),
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

/// What each side did and left behind, where it is not the same.
pub(super) fn differences(
    schema: &Schema,
    (native, native_state): (&Outcome, &[u8]),
    (cpp, cpp_state): (&Outcome, &[u8]),
    names: &TypeNames,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: &str, native: String, cpp: String| {
        if native != cpp {
            found.push(format!("{what}: native {native}, C++ {cpp}"));
        }
    };
    let fault = |of: &Outcome| of.fault.map_or("none".to_owned(), |fault| fault.to_string());
    note("fault", fault(native), fault(cpp));
    note("stop", native.stopped.to_string(), cpp.stopped.to_string());
    let reply = |of: &Outcome| of.reply.as_ref().map_or(Value::Null, |bytes| json(&schema.reply, bytes, names));
    note("replies after the first", native.replies_extra.to_string(), cpp.replies_extra.to_string());
    note("sends", native.sends.len().to_string(), cpp.sends.len().to_string());
    for (at, (native, cpp)) in native.sends.iter().zip(&cpp.sends).enumerate() {
        note(&format!("send {at}"), sent(native), sent(cpp));
    }
    values_differ("reply", &reply(native), &reply(cpp), &mut found);
    let state = |bytes: &[u8]| json(&schema.state, bytes, names);
    values_differ("state", &state(native_state), &state(cpp_state), &mut found);
    if found.is_empty() {
        found.push(format!("bytes behind the values: native {}, C++ {}", hex(native_state), hex(cpp_state)));
    }
    found
}

/// The innermost values that differ, by their paths.
fn values_differ(path: &str, native: &Value, cpp: &Value, found: &mut Vec<String>) {
    match (native, cpp) {
        _ if native == cpp => {}
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().for_each(|(key, value)| values_differ(&format!("{path}.{key}"), value, &b[key], found));
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.for_each(|(at, (a, b))| values_differ(&format!("{path}[{at}]"), a, b, found));
        }
        _ => found.push(format!("{path}: native {native}, C++ {cpp}")),
    }
}

fn sent(of: &Sent) -> String {
    let delay = if of.delay_us == 0 { String::new() } else { format!(" after {} us", of.delay_us) };
    let dead = if of.message_type.is_none() { " (dead letter)" } else { "" };
    format!("{} to {:?}{delay}{dead}", hex(&of.payload), of.to)
}

pub(super) fn json(ty: &Type, bytes: &[u8], names: &TypeNames) -> Value {
    json::from_bytes(ty, bytes, names).unwrap_or_else(|| Value::String(format!("no value: {}", hex(bytes))))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let hex: Vec<String> =
        bytes.chunks(4).map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    hex.join(" ")
}
