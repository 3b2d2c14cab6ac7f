//! `ringhold node start` as its operator meets it: real processes, signals, folders and ports.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ringhold::client::{AskError, Client, Error, Options};
use ringhold::shipped::account;
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{Files, Identity, Role};
use ringhold_cluster::wire::{Refused, TypeLayout};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A running `ringhold node start`, killed when dropped.
struct Node {
    child: Child,
    address: String,
    folder: tempfile::TempDir,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Node {
    fn start() -> Node {
        Node::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(folder: tempfile::TempDir) -> Node {
        let mut child = command(folder.path(), &["node", "start", "--listen", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let Ok(listening) = serde_json::from_str::<Value>(&line) else {
            panic!("it did not start: {line}{}", fs::read_to_string(folder.path().join("log")).unwrap());
        };
        let address = listening["listening"].as_str().unwrap().to_string();
        Node { child, address, folder }
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.folder.path(), &[args, &["--address", &self.address]].concat())
    }

    fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit(&mut self) -> ExitStatus {
        until("the node to exit", || self.child.try_wait().unwrap())
    }

    fn options(&self) -> Options {
        let files = Files::client(&self.folder.path().join("ringhold-data/tls"));
        Options::new(&self.address, Identity::load(files, Role::Client, &RealNetwork).unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringhold"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, args: &[&str]) -> Ran {
    let output = command(folder, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().expect("no signal"), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Asks again and again, for what no event tells.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A start that fails: the exit code and what stderr says.
#[track_caller]
fn refuses(folder: &Path, args: &[&str], code: i32, says: &[&str]) {
    let ran = run(folder, &[&["node", "start", "--listen", "127.0.0.1:0"], args].concat());
    assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
    for text in says {
        assert!(ran.stderr.contains(text), "{args:?}: no `{text}` in {}", ran.stderr);
    }
}

#[test]
fn shipped_actors_answer_and_a_signal_ends_the_node_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Node::start();
        let deposit = "{\"Deposit\": {\"cents\": 500}}";
        assert_eq!(node.json(&["actor", "ask", "account", "alice", deposit]), json!({"Balance": {"cents": 500}}));
        let short = node.json(&["actor", "ask", "account", "alice", "{\"Withdraw\": {\"cents\": 700}}"]);
        assert_eq!(short, json!({"Refused": {"short_by": 200}}));
        node.json(&["actor", "tell", "account", "alice", deposit]);
        let state = node.json(&["actor", "inspect", "account", "alice"]);
        assert_eq!(state["state"], json!({"balance": 1000, "operations": 2}));
        let status = node.json(&["status"]);
        assert_eq!((&status["state"], &status["devices"][0]["actors"]), (&json!("running"), &json!(1)));
        let types = node.json(&["actor", "types"]);
        assert!(types.as_array().unwrap().iter().any(|t| t["name"] == "counter"), "{types}");

        node.signal(signal);
        assert_eq!(node.exit().code(), Some(0), "{}", node.log());
        assert!(node.log().contains("finished what it had"), "{}", node.log());
        assert_eq!(node.run(&["status", "--deadline", "300ms"]).code, 3);
    }
}

/// The session of docs/wide-actors.md.
#[test]
fn a_wide_actor_answers_on_a_cpu_device_and_loses_no_heat() {
    let node = Node::start();
    let rod = |message: &str| node.json(&["actor", "ask", "rod", "r-1", message]);
    rod("{\"Warm\": {\"cell\": 500, \"millidegrees\": 1000000}}");
    let after = |steps, warmest, warmer| {
        let total = 1_000_000;
        json!({"Rod": {"steps": steps, "coldest": 0, "warmest": warmest, "warmer": warmer, "total": total}})
    };
    assert_eq!(rod("{\"Flow\": {\"steps\": 10000}}"), after(1, 500_000, 3));
    let all = until("all steps", || Some(rod("\"Read\"")).filter(|reply| reply["Rod"]["steps"] == 10_000));
    assert_eq!(all, after(10_000, 5_642, 571));
}

#[test]
fn a_status_tells_how_fast_each_device_runs_and_how_it_is() {
    let node = Node::start();
    let device = || node.json(&["status"])["devices"][0].clone();
    let rate = until("a rate", || {
        node.json(&["actor", "ask", "account", "alice", "Read"]);
        device()["handled_per_s"].as_u64().filter(|rate| *rate > 0)
    });
    assert!(rate < 1_000, "{rate} a second from one ask after the other, each by a process of its own");
    let quiet = until("a second without messages", || Some(device()).filter(|device| device["handled_per_s"] == 0));
    assert!(quiet["handled"].as_u64() >= Some(1), "{quiet}");
    assert_eq!((&quiet["inbox_used"], &quiet["heartbeat_age_ms"]), (&json!(0), &json!(0)), "it has nothing to do");
    let workers = quiet["workers"].as_array().unwrap();
    assert!(workers.iter().all(|worker| worker["heartbeat_age_ms"].is_u64() && worker["inbox_used"] == 0), "{quiet}");
    let slots: u64 = workers.iter().map(|worker| worker["inbox_slots"].as_u64().unwrap()).sum();
    assert!(slots > 0 && quiet["inbox_slots"] == slots, "{quiet}");
    assert_eq!(quiet.get("clock"), Some(&Value::Null), "a CPU device runs by its host's clock");

    let shown = node.run(&["devices"]).stdout;
    let heading = shown.lines().next().unwrap();
    for column in ["ACTORS", "PER SECOND", "WAITING", "HEARTBEAT", "CLOCK", "DRIFT"] {
        assert!(heading.contains(column), "no {column}: {shown}");
    }
}

#[test]
fn a_signal_in_the_middle_of_a_stream_loses_nothing_that_was_answered() {
    let mut node = Node::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut options = node.options().with::<account::Actor>();
    options.reconnect_limit = Some(Duration::from_secs(1));
    let (answered, unanswered) = runtime.block_on(async {
        let client = Client::connect(options).await.unwrap();
        let (mut answered, mut unanswered) = (0u64, 0u64);
        loop {
            match client.ask(1, account::Message::Deposit { cents: 1 }).await {
                Ok(account::Reply::Balance { cents }) => {
                    answered += 1;
                    assert_eq!(cents as u64, answered, "every deposit before was made once");
                }
                Ok(_) => panic!("a deposit is never refused"),
                Err(AskError::NotSent(Error::Closed)) => break,
                Err(_) => {
                    unanswered += 1;
                    if unanswered == 1 {
                        continue;
                    }
                    break;
                }
            }
            if answered == 500 {
                node.signal(Signal::TERM);
            }
        }
        (answered, unanswered)
    });
    assert!(answered >= 500 && unanswered >= 1, "{answered} answered, {unanswered} not");
    assert_eq!(node.exit().code(), Some(0), "{}", node.log());
}

#[test]
fn a_killed_device_host_is_replaced_and_goes_on_from_where_it_was() {
    let node = Node::start();
    node.json(&["actor", "ask", "account", "alice", "{\"Deposit\": {\"cents\": 5}}"]);
    let pid = node.json(&["devices"])["devices"][0]["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    let restarted = until("another host", || {
        let device = node.json(&["devices"])["devices"][0].clone();
        (device["restarts"] == 1 && device["state"] == "running").then_some(device)
    });
    assert_ne!(restarted["pid"].as_i64(), Some(pid));
    let balance = node.json(&["actor", "ask", "account", "alice", "Read"]);
    assert_eq!(balance, json!({"Balance": {"cents": 5}}));
    assert!(node.log().contains("another begins with checkpoint"), "{}", node.log());
    assert!(node.run(&["status"]).stdout.contains("killed by signal 9"));
    let checkpoints = restarted["checkpoints"].clone();
    assert_eq!(checkpoints["recoveries"], 1, "{checkpoints}");
}

#[test]
fn a_client_of_another_layout_is_refused_with_both_hashes() {
    let node = Node::start();
    let mut options = node.options();
    options.types = vec![TypeLayout { name: "account".into(), layout_hash: 0xabc }];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(Client::connect(options)) {
        Err(Error::Refused { refused: Refused::Layout(mismatches), .. }) => {
            let types = node.json(&["actor", "types"]);
            let account = types.as_array().unwrap().iter().find(|t| t["name"] == "account").unwrap();
            assert_eq!(json!(format!("{:016x}", mismatches[0].node)), account["layout_hash"]);
            assert_eq!(mismatches[0].client, 0xabc);
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn a_taken_port_and_a_folder_in_use_are_named() {
    let node = Node::start();
    let folder = node.folder.path();
    let pid = format!("in use by process {} (ringhold)", node.child.id());
    refuses(folder, &[], 1, &[&pid, "--data-dir"]);
    let config = folder.join("node.toml");
    fs::write(&config, format!("[node]\nlisten = \"{}\"\n", node.address)).unwrap();
    let ran = run(folder, &["node", "start", "--config", "node.toml", "--data-dir", "other"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(&node.address) && ran.stderr.contains("choose another port"), "{}", ran.stderr);
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_with_the_reason() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    fs::write(folder.join("file"), "").unwrap();
    // Where the check of the configuration can tell, it does, before anything starts.
    refuses(folder, &["--data-dir", "file"], 2, &["node.data_dir", "is a file"]);

    fs::create_dir(folder.join("foreign")).unwrap();
    fs::write(folder.join("foreign/thesis.tex"), "").unwrap();
    refuses(folder, &["--data-dir", "foreign"], 1, &["no data folder of Ringhold"]);

    fs::create_dir(folder.join("newer")).unwrap();
    fs::write(folder.join("newer/VERSION"), "99\n").unwrap();
    refuses(folder, &["--data-dir", "newer"], 1, &["format version 99", "reads 3"]);

    // Every write to /dev/full finds the disk full.
    fs::create_dir(folder.join("full")).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.join("full/PROBE")).unwrap();
    refuses(folder, &["--data-dir", "full"], 1, &["no space is left"]);
}

#[test]
fn a_device_host_started_by_hand_says_what_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    for args in [&["device-host"][..], &["device-host", "77"], &["device-host", "x"]] {
        let ran = run(scratch.path(), args);
        assert!(ran.code != 0 && ran.stderr.contains("started by a node"), "{args:?}: {} {}", ran.code, ran.stderr);
    }
}

#[test]
fn the_log_is_json_lines_where_the_configuration_says_so() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("node.toml"), "[log]\nformat = \"json\"\n").unwrap();
    let args = ["node", "start", "--config", "node.toml", "--listen", "127.0.0.1:0"];
    let mut child = command(folder.path(), &args).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listens on") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ended");
        assert!(serde_json::from_str::<Value>(&line).unwrap()["level"].is_string(), "{line}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(rest.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{rest}");
}

#[test]
fn a_node_whose_types_ask_for_more_threads_than_allowed_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("node.toml"), "[actors]\nthreads_per_actor = 32\n").unwrap();
    let ran = run(folder.path(), &["node", "start", "--config", "node.toml", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("actor type `rod` is run by 256 threads"), "{}", ran.stderr);
}
