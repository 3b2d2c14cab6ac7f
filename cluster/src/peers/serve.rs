//! The side of a connection between nodes that was connected to.

use std::sync::Arc;

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::hello::{self, PeerGreeting, PeerHello, PeerRefused};
use super::present::Presence;
use super::{Inner, control, request};
use crate::counters::{Counters, bump};
use crate::fault::{Fault, Served, control_fault};
use crate::tls::{self, NODE_NAME};
use crate::transport::{self, Lost};
use crate::wire::{self, Close, GREETING_DEADLINE, PEER_HELLO_BYTES_MAX, PEER_STREAMS_MAX, REFUSAL_DEADLINE};

pub(super) async fn serve(
    inner: &Inner,
    connection: &Connection,
    mut send: SendStream,
    mut recv: RecvStream,
    counters: &Arc<Counters>,
) -> Served {
    let hello = match timeout(GREETING_DEADLINE, wire::receive_bytes(&mut recv, PEER_HELLO_BYTES_MAX)).await {
        Ok(hello) => hello.map_err(|e| control_fault(&e, counters))?,
        Err(_) => {
            bump(&counters.too_slow);
            return Err(Some(Fault::new(Close::TooSlow, "no hello came in time")));
        }
    };
    match admit(inner, connection, &hello).await {
        Err(refused) => {
            bump(&counters.refused_peers);
            refuse(connection, send, &refused).await;
            Ok(())
        }
        Ok(admitted) => {
            bump(&counters.peers);
            let _ = send.set_priority(control::CONTROL_PRIORITY);
            let greeting = PeerGreeting::Welcome { version: admitted.version, hello: admitted.about };
            wire::send(&mut send, &greeting).await.map_err(|_| None)?;
            transport::widen(connection);
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(PEER_STREAMS_MAX + 1));
            let peer = &admitted.peer;
            tracing::info!(node = peer.node.name, address = %connection.remote_address(), "another node has connected");
            let served = streams(inner, connection, peer, send, recv, &admitted.presence, counters).await;
            let why = connection.close_reason().map(|reason| Lost::of(&reason));
            match &why {
                Some(Lost::Here | Lost::Closed { close: Some(Close::Done | Close::Dropped | Close::Stopping), .. }) => {
                }
                Some(Lost::Closed { close: Some(Close::Refused), .. }) => bump(&counters.refused_peers),
                _ => bump(&counters.peers_lost),
            }
            let why = why.map(|why| why.to_string());
            tracing::info!(node = peer.node.name, why, "the connection of another node has ended");
            served
        }
    }
}

struct Admitted {
    version: u16,
    about: PeerHello,
    peer: Arc<PeerHello>,
    presence: Presence,
}

/// Judges a node by its certificate and its hello.
async fn admit(inner: &Inner, connection: &Connection, hello: &[u8]) -> Result<Admitted, PeerRefused> {
    let invalid = |e: wire::ControlError| PeerRefused::Hello(e.to_string());
    if !tls::peer_bears(connection, NODE_NAME) {
        return Err(PeerRefused::Certificate);
    }
    let service = inner.service.upgrade().ok_or(PeerRefused::Stopping)?;
    let about = service.about();
    let version = hello::version(wire::decode_beginning(hello).map_err(invalid)?, &about)?;
    let peer: PeerHello = wire::decode(hello).map_err(invalid)?;
    hello::compare(&peer, &about)?;
    service.judge(&peer, connection.remote_address())?;
    let presence = inner.present.arrive(&peer.node, connection).await?;
    Ok(Admitted { version, about, peer: Arc::new(peer), presence })
}

/// Tells a node why it is not let in, and ends its connection.
pub async fn refuse(connection: &Connection, mut send: SendStream, refused: &PeerRefused) {
    let text = refused.to_string();
    tracing::warn!(address = %connection.remote_address(), "another node was refused: {text}");
    let tell = async {
        if wire::send(&mut send, &PeerGreeting::Refused(refused.clone())).await.is_ok() {
            let _ = send.finish();
            // Resolves when the node has it all.
            let _ = send.stopped().await;
        }
    };
    let _ = timeout(REFUSAL_DEADLINE, tell).await;
    connection.close(Close::Refused.code(), text.as_bytes());
}

/// From the welcome to the end.
async fn streams(
    inner: &Inner,
    connection: &Connection,
    peer: &Arc<PeerHello>,
    send: SendStream,
    recv: RecvStream,
    presence: &Presence,
    counters: &Arc<Counters>,
) -> Served {
    // Dropped at the end, whatever the reason: what is being answered ends with the connection.
    let mut streams = JoinSet::new();
    let over = control::watch(connection, send, recv, presence);
    tokio::pin!(over);
    loop {
        tokio::select! {
            biased;
            fault = &mut over => return Err(fault),
            Some(ended) = streams.join_next(), if !streams.is_empty() => match ended {
                Ok(served) => served?,
                Err(e) => {
                    tracing::error!(node = peer.node.name, "answering another node panicked ({e}): a bug of Ringhold");
                    return Err(Some(Fault::new(Close::Internal, "the node failed at answering: its log says how")));
                }
            },
            accepted = connection.accept_bi() => {
                let (send, recv) = accepted.map_err(|_| None)?;
                streams.spawn(request::serve(send, recv, peer.clone(), inner.service.clone(), counters.clone()));
            }
        }
    }
}
