//! One handler run on its own, with everything it did on record: for tests and comparisons between devices.

use crate::actor::{Actor, Context, Effects, Fault};
use crate::hlc::Hlc;
use crate::id::{ActorId, TypeId};
use crate::plain::Plain;

/// What a handler did with one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// With a fault, the other fields are empty and the state is as before.
    pub fault: Option<Fault>,
    pub sends: Vec<Sent>,
    /// The bytes of the first reply.
    pub reply: Option<Vec<u8>>,
    /// Replies after the first.
    pub replies_extra: u32,
    pub stopped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub delay_us: u64,
    pub to: ActorId,
    pub message_type: TypeId,
    pub payload: Vec<u8>,
}

/// Runs `A`'s handler over `state` (the bytes of its `State`).
///
/// # Panics
/// If `state` or `message` are not bytes of their types.
pub fn run<A: Actor>(state: &mut [u8], message: &[u8], id: ActorId, sender: ActorId, now: Hlc) -> Outcome {
    let mut outcome = Outcome::default();
    let mut value = A::State::from_bytes(state).expect("the bytes of a state");
    let message = A::Message::from_bytes(message).expect("the bytes of a message");
    match A::handle(&mut value, message, &mut Context::new(id, sender, now, &mut outcome)) {
        // SAFETY: from_bytes has checked that the slice holds SIZE bytes.
        Ok(()) => unsafe { value.write(state.as_mut_ptr()) },
        Err(fault) => outcome = Outcome { fault: Some(fault), ..Outcome::default() },
    }
    outcome
}

fn bytes(payload: &dyn Fn(*mut u8), size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    payload(bytes.as_mut_ptr());
    bytes
}

impl Effects for Outcome {
    fn send(&mut self, delay_us: u64, to: ActorId, message_type: TypeId, payload: &dyn Fn(*mut u8), size: usize) {
        self.sends.push(Sent { delay_us, to, message_type, payload: bytes(payload, size) });
    }

    fn reply(&mut self, payload: &dyn Fn(*mut u8), size: usize) {
        match self.reply {
            None => self.reply = Some(bytes(payload, size)),
            Some(_) => self.replies_extra += 1,
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
    }
}
