//! Backups of a running cluster, and what is restored of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringhold::backup::{self, Error, fetch, verify};
use ringhold::client::{Client, Options};
use ringhold::config::{self, Config};
use ringhold::device::host::RealDevices;
use ringhold::device::keeper::Blocking;
use ringhold::node::{Environment, Node, Storage};
use ringhold::shards::ShardSet;
use ringhold::shipped::account;
use ringhold::{Key, Registry};
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{Authority, Files, Identity, Role};
use ringhold_kernels::outbox::{SHARDS, shard_of};
use ringhold_storage::blocks::InMemory;
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters;
use ringhold_storage::raft_log::RaftLog;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// Has money, and gives some to others.
#[ringhold::actor]
pub mod purse {
    pub struct State {
        pub opened: u32,
        pub cents: i64,
        pub given: u32,
        pub taken: u32,
    }

    pub enum Message {
        Open { cents: i64 },
        Give { to: u64, cents: i64 },
        Take { cents: i64 },
        Read,
    }

    pub enum Reply {
        Is { cents: i64, given: u32, taken: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Open { cents } => state.cents += cents,
            Message::Give { to, cents } => {
                state.cents -= cents;
                state.given += 1;
                ctx.send(id(to), Message::Take { cents });
            }
            Message::Take { cents } => {
                state.cents += cents;
                state.taken += 1;
                return;
            }
            Message::Read => {}
        }
        ctx.reply(Reply::Is { cents: state.cents, given: state.given, taken: state.taken });
    }
}

const PURSES: u64 = 40;
const CENTS: i64 = 1_000;

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<purse::Actor>().unwrap();
    registry
}

fn shipped() -> Registry {
    let mut registry = Registry::new();
    ringhold::shipped::register(&mut registry).unwrap();
    registry
}

/// Of a node with one device in this process.
fn config(committed: &[&str]) -> Config {
    let (kind, host) = (config::DeviceKind::Cpu, config::Host::InProcess);
    let device = config::Device { kind, workers: Some(1), host, ..Default::default() };
    let mut config = Config { devices: config::Devices(vec![device]), ..Config::default() };
    config.node.listen = "127.0.0.1:0".parse().unwrap();
    // Nobody else goes on with its device because the machine is busy.
    config.node.lease = Duration::from_secs(60);
    config.actors.committed = committed.iter().map(|name| (*name).into()).collect();
    config.checkpoints.committed_interval = Duration::from_millis(10);
    config
}

async fn start(id: u8, authority: &Authority, join: Option<&Node>) -> Node {
    let mut config = config(&["purse"]);
    config.node.name = Some(format!("n{id}"));
    config.node.join = join.map(|node| node.address().to_string()).into_iter().collect();
    let blocks: Arc<InMemory> = Arc::default();
    let storage = Storage {
        node_id: uuid::Uuid::from_bytes([id; 16]).to_string(),
        identity: authority.identity(Role::Node, &RealNetwork).unwrap(),
        dead_letters: Arc::new(dead_letters::InMemory::new(100)),
        checkpoints: Some(Checkpoints::open(blocks, checkpoints::Options::default()).unwrap()),
        shards: None,
        jobs: Arc::new(Blocking),
        control: Some(Arc::new(RaftLog::open(Arc::new(InMemory::default()), Path::new("in memory")).unwrap())),
        folder: None,
    };
    let (network, devices) = (Arc::new(RealNetwork), Arc::new(RealDevices::default()));
    Node::start(&config, registry(), Environment { network, devices, storage }).await.unwrap()
}

/// A node on a data folder, and a client of it with the certificates that are there.
async fn start_on(data_dir: &Path, registry: Registry, committed: &[&str]) -> (Node, Options) {
    let mut config = config(committed);
    config.node.data_dir = data_dir.into();
    let node = Node::start(&config, registry, Environment::real(&config).unwrap()).await.unwrap();
    let files = Files::client(&data_dir.join("tls"));
    let identity = Identity::load(files, Role::Client, &RealNetwork).unwrap();
    let options = Options::new(node.address().to_string(), identity);
    (node, options)
}

async fn read(client: &Client, key: u64) -> (i64, u32, u32) {
    let purse::Reply::Is { cents, given, taken } =
        client.ask_with(Key(key), purse::Message::Read, PATIENCE).await.unwrap();
    (cents, given, taken)
}

/// What was acknowledged before it began is in a backup, and money is in one purse or on its way to another: though both give and take
/// all the time, between two nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_of_one_moment_of_all_nodes_and_a_new_cluster_goes_on_from_it() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let a = start(1, &authority, None).await;
    let b = start(2, &authority, Some(&a)).await;
    let odd: ShardSet = (0..SHARDS).filter(|shard| shard % 2 == 1).collect();
    a.router().migrate_away(odd, 1).await.unwrap();
    let identity = authority.identity(Role::Client, &RealNetwork).unwrap();
    let client = Client::connect(Options::new(a.address().to_string(), identity).with::<purse::Actor>()).await.unwrap();
    for key in 0..PURSES {
        client.ask_with(Key(key), purse::Message::Open { cents: CENTS }, PATIENCE).await.unwrap();
    }
    let at_b = (0..PURSES).filter(|key| shard_of(Key(*key)) % 2 == 1).count() as u64;
    assert!((1..PURSES).contains(&at_b), "both nodes have some: {at_b}");

    // How often each has given, as has been answered; and as has been asked for.
    let answered: Arc<Mutex<BTreeMap<u64, u32>>> = Arc::default();
    let asked: Arc<Vec<AtomicU32>> = Arc::new((0..PURSES).map(|_| AtomicU32::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let givers: Vec<_> = (0..PURSES)
        .map(|key| {
            let (client, answered, asked, stop) = (client.clone(), answered.clone(), asked.clone(), stop.clone());
            tokio::spawn(async move {
                let mut number = key;
                while !stop.load(SeqCst) {
                    number += 7;
                    asked[key as usize].fetch_add(1, SeqCst);
                    let give = purse::Message::Give { to: number % PURSES, cents: (number % 50) as i64 };
                    let purse::Reply::Is { given, .. } = client.ask_with(Key(key), give, PATIENCE).await.unwrap();
                    answered.lock().insert(key, given);
                }
            })
        })
        .collect();
    // Each has given often.
    while answered.lock().len() < PURSES as usize || answered.lock().values().any(|given| *given < 10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("backups/first");
    let before = answered.lock().clone();
    let mut told = (0, 0);
    let contents = fetch(&client, PATIENCE, &at, &mut |total, done| told = (total, done)).await.unwrap();
    let after: Vec<u32> = asked.iter().map(|asked| asked.load(SeqCst)).collect();
    assert!(told.0 > 0 && told.1 >= told.0, "{told:?}");
    let devices: Vec<_> = contents.devices.iter().map(|device| (device.number, device.node)).collect();
    assert_eq!(devices, [(0, 1), (1, 2)]);
    assert!(matches!(fetch(&client, PATIENCE, &at, &mut |_, _| ()).await, Err(Error::NotEmpty(_))));
    stop.store(true, SeqCst);
    for giver in givers {
        giver.await.unwrap();
    }
    client.close().await.unwrap();
    drop((a, b));

    let verified = verify(&at, &registry(), &mut |_, _| ()).unwrap();
    assert_eq!(verified.contents, contents);
    let mut config = config(&["purse"]);
    config.node.data_dir = folder.path().join("restored");
    let restored = verified.restore(&config, &RealNetwork, &mut |_, _| ()).unwrap();
    assert_ne!(restored.cluster, contents.cluster.id, "it is another cluster");
    let (node, options) = start_on(&config.node.data_dir, registry(), &["purse"]).await;
    let state = node.cluster().unwrap().state();
    assert_eq!(state.shard_counts(), BTreeMap::from([(0, 2_048), (1, 2_048), (2, 0)]));
    let client = Client::connect(options.with::<purse::Actor>()).await.unwrap();
    // What was on its way arrives, sooner or later.
    let began = Instant::now();
    loop {
        let (mut cents, mut given, mut taken) = (0, 0, 0);
        for key in 0..PURSES {
            let now = read(&client, key).await;
            let (least, most) = (before[&key], after[key as usize]);
            assert!((least..=most).contains(&now.1), "{key} had given {least} to {most} times, and has {}", now.1);
            (cents, given, taken) = (cents + now.0, given + now.1, taken + now.2);
        }
        assert!(taken <= given, "{taken} were taken, and {given} given");
        if taken == given {
            break assert_eq!(cents, CENTS * PURSES as i64);
        }
        assert!(began.elapsed() < PATIENCE, "of {given} that were given {taken} were taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // It is a cluster like any other: actors go on in it, and it has backups too.
    let give = purse::Message::Give { to: 1, cents: 5 };
    client.ask_with(Key(0), give, PATIENCE).await.unwrap();
    let again = fetch(&client, PATIENCE, &folder.path().join("second"), &mut |_, _| ()).await.unwrap();
    let names: Vec<&str> = again.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["cpu0@0", "cpu0@1", "cpu0"]);
    verify(&folder.path().join("second"), &registry(), &mut |_, _| ()).unwrap();
    client.close().await.unwrap();
    node.drain().await;
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

async fn cli(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringhold"));
    command.arg("cluster").args(args).arg("--json").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Writes other bytes, tries to restore, and puts the file back.
async fn refuses(folder: &Path, file: &str, bytes: Option<&[u8]>, to: &Path) {
    let path = folder.join(file);
    let right = fs::read(&path).unwrap();
    match bytes {
        Some(bytes) => fs::write(&path, bytes).unwrap(),
        None => fs::remove_file(&path).unwrap(),
    }
    let error = verify(folder, &shipped(), &mut |_, _| ()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(file), "no `{file}` in {error}");
    assert!(!to.exists());
    fs::write(&path, right).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_damaged_is_refused_by_the_name_of_the_file_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let (first, at, to) = (text(&path("first")), text(&path("backup")), text(&path("restored")));
    let (node, options) = start_on(&path("first"), shipped(), &["account"]).await;
    let client = Client::connect(options.with::<account::Actor>()).await.unwrap();
    for key in 0..50 {
        client.ask_with(Key(key), account::Message::Deposit { cents: key as i64 }, PATIENCE).await.unwrap();
    }
    let address = node.address().to_string();
    let ran = cli(&["backup", &at, "--address", &address, "--data-dir", &first, "--deadline", "60s"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told["backup"]["devices"][0]["shards"], serde_json::json!([[0, SHARDS]]));
    let ran = cli(&["backup", &at, "--address", &address, "--data-dir", &first]).await;
    assert!(ran.code == 2 && ran.stderr.contains("is not empty"), "{}", ran.stderr);
    client.close().await.unwrap();
    node.drain().await;

    let to_path = path("restored");
    let mut files: Vec<String> =
        fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["backup.json", "cluster.state", "device-0.ckpt"]);
    for file in &files {
        let right = fs::read(path("backup").join(file)).unwrap();
        for number in 0..40 {
            let mut flipped = right.clone();
            let place = right.len() * number / 40;
            flipped[place] ^= 1 << (number % 8);
            refuses(&path("backup"), file, Some(&flipped), &to_path).await;
        }
        for bytes in [0, 3, right.len() / 2, right.len() - 1] {
            refuses(&path("backup"), file, Some(&right[..bytes]), &to_path).await;
        }
        refuses(&path("backup"), file, Some(&[&right[..], b"\n"].concat()), &to_path).await;
        refuses(&path("backup"), file, None, &to_path).await;
    }
    // As an operator meets it; and a binary without the actors' type names that.
    let ckpt = path("backup").join("device-0.ckpt");
    let right = fs::read(&ckpt).unwrap();
    fs::write(&ckpt, &right[..right.len() - 9]).unwrap();
    let ran = cli(&["restore", &at, "--data-dir", &to]).await;
    assert!(ran.code == 1 && ran.stderr.contains("device-0.ckpt") && ran.stderr.contains("damaged"), "{}", ran.stderr);
    fs::write(&ckpt, &right).unwrap();
    let error = verify(&path("backup"), &registry(), &mut |_, _| ()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Types { mismatches, .. } if mismatches[0].name == "account"), "{error}");
    let ran = cli(&["restore", &at, "--data-dir", &first]).await;
    assert!(ran.code == 2 && ran.stderr.contains("is not empty"), "{}", ran.stderr);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing was made: {left:?}");

    let ran = cli(&["restore", &at, "--data-dir", &to]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let contents: backup::Contents = serde_json::from_value(told["backup"].clone()).unwrap();
    assert_eq!(told["cluster"]["name"], contents.cluster.name.as_str());
    let (node, options) = start_on(&to_path, shipped(), &["account"]).await;
    let client = Client::connect(options.with::<account::Actor>()).await.unwrap();
    for key in 0..50 {
        let account::Reply::Balance { cents } =
            client.ask_with(Key(key), account::Message::Read, PATIENCE).await.unwrap()
        else {
            panic!("it is no refusal");
        };
        assert_eq!(cents, key as i64);
    }
    client.close().await.unwrap();
    node.drain().await;
}
