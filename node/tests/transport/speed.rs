//! What the transport costs beside a bare quinn stream with the same bytes, in the same process, in turns.
//!
//! `cargo test --release -p ringhold --test transport -- --ignored --nocapture speed`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use ringhold::client::Client;
use ringhold::server::{self, About, Doors, Server, Session, Sessions};
use ringhold_cluster::network::{BoxFuture, Network, RealNetwork};
use ringhold_cluster::tls::{Authority, NODE_NAME, Role};
use ringhold_cluster::transport::{client_config, client_endpoint, server_endpoint};
use ringhold_cluster::wire::{Failed, NodeName, Request, Response, TypeLayout};
use ringhold_kernels::actor::Actor;
use ringhold_kernels::message::{self, Kind, Reason};

use crate::harness::{Echo, Number};

const TELLS: usize = 4 << 20;
const ASKS: usize = 5_000;
const ROUNDS: usize = 5;
const LOOPBACK: &str = "127.0.0.1:0";

/// Doors that read every message and answer asks at once.
#[derive(Default)]
struct Counting {
    tells: AtomicUsize,
    bytes: AtomicUsize,
}

impl Doors for Counting {
    fn admit(&self, session: &Arc<Session>, batch: &[u8]) -> usize {
        let (mut rest, mut tells, mut bytes) = (batch, 0, 0);
        while let Some((header, payload, after)) = message::split_first(rest) {
            if header.kind() == Some(Kind::Ask) {
                let answer = header.with_to(header.from()).with_from(header.to()).with_kind(Kind::Reply);
                session.answer(answer, payload);
            } else {
                tells += 1;
            }
            bytes += usize::from(payload[0]);
            rest = after;
        }
        self.bytes.fetch_add(bytes, Relaxed);
        self.tells.fetch_add(tells, Relaxed);
        batch.len()
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn dead_letters(&self, _: &[u8], _: Reason) {}

    fn request(&self, _: Request) -> BoxFuture<'_, Response> {
        Box::pin(async { Response::Failed(Failed::text("none")) })
    }

    fn about(&self) -> About {
        About { node: NodeName::default(), payload_bytes_max: 156, types: vec![TypeLayout::of(&Echo::schema())] }
    }
}

/// Answers a byte for each byte on the first stream, and the number of bytes on each other at its end.
async fn bare_server(endpoint: Endpoint) {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (mut send, mut recv) = connection.accept_bi().await.unwrap();
    let mut message = [0; 64];
    while recv.read_exact(&mut message).await.is_ok() {
        send.write_all(&message).await.unwrap();
    }
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        let mut bytes = 0u64;
        while let Some(chunk) = recv.read_chunk(usize::MAX, true).await.unwrap() {
            bytes += chunk.bytes.len() as u64;
        }
        send.write_all(&bytes.to_le_bytes()).await.unwrap();
        send.finish().unwrap();
    }
}

async fn bare_tells(connection: &Connection, count: usize) -> f64 {
    let started = Instant::now();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let chunk = vec![7; 64 << 10];
    for _ in 0..count * 64 / chunk.len() {
        send.write_all(&chunk).await.unwrap();
    }
    send.finish().unwrap();
    recv.read_to_end(8).await.unwrap();
    count as f64 / started.elapsed().as_secs_f64()
}

async fn our_tells(client: &Client, count: usize) -> f64 {
    let started = Instant::now();
    for i in 0..count as u64 {
        client.tell(i, Number(i)).await.unwrap();
    }
    client.flush().await.unwrap();
    count as f64 / started.elapsed().as_secs_f64()
}

async fn bare_ask(stream: &mut (SendStream, RecvStream)) {
    let mut message = [7; 64];
    stream.0.write_all(&message).await.unwrap();
    stream.1.read_exact(&mut message).await.unwrap();
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn us(all: Vec<Duration>) -> f64 {
    median(all.into_iter().map(|d| d.as_secs_f64() * 1e6).collect())
}

/// Each end has a thread and a current-thread runtime of its own, as the bare program has.
fn on_a_thread<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            sender.send(make()).ok().unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
}

#[test]
#[ignore = "a measurement: run it by name, in release"]
fn speed_beside_a_bare_stream() {
    let network: Arc<dyn Network> = Arc::new(RealNetwork);
    let authority = Authority::in_memory(&*network).unwrap();
    let node = || authority.identity(Role::Node, &*network).unwrap();
    let options = server::Options {
        listen: LOOPBACK.parse().unwrap(),
        identity: node(),
        network: network.clone(),
        sessions_max: 8,
        peers: None,
    };
    let doors = Arc::new(Counting::default());
    let ours: Server = on_a_thread({
        let doors = doors.clone();
        move || Server::start(options, Arc::new(Sessions::default()), doors).unwrap()
    });
    let bare_address = on_a_thread({
        let (network, identity) = (network.clone(), node());
        move || {
            let endpoint = server_endpoint(&network, LOOPBACK.parse().unwrap(), &identity, &Arc::default()).unwrap();
            let address = endpoint.local_addr().unwrap();
            tokio::spawn(bare_server(endpoint));
            address
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let identity = authority.identity(Role::Client, &*network).unwrap();
        let endpoint = client_endpoint(&network, bare_address).unwrap();
        let config = client_config(&network, &identity).unwrap();
        let connection = endpoint.connect_with(config, bare_address, NODE_NAME).unwrap().await.unwrap();
        let options = ringhold::client::Options::new(ours.address().to_string(), identity).with::<Echo>();
        let client = Client::connect(options).await.unwrap();

        let mut echo = connection.open_bi().await.unwrap();
        let (mut our_asks, mut bare_asks) = (Vec::new(), Vec::new());
        for i in 0..ASKS as u64 {
            let started = Instant::now();
            client.ask(1, Number(i)).await.unwrap();
            our_asks.push(started.elapsed());
            let started = Instant::now();
            bare_ask(&mut echo).await;
            bare_asks.push(started.elapsed());
        }
        echo.0.finish().unwrap();
        let (ours, bare) = (us(our_asks), us(bare_asks));
        println!("ask p50: ours {ours:.1} µs, bare {bare:.1} µs, ratio {:.2}", ours / bare);

        let (mut our_rates, mut bare_rates) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            our_rates.push(our_tells(&client, TELLS).await);
            bare_rates.push(bare_tells(&connection, TELLS).await);
        }
        assert_eq!(doors.tells.load(Relaxed), ROUNDS * TELLS);
        let ratios = our_rates.iter().zip(&bare_rates).map(|(ours, bare)| ours / bare).collect();
        let (ours, bare) = (median(our_rates), median(bare_rates));
        println!("tells/s: ours {:.2} M, bare {:.2} M, ratio {:.2}", ours / 1e6, bare / 1e6, median(ratios));
    });
}
