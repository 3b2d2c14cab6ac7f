//! Tries the ring kernel on a GPU, or on the emulated device: correctness first, then speed.
//!
//! `cargo build --release -p ringhold-tests --bin gpu-suite`, then `gpu-suite --device cuda:0 --out FOLDER` where the
//! GPU is.
//! `docs/gpu-suite.md` says what it tries and how to read it. It ends with 0 if nothing failed, and with 1 otherwise.

mod actors;
mod correctness;
mod device;
mod model;
mod report;
mod speed;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;

use correctness::{CHECKS, Check};
use device::{Failed, Kernel, Machine};
use report::{Outcome, Report};
use speed::{MEASUREMENTS, Measure};

/// Tries the ring kernel on a GPU, or on the emulated device.
#[derive(Parser)]
struct Arguments {
    /// What runs it: `cuda:0` or another number, or `emulated`
    #[arg(long, default_value = "cuda:0", value_parser = which)]
    device: Which,
    /// The folder for gpu-suite.json; otherwise that in the variable OUT, otherwise this one
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy)]
enum Which {
    Emulated,
    Cuda(u32),
}

fn which(text: &str) -> Result<Which, String> {
    match (text, text.strip_prefix("cuda:").map(str::parse)) {
        ("emulated", _) => Ok(Which::Emulated),
        (_, Some(Ok(number))) => Ok(Which::Cuda(number)),
        _ => Err("write `emulated`, or `cuda:` and the number of a GPU".into()),
    }
}

/// What checks and measurements are run with.
pub struct Suite {
    machine: Machine,
    /// With rings and inboxes of the usual length.
    kernel: Kernel,
    /// With rings and inboxes that are always full.
    short: Kernel,
}

impl Suite {
    fn new(machine: Machine) -> Result<Suite, String> {
        let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let kernel = Kernel::compile(&machine, 16_384, folder.path())?;
        let short = Kernel::compile(&machine, 16, folder.path())?;
        Ok(Suite { machine, kernel, short })
    }

    fn is_emulated(&self) -> bool {
        self.machine.is_emulated()
    }

    /// A power of two.
    fn many_actors(&self) -> u64 {
        if self.is_emulated() { 1 << 11 } else { 1 << 20 }
    }

    /// Asks in a comparison with native handlers.
    fn asks(&self) -> u32 {
        if self.is_emulated() { 60 } else { 2_000 }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let mut report = Report { device: String::new(), caveat: None, checks: Vec::new(), figures: Vec::new() };
    run(arguments.device, &mut report);
    report.print_table();
    let out = arguments.out.or_else(|| std::env::var_os("OUT").map(PathBuf::from)).unwrap_or_else(|| ".".into());
    let written = report.write(&out);
    if let Err(error) = &written {
        eprintln!("{error}");
    }
    // At once: a device that does not end must not keep the process.
    std::process::exit(i32::from(report.count(Outcome::Fail) > 0 || written.is_err()));
}

fn run(which: Which, report: &mut Report) {
    let machine = match which {
        Which::Emulated => Ok(Machine::Emulated),
        Which::Cuda(number) => Machine::cuda(number).map_err(|why| (number, why)),
    };
    let machine = match machine {
        Ok(machine) => machine,
        Err((number, why)) => {
            report.device = format!("cuda:{number}");
            return skip_all(report, 0, &format!("skipped, no GPU: {why}"));
        }
    };
    report.device = machine.name();
    report.caveat = machine.is_emulated().then_some("emulated, no measurement of a GPU");
    println!("{}", report.device);

    let began = Instant::now();
    let suite = match Suite::new(machine) {
        Ok(suite) => suite,
        Err(why) => {
            report.check("compile the ring kernel", Outcome::Fail, why, began.elapsed());
            return skip_all(report, 0, "there is no kernel");
        }
    };
    report.check("compile the ring kernel", Outcome::Pass, "two of them".into(), began.elapsed());

    for (done, (name, step)) in steps().enumerate() {
        let began = Instant::now();
        let said = match step {
            Step::Check(check) => check(&suite),
            Step::Measure(measure) => measure(&suite).map(|figures| {
                let said = format!("{} figures, below", figures.len());
                report.figures.extend(figures);
                said
            }),
        };
        match said {
            Ok(said) => report.check(name, Outcome::Pass, said, began.elapsed()),
            Err(Failed::Wrong(said)) => report.check(name, Outcome::Fail, said, began.elapsed()),
            Err(Failed::Stuck(said)) => {
                report.check(name, Outcome::Fail, said, began.elapsed());
                return skip_all(report, done + 1, "the device before it did not end in order");
            }
        }
    }
}

enum Step {
    Check(Check),
    Measure(Measure),
}

/// Correctness first.
fn steps() -> impl Iterator<Item = (&'static str, Step)> {
    let checks = CHECKS.iter().map(|(name, check)| (*name, Step::Check(*check)));
    checks.chain(MEASUREMENTS.iter().map(|(name, measure)| (*name, Step::Measure(*measure))))
}

/// What is not tried is counted.
fn skip_all(report: &mut Report, from: usize, why: &str) {
    steps().skip(from).for_each(|(name, _)| report.check(name, Outcome::Skipped, why.into(), Duration::ZERO));
}
