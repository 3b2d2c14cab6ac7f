//! What an idle actor costs in memory, and how fast Ringhold makes them.
//!
//! Each runner is measured in a process of its own, because memory that an earlier section has freed would hide
//! what a later one takes. An idle actor holds 8 bytes of state, has handled one message, and is reachable: for
//! the peers the reference that makes it so is part of the cost.

use std::process::Command;

use serde_json::{Value, json};

use crate::bench::median;
use crate::ours;
use crate::peers::actix::Actix;
use crate::peers::{self, Flavour};

/// How many idle actors.
#[derive(Clone, Copy, Debug)]
pub struct Population {
    pub ours: u64,
    /// Fewer, since some take gigabytes for a million; what an actor costs does not depend on it.
    pub peers: u64,
}

impl Population {
    pub const FULL: Population = Population { ours: 1_000_000, peers: 100_000 };
    pub const QUICK: Population = Population { ours: 200_000, peers: 10_000 };

    pub fn of(&self, name: &str) -> u64 {
        if name == "ours" { self.ours } else { self.peers }
    }
}

pub const STATE_BYTES: u64 = 8;

/// What the process of one runner prints.
pub struct Idle {
    pub name: &'static str,
    pub actors: u64,
    /// Growth of the resident set, state included, for each actor.
    pub rss_bytes: f64,
    /// Ours alone; how fast the others are, `fork_join_create` tells.
    pub created_per_s: Option<f64>,
    /// The runtime's own account of what it holds for an actor beside its state, where it keeps one.
    pub own_account_bytes: Option<f64>,
}

/// Measures `name` in a process of its own.
pub fn run(name: &'static str, population: &Population) -> Result<Idle, String> {
    let actors = population.of(name);
    let program = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let output = Command::new(program)
        .args(["--memory-child", name, "--memory-actors", &actors.to_string()])
        .output()
        .map_err(|error| format!("starting the process that measures {name}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).map_err(|_| {
        format!(
            "the process that measures {name} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    Ok(Idle {
        name,
        actors,
        rss_bytes: line["rss_bytes"].as_f64().unwrap_or(f64::NAN),
        created_per_s: line["created_per_s"].as_f64(),
        own_account_bytes: line["own_account_bytes"].as_f64(),
    })
}

/// The measuring process: prints one line of JSON.
pub fn child(name: &str, actors: u64) -> Result<(), String> {
    let line = match name {
        "ractor" => Flavour::CurrentThread.block_on(measure(actors, peers::ractor::idle(actors))),
        "kameo" => Flavour::CurrentThread.block_on(measure(actors, peers::kameo::idle(actors))),
        "actix" => Actix::OneArbiter.block_on(async |place| measure(actors, peers::actix::idle(place, actors)).await),
        "ours" => ours(actors),
        _ => return Err(format!("--memory-child {name}: must be ours, ractor, kameo or actix")),
    };
    println!("{line}");
    Ok(())
}

async fn measure<T>(actors: u64, create: impl Future<Output = T>) -> Value {
    let rss_before = rss_bytes();
    let idle = create.await;
    let grown = rss_bytes().saturating_sub(rss_before);
    drop(idle);
    json!({ "rss_bytes": grown as f64 / actors as f64 })
}

fn ours(actors: u64) -> Value {
    let rss_before = rss_bytes();
    let first = ours::idle(actors);
    let grown = rss_bytes().saturating_sub(rss_before);
    let table_bytes = first.table_bytes;
    drop(first);
    // How fast, on fresh devices.
    let mut rates: Vec<f64> =
        (0..CREATION_REPETITIONS).map(|_| actors as f64 / ours::idle(actors).elapsed.as_secs_f64()).collect();
    rates.sort_by(f64::total_cmp);
    json!({
        "rss_bytes": grown as f64 / actors as f64,
        "created_per_s": median(&rates),
        "own_account_bytes": table_bytes - STATE_BYTES as f64,
    })
}

const CREATION_REPETITIONS: usize = 5;

/// The resident set of this process.
pub fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or(0u64) * 1024
}
