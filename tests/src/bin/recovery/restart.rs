//! From SIGKILL to the first answer: of the device host of a node, of the node, which is started again at once, and of the host
//! of a ring kernel, whose device goes on with the CPU. The emulated device stands for a GPU there.
//!
//! All cells are in a checkpoint. The clock starts with the signal; the ask is sent at once, or, where the node was killed, as
//! soon as a client has connected to the next one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ringhold::Key;
use ringhold::client::{AskError, Client};
use rustix::process::{Pid, Signal, kill_process};

use crate::actors::cell;
use crate::machine::{There, covered, status, touch};
use crate::{Failure, percentile};

pub async fn run(quick: bool) -> Result<(), Failure> {
    println!("\nrestart: from SIGKILL to the first answer; budget: 500 ms for the device host at 100,000 cells");
    println!("{:>9} {:>12} {:>6} {:>10} {:>10} {:>10}", "cells", "killed", "times", "shortest", "median", "longest");
    let sizes: &[u64] = if quick { &[1_000] } else { &[1_000, 100_000, 1_000_000] };
    for cells in sizes {
        let folder = tempfile::tempdir()?;
        let measured = measure(folder.path(), *cells, quick).await;
        measured.map_err(|error| with_log(error, folder.path()))?;
    }
    println!("\nfallback: the host of an emulated device is killed, and the CPU goes on; budget for a GPU: 2 s");
    for cells in if quick { &sizes[..1] } else { &sizes[..2] } {
        let folder = tempfile::tempdir()?;
        fall_back(folder.path(), *cells, quick).await.map_err(|error| with_log(error, folder.path()))?;
    }
    Ok(())
}

fn with_log(error: Failure, folder: &Path) -> String {
    format!("{error}; the log of its node:\n{}", fs::read_to_string(folder.join("log")).unwrap_or_default())
}

/// The host of the node's device.
async fn host(client: &Client) -> Result<Pid, Failure> {
    Ok(status(client).await?.pid.and_then(|pid| Pid::from_raw(pid as i32)).ok_or("no device host")?)
}

async fn fall_back(folder: &Path, cells: u64, quick: bool) -> Result<(), Failure> {
    let mut took = Vec::new();
    for number in 0..if quick { 1 } else { 5 } {
        let node = There::start(folder, "emulated")?;
        let client = node.client().await?;
        if number == 0 {
            touch(&client, cells, 1).await?;
        }
        covered(&client).await?;
        let host = host(&client).await?;
        let began = Instant::now();
        kill_process(host, Signal::KILL)?;
        answered(&client, cells - 1).await?;
        took.push(began.elapsed());
        let now = status(&client).await?.backend;
        if now != "cpu" {
            return Err(format!("the device runs on {now}").into());
        }
        covered(&client).await?;
    }
    row(cells, "emulated", &mut took);
    Ok(())
}

fn row(cells: u64, killed: &str, took: &mut [Duration]) {
    took.sort_unstable();
    let [shortest, median, longest] = [0.0, 0.5, 1.0].map(|part| percentile(took, part));
    let times = took.len();
    println!("{cells:>9} {killed:>12} {times:>6} {shortest:>10.1?} {median:>10.1?} {longest:>10.1?}");
}

async fn measure(folder: &Path, cells: u64, quick: bool) -> Result<(), Failure> {
    let mut node = There::start(folder, "cpu")?;
    let mut client = node.client().await?;
    touch(&client, cells, 1).await?;
    covered(&client).await?;
    let times = if quick { 1 } else { 5 };
    let (mut hosts, mut nodes) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let host = host(&client).await?;
        let began = Instant::now();
        kill_process(host, Signal::KILL)?;
        answered(&client, cells - 1).await?;
        hosts.push(began.elapsed());
        covered(&client).await?;
    }
    for _ in 0..times {
        let began = Instant::now();
        node.process.kill()?;
        node.process.wait()?;
        node = There::start(folder, "cpu")?;
        client = node.client().await?;
        answered(&client, cells - 1).await?;
        nodes.push(began.elapsed());
    }
    row(cells, "device host", &mut hosts);
    row(cells, "node", &mut nodes);
    Ok(())
}

/// Waits for the cell's answer, which must know what the cell was told.
async fn answered(client: &Client, key: u64) -> Result<(), Failure> {
    match client.ask(Key(key), cell::Message::Read).await {
        Ok(cell::Reply::Touched { times: 1 }) => Ok(()),
        Ok(cell::Reply::Touched { times }) => Err(format!("cell {key} says that it was touched {times} times").into()),
        Err(error @ AskError::NotHandled { .. }) => Err(format!("not handled: {error}").into()),
        Err(error) => Err(error.into()),
    }
}
