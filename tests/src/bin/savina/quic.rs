//! The network's part: a bare quinn stream over loopback, and Ringhold's client and node over the same.
//!
//! Both ends are in this process, each on a thread and a tokio current-thread runtime of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use ringhold_cluster::counters::Counters;
use ringhold_cluster::network::{Network, RealNetwork};
use ringhold_cluster::tls::{Authority, NODE_NAME, Role};
use ringhold_cluster::transport::{client_config, client_endpoint, server_endpoint};

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

/// A bare echo of 64 bytes on one stream, and a bare stream of the same messages in 64 KiB writes, on connections
/// set up by the code that sets up Ringhold's own: the same windows, datagram sizes, ciphers and certificates.
pub fn bare(load: &Load) -> Result<Figures, Failure> {
    let network: Arc<dyn Network> = Arc::new(RealNetwork);
    let authority = Authority::in_memory(&*network)?;
    let node = authority.identity(Role::Node, &*network)?;
    let client = client_config(&network, &authority.identity(Role::Client, &*network)?)?;

    let (to_client, from_server) = mpsc::channel();
    let (to_main, arrivals) = mpsc::channel();
    let server_network = network.clone();
    let server = thread::spawn(move || {
        Flavour::CurrentThread.block_on(async {
            let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let endpoint = server_endpoint(&server_network, loopback, &node, &Arc::new(Counters::default()))?;
            to_client.send(endpoint.local_addr()?)?;
            serve(endpoint, &to_main).await
        })
    });
    let figures = Flavour::CurrentThread.block_on(async {
        let address = from_server.recv()?;
        let endpoint = client_endpoint(&network, address)?;
        let connection = endpoint.connect_with(client, address, NODE_NAME)?.await?;
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

/// Echoes what comes on the first stream, and says when each later one has ended.
async fn serve(endpoint: Endpoint, arrivals: &mpsc::Sender<(u64, Instant)>) -> Result<(), Failure> {
    let connection = endpoint.accept().await.ok_or("the endpoint closed")?.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let mut message = [0; MESSAGE_BYTES];
    while receive.read_exact(&mut message).await.is_ok() {
        send.write_all(&message).await?;
    }
    while let Ok((_, mut receive)) = connection.accept_bi().await {
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
    let (mut send, _) = connection.open_bi().await?;
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
