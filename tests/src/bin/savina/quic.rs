//! The network's part: a bare quinn stream over loopback, and Ringhold's client and node over the same.
//!
//! All ends are in this process: each server on a thread and a tokio current-thread runtime of its own, and both
//! clients on another, where they take turns.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use ringhold::client::{Client, Options};
use ringhold::config::{self, Config};
use ringhold::device::host::RealDevices;
use ringhold::device::keeper::Blocking;
use ringhold::node::{Environment, Node, Storage};
use ringhold::{Key, Registry};
use ringhold_cluster::counters::Counters;
use ringhold_cluster::network::{Network, RealNetwork};
use ringhold_cluster::tls::{Authority, NODE_NAME, Role};
use ringhold_cluster::transport::{client_config, client_endpoint, server_endpoint};
use ringhold_kernels::message::HEADER_BYTES;
use ringhold_kernels::plain::Plain;
use ringhold_storage::dead_letters::InMemory;
use tokio::sync::oneshot;

use crate::ask::{Latency, percentiles};
use crate::ours::actors::echo;
use crate::ours::register;
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
    /// Messages a second, from the first write until the sender knows that the last was handled; sorted.
    pub tells_per_s: Vec<f64>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Ringhold and the bare program, each with its client's end in one runtime: they take turns.
pub fn run(load: &Load) -> Result<(Figures, Figures), Failure> {
    let network: Arc<dyn Network> = Arc::new(RealNetwork);
    let authority = Authority::in_memory(&*network)?;
    let (stop_node, node_stopped) = oneshot::channel();
    let (node, node_address) = serve_node(&network, &authority, node_stopped)?;
    let (bare, bare_address) = serve_bare(&network, &authority)?;

    let figures = Flavour::CurrentThread.block_on(async {
        let identity = authority.identity(Role::Client, &*network)?;
        let bare = Bare::connect(&network, client_config(&network, &identity)?, bare_address).await?;
        let options = Options::new(node_address.to_string(), identity).with::<echo::Actor>();
        let ours = Ours { client: Client::connect(options).await? };
        let figures = take_turns(&ours, bare, load).await?;
        ours.client.close().await?;
        Ok::<_, Failure>(figures)
    });
    drop(stop_node);
    node.join().expect("the node's thread does not panic")?;
    bare.join().expect("the bare server's thread does not panic")?;
    figures
}

/// The first turn of each warms up and is not counted.
async fn take_turns(ours: &Ours, mut bare: Bare, load: &Load) -> Result<(Figures, Figures), Failure> {
    let (mut our_asks, mut bare_asks) = (Vec::new(), Vec::new());
    for turn in 0..=ASK_TURNS {
        let asks = load.asks / ASK_TURNS;
        let (ours, bare) = (ours.asks(asks).await?, bare.echoes(asks).await?);
        if turn > 0 {
            our_asks.extend(ours);
            bare_asks.extend(bare);
        }
    }
    let bare = bare.end_echoes()?;
    let (mut our_tells, mut bare_tells) = (Vec::new(), Vec::new());
    for turn in 0..=load.repetitions {
        let ours = ours.tells(load.tells, turn).await?;
        let bare = bare.stream(load.tells).await?;
        if turn > 0 {
            our_tells.push(load.tells as f64 / ours.as_secs_f64());
            bare_tells.push(load.tells as f64 / bare.as_secs_f64());
        }
    }
    bare.end().await;
    our_tells.sort_by(f64::total_cmp);
    bare_tells.sort_by(f64::total_cmp);
    Ok((
        Figures { ask: percentiles(our_asks), tells_per_s: our_tells },
        Figures { ask: percentiles(bare_asks), tells_per_s: bare_tells },
    ))
}

const ASK_TURNS: usize = 10;
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

type Serving = (JoinHandle<Result<(), Failure>>, SocketAddr);

/// A node with a CPU device of one worker in its process.
fn serve_node(
    network: &Arc<dyn Network>,
    authority: &Authority,
    stopped: oneshot::Receiver<()>,
) -> Result<Serving, Failure> {
    let network = network.clone();
    let storage = Storage {
        node_id: "savina".into(),
        identity: authority.identity(Role::Node, &*network)?,
        dead_letters: Arc::new(InMemory::new(0)),
        checkpoints: None,
        shards: None,
        jobs: Arc::new(Blocking),
        control: None,
        folder: None,
    };
    let (to_client, address) = mpsc::channel();
    let thread = thread::spawn(move || {
        Flavour::CurrentThread.block_on(async {
            let mut config = Config::default();
            config.node.listen = LOOPBACK;
            config.devices.0[0].workers = Some(1);
            config.devices.0[0].host = config::Host::InProcess;
            let mut registry = Registry::new();
            register(&mut registry)?;
            let environment = Environment { network, devices: Arc::new(RealDevices::default()), storage };
            let node = Node::start(&config, registry, environment).await?;
            to_client.send(node.address())?;
            let _ = stopped.await;
            node.drain().await;
            Ok(())
        })
    });
    Ok((thread, address.recv().map_err(|_| "the node did not start")?))
}

/// An endpoint set up by the code that sets up a node's: the same windows, datagram sizes, ciphers, certificates.
fn serve_bare(network: &Arc<dyn Network>, authority: &Authority) -> Result<Serving, Failure> {
    let network = network.clone();
    let identity = authority.identity(Role::Node, &*network)?;
    let (to_client, address) = mpsc::channel();
    let thread = thread::spawn(move || {
        Flavour::CurrentThread.block_on(async {
            let endpoint = server_endpoint(&network, LOOPBACK, &identity, &Arc::new(Counters::default()))?;
            to_client.send(endpoint.local_addr()?)?;
            answer(endpoint).await
        })
    });
    Ok((thread, address.recv().map_err(|_| "the bare server did not start")?))
}

/// Echoes what comes on the first stream; says of each later one how many bytes it brought.
async fn answer(endpoint: Endpoint) -> Result<(), Failure> {
    let connection = endpoint.accept().await.ok_or("the endpoint closed")?.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let mut message = [0; MESSAGE_BYTES];
    while receive.read_exact(&mut message).await.is_ok() {
        send.write_all(&message).await?;
    }
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let mut bytes = 0u64;
        while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
            bytes += chunk.bytes.len() as u64;
        }
        send.write_all(&bytes.to_le_bytes()).await?;
        send.finish()?;
    }
    endpoint.wait_idle().await;
    Ok(())
}

/// The client's end of the bare program.
struct Bare {
    endpoint: Endpoint,
    connection: Connection,
    echo: (SendStream, RecvStream),
}

impl Bare {
    async fn connect(network: &Arc<dyn Network>, config: ClientConfig, address: SocketAddr) -> Result<Bare, Failure> {
        let endpoint = client_endpoint(network, address)?;
        let connection = endpoint.connect_with(config, address, NODE_NAME)?.await?;
        let echo = connection.open_bi().await?;
        Ok(Bare { endpoint, connection, echo })
    }

    async fn echoes(&mut self, asks: usize) -> Result<Vec<Duration>, Failure> {
        let (send, receive) = &mut self.echo;
        let mut taken = Vec::with_capacity(asks);
        let mut answer = [0; MESSAGE_BYTES];
        for i in 0..asks {
            let start = Instant::now();
            send.write_all(&[i as u8; MESSAGE_BYTES]).await?;
            receive.read_exact(&mut answer).await?;
            taken.push(start.elapsed());
            assert_eq!(answer, [i as u8; MESSAGE_BYTES]);
        }
        Ok(taken)
    }

    fn end_echoes(mut self) -> Result<Streaming, Failure> {
        self.echo.0.finish()?;
        Ok(Streaming { endpoint: self.endpoint, connection: self.connection })
    }
}

/// The bare program once it streams.
struct Streaming {
    endpoint: Endpoint,
    connection: Connection,
}

impl Streaming {
    /// Until the receiver says that it has read everything.
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

    /// Says goodbye, so that the server need not wait for the silence to grow long.
    async fn end(self) {
        self.connection.close(0u32.into(), b"measured");
        self.endpoint.wait_idle().await;
    }
}

/// Ringhold's client. `ASKED` is the actor that is asked, `TOLD` the first of those that are told, one a turn.
struct Ours {
    client: Client,
}

const ASKED: Key = Key(0);
const TOLD: u64 = 1;

const _: () = assert!(HEADER_BYTES + <echo::Message as Plain>::SIZE == MESSAGE_BYTES);

impl Ours {
    async fn asks(&self, asks: usize) -> Result<Vec<Duration>, Failure> {
        let mut taken = Vec::with_capacity(asks);
        for _ in 0..asks {
            let start = Instant::now();
            self.client.ask(ASKED, echo::Message::Ask { value: 1, padding: 0 }).await?;
            taken.push(start.elapsed());
        }
        Ok(taken)
    }

    /// Until the actor has handled everything: its messages are handled in order, so an ask after the last shows it.
    async fn tells(&self, messages: u64, turn: u32) -> Result<Duration, Failure> {
        let actor = Key(TOLD + u64::from(turn));
        let start = Instant::now();
        let mut tells = self.client.tells();
        for _ in 0..messages {
            tells.send(actor, echo::Message::Tell { value: 1, padding: 0 }).await?;
        }
        let reply = self.client.ask(actor, echo::Message::Read).await?;
        let elapsed = start.elapsed();
        assert!(matches!(reply, echo::Reply::Tells { count } if count == messages), "told {messages} times: {reply:?}");
        Ok(elapsed)
    }
}
