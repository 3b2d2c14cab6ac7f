//! One device, as the node sees it: a door for messages, a task that carries out what comes out of it, and a task that
//! keeps its host alive.

pub mod cuda;
mod desk;
pub mod door;
pub mod ending;
pub mod host;
pub mod keeper;
pub mod lanes;
pub mod machine;
pub mod mistake;
mod poison;
mod rate;
mod retained;
pub mod supervisor;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::network::Network;
use ringhold_cluster::wire::{
    CheckpointStatus, ClockStatus, DeviceKind, DeviceState, DeviceStatus, WorkerState, WorkerStatus,
};
use ringhold_kernels::clock_host::Known as KnownClock;
use ringhold_kernels::id::ActorId;
use ringhold_kernels::link::{Link, Reading};
use ringhold_kernels::message::Reason;
use ringhold_kernels::outbox::Owners;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::segment::{self, Pulse, Segment, Shape};
use tokio::sync::Notify;
use tokio::time::Instant;

use door::{Door, Keeping, Outcome};
use host::{DeviceHost, NodeBell};
use keeper::Keeper;
use rate::Rate;
use supervisor::{Beat, Effect, Event, Limits, Over, State, Supervisor};

use crate::config;

/// A device of this node. Shared by its tasks and the router.
pub struct Device {
    pub name: String,
    /// Its place among the devices of the node.
    pub index: u16,
    pub kind: config::DeviceKind,
    pub door: Mutex<Door>,
    bell: Arc<dyn NodeBell>,
    segment: Arc<Segment>,
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
    /// When the last host ended and no other has run since.
    down_since: Mutex<Option<Instant>>,
    stop: Notify,
    ended: AtomicBool,
    over: Notify,
}

struct Known {
    state: DeviceState,
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

/// How often a running device's heartbeats are looked at, and a starting one is asked whether it is up.
const BEAT_EVERY: Duration = Duration::from_millis(100);
const UP_EVERY: Duration = Duration::from_millis(2);

/// How long a device has to end by itself before its host is killed. A ring kernel can leave, unless a handler does not come
/// back; a worker of a CPU device that holds a message for too long cannot.
pub fn leave_timeout(kind: config::DeviceKind) -> Duration {
    match kind {
        config::DeviceKind::Auto | config::DeviceKind::Cpu => Duration::ZERO,
        config::DeviceKind::Cuda | config::DeviceKind::Emulated => Duration::from_secs(1),
    }
}

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
    pub index: u16,
    pub kind: config::DeviceKind,
    pub overflow: config::Overflow,
    /// Where checkpoints are made: how, and what the door keeps for it.
    pub keeps: Option<(keeper::Options, Keeping)>,
}

impl Device {
    /// A device that is not started yet, and the host that will serve it.
    pub fn new(
        About { name, index, kind, overflow, keeps }: About,
        shape: Shape,
        owners: &Owners,
        registry: &Arc<Registry>,
        host: std::io::Result<Box<dyn DeviceHost>>,
        network: Arc<dyn Network>,
    ) -> Result<(Arc<Device>, Box<dyn DeviceHost>), Error> {
        let segment = Segment::create(shape, registry.layout_hash(), owners);
        let segment = segment.map_err(|e| Error::Segment(name.clone(), e))?;
        let host = host.map_err(|e| Error::Bells(name.clone(), e))?;
        let bells = host.bells();
        let (options, keeping) = keeps.unzip();
        let epoch = keeping.as_ref().map_or(0, |keeping: &Keeping| keeping.epoch);
        let mut door = Door::new(Link::new(segment.clone(), bells.workers), overflow, keeping);
        let taken_up = match &options {
            Some(options) if epoch > 0 => keeper::take_up(options, &name, epoch, registry, &mut door),
            _ => Ok(Outcome::default()),
        };
        let taken_up = taken_up.map_err(|e| Error::Checkpoint(name.clone(), e))?;
        let device = Device {
            keeper: options.map(Keeper::new),
            taken_up: Mutex::new(taken_up),
            down_since: Mutex::default(),
            name,
            index,
            kind,
            door: Mutex::new(door),
            bell: bells.node,
            segment,
            registry: registry.clone(),
            network,
            known: Mutex::new(Known {
                state: DeviceState::Starting,
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
            ended: AtomicBool::new(false),
            over: Notify::new(),
        };
        Ok((Arc::new(device), host))
    }

    /// Hands on what had been held for the checkpoint that the device begins with. Once, before it starts.
    pub fn hand_on_taken_up(&self, outlet: &dyn Outlet) {
        outlet.carry(self, &mut self.taken_up.lock());
    }

    /// Asks the device to finish what it has and end.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Asks a device that can to end at once, with what it has in hand: before its host is killed, which can leave a GPU in
    /// disorder. False if it cannot.
    pub fn leave(&self) -> bool {
        let can = !leave_timeout(self.kind).is_zero();
        if can {
            self.door.lock().link().stop_at_once();
        }
        can
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
            self.carrying.store(false, SeqCst);
            if room {
                outlet.room();
            }
            if collected > 0 {
                // Others have work too: a busy device must not starve the runtime's other tasks.
                tokio::task::yield_now().await;
            } else if self.door.lock().link().park() {
                self.bell.rung().await;
            }
        }
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

    /// Keeps a host alive until [`Device::stop`].
    pub async fn supervise(self: Arc<Device>, mut host: Box<dyn DeviceHost>, limits: Limits, outlet: Arc<dyn Outlet>) {
        let origin = Instant::now();
        let mut supervisor = Supervisor::new(limits, Duration::ZERO);
        let mut effects = vec![Effect::Launch];
        let mut restored = 0;
        loop {
            let mut event = None;
            // What a host begins with is known once no checkpoint is under way.
            let no_checkpoint = match &self.keeper {
                Some(keeper) if effects.contains(&Effect::Launch) => Some(keeper.one.lock().await),
                _ => None,
            };
            for effect in effects {
                event = self.apply(effect, &mut *host, &*outlet, origin.elapsed()).or(event);
            }
            drop(no_checkpoint);
            self.publish(&supervisor);
            if self.ended.load(SeqCst) {
                return self.over.notify_one();
            }
            let event = match event {
                Some(event) => event,
                None => self.next_event(&supervisor, &mut *host, &mut restored).await,
            };
            if let (Event::Up, State::Starting { since }) = (&event, supervisor.state()) {
                let took_ms = (origin.elapsed() - *since).as_millis();
                tracing::info!(device = self.name, pid = self.known.lock().pid, took_ms, "device is up");
                self.recovered();
            }
            effects = supervisor.step(origin.elapsed(), event);
        }
    }

    async fn next_event(&self, supervisor: &Supervisor, host: &mut dyn DeviceHost, restored: &mut u64) -> Event {
        let starting = matches!(supervisor.state(), State::Starting { .. });
        let pause = match supervisor.state() {
            State::Running { .. } | State::GivenUp { .. } => BEAT_EVERY,
            _ => UP_EVERY,
        };
        tokio::select! {
            biased;
            over = host.over() => Event::Over(over),
            () = self.stop.notified() => Event::Stop,
            () = tokio::time::sleep(pause) => {
                let mut door = self.door.lock();
                match supervisor.state() {
                    State::Starting { .. } if starting && door.link().is_running() => Event::Up,
                    State::Starting { .. } if self.restored() != *restored => {
                        *restored = self.restored();
                        Event::Restoring
                    }
                    State::Running { .. } => {
                        self.rate.lock().look(self.origin.elapsed(), door.totals().finished);
                        let awaited = self.keeper.as_ref().and_then(|keeper| *keeper.awaited.lock());
                        Event::Beats(door.readings().iter().map(|reading| beat(reading, awaited)).collect())
                    }
                    _ => Event::Tick,
                }
            }
        }
    }

    fn apply(
        self: &Arc<Device>,
        effect: Effect,
        host: &mut dyn DeviceHost,
        outlet: &dyn Outlet,
        now: Duration,
    ) -> Option<Event> {
        match effect {
            Effect::Launch => {
                let term = self.door.lock().begin_term();
                if self.keeper.is_some() {
                    let device = self.clone();
                    // It ends by itself: with all that there is to send, or with the term.
                    tokio::spawn(async move {
                        if let Err(e) = device.restore(term).await {
                            tracing::error!(device = device.name, "the last checkpoint cannot be read: {e}");
                        }
                    });
                }
                Some(match host.start(&self.segment) {
                    Ok(pid) => {
                        let mut known = self.known.lock();
                        (known.pid, known.started) = (pid, Instant::now());
                        tracing::debug!(device = self.name, pid, term, "device host started");
                        Event::Launched
                    }
                    Err(e) => {
                        tracing::error!(device = self.name, "cannot start the device host: {e}");
                        Event::LaunchFailed(format!("cannot be started: {e}"))
                    }
                })
            }
            Effect::AskToLeave(why) => {
                tracing::error!(device = self.name, "asking the device host to end with what it has in hand: {why}");
                self.leave();
                None
            }
            Effect::Kill(why) => {
                tracing::error!(device = self.name, "killing the device host: {why}");
                host.kill();
                None
            }
            Effect::Lost(Over { how, remedy, blames }) => {
                let mut out = Outcome::default();
                let loss = self.door.lock().lose(&mut out);
                outlet.carry(self, &mut out);
                if let Some(keeper) = &self.keeper {
                    keeper.staged.notify_one();
                    self.down_since.lock().get_or_insert(Instant::now());
                    if blames {
                        for condemned in self.door.lock().strike(&loss.in_hand_now) {
                            tracing::error!(
                                device = self.name,
                                "a message to {} ended its worker twice: it is put aside, and not run again",
                                self.name_of(&condemned.actor),
                            );
                        }
                    }
                    let epoch = self.door.lock().epoch();
                    tracing::error!(
                        device = self.name,
                        epoch,
                        at_ms = now.as_millis(),
                        "device host is gone ({how}){}; another begins with checkpoint {epoch} and does again what came after it; {remedy}",
                        self.describe(&loss.hands),
                    );
                    return None;
                }
                tracing::error!(
                    device = self.name,
                    actors = loss.actors,
                    messages = loss.in_hand,
                    timers = loss.timers,
                    asks = loss.asks,
                    at_ms = now.as_millis(),
                    "device host is gone ({how}): the state of {} actors, {} messages in its queues and {} timers were \
                     lost, {} askers were told so{}; {remedy}",
                    loss.actors,
                    loss.in_hand,
                    loss.timers,
                    loss.asks,
                    self.describe(&loss.hands),
                );
                None
            }
            Effect::GiveUp => {
                let mut out = Outcome::default();
                self.door.lock().give_up(Reason::NoDevice, &mut out);
                outlet.carry(self, &mut out);
                // Who waits for room at the door is turned away now.
                outlet.room();
                None
            }
            Effect::AskToEnd => {
                self.door.lock().link().stop();
                None
            }
            Effect::Ended => {
                // What the workers said last, before the tasks that would carry it are ended.
                let mut out = Outcome::default();
                let loss = {
                    let mut door = self.door.lock();
                    let loss = door.lose(&mut out);
                    door.give_up(Reason::Stopping, &mut out);
                    loss
                };
                outlet.carry(self, &mut out);
                if self.keeper.is_none() && loss.in_hand + loss.timers + loss.asks > 0 {
                    tracing::error!(
                        device = self.name,
                        messages = loss.in_hand,
                        timers = loss.timers,
                        asks = loss.asks,
                        "device host did not end in order: what it had in hand is lost",
                    );
                }
                self.ended.store(true, SeqCst);
                None
            }
        }
    }

    /// Takes in that a host runs with what its last one left.
    fn recovered(&self) {
        let (Some(keeper), Some(since)) = (&self.keeper, self.down_since.lock().take()) else { return };
        let took = since.elapsed();
        let mut figures = keeper.figures.lock();
        figures.recoveries += 1;
        (figures.recovery, figures.recovery_max) = (took, figures.recovery_max.max(took));
        tracing::info!(device = self.name, took_ms = took.as_millis(), "device has recovered");
    }

    /// Which messages the workers held: what to look at when a host dies again and again.
    fn describe(&self, hands: &[ActorId]) -> String {
        match hands {
            [] => String::new(),
            hands => {
                let names: Vec<String> = hands.iter().map(|id| self.name_of(id)).collect();
                format!("; it was running a message of {}", names.join(", "))
            }
        }
    }

    fn name_of(&self, id: &ActorId) -> String {
        match self.registry.get(id.type_id) {
            Some(actor) => format!("{} {}", actor.schema.name, id.key),
            None => format!("{id:?}"),
        }
    }

    fn publish(&self, supervisor: &Supervisor) {
        let (state, detail) = match supervisor.state() {
            State::Starting { .. } if supervisor.restarts > 0 => (DeviceState::Restarting, String::new()),
            State::Starting { .. } => (DeviceState::Starting, String::new()),
            State::Running { .. } => (DeviceState::Running, String::new()),
            State::Leaving { why, .. } | State::Killed { why } => (DeviceState::Stalled, why.clone()),
            State::Waiting { why, .. } => (DeviceState::Restarting, why.clone()),
            State::GivenUp { why } => (DeviceState::Failed, why.clone()),
            State::Stopping { .. } => (DeviceState::Stopping, String::new()),
            State::Stopped => (DeviceState::Stopped, String::new()),
        };
        let mut known = self.known.lock();
        known.state = state;
        known.restarts = supervisor.restarts;
        // How the last host ended is worth knowing as long as this one runs.
        if !detail.is_empty() {
            known.detail = detail;
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

    /// The process that the device runs in, while it runs in one.
    pub fn running_pid(&self) -> Option<u32> {
        let known = self.known.lock();
        known.pid.filter(|_| known.state == DeviceState::Running)
    }

    /// Grows while what a host begins with is read and sent to it.
    pub fn restored(&self) -> u64 {
        self.keeper.as_ref().map_or(0, |keeper| keeper.restored.load(SeqCst))
    }

    pub fn makes_checkpoints(&self) -> bool {
        self.keeper.is_some()
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
        let door = self.door.lock();
        let (readings, totals) = (door.readings(), door.totals());
        let unhandled = door.unhandled().iter().map(|(reason, count)| (*reason as u8, *count)).collect();
        let queued = door.queued();
        let retained_bytes = door.retained_bytes() as u64;
        drop(door);
        let known = self.known.lock();
        let running = known.state == DeviceState::Running;
        let per_second = self.rate.lock().per_second(self.origin.elapsed(), totals.finished);
        let shape = self.segment.shape();
        let sum = |f: fn(&Reading) -> u64| readings.iter().map(f).sum::<u64>();
        let age_ms = |r: &Reading| at_us.saturating_sub(r.beat_us) / 1000;
        DeviceStatus {
            name: self.name.clone(),
            kind: match self.kind {
                // What was left to the node has been decided before there is a device.
                config::DeviceKind::Auto | config::DeviceKind::Cpu => DeviceKind::Cpu,
                config::DeviceKind::Cuda => DeviceKind::Cuda,
                config::DeviceKind::Emulated => DeviceKind::Emulated,
            },
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
            clock: self.segment.clock().read().map(|clock| clock_status(&clock, at_us)),
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

/// `awaited`: how much of a cut has come, while more of it is awaited.
fn beat(reading: &Reading, awaited: Option<u64>) -> Beat {
    // A host that was hung while it had nothing to do says that it is idle, for ever.
    let waiting = reading.queued + reading.ingress_waiting;
    let busy = reading.pulse == Pulse::Busy || waiting > 0 || awaited.is_some();
    let begun_us = reading.beat_us.wrapping_add(awaited.unwrap_or(0));
    Beat { busy, finished: reading.finished, begun_us }
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

    use super::host::{DeviceBells, NotifyBell};
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
        let shape = Shape { types: 0, ..Shape::default() };
        let (owners, overflow) = (Owners::all_here(1), config::Overflow::Block);
        let network = Arc::new(RealNetwork);
        let about = About { name: "x".into(), index: 0, kind: config::DeviceKind::Cpu, overflow, keeps: None };
        let made = Device::new(about, shape, &owners, &registry, Ok(Box::new(NoHost)), network);
        let (device, _) = made.map_err(|e| e.to_string()).unwrap();
        assert_eq!(device.status().clock, None, "none is known");

        let (clock, line) = (MonotonicClock::start(), device.segment.clock());
        const BEHIND_NS: u64 = 86_400_000_000_000;
        let mut host = ClockHost::new(device.segment.clone(), Box::new(clock), Options::default());
        while device.status().clock.is_none() {
            host.step();
            // What a device does.
            line.device_ns.store(clock.now_ns() - BEHIND_NS, Relaxed);
            line.reply.store(line.request.load(Acquire), Release);
        }
        let known = device.status().clock.unwrap();
        assert!(known.offset_ns.abs_diff(BEHIND_NS as i64) <= known.error_ns, "{known:?}");
        assert_eq!((known.samples, known.pauses, known.paused), (8, 0, false));

        device.segment.reset_telemetry();
        assert_eq!(device.status().clock, None, "the next host does not know yet");
    }
}
