//! Takes a backup of a running cluster.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringhold_cluster::control::admin::{BackupBegun, BackupDevice, Request, Response};
use ringhold_cluster::control::state::{NodeNumber, State, id_text, ranges};
use ringhold_cluster::wire;
use ringhold_kernels::hlc::Hlc;
use ringhold_storage::backup::{self, Sum, Writer};

use super::{
    Beside, CONTENTS, Contents, Error, FORMAT, OfCluster, OfDevice, OfType, STATE, StateFile, create, file_of, hex,
    io_at, write,
};
use crate::client::Client;

/// How long the nodes have to let go of what they have pinned; they do so by themselves, later.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Takes a backup of the cluster of the node that a client talks to, into a folder that is not there yet or is empty. Each question to
/// the node may take so long. `progress` is told how many bytes there are, about, and how many of them are done.
///
/// # Errors
/// There is no backup, and the folder is as it was.
pub async fn fetch(
    client: &Client,
    limit: Duration,
    folder: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Contents, Error> {
    let beside = Beside::new(folder)?;
    // A little less than the client waits, so that there is an answer.
    let within_ms = limit.as_millis() as u64 * 9 / 10;
    let Response::BackupBegun(begun) = ask(client, limit, Request::BackUp { within_ms }).await? else {
        return Err(Error::Answer);
    };
    let fetched = async {
        let contents = fetch_all(client, limit, &begun, beside.path(), progress).await?;
        write(&beside.path().join(CONTENTS), contents.to_text().as_bytes())?;
        Ok::<_, Error>(contents)
    };
    let fetched = fetched.await;
    let _ = ask(client, END_LIMIT, Request::EndBackup { id: begun.id }).await;
    let contents = fetched?;
    beside.take_place()?;
    Ok(contents)
}

async fn ask(client: &Client, limit: Duration, request: Request) -> Result<Response, Error> {
    match client.request(wire::Request::Cluster(request), limit).await? {
        wire::Response::Cluster(response) => Ok(response),
        _ => Err(Error::Answer),
    }
}

async fn fetch_all(
    client: &Client,
    limit: Duration,
    begun: &BackupBegun,
    folder: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Contents, Error> {
    let path = folder.join(STATE);
    let state = State::from_bytes(&begun.state).map_err(|why| Error::State { path: path.clone(), why })?;
    let sum = write_file(&path, backup::AGREED, |writer| writer.put(&begun.state))?;
    let state_file = StateFile { file: STATE.into(), bytes: sum.bytes, crc32: hex(sum.crc32) };

    // Of each node a device at a time, and a part of each node in turn: so no node waits for long to be asked again.
    let mut nodes: BTreeMap<NodeNumber, VecDeque<&BackupDevice>> = BTreeMap::new();
    begun.devices.iter().for_each(|device| nodes.entry(device.node).or_default().push_back(device));
    let mut open: BTreeMap<NodeNumber, Fetching> = BTreeMap::new();
    let mut sums = BTreeMap::new();
    let (total, mut done) = (begun.devices.iter().map(|device| device.bytes).sum(), 0);
    while !nodes.is_empty() {
        let mut over = Vec::new();
        for (node, devices) in &mut nodes {
            let Some(device) = devices.front() else {
                over.push(*node);
                continue;
            };
            let fetching = match open.entry(*node) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Fetching::begin(folder, device.device)?)
                }
            };
            let (id, number) = (begun.id, fetching.next);
            let part = Request::BackupPart { id, node: *node, device: device.device, number };
            let Response::BackupPart(part) = ask(client, limit, part).await? else { return Err(Error::Answer) };
            match part {
                Some(item) => {
                    done += item.len() as u64;
                    progress(total, done);
                    fetching.put(&item)?;
                }
                None => {
                    let whole = open.remove(node).expect("it is the one that is being fetched");
                    sums.insert(device.device, whole.end()?);
                    devices.pop_front();
                }
            }
        }
        over.into_iter().for_each(|node| drop(nodes.remove(&node)));
    }
    let cluster = state.cluster.as_ref().ok_or(Error::Answer)?;
    let types = state.types().into_iter();
    Ok(Contents {
        format: FORMAT,
        cluster: OfCluster { name: cluster.name.clone(), id: id_text(&cluster.id) },
        release: client.welcome().node.version.clone(),
        at: crate::cli::utc(begun.at_us),
        at_us: begun.at_us,
        hlc: Hlc::at_us(begun.at_us).0,
        held_us: begun.held_us,
        state: state_file,
        types: types
            .map(|(name, (hash, _))| OfType { name: name.into(), layout_hash: format!("{hash:016x}") })
            .collect(),
        devices: begun.devices.iter().map(|device| of_device(&state, device, sums[&device.device])).collect(),
    })
}

fn of_device(state: &State, device: &BackupDevice, sum: Sum) -> OfDevice {
    let number = device.device;
    let about = &state.devices[&number].about;
    OfDevice {
        number,
        name: about.name.clone(),
        kind: about.kind.clone(),
        node: device.node,
        epoch: device.checkpoint.map(|(epoch, _)| epoch),
        cut_at_us: device.checkpoint.map(|(_, at_us)| at_us),
        shards: ranges(state.shards_of(number)).into_iter().map(|range| [range.start, range.end]).collect(),
        file: file_of(number),
        bytes: sum.bytes,
        crc32: hex(sum.crc32),
    }
}

/// Writes a file as a whole, and makes it durable.
fn write_file(
    path: &Path,
    of: u32,
    fill: impl FnOnce(&mut Writer<BufWriter<File>>) -> std::io::Result<()>,
) -> Result<Sum, Error> {
    let file = create(path)?;
    let written = || {
        let mut writer = Writer::begin(BufWriter::new(file), of)?;
        fill(&mut writer)?;
        end(writer)
    };
    written().map_err(io_at("written", path))
}

fn end(writer: Writer<BufWriter<File>>) -> std::io::Result<Sum> {
    let (out, sum) = writer.end()?;
    out.into_inner().map_err(|e| e.into_error())?.sync_all()?;
    Ok(sum)
}

/// A device that is being fetched.
struct Fetching {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
    /// The number of the next item.
    next: u64,
}

impl Fetching {
    fn begin(folder: &Path, device: u16) -> Result<Fetching, Error> {
        let path = folder.join(file_of(device));
        let writer = Writer::begin(BufWriter::new(create(&path)?), device.into()).map_err(io_at("written", &path))?;
        Ok(Fetching { path, writer, next: 0 })
    }

    fn put(&mut self, item: &[u8]) -> Result<(), Error> {
        self.next += 1;
        self.writer.put(item).map_err(io_at("written", &self.path))
    }

    fn end(self) -> Result<Sum, Error> {
        end(self.writer).map_err(io_at("written", &self.path))
    }
}
