//! QUIC endpoints as Ringhold sets them up, and what their errors mean in words a user can act on.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::crypto::HmacKey;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, Connection, ConnectionError, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    MtuDiscoveryConfig, TransportConfig, UdpPoller, VarInt,
};

use crate::counters::Counters;
use crate::network::{Network, WallTime};
use crate::tls::{self, Identity};
use crate::wire::{self, Close};

/// What one lane may have on its way to a reader that does not read: a node's memory for a session it holds back.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all streams of a connection together.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// What a sender keeps until it is acknowledged.
pub const SEND_WINDOW_BYTES: u64 = 8 << 20;
/// Both for a connection between nodes: room for many streams whose readers do not read, and whose bytes are on their way,
/// before there is none for the control stream and for small requests.
pub const PEER_WINDOW_BYTES: u32 = 64 << 20;
/// The largest datagram that path discovery tries: for jumbo frames, and loopback. Receive buffers grow with it.
///
/// Ten of these fit what one system call may hand to the kernel. quinn sends up to ten at a time whatever their size,
/// and takes the kernel's refusal of more than 64 KiB for a lost packet, so that larger ones stall a connection.
pub const DATAGRAM_BYTES_MAX: u16 = 6_500;
/// What one send may carry: the largest UDP payload over IPv4.
const SEND_BYTES_MAX: usize = 65_507;
const SEGMENTS_MAX: usize = SEND_BYTES_MAX / DATAGRAM_BYTES_MAX as usize;
const _: () = assert!(SEGMENTS_MAX == 10);

/// The transport of either side; a client may open no streams towards which it has no right.
fn transport(streams_from_peer: u32) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(streams_from_peer))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu))
        .max_idle_timeout(Some(wire::IDLE_TIMEOUT.try_into().expect("seconds fit")))
        .keep_alive_interval(Some(wire::KEEP_ALIVE));
    Arc::new(transport)
}

fn endpoint_config(network: &dyn Network, reset_key: Arc<dyn HmacKey>) -> EndpointConfig {
    let mut config = EndpointConfig::new(reset_key);
    let mut seed = [0; 32];
    network.random(&mut seed);
    config.rng_seed(Some(seed));
    if let Some(ids) = network.connection_ids() {
        config.cid_generator(move || ids());
    }
    config.max_udp_payload_size(DATAGRAM_BYTES_MAX).expect("between 1200 and 65527");
    config
}

/// Why an endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address} (UDP): {}", listen_help(.source))]
    Bind { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

fn listen_help(error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there. Stop it, or choose another port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege. Choose a port from 1024 up",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address. Choose one of its own, or 0.0.0.0",
        _ => return error.to_string(),
    };
    format!("{error}: {help}")
}

/// An endpoint that accepts clients which show a certificate of the identity's authority.
pub fn server_endpoint(
    network: &Arc<dyn Network>,
    address: SocketAddr,
    identity: &Identity,
    counters: &Arc<Counters>,
) -> Result<Endpoint, Error> {
    let crypto = tls::server_config(identity, &**network)?;
    let crypto = QuicServerConfig::try_from(crypto).expect("TLS 1.3 has the suite that QUIC starts with");
    let mut config = quinn::ServerConfig::new(Arc::new(crypto), network.token_key());
    // Beside its lane and requests a client has its control stream.
    config.transport_config(transport(wire::REQUESTS_MAX + 2));
    config.max_incoming(wire::HANDSHAKES_MAX * 2);
    config.time_source(Arc::new(WallTime(network.clone())));
    let bind = |source| Error::Bind { address, source };
    let socket = network.bind(address).map_err(bind)?;
    let socket = Arc::new(Socket { socket, counters: Some(counters.clone()) });
    // The same after a restart: clients learn at once that their connections are gone, and need not wait until they are idle
    // for too long.
    let reset_key = identity.derived(b"ringhold: stateless resets");
    let reset_key: Arc<dyn HmacKey> = match reset_key {
        Some(key) => Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key)),
        None => network.reset_key(),
    };
    let mut endpoint = endpoint_config(&**network, reset_key);
    if network.connection_ids().is_none() {
        let ids = PlainIds(network.clone());
        endpoint.cid_generator(move || Box::new(ids.clone()));
    }
    Endpoint::new_with_abstract_socket(endpoint, Some(config), socket, network.runtime()).map_err(bind)
}

/// Connection ids of a node: chance alone. Quinn's own hold a proof of who made them, which a restarted node does not take for
/// its own, so that it would not answer what comes to a connection before the restart.
#[derive(Clone, Debug)]
struct PlainIds(Arc<dyn Network>);

const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for PlainIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.0.random(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// An endpoint to connect from, for addresses of `to`'s family.
pub fn client_endpoint(network: &Arc<dyn Network>, to: SocketAddr) -> Result<Endpoint, Error> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let address = SocketAddr::new(any, 0);
    let bind = |source| Error::Bind { address, source };
    let socket = network.bind(address).map_err(bind)?;
    let socket = Arc::new(Socket { socket, counters: None });
    let config = endpoint_config(&**network, network.reset_key());
    Endpoint::new_with_abstract_socket(config, None, socket, network.runtime()).map_err(bind)
}

/// How to connect as `identity`; see [`Endpoint::connect_with`] and [`tls::NODE_NAME`].
pub fn client_config(network: &Arc<dyn Network>, identity: &Identity) -> Result<quinn::ClientConfig, tls::Error> {
    let crypto = tls::client_config(identity, &**network)?;
    let crypto = QuicClientConfig::try_from(crypto).expect("TLS 1.3 has the suite that QUIC starts with");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(0));
    let network = network.clone();
    config.initial_dst_cid_provider(Arc::new(move || {
        let mut id = [0; 16];
        network.random(&mut id);
        ConnectionId::new(&id)
    }));
    Ok(config)
}

/// Gives a connection between nodes what one of a client is not given.
pub(crate) fn widen(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(PEER_WINDOW_BYTES));
    connection.set_send_window(PEER_WINDOW_BYTES.into());
}

/// What the end of a connection means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The node wants a certificate and this client showed none.
    CertificateRequired,
    /// The peer does not accept this side's certificate; the text says why, as TLS puts it.
    CertificateRefused(&'static str),
    /// This side does not accept the peer's certificate.
    PeerCertificate(String),
    /// The peer speaks TLS but not this protocol.
    Protocol,
    /// No answer, or none any more.
    TimedOut,
    /// The peer runs anew and does not know the connection.
    Reset,
    /// The peer closed it and says why.
    Closed {
        close: Option<Close>,
        code: u64,
        reason: String,
    },
    /// This side closed it.
    Here,
    Other(String),
}

// TLS alerts, RFC 8446 §6.2. QUIC carries them as 0x100 + alert (RFC 9001 §4.8).
const BAD_CERTIFICATE: u64 = 0x100 + 42;
const UNSUPPORTED_CERTIFICATE: u64 = 0x100 + 43;
const CERTIFICATE_REVOKED: u64 = 0x100 + 44;
const CERTIFICATE_EXPIRED: u64 = 0x100 + 45;
const CERTIFICATE_UNKNOWN: u64 = 0x100 + 46;
const UNKNOWN_CA: u64 = 0x100 + 48;
const ACCESS_DENIED: u64 = 0x100 + 49;
const DECRYPT_ERROR: u64 = 0x100 + 51;
const CERTIFICATE_REQUIRED: u64 = 0x100 + 116;
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

fn certificate_alert(code: u64) -> Option<&'static str> {
    Some(match code {
        BAD_CERTIFICATE => "it is not valid",
        UNSUPPORTED_CERTIFICATE => "it is of a kind that is not supported",
        CERTIFICATE_REVOKED => "it is revoked",
        CERTIFICATE_EXPIRED => "it has expired, or is not valid yet",
        CERTIFICATE_UNKNOWN => "it is not acceptable",
        UNKNOWN_CA => "another authority signed it",
        ACCESS_DENIED => "it grants no access",
        DECRYPT_ERROR => "its signature is not of the authority",
        _ => return None,
    })
}

impl Lost {
    pub fn of(error: &ConnectionError) -> Lost {
        match error {
            ConnectionError::VersionMismatch => Lost::Protocol,
            // What this side's TLS found wrong, in this side's words.
            ConnectionError::TransportError(e) => {
                let code = u64::from(e.code);
                match code {
                    CERTIFICATE_REQUIRED => Lost::CertificateRequired,
                    NO_APPLICATION_PROTOCOL => Lost::Protocol,
                    _ if certificate_alert(code).is_some() => Lost::PeerCertificate(
                        e.reason.trim_start_matches("invalid peer certificate: ").trim_end_matches('.').to_owned(),
                    ),
                    _ => Lost::Other(e.to_string()),
                }
            }
            // What the peer's TLS found wrong with this side.
            ConnectionError::ConnectionClosed(close) => {
                let code = u64::from(close.error_code);
                match (code, certificate_alert(code)) {
                    (CERTIFICATE_REQUIRED, _) => Lost::CertificateRequired,
                    (NO_APPLICATION_PROTOCOL, _) => Lost::Protocol,
                    (_, Some(why)) => Lost::CertificateRefused(why),
                    _ => Lost::Other(close.to_string()),
                }
            }
            ConnectionError::ApplicationClosed(close) => Lost::Closed {
                close: Close::from_code(close.error_code),
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::Reset => Lost::Reset,
            ConnectionError::TimedOut => Lost::TimedOut,
            ConnectionError::LocallyClosed => Lost::Here,
            ConnectionError::CidsExhausted => Lost::Other(error.to_string()),
        }
    }

    /// Whether connecting again, unchanged, cannot help.
    pub fn is_final(&self) -> bool {
        match self {
            Lost::CertificateRequired | Lost::CertificateRefused(_) | Lost::PeerCertificate(_) | Lost::Protocol => true,
            Lost::Closed { close, .. } => matches!(close, Some(Close::Preamble | Close::Refused | Close::Control)),
            Lost::TimedOut | Lost::Reset | Lost::Here | Lost::Other(_) => false,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::CertificateRequired => f.write_str("a certificate is required and none was shown"),
            Lost::CertificateRefused(why) => write!(f, "the certificate was refused: {why}"),
            Lost::PeerCertificate(why) => write!(f, "the peer's certificate is not acceptable: {why}"),
            Lost::Protocol => f.write_str("the peer does not speak Ringhold's protocol"),
            Lost::TimedOut => f.write_str("nothing came from the peer any more"),
            Lost::Reset => f.write_str("the peer has restarted"),
            Lost::Closed { close: Some(Close::Stopping), .. } => f.write_str("the node is stopping"),
            Lost::Closed { close: Some(Close::Dropped), .. } => f.write_str("the peer has let go of the connection"),
            Lost::Closed { code, reason, .. } => write!(f, "the peer closed the connection ({code}): {reason}"),
            Lost::Here => f.write_str("the connection was closed on this side"),
            Lost::Other(text) => f.write_str(text),
        }
    }
}

/// A network's socket, kept to [`SEND_BYTES_MAX`]; a server's counts the datagrams that cannot be QUIC, which quinn
/// drops without a word.
struct Socket {
    socket: Arc<dyn AsyncUdpSocket>,
    counters: Option<Arc<Counters>>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

/// A short header, the shortest connection id there is here, a packet number and an authentication tag.
const QUIC_BYTES_MIN: usize = 1 + 8 + 4 + 16;
const QUIC_VERSION_1: u32 = 1;

/// Whether these bytes may be QUIC as far as their first bytes tell (RFC 9000 §17).
fn may_be_quic(datagram: &[u8]) -> bool {
    let Some(first) = datagram.first() else { return false };
    let long = first & 0x80 != 0;
    if !long {
        // The bit 0x40 may be greased, so only the length speaks.
        return datagram.len() >= QUIC_BYTES_MIN;
    }
    match datagram.get(1..5) {
        Some(version) => {
            let version = u32::from_be_bytes(version.try_into().expect("four bytes"));
            version == QUIC_VERSION_1 || version == 0 || version & 0xffff_ff00 == 0xff00_0000
        }
        None => false,
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.socket.poll_recv(cx, buffers, meta);
        if let (Poll::Ready(Ok(n)), Some(counters)) = (&polled, &self.counters) {
            for (buffer, meta) in buffers.iter().zip(meta.iter()).take(*n) {
                let strange = buffer[..meta.len].chunks(meta.stride.max(1)).filter(|d| !may_be_quic(d)).count();
                if strange > 0 {
                    counters.datagrams_not_quic.fetch_add(strange as u64, Relaxed);
                }
            }
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments().min(SEGMENTS_MAX)
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_told_from_quic_by_its_first_bytes() {
        assert!(!may_be_quic(b""));
        assert!(!may_be_quic(b"GET / HTTP/1.1"));
        assert!(!may_be_quic(&[0x16 | 0x80, 3, 1, 2, 0]));
        assert!(may_be_quic(&[0xc0, 0, 0, 0, 1, 8]));
        assert!(may_be_quic(&[0x40; 40]));
    }
}
