//! A growable queue of messages that never moves what it holds.
//!
//! Messages lie packed (header, payload, padding to eight bytes) in chunks; a full queue takes another
//! chunk, an emptied chunk is used again at once, so that a short queue stays in the first-level cache.
//! Because nothing moves, a handler reads its message in place while it pushes new ones behind it.
//!
//! It is a worker's run queue, and its spill lists: what had no credit waits here, in order.

use std::collections::VecDeque;
use std::ptr::NonNull;

use crate::id::ActorId;
use crate::message::{HEADER_BYTES, Header};

/// Room for the largest message several times over, and two chunks fit the first-level cache.
const CHUNK_BYTES: usize = 4 * 1024;
/// Empty chunks kept for later, 64 MiB of them; the rest go back to the allocator. Getting a page from the system costs
/// more than the messages in it.
const SPARE_CHUNKS_MAX: usize = 16_384;

/// How far [`Queue::far_ahead`] looks: as long as memory takes to answer, in messages.
const PLACES_AHEAD: usize = 8;

#[repr(C, align(64))]
struct Chunk {
    bytes: [std::mem::MaybeUninit<u8>; CHUNK_BYTES],
}

/// See the module's documentation.
pub struct Queue {
    /// Every chunk but the last is read up to its recorded end; the last, up to `write`.
    chunks: VecDeque<(NonNull<Chunk>, usize)>,
    spare: Vec<NonNull<Chunk>>,
    /// The next message to read, in the first chunk, and where that chunk's messages end; for the only chunk, any
    /// place that `read` does not reach before the queue is empty. Null when there is no chunk yet.
    read: *mut u8,
    read_end: *mut u8,
    /// The next free byte of the last chunk, and its end. Null when there is no chunk yet.
    write: *mut u8,
    write_end: *mut u8,
    /// Messages ever pushed and not truncated, and messages ever popped: each a word of its own, so that a push
    /// does not wait for a pop's store, or a pop for a push's.
    pushed: u64,
    popped: u64,
}

// SAFETY: the chunks are owned by the queue alone; nothing in it is tied to a thread.
unsafe impl Send for Queue {}

/// The first message of a queue: see [`Queue::front`].
pub struct Front {
    pub message: NonNull<Header>,
    /// One past it.
    end: *mut u8,
}

/// A place in a queue to cut back to: see [`Queue::truncate`].
#[derive(Clone, Copy)]
pub struct Mark {
    chunks: usize,
    write: *mut u8,
    pushed: u64,
}

// SAFETY: a mark is only ever used through the queue it was taken from.
unsafe impl Send for Mark {}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            chunks: VecDeque::new(),
            spare: Vec::new(),
            read: std::ptr::null_mut(),
            read_end: std::ptr::null_mut(),
            write: std::ptr::null_mut(),
            write_end: std::ptr::null_mut(),
            pushed: 0,
            popped: 0,
        }
    }
}

impl Queue {
    /// Messages in the queue.
    #[inline(always)]
    pub fn len(&self) -> usize {
        (self.pushed - self.popped) as usize
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.read == self.write
    }

    /// Messages ever pushed, less those truncated.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Messages ever popped.
    pub fn popped(&self) -> u64 {
        self.popped
    }

    /// Room for one message of `payload_bytes` if the last chunk has it: 8-aligned and not yet initialised. It is in
    /// the queue when this returns, so the caller writes the header and all of the padded payload before anything else.
    #[inline(always)]
    pub fn reserve_here(&mut self, payload_bytes: usize) -> Option<*mut u8> {
        let bytes = HEADER_BYTES + ((payload_bytes + 7) & !7);
        let at = self.write;
        if (self.write_end as usize) - (at as usize) < bytes {
            return None;
        }
        // SAFETY: `bytes` are free between `write` and `write_end`, as checked just above.
        self.write = unsafe { at.add(bytes) };
        self.pushed += 1;
        Some(at)
    }

    /// As [`Queue::reserve_here`], in another chunk if need be.
    pub fn reserve(&mut self, payload_bytes: usize) -> *mut u8 {
        if let Some(at) = self.reserve_here(payload_bytes) {
            return at;
        }
        self.grow(HEADER_BYTES + ((payload_bytes + 7) & !7));
        self.reserve_here(payload_bytes).expect("a chunk has room for the largest message")
    }

    #[cold]
    fn grow(&mut self, bytes: usize) {
        assert!(bytes <= CHUNK_BYTES, "a message is never larger than the largest slot");
        if let Some((chunk, end)) = self.chunks.back_mut() {
            *end = self.write as usize - chunk.as_ptr() as usize;
            if self.chunks.len() == 1 {
                self.read_end = self.write;
            }
        }
        let chunk = self.spare.pop().unwrap_or_else(|| {
            // Zeroed, so that what `far_ahead` reads is always something.
            // SAFETY: any bytes are a chunk.
            NonNull::from(Box::leak(unsafe { Box::<Chunk>::new_zeroed().assume_init() }))
        });
        self.chunks.push_back((chunk, CHUNK_BYTES));
        self.write = chunk.as_ptr().cast();
        // SAFETY: one past the end of the chunk.
        self.write_end = unsafe { self.write.add(CHUNK_BYTES) };
        if self.chunks.len() == 1 {
            (self.read, self.read_end) = (self.write, self.write_end);
        }
    }

    /// Copies a message in.
    #[inline]
    pub fn push(&mut self, header: &Header, payload: &[u8]) {
        debug_assert_eq!(header.len as usize, payload.len());
        let at = self.reserve(payload.len());
        // SAFETY: `reserve` gave room for the header and the padded payload.
        unsafe {
            at.cast::<Header>().write(*header);
            let body = at.add(HEADER_BYTES);
            if header.padded_len() > 0 {
                body.add(header.padded_len() - 8).cast::<u64>().write(0);
            }
            body.copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        }
    }

    /// The oldest message. It stays valid until [`Queue::pop`], also while more is pushed.
    #[inline(always)]
    pub fn front(&mut self) -> Option<Front> {
        if self.is_empty() {
            return None;
        }
        if self.read == self.read_end {
            self.next_chunk();
        }
        // SAFETY: a message is left, so there is a chunk, and `read` points to the message in it, which is whole.
        unsafe {
            let message = NonNull::new_unchecked(self.read).cast::<Header>();
            Some(Front { message, end: self.read.add(HEADER_BYTES + message.as_ref().padded_len()) })
        }
    }

    #[cold]
    fn next_chunk(&mut self) {
        let (done, _) = self.chunks.pop_front().expect("the message is in a later chunk");
        self.recycle(done);
        let (chunk, end) = *self.chunks.front().expect("the message is in a later chunk");
        self.read = chunk.as_ptr().cast();
        // SAFETY: `end` is at most the chunk's length.
        self.read_end = unsafe { self.read.add(end) };
    }

    /// The message behind `front`, if it is there and in the same chunk.
    #[inline(always)]
    pub fn second(&self, front: &Front) -> Option<NonNull<Header>> {
        let there = front.end != self.write && front.end != self.read_end;
        // SAFETY: not null: it is behind a message.
        there.then(|| unsafe { NonNull::new_unchecked(front.end) }.cast())
    }

    /// What is likely to be the receiver of a message some places behind `front`: it is, where the messages between them
    /// are as long as that one. Good for nothing but a prefetch.
    #[inline(always)]
    pub fn far_ahead(&self, front: &Front) -> Option<ActorId> {
        let at = front.end.wrapping_add(PLACES_AHEAD * (front.end as usize - front.message.as_ptr() as usize));
        let inside = (at as usize) + HEADER_BYTES <= self.read_end as usize;
        // SAFETY: `at` is behind `front` and before an end that is inside its chunk, all of whose bytes are initialised;
        // messages and their lengths are multiples of eight bytes, so it is aligned. Any bytes are a header.
        inside.then(|| unsafe { &*at.cast::<Header>() }.to())
    }

    /// Removes the message that [`Queue::front`] gave.
    #[inline(always)]
    pub fn pop(&mut self, front: Front) {
        debug_assert_eq!(front.message.as_ptr().cast(), self.read);
        self.popped += 1;
        self.read = front.end;
        if front.end == self.write {
            self.rewind();
        }
    }

    /// An empty queue starts over at the head of its last chunk, where the cache is warm.
    #[inline(always)]
    fn rewind(&mut self) {
        debug_assert_eq!(self.chunks.len(), 1, "a later chunk is made for a message, and goes with its last");
        let chunk = self.write_end as usize - CHUNK_BYTES;
        self.read = self.write.with_addr(chunk);
        self.write = self.read;
        self.read_end = self.write_end;
    }

    fn recycle(&mut self, chunk: NonNull<Chunk>) {
        if self.spare.len() < SPARE_CHUNKS_MAX {
            self.spare.push(chunk);
        } else {
            free(chunk);
        }
    }

    /// Where the queue ends now. It is good until the next `pop` of this queue.
    #[inline(always)]
    pub fn mark(&self) -> Mark {
        Mark { chunks: self.chunks.len(), write: self.write, pushed: self.pushed }
    }

    /// Forgets everything pushed since `mark`.
    pub fn truncate(&mut self, mark: Mark) {
        while self.chunks.len() > mark.chunks {
            let (chunk, _) = self.chunks.pop_back().expect("there are more chunks than at the mark");
            self.recycle(chunk);
        }
        self.pushed = mark.pushed;
        self.write = mark.write;
        if let Some((chunk, end)) = self.chunks.back_mut() {
            *end = CHUNK_BYTES;
            // SAFETY: one past the end of the chunk that `write` points into.
            self.write_end = unsafe { chunk.as_ptr().cast::<u8>().add(CHUNK_BYTES) };
            if self.chunks.len() == 1 {
                self.read_end = self.write_end;
            }
        } else {
            let null = std::ptr::null_mut();
            (self.write_end, self.read, self.read_end) = (null, null, null);
        }
    }

    /// Takes messages from the front while `take` says that it took them.
    pub fn drain(&mut self, mut take: impl FnMut(&Header, &[u8]) -> bool) {
        while let Some(front) = self.front() {
            // SAFETY: a whole message lies at `front` until it is popped.
            let (header, payload) = unsafe { parts(front.message) };
            if !take(header, payload) {
                return;
            }
            self.pop(front);
        }
    }

    /// Looks at every message, oldest first.
    pub fn for_each(&self, mut f: impl FnMut(&Header, &[u8])) {
        let (mut at, mut left) = (self.read, self.len());
        for (number, (chunk, end)) in self.chunks.iter().enumerate() {
            if number > 0 {
                at = chunk.as_ptr().cast();
            }
            let end = chunk.as_ptr() as usize + end;
            while left > 0 && (at as usize) < end {
                // SAFETY: as long as messages are left, one starts here or the chunk's messages are at their end.
                unsafe {
                    let (header, payload) = parts(NonNull::new_unchecked(at).cast());
                    f(header, payload);
                    at = at.add(HEADER_BYTES + header.padded_len());
                }
                left -= 1;
            }
        }
    }
}

/// Header and payload of a message in place.
///
/// # Safety
/// `at` points to a header with its payload behind it, and both stay unchanged as long as the result lives.
#[inline(always)]
pub unsafe fn parts<'a>(at: NonNull<Header>) -> (&'a Header, &'a [u8]) {
    // SAFETY: the caller's.
    unsafe {
        let header = at.as_ref();
        let payload = std::slice::from_raw_parts(at.as_ptr().add(1).cast::<u8>(), header.len as usize);
        (header, payload)
    }
}

fn free(chunk: NonNull<Chunk>) {
    // SAFETY: chunks come from `Box::leak` and each is freed once, by the queue that owns it.
    drop(unsafe { Box::from_raw(chunk.as_ptr()) });
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.chunks.drain(..).for_each(|(chunk, _)| free(chunk));
        self.spare.drain(..).for_each(free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Hlc;
    use crate::message::Kind;

    fn header(stamp: u64, len: usize) -> Header {
        Header::new(Kind::Tell, ActorId::default(), ActorId::default(), len, Hlc(stamp))
    }

    #[test]
    fn what_goes_in_comes_out_in_order_across_chunks() {
        let mut queue = Queue::default();
        let (mut pushed, mut popped) = (0u64, 0u64);
        for round in 0..200u64 {
            for _ in 0..round * 7 % 101 {
                let len = (pushed % 300) as usize;
                queue.push(&header(pushed, len), &vec![pushed as u8; len]);
                pushed += 1;
            }
            for _ in 0..round * 5 % 97 {
                let Some(front) = queue.front() else { break };
                let (h, payload) = unsafe { parts(front.message) };
                assert_eq!(h.hlc, popped);
                assert!(payload.iter().all(|b| *b == popped as u8));
                queue.pop(front);
                popped += 1;
            }
        }
        queue.drain(|h, _| {
            assert_eq!(h.hlc, popped);
            popped += 1;
            true
        });
        assert_eq!(pushed, popped);
        assert!(queue.is_empty());
    }

    #[test]
    fn truncating_forgets_only_what_came_after_the_mark() {
        for before in [0u64, 1, 300, 700] {
            let mut queue = Queue::default();
            (0..before).for_each(|i| queue.push(&header(i, 24), &[0; 24]));
            let mark = queue.mark();
            (0..1000).for_each(|i| queue.push(&header(9_000 + i, 24), &[0; 24]));
            queue.truncate(mark);
            assert_eq!(queue.len(), before as usize);
            (before..before + 500).for_each(|i| queue.push(&header(i, 24), &[0; 24]));
            let mut seen = 0;
            queue.for_each(|h, _| {
                assert_eq!(h.hlc, seen);
                seen += 1;
            });
            assert_eq!(seen, before + 500);
            let mut next = 0;
            queue.drain(|h, _| {
                assert_eq!(h.hlc, next);
                next += 1;
                true
            });
            assert_eq!(next, before + 500);
        }
    }

    #[test]
    fn a_message_stays_in_place_while_others_are_pushed() {
        let mut queue = Queue::default();
        queue.push(&header(1, 8), &[7; 8]);
        let front = queue.front().unwrap();
        (0..5_000).for_each(|i| queue.push(&header(i, 60), &[1; 60]));
        let (h, payload) = unsafe { parts(front.message) };
        assert_eq!((h.hlc, payload), (1, &[7u8; 8][..]));
    }
}
