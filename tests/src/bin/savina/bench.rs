//! Repetitions: every runner in turn, several times, each long enough to time.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use crate::definitions::{Case, Runner, Shape};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub repetitions: u32,
    /// What `n` is chosen for. A case whose smallest `n` takes longer takes longer.
    pub repetition_min: Duration,
}

impl Plan {
    pub const FULL: Plan = Plan { shape: Shape::FULL, repetitions: 5, repetition_min: Duration::from_millis(250) };
    pub const QUICK: Plan = Plan { shape: Shape::QUICK, repetitions: 3, repetition_min: Duration::from_millis(30) };
}

/// What one runner did in one case.
pub struct Row {
    pub name: &'static str,
    pub flavour: &'static str,
    /// Operations a second, one for each repetition, in order of size.
    pub rates: Vec<f64>,
}

impl Row {
    pub fn median(&self) -> f64 {
        median(&self.rates)
    }
}

/// Runs `case`: a first untimed run of each runner, which also says how large `n` has to be, and then the
/// repetitions, all runners in turn within each, so that what slows the machine for a while slows them all.
pub fn run(case: Case, runners: &[Box<dyn Runner>], plan: &Plan) -> Vec<Row> {
    let sizes: Vec<u64> = runners
        .iter()
        .map(|runner| {
            progress(case, runner.as_ref(), "warm-up");
            size(case, runner.as_ref(), plan)
        })
        .collect();
    let mut rows: Vec<Row> = runners
        .iter()
        .map(|runner| Row { name: runner.name(), flavour: runner.flavour(), rates: Vec::new() })
        .collect();
    for repetition in 1..=plan.repetitions {
        for ((runner, row), n) in runners.iter().zip(&mut rows).zip(&sizes) {
            progress(case, runner.as_ref(), &format!("{repetition}/{}", plan.repetitions));
            let elapsed = runner.run(case, &plan.shape, *n);
            row.rates.push(case.operations(&plan.shape, *n) as f64 / elapsed.as_secs_f64());
        }
    }
    clear_progress();
    rows.iter_mut().for_each(|row| row.rates.sort_by(f64::total_cmp));
    rows
}

/// The `n` for which `runner` takes at least the plan's time, from at most three growing runs.
fn size(case: Case, runner: &dyn Runner, plan: &Plan) -> u64 {
    let wanted = plan.repetition_min.as_secs_f64();
    let mut n = case.n_first();
    for _ in 0..3 {
        let elapsed = runner.run(case, &plan.shape, n).as_secs_f64().max(1e-7);
        if elapsed >= wanted {
            return n;
        }
        // A short run says little about a long one: grow at most 100-fold on its word.
        n = (n as f64 * (wanted / elapsed * 1.1).min(100.0)).ceil() as u64;
    }
    n
}

fn progress(case: Case, runner: &dyn Runner, what: &str) {
    if stderr().is_terminal() {
        eprint!("\r\x1b[2K{}: {} on {} ({what})", case.name(), runner.name(), runner.flavour());
        let _ = stderr().flush();
    }
}

pub fn clear_progress() {
    if stderr().is_terminal() {
        eprint!("\r\x1b[2K");
    }
}

/// The middle of sorted figures, or the mean of the two.
pub fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}
