//! Device hosts that are tasks: the workers that ship, on simulated time, with the mishaps of real hosts.
//!
//! A host can die between two steps of a worker, in the middle of a handler, or in the middle of a step, where a
//! worker rings a bell; whatever it had in its own memory is then gone, and what is in the segment stays. It can
//! hang for a while or for ever, and fail to start.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold::config;
use ringhold::device;
use ringhold::device::host::{DeviceBells, DeviceHost, Devices, NodeBell, NotifyBell, Planned};
use ringhold::device::supervisor::{Over, Remedy};
use ringhold_cluster::network::{BoxFuture, Network};
use ringhold_kernels::bell::Bell;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::segment::{Pulse, STOP_AT_ONCE, Segment};
use ringhold_kernels::worker::{Bells, Worker, workers};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::network::Machine;
use crate::observed::{self, Place};
use crate::random::{Random, Stream};
use crate::trace::Trace;

/// How a device behaves.
#[derive(Clone, Debug)]
pub struct Plan {
    /// After so many of a thousand busy steps a worker pauses, for up to `pause_max`.
    pub pause_per_mille: u64,
    pub pause_max: Duration,
    /// What befalls each host in turn; hosts after the last are spared.
    pub mishaps: VecDeque<Mishap>,
    pub fallback: Option<Fallback>,
    /// Its own hosts do not go on by another shard table, as those of a ring kernel: it stands still while its shards move.
    pub stands: bool,
}

/// What a device goes on with where its own hosts fail.
#[derive(Clone, Debug)]
pub struct Fallback {
    pub workers: u32,
    /// What befalls each of its hosts in turn.
    pub mishaps: VecDeque<Mishap>,
    /// One of the device's own hosts that dies says that there is to be no other.
    pub untrusted: bool,
}

/// What befalls one host of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    None,
    /// Dead on reaching this point.
    Crash(Point),
    /// A worker stops where it would begin the `step`-th step of its host, for a while or for ever.
    Hang {
        step: u64,
        pause: Option<Duration>,
    },
    FailsToStart,
    /// It starts, and is dead before its workers are up.
    DiesStarting,
}

/// A point in the life of a host, counted over all its workers from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before a step.
    Step(u64),
    /// Inside a handler.
    Message(u64),
    /// Where a worker rings a bell, in the middle of a step.
    Ring(u64),
}

/// The devices of one simulated machine.
pub struct SimDevices {
    machine: Arc<Machine>,
    trace: Trace,
    seed: u64,
    plans: Mutex<VecDeque<Plan>>,
    /// Of devices that begin while the node runs: of how many workers they are, and how they behave.
    later: Option<(u32, Plan)>,
    /// Of the device whose host was made last.
    fallback: Mutex<Option<Plan>>,
    shared: Arc<Mutex<Shared>>,
}

/// What is known of all devices.
struct Shared {
    /// How many hosts each device has had.
    terms: Vec<u32>,
    /// Whether a host of the device has died.
    crashed: Vec<bool>,
    /// Which backend each device's last host was of, and how often that was another than the one before.
    backends: Vec<u32>,
    moves: u64,
    armed: bool,
}

impl SimDevices {
    /// `plans` are those of the node's devices, in their order.
    pub fn new(seed: u64, machine: Arc<Machine>, trace: Trace, plans: Vec<Plan>) -> SimDevices {
        let shared = Arc::new(Mutex::new(Shared {
            terms: Vec::new(),
            crashed: Vec::new(),
            backends: Vec::new(),
            moves: 0,
            armed: true,
        }));
        let (plans, fallback) = (Mutex::new(plans.into()), Mutex::default());
        SimDevices { machine, trace, seed, plans, later: None, fallback, shared }
    }

    /// Has any number of devices more begin while the node runs, of so many workers each, that all behave like this.
    pub fn with_later(self, workers: u32, plan: Plan) -> SimDevices {
        SimDevices { later: Some((workers, plan)), ..self }
    }

    /// Spares all hosts from now on.
    pub fn disarm(&self) {
        self.shared.lock().armed = false;
    }

    /// Whether a host of each device has died.
    pub fn crashed(&self) -> Vec<bool> {
        self.shared.lock().crashed.clone()
    }

    /// How often a host was started of another backend than the one before.
    pub fn moves(&self) -> u64 {
        self.shared.lock().moves
    }

    /// How many hosts each device has had.
    pub fn terms(&self) -> Vec<u32> {
        self.shared.lock().terms.clone()
    }
}

/// Of a simulated device: its own backend, and that which it falls back to.
const OWN: u32 = 0;
const FALLBACK: u32 = 1;

impl Devices for SimDevices {
    fn plan(&self, devices: &config::Devices) -> Result<Vec<Planned>, device::Error> {
        let plans = self.plans.lock();
        let later = self.later.iter().map(|(workers, plan)| (Some(*workers), plan)).cycle();
        let plans = plans.iter().map(|plan| (None, plan)).chain(later);
        let planned = devices.0.iter().zip(plans).map(|(device, (workers, plan))| {
            let workers = device.workers.or(workers);
            let device = config::Device { kind: config::DeviceKind::Cpu, gpu: OWN, workers, ..device.clone() };
            let workers = plan.fallback.iter().map(|fallback| Some(fallback.workers));
            let other = |workers| config::Device { workers, gpu: FALLBACK, ..device.clone() };
            let fallbacks = workers.map(other).collect();
            Planned { device: device.clone(), unusable: None, fallbacks, place: Default::default() }
        });
        Ok(planned.collect())
    }

    fn host(
        &self,
        config: &config::Device,
        _: u32,
        workers: usize,
        registry: &Arc<Registry>,
    ) -> io::Result<Box<dyn DeviceHost>> {
        let untrusted = |plan: &Plan| plan.fallback.as_ref().is_some_and(|fallback| fallback.untrusted);
        let plan = match config.gpu {
            OWN => self.plans.lock().pop_front().or_else(|| self.later.as_ref().map(|(_, plan)| plan.clone())),
            _ => self.fallback.lock().take(),
        };
        let plan = plan.ok_or_else(|| io::Error::other("a device without a plan"))?;
        let device = {
            let mut shared = self.shared.lock();
            if config.gpu == OWN {
                shared.terms.push(0);
                shared.crashed.push(false);
                shared.backends.push(OWN);
            }
            shared.terms.len() as u16 - 1
        };
        *self.fallback.lock() = plan.fallback.clone().map(|fallback| Plan {
            mishaps: fallback.mishaps,
            fallback: None,
            stands: false,
            pause_per_mille: plan.pause_per_mille,
            pause_max: plan.pause_max,
        });
        Ok(Box::new(SimHost {
            device,
            shared: self.shared.clone(),
            machine: self.machine.clone(),
            trace: self.trace.clone(),
            random: Random::new(self.seed, Stream::Device, u64::from(device) << 32 | u64::from(config.gpu)),
            backend: config.gpu,
            untrusted: untrusted(&plan),
            plan,
            registry: registry.clone(),
            own: (0..workers).map(|_| Arc::default()).collect(),
            node: Arc::default(),
            running: None,
        }))
    }
}

struct SimHost {
    device: u16,
    shared: Arc<Mutex<Shared>>,
    machine: Arc<Machine>,
    trace: Trace,
    random: Random,
    plan: Plan,
    backend: u32,
    /// See [`Fallback::untrusted`].
    untrusted: bool,
    registry: Arc<Registry>,
    own: Vec<Arc<NotifyBell>>,
    node: Arc<NotifyBell>,
    running: Option<Running>,
}

struct Running {
    life: Arc<Life>,
    tasks: JoinSet<()>,
    segment: Arc<Segment>,
}

impl Running {
    /// Whether its workers have all been up, and the node has had the time to see it.
    fn was_up(&self) -> bool {
        self.life.inner.lock().messages > 0 && self.segment.device().running_term.load(Acquire) == self.life.term
    }
}

/// What the workers of one host share: its fate.
pub struct Life {
    device: u16,
    term: u32,
    trace: Trace,
    shared: Arc<Mutex<Shared>>,
    inner: Mutex<Counts>,
    died: Notify,
}

struct Counts {
    mishap: Mishap,
    steps: u64,
    messages: u64,
    rings: u64,
    death: Option<String>,
}

/// How a host ended that was asked to.
const LEFT: &str = "left";

/// What a worker is unwound with when its host dies under it.
struct Died;

impl Life {
    /// What is to befall it, if anything still is.
    fn mishap(&self) -> Mishap {
        if self.shared.lock().armed { self.inner.lock().mishap } else { Mishap::None }
    }

    fn is_over(&self) -> bool {
        self.inner.lock().death.is_some()
    }

    fn die(&self, how: &str) {
        let mut inner = self.inner.lock();
        if inner.death.is_none() {
            inner.death = Some(how.into());
            self.shared.lock().crashed[usize::from(self.device)] = true;
            self.trace.event(format_args!("device {} term {} dead: {how}", self.device, self.term));
            self.died.notify_one();
        }
    }

    /// Counts a handler's run, which may be the last.
    pub fn at_message(&self) {
        let messages = count(&mut self.inner.lock().messages);
        if self.mishap() == Mishap::Crash(Point::Message(messages)) {
            self.die_here("in a handler");
        }
    }

    fn at_ring(&self) {
        let rings = count(&mut self.inner.lock().rings);
        if self.mishap() == Mishap::Crash(Point::Ring(rings)) {
            self.die_here("at a bell");
        }
    }

    /// It ends because its node has asked it to: so that the device stands still, or because it hangs, which is as if it had died.
    fn leave(&self) {
        let mut inner = self.inner.lock();
        inner.death.get_or_insert_with(|| LEFT.into());
        if matches!(inner.mishap, Mishap::Hang { .. }) {
            self.shared.lock().crashed[usize::from(self.device)] = true;
        }
        drop(inner);
        self.trace.event(format_args!("device {} term {} left", self.device, self.term));
        self.died.notify_one();
    }

    fn die_here(&self, how: &str) -> ! {
        self.die(how);
        resume_unwind(Box::new(Died))
    }
}

fn count(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter
}

/// A bell as workers ring it: they may die of it.
struct WorkersBell {
    bell: Arc<NotifyBell>,
    life: Arc<Life>,
}

impl Bell for WorkersBell {
    fn ring(&self) {
        self.bell.ring();
        self.life.at_ring();
    }
}

impl DeviceHost for SimHost {
    fn bells(&self) -> DeviceBells {
        let workers = self.own.iter().map(|bell| bell.clone() as Arc<dyn Bell>).collect();
        DeviceBells { workers: Arc::new(workers), node: self.node.clone() }
    }

    fn start(&mut self, segment: &Arc<Segment>) -> io::Result<Option<u32>> {
        let term = segment.node().term.load(Acquire) as u32;
        let mishap = {
            let mut shared = self.shared.lock();
            shared.terms[usize::from(self.device)] = term;
            let last = std::mem::replace(&mut shared.backends[usize::from(self.device)], self.backend);
            shared.moves += u64::from(last != self.backend);
            self.plan.mishaps.pop_front().filter(|_| shared.armed).unwrap_or(Mishap::None)
        };
        self.trace.event(format_args!("device {} term {term} starts, to come: {mishap:?}", self.device));
        if mishap == Mishap::FailsToStart {
            return Err(io::Error::other("the simulation has it fail"));
        }
        let counts = Counts { mishap, steps: 0, messages: 0, rings: 0, death: None };
        let life = Arc::new(Life {
            device: self.device,
            term,
            trace: self.trace.clone(),
            shared: self.shared.clone(),
            inner: Mutex::new(counts),
            died: Notify::new(),
        });
        let bell = |bell: &Arc<NotifyBell>| Arc::new(WorkersBell { bell: bell.clone(), life: life.clone() });
        let bells = Bells {
            workers: Arc::new(self.own.iter().map(|own| bell(own) as Arc<dyn Bell>).collect()),
            node: bell(&self.node),
        };
        let start_up = Duration::from_millis(self.random.between(1, 30));
        let mut tasks = JoinSet::new();
        for (worker, own) in workers(segment, &self.registry, &bells).into_iter().zip(&self.own) {
            let runner = Runner {
                bell: own.clone(),
                life: life.clone(),
                machine: self.machine.clone(),
                random: Random::new(self.random.word(), Stream::Device, 0),
                pause_per_mille: self.plan.pause_per_mille,
                pause_max: self.plan.pause_max,
                segment: segment.clone(),
            };
            tasks.spawn(async move {
                sleep(start_up).await;
                if mishap == Mishap::DiesStarting {
                    runner.life.die("while it started");
                } else {
                    runner.run(worker).await;
                }
            });
        }
        if self.plan.stands {
            let (segment, life) = (segment.clone(), life.clone());
            tasks.spawn(async move {
                let asked = || segment.node().stop.load(Acquire);
                while asked() == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
                if asked() == STOP_AT_ONCE {
                    life.leave();
                }
            });
        }
        if mishap != Mishap::DiesStarting && segment.node().restores.load(Relaxed) == 0 {
            // Workers with nothing to load are up when they are there: one that hangs from then on is stalled.
            let (segment, node) = (segment.clone(), self.node.clone());
            tasks.spawn(async move {
                sleep(start_up).await;
                segment.device().running_term.store(term, Release);
                node.ring();
            });
        }
        self.running = Some(Running { life, tasks, segment: segment.clone() });
        Ok(Some(term))
    }

    fn over(&mut self) -> BoxFuture<'_, Over> {
        Box::pin(async {
            let Some(running) = &mut self.running else { return std::future::pending().await };
            let mut remedy = Remedy::Restart;
            let how = loop {
                let death = running.life.inner.lock().death.clone();
                if let Some(how) = death {
                    // A device that has not been up begins nowhere else.
                    if how != LEFT && running.was_up() && std::mem::take(&mut self.untrusted) {
                        remedy = Remedy::GiveUp;
                    }
                    break how;
                }
                tokio::select! {
                    biased;
                    () = running.life.died.notified() => {}
                    ended = running.tasks.join_next() => match ended {
                        None => break "ended in order".into(),
                        Some(Ok(())) => {}
                        Some(Err(e)) => break format!("a worker failed: {e}"),
                    }
                }
            };
            // Their memory goes with them, before anybody looks at what they left.
            running.tasks.shutdown().await;
            self.running = None;
            Over { remedy, ..how.into() }
        })
    }

    fn kill(&mut self) {
        if let Some(running) = &self.running {
            running.life.die("killed");
        }
    }

    fn switches(&self) -> bool {
        !self.plan.stands
    }
}

/// Drives one worker, as a thread does on a real machine.
struct Runner {
    bell: Arc<NotifyBell>,
    life: Arc<Life>,
    machine: Arc<Machine>,
    random: Random,
    pause_per_mille: u64,
    pause_max: Duration,
    segment: Arc<Segment>,
}

impl Runner {
    async fn run(mut self, mut worker: Worker) {
        loop {
            if !self.lives_on(worker.index()).await {
                return;
            }
            let now_us = self.machine.steady_us();
            let number = self.life.inner.lock().steps;
            let place = Place { device: self.life.device, term: self.life.term, worker: worker.index(), step: number };
            let stepped =
                observed::during(place, &self.life, || catch_unwind(AssertUnwindSafe(|| worker.step(now_us))));
            let step = match stepped {
                Ok(step) => step,
                Err(why) if why.is::<Died>() => return,
                Err(why) => resume_unwind(why),
            };
            observed::completed(place);
            if worker.may_end(step.idle) {
                return worker.end();
            }
            if step.ran > 0 {
                self.life.trace.event(format_args!(
                    "device {} worker {} step {number} ran {}",
                    place.device, place.worker, step.ran
                ));
                if self.random.per_mille(self.pause_per_mille) {
                    let pause_ms = self.random.between(1, self.pause_max.as_millis().max(1) as u64);
                    sleep(Duration::from_millis(pause_ms)).await;
                } else {
                    tokio::task::yield_now().await;
                }
            } else if !step.idle {
                // It waits for room on the other side, which rings no bell.
                sleep(Duration::from_millis(1)).await;
            } else if worker.park() {
                match step.next_timer_us {
                    None => self.bell.rung().await,
                    Some(due) => {
                        let wait = Duration::from_micros(due.saturating_sub(now_us).max(1));
                        tokio::select! {
                            biased;
                            () = self.bell.rung() => {}
                            () = sleep(wait) => {}
                        }
                    }
                }
                worker.unpark();
            }
        }
    }

    /// Before a step: false where the host is dead, or dies now.
    async fn lives_on(&self, worker: usize) -> bool {
        let step = count(&mut self.life.inner.lock().steps);
        match self.life.mishap() {
            Mishap::Crash(Point::Step(at)) if at == step => self.life.die("between two steps"),
            Mishap::Hang { step: at, pause } if at == step => {
                self.life.trace.event(format_args!("device {} hangs for {pause:?}", self.life.device));
                // As it stands in the segment when a worker has begun a step and does not end it.
                self.segment.worker(worker).telemetry.pulse.store(Pulse::Busy as u32, Relaxed);
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            }
            _ => {}
        }
        !self.life.is_over()
    }
}
