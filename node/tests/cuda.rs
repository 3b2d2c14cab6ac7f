//! A node with a CUDA device, on a machine whose driver and compiler are made up: everything of Ringhold is what ships,
//! the GPU is threads (`kernels/tests/fake`).

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Generous: a compiler runs meanwhile.
const PATIENCE: Duration = Duration::from_secs(170);

struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new(defines: &[&str]) -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap() };
        machine.library("libcuda.so.1", "run.c", defines);
        machine.library("libnvrtc.so.12", "nvrtc_run.c", &[]);
        fs::write(machine.folder.path().join("node.toml"), "[[devices]]\nkind = \"cuda\"\nworkers = 2\n").unwrap();
        machine
    }

    fn library(&self, name: &str, source: &str, defines: &[&str]) {
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-pthread", "-o"])
            .arg(self.folder.path().join(name))
            .args(defines.iter().map(|define| format!("-D{define}")))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/fake").join(source))
            .status()
            .expect("cc runs");
        assert!(compiled.success());
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringhold"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("LD_LIBRARY_PATH", self.folder.path()).env("RINGHOLD_NVRTC", self.folder.path());
        command.env_remove("CUDA_VISIBLE_DEVICES").env("FAKE_XID", self.folder.path().join("xid"));
        command
    }

    /// Has the GPU report an Xid, to a host that reads what it reports.
    fn report(&self, xid: u32) {
        let (draft, report) = (self.folder.path().join("draft"), self.folder.path().join("xid"));
        fs::write(&draft, xid.to_string()).unwrap();
        fs::rename(draft, report).unwrap();
    }

    fn wait_for(&self, said: &str) {
        let began = Instant::now();
        while !self.log().contains(said) {
            assert!(began.elapsed() < PATIENCE, "no `{said}` in {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A node that does not start: what it says.
    fn refuses(&self) -> String {
        let args = ["node", "start", "--config", "node.toml", "--listen", "127.0.0.1:0"];
        let output = self.command(&args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        stderr
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn node(&self) -> Node<'_> {
        let mut child = self
            .command(&["node", "start", "--config", "node.toml", "--listen", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let Ok(listening) = serde_json::from_str::<Value>(&line) else { panic!("{line}{}", self.log()) };
        let Some(address) = listening["listening"].as_str() else { panic!("{line}{}", self.log()) };
        Node { machine: self, child, address: address.into() }
    }
}

struct Node<'a> {
    machine: &'a Machine,
    child: Child,
    address: String,
}

impl Node<'_> {
    fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json", "--data-dir", "ringhold-data", "--deadline", "30s", "--address", &self.address]];
        let output = self.machine.command(&args.concat()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}\n{}", self.machine.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn end(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", self.machine.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn actors_answer_from_a_cuda_device_whose_kernel_is_compiled_once() {
    let machine = Machine::new(&["GIB=1"]);
    for (how, before) in [("compiled", 0), ("found", 10)] {
        let node = machine.node();
        let device = node.json(&["devices"])["devices"][0].clone();
        assert_eq!(
            (&device["name"], &device["kind"], &device["state"]),
            (&json!("cuda0"), &json!("cuda"), &json!("running"))
        );
        assert_eq!(device["workers"].as_array().unwrap().len(), 2);
        let deposit = ["actor", "ask", "account", "alice", r#"{"Deposit": {"cents": 5}}"#];
        assert_eq!(node.json(&deposit), json!({"Balance": {"cents": before + 5}}));
        assert_eq!(node.json(&deposit), json!({"Balance": {"cents": before + 10}}));
        assert!(node.end().success(), "{}", machine.log());
        assert!(machine.log().contains(&format!("ring kernel for sm_90 {how}")), "{}", machine.log());
    }
    assert_eq!(fs::read_dir(machine.folder.path().join("ringhold-data/kernels")).unwrap().count(), 1);
}

#[test]
fn a_gpu_that_cannot_be_had_is_told_at_once() {
    let machine = Machine::new(&["GIB=1"]);
    let config = "[[devices]]\nkind = \"cuda\"\ngpu = 1\n";
    fs::write(machine.folder.path().join("node.toml"), config).unwrap();
    let stderr = machine.refuses();
    assert!(
        stderr.contains("device `cuda0` cannot have GPU 1: its compute capability is 6.1 and 7.0 is needed"),
        "{stderr}"
    );
}

#[test]
fn a_gpu_that_does_not_answer_ends_its_host_before_a_kernel_runs() {
    let machine = Machine::new(&["GIB=1", "HANGS=1"]);
    let mut child = machine
        .command(&["node", "start", "--config", "node.toml", "--listen", "127.0.0.1:0"])
        .stderr(fs::File::create(machine.folder.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let asked =
        "cuda:0 (Fake H100, PCI 0000:3b:00.0) was asked how much of its memory is free and has not answered for 20 s";
    while !machine.log().contains("the GPU does not answer; its log says to what") {
        assert!(child.try_wait().unwrap().is_none(), "the node lives on: {}", machine.log());
        assert!(began.elapsed() < PATIENCE, "{}", machine.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(machine.log().contains(asked), "{}", machine.log());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_stalled_kernel_is_asked_to_leave_and_its_host_is_killed_only_if_it_does_not() {
    let machine = Machine::new(&["GIB=1"]);
    let mut config = fs::read_to_string(machine.folder.path().join("node.toml")).unwrap();
    config += "[supervision]\nstalled_after = \"500ms\"\n[node]\ndrain_timeout = \"1s\"\n";
    fs::write(machine.folder.path().join("node.toml"), config).unwrap();
    let node = machine.node();
    let wait_for = |what: &str, count: usize| {
        let began = Instant::now();
        while machine.log().matches(what).count() < count {
            assert!(began.elapsed() < PATIENCE, "{what}: {}", machine.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let restarted = |restarts: u64| {
        let began = Instant::now();
        loop {
            let device = node.json(&["devices"])["devices"][0].clone();
            if device["restarts"] == restarts && device["state"] == "running" {
                return device;
            }
            assert!(began.elapsed() < PATIENCE, "{device}: {}", machine.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // A rod that is never at rest. Its host is stopped under it, which looks like a handler that does not come back; once it
    // goes on it finds that it is to leave.
    for (restarts, goes_on) in [(1, true), (2, false)] {
        let pid = restarted(restarts - 1)["pid"].as_i64().unwrap();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        node.json(&["actor", "ask", "rod", "r", r#"{"Flow": {"steps": 1000000000}}"#]);
        kill_process(pid, Signal::STOP).unwrap();
        wait_for("asking the device host to end with what it has in hand: worker", restarts as usize);
        if goes_on {
            kill_process(pid, Signal::CONT).unwrap();
        }
        wait_for("device host is gone (worker", restarts as usize);
        let log = machine.log();
        assert_eq!(log.matches("killing the device host").count(), usize::from(!goes_on), "{log}");
        // In either case another begins with the last checkpoint.
        assert_eq!(log.matches("does again what came after it").count(), restarts as usize, "{log}");
        restarted(restarts);
    }
    // A node that ends while its kernel is busy has it leave too, and says what is not done.
    node.json(&["actor", "ask", "rod", "r", r#"{"Flow": {"steps": 1000000000}}"#]);
    assert!(!node.end().success(), "not all was done: {}", machine.log());
    assert!(machine.log().contains("no last checkpoint within the time there was"), "{}", machine.log());
}

/// A node whose device host ends again and again, until its log has said all of this twice: it is started again.
fn ends_twice(machine: &Machine, said: &[&str]) {
    let mut child = machine
        .command(&["node", "start", "--config", "node.toml", "--listen", "127.0.0.1:0"])
        .stderr(fs::File::create(machine.folder.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while said.iter().any(|said| machine.log().matches(said).count() < 2) {
        assert!(child.try_wait().unwrap().is_none(), "the node lives on: {}", machine.log());
        assert!(began.elapsed() < PATIENCE, "{said:?}: {}", machine.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_kernel_that_crashes_costs_its_device_host_whose_end_names_the_error() {
    let machine = Machine::new(&["GIB=1", "CRASH=700"]);
    ends_twice(&machine, &["the kernel ended in an access to an address that is not its own (CUDA error 700)"]);
}

#[test]
fn a_compiler_that_fails_with_a_code_of_tomorrow_is_quoted() {
    let machine = Machine::new(&["GIB=1"]);
    machine.library("libnvrtc.so.12", "nvrtc.c", &["CODE=4711"]);
    ends_twice(&machine, &["nvrtcCreateProgram failed with 4711", "there is no kernel for the GPU"]);
}

const DEPOSIT: [&str; 5] = ["actor", "ask", "account", "alice", r#"{"Deposit": {"cents": 5}}"#];

#[test]
fn a_gpu_that_falls_off_the_bus_is_followed_by_the_cpu_and_is_back_when_somebody_has_seen_to_it() {
    let machine = Machine::new(&["GIB=1"]);
    machine.library("libnvidia-ml.so.1", "nvml.c", &[]);
    let node = machine.node();
    assert_eq!(node.json(&DEPOSIT), json!({"Balance": {"cents": 5}}));
    // A fault that may be anybody's is told, and the device goes on.
    machine.report(31);
    machine.wait_for("cuda:0 reports Xid 31, a kernel accessed memory that is not its own (programmer error)");
    assert_eq!(node.json(&DEPOSIT), json!({"Balance": {"cents": 10}}));

    machine.report(79);
    machine.wait_for("device host is gone (fatal error: the GPU reported Xid 79, it has fallen off the bus)");
    machine.wait_for("the device goes on with cpu");
    assert_eq!(node.json(&DEPOSIT), json!({"Balance": {"cents": 15}}), "with what it had");
    let status = node.json(&["status"]);
    let device = &status["devices"][0];
    assert_eq!((&status["state"], &device["state"]), (&json!("degraded"), &json!("running")));
    assert_eq!((&device["name"], &device["backend"]), (&json!("cuda0"), &json!("cpu")));
    let own = json!({
        "name": "cuda:0",
        "breaker": "open",
        "why": "fatal error: the GPU reported Xid 79, it has fallen off the bus",
        "retry_ms": null,
    });
    assert_eq!(device["backends"][0], own);
    // The cluster knows it where its own GPU is, as the probe found that when the node started.
    let place = &node.json(&["cluster", "devices"])["devices"][0]["place"];
    let (pci, nvlinks) = (json!("0000:3b:00.0"), json!(["0000:05:00.0", "0000:af:00.0"]));
    assert_eq!((&place["pci"], &place["nvlinks"]), (&pci, &nvlinks), "{place}");

    machine.report(31);
    assert_eq!(node.json(&["devices", "retry", "cuda0"]), json!({"device": "cuda0", "backends": ["cuda:0"]}));
    machine.wait_for("moving from cpu to cuda:0");
    assert_eq!(node.json(&DEPOSIT), json!({"Balance": {"cents": 20}}));
    assert!(node.end().success(), "{}", machine.log());
}

#[test]
fn a_gpu_that_falls_off_the_bus_costs_a_device_without_a_fallback_and_the_node_says_so() {
    let machine = Machine::new(&["GIB=1"]);
    machine.library("libnvidia-ml.so.1", "nvml.c", &[]);
    let config = "[[devices]]\nkind = \"cuda\"\nworkers = 2\nfallback = \"none\"\n";
    fs::write(machine.folder.path().join("node.toml"), config).unwrap();
    let node = machine.node();
    assert_eq!(node.json(&DEPOSIT), json!({"Balance": {"cents": 5}}));
    machine.report(79);
    machine.wait_for("the device is given up");
    let status = node.json(&["status"]);
    let device = &status["devices"][0];
    assert_eq!((&status["state"], &device["state"]), (&json!("degraded"), &json!("failed")));
    assert_eq!(device["detail"], "fatal error: the GPU reported Xid 79, it has fallen off the bus");
    assert_eq!(device["restarts"], 0);
    let args = [&DEPOSIT[..], &["--json", "--data-dir", "ringhold-data", "--address", &node.address]].concat();
    let output = machine.command(&args).output().unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &error["error"]["kind"]), (Some(5), &json!("actor")), "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("no device is running"), "{error}");
    assert!(node.end().success(), "{}", machine.log());
}

#[test]
fn what_a_gpu_reports_explains_its_drivers_error() {
    // A launch that failed would be the kernel's fault, if the GPU were there.
    let machine = Machine::new(&["GIB=1", "CRASH=719"]);
    machine.library("libnvidia-ml.so.1", "nvml.c", &[]);
    machine.report(79);
    let said = "device `cuda0` is given up: fatal error: the GPU reported Xid 79, it has fallen off the bus";
    let stderr = machine.refuses();
    assert!(stderr.contains(said), "{stderr}");
}

#[test]
fn a_host_whose_driver_does_not_answer_ends_when_its_gpu_has_reported_why() {
    let machine = Machine::new(&["GIB=1", "HANG=1"]);
    machine.library("libnvidia-ml.so.1", "nvml.c", &[]);
    machine.report(119);
    let stderr = machine.refuses();
    assert!(stderr.contains("device `cuda0` is given up: fatal error: the GPU reported Xid 119,"), "{stderr}");
}

#[test]
fn a_memory_error_that_cannot_be_corrected_is_fatal_without_nvml_too() {
    let machine = Machine::new(&["GIB=1", "CRASH=214"]);
    let stderr = machine.refuses();
    let said = "fatal error: the kernel ended in an error of its memory that cannot be corrected (CUDA error 214)";
    assert!(stderr.contains(&format!("device `cuda0` is given up: {said}")), "{stderr}");
}
