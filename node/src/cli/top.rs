//! `top`: what the nodes of the cluster do, while they do it.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use ringhold_cluster::control::admin::{NodeStatus, Request, Response};
use ringhold_cluster::wire::{CheckpointStatus, DeviceState, ShedLevel, Status};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::Globals;
use super::connect::{self, Connection};
use super::exit::{self, Failure};
use super::output::{self, Output, Table, bytes, fine_span, number, span, utc};

/// How it is shown.
#[derive(clap::Args)]
pub struct Options {
    /// From one look to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::time)]
    every: Duration,

    /// How many looks; without it, until it is interrupted
    #[arg(long, value_name = "NUMBER")]
    times: Option<u64>,
}

/// Clears the terminal and goes to its first cell.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// The other screen of the terminal, and back to the first: what was there before is there again at the end.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

pub fn run(options: &Options, globals: &Globals, output: Output) -> Result<u8, Failure> {
    let live = !output.json && stdout().is_terminal();
    connect::run(globals, async |node: &Connection| {
        if live {
            output::print(ENTER);
        }
        let ended = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Ok(exit::OK),
            ended = look(node, options, output, live) => ended,
        };
        if live {
            output::print(LEAVE);
        }
        ended
    })
}

async fn look(node: &Connection, options: &Options, output: Output, live: bool) -> Result<u8, Failure> {
    let (mut next, mut looks) = (Instant::now(), 0);
    loop {
        let response = node.cluster(Request::Statuses).await?;
        let Response::Statuses { at_us, nodes } = response else {
            return Err(Failure::new(exit::FAILED, "the node answered another question"));
        };
        if output.json {
            output.result(value(at_us, &nodes), String::new);
        } else {
            let clear = if live { CLEAR } else { "" };
            output::print(&format!("{clear}{}", text(at_us, &nodes)));
        }
        looks += 1;
        if options.times.is_some_and(|times| looks >= times) {
            return Ok(exit::OK);
        }
        next = (next + options.every).max(Instant::now());
        sleep_until(next).await;
        if !live && !output.json {
            output::print("\n");
        }
    }
}

fn value(at_us: u64, nodes: &[NodeStatus]) -> Value {
    let nodes = nodes.iter().map(|node| match &node.status {
        Ok(status) => {
            let mut value = super::status::with_reasons(status, &status.devices);
            let object = value.as_object_mut().expect("a status is one");
            object.insert("number".into(), node.node.into());
            value
        }
        Err(why) => json!({"number": node.node, "name": node.name, "error": why}),
    });
    json!({"at_us": at_us, "nodes": nodes.collect::<Vec<_>>()})
}

fn text(at_us: u64, nodes: &[NodeStatus]) -> String {
    let all = || nodes.iter().filter_map(|node| node.status.as_ref().ok());
    let devices = || all().flat_map(|status| &status.devices);
    let sum = |of: fn(&Status) -> u64| all().map(|status| of(status)).sum::<u64>();
    let mut text = format!(
        "{} of {} nodes, {}: {} messages a second, {} actors, {} sessions, {} waiting\n\n",
        all().count(),
        nodes.len(),
        utc(at_us),
        number(devices().map(|device| device.handled_per_s).sum()),
        number(devices().map(|device| device.actors).sum()),
        number(sum(|status| status.sessions.len() as u64)),
        number(devices().map(|device| device.inbox_used + device.spilled_now).sum()),
    );
    let mut table = Table::new([
        "NODE",
        "DEVICE",
        "STATE",
        ">SHARDS",
        ">ACTORS",
        ">PER SECOND",
        ">WAITING",
        ">MEMORY",
        ">CHECKPOINT",
        ">PAUSE",
        ">RESTARTS",
    ]);
    let dash = || "-".to_string();
    for NodeStatus { name, status, .. } in nodes {
        let Ok(status) = status else {
            table.row([
                name.clone(),
                dash(),
                "no answer".into(),
                dash(),
                dash(),
                dash(),
                dash(),
                dash(),
                dash(),
                dash(),
                dash(),
            ]);
            continue;
        };
        for device in &status.devices {
            table.row([
                name.clone(),
                device.name.clone(),
                match device.state {
                    DeviceState::Running if status.shedding.level != ShedLevel::Nothing => "sheds load".into(),
                    state => format!("{state:?}").to_lowercase(),
                },
                number(device.shards.into()),
                number(device.actors),
                number(device.handled_per_s),
                number(device.inbox_used + device.spilled_now),
                bytes(device.memory_bytes),
                device.checkpoints.as_ref().and_then(age).unwrap_or_else(dash),
                device.checkpoints.as_ref().map_or_else(dash, |made| fine_span(made.pause_us * 1_000)),
                number(device.restarts.into()),
            ]);
        }
    }
    text.push_str(&table.text());
    for NodeStatus { name, status, .. } in nodes {
        match status {
            Err(why) => text.push_str(&format!("\n{name}: {why}\n")),
            Ok(status) if status.shedding.level != ShedLevel::Nothing => {
                text.push_str(&format!("\n{name}: {}\n", status.shedding.why));
            }
            Ok(_) => {}
        }
    }
    text
}

/// How long its last one has been durable.
fn age(checkpoints: &CheckpointStatus) -> Option<String> {
    match &checkpoints.failed {
        Some(_) => Some("failed".into()),
        None => checkpoints.age_ms.map(|ms| format!("{} ago", span(ms))),
    }
}

#[cfg(test)]
mod tests {
    use ringhold_cluster::wire::DeviceStatus;

    use super::*;

    #[test]
    fn who_answers_and_who_does_not_are_both_shown() {
        let device = DeviceStatus {
            name: "cpu0".into(),
            state: DeviceState::Running,
            handled_per_s: 12_345,
            actors: 7,
            shards: 4_096,
            checkpoints: Some(CheckpointStatus { age_ms: Some(1_200), pause_us: 90, ..CheckpointStatus::default() }),
            ..DeviceStatus::default()
        };
        let status = Status { devices: vec![device], ..Status::default() };
        let nodes = [
            NodeStatus { node: 1, name: "a".into(), status: Ok(Box::new(status)) },
            NodeStatus { node: 2, name: "b".into(), status: Err("nothing answered".into()) },
        ];
        let text = text(1_795_608_005_000_000, &nodes);
        assert!(text.starts_with("1 of 2 nodes, 2026-11-25 12:00:05: 12,345 messages a second, 7 actors"), "{text}");
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_string();
        for words in ["cpu0", "running", "4,096", "1.2s ago", "90.0µs"] {
            assert!(row("a ").contains(words), "{words}: {text}");
        }
        assert!(row("b ").contains("no answer") && text.ends_with("\nb: nothing answered\n"), "{text}");
        let value = value(5, &nodes);
        assert_eq!(value["nodes"][0]["devices"][0]["handled_per_s"], 12_345);
        assert_eq!(value["nodes"][1], json!({"number": 2, "name": "b", "error": "nothing answered"}));
    }
}
