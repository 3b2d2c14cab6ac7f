//! The network's part: a bare quinn stream over loopback, and Ringhold's client and node over the same.
//!
//! Both ends are in this process, each on a thread and a tokio current-thread runtime of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::ask::{Latency, percentiles};
use crate::peers::Flavour;

/// A message on the wire: a header and a small payload.
pub const MESSAGE_BYTES: usize = 64;
/// What the sender gives the stream at once.
pub const WRITE_BYTES: usize = 64 * 1024;

/// How much of each.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub asks: usize,
    pub tells: u64,
    pub repetitions: u32,
}

impl Load {
    pub const FULL: Load = Load { asks: 20_000, tells: 8 << 20, repetitions: 5 };
    pub const QUICK: Load = Load { asks: 1_000, tells: 1 << 19, repetitions: 3 };
}

/// What either side did.
pub struct Figures {
    pub ask: Latency,
    /// Messages a second, from the first write to the receiver's last message; sorted.
    pub tells_per_s: Vec<f64>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A bare echo of 64 bytes on one stream, and a bare stream of the same messages in 64 KiB writes.
pub fn bare(load: &Load) -> Result<Figures, Failure> {
    let (server, client) = configs()?;
    let (to_client, from_server) = mpsc::channel();
    let (to_main, arrivals) = mpsc::channel();
    let server = thread::spawn(move || Flavour::CurrentThread.block_on(serve(server, &to_client, &to_main)));
    let figures = Flavour::CurrentThread.block_on(async {
        let address = from_server.recv()?;
        let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        endpoint.set_default_client_config(client);
        let connection = endpoint.connect(address, "localhost")?.await?;
        let ask = echoes(&connection, load.asks).await?;
        let mut tells_per_s = Vec::new();
        // The first repetition warms up: the congestion window has to open.
        for repetition in 0..=load.repetitions {
            let elapsed = stream(&connection, load.tells, &arrivals).await?;
            if repetition > 0 {
                tells_per_s.push(load.tells as f64 / elapsed.as_secs_f64());
            }
        }
        tells_per_s.sort_by(f64::total_cmp);
        connection.close(0u32.into(), b"measured");
        endpoint.wait_idle().await;
        Ok::<_, Failure>(Figures { ask, tells_per_s })
    })?;
    server.join().expect("the server's thread does not panic")?;
    Ok(figures)
}

/// A certificate that signs itself, and the two ends' configurations around it.
fn configs() -> Result<(ServerConfig, ClientConfig), Failure> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_string()])?;
    let certificate: CertificateDer<'static> = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der())?;
    let server = ServerConfig::with_single_cert(vec![certificate.clone()], key)?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let client = ClientConfig::with_root_certificates(roots.into())?;
    Ok((server, client))
}

/// Echoes what comes on two-way streams, and says when each one-way stream has ended.
async fn serve(
    config: ServerConfig,
    to_client: &mpsc::Sender<SocketAddr>,
    arrivals: &mpsc::Sender<(u64, Instant)>,
) -> Result<(), Failure> {
    let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    to_client.send(endpoint.local_addr()?)?;
    let connection = endpoint.accept().await.ok_or("the endpoint closed")?.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let mut message = [0; MESSAGE_BYTES];
    while receive.read_exact(&mut message).await.is_ok() {
        send.write_all(&message).await?;
    }
    while let Ok(mut receive) = connection.accept_uni().await {
        let bytes = drain(&mut receive).await?;
        arrivals.send((bytes, Instant::now()))?;
    }
    endpoint.wait_idle().await;
    Ok(())
}

async fn drain(receive: &mut RecvStream) -> Result<u64, Failure> {
    let mut bytes = 0;
    while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
        bytes += chunk.bytes.len() as u64;
    }
    Ok(bytes)
}

async fn echoes(connection: &Connection, asks: usize) -> Result<Latency, Failure> {
    let (mut send, mut receive): (SendStream, RecvStream) = connection.open_bi().await?;
    let mut taken = Vec::with_capacity(asks);
    let warm_up = asks / 10;
    let mut answer = [0; MESSAGE_BYTES];
    for i in 0..asks + warm_up {
        let start = Instant::now();
        send.write_all(&[i as u8; MESSAGE_BYTES]).await?;
        receive.read_exact(&mut answer).await?;
        if i >= warm_up {
            taken.push(start.elapsed());
        }
        assert_eq!(answer, [i as u8; MESSAGE_BYTES]);
    }
    send.finish()?;
    Ok(percentiles(taken))
}

async fn stream(
    connection: &Connection,
    messages: u64,
    arrivals: &mpsc::Receiver<(u64, Instant)>,
) -> Result<Duration, Failure> {
    let bytes = messages * MESSAGE_BYTES as u64;
    let block = vec![0xa5; WRITE_BYTES];
    let mut send = connection.open_uni().await?;
    let start = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let now = left.min(WRITE_BYTES as u64);
        send.write_all(&block[..now as usize]).await?;
        left -= now;
    }
    send.finish()?;
    // The receiver may still be at work: wait without holding up this end's own packets.
    send.stopped().await?;
    let (arrived, end) = arrivals.recv()?;
    assert_eq!(arrived, bytes);
    Ok(end - start)
}
