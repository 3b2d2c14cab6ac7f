//! What a node holds and has pinned for backups.
//!
//! Nothing of it outlives who asked for it by long: a hold ends by itself, and what nobody reads any more is let go of. None of it is
//! on the disk, so a node that starts again has none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::control::state::DeviceNumber;
use ringhold_storage::checkpoints::Pinned;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::{Instant, sleep};

/// For how long a node lets no device commit anything because of a backup, unless it is told to go on before.
pub(super) const HOLD_LIMIT: Duration = Duration::from_secs(5);
/// For how long it keeps what nobody reads.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Backups at a time.
const SESSIONS_MAX: usize = 8;
/// About so many bytes are in an item.
const ITEM_BYTES: usize = 1 << 20;

/// See the module's documentation.
#[derive(Default)]
pub struct Sessions(Mutex<BTreeMap<u64, Session>>);

struct Session {
    /// `None` once the node has gone on.
    hold: Option<Hold>,
    pins: BTreeMap<DeviceNumber, Arc<tokio::sync::Mutex<Reading>>>,
    touched: Instant,
    /// It is over.
    ended: Arc<Notify>,
}

/// Nothing of these devices is committed, and no shard moves here.
pub struct Hold {
    pub devices: Vec<DeviceNumber>,
    pub guards: Vec<OwnedMutexGuard<()>>,
}

/// A pinned checkpoint that is being read.
pub struct Reading {
    pinned: Pinned,
    /// The number of the next item.
    next: u64,
    /// The one before, for somebody whose answer was lost.
    last: Option<Vec<u8>>,
}

const UNKNOWN: &str =
    "it knows nothing of this backup any more: it has started again since, or nobody has read it for a minute";

impl Sessions {
    /// Begins a session, which ends by itself: what this returns sees to that.
    ///
    /// # Errors
    /// There are too many, or it is there already.
    pub fn begin(self: &Arc<Sessions>, id: u64, hold: Hold) -> Result<impl Future<Output = ()> + use<>, String> {
        let mut sessions = self.0.lock();
        if sessions.len() >= SESSIONS_MAX || sessions.contains_key(&id) {
            return Err(format!("{SESSIONS_MAX} backups are under way there already: try again"));
        }
        let ended = Arc::new(Notify::new());
        let session =
            Session { hold: Some(hold), pins: BTreeMap::new(), touched: Instant::now(), ended: ended.clone() };
        sessions.insert(id, session);
        Ok(self.clone().watch(id, ended))
    }

    async fn watch(self: Arc<Sessions>, id: u64, ended: Arc<Notify>) {
        tokio::select! {
            biased;
            () = ended.notified() => return,
            () = sleep(HOLD_LIMIT) => {}
        }
        if self.release(id) {
            tracing::warn!("nobody has said for {} s that a backup holds no more: devices go on", HOLD_LIMIT.as_secs());
        }
        loop {
            let Some(idle) = self.0.lock().get(&id).map(|session| session.touched.elapsed()) else { return };
            if idle >= IDLE_LIMIT {
                tracing::warn!("nobody reads a backup any more: what was pinned for it is let go of");
                return self.end(id);
            }
            tokio::select! {
                biased;
                () = ended.notified() => return,
                () = sleep(IDLE_LIMIT - idle) => {}
            }
        }
    }

    /// The devices of which nothing is committed now.
    pub fn held(&self, id: u64) -> Result<Vec<DeviceNumber>, String> {
        let sessions = self.0.lock();
        let session = sessions.get(&id).ok_or(UNKNOWN)?;
        session.hold.as_ref().map(|hold| hold.devices.clone()).ok_or_else(|| "it has gone on already".into())
    }

    /// Keeps what was pinned while nothing was committed.
    pub fn pin(&self, id: u64, pins: BTreeMap<DeviceNumber, Pinned>) -> Result<(), String> {
        self.held(id)?;
        let reading = |pinned| Arc::new(tokio::sync::Mutex::new(Reading { pinned, next: 0, last: None }));
        if let Some(session) = self.0.lock().get_mut(&id) {
            session.pins = pins.into_iter().map(|(device, pinned)| (device, reading(pinned))).collect();
            session.touched = Instant::now();
        }
        Ok(())
    }

    /// Goes on; whether nothing was committed until now.
    pub fn release(&self, id: u64) -> bool {
        let hold = self.0.lock().get_mut(&id).and_then(|session| session.hold.take());
        hold.map(|hold| drop(hold.guards)).is_some()
    }

    /// What is pinned of a device.
    pub fn reading(&self, id: u64, device: DeviceNumber) -> Result<Arc<tokio::sync::Mutex<Reading>>, String> {
        let mut sessions = self.0.lock();
        let session = sessions.get_mut(&id).ok_or(UNKNOWN)?;
        session.touched = Instant::now();
        session.pins.get(&device).cloned().ok_or_else(|| format!("nothing of device {device} is pinned there"))
    }

    pub fn end(&self, id: u64) {
        let session = self.0.lock().remove(&id);
        if let Some(session) = session {
            session.ended.notify_one();
        }
    }
}

impl Reading {
    /// The item of this number; `None` after the last.
    pub fn item(&mut self, number: u64) -> Result<Option<Vec<u8>>, String> {
        if number + 1 == self.next {
            return Ok(self.last.clone());
        }
        if number != self.next {
            return Err(format!("part {number} was asked for, and {} comes next", self.next));
        }
        let item = self.pinned.next(ITEM_BYTES).map_err(|e| e.to_string())?;
        (self.next, self.last) = (number + 1, item.map(|item| item.to_bytes()));
        Ok(self.last.clone())
    }
}

#[cfg(test)]
mod tests {
    use ringhold_storage::blocks::{Blocks, InMemory};
    use ringhold_storage::checkpoints::{About, Checkpoints, Options, Part};

    use super::*;

    /// A full checkpoint in place of all before.
    fn commit(store: &Checkpoints, epoch: u64) {
        let mut draft = store.begin("cpu0", epoch, None).unwrap();
        let mut records = Vec::new();
        let cut = ringhold_kernels::checkpoint::Cut { epoch, lane: 0, ingress: 0, egress: 0, hlc: 0 };
        ringhold_kernels::checkpoint::push_cut(&mut records, &cut);
        draft.append(Part::Lane(0), &records).unwrap();
        draft.commit(About { at_us: epoch, lanes: 1, ..About::default() }).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_that_nobody_releases_ends_by_itself_and_so_does_what_nobody_reads() {
        let blocks = Arc::new(InMemory::default());
        let store = Checkpoints::open(blocks.clone(), Options { kept: 1 }).unwrap();
        let one = Arc::new(tokio::sync::Mutex::new(()));
        let sessions = Arc::new(Sessions::default());
        let hold = Hold { devices: vec![3], guards: vec![one.clone().lock_owned().await] };
        tokio::spawn(sessions.begin(7, hold).unwrap());
        assert!(sessions.begin(7, Hold { devices: Vec::new(), guards: Vec::new() }).is_err(), "it is there");
        commit(&store, 1);
        sessions.pin(7, BTreeMap::from([(3, store.pin("cpu0").unwrap())])).unwrap();
        // Chunks of how many checkpoints there are.
        let chunks = || {
            let (mut sets, mut from) = (0, vec![b'c']);
            while let Some(key) = blocks.first_from(&from).unwrap().filter(|key| key[0] == b'c') {
                sets += 1;
                from = [&key[..9], &[0xff; 9]].concat();
            }
            sets
        };
        sleep(HOLD_LIMIT - Duration::from_millis(1)).await;
        assert!(one.try_lock().is_err(), "nothing is committed");
        sleep(Duration::from_millis(2)).await;
        assert!(one.try_lock().is_ok(), "the device goes on");
        assert!(!sessions.release(7), "who says so later is told that it has");
        assert!(sessions.pin(7, BTreeMap::new()).is_err(), "nor can anything be pinned");

        commit(&store, 2);
        commit(&store, 3);
        assert_eq!(chunks(), 2, "what is pinned is there beside the one that is kept");
        // It is read now and then.
        for _ in 0..3 {
            sleep(IDLE_LIMIT - 2 * HOLD_LIMIT).await;
            assert!(sessions.reading(7, 3).unwrap().lock().await.item(0).unwrap().is_some());
        }
        assert!(sessions.reading(7, 3).unwrap().lock().await.item(5).is_err());
        assert!(sessions.reading(7, 4).is_err());
        assert_eq!(chunks(), 2);
        sleep(IDLE_LIMIT + Duration::from_secs(1)).await;
        assert!(sessions.reading(7, 3).is_err(), "nobody has read it for a minute");
        commit(&store, 4);
        assert_eq!(chunks(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_over_leaves_nothing() {
        let sessions = Arc::new(Sessions::default());
        let one = Arc::new(tokio::sync::Mutex::new(()));
        let hold = Hold { devices: Vec::new(), guards: vec![one.clone().lock_owned().await] };
        let watching = tokio::spawn(sessions.begin(7, hold).unwrap());
        assert!(sessions.release(7));
        assert!(one.try_lock().is_ok());
        sessions.end(7);
        watching.await.unwrap();
        assert!(sessions.held(7).is_err());
    }
}
