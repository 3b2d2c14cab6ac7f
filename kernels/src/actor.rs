//! What an actor is: the trait that `#[ringhold::actor]` implements, and what a handler can do.

use crate::id::{ActorId, TypeId};
use crate::message::Header;
use crate::outbox::Outbox;
use crate::plain::Plain;
use crate::schema::Schema;

/// An actor type. `#[ringhold::actor]` on a module makes a unit struct `Actor` in it that implements this.
pub trait Actor: Send + Sync + 'static {
    type State: Plain;
    type Message: Plain + MessageOf<Actor = Self>;
    type Reply: Plain;

    /// The registered name.
    const NAME: &'static str;
    const TYPE: TypeId = TypeId::of(Self::NAME);
    /// The name of the module, by which other modules' device code refers to this one.
    const MODULE: &'static str;
    /// Whether a handler can end in a fault; if not, no copy of the state is kept while it runs.
    const CAN_FAULT: bool;
    const THREADS_PER_ACTOR: u32;
    /// The types of this module as CUDA C++.
    const CUDA_TYPES: &'static str;
    /// The functions of this module as CUDA C++; every registered module's types come before.
    const CUDA_FUNCTIONS: &'static str;

    /// Names, types and offsets of state, messages and replies.
    fn schema() -> Schema;

    /// Runs one message. On a fault the caller undoes what the handler did.
    fn handle(state: &mut Self::State, message: Self::Message, ctx: &mut Context<'_>) -> Handled;
}

/// A message enum knows its actor, so that a send needs no more than an id and a message.
pub trait MessageOf: Plain {
    type Actor: Actor<Message = Self>;
}

/// What running a handler came to.
pub type Handled = Result<(), Fault>;

/// Why a handler could not go on. The message then has had no effect: state, sends and reply are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at line {line}")]
pub struct Fault {
    pub kind: FaultKind,
    /// The line of the actor's source file.
    pub line: u32,
}

/// The kinds of faults, with the numbers by which devices report them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum FaultKind {
    #[error("division by zero")]
    DivisionByZero = 1,
    #[error("index out of bounds")]
    IndexOutOfBounds = 2,
    #[error("clamp with its low bound above its high bound")]
    ClampBounds = 3,
}

/// What a handler can do besides changing its state. Nothing here blocks or fails.
pub struct Context<'a> {
    /// Of the message that is run: its receiver is this actor.
    header: &'a Header,
    outbox: &'a mut Outbox,
}

impl<'a> Context<'a> {
    /// For whoever runs handlers: a worker, or [`crate::trial`].
    #[inline(always)]
    pub(crate) fn new(header: &'a Header, outbox: &'a mut Outbox) -> Context<'a> {
        Context { header, outbox }
    }

    /// This actor.
    #[inline(always)]
    pub fn id(&self) -> ActorId {
        self.header.to()
    }

    /// Who sent the message. A client's id has type 0 and is good for nothing but comparing.
    #[inline(always)]
    pub fn sender(&self) -> ActorId {
        self.header.from()
    }

    /// The HLC stamp of this run of the handler.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        self.outbox.now.0
    }

    /// Answers the asker. The first reply counts; when nobody asked, it goes nowhere and is counted.
    #[inline(always)]
    pub fn reply<R: Plain>(&mut self, reply: R) {
        self.outbox.reply(self.header, &reply);
    }

    /// Sends a message. It never fails here: what cannot be delivered goes to the dead-letter queue.
    #[inline(always)]
    pub fn send<M: MessageOf>(&mut self, to: ActorId, message: M) {
        self.outbox.send(self.id(), to, &message);
    }

    /// Sends a message once at least `delay_us` microseconds have passed.
    #[inline(always)]
    pub fn send_after<M: MessageOf>(&mut self, delay_us: u64, to: ActorId, message: M) {
        self.outbox.send_after(delay_us, self.id(), to, &message);
    }

    /// Frees this actor when the handler returns: the next message finds a new one, its state zero.
    #[inline(always)]
    pub fn stop(&mut self) {
        self.outbox.stop();
    }
}
