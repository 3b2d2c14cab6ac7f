//! The road of a checkpoint between a device and its node: for each lane two rings of bytes, one each way.
//!
//! Up: what a lane's part of a cut captured, as [records](crate::checkpoint). Down: what a new host begins with. Each way has
//! one writer and one reader, and a counter of each, which only it writes; bytes lie at the counter's place modulo the ring's
//! length. Nothing is framed: records frame themselves, and a host that dies leaves nothing that anybody reads, for the
//! node clears all counters before there is another.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::ring::Line;
use crate::segment::Segment;

/// A lane's counters, all zero at the beginning of a term.
#[repr(C)]
pub struct StagingWords {
    pub host: Line<HostWords>,
    pub node: Line<NodeWords>,
}

/// Written by the device host.
#[repr(C)]
#[derive(Default)]
pub struct HostWords {
    /// Bytes written up.
    pub written: AtomicU64,
    /// Bytes taken of what came down.
    pub taken: AtomicU64,
    /// The newest epoch of which this lane's part is written whole, and how many bytes had been written up at its end.
    pub epoch: AtomicU64,
    pub end: AtomicU64,
    /// How long the lane's workers stood still for that cut, in nanoseconds: the longest of them.
    pub pause_ns: AtomicU64,
}

/// Written by the node.
#[repr(C)]
#[derive(Default)]
pub struct NodeWords {
    /// Bytes written down.
    pub written: AtomicU64,
    /// Bytes taken of what came up.
    pub taken: AtomicU64,
}
const _: () = assert!(size_of::<StagingWords>() == 256 && size_of::<Line<HostWords>>() == 128);
const _: () = {
    use std::mem::offset_of;
    assert!(
        offset_of!(HostWords, written) == 0 && offset_of!(HostWords, taken) == 8 && offset_of!(HostWords, epoch) == 16
    );
    assert!(offset_of!(HostWords, end) == 24 && offset_of!(HostWords, pause_ns) == 32);
    assert!(offset_of!(NodeWords, written) == 0 && offset_of!(NodeWords, taken) == 8);
};

/// One end of one way.
struct Way {
    _segment: Arc<Segment>,
    base: NonNull<u8>,
    capacity: u64,
}

impl Way {
    /// The bytes from `at` on that lie in one piece, at most `bytes`.
    fn piece(&self, at: u64, bytes: u64) -> (*mut u8, usize) {
        let offset = at & (self.capacity - 1);
        let bytes = bytes.min(self.capacity - offset);
        // SAFETY: the offset is less than the ring's length.
        (unsafe { self.base.as_ptr().add(offset as usize) }, bytes as usize)
    }
}

/// The writing end of a way.
pub struct Writer {
    way: Way,
    written: NonNull<AtomicU64>,
    taken: NonNull<AtomicU64>,
}

/// The reading end of a way.
pub struct Reader {
    way: Way,
    written: NonNull<AtomicU64>,
    taken: NonNull<AtomicU64>,
}

// SAFETY: the words lie in the segment, which each end keeps mapped; bytes are touched as the counters say.
unsafe impl Send for Writer {}
// SAFETY: as above.
unsafe impl Send for Reader {}

/// The host's ends of a lane.
pub fn host(segment: &Arc<Segment>, lane: usize) -> (Writer, Reader) {
    let words = segment.staging(lane);
    (writer(segment, segment.staging_up(lane), &words.host.0.written, &words.node.0.taken), {
        reader(segment, segment.staging_down(lane), &words.node.0.written, &words.host.0.taken)
    })
}

/// The node's ends of a lane.
pub fn node(segment: &Arc<Segment>, lane: usize) -> (Writer, Reader) {
    let words = segment.staging(lane);
    (writer(segment, segment.staging_down(lane), &words.node.0.written, &words.host.0.taken), {
        reader(segment, segment.staging_up(lane), &words.host.0.written, &words.node.0.taken)
    })
}

fn writer(segment: &Arc<Segment>, base: NonNull<u8>, written: &AtomicU64, taken: &AtomicU64) -> Writer {
    let way = Way { _segment: segment.clone(), base, capacity: u64::from(segment.shape().staging_bytes) };
    Writer { way, written: NonNull::from(written), taken: NonNull::from(taken) }
}

fn reader(segment: &Arc<Segment>, base: NonNull<u8>, written: &AtomicU64, taken: &AtomicU64) -> Reader {
    let way = Way { _segment: segment.clone(), base, capacity: u64::from(segment.shape().staging_bytes) };
    Reader { way, written: NonNull::from(written), taken: NonNull::from(taken) }
}

impl Writer {
    fn written(&self) -> &AtomicU64 {
        // SAFETY: in the segment, which the way keeps mapped.
        unsafe { self.written.as_ref() }
    }

    /// Writes as many of the bytes as there is room for, and says how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let at = self.written().load(Relaxed);
        // SAFETY: as for `written`. Acquire pairs with the release in `Reader::read`: it is done with those bytes.
        let taken = unsafe { self.taken.as_ref() }.load(Acquire);
        let room = self.way.capacity - (at - taken);
        let mut done = 0;
        while done < bytes.len() && (done as u64) < room {
            let wanted = (bytes.len() - done) as u64;
            let (to, piece) = self.way.piece(at + done as u64, wanted.min(room - done as u64));
            // SAFETY: the piece is inside the ring, and the reader does not look at it before `written` says so.
            unsafe { to.copy_from_nonoverlapping(bytes[done..].as_ptr(), piece) };
            done += piece;
        }
        // Release pairs with the acquire in `Reader::read`: whoever sees the count sees the bytes.
        self.written().store(at + done as u64, Release);
        done
    }

    /// Bytes ever written.
    pub fn position(&self) -> u64 {
        self.written().load(Relaxed)
    }
}

impl Reader {
    fn taken(&self) -> &AtomicU64 {
        // SAFETY: in the segment, which the way keeps mapped.
        unsafe { self.taken.as_ref() }
    }

    /// Appends to `into` what has come, at most `most` bytes, and says how many there were.
    pub fn read(&mut self, into: &mut Vec<u8>, most: usize) -> usize {
        let at = self.taken().load(Relaxed);
        // SAFETY: as for `taken`. Acquire pairs with the release in `Writer::write`.
        let written = unsafe { self.written.as_ref() }.load(Acquire);
        let there = (written - at).min(most as u64).min(self.way.capacity);
        let mut done = 0;
        while done < there {
            let (from, piece) = self.way.piece(at + done, there - done);
            // SAFETY: the piece is inside the ring, and the writer leaves it alone until `taken` says that it was read.
            into.extend_from_slice(unsafe { std::slice::from_raw_parts(from, piece) });
            done += piece as u64;
        }
        // Release pairs with the acquire in `Writer::write`: our reads come before.
        self.taken().store(at + done, Release);
        done as usize
    }

    /// Bytes ever taken.
    pub fn position(&self) -> u64 {
        self.taken().load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Owners;
    use crate::segment::Shape;

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_slices() {
        let shape = Shape { staging_bytes: 4096, ..Shape::default() };
        let segment = Segment::create(shape, 0, &Owners::all_here(1)).unwrap();
        let ((mut up, _), (_, mut reader)) = (host(&segment, 0), node(&segment, 0));
        let sent: Vec<u8> = (0..100_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let (mut at, mut got, mut random) = (0, Vec::new(), 1u64);
        while got.len() < sent.len() {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let wanted = (random >> 50) as usize % 6_000;
            at += up.write(&sent[at..(at + wanted).min(sent.len())]);
            assert!(at - got.len() <= 4096, "no more than the ring holds");
            reader.read(&mut got, (random >> 40) as usize % 5_000);
        }
        assert_eq!(got, sent);
        assert_eq!(up.position(), reader.position());
    }
}
