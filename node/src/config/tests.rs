use std::fs;

use super::*;

/// The problems of a file with this text, one line each.
fn problems(text: &str) -> Vec<String> {
    match load(text) {
        Ok(_) => Vec::new(),
        Err(Error::Invalid(invalid)) => invalid
            .problems
            .iter()
            .map(|p| {
                let line = p.line.map_or("-".into(), |line| line.to_string());
                format!("{line} | {} | {} | {} | {}", p.field, p.value, p.rule, p.fix)
            })
            .collect(),
        Err(error) => panic!("{error}"),
    }
}

fn load(text: &str) -> Result<Config, Error> {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("node.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), &Overrides::default())
}

fn says(text: &str, expected: &[&str]) {
    assert_eq!(problems(text), expected, "{text}");
}

#[test]
fn the_printed_default_is_the_default() {
    let text = Config::default().to_toml();
    assert_eq!(load(&text).unwrap(), Config::default());
    assert_eq!(load("").unwrap(), Config::default());
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}

#[test]
fn the_book_shows_the_default() {
    let book = include_str!("../../../deploy/ringhold.toml");
    assert_eq!(book, Config::default().to_toml(), "write it anew: ringhold config default > deploy/ringhold.toml");
}

#[test]
fn every_field_is_printed_documented_and_read_back() {
    let config = Config {
        node: Node {
            name: Some("n".into()),
            cluster: "c".into(),
            data_dir: "d".into(),
            listen: "[::1]:9".parse().unwrap(),
            drain_timeout: Duration::from_millis(90_001),
            advertise: Some("node-7.example:7420".into()),
            zone: Some("rack-4".into()),
            lease: Duration::from_millis(900),
            join: vec!["10.0.0.1:7420".into(), "b.example:7420".into()],
        },
        tls: Tls::default(),
        devices: Devices(vec![
            Device {
                name: Some("a".into()),
                workers: Some(3),
                host: Host::InProcess,
                fallback: Fallback::Cpu,
                ..Device::default()
            },
            Device { memory_bytes: Some(1 << 30), ..Device::default() },
        ]),
        queues: Queues {
            ingress_slots: 16,
            egress_slots: 1 << 20,
            inbox_slots: 64,
            slot_bytes: 4_096,
            overflow: Overflow::DropOldest,
            high_water_percent: 100,
            low_water_percent: 99,
            batch_messages: 64,
        },
        actors: Actors {
            threads_per_actor: 32,
            committed: vec!["account".into()],
            deadlines: [("bank.account".into(), Duration::from_millis(500)), ("b".into(), Duration::from_secs(60))]
                .into(),
        },
        checkpoints: Checkpoints {
            enabled: false,
            interval: Duration::from_secs(2),
            committed_interval: Duration::from_millis(5),
            retained_bytes: 2 << 20,
            kept: 3,
        },
        limits: Limits { sessions: 1, memory_bytes: Some(1 << 30) },
        health: Health { listen: Some("[::1]:80".parse().unwrap()) },
        dead_letters: DeadLetters { kept: 0 },
        supervision: Supervision {
            stalled_after: Duration::from_secs(3_600),
            restart_backoff_min: Duration::from_millis(1),
            restart_backoff_max: Duration::from_millis(1),
            breaker_failures: 9,
            breaker_window: Duration::from_millis(2),
            breaker_retry_min: Duration::from_millis(3),
            breaker_retry_max: Duration::from_secs(86_400),
        },
        log: Log { level: Level::Trace, format: Format::Json },
    };
    let text = config.to_toml();
    assert_eq!(load(&text).unwrap(), config, "{text}");
    for line in text.lines().collect::<Vec<_>>().windows(2) {
        let field = line[1].trim_start_matches("# ").contains(" = ");
        assert!(!field || line[0].starts_with("# ") || line[0].starts_with('#'), "{} is not documented", line[1]);
    }
}

#[test]
fn every_rule_names_field_line_value_rule_and_fix() {
    says(
        "[queues]\ningress_slots = 1000\negress_slots = 2097152\ninbox_slots = 0\nslot_bytes = 100\n",
        &[
            "2 | queues.ingress_slots | 1000 | a power of two from 16 to 1048576 | write 1024 (or 512)",
            "3 | queues.egress_slots | 2097152 | a power of two from 16 to 1048576 | write 1048576",
            "4 | queues.inbox_slots | 0 | a power of two from 16 to 1048576 | write 16",
            "5 | queues.slot_bytes | 100 | a power of two from 64 to 4096 | write 128 (or 64)",
        ],
    );
    says(
        "[actors]\nthreads_per_actor = 1025\n[queues]\nslot_bytes = 8192\nhigh_water_percent = 50\n",
        &[
            "2 | actors.threads_per_actor | 1025 | a whole number from 1 to 1024 | write 1024",
            "4 | queues.slot_bytes | 8192 | a power of two from 64 to 4096 | write 4096",
            "- | queues.low_water_percent | 60 | less than queues.high_water_percent, which is 50 | write 30",
        ],
    );
    says(
        "devices = []\n",
        &["1 | devices | [] | at least one device | \
           add a [[devices]] table, or leave `devices` out for one CPU device"],
    );
    says(
        "[[devices]]\nkind = \"gpu\"\nworkers = 0\n[[devices]]\nname = \"cpu0\"\nhost = \"inprocess\"\n",
        &[
            "2 | devices[0].kind | \"gpu\" | \"auto\", \"cpu\", \"cuda\" or \"emulated\" | write \"cpu\"",
            "3 | devices[0].workers | 0 | \"auto\" or a whole number from 1 to 1024 | write 1",
            "5 | devices[1].name | \"cpu0\" | a name that no other device has | give one of the two another name",
            "6 | devices[1].host | \"inprocess\" | \"process\" or \"in-process\" | write \"in-process\"",
        ],
    );
    says(
        "[supervision]\nrestart_backoff_min = \"20s\"\nstalled_after = \"1ms\"\n",
        &[
            "3 | supervision.stalled_after | \"1ms\" | \
             a length of time from \"100ms\" to \"1h\" (units: ms, s, m, h) | write \"100ms\"",
            "- | supervision.restart_backoff_max | \"10s\" | \
             no less than supervision.restart_backoff_min, which is \"20s\" | write \"20s\"",
        ],
    );
    says(
        "[node]\nname = \"a b\"\ncluster = \"\"\ndata_dir = \"\"\n",
        &[
            "2 | node.name | \"a b\" | a name of 1 to 63 letters, digits, `-`, `_` and `.` | write \"a-b\"",
            "3 | node.cluster | \"\" | a name of 1 to 63 letters, digits, `-`, `_` and `.` | \
             give it a name, or leave the line out",
            "4 | node.data_dir | \"\" | a path | give the path, or leave the line out",
        ],
    );
}

#[test]
fn deadlines_by_actor_type_are_a_table_or_its_lines() {
    let table = load("[actors.deadlines]\n\"bank.account\" = \"500ms\"\ncounter = \"2m\"\n").unwrap();
    let inline = load("[actors]\ndeadlines = { \"bank.account\" = \"500ms\", counter = \"120s\" }\n").unwrap();
    assert_eq!(table, inline);
    assert_eq!(table.actors.deadlines["bank.account"], Duration::from_millis(500));
    let rule = "names with, for each, a length of time from \"100ms\" to \"1h\" (units: ms, s, m, h)";
    let bad = |value: &str, fix: &str| {
        says(
            &format!("[actors]\ndeadlines = {value}\n"),
            &[&format!("2 | actors.deadlines | {value} | {rule} | {fix}")],
        );
    };
    bad("\"5s\"", "write { \"bank.account\" = \"500ms\" }");
    bad("{ counter = 5 }", "for \"counter\", write \"5s\"");
    bad("{ counter = \"soon\" }", "for \"counter\", write \"500ms\"");
    bad("{ bank.account = \"5s\" }", "put quotes around the name: \"bank.…\"");
    says(
        "[actors]\ndeadlines = { counter = \"5ms\" }\n",
        &[&format!("2 | actors.deadlines | {{ \"counter\" = \"5ms\" }} | {rule} | for \"counter\", write \"100ms\"")],
    );
}

#[test]
fn ports_and_addresses_are_checked() {
    let rule = "an IP address and a port from 1 to 65535, \"IP:PORT\"";
    for (listen, fix) in [
        ("127.0.0.1:70000", "write \"127.0.0.1:7420\""),
        ("127.0.0.1", "write \"127.0.0.1:7420\""),
        ("localhost:7000", "write \"127.0.0.1:7000\""),
        (":7000", "write \"0.0.0.0:7000\" to listen on every address of the host"),
        ("127.0.0.1:0", "name a port, or start the node with `--listen 127.0.0.1:0` to take any free one"),
        ("example.org:x", "write, for example, \"127.0.0.1:7420\""),
    ] {
        says(
            &format!("[node]\nlisten = \"{listen}\"\n"),
            &[&format!("2 | node.listen | \"{listen}\" | {rule} | {fix}")],
        );
    }
    says(
        "[node]\nlisten = 7420\n",
        &[&format!("2 | node.listen | 7420 | {rule} | write, for example, \"127.0.0.1:7420\"")],
    );
}

#[test]
fn wrong_types_and_unknown_names_are_told_with_their_lines() {
    says(
        "[queues]\nslot_bytes = \"128\"\noverflow = true\nhigh_water_percent = 80.5\nslot_byte = 64\nlisten = \"x\"\n\n\
         [node]\ndrain_timeout = 30\nlisten = { port = 1 }\n[lgo]\nlevel = \"info\"\n",
        &[
            "2 | queues.slot_bytes | \"128\" | a power of two from 64 to 4096 | write 128, without quotes",
            "3 | queues.overflow | true | \"block\", \"drop-oldest\", \"drop-newest\" or \"reject\" | \
             write, for example, \"block\"",
            "4 | queues.high_water_percent | 80.5 | a whole number from 2 to 100 | write, for example, 80",
            "5 | queues.slot_byte | 64 | the name of a field of this section | did you mean `slot_bytes`?",
            "6 | queues.listen | \"x\" | the name of a field of this section | `listen` belongs in [node]",
            "9 | node.drain_timeout | 30 | a length of time from \"0s\" to \"1h\" (units: ms, s, m, h) | write \"30s\"",
            "10 | node.listen | { port = 1 } | an IP address and a port from 1 to 65535, \"IP:PORT\" | \
             write, for example, \"127.0.0.1:7420\"",
            "11 | lgo |  | the name of a section | did you mean [log]?",
        ],
    );
    says(
        "slot_bytes = 64\nnode = 5\nzebra = 1\n",
        &[
            "1 | slot_bytes | 64 | the name of a section | move it under [queues]",
            "2 | node | 5 | a section | write [node], and its fields on the lines below",
            "3 | zebra | 1 | the name of a section | remove it; there are node, tls, devices, queues, actors, checkpoints, \
             limits, dead_letters, health, supervision, log",
        ],
    );
    says(
        "[devices]\nkind = \"cpu\"\n",
        &["1 | devices |  | one or more [[devices]] tables | write [[devices]] before the fields of each"],
    );
    says(
        "[queues]\nslot_bytes = 99999999999999999999\noverflow = \"blok\"\n",
        &[
            "2 | queues.slot_bytes | 99999999999999999999 | a power of two from 64 to 4096 | write 4096",
            "3 | queues.overflow | \"blok\" | \"block\", \"drop-oldest\", \"drop-newest\" or \"reject\" | write \"block\"",
        ],
    );
}

#[test]
fn broken_toml_is_told_with_its_line_beside_the_other_errors() {
    let found = problems("[queues]\nslot_bytes = = 4\noverflow = \"blok\"\n[queues]\n");
    assert!(found.iter().any(|p| p.starts_with("2 | syntax | slot_bytes = = 4 |")), "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("3 | queues.overflow")), "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("4 | syntax | [queues] |")), "{found:#?}");
}

#[test]
fn files_and_folders_are_checked_on_this_machine() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "no certificate").unwrap();
    let file = file.display();
    let found =
        problems(&format!("[node]\ndata_dir = \"{file}/data\"\n[tls]\nca_file = \"{file}\"\nkey_file = \"/none\"\n"));
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with("2 | node.data_dir |") && found[0].contains("write to, or make"), "{found:#?}");
    assert!(found[1].starts_with("3 | tls.certificate_file |  | set, as others of [tls] are"), "{found:#?}");
    assert!(found[2].starts_with("4 | tls.ca_file |") && found[2].contains("convert it to PEM"), "{found:#?}");
    assert!(found[3].starts_with("5 | tls.key_file |") && found[3].contains("No such file"), "{found:#?}");
    // Even root cannot write here.
    let found = problems("[node]\ndata_dir = \"/proc/none/data\"\n");
    assert!(found.is_empty() || found[0].contains("choose another folder"), "{found:#?}");
}

#[test]
fn what_cannot_be_read_is_said_so() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("none.toml");
    let says = |path: &Path| Config::load(Some(path), &Overrides::default()).unwrap_err().to_string();
    assert!(says(&path).contains("none.toml cannot be read: No such file"), "{}", says(&path));
    assert!(says(scratch.path()).contains("Is a directory"), "{}", says(scratch.path()));
    fs::write(&path, b"[node]\nname = \"\xff\"\n").unwrap();
    assert!(says(&path).contains("line 2 holds bytes that are no UTF-8"), "{}", says(&path));
}

#[test]
fn flags_win_over_the_file_and_lose_its_line() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("node.toml");
    fs::write(&path, "[node]\nlisten = \"10.0.0.1:1\"\ndata_dir = \"a\"\n").unwrap();
    let overrides =
        Overrides { data_dir: Some(path.clone()), listen: Some("127.0.0.1:0".parse().unwrap()), join: Vec::new() };
    let Err(Error::Invalid(invalid)) = Config::load(Some(&path), &overrides) else { panic!("a file is no folder") };
    assert_eq!(invalid.problems.len(), 1, "{invalid}");
    assert_eq!((invalid.problems[0].field.as_str(), invalid.problems[0].line), ("node.data_dir", None));
    let overrides = Overrides { data_dir: Some(scratch.path().join("x/y")), ..overrides };
    let config = Config::load(Some(&path), &overrides).unwrap();
    assert_eq!(config.node.listen.port(), 0);
}

#[test]
fn a_device_without_a_name_is_named_after_its_kind() {
    let named = Device { name: Some("fast".into()), ..Device::default() };
    let config = Config { devices: Devices(vec![Device::default(), named, Device::default()]), ..Config::default() };
    assert_eq!([0, 1, 2].map(|i| config.device_name(i)), ["cpu0", "fast", "cpu2"]);
}
