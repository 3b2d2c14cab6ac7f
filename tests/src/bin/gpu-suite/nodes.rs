//! What only a whole node shows: the demo, two devices, shards that move, and device hosts that hang or crash under supervision.
//!
//! The node starts its device hosts through this binary. They are processes of their own, and end with the node: so a step that
//! is killed leaves none behind.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ringhold::client::{AskError, Client, Options};
use ringhold::config::{self, Config, DeviceKind, Fallback};
use ringhold::node::{Environment, Node};
use ringhold::rt::MessageOf;
use ringhold::shipped::counter;
use ringhold_cluster::wire::{DeviceState, DeviceStatus, Request, Response};
use ringhold_kernels::id::Key;
use ringhold_kernels::message::Reason;
use ringhold_kernels::outbox::shard_of;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::actors::{self, endless, listener, talker, wild};
use super::correctness::Checked;
use super::device::{Failed, expect, failed};
use super::report::Figure;
use super::steps::Found;
use super::{DEMO, Suite, Which};

/// For a request of the node.
const LIMIT: Duration = Duration::from_secs(30);

/// The library's own demo, with this device: a year of flights, and on the emulated device its first days.
pub fn demo(suite: &Suite) -> Checked {
    let failed = |e: std::io::Error| format!("the demo's process cannot be run: {e}");
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args([DEMO, "--json", "--device"]);
    match suite.which {
        Which::Emulated => command.args(["emulated", "--flights", "5000"]),
        // The demo takes the first GPU that it sees.
        Which::Cuda(number) => command.arg("cuda").env("CUDA_VISIBLE_DEVICES", visible(number)),
    };
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&said).map_err(|e| format!("the demo said {said:?}: {e}"))?;
    let equal = report["matches_reference"] == true && report["messages"] == report["messages_expected"];
    let on_the_device = report["device"].as_str().is_some_and(|on| on.starts_with(kind(suite).word()));
    expect(output.status.success() && equal && on_the_device, || format!("the demo found {report}"))?;
    let (flights, messages, actors) = (&report["events"], &report["messages"], &report["actors"]);
    Ok(format!("{flights} flights, {messages} messages, {actors} actors, each with the state of the reference"))
}

/// What makes this GPU a child's only one.
fn visible(number: u32) -> String {
    let ours = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    ours.split(',').filter(|one| !one.is_empty()).nth(number as usize).map_or(number.to_string(), str::to_owned)
}

fn kind(suite: &Suite) -> DeviceKind {
    if suite.is_emulated() { DeviceKind::Emulated } else { DeviceKind::Cuda }
}

/// A node in this process, and a client of it.
struct Bench {
    runtime: Runtime,
    node: Option<Node>,
    client: Client,
}

impl Bench {
    /// With so many devices, on one GPU if they are on any.
    fn start(suite: &Suite, devices: usize, change: impl FnOnce(&mut Config)) -> Result<Bench, Failed> {
        // One after the other: what the last has compiled is there.
        let folder = suite.folder.join("node");
        // But no actors.
        let kept = folder.join("checkpoints");
        if kept.exists() {
            std::fs::remove_dir_all(&kept).map_err(|e| format!("{}: {e}", kept.display()))?;
        }
        let mut config = Config::default();
        config.node.data_dir = folder.clone();
        config.node.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.devices.0[0].kind = kind(suite);
        // What is tried here is the GPU.
        config.devices.0[0].fallback = Fallback::None;
        if let Which::Cuda(number) = suite.which {
            config.devices.0[0].gpu = number;
        } else {
            config.devices.0[0].workers = Some(2);
        }
        let one: config::Device = config.devices.0[0].clone();
        config.devices.0.resize(devices, one);
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
        let (node, client) = runtime.block_on(async {
            let environment = Environment::real(&config).map_err(failed)?;
            let node = Node::start(&config, actors::for_nodes(), environment).await.map_err(failed)?;
            let options = Options::from_data_dir(node.address().to_string(), &folder).map_err(failed)?;
            let options = options.with::<counter::Actor>().with::<talker::Actor>().with::<listener::Actor>();
            let mut options = options.with::<endless::Actor>().with::<wild::Actor>();
            options.ask_deadline = LIMIT;
            let client = Client::connect(options).await.map_err(failed)?;
            Ok::<_, Failed>((node, client))
        })?;
        Ok(Bench { runtime, node: Some(node), client })
    }

    fn ask<M: MessageOf>(&self, key: u64, message: M) -> Result<ringhold::client::Reply<M>, AskError> {
        self.runtime.block_on(self.client.ask(Key(key), message))
    }

    fn devices(&self) -> Result<Vec<DeviceStatus>, Failed> {
        match self.runtime.block_on(self.client.request(Request::Devices, LIMIT)).map_err(failed)? {
            Response::Devices(devices) => Ok(devices),
            other => Err(format!("a request for the devices was answered with {other:?}")),
        }
    }

    fn end(mut self) -> Result<(), Failed> {
        self.runtime.block_on(self.client.close()).map_err(failed)?;
        let drained = self.node.take().map(|node| self.runtime.block_on(node.drain()));
        expect(drained.is_some_and(|drained| drained.complete), || {
            format!("the node did not end in order: {drained:?}")
        })
    }
}

/// Actors of two devices tell each other, through the node.
pub fn two_devices(suite: &Suite) -> Checked {
    let bench = Bench::start(suite, 2, |_| {})?;
    let (talkers, listeners, rounds) = (16u64, 6u32, suite.size(20u32, 200));
    // Shards are dealt out to the devices in turn.
    let on_both = |keys: &mut dyn Iterator<Item = u64>| {
        let on: Vec<_> = keys.map(|key| shard_of(Key(key)) % 2).collect();
        on.contains(&0) && on.contains(&1)
    };
    expect(on_both(&mut (0..talkers)) && on_both(&mut (0..u64::from(listeners))), || "no message crosses".into())?;
    bench.runtime.block_on(async {
        for key in 0..talkers {
            bench.client.tell(Key(key), talker::Message::Talk { rounds, listeners }).await.map_err(failed)?;
        }
        let settled = bench.client.settle(LIMIT).await.map_err(failed)?;
        expect(settled.settled, || {
            format!("{} messages are still queued after {} ms", settled.queued, settled.waited_ms)
        })
    })?;
    let heard = talkers * u64::from(rounds);
    for key in 0..u64::from(listeners) {
        let reply = bench.ask(key, listener::Message::Read).map_err(failed)?;
        let expected = listener::Reply::Heard { heard, out_of_order: 0 };
        expect(reply == expected, || format!("listener {key}: {reply:?}, not {expected:?}"))?;
    }
    // The counters follow the answers.
    bench.runtime.block_on(bench.client.settle(LIMIT)).map_err(failed)?;
    let handled: Vec<u64> = bench.devices()?.iter().map(|device| device.handled).collect();
    bench.end()?;
    let all = talkers + u64::from(listeners) * (heard + 1);
    expect(handled.len() == 2 && handled.iter().sum::<u64>() == all && !handled.contains(&0), || {
        format!("the devices have handled {handled:?} messages, which should be {all}")
    })?;
    Ok(format!("{all} messages in order, {} on one device and {} on the other", handled[0], handled[1]))
}

/// Actors that talk, as many as a listener knows, those that listen to all of them, and those that a client asks.
const TALKERS: u64 = 48;
const LISTENERS: u32 = 12;
const COUNTERS: u64 = 48;

/// Shards move around two devices on the GPU and one on the CPU, while actors of all of them tell each other and a client asks.
pub fn shards_move(suite: &Suite) -> Found {
    let bench = Bench::start(suite, 2, |config| {
        let cpu = config::Device { kind: DeviceKind::Cpu, workers: Some(2), ..config::Device::default() };
        config.devices.0.push(cpu);
    })?;
    let node = bench.node.as_ref().expect("it has just been started");
    let over = Arc::new(AtomicBool::new(false));
    let talking = bench.runtime.spawn(talk(bench.client.clone(), over.clone(), suite.size(5, 50)));
    let moved = bench.runtime.block_on(move_around(node, suite.size(2, 6)));
    over.store(true, Relaxed);
    let heard = bench.runtime.block_on(talking).map_err(failed)??;
    let [between, away, back] = moved?;
    let settled = bench.runtime.block_on(bench.client.settle(LIMIT)).map_err(failed)?;
    expect(settled.settled, || format!("{} messages are still queued after {} ms", settled.queued, settled.waited_ms))?;
    for key in 0..u64::from(LISTENERS) {
        let reply = bench.ask(key, listener::Message::Read).map_err(failed)?;
        let expected = listener::Reply::Heard { heard, out_of_order: 0 };
        expect(reply == expected, || format!("listener {key}: {reply:?}, not {expected:?}"))?;
    }
    let devices = bench.devices()?;
    bench.end()?;
    // What only stands still has not failed, and has nothing to recover from.
    let only_stood = |device: &DeviceStatus| {
        device.restarts == 0 && device.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.recoveries == 0)
    };
    expect(devices.iter().all(|device| only_stood(device) && device.handled > 0), || {
        format!("the devices are, after their shards have moved: {devices:?}")
    })?;
    let (moves, messages) = (between.len() + away.len() + back.len(), heard * u64::from(LISTENERS));
    let figure = |from_to: &str, samples| {
        let method = "how long nothing was let in for half of a device's shards, while actors of all devices talked";
        Figure::new(format!("shards moved {from_to}, stood"), "ms", samples, &[50.0, 99.0]).method(method)
    };
    Ok((
        format!("{moves} moves under {messages} messages, each of which is there once and in order"),
        vec![figure("from GPU to CPU", away), figure("from CPU to GPU", back), figure("from GPU to GPU", between)],
    ))
}

/// Has actors talk, and counters count, until it is over. Returns how many notes each listener is to have heard.
async fn talk(client: Client, over: Arc<AtomicBool>, rounds: u32) -> Result<u64, Failed> {
    let mut heard = 0;
    for turn in 0.. {
        if over.load(Relaxed) {
            break;
        }
        for key in 0..TALKERS {
            let talk = talker::Message::Talk { rounds, listeners: LISTENERS };
            client.tell(Key(key), talk).await.map_err(failed)?;
            heard += u64::from(rounds);
        }
        let (key, count) = (turn % COUNTERS, turn / COUNTERS + 1);
        let reply = client.ask(Key(key), counter::Message::Add { amount: 1 }).await.map_err(failed)?;
        expect(reply == counter::Reply::Count { count }, || format!("counter {key} has {reply:?}, not {count}"))?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(heard)
}

/// Half of what each device has moves on to the next of them, so many times around. Returns how long the shards of each device
/// stood for it, in milliseconds.
async fn move_around(node: &Node, turns: usize) -> Result<[Vec<f64>; 3], Failed> {
    let devices = node.router().devices();
    let mut stood = [const { Vec::new() }; 3];
    for turn in 0..turns {
        for (from, stood) in stood.iter_mut().enumerate() {
            let own = node.router().shards().owned_by(from as u16);
            // The other half the next time.
            let half = own.iter().skip(turn % 2).step_by(2).collect();
            let moved = node.migrate(half, &devices[(from + 1) % devices.len()].name).await;
            stood.push(moved.map_err(failed)?.stood.as_secs_f64() * 1e3);
        }
    }
    Ok(stood)
}

/// How long a worker of the node may hold a message: the least that a shared machine does not take for a hang.
const STALLED_AFTER: Duration = Duration::from_millis(1_500);
/// How often a device host is lost.
const LOSSES: u64 = 3;

pub fn endless_handler(suite: &Suite) -> Found {
    recover(suite, "endless handler", &["held one message for"], endless::Message::Spin { first: 1 })
}

pub fn bad_address(suite: &Suite) -> Found {
    // What the driver's error, or the signal, is called.
    let cause: &[&str] = suite.size(&["killed by signal 11"], &["CUDA error 700"]);
    // Neither a GPU nor a process has memory there.
    recover(suite, "bad address", cause, wild::Message::Store { address: 64 })
}

/// What a message takes with it: the host that ran it first, and the one that ran it again. Of a crash the first may not be known.
const HOSTS_MAX: u32 = 3;

/// Loses device hosts to messages, one after the other. Each is put aside then and its asker is told, and actors answer again
/// with all that they had.
fn recover<M: MessageOf + Copy>(suite: &Suite, name: &str, causes: &[&str], poison: M) -> Found {
    let bench = Bench::start(suite, 1, |config| {
        config.supervision.stalled_after = STALLED_AFTER;
        config.supervision.restart_backoff_min = Duration::from_millis(1);
    })?;
    let (mut told, mut recovered) = (Vec::new(), Vec::new());
    for loss in 0..LOSSES {
        for count in 1..=2 {
            let reply = bench.ask(loss, counter::Message::Add { amount: 1 }).map_err(failed)?;
            expect(reply == counter::Reply::Count { count }, || format!("before loss {loss} a counter has {reply:?}"))?;
        }
        let before = bench.devices()?.remove(0).restarts;
        let began = Instant::now();
        let answer = bench.ask(loss, poison).map(drop);
        told.push(began.elapsed().as_secs_f64() * 1e3);
        let aside = matches!(&answer, Err(AskError::NotHandled { reason: Reason::Poison, .. }));
        expect(aside, || format!("who asked was answered {answer:?}, and not told that the message was put aside"))?;
        let reply = bench.ask(loss, counter::Message::Add { amount: 1 }).map_err(failed)?;
        recovered.push(began.elapsed().as_secs_f64() * 1e3);
        expect(reply == counter::Reply::Count { count: 3 }, || format!("a counter of the new host has {reply:?}"))?;
        // The actor may answer before the node has looked whether the host is up.
        let mut device = bench.devices()?.remove(0);
        while device.state != DeviceState::Running && began.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(1));
            device = bench.devices()?.remove(0);
        }
        let known = causes.iter().any(|cause| device.detail.contains(cause));
        let restarts = device.restarts - before;
        expect(known && device.state == DeviceState::Running && (2..=HOSTS_MAX).contains(&restarts), || {
            format!("after loss {} the node says {:?}, {restarts} restarts: {}", loss + 1, device.state, device.detail)
        })?;
    }
    bench.end()?;
    let limit = STALLED_AFTER.as_millis();
    let figure = |what: &str, samples, method: &str| {
        let method = format!(
            "{method}; {LOSSES} times, a worker may hold a message for {limit} ms, the kernel is kept compiled"
        );
        Figure::new(format!("{name}, {what}"), "ms", samples, &[50.0, 99.0]).method(&method)
    };
    Ok((
        format!("{LOSSES} messages put aside, and nothing lost with the hosts that they ended"),
        vec![
            figure("asker told", told, "from the ask until the asker is told that the message was put aside"),
            figure("recovered", recovered, "from the ask until an actor of the last device host has answered another"),
        ],
    ))
}

/// Kills a device's process under a node that has made a checkpoint of many actors, and compares every actor that comes back.
pub fn killed_host(suite: &Suite) -> Found {
    let bench = Bench::start(suite, 1, |config| {
        config.supervision.restart_backoff_min = Duration::from_millis(1);
        config.checkpoints.interval = Duration::from_millis(200);
    })?;
    let actors = suite.size(1_000u64, 1_000_000);
    let tell_all = |amount: u64| {
        bench.runtime.block_on(async {
            for key in 0..actors {
                let add = counter::Message::Add { amount: amount + key % 7 };
                bench.client.tell(Key(key), add).await.map_err(failed)?;
            }
            bench.client.settle(LIMIT).await.map_err(failed).map(drop)
        })
    };
    let (mut pauses, mut recoveries) = (Vec::new(), Vec::new());
    for round in 1..=LOSSES {
        tell_all(round)?;
        let checkpoints = |bench: &Bench| Ok::<_, Failed>(bench.devices()?.remove(0).checkpoints.unwrap_or_default());
        let (began, before) = (Instant::now(), checkpoints(&bench)?.count);
        // The second of them is of a moment at which all had been told.
        while checkpoints(&bench)?.count < before + 1 {
            expect(began.elapsed() < LIMIT, || "there is no checkpoint".into())?;
            // Something has to happen for the next one.
            bench.ask(0, counter::Message::Read).map_err(failed)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        pauses.push(checkpoints(&bench)?.pause_us as f64);
        let pid = bench.devices()?.remove(0).pid.ok_or("the device has no process")?;
        let process = rustix::process::Pid::from_raw(pid as i32).ok_or("the device has no process")?;
        rustix::process::kill_process(process, rustix::process::Signal::KILL).map_err(failed)?;
        let killed = Instant::now();
        while checkpoints(&bench)?.recoveries < round {
            expect(killed.elapsed() < LIMIT, || "the device does not come back".into())?;
            std::thread::sleep(Duration::from_millis(1));
        }
        recoveries.push(checkpoints(&bench)?.recovery_us as f64 / 1e3);
        let told: u64 = (1..=round).sum();
        for key in (0..actors).step_by(suite.size(1, 997)) {
            let count = told + round * (key % 7);
            let reply = bench.ask(key, counter::Message::Read).map_err(failed)?;
            expect(reply == counter::Reply::Count { count }, || {
                format!("after kill {round} counter {key} has {reply:?}")
            })?;
        }
    }
    bench.end()?;
    let figure = |what: &str, unit, samples, method: &str| {
        Figure::new(format!("killed host, {what}"), unit, samples, &[50.0, 99.0]).method(method)
    };
    Ok((
        format!("{LOSSES} hosts killed, {actors} actors as they were each time"),
        vec![
            figure(
                "pause of a checkpoint",
                "µs",
                pauses,
                "what the device's workers stood still for the last one before the kill",
            ),
            figure(
                "recovered",
                "ms",
                recoveries,
                "from the end of a host until another ran with the actors of the checkpoint",
            ),
        ],
    ))
}
