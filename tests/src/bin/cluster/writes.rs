//! Commands a second that a control plane of three nodes agrees on.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use ringhold::client::Client;
use ringhold_cluster::control::admin;
use serde_json::json;
use tokio::task::JoinSet;

use crate::Failure;
use crate::machine::{Cluster, Settings, ask};
use crate::report::{Report, spread};

const METHOD: &str = "\
Three nodes that all vote, each with its log in its own data folder on the disk of this machine. A command sets a setting, through a \
client's request: it is agreed once two of the three have it synced, and applied before it is answered. *One caller* sends the next once \
the last was answered; *16* do so side by side over one connection. Beside them, in turns, fsyncs a second of 4 KiB each appended to a \
file on that disk.";

pub async fn run(quick: bool, report: &mut Report) -> Result<(), Failure> {
    report.section("Raft writes", METHOD);
    let (turns, span) = if quick { (1, Duration::from_millis(300)) } else { (5, Duration::from_secs(2)) };
    let lease = Duration::from_millis(if quick { 3_000 } else { 400 });
    let cluster = Cluster::start(3, Settings { lease, committed: false }).await?;
    let leads = cluster.until("somebody leads", |status| status.leader.is_some()).await?.leader;
    let at = |leader: bool| {
        cluster.nodes.iter().find(|node| (Some(node.number) == leads) == leader).expect("there are three")
    };
    let (leader, follower) = (at(true).client().await?, at(false).client().await?);
    let ways = [
        ("the leader", &leader, 1),
        ("the leader", &leader, 16),
        ("a follower", &follower, 1),
        ("a follower", &follower, 16),
    ];
    let mut rates = vec![Vec::new(); ways.len()];
    let mut fsyncs = Vec::new();
    let folder = tempfile::tempdir()?;
    for _ in 0..turns {
        for ((_, client, callers), rates) in ways.iter().zip(&mut rates) {
            rates.push(writes(client, *callers, span).await.map_err(|e| cluster.with_logs(e))?);
        }
        let path = folder.path().join("fsync");
        fsyncs.push(tokio::task::spawn_blocking(move || fsyncs_per_s(&path, span)).await??);
    }
    let mut rows: Vec<Vec<String>> = ways
        .iter()
        .zip(&rates)
        .map(|((at, _, callers), rates)| vec![at.to_string(), callers.to_string(), spread(rates, 0)])
        .collect();
    rows.push(vec!["an fsync, alone".into(), "1".into(), spread(&fsyncs, 0)]);
    report.table(&["asked", "callers", "a second: median (range)"], &rows);
    let raw: Vec<_> = ways
        .iter()
        .zip(&rates)
        .map(|((at, _, callers), rates)| json!({ "asked": at, "callers": callers, "per_s": rates }))
        .collect();
    report.raw("writes", json!({ "ways": raw, "fsyncs_per_s": fsyncs }));
    Ok(())
}

/// Commands a second of so many callers.
async fn writes(client: &Client, callers: usize, span: Duration) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let client = client.clone();
        tasks.spawn(async move {
            let mut done = 0u64;
            while began.elapsed() < span {
                let value = if (done + caller as u64).is_multiple_of(2) { "5" } else { "7" };
                let set = admin::Request::Set { name: "voters_max".into(), value: value.into() };
                match ask(&client, set).await? {
                    admin::Response::Done => done += 1,
                    other => return Err(Failure::from(format!("{other:?}"))),
                }
            }
            Ok(done)
        });
    }
    let mut all = 0;
    while let Some(done) = tasks.join_next().await {
        all += done??;
    }
    Ok(all as f64 / began.elapsed().as_secs_f64())
}

fn fsyncs_per_s(path: &std::path::Path, span: Duration) -> Result<f64, Failure> {
    let mut file = File::create(path)?;
    let (began, mut done) = (Instant::now(), 0u32);
    while began.elapsed() < span {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        done += 1;
    }
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}
