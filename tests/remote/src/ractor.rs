//! ractor_cluster: two node servers over TCP, unencrypted as it is by default. The actor is found by its process group, and is told
//! by `cast`, which has no bound, and asked by `call`.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, pg};
use ractor_cluster::{NodeServer, NodeServerMessage, RactorClusterMessage, client_connect};

use crate::{Failure, PATIENCE, Remote, until_orphaned};

const GROUP: &str = "told";

#[derive(RactorClusterMessage)]
pub enum Told {
    Tell(Vec<u8>),
    #[rpc]
    Ask(Vec<u8>, RpcReplyPort<Vec<u8>>),
    #[rpc]
    Count(RpcReplyPort<u64>),
}

struct Counter;

impl Actor for Counter {
    type Msg = Told;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Told>, (): ()) -> Result<u64, ActorProcessingErr> {
        pg::join(GROUP.into(), vec![myself.get_cell()]);
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Told>, message: Told, count: &mut u64) -> Result<(), ActorProcessingErr> {
        match message {
            Told::Tell(_) => *count += 1,
            Told::Ask(payload, reply) => reply.send(payload)?,
            Told::Count(reply) => reply.send(*count)?,
        }
        Ok(())
    }
}

async fn node(name: &str, port: u16) -> Result<ActorRef<NodeServerMessage>, Failure> {
    let server = NodeServer::new(port, "a cookie".into(), name.into(), "localhost".into(), None, None)
        .with_listen_addr(Ipv4Addr::LOCALHOST.into());
    Ok(Actor::spawn(None, server, ()).await?.0)
}

pub async fn serve() -> Result<(), Failure> {
    // The server does not say which port it was given.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let _server = node("serves", port).await?;
    Actor::spawn(Some("counter".into()), Counter, ()).await?;
    println!("{port}");
    until_orphaned().await;
    Ok(())
}

pub struct Connected {
    _server: ActorRef<NodeServerMessage>,
    counter: ActorRef<Told>,
}

pub async fn connect(place: &str) -> Result<Connected, Failure> {
    let port: u16 = place.parse()?;
    let server = node("tells", 0).await?;
    client_connect(&server, (Ipv4Addr::LOCALHOST, port)).await?;
    let since = Instant::now();
    loop {
        if let Some(counter) = pg::get_members(&GROUP.into()).pop() {
            return Ok(Connected { _server: server, counter: counter.into() });
        }
        if since.elapsed() > PATIENCE {
            return Err("the other node's actor was not found".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Remote for Connected {
    async fn tell(&self, messages: u64, payload: &[u8]) -> Result<u64, Failure> {
        for _ in 0..messages {
            self.counter.cast(Told::Tell(payload.into()))?;
        }
        // Behind them, for what one sends arrives in order.
        let limit = Some(Duration::from_secs(120));
        let count = self.counter.call(Told::Count, limit).await?;
        Ok(count.success_or("no count came")?)
    }

    async fn ask(&self, payload: &[u8]) -> Result<(), Failure> {
        let asked = self.counter.call(|reply| Told::Ask(payload.into(), reply), Some(PATIENCE)).await?;
        asked.success_or("no answer came")?;
        Ok(())
    }
}
