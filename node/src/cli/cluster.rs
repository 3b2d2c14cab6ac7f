//! `cluster`, and what `node` does to the cluster.

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringhold_cluster::control::admin::{Device, Migrated, Node, NodePlan, Owned, Request, Response, Role, Status};
use ringhold_cluster::control::state::{NodeNumber, Ranges, Refused, Settings};
use ringhold_cluster::enrol;
use ringhold_cluster::network::{Network, RealNetwork};
use ringhold_cluster::tls::{Token, TokenError};
use ringhold_kernels::registry::Registry;
use ringhold_storage::folder::DataFolder;
use serde_json::{Value, json};

use super::connect::{self, Connection};
use super::exit::{self, Failure};
use super::output::{Output, Table, bytes, counted, fine_span, number, span, utc};
use super::{ClusterCommand, Globals, backup, config};
use crate::config::Config;
use crate::device::topology;
use crate::node::{Storage, found};
use crate::progress::{Progress, Unit};

/// A node of which the leader has not heard for so long is marked.
const SILENT_MS: u64 = 2_000;

pub fn run(command: &ClusterCommand, globals: &Globals, registry: &Registry, output: Output) -> Result<u8, Failure> {
    match command {
        ClusterCommand::Init => init(globals, output),
        ClusterCommand::Status => with_status(globals, output, &status_json, &status_text),
        ClusterCommand::Nodes => with_status(globals, output, &|s| nodes_json(s), &|s| nodes_text(s)),
        ClusterCommand::Devices => with_status(globals, output, &devices_json, &devices_text),
        ClusterCommand::Shards => shards(globals, output),
        ClusterCommand::Settings { set } if set.is_empty() => {
            with_status(globals, output, &settings_json, &settings_text)
        }
        ClusterCommand::Settings { set } => settings(globals, set, output),
        ClusterCommand::Plan => plan(globals, output),
        ClusterCommand::Rebalance { yes } => rebalance(globals, *yes, output),
        ClusterCommand::Migrate { shards, to } => migrate(globals, shards, *to, output),
        ClusterCommand::Backup { folder } => backup::backup(globals, folder, output),
        ClusterCommand::Restore { folder } => backup::restore(globals, folder, registry, output),
        ClusterCommand::Token { valid } => token(globals, *valid, output),
    }
}

/// Makes a data folder that of the first node of a new cluster.
fn init(globals: &Globals, output: Output) -> Result<u8, Failure> {
    let config = Config::load(globals.config.as_deref(), &config::overrides(globals))?;
    let failed = |error: &dyn ToString| Failure::new(exit::FAILED, error.to_string());
    let storage = Storage::open(&config, &RealNetwork).map_err(|e| failed(&e))?;
    let id = found(&config, &storage, &RealNetwork).map_err(|e| failed(&e))?;
    let folder = config.node.data_dir.display().to_string();
    let value = json!({"cluster": config.node.cluster, "id": id, "data_dir": folder});
    output.result(value, || {
        format!(
            "cluster `{}` ({id}) is founded in {folder}\n`ringhold node start` with this folder runs its first node; \
             `ringhold cluster token` then makes tokens for others to join by\n",
            config.node.cluster
        )
    });
    Ok(exit::OK)
}

async fn status(node: &Connection) -> Result<Status, Failure> {
    // A little less than the client waits, so that there is an answer where no majority can be asked.
    let within_ms = node.limit().as_millis() as u64 / 2;
    match node.cluster(Request::Status { within_ms }).await? {
        Response::Status(status) => Ok(*status),
        _ => Err(another_answer()),
    }
}

fn another_answer() -> Failure {
    Failure::new(exit::FAILED, "the node answered another question: use a client of its release")
}

async fn change(node: &Connection, request: Request) -> Result<(), Failure> {
    match node.cluster(request).await? {
        Response::Done => Ok(()),
        _ => Err(another_answer()),
    }
}

/// Shows something of the cluster's status. The exit code is 1 where no majority could say that it is the newest.
fn with_status(
    globals: &Globals,
    output: Output,
    value: &dyn Fn(&Status) -> Value,
    text: &dyn Fn(&Status) -> String,
) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let status = status(node).await?;
        let mut value = value(&status);
        let object = value.as_object_mut().expect("each is one");
        object.insert("agreed".into(), status.agreed.into());
        object.insert("why_not".into(), status.why_not.clone().into());
        output.result(value, || match status.agreed {
            true => text(&status),
            false => format!(
                "no majority of the voters agrees: {}\nwhat follows is what node {} knew last\n\n{}",
                status.why_not,
                status.asked,
                text(&status)
            ),
        });
        Ok(if status.agreed { exit::OK } else { exit::FAILED })
    })
}

fn status_json(status: &Status) -> Value {
    serde_json::to_value(status).expect("a status is maps with text for keys")
}

fn status_text(status: &Status) -> String {
    let mut facts = Table::new(["CLUSTER", status.name.as_str()]);
    let mut fact = |name: &str, value: String| facts.row([name.into(), value]);
    fact("id", status.id.clone());
    let named = |number: NodeNumber| match status.nodes.iter().find(|node| node.number == number) {
        Some(node) => format!("{number} ({})", node.name),
        None => number.to_string(),
    };
    fact(
        "leader",
        status.leader.map_or("none".into(), |leader| format!("node {}, term {}", named(leader), status.term)),
    );
    let voters = status.nodes.iter().filter(|node| matches!(node.role, Role::Voter | Role::Leader)).count();
    fact("nodes", format!("{}, of which {} vote", status.nodes.len(), voters));
    fact("devices", status.devices.len().to_string());
    fact("shards", number(u64::from(status.shards)));
    let silent = status.nodes.iter().filter(|node| node.heard_ms.is_some_and(|ago| ago >= SILENT_MS));
    let away: u32 = silent.map(|node| node.shards).sum();
    if away > 0 {
        // Devices that somebody else has all of have begun there by now.
        fact(
            "away",
            format!("{} shards of nodes that are silent, of which nobody else has everything", number(away.into())),
        );
    }
    fact("asked", format!("node {}", named(status.asked)));
    fact("log", format!("{} entries, {} applied, snapshot at {}", status.last_log, status.applied, status.snapshot));
    format!("{}\n{}", facts.text(), nodes_text(status))
}

fn nodes_json(status: &Status) -> Value {
    json!({"nodes": status.nodes})
}

fn nodes_text(status: &Status) -> String {
    let mut table = Table::new([">NODE", "NAME", "ADDRESS", "ROLE", "STATE", "ZONE", ">DEVICES", ">SHARDS", "RELEASE"]);
    for node in &status.nodes {
        table.row([
            node.number.to_string(),
            node.name.clone(),
            node.address.clone(),
            match node.role {
                Role::Joining => "joining",
                Role::Learner => "learner",
                Role::Voter => "voter",
                Role::Leader => "leader",
            }
            .into(),
            state(node),
            node.zone.clone(),
            node.devices.to_string(),
            number(u64::from(node.shards)),
            node.release.clone(),
        ]);
    }
    table.text()
}

fn state(node: &Node) -> String {
    let heard = match node.heard_ms {
        Some(ago) if ago < SILENT_MS => "up".to_string(),
        Some(ago) => format!("silent for {}", span(ago)),
        None => "not heard of".into(),
    };
    if node.draining { format!("{heard}, draining") } else { heard }
}

fn devices_json(status: &Status) -> Value {
    json!({"devices": status.devices})
}

fn devices_text(status: &Status) -> String {
    let mut table =
        Table::new([">DEVICE", "NAME", "NODE", "KIND", ">WORKERS", ">MEMORY", "PLACE", ">SHARDS", "REPLICAS"]);
    for device in &status.devices {
        let node = status.nodes.iter().find(|node| node.number == device.node);
        table.row([
            device.number.to_string(),
            device.name.clone(),
            node.map_or(device.node.to_string(), |node| format!("{} ({})", node.number, node.name)),
            device.kind.clone(),
            device.workers.to_string(),
            device.memory_bytes.map(bytes).unwrap_or_default(),
            topology::words(&device.place),
            number(u64::from(device.shards)),
            replicas(device),
        ]);
    }
    table.drop_if_empty("PLACE");
    table.text()
}

/// The nodes that have copies of a device's checkpoints, and which of them do not have everything yet.
fn replicas(device: &Device) -> String {
    let each = device.replicas.iter().map(|node| match device.in_sync.contains(node) {
        true => node.to_string(),
        false => format!("{node} (behind)"),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn settings_json(status: &Status) -> Value {
    json!({"settings": status.settings})
}

fn settings_text(status: &Status) -> String {
    let mut text = String::new();
    for setting in &status.settings {
        text.push_str(&format!(
            "{} = {}\n  {}\n  Must be {}.\n",
            setting.name, setting.value, setting.about, setting.rule
        ));
    }
    text
}

fn settings(globals: &Globals, set: &[String], output: Output) -> Result<u8, Failure> {
    let pairs: Vec<(&str, &str)> = set
        .iter()
        .map(|text| text.split_once('=').ok_or_else(|| Failure::usage(format!("write NAME=VALUE, not `{text}`"))))
        .collect::<Result<_, _>>()?;
    connect::run(globals, async |node: &Connection| {
        // Before any is set.
        let known = status(node).await?.settings;
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !known.iter().any(|setting| setting.name == *name)) {
            let error = Refused::NoSuchSetting((*name).into());
            return Err(Failure::usage(error.to_string()));
        }
        for (name, value) in &pairs {
            Settings::check(name, value).map_err(|refused| Failure::usage(refused.to_string()))?;
        }
        for (name, value) in &pairs {
            change(node, Request::Set { name: (*name).into(), value: (*value).into() }).await?;
        }
        let set: serde_json::Map<String, Value> =
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        output.result(json!({"set": set}), || format!("{} set\n", counted(pairs.len() as u64, "setting")));
        Ok(exit::OK)
    })
}

fn shards(globals: &Globals, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let Response::Shards(owned) = node.cluster(Request::Shards).await? else { return Err(another_answer()) };
        let status = status(node).await?;
        let device = |owned: &Owned| status.devices.iter().find(|device| Some(device.number) == owned.device);
        let rows: Vec<Value> = owned
            .iter()
            .map(|o| {
                let ranges: Vec<[u32; 2]> = o.shards.iter().map(|range| [range.start, range.end]).collect();
                let node = device(o).map(|device| device.node);
                json!({"device": o.device, "node": node, "term": o.term, "shards": ranges})
            })
            .collect();
        output.result(json!({"shards": rows}), || {
            let mut table = Table::new([">DEVICE", "NAME", ">NODE", ">SHARDS", ">TERM", "WHICH"]);
            for o in &owned {
                let (name, node) = device(o).map(|d| (d.name.clone(), d.node.to_string())).unwrap_or_default();
                table.row([
                    o.device.map_or("none".into(), |device| device.to_string()),
                    name,
                    node,
                    number(o.shards.iter().map(|range| u64::from(range.end - range.start)).sum()),
                    o.term.to_string(),
                    shortened(&o.shards),
                ]);
            }
            table.text()
        });
        Ok(exit::OK)
    })
}

/// Ranges that are shown at most; `--json` has all.
const RANGES_SHOWN: usize = 8;

fn shortened(ranges: &[std::ops::Range<u32>]) -> String {
    let shown = Ranges(&ranges[..ranges.len().min(RANGES_SHOWN)]).to_string();
    if ranges.len() > RANGES_SHOWN { format!("{shown},…") } else { shown }
}

async fn plans(node: &Connection) -> Result<Vec<NodePlan>, Failure> {
    match node.cluster(Request::Plan { node: None }).await? {
        Response::Plans(plans) => Ok(plans),
        _ => Err(another_answer()),
    }
}

fn plan(globals: &Globals, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let plans = plans(node).await?;
        output.result(json!({"plans": plans}), || plans_text(&plans));
        Ok(exit::OK)
    })
}

fn plans_text(plans: &[NodePlan]) -> String {
    let each = plans.iter().map(|of| match &of.plan {
        Ok(plan) => format!("{plan}\n"),
        Err(why) => format!("node {}: no plan ({why})\n", of.node),
    });
    each.collect()
}

fn rebalance(globals: &Globals, yes: bool, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let plans = plans(node).await?;
        let moves: Vec<_> = plans.iter().filter_map(|of| of.plan.as_ref().ok()).flat_map(|plan| &plan.moves).collect();
        if moves.is_empty() {
            let unknown: Vec<_> = plans.iter().filter(|of| of.plan.is_err()).cloned().collect();
            let nothing = || format!("there is nothing to move\n{}", plans_text(&unknown));
            output.result(json!({"migrated": [], "plans": unknown}), nothing);
            return Ok(if unknown.is_empty() { exit::OK } else { exit::FAILED });
        }
        if !yes {
            output.confirm(&plans_text(&plans), "Move them?")?;
        }
        let unit = Unit { text: number, what: "moves done" };
        let mut progress = Progress::new(moves.len() as u64, unit, Duration::from_secs(1));
        let mut migrated = Vec::new();
        for to_do in moves {
            let request = Request::Migrate { shards: to_do.shards.clone(), to: to_do.to };
            match node.cluster(request).await? {
                Response::Migrated(done) => migrated.push(done),
                _ => return Err(another_answer()),
            }
            progress.at(migrated.len() as u64);
        }
        drop(progress);
        output.result(json!({"migrated": migrated}), || migrated.iter().map(migrated_text).collect());
        Ok(exit::OK)
    })
}

fn migrated_text(done: &Migrated) -> String {
    format!(
        "{} moved with {} in {}; they stood still for {}\n",
        counted(u64::from(done.shards), "shard"),
        bytes(done.bytes),
        fine_span(done.took_us * 1_000),
        fine_span(done.stood_us * 1_000)
    )
}

/// `0-63,128` as ranges.
fn shard_ranges(text: &str) -> Result<Vec<Range<u32>>, Failure> {
    let bad = || Failure::usage(format!("`{text}` names no shards: write numbers and ranges, 7 or 0-63,128-191"));
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number < u32::MAX);
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(first..last + 1)
    };
    text.split(',').map(|part| range(part).ok_or_else(bad)).collect()
}

fn migrate(globals: &Globals, shards: &str, to: u16, output: Output) -> Result<u8, Failure> {
    let shards = shard_ranges(shards)?;
    connect::run(globals, async |node: &Connection| match node.cluster(Request::Migrate { shards, to }).await? {
        Response::Migrated(done) => {
            output.result(json!({"migrated": done}), || migrated_text(&done));
            Ok(exit::OK)
        }
        _ => Err(another_answer()),
    })
}

fn token(globals: &Globals, valid: Duration, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let request = Request::Token { valid_s: valid.as_secs().max(1) };
        let Response::Token { text, expires_s } = node.cluster(request).await? else { return Err(another_answer()) };
        // The token alone, so that it can be written to a file as it is.
        output.result(json!({"token": text, "expires": utc(expires_s * 1_000_000)}), || format!("{text}\n"));
        Ok(exit::OK)
    })
}

/// The node of this number or name.
fn find<'a>(status: &'a Status, which: &str) -> Result<&'a Node, Failure> {
    let by_number = status.nodes.iter().find(|node| node.number.to_string() == which);
    let by_name = status.nodes.iter().find(|node| node.name == which);
    if let (Some(number), Some(name)) = (by_number, by_name)
        && number.number != name.number
    {
        return Err(Failure::usage(format!(
            "`{which}` is the number of node `{}` and the name of node {}: say which by the other",
            number.name, name.number
        )));
    }
    by_number.or(by_name).ok_or_else(|| {
        let names: Vec<String> = status.nodes.iter().map(|node| format!("{} ({})", node.number, node.name)).collect();
        Failure::usage(format!("the cluster has no node `{which}`: it has {}", names.join(", ")))
    })
}

pub fn drain(globals: &Globals, which: &str, draining: bool, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let status = status(node).await?;
        let found = find(&status, which)?;
        change(node, Request::Drain { node: found.number, draining }).await?;
        output.result(json!({"node": found.number, "draining": draining, "shards": found.shards}), || match draining {
            false => format!("node {} may be given shards again\n", found.number),
            true if found.shards == 0 => format!("node {} owns nothing and is given nothing any more\n", found.number),
            true => format!(
                "node {} is given nothing any more; it still owns {}\n",
                found.number,
                counted(u64::from(found.shards), "shard")
            ),
        });
        Ok(exit::OK)
    })
}

pub fn remove(globals: &Globals, which: &str, yes: bool, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let status = status(node).await?;
        let found = find(&status, which)?;
        if !yes {
            let what = format!(
                "node {} (`{}` at {}) will be no member of the cluster any more",
                found.number, found.name, found.address
            );
            output.confirm(&what, "Remove it?")?;
        }
        change(node, Request::Remove { node: found.number }).await?;
        output.result(json!({"removed": found.number}), || {
            format!(
                "node {} is removed: stop it if it still runs, and do not start it with its data folder again\n",
                found.number
            )
        });
        Ok(exit::OK)
    })
}

/// Gets a node its certificates by a token, unless it has them of the token's authority.
pub async fn enrol(config: &Config, file: &Path) -> Result<(), Failure> {
    let folder = config.node.data_dir.join("tls");
    let bad = |what: String| Failure::usage(format!("--token {}: {what}", file.display()));
    let mut text = String::new();
    match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        false => std::fs::read_to_string(file).map(|read| text = read),
    }
    .map_err(|e| bad(e.to_string()))?;
    // Made first, so that what is in it is a data folder's; and nobody else makes another node of it meanwhile.
    let random = || {
        let mut bytes = [0; 16];
        RealNetwork.random(&mut bytes);
        bytes
    };
    let _folder =
        DataFolder::open(&config.node.data_dir, random).map_err(|e| Failure::new(exit::FAILED, e.to_string()))?;
    let token: Token = text.trim().parse().map_err(|e: TokenError| bad(e.to_string()))?;
    let network: Arc<dyn Network> = Arc::new(RealNetwork);
    enrol::enrol(&network, &token, &config.node.join, &folder)
        .await
        .map(|_| ())
        .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))
}

#[cfg(test)]
mod tests {
    use ringhold_cluster::placement::Place;

    use super::*;

    #[test]
    fn where_devices_are_is_shown_where_it_is_known_of_any() {
        let place = Place { numa_node: Some(1), pci: Some("0000:3b:00.0".into()), ..Place::default() };
        let device = |number, place| Device { number, kind: "cuda".into(), place, ..Device::default() };
        let status = |devices| Status { devices, ..Status::default() };
        let known = status(vec![device(0, Place::default()), device(1, place)]);
        let text = devices_text(&known);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["DEVICE", "NAME", "NODE", "KIND", "WORKERS", "MEMORY", "PLACE", "SHARDS", "REPLICAS"]);
        assert_eq!(lines[1], ["0", "0", "cuda", "0", "0"]);
        assert_eq!(lines[2], ["1", "0", "cuda", "0", "0000:3b:00.0,", "NUMA", "1", "0"]);
        let json = &devices_json(&known)["devices"][1]["place"];
        let all = json!({"numa_node": 1, "pci": "0000:3b:00.0", "pcie_switch": null, "nvlinks": []});
        assert_eq!(*json, all);
        let text = devices_text(&status(vec![device(0, Place::default())]));
        assert!(!text.contains("PLACE"), "{text}");
    }
}
