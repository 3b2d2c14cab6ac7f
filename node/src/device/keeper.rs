//! Checkpoints of a device: when they are made, how, and how a new host begins with one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::network::BoxFuture;
use ringhold_cluster::wire::RecoveryStatus;
use ringhold_kernels::checkpoint::{self, Cut, Kind as RecordKind, Record, Splitter};
use ringhold_kernels::message::Kind as MessageKind;
use ringhold_kernels::registry::Registry;
use ringhold_storage::checkpoints::{self, About, Checkpoints, Draft, Part, Type};
use tokio::sync::{Notify, OwnedMutexGuard, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::door::Outcome;
use super::mistake::{self, Mistake};
use super::switch::{Carried, LeftLane, Switch};
use super::{Device, Outlet};
use crate::cluster::{Copies, NotCopied};
use crate::shards::ShardSet;

/// Who does work that may wait for a disk.
pub trait Jobs: Send + Sync {
    /// Does the job, elsewhere if need be; it is done when this resolves.
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Called by a job that is in no hurry: waits for so long, where it is in nobody's way.
    fn rest(&self, span: Duration);
}

/// Does a job that may wait for the disk. It goes on to its end though nobody waits for it any more.
pub(crate) async fn on<T: Send + 'static>(jobs: &dyn Jobs, job: impl FnOnce() -> T + Send + 'static) -> T {
    let result = Arc::new(Mutex::new(None));
    let to = result.clone();
    jobs.run(Box::new(move || *to.lock() = Some(job()))).await;
    result.lock().take().expect("the job was done")
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

    fn rest(&self, span: Duration) {
        std::thread::sleep(span);
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
    /// The copies on other nodes without which nothing is committed; `None` where the node stands alone.
    pub copies: Option<Arc<Copies>>,
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
    /// Of the recoveries, those that went on with another backend.
    pub moves: u64,
    pub last: Option<RecoveryStatus>,
}

/// See the module's documentation.
pub(crate) struct Keeper {
    pub(super) options: Options,
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
    pub one: Arc<tokio::sync::Mutex<()>>,
    pub next_epoch: AtomicU64,
    /// A cut that was asked for and has not come up whole.
    open: Mutex<Option<u64>>,
    /// The last attempt failed after the device was cut, so the next one has everything.
    whole_next: Mutex<bool>,
    /// The last checkpoint has actors of shards that are another device's by now, or lacks some that the host began with: the next
    /// one has everything.
    stale: Arc<AtomicBool>,
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
    #[error(transparent)]
    Copies(#[from] NotCopied),
    #[error("a checkpoint of device `{device}` cannot be taken up: {why}")]
    Part { device: String, why: &'static str },
}

/// How much of a chain is compacted before the disk is left to others for a while.
const COMPACT_BYTES: u64 = 1 << 20;
/// How much of a cut is collected in one go, from each lane.
const COLLECT_BYTES: usize = 1 << 20;
/// A bell may be missed: the road of a cut is looked at so often anyway.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A device is not left alone for longer than this because a checkpoint took long.
const REST_MAX: Duration = Duration::from_secs(10);
/// A disk that takes longer for one job is said not to answer.
const DISK_LIMIT: Duration = Duration::from_secs(30);
/// Once a disk has failed, it is left alone for so long.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// What a cut has come to, for who watches the device. Nothing of it is awaited any more when this is dropped, however the attempt
/// at a checkpoint ends: a device of which nothing comes, and of which nobody awaits anything, is no stalled one.
struct Awaiting<'a>(&'a Mutex<Option<u64>>);

impl Awaiting<'_> {
    fn more_than(&self, bytes: u64) {
        *self.0.lock() = Some(bytes);
    }

    fn nothing(&self) {
        *self.0.lock() = None;
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.nothing();
    }
}

impl Keeper {
    /// `stale`: the checkpoint that the device begins with has what is another one's by now.
    pub fn new(options: Options, stale: bool) -> Keeper {
        Keeper {
            stale: Arc::new(AtomicBool::new(stale)),
            one: Arc::default(),
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

    /// Waits until the newest checkpoint, which is durable here, is so on every node that is in sync.
    pub(super) async fn copied(&self) -> Result<(), Error> {
        let Some(copies) = &self.options.copies else { return Ok(()) };
        let say = |why| self.figures.lock().failed = Some(why);
        Ok(copies.copied(say).await?)
    }

    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let result = Arc::new(Mutex::new(None));
        let to = result.clone();
        let mut job = self.options.jobs.run(Box::new(move || *to.lock() = Some(job())));
        // It cannot be given up: what it writes may still come. But it is told of, and its device has no other at a time.
        let began = Instant::now();
        while timeout(DISK_LIMIT, &mut job).await.is_err() {
            let why = format!("the disk has not answered for {} s", began.elapsed().as_secs());
            tracing::error!("no checkpoint: {why}");
            self.figures.lock().failed = Some(why);
        }
        result.lock().take().expect("the job was done")
    }
}

/// Bytes of what a lane begins with that are passed on at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Reads a checkpoint for a device of so many lanes, of which `lane_of` says where each record goes. What a lane begins with is
/// passed on in order, as it is read; it ends with a cut's record. What the device is to take in beside it goes behind what it
/// has; and behind that what its actors had sent to such as were another device's then and are its own now, for earlier messages
/// of the same senders may be in what it takes in. Returns how many actors there are, and whether there are others of which no
/// lane is.
///
/// # Errors
/// That the checkpoint cannot be read, or that nobody wants it any more.
#[expect(clippy::too_many_arguments)]
fn read(
    store: &Checkpoints,
    device: &str,
    epoch: u64,
    adoptions: &[Carried],
    now_us: u64,
    lanes: usize,
    lane_of: impl Fn(&Record<'_>) -> Option<usize>,
    pass_on: impl Fn(usize, Vec<u8>) -> Result<(), Error>,
) -> Result<(u64, bool), Error> {
    let (mut first, mut then) = (vec![Vec::new(); lanes], vec![Vec::new(); lanes]);
    let mut last = vec![Vec::new(); lanes];
    let mut comes_back = |record: &Record<'_>| {
        let Record::Out { header, payload } = *record else { return false };
        let lane = lane_of(&Record::Queued { phase: 1, header, payload });
        let Some(lane) = lane.filter(|_| header.is(MessageKind::Tell)) else { return false };
        checkpoint::push_message(&mut last[lane], RecordKind::Queued, 1, &header, payload);
        true
    };
    let (mut actors, mut hlc, mut stale) = (0, 0, false);
    if epoch > 0 {
        let made_us = store.chain(device, epoch)?.first().map_or(0, |manifest| manifest.at_us);
        store.visit(device, epoch, |_, record, bytes| {
            match record {
                Record::Cut(cut) => hlc = hlc.max(cut.hlc),
                Record::Actor { .. } if lane_of(&record).is_none() => stale = true,
                Record::Actor { .. } => actors += 1,
                _ => {}
            }
            let Some(lane) = lane_of(&record).filter(|_| !comes_back(&record)) else { return Ok(()) };
            // What must go behind all that was ahead of it, whichever lane that was in.
            if matches!(record, Record::Queued { phase: 1.., .. }) {
                then[lane].extend_from_slice(bytes);
                return Ok(());
            }
            match record {
                Record::Timer { due_us, header, payload } => {
                    checkpoint::push_timer(&mut first[lane], due_again_us(due_us, made_us, now_us), &header, payload);
                }
                _ => first[lane].extend_from_slice(bytes),
            }
            match first[lane].len() >= CHUNK_BYTES {
                true => pass_on(lane, std::mem::replace(&mut first[lane], Vec::with_capacity(CHUNK_BYTES))),
                false => Ok(()),
            }
        })?;
    }
    for adoption in adoptions {
        let (cut_us, _) = adoption.head().ok_or_else(|| no_adoption(device))?;
        adoption.each::<Error>(|record, bytes| {
            if let Record::Cut(cut) = record {
                hlc = hlc.max(cut.hlc);
            }
            let Some(lane) = lane_of(record).filter(|_| !comes_back(record)) else { return Ok(()) };
            match *record {
                Record::Queued { .. } => then[lane].extend_from_slice(bytes),
                Record::Timer { due_us, header, payload } => {
                    checkpoint::push_timer(&mut first[lane], due_again_us(due_us, cut_us, now_us), &header, payload);
                }
                _ => first[lane].extend_from_slice(bytes),
            }
            Ok(())
        })?;
    }
    for (lane, ((mut rest, then), last)) in first.into_iter().zip(then).zip(last).enumerate() {
        rest.extend(then);
        rest.extend(last);
        checkpoint::push_cut(&mut rest, &Cut { epoch, lane: lane as u32, ingress: 0, egress: 0, hlc });
        pass_on(lane, rest)?;
    }
    Ok((actors, stale))
}

fn no_adoption(device: &str) -> Error {
    Error::Part { device: device.into(), why: "what moved to it is none of what this build carries" }
}

/// What a device is to take in beside a checkpoint that has the adoptions up to this number.
fn adoptions(store: &Checkpoints, device: &str, after: u64) -> Result<Vec<(u64, Carried)>, checkpoints::Error> {
    let found = store.adoptions_after(device, after)?;
    Ok(found.into_iter().map(|(number, bytes)| (number, Carried(bytes))).collect())
}

/// When a timer of a checkpoint is due: when it was, unless the clock has been set back since. It does not wait for longer than it
/// had to when the checkpoint was made.
fn due_again_us(due_us: u64, made_us: u64, now_us: u64) -> u64 {
    due_us.min(now_us + due_us.saturating_sub(made_us))
}

/// How long a device is left alone after a checkpoint that took so long. One that takes longer than the interval would else be
/// followed by the next at once, and the device would do nothing but be cut: it rests as long as it took.
fn rest(interval: Duration, took: Duration) -> Duration {
    interval.saturating_sub(took).max(took.min(REST_MAX))
}

impl Device {
    /// Makes checkpoints for as long as the node runs.
    pub async fn keep(self: Arc<Device>, outlet: Arc<dyn Outlet>) {
        let Some(keeper) = &self.keeper else { return };
        let (mut last, mut took) = (None, Duration::ZERO);
        loop {
            tokio::select! {
                biased;
                () = keeper.early.notified() => {}
                () = sleep(rest(keeper.options.interval, took)) => {}
            }
            if self.is_retired() {
                return;
            }
            let began = Instant::now();
            // One at a time, and none while nothing has happened since the last.
            let now = self.happened();
            if !self.is_running() || last == Some(now) {
                continue;
            }
            match self.checkpoint(&*outlet).await {
                Ok(()) => {
                    (last, took) = (Some(now), began.elapsed());
                    compact(&keeper.options.store, &keeper.options.jobs, &self.kept_as, &keeper.compacting);
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

    /// The node is about to end: copies are not waited for any more where it has no lease.
    pub fn will_end(&self) {
        if let Some(copies) = self.keeper.as_ref().and_then(|keeper| keeper.options.copies.as_ref()) {
            copies.end();
        }
    }

    /// Makes the last checkpoint before the device ends.
    pub async fn last_checkpoint(&self, outlet: &dyn Outlet, limit: Duration) {
        if self.keeper.is_none() || !self.is_running() {
            return;
        }
        match tokio::time::timeout(limit, self.checkpoint(outlet)).await {
            Ok(Ok(())) => {}
            // The next start begins with it all the same.
            Ok(Err(why @ Error::Copies(NotCopied::Alone(_)))) => {
                tracing::warn!(device = self.name, "the last checkpoint: {why}")
            }
            Ok(Err(e)) => tracing::error!(device = self.name, "no last checkpoint: {e}"),
            Err(_) => tracing::error!(device = self.name, "no last checkpoint within the time there was"),
        }
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
        self.checkpoint_alone(keeper, outlet, None).await
    }

    /// Makes a checkpoint at which the device goes on with other shards. No other is being made.
    pub(crate) async fn switch(&self, outlet: &dyn Outlet, switch: &mut Switch) -> Result<(), Error> {
        let keeper = self.keeper.as_ref().expect("only a device that keeps gives and takes shards");
        let switches = self.serving.lock().switches;
        match switches {
            true => self.checkpoint_alone(keeper, outlet, Some(switch)).await,
            false => self.switch_still(keeper, outlet, switch).await,
        }
    }

    /// Makes the checkpoint from which the device is to go on elsewhere, while that is `wanted`, and holds back whatever it sends
    /// from the cut on. No other is made until the guard is dropped.
    pub(super) async fn cut_to_move(
        self: Arc<Device>,
        outlet: Arc<dyn Outlet>,
        wanted: Arc<AtomicBool>,
    ) -> Result<OwnedMutexGuard<()>, Error> {
        let keeper = self.keeper.as_ref().expect("only a device that keeps goes on elsewhere");
        let one = keeper.one.clone().lock_owned().await;
        {
            let mut door = self.door.lock();
            // Under this lock it is called off, too.
            if !wanted.load(SeqCst) {
                return Err(Error::HostEnded);
            }
            door.hold_all(true);
        }
        self.checkpoint_alone(keeper, &*outlet, None).await?;
        Ok(one)
    }

    pub(super) async fn checkpoint_alone(
        &self,
        keeper: &Keeper,
        outlet: &dyn Outlet,
        switch: Option<&mut Switch>,
    ) -> Result<(), Error> {
        let made = match self.throw_away_open_cut(keeper).await {
            Ok(()) => self.make(keeper, outlet, switch).await,
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

    async fn make(&self, keeper: &Keeper, outlet: &dyn Outlet, mut switch: Option<&mut Switch>) -> Result<(), Error> {
        let began = Instant::now();
        // Of workers that do not switch, what leaves is found in a cut that has all.
        let switches = self.serving.lock().switches;
        let leaves = switch.as_ref().is_some_and(|switch| switch.leaving.is_some());
        let whole = *keeper.whole_next.lock() || keeper.stale.load(SeqCst) || (leaves && !switches);
        let (epoch, base, lanes, mut down) = {
            let mut door = self.door.lock();
            if !door.has_host() || !door.link().is_running() {
                return Err(Error::HostEnded);
            }
            let base = door.epoch();
            let epoch = keeper.next_epoch.fetch_add(1, SeqCst);
            let whole = whole || base == 0;
            let down = match &switch {
                Some(switch) if switches => {
                    door.link().ask_switch(epoch, whole, &switch.owners);
                    switch.down(door.link(), epoch)
                }
                _ => {
                    door.link().ask_cut(epoch, whole);
                    VecDeque::new()
                }
            };
            // Until there is a checkpoint of it, what it took from the lists of what has changed is in none.
            *keeper.open.lock() = Some(epoch);
            *keeper.whole_next.lock() = true;
            (epoch, (!whole).then_some(base), door.link().lanes(), down)
        };
        let mut parts: Vec<Collecting> = (0..lanes).map(|_| Collecting::default()).collect();
        let leaving = switch.as_ref().and_then(|switch| switch.leaving.clone());
        let (store, name) = (keeper.options.store.clone(), self.kept_as.clone());
        let mut draft = keeper.run(move || store.begin(&name, epoch, base)).await;
        let mut bytes = 0u64;
        let awaiting = Awaiting(&keeper.awaited);
        while parts.iter().any(|part| !part.whole) {
            {
                let mut door = self.door.lock();
                if !door.has_host() {
                    return Err(Error::HostEnded);
                }
                // The workers wait for what arrives, and have made no cut before they have it.
                for (lane, down) in down.iter_mut().enumerate().filter(|(_, down)| !down.is_empty()) {
                    let sent = door.link().send_down(lane, down);
                    down.drain(..sent);
                }
                for (lane, part) in parts.iter_mut().enumerate().filter(|(_, part)| !part.whole) {
                    part.whole = door.link().collect_cut(lane, epoch, &mut part.bytes, COLLECT_BYTES);
                }
            }
            let collected: usize = parts.iter().map(|part| part.bytes.len()).sum();
            if collected == 0 {
                awaiting.more_than(bytes);
                let look_every = if down.iter().all(Vec::is_empty) { LOOK_EVERY } else { Duration::from_millis(1) };
                tokio::select! {
                    biased;
                    () = keeper.staged.notified() => {}
                    () = sleep(look_every) => {}
                }
                continue;
            }
            awaiting.nothing();
            bytes += collected as u64;
            for part in &mut parts {
                part.look(leaving.as_ref())?;
            }
            let mut taken: Vec<Vec<u8>> = parts.iter_mut().map(|part| std::mem::take(&mut part.bytes)).collect();
            draft = match draft {
                Ok(mut draft) => {
                    let append = move || {
                        for (lane, bytes) in taken.drain(..).enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
                            draft.append(Part::Lane(lane as u32), &bytes)?;
                        }
                        Ok::<Draft, checkpoints::Error>(draft)
                    };
                    keeper.run(append).await
                }
                // What leaves is nowhere else: all of the cut is collected, though there will be no checkpoint of it.
                Err(e) if switch.is_some() => Err(e),
                Err(e) => return Err(e.into()),
            };
        }
        // That this was all may have been said after the last of it had come.
        drop(awaiting);
        *keeper.open.lock() = None;
        let mut opened = false;
        if let Some(switch) = &mut switch {
            switch.done = true;
            switch.left = parts.iter_mut().map(|part| std::mem::take(&mut part.left)).collect();
            // Before anything that may wait for the disk.
            opened = switch.opens;
            switch.opened = opened.then(Instant::now);
            if switch.returns {
                // The next one has everything.
                return Ok(());
            }
        }
        if draft.is_err() && opened {
            self.door.lock().open_shards();
            outlet.room();
        }
        let mut draft = draft?;
        let cuts: Vec<Cut> = parts.iter().map(|part| part.cut.expect("a whole part ends with its cut")).collect();
        let (mut out, mut part) = (Outcome::default(), Vec::new());
        let (adopted, pause) = {
            // What came out before the cut goes behind what the pump took out before that, and has not handed on yet.
            let _carry = self.carry.lock();
            let mut door = self.door.lock();
            if !door.has_host() {
                return Err(Error::HostEnded);
            }
            door.close_cut(&cuts, &mut part, &mut out);
            let adopted = door.closing_adopted();
            if opened {
                door.open_shards();
            }
            let pause = Duration::from_nanos(door.link().pause_ns());
            drop(door);
            outlet.carry(self, &mut out);
            (adopted, pause)
        };
        if opened {
            outlet.room();
        }
        bytes += part.len() as u64;
        let about = About {
            at_us: self.network.steady_us(),
            types: self.registry.types().iter().map(Type::from).collect(),
            lanes: lanes as u32,
            node: adopted.to_le_bytes().into(),
        };
        let committed = keeper
            .run(move || {
                draft.append(Part::Node, &part)?;
                draft.commit(about)
            })
            .await;
        let committed = match committed {
            Ok(_) => keeper.copied().await,
            Err(why) => Err(why.into()),
        };
        let adopted_before = {
            let mut door = self.door.lock();
            let (_, before) = door.adopted();
            match &committed {
                Ok(()) => door.commit(&mut out),
                Err(_) => door.give_back(),
            }
            door.let_in();
            before
        };
        committed?;
        outlet.carry(self, &mut out);
        outlet.committed(self);
        outlet.room();
        *keeper.whole_next.lock() = false;
        if base.is_none() {
            keeper.stale.store(false, SeqCst);
        }
        if adopted > adopted_before {
            let (store, name) = (keeper.options.store.clone(), self.kept_as.clone());
            if let Err(e) = keeper.run(move || store.forget_adoptions(&name, adopted)).await {
                tracing::warn!(device = self.name, "what has moved here is kept longer than need be: {e}");
            }
        }
        let mut figures = keeper.figures.lock();
        figures.count += 1;
        (figures.epoch, figures.bytes, figures.pause) = (epoch, bytes, pause);
        (figures.at, figures.took, figures.failed) = (Some(Instant::now()), began.elapsed(), None);
        Ok(())
    }
}

/// The last adoption that a checkpoint has. Those of older builds say nothing.
pub(crate) fn adopted(about: &About) -> u64 {
    about.node.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
}

/// Makes one checkpoint of a long chain of them, beside everything else, unless that is under way.
pub(crate) fn compact(store: &Checkpoints, jobs: &Arc<dyn Jobs>, device: &str, compacting: &Arc<AtomicBool>) {
    if !store.due().iter().any(|due| due == device) || compacting.swap(true, SeqCst) {
        return;
    }
    let (store, device) = (store.clone(), device.to_string());
    let (compacting, jobs) = (compacting.clone(), jobs.clone());
    tokio::spawn(async move {
        let rests = jobs.clone();
        let job = move || {
            // Half of the time is left to commits.
            let (mut rested, mut began) = (0, Instant::now());
            let mut progress = |done: u64| {
                if done - rested >= COMPACT_BYTES {
                    rests.rest(began.elapsed());
                    (rested, began) = (done, Instant::now());
                }
            };
            if let Err(e) = store.compact(&device, &mut progress) {
                tracing::error!(device, "the checkpoints could not be compacted: {e}");
            }
        };
        jobs.run(Box::new(job)).await;
        compacting.store(false, SeqCst);
    });
}

/// What of a device's checkpoint is its door's: takes it up, and says what is to be handed on. So too what moved to the device
/// after that checkpoint; what was about to, and did not, is forgotten.
///
/// # Errors
/// That the checkpoint cannot be read, or holds what is not this binary's.
pub(super) fn take_up(
    options: &Options,
    device: &str,
    epoch: u64,
    registry: &Registry,
    own: &ShardSet,
    door: &mut super::Door,
) -> Result<Outcome, Error> {
    let mut out = Outcome::default();
    let store = &options.store;
    store.check_types(device, epoch, registry)?;
    if let Some(manifest) = store.chain(device, epoch)?.first() {
        door.begin_adopted(adopted(&store.about(manifest)?));
    }
    store.visit(device, epoch, |_, record, _| {
        let taken = door.take_up(&record, &mut out);
        taken.map_err(|why| Error::Part { device: device.into(), why })
    })?;
    let (_, durable) = door.adopted();
    store.forget_adoptions(device, durable)?;
    for (number, carried) in adoptions(store, device, durable)? {
        let (_, shards) = carried.head().ok_or_else(|| no_adoption(device))?;
        if own.and(&shards).is_empty() {
            store.forget_adoption(device, number)?;
            continue;
        }
        door.begin_to_adopt(number, &shards);
        carried
            .each::<Error>(|record, _| door.adopt(record).map_err(|why| Error::Part { device: device.into(), why }))?;
        tracing::info!(device, number, shards = shards.len(), "shards had moved here that no checkpoint has yet");
    }
    Ok(out)
}

impl Device {
    /// Sends the host of the present term what it begins with. Returns early where the host ends meanwhile.
    pub(super) async fn restore(self: Arc<Device>, term: u64) -> Result<(), Error> {
        let keeper = self.keeper.as_ref().expect("only a device that keeps restores");
        let (epoch, lanes, router, lacks_after) = {
            let mut door = self.door.lock();
            (door.epoch(), door.link().lanes(), door.link().router(), door.lacks_after())
        };
        let (store, name) = (keeper.options.store.clone(), self.kept_as.clone());
        let epoch = match epoch {
            epoch if mistake::is_made(Mistake::BeginsOlder) => older(&store, &name, epoch),
            epoch => epoch,
        };
        let (to, mut chunks) = mpsc::unbounded_channel();
        let pass_on = move |lane, bytes| to.send((lane, bytes)).map_err(|_| Error::HostEnded);
        let now_us = self.network.steady_us();
        let adoptions = match lacks_after {
            Some(number) if !mistake::is_made(Mistake::ForgetsAdoptions) => {
                let (store, name) = (store.clone(), name.clone());
                keeper.run(move || adoptions(&store, &name, number)).await?
            }
            _ => Vec::new(),
        };
        {
            // Before it can be cut.
            let mut door = self.door.lock();
            if !door.has_host() || door.link().term() != term {
                return Ok(());
            }
            adoptions.iter().for_each(|(number, _)| door.has_adopted(*number));
            // To the workers nothing has changed since they began; but the last checkpoint has none of these.
            keeper.stale.fetch_or(!adoptions.is_empty(), SeqCst);
        }
        let adoptions: Vec<Carried> = adoptions.into_iter().map(|(_, carried)| carried).collect();
        let stale = keeper.stale.clone();
        let read = move || {
            let lane_of = |record: &Record<'_>| router.lane_of_record(record);
            let (actors, is_stale) = read(&store, &name, epoch, &adoptions, now_us, lanes, lane_of, pass_on)?;
            stale.fetch_or(is_stale, SeqCst);
            Ok::<u64, Error>(actors)
        };
        let device = self.clone();
        let reading = tokio::spawn(async move {
            let keeper = device.keeper.as_ref().expect("it has just been asked for");
            keeper.run(read).await
        });
        // For each lane, what has been read and not been sent, and how much of the first of it has.
        let mut unsent: Vec<(VecDeque<Vec<u8>>, usize)> = vec![Default::default(); lanes];
        loop {
            while let Ok((lane, bytes)) = chunks.try_recv() {
                unsent[lane].0.push_back(bytes);
            }
            let mut moved = 0;
            {
                let mut door = self.door.lock();
                if !door.has_host() || door.link().term() != term {
                    return Ok(());
                }
                for (lane, (bytes, sent)) in unsent.iter_mut().enumerate() {
                    while let Some(first) = bytes.front() {
                        let now = door.link().send_down(lane, &first[*sent..]);
                        (*sent, moved) = (*sent + now, moved + now);
                        if *sent < first.len() {
                            break;
                        }
                        bytes.pop_front();
                        *sent = 0;
                    }
                }
                // What is queued behind it may come at once.
                door.let_in();
            }
            keeper.restored.fetch_add(moved as u64, SeqCst);
            if unsent.iter().all(|(bytes, _)| bytes.is_empty()) {
                let Some((lane, bytes)) = chunks.recv().await else { break };
                keeper.restored.fetch_add(1, SeqCst);
                unsent[lane].0.push_back(bytes);
            } else if moved == 0 {
                sleep(Duration::from_millis(1)).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        let actors = reading.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        tracing::info!(device = self.name, epoch, actors, "device begins with a checkpoint");
        Ok(())
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
    /// What of it leaves.
    left: LeftLane,
}

impl Collecting {
    fn look(&mut self, leaving: Option<&ShardSet>) -> Result<(), checkpoint::Error> {
        let Collecting { cut, left, .. } = self;
        self.splitter.feed(&self.bytes, |record, bytes| {
            if let Record::Cut(found) = record {
                *cut = Some(found);
            }
            if let Some(leaving) = leaving {
                left.look(leaving, &record, bytes);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use ringhold_kernels::hlc::Hlc;
    use ringhold_kernels::id::{ActorId, Key, TypeId};
    use ringhold_kernels::message::Header;
    use ringhold_kernels::outbox::shard_of;
    use ringhold_storage::blocks::InMemory;

    use super::super::door::Left;
    use super::*;

    /// A disk that answers after a minute.
    struct Slow;

    impl Jobs for Slow {
        fn rest(&self, _: Duration) {}

        fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
            Box::pin(async move {
                sleep(Duration::from_secs(60)).await;
                job();
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_does_not_answer_is_told_of_and_waited_for() {
        let store = Checkpoints::open(Arc::new(InMemory::default()), checkpoints::Options::default()).unwrap();
        let options =
            Options { store, jobs: Arc::new(Slow), interval: Duration::from_secs(1), newest: 0, copies: None };
        let keeper = Arc::new(Keeper::new(options, false));
        let running = tokio::spawn({
            let keeper = keeper.clone();
            async move { keeper.run(|| 7).await }
        });
        sleep(Duration::from_secs(29)).await;
        assert_eq!(keeper.figures.lock().failed, None);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(keeper.figures.lock().failed.as_deref(), Some("the disk has not answered for 30 s"));
        assert_eq!(running.await.unwrap(), 7);
    }

    /// A ring kernel would have it leave the device and come in again, behind what its sender sends to the same actor meanwhile.
    #[test]
    fn what_was_sent_to_shards_that_have_arrived_since_is_behind_what_arrives_and_leaves_no_more() {
        const DEVICE: &str = "cuda0";
        let actor = |key| ActorId { type_id: TypeId(1), key: Key(key) };
        let (sender, arrives, elsewhere) = (actor(0), actor(1), actor(2));
        let header = |kind, to, payload: &[u8]| Header::new(kind, to, sender, payload.len(), Hlc(1));
        let pushed = |kind, of, to, payload: &[u8]| {
            let mut bytes = Vec::new();
            checkpoint::push_message(&mut bytes, kind, 0, &header(of, to, payload), payload);
            bytes
        };

        // It had sent three messages to each of two actors of another device: of each the last two have not left it.
        let store = Checkpoints::open(Arc::new(InMemory::default()), checkpoints::Options::default()).unwrap();
        let mut draft = store.begin(DEVICE, 1, None).unwrap();
        let (out, queued) = (RecordKind::Out, RecordKind::Queued);
        for payload in [b"2", b"3"] {
            for to in [arrives, elsewhere] {
                draft.append(Part::Lane(0), &pushed(out, MessageKind::Tell, to, payload)).unwrap();
            }
        }
        // An answer is for who asked, whatever the number of that ask.
        draft.append(Part::Lane(0), &pushed(out, MessageKind::Reply, arrives, b"answer")).unwrap();
        let mut cut = Vec::new();
        checkpoint::push_cut(&mut cut, &Cut { epoch: 1, ..Cut::default() });
        draft.append(Part::Lane(0), &cut).unwrap();
        draft.commit(About { lanes: 1, ..About::default() }).unwrap();
        // The first was with the actor that has arrived.
        let mut left = LeftLane::default();
        let shards = [shard_of(arrives.key)].into_iter().collect();
        let first = pushed(queued, MessageKind::Tell, arrives, b"1");
        left.look(&shards, &checkpoint::records(&first).next().unwrap().unwrap(), &first);
        let adoption = Carried::new(1, 0, &shards, &[left], &Left::default());

        let lane_of = |record: &Record<'_>| match record {
            Record::Queued { header, .. } => (header.to() == arrives).then_some(0),
            Record::Out { .. } => Some(0),
            _ => None,
        };
        let lane = Mutex::new(Vec::new());
        let pass_on = |_, bytes: Vec<u8>| {
            lane.lock().extend(bytes);
            Ok(())
        };
        read(&store, DEVICE, 1, &[adoption], 0, 1, lane_of, pass_on).unwrap();
        let lane = lane.into_inner();
        let (mut leave, mut come) = (Vec::new(), Vec::new());
        for record in checkpoint::records(&lane) {
            match record.unwrap() {
                Record::Out { header, payload } => leave.push((header.to(), payload)),
                Record::Queued { header, payload, .. } => come.push((header.to(), payload)),
                Record::Cut(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(come, [b"1", b"2", b"3"].map(|payload| (arrives, &payload[..])));
        assert_eq!(leave, [(elsewhere, &b"2"[..]), (elsewhere, b"3"), (arrives, b"answer")]);
    }

    #[test]
    fn a_timer_waits_no_longer_because_the_clock_was_set_back() {
        assert_eq!(due_again_us(1_500, 1_000, 1_200), 1_500, "as it was");
        assert_eq!(due_again_us(1_500, 1_000, 9_000), 1_500, "it is late");
        assert_eq!(due_again_us(1_500, 1_000, 200), 700, "its half a millisecond begins anew");
        assert_eq!(due_again_us(1_500, 2_000, 200), 200, "it was due already");
    }

    #[test]
    fn a_device_is_left_alone_for_half_of_the_time_at_least() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(1_000), ms(0)), ms(1_000));
        assert_eq!(rest(ms(1_000), ms(300)), ms(700), "one begins each second");
        assert_eq!(rest(ms(1_000), ms(700)), ms(700));
        assert_eq!(rest(ms(10), ms(80)), ms(80));
        assert_eq!(rest(ms(10), ms(60_000)), REST_MAX);
    }
}
