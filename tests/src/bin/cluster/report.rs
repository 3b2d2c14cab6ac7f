//! What is found: printed as it comes, and kept for a file that people read and one that programs do.

use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::{Failure, percentile};

pub struct Report {
    text: String,
    raw: Map<String, Value>,
}

impl Report {
    /// Begins with the machine, the commit, and how this was called.
    pub fn new(quick: bool) -> Report {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown");
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let command: Vec<String> = std::env::args().skip(1).collect();
        let build = if cfg!(debug_assertions) { "dev" } else { "release" };
        let (commit, kernel, load) = (commit(), kernel.trim(), load.trim());
        let mut report = Report { text: String::new(), raw: Map::new() };
        report.raw("machine", json!({ "cores": cores, "cpu": model, "kernel": kernel, "load_at_begin": load }));
        report.raw("commit", json!(commit));
        report.raw("build", json!(build));
        report.raw("quick", json!(quick));
        report.say("# A cluster, measured\n");
        report.table(
            &["", ""],
            &[
                vec!["command".into(), format!("`cluster {}`, {build} build", command.join(" "))],
                vec!["commit".into(), commit],
                vec!["machine".into(), format!("{cores} cores, {model}; Linux {kernel}; load when it began: {load}")],
            ],
        );
        if quick || cfg!(debug_assertions) {
            report.say("**These figures are no measurement**: it was called with --quick, or is no release build.\n");
        }
        report
    }

    /// A part begins, and how it is measured.
    pub fn section(&mut self, title: &str, method: &str) {
        self.say(&format!("## {title}\n\n{method}\n"));
    }

    pub fn say(&mut self, text: &str) {
        println!("{text}");
        self.text += text;
        self.text.push('\n');
    }

    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let head: Vec<String> = head.iter().map(|cell| cell.to_string()).collect();
        let width = |column: usize| {
            let cells = std::iter::once(&head).chain(rows).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let text: String = [line(&head), line(&rule)].into_iter().chain(rows.iter().map(|row| line(row))).collect();
        self.say(&text);
    }

    /// Says whether a budget is met, in a line of its own.
    pub fn budget(&mut self, what: &str, budget: &str, figure: &str, met: bool) {
        let verdict = if met { "met" } else { "**missed**" };
        self.say(&format!("- {what}: {figure}; budget {budget}: {verdict}"));
    }

    /// Keeps figures as they were taken.
    pub fn raw(&mut self, name: &str, value: Value) {
        self.raw.insert(name.into(), value);
    }

    /// # Errors
    /// What could not be written, and where.
    pub fn write(&self, folder: &Path) -> Result<(), Failure> {
        let json = format!("{:#}\n", Value::Object(self.raw.clone()));
        let written = fs::create_dir_all(folder)
            .and_then(|()| fs::write(folder.join("report.md"), &self.text))
            .and_then(|()| fs::write(folder.join("cluster.json"), json));
        written.map_err(|e| format!("cannot write to {}: {e}; name another folder with --out", folder.display()).into())
    }
}

/// Says on a terminal how far a part has come.
pub fn progress(what: &str, done: usize, of: usize) {
    if stderr().is_terminal() {
        let end = if done == of { "\r\x1b[2K" } else { "" };
        eprint!("\r\x1b[2K{what}: {done} of {of}{end}");
    }
}

/// The commit of the sources that lie here, if any do.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let folder = env!("CARGO_MANIFEST_DIR");
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".into() };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} and what was changed since"),
    }
}

/// The middle, and the least and the most in brackets.
pub fn spread(figures: &[f64], digits: usize) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let [least, most] = [sorted[0], sorted[sorted.len() - 1]].map(|figure| grouped(figure, digits));
    format!("{} ({least} to {most})", grouped(median(figures), digits))
}

pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, 0.5)
}

/// 1234567 as `1,234,567`; smaller ones with so many digits behind the point.
pub fn grouped(value: f64, digits: usize) -> String {
    if value < 1_000.0 {
        return format!("{value:.digits$}");
    }
    let whole = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
