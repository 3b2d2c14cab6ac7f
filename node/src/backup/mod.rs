//! Backups of a whole cluster, as folders: taken from a running one, and made the data folder of the first node of a new one.
//!
//! | file | what |
//! |---|---|
//! | `backup.json` | what there is, and the checksum of each file, its own among them. It is written last: a folder without it is no backup |
//! | `cluster.state` | what the cluster had agreed on |
//! | `device-N.ckpt` | the newest checkpoint of device N, with all that it stands on |
//!
//! The files' format is [`ringhold_storage::backup`]'s. How all of it comes to be of one moment: `router/backup`.

mod fetch;
mod restore;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ringhold_cluster::control::state::{DeviceNumber, NodeNumber, Unreadable};
use ringhold_storage::backup;
use ringhold_storage::checkpoints::Mismatch;
use serde::{Deserialize, Serialize};

pub use fetch::fetch;
pub use restore::{Restored, Verified, verify};

use crate::device::places::PLACES_MAX;
use crate::{client, cluster, node};

/// The format of the folder that this build reads and writes.
pub const FORMAT: u32 = 1;

const CONTENTS: &str = "backup.json";
const STATE: &str = "cluster.state";

/// What is in a backup: `backup.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub format: u32,
    pub cluster: OfCluster,
    /// Of the node that was asked for it.
    pub release: String,
    /// The moment, by that node's clock: UTC, and microseconds since the Unix epoch.
    pub at: String,
    pub at_us: u64,
    /// The least hybrid logical time of that moment.
    pub hlc: u64,
    /// For how long no device committed anything because of it.
    pub held_us: u64,
    pub state: StateFile,
    /// The actor types of the cluster's nodes.
    pub types: Vec<OfType>,
    /// By number.
    pub devices: Vec<OfDevice>,
}

/// The cluster of which a backup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfCluster {
    pub name: String,
    /// A UUID.
    pub id: String,
}

/// The file of what it had agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    pub file: String,
    pub bytes: u64,
    /// Of the whole file, in hexadecimal.
    pub crc32: String,
}

/// An actor type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfType {
    pub name: String,
    /// In hexadecimal.
    pub layout_hash: String,
}

/// A device, and its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfDevice {
    pub number: DeviceNumber,
    pub name: String,
    pub kind: String,
    /// That ran it.
    pub node: NodeNumber,
    /// Its checkpoint, and when that was cut: microseconds since the Unix epoch. `None`: it has none, and so no actors.
    pub epoch: Option<u64>,
    pub cut_at_us: Option<u64>,
    /// As pairs, from and up to but not including.
    pub shards: Vec<[u32; 2]>,
    pub file: String,
    pub bytes: u64,
    /// Of the whole file, in hexadecimal.
    pub crc32: String,
}

/// Why there is no backup, or none was restored. Nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("the node answered another question: use a client of its release")]
    Answer,
    #[error("{} is there already and is not empty: name a folder that is not there yet", .0.display())]
    NotEmpty(PathBuf),
    #[error("{} cannot be {what}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no backup: it has no {CONTENTS}", .0.display())]
    NoBackup(PathBuf),
    #[error("{} is damaged ({what}): take another backup", path.display())]
    Contents { path: PathBuf, what: String },
    #[error("{} has format {found}, and this build of Ringhold reads {FORMAT}: use the Ringhold that made it", path.display())]
    OtherFormat { path: PathBuf, found: u64 },
    #[error("{} is missing: take another backup", .0.display())]
    Missing(PathBuf),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: backup::Error },
    #[error(
        "{} is not the one that {CONTENTS} tells of: it has {} bytes with checksum {}, and not {} with {}; take another backup",
        path.display(), found.0, found.1, told.0, told.1
    )]
    OtherFile { path: PathBuf, found: (u64, String), told: (u64, String) },
    #[error("{}: {why}", path.display())]
    State { path: PathBuf, why: Unreadable },
    #[error("{} and {CONTENTS} do not tell of the same cluster: {what}; take another backup", path.display())]
    OtherState { path: PathBuf, what: String },
    #[error("device {device} (`{name}`) holds actors that this binary runs otherwise: {}", list(mismatches))]
    Types { device: DeviceNumber, name: String, mismatches: Vec<Mismatch> },
    #[error("the backup has {0} devices, and a node runs at most {PLACES_MAX} with its own")]
    TooManyDevices(usize),
    #[error(
        "the first node of a cluster joins none: leave `node.join` out of its configuration until it has been started once"
    )]
    Joins,
    #[error("a node without checkpoints has nothing to go on from: set checkpoints.enabled")]
    NoCheckpoints,
    #[error(transparent)]
    Node(Box<node::Error>),
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
}

impl From<node::Error> for Error {
    fn from(error: node::Error) -> Error {
        Error::Node(Box::new(error))
    }
}

fn list(mismatches: &[Mismatch]) -> String {
    mismatches.iter().map(Mismatch::to_string).collect::<Vec<_>>().join("; ")
}

fn io_at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { what, path, source }
}

fn file_of(device: DeviceNumber) -> String {
    format!("device-{device}.ckpt")
}

fn hex(crc32: u32) -> String {
    format!("{crc32:08x}")
}

/// What stands before the checksum of `backup.json`, which is of all bytes before this.
const SEALED: &str = ",\n  \"crc32\": \"";
const SEALED_END: &str = "\"\n}\n";

impl Contents {
    fn to_text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("it is maps with text for keys");
        let text = text.strip_suffix("\n}").expect("it is a map");
        format!("{text}{SEALED}{}{SEALED_END}", hex(backup::crc32(text.as_bytes())))
    }

    fn read(folder: &Path) -> Result<Contents, Error> {
        let path = folder.join(CONTENTS);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoBackup(folder.into())),
            read => read.map_err(io_at("read", &path))?,
        };
        let bad = |what: &str| Error::Contents { path: path.clone(), what: what.into() };
        let text = String::from_utf8(text).map_err(|_| bad("it is no text"))?;
        let sealed = text.strip_suffix(SEALED_END).and_then(|text| text.rsplit_once(SEALED));
        let (sealed, told) = sealed.ok_or_else(|| bad("it does not end with its checksum"))?;
        if hex(backup::crc32(sealed.as_bytes())) != told {
            return Err(bad("it has another checksum"));
        }
        // The format first: of another one nothing else is known.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(&e.to_string()))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            found => return Err(Error::OtherFormat { path, found: found.unwrap_or(0) }),
        }
        serde_json::from_value(value).map_err(|e| bad(&e.to_string()))
    }
}

/// Refuses a folder that is not empty.
fn is_free(folder: &Path) -> Result<(), Error> {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().map_or(Ok(()), |_| Err(Error::NotEmpty(folder.into()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_at("listed", folder)(error)),
    }
}

/// A folder beside this one, with another name, that goes with what is in it unless it takes that one's place.
struct Beside {
    folder: tempfile::TempDir,
    of: PathBuf,
    parent: PathBuf,
}

impl Beside {
    fn new(of: &Path) -> Result<Beside, Error> {
        is_free(of)?;
        let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(io_at("made", parent))?;
        let name = of.file_name().unwrap_or_default().to_string_lossy();
        let only_owners = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(&format!(".{name}.")).permissions(only_owners).tempdir_in(parent);
        Ok(Beside { folder: folder.map_err(io_at("written to", parent))?, of: of.into(), parent: parent.into() })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes it the folder that it is beside: durably, and as a whole.
    fn take_place(self) -> Result<(), Error> {
        sync_folder(self.folder.path())?;
        fs::rename(self.folder.path(), &self.of).map_err(io_at("made", &self.of))?;
        // It is not there under this name any more.
        let _ = self.folder.keep();
        sync_folder(&self.parent)
    }
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_at("synced", folder))
}

/// A new file that only its owner can read: there is in it what actors know.
fn create(path: &Path) -> Result<File, Error> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io_at("made", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = create(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_at("written", path))
}
