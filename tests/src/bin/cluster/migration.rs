//! How long a client waits while the shard of its actor moves to another node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ringhold::Key;
use ringhold::client::Client;
use serde_json::json;
use tokio::task::JoinSet;

use crate::actors::cell;
use crate::machine::{Cluster, PATIENCE, Settings, migrate, shard, status};
use crate::report::{Report, median, progress};
use crate::{Failure, percentile};

const ACTORS: usize = 1_000;
/// Shards that move, in turns.
const SHARDS_MOVED: usize = 4;
/// How long the longest gap is looked for before each move, for comparison.
const BEFORE: Duration = Duration::from_millis(150);
/// Asks that are under way beside the one that is watched, and how long each waits for the next: the machine is to have work, and not
/// to be short of processors.
const BESIDE: usize = 8;
const REST: Duration = Duration::from_millis(2);

const METHOD: &str = "\
Two nodes, each with one CPU device of one worker. Four shards, of 1,000 actors with 256 bytes of state each, move to and fro between \
them, one at a time. A client asks one actor of the shard, one ask after the other, from before the move until after it; beside it eight \
tasks of another client ask all the 4,000 actors in turn, each with a rest of 2 ms after an answer. *Pause* is the longest time between two answers to the first client from the \
order to move until 50 ms after its end; *before* is the same in the 150 ms before. *Stood* is what the node says: how long it let \
nothing in for the shard. An ask of a `committed` type takes a checkpoint, so there are long gaps without a move.";

pub async fn run(quick: bool, report: &mut Report) -> Result<(), Failure> {
    report.section("Moving shards", METHOD);
    let mut rows = Vec::new();
    let mut verdicts = Vec::new();
    for committed in [false, true] {
        let moves = if quick { 2 } else { 100 };
        let cluster = Cluster::start(2, Settings { lease: Duration::from_secs(3), committed }).await?;
        let moved = measure(&cluster, moves).await.map_err(|e| cluster.with_logs(e))?;
        let name = if committed { "committed" } else { "fast" };
        let mut row = vec![name.to_string(), moves.to_string()];
        for figures in [&moved.pauses, &moved.before, &moved.stood] {
            let mut sorted = figures.clone();
            sorted.sort_by(f64::total_cmp);
            for part in [0.5, 0.99, 1.0] {
                row.push(format!("{:.1}", percentile(&sorted, part)));
            }
            if std::ptr::eq(figures, &moved.pauses) {
                verdicts.push((name, percentile(&sorted, 0.99)));
            }
        }
        row.push(format!("{:.0}", median(&moved.bytes)));
        rows.push(row);
        report.raw(
            &format!("migration_{name}"),
            json!({ "pauses_ms": moved.pauses, "before_ms": moved.before, "stood_ms": moved.stood, "bytes": moved.bytes }),
        );
    }
    let head = [
        "type",
        "moves",
        "pause p50, ms",
        "p99",
        "longest",
        "before p50",
        "p99",
        "longest",
        "stood p50",
        "p99",
        "longest",
        "bytes",
    ];
    report.table(&head, &rows);
    for (name, p99) in verdicts {
        report.budget(&format!("pause, {name}, p99"), "at most 50 ms", &format!("{p99:.1} ms"), p99 <= 50.0);
    }
    report.say("");
    Ok(())
}

/// In milliseconds, one of each for each move.
#[derive(Default)]
struct Moves {
    pauses: Vec<f64>,
    before: Vec<f64>,
    stood: Vec<f64>,
    bytes: Vec<f64>,
}

async fn measure(cluster: &Cluster, moves: usize) -> Result<Moves, Failure> {
    cluster.deal().await?;
    let admin = cluster.nodes[0].client().await?;
    let devices = status(&admin).await?.devices;
    let client = cluster.client(&[0, 1]).await?;
    let shards = populate(&client, cluster).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let all: Arc<Vec<u64>> = Arc::new(shards.iter().flat_map(|(_, keys)| keys.clone()).collect());
    let mut beside = JoinSet::new();
    for task in 0..BESIDE {
        let (client, all, stop) = (client.clone(), all.clone(), stop.clone());
        beside.spawn(async move {
            for turn in (task..).step_by(BESIDE) {
                if stop.load(Relaxed) {
                    return Ok(());
                }
                client.ask(Key(all[turn % all.len()]), cell::Message::Count).await.map_err(Failure::from)?;
                tokio::time::sleep(REST).await;
            }
            Ok::<(), Failure>(())
        });
    }
    let mut done = Moves::default();
    for number in 0..moves {
        let (shard, keys) = &shards[number % shards.len()];
        let there = (number / shards.len()).is_multiple_of(2);
        let to = devices[usize::from(there)].number;
        let (stop, watching) = (Arc::new(AtomicBool::new(false)), cluster.client(&[0, 1]).await?);
        // It is connected to both nodes before it counts.
        for key in [keys[0], all[0], all[all.len() - 1]] {
            watching.ask(Key(key), cell::Message::Read).await?;
        }
        let watch = tokio::spawn(watch(watching, keys[0], stop.clone()));
        tokio::time::sleep(BEFORE).await;
        let began = Instant::now();
        let moved = migrate(&admin, *shard as u32..*shard as u32 + 1, to).await?;
        let ended = Instant::now();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.store(true, Relaxed);
        let answers = watch.await??;
        done.before.push(longest_gap(&answers, None, Some(began)));
        done.pauses.push(longest_gap(&answers, Some(began), Some(ended + Duration::from_millis(50))));
        done.stood.push(moved.stood_us as f64 / 1e3);
        done.bytes.push(moved.bytes as f64);
        progress("moves", number + 1, moves);
    }
    stop.store(true, Relaxed);
    while let Some(ended) = beside.join_next().await {
        ended??;
    }
    Ok(done)
}

/// Shards of the first node, each with the keys of its actors, all of which have been touched.
async fn populate(client: &Client, cluster: &Cluster) -> Result<Vec<(usize, Vec<u64>)>, Failure> {
    let owners = cluster.owners().await?;
    let first = cluster.nodes[0].number;
    let chosen = (0..owners.len()).filter(|shard| owners[*shard] == first).take(SHARDS_MOVED);
    let mut shards: Vec<(usize, Vec<u64>)> = chosen.map(|shard| (shard, Vec::with_capacity(ACTORS))).collect();
    for key in 0u64.. {
        if let Some((_, keys)) = shards.iter_mut().find(|(number, _)| *number == shard(key))
            && keys.len() < ACTORS
        {
            keys.push(key);
        }
        if shards.iter().all(|(_, keys)| keys.len() == ACTORS) {
            break;
        }
    }
    let mut tells = client.tells();
    for key in shards.iter().flat_map(|(_, keys)| keys) {
        tells.send(Key(*key), cell::Message::Touch).await?;
    }
    match client.settle(PATIENCE).await?.settled {
        true => Ok(shards),
        false => Err("the actors did not settle".into()),
    }
}

/// Asks one actor, one ask after the other, and says when each answer came.
async fn watch(client: Client, key: u64, stop: Arc<AtomicBool>) -> Result<Vec<Instant>, Failure> {
    let mut answers = Vec::new();
    while !stop.load(Relaxed) {
        client.ask(Key(key), cell::Message::Read).await?;
        answers.push(Instant::now());
    }
    client.close().await?;
    Ok(answers)
}

/// The longest time between two answers, in milliseconds, of which the second came after `from` and the first before `until`.
fn longest_gap(answers: &[Instant], from: Option<Instant>, until: Option<Instant>) -> f64 {
    let gaps = answers
        .windows(2)
        .filter(|pair| from.is_none_or(|from| pair[1] > from) && until.is_none_or(|until| pair[0] < until));
    // One that a move begins in counts to the move.
    let gaps = gaps.filter(|pair| from.is_some() || until.is_none_or(|until| pair[1] <= until));
    gaps.map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).fold(0.0, f64::max)
}
