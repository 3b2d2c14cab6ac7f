//! `storage list`, `verify`, `show`, `compact`, `export`, `import`: the checkpoints in a data folder that no node has open.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write, stderr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringhold_kernels::checkpoint::Record;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::json::{self, TypeNames};
use ringhold_kernels::registry::Registry;
use ringhold_storage::blocks::Sled;
use ringhold_storage::checkpoints::{self, About, Checkpoints, Found, Looked, Manifest};
use ringhold_storage::export;
use ringhold_storage::folder::DataFolder;
use serde_json::{Value, json};

use super::exit::{self, Failure};
use super::output::{Output, Table, bytes, counted, number, utc};
use super::{ActorArgs, Globals, StorageCommand, config};
use crate::config::{Config, Format, Log};
use crate::logs;
use crate::progress::{Progress, Unit};

/// A command that is done sooner shows no progress.
const QUIET: Duration = Duration::from_secs(1);

pub fn run(command: &StorageCommand, globals: &Globals, registry: &Registry, output: Output) -> Result<u8, Failure> {
    logs::start(&Log { level: logs::level_of_client(globals.verbose), format: Format::Text });
    match command {
        StorageCommand::List => list(&Store::open(globals)?, output),
        StorageCommand::Verify => verify(&Store::open(globals)?, output),
        StorageCommand::Show { device, type_name, key, epoch } => {
            let store = Store::open(globals)?;
            let epoch = store.epoch(device, *epoch)?;
            match (type_name, key) {
                (Some(type_name), Some(key)) => {
                    let actor = ActorArgs { type_name: type_name.clone(), key: key.clone() };
                    show_actor(&store, device, epoch, &actor, registry, output)
                }
                _ => show(&store, device, epoch, registry, output),
            }
        }
        StorageCommand::Compact { device } => compact(&Store::open(globals)?, device.as_deref(), output),
        StorageCommand::Export { file, device } => export(&Store::open(globals)?, file, device.as_deref(), output),
        StorageCommand::Import { file, yes } => import(globals, file, *yes, output),
    }
}

/// The data folder, this process's alone, and its checkpoints.
struct Store {
    folder: DataFolder,
    checkpoints: Checkpoints,
}

impl Store {
    fn open(globals: &Globals) -> Result<Store, Failure> {
        let config = config_of(globals)?;
        let path = &config.node.data_dir;
        if !path.join("VERSION").exists() {
            return Err(Failure::usage(format!(
                "{} is no data folder: name the node's with --data-dir",
                path.display()
            )));
        }
        Store::open_or_make(&config, || unreachable!("the folder is there, and has its id"))
    }

    fn open_or_make(config: &Config, node_id: impl FnOnce() -> [u8; 16]) -> Result<Store, Failure> {
        let folder = DataFolder::open(&config.node.data_dir, node_id).map_err(failed)?;
        let blocks = Arc::new(Sled::open(&folder.checkpoints_path()).map_err(failed)?);
        let options = checkpoints::Options { kept: config.checkpoints.kept as usize };
        Ok(Store { folder, checkpoints: Checkpoints::open(blocks, options).map_err(failed)? })
    }

    /// The newest whole checkpoint of a device. What is damaged is said.
    fn latest(&self, device: &str) -> Result<Found, Failure> {
        let found = self.checkpoints.latest(device).map_err(failed)?;
        if let Some(cost) = found.cost() {
            let _ = writeln!(stderr(), "warning: {device}: {cost}");
        }
        Ok(found)
    }

    /// The epoch asked for, else that of the newest whole checkpoint.
    fn epoch(&self, device: &str, epoch: Option<u64>) -> Result<u64, Failure> {
        let mut devices = self.checkpoints.devices();
        devices.extend(self.checkpoints.replicas().into_iter().map(checkpoints::replica_name));
        if !devices.iter().any(|known| known == device) {
            let known = if devices.is_empty() { "none has any".into() } else { devices.join(", ") + " have some" };
            return Err(Failure::usage(format!("no checkpoint of a device `{device}` is kept: {known}")));
        }
        match epoch {
            Some(epoch) => Ok(epoch),
            None => match self.latest(device)?.checkpoint {
                Some(manifest) => Ok(manifest.epoch),
                None => Err(failed(format!("no checkpoint of `{device}` is whole"))),
            },
        }
    }
}

fn config_of(globals: &Globals) -> Result<Config, Failure> {
    let overrides = config::overrides(globals);
    // A node's file may be wrong for this machine and still say where the data is; so only reading it can fail.
    let mut config = match &globals.config {
        Some(file) => Config::load(Some(file), &overrides)?,
        None => Config::default(),
    };
    if let Some(path) = overrides.data_dir {
        config.node.data_dir = path;
    }
    Ok(config)
}

fn failed(error: impl ToString) -> Failure {
    Failure::new(exit::FAILED, error.to_string())
}

/// Shows how many bytes of so many are done.
fn progress(total: u64, what: &'static str) -> impl FnMut(u64) {
    let mut progress = Progress::new(total, Unit { text: bytes, what }, QUIET);
    move |done| progress.at(done)
}

fn list(store: &Store, output: Output) -> Result<u8, Failure> {
    let looked = store.checkpoints.looked();
    output.result(json_of(store, &looked), || {
        let mut table = Table::new(["DEVICE", ">EPOCH", "CUT AT (UTC)", "HOLDS", ">LANES", ">BYTES", ""]);
        for found in &looked {
            let mut row = row(found);
            row[6] = found.damage.as_ref().map(|damage| format!("damaged: {}", damage.what)).unwrap_or_default();
            table.row(row);
        }
        if table.is_empty() { "no checkpoints are kept\n".into() } else { table.text() + &on_disk(store, &looked) }
    });
    Ok(exit::OK)
}

fn verify(store: &Store, output: Output) -> Result<u8, Failure> {
    let total = store.checkpoints.manifests().iter().map(|manifest| manifest.bytes()).sum();
    let looked = store.checkpoints.verify(&mut progress(total, "read")).map_err(failed)?;
    let costs: Vec<String> = recoveries(store, &looked);
    let mut value = json_of(store, &looked);
    value["whole"] = costs.is_empty().into();
    value["costs"] = json!(costs);
    output.result(value, || {
        let mut table = Table::new(["DEVICE", ">EPOCH", "CUT AT (UTC)", "HOLDS", ">LANES", ">BYTES", "STATE"]);
        for found in &looked {
            let mut row = row(found);
            row[6] = found.damage.as_ref().map_or("whole".into(), |damage| format!("damaged: {}", damage.what));
            table.row(row);
        }
        if table.is_empty() { "no checkpoints are kept\n".into() } else { table.text() + &on_disk(store, &looked) }
    });
    // For programs the list is the result.
    costs.iter().for_each(|cost| drop(writeln!(stderr(), "error: {cost}")));
    Ok(if costs.is_empty() { exit::OK } else { exit::FAILED })
}

/// What the recovery of each device would cost, where it would cost something or an older checkpoint is damaged.
fn recoveries(store: &Store, looked: &[Looked]) -> Vec<String> {
    let mut by_device: BTreeMap<&str, Vec<&Looked>> = BTreeMap::new();
    looked.iter().for_each(|found| by_device.entry(&found.device).or_default().push(found));
    let cost = |(device, looked): (&str, Vec<&Looked>)| {
        let whole = looked.iter().rposition(|found| found.damage.is_none());
        let newer = &looked[whole.map_or(0, |whole| whole + 1)..];
        let found = Found {
            checkpoint: whole.and_then(|whole| looked[whole].manifest.clone()),
            newest: looked.last().map(|found| found.epoch),
            newest_at_us: looked.last().and_then(|found| Some(found.manifest.as_ref()?.at_us)),
            passed_over: newer.iter().rev().filter_map(|found| found.damage.clone()).collect(),
            lost_syncs: store.checkpoints.lost_syncs(),
        };
        let older = whole.map_or(0, |whole| looked[..whole].iter().filter(|found| found.damage.is_some()).count());
        let older = (older > 0)
            .then(|| format!("Damaged, and older than the newest whole one: {}.", counted(older as u64, "checkpoint")));
        let texts: Vec<String> = found.cost().into_iter().chain(older).collect();
        (!texts.is_empty()).then(|| format!("{device}: {}", texts.join(" ")))
    };
    let mut costs: Vec<String> = by_device.into_iter().filter_map(cost).collect();
    if costs.is_empty() && store.checkpoints.lost_syncs() > 0 {
        costs.push(format!("the store has lost the last {} of its syncs", store.checkpoints.lost_syncs()));
    }
    costs
}

fn row(found: &Looked) -> [String; 7] {
    let mut row: [String; 7] = Default::default();
    (row[0], row[1]) = (found.device.clone(), found.epoch.to_string());
    if let Some(manifest) = &found.manifest {
        row[2] = utc(manifest.at_us);
        row[3] = manifest.base.map_or("everything".into(), |base| format!("changes since {base}"));
        (row[4], row[5]) = (manifest.lanes.to_string(), number(manifest.bytes()));
    }
    row
}

fn on_disk(store: &Store, looked: &[Looked]) -> String {
    let held: u64 = looked.iter().filter_map(|found| found.manifest.as_ref()).map(|manifest| manifest.bytes()).sum();
    let (count, disk) = (counted(looked.len() as u64, "checkpoint"), bytes(store.checkpoints.bytes_on_disk()));
    format!("\n{count}, {} in all; {disk} on disk\n", bytes(held))
}

fn json_of(store: &Store, looked: &[Looked]) -> Value {
    let checkpoint = |found: &Looked| {
        let mut value = match &found.manifest {
            Some(manifest) => manifest_json(manifest),
            None => json!({"device": found.device, "epoch": found.epoch}),
        };
        value["damage"] = json!(found.damage.as_ref().map(|damage| &damage.what));
        value
    };
    json!({
        "checkpoints": looked.iter().map(checkpoint).collect::<Vec<_>>(),
        "bytes_on_disk": store.checkpoints.bytes_on_disk(),
        "lost_syncs": store.checkpoints.lost_syncs(),
    })
}

fn manifest_json(manifest: &Manifest) -> Value {
    json!({
        "device": manifest.device,
        "epoch": manifest.epoch,
        "base": manifest.base,
        "at_us": manifest.at_us,
        "lanes": manifest.lanes,
        "bytes": manifest.bytes(),
    })
}

/// What a checkpoint holds of a type.
#[derive(Default)]
struct OfType {
    actors: u64,
    handled: u64,
    faults: u64,
    state_bytes: u64,
    /// To its actors, queued or at their time.
    messages: u64,
}

fn show(store: &Store, device: &str, epoch: u64, registry: &Registry, output: Output) -> Result<u8, Failure> {
    let chain = store.checkpoints.chain(device, epoch).map_err(failed)?;
    let about = store.checkpoints.about(&chain[0]).map_err(failed)?;
    let mut types: BTreeMap<TypeId, OfType> = BTreeMap::new();
    let (mut queued, mut timers, mut out, mut done) = (0u64, 0u64, 0u64, 0);
    let mut told = progress(chain.iter().map(|manifest| manifest.bytes()).sum(), "read");
    let visited = store.checkpoints.visit(device, epoch, |_, record, whole| {
        done += whole.len() as u64;
        told(done);
        match record {
            Record::Actor { id, handled, faults, state } => {
                let found = types.entry(id.type_id).or_default();
                found.actors += 1;
                found.handled += handled;
                found.faults += faults as u64;
                found.state_bytes += state.len() as u64;
            }
            Record::Queued { header, .. } => {
                queued += 1;
                types.entry(header.to().type_id).or_default().messages += 1;
            }
            Record::Timer { header, .. } => {
                timers += 1;
                types.entry(header.to().type_id).or_default().messages += 1;
            }
            Record::Out { .. } => out += 1,
            Record::Removed { .. } | Record::Cut(_) | Record::Node { .. } => {}
        }
        Ok::<_, checkpoints::Error>(())
    });
    drop(told);
    visited.map_err(failed)?;
    let mut rows: Vec<Value> =
        types.iter().map(|(type_id, found)| type_json(*type_id, found, &about, registry)).collect();
    rows.sort_by_key(|row| row["type"].as_str().map(str::to_string));
    let mut value = manifest_json(&chain[0]);
    value["chain"] = chain.len().into();
    value["types"] = rows.into();
    value["queued"] = queued.into();
    value["timers"] = timers.into();
    value["out"] = out.into();
    output.result(&value, || {
        let mut text = format!(
            "checkpoint {epoch} of {device}, cut at {} UTC, on {}",
            utc(chain[0].at_us),
            counted(chain[0].lanes.into(), "lane")
        );
        if chain.len() > 1 {
            text.push_str(&format!(", in a chain of {}", chain.len()));
        }
        text.push_str(&format!(
            "\n{} to be handled, {} to be sent later, {} on their way out\n\n",
            counted(queued, "message"),
            number(timers),
            number(out)
        ));
        text + &types_table(&value["types"])
    });
    Ok(exit::OK)
}

fn type_json(type_id: TypeId, found: &OfType, about: &About, registry: &Registry) -> Value {
    let kept = about.types.iter().find(|kept| kept.type_id == type_id);
    let built = registry.get(type_id).map(|built| built.layout_hash);
    json!({
        "type": kept.map(|kept| &kept.name),
        "type_id": format!("0x{:08x}", type_id.0),
        "layout_hash": kept.map(|kept| format!("{:016x}", kept.layout_hash)),
        "actors": found.actors,
        "handled": found.handled,
        "faults": found.faults,
        "state_bytes": found.state_bytes,
        "messages": found.messages,
        "in_this_binary": match (kept, built) {
            (Some(kept), Some(built)) if kept.layout_hash == built => "same",
            (_, Some(_)) => "changed",
            (_, None) => "missing",
        },
    })
}

fn types_table(types: &Value) -> String {
    let heading = ["TYPE", "LAYOUT", ">ACTORS", ">HANDLED", ">FAULTS", ">STATE BYTES", ">MESSAGES", "IN THIS BINARY"];
    let mut table = Table::new(heading);
    for found in types.as_array().into_iter().flatten() {
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_string();
        let count = |name: &str| number(found[name].as_u64().unwrap_or(0));
        table.row([
            found["type"].as_str().map_or_else(|| text("type_id"), str::to_string),
            text("layout_hash"),
            count("actors"),
            count("handled"),
            count("faults"),
            count("state_bytes"),
            count("messages"),
            text("in_this_binary"),
        ]);
    }
    if table.is_empty() { "it holds no actors\n".into() } else { table.text() }
}

fn show_actor(
    store: &Store,
    device: &str,
    epoch: u64,
    args: &ActorArgs,
    registry: &Registry,
    output: Output,
) -> Result<u8, Failure> {
    /// The actor is found: what is left need not be read.
    enum Stop {
        Found(u64, u32, Vec<u8>),
        Failed(checkpoints::Error),
    }
    impl From<checkpoints::Error> for Stop {
        fn from(error: checkpoints::Error) -> Stop {
            Stop::Failed(error)
        }
    }
    let key = Key::parse(&args.key).map_err(|why| Failure::usage(format!("the key is none: {why}")))?;
    let manifest = &store.checkpoints.chain(device, epoch).map_err(failed)?[0];
    let about = store.checkpoints.about(manifest).map_err(failed)?;
    let names = TypeNames::new(about.types.iter().map(|kept| kept.name.as_str()));
    let type_id = names
        .parse(&args.type_name)
        .map_err(|hint| Failure::usage(format!("the device has no actor type `{}`{hint}", args.type_name)))?;
    let wanted = ActorId::new(type_id, key);
    let visited = store.checkpoints.visit(device, epoch, |_, record, _| match record {
        Record::Actor { id, handled, faults, state } if id == wanted => {
            Err(Stop::Found(handled, faults, state.to_vec()))
        }
        _ => Ok(()),
    });
    let (handled, faults, bytes) = match visited {
        Err(Stop::Found(handled, faults, state)) => (handled, faults, state),
        Err(Stop::Failed(error)) => return Err(failed(error)),
        Ok(()) => {
            return Err(Failure::new(exit::ACTOR, format!("checkpoint {epoch} of {device} has no actor {args}")));
        }
    };
    let kept = about.types.iter().find(|kept| kept.type_id == type_id);
    let known = registry.get(type_id).filter(|built| Some(built.layout_hash) == kept.map(|kept| kept.layout_hash));
    let state = known.and_then(|built| json::from_bytes(&built.schema.state, &bytes, &names));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let value = json!({
        "device": device,
        "epoch": epoch,
        "type": args.type_name,
        "key": json::key_to_json(key),
        "handled": handled,
        "faults": faults,
        "state": state,
        "state_hex": state.is_none().then_some(&hex),
    });
    output.result(value, || {
        let (handled, faults) = (counted(handled, "message"), counted(faults.into(), "fault"));
        let head = format!("{args} in checkpoint {epoch} of {device}: {handled} handled, {faults}\n\n");
        match &state {
            Some(state) => head + &super::actor::fields(state),
            None => head + &format!("this binary does not know the type as it was then; the state's bytes:\n{hex}\n"),
        }
    });
    Ok(exit::OK)
}

fn compact(store: &Store, device: Option<&str>, output: Output) -> Result<u8, Failure> {
    let devices = match device {
        Some(device) => {
            store.epoch(device, Some(0))?;
            vec![device.to_string()]
        }
        None => store.checkpoints.devices(),
    };
    let (mut table, mut results) = (Table::new(["DEVICE", ">EPOCH", ">CHECKPOINTS", ">BYTES", ">NOW"]), Vec::new());
    for device in devices {
        let held = store.checkpoints.manifests();
        let total = held.iter().filter(|manifest| manifest.device == device).map(|manifest| manifest.bytes()).sum();
        let compacted = store.checkpoints.compact(&device, &mut progress(total, "read")).map_err(failed)?;
        let Some(compacted) = compacted else { continue };
        table.row([
            device.clone(),
            compacted.epoch.to_string(),
            number(compacted.checkpoints as u64),
            number(compacted.bytes_before),
            number(compacted.bytes_after),
        ]);
        results.push(json!({
            "device": device,
            "epoch": compacted.epoch,
            "checkpoints": compacted.checkpoints,
            "bytes_before": compacted.bytes_before,
            "bytes_after": compacted.bytes_after,
        }));
    }
    output.result(json!({"compacted": results}), || {
        if table.is_empty() {
            "every device's newest checkpoint stands for itself already\n".into()
        } else {
            table.text()
        }
    });
    Ok(exit::OK)
}

fn export(store: &Store, file: &Path, device: Option<&str>, output: Output) -> Result<u8, Failure> {
    let devices = device.map_or_else(|| store.checkpoints.devices(), |device| vec![device.into()]);
    if devices.is_empty() {
        return Err(failed("no checkpoints are kept: there is nothing to export"));
    }
    let mut chosen = Vec::new();
    for device in devices {
        let epoch = store.epoch(&device, None)?;
        chosen.push((device, epoch));
    }
    let mut total = 0;
    for (device, epoch) in &chosen {
        let chain = store.checkpoints.chain(device, *epoch).map_err(failed)?;
        total += chain.iter().map(|manifest| manifest.bytes()).sum::<u64>();
    }
    let at = |error: &dyn ToString| failed(format!("{} cannot be written: {}", file.display(), error.to_string()));
    if file.exists() {
        return Err(Failure::usage(format!("{} exists: choose another name, or remove it", file.display())));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Under its name it is there as a whole or not at all.
    let written = tempfile::Builder::new().prefix(".ringhold-export").tempfile_in(folder).map_err(|e| at(&e))?;
    let mut out = BufWriter::new(written);
    export::write(&store.checkpoints, store.folder.node_id(), &chosen, &mut out, &mut progress(total, "written"))
        .map_err(|error| at(&error))?;
    let written = out.into_inner().map_err(|error| at(error.error()))?;
    written.as_file().sync_all().map_err(|e| at(&e))?;
    let length = written.as_file().metadata().map_err(|e| at(&e))?.len();
    written.persist_noclobber(file).map_err(|error| at(&error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| at(&e))?;
    let checkpoints: Vec<Value> =
        chosen.iter().map(|(device, epoch)| json!({"device": device, "epoch": epoch})).collect();
    let value = json!({"file": file.display().to_string(), "bytes": length, "checkpoints": checkpoints});
    output.result(value, || {
        let chosen: String = chosen.iter().map(|(device, epoch)| format!("  {device}, checkpoint {epoch}\n")).collect();
        format!("{}, {}:\n{chosen}", file.display(), bytes(length))
    });
    Ok(exit::OK)
}

fn import(globals: &Globals, file: &Path, yes: bool, output: Output) -> Result<u8, Failure> {
    let read = |error: &dyn ToString| failed(format!("{} cannot be imported: {}", file.display(), error.to_string()));
    let open = || File::open(file).map(BufReader::new).map_err(|error| read(&error));
    let length = std::fs::metadata(file).map_err(|error| read(&error))?.len();
    let contents = export::look(&mut open()?, &mut progress(length, "read")).map_err(|error| read(&error))?;
    let config = config_of(globals)?;
    let store = Store::open_or_make(&config, || contents.node_id.into_bytes())?;
    if store.folder.node_id() != contents.node_id {
        return Err(Failure::usage(format!(
            "{} is of node {}, and the data folder {} of node {}: import it into that node's, or into a new one \
             (`--data-dir`)",
            file.display(),
            contents.node_id,
            store.folder.path().display(),
            store.folder.node_id()
        )));
    }
    let replaced: Vec<String> = contents.checkpoints.iter().filter_map(|found| replaced(&store, found)).collect();
    if !replaced.is_empty() && !yes {
        output.confirm(&replaced.join("\n"), "Replace them?")?;
    }
    let total = contents.checkpoints.iter().map(|found| found.bytes).sum();
    export::import(&store.checkpoints, &mut open()?, &mut progress(total, "written")).map_err(|error| read(&error))?;
    let imported: Vec<Value> = contents
        .checkpoints
        .iter()
        .map(|found| json!({"device": found.device, "epoch": found.epoch, "at_us": found.at_us, "bytes": found.bytes}))
        .collect();
    output.result(json!({"node": contents.node_id.to_string(), "checkpoints": imported}), || {
        let line = |found: &export::Exported| {
            format!("{}: checkpoint {}, cut at {} UTC\n", found.device, found.epoch, utc(found.at_us))
        };
        contents.checkpoints.iter().map(line).collect()
    });
    Ok(exit::OK)
}

/// What an import takes the place of, in words.
fn replaced(store: &Store, found: &export::Exported) -> Option<String> {
    let looked = store.checkpoints.looked();
    let epochs: Vec<u64> = looked.iter().filter(|old| old.device == found.device).map(|old| old.epoch).collect();
    let (first, last) = (epochs.first()?, epochs.last()?);
    let old = if first == last { format!("checkpoint {last}") } else { format!("checkpoints {first} to {last}") };
    Some(format!("{}: {old} would go, and {} come in their place", found.device, found.epoch))
}
