//! What the suite has found, as a table and as JSON.

use std::path::Path;
use std::time::Duration;

use ringhold_cluster::placement::Place;
use serde::{Deserialize, Serialize};
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub unit: String,
    /// Percentile and value; the first is what the budget is for. A figure that was taken once has one, at 50.
    pub percentiles: Vec<(f64, f64)>,
    /// DESIGN §12, where it has one.
    pub budget: Option<String>,
    /// The figure of the machine itself that it cannot pass, or comes from.
    pub ceiling: Option<String>,
    pub method: String,
    /// Everything that was timed, in order of size, to five digits.
    pub samples: Vec<f64>,
}

impl Figure {
    /// # Panics
    /// Without a sample: then nothing was measured, and whoever has none must say so.
    pub fn new(name: impl Into<String>, unit: &str, mut samples: Vec<f64>, at: &[f64]) -> Figure {
        assert!(!samples.is_empty(), "a figure has samples");
        samples.sort_by(f64::total_cmp);
        let of = |p: f64| samples[((samples.len() as f64 * p / 100.0).ceil() as usize).clamp(1, samples.len()) - 1];
        let percentiles = at.iter().map(|p| (*p, of(*p))).collect();
        let samples = samples.iter().map(|sample| five_digits(*sample)).collect();
        let (name, unit) = (name.into(), unit.into());
        Figure { name, unit, percentiles, budget: None, ceiling: None, method: String::new(), samples }
    }

    pub fn budget(self, budget: &str) -> Figure {
        Figure { budget: Some(budget.into()), ..self }
    }

    pub fn ceiling(self, of: &str) -> Figure {
        Figure { ceiling: Some(of.into()), ..self }
    }

    pub fn method(self, method: &str) -> Figure {
        Figure { method: method.into(), ..self }
    }

    fn values(&self) -> String {
        let values: Vec<_> = self.percentiles.iter().map(|(p, value)| format!("p{p} {}", short(*value))).collect();
        format!("{} {}", values.join(", "), self.unit)
    }
}

/// Everything that the suite has found.
#[derive(Default)]
pub struct Report {
    pub device: String,
    /// Where in its machine it is, as far as that is known.
    pub place: Place,
    /// Then no figure is a measurement: they show that the measurement runs to its end.
    pub emulated: bool,
    pub checks: Vec<(String, Outcome, String, Duration)>,
    pub figures: Vec<Figure>,
}

impl Report {
    /// Prints and keeps what became of a step.
    pub fn check(&mut self, name: &str, outcome: Outcome, said: String, took: Duration) {
        println!("{:<8} {name} ({:.1} s): {said}", outcome.word(), took.as_secs_f64());
        self.checks.push((name.into(), outcome, said, took));
    }

    pub fn count(&self, of: Outcome) -> usize {
        self.checks.iter().filter(|(_, outcome, ..)| *outcome == of).count()
    }

    /// The machine's own figure beside one of the device's.
    fn ceiling(&self, figure: &Figure) -> Option<String> {
        let name = figure.ceiling.as_ref()?;
        let measured = self.figures.iter().find(|ceiling| ceiling.name == *name);
        Some(measured.map_or(format!("{name} not measured"), |ceiling| format!("{name} {}", ceiling.values())))
    }

    pub fn print_table(&self) {
        println!("\n{}", self.device);
        for outcome in [Outcome::Fail, Outcome::Skipped] {
            for (name, ..) in self.checks.iter().filter(|(_, of, ..)| *of == outcome) {
                println!("  {:<8} {name}", outcome.word());
            }
        }
        for figure in &self.figures {
            let name = &figure.name;
            match self.emulated {
                true => println!("  {name:<44} not measured (emulated: {})", figure.values()),
                false => println!("  {name:<44} {}", figure.values()),
            }
            let budget = figure.budget.as_ref().map(|budget| format!("budget {budget}"));
            let beside: Vec<String> = budget.into_iter().chain(self.ceiling(figure)).collect();
            if !beside.is_empty() {
                println!("  {:<44} {}", "", beside.join("; "));
            }
        }
        if self.figures.is_empty() {
            println!("  All figures: not measured.");
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
                    "name": figure.name, "measured": !self.emulated, "unit": figure.unit, "percentiles": percentiles,
                    "budget": figure.budget, "ceiling": self.ceiling(figure), "method": figure.method,
                    "samples": figure.samples,
                })
            })
            .collect();
        let all = json!({
            "device": self.device, "place": self.place, "emulated": self.emulated, "checks": checks, "figures": figures,
        });
        let file = folder.join("gpu-suite.json");
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&file, format!("{all}\n")))
            .map_err(|e| format!("cannot write {}: {e}; name another folder with --out", file.display()))
    }
}

/// What is kept of a sample: a file of all of them has a limit where GPUs are lent.
fn five_digits(value: f64) -> f64 {
    format!("{value:.4e}").parse().expect("it was just written as a number")
}

/// Three digits and a thousand's letter.
fn short(value: f64) -> String {
    let scales = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    let scale = scales.into_iter().find(|(scale, _)| value.abs() >= *scale);
    let (scale, letter) = scale.unwrap_or((1.0, ""));
    format!("{:.2}{letter}", value / scale)
}
