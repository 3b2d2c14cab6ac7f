//! kameo's remote actors: two libp2p swarms over QUIC, which is encrypted. The actor is looked up by name. Each tell and each ask is a
//! request of libp2p, on a stream of its own, of which a peer takes 100 at a time and drops the others: so tells wait for their
//! acknowledgement, [`WINDOW`] of them at a time.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kameo::actor::{RemoteActorRef, Spawn};
use kameo::message::{Context, Message};
use kameo::remote::{self, messaging};
use kameo::{Actor, RemoteActor, remote_message};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{Failure, PATIENCE, Remote, until_orphaned};

const NAME: &str = "counter";
/// Tells that are under way at a time.
const WINDOW: usize = 64;

#[derive(Actor, RemoteActor)]
pub struct Counter {
    count: u64,
}

#[derive(Serialize, Deserialize)]
pub struct Tell(Vec<u8>);

#[derive(Serialize, Deserialize)]
pub struct Ask(Vec<u8>);

#[derive(Serialize, Deserialize)]
pub struct Count;

#[remote_message]
impl Message<Tell> for Counter {
    type Reply = ();

    async fn handle(&mut self, _: Tell, _: &mut Context<Self, ()>) {
        self.count += 1;
    }
}

#[remote_message]
impl Message<Ask> for Counter {
    type Reply = Vec<u8>;

    async fn handle(&mut self, Ask(payload): Ask, _: &mut Context<Self, Vec<u8>>) -> Vec<u8> {
        payload
    }
}

#[remote_message]
impl Message<Count> for Counter {
    type Reply = u64;

    async fn handle(&mut self, Count: Count, _: &mut Context<Self, u64>) -> u64 {
        self.count
    }
}

fn swarm() -> Result<Swarm<remote::Behaviour>, Failure> {
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_quic()
        .with_behaviour(|key| remote::Behaviour::new(key.public().to_peer_id(), messaging::Config::default()))?
        // Between repetitions nothing is sent.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3_600)))
        .build();
    swarm.behaviour().try_init_global()?;
    Ok(swarm)
}

/// Drives a swarm for as long as the process lives; says the first address that it listens at, and the first peer that connects.
fn drive(mut swarm: Swarm<remote::Behaviour>) -> (oneshot::Receiver<Multiaddr>, oneshot::Receiver<PeerId>) {
    let ((listens, listening), (meets, met)) = (oneshot::channel(), oneshot::channel());
    let (mut listens, mut meets) = (Some(listens), Some(meets));
    tokio::spawn(async move {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => {
                    if let Some(listens) = listens.take() {
                        let _ = listens.send(address);
                    }
                }
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    if let Some(meets) = meets.take() {
                        let _ = meets.send(peer_id);
                    }
                }
                _ => {}
            }
        }
    });
    (listening, met)
}

pub async fn serve() -> Result<(), Failure> {
    let mut swarm = swarm()?;
    swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse()?)?;
    let peer = *swarm.local_peer_id();
    let (listening, met) = drive(swarm);
    println!("{}/p2p/{peer}", listening.await?);
    let counter = Counter::spawn(Counter { count: 0 });
    // With nobody to tell it to a registration is not made.
    met.await?;
    counter.register(NAME).await?;
    until_orphaned().await;
    Ok(())
}

pub struct Connected(RemoteActorRef<Counter>);

pub async fn connect(place: &str) -> Result<Connected, Failure> {
    let mut swarm = swarm()?;
    let (address, peer) = place.rsplit_once("/p2p/").ok_or("a strange address")?;
    let (address, peer): (Multiaddr, PeerId) = (address.parse()?, peer.parse()?);
    swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse()?)?;
    swarm.add_peer_address(peer, address.clone());
    swarm.dial(address)?;
    let (_, met) = drive(swarm);
    tokio::time::timeout(PATIENCE, met).await??;
    let since = Instant::now();
    loop {
        if let Ok(Some(counter)) = RemoteActorRef::<Counter>::lookup(NAME).await {
            return Ok(Connected(counter));
        }
        if since.elapsed() > PATIENCE {
            return Err("the other node's actor was not found".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Remote for Connected {
    async fn tell(&self, messages: u64, payload: &[u8]) -> Result<u64, Failure> {
        let message = Tell(payload.into());
        let mut under_way = FuturesUnordered::new();
        for _ in 0..messages {
            if under_way.len() == WINDOW {
                under_way.next().await.expect("the window is full")?;
            }
            under_way.push(self.0.tell(&message).send_ack());
        }
        while let Some(told) = under_way.next().await {
            told?;
        }
        Ok(self.0.ask(&Count).await?)
    }

    async fn ask(&self, payload: &[u8]) -> Result<(), Failure> {
        self.0.ask(&Ask(payload.into())).await?;
        Ok(())
    }
}
