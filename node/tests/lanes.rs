//! A real node that is killed, again and again, under clients that go on: what they send is done once, in order, and no caller
//! sees an error.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ringhold::Key;
use ringhold::client::{Client, Options};
use ringhold::shipped::{account, counter};
use ringhold_cluster::wire::{Request, Response};
use ringhold_kernels::actor::Actor;
use ringhold_kernels::plain::Plain;

/// How long anything may take that is sure to happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// Accounts are kept, counters are not; actors of both are on two devices.
const CONFIG: &str = r#"
[actors]
committed = ["account"]

[checkpoints]
committed_interval = "50ms"

[[devices]]
kind = "cpu"
workers = 1

[[devices]]
kind = "cpu"
workers = 1
"#;

/// A node's process, killed when dropped.
struct Node {
    process: Child,
    address: String,
}

impl Node {
    fn start(folder: &Path, listen: &str) -> Node {
        let config = folder.join("node.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_ringhold"))
            .args(["node", "start", "--json", "--listen", listen, "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let address = said["listening"].as_str().unwrap_or_else(|| {
            panic!("it did not start: {line}{}", std::fs::read_to_string(folder.join("log")).unwrap());
        });
        Node { process, address: address.to_owned() }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn client(address: &str, folder: &Path) -> Client {
    let options = Options::from_data_dir(address, folder.join("data")).unwrap();
    let mut options = options.with::<account::Actor>().with::<counter::Actor>();
    options.ask_deadline = PATIENCE;
    options.connect_deadline = Duration::from_millis(500);
    Client::connect(options).await.unwrap()
}

/// Deposits and additions one after the other: each answer has to be that of a plain sequential program.
async fn ask_on(client: Client, key: u64, stop: Arc<AtomicBool>) -> i64 {
    let mut asked = 0;
    while !stop.load(SeqCst) {
        asked += 1;
        let cents = asked;
        let deposited = client.ask(Key(key), account::Message::Deposit { cents }).await;
        match deposited.expect("the node comes back within the client's patience") {
            account::Reply::Balance { cents } => assert_eq!(cents, asked * (asked + 1) / 2, "account {key}"),
            other => panic!("{other:?}"),
        }
        let counted = client.ask(Key(key), counter::Message::Add { amount: 1 }).await;
        let counter::Reply::Count { count } = counted.expect("the node comes back within the client's patience");
        assert_eq!(count, asked as u64, "counter {key}");
    }
    asked
}

/// The same without waiting for answers.
async fn tell_on(client: Client, key: u64, stop: Arc<AtomicBool>) -> i64 {
    let mut told = 0;
    while !stop.load(SeqCst) {
        for _ in 0..50 {
            told += 1;
            client.tell(Key(key), account::Message::Deposit { cents: told }).await.unwrap();
            client.tell(Key(key), counter::Message::Add { amount: 1 }).await.unwrap();
        }
        client.flush().await.expect("it is known what became of each");
    }
    told
}

async fn account(client: &Client, key: u64) -> account::State {
    let request = Request::Inspect { type_id: account::Actor::TYPE, key: Key(key).into() };
    match client.request(request, PATIENCE).await {
        Ok(Response::Inspected(actor)) => account::State::from_bytes(&actor.state).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_sends_is_done_once_and_answered_though_its_node_is_killed() {
    const KILLS: u32 = 3;
    const KEYS: u64 = 4;
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path(), "127.0.0.1:0");
    let address = node.address.clone();
    let (asking, telling) = (client(&address, folder.path()).await, client(&address, folder.path()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let asked: Vec<_> = (0..KEYS).map(|key| tokio::spawn(ask_on(asking.clone(), key, stop.clone()))).collect();
    let told: Vec<_> = (KEYS..2 * KEYS).map(|key| tokio::spawn(tell_on(telling.clone(), key, stop.clone()))).collect();
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(400 + u64::from(kill) * 137)).await;
        node.kill();
        // A while in which nobody answers.
        tokio::time::sleep(Duration::from_millis(u64::from(kill) * 200)).await;
        node = Node::start(folder.path(), &address);
        let until = Instant::now() + PATIENCE;
        while [&asking, &telling].iter().any(|client| client.stats().reconnects <= u64::from(kill)) {
            assert!(Instant::now() < until, "the clients do not come back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    stop.store(true, SeqCst);
    let mut done = Vec::new();
    for asker in asked.into_iter().chain(told) {
        done.push(asker.await.unwrap());
    }
    for client in [&asking, &telling] {
        assert_eq!(client.stats().unconfirmed, 0);
    }
    // And once more, after all was told: what is not durable yet is done again.
    node.kill();
    let node = Node::start(folder.path(), &address);
    for (key, done) in (0..).zip(done) {
        let client = if key < KEYS { &asking } else { &telling };
        let counter::Reply::Count { count } = client.ask(Key(key), counter::Message::Read).await.unwrap();
        assert_eq!(count, done as u64, "counter {key}");
        let account::Reply::Balance { cents } = client.ask(Key(key), account::Message::Read).await.unwrap() else {
            panic!("a read is answered with the balance")
        };
        assert_eq!(cents, done * (done + 1) / 2, "account {key}");
        assert_eq!(account(client, key).await.balance, cents);
    }
    asking.close().await.unwrap();
    telling.close().await.unwrap();
    drop(node);
}
