//! Where the outside world comes in: datagrams, wall time, randomness, names of hosts.
//!
//! `main` chooses one [`Network`] and everything in the node and the client goes through it. [`RealNetwork`] is the
//! machine's; the simulator brings one that repeats to the byte for a seed. Time that passes (deadlines, delays) is
//! tokio's, which the simulator pauses; only wall time is asked for here.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::crypto::{HandshakeTokenKey, HmacKey};
use quinn::{AsyncUdpSocket, ConnectionIdGenerator, Runtime};
use ringhold_kernels::clock::{Clock, MonotonicClock};
use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub type ConnectionIds = Arc<dyn Fn() -> Box<dyn ConnectionIdGenerator> + Send + Sync>;

/// Network, wall time and randomness. One for a process; in the simulator, one for each simulated machine.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// A UDP socket. Port 0 takes any that is free.
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// What drives quinn's tasks and timers.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// The addresses of `host:port`.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// Fills `bytes` with what nobody can guess (in the simulator: with what the seed says).
    fn random(&self, bytes: &mut [u8]);

    /// Microseconds since the Unix epoch.
    fn wall_us(&self) -> u64;

    /// The same as it was known when the process started, and counted on from there: it does not jump.
    fn steady_us(&self) -> u64;

    /// The number by which the machine knows this process.
    fn process_id(&self) -> u32 {
        std::process::id()
    }

    /// The cryptography of TLS. Its randomness too is the network's.
    fn crypto_provider(&self) -> Arc<CryptoProvider>;

    /// The time by which certificates are judged.
    fn time_provider(&self) -> Arc<dyn TimeProvider>;

    /// What makes an endpoint's connection ids; `None` for quinn's own, which are random.
    fn connection_ids(&self) -> Option<ConnectionIds> {
        None
    }

    /// Key of the tokens by which an endpoint without a certificate tells peers that their connection is gone.
    fn reset_key(&self) -> Arc<dyn HmacKey> {
        let mut key = [0; 64];
        self.random(&mut key);
        Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key))
    }

    /// Key of the tokens by which clients prove their address.
    fn token_key(&self) -> Arc<dyn HandshakeTokenKey> {
        let mut key = [0; 64];
        self.random(&mut key);
        Arc::new(ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&key))
    }
}

/// The machine's own network, clock and randomness. Needs a tokio runtime with I/O and time.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealNetwork;

/// What sockets ask the kernel to hold for them; it gives what `net.core.rmem_max` and `wmem_max` allow.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

impl Network for RealNetwork {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = std::net::UdpSocket::bind(address)?;
        let state = quinn::udp::UdpSocketState::new((&socket).into())?;
        // Best effort: smaller buffers cost speed under load and nothing else.
        let _ = state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER_BYTES);
        let _ = state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER_BYTES);
        quinn::TokioRuntime.wrap_udp_socket(socket)
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(quinn::TokioRuntime)
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }

    fn random(&self, bytes: &mut [u8]) {
        provider().secure_random.fill(bytes).expect("the machine has a source of randomness");
    }

    fn wall_us(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64)
    }

    fn steady_us(&self) -> u64 {
        MonotonicClock::of_this_process().now_us()
    }

    fn crypto_provider(&self) -> Arc<CryptoProvider> {
        Arc::new(provider())
    }

    fn time_provider(&self) -> Arc<dyn TimeProvider> {
        Arc::new(rustls::time_provider::DefaultTimeProvider)
    }
}

/// ring, with TLS 1.3's suites in the order of their speed where the processor has AES instructions.
pub fn provider() -> CryptoProvider {
    use rustls::crypto::ring::{self, cipher_suite};
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    }
}

/// Randomness of one [`Network`] as a source of numbers: for jitter, not for keys.
pub fn random_below(network: &dyn Network, bound: Duration) -> Duration {
    let mut bytes = [0; 8];
    network.random(&mut bytes);
    let fraction = u64::from_le_bytes(bytes) as f64 / u64::MAX as f64;
    bound.mul_f64(fraction)
}

/// The wall time of a [`Network`] as quinn's tokens want it.
#[derive(Debug)]
pub(crate) struct WallTime(pub Arc<dyn Network>);

impl quinn::TimeSource for WallTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.0.wall_us())
    }
}
