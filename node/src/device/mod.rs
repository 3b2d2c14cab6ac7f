//! One device, as the node sees it: a door for messages, a task that carries out what comes out of it, and a task that
//! keeps its host alive.

pub mod breaker;
pub mod cuda;
mod desk;
pub mod door;
pub mod ending;
pub mod host;
pub mod keeper;
pub mod lanes;
pub mod looks;
pub mod machine;
pub mod mistake;
pub mod places;
mod poison;
mod rate;
mod retained;
pub(crate) mod still;
pub mod supervise;
pub mod supervisor;
pub(crate) mod switch;
pub mod topology;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::network::Network;
use ringhold_cluster::wire::{
    BackendStatus, BreakerState, CheckpointStatus, ClockStatus, DeviceKind, DeviceState, DeviceStatus, WorkerState,
    WorkerStatus,
};
use ringhold_kernels::clock_host::Known as KnownClock;
use ringhold_kernels::link::Reading;
use ringhold_kernels::outbox::Owners;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::segment::{self, Pulse, Shape};
use ringhold_storage::checkpoints::{Checkpoints, replica_name};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;

use door::{Door, Keeping, Outcome};
use host::NodeBell;
use keeper::Keeper;
use rate::Rate;
use still::Still;
use supervise::Backend;

use crate::config;
use crate::shards::Shards;
use crate::shed::DeviceSignals;

/// A device of this node. Shared by its tasks and the router.
pub struct Device {
    pub name: String,
    /// Under which name its checkpoints are kept.
    kept_as: String,
    /// Its place among the devices of the node.
    pub index: u16,
    /// What it is called in lanes between devices: the number that its cluster has given it; else its place.
    pub number: u16,
    pub door: Mutex<Door>,
    /// Which device owns which shards.
    shards: Arc<Shards>,
    /// Held from taking messages out of the door until they are where they belong.
    pub(crate) carry: Mutex<()>,
    serving: Mutex<Serving>,
    registry: Arc<Registry>,
    network: Arc<dyn Network>,
    /// What the supervisor last knew, for `status`.
    known: Mutex<Known>,
    /// When the device was made: the rate's times are since then.
    origin: Instant,
    /// Of messages handled.
    rate: Mutex<Rate>,
    /// The pump has taken, or is about to take, messages out of the door that are not where they belong yet.
    carrying: AtomicBool,
    /// Somebody waits for room at this door.
    pub wants_room: AtomicBool,
    /// Where checkpoints are made.
    keeper: Option<Keeper>,
    /// What had been held for the checkpoint that it begins with, until it is handed on.
    taken_up: Mutex<Outcome>,
    stop: Notify,
    /// Somebody has seen to what was wrong with it.
    retry: Notify,
    leave_backend: Notify,
    /// Whether it stands still while its shards move: locked behind the door, where both are.
    still: Mutex<Still>,
    still_changed: Notify,
    ended: AtomicBool,
    retired: AtomicBool,
    over: Notify,
}

/// Who runs the device.
struct Serving {
    /// For people: `cuda:0`.
    name: String,
    kind: config::DeviceKind,
    /// See [`host::DeviceHost::switches`].
    switches: bool,
    bell: Arc<dyn NodeBell>,
}

struct Known {
    state: DeviceState,
    backends: Vec<BackendStatus>,
    detail: String,
    pid: Option<u32>,
    restarts: u32,
    started: Instant,
}

/// Where what comes out of a device goes.
pub trait Outlet: Send + Sync {
    /// Takes answers, messages for other devices and dead letters, and leaves the buffers empty.
    fn carry(&self, from: &Device, out: &mut Outcome);

    /// There may be room at some door again.
    fn room(&self);

    /// A checkpoint of the device is durable.
    fn committed(&self, device: &Device);
}

/// How long a host of a ring kernel, which can leave unless a handler does not come back, has to end by itself before it is killed.
/// A worker of a CPU device that holds a message for too long cannot.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("device `{0}`: {1}")]
    Segment(String, segment::Error),
    #[error("device `{0}`: cannot make its bells: {1}")]
    Bells(String, std::io::Error),
    #[error("device `{name}` cannot have GPU {gpu}: {why}")]
    Gpu { name: String, gpu: u32, why: String },
    #[error("device `{0}`: {1}")]
    Checkpoint(String, keeper::Error),
}

/// What the configuration says of a device.
pub struct About {
    pub name: String,
    pub kept_as: String,
    pub index: u16,
    pub number: u16,
    pub overflow: config::Overflow,
    /// Where checkpoints are made: how, and what the door keeps for it.
    pub keeps: Option<(keeper::Options, Keeping)>,
    /// Which device owns which shards.
    pub shards: Arc<Shards>,
}

impl Device {
    /// A device that is not started yet, with a segment for hosts of this backend.
    pub fn new(
        About { name, kept_as, index, number, overflow, keeps, shards }: About,
        backend: &Backend,
        registry: &Arc<Registry>,
        network: Arc<dyn Network>,
    ) -> Result<Arc<Device>, Error> {
        let (options, keeping) = keeps.unzip();
        let epoch = keeping.as_ref().map_or(0, |keeping: &Keeping| keeping.epoch);
        let owners = shards.deal(index, backend.shape.workers as usize);
        let mut door = Door::new(backend.link(&name, registry, &owners)?, overflow, keeping);
        let taken_up = match &options {
            Some(options) if epoch > 0 => {
                keeper::take_up(options, &kept_as, epoch, registry, &shards.owned_by(index), &mut door)
            }
            _ => Ok(Outcome::default()),
        };
        let taken_up = taken_up.map_err(|e| Error::Checkpoint(name.clone(), e))?;
        let stale = door.has_passed_over();
        let device = Device {
            keeper: options.map(|options| Keeper::new(options, stale)),
            taken_up: Mutex::new(taken_up),
            name,
            kept_as,
            index,
            number,
            shards,
            door: Mutex::new(door),
            carry: Mutex::default(),
            serving: Mutex::new(Serving {
                name: backend.name.clone(),
                kind: backend.kind,
                switches: backend.host.switches(),
                bell: backend.host.bells().node,
            }),
            registry: registry.clone(),
            network,
            known: Mutex::new(Known {
                state: DeviceState::Starting,
                backends: Vec::new(),
                detail: String::new(),
                pid: None,
                restarts: 0,
                started: Instant::now(),
            }),
            origin: Instant::now(),
            rate: Mutex::default(),
            carrying: AtomicBool::new(false),
            wants_room: AtomicBool::new(false),
            stop: Notify::new(),
            retry: Notify::new(),
            leave_backend: Notify::new(),
            still: Mutex::default(),
            still_changed: Notify::new(),
            ended: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            over: Notify::new(),
        };
        Ok(Arc::new(device))
    }

    /// Waits until the checkpoint that the device begins with is on every node that is in sync; `say` is told what for, where that
    /// takes its time.
    ///
    /// # Errors
    /// Where the checkpoint cannot be read.
    pub async fn begins_committed(&self, say: impl Fn(String)) -> Result<(), keeper::Error> {
        match self.keeper.as_ref().and_then(|keeper| keeper.options.copies.as_ref()) {
            Some(copies) => Ok(copies.copied(say).await?),
            None => Ok(()),
        }
    }

    /// Hands on what had been held for the checkpoint that the device begins with. Once, before it starts.
    pub fn hand_on_taken_up(&self, outlet: &dyn Outlet) {
        outlet.carry(self, &mut self.taken_up.lock());
    }

    /// Its shards, dealt out to so many workers.
    fn deal(&self, workers: u32) -> Owners {
        self.shards.deal(self.index, workers as usize)
    }

    /// Asks the device to finish what it has and end.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Asks a device that can to end at once, with what it has in hand: before its host is killed, which can leave a GPU in
    /// disorder. False if it cannot.
    pub fn leave(&self) -> bool {
        let can = !self.serving.lock().switches;
        if can {
            self.door.lock().link().stop_at_once();
        }
        can
    }

    /// Whether it came to this node because its own was given up.
    pub fn stands_in(&self) -> bool {
        self.kept_as == replica_name(self.number)
    }

    /// The device is not there from now on, and has nothing: its host ends.
    pub fn retire(&self) {
        self.retired.store(true, SeqCst);
        if let Some(copies) = self.keeper.as_ref().and_then(|keeper| keeper.options.copies.as_ref()) {
            copies.retire();
        }
        self.stop();
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(SeqCst)
    }

    /// Whether the device has no actors, and nothing for anybody or of anybody that is not over.
    pub fn has_nothing(&self) -> bool {
        let mut door = self.door.lock();
        !self.carrying.load(SeqCst) && door.is_quiet() && door.has_nothing()
    }

    /// Resolves once there is no host any more, after [`Device::stop`].
    pub async fn ended(&self) {
        while !self.ended.load(SeqCst) {
            self.over.notified().await;
        }
        self.over.notify_one();
    }

    /// Carries what comes out of the device to `outlet`, for as long as the node runs.
    pub async fn pump(self: Arc<Device>, outlet: Arc<dyn Outlet>) {
        let mut out = Outcome::default();
        loop {
            self.carrying.store(true, SeqCst);
            let carry = self.carry.lock();
            let (collected, room) = {
                let mut door = self.door.lock();
                let collected = door.collect(&mut out);
                door.let_in();
                if let Some(keeper) = &self.keeper {
                    // The bell that woke this task may have rung for them.
                    keeper.staged.notify_one();
                }
                self.look_for_early(&door);
                (collected, self.wants_room.swap(false, SeqCst))
            };
            if collected > 0 {
                outlet.carry(&self, &mut out);
            }
            drop(carry);
            self.carrying.store(false, SeqCst);
            if room {
                outlet.room();
            }
            if collected > 0 {
                // Others have work too: a busy device must not starve the runtime's other tasks.
                tokio::task::yield_now().await;
            } else if let Some(bell) = self.parked() {
                bell.rung().await;
            }
        }
    }

    /// The bell to wait for, if there is nothing to do.
    fn parked(&self) -> Option<Arc<dyn NodeBell>> {
        let mut door = self.door.lock();
        // Both of one segment: another is taken up under this lock, and then the old bell rings.
        door.link().park().then(|| self.serving.lock().bell.clone())
    }

    /// Has a checkpoint made at once, where one should not wait.
    pub fn look_for_early(&self, door: &Door) {
        if let Some(keeper) = &self.keeper
            && door.wants_checkpoint()
        {
            keeper.early.notify_one();
        }
    }

    /// Has a checkpoint made at once, where any are made: somebody waits for it.
    pub fn hurry(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.early.notify_one();
        }
    }

    /// Messages handled so far, if there is nothing to do in the device or on its way from it.
    pub fn quiet(&self) -> Option<u64> {
        let mut door = self.door.lock();
        (!self.carrying.load(SeqCst) && door.is_quiet()).then(|| door.totals().finished)
    }

    pub fn is_running(&self) -> bool {
        self.known.lock().state == DeviceState::Running
    }

    /// Whether it runs elsewhere than it is to.
    pub fn has_fallen_back(&self) -> bool {
        self.known.lock().backends.first().is_some_and(|own| own.breaker != BreakerState::Closed)
    }

    /// Has backends that were left alone tried again now: somebody has seen to them. Returns their names.
    pub fn try_again(&self) -> Vec<String> {
        self.retry.notify_one();
        let known = self.known.lock();
        let left = known.backends.iter().filter(|backend| backend.breaker != BreakerState::Closed);
        left.map(|backend| backend.name.clone()).collect()
    }

    /// Has the device leave the backend that runs it, whose GPU somebody wants to see to, and go on with another until it is to be
    /// [tried again](Device::try_again). Returns the other's name.
    ///
    /// # Errors
    /// There is no other, or it cannot move: why, and what to do.
    pub fn leave_backend(&self) -> Result<String, String> {
        let name = &self.name;
        if self.keeper.is_none() {
            return Err(format!(
                "device `{name}` makes no checkpoints (checkpoints.enabled), and cannot go on elsewhere"
            ));
        }
        let known = self.known.lock();
        let serving = self.serving.lock().name.clone();
        if known.state != DeviceState::Running {
            return Err(format!(
                "device `{name}` does not run on {serving} now: try again once `ringhold status` says that it runs"
            ));
        }
        let mut others = known.backends.iter().filter(|backend| backend.name != serving);
        let Some(other) = others.find(|backend| backend.breaker == BreakerState::Closed) else {
            return Err(match known.backends.len() {
                1 => format!(
                    "device `{name}` runs on {serving} and has nothing to fall back to: give it `fallback = [\"cpu\"]` and start the \
                     node again, or move its shards to another device"
                ),
                _ => format!(
                    "device `{name}` runs on {serving}, and what else could run it was left alone itself: see `ringhold status`"
                ),
            });
        };
        self.leave_backend.notify_one();
        Ok(other.name.clone())
    }

    /// Has no checkpoint be made, and no host begin, until the guard is dropped; waits for one that is under way.
    ///
    /// # Panics
    /// Where the device makes none.
    pub(crate) async fn hold_checkpoints(&self) -> OwnedMutexGuard<()> {
        self.keeper().one.clone().lock_owned().await
    }

    /// Does a job on the store, elsewhere, for this device by its name.
    pub(crate) async fn on_store<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Checkpoints, &str) -> T + Send + 'static,
    ) -> T {
        let (store, name) = (self.keeper().options.store.clone(), self.kept_as.clone());
        self.keeper().run(move || job(&store, &name)).await
    }

    /// Waits until what was kept for the device to take in is on every node that is in sync, too.
    pub(crate) async fn adoption_copied(&self) -> Result<(), keeper::Error> {
        match &self.keeper().options.copies {
            Some(copies) => Ok(copies.adoption_copied().await?),
            None => Ok(()),
        }
    }

    fn keeper(&self) -> &Keeper {
        self.keeper.as_ref().expect("only devices that keep give and take shards")
    }

    /// Whether its host is up and not known to have ended.
    pub(crate) fn has_running_host(&self) -> bool {
        let mut door = self.door.lock();
        door.has_host() && door.link().is_running()
    }

    /// The process that the device runs in, while it runs in one.
    pub fn running_pid(&self) -> Option<u32> {
        let known = self.known.lock();
        known.pid.filter(|_| known.state == DeviceState::Running)
    }

    /// Grows while what a host begins with is read and sent to it.
    pub fn restored(&self) -> u64 {
        self.keeper.as_ref().map_or(0, |keeper| keeper.restored.load(SeqCst))
    }

    /// How short it is of room.
    pub fn signals(&self) -> DeviceSignals {
        // What waits for one that stands still is not turned away.
        let running = self.is_running() || self.stands_still();
        let (shape, waiting, retained, retained_max) = {
            let mut door = self.door.lock();
            // What waits for a device that runs is on its way.
            let waiting = if running { 0 } else { door.queued() };
            let shape = *door.link().segment().shape();
            (shape, waiting, door.retained_bytes() as u64, door.retained_bytes_max() as u64)
        };
        DeviceSignals {
            name: self.name.clone(),
            running,
            waiting,
            room: u64::from(shape.ingress_slots) * u64::from(shape.lanes),
            failing: self.keeper.as_ref().is_some_and(|keeper| keeper.figures.lock().failed.is_some()),
            retained,
            retained_max,
        }
    }

    /// Whether one is being made at this moment.
    pub fn is_making_checkpoint(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.one.try_lock().is_err())
    }

    /// Why there is no host and will be none, if so.
    pub fn given_up(&self) -> Option<String> {
        let known = self.known.lock();
        (known.state == DeviceState::Failed).then(|| known.detail.clone())
    }

    /// A look at the device now.
    pub fn status(&self) -> DeviceStatus {
        let at_us = self.network.wall_us();
        let mut door = self.door.lock();
        let (readings, totals) = (door.readings(), door.totals());
        let unhandled = door.unhandled().iter().map(|(reason, count)| (*reason as u8, *count)).collect();
        let queued = door.queued();
        let retained_bytes = door.retained_bytes() as u64;
        let segment = door.link().segment().clone();
        let (backend, serving) = {
            let serving = self.serving.lock();
            (serving.name.clone(), serving.kind)
        };
        drop(door);
        let known = self.known.lock();
        let running = known.state == DeviceState::Running;
        let per_second = self.rate.lock().per_second(self.origin.elapsed(), totals.finished);
        let shape = segment.shape();
        let sum = |f: fn(&Reading) -> u64| readings.iter().map(f).sum::<u64>();
        let age_ms = |r: &Reading| at_us.saturating_sub(r.beat_us) / 1000;
        DeviceStatus {
            name: self.name.clone(),
            kind: match serving {
                // What was left to the node has been decided before there is a device.
                config::DeviceKind::Auto | config::DeviceKind::Cpu => DeviceKind::Cpu,
                config::DeviceKind::Cuda => DeviceKind::Cuda,
                config::DeviceKind::Emulated => DeviceKind::Emulated,
            },
            backend,
            backends: known.backends.clone(),
            state: known.state,
            detail: known.detail.clone(),
            pid: known.pid,
            restarts: known.restarts,
            uptime_ms: known.started.elapsed().as_millis() as u64,
            at_us,
            // A parked worker is healthy however long ago it parked.
            heartbeat_age_ms: readings.iter().filter(|r| r.pulse == Pulse::Busy).map(age_ms).max().unwrap_or(0),
            workers: readings
                .iter()
                .enumerate()
                .map(|(number, r)| worker_status(number, r, age_ms(r), shape))
                .collect(),
            actors: sum(|r| r.actors),
            actors_created: totals.created,
            memory_bytes: sum(|r| r.table_bytes),
            handled: totals.finished,
            handled_per_s: if running { per_second } else { 0 },
            faults: totals.faults,
            replies: totals.replies,
            sent: totals.sent,
            timers: sum(|r| r.timers),
            inbox_used: queued,
            inbox_slots: (shape.inbox_slots as u64 + shape.ingress_slots as u64) * shape.workers as u64,
            spilled: totals.spilled,
            spilled_now: sum(|r| r.spilled_now),
            dead_letters: totals.dead,
            unhandled,
            clock: segment.clock().read().map(|clock| clock_status(&clock, at_us)),
            shards: self.shards.owned_by(self.index).len() as u32,
            checkpoints: self.keeper.as_ref().map(|keeper| {
                let figures = keeper.figures.lock().clone();
                CheckpointStatus {
                    epoch: figures.epoch,
                    count: figures.count,
                    age_ms: figures.at.map(|at| at.elapsed().as_millis() as u64),
                    bytes: figures.bytes,
                    pause_us: figures.pause.as_micros() as u64,
                    took_us: figures.took.as_micros() as u64,
                    failed: figures.failed,
                    retained_bytes,
                    recoveries: figures.recoveries,
                    recovery_us: figures.recovery.as_micros() as u64,
                    recovery_max_us: figures.recovery_max.as_micros() as u64,
                    moves: figures.moves,
                    last_recovery: figures.last,
                }
            }),
        }
    }
}

fn clock_status(clock: &KnownClock, at_us: u64) -> ClockStatus {
    let now_ns = at_us * 1_000;
    ClockStatus {
        offset_ns: clock.mapping.offset_at_ns(now_ns),
        drift_ppb: clock.mapping.drift_ppb,
        error_ns: clock.mapping.error_at_ns(clock.mapping.device_ns(now_ns)),
        samples: clock.samples,
        pauses: clock.pauses,
        paused: clock.paused,
    }
}

fn worker_status(number: usize, r: &Reading, age_ms: u64, shape: &Shape) -> WorkerStatus {
    let busy = r.pulse == Pulse::Busy;
    WorkerStatus {
        number: number as u32,
        state: match r.pulse {
            Pulse::Idle => WorkerState::Idle,
            // For a moment, while its device is cut.
            Pulse::Busy | Pulse::Waiting => WorkerState::Busy,
            Pulse::Starting | Pulse::Stopped => WorkerState::Dead,
        },
        heartbeat_age_ms: age_ms,
        busy_ms: if busy { age_ms } else { 0 },
        handled: r.finished,
        actors: r.actors,
        inbox_used: r.queued + r.ingress_waiting,
        inbox_slots: shape.inbox_slots as u64 + shape.ingress_slots as u64,
        spilled_now: r.spilled_now,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

    use ringhold_cluster::network::{BoxFuture, RealNetwork};
    use ringhold_kernels::bell::Bell;
    use ringhold_kernels::clock::{MonotonicClock, SteadyClock};
    use ringhold_kernels::clock_host::ClockHost;
    use ringhold_kernels::clock_map::Options;

    use ringhold_kernels::segment::Segment;

    use super::host::{DeviceBells, DeviceHost, NotifyBell};
    use super::supervisor::{Limits, Over};
    use super::*;

    /// Nobody serves the segment but the test.
    struct NoHost;

    impl DeviceHost for NoHost {
        fn bells(&self) -> DeviceBells {
            let bell = Arc::new(NotifyBell::default());
            DeviceBells { workers: Arc::new(vec![bell.clone() as Arc<dyn Bell>]), node: bell }
        }

        fn start(&mut self, _: &Arc<Segment>) -> std::io::Result<Option<u32>> {
            Ok(None)
        }

        fn over(&mut self) -> BoxFuture<'_, Over> {
            Box::pin(std::future::pending())
        }

        fn kill(&mut self) {}
    }

    #[test]
    fn a_status_tells_what_the_host_knows_of_its_devices_clock() {
        let registry = Arc::new(Registry::new());
        let limits = Limits {
            stalled_after: Duration::ZERO,
            deadlines: Default::default(),
            start_timeout: Duration::ZERO,
            leave_timeout: Duration::ZERO,
            backoff_min: Duration::ZERO,
            backoff_max: Duration::ZERO,
        };
        let backend = Backend {
            name: "x".into(),
            kind: config::DeviceKind::Cpu,
            shape: Shape { types: 0, ..Shape::default() },
            host: Box::new(NoHost),
            limits,
            unusable: None,
        };
        let shards = Arc::new(Shards::new(&crate::shards::dealt(1)));
        let about = About {
            name: "x".into(),
            kept_as: "x".into(),
            index: 0,
            number: 0,
            overflow: config::Overflow::Block,
            keeps: None,
            shards,
        };
        let made = Device::new(about, &backend, &registry, Arc::new(RealNetwork));
        let device = made.map_err(|e| e.to_string()).unwrap();
        let segment = device.door.lock().link().segment().clone();
        assert_eq!(device.status().clock, None, "none is known");

        let (clock, line) = (MonotonicClock::start(), segment.clock());
        const BEHIND_NS: u64 = 86_400_000_000_000;
        let mut host = ClockHost::new(segment.clone(), Box::new(clock), Options::default());
        while device.status().clock.is_none() {
            host.step();
            // What a device does.
            line.device_ns.store(clock.now_ns() - BEHIND_NS, Relaxed);
            line.reply.store(line.request.load(Acquire), Release);
        }
        let known = device.status().clock.unwrap();
        assert!(known.offset_ns.abs_diff(BEHIND_NS as i64) <= known.error_ns, "{known:?}");
        assert_eq!((known.samples, known.pauses, known.paused), (8, 0, false));

        segment.reset_telemetry();
        assert_eq!(device.status().clock, None, "the next host does not know yet");
    }
}
