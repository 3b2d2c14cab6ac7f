//! From SIGKILL to the first answer: of the device host of a node, and of the node, which is started again at once.
//!
//! All cells are in a checkpoint. The clock starts with the signal; the ask is sent at once, or, where the node was killed, as
//! soon as a client has connected to the next one.

use std::fs;
use std::path::Path;
use std::time::Instant;

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
        measured.map_err(|error| {
            let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            format!("{error}; the log of its node:\n{log}")
        })?;
    }
    Ok(())
}

async fn measure(folder: &Path, cells: u64, quick: bool) -> Result<(), Failure> {
    let mut node = There::start(folder)?;
    let mut client = node.client().await?;
    touch(&client, cells, 1).await?;
    covered(&client).await?;
    let times = if quick { 1 } else { 5 };
    let (mut hosts, mut nodes) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let host = status(&client).await?.pid.and_then(|pid| Pid::from_raw(pid as i32)).ok_or("no device host")?;
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
        node = There::start(folder)?;
        client = node.client().await?;
        answered(&client, cells - 1).await?;
        nodes.push(began.elapsed());
    }
    for (killed, took) in [("device host", &mut hosts), ("node", &mut nodes)] {
        took.sort_unstable();
        let [shortest, median, longest] = [0.0, 0.5, 1.0].map(|part| percentile(took, part));
        println!("{cells:>9} {killed:>12} {times:>6} {shortest:>10.1?} {median:>10.1?} {longest:>10.1?}");
    }
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
