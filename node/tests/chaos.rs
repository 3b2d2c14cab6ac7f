//! Real nodes with real device hosts and disks, killed, hung, filled up and damaged while clients ask, and every actor compared
//! with a model of what it was asked.
//!
//! `RINGHOLD_CHAOS_KILLS=200 cargo test --release -p ringhold --test chaos -- --nocapture kills` for a long run;
//! `RINGHOLD_CHAOS_SEED` for the blows of an earlier one (what they hit depends on the machine too).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringhold::Key;
use ringhold::client::{AskError, Client, Error, Options};
use ringhold::shipped::account;
use ringhold_cluster::wire::{DeviceState, DeviceStatus, Request, Response};
use ringhold_kernels::actor::Actor;
use ringhold_kernels::message::Reason;
use ringhold_kernels::plain::Plain;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

/// How long anything may take that is sure to happen.
const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[actors]
committed = ["account"]

[[devices]]
kind = "cpu"
workers = 2

[supervision]
stalled_after = "500ms"
restart_backoff_max = "100ms"
"#;

/// A node's process, killed when dropped.
struct Node {
    process: Child,
    address: String,
    data: PathBuf,
    log: PathBuf,
}

impl Node {
    /// Starts one on `folder/data`, its log in `folder/log`.
    fn start(folder: &Path) -> Node {
        Node::try_start(folder, &folder.join("data")).unwrap_or_else(|log| panic!("it did not start: {log}"))
    }

    /// # Errors
    /// Where it does not start: its whole log.
    fn try_start(folder: &Path, data: &Path) -> Result<Node, String> {
        let (config, log) = (folder.join("node.toml"), folder.join("log"));
        fs::write(&config, CONFIG).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_ringhold"))
            .args(["node", "start", "--json", "--listen", "127.0.0.1:0", "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(address) = said["listening"].as_str().map(str::to_owned) else {
            let code = process.wait().unwrap();
            return Err(format!("{code}: {line}{}", fs::read_to_string(log).unwrap()));
        };
        Ok(Node { process, address, data: data.into(), log })
    }

    async fn client(&self) -> Client {
        let mut options = Options::from_data_dir(&self.address, &self.data).unwrap().with::<account::Actor>();
        options.ask_deadline = PATIENCE;
        Client::connect(options).await.unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Tells it to end, in good order.
    fn terminate(mut self) {
        self.signal(Signal::TERM);
        let status = self.process.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn device(client: &Client) -> DeviceStatus {
    match client.request(Request::Devices, PATIENCE).await.unwrap() {
        Response::Devices(mut devices) => devices.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Waits until the device runs, and says in which process.
async fn host(client: &Client) -> Pid {
    let until = Instant::now() + PATIENCE;
    loop {
        let device = device(client).await;
        if let (DeviceState::Running, Some(pid)) = (device.state, device.pid) {
            return Pid::from_raw(pid as i32).unwrap();
        }
        assert!(Instant::now() < until, "{device:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn state(client: &Client, key: u64) -> account::State {
    match client.request(Request::Inspect { type_id: account::Actor::TYPE, key: Key(key).into() }, PATIENCE).await {
        Ok(Response::Inspected(actor)) => account::State::from_bytes(&actor.state).unwrap(),
        Err(Error::Failed(failed)) if failed.reason() == Some(Reason::NoActor) => {
            account::State { balance: 0, operations: 0 }
        }
        other => panic!("{other:?}"),
    }
}

async fn deposit(client: Client, key: u64, cents: i64) -> Result<i64, AskError> {
    match client.ask(Key(key), account::Message::Deposit { cents }).await? {
        account::Reply::Balance { cents } => Ok(cents),
        other => panic!("{other:?}"),
    }
}

/// Random numbers from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit
    }
}

/// What is known of one account. Its deposits are 1, 2, 4, …: one bit of its balance for each.
#[derive(Clone, Copy, Default)]
struct Model {
    /// Told to the node.
    issued: i64,
    /// Known to be applied: answered, or in the balance of an answer.
    known: i64,
}

impl Model {
    /// Takes in the balance that a deposit was answered with.
    fn answered(&mut self, bit: i64, balance: i64) {
        assert_eq!(balance & bit, bit, "the answer to a deposit has it");
        // What one client tells one actor is handled in its order.
        assert_eq!(balance & !(bit | (bit - 1)), 0, "and nothing that came later: {balance:b} to {bit:b}");
        assert_eq!(balance & self.known & (bit - 1), self.known & (bit - 1), "and all that was known: {balance:b}");
        assert_eq!(balance & !self.issued, 0, "and only what there was: {balance:b}");
        self.known |= balance;
    }

    fn check(&self, key: u64, found: account::State) {
        let account::State { balance, operations } = found;
        assert_eq!(balance & self.known, self.known, "account {key}: an answered deposit is lost: {balance:b}");
        assert_eq!(balance & !self.issued, 0, "account {key} has what it was never told: {balance:b}");
        // A deposit that came twice is carried into the next bit.
        assert_eq!(balance.count_ones(), operations, "account {key}: a deposit was applied twice: {balance:b}");
    }
}

/// The node in use, and how many times it has been killed.
#[derive(Clone)]
struct Life {
    number: u64,
    client: Client,
}

/// The answer, or why there is none in this life: the client of a killed node would wait on for a while.
async fn deposit_in(mut life: watch::Receiver<Life>, client: Client, key: u64, cents: i64) -> Result<i64, String> {
    tokio::select! {
        biased;
        answer = deposit(client, key, cents) => answer.map_err(|error| error.to_string()),
        _ = life.changed() => Err("another node has begun".into()),
    }
}

/// Asks until told to stop, four deposits at a time, and returns the models of its accounts.
async fn ask_on(
    asker: u64,
    mut life: watch::Receiver<Life>,
    killed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> BTreeMap<u64, Model> {
    const DEPOSITS: u32 = 60;
    let mut models = BTreeMap::new();
    for number in 0.. {
        let key = asker << 32 | number;
        let mut model = Model::default();
        for first in (0..DEPOSITS).step_by(4) {
            if stop.load(SeqCst) {
                models.insert(key, model);
                return models;
            }
            let Life { number, client } = life.borrow_and_update().clone();
            let bits = [0, 1, 2, 3].map(|next| 1i64 << (first + next));
            model.issued |= bits.iter().sum::<i64>();
            let [a, b, c, d] = bits.map(|bit| deposit_in(life.clone(), client.clone(), key, bit));
            // Polled in this order, and so sent in it.
            let (a, b, c, d) = tokio::join!(biased; a, b, c, d);
            let mut failed = false;
            for (bit, answer) in bits.into_iter().zip([a, b, c, d]) {
                match answer {
                    Ok(balance) => model.answered(bit, balance),
                    Err(why) => {
                        let node_lived = killed.load(SeqCst) == number;
                        assert!(!node_lived, "an ask of account {key} while the node lived: {why}");
                        failed = true;
                    }
                }
            }
            if failed && life.borrow().number == number {
                life.changed().await.unwrap();
            }
        }
        models.insert(key, model);
    }
    unreachable!("there are more numbers than time")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    KillHost,
    HangHost,
    KillNode,
}

/// Kills and hangs while asks are under way, idle or not; everything answered is there, once, and while the node lives
/// everything is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_hangs_lose_and_double_nothing_that_was_answered() {
    const ASKERS: u64 = 8;
    let number_of = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let kills = number_of("RINGHOLD_CHAOS_KILLS").unwrap_or(8);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number_of("RINGHOLD_CHAOS_SEED").unwrap_or(now);
    println!("RINGHOLD_CHAOS_SEED={seed}");
    let mut random = Random(seed);

    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    let mut client = node.client().await;
    let (tell_life, life) = watch::channel(Life { number: 0, client: client.clone() });
    let (killed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let askers: Vec<_> =
        (0..ASKERS).map(|asker| tokio::spawn(ask_on(asker, life.clone(), killed.clone(), stop.clone()))).collect();

    let mut took: BTreeMap<Blow, Vec<Duration>> = BTreeMap::new();
    for number in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        let blow = match number {
            // One of each at least.
            0 => Blow::KillHost,
            1 => Blow::HangHost,
            2 => Blow::KillNode,
            _ => [Blow::KillHost, Blow::KillHost, Blow::HangHost, Blow::KillNode][random.below(4) as usize],
        };
        let old = host(&client).await;
        let struck = Instant::now();
        match blow {
            Blow::KillHost => kill_process(old, Signal::KILL).unwrap(),
            Blow::HangHost => kill_process(old, Signal::STOP).unwrap(),
            Blow::KillNode => {
                killed.fetch_add(1, SeqCst);
                node.signal(Signal::KILL);
                node.process.wait().unwrap();
                node = Node::start(folder.path());
                client = node.client().await;
                tell_life.send_replace(Life { number: killed.load(SeqCst), client: client.clone() });
            }
        }
        if blow != Blow::KillNode {
            let until = struck + PATIENCE;
            while host(&client).await == old {
                assert!(
                    Instant::now() < until,
                    "its host was struck ({blow:?}), and there is no other: {}",
                    node.log()
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        // An account of its own, outside of the model.
        client.ask(Key(u64::MAX), account::Message::Read).await.unwrap();
        took.entry(blow).or_default().push(struck.elapsed());
    }
    stop.store(true, SeqCst);
    let mut models = BTreeMap::new();
    for asker in askers {
        models.extend(asker.await.unwrap());
    }
    for (blow, mut took) in took {
        took.sort_unstable();
        let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
        println!("{blow:?}: {} times, to the first answer: median {median:?}, longest {most:?}", took.len());
    }
    let deposits = |of: fn(&Model) -> i64| models.values().map(|model| of(model).count_ones()).sum::<u32>();
    println!("{} accounts, {} deposits, {} known", models.len(), deposits(|m| m.issued), deposits(|m| m.known));

    for (key, model) in &models {
        model.check(*key, state(&client, *key).await);
    }
    client.close().await.unwrap();
    node.terminate();
    // And once more from what is on the disk.
    let node = Node::start(folder.path());
    let client = node.client().await;
    for (key, model) in &models {
        model.check(*key, state(&client, *key).await);
    }
    client.close().await.unwrap();
    node.terminate();
}

/// A hung host says for ever that it is idle; what waits for it tells that it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hangs_while_it_is_idle_is_replaced_once_there_is_work() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let client = node.client().await;
    assert_eq!(deposit(client.clone(), 1, 5).await.unwrap(), 5);
    // Long enough to come to rest.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let old = host(&client).await;
    kill_process(old, Signal::STOP).unwrap();
    assert_eq!(deposit(client.clone(), 1, 2).await.unwrap(), 7);
    assert_ne!(host(&client).await, old);
    client.close().await.unwrap();
    node.terminate();
}

/// A small file system in memory, at a folder; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// # Errors
    /// Why there is none.
    fn mount(at: PathBuf, megabytes: u32) -> Result<SmallDisk, String> {
        fs::create_dir(&at).unwrap();
        let options = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(SmallDisk(at)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Leaves no room on it, and says what to remove to have it again.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        let mut piece = vec![0xa5u8; 1 << 20];
        while !piece.is_empty() {
            if std::io::Write::write_all(&mut file, &piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The node goes on and says what is wrong, answers wait, and come once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_committed_answers_wait_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = match SmallDisk::mount(folder.path().join("disk"), 64) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no tmpfs can be mounted here ({why})"),
    };
    let data = disk.0.join("data");
    let node = Node::try_start(folder.path(), &data).unwrap();
    let client = node.client().await;
    for key in 0..100 {
        assert_eq!(deposit(client.clone(), key, 1).await.unwrap(), 1);
    }
    let filler = disk.fill();
    // More than there was room for at the end of what there is already.
    let waiting: Vec<_> = (0..100).map(|key| tokio::spawn(deposit(client.clone(), key, 2))).collect();
    let until = Instant::now() + PATIENCE;
    let failed = loop {
        let checkpoints = device(&client).await.checkpoints.expect("the device makes checkpoints");
        if let Some(failed) = checkpoints.failed {
            break failed;
        }
        // Where what there is has room for these, more is told.
        client.tell(Key(u64::MAX), account::Message::Deposit { cents: 1 }).await.unwrap();
        assert!(Instant::now() < until, "{checkpoints:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(failed.contains("space"), "{failed}");
    let late = tokio::spawn(deposit(client.clone(), 0, 4));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!late.is_finished(), "an answer came that no checkpoint has");
    assert_eq!(device(&client).await.state, DeviceState::Running);

    fs::remove_file(filler).unwrap();
    assert_eq!(late.await.unwrap().unwrap(), 7);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap(), 3);
    }
    assert_eq!(device(&client).await.checkpoints.unwrap().failed, None);
    client.close().await.unwrap();
    node.terminate();
    let node = Node::try_start(folder.path(), &data).unwrap();
    let client = node.client().await;
    for key in 0..100 {
        assert_eq!(state(&client, key).await.balance, if key == 0 { 7 } else { 3 });
    }
    client.close().await.unwrap();
    node.terminate();
}

/// However the files are damaged, the node begins with a state that once was, or says why it does not begin. Where it is not
/// the last state, the log says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_disk_is_told_of_and_never_believed() {
    const DEPOSITS: u32 = 40;
    const KEYS: u64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let client = node.client().await;
    for bit in 0..DEPOSITS {
        let asks: Vec<_> = (0..KEYS).map(|key| tokio::spawn(deposit(client.clone(), key, 1 << bit))).collect();
        for ask in asks {
            ask.await.unwrap().unwrap();
        }
    }
    client.close().await.unwrap();
    node.terminate();

    let store = folder.path().join("data/checkpoints/sled/db");
    let whole = fs::read(&store).unwrap();
    let (mut refused, mut older, mut unharmed) = (0, 0, 0);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed);
    // Where anything was ever written: sled's file grows by segments, and the rest of one is zeros.
    let used: Vec<usize> =
        whole.chunks(4096).enumerate().filter(|(_, c)| c.iter().any(|b| *b != 0)).map(|c| c.0).collect();
    for round in 0..12 {
        let at = used[random.below(used.len() as u64) as usize] * 4096 + random.below(4096) as usize;
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(at),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            _ => bytes.iter_mut().skip(at).take(4096).for_each(|byte| *byte = 0),
        }
        let place = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(folder.path().join("data")).arg(place.path()).status().unwrap();
        assert!(copied.success());
        fs::write(place.path().join("data/checkpoints/sled/db"), bytes).unwrap();
        let node = match Node::try_start(place.path(), &place.path().join("data")) {
            Ok(node) => node,
            Err(log) => {
                refused += 1;
                assert!(log.contains("damaged") || log.contains("lost"), "round {round}: {log}");
                continue;
            }
        };
        let client = node.client().await;
        let mut last = true;
        for key in 0..KEYS {
            let account::State { balance, operations } = state(&client, key).await;
            // Every state that an account ever had is a row of ones.
            assert_eq!(
                (balance & (balance + 1), balance.count_ones()),
                (0, operations),
                "round {round}, account {key}"
            );
            last &= operations == DEPOSITS;
        }
        let log = node.log();
        let told = log.contains("damaged") || log.contains("has lost");
        assert!(last || told, "round {round}: an older state, and nobody says so: {log}");
        if last {
            unharmed += 1
        } else {
            older += 1
        }
        client.close().await.unwrap();
        node.terminate();
    }
    println!("{refused} refused, {older} began with an older checkpoint, {unharmed} with the last");
}
