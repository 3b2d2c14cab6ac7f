//! What `deploy/` says is what this binary takes.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::Parser;

use super::Cli;
use crate::config::{Config, Overrides};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn text(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap()
}

#[track_caller]
fn takes(arguments: &[&str]) {
    let program = ["ringhold"].iter().chain(arguments);
    if let Err(error) = Cli::try_parse_from(program) {
        panic!("{arguments:?}: {error}");
    }
}

/// The lists behind a word: `CMD ["a", "b"]`, `command: ["a", "b"]`.
fn lists(text: &str, word: &str) -> Vec<Vec<String>> {
    let lists = text.lines().filter_map(|line| line.split_once(word)?.1.trim().strip_prefix('['));
    lists.map(|list| serde_json::from_str(&format!("[{list}")).unwrap_or_else(|e| panic!("{list}: {e}"))).collect()
}

#[test]
fn containers_and_units_say_what_the_command_line_takes() {
    let of_container = text("Containerfile");
    let commands = [lists(&of_container, "CMD "), lists(&text("compose.yaml"), "    command: ")].concat();
    assert_eq!(commands.len(), 4, "of the container: its check and what it runs; two nodes that join");
    for command in &commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        takes(arguments.strip_prefix(&["ringhold"]).unwrap_or(&arguments));
    }
    let mut run = 0;
    for (file, word) in [("ringhold.service", "ExecStart="), ("compose.yaml", "                ringhold ")] {
        for line in text(file).lines().filter_map(|line| Some(line.split_once(word)?.1)) {
            let words = line.split_whitespace().take_while(|word| *word != ">");
            let arguments: Vec<&str> = words.filter(|word| !word.ends_with("bin/ringhold")).collect();
            takes(&arguments);
            run += 1;
        }
    }
    assert_eq!(run, 2, "the unit's, and that which makes tokens");
}

#[test]
fn example_configurations_are_valid() {
    for file in ["ringhold.toml", "gpu.toml", "mixed.toml"] {
        if let Err(problems) = Config::load(Some(&folder().join(file)), &Overrides::default()) {
            panic!("{file}: {problems}");
        }
    }
}

#[test]
fn systemd_takes_the_unit() {
    let place = tempfile::tempdir().unwrap();
    let unit = place.path().join("ringhold.service");
    // Where the binary is installed is not this machine's to say.
    std::fs::write(&unit, text("ringhold.service").replace("/usr/local/bin/ringhold", "/bin/true")).unwrap();
    match Process::new("systemd-analyze").arg("verify").arg(&unit).output() {
        Err(e) => println!("skipped: there is no systemd-analyze here ({e})"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let about_it: Vec<&str> = said.lines().filter(|line| line.contains("ringhold.service")).collect();
            assert!(about_it.is_empty(), "{said}");
        }
    }
}
