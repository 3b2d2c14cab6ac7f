//! The command line against a node: a real server behind which a script stands in for the devices, so that every
//! answer there can be is given.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use ringhold::server::{About, Doors, Options, Server, Session, Sessions};
use ringhold_cluster::network::{BoxFuture, RealNetwork};
use ringhold_cluster::tls::{Authority, Files, Identity, Role};
use ringhold_cluster::wire::{
    ActorState, ActorType, ClockStatus, DeadLetter, DeadLetters, DeviceHealth, DeviceState, DeviceStatus,
    DeviceVerdict, Failed, Health, LetterStrike, LettersDone, NodeName, NodeState, Request, Response, Status,
    TypeLayout, Verdict, WorkerStatus,
};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::{self, Header, Kind, Reason};
use ringhold_kernels::schema::{Enum, Field, Schema, Struct, Type, Variant};
use serde_json::{Value, json};

const PAYLOAD_BYTES_MAX: u32 = 60;

fn field(name: &str, offset: u32, ty: Type) -> Field {
    Field { name: name.into(), offset, ty }
}

fn variant(name: &str, fields: Vec<Field>) -> Variant {
    Variant { name: name.into(), fields }
}

fn schema(name: &str, message_bytes: u32) -> Schema {
    let array = Type::Array(Box::new(Type::U8), message_bytes - 16);
    let messages = vec![
        variant("Deposit", vec![field("cents", 8, Type::I64)]),
        variant("Link", vec![field("to", 8, Type::ActorId)]),
        variant("Fill", vec![field("bytes", 8, array)]),
        variant("Read", vec![]),
    ];
    let replies = vec![variant("Balance", vec![field("cents", 8, Type::I64)])];
    let state = vec![field("balance", 0, Type::I64), field("owner", 8, Type::ActorId)];
    Schema {
        name: name.into(),
        about: "Keeps money.".into(),
        threads_per_actor: 1,
        state: Type::Struct(Struct { name: "State".into(), size: 24, align: 8, fields: state }),
        message: Type::Enum(Enum { name: "Message".into(), size: message_bytes, align: 8, variants: messages }),
        reply: Type::Enum(Enum { name: "Reply".into(), size: 16, align: 8, variants: replies }),
    }
}

fn schemas() -> [Schema; 2] {
    [schema("account", 56), schema("wide", 120)]
}

fn key(name: &str) -> Key {
    Key::name(name).unwrap()
}

/// One account, `alice`; what other keys do is in their names.
#[derive(Default)]
struct Script {
    balance: AtomicI64,
}

impl Script {
    fn answer(&self, session: &Session, ask: Header, payload: &[u8]) {
        let reply = |kind, payload: &[u8]| {
            let header = Header::new(kind, ask.from(), ask.to(), payload.len(), Hlc(1));
            session.answer(header, payload);
        };
        let error = |reason: Reason, text: &str| {
            let header = Header::new(Kind::Error, ask.from(), ask.to(), text.len(), Hlc(1)).with_reason(reason);
            session.answer(header, text.as_bytes());
        };
        match ask.to().key {
            k if k == key("alice") => {
                let mut bytes = vec![0; 16];
                bytes[8..].copy_from_slice(&self.handle(payload).to_le_bytes());
                reply(Kind::Reply, &bytes);
            }
            k if k == key("fault") => error(Reason::FaultDivisionByZero, "line 7"),
            k if k == key("mute") => error(Reason::NoReply, ""),
            k if k == key("lost") => error(Reason::StateLost, ""),
            k if k == key("odd") => reply(Kind::Reply, &[9; 16]),
            // Nobody answers: the deadline has to.
            _ => {}
        }
    }

    fn handle(&self, payload: &[u8]) -> i64 {
        let tag = u32::from_le_bytes(payload[..4].try_into().unwrap());
        let cents = i64::from_le_bytes(payload[8..16].try_into().unwrap());
        let change = if tag == 0 { cents } else { 0 };
        self.balance.fetch_add(change, SeqCst) + change
    }
}

impl Doors for Script {
    fn admit(&self, session: &Arc<Session>, batch: &[u8]) -> usize {
        let mut rest = batch;
        while let Some((header, payload, after)) = message::split_first(rest) {
            match header.kind() {
                Some(Kind::Ask) => self.answer(session, header, payload),
                _ => drop(self.handle(payload)),
            }
            rest = after;
        }
        batch.len()
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn dead_letters(&self, _: &[u8], _: Reason) {}

    fn request(&self, request: Request) -> BoxFuture<'_, Response> {
        let device = DeviceStatus {
            name: "cpu0".into(),
            state: DeviceState::Running,
            pid: Some(4_711),
            handled: 336_776,
            handled_per_s: 4_321,
            clock: Some(ClockStatus {
                offset_ns: -1_700_000_000_000_000_000,
                drift_ppb: -250,
                error_ns: 900,
                ..ClockStatus::default()
            }),
            workers: vec![WorkerStatus::default()],
            unhandled: vec![(Reason::NoActor as u8, 3)],
            ..DeviceStatus::default()
        };
        let to = ActorId::new(TypeId::of("account"), key("bob"));
        let response = match request {
            Request::Cluster(_) | Request::Owners => Response::Failed(Failed::text("the node stands alone")),
            Request::LeaveBackend { .. } => Response::Failed(Failed::text("there is nothing to fall back to")),
            Request::Status => Response::Status(Box::new(Status {
                node: self.about().node,
                state: NodeState::Running,
                devices: vec![device],
                dead_letters_kept: 1,
                dead_letters: 1,
                ..Status::default()
            })),
            Request::Devices => Response::Devices(vec![device]),
            Request::ActorTypes => Response::ActorTypes(schemas().map(actor_type).into()),
            Request::Inspect { type_id, key: k } if Key::from(k) == key("alice") => {
                let mut state = self.balance.load(SeqCst).to_le_bytes().to_vec();
                state.extend([0; 16]);
                let device = "cpu0".into();
                let layout_hash = schemas()[0].layout_hash();
                Response::Inspected(ActorState {
                    type_id,
                    key: k,
                    device,
                    worker: 0,
                    handled: 2,
                    faults: 0,
                    layout_hash,
                    state,
                })
            }
            Request::Inspect { .. } => Response::Failed(Failed::new(Reason::NoActor, Reason::NoActor.to_string())),
            Request::DeadLetters { filter, limit } => {
                let letter = DeadLetter {
                    number: 7,
                    at_us: 3_723_004_000,
                    device: "cpu0".into(),
                    history: vec![LetterStrike { at_us: 3_700_000_000, term: 4, how: "killed by signal 11".into() }],
                    hlc: Hlc::at_us(3_600_000_000),
                    reason: Reason::Poison as u8,
                    to_type: to.type_id,
                    to_key: to.key.into(),
                    from_type: TypeId::CLIENT,
                    from_key: Key(1).into(),
                    payload: [vec![3], vec![0; 55]].concat(),
                };
                let matches = filter.numbers.is_none_or(|numbers| numbers.contains(&7))
                    && filter.reason.is_none_or(|reason| reason == letter.reason);
                Response::DeadLetters(DeadLetters {
                    matching: matches.into(),
                    newest: matches.then_some(7),
                    letters: if matches { vec![letter; limit.min(1) as usize] } else { vec![] },
                })
            }
            Request::RetryDeadLetters { filter, .. } => {
                assert_eq!(filter.newest, Some(7), "none that came since the question");
                let left = vec![(Reason::NoDevice as u8, 2)];
                Response::DeadLettersDone(LettersDone { matching: 3, done: 1, left })
            }
            Request::DropDeadLetters { .. } => {
                Response::DeadLettersDone(LettersDone { matching: 1, done: 1, left: vec![] })
            }
            Request::Health => Response::Health(Health {
                live: Verdict { ok: true, reasons: vec![] },
                ready: Verdict { ok: false, reasons: vec!["the node is draining".into()] },
                devices: vec![DeviceHealth {
                    name: "cpu0".into(),
                    state: DeviceState::Running,
                    verdict: DeviceVerdict::Degraded,
                    reason: "on the CPU".into(),
                }],
            }),
            Request::Settle { .. } | Request::Retry { .. } | Request::Drain { .. } => {
                Response::Failed(Failed::text("not here"))
            }
        };
        Box::pin(std::future::ready(response))
    }

    fn about(&self) -> About {
        About {
            node: NodeName { id: "id".into(), name: "node-1".into(), cluster: "c".into(), version: "0.1.0".into() },
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            types: schemas().iter().map(TypeLayout::of).collect(),
        }
    }
}

fn actor_type(schema: Schema) -> ActorType {
    ActorType { type_id: schema.type_id(), layout_hash: schema.layout_hash(), schema, actors: 1, handled: 2, faults: 0 }
}

/// A running server with a folder of certificates.
struct Node {
    folder: tempfile::TempDir,
    address: String,
    /// Dropped, it would answer no more.
    _server: Server,
    _runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let tls = folder.path().join("ringhold-data/tls");
        std::fs::create_dir_all(tls.parent().unwrap()).unwrap();
        Authority::open_or_create(&tls, &RealNetwork).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            identity: Identity::load(Files::node(&tls), Role::Node, &RealNetwork).unwrap(),
            network: Arc::new(RealNetwork),
            sessions_max: 10,
            peers: None,
        };
        let sessions = Arc::new(Sessions::default());
        let server = runtime.block_on(async { Server::start(options, sessions, Arc::new(Script::default())).unwrap() });
        Node { folder, address: server.address().to_string(), _server: server, _runtime: runtime }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command: its exit code, stdout and stderr.
    #[track_caller]
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringhold"));
        command.args(args).args(["--address", &self.address]).current_dir(self.path()).stdin(Stdio::null());
        // The server runs only while its runtime is driven.
        let output = self._runtime.block_on(async {
            tokio::task::spawn_blocking(move || command.output().expect("the binary runs")).await.unwrap()
        });
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {stdout}"))
    }

    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, says: &[&str]) -> String {
        let (found, stdout, stderr) = self.run(args);
        assert_eq!(found, code, "{args:?}: {stdout}{stderr}");
        for text in says {
            assert!(stderr.contains(text), "{args:?}: no `{text}` in {stderr}");
        }
        stdout
    }
}

#[test]
fn actors_are_told_asked_and_inspected() {
    let node = Node::start();
    let deposit = "{\"Deposit\": {\"cents\": 5}}";
    assert_eq!(node.json(&["actor", "ask", "account", "alice", deposit]), json!({"Balance": {"cents": 5}}));
    assert_eq!(
        node.json(&["actor", "tell", "account", "alice", deposit]),
        json!({"sent": {"type": "account", "key": "alice"}})
    );
    let (code, stdout, _) = node.run(&["actor", "ask", "account", "alice", "Read"]);
    assert_eq!((code, stdout.as_str()), (0, "{\"Balance\":{\"cents\":10}}\n"));
    let state = node.json(&["actor", "inspect", "account", "alice"]);
    assert_eq!((&state["state"], &state["handled"]), (&json!({"balance": 10, "owner": null}), &json!(2)));
    let (_, stdout, _) = node.run(&["actor", "inspect", "account", "alice"]);
    assert!(stdout.contains("account alice on cpu0") && stdout.contains("balance  10"), "{stdout}");
}

#[test]
fn every_way_an_ask_can_end_has_its_exit_code() {
    let node = Node::start();
    let ask = |key: &'static str| ["actor", "ask", "account", key, "Read", "--deadline", "400ms"];
    node.fails(&ask("fault"), 5, &["account fault did not reply", "divided by zero", "line 7"]);
    node.fails(&ask("mute"), 5, &["without a reply"]);
    node.fails(&ask("lost"), 5, &["the state of its actors was lost"]);
    node.fails(&ask("silent"), 6, &["did not reply within 400 ms"]);
    node.fails(&ask("odd"), 1, &["no reply of account"]);
    node.fails(&["actor", "inspect", "account", "nobody"], 5, &["the actor does not exist"]);
    let stdout = node.fails(&[&ask("fault")[..], &["--json"]].concat(), 5, &[]);
    let error: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&error["error"]["kind"], &error["error"]["exit_code"]), (&json!("actor"), &json!(5)));
}

#[test]
fn bad_messages_are_told_what_was_expected_where() {
    let node = Node::start();
    let ask = |message| node.run(&["actor", "ask", "account", "alice", message]);
    for (message, says) in [
        ("{\"Deposit\": {\"cents\": \"5\"}}", &["at Deposit.cents", "whole number", "without quotes"][..]),
        ("{\"Deposit\": {}}", &["no field `cents`"]),
        ("{\"Deposit\": {\"cent\": 5}}", &["unknown field `cent`", "did you mean `cents`?"]),
        ("Reed", &["one of Deposit, Link, Fill, Read", "did you mean `Read`?"]),
        ("[1]", &["an array of 1 items", "write, for example, {\"Deposit\": {\"cents\": 0}}"]),
        ("{\"Link\": {\"to\": {\"type\": \"acount\", \"key\": 1}}}", &["at Link.to.type", "did you mean `account`?"]),
    ] {
        let (code, _, stderr) = ask(message);
        assert_eq!(code, 2, "{message}: {stderr}");
        for text in says.iter().chain(&["ringhold actor types account"]) {
            assert!(stderr.contains(text), "{message}: no `{text}` in {stderr}");
        }
    }
    node.fails(
        &["actor", "ask", "acount", "alice", "Read"],
        2,
        &["no actor type `acount`; did you mean `account`?", "It has account, wide"],
    );
    node.fails(
        &["actor", "ask", "wide", "alice", "Read"],
        2,
        &["takes 120 bytes", "at most 60", "queues.slot_bytes to 256"],
    );
}

#[test]
fn the_node_its_devices_and_types_are_shown() {
    let node = Node::start();
    let (_, stdout, _) = node.run(&["status"]);
    let counted = ["336,776", "4,321", "± 900ns", "-0.2 ppm", "cpu0: 3 × the actor does not exist"];
    for text in ["node-1", "running", &node.address, "command line"].into_iter().chain(counted) {
        assert!(stdout.contains(text), "no `{text}` in {stdout}");
    }
    let status = node.json(&["status"]);
    assert_eq!((&status["state"], &status["node"]["name"]), (&json!("running"), &json!("node-1")));
    assert_eq!(status["devices"][0]["unhandled"], json!({"no_actor": 3}));
    assert_eq!(status["devices"][0]["handled_per_s"], 4_321);
    assert_eq!(status["devices"][0]["clock"]["offset_ns"], -1_700_000_000_000_000_000i64, "exactly");
    assert_eq!(status["devices"][0]["clock"]["error_ns"], 900);
    assert_eq!(node.json(&["devices"])["devices"][0]["workers"][0]["state"], "idle");
    assert!(node.run(&["devices"]).1.contains("WORKER"));

    let types = node.json(&["actor", "types"]);
    assert_eq!((&types[0]["name"], &types[0]["message_bytes"]), (&json!("account"), &json!(56)));
    let one = node.run(&["actor", "types", "account"]).1;
    assert!(
        one.contains("cents: i64") && one.contains("actor ask account KEY '{\"Deposit\": {\"cents\": 0}}'"),
        "{one}"
    );
    node.fails(&["actor", "types", "Account"], 2, &["did you mean `account`?"]);
}

#[test]
fn health_is_told_in_words_json_and_exit_codes() {
    let node = Node::start();
    assert_eq!(node.json(&["health", "live"]), json!({"live": true, "reasons": []}));
    let (code, stdout, _) = node.run(&["health"]);
    assert_eq!((code, stdout.as_str()), (1, "not ready\nthe node is draining\n"));
    let (code, stdout, _) = node.run(&["health", "ready", "--json"]);
    assert_eq!((code, stdout.as_str()), (1, "{\"ready\":false,\"reasons\":[\"the node is draining\"]}\n"));
    let (code, stdout, _) = node.run(&["health", "devices"]);
    assert!(code == 0 && stdout.contains("cpu0    degraded  on the CPU"), "a degraded device works: {stdout}");
    node.fails(&["health", "alive"], 2, &["live, ready, devices"]);
}

#[test]
fn dead_letters_are_listed_shown_sent_again_and_dropped() {
    let node = Node::start();
    let listed = node.json(&["deadletter", "list"]);
    let letter = &listed["letters"][0];
    assert_eq!((&listed["matching"], &letter["number"]), (&json!(1), &json!(7)));
    assert_eq!((&letter["reason"], &letter["message"]), (&json!("poison"), &json!("Read")));
    assert_eq!(letter["to"], json!({"type": "account", "key": "bob"}));
    let (_, stdout, _) = node.run(&["deadletter", "list", "--type", "account", "--reason", "poison"]);
    assert!(stdout.contains("7  1970-01-01 01:02:03  a client  account bob  \"Read\""), "{stdout}");
    assert!(node.run(&["deadletter", "list", "--limit", "0"]).1.contains("and 1 older ones"));
    assert!(node.run(&["deadletter", "list", "--reason", "no-actor"]).1.contains("no dead letters are kept"));
    node.fails(&["deadletter", "list", "--reason", "poisen"], 2, &["did you mean `poison`?"]);
    node.fails(&["deadletter", "list", "--type", "Account"], 2, &["did you mean `account`?"]);

    let shown = node.json(&["deadletter", "show", "7"]);
    assert_eq!(shown["history"], json!([{"at_us": 3_700_000_000u64, "host": 4, "how": "killed by signal 11"}]));
    assert_eq!(shown["payload"].as_str().unwrap().len(), 112);
    let (_, stdout, _) = node.run(&["deadletter", "show", "7"]);
    assert!(stdout.contains("1970-01-01 01:01:40     4  killed by signal 11"), "{stdout}");
    node.fails(&["deadletter", "show", "8"], 1, &["no dead letter 8 is kept"]);

    node.fails(&["deadletter", "drop", "7"], 2, &["1 dead letter would be forgotten", "--yes"]);
    node.fails(&["deadletter", "drop", "--yes"], 2, &["say which"]);
    node.fails(&["deadletter", "drop", "8", "--yes"], 1, &["no such dead letter"]);
    let dropped = node.json(&["deadletter", "drop", "7", "--yes"]);
    assert_eq!(dropped, json!({"dropped": 1, "matching": 1, "not_kept": 0, "left": {}}));
    let (code, stdout, _) = node.run(&["deadletter", "drop", "7", "8", "--yes"]);
    assert_eq!((code, stdout.contains("1 of those numbers not kept")), (1, true), "{stdout}");
    let (code, stdout, _) = node.run(&["deadletter", "retry", "--all", "--yes"]);
    assert_eq!((code, stdout.as_str()), (1, "1 dead letter retried\n2 left where they were: no device is running\n"));
}

#[test]
fn without_the_right_certificate_nobody_gets_in_and_everybody_is_told_why() {
    let node = Node::start();
    let tls = node.path().join("ringhold-data/tls");
    let copy = |to: &Path, names: &[&str]| {
        std::fs::create_dir_all(to).unwrap();
        for name in names {
            std::fs::copy(tls.join(name), to.join(name)).unwrap();
        }
    };
    let anonymous = node.path().join("anonymous");
    copy(&anonymous, &["ca.pem"]);
    node.fails(&["status", "--tls", "anonymous"], 4, &["requires a certificate", "client.pem"]);

    let foreign = node.path().join("foreign");
    Authority::open_or_create(&foreign, &RealNetwork).unwrap();
    node.fails(&["status", "--tls", "foreign"], 4, &["does not vouch for"]);
    copy(&foreign, &["ca.pem"]);
    node.fails(&["status", "--tls", "foreign"], 4, &["client.pem"]);

    node.fails(&["status", "--tls", "none"], 2, &["the folder none holds no ca.pem"]);
    let copied = node.path().join("copied");
    copy(&copied, &["ca.pem", "client.pem", "client.key"]);
    assert_eq!(node.run(&["status", "--tls", "copied"]).0, 0);
}

#[test]
fn a_node_that_is_gone_is_unreachable() {
    let node = Node::start();
    // Certificates are there; at the port is nobody.
    let address = "127.0.0.1:9";
    let output = Command::new(env!("CARGO_BIN_EXE_ringhold"))
        .args(["status", "--deadline", "300ms", "--address", address])
        .current_dir(node.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("no node answers at 127.0.0.1:9: start one with `ringhold node start`"), "{stderr}");
}
