//! What an operator does about actors that make trouble: real processes, of the program in `examples/trouble.rs`.
//!
//! This program is both: started by the tests as `RINGHOLD_TROUBLE=1 … ARGUMENTS` it is that program, so that a node's
//! device hosts, which are started from the running program, know its actors. So it is its own test harness.

#[path = "../examples/trouble.rs"]
mod program;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

/// A running node, killed when dropped.
struct Node {
    process: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Node {
    fn start(toml: &str) -> Node {
        Node::start_in(tempfile::tempdir().unwrap(), toml)
    }

    fn start_in(folder: tempfile::TempDir, toml: &str) -> Node {
        // One worker, so that what is said of "the" worker holds; and its checkpoints are soon made.
        let text = format!(
            "[[devices]]\nkind = \"cpu\"\nworkers = 1\n[checkpoints]\ninterval = \"100ms\"\n\
             [supervision]\nrestart_backoff_min = \"1ms\"\nrestart_backoff_max = \"10ms\"\n{toml}"
        );
        Node::start_with(folder, &text)
    }

    /// With this configuration and nothing else.
    fn start_with(folder: tempfile::TempDir, text: &str) -> Node {
        std::fs::write(folder.path().join("node.toml"), text).unwrap();
        let mut process = command(folder.path(), &["node", "start", "--listen", "127.0.0.1:0", "--json"])
            .args(["--config", "node.toml"])
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(process.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        let Ok(listening) = serde_json::from_str::<Value>(&line) else {
            panic!("it did not start: {line}{}", std::fs::read_to_string(folder.path().join("log")).unwrap());
        };
        Node { process, address: listening["listening"].as_str().unwrap().to_string(), folder }
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        run(self.folder.path(), &[args, &["--address", &self.address]].concat())
    }

    /// What a command that succeeds says, in JSON.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?}: {stderr}\n{}", self.log());
        serde_json::from_str(&stdout).unwrap()
    }

    fn device(&self) -> Value {
        self.json(&["status"])["devices"][0].clone()
    }

    fn restarts(&self) -> u64 {
        self.device()["restarts"].as_u64().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Ends it with SIGTERM, which must go well.
    fn stop(mut self) -> tempfile::TempDir {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.process.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(args).env("RINGHOLD_TROUBLE", "1").current_dir(folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let output = command(folder, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

/// Looks again and again, for what no event tells.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn works(node: &Node, key: &str) -> Option<u64> {
    let (code, stdout, _) = node.run(&["actor", "ask", "trouble", key, "Work", "--json", "--deadline", "30s"]);
    let reply: Value = serde_json::from_str(&stdout).unwrap();
    (code == 0).then(|| reply["Handled"]["messages"].as_u64().expect("a number"))
}

fn a_type_with_a_deadline_of_its_own_is_judged_by_it() {
    // Without it nothing would be stalled while the test lasts.
    let toml = "stalled_after = \"1h\"\n[actors.deadlines]\ntrouble = \"300ms\"\n";
    let node = Node::start(toml);
    node.json(&["actor", "tell", "trouble", "tom", "Stick"]);
    until("two hosts to end", || (node.restarts() >= 2).then_some(()));
    let log = node.log();
    assert!(log.contains("worker 0 held one message for") && !log.contains("held one message for 3600"), "{log}");
    assert!(works(&node, "other").is_some());
    node.stop();
}

fn deadlines_of_types_that_are_none_are_told_all_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let toml = "[actors]\ncommitted = [\"bank\", \"trouble\"]\ndeadlines = { counter = \"1s\", bystander = \"1s\" }\n";
    std::fs::write(folder.path().join("node.toml"), toml).unwrap();
    let (code, _, stderr) = run(folder.path(), &["node", "start", "--listen", "127.0.0.1:0", "--config", "node.toml"]);
    assert_eq!(code, 1, "{stderr}");
    for text in ["actors.committed names `bank`", "actors.deadlines names `counter`", "it has trouble, bystander"] {
        assert!(stderr.contains(text), "no `{text}` in {stderr}");
    }
    assert!(!stderr.contains("names `trouble`") && !stderr.contains("names `bystander`"), "{stderr}");
}

/// Waits until so many letters with this reason are kept; the newest first.
fn letters(node: &Node, reason: &str, count: u64) -> Vec<Value> {
    until(&format!("{count} dead letters"), || {
        let listed = node.json(&["deadletter", "list", "--reason", reason]);
        (listed["matching"] == count).then(|| listed["letters"].as_array().unwrap().clone())
    })
}

fn what_is_put_aside_is_kept_with_its_history_and_run_again_when_asked() {
    let node = Node::start("stalled_after = \"300ms\"\n");
    node.json(&["actor", "tell", "trouble", "tom", "Stick"]);
    let [letter] = &letters(&node, "poison", 1)[..] else { panic!() };
    assert_eq!((&letter["message"], &letter["to"]["key"]), (&json!("Stick"), &json!("tom")));
    assert_eq!((&letter["from"], &letter["device"]), (&Value::Null, &json!("cpu0")));
    let history = letter["history"].as_array().unwrap();
    assert_eq!(history.iter().map(|strike| strike["host"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(history.iter().all(|s| s["how"].as_str().unwrap().starts_with("worker 0 held one message")), "{letter}");
    assert_eq!(node.restarts(), 2);
    assert_eq!(works(&node, "tom"), Some(1), "other messages of its actor are handled");

    // An ask has its answer, and is kept all the same.
    let (code, _, stderr) = node.run(&["actor", "ask", "trouble", "uma", "Stick", "--deadline", "60s"]);
    assert!(code == 5 && stderr.contains("put aside"), "{code} {stderr}");
    let [ask, _] = &letters(&node, "poison", 2)[..] else { panic!() };
    assert_eq!((&ask["to"]["key"], ask["history"].as_array().unwrap().len()), (&json!("uma"), 2));
    assert_eq!(node.device()["unhandled"]["poison"], 2, "each is counted once");

    // It is run again, and again it ends two hosts.
    let number = letter["number"].to_string();
    let before = node.restarts();
    let done = node.json(&["deadletter", "retry", &number, "--yes"]);
    assert_eq!((&done["retried"], &done["left"]), (&json!(1), &json!({})));
    until("two hosts to end", || (node.restarts() >= before + 2).then_some(()));
    let [again, _] = &letters(&node, "poison", 2)[..] else { panic!() };
    assert_eq!((&again["to"]["key"], again["history"].as_array().unwrap().len()), (&json!("tom"), 2), "{again}");

    // With its cause gone, it goes well.
    node.json(&["actor", "ask", "trouble", "tom", "Repair", "--deadline", "30s"]);
    let (before, handled) = (node.restarts(), works(&node, "tom").unwrap());
    node.json(&["deadletter", "retry", &again["number"].to_string(), "--yes"]);
    until("it to be handled", || (works(&node, "tom").unwrap() >= handled + 2).then_some(()));
    assert_eq!(node.restarts(), before);

    // What is left survives the node; what is dropped does not come back.
    let node = Node::start_in(node.stop(), "");
    let [kept] = &letters(&node, "poison", 1)[..] else { panic!() };
    assert_eq!((&kept["number"], &kept["history"]), (&ask["number"], &ask["history"]));
    assert_eq!(node.json(&["deadletter", "drop", "--type", "trouble", "--yes"])["dropped"], 1);
    let node = Node::start_in(node.stop(), "");
    letters(&node, "poison", 0);
    node.stop();
}

fn a_tell_that_faults_is_kept_and_sent_again_once_its_actor_is_well() {
    let node = Node::start("");
    for key in ["ann", "bob", "ann"] {
        node.json(&["actor", "tell", "trouble", key, "Fault"]);
    }
    node.json(&["actor", "tell", "bystander", "c", "Work"]);
    let faults = letters(&node, "fault_division_by_zero", 3);
    node.json(&["actor", "ask", "trouble", "ann", "Repair"]);
    let done = node.json(&["deadletter", "retry", "--type", "trouble", "--yes"]);
    assert_eq!((&done["retried"], &done["matching"]), (&json!(3), &json!(3)));
    // That of b is one again, of another number.
    let [again] = &letters(&node, "fault_division_by_zero", 1)[..] else { panic!() };
    assert_eq!(again["to"]["key"], "bob");
    assert!(again["number"].as_u64() > faults[0]["number"].as_u64());
    let status = node.json(&["status"]);
    assert_eq!((&status["dead_letters_kept"], &status["dead_letters"]), (&json!(1), &json!(4)));
    assert_eq!(works(&node, "ann"), Some(4), "it was repaired, and handled two that were sent again");
    node.stop();
}

/// An address at which nobody listens.
fn free() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// What an HTTP server says to these bytes: the status, the headers and the body.
fn http(address: &str, request: &str) -> (u16, String, String) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A server that refuses may do so before it has read all of it.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.into())
}

fn get(address: &str, path: &str) -> (u16, Value) {
    let (status, _, body) = http(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
    (status, serde_json::from_str(&body).unwrap())
}

fn health_is_told_over_http_and_by_the_command_line() {
    let health = free();
    let toml = format!("stalled_after = \"300ms\"\n[health]\nlisten = \"{health}\"\n");
    let node = Node::start(&toml);
    assert_eq!(get(&health, "/live"), (200, json!({"live": true, "reasons": []})));
    assert_eq!(get(&health, "/ready"), (200, json!({"ready": true, "reasons": []})));
    let device = json!({"name": "cpu0", "state": "running", "verdict": "well", "reason": ""});
    assert_eq!(get(&health, "/devices"), (200, json!({"devices": [device]})));
    for what in ["live", "ready", "devices"] {
        assert_eq!(node.run(&["health", what]).0, 0);
    }
    assert_eq!(node.run(&["health"]).1, "ready\n");

    // As HTTP has it.
    let (status, head, body) = http(&health, "HEAD /ready HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-type: application/json") && head.contains("cache-control: no-store"), "{head}");
    let (status, head, _) = http(&health, "POST /ready HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    assert!(status == 405 && head.contains("allow: get, head"), "{head}");
    assert_eq!(get(&health, "/metrics").0, 404);
    let (status, ..) = http(&health, &format!("GET /live HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(64 << 10)));
    assert_eq!(status, 431, "headers have a bound");
    assert_eq!(http(&health, "nonsense\r\n\r\n").0, 400);

    // Those who connect and say nothing hold nobody up for long.
    let silent: Vec<_> = (0..40).map(|_| std::net::TcpStream::connect(&health).unwrap()).collect();
    assert_eq!(get(&health, "/live").0, 200);
    drop(silent);
    node.stop();
}

fn a_device_that_is_down_makes_its_node_not_ready_until_it_is_back() {
    let health = free();
    let toml = format!("[health]\nlisten = \"{health}\"\n");
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_in(folder, &toml);
    // The second time in a row it is started again after a while only.
    let config = node.folder.path().join("node.toml");
    let slow = std::fs::read_to_string(&config).unwrap().replace("\"1ms\"", "\"4s\"").replace("\"10ms\"", "\"8s\"");
    let folder = node.stop();
    let node = Node::start_with(folder, &slow);
    let kill = || {
        let device = until("the device to run", || {
            let device = node.device();
            (device["state"] == "running").then_some(device)
        });
        let pid = rustix::process::Pid::from_raw(device["pid"].as_i64().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        device["restarts"].as_u64().unwrap()
    };
    let restarts = kill();
    until("its first restart", || (node.restarts() > restarts).then_some(()));
    kill();
    let (_, body) =
        until("the node not to be ready", || Some(get(&health, "/ready")).filter(|(status, _)| *status == 503));
    assert_eq!(body["ready"], false);
    let why = body["reasons"][0].as_str().unwrap();
    assert!(why.starts_with("device `cpu0`: it is ") && why.contains("killed by signal 9"), "{body}");
    assert_eq!(get(&health, "/live").0, 200, "it lives all the while");
    let (status, devices) = get(&health, "/devices");
    assert_eq!((status, &devices["devices"][0]["verdict"]), (503, &json!("down")));
    let (code, stdout, _) = node.run(&["health", "devices"]);
    assert!(code == 1 && stdout.contains("killed by signal 9"), "{code} {stdout}");
    until("the node to be ready", || (get(&health, "/ready").0 == 200).then_some(()));
    assert_eq!(node.run(&["health", "devices"]).0, 0);
    node.stop();
}

/// Every test, with its name.
macro_rules! tests {
    ($($test:ident),* $(,)?) => { &[$((stringify!($test), $test as fn())),*] };
}

#[rustfmt::skip]
const TESTS: &[(&str, fn())] = tests![
    a_type_with_a_deadline_of_its_own_is_judged_by_it,
    deadlines_of_types_that_are_none_are_told_all_at_once,
    what_is_put_aside_is_kept_with_its_history_and_run_again_when_asked,
    a_tell_that_faults_is_kept_and_sent_again_once_its_actor_is_well,
    health_is_told_over_http_and_by_the_command_line,
    a_device_that_is_down_makes_its_node_not_ready_until_it_is_back,
];

/// As `cargo test` has it: the first argument that is no flag is a part of the names of those to run, and `--list` runs none.
fn main() -> ExitCode {
    if std::env::var_os("RINGHOLD_TROUBLE").is_some() {
        return program::main();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let part = arguments.iter().find(|argument| !argument.starts_with('-')).map_or("", String::as_str);
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| name.contains(part)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    // One after the other: each is many processes, and some are judged by their time.
    let mut failed = 0;
    for (name, test) in &chosen {
        let passed = std::panic::catch_unwind(test).is_ok();
        failed += usize::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    let outcome = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {outcome}. {} passed; {failed} failed\n", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
