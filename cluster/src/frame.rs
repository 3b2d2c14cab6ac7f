//! How messages are packed into a lane: frames of raw messages, and what is checked before one is believed.
//!
//! A frame is a header of 32 bytes and then messages exactly as [`ringhold_kernels::message::append`] makes them. Framing costs
//! are per batch: whoever writes fills a [`FrameBuffer`] while the last one is on its way, so that batches
//! form by themselves under load, and a lone message leaves at once.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `len`: bytes after the header, a multiple of eight |
//! | 4 | 1 | version |
//! | 5 | 1 | `flags` |
//! | 6 | 2 | zero |
//! | 8 | 4 | `count`: messages |
//! | 12 | 4 | zero |
//! | 16 | 8 | `mark` |
//! | 24 | 8 | `release` |
//!
//! A client numbers its messages from 1, over all nodes and all its connections; a lane carries those that are for its node, in
//! their order. Each bears the low half of its number in the key of its `from`, and is the first after the one before it with
//! that half. Towards the node, `mark` is one less than the number of this frame's first message. Towards the client it is the
//! last one that the node has taken, which is what makes a flush mean something. `release` says up to which message the other side need keep nothing for this one any more: towards the
//! client, no messages, because what they did is durable; towards the node, no answers, because they have arrived or nobody
//! waits for them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{ConnectionError, ReadError, RecvStream};
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::{self, HEADER_BYTES, Header, Kind};
use tokio::time::Instant;

use crate::wire;

pub const FRAME_HEADER_BYTES: usize = 32;
/// The largest `len` a frame may have.
pub const FRAME_BYTES_MAX: usize = 256 << 10;
/// At which `len` writers start the next frame: the reader begins work once it has a frame whole.
pub const FRAME_BYTES_TARGET: usize = 64 << 10;
/// The largest message there can be: a payload's length is 16 bits.
pub const MESSAGE_BYTES_MAX: usize = HEADER_BYTES + (u16::MAX as usize + 1);
/// Behind a frame that is just under the target any message still fits.
const _: () = assert!(FRAME_BYTES_TARGET + MESSAGE_BYTES_MAX <= FRAME_BYTES_MAX);

const FRAME_VERSION: u8 = wire::VERSION as u8;

/// In frames towards the client: the node stops. The client finishes its side of the lane, and keeps what it has
/// not written for the next connection.
pub const FLAG_STOPPING: u8 = 1;
/// In frames towards the node: the client keeps half of what it may keep, and waits for checkpoints to let it go.
pub const FLAG_HURRY: u8 = 2;
/// In frames towards the client: what it has sent after `mark` is not taken, because the next of it is for a shard that another
/// node has. The lane ends; the client learns who has what now, and sends that again to whom it belongs.
pub const FLAG_MOVED: u8 = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHeader {
    pub len: u32,
    pub flags: u8,
    pub count: u32,
    pub mark: u64,
    pub release: u64,
}

impl FrameHeader {
    pub fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4] = FRAME_VERSION;
        bytes[5] = self.flags;
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.mark.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.release.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader, FrameError> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let header = FrameHeader { len: word(0), flags: bytes[5], count: word(8), mark: long(16), release: long(24) };
        if bytes[4] != FRAME_VERSION {
            return Err(FrameError::Version(bytes[4]));
        }
        if bytes[6..8] != [0; 2]
            || bytes[12..16] != [0; 4]
            || header.flags & !(FLAG_STOPPING | FLAG_HURRY | FLAG_MOVED) != 0
        {
            return Err(FrameError::Reserved);
        }
        if header.len as usize > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge(header.len));
        }
        if !header.len.is_multiple_of(8) || header.count as usize > header.len as usize / HEADER_BYTES {
            return Err(FrameError::Count);
        }
        Ok(header)
    }
}

/// How a frame broke the rules. Each closes the connection and is counted by [`FrameError::cause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame is of version {0}; this side speaks {FRAME_VERSION}")]
    Version(u8),
    #[error("a frame sets bits that must be zero")]
    Reserved,
    #[error("a frame of {0} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge(u32),
    #[error("a frame's length, its count and its messages do not agree")]
    Count,
    #[error("a frame or message follows message {got}, and the one before it was {last}: numbers grow")]
    Sequence { last: u64, got: u64 },
    #[error("the lane ended inside a frame")]
    Truncated,
    #[error("a message runs past the end of its frame")]
    Overrun,
    #[error("a message of kind {0} may not come from a client")]
    Kind(u8),
    #[error("a payload of {len} bytes is over the limit of {max}")]
    Payload { len: u16, max: u32 },
    #[error("a message's sender is not the client that sends it")]
    Sender,
    #[error("a message sets fields that must be zero")]
    Message,
}

/// The causes by which bad frames are counted, as [`FrameError::cause`] numbers them.
pub const FRAME_ERROR_CAUSES: [&str; 11] = [
    "version",
    "reserved",
    "too_large",
    "count",
    "sequence",
    "truncated",
    "overrun",
    "kind",
    "payload",
    "sender",
    "message",
];

impl FrameError {
    pub fn cause(&self) -> usize {
        match self {
            FrameError::Version(_) => 0,
            FrameError::Reserved => 1,
            FrameError::TooLarge(_) => 2,
            FrameError::Count => 3,
            FrameError::Sequence { .. } => 4,
            FrameError::Truncated => 5,
            FrameError::Overrun => 6,
            FrameError::Kind(_) => 7,
            FrameError::Payload { .. } => 8,
            FrameError::Sender => 9,
            FrameError::Message => 10,
        }
    }
}

/// Messages on their way out, already in frames.
///
/// The frames' headers are written by [`FrameBuffer::seal`], when it is known what came before.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Where the open frame's header is; meaningless while `bytes` is empty.
    open: usize,
    /// At which length the next frame begins. Up to it, and for one message of any size from there, `bytes` has the
    /// capacity. Zero while there is no frame.
    limit: usize,
    count: u32,
    messages: u64,
}

impl FrameBuffer {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes, framing included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The frames; whole and right once sealed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.limit = 0;
        self.count = 0;
        self.messages = 0;
    }

    /// The frames, for good; whole and right once sealed. The memory comes back to `spare` when nobody reads them
    /// any more, for [`FrameBuffer::reuse`].
    pub fn into_bytes(self, spare: &Spare) -> Bytes {
        Bytes::from_owner(Lent { bytes: self.bytes, spare: spare.clone() })
    }

    /// An empty buffer, in memory used before if there is some.
    pub fn reuse(spare: &Spare) -> FrameBuffer {
        FrameBuffer { bytes: spare.0.lock().pop().unwrap_or_default(), ..FrameBuffer::default() }
    }

    #[inline]
    pub fn push(&mut self, header: &Header, payload: &[u8]) {
        debug_assert_eq!(header.len as usize, payload.len());
        self.push_with(header, |to| to.copy_from_slice(payload));
    }

    /// Appends a message whose payload `write` fills in: `header.len` zeroed bytes.
    ///
    /// This is where a client spends its time, so header and payload are written in place: building either elsewhere
    /// and copying it costs more than all the rest.
    #[inline(always)]
    pub fn push_with(&mut self, header: &Header, write: impl FnOnce(&mut [u8])) {
        let len = header.len as usize;
        let bytes = HEADER_BYTES + header.padded_len();
        if self.bytes.len() >= self.limit {
            self.next_frame();
        }
        let start = self.bytes.len();
        debug_assert!(start < self.limit && self.bytes.capacity() >= self.limit + MESSAGE_BYTES_MAX);
        // SAFETY: below the limit there is capacity for a message of any size (see `limit`, which only `next_frame`
        // raises); all of the message's bytes are written before the length covers them.
        unsafe {
            let to = self.bytes.as_mut_ptr().add(start);
            to.cast::<Header>().write_unaligned(*header);
            to.add(HEADER_BYTES).write_bytes(0, bytes - HEADER_BYTES);
            self.bytes.set_len(start + bytes);
        }
        write(&mut self.bytes[start + HEADER_BYTES..start + HEADER_BYTES + len]);
        self.count += 1;
        self.messages += 1;
    }

    #[cold]
    fn next_frame(&mut self) {
        self.close_frame();
        self.open = self.bytes.len();
        self.limit = self.open + FRAME_BYTES_TARGET;
        self.bytes.reserve(FRAME_BYTES_TARGET + MESSAGE_BYTES_MAX);
        self.bytes.resize(self.open + FRAME_HEADER_BYTES, 0);
    }

    fn close_frame(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let len = (self.bytes.len() - self.open - FRAME_HEADER_BYTES) as u32;
        let header = FrameHeader { len, count: self.count, ..FrameHeader::default() };
        self.bytes[self.open..self.open + FRAME_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        self.count = 0;
    }

    /// Writes the headers for messages of which the first has this number (towards the node). Each bears the low half of its own,
    /// and from one frame's first to the next one's are fewer than 2^32.
    pub fn seal(&mut self, first: u64, release: u64, flags: u8) {
        let mut last = first - 1;
        self.seal_with(|header, body| {
            last = numbers_of(body, last).next().unwrap_or(last);
            let mark = last - 1;
            (header.mark, header.release, header.flags) = (mark, release, flags);
        });
    }

    /// Writes the headers as an answer of a node that has taken messages up to `taken`.
    pub fn seal_answers(&mut self, taken: u64, release: u64, flags: u8) {
        self.seal_with(|header, _| (header.mark, header.release, header.flags) = (taken, release, flags));
    }

    /// Appends a frame without messages, of which only the header speaks.
    pub fn push_empty_frame(&mut self) {
        self.next_frame();
    }

    fn seal_with(&mut self, mut change: impl FnMut(&mut FrameHeader, &[u8])) {
        let open_count = self.count;
        self.close_frame();
        // Sealing must not change what a second sealing sees: the open frame stays the last.
        self.count = open_count;
        let mut at = 0;
        while at < self.bytes.len() {
            let (head, rest) =
                self.bytes[at..].split_first_chunk_mut::<FRAME_HEADER_BYTES>().expect("frames are whole");
            let mut header = FrameHeader::from_bytes(head).expect("this buffer wrote it");
            let len = header.len as usize;
            change(&mut header, &rest[..len]);
            *head = header.to_bytes();
            at += FRAME_HEADER_BYTES + len;
        }
    }
}

/// Memory of buffers that were sent, for those to come.
#[derive(Clone, Debug, Default)]
pub struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// Gives back what a busy lane needed and a quiet one does not.
    pub fn trim(&self) {
        self.0.lock().truncate(SPARE_QUIET);
    }
}

/// Buffers kept, also by a quiet lane, and the size up to which one is worth keeping. A lane's messages are kept until
/// they are durable: there are many buffers, and memory that was used before is faster than new memory.
const SPARE_MAX: usize = 320;
const SPARE_QUIET: usize = 16;
const SPARE_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

struct Lent {
    bytes: Vec<u8>,
    spare: Spare,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut spare = self.spare.0.lock();
        if spare.len() < SPARE_MAX && self.bytes.capacity() <= SPARE_BYTES_MAX {
            self.bytes.clear();
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// What the node learns from a frame that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Of its messages, how many wait for an answer.
    pub asks: u32,
    /// The number of the last of them; the mark where there are none.
    pub last: u64,
}

/// Checks every message of a frame from a client, and stamps each with where it came from: behind this, the key of `from`
/// is `session << 32 | number`, with the low half of the message's number, and `hlc` is zero until the node's clock stamps
/// it. `mark` is the frame's.
///
/// Nothing of a frame may be handed on before all of it is checked.
pub fn check_from_client(
    body: &mut [u8],
    count: u32,
    session: u32,
    mark: u64,
    payload_bytes_max: u32,
) -> Result<Checked, FrameError> {
    let high = u64::from(session) << 32;
    let mut last = mark;
    let mut rest = body;
    let mut asks = 0;
    for _ in 0..count {
        let (head, after) = rest.split_first_chunk_mut::<HEADER_BYTES>().ok_or(FrameError::Overrun)?;
        let header = Header::from_bytes(head);
        match header.kind() {
            Some(Kind::Tell) => {}
            Some(Kind::Ask | Kind::Inspect) => asks += 1,
            _ => return Err(FrameError::Kind(head[KIND_OFFSET])),
        }
        if u32::from(header.len) > payload_bytes_max {
            return Err(FrameError::Payload { len: header.len, max: payload_bytes_max });
        }
        let from = header.from();
        if !from.is_client() || from.key.0 >> 32 != 0 {
            return Err(FrameError::Sender);
        }
        let low = from.key.0 as u32;
        let number = next_number(last, low);
        if low == last as u32 {
            return Err(FrameError::Sequence { last, got: last });
        }
        last = number;
        if header.lap != 0 || head[REASON_OFFSET] != 0 || header.to().is_client() {
            return Err(FrameError::Message);
        }
        head[FROM_KEY_OFFSET..FROM_KEY_OFFSET + 8].copy_from_slice(&(high | u64::from(low)).to_ne_bytes());
        head[HLC_OFFSET..HLC_OFFSET + 8].fill(0);
        rest = after.get_mut(header.padded_len()..).ok_or(FrameError::Overrun)?;
    }
    if !rest.is_empty() {
        return Err(FrameError::Count);
    }
    Ok(Checked { asks, last })
}

// As `message::Header` documents and asserts them.
const KIND_OFFSET: usize = 6;
const REASON_OFFSET: usize = 7;
const FROM_KEY_OFFSET: usize = 24;
const HLC_OFFSET: usize = std::mem::offset_of!(Header, hlc);
const _: () = assert!(HLC_OFFSET == FROM_KEY_OFFSET + 8);

/// The numbers of a client's messages, as they are in a frame: those after `last`.
pub fn numbers_of(messages: &[u8], mut last: u64) -> impl Iterator<Item = u64> {
    let mut rest = messages;
    std::iter::from_fn(move || {
        let (header, _, after) = message::split_first(rest)?;
        rest = after;
        last = next_number(last, header.from().key.0 as u32);
        Some(last)
    })
}

/// Who a message comes from, and who waits for its answer: the client with this session number, and which of its messages.
pub const fn client_id(session: u32, number: u32) -> ActorId {
    ActorId::new(TypeId::CLIENT, Key((session as u64) << 32 | number as u64))
}

/// The session number of a client's side of a message, and the low half of the message's number.
pub const fn session_and_number(id: ActorId) -> (u32, u32) {
    ((id.key.0 >> 32) as u32, id.key.0 as u32)
}

/// The first number after this one of which this is the low half.
pub const fn next_number(last: u64, low: u32) -> u64 {
    let ahead = low.wrapping_sub(last as u32) as u64;
    last + if ahead == 0 { 1 << 32 } else { ahead }
}

/// The whole of a message's number, of which this is the low half, where it is less than 2^31 away from `near`.
pub const fn whole_number(near: u64, low: u32) -> u64 {
    let ahead = low.wrapping_sub(near as u32) as i32;
    near.wrapping_add_signed(ahead as i64)
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a frame was not complete {} s after it began", wire::FRAME_DEADLINE.as_secs())]
    TooSlow,
    #[error("the lane was given up by the peer")]
    Reset,
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// Reads frames off a stream, many bytes at a time, into one buffer that is used again and again.
#[derive(Debug)]
pub struct FrameReader {
    bytes: Vec<u8>,
    /// The bytes read and not yet given out.
    start: usize,
    end: usize,
}

/// What a reader asks of the stream while it does not know how long the frame is: a frame of a busy lane, and the
/// next one's header.
const READ_BYTES: usize = FRAME_BYTES_TARGET + 2 * FRAME_HEADER_BYTES;
/// The buffer at first; it grows to the largest frame there is.
const READER_BYTES: usize = 2 * FRAME_BYTES_TARGET;

impl Default for FrameReader {
    fn default() -> FrameReader {
        // Zeroed by the kernel when first touched: a quiet session's buffer is mostly not there.
        FrameReader { bytes: vec![0; READER_BYTES], start: 0, end: 0 }
    }
}

impl FrameReader {
    /// The next frame, or `None` where the lane has ended in good order. Cancelling it loses nothing.
    pub async fn next(&mut self, stream: &mut RecvStream) -> Result<Option<(FrameHeader, &mut [u8])>, LaneError> {
        let mut deadline = None;
        let header = loop {
            let frame = self.frame()?;
            if let Some(header) = frame
                && self.end - self.start >= FRAME_HEADER_BYTES + header.len as usize
            {
                break header;
            }
            let partial = self.end > self.start;
            let read = stream.read(self.make_room(frame));
            let read = if partial {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + wire::FRAME_DEADLINE);
                tokio::time::timeout_at(deadline, read).await.map_err(|_| LaneError::TooSlow)?
            } else {
                read.await
            };
            match read {
                Ok(Some(n)) => self.end += n,
                Ok(None) if partial => return Err(FrameError::Truncated.into()),
                Ok(None) => return Ok(None),
                Err(ReadError::ConnectionLost(e)) => return Err(e.into()),
                Err(_) => return Err(LaneError::Reset),
            }
        };
        let body = self.start + FRAME_HEADER_BYTES;
        self.start = body + header.len as usize;
        Ok(Some((header, &mut self.bytes[body..self.start])))
    }

    /// The header of the frame that has begun, if it is there.
    fn frame(&self) -> Result<Option<FrameHeader>, FrameError> {
        let head = self.bytes[self.start..self.end].first_chunk::<FRAME_HEADER_BYTES>();
        head.map(FrameHeader::from_bytes).transpose()
    }

    /// Where to read to: not much further than the frame's end, so that hardly anything of the next one has to be
    /// moved, and the buffer stays small enough for the cache.
    fn make_room(&mut self, frame: Option<FrameHeader>) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let want = frame.map_or(READ_BYTES, |header| header.len as usize + 2 * FRAME_HEADER_BYTES);
        let want = want.max(self.end + FRAME_HEADER_BYTES);
        if want > self.bytes.len() {
            self.bytes.resize(2 * FRAME_HEADER_BYTES + FRAME_BYTES_MAX, 0);
        }
        &mut self.bytes[self.end..want]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringhold_kernels::hlc::Hlc;

    const TO: ActorId = ActorId::new(TypeId(7), Key(8));

    fn tell(len: usize) -> Header {
        numbered(len, 0)
    }

    fn numbered(len: usize, number: u64) -> Header {
        Header::new(Kind::Tell, TO, client_id(0, number as u32), len, Hlc(0))
    }

    fn frames(buffer: &FrameBuffer) -> Vec<(FrameHeader, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut rest = buffer.bytes();
        while let Some((head, after)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
            let header = FrameHeader::from_bytes(head).unwrap();
            let (body, next) = after.split_at(header.len as usize);
            frames.push((header, body.to_vec()));
            rest = next;
        }
        frames
    }

    #[test]
    fn frames_carry_every_message_in_order_and_their_numbers_come_out_whole() {
        // Those of other lanes are left out, and the low half begins anew among them.
        let number = |i: u64| (7 << 32) - 4_000 + i * 3;
        let mut buffer = FrameBuffer::default();
        for i in 0..5_000u64 {
            buffer.push(&numbered(24, number(i)), &[i as u8; 24]);
        }
        buffer.seal(5, 0, 0);
        buffer.seal(number(0), 7, FLAG_HURRY);
        let frames = frames(&buffer);
        assert!(frames.len() > 2);
        let mut i = 0;
        for (header, mut body) in frames {
            assert_eq!((header.mark, header.release, header.flags), (number(i) - 1, 7, FLAG_HURRY));
            assert!(header.len as usize <= FRAME_BYTES_MAX);
            let last = number(i + u64::from(header.count) - 1);
            assert!(numbers_of(&body, header.mark).eq((i..i + u64::from(header.count)).map(number)));
            assert_eq!(check_from_client(&mut body, header.count, 3, header.mark, 24), Ok(Checked { asks: 0, last }));
            let mut rest = body.as_slice();
            while let Some((header, payload, after)) = message::split_first(rest) {
                assert_eq!(payload, [i as u8; 24]);
                assert_eq!(session_and_number(header.from()), (3, number(i) as u32));
                i += 1;
                rest = after;
            }
        }
        assert_eq!(i, 5_000);
    }

    #[test]
    fn a_buffer_used_again_holds_only_what_is_new() {
        let spare = Spare::default();
        let mut buffer = FrameBuffer::default();
        for round in 0..3u8 {
            // One that is sent, one that is cleared; the largest message there can be, behind one frame's worth.
            for i in 0..3_000u32 {
                buffer.push(&numbered(4, u64::from(i) + 1), &i.to_le_bytes());
            }
            buffer.push(&numbered(65_535, 3_001), &vec![round; 65_535]);
            buffer.push(&numbered(0, 3_002), &[]);
            buffer.seal(1, 0, 0);
            let messages: u32 = frames(&buffer).iter().map(|(header, _)| header.count).sum();
            assert_eq!((u64::from(messages), buffer.messages()), (3_002, 3_002));
            let bytes = std::mem::replace(&mut buffer, FrameBuffer::reuse(&spare)).into_bytes(&spare);
            // The largest takes its frame over the target, so that the last is alone in the next one.
            assert_eq!(bytes[bytes.len() - HEADER_BYTES - FRAME_HEADER_BYTES - 2], round);
            drop(bytes);
            assert_eq!(spare.0.lock().len(), 1);
            buffer.push(&tell(0), &[]);
            buffer.clear();
            buffer.push_empty_frame();
            buffer.seal_answers(7, 5, 0);
            assert_eq!(frames(&buffer), [(FrameHeader { mark: 7, release: 5, ..FrameHeader::default() }, vec![])]);
            buffer.clear();
        }
    }

    fn body(headers: &[Header]) -> Vec<u8> {
        let mut body = Vec::new();
        for header in headers {
            message::append(&mut body, header, &vec![1; header.len as usize]);
        }
        body
    }

    #[test]
    fn a_checked_message_bears_its_session_and_no_stamp() {
        let ask = Header::new(Kind::Ask, TO, client_id(0, 76), 8, Hlc(u64::MAX));
        let mut body = body(&[ask, numbered(3, 80)]);
        let before = u64::from(u32::MAX) + 76;
        let checked = Checked { asks: 1, last: before + 5 };
        assert_eq!(check_from_client(&mut body, 2, 0xabcd, before, 8), Ok(checked));
        let (header, _, _) = message::split_first(&body).unwrap();
        assert_eq!(session_and_number(header.from()), (0xabcd, 76));
        assert_eq!((header.hlc, header.to(), header.kind()), (0, TO, Some(Kind::Ask)));
        assert_eq!(whole_number(before, 76), before + 1);
    }

    #[test]
    fn a_number_is_whole_again_on_either_side_of_where_its_half_begins_anew() {
        for near in [5, u64::from(u32::MAX), 1 << 32, (7 << 32) + 3] {
            for number in [near.saturating_sub(9), near, near + 9] {
                assert_eq!(whole_number(near, number as u32), number, "near {near}");
            }
        }
    }

    #[test]
    fn each_kind_of_bad_message_is_named() {
        let check = |headers: &[Header], count| {
            let numbered = |(number, header): (u32, &Header)| match header.from() == client_id(0, 0) {
                true => header.with_from(client_id(0, number)),
                false => *header,
            };
            let headers: Vec<Header> = (1..).zip(headers).map(numbered).collect();
            check_from_client(&mut body(&headers), count, 1, 0, 16)
        };
        let reply = tell(8).with_kind(Kind::Reply);
        assert_eq!(check(&[tell(8), reply], 2), Err(FrameError::Kind(3)));
        assert_eq!(check(&[tell(17)], 1), Err(FrameError::Payload { len: 17, max: 16 }));
        assert_eq!(check(&[tell(8).with_from(TO)], 1), Err(FrameError::Sender));
        assert_eq!(check(&[tell(8).with_from(client_id(1, 1))], 1), Err(FrameError::Sender));
        assert_eq!(
            check(&[numbered(8, 3), numbered(8, 3)], 2),
            Err(FrameError::Sequence { last: 3, got: 3 }),
            "numbers grow"
        );
        assert_eq!(check(&[tell(8).with_to(ActorId::default())], 1), Err(FrameError::Message));
        let mut lapped = tell(8);
        lapped.lap = 1;
        assert_eq!(check(&[lapped], 1), Err(FrameError::Message));
        assert_eq!(check(&[tell(8)], 2), Err(FrameError::Overrun));
        assert_eq!(check(&[tell(8), tell(8)], 1), Err(FrameError::Count));
        let mut cut = body(&[numbered(16, 1)]);
        cut.truncate(48);
        assert_eq!(check_from_client(&mut cut, 1, 1, 0, 16), Err(FrameError::Overrun));
    }

    #[test]
    fn a_frame_header_refuses_what_this_version_does_not_know() {
        let good = FrameHeader { len: 48, flags: 0, count: 1, mark: 5, release: 0 }.to_bytes();
        assert!(FrameHeader::from_bytes(&good).is_ok());
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            FrameHeader::from_bytes(&bytes)
        };
        assert_eq!(with(4, 9), Err(FrameError::Version(9)));
        assert_eq!(with(5, 8), Err(FrameError::Reserved));
        assert_eq!(with(7, 1), Err(FrameError::Reserved));
        assert_eq!(with(3, 1), Err(FrameError::TooLarge(48 + (1 << 24))));
        assert_eq!(with(0, 47), Err(FrameError::Count));
        assert_eq!(with(8, 2), Err(FrameError::Count));
    }
}
