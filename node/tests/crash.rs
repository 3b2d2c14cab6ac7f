//! A real node with a real device host, which is killed and watched: what only processes can show.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ringhold::Key;
use ringhold::client::{AskError, Client, Options};
use ringhold::shipped::{counter, rod};
use ringhold_cluster::control::admin;
use ringhold_cluster::wire::{BreakerState, DeviceState, DeviceStatus, Request, Response};
use ringhold_kernels::message::Reason;
use ringhold_kernels::outbox::SHARDS;

struct Node {
    process: Child,
    address: String,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Node {
    fn start(folder: &Path) -> Node {
        Node::start_with(folder, "")
    }

    /// With this configuration.
    fn start_with(folder: &Path, toml: &str) -> Node {
        let config = folder.join("node.toml");
        std::fs::write(&config, toml).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_ringhold"))
            .args(["node", "start", "--json", "--listen", "127.0.0.1:0", "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = process.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            let _ = stderr.read_to_string(&mut log);
            log
        });
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON once it listens");
        Node { process, address: listening["listening"].as_str().unwrap().to_owned(), log: Some(log) }
    }

    async fn client(&self, folder: &Path) -> Client {
        let options = Options::from_data_dir(&self.address, folder.join("data")).unwrap();
        let mut options = options.with::<counter::Actor>().with::<rod::Actor>();
        options.ask_deadline = Duration::from_secs(60);
        Client::connect(options).await.unwrap()
    }

    fn terminate(mut self) -> (Option<i32>, String) {
        signal(self.process.id(), rustix::process::Signal::TERM);
        let status = self.process.wait().unwrap();
        (status.code(), self.log.take().expect("it is taken once").join().unwrap())
    }
}

/// A test that fails leaves no process behind.
impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

async fn device(client: &Client) -> DeviceStatus {
    match client.request(Request::Devices, Duration::from_secs(5)).await.unwrap() {
        Response::Devices(mut devices) => devices.remove(0),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_device_host_is_replaced_and_nothing_is_lost() {
    askers_under_kills("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_device_host_is_replaced_and_nothing_is_lost_where_answers_wait_for_the_disk() {
    askers_under_kills("[actors]\ncommitted = [\"counter\"]\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_checkpoints_state_is_lost_and_every_ask_is_answered() {
    askers_under_kills("[checkpoints]\nenabled = \"off\"\n").await;
}

const EMULATED: &str = "[[devices]]\nname = \"one\"\nkind = \"emulated\"\nworkers = 2\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_host_of_a_ring_kernel_is_replaced_and_nothing_is_lost() {
    askers_under_kills(EMULATED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_host_of_a_ring_kernel_is_replaced_and_nothing_is_lost_where_answers_wait_for_the_disk() {
    askers_under_kills(&format!("[actors]\ncommitted = [\"counter\"]\n{EMULATED}")).await;
}

async fn askers_under_kills(toml: &str) {
    let checkpoints = !toml.contains("off");
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_with(folder.path(), toml);
    let client = node.client(folder.path()).await;

    // Askers that never stop; the host is killed under them.
    let until = Instant::now() + Duration::from_secs(4);
    let askers: Vec<_> = (0..8u64)
        .map(|key| {
            let client = client.clone();
            tokio::spawn(async move {
                let (mut replied, mut lost) = (0u64, 0u64);
                while Instant::now() < until {
                    match client.ask(Key(key), counter::Message::Add { amount: 1 }).await {
                        Ok(counter::Reply::Count { count }) => {
                            match checkpoints {
                                true => assert_eq!(count, replied + 1, "all before was handled, and once"),
                                false => assert!(count <= replied + lost + 1, "nothing is handled twice"),
                            }
                            replied += 1;
                        }
                        Err(AskError::NotHandled { reason: Reason::StateLost, .. }) => lost += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
                (replied, lost)
            })
        })
        .collect();
    let mut pids = vec![];
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(800)).await;
        let pid = loop {
            let now = device(&client).await;
            let pid = now.pid.expect("the device has a process of its own");
            if now.state == DeviceState::Running && !pids.contains(&pid) {
                break pid;
            }
            assert!(Instant::now() < until + Duration::from_secs(60), "there is no other process: {now:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        signal(pid, rustix::process::Signal::KILL);
        pids.push(pid);
    }
    let (mut replied, mut lost) = (0, 0);
    for asker in askers {
        let (r, l) = asker.await.expect("every ask is answered, by a reply or by the news that state was lost");
        assert!(r > 0);
        (replied, lost) = (replied + r, lost + l);
    }
    let lost_max = if checkpoints { 0 } else { 3 * 8 };
    assert!(lost <= lost_max, "each asker had at most one ask under way at each kill: {lost} of {replied}");

    let status = device(&client).await;
    assert_eq!(status.restarts, 3);
    let mut counted = 0;
    for key in 0..8 {
        let Ok(counter::Reply::Count { count }) = client.ask(Key(key), counter::Message::Read).await else { panic!() };
        counted += count;
    }
    // Lost, it starts from zero.
    assert!(if checkpoints { counted == replied } else { counted < replied }, "{counted} of {replied}");
    client.close().await.unwrap();
    let (code, log) = node.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("killed by signal 9").count(), 3, "{log}");
    assert_eq!(log.contains("state of 8 actors"), !checkpoints, "{log}");
    if checkpoints {
        // Another node in its place knows all of it, whatever runs its device.
        let node = Node::start_with(folder.path(), &toml.replace("emulated", "cpu"));
        let client = node.client(folder.path()).await;
        for key in 0..8 {
            let Ok(counter::Reply::Count { count }) = client.ask(Key(key), counter::Message::Read).await else {
                panic!()
            };
            replied -= count;
        }
        assert_eq!(replied, 0);
        client.close().await.unwrap();
        assert_eq!(node.terminate().0, Some(0));
    }
}

/// Moves shards back and forth between a ring kernel and a CPU, whatever befalls the ring kernel's process: killed while it is cut,
/// while it stands still, and while the next one begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_though_a_host_of_a_ring_kernel_is_killed_while_its_shards_move() {
    let folder = tempfile::tempdir().unwrap();
    let toml = format!("{EMULATED}fallback = \"none\"\n[[devices]]\nname = \"two\"\nkind = \"cpu\"\nworkers = 1\n");
    let node = Node::start_with(folder.path(), &toml);
    let client = node.client(folder.path()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..8u64)
        .map(|key| {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(SeqCst) {
                    let added = client.ask(Key(key), counter::Message::Add { amount: 1 }).await.unwrap();
                    asked += 1;
                    assert_eq!(added, counter::Reply::Count { count: asked }, "all before was handled, and once");
                }
                asked
            })
        })
        .collect();
    // Those of the ring kernel, to begin with.
    let shards: Vec<_> = (0..SHARDS as u32).step_by(2).map(|shard| shard..shard + 1).collect();
    let (mut at, mut moved, mut killed) = (0, 0, 0);
    for round in 0..10u64 {
        let own = runs_on(&client, "emulated").await;
        let request = async || loop {
            let request = Request::Cluster(admin::Request::Migrate { shards: shards.clone(), to: 1 - at });
            let done = client.request(request, Duration::from_secs(60)).await;
            // One whose host was killed may still be at its begin.
            if round % 2 == 1 || !format!("{done:?}").contains("does not run now") {
                break done;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (done, ()) = tokio::join!(request(), async {
            if round % 2 == 1 {
                tokio::time::sleep(Duration::from_millis(9 * round)).await;
                // Of a device that stands still there is none, and this one may just have ended.
                let pid = device(&client).await.pid.or(own.pid).unwrap();
                let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
                killed += u32::from(rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok());
            }
        });
        // Where it was called off they are where they were.
        if done.is_ok() {
            (at, moved) = (1 - at, moved + 1);
        }
        assert!(done.is_ok() || round % 2 == 1, "{done:?}");
    }
    runs_on(&client, "emulated").await;
    stop.store(true, SeqCst);
    for asker in askers {
        assert!(asker.await.unwrap() > 0);
    }
    println!("{moved} moves went to their end, and {killed} hosts were killed");
    assert!(moved >= 5 && killed > 0);
    client.close().await.unwrap();
    assert_eq!(node.terminate().0, Some(0));
}

/// Waits until the device runs on this.
async fn runs_on(client: &Client, backend: &str) -> DeviceStatus {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let device = device(client).await;
        if device.backend == backend && device.state == DeviceState::Running {
            return device;
        }
        assert!(Instant::now() < until, "{device:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The emulated device stands for a GPU.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_gpu_fails_goes_on_with_the_cpu_and_moves_back_while_asks_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let toml = "[actors]\ncommitted = [\"counter\"]\n[[devices]]\nkind = \"emulated\"\nworkers = 2\n\
                [supervision]\nbreaker_failures = 1\nbreaker_retry_min = \"8s\"\n";
    let node = Node::start_with(folder.path(), toml);
    let client = node.client(folder.path()).await;
    let own = runs_on(&client, "emulated").await;
    let moved_back = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..4u64)
        .map(|key| {
            let (client, moved_back) = (client.clone(), moved_back.clone());
            tokio::spawn(async move {
                for asked in 1.. {
                    match client.ask(Key(key), counter::Message::Add { amount: 1 }).await.unwrap() {
                        counter::Reply::Count { count } => assert_eq!(count, asked, "all before was handled, and once"),
                    }
                    if moved_back.load(SeqCst) {
                        return asked;
                    }
                }
                0
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal(own.pid.unwrap(), rustix::process::Signal::KILL);
    let fallen = runs_on(&client, "cpu").await;
    let recovery = fallen.checkpoints.unwrap().last_recovery.unwrap();
    assert_eq!((&*recovery.from, &*recovery.to, &*recovery.why), ("emulated", "cpu", "killed by signal 9"));
    assert!(recovery.gone_us <= recovery.launched_us && recovery.launched_us <= recovery.running_us, "{recovery:?}");
    let back = runs_on(&client, "emulated").await;
    assert_eq!(back.checkpoints.unwrap().moves, 2);
    // Somebody wants to see to the GPU: the device leaves it, and comes back when that is done and not before.
    let leave = || client.request(Request::LeaveBackend { device: "emulated0".into() }, Duration::from_secs(5));
    assert_eq!(leave().await.unwrap(), Response::LeavingBackend("cpu".into()));
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let left = runs_on(&client, "cpu").await;
        let breaker = &left.backends[0];
        // What serves it is known a moment before the breaker is.
        if (breaker.breaker, breaker.retry_ms) == (BreakerState::Open, None) {
            break;
        }
        assert!(Instant::now() < until, "{breaker:?}");
    }
    let refused = leave().await.unwrap_err().to_string();
    assert!(refused.contains("what else could run it was left alone"), "{refused}");
    client.request(Request::Retry { device: "emulated0".into() }, Duration::from_secs(5)).await.unwrap();
    let back = runs_on(&client, "emulated").await;
    assert_eq!(back.checkpoints.unwrap().moves, 4);
    moved_back.store(true, SeqCst);
    let mut asked = Vec::new();
    for asker in askers {
        asked.push(asker.await.expect("every ask is answered, and rightly"));
    }
    client.close().await.unwrap();
    let (code, log) = node.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the device goes on with cpu") && log.contains("moving from cpu to emulated"), "{log}");

    // And the checkpoint of the one is the other's when the node starts, too.
    let node = Node::start_with(folder.path(), "[[devices]]\nkind = \"cpu\"\nname = \"emulated0\"\n");
    let client = node.client(folder.path()).await;
    for (key, asked) in (0..).zip(asked) {
        match client.ask(Key(key), counter::Message::Read).await.unwrap() {
            counter::Reply::Count { count } => assert_eq!(count, asked),
        }
    }
}

/// Warms each rod by its key, and returns those that there was room for.
async fn warm_rods(client: &Client, rods: u64) -> Vec<u64> {
    let warmed = (0..rods).map(|key| {
        let client = client.clone();
        tokio::spawn(async move {
            let warm = rod::Message::Warm { cell: 1, millidegrees: key as i32 };
            client.tell(Key(key), warm).await.unwrap();
            match client.ask(Key(key), rod::Message::Read).await {
                Ok(rod::Reply::Rod { total, .. }) => {
                    assert_eq!(total, key as i64, "it has what it was told, once");
                    Some(key)
                }
                Err(AskError::NotHandled { reason: Reason::OutOfMemory, .. }) => None,
                Err(other) => panic!("{other}"),
            }
        })
    });
    let mut there = Vec::new();
    for rod in warmed.collect::<Vec<_>>() {
        there.extend(rod.await.unwrap());
    }
    there
}

/// The emulated device stands for a GPU. A rod takes 8 KiB, and of 32 MiB less than half is for actors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_gpus_memory_is_not_enough_new_actors_are_refused_and_those_that_were_there_go_on_with_the_cpu() {
    const RODS: u64 = 3_000;
    let folder = tempfile::tempdir().unwrap();
    let small = "[[devices]]\nname = \"one\"\nkind = \"emulated\"\nworkers = 2\nmemory_bytes = 33554432\n\
                 [supervision]\nbreaker_failures = 2\nbreaker_retry_min = \"1h\"\nbreaker_retry_max = \"1h\"\n";
    let node = Node::start_with(folder.path(), small);
    let client = node.client(folder.path()).await;
    let there = warm_rods(&client, RODS).await.len() as u64;
    assert!(there > 100 && there < RODS, "{there}");
    let device = runs_on(&client, "emulated").await;
    assert_eq!((device.actors, device.restarts), (there, 0), "nothing had to end for that");
    client.close().await.unwrap();
    assert_eq!(node.terminate().0, Some(0));

    // A device with room for all.
    let node = Node::start_with(folder.path(), "[[devices]]\nname = \"one\"\nkind = \"cpu\"\n");
    let client = node.client(folder.path()).await;
    for key in 0..RODS {
        let rod::Reply::Rod { total, .. } = client.ask(Key(key), rod::Message::Read).await.unwrap();
        assert!(total == key as i64 || total == 0);
    }
    client.close().await.unwrap();
    assert_eq!(node.terminate().0, Some(0));

    let node = Node::start_with(folder.path(), small);
    let client = node.client(folder.path()).await;
    assert_eq!(runs_on(&client, "cpu").await.actors, RODS);
    client.close().await.unwrap();
    let (code, log) = node.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("memory_bytes") && log.contains("the device goes on with cpu"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_gpu_is_gone_starts_with_what_its_device_had() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_with(folder.path(), "[[devices]]\nkind = \"cpu\"\nname = \"cuda0\"\n");
    let client = node.client(folder.path()).await;
    client.ask(Key(7), counter::Message::Add { amount: 5 }).await.unwrap();
    client.close().await.unwrap();
    assert_eq!(node.terminate().0, Some(0));
    // No machine has so many.
    let toml = "[[devices]]\nkind = \"cuda\"\nname = \"cuda0\"\ngpu = 255\n";
    let node = Node::start_with(folder.path(), toml);
    let client = node.client(folder.path()).await;
    assert!(matches!(
        client.ask(Key(7), counter::Message::Add { amount: 1 }).await,
        Ok(counter::Reply::Count { count: 6 })
    ));
    let fallen = runs_on(&client, "cpu").await;
    assert_eq!((&*fallen.backends[0].name, fallen.backends[0].breaker), ("cuda:255", BreakerState::Open));
    client.close().await.unwrap();
    let (code, log) = node.terminate();
    assert!(code == Some(0) && log.contains("cuda:255 cannot be had"), "{log}");

    // So does one that was left to find its devices by itself.
    let node = Node::start(folder.path());
    let client = node.client(folder.path()).await;
    assert!(matches!(client.ask(Key(7), counter::Message::Read).await, Ok(counter::Reply::Count { count: 6 })));
    assert_eq!(device(&client).await.name, "cuda0");
    client.close().await.unwrap();
    assert_eq!(node.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_node_and_its_device_use_less_than_two_percent_of_a_core() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let client = node.client(folder.path()).await;
    client.ask(Key(1), counter::Message::Add { amount: 1 }).await.unwrap();
    let processes = [node.process.id(), device(&client).await.pid.unwrap()];
    let before = processes.map(cpu_ms);
    let watched = Duration::from_secs(5);
    tokio::time::sleep(watched).await;
    for (pid, before) in processes.into_iter().zip(before) {
        let used_ms = cpu_ms(pid) - before;
        assert!(used_ms <= watched.as_millis() as u64 * 2 / 100, "process {pid} used {used_ms} ms in {watched:?}");
    }
    client.close().await.unwrap();
    assert_eq!(node.terminate().0, Some(0));
}

/// User and system time of a process so far, from `/proc/PID/stat`, which counts in hundredths of a second.
fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_host_ends_with_its_node_even_if_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    let client = node.client(folder.path()).await;
    let host = device(&client).await.pid.unwrap();
    node.process.kill().unwrap();
    node.process.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    // A dead process nobody waited for is a zombie until its new parent does; its state says so.
    let alive = || std::fs::read_to_string(format!("/proc/{host}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        assert!(Instant::now() < deadline, "the device host outlived its node");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
