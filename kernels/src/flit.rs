//! Messages in 16-byte flits: 12 bytes of the message and the lap of the ring, where a GPU is at one end.
//!
//! A GPU loads and stores a flit at once, so each flit proves its own arrival and a message crosses PCIe in one trip.
//! `kernels/cuda/flit.cuh` is the device's end of the same framing. On this side a flit is stored as its 12 bytes and then,
//! with release, its lap: whoever sees the lap in one access with the bytes sees the bytes.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::message::{HEADER_BYTES, Header};

pub const FLIT_BYTES: usize = 16;
/// Bytes of a message in one flit.
const CARRIED: usize = 12;
/// The header without its lap word, which the flits carry.
const HEAD: usize = HEADER_BYTES - 4;
/// The largest slot's messages, header included.
const MESSAGE_BYTES_MAX: usize = 4096 / FLIT_BYTES * CARRIED + 4 + CARRIED;

/// Flits of a message with so many payload bytes.
fn flits(len: usize) -> usize {
    (HEAD + len).div_ceil(CARRIED)
}

/// The lap word of a slot's flit.
///
/// # Safety
/// `slot` has more than `flit` flits, aligned to 16 bytes, and nobody writes to their lap words but as atomics.
unsafe fn lap<'a>(slot: NonNull<u8>, flit: usize) -> &'a AtomicU32 {
    // SAFETY: the caller's.
    unsafe { slot.add(flit * FLIT_BYTES + CARRIED).cast().as_ref() }
}

/// Writes a message into a slot and publishes it with the given lap.
///
/// # Safety
/// The slot is the caller's alone until then, aligned to 16 bytes, and large enough for the message.
pub(crate) unsafe fn write(slot: NonNull<u8>, mark: u32, header: &Header, payload: &[u8]) {
    let head = &header.as_bytes()[4..];
    // The first flit last: a reader that finds it mostly finds the others too.
    for flit in (0..flits(payload.len())).rev() {
        let mut carried = [0; CARRIED];
        let from = flit * CARRIED;
        if from < HEAD {
            carried.copy_from_slice(&head[from..from + CARRIED]);
        } else {
            let rest = &payload[from - HEAD..payload.len().min(from - HEAD + CARRIED)];
            carried[..rest.len()].copy_from_slice(rest);
        }
        // SAFETY: the flit is inside the slot, which is the caller's. Release pairs with the device's load of the whole flit.
        unsafe {
            slot.add(flit * FLIT_BYTES).cast::<[u8; CARRIED]>().write(carried);
            lap(slot, flit).store(mark, Ordering::Release);
        }
    }
}
const _: () = assert!(HEAD.is_multiple_of(CARRIED));

/// Whether a slot holds a whole message with this lap. A writer that died in the middle of one leaves none.
///
/// # Safety
/// The slot is `slot_bytes` long and aligned to 16 bytes.
pub(crate) unsafe fn present(slot: NonNull<u8>, slot_bytes: usize, mark: u32) -> bool {
    // SAFETY: the first flit is inside the slot. Acquire pairs with the writer's store of the flit.
    if unsafe { lap(slot, 0) }.load(Ordering::Acquire) != mark {
        return false;
    }
    // SAFETY: the flit is there, and its writer is done with it. `len` is the first half of the header's second word.
    let len = unsafe { slot.cast::<u16>().read() } as usize;
    let count = flits(len);
    // SAFETY: those flits are inside the slot.
    count * FLIT_BYTES <= slot_bytes
        && (1..count).all(|flit| unsafe { lap(slot, flit) }.load(Ordering::Acquire) == mark)
}

/// Runs `f` on the message of a slot, put together in a place of its own.
///
/// # Safety
/// The slot holds a whole message, which nobody writes to meanwhile.
pub(crate) unsafe fn with<R>(slot: NonNull<u8>, f: impl FnOnce(NonNull<Header>) -> R) -> R {
    #[repr(C, align(8))]
    struct Whole([MaybeUninit<u8>; MESSAGE_BYTES_MAX]);
    let mut whole = Whole([const { MaybeUninit::uninit() }; MESSAGE_BYTES_MAX]);
    let to = whole.0.as_mut_ptr().cast::<u8>();
    // SAFETY: the message has at most `MESSAGE_BYTES_MAX` bytes, as every slot is at most 4096; the lap word is zero here.
    unsafe {
        to.cast::<u32>().write(0);
        let len = slot.cast::<u16>().read() as usize;
        for flit in 0..flits(len) {
            to.add(4 + flit * CARRIED).copy_from_nonoverlapping(slot.add(flit * FLIT_BYTES).as_ptr(), CARRIED);
        }
        f(NonNull::new_unchecked(to.cast()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Hlc;
    use crate::id::{ActorId, Key, TypeId};
    use crate::message::{Kind, payload_bytes_max};
    use crate::queue::parts;

    #[repr(align(16))]
    struct Slot([u8; 256]);

    #[test]
    fn a_message_of_any_length_comes_out_as_it_went_in() {
        let mut slot = Slot([0; 256]);
        let at = NonNull::from(&mut slot.0).cast::<u8>();
        for len in 0..=payload_bytes_max(256) {
            let payload: Vec<u8> = (0..len).map(|i| i as u8 ^ 0x5a).collect();
            let to = ActorId::new(TypeId(7), Key(u64::MAX - 3));
            let header = Header::new(Kind::Ask, to, ActorId::new(TypeId(9), Key(4)), len, Hlc(77));
            let mark = len as u32 + 1;
            unsafe {
                assert!(!present(at, 256, mark));
                write(at, mark, &header, &payload);
                assert!(present(at, 256, mark));
                with(at, |message| assert_eq!(parts(message), (&header, &payload[..])));
            }
        }
    }

    #[test]
    fn a_message_that_lacks_a_flit_is_not_there() {
        let mut slot = Slot([0; 256]);
        let at = NonNull::from(&mut slot.0).cast::<u8>();
        let header = Header::new(Kind::Tell, ActorId::default(), ActorId::default(), 60, Hlc(1));
        for missing in 0..flits(60) {
            unsafe {
                write(at, 5, &header, &[1; 60]);
                lap(at, missing).store(4, Ordering::Relaxed);
                assert!(!present(at, 256, 5));
            }
        }
        // A length that no slot holds is no message either.
        unsafe {
            write(at, 5, &header, &[1; 60]);
            at.cast::<u16>().write(u16::MAX);
            assert!(!present(at, 256, 5));
        }
    }
}
