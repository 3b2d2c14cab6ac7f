//! What a cluster does and costs: messages between nodes beside a bare quinn stream and other frameworks' remote actors, failover,
//! moving shards, and what the control plane takes.
//!
//! `cargo run --release -p ringhold-tests --bin cluster -- [--quick] [--only SECTION]... [--runs N] [--out FOLDER]`
//!
//! What is measured, and why it is fair, is in `docs/benchmarks.md`; each module says how it times. Nodes are processes of this
//! program on this machine. Figures taken while anything else runs on the machine are worth nothing.

mod actors;
mod bare;
mod failover;
mod growth;
mod machine;
mod messages;
mod migration;
mod peers;
mod report;
mod size;
mod writes;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use ringhold::Registry;
use ringhold::device::host;

use report::Report;

/// A cluster, measured.
#[derive(Parser)]
#[command(name = "cluster")]
struct Arguments {
    /// Smaller sizes and fewer repetitions: a smoke test of less than a minute, not a measurement.
    #[arg(long)]
    quick: bool,
    /// Only these sections.
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// How often a node is killed: 20, or 1 with --quick.
    #[arg(long)]
    runs: Option<usize>,
    /// A folder for report.md and cluster.json, which has every figure that was taken.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The parts of the program.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Tells and asks between two nodes, beside bare quinn, ractor_cluster and kameo.
    Messages,
    /// From the SIGKILL of one of three nodes to the first answer from every shard.
    Failover,
    /// How long a client waits while the shard of its actor moves to another node.
    Migration,
    /// Commands a second that a control plane of three nodes agrees on.
    Writes,
    /// A control plane of 1,000 nodes: its bytes, its snapshot, its start.
    Size,
    /// What an idle control plane says, of 3 to 50 nodes.
    Growth,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    // The nodes, their device hosts and the other end of the bare program are this program too.
    match std::env::args().nth(1).as_deref() {
        Some(host::ROLE | "node") => return ringhold::cli::main(registry()),
        Some(bare::ROLE) => return ended(bare::serve()),
        _ => {}
    }
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    ended(runtime.block_on(measure(&arguments)))
}

fn ended(how: Result<(), Failure>) -> ExitCode {
    match how {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<actors::pair::Actor>().expect("no other is called so");
    registry.register::<actors::cell::Actor>().expect("no other is called so");
    registry
}

async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let quick = arguments.quick;
    let wanted = |section: Section| arguments.only.is_empty() || arguments.only.contains(&section);
    let runs = arguments.runs.unwrap_or(if quick { 1 } else { 20 });
    let mut report = Report::new(quick);
    let mut failed = None;
    for section in Section::value_variants().iter().filter(|section| wanted(**section)) {
        let done = match section {
            Section::Messages => messages::run(quick, &mut report).await,
            Section::Failover => failover::run(quick, runs, &mut report).await,
            Section::Migration => migration::run(quick, &mut report).await,
            Section::Writes => writes::run(quick, &mut report).await,
            Section::Size => size::run(quick, &mut report).await,
            Section::Growth => growth::run(quick, &mut report).await,
        };
        // The others are worth having all the same.
        if let Err(error) = done {
            report.say(&format!("**This part failed**: {}\n", error.to_string().lines().next().unwrap_or_default()));
            failed = Some(error);
        }
    }
    if let Some(folder) = &arguments.out {
        report.write(folder)?;
    }
    failed.map_or(Ok(()), Err)
}

/// Of sorted figures, the one with this part of them at or below it.
fn percentile<T: Copy>(sorted: &[T], part: f64) -> T {
    sorted[((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len()) - 1]
}
