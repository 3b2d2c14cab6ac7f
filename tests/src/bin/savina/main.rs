//! The bench program: Ringhold beside other actor frameworks and beside bare programs, in one process run.
//!
//! `cargo run --release -p ringhold-tests --bin savina -- [--json] [--quick] [--only SECTION]... [--case CASE]...`
//!
//! What is measured, and why it is fair, is in `docs/benchmarks.md`. With `--json` the last line of the output is
//! one JSON object. Figures taken while anything else runs on the machine are worth nothing.

mod ask;
mod bare;
mod bench;
mod definitions;
mod memory;
mod ours;
mod peers;
mod quic;
mod report;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::definitions::{Case, Runner};

/// Ringhold measured against ractor, kameo, actix and bare programs.
#[derive(Parser)]
#[command(name = "savina")]
struct Arguments {
    /// Print the report as one JSON object, as the last line.
    #[arg(long)]
    json: bool,
    /// Smaller sizes and fewer repetitions: a smoke test of less than a minute, not a measurement.
    #[arg(long)]
    quick: bool,
    /// Only these sections.
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Only these of the Savina cases, by their names in the report.
    #[arg(long, value_parser = case)]
    case: Vec<Case>,
    /// Only these runners of the Savina cases: ours, ractor, kameo, actix, bare_loop.
    #[arg(long, value_parser = report::RUNNERS)]
    runner: Vec<String>,
    #[arg(long, hide = true)]
    memory_child: Option<String>,
    #[arg(long, hide = true, default_value_t = 0)]
    memory_actors: u64,
}

/// The parts of the program.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// The Savina cases, and the time of one hop.
    Cases,
    /// Ask round trips from another thread.
    Ask,
    /// Asks and tells through QUIC.
    Quic,
    /// Memory of idle actors, and how fast they are created.
    Memory,
}

fn case(name: &str) -> Result<Case, String> {
    Case::ALL.into_iter().find(|case| case.name() == name).ok_or_else(|| {
        let names: Vec<&str> = Case::ALL.iter().map(|case| case.name()).collect();
        format!("must be one of {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.memory_child {
        Some(name) => memory::child(name, arguments.memory_actors),
        None => measure(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("savina: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), String> {
    let quick = arguments.quick;
    let wanted = |section| arguments.only.is_empty() || arguments.only.contains(&section);
    let mut report = report::Report::new(quick);

    // First, while this process is small: the children measure their own memory all the same.
    if wanted(Section::Memory) {
        let population = if quick { memory::Population::QUICK } else { memory::Population::FULL };
        let rows: Result<Vec<_>, _> =
            ["ours", "ractor", "kameo", "actix"].into_iter().map(|name| memory::run(name, &population)).collect();
        report.memory(&rows?);
    }
    if wanted(Section::Cases) {
        let plan = if quick { bench::Plan::QUICK } else { bench::Plan::FULL };
        let runners: Vec<_> = runners()
            .into_iter()
            .filter(|runner| arguments.runner.is_empty() || arguments.runner.iter().any(|name| name == runner.name()))
            .collect();
        for case in Case::ALL {
            if arguments.case.is_empty() || arguments.case.contains(&case) {
                report.case(case, &bench::run(case, &runners, &plan));
            }
        }
    }
    if wanted(Section::Ask) {
        let asks = if quick { ask::Asks::QUICK } else { ask::Asks::FULL };
        report.asks(&ask::run(&asks));
    }
    if wanted(Section::Quic) {
        let load = if quick { quic::Load::QUICK } else { quic::Load::FULL };
        let (ours, bare) =
            quic::run(&load).map_err(|error| format!("measuring asks and tells through QUIC: {error}"))?;
        report.quic(&ours, &bare);
    }

    let json = report.into_json();
    if arguments.json {
        println!("{json}");
    }
    Ok(())
}

/// Everything that runs the Savina cases.
fn runners() -> Vec<Box<dyn Runner>> {
    let mut runners: Vec<Box<dyn Runner>> = vec![Box::new(bare::Bare)];
    for flavour in ours::Ours::BOTH {
        runners.push(Box::new(flavour));
    }
    for flavour in peers::Flavour::BOTH {
        runners.push(Box::new(peers::ractor::Ractor(flavour)));
        runners.push(Box::new(peers::kameo::Kameo(flavour)));
    }
    for flavour in peers::actix::Actix::BOTH {
        runners.push(Box::new(flavour));
    }
    runners
}
