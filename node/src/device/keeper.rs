//! Checkpoints of a device: when they are made, how, and how a new host begins with one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::network::BoxFuture;
use ringhold_kernels::checkpoint::{self, Cut, Record, Splitter};
use ringhold_kernels::registry::Registry;
use ringhold_storage::checkpoints::{self, About, Checkpoints, Draft, Part, Type};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::door::Outcome;
use super::mistake::{self, Mistake};
use super::{Device, Outlet};

/// Who does work that may wait for a disk.
pub trait Jobs: Send + Sync {
    /// Does the job, elsewhere if need be; it is done when this resolves.
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// Tokio's threads for blocking work.
pub struct Blocking;

impl Jobs for Blocking {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let job = tokio::task::spawn_blocking(job);
        Box::pin(async move {
            if let Err(e) = job.await
                && e.is_panic()
            {
                std::panic::resume_unwind(e.into_panic());
            }
        })
    }
}

/// How a device's checkpoints are made.
#[derive(Clone)]
pub struct Options {
    pub store: Checkpoints,
    pub jobs: Arc<dyn Jobs>,
    /// From one checkpoint to the next, while anything happens. One that outputs are held for is made at once.
    pub interval: Duration,
    /// The newest epoch that there ever was: the next one is greater.
    pub newest: u64,
}

/// What is known of a device's checkpoints, for `status`.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub count: u64,
    pub epoch: u64,
    /// When the last one was durable.
    pub at: Option<Instant>,
    pub bytes: u64,
    /// How long the device stood still for it, and how long it took until it was durable.
    pub pause: Duration,
    pub took: Duration,
    /// Why the last attempt failed, if it did.
    pub failed: Option<String>,
    pub recoveries: u64,
    /// From the end of a host until the next one ran with its state: the last one's, and the longest.
    pub recovery: Duration,
    pub recovery_max: Duration,
}

/// See the module's documentation.
pub(super) struct Keeper {
    options: Options,
    /// There may be more of a cut to collect.
    pub staged: Notify,
    /// A checkpoint should not wait for its time.
    pub early: Notify,
    pub figures: Mutex<Figures>,
    /// How much of a cut has come, while the device is to send more of it.
    pub awaited: Mutex<Option<u64>>,
    /// Grows while what a host begins with is read and sent to it.
    pub restored: Arc<AtomicU64>,
    /// Held while a checkpoint is made, and while a host's term begins.
    pub one: tokio::sync::Mutex<()>,
    pub next_epoch: AtomicU64,
    /// A cut that was asked for and has not come up whole.
    open: Mutex<Option<u64>>,
    /// The last attempt failed after the device was cut, so the next one has everything.
    whole_next: Mutex<bool>,
    compacting: Arc<AtomicBool>,
}

/// Why there was no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the device's host ended meanwhile")]
    HostEnded,
    #[error(transparent)]
    Store(#[from] checkpoints::Error),
    #[error("the device sent what is no part of a checkpoint: {0}")]
    Record(#[from] checkpoint::Error),
    #[error("a checkpoint of device `{device}` cannot be taken up: {why}")]
    Part { device: String, why: &'static str },
}

/// How much of a cut is collected in one go, from each lane.
const COLLECT_BYTES: usize = 1 << 20;
/// A bell may be missed: the road of a cut is looked at so often anyway.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Once a disk has failed, it is left alone for so long.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

impl Keeper {
    pub fn new(options: Options) -> Keeper {
        Keeper {
            one: tokio::sync::Mutex::default(),
            next_epoch: AtomicU64::new(options.newest + 1),
            options,
            staged: Notify::new(),
            early: Notify::new(),
            figures: Mutex::default(),
            awaited: Mutex::default(),
            restored: Arc::default(),
            open: Mutex::default(),
            whole_next: Mutex::new(false),
            compacting: Arc::default(),
        }
    }

    async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let result = Arc::new(Mutex::new(None));
        let to = result.clone();
        self.options.jobs.run(Box::new(move || *to.lock() = Some(job()))).await;
        result.lock().take().expect("the job was done")
    }
}

/// What a new host begins with, and what its door takes up, of one checkpoint.
pub(super) struct Beginning {
    /// For each lane, the records that come down it.
    pub lanes: Vec<Vec<u8>>,
    pub actors: u64,
}

/// Reads a checkpoint for a device of so many lanes, of which `lane_of` says where each record goes.
fn read(
    store: &Checkpoints,
    device: &str,
    epoch: u64,
    lanes: usize,
    lane_of: impl Fn(&Record<'_>) -> Option<usize>,
    progress: &AtomicU64,
) -> Result<Beginning, Error> {
    let (mut first, mut then) = (vec![Vec::new(); lanes], vec![Vec::new(); lanes]);
    let (mut actors, mut hlc) = (0, 0);
    if epoch > 0 {
        store.visit(device, epoch, |_, record, bytes| {
            progress.fetch_add(1, SeqCst);
            match record {
                Record::Cut(cut) => hlc = hlc.max(cut.hlc),
                Record::Actor { .. } => actors += 1,
                _ => {}
            }
            let Some(lane) = lane_of(&record) else { return Ok(()) };
            // What must go behind all that was ahead of it, whichever lane that was in.
            let later = matches!(record, Record::Queued { phase: 1.., .. });
            (if later { &mut then } else { &mut first })[lane].extend_from_slice(bytes);
            Ok::<(), Error>(())
        })?;
    }
    for (number, (lane, then)) in first.iter_mut().zip(then).enumerate() {
        lane.extend(then);
        checkpoint::push_cut(lane, &Cut { epoch, lane: number as u32, ingress: 0, egress: 0, hlc });
    }
    Ok(Beginning { lanes: first, actors })
}

impl Device {
    /// Makes checkpoints for as long as the node runs.
    pub async fn keep(self: Arc<Device>, outlet: Arc<dyn Outlet>) {
        let Some(keeper) = &self.keeper else { return };
        let mut last = None;
        loop {
            tokio::select! {
                biased;
                () = keeper.early.notified() => {}
                () = sleep(keeper.options.interval) => {}
            }
            // One at a time, and none while nothing has happened since the last.
            let now = self.happened();
            if !self.is_running() || last == Some(now) {
                continue;
            }
            match self.checkpoint(&*outlet).await {
                Ok(()) => {
                    last = Some(now);
                    self.compact(keeper).await;
                }
                Err(Error::HostEnded) => {}
                Err(e) => {
                    tracing::error!(
                        device = self.name,
                        "no checkpoint: {e}; trying again in {} s",
                        FAILED_PAUSE.as_secs()
                    );
                    keeper.figures.lock().failed = Some(e.to_string());
                    sleep(FAILED_PAUSE).await;
                }
            }
            if self.door.lock().wants_checkpoint() {
                keeper.early.notify_one();
            }
        }
    }

    /// Makes the last checkpoint before the device ends.
    pub async fn last_checkpoint(&self, outlet: &dyn Outlet, limit: Duration) {
        if self.keeper.is_none() || !self.is_running() {
            return;
        }
        match tokio::time::timeout(limit, self.checkpoint(outlet)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(device = self.name, "no last checkpoint: {e}"),
            Err(_) => tracing::error!(device = self.name, "no last checkpoint within the time there was"),
        }
    }

    /// Makes one checkpoint of a long chain of them, beside everything else.
    async fn compact(&self, keeper: &Keeper) {
        let store = keeper.options.store.clone();
        if !store.due().contains(&self.name) || keeper.compacting.swap(true, SeqCst) {
            return;
        }
        let (name, compacting, jobs) = (self.name.clone(), keeper.compacting.clone(), keeper.options.jobs.clone());
        tokio::spawn(async move {
            let job = move || {
                if let Err(e) = store.compact(&name, &mut |_| ()) {
                    tracing::error!(device = name, "the checkpoints could not be compacted: {e}");
                }
            };
            jobs.run(Box::new(job)).await;
            compacting.store(false, SeqCst);
        });
    }

    /// What moves when anything happens.
    fn happened(&self) -> (u64, u64, u64, usize, u64) {
        let door = self.door.lock();
        let totals = door.totals();
        (totals.finished, totals.sent, totals.replies + totals.dead, door.retained_bytes(), door.moved())
    }

    /// Makes one checkpoint, and hands on what was held for it.
    pub async fn checkpoint(&self, outlet: &dyn Outlet) -> Result<(), Error> {
        let keeper = self.keeper.as_ref().expect("only a device that keeps makes checkpoints");
        // Two at a time would cut the device twice; and no host begins before it is known with what.
        let _one = keeper.one.lock().await;
        let made = match self.throw_away_open_cut(keeper).await {
            Ok(()) => self.make(keeper, outlet).await,
            ended => ended,
        };
        if let Err(Error::HostEnded) = made {
            // The next one has made no cut.
            *keeper.open.lock() = None;
            *keeper.whole_next.lock() = false;
        }
        made
    }

    /// Takes what is left of a cut of which there is no checkpoint, because the store failed: it is no part of the next one.
    async fn throw_away_open_cut(&self, keeper: &Keeper) -> Result<(), Error> {
        let Some(epoch) = *keeper.open.lock() else { return Ok(()) };
        let mut thrown = Vec::new();
        loop {
            {
                let mut door = self.door.lock();
                if !door.has_host() {
                    return Err(Error::HostEnded);
                }
                let link = door.link();
                let lanes = 0..link.lanes();
                // Each lane, whether another is whole or not.
                let whole = lanes.filter(|lane| link.collect_cut(*lane, epoch, &mut thrown, COLLECT_BYTES)).count();
                if whole == link.lanes() {
                    *keeper.open.lock() = None;
                    return Ok(());
                }
            }
            thrown.clear();
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn make(&self, keeper: &Keeper, outlet: &dyn Outlet) -> Result<(), Error> {
        let began = Instant::now();
        let whole = *keeper.whole_next.lock();
        let (epoch, base, lanes) = {
            let mut door = self.door.lock();
            if !door.has_host() || !door.link().is_running() {
                return Err(Error::HostEnded);
            }
            let base = door.epoch();
            let epoch = keeper.next_epoch.fetch_add(1, SeqCst);
            let whole = whole || base == 0;
            door.link().ask_cut(epoch, whole);
            // Until there is a checkpoint of it, what it took from the lists of what has changed is in none.
            *keeper.open.lock() = Some(epoch);
            *keeper.whole_next.lock() = true;
            (epoch, (!whole).then_some(base), door.link().lanes())
        };
        let (store, name) = (keeper.options.store.clone(), self.name.clone());
        let mut draft = keeper.run(move || store.begin(&name, epoch, base)).await?;
        let mut parts: Vec<Collecting> = (0..lanes).map(|_| Collecting::default()).collect();
        let mut bytes = 0u64;
        while parts.iter().any(|part| !part.whole) {
            {
                let mut door = self.door.lock();
                if !door.has_host() {
                    *keeper.awaited.lock() = None;
                    return Err(Error::HostEnded);
                }
                for (lane, part) in parts.iter_mut().enumerate().filter(|(_, part)| !part.whole) {
                    part.whole = door.link().collect_cut(lane, epoch, &mut part.bytes, COLLECT_BYTES);
                }
            }
            let collected: usize = parts.iter().map(|part| part.bytes.len()).sum();
            if collected == 0 {
                *keeper.awaited.lock() = Some(bytes);
                tokio::select! {
                    biased;
                    () = keeper.staged.notified() => {}
                    () = sleep(LOOK_EVERY) => {}
                }
                continue;
            }
            *keeper.awaited.lock() = None;
            bytes += collected as u64;
            for part in &mut parts {
                part.look()?;
            }
            let mut taken: Vec<Vec<u8>> = parts.iter_mut().map(|part| std::mem::take(&mut part.bytes)).collect();
            draft = keeper
                .run(move || {
                    for (lane, bytes) in taken.drain(..).enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
                        draft.append(Part::Lane(lane as u32), &bytes)?;
                    }
                    Ok::<Draft, checkpoints::Error>(draft)
                })
                .await?;
        }
        *keeper.open.lock() = None;
        let cuts: Vec<Cut> = parts.iter().map(|part| part.cut.expect("a whole part ends with its cut")).collect();
        let (mut out, mut part) = (Outcome::default(), Vec::new());
        let pause = {
            let mut door = self.door.lock();
            if !door.has_host() {
                return Err(Error::HostEnded);
            }
            door.close_cut(&cuts, &mut part, &mut out);
            Duration::from_nanos(door.link().pause_ns())
        };
        outlet.carry(self, &mut out);
        bytes += part.len() as u64;
        let about = About {
            at_us: self.network.wall_us(),
            types: self.registry.types().iter().map(Type::from).collect(),
            lanes: lanes as u32,
            node: Vec::new(),
        };
        let committed = keeper
            .run(move || {
                draft.append(Part::Node, &part)?;
                draft.commit(about)
            })
            .await;
        {
            let mut door = self.door.lock();
            match &committed {
                Ok(_) => door.commit(&mut out),
                Err(_) => door.give_back(),
            }
            door.let_in();
        }
        committed?;
        outlet.carry(self, &mut out);
        outlet.committed(self);
        outlet.room();
        *keeper.whole_next.lock() = false;
        let mut figures = keeper.figures.lock();
        figures.count += 1;
        (figures.epoch, figures.bytes, figures.pause) = (epoch, bytes, pause);
        (figures.at, figures.took, figures.failed) = (Some(Instant::now()), began.elapsed(), None);
        Ok(())
    }
}

/// What of a device's checkpoint is its door's: takes it up, and says what is to be handed on.
///
/// # Errors
/// That the checkpoint cannot be read, or holds what is not this binary's.
pub(super) fn take_up(
    options: &Options,
    device: &str,
    epoch: u64,
    registry: &Registry,
    door: &mut super::Door,
) -> Result<Outcome, Error> {
    let mut out = Outcome::default();
    options.store.check_types(device, epoch, registry)?;
    options.store.visit(device, epoch, |_, record, _| {
        let taken = door.take_up(&record, &mut out);
        taken.map_err(|why| Error::Part { device: device.into(), why })
    })?;
    Ok(out)
}

impl Device {
    /// Sends the host of the present term what it begins with. Returns early where the host ends meanwhile.
    pub(super) async fn restore(&self, term: u64) -> Result<(), Error> {
        let keeper = self.keeper.as_ref().expect("only a device that keeps restores");
        let (epoch, lanes, router) = {
            let mut door = self.door.lock();
            (door.epoch(), door.link().lanes(), door.link().router())
        };
        let (store, name) = (keeper.options.store.clone(), self.name.clone());
        let epoch = match epoch {
            epoch if mistake::is_made(Mistake::BeginsOlder) => older(&store, &name, epoch),
            epoch => epoch,
        };
        let progress = keeper.restored.clone();
        let read = move || read(&store, &name, epoch, lanes, |record| router.lane_of_record(record), &progress);
        let beginning = keeper.run(read).await?;
        let mut sent = vec![0; lanes];
        loop {
            let mut moved = 0;
            {
                let mut door = self.door.lock();
                if !door.has_host() || door.link().term() != term {
                    return Ok(());
                }
                for (lane, bytes) in beginning.lanes.iter().enumerate() {
                    let now = door.link().send_down(lane, &bytes[sent[lane]..]);
                    sent[lane] += now;
                    moved += now;
                }
                // What is queued behind it may come at once.
                door.let_in();
            }
            if sent.iter().zip(&beginning.lanes).all(|(sent, bytes)| *sent == bytes.len()) {
                tracing::info!(device = self.name, epoch, actors = beginning.actors, "device begins with a checkpoint");
                return Ok(());
            }
            keeper.restored.fetch_add(moved as u64, SeqCst);
            match moved {
                0 => sleep(Duration::from_millis(1)).await,
                _ => tokio::task::yield_now().await,
            }
        }
    }
}

/// The checkpoint before this one, for a mistake on purpose.
fn older(store: &Checkpoints, device: &str, epoch: u64) -> u64 {
    let all = store.manifests().into_iter().filter(|manifest| manifest.device == device && manifest.epoch < epoch);
    all.map(|manifest| manifest.epoch).max().unwrap_or(0)
}

/// What has come of one lane's part of a cut.
#[derive(Default)]
struct Collecting {
    bytes: Vec<u8>,
    splitter: Splitter,
    cut: Option<Cut>,
    whole: bool,
}

impl Collecting {
    fn look(&mut self) -> Result<(), checkpoint::Error> {
        let cut = &mut self.cut;
        self.splitter.feed(&self.bytes, |record, _| {
            if let Record::Cut(found) = record {
                *cut = Some(found);
            }
            Ok(())
        })
    }
}
