//! From the SIGKILL of one of three nodes to the first answer from each shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ringhold::Key;
use ringhold::client::Client;
use ringhold_cluster::control::state::NodeNumber;
use ringhold_kernels::outbox::SHARDS;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::actors::cell;
use crate::machine::{Cluster, PATIENCE, Settings, shard, status};
use crate::report::{Report, progress};
use crate::{Failure, percentile};

/// Actors that clients count on all the time, to see that nothing is lost or done twice.
const COUNTED: u64 = 12;
/// The first of them: a number that no other actor has.
const FIRST_COUNTED: u64 = 1 << 40;
/// Clusters that may be made in vain.
const NOT_MADE_MAX: usize = 3;

const METHOD: &str = "\
Three nodes, each with one CPU device of one worker, replication factor 2; actors of a `committed` type with 256 bytes of state, spread \
over all shards, the shards over all nodes. Twelve tasks of one client ask all the time and check every answer: each count must be the \
one before and one. Another client, which has asked every shard before, sends one ask to each of the 4,096 shards right after the \
SIGKILL; its first address is the dead node's. The time is from the signal to the answer. The leader is killed in every other run, a \
follower in the others, and the cluster is made anew for each. The lease is the default of 400 ms (3 s with --quick).";

/// One kill. Seconds since it.
struct Run {
    leader: bool,
    /// The first answer from a shard that the dead node had, and the last shard's.
    first: f64,
    last: f64,
    /// The last of all shards.
    last_of_all: f64,
}

pub async fn run(quick: bool, runs: usize, report: &mut Report) -> Result<(), Failure> {
    let actors = if quick { 2_000 } else { 100_000 };
    report.section("Failover", METHOD);
    // A machine that does other things too takes live nodes for dead.
    let lease = Duration::from_millis(if quick { 3_000 } else { 400 });
    let mut all = Vec::new();
    let mut not_made = Vec::new();
    while all.len() < runs {
        let cluster = Cluster::start(3, Settings { lease, committed: true }).await?;
        let prepared = match prepare(&cluster, actors, all.len() % 2 == 0).await {
            Ok(prepared) => prepared,
            // A machine that stands still for a moment may cost a node its lease before anything is killed.
            Err(e) if not_made.len() < NOT_MADE_MAX => {
                not_made.push(e.to_string());
                continue;
            }
            Err(e) => return Err(cluster.with_logs(e)),
        };
        all.push(kill(&cluster, prepared, actors).await.map_err(|e| cluster.with_logs(e))?);
        progress("failover", all.len(), runs);
    }
    let mut rows = Vec::new();
    for (name, of) in [("a follower", Some(false)), ("the leader", Some(true)), ("either", None)] {
        let chosen: Vec<&Run> = all.iter().filter(|run| of.is_none_or(|leader| run.leader == leader)).collect();
        if chosen.is_empty() {
            continue;
        }
        for (what, figure) in [
            ("first answer from one of its shards", (|run| run.first) as fn(&Run) -> f64),
            ("first answer from each of its shards", |run| run.last),
            ("first answer from each of all shards", |run| run.last_of_all),
        ] {
            let mut figures: Vec<f64> = chosen.iter().map(|run| figure(run)).collect();
            figures.sort_by(f64::total_cmp);
            let ms = |part| format!("{:.0} ms", percentile(&figures, part) * 1e3);
            let row = [name.into(), what.into(), chosen.len().to_string(), ms(0.5), ms(0.99), ms(1.0)];
            rows.push(row.to_vec());
        }
    }
    report.say(&format!("{actors} actors, {runs} runs.\n"));
    for why in &not_made {
        report.say(&format!(
            "*A cluster was made anew* before anything was killed: {}\n",
            why.lines().next().unwrap_or("?")
        ));
    }
    report.table(&["killed", "until", "runs", "p50", "p99", "longest"], &rows);
    let mut last: Vec<f64> = all.iter().map(|run| run.last).collect();
    last.sort_by(f64::total_cmp);
    if let Some(p99) = (!last.is_empty()).then(|| percentile(&last, 0.99)) {
        report.budget("each of its shards, p99", "at most 1 s", &format!("{:.0} ms", p99 * 1e3), p99 <= 1.0);
    }
    report.say("");
    let raw: Vec<Value> = all
        .iter()
        .map(|run| json!({ "leader": run.leader, "first_s": run.first, "last_s": run.last, "last_of_all_s": run.last_of_all }))
        .collect();
    report.raw(
        "failover",
        json!({ "actors": actors, "lease_ms": lease.as_millis() as u64, "runs": raw, "made_anew": not_made }),
    );
    Ok(())
}

/// A cluster in use, and who of it is to be killed.
struct Prepared {
    /// Its place among the nodes.
    victim: usize,
    leader: bool,
    /// The node that has each shard.
    owners: Vec<NodeNumber>,
    /// An actor of each shard, and the client that is to ask them.
    probes: Vec<u64>,
    probing: Client,
    counts: JoinSet<Result<(), Failure>>,
    stop: Arc<AtomicBool>,
}

async fn prepare(cluster: &Cluster, actors: u64, leader: bool) -> Result<Prepared, Failure> {
    cluster.deal().await?;
    let client = cluster.client(&[0, 1, 2]).await?;
    let mut tells = client.tells();
    for key in 0..actors {
        tells.send(Key(key), cell::Message::Touch).await?;
    }
    if !client.settle(PATIENCE).await?.settled {
        return Err("the actors did not settle".into());
    }
    client.close().await?;
    // Once a device is in sync with a copy it commits nothing that the copy does not have.
    let state = cluster.until("each device has a copy", |status| {
        status.devices.iter().all(|device| device.shards == 0 || device.in_sync.len() == 2)
    });
    let leads = state.await?.leader.ok_or("nobody leads")?;
    let victim = cluster.nodes.iter().position(|node| (node.number == leads) == leader).ok_or("nobody is it")?;
    let owners = cluster.owners().await?;
    let others: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
    let (probes, probing) = (probes(), cluster.client(&[&[victim][..], &others[..]].concat()).await?);
    answers(&probing, &probes, actors, Instant::now()).await?;

    let (counting, stop) = (cluster.client(&others).await?, Arc::new(AtomicBool::new(false)));
    let mut counts = JoinSet::new();
    for key in 0..COUNTED {
        counts.spawn(count(counting.clone(), FIRST_COUNTED + key, stop.clone()));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    if !owners.contains(&cluster.nodes[victim].number) {
        return Err("the node has no shards".into());
    }
    Ok(Prepared { victim, leader, owners, probes, probing, counts, stop })
}

async fn kill(cluster: &Cluster, mut prepared: Prepared, actors: u64) -> Result<Run, Failure> {
    let victim = &cluster.nodes[prepared.victim];
    let began = Instant::now();
    kill_process(Pid::from_child(&victim.process), Signal::KILL)?;
    let answered = answers(&prepared.probing, &prepared.probes, actors, began).await?;
    prepared.stop.store(true, Relaxed);
    while let Some(counted) = prepared.counts.join_next().await {
        counted??;
    }
    let another = cluster.nodes.iter().find(|node| node.number != victim.number).ok_or("there are three")?;
    let status = status(&another.client().await?).await?;
    if status.devices.iter().any(|device| device.node == victim.number && device.shards > 0) {
        return Err("all was answered, and the dead node still has shards".into());
    }
    let its = || answered.iter().zip(&prepared.owners).filter(|(_, owner)| **owner == victim.number).map(|(s, _)| *s);
    Ok(Run {
        leader: prepared.leader,
        first: its().fold(f64::INFINITY, f64::min),
        last: its().fold(0.0, f64::max),
        last_of_all: answered.iter().copied().fold(0.0, f64::max),
    })
}

/// An actor of each shard: the first one.
fn probes() -> Vec<u64> {
    let mut probes = vec![None; SHARDS];
    let mut missing = SHARDS;
    for key in 0.. {
        let probe = &mut probes[shard(key)];
        if probe.is_none() {
            *probe = Some(key);
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    probes.into_iter().flatten().collect()
}

/// Asks each of these once, all at the same time, and says how many seconds after that moment each has answered.
async fn answers(client: &Client, probes: &[u64], actors: u64, since: Instant) -> Result<Vec<f64>, Failure> {
    let mut asks = JoinSet::new();
    for (shard, key) in probes.iter().copied().enumerate() {
        let client = client.clone();
        asks.spawn(async move {
            let answer = client.ask_with(Key(key), cell::Message::Read, PATIENCE).await;
            (shard, key, since.elapsed(), answer)
        });
    }
    let mut answered = vec![0.0; probes.len()];
    while let Some(ended) = asks.join_next().await {
        let (shard, key, took, answer) = ended?;
        let cell::Reply::Touched { times } = answer?;
        if times != u64::from(key < actors) {
            return Err(format!("actor {key} says that it was touched {times} times").into());
        }
        answered[shard] = took.as_secs_f64();
    }
    Ok(answered)
}

/// Has an actor count until it is told to stop. Each count is the one before and one.
async fn count(client: Client, key: u64, stop: Arc<AtomicBool>) -> Result<(), Failure> {
    let mut expected = 0;
    while !stop.load(Relaxed) {
        let cell::Reply::Touched { times } = client.ask_with(Key(key), cell::Message::Count, PATIENCE).await?;
        expected += 1;
        if times != expected {
            return Err(format!("actor {key} has counted {times}, not {expected}").into());
        }
    }
    Ok(())
}
