//! A session's lane: messages in, answers out.

use std::sync::Arc;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};

use quinn::{RecvStream, SendStream, WriteError};
use ringhold_cluster::counters::bump;
use ringhold_cluster::frame::{
    self, FLAG_HURRY, FLAG_STOPPING, FRAME_HEADER_BYTES, FrameBuffer, FrameError, FrameReader, LaneError,
};
use ringhold_cluster::wire::{Close, Resumed};
use ringhold_kernels::message::Reason;

use super::{Fault, ROOM_RETRY, Served, Session, Shared};

/// Runs until the client has finished its side and has every answer, or until either side breaks off.
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

/// The client has finished its side and everything of it is taken.
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
    // Where the node does not know what of its messages it has, a client goes on after those.
    let mut begins = session.arrival.resumed == Resumed::Forgotten;
    let mut released = 0;
    loop {
        session.may_read().await;
        let Some((header, body)) = reader.next(&mut recv).await? else { return Ok(()) };
        if std::mem::take(&mut begins) {
            received = header.mark.max(received);
            session.taken.store(received, Release);
        }
        if header.mark != received {
            return Err(FrameError::Sequence { expected: received, got: header.mark }.into());
        }
        if header.flags & !FLAG_HURRY != 0 {
            return Err(FrameError::Reserved.into());
        }
        let checked = frame::check_from_client(body, header.count, session.number(), received, payload_bytes_max)?;
        if header.release > released {
            released = header.release;
            shared.doors().release(session.number(), released);
        }
        received += u64::from(header.count);
        counters.frames_in.fetch_add(1, Relaxed);
        counters.bytes_in.fetch_add((body.len() + FRAME_HEADER_BYTES) as u64, Relaxed);
        session.expect_answers(checked.asks);
        tokio::select! {
            biased;
            () = shared.refusing.wait() => {}
            () = held(shared) => {}
        }
        let refused = admit(body, session, shared).await;
        counters.messages_in.fetch_add(u64::from(header.count) - refused, Relaxed);
        counters.asks_in.fetch_add(u64::from(checked.asks), Relaxed);
        session.taken.store(received, Release);
        session.cover(shared.doors().covered(session.number(), received));
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

/// Hands a frame's messages to the doors, as often as it takes. Returns how many were refused.
async fn admit(body: &[u8], session: &Arc<Session>, shared: &Shared) -> u64 {
    let mut rest = body;
    loop {
        if shared.refusing.is_set() {
            return refuse(rest, session, shared);
        }
        let taken = shared.doors().admit(session, rest);
        debug_assert!(taken <= rest.len() && taken.is_multiple_of(8));
        rest = &rest[taken..];
        if rest.is_empty() {
            return 0;
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
        // Read before the buffer is swapped: where no ask waits, the buffer has all the answers there will be.
        let last = ended.0.load(SeqCst) && session.no_ask_waits();
        session.swap_outgoing(&mut buffer);
        let flags = if shared.draining.is_set() { FLAG_STOPPING } else { 0 };
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
