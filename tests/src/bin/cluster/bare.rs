//! A bare quinn stream between two processes: what carries messages between nodes, and nothing else.
//!
//! Both ends are set up by the functions that set up a node's, so that certificates, ciphers, datagram sizes and windows are the same.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use ringhold_cluster::counters::Counters;
use ringhold_cluster::network::{Network, RealNetwork};
use ringhold_cluster::tls::{Files, Identity, NODE_NAME, Role};
use ringhold_cluster::transport::{PEER_WINDOW_BYTES, client_config, client_endpoint, server_endpoint};

use crate::Failure;

/// The first argument of the process at the other end; the second is the folder of its certificates.
pub const ROLE: &str = "bare-quinn";
/// A message on the wire: a header and a small payload.
const MESSAGE_BYTES: usize = 64;
/// What the sender gives the stream at once.
const WRITE_BYTES: usize = 64 * 1024;

/// The other end: it runs until its standard input ends.
pub fn serve() -> Result<(), Failure> {
    let folder = std::env::args().nth(2).ok_or("which certificates?")?;
    std::thread::spawn(|| {
        let _ = stdin().lines().count();
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let network: Arc<dyn Network> = Arc::new(RealNetwork);
        let identity = Identity::load(Files::node(Path::new(&folder)), Role::Node, &*network)?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = server_endpoint(&network, listen, &identity, &Arc::new(Counters::default()))?;
        println!("{}", endpoint.local_addr()?);
        stdout().flush()?;
        answer(endpoint).await
    })
}

/// Echoes what comes on the first stream; says of each later one how many bytes it brought.
async fn answer(endpoint: Endpoint) -> Result<(), Failure> {
    let connection = endpoint.accept().await.ok_or("the endpoint closed")?.await?;
    widen(&connection);
    let (mut send, mut receive) = connection.accept_bi().await?;
    let echoes = tokio::spawn(async move {
        let mut message = [0; MESSAGE_BYTES];
        while receive.read_exact(&mut message).await.is_ok() && send.write_all(&message).await.is_ok() {}
    });
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let mut bytes = 0u64;
        while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
            bytes += chunk.bytes.len() as u64;
        }
        send.write_all(&bytes.to_le_bytes()).await?;
        send.finish()?;
    }
    echoes.await?;
    Ok(())
}

/// As connections between nodes are.
fn widen(connection: &Connection) {
    connection.set_receive_window(PEER_WINDOW_BYTES.into());
    connection.set_send_window(PEER_WINDOW_BYTES.into());
}

/// What one turn of the bare program took.
pub struct Turn {
    pub asks_us: Vec<f64>,
    pub messages_per_s: f64,
}

/// One turn: a tenth of each goes before, uncounted. On one thread, where the bare program is at its best.
pub fn turn(tls: &Path, asks: usize, messages: u64) -> Result<Turn, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut bare = Bare::connect(tls).await?;
        bare.echoes(asks / 10).await?;
        let asks_us = bare.echoes(asks).await?;
        bare.stream(messages / 10).await?;
        let took = bare.stream(messages).await?;
        Ok(Turn { asks_us, messages_per_s: messages as f64 / took.as_secs_f64() })
    })
}

/// This end.
struct Bare {
    process: Child,
    _endpoint: Endpoint,
    connection: Connection,
    echo: (SendStream, RecvStream),
}

impl Bare {
    /// With the certificates of a node's data folder.
    async fn connect(tls: &Path) -> Result<Bare, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(ROLE)
            .arg(tls)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let address: SocketAddr = line.trim().parse().map_err(|_| "the bare program did not start")?;
        let network: Arc<dyn Network> = Arc::new(RealNetwork);
        let identity = Identity::load(Files::client(tls), Role::Client, &*network)?;
        let endpoint = client_endpoint(&network, address)?;
        let connection = endpoint.connect_with(client_config(&network, &identity)?, address, NODE_NAME)?.await?;
        widen(&connection);
        let echo = connection.open_bi().await?;
        Ok(Bare { process, _endpoint: endpoint, connection, echo })
    }

    /// Round trips of one message at a time, in microseconds.
    async fn echoes(&mut self, count: usize) -> Result<Vec<f64>, Failure> {
        let (send, receive) = &mut self.echo;
        let mut taken = Vec::with_capacity(count);
        let mut answer = [0; MESSAGE_BYTES];
        for i in 0..count {
            let start = Instant::now();
            send.write_all(&[i as u8; MESSAGE_BYTES]).await?;
            receive.read_exact(&mut answer).await?;
            taken.push(start.elapsed().as_secs_f64() * 1e6);
            assert_eq!(answer, [i as u8; MESSAGE_BYTES]);
        }
        Ok(taken)
    }

    /// From the first write until the receiver has said that it has read everything.
    async fn stream(&self, messages: u64) -> Result<Duration, Failure> {
        let bytes = messages * MESSAGE_BYTES as u64;
        let block = vec![0xa5; WRITE_BYTES];
        let start = Instant::now();
        let (mut send, mut receive) = self.connection.open_bi().await?;
        let mut left = bytes;
        while left > 0 {
            let now = left.min(WRITE_BYTES as u64);
            send.write_all(&block[..now as usize]).await?;
            left -= now;
        }
        send.finish()?;
        let mut arrived = [0; 8];
        receive.read_exact(&mut arrived).await?;
        let elapsed = start.elapsed();
        assert_eq!(u64::from_le_bytes(arrived), bytes);
        Ok(elapsed)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
