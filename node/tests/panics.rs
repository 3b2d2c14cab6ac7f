//! A node one of whose own tasks panics: it ends and says so, or goes on without the one that was to blame.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringhold::client::{Client, Options};
use ringhold::config::{self, Config};
use ringhold::device::host::RealDevices;
use ringhold::device::keeper::Blocking;
use ringhold::node::{Environment, Node, Storage};
use ringhold::shipped::counter;
use ringhold::{ActorId, Key, Registry};
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{Authority, Role};
use ringhold_cluster::wire::{LetterFilter, Request, Response};
use ringhold_storage::dead_letters::{DeadLetter, DeadLetters, Error, Filter, InMemory, Listed, Removal, Totals};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Has a bug: it panics over what it is given, and over what it is asked.
struct Buggy(InMemory);

impl DeadLetters for Buggy {
    fn append(&self, _: &[DeadLetter]) -> Result<(), Error> {
        panic!("the letters are on fire")
    }

    fn count(&self) -> u64 {
        self.0.count()
    }

    fn list(&self, _: &Filter, _: usize) -> Result<Listed, Error> {
        panic!("nobody can read this")
    }

    fn remove(&self, numbers: &BTreeSet<u64>, why: Removal) -> u64 {
        self.0.remove(numbers, why)
    }

    fn totals(&self) -> Totals {
        self.0.totals()
    }

    fn flush(&self) -> Result<(), Error> {
        self.0.flush()
    }
}

async fn start(authority: &Authority) -> Node {
    let network = Arc::new(RealNetwork);
    let device = config::Device {
        kind: config::DeviceKind::Cpu,
        workers: Some(1),
        host: config::Host::InProcess,
        ..Default::default()
    };
    let mut config = Config { devices: config::Devices(vec![device]), ..Config::default() };
    config.node.listen = "127.0.0.1:0".parse().unwrap();
    let mut registry = Registry::new();
    registry.register::<counter::Actor>().unwrap();
    let storage = Storage {
        node_id: "test".into(),
        identity: authority.identity(Role::Node, &RealNetwork).unwrap(),
        dead_letters: Arc::new(Buggy(InMemory::new(1))),
        checkpoints: None,
        shards: None,
        jobs: Arc::new(Blocking),
        control: None,
        folder: None,
    };
    Node::start(&config, registry, Environment { network, devices: Arc::new(RealDevices::default()), storage })
        .await
        .unwrap()
}

async fn client(node: &Node, authority: &Authority) -> Client {
    let identity = authority.identity(Role::Client, &RealNetwork).unwrap();
    Client::connect(Options::new(node.address().to_string(), identity).with::<counter::Actor>()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_task_that_carries_its_messages_fails_and_says_why() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let node = start(&authority).await;
    let ours = client(&node, &authority).await;
    ours.ask(Key(1), counter::Message::Add { amount: 1 }).await.unwrap();
    assert!(timeout(Duration::from_millis(100), node.failed()).await.is_err(), "all is well");
    // No message of its type: a dead letter.
    let id = ActorId::new(ringhold_kernels::id::TypeId::of("counter"), Key(1));
    ours.tell_raw(id, &[1]).await.unwrap();
    ours.flush().await.unwrap();
    let why = timeout(PATIENCE, node.failed()).await.expect("it fails");
    assert_eq!(why, "the task that carries the messages of device `cpu0` has panicked (the letters are on fire)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_one_client_is_served_costs_the_others_nothing() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let node = start(&authority).await;
    let (ours, theirs) = (client(&node, &authority).await, client(&node, &authority).await);
    theirs.ask(Key(1), counter::Message::Add { amount: 1 }).await.unwrap();
    let request = Request::DeadLetters { filter: LetterFilter::default(), limit: 1 };
    let answer = timeout(PATIENCE, ours.request(request, PATIENCE)).await.expect("it is told");
    assert!(answer.is_err(), "{answer:?}");
    for count in 2..10 {
        let reply = timeout(PATIENCE, theirs.ask(Key(1), counter::Message::Add { amount: 1 })).await.unwrap();
        assert_eq!(reply.unwrap(), counter::Reply::Count { count });
    }
    let sessions = || async {
        match theirs.request(Request::Status, PATIENCE).await.unwrap() {
            Response::Status(status) => status.sessions,
            other => panic!("{other:?}"),
        }
    };
    assert!(sessions().await.iter().any(|session| session.messages_in == 9), "it is one session all the while");
    assert!(timeout(Duration::from_millis(100), node.failed()).await.is_err(), "the node goes on");
}
