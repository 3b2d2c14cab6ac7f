//! A cluster of real nodes on machines of their own, as far as the network can tell: what becomes of their wires, and of them, while
//! a client is served.

mod net;
mod stream;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use net::{Lan, Namespace};
use stream::Stream;

/// How long anything may take that is sure to happen.
const PATIENCE: Duration = Duration::from_secs(60);
const NODES: usize = 3;
const CONFIG: &str = r#"
[node]
lease = "1s"

[actors]
committed = ["account"]

[[devices]]
kind = "cpu"
workers = 1
"#;
/// How long a machine stands still: longer than the lease.
const PAUSE: Duration = Duration::from_secs(3);

struct Cluster {
    lan: Lan,
    folder: tempfile::TempDir,
    /// Machine by machine: `None` while none runs there.
    nodes: Vec<Option<Child>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl Cluster {
    /// Founds one, has the other nodes join, and gives each its part of the shards.
    fn start(lan: Lan) -> Cluster {
        let mut cluster = Cluster { lan, folder: tempfile::tempdir().unwrap(), nodes: Vec::new() };
        for node in 0..NODES {
            let config = CONFIG.replace("[node]", &format!("[node]\nname = \"node-{node}\""));
            std::fs::write(cluster.file(node, "toml"), config).unwrap();
        }
        cluster.nodes.resize_with(NODES, || None);
        cluster.start_node(0, &[]);
        for node in 1..NODES {
            let token = cluster.json(0, &["cluster", "token"]);
            let file = cluster.file(node, "token");
            std::fs::write(&file, token["token"].as_str().unwrap()).unwrap();
            let first = cluster.lan.address(0).to_string();
            cluster.start_node(node, &["--join", &first, "--token", file.to_str().unwrap()]);
        }
        cluster.is_well_again();
        cluster
    }

    fn file(&self, node: usize, what: &str) -> PathBuf {
        self.folder.path().join(format!("{node}.{what}"))
    }

    fn command(&self, node: usize) -> Command {
        let mut command = self.machine(node).command(env!("CARGO_BIN_EXE_ringhold"));
        command.stdin(Stdio::null());
        command
    }

    fn machine(&self, node: usize) -> &Namespace {
        &self.lan.machines[node]
    }

    fn start_node(&mut self, node: usize, more: &[&str]) {
        let log = std::fs::File::options().create(true).append(true).open(self.file(node, "log")).unwrap();
        let mut process = self
            .command(node)
            .args(["node", "start", "--json", "--listen", &self.lan.address(node).to_string(), "--config"])
            .arg(self.file(node, "toml"))
            .arg("--data-dir")
            .arg(self.file(node, "data"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.nodes[node] = Some(process);
        assert!(line.contains("listening"), "node {node} did not start: {line}{}", self.logs());
    }

    /// Asks a node, on its own machine.
    fn run(&self, node: usize, args: &[&str]) -> (bool, Value, String) {
        let address = self.lan.address(node).to_string();
        let mut command = self.command(node);
        command.args(args).args(["--json", "--address", &address, "--data-dir"]).arg(self.file(node, "data"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
    }

    #[track_caller]
    fn json(&self, node: usize, args: &[&str]) -> Value {
        let (well, value, said) = self.run(node, args);
        assert!(well, "{args:?}: {said}\n{}", self.logs());
        value
    }

    /// Waits until all nodes are there, every device is in two places, and each node has its part of the shards. A node that was given
    /// up ends by itself, and is started again, as by whatever looks after a machine's processes.
    #[track_caller]
    fn is_well_again(&mut self) {
        let (since, mut said) = (Instant::now(), String::new());
        loop {
            for node in 0..NODES {
                if self.nodes[node].as_mut().is_some_and(|process| process.try_wait().unwrap().is_some()) {
                    self.start_node(node, &[]);
                }
            }
            // One that was given up may be about to end.
            let (well, status, _) = self.run(0, &["cluster", "status", "--deadline", "1s"]);
            let rows = |what: &str| status[what].as_array().cloned().unwrap_or_default();
            let role = |role: &str| rows("nodes").iter().filter(|node| node["role"] == role).count();
            let copied = |device: &Value| device["in_sync"].as_array().is_some_and(|nodes| nodes.len() > 1);
            let heard = |node: &Value| node["heard_ms"].as_u64().is_some_and(|ms| ms < 1_000);
            if well
                && role("voter") == NODES - 1
                && rows("devices").iter().all(copied)
                && rows("nodes").iter().all(heard)
            {
                let (done, _, why) = self.run(0, &["cluster", "rebalance", "--yes"]);
                if done {
                    return println!("well again after {} ms", since.elapsed().as_millis());
                }
                said = why;
            }
            assert!(since.elapsed() < PATIENCE, "not well again: {status:#}\n{said}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The node that leads.
    #[track_caller]
    fn leader(&self) -> usize {
        let since = Instant::now();
        loop {
            let (_, status, said) = self.run(0, &["cluster", "status", "--deadline", "1s"]);
            if let Some(leader) = status["leader"].as_u64() {
                return leader as usize - 1;
            }
            assert!(since.elapsed() < PATIENCE, "nobody leads: {said}\n{}", self.logs());
        }
    }

    /// Sends all processes of a node a signal, as if it were one to the whole machine.
    fn signal(&self, node: usize, hosts: &[Pid], signal: Signal) {
        let process = self.nodes[node].as_ref().expect("it runs");
        for pid in [Pid::from_child(process)].iter().chain(hosts) {
            kill_process(*pid, signal).unwrap();
        }
    }

    /// The processes of a node's devices.
    fn hosts(&self, node: usize) -> Vec<Pid> {
        let status = self.json(node, &["status"]);
        let pids = status["devices"].as_array().unwrap().iter().filter_map(|device| device["pid"].as_i64());
        pids.filter_map(|pid| Pid::from_raw(pid as i32)).collect()
    }

    fn kill(&mut self, node: usize) {
        let mut process = self.nodes[node].take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn logs(&self) -> String {
        let log =
            |node| format!("--- node {node}\n{}", std::fs::read_to_string(self.file(node, "log")).unwrap_or_default());
        (0..NODES).map(log).collect()
    }
}

#[test]
fn nothing_is_lost_or_done_twice_whatever_becomes_of_the_network_and_the_nodes() {
    let lan = match Lan::new(NODES + 1) {
        Ok(lan) => lan,
        Err(why) => return println!("skipped: no network of namespaces can be had here ({why})"),
    };
    if let Some(why) = &lan.no_netem {
        println!(
            "skipped: delay, and loss at random ({why}); a narrow wire that loses what it has no room for is there instead"
        );
    }
    let mut cluster = Cluster::start(lan);
    let addresses = (0..NODES).map(|node| cluster.lan.address(node).to_string()).collect();
    let mut stream = Stream::start(cluster.machine(NODES), addresses, cluster.file(0, "data").join("tls"));
    stream.goes_on("with nothing the matter", || cluster.logs());

    // Who leads is cut off from the others, and the client is not.
    let apart = cluster.leader();
    let others: Vec<usize> = (0..NODES).filter(|node| *node != apart).collect();
    for other in &others {
        cluster.lan.cut(apart, *other);
        cluster.lan.cut(*other, apart);
    }
    stream.goes_on("with the leader cut off", || cluster.logs());
    for other in &others {
        cluster.lan.mend(apart, *other);
        cluster.lan.mend(*other, apart);
    }
    cluster.is_well_again();

    // One does not reach who leads, who reaches it.
    let leader = cluster.leader();
    let mute = (leader + 1) % NODES;
    cluster.lan.cut(mute, leader);
    stream.goes_on("with a node that the leader does not hear", || cluster.logs());
    cluster.lan.mend(mute, leader);
    cluster.is_well_again();

    // Some of what one sends is lost, and then it sends through a thin wire.
    cluster.lan.lose_some(leader);
    stream.goes_on("with loss", || cluster.logs());
    let since = Instant::now();
    while cluster.lan.shaped(leader).lost < 20 {
        assert!(since.elapsed() < PATIENCE, "nothing is lost: {:?}", cluster.lan.shaped(leader));
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.lan.slow_down(mute);
    stream.goes_on("with loss, and a thin wire elsewhere", || cluster.logs());
    assert!(cluster.lan.shaped(mute).bytes > 0, "all goes through it");
    for node in [leader, mute] {
        cluster.lan.as_ever(node).unwrap();
    }
    cluster.is_well_again();

    // A node dies, and is started again.
    let dead = cluster.leader();
    cluster.kill(dead);
    stream.goes_on("with the leader killed", || cluster.logs());
    cluster.start_node(dead, &[]);
    cluster.is_well_again();

    // A machine stands still for longer than its lease, and goes on.
    let paused = (dead + 1) % NODES;
    let hosts = cluster.hosts(paused);
    cluster.signal(paused, &hosts, Signal::STOP);
    let since = Instant::now();
    stream.goes_on("with a node paused", || cluster.logs());
    std::thread::sleep(PAUSE.saturating_sub(since.elapsed()));
    cluster.signal(paused, &hosts, Signal::CONT);
    cluster.is_well_again();
    stream.goes_on("after all that", || cluster.logs());

    let accounts = stream.finish();
    println!("{accounts} accounts are as they must be");
    let logs = cluster.logs();
    assert!(!logs.contains("held one message"), "no device was ever stalled\n{logs}");
}
