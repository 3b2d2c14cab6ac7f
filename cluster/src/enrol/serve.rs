//! The side of a node that lets another join.

use std::sync::{Arc, Weak};

use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use super::{EnrolAnswer, EnrolRefused, EnrolRequest, Enrolled, proof_of};
use crate::counters::{Counters, bump};
use crate::fault::{Fault, Served, control_fault};
use crate::network::Network;
use crate::peers::PeerService;
use crate::tls::{self, Authority, Facts, Identity, JOIN_NAME};
use crate::wire::{
    self, Close, ControlError, GREETING_DEADLINE, PEER_HELLO_BYTES_MAX, REFUSAL_DEADLINE, VERSION, VERSION_MIN,
};

/// Serves a connection whose first stream wants to enrol, of which the preamble has been read.
pub(crate) async fn serve(
    network: &Arc<dyn Network>,
    identity: &Identity,
    service: &Weak<dyn PeerService>,
    connection: &Connection,
    (send, mut recv): (SendStream, RecvStream),
    counters: &Counters,
) -> Served {
    let request = match timeout(GREETING_DEADLINE, wire::receive_bytes(&mut recv, PEER_HELLO_BYTES_MAX)).await {
        Ok(request) => request.map_err(|e| control_fault(&e, counters))?,
        Err(_) => {
            bump(&counters.too_slow);
            return Err(Some(Fault::new(Close::TooSlow, "no request came in time")));
        }
    };
    match admit(&**network, identity, service, connection, &request).await {
        Ok(enrolled) => {
            bump(&counters.enrolled);
            tracing::info!(address = %connection.remote_address(), "a node was given a certificate for its join token");
            answer(connection, send, EnrolAnswer::Enrolled(enrolled)).await;
            connection.close(Close::Done.code(), b"");
        }
        Err(refused) => {
            bump(&counters.refused_enrolments);
            refuse(connection, send, refused).await;
        }
    }
    Ok(())
}

/// Tells a node why it is not let join, and ends its connection.
pub async fn refuse(connection: &Connection, send: SendStream, refused: EnrolRefused) {
    let text = refused.to_string();
    tracing::warn!(address = %connection.remote_address(), "a node was not let join: {text}");
    answer(connection, send, EnrolAnswer::Refused(refused)).await;
    connection.close(Close::Refused.code(), text.as_bytes());
}

async fn answer(connection: &Connection, mut send: SendStream, answer: EnrolAnswer) {
    let tell = async {
        if wire::send(&mut send, &answer).await.is_ok() {
            let _ = send.finish();
            // Resolves when the node has it all.
            let _ = send.stopped().await;
        }
    };
    if timeout(REFUSAL_DEADLINE, tell).await.is_err() {
        tracing::warn!(address = %connection.remote_address(), "a node that asked to join did not read its answer");
    }
}

async fn admit(
    network: &dyn Network,
    identity: &Identity,
    service: &Weak<dyn PeerService>,
    connection: &Connection,
    request: &[u8],
) -> Result<Enrolled, EnrolRefused> {
    let invalid = |e: ControlError| EnrolRefused::Request(e.to_string());
    if !tls::peer_bears(connection, JOIN_NAME) {
        return Err(EnrolRefused::NotAToken);
    }
    let shown =
        tls::shown(connection).and_then(|certificate| Facts::of(&certificate)).ok_or(EnrolRefused::NotAToken)?;
    // The handshake may have been a while ago.
    if network.wall_us() / 1_000_000 > shown.not_after_s {
        return Err(EnrolRefused::Expired);
    }
    let (new_min, new_max): (u16, u16) = wire::decode_beginning(request).map_err(invalid)?;
    if new_max < VERSION_MIN || new_min > VERSION {
        return Err(EnrolRefused::Version { new_min, new_max, node_min: VERSION_MIN, node_max: VERSION });
    }
    let request: EnrolRequest = wire::decode(request).map_err(invalid)?;
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &request.public_key);
    key.verify(&proof_of(connection, &request.public_key), &request.proof)
        .map_err(|_| EnrolRefused::Request("it is not signed with its own key".into()))?;
    let service = service.upgrade().ok_or(EnrolRefused::Stopping)?;
    let no_authority = |e: tls::Error| EnrolRefused::NoAuthority(e.to_string());
    let authority = Authority::of(identity).map_err(no_authority)?;
    let certificate = authority.certify_node(request.public_key, network).map_err(no_authority)?;
    // Last, so that nothing can go wrong once it is used.
    service.use_token(shown.serial, shown.not_after_s * 1_000_000).await.map_err(EnrolRefused::NotAccepted)?;
    Ok(Enrolled { authority: authority.certificate().into(), authority_key: authority.key_pem(), certificate })
}
