//! How a client comes to a connection: to one of several addresses, with its hello said and its lane open.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use quinn::{ConnectError, Connection, Endpoint, RecvStream, SendStream};
use ringhold_cluster::tls::NODE_NAME;
use ringhold_cluster::transport::{self, Lost};
use ringhold_cluster::wire::{
    self, Close, ControlError, Greeting, Hello, Lane, Preamble, Refused, StreamKind, VERSION, VERSION_MIN, Welcome,
};
use tokio::time::timeout;

use super::{Error, Options};

/// A connection with its streams.
pub(super) struct Connected {
    pub connection: Connection,
    pub endpoint: Endpoint,
    pub address: String,
    pub welcome: Welcome,
    /// Kept open for as long as the session.
    _control: (SendStream, RecvStream),
    pub lane: (SendStream, RecvStream),
}

/// Why no address would do.
pub(super) struct NoneWould {
    /// The most telling one: what a node said comes before a node that said nothing.
    pub error: Error,
    /// Whether trying any of them again, unchanged, cannot help.
    pub hopeless: bool,
}

impl NoneWould {
    fn add(&mut self, error: Error) {
        self.hopeless &= error.is_final();
        // That some address is another node's says nothing of the one that is meant.
        let other = matches!(error, Error::Refused { refused: Refused::OtherNode { .. }, .. });
        if other && !matches!(self.error, Error::NoAddress) {
            return;
        }
        if error.is_final() || !self.error.is_final() || matches!(self.error, Error::NoAddress) {
            self.error = error;
        }
    }
}

/// Tries each address once, in order.
pub(super) async fn connect_any(options: &Options, addresses: &[String], lane: &Lane) -> Result<Connected, NoneWould> {
    let mut none = NoneWould { error: Error::NoAddress, hopeless: true };
    for address in addresses {
        match options.network.resolve(address).await {
            Err(e) => none.add(Error::resolve(address, &e)),
            Ok(sockets) => match connect_first_of(options, lane, address, sockets).await {
                Ok(connected) => return Ok(connected),
                Err(errors) => errors.into_iter().for_each(|error| none.add(error)),
            },
        }
    }
    Err(none)
}

/// Tries all that a name stands for at once, so that `localhost` need not wait for a node that listens on the other of
/// its two addresses.
async fn connect_first_of(
    options: &Options,
    lane: &Lane,
    address: &str,
    sockets: Vec<SocketAddr>,
) -> Result<Connected, Vec<Error>> {
    let mut attempts: Vec<_> = sockets.into_iter().map(|to| Box::pin(connect(options, lane, address, to))).collect();
    let mut errors = Vec::new();
    poll_fn(|cx| {
        let mut i = 0;
        while i < attempts.len() {
            match attempts[i].as_mut().poll(cx) {
                Poll::Ready(Ok(connected)) => return Poll::Ready(Ok(connected)),
                Poll::Ready(Err(error)) => {
                    drop(attempts.remove(i));
                    errors.push(error);
                }
                Poll::Pending => i += 1,
            }
        }
        if attempts.is_empty() { Poll::Ready(Err(std::mem::take(&mut errors))) } else { Poll::Pending }
    })
    .await
}

async fn connect(options: &Options, lane: &Lane, address: &str, to: SocketAddr) -> Result<Connected, Error> {
    let config = transport::client_config(&options.network, &options.identity)?;
    let endpoint = transport::client_endpoint(&options.network, to)?;
    let connecting = endpoint.connect_with(config, to, NODE_NAME).map_err(|e| match e {
        ConnectError::InvalidRemoteAddress(_) => Error::Resolve { address: address.into(), detail: e.to_string() },
        e => Error::Setup(e.to_string()),
    })?;
    let limit = options.connect_deadline;
    let too_late = || Error::Unreachable {
        address: address.into(),
        detail: format!("nothing answered within {} ms", limit.as_millis()),
    };
    let greeted = async {
        let connection = connecting.await.map_err(|e| connect_error(options, address, &Lost::of(&e)))?;
        let said = greet(options, lane, &connection).await;
        match said {
            Ok((control, Greeting::Welcome(welcome))) => Ok((connection, control, welcome)),
            Ok((_, Greeting::Refused(refused))) => {
                connection.close(Close::Done.code(), b"");
                Err(Error::Refused { address: address.into(), refused })
            }
            Err(e) => Err(not_open(options, address, &connection, &e)),
        }
    };
    let (connection, control, welcome) = timeout(limit, greeted).await.map_err(|_| too_late())??;
    // The node may have ended since it said so.
    let lane = open(&connection, StreamKind::Lane).await.map_err(|e| not_open(options, address, &connection, &e))?;
    Ok(Connected { connection, endpoint, address: address.into(), welcome, _control: control, lane })
}

async fn greet(
    options: &Options,
    lane: &Lane,
    connection: &Connection,
) -> Result<((SendStream, RecvStream), Greeting), ControlError> {
    let (mut send, mut recv) = open(connection, StreamKind::Control).await?;
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        client: options.name.clone(),
        cluster: options.cluster.clone(),
        types: options.types.clone(),
        admin: options.admin,
        lane: lane.clone(),
    };
    wire::send(&mut send, &hello).await?;
    let greeting = wire::receive(&mut recv, wire::RESPONSE_BYTES_MAX).await?;
    Ok(((send, recv), greeting))
}

pub(super) async fn open(connection: &Connection, kind: StreamKind) -> Result<(SendStream, RecvStream), ControlError> {
    let (mut send, recv) = connection.open_bi().await?;
    send.write_all(&Preamble::new(kind).to_bytes()).await.map_err(|e| match e {
        quinn::WriteError::ConnectionLost(e) => ControlError::Connection(e),
        _ => ControlError::Reset,
    })?;
    Ok((send, recv))
}

/// Why a stream could not be used, in words for the user: the connection may have ended first.
fn not_open(options: &Options, address: &str, connection: &Connection, error: &ControlError) -> Error {
    match (error, connection.close_reason()) {
        (ControlError::Connection(lost), _) => connect_error(options, address, &Lost::of(lost)),
        (_, Some(lost)) => connect_error(options, address, &Lost::of(&lost)),
        (error, None) => Error::Protocol { address: address.into(), detail: error.to_string() },
    }
}

/// Why there is no connection, in words for the user.
fn connect_error(options: &Options, address: &str, lost: &Lost) -> Error {
    let address = address.to_owned();
    let files = &options.identity.files;
    match lost {
        Lost::CertificateRequired => Error::CertificateRequired { address },
        Lost::CertificateRefused(why) => {
            let certificate = files.own.as_ref().map_or_else(Default::default, |(certificate, _)| certificate.clone());
            Error::CertificateRefused { address, certificate, why }
        }
        Lost::PeerCertificate(why) => {
            let why = if why.contains("UnknownIssuer") { "another authority signed it".into() } else { why.clone() };
            Error::ForeignNode { address, ca: files.ca.clone(), why }
        }
        Lost::Protocol => Error::NotRinghold { address },
        Lost::Closed { close: Some(Close::Stopping), .. } => {
            Error::Refused { address, refused: wire::Refused::Stopping }
        }
        lost if lost.is_final() => Error::Protocol { address, detail: lost.to_string() },
        lost => Error::Unreachable { address, detail: lost.to_string() },
    }
}
