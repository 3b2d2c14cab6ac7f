//! `ringhold storage` as an operator meets it: real folders, files and exit codes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ringhold::shipped::{account, counter};
use ringhold::{ActorId, Key, Registry};
use ringhold_kernels::actor::Actor;
use ringhold_kernels::checkpoint::{self, Cut, Kind};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::message::{self, Header};
use ringhold_kernels::plain::Plain;
use ringhold_storage::blocks::{Blocks, Sled};
use ringhold_storage::checkpoints::{About, Checkpoints, Options, Part, Type};
use ringhold_storage::folder::DataFolder;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// 2026-11-25, 12:00:05 UTC.
const AT_US: u64 = 1_795_608_005_000_000;

struct Scratch(tempfile::TempDir);

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `ringhold storage`, on `ringhold-data` in this folder where nothing else is said.
    fn run(&self, args: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_ringhold"))
            .arg("storage")
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn json(&self, code: i32, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// A node's folder with two checkpoints of cpu0, the second one of the changes since the first, and one of cuda1.
    fn filled(&self) -> &Scratch {
        let (_folder, store) = open(&self.path("ringhold-data"), 7);
        let rich = account::State { balance: 500, operations: 3 };
        let poor = account::State { balance: 5, operations: 4 };
        commit(&store, "cpu0", 1, None, &[("alice", rich), ("bob", poor)]);
        commit(&store, "cpu0", 2, Some(1), &[("alice", account::State { balance: 450, operations: 4 })]);
        commit(&store, "cuda1", 9, None, &[("carol", poor)]);
        self
    }
}

impl Ran {
    #[track_caller]
    fn fails(self, code: i32, says: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        says.iter().for_each(|text| assert!(self.stderr.contains(text), "no `{text}` in {}", self.stderr));
    }

    /// Each of these on a line of its own, the words in this order.
    #[track_caller]
    fn prints(self, lines: &[&[&str]]) -> Ran {
        for words in lines {
            let found = self.stdout.lines().any(|line| {
                let mut rest = line;
                words.iter().all(|word| rest.split_once(word).map(|(_, after)| rest = after).is_some())
            });
            assert!(found, "no {words:?} in\n{}{}", self.stdout, self.stderr);
        }
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }
}

fn open(path: &Path, id: u8) -> (DataFolder, Checkpoints) {
    let folder = DataFolder::open(path, || [id; 16]).unwrap();
    let blocks = Arc::new(Sled::open(&folder.checkpoints_path()).unwrap());
    (folder, Checkpoints::open(blocks, Options::default()).unwrap())
}

fn commit(store: &Checkpoints, device: &str, epoch: u64, base: Option<u64>, accounts: &[(&str, account::State)]) {
    let mut lane = Vec::new();
    for (name, state) in accounts {
        let id = ActorId::new(account::Actor::TYPE, Key::name(name).unwrap());
        let bytes = state.to_bytes();
        checkpoint::push_actor(&mut lane, id, state.operations.into(), 1, bytes.len()).copy_from_slice(&bytes);
    }
    let to = ActorId::new(counter::Actor::TYPE, Key(1));
    let header = Header::new(message::Kind::Tell, to, ActorId::default(), 3, Hlc(1));
    checkpoint::push_message(&mut lane, Kind::Queued, 0, &header, &[1, 2, 3]);
    checkpoint::push_cut(&mut lane, &Cut { epoch, ..Cut::default() });
    let mut registry = Registry::new();
    ringhold::shipped::register(&mut registry).unwrap();
    let types = registry.types().iter().map(Type::from).collect();
    let mut draft = store.begin(device, epoch, base).unwrap();
    draft.append(Part::Lane(0), &lane).unwrap();
    draft.commit(About { at_us: AT_US + epoch * 1_500, lanes: 1, types, node: vec![] }).unwrap();
}

#[test]
fn what_is_kept_is_listed() {
    let scratch = Scratch::new();
    scratch.filled().run(&["list"]).prints(&[
        &["DEVICE", "EPOCH", "CUT AT (UTC)", "HOLDS", "BYTES"],
        &["cpu0", "1", "2026-11-25 12:00:05", "everything"],
        &["cpu0", "2", "2026-11-25 12:00:05", "changes since 1"],
        &["cuda1", "9", "everything"],
        &["3 checkpoints", "on disk"],
    ]);
    let value = scratch.json(0, &["list"]);
    let epochs: Vec<Value> =
        value["checkpoints"].as_array().unwrap().iter().map(|found| json!([found["device"], found["base"]])).collect();
    assert_eq!(json!(epochs), json!([["cpu0", null], ["cpu0", 1], ["cuda1", null]]));
    assert!(value["bytes_on_disk"].as_u64().unwrap() > 1_000 && value["lost_syncs"] == 0);
}

#[test]
fn a_checkpoint_and_an_actor_in_it_are_shown() {
    let scratch = Scratch::new();
    scratch.filled().run(&["show", "cpu0"]).prints(&[
        &["checkpoint 2 of cpu0, cut at 2026-11-25 12:00:05 UTC, on 1 lane, in a chain of 2"],
        &["1 message to be handled, 0 to be sent later, 0 on their way out"],
        &["account", "2", "8", "2", "32", "0", "same"],
        &["counter", "0", "0", "0", "0", "1", "same"],
    ]);
    let value = scratch.json(0, &["show", "cpu0", "--epoch", "1"]);
    assert_eq!((&value["epoch"], &value["chain"], &value["types"][0]["actors"]), (&json!(1), &json!(1), &json!(2)));

    scratch
        .run(&["show", "cpu0", "account", "alice"])
        .prints(&[&["account alice in checkpoint 2 of cpu0: 4 messages handled, 1 fault"], &["balance", "450"]]);
    let alice = scratch.json(0, &["show", "cpu0", "account", "alice", "--epoch", "1"]);
    let expected = json!({
        "device": "cpu0", "epoch": 1, "type": "account", "key": "alice", "handled": 3, "faults": 1,
        "state": {"balance": 500, "operations": 3}, "state_hex": null,
    });
    assert_eq!(alice, expected);
    // What has not changed since is in the checkpoint before.
    assert_eq!(scratch.json(0, &["show", "cpu0", "account", "bob"])["state"]["balance"], 5);

    scratch.run(&["show", "cpu0", "account", "nobody"]).fails(5, &["checkpoint 2 of cpu0 has no actor account nobody"]);
    scratch.run(&["show", "cpu0", "acount", "bob"]).fails(2, &["no actor type `acount`", "did you mean `account`"]);
    scratch.run(&["show", "cpu0", "account"]).fails(2, &["<KEY>"]);
    scratch.run(&["show", "cpu7"]).fails(2, &["no checkpoint of a device `cpu7`", "cpu0, cuda1"]);
    scratch.run(&["show", "cpu0", "--epoch", "5"]).fails(1, &["no checkpoint 5 of `cpu0`", "storage list"]);
}

#[test]
fn an_actor_of_a_type_that_has_changed_is_shown_as_bytes() {
    let scratch = Scratch::new();
    {
        let (_folder, store) = open(&scratch.path("ringhold-data"), 7);
        let mut lane = Vec::new();
        let id = ActorId::new(account::Actor::TYPE, Key(4));
        checkpoint::push_actor(&mut lane, id, 1, 0, 3).copy_from_slice(&[1, 2, 255]);
        let mut draft = store.begin("cpu0", 1, None).unwrap();
        draft.append(Part::Lane(0), &lane).unwrap();
        let mut registry = Registry::new();
        registry.register::<account::Actor>().unwrap();
        let changed = Type { layout_hash: 1, state_bytes: 3, ..Type::from(&registry.types()[0]) };
        draft.commit(About { types: vec![changed], ..About::default() }).unwrap();
    }
    scratch.run(&["show", "cpu0"]).prints(&[&["account", "0000000000000001", "1", "changed"]]);
    scratch.run(&["show", "cpu0", "account", "4"]).prints(&[&["does not know the type as it was then"], &["0102ff"]]);
    let value = scratch.json(0, &["show", "cpu0", "account", "4"]);
    assert_eq!((&value["state"], &value["state_hex"]), (&Value::Null, &json!("0102ff")));
}

/// Changes a byte of every chunk of a set, as the store counts them: 1 for the first draft.
fn damage(path: &Path, set: u64) {
    let folder = DataFolder::open(path, || unreachable!()).unwrap();
    let blocks = Sled::open(&folder.checkpoints_path()).unwrap();
    let prefix = [b"c".as_slice(), &set.to_be_bytes()].concat();
    let mut from = prefix.clone();
    while let Some(key) = blocks.first_from(&from).unwrap().filter(|key| key.starts_with(&prefix)) {
        let mut chunk = blocks.get(&key).unwrap().unwrap();
        chunk[7] ^= 1;
        blocks.put(&key, &chunk).unwrap();
        from = [key.as_slice(), b"\0"].concat();
    }
    blocks.sync().unwrap();
}

#[test]
fn damage_is_named_with_what_it_costs_and_the_exit_code_says_so() {
    let scratch = Scratch::new();
    let ran = scratch.filled().run(&["verify"]).prints(&[&["cpu0", "2", "whole"], &["cuda1", "9", "whole"]]);
    assert_eq!(ran.stderr, "");
    assert_eq!(scratch.json(0, &["verify"])["whole"], true);

    damage(&scratch.path("ringhold-data"), 2);
    let ran = scratch.run(&["verify"]);
    assert!(ran.stdout.contains("damaged: chunk 0 of"), "{}", ran.stdout);
    ran.fails(
        1,
        &[
            "error: cpu0: checkpoint 2 of `cpu0` is damaged: chunk 0 of",
            "Everything that was committed after checkpoint 1, up to 2, is lost: 2 ms of work.",
        ],
    );
    let value = scratch.json(1, &["verify"]);
    assert_eq!((&value["whole"], &value["checkpoints"][0]["damage"]), (&json!(false), &Value::Null));
    assert!(value["checkpoints"][1]["damage"].as_str().unwrap().contains("checksum"), "{value}");
    // What is left is shown, and the rest said.
    let ran = scratch.run(&["show", "cpu0", "account", "alice"]).prints(&[&["checkpoint 1"], &["balance", "500"]]);
    assert!(ran.stderr.contains("warning: cpu0: checkpoint 2 of `cpu0` is damaged"), "{}", ran.stderr);

    damage(&scratch.path("ringhold-data"), 1);
    scratch.run(&["show", "cpu0"]).fails(1, &["no checkpoint of `cpu0` is whole", "the actors start anew"]);
}

#[test]
fn a_chain_is_made_one_checkpoint() {
    let scratch = Scratch::new();
    scratch.filled().run(&["compact", "cpu7"]).fails(2, &["cpu7"]);
    scratch.run(&["compact"]).prints(&[&["DEVICE", "CHECKPOINTS", "NOW"], &["cpu0", "2", "2"]]);
    let value = scratch.json(0, &["list"]);
    assert_eq!((&value["checkpoints"][1]["epoch"], &value["checkpoints"][1]["base"]), (&json!(2), &Value::Null));
    assert_eq!(scratch.json(0, &["show", "cpu0", "account", "bob"])["state"]["balance"], 5);
    scratch.run(&["compact"]).prints(&[&["stands for itself already"]]);
    assert_eq!(scratch.json(0, &["compact", "cuda1"]), json!({"compacted": []}));
}

#[test]
fn an_export_goes_into_a_new_folder_or_that_of_the_same_node() {
    let scratch = Scratch::new();
    scratch.filled().run(&["export", "saved"]).prints(&[&["saved"], &["cpu0, checkpoint 2"], &["cuda1, checkpoint 9"]]);
    scratch.run(&["export", "saved"]).fails(2, &["saved exists"]);
    scratch.run(&["export", "no/folder"]).fails(1, &["no/folder cannot be written"]);
    assert_eq!(
        scratch.json(0, &["export", "one", "--device", "cuda1"])["checkpoints"],
        json!([{"device": "cuda1", "epoch": 9}])
    );

    // A new one becomes the node's.
    let ran = scratch.run(&["import", "saved", "--data-dir", "new"]);
    ran.prints(&[&["cpu0: checkpoint 2, cut at 2026-11-25 12:00:05 UTC"], &["cuda1: checkpoint 9"]]);
    let id = |name: &str| fs::read_to_string(scratch.path(name).join("NODE_ID")).unwrap();
    assert_eq!(id("new"), id("ringhold-data"));
    let alice = scratch.json(0, &["show", "cpu0", "account", "alice", "--data-dir", "new"]);
    assert_eq!(alice["state"]["balance"], 450);

    // Over others only where that is said.
    {
        let (_folder, store) = open(&scratch.path("ringhold-data"), 7);
        commit(&store, "cpu0", 3, None, &[]);
    }
    scratch.run(&["import", "saved"]).fails(
        2,
        &["cpu0: checkpoints 1 to 3 would go, and 2 come in their place", "cuda1: checkpoint 9 would go", "--yes"],
    );
    assert_eq!(scratch.json(0, &["list"])["checkpoints"].as_array().unwrap().len(), 4);
    let imported = scratch.json(0, &["import", "saved", "--yes"]);
    assert_eq!(imported["checkpoints"][0]["epoch"], 2);
    assert_eq!(scratch.json(0, &["list"])["checkpoints"].as_array().unwrap().len(), 2);
    assert_eq!(scratch.json(0, &["show", "cpu0"])["epoch"], 2);
}

#[test]
fn a_file_that_is_damaged_or_of_another_node_changes_nothing() {
    let scratch = Scratch::new();
    scratch.filled().run(&["export", "saved"]).prints(&[]);
    let mut bytes = fs::read(scratch.path("saved")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(scratch.path("damaged"), &bytes).unwrap();
    let before = scratch.json(0, &["list"])["checkpoints"].clone();
    scratch.run(&["import", "damaged", "--yes"]).fails(1, &["damaged cannot be imported", "has another checksum"]);
    assert_eq!(scratch.json(0, &["list"])["checkpoints"], before);
    // Nor is a folder made for it.
    scratch.run(&["import", "damaged", "--data-dir", "new"]).fails(1, &["damaged"]);
    assert!(!scratch.path("new").exists());
    scratch.run(&["import", "nothing"]).fails(1, &["nothing cannot be imported", "No such file"]);

    drop(open(&scratch.path("other"), 8));
    scratch.run(&["import", "saved", "--yes", "--data-dir", "other"]).fails(2, &["is of node", "07070707"]);
    assert_eq!(scratch.json(0, &["list", "--data-dir", "other"])["checkpoints"], json!([]));
}

#[test]
fn a_folder_that_is_none_or_that_a_node_has_open_is_refused() {
    let scratch = Scratch::new();
    scratch.run(&["list"]).fails(2, &["ringhold-data is no data folder", "--data-dir"]);
    assert!(!scratch.path("ringhold-data").exists());
    let held = open(&scratch.path("ringhold-data"), 7);
    for args in [&["list"][..], &["verify"], &["compact"], &["export", "saved"]] {
        let holder = format!("in use by process {}", std::process::id());
        scratch.run(args).fails(1, &[&holder, "stop it"]);
    }
    drop(held);
    scratch.run(&["list"]).prints(&[&["no checkpoints are kept"]]);
    scratch.run(&["verify"]).prints(&[&["no checkpoints are kept"]]);
    scratch.run(&["export", "saved"]).fails(1, &["nothing to export"]);
}

/// Asks the account of alice on a node with this data folder, and ends the node in order.
fn ask_alice(scratch: &Scratch, data_dir: &str, message: &str) -> Value {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringhold"));
        command.args(args).args(["--data-dir", data_dir, "--json"]).current_dir(scratch.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped());
        command
    };
    let log = fs::File::create(scratch.path("log")).unwrap();
    let mut node = run(&["node", "start", "--listen", "127.0.0.1:0"]).stderr(log).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let listening: Value = serde_json::from_str(&line).expect("the node listens");
    let address = listening["listening"].as_str().unwrap();
    let asked = run(&["actor", "ask", "account", "alice", message, "--address", address]).output().unwrap();
    // The folder is the node's until it has ended.
    scratch.run(&["list", "--data-dir", data_dir]).fails(1, &["in use by process", "stop it"]);
    kill_process(Pid::from_child(&node), Signal::TERM).unwrap();
    assert!(node.wait().unwrap().success(), "{}", fs::read_to_string(scratch.path("log")).unwrap());
    serde_json::from_slice(&asked.stdout).unwrap()
}

#[test]
fn what_a_node_has_kept_is_shown_and_goes_on_elsewhere() {
    let scratch = Scratch::new();
    let balance = |cents: i64| json!({"Balance": {"cents": cents}});
    assert_eq!(ask_alice(&scratch, "here", r#"{"Deposit": {"cents": 42}}"#), balance(42));
    let verified = scratch.json(0, &["verify", "--data-dir", "here"]);
    let device = verified["checkpoints"][0]["device"].as_str().unwrap();
    let alice = scratch.json(0, &["show", device, "account", "alice", "--data-dir", "here"]);
    assert_eq!(alice["state"], json!({"balance": 42, "operations": 1}));

    assert_eq!(scratch.run(&["export", "saved", "--data-dir", "here"]).code, 0);
    assert_eq!(scratch.run(&["import", "saved", "--data-dir", "there"]).code, 0);
    assert_eq!(ask_alice(&scratch, "there", r#"{"Deposit": {"cents": 8}}"#), balance(50));
    // A moment that was kept is gone back to.
    assert_eq!(scratch.run(&["import", "saved", "--yes", "--data-dir", "there"]).code, 0);
    assert_eq!(ask_alice(&scratch, "there", r#""Read""#), balance(42));
}
