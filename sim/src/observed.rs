//! An actor type under observation: every run of its handler is written down.
//!
//! [`Observed`] wraps what `#[ringhold::actor]` made, under the same name and layout, so that clients and other
//! actors know no difference. It changes nothing in what the handler does.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use ringhold_kernels::actor::{Actor, Context, Handled, MessageOf};
use ringhold_kernels::id::ActorId;
use ringhold_kernels::plain::Plain;
use ringhold_kernels::schema::{Schema, Type};

use crate::devices::Life;
use crate::trace::Trace;

/// Where a handler ran: a step of a worker of one host of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub device: u16,
    /// Which host of the device.
    pub term: u32,
    pub worker: usize,
    /// Counted over all workers of the host.
    pub step: u64,
}

/// One run of a handler.
#[derive(Clone, Debug)]
pub struct Run {
    pub at: Duration,
    pub place: Place,
    /// The worker ended the step of which this was part; otherwise its host died before.
    pub completed: bool,
    pub id: ActorId,
    pub sender: ActorId,
    pub stamp: u64,
    pub message: Vec<u8>,
    /// It ended in a fault.
    pub fault: bool,
    /// The state afterwards; with a fault, as the handler left it and before it was undone.
    pub state: Vec<u8>,
}

/// A mistake made on purpose, to see that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// The handler does not run.
    Skipped,
    /// The handler runs twice.
    Repeated,
    /// The stamp written down is that of long before.
    Stamp,
}

#[derive(Default)]
struct Observer {
    at: Option<(Place, Arc<Life>)>,
    trace: Option<Trace>,
    runs: Vec<Run>,
    slip: Option<(Slip, u64)>,
    seen: u64,
}

thread_local! {
    static OBSERVER: RefCell<Observer> = RefCell::default();
}

/// Begins a new record on this thread. `slip` is made at the run of that number.
pub fn begin(trace: &Trace, slip: Option<(Slip, u64)>) {
    OBSERVER.with(|o| *o.borrow_mut() = Observer { trace: Some(trace.clone()), slip, ..Observer::default() });
}

/// Ends the record and gives it.
pub fn take() -> Vec<Run> {
    OBSERVER.with(|o| std::mem::take(&mut *o.borrow_mut())).runs
}

/// Says whose step it is while `f` runs.
pub fn during<R>(place: Place, life: &Arc<Life>, f: impl FnOnce() -> R) -> R {
    OBSERVER.with(|o| o.borrow_mut().at = Some((place, life.clone())));
    let result = f();
    OBSERVER.with(|o| o.borrow_mut().at = None);
    result
}

/// Says that a step came to its end.
pub fn completed(place: Place) {
    OBSERVER.with(|o| {
        o.borrow_mut().runs.iter_mut().rev().take_while(|run| run.place == place).for_each(|run| run.completed = true);
    });
}

/// An actor type whose runs are written down.
pub struct Observed<A>(std::marker::PhantomData<fn(A)>);

/// The message of an observed type: the same bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Message<M>(M);

// SAFETY: it is `M` and says so in every respect.
unsafe impl<M: Plain> Plain for Message<M> {
    const SIZE: usize = M::SIZE;
    const ALIGN: usize = M::ALIGN;

    fn describe() -> Type {
        M::describe()
    }

    unsafe fn write(&self, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe { self.0.write(to) }
    }

    unsafe fn read(from: *const u8) -> Option<Self> {
        // SAFETY: the caller's.
        unsafe { M::read(from) }.map(Message)
    }
}

impl<M: MessageOf> MessageOf for Message<M> {
    type Actor = Observed<M::Actor>;
}

impl<A: Actor> Actor for Observed<A> {
    type State = A::State;
    type Message = Message<A::Message>;
    type Reply = A::Reply;

    const NAME: &'static str = A::NAME;
    const MODULE: &'static str = A::MODULE;
    const CAN_FAULT: bool = A::CAN_FAULT;
    const THREADS_PER_ACTOR: u32 = A::THREADS_PER_ACTOR;
    const CUDA_TYPES: &'static str = A::CUDA_TYPES;
    const CUDA_FUNCTIONS: &'static str = A::CUDA_FUNCTIONS;

    fn schema() -> Schema {
        A::schema()
    }

    fn handle(state: &mut A::State, message: Message<A::Message>, ctx: &mut Context<'_>) -> Handled {
        let (place, life, trace, slip) = OBSERVER.with(|o| {
            let o = &mut *o.borrow_mut();
            o.seen += 1;
            let (place, life) = o.at.clone().expect("handlers run in a worker's step");
            let slip = o.slip.filter(|(_, at)| *at == o.seen).map(|(slip, _)| slip);
            (place, life, o.trace.clone().expect("a record was begun"), slip)
        });
        life.at_message();
        let handled = match slip {
            Some(Slip::Skipped) => return Ok(()),
            Some(Slip::Repeated) => {
                let first = A::handle(state, message.0, ctx);
                note(&trace, place, ctx, &message, first.is_err(), state, slip);
                A::handle(state, message.0, ctx)
            }
            Some(Slip::Stamp) | None => A::handle(state, message.0, ctx),
        };
        note(&trace, place, ctx, &message, handled.is_err(), state, slip);
        handled
    }
}

fn note<M: Plain, S: Plain>(
    trace: &Trace,
    place: Place,
    ctx: &Context<'_>,
    message: &Message<M>,
    fault: bool,
    state: &S,
    slip: Option<Slip>,
) {
    let stamp = if slip == Some(Slip::Stamp) { 1 } else { ctx.now() };
    let run = Run {
        at: trace.elapsed(),
        place,
        completed: false,
        id: ctx.id(),
        sender: ctx.sender(),
        stamp,
        message: message.to_bytes(),
        fault,
        state: state.to_bytes(),
    };
    trace.event(format_args!("run {:?} <- {:?} at {stamp:x} fault {fault}", run.id, run.sender));
    OBSERVER.with(|o| o.borrow_mut().runs.push(run));
}
