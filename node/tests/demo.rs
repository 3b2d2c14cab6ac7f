//! `ringhold demo` as a person runs it: the real binary, its node, its device host.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The demo, with a place of its own for its temporary folders.
fn demo(temporary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringhold"));
    command.arg("demo").args(arguments).env("TMPDIR", temporary).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A demo that sends flights slowly, once it has begun to.
fn under_way(temporary: &Path, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = demo(temporary, arguments).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    // The first line of a paced demo comes when its node is up; the next, when flights are on their way.
    for expected in ["to look on", "flights"] {
        line.clear();
        stderr.read_line(&mut line).unwrap();
        assert!(line.contains(expected), "{line}");
    }
    (child, stderr)
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn every_state_agrees_and_json_is_the_last_line() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), &["--json"]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    let found: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    for (field, expected) in [
        ("events", Value::from(336_776)),
        ("lost", 0.into()),
        ("duplicated", 0.into()),
        ("actors", 4_167.into()),
        ("matches_reference", true.into()),
        ("states_that_differ", 0.into()),
    ] {
        assert_eq!(found[field], expected, "{field}: {found}");
    }
    assert_eq!(found["messages"], found["messages_expected"]);
    assert!(found["events_per_second"].as_u64().unwrap() > 0);
    assert!(found["device"].as_str().unwrap().starts_with("cpu"), "{found}");
    assert!(is_empty(temporary.path()), "the demo left something in its temporary folder");
}

#[test]
fn people_get_tables_with_names_and_a_verdict() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), &["--flights", "20000"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for part in ["Ronald Reagan Washington Natl", "Hawaiian Airlines Inc.", "20,000 (", "Every actor's state is what"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn an_interrupted_demo_stops_in_good_order() {
    let temporary = tempfile::tempdir().unwrap();
    let (child, mut stderr) = under_way(temporary.path(), &["--rate", "5000"]);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let mut text = String::new();
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    assert!(is_empty(temporary.path()), "the demo left something in its temporary folder");
}

#[test]
fn a_demo_whose_device_is_killed_ends_equal_to_the_reference() {
    let temporary = tempfile::tempdir().unwrap();
    let (child, mut stderr) = under_way(temporary.path(), &["--rate", "10000", "--flights", "30000", "--json"]);
    let host = children(child.id());
    assert_eq!(host.len(), 1, "one device host");
    kill_process(Pid::from_raw(host[0]).unwrap(), Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    let mut text = String::new();
    stderr.read_to_string(&mut text).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}{text}");
    let found: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(found["matches_reference"], true, "{found}");
    assert_eq!((&found["lost"], &found["duplicated"]), (&0.into(), &0.into()), "{found}");
    assert!(text.contains("killed by signal 9") && text.contains("another begins with checkpoint"), "{text}");
}

/// The processes that a process's threads started.
fn children(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()
    };
    let lists: Vec<String> = tasks.map(of).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).map(|pid| pid.parse().unwrap()).collect()
}
