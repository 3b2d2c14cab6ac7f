//! One handler run on its own, with everything it did on record: for tests and comparisons between devices.

use std::sync::LazyLock;

use crate::actor::{Actor, Context, Fault};
use crate::hlc::Hlc;
use crate::id::{ActorId, TypeId};
use crate::message::{Header, Kind};
use crate::outbox::{Done, Outbox, Owners};
use crate::plain::Plain;

/// What a handler did with one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// With a fault, the other fields are empty and the state is as before.
    pub fault: Option<Fault>,
    /// In the order sent.
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
    /// `None` where the id was of another type than the message: a dead letter.
    pub message_type: Option<TypeId>,
    pub payload: Vec<u8>,
}

/// Runs `A`'s handler over `state` (the bytes of its `State`), as if the message were an ask.
///
/// # Panics
/// If `state` or `message` are not bytes of their types.
pub fn run<A: Actor>(state: &mut [u8], message: &[u8], id: ActorId, sender: ActorId, now: Hlc) -> Outcome {
    static HERE: LazyLock<Owners> = LazyLock::new(|| Owners::all_here(1));
    let mut outbox = Outbox::new(0, 1, HERE.clone());
    let mut value = A::State::from_bytes(state).expect("the bytes of a state");
    let message = A::Message::from_bytes(message).expect("the bytes of a message");
    let header = Header::new(Kind::Ask, id, sender, A::Message::SIZE, now);
    outbox.hlc = now;
    outbox.begin(Done::ASKED | Done::UNDOABLE);
    if let Err(fault) = A::handle(&mut value, message, &mut Context::new(&header, &mut outbox)) {
        return Outcome { fault: Some(fault), ..Outcome::default() };
    }
    // SAFETY: from_bytes has checked that the slice holds SIZE bytes.
    unsafe { value.write(state.as_mut_ptr()) };
    record(outbox)
}

/// The outbox's queues as one record. Every send took a stamp, so the stamps tell their order.
fn record(mut outbox: Outbox) -> Outcome {
    let mut sends: Vec<(u64, Sent)> = Vec::new();
    let mut reply = None;
    for (queue, dead) in [(&mut outbox.here, false), (&mut outbox.away, true)] {
        queue.drain(|header, payload| {
            let message_type = (!dead).then_some(header.to().type_id);
            sends.push((header.hlc, Sent { delay_us: 0, to: header.to(), message_type, payload: payload.to_vec() }));
            true
        });
    }
    for timer in outbox.timers {
        let message_type = Some(timer.header.to().type_id);
        let sent =
            Sent { delay_us: timer.delay_us, to: timer.header.to(), message_type, payload: timer.payload.into_vec() };
        sends.push((timer.header.hlc, sent));
    }
    sends.sort_by_key(|(stamp, _)| *stamp);
    outbox.replies.drain(|_, payload| {
        reply = Some(payload.to_vec());
        true
    });
    Outcome {
        fault: None,
        sends: sends.into_iter().map(|(_, sent)| sent).collect(),
        reply,
        replies_extra: outbox.replies_unasked as u32,
        stopped: outbox.done.any(Done::STOPPED),
    }
}
