//! The steps of the suite, and the process that each of them is.
//!
//! A kernel that hangs cannot be ended within its process, and one that crashes leaves nothing in it that works. So the suite
//! starts itself anew for each step, with a limit, and takes what the step has found from a file.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::device::{Failed, Machine};
use super::report::{Figure, Outcome, Report};
use super::{Suite, Which, ceilings, correctness, latency, nodes, place, programs, speed};

/// What a step has found: in words, and in figures.
pub type Found = Result<(String, Vec<Figure>), Failed>;

pub struct Step {
    pub name: &'static str,
    /// Seconds that it may take; on a GPU it is meant to take a fraction of that.
    pub limit_s: u64,
    pub run: fn(&Suite) -> Found,
}

/// A check finds words alone, a measurement figures alone.
macro_rules! step {
    (check $name:literal, $limit:literal, $run:path) => {
        Step { name: $name, limit_s: $limit, run: |suite| Ok(($run(suite)?, Vec::new())) }
    };
    (measure $name:literal, $limit:literal, $run:path) => {
        Step { name: $name, limit_s: $limit, run: |suite| $run(suite).map(|figures| (String::new(), figures)) }
    };
    (both $name:literal, $limit:literal, $run:path) => {
        Step { name: $name, limit_s: $limit, run: $run }
    };
}

/// Correctness first.
const STEPS: [Step; 29] = [
    step!(check "where the GPU is", 30, place::is_known),
    step!(check "compile the ring kernels", 120, correctness::compile),
    step!(check "ordering and spill", 90, correctness::ordering_and_spill),
    step!(check "cyclic saturation", 60, correctness::cyclic_saturation),
    step!(check "many actors", 60, correctness::many_actors),
    step!(check "wide actor of 32 threads", 90, correctness::row_is_native),
    step!(check "wide actor of 256 threads", 90, correctness::rod_is_native),
    step!(check "wide actor of 1024 threads", 90, correctness::slab_is_native),
    step!(check "shipped actors equal to native", 90, correctness::shipped_are_native),
    step!(check "launch, stop, relaunch", 90, correctness::relaunch),
    step!(check "random programs equal to native", 240, programs::are_native),
    step!(check "flights demo equal to its reference", 120, nodes::demo),
    step!(check "two devices", 120, nodes::two_devices),
    step!(both "shards move", 120, nodes::shards_move),
    step!(both "endless handler survived", 90, nodes::endless_handler),
    step!(both "bad address survived", 90, nodes::bad_address),
    step!(both "killed host comes back", 120, nodes::killed_host),
    step!(measure "the machine's ceilings", 60, ceilings::measure),
    step!(measure "compile and start time", 120, speed::compile_and_start),
    step!(measure "latency", 60, latency::idle),
    step!(measure "latency under load", 60, latency::loaded),
    step!(measure "clock tick", 60, latency::tick),
    step!(measure "host ask round trip", 60, speed::ask),
    step!(measure "ingest", 90, speed::ingest),
    step!(measure "egress", 90, speed::egress),
    step!(measure "one hot actor", 60, speed::hot),
    step!(measure "actor to actor, to anyone", 60, speed::to_anyone),
    step!(measure "actor to actor, to the next", 60, speed::to_the_next),
    step!(measure "bytes of an idle actor", 60, speed::idle),
];

/// All of it, which is to take less than ten minutes. What is left then is skipped.
const LIMIT: Duration = Duration::from_secs(570);

/// Runs every step in its turn.
pub fn run_all(which: Which, report: &mut Report) {
    let began = Instant::now();
    report.device = which.to_string();
    let machine = match which {
        Which::Emulated => Ok(Machine::Emulated),
        Which::Cuda(number) => Machine::cuda(number).map_err(|why| format!("skipped, no GPU: {why}")),
    };
    let skip_all = |report: &mut Report, why: &str| {
        STEPS.iter().for_each(|step| report.check(step.name, Outcome::Skipped, why.into(), Duration::ZERO));
    };
    match machine {
        Ok(machine) => (report.device, report.place) = (machine.name(), place::of(&machine)),
        Err(why) => return skip_all(report, &why),
    }
    report.emulated = matches!(which, Which::Emulated);
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(e) => return report.check("a temporary folder", Outcome::Fail, e.to_string(), Duration::ZERO),
    };
    println!("{}", report.device);

    for step in &STEPS {
        let left = LIMIT.saturating_sub(began.elapsed());
        if report.emulated && step.name == ceilings::NAME {
            let why = "the emulated device has no ceilings of its own: not measured";
            report.check(step.name, Outcome::Skipped, why.into(), Duration::ZERO);
        } else if left.is_zero() {
            let why = format!("the suite's {} s are over", LIMIT.as_secs());
            report.check(step.name, Outcome::Skipped, why, Duration::ZERO);
        } else {
            let began = Instant::now();
            match run_in_a_process(step, which, folder.path(), left.min(Duration::from_secs(step.limit_s))) {
                Ok((said, figures)) => {
                    let count = (!figures.is_empty()).then(|| format!("{} figures, below", figures.len()));
                    let said: Vec<String> =
                        Some(said).filter(|said| !said.is_empty()).into_iter().chain(count).collect();
                    report.check(step.name, Outcome::Pass, said.join("; "), began.elapsed());
                    report.figures.extend(figures);
                }
                Err(why) => report.check(step.name, Outcome::Fail, why, began.elapsed()),
            }
        }
    }
}

/// In the folder: what a step has found, as JSON.
const FOUND: &str = "found.json";

fn run_in_a_process(step: &Step, which: Which, folder: &Path, limit: Duration) -> Found {
    let failed = |e: std::io::Error| format!("the step's process cannot be run: {e}");
    let file = folder.join(FOUND);
    let _ = std::fs::remove_file(&file);
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(["--device", &which.to_string(), "--step", step.name])
        .arg(folder)
        .stdin(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if began.elapsed() > limit {
            // It fails only when the process is gone already. Device hosts end with it: see `nodes`.
            let _ = child.kill();
            child.wait().map_err(failed)?;
            return Err(format!("it was not done after {} s, and was killed", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = std::fs::read_to_string(&file).map_err(|_| format!("its process ended with {status}"))?;
    serde_json::from_str(&text).map_err(|e| format!("what it found cannot be read: {e}"))?
}

/// Runs one step in this process, which is there for it.
pub fn run_here(name: &str, which: Which, folder: &Path) -> Result<(), ()> {
    let found = match STEPS.iter().find(|step| step.name == name) {
        Some(step) => Suite::new(which, folder).and_then(|suite| (step.run)(&suite)),
        None => Err(format!("there is no step `{name}`")),
    };
    let text = serde_json::to_string(&found).expect("figures are maps with text for keys");
    if let Err(e) = std::fs::write(folder.join(FOUND), text) {
        eprintln!("{}: {e}", folder.display());
        return Err(());
    }
    found.map(drop).map_err(drop)
}
