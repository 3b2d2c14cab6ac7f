//! Makes a data folder of a backup.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use ringhold_cluster::control::state::{Cluster, State, id_text};
use ringhold_cluster::network::Network;
use ringhold_kernels::outbox::SHARDS;
use ringhold_kernels::registry::Registry;
use ringhold_storage::backup::{self, Sum};
use ringhold_storage::checkpoints::mismatches;

use super::{Beside, Contents, Error, OfDevice, PLACES_MAX, STATE, file_of, hex, io_at};
use crate::cluster;
use crate::config::Config;
use crate::node::Storage;

/// A backup of which every byte has been read and is right, and whose actors this binary runs.
pub struct Verified {
    folder: PathBuf,
    pub contents: Contents,
    state: State,
}

/// A cluster that begins with a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// A UUID, made anew.
    pub cluster: String,
    pub data_dir: PathBuf,
}

/// Reads and checks a whole backup. `progress` is told how many bytes there are, and how many of them are done.
///
/// # Errors
/// What is wrong with it, and with which file.
pub fn verify(folder: &Path, registry: &Registry, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified, Error> {
    let contents = Contents::read(folder)?;
    let path = folder.join(STATE);
    let (sum, agreed) =
        backup::read_agreed(&mut open(&path)?).map_err(|source| Error::File { path: path.clone(), source })?;
    same(&path, sum, contents.state.bytes, &contents.state.crc32)?;
    let state = State::from_bytes(&agreed).map_err(|why| Error::State { path: path.clone(), why })?;
    let other = |what: &str| Error::OtherState { path: path.clone(), what: what.into() };
    if state.cluster.as_ref().is_none_or(|cluster| id_text(&cluster.id) != contents.cluster.id) {
        return Err(other("they have other ids"));
    }
    if !state.devices.keys().eq(contents.devices.iter().map(|device| &device.number)) {
        return Err(other("they have other devices"));
    }
    if state.shards.len() != SHARDS {
        return Err(other(&format!("it has {} shards, and this build has {SHARDS}", state.shards.len())));
    }
    // With one of its own.
    if state.devices.len() >= PLACES_MAX {
        return Err(Error::TooManyDevices(state.devices.len()));
    }
    let (total, mut before) = (bytes_of(&contents), 0);
    for device in &contents.devices {
        verify_device(folder, device, registry, &mut |done| progress(total, before + done))?;
        before += device.bytes;
    }
    Ok(Verified { folder: folder.into(), contents, state })
}

fn verify_device(
    folder: &Path,
    device: &OfDevice,
    registry: &Registry,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let path = folder.join(file_of(device.number));
    let found = backup::look(&mut open(&path)?, device.number, progress)
        .map_err(|source| Error::File { path: path.clone(), source })?;
    same(&path, found.sum, device.bytes, &device.crc32)?;
    if found.mark.map(|mark| mark.epoch) != device.epoch {
        return Err(Error::OtherState { path, what: "it has another checkpoint".into() });
    }
    let mismatches = mismatches(&found.types, registry);
    if !mismatches.is_empty() {
        return Err(Error::Types { device: device.number, name: device.name.clone(), mismatches });
    }
    Ok(())
}

fn bytes_of(contents: &Contents) -> u64 {
    contents.devices.iter().map(|device| device.bytes).sum()
}

fn open(path: &Path) -> Result<BufReader<File>, Error> {
    match File::open(path) {
        Ok(file) => Ok(BufReader::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing(path.into())),
        Err(error) => Err(io_at("read", path)(error)),
    }
}

/// Whether a file is the one that was written with the others.
fn same(path: &Path, found: Sum, bytes: u64, crc32: &str) -> Result<(), Error> {
    let found = (found.bytes, hex(found.crc32));
    let told = (bytes, crc32.to_string());
    if found == told { Ok(()) } else { Err(Error::OtherFile { path: path.into(), found, told }) }
}

impl Verified {
    /// Makes the configured data folder, which is not there yet or is empty, that of the first node of a new cluster, which begins with
    /// the backup when that node is started.
    ///
    /// # Errors
    /// Nothing was made.
    pub fn restore(
        &self,
        config: &Config,
        network: &dyn Network,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Restored, Error> {
        if !config.checkpoints.enabled {
            return Err(Error::NoCheckpoints);
        }
        if !config.node.join.is_empty() {
            return Err(Error::Joins);
        }
        let beside = Beside::new(&config.node.data_dir)?;
        let mut there = config.clone();
        there.node.data_dir = beside.path().into();
        let mut id = [0; 16];
        network.random(&mut id);
        let name = self.contents.cluster.name.clone();
        let state = self.state.clone().anew(Cluster { id, name });
        {
            let storage = Storage::open(&there, network)?;
            let store = storage.checkpoints.as_ref().ok_or(Error::NoCheckpoints)?;
            let (total, mut before) = (bytes_of(&self.contents), 0);
            for device in &self.contents.devices {
                let path = self.folder.join(file_of(device.number));
                let (number, term) = (device.number, state.devices[&device.number].term);
                backup::restore(store, number, term, &mut open(&path)?, &mut |done| progress(total, before + done))
                    .map_err(|source| Error::File { path: path.clone(), source })?;
                before += device.bytes;
            }
            let log = storage.control.as_ref().expect("a data folder has a control plane");
            cluster::restore(log, &state)?;
        }
        beside.take_place()?;
        Ok(Restored { cluster: id_text(&id), data_dir: config.node.data_dir.clone() })
    }
}
