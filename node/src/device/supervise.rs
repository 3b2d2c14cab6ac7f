//! Keeps a device running: carries out what [`Supervisor`] and [`Breakers`] decide.
//!
//! A device is run by a host of one backend at a time. Where that fails for good the device goes on with another backend, by the
//! procedure that starts any host: a new term, the last checkpoint, the messages since. A backend that is preferred is tried
//! again meanwhile: its host is started *beside* the present one, in a segment of its own. Once it waits for what it is to
//! begin with the device is cut, the checkpoint is made durable, and the one takes over from the other. What the old host sent
//! after the cut has been held back, and is made again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use ringhold_cluster::wire::{BackendStatus, BreakerState, DeviceState, RecoveryStatus};
use ringhold_kernels::id::{ActorId, TypeId};
use ringhold_kernels::link::{Link, Reading};
use ringhold_kernels::message::Reason;
use ringhold_kernels::outbox::Owners;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::segment::{Pulse, Segment, Shape};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::breaker::{self, Breakers, Verdict};
use super::door::Outcome;
use super::host::DeviceHost;
use super::looks::Looks;
use super::still::Still;
use super::supervisor::{Beat, Effect, Event, Limits, Over, PROVEN_AFTER, Remedy, State, Supervisor};
use super::{Device, Error, Outlet, keeper};
use crate::config::DeviceKind;

/// What can run a device.
pub struct Backend {
    /// For people: `cuda:0`, `cpu`.
    pub name: String,
    pub kind: DeviceKind,
    pub shape: Shape,
    pub host: Box<dyn DeviceHost>,
    pub limits: Limits,
    /// Why it cannot be had when the node starts.
    pub unusable: Option<String>,
}

impl Backend {
    /// A segment for its hosts, whose workers own shards like this, and the node's end of it.
    pub(super) fn link(&self, device: &str, registry: &Registry, owners: &Owners) -> Result<Link, Error> {
        let segment = Segment::create(self.shape, registry.layout_hash(), owners);
        let segment = segment.map_err(|e| Error::Segment(device.into(), e))?;
        Ok(Link::new(segment, self.host.bells().workers))
    }
}

/// How often a running device's heartbeats are looked at, and a starting one is asked whether it is up.
const BEAT_EVERY: Duration = Duration::from_millis(100);
const UP_EVERY: Duration = Duration::from_millis(2);

/// A host of another backend, started beside the one that runs the device.
struct Trial {
    backend: usize,
    link: Link,
    term: u64,
    pid: Option<u32>,
    /// When it was started, and from then on, when the cut began.
    since: Duration,
    /// The checkpoint that it is to begin with. No other is made until what this resolves to is dropped.
    cut: Option<JoinHandle<Result<OwnedMutexGuard<()>, keeper::Error>>>,
    /// False once nobody waits for that any more.
    wanted: Arc<AtomicBool>,
}

/// What there is to react to.
enum Happened {
    Event(Event),
    /// The host that is tried is over.
    Tried(Over),
    /// Somebody has seen to the device.
    Retry,
    /// Somebody wants it to leave the backend that runs it.
    Leave,
    /// Its shards move: it is to stand still.
    Stand,
}

/// How the device came to its present host, step by step.
struct Recovering {
    since: Instant,
    from: String,
    why: String,
    /// It is one of another backend.
    moved: bool,
    gone: Duration,
    launched: Duration,
}

struct Care {
    device: Arc<Device>,
    outlet: Arc<dyn Outlet>,
    backends: Vec<Backend>,
    breakers: Breakers,
    supervisor: Supervisor,
    /// The time that it goes by.
    looks: Looks,
    trial: Option<Trial>,
    /// The next host is one of this backend.
    next: Option<usize>,
    recovering: Option<Recovering>,
    /// It has been up, or has what it had before: a device that never was anywhere is not to begin elsewhere than it was asked to.
    has_been: bool,
    origin: Instant,
    restored: u64,
    /// How the last host ended.
    ended_how: String,
}

impl Device {
    /// Keeps a host alive until [`Device::stop`]. The backends are in the order in which they are preferred; the device has a
    /// segment for the first.
    pub async fn supervise(
        self: Arc<Device>,
        backends: Vec<Backend>,
        limits: breaker::Limits,
        outlet: Arc<dyn Outlet>,
    ) {
        let breakers = Breakers::new(limits, backends.len());
        let mut seed = [0; 8];
        self.network.random(&mut seed);
        let supervisor = Supervisor::new(backends[0].limits.clone(), u64::from_le_bytes(seed), Duration::ZERO);
        let has_been = self.door.lock().epoch() > 0;
        let mut care = Care {
            has_been,
            device: self,
            outlet,
            backends,
            breakers,
            supervisor,
            looks: Looks::new(BEAT_EVERY, Duration::ZERO),
            trial: None,
            next: None,
            recovering: None,
            origin: Instant::now(),
            restored: 0,
            ended_how: String::new(),
        };
        care.begin_where_it_can();
        care.run().await;
    }
}

impl Care {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn jitter(&self) -> f64 {
        let mut bytes = [0; 4];
        self.device.network.random(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }

    /// Passes over backends that cannot be had from the start.
    fn begin_where_it_can(&mut self) {
        while let Some(why) = &self.backends[self.next.unwrap_or(0)].unusable {
            let name = &self.backends[self.next.unwrap_or(0)].name;
            tracing::error!(device = self.device.name, "{name} cannot be had: {why}");
            match self.breakers.begin_without(self.now(), &why.clone(), self.jitter()) {
                Verdict::Move(to) => self.next = Some(to),
                Verdict::Stay => return,
            }
        }
    }

    async fn run(&mut self) {
        let (mut effects, mut stood) = (vec![Effect::Launch], false);
        loop {
            let mut event = None;
            // What a host begins with is known once no checkpoint is under way. None is while the device stands still, and who moves
            // its shards waits for the host.
            let device = self.device.clone();
            let no_checkpoint = match &device.keeper {
                Some(keeper) if effects.contains(&Effect::Launch) && !stood => Some(keeper.one.lock().await),
                _ => None,
            };
            for effect in effects {
                event = self.apply(effect).or(event);
            }
            drop(no_checkpoint);
            self.has_gone_on();
            self.publish();
            if self.device.ended.load(SeqCst) {
                self.abandon_trial().await;
                return self.device.over.notify_one();
            }
            let event = match event {
                Some(event) => event,
                None => match self.happens().await {
                    Happened::Event(event) => event,
                    Happened::Tried(over) => {
                        self.call_off_cut();
                        let trial = self.trial.take().expect("it was awaited");
                        self.tried_in_vain(trial.backend, over);
                        Event::Tick
                    }
                    Happened::Retry => {
                        self.retry();
                        Event::Tick
                    }
                    Happened::Leave => {
                        self.leave();
                        Event::Tick
                    }
                    Happened::Stand => {
                        self.stand().await;
                        Event::Tick
                    }
                },
            };
            if let (Event::Up, State::Starting { since }) = (&event, self.supervisor.state()) {
                let took_ms = (self.looks.look(self.now()) - *since).as_millis();
                tracing::info!(device = self.device.name, pid = self.device.known.lock().pid, took_ms, "device is up");
                self.has_been = true;
                self.recovered();
            }
            let event = self.judge(event);
            stood = matches!(event, Event::GoOn);
            effects = self.supervisor.step(self.looks.look(self.now()), event);
            if matches!(self.supervisor.state(), State::Running { .. }) {
                self.look_after_trial().await;
            }
        }
    }

    async fn happens(&mut self) -> Happened {
        if let Some(happened) = self.look_whether_still() {
            return happened;
        }
        let pause = match (self.supervisor.state(), &self.trial) {
            (State::Running { .. } | State::Still | State::GivenUp { .. }, None) => BEAT_EVERY,
            _ => UP_EVERY,
        };
        let current = self.breakers.current();
        let over = match &self.trial {
            Some(trial) => {
                let both = self.backends.get_disjoint_mut([current, trial.backend]);
                let [current, tried] = both.expect("a backend is not tried beside itself");
                tokio::select! {
                    biased;
                    over = current.host.over() => Some(Happened::Event(Event::Over(over))),
                    over = tried.host.over() => Some(Happened::Tried(over)),
                    () = self.device.stop.notified() => Some(Happened::Event(Event::Stop)),
                    () = self.device.retry.notified() => Some(Happened::Retry),
                    () = self.device.leave_backend.notified() => Some(Happened::Leave),
                    () = self.device.still_changed.notified() => None,
                    () = sleep(pause) => None,
                }
            }
            None => tokio::select! {
                biased;
                over = self.backends[current].host.over() => Some(Happened::Event(Event::Over(over))),
                () = self.device.stop.notified() => Some(Happened::Event(Event::Stop)),
                () = self.device.retry.notified() => Some(Happened::Retry),
                () = self.device.leave_backend.notified() => Some(Happened::Leave),
                () = self.device.still_changed.notified() => None,
                () = sleep(pause) => None,
            },
        };
        over.unwrap_or_else(|| Happened::Event(self.look()))
    }

    /// What is to be done about a device whose shards move.
    fn look_whether_still(&self) -> Option<Happened> {
        let device = &self.device;
        let mut still = device.still.lock();
        match (*still, self.supervisor.state()) {
            (Still::Wanted, State::Running { .. } | State::Starting { .. }) => Some(Happened::Stand),
            (Still::GoesOn, State::Still) => Some(Happened::Event(Event::GoOn)),
            // Who moved its shards has let go of it, and has not said so.
            (Still::Stands, State::Still) if !device.is_making_checkpoint() => {
                *still = Still::GoesOn;
                Some(Happened::Event(Event::GoOn))
            }
            _ => None,
        }
    }

    /// Ends the host, of which there is a checkpoint with all that anybody has seen, and starts no other until one is asked for.
    async fn stand(&mut self) {
        let device = self.device.clone();
        let backend = &mut self.backends[self.breakers.current()];
        end(backend, || _ = device.leave()).await;
        let mut out = Outcome::default();
        {
            let _carry = device.carry.lock();
            let mut door = device.door.lock();
            door.lose(&mut out);
            *device.still.lock() = Still::Stands;
            drop(door);
            self.outlet.carry(&device, &mut out);
        }
        self.abandon_trial().await;
        self.supervisor.stands_still();
        tracing::info!(device = device.name, "device stands still while shards move");
    }

    /// Takes in that a device which stood still runs again, or that its host ended before it was up.
    fn has_gone_on(&self) {
        let mut still = self.device.still.lock();
        let begins = matches!(
            self.supervisor.state(),
            State::Still | State::Starting { .. } | State::Leaving { .. } | State::Killed { .. }
        );
        if *still == Still::GoesOn && !begins {
            *still = Still::No;
        }
    }

    /// What a look at the host says.
    fn look(&mut self) -> Event {
        let device = &self.device;
        let mut door = device.door.lock();
        match self.supervisor.state() {
            State::Starting { .. } if door.link().is_running() => Event::Up,
            State::Starting { .. } if device.restored() != self.restored => {
                self.restored = device.restored();
                Event::Restoring
            }
            State::Running { .. } => {
                device.rate.lock().look(device.origin.elapsed(), door.totals().finished);
                let awaited = device.keeper.as_ref().and_then(|keeper| *keeper.awaited.lock());
                Event::Beats(door.readings().iter().map(|reading| beat(reading, awaited)).collect())
            }
            _ => Event::Tick,
        }
    }

    /// Asks the breakers about a host that has failed, and takes note of where the device goes on.
    fn judge(&mut self, event: Event) -> Event {
        let over = match &event {
            Event::Over(over) | Event::LaunchFailed(over) => over.clone(),
            _ => return event,
        };
        // It may have been up for less than a look.
        self.has_been |= self.device.door.lock().link().is_running();
        if matches!(self.supervisor.state(), State::Stopping { .. } | State::Stopped) || !self.has_been {
            return event;
        }
        let why = self.supervisor.condemned().unwrap_or(&over.how).to_owned();
        let verdict = self.breakers.failed(self.now(), over.remedy, &why, self.jitter());
        let Verdict::Move(to) = verdict else { return event };
        let (from, name) = (&self.device.serving.lock().name, &self.backends[to].name);
        tracing::error!(device = self.device.name, "{from} is left alone ({why}): the device goes on with {name}");
        self.next = Some(to);
        let over = Over { remedy: Remedy::Move, ..over };
        match event {
            Event::LaunchFailed(_) => Event::LaunchFailed(over),
            _ => Event::Over(over),
        }
    }

    fn apply(&mut self, effect: Effect) -> Option<Event> {
        let device = self.device.clone();
        match effect {
            Effect::Launch => Some(self.launch()),
            Effect::AskToLeave(why) => {
                tracing::error!(device = device.name, "asking the device host to end with what it has in hand: {why}");
                self.recovering_since(&why);
                device.leave();
                None
            }
            Effect::Kill(why) => {
                tracing::error!(device = device.name, "killing the device host: {why}");
                self.recovering_since(&why);
                self.backends[self.breakers.current()].host.kill();
                None
            }
            Effect::Lost(over) => {
                self.recovering_since(&over.how);
                self.lost(over);
                None
            }
            Effect::GiveUp => {
                let mut out = Outcome::default();
                device.door.lock().give_up(Reason::NoDevice, &mut out);
                self.outlet.carry(&device, &mut out);
                // Who waits for room at the door is turned away now.
                self.outlet.room();
                None
            }
            Effect::AskToEnd => {
                device.door.lock().link().stop();
                None
            }
            Effect::Ended => {
                self.ended();
                None
            }
        }
    }

    /// Begins a term, of the next backend where the last one is left.
    fn launch(&mut self) -> Event {
        let device = self.device.clone();
        if let Some(to) = self.next.take()
            && let Err(e) = self.take_up(to)
        {
            tracing::error!(device = device.name, "{e}");
            // The segment that there is was made for another backend.
            self.next = Some(to);
            return Event::LaunchFailed(format!("has no segment: {e}").into());
        }
        let (term, segment) = {
            let mut door = device.door.lock();
            (door.begin_term(), door.link().segment().clone())
        };
        if device.keeper.is_some() {
            restore(&device, term);
        }
        match self.backends[self.breakers.current()].host.start(&segment) {
            Ok(pid) => {
                let mut known = device.known.lock();
                (known.pid, known.started) = (pid, Instant::now());
                tracing::debug!(device = device.name, pid, term, "device host started");
                if let Some(recovering) = &mut self.recovering {
                    recovering.launched = recovering.since.elapsed();
                }
                Event::Launched
            }
            Err(e) => {
                tracing::error!(device = device.name, "cannot start the device host: {e}");
                // It has had nothing; but its term is over.
                device.door.lock().lose(&mut Outcome::default());
                Event::LaunchFailed(format!("cannot be started: {e}").into())
            }
        }
    }

    /// Has the device go on in a new segment, for hosts of this backend. The last host is lost.
    fn take_up(&mut self, to: usize) -> Result<(), Error> {
        let device = self.device.clone();
        let link =
            self.backends[to].link(&device.name, &device.registry, &device.deal(self.backends[to].shape.workers))?;
        let mut door = device.door.lock();
        door.rehouse(link);
        self.serve(to);
        self.supervisor.set_limits(self.backends[to].limits.clone());
        if let Some(recovering) = &mut self.recovering {
            recovering.moved = true;
        }
        Ok(())
    }

    /// Says what serves the device, and wakes who waits for the bell of what did. The door is locked, or nobody waits.
    fn serve(&self, to: usize) {
        let backend = &self.backends[to];
        let mut serving = self.device.serving.lock();
        let bell = std::mem::replace(&mut serving.bell, backend.host.bells().node);
        (serving.kind, serving.name) = (backend.kind, backend.name.clone());
        serving.switches = backend.host.switches();
        bell.ring();
    }

    fn lost(&mut self, Over { how, remedy, blames }: Over) {
        let device = self.device.clone();
        // The next host does not begin while what may be a finished checkpoint waits for somebody to look at it.
        self.call_off_cut();
        let now = self.now();
        let mut out = Outcome::default();
        // What comes out now goes behind what the pump has in hand.
        let carry = device.carry.lock();
        let loss = device.door.lock().lose(&mut out);
        self.outlet.carry(&device, &mut out);
        drop(carry);
        let Some(keeper) = &device.keeper else {
            return tracing::error!(
                device = device.name,
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
                device.describe(&loss.hands),
            );
        };
        keeper.staged.notify_one();
        if let Some(recovering) = &mut self.recovering {
            recovering.gone = recovering.since.elapsed();
        }
        if blames {
            for condemned in device.door.lock().strike(&loss.in_hand_now, device.network.wall_us(), &how) {
                tracing::error!(
                    device = device.name,
                    "a message to {} ended its worker twice: it is put aside, and not run again; see `ringhold deadletter list --reason poison`",
                    device.name_of(&condemned.actor),
                );
            }
        }
        let epoch = device.door.lock().epoch();
        tracing::error!(
            device = device.name,
            epoch,
            at_ms = now.as_millis(),
            "device host is gone ({how}){}; another begins with checkpoint {epoch} and does again what came after it; {remedy}",
            device.describe(&loss.hands),
        );
    }

    fn ended(&mut self) {
        // What the workers said last, before the tasks that would carry it are ended.
        let device = &self.device;
        let mut out = Outcome::default();
        let carry = device.carry.lock();
        let loss = {
            let mut door = device.door.lock();
            let loss = door.lose(&mut out);
            door.give_up(Reason::Stopping, &mut out);
            loss
        };
        self.outlet.carry(device, &mut out);
        drop(carry);
        if device.keeper.is_none() && loss.in_hand + loss.timers + loss.asks > 0 {
            tracing::error!(
                device = device.name,
                messages = loss.in_hand,
                timers = loss.timers,
                asks = loss.asks,
                "device host did not end in order: what it had in hand is lost",
            );
        }
        device.ended.store(true, SeqCst);
    }

    /// From here on the device does not run.
    fn recovering_since(&mut self, why: &str) {
        let from = || self.device.serving.lock().name.clone();
        self.recovering.get_or_insert_with(|| Recovering {
            since: Instant::now(),
            from: from(),
            why: why.into(),
            moved: false,
            gone: Duration::ZERO,
            launched: Duration::ZERO,
        });
    }

    /// Takes in that a host runs with what its last one left.
    fn recovered(&mut self) {
        let Some(Recovering { since, from, why, moved, gone, launched }) = self.recovering.take() else { return };
        let Some(keeper) = &self.device.keeper else { return };
        let (took, to) = (since.elapsed(), self.device.serving.lock().name.clone());
        tracing::info!(
            device = self.device.name,
            gone_ms = gone.as_millis(),
            launched_ms = launched.as_millis(),
            took_ms = took.as_millis(),
            "device has recovered from {from} on {to}",
        );
        let mut figures = keeper.figures.lock();
        figures.recoveries += 1;
        figures.moves += u64::from(moved);
        (figures.recovery, figures.recovery_max) = (took, figures.recovery_max.max(took));
        figures.last = Some(RecoveryStatus {
            why,
            from,
            to,
            gone_us: gone.as_micros() as u64,
            launched_us: launched.as_micros() as u64,
            running_us: took.as_micros() as u64,
        });
    }

    /// Starts a host of a preferred backend where one is due, and has the device move to it once it is there.
    async fn look_after_trial(&mut self) {
        let now = self.now();
        let looked = self.looks.now();
        if matches!(self.supervisor.state(), State::Running { since, .. } if looked >= *since + PROVEN_AFTER) {
            self.breakers.proven();
        }
        let Some(trial) = &mut self.trial else {
            if self.device.keeper.is_some()
                && let Some(backend) = self.breakers.trial(now)
            {
                self.begin_trial(backend);
            }
            return;
        };
        let start_timeout = self.backends[trial.backend].limits.start_timeout;
        if trial.term <= self.device.door.lock().link().term() {
            // The host beside it has had a successor, whose term is this one's.
            self.abandon_trial().await;
        } else if *trial.link.owners() != self.device.deal(trial.link.segment().shape().workers) {
            // Shards have come or gone since its segment was made.
            self.abandon_trial().await;
        } else if let Some(cut) = trial.cut.take_if(|cut| cut.is_finished()) {
            match cut.await.map_err(|e| e.to_string()).and_then(|made| made.map_err(|e| e.to_string())) {
                Ok(one) => self.move_to_trial(one).await,
                Err(e) => {
                    tracing::warn!(device = self.device.name, "not moved, for it could not be cut: {e}");
                    self.abandon_trial().await;
                }
            }
        } else if trial.cut.is_none() && trial.link.is_there() {
            trial.since = now;
            let cut = self.device.clone().cut_to_move(self.outlet.clone(), trial.wanted.clone());
            trial.cut = Some(tokio::spawn(cut));
        } else if now > trial.since + start_timeout {
            let backend = trial.backend;
            self.end_trial().await;
            self.tried_in_vain(backend, format!("was not there after {} ms", start_timeout.as_millis()).into());
        }
    }

    fn begin_trial(&mut self, backend: usize) {
        let device = self.device.clone();
        let tried = &mut self.backends[backend];
        let owners = device.deal(tried.shape.workers);
        let link = tried.link(&device.name, &device.registry, &owners);
        let begun = link.map_err(|e| e.to_string()).and_then(|mut link| {
            let term = device.door.lock().begin_beside(&mut link);
            let pid = tried.host.start(link.segment()).map_err(|e| format!("cannot be started: {e}"))?;
            Ok((link, term, pid))
        });
        let since = self.now();
        match begun {
            Ok((link, term, pid)) => {
                tracing::info!(device = device.name, pid, "trying {} beside what runs it", self.backends[backend].name);
                let wanted = Arc::new(AtomicBool::new(true));
                self.trial = Some(Trial { backend, link, term, pid, since, cut: None, wanted });
            }
            Err(why) => self.tried_in_vain(backend, why.into()),
        }
    }

    fn tried_in_vain(&mut self, backend: usize, over: Over) {
        let name = &self.backends[backend].name;
        tracing::warn!(device = self.device.name, "{name} was tried again in vain: {}", over.how);
        self.breakers.trial_failed(backend, self.now(), over.remedy, &over.how, self.jitter());
    }

    /// Nobody waits for the cut of a trial any more: what it has come to is dropped, and nothing is held back for it.
    fn call_off_cut(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        trial.wanted.store(false, SeqCst);
        trial.cut = None;
        self.device.door.lock().hold_all(false);
    }

    /// Ends the host that is tried, if there is one. It has nothing that would be lost.
    async fn end_trial(&mut self) {
        self.call_off_cut();
        let Some(Trial { backend, mut link, .. }) = self.trial.take() else { return };
        end(&mut self.backends[backend], || link.stop_at_once()).await;
    }

    /// The same where it is no fault of the backend.
    async fn abandon_trial(&mut self) {
        let Some(backend) = self.trial.as_ref().map(|trial| trial.backend) else { return };
        self.end_trial().await;
        self.breakers.trial_abandoned(backend, self.now());
    }

    /// Has the device go on with the host beside its own, from the checkpoint that was just made. `one`: no other is being made.
    async fn move_to_trial(&mut self, one: OwnedMutexGuard<()>) {
        let device = self.device.clone();
        let Trial { backend, link, term, pid, since, .. } = self.trial.take().expect("the caller has looked");
        let from = self.breakers.current();
        let mut out = Outcome::default();
        let mut left = {
            let _carry = device.carry.lock();
            let mut door = device.door.lock();
            door.lose(&mut out);
            let left = door.rehouse(link);
            door.go_on();
            self.serve(backend);
            drop(door);
            self.outlet.carry(&device, &mut out);
            left
        };
        restore(&device, term);
        drop(one);
        self.breakers.trial_succeeded(backend, self.now());
        self.supervisor.taken_over(self.looks.now(), self.backends[backend].limits.clone());
        {
            let mut known = device.known.lock();
            (known.pid, known.started) = (pid, Instant::now());
        }
        let (to, from_name) = (&self.backends[backend].name, &self.backends[from].name);
        tracing::info!(device = device.name, pid, "moving from {from_name} to {to}");
        self.recovering = Some(Recovering {
            since: self.origin + since,
            from: from_name.clone(),
            why: match backend < from {
                true => format!("{to} is to be had again"),
                false => format!("{from_name} was to be left"),
            },
            moved: true,
            gone: self.now() - since,
            launched: self.now() - since,
        });
        self.publish();
        // It serves a segment that nobody looks at any more.
        end(&mut self.backends[from], || left.stop_at_once()).await;
    }

    fn retry(&mut self) {
        let due = self.breakers.retry(self.now());
        tracing::info!(device = self.device.name, "asked to try again: {due} backends that were left alone");
    }

    fn leave(&mut self) {
        let from = self.backends[self.breakers.current()].name.clone();
        match self.breakers.leave(self.now(), "somebody wanted it to be left") {
            Some(to) => {
                let to = &self.backends[to].name;
                tracing::info!(device = self.device.name, "asked to leave {from}: the device goes on with {to}");
            }
            None => tracing::warn!(
                device = self.device.name,
                "asked to leave {from}, and there is nothing else to go on with"
            ),
        }
    }

    fn publish(&mut self) {
        let supervisor = &self.supervisor;
        let (state, detail) = match supervisor.state() {
            State::Starting { .. } if supervisor.restarts > 0 => (DeviceState::Restarting, String::new()),
            State::Starting { .. } => (DeviceState::Starting, String::new()),
            State::Running { .. } => (DeviceState::Running, String::new()),
            State::Leaving { why, .. } | State::Killed { why } => (DeviceState::Stalled, why.clone()),
            State::Waiting { why, .. } => (DeviceState::Restarting, why.clone()),
            State::Still => (DeviceState::Restarting, String::new()),
            State::GivenUp { why } => (DeviceState::Failed, why.clone()),
            State::Stopping { .. } => (DeviceState::Stopping, String::new()),
            State::Stopped => (DeviceState::Stopped, String::new()),
        };
        let now = self.now();
        let backend = |(number, backend): (usize, &Backend)| {
            let (breaker, why, retry_ms) = match self.breakers.state(number) {
                breaker::State::Closed => (BreakerState::Closed, String::new(), None),
                breaker::State::Open { why, until } => {
                    let left = until.map(|until| until.saturating_sub(now).as_millis() as u64);
                    (BreakerState::Open, why.clone(), left)
                }
                breaker::State::Trying { why } => (BreakerState::Trying, why.clone(), None),
            };
            BackendStatus { name: backend.name.clone(), breaker, why, retry_ms }
        };
        let backends = self.backends.iter().enumerate().map(backend).collect();
        let state = if self.device.stands_still() { DeviceState::Restarting } else { state };
        let mut known = self.device.known.lock();
        (known.state, known.backends) = (state, backends);
        known.restarts = supervisor.restarts;
        // How the last host ended is worth knowing as long as this one runs.
        if !detail.is_empty() {
            self.ended_how = detail;
        }
        known.detail = match self.device.stands_still() {
            true => "it stands still while shards move".into(),
            false => self.ended_how.clone(),
        };
    }
}

/// Ends a host of which nothing counts any more: asked first, where it can be.
async fn end(backend: &mut Backend, ask: impl FnOnce()) {
    let leave = backend.limits.leave_timeout;
    if !leave.is_zero() {
        ask();
        if timeout(leave, backend.host.over()).await.is_ok() {
            return;
        }
    }
    backend.host.kill();
    backend.host.over().await;
}

/// Sends the host of this term what it begins with, beside everything else. That ends by itself: with all that there is to send,
/// or with the term.
fn restore(device: &Arc<Device>, term: u64) {
    let device = device.clone();
    tokio::spawn(async move {
        if let Err(e) = device.clone().restore(term).await {
            tracing::error!(device = device.name, "the last checkpoint cannot be read: {e}");
        }
    });
}

impl Device {
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
}

/// `awaited`: how much of a cut has come, while more of it is awaited.
fn beat(reading: &Reading, awaited: Option<u64>) -> Beat {
    // A host that was hung while it had nothing to do says that it is idle, for ever.
    let waiting = reading.queued + reading.ingress_waiting;
    let busy = reading.pulse == Pulse::Busy || waiting > 0 || awaited.is_some();
    let begun_us = reading.beat_us.wrapping_add(awaited.unwrap_or(0));
    let in_hand = reading.pulse == Pulse::Busy && reading.hand_type != 0;
    Beat { busy, finished: reading.finished, begun_us, hand: in_hand.then_some(TypeId(reading.hand_type)) }
}
