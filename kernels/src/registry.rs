//! The actor types a binary can run.

use std::ptr::NonNull;

use crate::actor::{Actor, Context, Fault, FaultKind};
use crate::id::{TypeId, fnv1a};
use crate::message::Header;
use crate::outbox::Outbox;
use crate::plain::Plain;
use crate::schema::Schema;

/// How a device runs an actor type it knows only by its number.
pub struct ActorType {
    pub schema: Schema,
    pub type_id: TypeId,
    pub layout_hash: u64,
    /// The module's name, by which device code refers to it.
    pub module: &'static str,
    pub state_bytes: usize,
    pub message_bytes: usize,
    pub reply_bytes: usize,
    pub can_fault: bool,
    pub cuda_types: &'static str,
    pub cuda_functions: &'static str,
    pub(crate) run: Run,
    pub(crate) store: Store,
    pub(crate) load: Load,
}

/// Runs one message over the state at the pointer; on a fault the state is as before.
///
/// # Safety
/// `state` is an aligned, valid state of the type that nothing else refers to; the type's message size of payload
/// lies behind `message`, and both stay as they are while this runs.
pub(crate) type Run = unsafe fn(state: *mut u8, message: NonNull<Header>, outbox: &mut Outbox) -> Ran;

/// Writes the state at the first pointer as its bytes to the second; padding is left as it was.
///
/// # Safety
/// `state` is an aligned, valid state of the type, and `to` is valid for writes of the type's `state_bytes`.
pub(crate) type Store = unsafe fn(state: *const u8, to: *mut u8);

/// Makes the state at the pointer that which the bytes are; false, and nothing done, where they are none.
///
/// # Safety
/// `state` is aligned and valid for writes of a state of the type; `bytes` has the type's `state_bytes`.
pub(crate) type Load = unsafe fn(bytes: *const u8, state: *mut u8) -> bool;

/// What came of running a message. One word, so that it comes back in a register.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ran(u64);

impl Ran {
    pub(crate) const DONE: Ran = Ran(0);
    /// The payload is no message of the type; the handler did not run.
    pub(crate) const MALFORMED: Ran = Ran(1 << 63);

    fn fault(fault: Fault) -> Ran {
        Ran((fault.line as u64) << 8 | fault.kind as u64)
    }

    /// The fault it ended in, if it did.
    pub(crate) fn as_fault(self) -> Option<Fault> {
        let kinds = [FaultKind::DivisionByZero, FaultKind::IndexOutOfBounds, FaultKind::ClampBounds];
        let kind = kinds.into_iter().find(|kind| *kind as u64 == self.0 & 0xff)?;
        Some(Fault { kind, line: (self.0 >> 8) as u32 })
    }
}

impl ActorType {
    pub fn of<A: Actor>() -> ActorType {
        let schema = A::schema();
        ActorType {
            type_id: A::TYPE,
            layout_hash: schema.layout_hash(),
            module: A::MODULE,
            state_bytes: A::State::SIZE,
            message_bytes: A::Message::SIZE,
            reply_bytes: A::Reply::SIZE,
            can_fault: A::CAN_FAULT,
            cuda_types: A::CUDA_TYPES,
            cuda_functions: A::CUDA_FUNCTIONS,
            run: run::<A>,
            store: store::<A>,
            load: load::<A>,
            schema,
        }
    }
}

/// # Safety
/// As [`Run`] says.
unsafe fn run<A: Actor>(state: *mut u8, message: NonNull<Header>, outbox: &mut Outbox) -> Ran {
    // SAFETY: the caller's.
    let (state, header, message) =
        unsafe { (&mut *state.cast::<A::State>(), message.as_ref(), A::Message::read(message.add(1).as_ptr().cast())) };
    let Some(message) = message else { return Ran::MALFORMED };
    let ctx = &mut Context::new(header, outbox);
    if !A::CAN_FAULT {
        let _ = A::handle(state, message, ctx);
        return Ran::DONE;
    }
    let before = *state;
    match A::handle(state, message, ctx) {
        Ok(()) => Ran::DONE,
        Err(fault) => {
            *state = before;
            Ran::fault(fault)
        }
    }
}

/// # Safety
/// As [`Store`] says.
unsafe fn store<A: Actor>(state: *const u8, to: *mut u8) {
    // SAFETY: the caller's.
    unsafe { (*state.cast::<A::State>()).write(to) }
}

/// # Safety
/// As [`Load`] says.
unsafe fn load<A: Actor>(bytes: *const u8, state: *mut u8) -> bool {
    // SAFETY: the caller's.
    let read = unsafe { A::State::read(bytes) };
    // SAFETY: as above.
    read.map(|value| unsafe { state.cast::<A::State>().write(value) }).is_some()
}

/// The actor types a binary was built with, in the order registered.
#[derive(Default)]
pub struct Registry {
    types: Vec<ActorType>,
    /// Sorted: a look-up is a handful of comparisons, and happens once an actor.
    by_id: Vec<(TypeId, usize)>,
}

/// Why a type was not registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("actor type `{0}` is registered twice: register each module once")]
    Twice(String),
    #[error("actor types `{0}` and `{1}` have the same type id: rename one with `#[ringhold::actor(name = \"…\")]`")]
    SameId(String, String),
    #[error(
        "actor types `{0}` and `{1}` are both modules named `{2}`, which device code cannot tell apart: rename one module"
    )]
    SameModule(String, String, String),
    #[error("actor type `{0}` is one too many: a binary has at most {TYPES_MAX}")]
    TooMany(String),
}

/// Actor types in one binary.
pub const TYPES_MAX: usize = 1024;

impl Registry {
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Adds an actor type.
    pub fn register<A: Actor>(&mut self) -> Result<&mut Registry, Error> {
        let new = ActorType::of::<A>();
        let name = new.schema.name.clone();
        if let Some(old) = self.get(new.type_id) {
            let same_name = old.schema.name == name;
            return Err(if same_name { Error::Twice(name) } else { Error::SameId(old.schema.name.clone(), name) });
        }
        if let Some(old) = self.types.iter().find(|old| old.module == new.module) {
            return Err(Error::SameModule(old.schema.name.clone(), name, new.module.into()));
        }
        if self.types.len() == TYPES_MAX {
            return Err(Error::TooMany(name));
        }
        let at = self.by_id.partition_point(|(id, _)| *id < new.type_id);
        self.by_id.insert(at, (new.type_id, self.types.len()));
        self.types.push(new);
        Ok(self)
    }

    pub fn get(&self, type_id: TypeId) -> Option<&ActorType> {
        self.index_of(type_id).map(|index| &self.types[index])
    }

    /// A type as devices know it, to be changed before there is one: what a device compiles is then no longer what the macro
    /// wrote. For tests, which try what no handler can do.
    pub fn get_mut(&mut self, type_id: TypeId) -> Option<&mut ActorType> {
        self.index_of(type_id).map(|index| &mut self.types[index])
    }

    pub fn by_name(&self, name: &str) -> Option<&ActorType> {
        self.types.iter().find(|t| t.schema.name == name)
    }

    pub fn types(&self) -> &[ActorType] {
        &self.types
    }

    pub(crate) fn index_of(&self, type_id: TypeId) -> Option<usize> {
        self.by_id.binary_search_by_key(&type_id, |(id, _)| *id).ok().map(|at| self.by_id[at].1)
    }

    /// One hash for all: a node and its device host must have been built with the same types.
    pub fn layout_hash(&self) -> u64 {
        let hashes: Vec<u8> = self.types.iter().flat_map(|t| t.layout_hash.to_le_bytes()).collect();
        fnv1a(&hashes)
    }
}
