//! What only a whole node shows: the demo, two devices, and device hosts that hang or crash under supervision.
//!
//! The node starts its device hosts through this binary. They are processes of their own, and end with the node: so a step that
//! is killed leaves none behind.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringhold::client::{AskError, Client, Options};
use ringhold::config::{self, Config, DeviceKind};
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
        let mut config = Config::default();
        config.node.data_dir = folder.clone();
        config.node.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.devices.0[0].kind = kind(suite);
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

/// Loses device hosts to a message, one after the other. Its asker is told, and actors answer again, from zero.
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
        let began = Instant::now();
        let answer = bench.ask(loss, poison).map(drop);
        told.push(began.elapsed().as_secs_f64() * 1e3);
        let lost = matches!(&answer, Err(AskError::NotHandled { reason: Reason::StateLost, .. }));
        expect(lost, || format!("who asked was answered {answer:?}, and not told that state was lost"))?;
        let reply = bench.ask(loss, counter::Message::Add { amount: 1 }).map_err(failed)?;
        recovered.push(began.elapsed().as_secs_f64() * 1e3);
        expect(reply == counter::Reply::Count { count: 1 }, || format!("a counter of the new host has {reply:?}"))?;
        // The actor may answer before the node has looked whether the host is up.
        let mut device = bench.devices()?.remove(0);
        while device.state != DeviceState::Running && began.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(1));
            device = bench.devices()?.remove(0);
        }
        let known = causes.iter().any(|cause| device.detail.contains(cause));
        expect(known && device.state == DeviceState::Running && u64::from(device.restarts) == loss + 1, || {
            format!(
                "after loss {} the node says {:?}, {} restarts: {}",
                loss + 1,
                device.state,
                device.restarts,
                device.detail
            )
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
        format!("{LOSSES} device hosts lost, each replaced"),
        vec![
            figure("asker told", told, "from the ask until the asker is told that state was lost"),
            figure("recovered", recovered, "from the ask until an actor of the next device host has answered another"),
        ],
    ))
}
