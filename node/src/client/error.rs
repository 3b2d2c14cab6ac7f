//! What can go wrong for a client, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ringhold_cluster::transport::{self, Lost};
use ringhold_cluster::wire::{Failed, Refused};
use ringhold_kernels::message::Reason;

/// Why a client could not do something. Each says what was being done, to what, why, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("no address to connect to was given: name a node as HOST:PORT")]
    NoAddress,
    #[error("cannot find `{address}`: {detail}. Write it as HOST:PORT, and check the name")]
    Resolve { address: String, detail: String },
    #[error("cannot set up a connection: {0}")]
    Setup(String),
    #[error("cannot reach a node at {address}: {detail}. Is it running there, and is UDP let through?")]
    Unreachable { address: String, detail: String },
    #[error(
        "the node at {address} requires a certificate signed by its authority, and this client shows none. \
         The node made one when it first started: pass `client.pem` and `client.key` from the folder `tls` in its \
         data folder (with the command line: --tls FOLDER), or have its authority issue one"
    )]
    CertificateRequired { address: String },
    #[error(
        "the node at {address} refused this client's certificate {}: {why}. Use one signed by the node's authority: \
         `client.pem` and `client.key` from the folder `tls` in its data folder",
        certificate.display()
    )]
    CertificateRefused { address: String, certificate: PathBuf, why: &'static str },
    #[error(
        "the node at {address} shows a certificate that the authority {} does not vouch for: {why}. Either it is \
         another cluster's node, or this client was given the wrong `ca.pem`: take the one beside the node's own",
        ca.display()
    )]
    ForeignNode { address: String, ca: PathBuf, why: String },
    #[error("what answers at {address} is no Ringhold node of this release: check the port and the versions")]
    NotRinghold { address: String },
    #[error("the node at {address} refused this client: {refused}")]
    Refused { address: String, refused: Refused },
    #[error(
        "the connection to {address} was lost while {doing}: {lost}{}. The client connects again by itself",
        unconfirmed_text(*unconfirmed)
    )]
    ConnectionLost { address: String, doing: &'static str, lost: Lost, unconfirmed: u64 },
    #[error("the client was closed")]
    Closed,
    #[error(
        "this client did not say that it was built with `{name}`, so its layout was not compared with the node's: \
         add `.with::<…::Actor>()` of its module to the client's options"
    )]
    NotRegistered { name: &'static str },
    #[error("the node has no actor type `{name}`; it has {}", list(known))]
    UnknownType { name: String, known: Vec<String> },
    #[error(
        "a message of {len} bytes does not fit the node's slots, which take {max}: send less, or configure larger slots"
    )]
    TooLarge { len: usize, max: usize },
    #[error("{0}")]
    Failed(Failed),
    #[error("the node did not answer within {} ms to a request for {doing}", waited.as_millis())]
    Timeout { doing: &'static str, waited: Duration },
    #[error("the node at {address} broke the protocol: {detail}. Use a client and a node of the same release")]
    Protocol { address: String, detail: String },
}

fn unconfirmed_text(count: u64) -> String {
    match count {
        0 => String::new(),
        n => format!("; up to {n} tells were on their way and may or may not have arrived"),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { format!("`{}`", names.join("`, `")) }
}

impl Error {
    /// Whether trying again, unchanged, cannot help.
    pub fn is_final(&self) -> bool {
        match self {
            Error::Refused { refused, .. } => !matches!(
                refused,
                Refused::TooManySessions { .. }
                    | Refused::Overloaded(_)
                    | Refused::Stopping
                    | Refused::Starting(_)
                    | Refused::OtherNode { .. }
            ),
            Error::CertificateRequired { .. }
            | Error::CertificateRefused { .. }
            | Error::ForeignNode { .. }
            | Error::NotRinghold { .. }
            | Error::Protocol { .. }
            | Error::NoAddress
            | Error::Setup(_)
            | Error::Closed
            | Error::NotRegistered { .. }
            | Error::UnknownType { .. }
            | Error::TooLarge { .. }
            | Error::Failed(_) => true,
            Error::Resolve { .. }
            | Error::Unreachable { .. }
            | Error::ConnectionLost { .. }
            | Error::Timeout { .. } => false,
        }
    }

    pub(super) fn resolve(address: &str, error: &io::Error) -> Error {
        Error::Resolve { address: address.into(), detail: error.to_string() }
    }
}

impl From<transport::Error> for Error {
    fn from(error: transport::Error) -> Error {
        Error::Setup(error.to_string())
    }
}

impl From<ringhold_cluster::tls::Error> for Error {
    fn from(error: ringhold_cluster::tls::Error) -> Error {
        Error::Setup(error.to_string())
    }
}

/// Why an ask has no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AskError {
    /// The node or the actor's device says why.
    #[error("{actor} did not reply: {reason}{}", detail(.text))]
    NotHandled { actor: String, reason: Reason, text: String },
    #[error("{actor} did not reply within {} ms. The message may still be handled", waited.as_millis())]
    Deadline { actor: String, waited: Duration },
    #[error(
        "the connection was lost before {actor} replied. The message may or may not have been handled: ask again only \
         if handling it twice does no harm"
    )]
    ConnectionLost { actor: String },
    #[error(
        "the reply of {actor} is no value of its type ({bytes} bytes): the node does not keep to the layout it named"
    )]
    Reply { actor: String, bytes: usize },
    /// It was never sent.
    #[error(transparent)]
    NotSent(#[from] Error),
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

impl AskError {
    /// The reason as devices and nodes number them, where there is one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            AskError::NotHandled { reason, .. } => Some(*reason),
            AskError::Deadline { .. } => Some(Reason::DeadlineExceeded),
            AskError::ConnectionLost { .. } => Some(Reason::ConnectionLost),
            AskError::Reply { .. } | AskError::NotSent(_) => None,
        }
    }
}
