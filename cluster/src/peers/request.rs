//! One request of a node to another, on a stream of its own: bytes, whose meaning is the service's. And which streams another
//! node may open.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use quinn::{RecvStream, SendStream, WriteError};
use tokio::time::timeout;

use super::PeerService;
use super::hello::PeerHello;
use super::lane::LaneStream;
use crate::counters::{Counters, bump};
use crate::fault::{Fault, Served, parse};
use crate::wire::{
    self, Close, ControlError, GREETING_DEADLINE, PEER_REQUEST_BYTES_MAX, PEER_REQUEST_DEADLINE, PREAMBLE_BYTES,
    Preamble, StreamKind,
};

/// Requests and answers up to so many bytes are sent before larger ones: a heartbeat does not wait behind a snapshot.
const SMALL_BYTES_MAX: usize = 64 << 10;

fn priority(bytes: usize) -> i32 {
    i32::from(bytes <= SMALL_BYTES_MAX)
}

// What an answer begins with.
const ANSWERED: u8 = 0;
const FAILED: u8 = 1;

async fn write(send: &mut SendStream, head: Vec<u8>, body: Vec<u8>) -> Result<(), WriteError> {
    // Fails where the stream is gone, which the write then says.
    let _ = send.set_priority(priority(body.len()));
    let len = (body.len() as u32).to_le_bytes();
    let head = [head.as_slice(), &len].concat();
    send.write_all_chunks(&mut [Bytes::from(head), Bytes::from(body)]).await?;
    let _ = send.finish();
    Ok(())
}

/// Sends a request and reads the answer. The caller sets the deadline, and gives the stream up when it has passed.
pub(super) async fn ask(
    (send, recv): (&mut SendStream, &mut RecvStream),
    version: u16,
    request: Vec<u8>,
) -> Result<Result<Vec<u8>, String>, ControlError> {
    let preamble = Preamble { version, kind: StreamKind::PeerRequest }.to_bytes();
    let written = write(send, preamble.to_vec(), request).await;
    if let Err(WriteError::ConnectionLost(e)) = written {
        return Err(e.into());
    }
    // One that is not read to its end is answered nevertheless.
    let mut outcome = [0];
    wire::read_exact(recv, &mut outcome).await?;
    let answer = wire::receive_bytes(recv, PEER_REQUEST_BYTES_MAX).await?;
    match outcome {
        [ANSWERED] => Ok(Ok(answer)),
        [FAILED] => Ok(Err(String::from_utf8_lossy(&answer).into_owned())),
        [other] => Err(ControlError::Decode(format!("an answer begins with {other}"))),
    }
}

/// Serves a stream of a connection of another node.
pub(super) async fn serve(
    mut send: SendStream,
    mut recv: RecvStream,
    from: Arc<PeerHello>,
    service: Weak<dyn PeerService>,
    counters: Arc<Counters>,
) -> Served {
    let mut first = [0; PREAMBLE_BYTES];
    match timeout(GREETING_DEADLINE, wire::read_exact(&mut recv, &mut first)).await {
        Ok(Ok(())) => {}
        Ok(Err(ControlError::Connection(_))) => return Err(None),
        // The node has changed its mind before it had written so much.
        Ok(Err(_)) => return Ok(()),
        Err(_) => {
            bump(&counters.too_slow);
            return Err(Some(Fault::new(Close::TooSlow, "a stream's preamble did not come in time")));
        }
    }
    let kind = parse(first, &counters)?.kind;
    if kind == StreamKind::PeerLane {
        let Some(service) = service.upgrade() else { return Ok(()) };
        return service.take_lane(LaneStream::new(from.node.clone(), send, recv)).await.map_err(Some);
    }
    if kind != StreamKind::PeerRequest {
        bump(&counters.bad_preambles);
        return Err(Some(Fault::new(Close::Preamble, format!("a node may not open a stream of kind {}", kind as u8))));
    }
    let request = match timeout(PEER_REQUEST_DEADLINE, wire::receive_bytes(&mut recv, PEER_REQUEST_BYTES_MAX)).await {
        Ok(Ok(request)) => Ok(request),
        Ok(Err(e @ ControlError::TooLarge { .. })) => {
            let _ = recv.stop(Close::TooMany.code());
            Err(format!("the request was not read: {e}"))
        }
        // It was given up on its way.
        Ok(Err(_)) => return Ok(()),
        Err(_) => {
            bump(&counters.too_slow);
            let _ = recv.stop(Close::TooSlow.code());
            Err(format!("the request was not complete {} s after it began", PEER_REQUEST_DEADLINE.as_secs()))
        }
    };
    bump(&counters.peer_requests);
    let given_up = send.stopped();
    let answering = async {
        let answer = match (request, service.upgrade()) {
            (Ok(request), Some(service)) => service.answer(from.node.clone(), request).await,
            (Ok(_), None) => Err("the node is stopping".into()),
            (Err(text), _) => Err(text),
        };
        let (outcome, answer) = match answer {
            Ok(answer) if answer.len() > PEER_REQUEST_BYTES_MAX => {
                let text = format!("the answer has {} bytes, over the limit of {PEER_REQUEST_BYTES_MAX}", answer.len());
                (FAILED, text.into_bytes())
            }
            Ok(answer) => (ANSWERED, answer),
            Err(text) => (FAILED, text.into_bytes()),
        };
        // One that does not read it has given up, or will be found silent.
        let _ = write(&mut send, vec![outcome], answer).await;
    };
    tokio::select! {
        biased;
        _ = given_up => {}
        () = answering => {}
    }
    Ok(())
}
