//! Clusters of real nodes: how they come together, agree, lose members and take them back, and whom they refuse.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringhold::client::{Client, Options};
use ringhold::device::topology;
use ringhold::shipped::counter;
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{Files, Identity, Role};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);
/// How a command ends to which no reply came in time.
const DEADLINE: i32 = 6;

/// A place for the nodes of a test.
struct Place(tempfile::TempDir);

/// A running node, killed when dropped.
struct Node {
    process: Child,
    address: String,
    folder: PathBuf,
    log: PathBuf,
}

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, name: &str, more: &str) -> PathBuf {
        let file = self.folder(&format!("{name}.toml"));
        let text = format!(
            "[node]\nname = \"{name}\"\nlease = \"3s\"\n{more}\n[actors]\ncommitted = [\"counter\"]\n[[devices]]\nkind = \"cpu\"\nworkers = 1\n"
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    /// The arguments that start a node of this name, in its own folder.
    fn command(&self, name: &str, more: &[&str]) -> Command {
        let config = self.folder(&format!("{name}.toml"));
        if !config.exists() {
            self.config(name, "");
        }
        // Where it was before, if it was: others know it there.
        let listen = std::fs::read_to_string(self.folder(&format!("{name}.address")));
        let listen = listen.unwrap_or_else(|_| "127.0.0.1:0".into());
        let mut command = ringhold();
        command.args(["node", "start", "--json", "--listen", &listen, "--data-dir"]).arg(self.folder(name));
        command.arg("--config").arg(config).args(more);
        command
    }

    fn start(&self, name: &str, more: &[&str]) -> Node {
        let log = self.folder(&format!("{name}.log"));
        let mut process = self
            .command(name, more)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(address) = listening["listening"].as_str().map(String::from) else {
            let _ = process.kill();
            let _ = process.wait();
            panic!("{name} did not start: {line}{}", std::fs::read_to_string(log).unwrap());
        };
        std::fs::write(self.folder(&format!("{name}.address")), &address).unwrap();
        Node { process, address, folder: self.folder(name), log }
    }

    /// Starts a node that joins by a token.
    fn join(&self, name: &str, to: &Node) -> Node {
        let file = self.token(name, to);
        self.start(name, &["--join", &to.address, "--token", file.to_str().unwrap()])
    }

    fn token(&self, name: &str, of: &Node) -> PathBuf {
        let file = self.folder(&format!("{name}.token"));
        let token = of.json(&["cluster", "token"]);
        std::fs::write(&file, token["token"].as_str().unwrap()).unwrap();
        file
    }

    /// Starts a node that must not come up, and returns what it says.
    fn refused(&self, name: &str, more: &[&str]) -> String {
        let output = self.command(name, more).output().unwrap();
        assert!(!output.status.success(), "{name} came up");
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        error["error"]["message"].as_str().unwrap().to_string()
    }
}

impl Node {
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = ringhold();
        command.args(args).args(["--address", &self.address, "--data-dir"]).arg(&self.folder);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
    }

    /// What a command says that succeeds.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?}: {stderr}{stdout}\n{}", self.log());
        serde_json::from_str(&stdout).unwrap()
    }

    /// What a command says that fails.
    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_ne!(code, 0, "{args:?}: {stdout}");
        stderr
    }

    /// Looks at the cluster until this is so.
    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let (code, stdout, stderr) = self.run(&["cluster", "status", "--json"]);
            let status: Value = serde_json::from_str(&stdout).unwrap_or_default();
            if code == 0 && is_so(&status) {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "not yet {what}: {status:#}{stderr}\n{}", self.log());
        }
    }

    /// Asks whether the node is ready until the answer is this.
    #[track_caller]
    fn until_ready(&self, what: &str, is_so: impl Fn(i32, &str) -> bool) {
        let since = Instant::now();
        loop {
            let (code, stdout, stderr) = self.run(&["health", "ready"]);
            if is_so(code, &stdout) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "not yet {what}: {stdout}{stderr}\n{}", self.log());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it with SIGTERM, which must go well.
    fn stop(self) {
        self.ask_to_stop();
        self.stopped();
    }

    fn ask_to_stop(&self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself; how.
    fn ended(mut self) -> Option<i32> {
        let since = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(since.elapsed() < PATIENCE, "it runs on\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process.wait().unwrap().code()
    }

    fn stopped(mut self) {
        let status = self.process.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ringhold() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringhold"));
    command.stdin(Stdio::null());
    command
}

fn roles(status: &Value, role: &str) -> usize {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().filter(|node| node["role"] == role).count()
}

fn three_voters(status: &Value) -> bool {
    roles(status, "leader") == 1 && roles(status, "voter") == 2
}

fn setting(status: &Value) -> &str {
    let settings = status["settings"].as_array().unwrap();
    settings.iter().find(|s| s["name"] == "voters_max").unwrap()["value"].as_str().unwrap()
}

#[test]
fn three_nodes_agree_and_go_on_when_one_dies_and_comes_back() {
    let place = Place::new();
    let a = place.start("a", &[]);
    let status = a.json(&["cluster", "status"]);
    assert_eq!((roles(&status, "leader"), status["nodes"][0]["shards"].as_u64()), (1, Some(4096)));
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    let status = c.until("three voters", three_voters);
    let names: Vec<&str> = status["nodes"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    c.json(&["cluster", "settings", "voters_max=3"]);
    assert_eq!(setting(&b.json(&["cluster", "status"])), "3");
    // A client of a node that has no actors is told where they are, and goes there.
    b.json(&["actor", "ask", "counter", "7", r#"{"Add": {"amount": 5}}"#]);

    let top = b.json(&["top", "--times", "1"]);
    let running = top["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == "running").count();
    assert_eq!(running, 3, "{top:#}");

    a.kill();
    let top = c.json(&["top", "--times", "1"]);
    assert!(top["nodes"][0]["error"].is_string() && top["nodes"][1]["state"] == "running", "{top:#}");
    let status = b.until("another leads", three_voters);
    assert_ne!(status["leader"], 1);
    c.json(&["cluster", "settings", "voters_max=5"]);
    let a = place.start("a", &[]);
    let status =
        a.until("it is heard of again", |status| status["nodes"][0]["heard_ms"].as_u64().is_some_and(|ms| ms < 1_000));
    assert_eq!((setting(&status), status["asked"].as_u64()), ("5", Some(1)));
    let read = b.json(&["actor", "inspect", "counter", "7"]);
    assert_eq!(read["state"]["count"], 5, "{read}");

    // Who leads and ends in good order has another lead at once.
    let leader = status["leader"].as_u64().unwrap();
    let mut nodes = vec![(1, a), (2, b), (3, c)];
    let at = nodes.iter().position(|(number, _)| *number == leader).unwrap();
    nodes.remove(at).1.stop();
    nodes[0].1.until("another leads", |status| status["leader"].as_u64().is_some_and(|now| now != leader));
}

#[test]
fn without_its_lease_a_node_answers_nobody_and_goes_on_once_it_has_it_again() {
    let place = Place::new();
    let a = place.start("a", &[]);
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    a.until("three voters", three_voters);
    let add = ["actor", "ask", "counter", "7", r#"{"Add": {"amount": 5}}"#];
    a.json(&add);
    let send = |signal| [&b, &c].map(|node| kill_process(Pid::from_child(&node.process), signal).unwrap());
    // Nobody else takes it for the leader any more, as far as it can know.
    send(Signal::STOP);
    let since = Instant::now();
    loop {
        let (code, stdout, stderr) = a.run(&[&add[..], &["--deadline", "2s"]].concat());
        if code == DEADLINE {
            break;
        }
        assert_eq!(code, 0, "{stdout}{stderr}");
        assert!(since.elapsed() < PATIENCE, "it still answers\n{}", a.log());
    }
    a.until_ready("not ready", |code, said| code == 1 && said.contains("the node has no lease"));
    send(Signal::CONT);
    let count = |node: &Node| node.json(&["actor", "inspect", "counter", "7"])["state"]["count"].as_u64().unwrap();
    a.until("somebody leads", |status| roles(status, "leader") == 1);
    let before = count(&a);
    a.json(&add);
    assert_eq!(count(&a), before + 5, "what it was asked later comes on top");
}

#[test]
fn without_a_majority_nothing_is_decided_and_that_is_said() {
    let place = Place::new();
    let a = place.start("a", &[]);
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    c.until("three voters", three_voters);
    a.kill();
    b.kill();
    let (code, stdout, _) = c.run(&["cluster", "status"]);
    assert_eq!(code, 1);
    assert!(stdout.contains("no majority") && stdout.contains("node 3 knew last"), "{stdout}");
    let error = c.fails(&["cluster", "settings", "voters_max=3"]);
    assert!(error.contains("nothing was changed") || error.contains("whether it was made"), "{error}");
    // One that is started without the others waits for them, and says so to whoever asks.
    c.kill();
    let mut alone = place.command("c", &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(alone.try_wait().unwrap().is_none(), "it waits");
    let a = place.start("a", &[]);
    a.until("two of three agree", |status| roles(status, "leader") == 1);
    let mut line = String::new();
    BufReader::new(alone.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listening"), "{line}");
    alone.kill().unwrap();
    alone.wait().unwrap();
}

#[test]
fn who_does_not_belong_is_refused_and_told_why() {
    let place = Place::new();
    let a = place.start("a", &[]);
    let token = place.token("b", &a);
    let joins =
        |token: &Path| ["--join".to_string(), a.address.clone(), "--token".into(), token.to_str().unwrap().into()];
    let refused = |name: &str, token: &Path| {
        let args = joins(token);
        place.refused(name, &args.each_ref().map(String::as_str))
    };

    // Wrong tokens.
    let text = std::fs::read_to_string(&token).unwrap();
    let cut = place.folder("cut.token");
    std::fs::write(&cut, &text[..text.len() - 5]).unwrap();
    let error = refused("x1", &cut);
    assert!(error.contains("--token") && error.contains("cut"), "{error}");
    let error = refused("x2", Path::new("/nowhere/token"));
    assert!(error.contains("/nowhere/token"), "{error}");

    let b = place.start("b", &joins(&token).each_ref().map(String::as_str));
    let error = refused("x3", &token);
    assert!(error.contains("used"), "{error}");

    // Without a token, a node's own authority is a stranger.
    let error = place.refused("x4", &["--join", &a.address]);
    assert!(error.contains("authority") && error.contains("--token"), "{error}");
    let x4 = place.join("x4", &a);
    a.json(&["node", "remove", "x4", "--yes"]);
    x4.kill();

    // Names.
    let of_b = "[node]\nname = \"b\"\nlease = \"3s\"\n[[devices]]\nkind = \"cpu\"\nworkers = 1\n";
    std::fs::write(place.folder("x5.toml"), of_b).unwrap();
    let error = refused("x5", &place.token("x5", &a));
    assert!(error.contains("has the name `b` already"), "{error}");
    place.config("x6", "cluster = \"other\"");
    let error = refused("x6", &place.token("x6", &a));
    assert!(error.contains("`other`") && error.contains("`ringhold`"), "{error}");

    std::fs::write(place.folder("x7.toml"), of_b.replace("3s", "2s").replace("\"b\"", "\"x7\"")).unwrap();
    let error = refused("x7", &place.token("x7", &a));
    assert!(error.contains("lease is 2000 ms") && error.contains("`node.lease`"), "{error}");

    // A data folder that is used twice.
    copy(&place.folder("b"), &place.folder("twin"));
    let error = place.refused("twin", &[]);
    assert!(error.contains("another process is this node already"), "{error}");

    // A folder that is a cluster's already.
    place.start("own", &[]).stop();
    let error = place.refused("own", &["--join", &a.address]);
    assert!(error.contains("belongs to cluster") && error.contains("empty data folder"), "{error}");

    // Removal.
    let error = a.fails(&["node", "remove", "a", "--yes"]);
    assert!(error.contains("still owns 4096 shards"), "{error}");
    let error = a.fails(&["node", "remove", "zz", "--yes"]);
    assert!(error.contains("no node `zz`"), "{error}");
    let error = a.fails(&["node", "remove", "b"]);
    assert!(error.contains("--yes"), "{error}");
    a.json(&["node", "drain", "b"]);
    a.json(&["node", "remove", "b", "--yes"]);
    // It is told.
    let log = b.log.clone();
    assert_eq!(b.ended(), Some(1));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("the node was removed from its cluster, and ends"), "{log}");
    let error = place.refused("b", &[]);
    assert!(error.contains("removed from"), "{error}");
    let status = a.json(&["cluster", "status"]);
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1, "{status:#}");

    // Settings.
    // None is set where one of them cannot be.
    let error = a.fails(&["cluster", "settings", "voters_max=7", "placement=near"]);
    assert!(error.contains("`placement` cannot be `near`"), "{error}");
    assert_ne!(setting(&a.json(&["cluster", "status"])), "7");
    let error = a.fails(&["cluster", "settings", "voters_max=2"]);
    assert!(error.contains("must be 1, 3, 5 or 7"), "{error}");
    let error = a.fails(&["cluster", "settings", "voters=3"]);
    assert!(error.contains("no setting `voters`"), "{error}");
    let error = a.fails(&["cluster", "settings", "voters_max"]);
    assert!(error.contains("NAME=VALUE"), "{error}");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn a_cluster_can_be_founded_before_its_first_node_runs() {
    let place = Place::new();
    place.config("a", "cluster = \"blue\"");
    let mut init = ringhold();
    init.args(["cluster", "init", "--json", "--data-dir"]).arg(place.folder("a"));
    init.arg("--config").arg(place.folder("a.toml"));
    let output = init.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let founded: Value = serde_json::from_slice(&output.stdout).unwrap();
    let again = init.output().unwrap();
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("belongs to cluster `blue` already"));
    let a = place.start("a", &[]);
    let status = a.json(&["cluster", "status"]);
    assert_eq!((&status["id"], &status["name"]), (&founded["id"], &founded["cluster"]));
}

#[test]
fn shards_that_have_moved_are_where_the_cluster_says_after_the_node_died() {
    let place = Place::new();
    place.config("a", "");
    let config = place.folder("a.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[[devices]]\nkind = \"cpu\"\nworkers = 1\n")).unwrap();
    let a = place.start("a", &[]);
    let add = |node: &Node, expected: u64| {
        for key in 0..12 {
            let read = node.json(&["actor", "ask", "counter", &key.to_string(), r#"{"Add": {"amount": 1}}"#]);
            assert_eq!(read["Count"]["count"], expected, "{read}");
        }
    };
    let owned = |node: &Node, device: u64| -> Vec<(u64, u64)> {
        let shards = node.json(&["cluster", "shards"]);
        let of = shards["shards"].as_array().unwrap().iter().filter(|row| row["device"] == device);
        let ranges = of.flat_map(|row| row["shards"].as_array().unwrap().clone());
        ranges.map(|range| (range[0].as_u64().unwrap(), range[1].as_u64().unwrap())).collect()
    };
    add(&a, 1);
    let text: Vec<String> = owned(&a, 0).iter().map(|(first, end)| format!("{first}-{}", end - 1)).collect();
    let moved = a.json(&["cluster", "migrate", &text.join(","), "--to", "1"]);
    assert_eq!(moved["migrated"]["shards"], 2048, "{moved}");
    assert_eq!((owned(&a, 0), owned(&a, 1)), (vec![], vec![(0, 4096)]));
    add(&a, 2);
    a.kill();
    let a = place.start("a", &[]);
    assert_eq!((owned(&a, 0), owned(&a, 1)), (vec![], vec![(0, 4096)]));
    add(&a, 3);
    let plan = a.json(&["cluster", "plan"]);
    assert_eq!(plan["plans"][0]["plan"]["Ok"]["after"]["0"]["shards"], 2048, "{plan:#}");
    let error = a.fails(&["cluster", "rebalance"]);
    assert!(error.contains("2048 shards move") && error.contains("--yes"), "{error}");
    a.json(&["cluster", "rebalance", "--yes"]);
    assert_eq!(a.json(&["cluster", "devices"])["devices"][0]["shards"], 2048);
    add(&a, 4);
    a.stop();
}

/// What a node that does not run has of an actor in its copy of the first device.
fn copied(place: &Place, node: &str, key: &str) -> Value {
    copied_of(place, node, 0, key)
}

fn copied_of(place: &Place, node: &str, device: u64, key: &str) -> Value {
    let mut show = ringhold();
    show.args(["storage", "show", &format!("replica/{device}"), "counter", key, "--json", "--data-dir"]);
    show.arg(place.folder(node));
    let output = show.output().unwrap();
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["state"]["count"].clone()
}

/// The nodes that are in sync with the first device.
fn in_sync(status: &Value) -> Vec<u64> {
    let nodes = status["devices"][0]["in_sync"].as_array().unwrap();
    nodes.iter().map(|node| node.as_u64().unwrap()).collect()
}

#[test]
fn what_is_committed_is_on_another_node_which_is_waited_for_until_the_cluster_has_put_it_out() {
    let place = Place::new();
    let a = place.start("a", &[]);
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    let status = a.until("a replica in sync", |status| in_sync(status) == [1, 2] && three_voters(status));
    assert_eq!(status["devices"][0]["replicas"], serde_json::json!([2]));
    let devices = a.json(&["cluster", "devices"]);
    assert_eq!(devices["devices"][0]["in_sync"], serde_json::json!([1, 2]), "{devices}");
    // Its device's threads run wherever this process may, on a machine with several memory nodes too.
    let numa_node = topology::of_this_process().numa_node;
    assert_eq!(devices["devices"][0]["place"]["numa_node"], serde_json::json!(numa_node), "{devices}");
    let add = r#"{"Add": {"amount": 5}}"#;
    assert_eq!(a.json(&["actor", "ask", "counter", "7", add])["Count"]["count"], 5);
    // The type is `committed`: who was answered has it on both.
    b.kill();
    assert_eq!(copied(&place, "b", "7"), 5);

    // The answer waits for the cluster to agree that the node is not waited for.
    let (asked, (code, stdout, stderr)) = (Instant::now(), a.run(&["actor", "ask", "counter", "7", add, "--json"]));
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}: {stdout}{stderr}{}", asked.elapsed(), a.log());
    // Who was slow to agree has kept it longer than it was waited for.
    assert!(code != 0 || stdout.contains("10"), "{stdout}");
    a.until("it is put out", |status| in_sync(status) == [1]);
    assert_eq!(a.json(&["actor", "inspect", "counter", "7"])["state"]["count"], 10);
    assert_eq!(copied(&place, "b", "7"), 5, "it has what it had");

    // Once it is back it is brought up to date.
    let b = place.start("b", &[]);
    a.until("the replica is in sync again", |status| in_sync(status) == [1, 2]);
    b.kill();
    assert_eq!(copied(&place, "b", "7"), 10);

    // Without a majority nothing commits, and that is said.
    c.kill();
    let mut ask = ringhold();
    ask.args(["actor", "ask", "counter", "7", add, "--json", "--address", &a.address, "--data-dir"]).arg(&a.folder);
    let mut asking = ask.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    a.until_ready("says what it waits for", |code, said| {
        code != 0 && said.contains("node 2 (`b`) does not have the newest one yet") && said.contains("not agreed on")
    });
    let answered = asking.try_wait().unwrap();
    assert!(answered.is_none_or(|status| !status.success()), "it is not committed");
    let c = place.start("c", &[]);
    a.until_ready("commits again", |code, _| code == 0);
    assert_eq!(in_sync(&c.json(&["cluster", "status"])), [1]);
    assert_eq!(a.json(&["actor", "inspect", "counter", "7"])["state"]["count"], 15);
    let _ = asking.wait();
}

#[test]
fn shards_that_have_moved_are_in_the_copies_of_their_new_device() {
    let place = Place::new();
    place.config("a", "");
    let config = place.folder("a.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[[devices]]\nkind = \"cpu\"\nworkers = 1\n")).unwrap();
    let a = place.start("a", &[]);
    let (b, _c) = (place.join("b", &a), place.join("c", &a));
    a.until("replicas in sync", |status| {
        let devices = status["devices"].as_array().unwrap();
        three_voters(status) && devices[..2].iter().all(|device| device["in_sync"] == serde_json::json!([1, 2]))
    });
    let add = |expected: u64| {
        for key in 0..6 {
            let read = a.json(&["actor", "ask", "counter", &key.to_string(), r#"{"Add": {"amount": 1}}"#]);
            assert_eq!(read["Count"]["count"], expected, "{read}");
        }
    };
    add(1);
    let shards = a.json(&["cluster", "shards"]);
    let of = shards["shards"].as_array().unwrap().iter().find(|row| row["device"] == 0).unwrap();
    let ranges: Vec<String> = of["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|range| format!("{}-{}", range[0], range[1].as_u64().unwrap() - 1))
        .collect();
    a.json(&["cluster", "migrate", &ranges.join(","), "--to", "1"]);
    add(2);
    b.kill();
    for key in 0..6 {
        assert_eq!(copied_of(&place, "b", 1, &key.to_string()), 2, "actor {key}");
    }
}

const ACTORS: u64 = 64;

/// A client that knows these nodes.
async fn client(nodes: &[&Node]) -> Client {
    let identity = Identity::load(Files::client(&nodes[0].folder.join("tls")), Role::Client, &RealNetwork).unwrap();
    let mut options = Options::new(nodes[0].address.clone(), identity).with::<counter::Actor>();
    options.addresses = nodes.iter().map(|node| node.address.clone()).collect();
    options.ask_deadline = PATIENCE;
    Client::connect(options).await.unwrap()
}

async fn add(client: &Client, key: u64) -> u64 {
    let counter::Reply::Count { count } = client.ask(key, counter::Message::Add { amount: 1 }).await.unwrap();
    count
}

async fn add_to_all(client: &Client, expected: u64) {
    let mut asked = JoinSet::new();
    for key in 0..ACTORS {
        let client = client.clone();
        asked.spawn(async move { (key, add(&client, key).await) });
    }
    while let Some(answered) = asked.join_next().await {
        let (key, count) = answered.unwrap();
        assert_eq!(count, expected, "actor {key}");
    }
}

#[test]
fn actors_of_a_node_that_is_killed_go_on_at_another_with_all_that_was_committed() {
    let runtime = Runtime::new().unwrap();
    let place = Place::new();
    let a = place.start("a", &[]);
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    c.until("three voters", three_voters);
    // The first has all shards; another has a copy of everything.
    c.until("a copy is in sync", |status| status["devices"][0]["in_sync"].as_array().unwrap().len() == 2);
    let client = runtime.block_on(client(&[&b, &c]));
    runtime.block_on(add_to_all(&client, 1));
    runtime.block_on(add_to_all(&client, 2));

    // Some are on their way as the node dies.
    let asked = {
        let client = client.clone();
        runtime.spawn(async move { add_to_all(&client, 3).await })
    };
    let died = Instant::now();
    a.kill();
    runtime.block_on(asked).unwrap();
    println!("every actor has answered {} ms after its node died", died.elapsed().as_millis());
    runtime.block_on(add_to_all(&client, 4));
    let status = b.until("a majority agrees", |status| status["leader"] != 1);
    let device = &status["devices"][0];
    assert!(device["node"] != 1 && device["shards"] == 4096, "{device:#}");
    // Shards move though the one that died cannot be asked: it has nothing any more.
    let free = status["devices"].as_array().unwrap().iter().find(|other| other["node"] != device["node"]).unwrap();
    let to = free["number"].to_string();
    assert_eq!(b.json(&["cluster", "migrate", "0-1023", "--to", &to])["migrated"]["shards"], 1_024);
    runtime.block_on(add_to_all(&client, 5));

    // The one that died comes back as a node whose device has nothing yet.
    let a = place.start("a", &[]);
    let status = a.until("it is there", |status| status["nodes"][0]["heard_ms"].as_u64().is_some_and(|ms| ms < 1_000));
    assert_eq!(status["nodes"][0]["shards"], 0, "{status:#}");
    runtime.block_on(add_to_all(&client, 6));
    // What stood in for its device has nothing any more once shards are spread anew, and goes.
    let is_copied = |status: &Value| {
        let devices = status["devices"].as_array().unwrap();
        devices.iter().all(|device| device["in_sync"].as_array().unwrap().len() == 2)
    };
    b.until("all copies are in sync", is_copied);
    let moved = b.json(&["cluster", "rebalance", "--yes"]);
    assert!(moved["migrated"].as_array().is_some_and(|moves| !moves.is_empty()), "{moved:#}");
    runtime.block_on(add_to_all(&client, 7));
    let status = b.until("a stand-in is gone", |status| status["devices"].as_array().unwrap().len() == 3);
    assert!(
        status["devices"].as_array().unwrap().iter().all(|device| device["shards"].as_u64() > Some(1_000)),
        "{status:#}"
    );
    // Each runs its own device alone, once its node has noticed.
    let (devices, since) = (|node: &Node| node.json(&["status"])["devices"].as_array().unwrap().len(), Instant::now());
    while devices(&b) + devices(&c) > 2 {
        assert!(since.elapsed() < PATIENCE, "it still runs\n{}", b.log());
    }
    // And all of it outlives another node.
    b.until("all copies are in sync", is_copied);
    b.kill();
    runtime.block_on(add_to_all(&client, 8));
    runtime.block_on(client.close()).unwrap();
    drop((a, c));
}

#[test]
fn a_whole_cluster_stops_at_once_and_has_everything_when_it_starts_again() {
    let runtime = Runtime::new().unwrap();
    let place = Place::new();
    let a = place.start("a", &[]);
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    c.until("three voters", three_voters);
    a.json(&["cluster", "rebalance", "--yes"]);
    let copied = |status: &Value| {
        let devices = status["devices"].as_array().unwrap();
        devices.iter().all(|device| device["in_sync"].as_array().unwrap().len() == 2)
    };
    c.until("all copies are in sync", copied);
    let client = runtime.block_on(client(&[&a, &b, &c]));
    runtime.block_on(add_to_all(&client, 1));
    runtime.block_on(client.close()).unwrap();

    let (nodes, asked) = ([a, b, c], Instant::now());
    nodes.iter().for_each(Node::ask_to_stop);
    for node in nodes {
        let log = node.log.clone();
        node.stopped();
        let log = std::fs::read_to_string(log).unwrap();
        assert!(!log.contains("ERROR"), "{log}");
    }
    // Far less than the 30 s after which a node ends in any case.
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    // None is up before a majority is.
    let again: Vec<Node> = std::thread::scope(|scope| {
        let starting = ["a", "b", "c"].map(|name| scope.spawn(|| place.start(name, &[])));
        starting.map(|started| started.join().unwrap()).into()
    });
    let client = runtime.block_on(self::client(&again.iter().collect::<Vec<_>>()));
    runtime.block_on(add_to_all(&client, 2));
    runtime.block_on(client.close()).unwrap();
}

#[test]
fn a_node_that_was_emptied_leaves_and_the_only_other_one_goes_on() {
    let place = Place::new();
    let a = place.start("a", &[]);
    let b = place.join("b", &a);
    a.json(&["actor", "ask", "counter", "7", r#"{"Add": {"amount": 5}}"#]);
    // It leads, and votes alone.
    a.json(&["node", "drain", "a"]);
    a.json(&["cluster", "rebalance", "--yes"]);
    a.stop();
    let status = b.until("the other leads", |status| status["leader"] == 2);
    assert_eq!(status["nodes"][1]["shards"], 4096, "{status:#}");
    b.json(&["actor", "ask", "counter", "7", r#"{"Add": {"amount": 1}}"#, "--deadline", "20s"]);
    assert_eq!(b.json(&["actor", "inspect", "counter", "7"])["state"]["count"], 6);
}
