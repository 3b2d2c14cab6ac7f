//! A session's lane: messages in, answers out.

use std::sync::Arc;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};

use quinn::{RecvStream, SendStream, WriteError};
use ringhold_cluster::counters::bump;
use ringhold_cluster::frame::{
    self, FLAG_HURRY, FLAG_MOVED, FLAG_STOPPING, FRAME_HEADER_BYTES, FrameBuffer, FrameError, FrameReader, LaneError,
};
use ringhold_cluster::wire::Close;
use ringhold_kernels::message::{self, Kind, Reason};

use super::{Fault, ROOM_RETRY, Served, Session, Shared};

/// Runs until the client has finished its side and has every answer, or sends what is for another node's actor, or until either
/// side breaks off.
pub(super) async fn run(
    send: SendStream,
    recv: RecvStream,
    session: &Arc<Session>,
    shared: &Arc<Shared>,
    payload_bytes_max: u32,
) -> Served {
    let ended = Ended::default();
    let read = async {
        let read = read(recv, session, shared, payload_bytes_max).await;
        ended.0.store(true, SeqCst);
        session.writer.notify_one();
        read.map_err(|e| lane_fault(e, shared))
    };
    let write = async { write(send, session, shared, &ended).await.map_err(|_| None) };
    tokio::try_join!(biased; read, write)?;
    session.lane_finished.store(true, Release);
    shared.progress.notify_one();
    Ok(())
}

/// Nothing more is read: the client has finished its side and everything of it is taken, or it has to go elsewhere.
#[derive(Default)]
struct Ended(std::sync::atomic::AtomicBool);

fn lane_fault(error: LaneError, shared: &Shared) -> Option<Fault> {
    match &error {
        LaneError::Frame(e) => {
            shared.counters.bad_frame(e);
            Some(Fault::new(Close::Frame, error.to_string()))
        }
        LaneError::TooSlow => {
            bump(&shared.counters.too_slow);
            Some(Fault::new(Close::TooSlow, error.to_string()))
        }
        LaneError::Reset | LaneError::Connection(_) => None,
    }
}

async fn read(
    mut recv: RecvStream,
    session: &Arc<Session>,
    shared: &Arc<Shared>,
    payload_bytes_max: u32,
) -> Result<(), LaneError> {
    let counters = &shared.counters;
    let mut reader = FrameReader::default();
    let mut received = session.taken();
    let mut released = 0;
    loop {
        session.may_read().await;
        let Some((header, body)) = reader.next(&mut recv).await? else { return Ok(()) };
        if header.mark < received {
            return Err(FrameError::Sequence { last: received, got: header.mark }.into());
        }
        if header.flags & !FLAG_HURRY != 0 {
            return Err(FrameError::Reserved.into());
        }
        let checked = frame::check_from_client(body, header.count, session.number(), header.mark, payload_bytes_max)?;
        if header.release > released {
            released = header.release;
            shared.doors().release(session.number(), released);
        }
        session.receive(header.mark, header.count);
        counters.frames_in.fetch_add(1, Relaxed);
        counters.bytes_in.fetch_add((body.len() + FRAME_HEADER_BYTES) as u64, Relaxed);
        session.expect_answers(checked.asks);
        held(shared).await;
        let Admitted { refused, left } = admit(body, session, shared).await;
        let left = (left > 0).then(|| split(body, body.len() - left, header.mark));
        received = left.as_ref().map_or(checked.last, |left| left.last);
        let taken = header.count - left.as_ref().map_or(0, |left| left.messages);
        counters.messages_in.fetch_add(u64::from(taken) - refused, Relaxed);
        counters.asks_in.fetch_add(u64::from(checked.asks - left.as_ref().map_or(0, |left| left.asks)), Relaxed);
        session.taken.store(received, Release);
        session.cover(shared.doors().covered(session.number(), received));
        if let Some(left) = left {
            bump(&counters.moved_on);
            session.expect_fewer(left.asks);
            session.moved.store(true, SeqCst);
            return Ok(());
        }
        if header.flags & FLAG_HURRY != 0 {
            shared.doors().hurry();
        }
        // The answers to asks bear the mark; tells have nothing else that would say that they are taken.
        if checked.asks < header.count {
            session.writer.notify_one();
        }
    }
}

/// Waits while the node does not hold its lease.
async fn held(shared: &Shared) {
    if let Some(lease) = shared.doors().lease() {
        lease.held().await;
    }
}

/// What became of a frame's messages.
struct Admitted {
    /// Messages that were turned away.
    refused: u64,
    /// Bytes at its end that are not taken: the first message in them is for another node's actor.
    left: usize,
}

/// The end of a frame that is not taken.
struct Left {
    /// The message before it.
    last: u64,
    messages: u32,
    asks: u32,
}

/// Looks at what is left of a frame behind so many bytes.
fn split(body: &[u8], taken: usize, mark: u64) -> Left {
    let mut left = Left { last: frame::numbers_of(&body[..taken], mark).last().unwrap_or(mark), messages: 0, asks: 0 };
    let mut rest = &body[taken..];
    while let Some((header, _, after)) = message::split_first(rest) {
        left.messages += 1;
        left.asks += u32::from(!header.is(Kind::Tell));
        rest = after;
    }
    left
}

/// How many bytes at the front of a batch are for this node's actors.
fn own(batch: &[u8], shared: &Shared) -> usize {
    let mut rest = batch;
    while let Some((header, _, after)) = message::split_first(rest)
        && !shared.doors().is_elsewhere(header.to())
    {
        rest = after;
    }
    batch.len() - rest.len()
}

/// Hands a frame's messages to the doors, as often as it takes.
async fn admit(body: &[u8], session: &Arc<Session>, shared: &Shared) -> Admitted {
    let mut rest = body;
    loop {
        if shared.refusing.is_set() {
            // Without its lease a node takes nothing, and refusing is taking: another may have the devices by now, and what the client
            // sends that one is handled.
            held(shared).await;
            let own = own(rest, shared);
            return Admitted { refused: refuse(&rest[..own], session, shared), left: rest.len() - own };
        }
        let taken = shared.doors().admit(session, rest);
        debug_assert!(taken <= rest.len() && taken.is_multiple_of(8));
        rest = &rest[taken..];
        let Some((next, _, _)) = message::split_first(rest) else { return Admitted { refused: 0, left: 0 } };
        if shared.doors().is_elsewhere(next.to()) {
            return Admitted { refused: 0, left: rest.len() };
        }
        bump(&shared.counters.held_back_room);
        session.held_back.store(true, SeqCst);
        tokio::select! {
            biased;
            () = shared.refusing.wait() => {}
            () = shared.doors().room() => {}
            () = tokio::time::sleep(ROOM_RETRY) => {}
        }
        session.held_back.store(false, SeqCst);
    }
}

/// Turns away what comes to a node that stops.
fn refuse(batch: &[u8], session: &Arc<Session>, shared: &Shared) -> u64 {
    let refused = shared.doors().refuse(session, batch, Reason::Stopping);
    shared.counters.refused_stopping.fetch_add(refused, Relaxed);
    refused
}

async fn write(mut send: SendStream, session: &Arc<Session>, shared: &Shared, ended: &Ended) -> Result<(), WriteError> {
    let mut buffer = FrameBuffer::default();
    let mut sent = (0, 0, 0);
    loop {
        // Read before the buffer is swapped: where no ask waits, the buffer has all the answers there will be. One that goes elsewhere
        // asks for the others when it is back.
        let moved = session.moved.load(SeqCst);
        let last = ended.0.load(SeqCst) && (moved || session.no_ask_waits());
        session.swap_outgoing(&mut buffer);
        let stopping = if shared.draining.is_set() { FLAG_STOPPING } else { 0 };
        let flags = if moved { stopping | FLAG_MOVED } else { stopping };
        let now = (session.taken(), session.covered(), flags);
        if buffer.is_empty() {
            if now == sent {
                if last {
                    break;
                }
                session.writer.notified().await;
                continue;
            }
            buffer.push_empty_frame();
        }
        // After all that goes out was taken: what there was while nobody else could have the devices may go out however late it is,
        // and what came about later may not, whatever kept this task from going on meanwhile.
        held(shared).await;
        buffer.seal_answers(now.0, now.1, now.2);
        send.write_all(buffer.bytes()).await?;
        sent = now;
        buffer.clear();
        // Answers that were waiting to be written may have been what held the reader back.
        if session.held_back.load(SeqCst) {
            session.reader.notify_one();
        }
    }
    let _ = send.finish();
    // Resolves when the client has it all, so that a close behind this loses nothing.
    let _ = send.stopped().await;
    Ok(())
}
