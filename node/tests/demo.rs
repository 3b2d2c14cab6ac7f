//! `ringhold demo` as a person runs it: the real binary, its nodes, their device hosts.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The demo, with a place of its own for its temporary folders.
fn demo(temporary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringhold"));
    command.arg("demo").args(arguments).env("TMPDIR", temporary).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A demo that sends flights slowly, once it has begun to.
struct UnderWay {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    /// What it says of how to look on: the arguments of the command that does.
    look_on: Vec<String>,
}

fn under_way(temporary: &Path, arguments: &[&str]) -> UnderWay {
    let mut child = demo(temporary, arguments).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // The first line of a paced demo comes when its nodes are up; the next, when flights are on their way.
    let [first, _] = ["to look on", "flights"].map(|expected| {
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.contains(expected), "{line}");
        line
    });
    let (_, look_on) = first.split_once("ringhold status ").unwrap();
    let look_on = look_on.split_whitespace().map(String::from).collect();
    UnderWay { child, stderr, look_on }
}

impl UnderWay {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end: its exit code, what it printed, and the rest of what it said.
    fn end(mut self) -> (Option<i32>, String, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), said)
    }
}

/// The one JSON value that it printed.
fn json(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// Waits until no node and no device host of a demo with this place is left: each has the place in its arguments.
fn until_nobody_is_left(temporary: &Path) {
    let place = temporary.to_str().unwrap();
    let since = Instant::now();
    loop {
        let processes = std::fs::read_dir("/proc").unwrap();
        let arguments = processes.filter_map(|process| std::fs::read(process.unwrap().path().join("cmdline")).ok());
        let left: Vec<String> = arguments
            .map(|arguments| String::from_utf8_lossy(&arguments).replace('\0', " "))
            .filter(|arguments| arguments.contains(place))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "still there: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn every_state_agrees_and_json_is_the_last_line() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), &["--nodes", "1", "--json"]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    let found = json(&stdout);
    for (field, expected) in [
        ("events", Value::from(336_776)),
        ("lost", 0.into()),
        ("duplicated", 0.into()),
        ("actors", 4_167.into()),
        ("matches_reference", true.into()),
        ("states_that_differ", 0.into()),
        ("nodes", 1.into()),
        ("failover_ms", Value::Null),
    ] {
        assert_eq!(found[field], expected, "{field}: {found}");
    }
    assert_eq!(found["messages"], found["messages_expected"]);
    assert!(found["events_per_second"].as_u64().unwrap() > 0);
    assert!(found["device"].as_str().unwrap().starts_with("cpu"), "{found}");
    assert!(is_empty(temporary.path()), "the demo left something in its temporary folder");
}

#[test]
fn a_demo_of_three_nodes_loses_one_and_nothing_else_and_leaves_nobody() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), &["--flights", "20000", "--json"]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    let found = json(&stdout);
    for (field, expected) in [
        ("events", Value::from(20_000)),
        ("nodes", 3.into()),
        ("matches_reference", true.into()),
        ("lost", 0.into()),
        ("duplicated", 0.into()),
    ] {
        assert_eq!(found[field], expected, "{field}: {found}");
    }
    assert_eq!(found["messages"], found["messages_expected"]);
    // Nobody goes on with what a node has before the rest of its lease is over.
    assert!(found["failover_ms"].as_u64().unwrap() > 100, "{found}");
    assert!(stderr.contains("killed node `c`"), "{stderr}");
    until_nobody_is_left(temporary.path());
    assert!(is_empty(temporary.path()), "the demo left something in its temporary folder");
}

#[test]
fn one_message_too_many_is_found_whichever_node_dies_after_it() {
    let temporary = tempfile::tempdir().unwrap();
    let demo = under_way(temporary.path(), &["--rate", "5000", "--flights", "20000"]);
    let mut tell = Command::new(env!("CARGO_BIN_EXE_ringhold"));
    tell.args(["actor", "tell", "airport", "JFK", r#"{"Missed": {"sequence": 1}}"#]).args(&demo.look_on);
    let told = tell.output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let (code, text, said) = demo.end();
    assert_eq!(code, Some(1), "{text}{said}");
    let parts =
        ["duplicated            1\n", "airport JFK: missed is", "do NOT agree", "killed                node `c`"];
    for part in parts {
        assert!(text.contains(part), "{part} is not in\n{text}{said}");
    }
}

#[test]
fn people_get_tables_with_names_and_a_verdict() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), &["--nodes", "1", "--flights", "20000"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for part in ["Ronald Reagan Washington Natl", "Hawaiian Airlines Inc.", "20,000 (", "Every actor's state is what"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn an_interrupted_demo_stops_in_good_order() {
    for nodes in ["1", "3"] {
        let temporary = tempfile::tempdir().unwrap();
        let demo = under_way(temporary.path(), &["--rate", "5000", "--nodes", nodes]);
        demo.signal(Signal::INT);
        let (code, _, said) = demo.end();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("interrupted"), "{said}");
        until_nobody_is_left(temporary.path());
        assert!(is_empty(temporary.path()), "the demo left something in its temporary folder");
    }
}

#[test]
fn nodes_end_with_a_demo_that_is_killed() {
    let temporary = tempfile::tempdir().unwrap();
    let demo = under_way(temporary.path(), &["--rate", "5000"]);
    demo.signal(Signal::KILL);
    demo.end();
    until_nobody_is_left(temporary.path());
}

#[test]
fn what_is_for_one_node_is_refused_for_three() {
    let temporary = tempfile::tempdir().unwrap();
    for one in [&["--chaos"][..], &["--device", "emulated"]] {
        let output = demo(temporary.path(), &[&["--nodes", "3"], one].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(one[0]) && said.contains("--nodes 1"), "{said}");
    }
}

#[test]
fn a_demo_whose_device_is_killed_ends_equal_to_the_reference() {
    let temporary = tempfile::tempdir().unwrap();
    let demo = under_way(temporary.path(), &["--rate", "10000", "--flights", "30000", "--json", "--nodes", "1"]);
    let host = children(demo.child.id());
    assert_eq!(host.len(), 1, "one device host");
    kill_process(Pid::from_raw(host[0]).unwrap(), Signal::KILL).unwrap();
    let (code, stdout, said) = demo.end();
    assert_eq!(code, Some(0), "{stdout}{said}");
    let found = json(&stdout);
    assert_eq!(found["matches_reference"], true, "{found}");
    assert_eq!((&found["lost"], &found["duplicated"]), (&0.into(), &0.into()), "{found}");
    assert!(said.contains("killed by signal 9") && said.contains("another begins with checkpoint"), "{said}");
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
