//! A node that is short of something sheds load in the stated order, tells whoever it refuses, and counts it.
//!
//! What it is short of is what a checkpoint covers: the store takes none for as long as the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ringhold::client::{AskError, Client, Error, Options};
use ringhold::config::{self, Config};
use ringhold::device::host::RealDevices;
use ringhold::device::keeper::Blocking;
use ringhold::node::{Environment, Node, Storage};
use ringhold::{Key, Registry};
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{Authority, Role};
use ringhold_cluster::wire::{LetterFilter, Refused, Request, Response, ShedLevel, Status};
use ringhold_kernels::message::Reason;
use ringhold_storage::blocks::{self, Blocks};
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters;

/// Adds up what others send it.
#[ringhold::actor]
pub mod sink {
    pub struct State {
        pub handled: u64,
    }

    pub enum Message {
        Add,
        Read,
    }

    pub enum Reply {
        Handled { messages: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Add => state.handled += 1,
            Message::Read => {}
        }
        ctx.reply(Reply::Handled { messages: state.handled });
    }
}

/// Adds up, and has others do so.
#[ringhold::actor]
pub mod relay {
    use super::sink;

    pub struct State {
        pub handled: u64,
    }

    pub enum Message {
        Add { filling: [u64; 5] },
        Pass { to: u64 },
        Read,
    }

    pub enum Reply {
        Handled { messages: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Add { .. } => state.handled += 1,
            Message::Pass { to } => ctx.send(sink::id(to), sink::Message::Add),
            Message::Read => {}
        }
        ctx.reply(Reply::Handled { messages: state.handled });
    }
}

/// In memory, and full when told to be.
#[derive(Default)]
struct Disk {
    blocks: blocks::InMemory,
    full: AtomicBool,
}

impl Blocks for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, blocks::Error> {
        self.blocks.get(key)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), blocks::Error> {
        match self.full.load(SeqCst) {
            true => Err(blocks::Error::DiskFull("the test's".into())),
            false => self.blocks.put(key, value),
        }
    }

    fn remove(&self, key: &[u8]) -> Result<(), blocks::Error> {
        self.blocks.remove(key)
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, blocks::Error> {
        self.blocks.first_from(key)
    }

    fn sync(&self) -> Result<(), blocks::Error> {
        self.blocks.sync()
    }

    fn bytes_on_disk(&self) -> u64 {
        self.blocks.bytes_on_disk()
    }
}

const RETAINED_BYTES: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(disk: &Arc<Disk>, authority: &Authority) -> Node {
    let device = config::Device {
        kind: config::DeviceKind::Cpu,
        workers: Some(1),
        host: config::Host::InProcess,
        ..Default::default()
    };
    let mut config = Config { devices: config::Devices(vec![device]), ..Config::default() };
    config.node.listen = "127.0.0.1:0".parse().unwrap();
    config.checkpoints.interval = Duration::from_millis(50);
    config.checkpoints.retained_bytes = RETAINED_BYTES;
    let mut registry = Registry::new();
    registry.register::<relay::Actor>().unwrap();
    registry.register::<sink::Actor>().unwrap();
    let storage = Storage {
        node_id: "test".into(),
        identity: authority.identity(Role::Node, &RealNetwork).unwrap(),
        dead_letters: Arc::new(dead_letters::InMemory::new(1_000)),
        checkpoints: Some(Checkpoints::open(disk.clone(), checkpoints::Options::default()).unwrap()),
        shards: None,
        jobs: Arc::new(Blocking),
        control: None,
        folder: None,
    };
    let network = Arc::new(RealNetwork);
    Node::start(&config, registry, Environment { network, devices: Arc::new(RealDevices::default()), storage })
        .await
        .unwrap()
}

struct Bench {
    node: Node,
    client: Client,
    authority: Authority,
}

impl Bench {
    fn options(&self) -> Options {
        let identity = self.authority.identity(Role::Client, &RealNetwork).unwrap();
        let mut options =
            Options::new(self.node.address().to_string(), identity).with::<relay::Actor>().with::<sink::Actor>();
        options.connect_deadline = Duration::from_secs(2);
        options
    }

    async fn status(&self) -> Status {
        match self.client.request(Request::Status, PATIENCE).await.unwrap() {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if holds(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {:?}", status.shedding);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends messages to actor 1 until so much is kept, or the level is there, and waits for it. Returns how many asks were refused
    /// by then: the node may notice before the last of them is sent.
    async fn fill(&self, percent: u64, asks: bool, level: ShedLevel) -> u64 {
        let mut refused = 0;
        loop {
            let status = self.status().await;
            let retained = status.devices[0].checkpoints.as_ref().unwrap().retained_bytes;
            if retained * 100 >= RETAINED_BYTES * percent || status.shedding.level == level {
                break;
            }
            let add = || relay::Message::Add { filling: [1; 5] };
            for _ in 0..50 {
                match asks {
                    true => match self.ask(1, add()).await {
                        Ok(_) => {}
                        Err(Reason::Overloaded) => refused += 1,
                        Err(other) => panic!("{other:?}"),
                    },
                    false => self.client.tell(Key(1), add()).await.unwrap(),
                }
            }
            self.client.flush().await.unwrap();
        }
        self.until(&format!("{percent} %"), |status| status.shedding.level == level).await;
        refused
    }

    async fn ask(&self, key: u64, message: relay::Message) -> Result<u64, Reason> {
        match self.client.ask(Key(key), message).await {
            Ok(relay::Reply::Handled { messages }) => Ok(messages),
            Err(AskError::NotHandled { reason, text, .. }) => {
                assert!(text.is_empty() || text.contains("overloaded"), "{text}");
                Err(reason)
            }
            Err(other) => panic!("{other}"),
        }
    }

    async fn sunk(&self, key: u64) -> u64 {
        let sink::Reply::Handled { messages } = self.client.ask(Key(key), sink::Message::Read).await.unwrap();
        messages
    }

    async fn overloaded_letters(&self) -> u64 {
        let filter = LetterFilter { reason: Some(Reason::Overloaded as u8), ..LetterFilter::default() };
        match self.client.request(Request::DeadLetters { filter, limit: 0 }, PATIENCE).await.unwrap() {
            Response::DeadLetters(found) => found.matching,
            other => panic!("{other:?}"),
        }
    }

    async fn ready(&self) -> (bool, String) {
        match self.client.request(Request::Health, PATIENCE).await.unwrap() {
            Response::Health(health) => (health.ready.ok, health.ready.reasons.join("; ")),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_is_shed_in_the_stated_order_and_taken_again() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let disk = Arc::new(Disk::default());
    let node = start(&disk, &authority).await;
    let identity = authority.identity(Role::Client, &RealNetwork).unwrap();
    let options = Options::new(node.address().to_string(), identity).with::<relay::Actor>().with::<sink::Actor>();
    let client = Client::connect(options).await.unwrap();
    let bench = Bench { node, client, authority };
    assert_eq!(bench.ask(1, relay::Message::Read).await, Ok(0));
    bench.until("a checkpoint", |status| status.devices[0].checkpoints.as_ref().unwrap().count > 0).await;
    assert!(bench.ready().await.0);

    disk.full.store(true, SeqCst);
    bench.client.tell(Key(1), relay::Message::Read).await.unwrap();
    bench.until("a failure", |status| status.devices[0].checkpoints.as_ref().unwrap().failed.is_some()).await;
    assert_eq!(bench.status().await.shedding.level, ShedLevel::Nothing, "a disk that fails is no shortage yet");
    assert!(!bench.ready().await.0);

    // First, new sessions; but for those that look after the node.
    bench.fill(81, false, ShedLevel::Sessions).await;
    match Client::connect(bench.options()).await {
        Err(Error::Refused { refused: Refused::Overloaded(why), .. }) => assert!(why.contains("`cpu0`"), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
    let admin = Client::connect(Options { admin: true, ..bench.options() }).await.expect("it is let in");
    assert_eq!(bench.ask(2, relay::Message::Read).await, Ok(0), "an actor that was not there before");

    // Then, messages that would make an actor.
    bench.fill(86, false, ShedLevel::Creation).await;
    assert_eq!(bench.ask(3, relay::Message::Read).await, Err(Reason::Overloaded));
    bench.client.tell(Key(4), relay::Message::Read).await.unwrap();
    assert!(bench.ask(2, relay::Message::Read).await.is_ok());
    assert_eq!(bench.overloaded_letters().await, 1);
    // Of actors to actors they are let in.
    assert!(bench.ask(2, relay::Message::Pass { to: 5 }).await.is_ok());
    assert_eq!(bench.sunk(5).await, 1);

    // Then, tells.
    bench.fill(91, false, ShedLevel::Tells).await;
    let handled = bench.ask(1, relay::Message::Read).await.unwrap();
    bench.client.tell(Key(1), relay::Message::Add { filling: [0; 5] }).await.unwrap();
    bench.client.flush().await.unwrap();
    assert_eq!(bench.ask(1, relay::Message::Read).await, Ok(handled), "it was refused");
    let letters = bench.overloaded_letters().await;
    assert!(letters >= 2, "with those that came while it filled: {letters}");
    assert!(bench.ask(2, relay::Message::Pass { to: 6 }).await.is_ok());
    assert_eq!(bench.sunk(6).await, 1);

    // Last, asks.
    let refused = bench.fill(96, true, ShedLevel::Asks).await;
    assert_eq!(bench.ask(1, relay::Message::Read).await, Err(Reason::Overloaded));
    let (ready, why) = bench.ready().await;
    assert!(!ready && why.contains("everything from outside is refused"), "{why}");

    let shedding = bench.status().await.shedding;
    assert_eq!((shedding.creations, shedding.asks), (2, refused + 1), "{shedding:?}");
    assert_eq!(
        shedding.tells + 1,
        bench.overloaded_letters().await,
        "each is kept, beside the one that would have made an actor"
    );
    assert!(shedding.sessions >= 1 && shedding.pressure_percent >= 95, "{shedding:?}");

    // With room, everything is taken again, and what was refused can be sent again.
    disk.full.store(false, SeqCst);
    let status = bench.until("the end of it", |status| status.shedding.level == ShedLevel::Nothing).await;
    assert!(status.shedding.why.is_empty());
    let before = bench.ask(1, relay::Message::Read).await.unwrap();
    let letters = bench.overloaded_letters().await;
    let retry = Request::RetryDeadLetters { filter: LetterFilter::default(), timeout_ms: 10_000 };
    match admin.request(retry, PATIENCE).await.unwrap() {
        Response::DeadLettersDone(done) => assert_eq!((done.matching, done.done), (letters, letters)),
        other => panic!("{other:?}"),
    }
    let deadline = Instant::now() + PATIENCE;
    while bench.ask(1, relay::Message::Read).await.unwrap() < before + letters - 1 {
        assert!(Instant::now() < deadline);
    }
    assert!(bench.ready().await.0);
    drop(admin);
    assert!(bench.node.drain().await.unanswered == 0);
}
