//! What the native handlers do: the actors of a device, run one message after the other.

use std::collections::{HashMap, VecDeque};

use ringhold::rt::Actor;
use ringhold_kernels::actor::FaultKind;
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::Reason;
use ringhold_kernels::plain::Plain;
use ringhold_tests::differential::Subject;

use super::device::Answer;

#[derive(Default)]
pub struct Model {
    subjects: HashMap<TypeId, (Subject, usize)>,
    /// Of every actor that had a message; `None` once it has stopped.
    pub states: HashMap<ActorId, Option<Vec<u8>>>,
    pub messages: u64,
}

impl Model {
    pub fn with<A: Actor>(mut self) -> Model {
        self.subjects.insert(A::TYPE, (Subject::of::<A>(), A::State::SIZE));
        self
    }

    /// Bytes of a type's state.
    pub fn state_bytes(&self, of: TypeId) -> usize {
        self.subjects[&of].1
    }

    /// Runs an ask and everything that follows from it. The actors send to types of the model alone, and at once.
    pub fn ask(&mut self, to: ActorId, message: &[u8]) -> Answer {
        let client = ActorId::new(TypeId::CLIENT, Key(77));
        let mut waiting = VecDeque::from([(client, to, message.to_vec())]);
        let mut answer = None;
        while let Some((from, to, message)) = waiting.pop_front() {
            let (subject, state_bytes) = &self.subjects[&to.type_id];
            let held = self.states.entry(to).or_default();
            let state = held.get_or_insert_with(|| vec![0; *state_bytes]);
            let outcome = (subject.run)(state, &message, to, from, Hlc(1));
            if outcome.stopped {
                *held = None;
            }
            self.messages += 1;
            let sends = outcome.sends.into_iter().filter(|sent| sent.message_type.is_some());
            waiting.extend(sends.map(|sent| (to, sent.to, sent.payload)));
            answer.get_or_insert(match (outcome.fault, outcome.reply) {
                (Some(fault), _) => Answer::Error(match fault.kind {
                    FaultKind::DivisionByZero => Reason::FaultDivisionByZero,
                    FaultKind::IndexOutOfBounds => Reason::FaultIndexOutOfBounds,
                    FaultKind::ClampBounds => Reason::FaultClampBounds,
                }),
                (None, Some(reply)) => Answer::Reply(reply),
                (None, None) => Answer::Error(Reason::NoReply),
            });
        }
        answer.expect("the ask itself was run")
    }
}
