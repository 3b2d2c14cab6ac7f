//! What the suite has found, as a table and as JSON.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// How a check or a measurement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail,
    Skipped,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Pass => "PASS",
            Outcome::Fail => "FAIL",
            Outcome::Skipped => "SKIPPED",
        }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    /// Percentile and value; the first is what the budget is for. A figure that was taken once has one, at 50.
    pub percentiles: Vec<(f64, f64)>,
    /// DESIGN §12, where it has one.
    pub budget: &'static str,
    pub method: &'static str,
    /// Everything that was timed, in order of size.
    pub samples: Vec<f64>,
}

impl Figure {
    pub fn new(name: impl Into<String>, unit: &'static str, mut samples: Vec<f64>, at: &[f64]) -> Figure {
        samples.sort_by(f64::total_cmp);
        let of = |p: f64| samples[((samples.len() as f64 * p / 100.0).ceil() as usize).clamp(1, samples.len()) - 1];
        let percentiles = at.iter().map(|p| (*p, of(*p))).collect();
        Figure { name: name.into(), unit, percentiles, budget: "", method: "", samples }
    }

    pub fn budget(self, budget: &'static str) -> Figure {
        Figure { budget, ..self }
    }

    pub fn method(self, method: &'static str) -> Figure {
        Figure { method, ..self }
    }
}

/// Everything that the suite has found.
pub struct Report {
    pub device: String,
    /// Said beside every figure where there is one: why it is no measurement.
    pub caveat: Option<&'static str>,
    pub checks: Vec<(String, Outcome, String, Duration)>,
    pub figures: Vec<Figure>,
}

impl Report {
    /// Prints and keeps what became of a check.
    pub fn check(&mut self, name: &str, outcome: Outcome, said: String, took: Duration) {
        println!("{:<8} {name} ({:.1} s): {said}", outcome.word(), took.as_secs_f64());
        self.checks.push((name.into(), outcome, said, took));
    }

    pub fn count(&self, of: Outcome) -> usize {
        self.checks.iter().filter(|(_, outcome, ..)| *outcome == of).count()
    }

    pub fn print_table(&self) {
        println!("\n{}", self.device);
        for (name, outcome, ..) in &self.checks {
            println!("  {name:<44} {}", outcome.word());
        }
        for figure in &self.figures {
            let values: Vec<_> =
                figure.percentiles.iter().map(|(p, value)| format!("p{p} {}", short(*value))).collect();
            let budget = if figure.budget.is_empty() { "none" } else { figure.budget };
            println!("  {:<44} {} {}; budget: {budget}", figure.name, values.join(", "), figure.unit);
        }
        if let (Some(caveat), false) = (self.caveat, self.figures.is_empty()) {
            println!("  All figures: {caveat}.");
        }
        let count = |of| self.count(of);
        println!(
            "  {} passed, {} failed, {} skipped",
            count(Outcome::Pass),
            count(Outcome::Fail),
            count(Outcome::Skipped)
        );
    }

    /// # Errors
    /// What could not be written, and where.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|(name, outcome, said, took)| {
                json!({"name": name, "outcome": outcome.word(), "said": said, "seconds": took.as_secs_f64()})
            })
            .collect();
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                let percentiles: serde_json::Map<_, _> =
                    figure.percentiles.iter().map(|(p, value)| (format!("p{p}"), json!(value))).collect();
                json!({
                    "name": figure.name, "unit": figure.unit, "percentiles": percentiles, "budget": figure.budget,
                    "method": figure.method, "caveat": self.caveat, "samples": figure.samples,
                })
            })
            .collect();
        let all = json!({"device": self.device, "checks": checks, "figures": figures});
        let file = folder.join("gpu-suite.json");
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&file, format!("{all}\n")))
            .map_err(|e| format!("cannot write {}: {e}; name another folder with --out", file.display()))
    }
}

/// Three digits and a thousand's letter.
fn short(value: f64) -> String {
    let scales = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    let scale = scales.into_iter().find(|(scale, _)| value.abs() >= *scale);
    let (scale, letter) = scale.unwrap_or((1.0, ""));
    format!("{:.2}{letter}", value / scale)
}
