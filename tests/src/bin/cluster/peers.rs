//! Other frameworks' remote actors: a program of its own, which must have been built (`tests/remote`).

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Failure;

pub const HOW: &str = "cargo build --release --manifest-path tests/remote/Cargo.toml --target-dir target";

/// The program, where it lies beside this one.
pub fn program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name("ringhold-remote-peers");
    program.exists().then_some(program)
}

/// Tells a second, from the first one sent until all were handled.
pub fn tells_per_s(program: &Path, framework: &str, messages: u64) -> Result<f64, Failure> {
    let said = run(program, framework, "tell", messages)?;
    let elapsed = said["elapsed_s"].as_f64().ok_or("it does not say how long it took")?;
    Ok(messages as f64 / elapsed)
}

/// What asks took, in microseconds.
pub fn asks_us(program: &Path, framework: &str, asks: usize) -> Result<Vec<f64>, Failure> {
    let said = run(program, framework, "ask", asks as u64)?;
    let asks = said["asks_us"].as_array().ok_or("it does not say how long asks took")?;
    Ok(asks.iter().filter_map(Value::as_f64).collect())
}

fn run(program: &Path, framework: &str, part: &str, messages: u64) -> Result<Value, Failure> {
    let output = Command::new(program)
        .args([framework, part, "--bytes", "24", "--messages"])
        .arg(messages.to_string())
        .output()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{framework} {part} did not end well: {said}").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
