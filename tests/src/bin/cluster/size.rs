//! A control plane of 1,000 nodes: what it takes to hold, to keep and to start.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringhold_cluster::control::state::{AboutDevice, Admission, Cluster, Command, DeviceNumber, Member, State};
use ringhold_cluster::control::{Blocking, Calls, Control, Options, Timing};
use ringhold_cluster::network::{BoxFuture, RealNetwork};
use ringhold_kernels::outbox::SHARDS;
use ringhold_storage::blocks::Reopening;
use ringhold_storage::raft_log::RaftLog;
use serde_json::json;

use crate::machine::PATIENCE;
use crate::report::{Report, grouped};
use crate::{Failure, percentile};

const METHOD: &str = "\
No nodes run: the commands that a cluster of so many nodes has agreed on (each node admitted with one device and ten actor types, then \
the shards dealt out among the devices) are given to the state machine itself, and then to a control plane of one voter with its log and \
snapshots on the disk of this machine, which is stopped and started again. Admitting and moving are the state machine alone; where somebody holds the \
state that was (health, the router, an operator's question), it is copied first: *copy*. *Start* is from opening the log until the state \
is there: the newest snapshot, and the up to 1,000 entries behind it. A cluster has 4,096 shards, which is a constant \
of the kernels; with 65,536, which no cluster has, the state machine is tried all the same.";

pub async fn run(quick: bool, report: &mut Report) -> Result<(), Failure> {
    report.section("The control plane of a large cluster", METHOD);
    let nodes: u64 = if quick { 50 } else { 1_000 };
    let mut rows = Vec::new();
    let mut bytes_of = Vec::new();
    let mut raw = Vec::new();
    for shards in [SHARDS as u32, 65_536] {
        let commands = commands(nodes, shards);
        let (took, state) = applied(&commands)?;
        let (admits, moves) = took.split_at(1 + nodes as usize);
        let began = Instant::now();
        let copy = state.clone();
        let copied = began.elapsed().as_secs_f64() * 1e3;
        if copy != state {
            return Err("a copy of the state is another one".into());
        }
        let kept = kept(&commands, &state).await?;
        bytes_of.push((shards, kept.snapshot_bytes));
        let apply = |took: &[f64]| {
            let mut sorted = took.to_vec();
            sorted.sort_by(f64::total_cmp);
            format!("{:.0} / {:.0} µs", percentile(&sorted, 0.5), percentile(&sorted, 0.99))
        };
        let ms = |ms: f64| format!("{ms:.1} ms");
        rows.push(vec![
            grouped(nodes as f64, 0),
            grouped(f64::from(shards), 0),
            grouped(kept.snapshot_bytes as f64, 0),
            apply(admits),
            apply(moves),
            ms(copied),
            ms(kept.write_ms),
            ms(kept.read_ms),
            ms(kept.start_ms),
            grouped(kept.disk_bytes as f64, 0),
        ]);
        raw.push(json!({
            "nodes": nodes, "shards": shards, "snapshot_bytes": kept.snapshot_bytes, "admit_us": admits, "move_us": moves, "copy_ms": copied,
            "write_ms": kept.write_ms, "read_ms": kept.read_ms, "start_ms": kept.start_ms, "disk_bytes": kept.disk_bytes,
            "entries": commands.len(),
        }));
    }
    let head = [
        "nodes",
        "shards",
        "snapshot, bytes",
        "admit a node, p50 / p99",
        "move, p50 / p99",
        "copy",
        "snapshot written",
        "read",
        "start",
        "on the disk, bytes",
    ];
    report.table(&head, &rows);
    let [(few, small), (many, large)] = bytes_of[..] else { return Err("there are two sizes".into()) };
    report.say(&format!(
        "A shard takes {:.2} bytes of a snapshot.\n",
        (large as f64 - small as f64) / f64::from(many - few)
    ));
    report.raw("size", json!(raw));
    Ok(())
}

const CLUSTER: [u8; 16] = [3; 16];

/// What such a cluster has agreed on.
fn commands(nodes: u64, shards: u32) -> Vec<Command> {
    let mut commands = vec![Command::Found { cluster: Cluster { id: CLUSTER, name: "large".into() }, shards }];
    commands.extend((1..=nodes).map(|number| admission(number, 10)));
    let each = shards / nodes as u32;
    commands.extend((1..nodes).map(|device| {
        let first = device as u32 * each;
        Command::Move { shards: std::iter::once(first..first + each).collect(), from: 0, to: device as DeviceNumber }
    }));
    commands
}

/// A node comes, with one device and so many actor types.
pub fn admission(number: u64, types: u64) -> Command {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    let member = Member {
        id,
        incarnation: number,
        name: format!("node-{number}"),
        address: address(number),
        zone: format!("rack-{}", number % 20),
        release: env!("CARGO_PKG_VERSION").into(),
        versions: (1, 1),
        types: (0..types).map(|number| (format!("actor_type_{number}"), number)).collect(),
        draining: false,
        lease_ms: Timing::default().lease.as_millis() as u32,
    };
    let device = AboutDevice {
        name: "cpu0".into(),
        kind: "cpu".into(),
        workers: 8,
        memory_bytes: None,
        place: Default::default(),
    };
    Command::Admit(Admission { number: None, cluster: CLUSTER, member, devices: vec![device], fresh: true })
}

pub fn address(number: u64) -> String {
    format!("node-{number}.example:7420")
}

/// Founds the cluster that the nodes of [`admission`] mean.
pub fn found() -> Command {
    Command::Found { cluster: Cluster { id: CLUSTER, name: "idle".into() }, shards: SHARDS as u32 }
}

/// How long each command took, in microseconds, and what came of all.
fn applied(commands: &[Command]) -> Result<(Vec<f64>, State), Failure> {
    let mut state = State::default();
    let mut took = Vec::with_capacity(commands.len());
    for command in commands {
        let command = command.clone();
        let began = Instant::now();
        state.apply(command)?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok((took, state))
}

struct Kept {
    snapshot_bytes: usize,
    write_ms: f64,
    read_ms: f64,
    start_ms: f64,
    disk_bytes: u64,
}

/// A control plane that agrees on all of them, ends, and starts again.
async fn kept(commands: &[Command], expected: &State) -> Result<Kept, Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("control");
    let control = start(&path).await?;
    control.initialize("127.0.0.1:1").await?;
    for command in commands {
        control.propose(command.clone(), PATIENCE).await??;
    }
    // Then a snapshot covers nearly all of it: one is made after each thousand entries.
    if commands.len() > 1_000 {
        let since = Instant::now();
        while control.status().snapshot.is_none_or(|index| index < 1_000) {
            if since.elapsed() > PATIENCE {
                return Err("no snapshot was made".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    control.shutdown().await;
    drop(control);
    let began = Instant::now();
    let control = start(&path).await?;
    while *control.state() != *expected {
        if began.elapsed() > PATIENCE {
            return Err("it does not come back to its state".into());
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let start_ms = began.elapsed().as_secs_f64() * 1e3;
    let disk_bytes = control.status().log_bytes;
    control.shutdown().await;
    drop(control);
    // What a snapshot of it takes: of the very bytes, or of as many where none was made.
    let log = log(&path)?;
    let bytes = bincode::serde::encode_to_vec(expected, bincode::config::standard())?;
    let timed = |what: &dyn Fn() -> Result<(), Failure>| {
        let began = Instant::now();
        what().map(|()| began.elapsed().as_secs_f64() * 1e3)
    };
    let write_ms = timed(&|| Ok(log.set_snapshot(&bytes)?))?;
    let read_ms = timed(&|| match log.snapshot()? {
        Some(read) if read == bytes => Ok(()),
        _ => Err("another snapshot was read than was written".into()),
    })?;
    Ok(Kept { snapshot_bytes: bytes.len(), write_ms, read_ms, start_ms, disk_bytes })
}

fn log(path: &Path) -> Result<RaftLog, Failure> {
    Ok(RaftLog::open(Arc::new(Reopening::open(path)?), path)?)
}

async fn start(path: &Path) -> Result<Control, Failure> {
    let (log, timing) = (Arc::new(log(path)?), Timing::default());
    let network = Arc::new(RealNetwork);
    Ok(Control::start(Options { number: 1, log, disk: Arc::new(Blocking), calls: Arc::new(Nobody), network, timing })
        .await?)
}

/// There are no other nodes.
struct Nobody;

impl Calls for Nobody {
    fn call<'a>(&'a self, _: &'a str, _: Vec<u8>, _: Duration) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        Box::pin(async { Err("nobody is there".into()) })
    }
}
