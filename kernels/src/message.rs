//! The message: one header and at most a slot's worth of payload, the same bytes in rings, on wires and on disks.

use crate::hlc::Hlc;
use crate::id::{ActorId, Key, TypeId};

/// What every message starts with. 40 bytes; the payload follows at offset 40.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 4 | `lap`: the ring's own; zero outside rings |
/// | 4 | 2 | `len`: payload bytes |
/// | 6 | 1 | `kind` |
/// | 7 | 1 | `reason` |
/// | 8 | 8 | `to_key` |
/// | 16 | 4 | `to_type` |
/// | 20 | 4 | `from_type` |
/// | 24 | 8 | `from_key` |
/// | 32 | 8 | `hlc` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    pub lap: u32,
    pub len: u16,
    kind: u8,
    reason: u8,
    to_key: u64,
    to_type: u32,
    from_type: u32,
    from_key: u64,
    pub hlc: u64,
}

pub const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == 40 && align_of::<Header>() == 8);
const _: () = assert!(
    std::mem::offset_of!(Header, len) == 4
        && std::mem::offset_of!(Header, kind) == 6
        && std::mem::offset_of!(Header, reason) == 7
        && std::mem::offset_of!(Header, to_key) == 8
        && std::mem::offset_of!(Header, to_type) == 16
        && std::mem::offset_of!(Header, from_type) == 20
        && std::mem::offset_of!(Header, from_key) == 24
        && std::mem::offset_of!(Header, hlc) == 32
);

/// What a message is for. A client's asks and the replies to them carry the client's ticket as the key of
/// the client's side, with type 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A message for an actor; nobody waits for a reply.
    Tell = 1,
    /// A message for an actor; `from` waits for exactly one `Reply` or `Error`.
    Ask = 2,
    /// The answer to an ask; the payload is the actor's `Reply`.
    Reply = 3,
    /// The answer to an ask or inspect that has no other; `reason` says why, the payload is UTF-8 text or empty.
    Error = 4,
    /// A message that nobody handled, on its way to the dead-letter queue; `reason` says why.
    DeadLetter = 5,
    /// Asks for an actor's state; the payload is the u32 offset of the first byte wanted.
    Inspect = 6,
    /// The answer: [`Inspected`], then state bytes from the offset on, as many as fit.
    Inspected = 7,
}

impl Kind {
    pub const fn from_u8(value: u8) -> Option<Kind> {
        Some(match value {
            1 => Kind::Tell,
            2 => Kind::Ask,
            3 => Kind::Reply,
            4 => Kind::Error,
            5 => Kind::DeadLetter,
            6 => Kind::Inspect,
            7 => Kind::Inspected,
            _ => return None,
        })
    }
}

/// Why a message was not handled, or an ask not answered by its actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[repr(u8)]
pub enum Reason {
    #[error("no such actor type is registered on the device")]
    UnknownType = 1,
    #[error("the payload is no message of the actor's type")]
    Malformed = 2,
    #[error("the message is larger than the slots of the device allow")]
    TooLarge = 3,
    #[error("the handler divided by zero")]
    FaultDivisionByZero = 4,
    #[error("the handler's index was out of bounds")]
    FaultIndexOutOfBounds = 5,
    #[error("the handler clamped with its low bound above its high bound")]
    FaultClampBounds = 6,
    #[error("the handler returned without a reply")]
    NoReply = 7,
    #[error("the device is full and its overflow policy is to reject")]
    Rejected = 8,
    #[error("the device was full and dropped its oldest waiting message")]
    DroppedOldest = 9,
    #[error("the device was full and dropped the newest message")]
    DroppedNewest = 10,
    #[error("the device failed while it held the message; the state of its actors was lost")]
    StateLost = 11,
    #[error("the node is stopping")]
    Stopping = 12,
    #[error("the actor does not exist: no message has been sent to it, or it has stopped")]
    NoActor = 13,
    #[error("no device is running")]
    NoDevice = 14,
    #[error("the id sent to is of another actor type than the message")]
    WrongType = 15,
    #[error("the device is out of memory")]
    OutOfMemory = 16,
    #[error("no reply came before the deadline")]
    DeadlineExceeded = 17,
    #[error("the connection to the node was lost before the reply came")]
    ConnectionLost = 18,
    #[error("the message stalled or crashed its worker twice, and was put aside")]
    Poison = 19,
    #[error("the node is overloaded and sheds load: try again later")]
    Overloaded = 20,
    #[error("the node that has the actor could not be reached")]
    Unreachable = 21,
}

impl Reason {
    pub const ALL: [Reason; 21] = [
        Reason::UnknownType,
        Reason::Malformed,
        Reason::TooLarge,
        Reason::FaultDivisionByZero,
        Reason::FaultIndexOutOfBounds,
        Reason::FaultClampBounds,
        Reason::NoReply,
        Reason::Rejected,
        Reason::DroppedOldest,
        Reason::DroppedNewest,
        Reason::StateLost,
        Reason::Stopping,
        Reason::NoActor,
        Reason::NoDevice,
        Reason::WrongType,
        Reason::OutOfMemory,
        Reason::DeadlineExceeded,
        Reason::ConnectionLost,
        Reason::Poison,
        Reason::Overloaded,
        Reason::Unreachable,
    ];

    pub fn from_u8(value: u8) -> Option<Reason> {
        Reason::ALL.get((value as usize).wrapping_sub(1)).copied()
    }
}

/// What an `Inspected` payload starts with. 24 bytes; state bytes follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Inspected {
    /// Size of the whole state.
    pub state_bytes: u32,
    /// Offset of the first byte that follows.
    pub offset: u32,
    /// Messages this actor has handled: the same number in two answers means that they are of one state.
    pub handled: u64,
    /// Of those, how many ended in a fault.
    pub faults: u32,
    pub worker: u32,
}
const _: () = assert!(size_of::<Inspected>() == 24);

impl Inspected {
    /// What an `Inspected` payload says of the actor, and the state bytes behind it.
    pub fn split(payload: &[u8]) -> Option<(Inspected, &[u8])> {
        let (about, bytes) = payload.split_first_chunk::<{ size_of::<Inspected>() }>()?;
        // SAFETY: every field is an integer, so any 24 bytes are an `Inspected`.
        Some((unsafe { about.as_ptr().cast::<Inspected>().read_unaligned() }, bytes))
    }
}

impl Header {
    #[inline(always)]
    pub fn new(kind: Kind, to: ActorId, from: ActorId, len: usize, hlc: Hlc) -> Header {
        Header {
            lap: 0,
            len: len as u16,
            kind: kind as u8,
            reason: 0,
            to_key: to.key.0,
            to_type: to.type_id.0,
            from_type: from.type_id.0,
            from_key: from.key.0,
            hlc: hlc.0,
        }
    }

    /// `None` for a number that is no kind: only bytes from outside can hold one.
    #[inline(always)]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_u8(self.kind)
    }

    #[inline(always)]
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }

    pub fn reason(&self) -> Option<Reason> {
        Reason::from_u8(self.reason)
    }

    #[must_use]
    pub fn with_kind(self, kind: Kind) -> Header {
        Header { kind: kind as u8, ..self }
    }

    #[must_use]
    pub fn with_reason(self, reason: Reason) -> Header {
        Header { reason: reason as u8, ..self }
    }

    /// A tell or an ask for an actor that exists: where it does not, it is not made, and the message is refused as overloaded.
    #[must_use]
    pub fn creating_nothing(self) -> Header {
        self.with_reason(Reason::Overloaded)
    }

    pub fn creates_nothing(&self) -> bool {
        self.reason == Reason::Overloaded as u8
    }

    #[must_use]
    pub fn without_reason(self) -> Header {
        Header { reason: 0, ..self }
    }

    /// A tell that had been put aside as poison, and that somebody has sent again.
    #[must_use]
    pub fn sent_again(self) -> Header {
        self.with_kind(Kind::Tell).with_reason(Reason::Poison)
    }

    pub fn is_sent_again(&self) -> bool {
        self.is(Kind::Tell) && self.reason == Reason::Poison as u8
    }

    #[inline(always)]
    pub fn to(&self) -> ActorId {
        ActorId::new(TypeId(self.to_type), Key(self.to_key))
    }

    #[inline(always)]
    pub fn from(&self) -> ActorId {
        ActorId::new(TypeId(self.from_type), Key(self.from_key))
    }

    #[must_use]
    pub fn with_to(self, to: ActorId) -> Header {
        Header { to_key: to.key.0, to_type: to.type_id.0, ..self }
    }

    #[must_use]
    pub fn with_from(self, from: ActorId) -> Header {
        Header { from_key: from.key.0, from_type: from.type_id.0, ..self }
    }

    /// The bytes that follow this header in a batch: the payload, padded to eight.
    #[inline(always)]
    pub fn padded_len(&self) -> usize {
        (self.len as usize + 7) & !7
    }

    pub fn as_bytes(&self) -> &[u8; HEADER_BYTES] {
        // SAFETY: repr(C) with no padding (asserted by the offsets above), so all 40 bytes are initialised.
        unsafe { &*std::ptr::from_ref(self).cast() }
    }

    #[inline(always)]
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Header {
        // SAFETY: every field is an integer, so any 40 bytes are a header.
        unsafe { bytes.as_ptr().cast::<Header>().read_unaligned() }
    }
}

/// The payload a message may have in slots of `slot_bytes`: the same on every device, so it is what fits the
/// tightest framing there is (12 of each 16 bytes, where a GPU is at one end).
///
/// 64-byte slots take 12 bytes, 128 take 60, 256 take 156, 4096 take 3036.
pub const fn payload_bytes_max(slot_bytes: usize) -> usize {
    slot_bytes / 16 * 12 - (HEADER_BYTES - size_of::<u32>())
}

/// Appends a message to a batch: header, payload, zeros up to the next multiple of eight.
pub fn append(batch: &mut Vec<u8>, header: &Header, payload: &[u8]) {
    debug_assert_eq!(header.len as usize, payload.len());
    batch.extend_from_slice(header.as_bytes());
    batch.extend_from_slice(payload);
    batch.resize(batch.len().next_multiple_of(8), 0);
}

/// The first message of a batch and the bytes after it, or `None` where no whole message is left.
#[inline]
pub fn split_first(batch: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let (head, rest) = batch.split_first_chunk::<HEADER_BYTES>()?;
    let header = Header::from_bytes(head);
    let (padded, rest) = rest.split_at_checked(header.padded_len())?;
    Some((header, &padded[..header.len as usize], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_what_was_appended() {
        let to = ActorId::new(TypeId(7), Key(8));
        let mut batch = Vec::new();
        for len in [0usize, 1, 8, 13] {
            append(&mut batch, &Header::new(Kind::Tell, to, ActorId::default(), len, Hlc(9)), &vec![len as u8; len]);
        }
        let mut rest = batch.as_slice();
        for len in [0usize, 1, 8, 13] {
            let (header, payload, after) = split_first(rest).unwrap();
            assert_eq!((header.kind(), header.to(), payload), (Some(Kind::Tell), to, &vec![len as u8; len][..]));
            rest = after;
        }
        assert!(rest.is_empty());
        assert!(split_first(&batch[..39]).is_none());
    }

    #[test]
    fn every_reason_is_its_own_number() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i + 1);
            assert_eq!(Reason::from_u8(*reason as u8), Some(*reason));
        }
        assert_eq!(Reason::from_u8(0), None);
    }
}
