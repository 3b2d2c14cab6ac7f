//! The node's data folder.
//!
//! | name | what |
//! |---|---|
//! | `VERSION` | the format of everything beside it |
//! | `LOCK` | locked while a node uses the folder; holds its process id |
//! | `NODE_ID` | who this node is, for as long as the folder lives |
//! | `tls/` | certificates and keys |
//! | `dead-letters/` | sled: see [`crate::dead_letters`] |
//! | `checkpoints/` | sled: see [`crate::checkpoints`] |
//! | `control/` | sled: what the cluster has agreed on, see [`crate::raft_log`] |
//! | `kernels/` | compiled kernels: see [`crate::kernels`] |
//!
//! Opening refuses rather than repairs: a folder of another version, of another program, or in use is left as it
//! was found. But one of version 1, which had no checkpoints, or 2, which had no control plane, becomes one of version 3: it
//! needs no more than the number, and a build that knows neither, and would start the actors anew without a word or run shards
//! that have moved, then refuses it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

/// The format this build reads and writes.
pub const VERSION: u32 = 3;
/// Without a control plane, and without checkpoints; otherwise the same.
const VERSIONS_BEFORE: std::ops::RangeInclusive<u32> = 1..=2;

const VERSION_FILE: &str = "VERSION";
const LOCK_FILE: &str = "LOCK";
const NODE_ID_FILE: &str = "NODE_ID";
const PROBE_FILE: &str = "PROBE";
/// A node that cannot write this much has no room to start.
const PROBE_BYTES: usize = 64 * 1024;
/// A process that was just killed, or that is between fork and exec, still has the lock for a moment.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// An open data folder, this process's until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    node_id: Uuid,
    /// Held for its lock, which the system releases however the process ends.
    _lock: File,
}

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data folder {} is a file, not a folder: move it away, or choose another folder", .0.display())]
    NotAFolder(PathBuf),
    #[error(
        "the folder {} is not empty and holds no VERSION file, so it is no data folder of Ringhold: choose another, or an empty one",
        .0.display()
    )]
    NotOurs(PathBuf),
    #[error(
        "the data folder {} has format version {found}, and this build of Ringhold reads {VERSION}: {}",
        path.display(),
        if *found > VERSION { "use the newer Ringhold that wrote it, or another folder" }
        else { "convert it with the Ringhold that wrote it, or use another folder" }
    )]
    OtherVersion { path: PathBuf, found: u32 },
    #[error(
        "{} is damaged: it holds {found:?}, not {expected}: restore the folder from a backup, or use another folder",
        path.display()
    )]
    Damaged { path: PathBuf, found: String, expected: &'static str },
    #[error(
        "the data folder {} is in use by {}: stop it, or use another folder (`--data-dir`)",
        path.display(),
        holder.as_deref().unwrap_or("another process")
    )]
    Locked {
        path: PathBuf,
        /// `process 4711 (ringhold)`, where it could be found out.
        holder: Option<String>,
    },
    #[error("no permission to {doing} {}: it must belong to the user that runs the node (id {}), and be writable", path.display(), user())]
    NoPermission { doing: &'static str, path: PathBuf },
    #[error("the file system of {} is mounted read-only: choose a folder on another", .0.display())]
    ReadOnly(PathBuf),
    #[error(
        "no space is left on the disk of {}: could not write {PROBE_BYTES} bytes to {}; free some, or use a folder on another disk",
        folder(path).display(), path.display()
    )]
    DiskFull { path: PathBuf },
    #[error("could not {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl DataFolder {
    /// Opens the folder, making it first where there is none, and holds it until dropped.
    ///
    /// `random` is asked for the node id of a new folder.
    pub fn open(path: &Path, random: impl FnOnce() -> [u8; 16]) -> Result<DataFolder, Error> {
        create(path)?;
        let path = &fs::canonicalize(path).map_err(at("resolve", path))?;
        check_ours(path)?;
        let lock = lock(path)?;
        let found = read_version(path)?;
        probe(path)?;
        if found.is_none() {
            // The version comes last: until it is there, an interrupted start left nothing that counts.
            let node_id = uuid::Builder::from_random_bytes(random()).into_uuid();
            write_durably(&path.join(NODE_ID_FILE), format!("{node_id}\n").as_bytes())?;
        }
        if found != Some(VERSION) {
            write_durably(&path.join(VERSION_FILE), format!("{VERSION}\n").as_bytes())?;
        }
        let node_id = read_node_id(path)?;
        Ok(DataFolder { path: path.clone(), node_id, _lock: lock })
    }

    /// Absolute, links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn node_id(&self) -> Uuid {
        self.node_id
    }

    pub fn tls_path(&self) -> PathBuf {
        self.path.join("tls")
    }

    pub fn dead_letters_path(&self) -> PathBuf {
        self.path.join("dead-letters")
    }

    pub fn checkpoints_path(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    pub fn control_path(&self) -> PathBuf {
        self.path.join("control")
    }

    pub fn kernels_path(&self) -> PathBuf {
        self.path.join("kernels")
    }
}

/// Replaces a file as a whole: after a crash it is the old one or the new one. Only its owner can read it.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(at("create", &new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at("write", &new))?;
    fs::rename(&new, path).map_err(at("write", path))?;
    let folder = folder(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at("sync", folder))
}

fn create(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => return Err(Error::NotAFolder(path.into())),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(at("open", path)(error)),
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create", path))
}

/// Whether the folder is a data folder, or free to become one.
fn check_ours(path: &Path) -> Result<(), Error> {
    if path.join(VERSION_FILE).exists() {
        return Ok(());
    }
    let mut new = true;
    for entry in fs::read_dir(path).map_err(at("list", path))? {
        let name = entry.map_err(at("list", path))?.file_name();
        // What an interrupted first start leaves, and what a fresh ext4 volume holds.
        let start = ["LOCK", "PROBE", "NODE_ID", "NODE_ID.new", "VERSION.new", "lost+found"];
        if !start.iter().any(|known| name == *known) {
            return Err(Error::NotOurs(path.into()));
        }
        new &= name == "lost+found";
    }
    if new {
        // Keys will be in here. A mounted volume may belong to someone else and be shared by group; then the
        // keys' own permissions have to do.
        let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(at("open", &path))?;
    let mut attempts = 1;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
            Err(TryLockError::WouldBlock) if attempts < LOCK_ATTEMPTS => {
                attempts += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { path: folder.into(), holder: holder(&mut file) });
            }
        }
    }
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(at("write", &path))?;
    Ok(file)
}

fn holder(lock: &mut File) -> Option<String> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(if name.is_empty() { format!("process {pid}") } else { format!("process {pid} ({})", name.trim()) })
}

/// The version of the folder, which is one that this build can make its own; `None` where there is none yet.
fn read_version(folder: &Path) -> Result<Option<u32>, Error> {
    let path = folder.join(VERSION_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("read", &path)(error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    match text.trim().parse() {
        Ok(found) if found == VERSION || VERSIONS_BEFORE.contains(&found) => Ok(Some(found)),
        Ok(found) => Err(Error::OtherVersion { path: folder.into(), found }),
        Err(_) => Err(damaged(path, &text, "a format version")),
    }
}

fn read_node_id(folder: &Path) -> Result<Uuid, Error> {
    let path = folder.join(NODE_ID_FILE);
    let bytes = fs::read(&path).map_err(at("read", &path))?;
    let text = String::from_utf8_lossy(&bytes);
    text.trim().parse().map_err(|_| damaged(path, &text, "a node id (a UUID)"))
}

fn damaged(path: PathBuf, found: &str, expected: &'static str) -> Error {
    Error::Damaged { path, found: found.chars().take(40).collect(), expected }
}

/// Finds out now, and by name, what would otherwise be found out in the middle of the work.
fn probe(folder: &Path) -> Result<(), Error> {
    let path = folder.join(PROBE_FILE);
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(at("create", &path))?;
    let written = file.write_all(&[0x5a; PROBE_BYTES]).and_then(|()| file.sync_all());
    let removed = fs::remove_file(&path);
    written.map_err(at("write", &path))?;
    removed.map_err(at("remove", &path))
}

/// Gives the errors that have a remedy their own names.
fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::DiskFull { path },
        ErrorKind::PermissionDenied => Error::NoPermission { doing, path },
        ErrorKind::ReadOnlyFilesystem => Error::ReadOnly(path),
        ErrorKind::NotADirectory => Error::NotAFolder(path),
        _ => Error::Io { doing, path, source },
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn open(path: &Path) -> Result<DataFolder, Error> {
        DataFolder::open(path, || [7; 16])
    }

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_new_folder_is_private_and_keeps_its_node_id() {
        let scratch = scratch();
        let path = scratch.path().join("a/b");
        let first = open(&path).unwrap().node_id();
        assert_eq!(first.get_version_num(), 4);
        let again = DataFolder::open(&path, || panic!("only a new folder needs an id")).unwrap();
        assert_eq!(again.node_id(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!path.join(PROBE_FILE).exists());
    }

    #[test]
    fn an_interrupted_first_start_is_no_obstacle() {
        let scratch = scratch();
        for name in ["LOCK", "NODE_ID", "VERSION.new", "PROBE"] {
            fs::write(scratch.path().join(name), "").unwrap();
        }
        open(scratch.path()).unwrap();
    }

    #[test]
    fn another_version_is_refused_with_both_numbers() {
        let scratch = scratch();
        drop(open(scratch.path()).unwrap());
        for (version, advice) in [("4", "newer Ringhold"), ("0", "convert it")] {
            fs::write(scratch.path().join("VERSION"), version).unwrap();
            let error = open(scratch.path()).unwrap_err();
            assert!(matches!(error, Error::OtherVersion { found, .. } if found.to_string() == version));
            let text = error.to_string();
            assert!(text.contains(&format!("version {version}")) && text.contains("reads 3"), "{text}");
            assert!(text.contains(advice), "{text}");
            assert_eq!(fs::read(scratch.path().join("VERSION")).unwrap(), version.as_bytes());
        }
    }

    #[test]
    fn a_folder_from_before_there_were_checkpoints_or_a_control_plane_is_taken_over_as_it_is() {
        let scratch = scratch();
        let first = open(scratch.path()).unwrap().node_id();
        for before in ["1\n", "2\n"] {
            fs::write(scratch.path().join("VERSION"), before).unwrap();
            assert_eq!(open(scratch.path()).unwrap().node_id(), first);
            // An older build refuses it from now on, by the number.
            assert_eq!(fs::read_to_string(scratch.path().join("VERSION")).unwrap(), "3\n");
        }
    }

    #[test]
    fn damaged_files_are_named_with_what_they_hold() {
        let scratch = scratch();
        drop(open(scratch.path()).unwrap());
        let says = |name: &str, bytes: &[u8], expected: &str| {
            let good = fs::read(scratch.path().join(name)).unwrap();
            fs::write(scratch.path().join(name), bytes).unwrap();
            let text = open(scratch.path()).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(expected), "{text}");
            fs::write(scratch.path().join(name), good).unwrap();
        };
        says("VERSION", b"one", "holds \"one\", not a format version");
        says("VERSION", b"", "holds \"\"");
        says("VERSION", &[0xff, 0xfe], "not a format version");
        says("NODE_ID", b"nobody", "not a node id");
        open(scratch.path()).unwrap();
    }

    #[test]
    fn a_file_and_a_folder_of_someone_else_are_refused_untouched() {
        let scratch = scratch();
        let file = scratch.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(open(&file), Err(Error::NotAFolder(_))));
        assert!(matches!(open(&file.join("under")), Err(Error::NotAFolder(_))));
        assert!(matches!(open(scratch.path()), Err(Error::NotOurs(_))));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    /// Not a test by itself: the other process of the next one.
    #[test]
    fn holds_the_folder_named_in_the_environment() {
        let Some(path) = std::env::var_os("RINGHOLD_TEST_HOLD") else { return };
        let _held = open(Path::new(&path)).unwrap();
        println!("\nheld");
        let _ = io::stdin().read(&mut [0]);
    }

    #[test]
    fn a_folder_held_by_another_process_names_it_until_it_dies() {
        let scratch = scratch();
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "folder::tests::holds_the_folder_named_in_the_environment"])
            .env("RINGHOLD_TEST_HOLD", scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufRead::lines(io::BufReader::new(other.stdout.take().unwrap()));
        assert!(lines.any(|line| line.unwrap() == "held"));
        let text = open(scratch.path()).unwrap_err().to_string();
        assert!(text.contains(&format!("in use by process {}", other.id())), "{text}");
        other.kill().unwrap();
        other.wait().unwrap();
        open(scratch.path()).unwrap();
    }

    #[test]
    fn one_process_cannot_hold_a_folder_twice() {
        let scratch = scratch();
        let _held = open(scratch.path()).unwrap();
        let text = open(scratch.path()).unwrap_err().to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    }

    #[test]
    fn a_full_disk_is_found_at_the_start() {
        let scratch = scratch();
        // Every write to /dev/full fails with ENOSPC, as the disk's would.
        std::os::unix::fs::symlink("/dev/full", scratch.path().join(PROBE_FILE)).unwrap();
        let error = open(scratch.path()).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        assert!(error.to_string().contains("no space is left"), "{error}");
        assert!(!scratch.path().join(VERSION_FILE).exists());
    }

    #[test]
    fn no_permission_is_said_so() {
        let scratch = scratch();
        if user() == 0 {
            // Root may write everywhere but in the kernel's own folders.
            let text = open(Path::new("/proc/ringhold")).unwrap_err().to_string();
            assert!(text.contains("/proc/ringhold"), "{text}");
        } else {
            fs::set_permissions(scratch.path(), Permissions::from_mode(0o500)).unwrap();
            assert!(matches!(open(&scratch.path().join("new")), Err(Error::NoPermission { .. })));
            fs::set_permissions(scratch.path(), Permissions::from_mode(0o700)).unwrap();
        }
        let error = at("create", Path::new("x"))(io::Error::from_raw_os_error(13));
        assert!(error.to_string().contains(&format!("id {}", user())), "{error}");
        assert!(matches!(at("create", Path::new("x"))(io::Error::from_raw_os_error(30)), Error::ReadOnly(_)));
    }
}
