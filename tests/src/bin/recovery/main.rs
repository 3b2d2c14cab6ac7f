//! What checkpoints cost and how fast a device and a node go on after a SIGKILL: each beside what bounds it, in one run.
//!
//! `cargo run --release -p ringhold-tests --bin recovery -- [--quick] [--only SECTION]...`
//!
//! How each is measured is said in its module and printed with its figures. Figures taken while anything else runs on the
//! machine are worth nothing.

mod actors;
mod latency;
mod machine;
mod pause;
mod restart;
mod throughput;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use ringhold::Registry;
use ringhold::device::host;

/// Checkpoints and recoveries, measured.
#[derive(Parser)]
#[command(name = "recovery")]
struct Arguments {
    /// Smaller sizes and fewer repetitions: a smoke test, not a measurement.
    #[arg(long)]
    quick: bool,
    /// Only these sections.
    #[arg(long, value_enum)]
    only: Vec<Section>,
}

/// The parts of the program.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// How long a device stands still for a checkpoint, beside a memcpy of what has changed.
    Pause,
    /// Messages a second with checkpoints off, every second and every 10 ms.
    Throughput,
    /// An ask of a committed type, beside an fsync.
    Latency,
    /// From SIGKILL to the first answer.
    Restart,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    // The nodes that are measured, and their device hosts, are this program too.
    if std::env::args().nth(1).is_some_and(|role| role == host::ROLE || role == "node") {
        return ringhold::cli::main(registry());
    }
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    match runtime.block_on(measure(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recovery: {error}");
            ExitCode::FAILURE
        }
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<actors::cell::Actor>().expect("the only type");
    registry
}

async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let wanted = |section| arguments.only.is_empty() || arguments.only.contains(&section);
    machine::print();
    if wanted(Section::Pause) {
        pause::run(arguments.quick).await?;
    }
    if wanted(Section::Throughput) {
        throughput::run(arguments.quick).await?;
    }
    if wanted(Section::Latency) {
        latency::run(arguments.quick).await?;
    }
    if wanted(Section::Restart) {
        restart::run(arguments.quick).await?;
    }
    Ok(())
}

/// Of sorted figures, the one with this part of them below it.
fn percentile<T: Copy>(sorted: &[T], part: f64) -> T {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}
