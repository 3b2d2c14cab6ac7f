//! The command line as a user meets it: the real binary, its exit codes, stdout and stderr.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs `ringhold` in the folder.
fn run(folder: &Path, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_ringhold"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    Ran::of(output, args)
}

/// What became of a run.
struct Ran {
    args: String,
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output, args: &[&str]) -> Ran {
        Ran {
            args: args.join(" "),
            code: output.status.code().expect("no signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn ends(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{}\n{}\n{}", self.args, self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{}: {e}: {}", self.args, self.stdout))
    }

    #[track_caller]
    fn says(self, text: &str) -> Ran {
        assert!(self.stderr.contains(text), "{}: no `{text}` in\n{}", self.args, self.stderr);
        self
    }

    #[track_caller]
    fn prints(self, text: &str) -> Ran {
        assert!(self.stdout.contains(text), "{}: no `{text}` in\n{}", self.args, self.stdout);
        self
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn help_documents_commands_and_exit_codes() {
    let folder = scratch();
    let help = run(folder.path(), &["--help"]).ends(0);
    for word in ["demo", "node", "status", "devices", "actor", "config", "completions", "Exit codes:", "--json"] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
    run(folder.path(), &["--version"]).ends(0).prints("ringhold 0.");
    run(folder.path(), &[]).ends(2);
    run(folder.path(), &["stauts"]).ends(2).says("status");
    run(folder.path(), &["status", "--deadline", "soon"]).ends(2).says("500ms, 5s, 1m");
}

#[test]
fn the_default_configuration_is_documented_and_valid() {
    let folder = scratch();
    let text = run(folder.path(), &["config", "default"]).ends(0).stdout;
    fs::write(folder.path().join("node.toml"), &text).unwrap();
    run(folder.path(), &["config", "check", "node.toml"]).ends(0).prints("no errors");
    run(folder.path(), &["config", "check"]).ends(0);
    let json = run(folder.path(), &["config", "default", "--json"]).ends(0).json();
    assert_eq!(json["queues"]["slot_bytes"], 128);
    assert_eq!(json, toml::from_str::<Value>(&text).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "checking makes nothing");
}

#[test]
fn all_errors_of_a_configuration_are_listed_with_field_value_rule_and_fix() {
    let folder = scratch();
    let text = "[queues]\nslot_bytes = 100\noverflow = \"blok\"\nslots = 1\n\n[actors]\nthreads_per_actor = 2000\n";
    fs::write(folder.path().join("node.toml"), text).unwrap();
    let ran = run(folder.path(), &["config", "check", "node.toml"]).ends(2).says("the configuration has 4 errors");
    let expected =
        "node.toml:2: queues.slot_bytes = 100\n  rule: a power of two from 64 to 4096\n  fix:  write 128 (or 64)";
    let ran = ran.says(expected).says("node.toml:3: queues.overflow = \"blok\"").says("node.toml:4: queues.slots = 1");
    ran.says("node.toml:7: actors.threads_per_actor = 2000");

    let json = run(folder.path(), &["config", "check", "node.toml", "--json"]).ends(2).json();
    assert_eq!(json["valid"], false);
    let problems = json["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 4);
    for problem in problems {
        for part in ["field", "line", "value", "rule", "fix"] {
            assert!(!problem[part].is_null(), "{part} of {problem}");
        }
    }
    // A node does not start with it either, and says the same.
    run(folder.path(), &["node", "start", "--config", "node.toml"]).ends(2).says(expected);
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_error_with_a_name() {
    let folder = scratch();
    run(folder.path(), &["config", "check", "none.toml"]).ends(2).says("none.toml cannot be read: No such file");
    run(folder.path(), &["config", "check", "."]).ends(2).says("Is a directory");
    fs::write(folder.path().join("bad.toml"), b"\xff").unwrap();
    run(folder.path(), &["config", "check", "bad.toml"]).ends(2).says("line 1 holds bytes that are no UTF-8");
    let json = run(folder.path(), &["config", "check", "none.toml", "--json"]).ends(2).json();
    assert_eq!((&json["error"]["kind"], &json["error"]["exit_code"]), (&"usage".into(), &2.into()));
}

#[test]
fn completions_know_the_commands() {
    let folder = scratch();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(folder.path(), &["completions", shell]).ends(0).stdout;
        assert!(script.contains("inspect") && script.contains("--data-dir") || shell == "fish", "{shell}");
    }
    run(folder.path(), &["completions", "csh"]).ends(2).says("possible values");
}

#[test]
fn without_a_node_every_command_says_so_and_how_to_start_one() {
    let folder = scratch();
    let commands: [&[&str]; 6] = [
        &["status"],
        &["devices", "--address", "127.0.0.1:7420"],
        &["deadletter", "list"],
        &["actor", "types"],
        &["actor", "ask", "account", "alice", "Read"],
        &["actor", "inspect", "account", "alice"],
    ];
    for command in commands {
        let args = [command, &["--deadline", "300ms", "--json"]].concat();
        let ran = run(folder.path(), &args).ends(3).says("no node answers at 127.0.0.1:7420");
        let json = ran.says("ringhold node start").json();
        assert_eq!(json["error"]["kind"], "unreachable", "{json}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a client makes nothing");
}

#[test]
fn wrong_arguments_are_refused_before_any_node_is_asked() {
    let folder = scratch();
    run(folder.path(), &["actor", "ask", "account", "alice", "{\"Deposit\": {\"cents\": }}"])
        .ends(2)
        .says("the message is no JSON: expected value at line 1 column 23")
        .says("                      ^");
    run(folder.path(), &["actor", "tell", "account", "alice@example.com", "Read"])
        .ends(2)
        .says("hash:alice@example.com");
    run(folder.path(), &["actor", "ask", "account"]).ends(2).says("<KEY>");
}
