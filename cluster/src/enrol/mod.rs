//! How a new node comes by its certificate, and by the authority.
//!
//! It shows a join token's certificate ([`crate::tls::Token`]) to any node of the cluster that has the authority's key, and
//! opens one stream, on which it says which key it has made ([`StreamKind::Enrol`]).
//! The node has the cluster take the token for used, and answers with a certificate for that key, and with the authority.
//! The new node's private key never leaves it; the authority's is given to every node that joins, so that each of them can
//! let in others when the rest is gone.
//!
//! [`enrol`] is the side of the new node; [`crate::peers::Peers::enrol`] the other.

mod serve;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::Connection;
use rcgen::{PublicKeyData, SigningKey};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::network::Network;
use crate::tls::{self, Authority, NODE_NAME, Role, Token, TokenError, make_key, pem_certificates};
use crate::transport::{self, Lost};
use crate::wire::{
    self, ControlError, HANDSHAKE_DEADLINE, PEER_HELLO_BYTES_MAX, Preamble, StreamKind, VERSION, VERSION_MIN,
};

pub use serve::refuse;
pub(crate) use serve::serve;

/// What a new node says. It begins with the versions, whatever the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EnrolRequest {
    version_min: u16,
    version_max: u16,
    /// Ed25519, raw.
    public_key: [u8; 32],
    /// The signature, with that key, of what [`proof_of`] gives: it has the other half, and means this connection.
    proof: Vec<u8>,
}

/// The order of the variants never changes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
enum EnrolAnswer {
    Refused(EnrolRefused),
    Enrolled(Enrolled),
}

/// All PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Enrolled {
    authority: String,
    authority_key: String,
    certificate: String,
}

/// Why a node is not let join, and what to do. New variants come last, and none changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum EnrolRefused {
    #[error(
        "the new node speaks protocol versions {new_min} to {new_max} and the cluster's {node_min} to {node_max}: use \
         the release that the cluster runs"
    )]
    Version { new_min: u16, new_max: u16, node_min: u16, node_max: u16 },
    #[error("the certificate that was shown is not a join token's. Have a node of the cluster make a token")]
    NotAToken,
    #[error("the join token has expired. Have a node of the cluster make another")]
    Expired,
    #[error("the join token was not accepted: {0}")]
    NotAccepted(String),
    #[error(
        "the node cannot issue certificates: {0}. Where the authority is your own, have it issue the new node's \
         certificate, with the name `{NODE_NAME}`, and configure that (`[tls]`): no token is needed then"
    )]
    NoAuthority(String),
    #[error("the request is not valid: {0}")]
    Request(String),
    #[error("the node takes no part in a cluster: there is nothing to join. Use the address of one that does")]
    Alone,
    #[error("the node is stopping. Use another")]
    Stopping,
}

impl EnrolRefused {
    /// Whether every node of the cluster would say so.
    fn is_final(&self) -> bool {
        match self {
            EnrolRefused::Version { .. } | EnrolRefused::NotAToken | EnrolRefused::Expired => true,
            EnrolRefused::NotAccepted(_) | EnrolRefused::Request(_) => true,
            EnrolRefused::NoAuthority(_) | EnrolRefused::Alone | EnrolRefused::Stopping => false,
        }
    }
}

/// How a folder has come by its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node at this address has issued them.
    Enrolled { by: String },
    /// They were there already, of the token's authority: the token was not used.
    Before,
}

/// Why a node has no certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(
        "{} has certificates of another authority than the token's: the node belongs to another cluster. Use another \
         data folder, or move this one's certificates away",
        folder.display()
    )]
    AnotherAuthority { folder: PathBuf },
    #[error("{} is not empty and holds no authority's certificate (`ca.pem`). Empty it, or use another", folder.display())]
    NotEmpty { folder: PathBuf },
    #[error("cannot look into {}: {source}. Run as the user it belongs to", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("the node at {address} does not let this one join: {refused}")]
    Refused { address: String, refused: EnrolRefused },
    #[error("no node of the cluster could be asked: {}", tried.join("; "))]
    Unreachable { tried: Vec<String> },
    #[error(
        "the connection to the node at {address} was lost when it had been asked ({why}). The token may be used up: if it \
         is refused now, have another made"
    )]
    Lost { address: String, why: String },
    #[error("the node at {address} answers with certificates that cannot be used: {why}")]
    Answer { address: String, why: String },
}

/// Fills `folder` with a certificate of the token's authority for this node, one for clients of this machine, and the
/// authority: whole, or not at all. The addresses, `host:port`, are tried in order, until one answers.
///
/// A folder that has certificates of that authority is left as it is, so that this may be done again.
pub async fn enrol(
    network: &Arc<dyn Network>,
    token: &Token,
    addresses: &[String],
    folder: &Path,
) -> Result<Outcome, Error> {
    if is_enrolled(network, token, folder)? {
        return Ok(Outcome::Before);
    }
    token.check(&**network)?;
    let mut tried = Vec::new();
    let mut refused = None;
    for address in addresses {
        let sockets = match network.resolve(address).await {
            Ok(sockets) => sockets,
            Err(e) => {
                tried.push(format!("{address} cannot be resolved ({e})"));
                continue;
            }
        };
        // One by one: two that lead to the same cluster would use the token twice.
        for to in sockets {
            match ask(network, token, address, to).await {
                Ok(made) => {
                    store(network, token, address, made, folder)?;
                    return Ok(Outcome::Enrolled { by: address.clone() });
                }
                Err(Failed::NotAsked(why)) => tried.push(format!("{address} ({to}): {why}")),
                Err(Failed::Asked(error)) => match &error {
                    Error::Refused { refused: why, .. } if !why.is_final() => refused = Some(error),
                    _ => return Err(error),
                },
            }
        }
    }
    Err(refused.unwrap_or(Error::Unreachable { tried }))
}

/// Whether the folder has certificates of the token's authority. Others, or anything else, are in the way.
fn is_enrolled(network: &Arc<dyn Network>, token: &Token, folder: &Path) -> Result<bool, Error> {
    let ca = folder.join("ca.pem");
    if ca.exists() {
        let pem = fs::read_to_string(&ca).map_err(|source| Error::Folder { folder: folder.into(), source })?;
        if !pem_certificates(&pem, &ca)?.iter().any(|certificate| **certificate == *token.authority()) {
            return Err(Error::AnotherAuthority { folder: folder.into() });
        }
        Authority::open_or_create(folder, &**network)?;
        return Ok(true);
    }
    match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(false),
        Ok(true) => Err(Error::NotEmpty { folder: folder.into() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Folder { folder: folder.into(), source }),
    }
}

/// Why an address gave nothing.
enum Failed {
    /// The token is as it was.
    NotAsked(String),
    Asked(Error),
}

/// A key that was made here, and what a node has made for it.
struct Made {
    key: rcgen::KeyPair,
    enrolled: Enrolled,
}

async fn ask(network: &Arc<dyn Network>, token: &Token, address: &str, to: SocketAddr) -> Result<Made, Failed> {
    let not_asked = |why: String| Failed::NotAsked(why);
    let tls = |e: tls::Error| Failed::Asked(e.into());
    let config = transport::client_config(network, &token.identity()).map_err(tls)?;
    let endpoint = transport::client_endpoint(network, to).map_err(|e| not_asked(e.to_string()))?;
    let connecting = endpoint.connect_with(config, to, NODE_NAME).map_err(|e| not_asked(e.to_string()))?;
    let connection = match timeout(HANDSHAKE_DEADLINE, connecting).await {
        Ok(connected) => connected.map_err(|e| not_asked(lost(&Lost::of(&e))))?,
        Err(_) => return Err(not_asked(format!("nothing answered within {} s", HANDSHAKE_DEADLINE.as_secs()))),
    };
    let key = make_key(&**network).map_err(tls)?;
    let answer = match timeout(ANSWER_DEADLINE, exchange(&connection, &key)).await {
        Ok(answer) => answer.map_err(|e| match connection.close_reason().map(|reason| Lost::of(&reason)) {
            // It did not get so far: in TLS 1.3 a certificate is refused when this side may write already (RFC 8446 §4.4.2).
            Some(reason) if reason.is_final() => not_asked(lost(&reason)),
            reason => {
                let why = reason.map_or(e.to_string(), |reason| lost(&reason));
                Failed::Asked(Error::Lost { address: address.into(), why })
            }
        })?,
        Err(_) => {
            let why = format!("no answer came within {} s", ANSWER_DEADLINE.as_secs());
            return Err(Failed::Asked(Error::Lost { address: address.into(), why }));
        }
    };
    connection.close(wire::Close::Done.code(), b"");
    match answer {
        EnrolAnswer::Enrolled(enrolled) => Ok(Made { key, enrolled }),
        EnrolAnswer::Refused(refused) => Err(Failed::Asked(Error::Refused { address: address.into(), refused })),
    }
}

/// From the request to the answer: the cluster has to agree that the token is used.
const ANSWER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// In words for whoever joins.
fn lost(lost: &Lost) -> String {
    match lost {
        Lost::CertificateRefused(why) => format!("it does not accept the token: {why}"),
        Lost::PeerCertificate(why) => format!("it is not of the token's cluster: {why}"),
        lost => lost.to_string(),
    }
}

async fn exchange(connection: &Connection, key: &rcgen::KeyPair) -> Result<EnrolAnswer, ControlError> {
    let public_key = <[u8; 32]>::try_from(key.der_bytes()).expect("an Ed25519 key has 32 bytes");
    let signed = key.sign(&proof_of(connection, &public_key)).map_err(|e| ControlError::Encode(e.to_string()))?;
    let request = EnrolRequest { version_min: VERSION_MIN, version_max: VERSION, public_key, proof: signed };
    let (mut send, mut recv) = connection.open_bi().await?;
    let request = [&Preamble::new(StreamKind::Enrol).to_bytes()[..], &wire::encode(&request)?].concat();
    send.write_all(&request).await.map_err(|_| ControlError::Reset)?;
    let _ = send.finish();
    wire::receive(&mut recv, PEER_HELLO_BYTES_MAX).await
}

/// What is signed: no other connection has it (RFC 5705).
fn proof_of(connection: &Connection, public_key: &[u8; 32]) -> [u8; 32] {
    let mut exported = [0; 32];
    let exporting = connection.export_keying_material(&mut exported, b"EXPORTER-ringhold-enrolment", public_key);
    exporting.expect("TLS 1.3 exports so few bytes once it is connected");
    exported
}

/// Puts what was made into the folder, once it is known to be good.
fn store(
    network: &Arc<dyn Network>,
    token: &Token,
    address: &str,
    Made { key, enrolled }: Made,
    folder: &Path,
) -> Result<(), Error> {
    let unusable = |why: String| Error::Answer { address: address.into(), why };
    let all = pem_certificates(&enrolled.authority, Path::new("ca.pem")).map_err(|e| unusable(e.to_string()))?;
    if !all.iter().any(|certificate| **certificate == *token.authority()) {
        return Err(unusable("they are of another authority than the token's".into()));
    }
    let authority =
        Authority::handed(enrolled.authority, &enrolled.authority_key).map_err(|e| unusable(e.to_string()))?;
    let node = tls::Issued { certificate: enrolled.certificate, key: key.serialize_pem() };
    authority.identity_of(&node, Role::Node, &**network).map_err(|e| unusable(e.to_string()))?;
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(|source| Error::Folder { folder: parent.into(), source })?;
    }
    Ok(authority.create_with(folder, &node, &**network)?)
}
