//! The second scenario: a node that goes on from its checkpoints, when its devices crash and when its power fails.

pub mod actors;
pub mod check;
pub mod clients;
pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold::ActorId;
use ringhold::client::{Client, Error, Options as ClientOptions};
use ringhold::device::mistake::{self, Mistake};
use ringhold::node::{Environment, Node, Storage};
use ringhold::shards::ShardSet;
use ringhold_cluster::network::Network;
use ringhold_cluster::tls::{Authority, Identity, Role};
use ringhold_cluster::wire::Request;
use ringhold_kernels::message::Reason;
use ringhold_storage::blocks;
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters::{DeadLetters, InMemory};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::actors::{journal, sketch};
use self::check::Evidence;
use self::clients::{Driver, Log, connect, look, refused, registry};
use self::plan::{DELAY_MAX, Failure, Operation, Plan};
use crate::devices::SimDevices;
use crate::disk::{Handle, SimDisk};
use crate::network::{Machine, Net};
use crate::observed;
use crate::random::{Random, Stream};
use crate::scenario::check::Said;
use crate::scenario::{Report, ask_node, in_runtime};
use crate::trace::Trace;

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Print the trace as it grows.
    pub print: bool,
    /// Make a mistake on purpose, to see that it is noticed.
    pub plant: Option<Plant>,
}

/// A mistake made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// In the node.
    Node(Mistake),
    /// The manifest of a checkpoint is durable before its chunks are.
    ManifestsFirst,
}

/// What happened in a run: whether it was worth running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub answers: u64,
    pub device_restarts: u64,
    /// Hosts started of another backend than the one before.
    pub device_moves: u64,
    pub power_failures: u64,
    pub syncs: u64,
    pub writes_lost: u64,
    pub writes_torn: u64,
    pub writes_without_room: u64,
    pub reconnects: u64,
    pub clock_jumps: u64,
    /// Times that shards moved from one device to another, and that it was called off.
    pub migrations: u64,
    pub migrations_called_off: u64,
}

impl Figures {
    pub fn named(&self) -> [(&'static str, u64); 12] {
        [
            ("answers", self.answers),
            ("device_restarts", self.device_restarts),
            ("device_moves", self.device_moves),
            ("power_failures", self.power_failures),
            ("syncs", self.syncs),
            ("writes_lost", self.writes_lost),
            ("writes_torn", self.writes_torn),
            ("no_room_on_disk", self.writes_without_room),
            ("reconnects", self.reconnects),
            ("clock_jumps", self.clock_jumps),
            ("migrations", self.migrations),
            ("migrations_called_off", self.migrations_called_off),
        ]
    }
}

/// In simulated time: everything is handled, and the node has drained, within this.
const SETTLE_BUDGET: Duration = Duration::from_secs(60);
/// In simulated time: a node that starts on a disk is up, and then answers a client that it has not seen before, within this.
const UP_BUDGET: Duration = Duration::from_secs(10);
/// In simulated time: a whole run ends within this.
const RUN_BUDGET: Duration = Duration::from_secs(1_800);

/// Runs one seed. A panic anywhere in it is one of its violations.
pub fn run(seed: u64, options: Options) -> Report<Figures> {
    mistake::plant(match options.plant {
        Some(Plant::Node(mistake)) => Some(mistake),
        _ => None,
    });
    let report = in_runtime(seed, simulate(seed, options));
    mistake::plant(None);
    report
}

async fn simulate(seed: u64, options: Options) -> Report<Figures> {
    let trace = Trace::new(options.print);
    let _logs = trace.take_logs();
    let mut plan = Plan::new(seed);
    plan.disk.manifests_first = options.plant == Some(Plant::ManifestsFirst);
    trace.event(format_args!("plan {plan:?}"));
    observed::begin(&trace, None);
    let net = Net::start(seed, plan.weather, trace.clone());
    let mut world = World {
        seed,
        plan,
        trace: trace.clone(),
        net,
        devices: Vec::new(),
        logs: Vec::new(),
        clients: Vec::new(),
        moves: Arc::default(),
        violations: Vec::new(),
        figures: Figures::default(),
    };
    if timeout(RUN_BUDGET, world.run()).await.is_err() {
        world.violations.push(format!("it had not ended after {} s of simulated time", RUN_BUDGET.as_secs()));
    }
    observed::take();
    Report {
        seed,
        violations: world.violations,
        hash: trace.hash(),
        events: trace.events(),
        simulated: trace.elapsed(),
        figures: world.figures,
    }
}

struct World {
    seed: u64,
    plan: Plan,
    trace: Trace,
    net: Net,
    /// Those of each start of the node.
    devices: Vec<Arc<SimDevices>>,
    /// Those of each client.
    logs: Vec<Log>,
    /// Clients that have done what they wanted: what they keep, they send again where the node dies.
    clients: Vec<Client>,
    /// How often shards have moved, and how often that was called off.
    moves: Arc<Mutex<(u64, u64)>>,
    violations: Vec<String>,
    figures: Figures,
}

/// The node's machine, and what stays of it when its power fails.
struct Site {
    machine: Arc<Machine>,
    authority: Authority,
    identity: Identity,
    disk: SimDisk,
    letters: Arc<dyn DeadLetters>,
}

impl World {
    async fn run(&mut self) {
        let machine = self.net.machine(1, 0);
        let network: Arc<dyn Network> = machine.clone();
        let authority = Authority::in_memory(&*network).expect("an authority can be made");
        let (net, off) = (self.net.clone(), machine.clone());
        let off = Box::new(move || net.power_off(&off));
        let disk = SimDisk::new(self.seed, self.plan.disk.clone(), self.trace.clone(), off);
        let letters = Arc::new(InMemory::new(self.plan.config.dead_letters.kept));
        let identity = authority.identity(Role::Node, &*network).expect("an identity can be made");
        let site = Site { machine, authority, identity, disk, letters };

        let mut clocks = JoinSet::new();
        for (after, by_us) in self.plan.clock_jumps.clone() {
            let (machine, trace) = (site.machine.clone(), self.trace.clone());
            clocks.spawn(async move {
                sleep(after).await;
                trace.event(format_args!("the node's clock is set by {by_us} us"));
                machine.set_clock(by_us);
            });
        }
        let mut working = JoinSet::new();
        for client in self.plan.clients.clone() {
            self.begin(&site, client, &mut working);
        }
        for failure in self.plan.failures.clone() {
            let (writes, after) = match failure {
                Failure::After(after) => (None, after),
                Failure::Write(write) => (Some(write), RUN_BUDGET),
            };
            let handle = site.disk.power_on(writes);
            // Where it has come to the end of its work first, its power fails then.
            tokio::select! {
                biased;
                () = site.disk.failure() => {}
                () = sleep(after) => {}
                _ = self.live(&site, handle, &mut working) => {}
            }
            self.stay_dark(&site).await;
            // One who comes while the node still does what those before had asked for.
            self.begin(&site, self.plan.newcomer.clone(), &mut working);
        }
        let handle = site.disk.power_on(None);
        if let Some(node) = self.live(&site, handle, &mut working).await {
            self.end(&site, node).await;
        }

        while let Some(set) = clocks.join_next().await {
            self.figures.clock_jumps += u64::from(set.is_ok());
        }
        let disk = site.disk.figures();
        self.figures.syncs = disk.syncs;
        (self.figures.writes_lost, self.figures.writes_torn) = (disk.lost, disk.torn);
        self.figures.writes_without_room = disk.full;
        self.violations.extend(site.disk.violations());
    }

    /// Has one more client do what it wants.
    fn begin(&mut self, site: &Site, plan: plan::Client, working: &mut JoinSet<Client>) {
        let source = self.logs.len() as u32;
        let log = Log::default();
        let driver = Driver {
            source,
            plan,
            random: Random::new(self.seed, Stream::Client, u64::from(source)),
            log: log.clone(),
            trace: self.trace.clone(),
        };
        working.spawn(driver.run(self.client_options(site, 10 + source as u8)));
        self.logs.push(log);
    }

    /// A start of the node, until the clients have done all they wanted and it has handled that.
    async fn live(&mut self, site: &Site, handle: Handle, working: &mut JoinSet<Client>) -> Option<Node> {
        let node = self.start(site, handle).await?;
        let _moving = self.begin_moves(&node);
        self.probe(site).await;
        while let Some(client) = working.join_next().await {
            self.clients.push(client.expect("a client's panic is noted where it happens"));
        }
        for client in &self.clients {
            // An answer of this node says that the client has come to it; then, that what it had kept is there too.
            let request = Request::Inspect { type_id: sketch::id(0).type_id, key: sketch::id(0).key.into() };
            match ask_node(client, request).await {
                Ok(_) | Err(Error::Failed(_)) => {}
                Err(error) => self.violations.push(format!("a client did not come back: {error}")),
            }
            if let Err(error) = client.flush().await {
                self.violations.push(format!("a client does not know what became of its tells: {error}"));
            }
        }
        self.settle(&node).await;
        Some(node)
    }

    /// Has shards move between the devices of a node from now on, until what this returns is dropped.
    fn begin_moves(&self, node: &Node) -> JoinSet<()> {
        let mut moving = JoinSet::new();
        if let Some(moves) = self.plan.moves {
            let (router, trace, counts) = (node.router().clone(), self.trace.clone(), self.moves.clone());
            let names: Vec<String> = router.devices().iter().map(|device| device.name.clone()).collect();
            let mut random = Random::new(self.seed, Stream::Moves, self.devices.len() as u64);
            moving.spawn(async move {
                loop {
                    let pause_us = random.between(1, moves.pause_max.as_micros() as u64);
                    sleep(Duration::from_micros(pause_us)).await;
                    let from = random.below(names.len() as u64) as u16;
                    let to = (u64::from(from) + random.between(1, names.len() as u64 - 1)) as usize % names.len();
                    let own = router.shards().owned_by(from);
                    let shards: ShardSet = own.iter().filter(|_| random.per_mille(moves.shards_per_mille)).collect();
                    if shards.is_empty() {
                        continue;
                    }
                    trace.event(format_args!("{} shards move from device {from} to {to}", shards.len()));
                    let moved = router.migrate(shards, &names[to]).await;
                    match &moved {
                        Ok(_) => counts.lock().0 += 1,
                        Err(_) => counts.lock().1 += 1,
                    }
                    trace.event(format_args!("that came to {:?}", moved.map_err(|e| e.to_string())));
                }
            });
        }
        moving
    }

    /// Starts the node on what its disk has.
    async fn start(&mut self, site: &Site, handle: Handle) -> Option<Node> {
        let began = Instant::now();
        site.machine.begin_process();
        let network: Arc<dyn Network> = site.machine.clone();
        let options = checkpoints::Options { kept: self.plan.config.checkpoints.kept as usize };
        let store = loop {
            match Checkpoints::open(Arc::new(handle.clone()), options.clone()) {
                Ok(store) => break store,
                // It says so, and whoever starts it tries again.
                Err(checkpoints::Error::Blocks(blocks::Error::DiskFull(_))) => sleep(Duration::from_millis(100)).await,
                Err(error) => {
                    self.not_started(site, &error);
                    return None;
                }
            }
        };
        self.look_back(site, &store);
        let number = self.devices.len();
        let devices = SimDevices::new(
            self.seed ^ (number as u64) << 48,
            site.machine.clone(),
            self.trace.clone(),
            self.plan.devices[number].clone(),
        );
        self.devices.push(Arc::new(devices));
        let environment = Environment {
            network,
            devices: self.devices[number].clone(),
            storage: Storage {
                node_id: "00000000-0000-0000-0000-000000000001".into(),
                identity: site.identity.clone(),
                dead_letters: site.letters.clone(),
                checkpoints: Some(store),
                shards: None,
                jobs: Arc::new(handle),
                control: None,
                folder: None,
            },
        };
        let node = match Node::start(&self.plan.config, registry(), environment).await {
            Ok(node) => node,
            Err(error) => {
                self.not_started(site, &error);
                return None;
            }
        };
        if began.elapsed() > UP_BUDGET {
            self.violations.push(format!("the node took {} ms to start", began.elapsed().as_millis()));
        }
        Some(node)
    }

    /// Without power it need not.
    fn not_started(&mut self, site: &Site, error: &dyn std::error::Error) {
        self.trace.event(format_args!("the node did not start: {error}"));
        if site.disk.has_power() {
            self.violations.push(format!("the node did not start: {error}"));
        }
    }

    /// Of each device the newest checkpoint that was durable is there.
    fn look_back(&mut self, site: &Site, store: &Checkpoints) {
        for index in 0..self.plan.config.devices.0.len() {
            let device = self.plan.config.device_name(index);
            let durable = site.disk.epoch(&device);
            let found = store.latest(&device).map(|found| found.checkpoint.map_or(0, |manifest| manifest.epoch));
            self.trace.event(format_args!("device {device} has checkpoint {found:?}, and {durable} was durable"));
            if site.disk.has_power() && found.as_ref().is_ok_and(|found| *found < durable) {
                self.violations.push(format!("{device} goes back to {found:?}, and checkpoint {durable} was durable"));
            }
        }
    }

    /// A client that the node has not seen before is served.
    async fn probe(&mut self, site: &Site) {
        let options = self.client_options(site, 100 + self.devices.len() as u8);
        let served = async {
            let client = connect(options).await;
            let request = Request::Inspect { type_id: sketch::id(0).type_id, key: sketch::id(0).key.into() };
            let answer = ask_node(&client, request).await;
            let _ = client.close().await;
            answer
        };
        match timeout(UP_BUDGET, served).await {
            // That there is no such actor, or that it is too busy to be looked at, the node has answered, too.
            Ok(Ok(_) | Err(Error::Failed(_))) => {}
            other => self.violations.push(format!("a node that had started did not serve a new client: {other:?}")),
        }
    }

    /// Takes the power away, if it is there still, and waits a while.
    async fn stay_dark(&mut self, site: &Site) {
        site.disk.power_off();
        self.figures.power_failures += 1;
        sleep(Duration::from_millis(site.disk.draw(2_000))).await;
    }

    async fn settle(&mut self, node: &Node) {
        if !node.router().settled(SETTLE_BUDGET).await {
            self.violations.push(format!("not everything was handled within {} s", SETTLE_BUDGET.as_secs()));
        }
    }

    /// Once all is done: looks at what there is, and whether a drain and another start change anything of it.
    async fn end(&mut self, site: &Site, node: Node) {
        let failures = self.figures.power_failures;
        self.devices.last().expect("one is running").disarm();
        // Past every timer; and a device that is just being restarted is up again.
        sleep(DELAY_MAX + Duration::from_secs(1)).await;
        self.settle(&node).await;
        let states = self.look(site).await;
        for client in std::mem::take(&mut self.clients) {
            self.figures.reconnects += client.stats().reconnects;
            if let Err(error) = client.close().await {
                self.violations.push(format!("a client closed, and was told: {error}"));
            }
        }
        let drained = node.drain().await;
        self.trace.event(format_args!("{drained:?}"));
        if !drained.complete {
            self.violations.push(format!("the drain was not complete: {drained:?}"));
        }
        self.stay_dark(site).await;
        let handle = site.disk.power_on(None);
        if let Some(node) = self.start(site, handle).await {
            self.devices.last().expect("one is running").disarm();
            for (before, after) in states.iter().zip(self.look(site).await) {
                if *before != after {
                    self.violations
                        .push(format!("{:?} was {:x?} before the drain, and is {:x?}", before.0, before.1, after.1));
                }
            }
            node.drain().await;
        }
        let crashed = self.devices.iter().flat_map(|devices| devices.crashed()).any(|crashed| crashed);
        (self.figures.migrations, self.figures.migrations_called_off) = *self.moves.lock();
        self.figures.device_moves = self.devices.iter().map(|devices| devices.moves()).sum();
        self.figures.device_restarts = self
            .devices
            .iter()
            .flat_map(|devices| devices.terms())
            .map(|terms| u64::from(terms.saturating_sub(1)))
            .sum();
        let operations: Vec<Vec<(Operation, Said)>> = self.logs.iter().map(|log| log.lock().clone()).collect();
        let answered = |(_, said): &&(Operation, Said)| matches!(said, Said::Reply(_));
        self.figures.answers = operations.iter().flatten().filter(answered).count() as u64;
        let mut refused = refused(&*site.letters, Reason::Overloaded);
        let told = |(operation, said): &(Operation, Said)| {
            (*said == Said::Error(Reason::Overloaded)).then_some(operation.what)
        };
        refused.extend(operations.iter().flatten().filter_map(told));
        let devices = self.plan.moves.is_none().then_some(self.plan.config.devices.0.len());
        let committed = self.plan.committed();
        let evidence = Evidence { committed, devices, operations, refused, states, failures, crashed, stops: false };
        self.violations.extend(check::check(&evidence));
    }

    /// The state of every actor there may be.
    async fn look(&mut self, site: &Site) -> Vec<(ActorId, Option<Vec<u8>>)> {
        let client = connect(self.client_options(site, 200 + self.devices.len() as u8)).await;
        let looked = look(&client, self.logs.len() as u64).await;
        let _ = client.close().await;
        let failed = looked.iter().filter_map(|looked| looked.as_ref().err().cloned());
        self.violations.extend(failed);
        looked.into_iter().flatten().collect()
    }

    fn client_options(&self, site: &Site, machine: u8) -> ClientOptions {
        let identity = site.authority.identity(Role::Client, &*site.machine).expect("an identity can be made");
        let address = site.machine.socket_address(self.plan.config.node.listen.port());
        let mut options =
            ClientOptions::new(address.to_string(), identity).with::<journal::Actor>().with::<sketch::Actor>();
        options.network = self.net.machine(machine, 0);
        options.name = format!("client {machine}");
        options
    }
}
