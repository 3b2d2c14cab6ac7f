//! `ringhold-sim`: runs seeds of the simulator.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use ringhold_sim::nodes::plan::Bias;
use ringhold_sim::scenario::Report;
use ringhold_sim::trace::say;
use ringhold_sim::{cluster, nodes, recovery, scenario};
use serde_json::{Map, Value, json};

/// Runs whole nodes in simulated time, one run a seed, and checks what they promise.
#[derive(Parser)]
#[command(name = "ringhold-sim", version)]
struct Arguments {
    /// The seeds to run: from A up to, and not including, B.
    #[arg(long, value_name = "A..B", value_parser = range, conflicts_with = "seed", required_unless_present = "seed")]
    seeds: Option<std::ops::Range<u64>>,

    /// One seed to run.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// What is simulated.
    #[arg(long, value_enum, default_value_t = Scenario::Node)]
    scenario: Scenario,

    /// What the scenario `nodes` makes likely.
    #[arg(long, value_enum)]
    bias: Option<Bias>,

    /// Print everything that happens.
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A node through bad weather and crashes of its devices, without checkpoints.
    Node,
    /// A node that goes on from its checkpoints when devices crash and when its power fails.
    Recovery,
    /// The control plane of a cluster whose nodes crash, lose each other, move, come and go.
    Cluster,
    /// Whole nodes of a cluster, which go on with each other's devices.
    Nodes,
}

impl Scenario {
    fn run(self, seed: u64, print: bool, bias: Option<Bias>) -> Report<Vec<(&'static str, u64)>> {
        match self {
            Scenario::Node => {
                let report = scenario::run(seed, scenario::Options { print, plant: None });
                let figures = report.figures.named().to_vec();
                report.with(figures)
            }
            Scenario::Recovery => {
                let report = recovery::run(seed, recovery::Options { print, plant: None });
                let figures = report.figures.named().to_vec();
                report.with(figures)
            }
            Scenario::Cluster => {
                let report = cluster::run(seed, cluster::Options { print, plant: None });
                let figures = report.figures.named().to_vec();
                report.with(figures)
            }
            Scenario::Nodes => {
                let report = nodes::run(seed, nodes::Options { print, plant: None, bias });
                let figures = report.figures.named().to_vec();
                report.with(figures)
            }
        }
    }

    /// What the command line needs to replay a seed of it.
    fn flag(self) -> &'static str {
        match self {
            Scenario::Node => "",
            Scenario::Recovery => " --scenario recovery",
            Scenario::Cluster => " --scenario cluster",
            Scenario::Nodes => " --scenario nodes",
        }
    }
}

fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(|e| format!("`{text}` is no seed: {e}"));
    let (from, to) = text.split_once("..").ok_or("write it as A..B, for example 0..100")?;
    let (from, to) = (number(from)?, number(to)?);
    if from < to { Ok(from..to) } else { Err("A must be below B".into()) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = match (arguments.seeds.clone(), arguments.seed) {
        (Some(seeds), _) => seeds,
        (None, Some(seed)) => seed..seed + 1,
        (None, None) => unreachable!("one of the two is required"),
    };
    if arguments.bias.is_some() && arguments.scenario != Scenario::Nodes {
        Arguments::command().error(ErrorKind::ArgumentConflict, "only the scenario `nodes` knows --bias").exit();
    }
    let started = Instant::now();
    let mut sum = Sum::default();
    for seed in seeds {
        let report = arguments.scenario.run(seed, arguments.trace, arguments.bias);
        tell(&arguments, &report);
        sum.add(&report);
    }
    let wall = started.elapsed();
    if arguments.json {
        say(format_args!("{}", sum.to_json(wall)));
    } else {
        sum.print(wall);
    }
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(arguments: &Arguments, report: &Report<Vec<(&str, u64)>>) {
    let (seed, alone) = (report.seed, arguments.seed.is_some());
    if alone {
        say(format_args!("seed {seed}: trace {:016x}, {} events", report.hash, report.events));
    }
    for violation in &report.violations {
        say(format_args!("seed {seed} FAILED: {violation}"));
    }
    if !report.violations.is_empty() && !alone {
        let scenario = arguments.scenario.flag();
        let bias = arguments.bias.and_then(|bias| Some(format!(" --bias {}", bias.to_possible_value()?.get_name())));
        let flags = format!("{scenario}{}", bias.unwrap_or_default());
        say(format_args!("    replay: cargo run --release -p ringhold-sim --{flags} --seed {seed} --trace"));
    }
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    failures: Vec<u64>,
    simulated: Duration,
    events: u64,
    figures: Vec<(&'static str, u64)>,
}

impl Sum {
    fn add(&mut self, report: &Report<Vec<(&'static str, u64)>>) {
        self.seeds += 1;
        if !report.violations.is_empty() {
            self.failures.push(report.seed);
        }
        self.simulated += report.simulated;
        self.events += report.events;
        if self.figures.is_empty() {
            self.figures = report.figures.iter().map(|(name, _)| (*name, 0)).collect();
        }
        self.figures.iter_mut().zip(&report.figures).for_each(|(sum, (_, value))| sum.1 += value);
    }

    fn speed(&self, wall: Duration) -> f64 {
        self.simulated.as_secs_f64() / wall.as_secs_f64()
    }

    fn print(&self, wall: Duration) {
        let (simulated, wall_s) = (self.simulated.as_secs_f64(), wall.as_secs_f64());
        say(format_args!("seeds              {}", self.seeds));
        say(format_args!("failures           {} {:?}", self.failures.len(), self.failures));
        say(format_args!("simulated_seconds  {simulated:.1}"));
        say(format_args!("wall_seconds       {wall_s:.2}"));
        say(format_args!("speed              {:.0} x real time", self.speed(wall)));
        for (name, value) in &self.figures {
            say(format_args!("{name:<18} {value}"));
        }
    }

    fn to_json(&self, wall: Duration) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        json!({
            "seeds": self.seeds,
            "failures": self.failures,
            "simulated_seconds": self.simulated.as_secs_f64(),
            "wall_seconds": wall.as_secs_f64(),
            "simulated_per_wall": self.speed(wall),
            "events": self.events,
            "figures": figures,
        })
    }
}
