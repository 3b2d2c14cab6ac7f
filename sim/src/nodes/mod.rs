//! The fourth scenario: whole nodes of a cluster, which go on with each other's devices while some die and lose each other.

mod mishaps;
pub mod plan;
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold::client::{Client, Options as ClientOptions};
use ringhold::device::mistake::{self, Mistake};
use ringhold_cluster::control::admin;
use ringhold_cluster::control::mistake as about_leases;
use ringhold_cluster::control::state::{DeviceNumber, NodeNumber, State, ranges};
use ringhold_cluster::tls::{Authority, Role};
use ringhold_cluster::wire::{IDLE_TIMEOUT, Request, Response};
use ringhold_kernels::message::Reason;
use ringhold_kernels::outbox::SHARDS;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use self::plan::{Bias, Plan};
use self::site::{Order, Running, Site};
use crate::network::{Machine, Net};
use crate::observed;
use crate::random::{Random, Stream};
use crate::recovery::actors::{journal, sketch};
use crate::recovery::check::{self, Evidence};
use crate::recovery::clients::{self, Driver, Log, connect, look};
use crate::recovery::plan::{self as doing, DELAY_MAX, Operation};
use crate::scenario::check::Said;
use crate::scenario::plan::PORT;
use crate::scenario::{Report, in_runtime};
use crate::trace::Trace;

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Print the trace as it grows.
    pub print: bool,
    /// Make a mistake on purpose, to see that it is noticed.
    pub plant: Option<Plant>,
    /// Make a situation likely.
    pub bias: Option<Bias>,
}

/// A mistake made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// In nodes.
    Node(Mistake),
    /// In what they do about leases.
    Leases(about_leases::Mistake),
}

/// What happened in a run: whether it was worth running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub answers: u64,
    pub reconnects: u64,
    pub power_failures: u64,
    pub stops: u64,
    pub cuts: u64,
    /// Nodes that stood still for a while, and times that all lost their power at once.
    pub pauses: u64,
    pub full_stops: u64,
    /// Nodes that lived and were given up.
    pub given_up: u64,
    /// Devices that began on another node.
    pub failovers: u64,
    pub device_restarts: u64,
    /// Times that shards moved from one device to another, of those between nodes, and that it was called off.
    pub migrations: u64,
    pub migrations_between: u64,
    pub migrations_called_off: u64,
    pub writes_lost: u64,
    pub datagrams: u64,
    /// The longest that a client waited for all its answers, of those that came when a node had died for good.
    pub failover_ms: u64,
}

impl Figures {
    pub fn named(&self) -> [(&'static str, u64); 16] {
        [
            ("answers", self.answers),
            ("reconnects", self.reconnects),
            ("power_failures", self.power_failures),
            ("stops", self.stops),
            ("cuts", self.cuts),
            ("pauses", self.pauses),
            ("full_stops", self.full_stops),
            ("given_up", self.given_up),
            ("failovers", self.failovers),
            ("device_restarts", self.device_restarts),
            ("migrations", self.migrations),
            ("between_nodes", self.migrations_between),
            ("called_off", self.migrations_called_off),
            ("writes_lost", self.writes_lost),
            ("datagrams", self.datagrams),
            ("failover_ms", self.failover_ms),
        ]
    }
}

/// In simulated time: everything is handled within this.
const SETTLE_BUDGET: Duration = Duration::from_secs(60);
/// In simulated time: once nothing goes wrong any more all nodes are up, hold their leases, and have copies, within this.
const WELL_BUDGET: Duration = Duration::from_secs(60);
/// In simulated time: a client that comes when a node has died for good has all its answers within this, beside the lease,
const FAILOVER_BUDGET: Duration = Duration::from_secs(8);
/// and so much more where datagrams are lost,
const LOSS_BUDGET: Duration = Duration::from_secs(10);
/// and where shards move: nobody commits anything until the dead node is given up, and a migration called off.
const MOVING_BUDGET: Duration = Duration::from_secs(4);
/// In simulated time: a whole run ends within this.
const RUN_BUDGET: Duration = Duration::from_secs(1_800);
/// How often it is looked whether something is so.
const LOOK: Duration = Duration::from_millis(5);
/// How long an operator waits.
const ADMIN_PATIENCE: Duration = Duration::from_secs(10);

/// Runs one seed. A panic anywhere in it is one of its violations.
pub fn run(seed: u64, options: Options) -> Report<Figures> {
    let (node, leases) = match options.plant {
        Some(Plant::Node(mistake)) => (Some(mistake), None),
        Some(Plant::Leases(mistake)) => (None, Some(mistake)),
        None => (None, None),
    };
    mistake::plant(node);
    about_leases::plant(leases);
    let report = in_runtime(seed, simulate(seed, options));
    mistake::plant(None);
    about_leases::plant(None);
    report
}

async fn simulate(seed: u64, options: Options) -> Report<Figures> {
    let trace = Trace::new(options.print);
    let _logs = trace.take_logs();
    let plan = Plan::new(seed, options.bias);
    trace.event(format_args!("plan {plan:?}"));
    observed::begin(&trace, None);
    let net = Net::start(seed, plan.weather, trace.clone());
    let authority = Authority::in_memory(&*net.machine(254, 0)).expect("an authority can be made");
    let mut world = World {
        seed,
        plan,
        trace: trace.clone(),
        net,
        authority,
        sites: Vec::new(),
        machines: Mutex::default(),
        logs: Mutex::default(),
        violations: Mutex::default(),
        figures: Mutex::default(),
        calm: AtomicBool::new(false),
    };
    world.sites = (1..=world.plan.nodes).map(|number| Site::new(&world, number)).collect();
    let world = Arc::new(world);
    let keeping = LocalSet::new();
    for site in &world.sites {
        keeping.spawn_local(site.clone().keep(world.clone()));
    }
    if keeping.run_until(timeout(RUN_BUDGET, world.run())).await.is_err() {
        world.violation(format!("it had not ended after {} s of simulated time", RUN_BUDGET.as_secs()));
    }
    drop(keeping);
    observed::take();
    let (figures, violations) = (*world.figures.lock(), std::mem::take(&mut *world.violations.lock()));
    Report { seed, violations, hash: trace.hash(), events: trace.events(), simulated: trace.elapsed(), figures }
}

pub struct World {
    seed: u64,
    plan: Plan,
    trace: Trace,
    net: Net,
    authority: Authority,
    sites: Vec<Arc<Site>>,
    /// Those of clients.
    machines: Mutex<Vec<Arc<Machine>>>,
    /// What each client has done and heard.
    logs: Mutex<Vec<Log>>,
    violations: Mutex<Vec<String>>,
    figures: Mutex<Figures>,
    /// Nothing goes wrong any more.
    calm: AtomicBool,
}

impl World {
    fn is_calm(&self) -> bool {
        self.calm.load(Relaxed)
    }

    fn violation(&self, violation: String) {
        self.trace.event(format_args!("VIOLATION {violation}"));
        let mut violations = self.violations.lock();
        if !violations.contains(&violation) {
            violations.push(violation);
        }
    }

    async fn run(self: &Arc<World>) {
        if let Err(why) = self.come_up().await {
            return self.violation(format!("a cluster to which nothing has happened yet is not well: {why}"));
        }
        let watching = tokio::spawn(watch(self.clone()));
        let mut working = JoinSet::new();
        for client in self.plan.clients.clone() {
            self.begin(client, &mut working);
        }
        self.spread().await;
        let moving = self.plan.moves.map(|moves| tokio::spawn(mishaps::move_shards(self.clone(), moves)));
        let mut happening = JoinSet::new();
        for (after, mishap) in self.plan.mishaps.clone() {
            sleep(after).await;
            if self.plan.one_by_one
                && let Err(why) = self.well_within(WELL_BUDGET).await
            {
                self.violation(format!("after {} s of peace {why}", WELL_BUDGET.as_secs()));
                break;
            }
            self.trace.event(format_args!("{mishap:?}"));
            // One who comes while something happens.
            self.begin(self.plan.newcomer.clone(), &mut working);
            let happens = mishaps::happen(self.clone(), mishap);
            match self.plan.one_by_one {
                true => happens.await,
                false => drop(happening.spawn(happens)),
            }
        }
        while happening.join_next().await.is_some() {}
        self.calm.store(true, Relaxed);
        for devices in self.sites.iter().flat_map(|site| site.devices()) {
            devices.disarm();
        }
        self.trace.event(format_args!("all is well from here on"));
        if let Err(why) = self.well_within(WELL_BUDGET).await {
            self.violation(format!("{} s after the last mishap {why}", WELL_BUDGET.as_secs()));
        }
        if let Some(moving) = moving {
            moving.abort();
        }
        let mut clients = Vec::new();
        while let Some(client) = working.join_next().await {
            clients.push(client.expect("a client's panic is noted where it happens"));
        }
        if let Some(node) = self.plan.failover {
            // Shards that were just moving have come to a device of which others may not have everything yet.
            if let Err(why) = self.well_within(WELL_BUDGET).await {
                self.violation(format!("{} s after the last move {why}", WELL_BUDGET.as_secs()));
            }
            clients.extend(self.lose_one(node).await);
        }
        self.end(clients).await;
        watching.abort();
    }

    /// Waits until all nodes are members, and all is well.
    async fn come_up(&self) -> Result<(), String> {
        let all = || {
            let nodes = || self.sites.iter().filter_map(|site| site.node());
            nodes().count() == self.sites.len()
                && nodes().all(|node| node.cluster.state().nodes.len() == self.sites.len())
        };
        let since = Instant::now();
        while !all() {
            if since.elapsed() > WELL_BUDGET {
                return Err("not all nodes are members".into());
            }
            sleep(LOOK).await;
        }
        self.well_within(WELL_BUDGET).await
    }

    /// Has each device have as many shards.
    async fn spread(&self) {
        let client = connect(self.client_options(true)).await;
        let devices = self.sites.len() * usize::from(self.plan.devices);
        for device in 1..devices {
            let shards = ranges((0..SHARDS as u32).filter(|shard| *shard as usize % devices == device));
            // The first node's devices have them all, in turn.
            for _ in 0..20 {
                let owners = self.newest().map(|state| state.shards.clone()).unwrap_or_default();
                let mut of: BTreeMap<DeviceNumber, Vec<u32>> = BTreeMap::new();
                for shard in shards.iter().flat_map(|range| range.clone()) {
                    if let Some(owner) = owners.get(shard as usize).and_then(|shard| shard.owner) {
                        of.entry(owner).or_default().push(shard);
                    }
                }
                of.remove(&(device as DeviceNumber));
                if of.is_empty() {
                    break;
                }
                for of in of.into_values() {
                    self.migrate(&client, of, device as DeviceNumber).await;
                }
            }
        }
        let _ = client.close().await;
    }

    /// Has shards of one device move to another, as an operator does.
    async fn migrate(&self, client: &Client, shards: Vec<u32>, to: DeviceNumber) {
        let nodes = |state: &State| {
            let from = state.shards.get(*shards.first()? as usize)?.owner?;
            Some((state.devices.get(&from)?.node, state.devices.get(&to)?.node))
        };
        let between = self.newest().and_then(|state| nodes(&state)).is_some_and(|(from, to)| from != to);
        self.trace.event(format_args!("{} shards move to device {to}", shards.len()));
        let request = Request::Cluster(admin::Request::Migrate { shards: ranges(shards.iter().copied()), to });
        let moved = client.request(request, ADMIN_PATIENCE).await;
        let mut figures = self.figures.lock();
        match &moved {
            Ok(Response::Cluster(_)) if between => figures.migrations_between += 1,
            Ok(_) => figures.migrations += 1,
            Err(_) => figures.migrations_called_off += 1,
        }
        self.trace.event(format_args!("that came to {:?}", moved.map_err(|e| e.to_string())));
    }

    /// Has one more client do what it wants.
    fn begin(&self, plan: doing::Client, working: &mut JoinSet<Client>) {
        let mut logs = self.logs.lock();
        let source = logs.len() as u32;
        let log = Log::default();
        logs.push(log.clone());
        let random = Random::new(self.seed, Stream::Client, u64::from(source));
        let driver = Driver { source, plan, random, log, trace: self.trace.clone() };
        drop(logs);
        working.spawn(driver.run(self.client_options(false)));
    }

    fn client_options(&self, admin: bool) -> ClientOptions {
        let (number, machine) = {
            let mut machines = self.machines.lock();
            let number = machines.len();
            machines.push(self.net.machine(10 + number as u8, 0));
            (number, machines[number].clone())
        };
        let identity = self.authority.identity(Role::Client, &*machine).expect("an identity can be made");
        let mut options = ClientOptions::new("", identity).with::<journal::Actor>().with::<sketch::Actor>();
        options.addresses = self.sites.iter().map(|site| site.machine.socket_address(PORT).to_string()).collect();
        options.addresses.rotate_left(number % self.sites.len());
        options.network = machine;
        options.name = format!("client {number}");
        options.admin = admin;
        options
    }

    /// The nodes that run.
    fn running(&self) -> Vec<(&Arc<Site>, Running)> {
        self.sites.iter().filter_map(|site| Some((site, site.node()?))).collect()
    }

    /// The newest state that any of them knows.
    fn newest(&self) -> Option<Arc<State>> {
        let states = self.running().into_iter().map(|(_, node)| node.cluster.control().state_at());
        states.max_by_key(|(version, _)| *version).map(|(_, state)| state)
    }

    /// The machine of a node: they get their numbers as they come.
    fn site_of(&self, state: &State, node: NodeNumber) -> Option<&Arc<Site>> {
        let member = state.nodes.get(&node)?;
        self.sites.iter().find(|site| site.name() == member.name)
    }

    /// Waits until all is well, but for nodes that are lost; says what is not.
    async fn well_within(&self, budget: Duration) -> Result<(), String> {
        let since = Instant::now();
        loop {
            let well = self.well();
            match well {
                Ok(()) => return Ok(()),
                Err(why) if since.elapsed() > budget => return Err(why),
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    fn well(&self) -> Result<(), String> {
        let newest = self.newest().ok_or("no node runs")?;
        let live = self.sites.iter().filter(|site| !site.lost.load(Relaxed)).count();
        for site in self.sites.iter().filter(|site| !site.lost.load(Relaxed)) {
            let number = site.number;
            let node = site.node().ok_or(format!("node {number} does not run"))?;
            if !node.cluster.lease().is_some_and(|lease| lease.holds()) {
                return Err(format!("node {number} does not hold its lease"));
            }
            if node.cluster.state() != newest {
                return Err(format!("node {number} does not know the newest of what was agreed"));
            }
            let members = node.cluster.control().members();
            if members.changing || live >= 3 && self.sites.len() == live && members.voters.len() < 3 {
                return Err(format!("node {number} knows of the voters {:?}", members.voters));
            }
            if let Some(device) =
                node.router.devices().iter().find(|device| !device.is_running() && !device.is_retired())
            {
                return Err(format!("device {} of node {number} does not run", device.number));
            }
        }
        for (number, device) in &newest.devices {
            if newest.shards_of(*number).next().is_none() {
                continue;
            }
            let runs = |node: NodeNumber| self.site_of(&newest, node)?.node();
            let Some(node) = runs(device.node) else { return Err(format!("device {number} is nobody's")) };
            if !node.cluster.own_devices().contains(number) {
                return Err(format!("device {number} has not begun on node {}", device.node));
            }
            if device.in_sync.iter().filter(|node| runs(**node).is_some()).count() < 2.min(live) {
                return Err(format!("device {number} has copies nowhere but on {:?}", device.in_sync));
            }
        }
        Ok(())
    }

    /// A node dies for good, and a client that comes then is served soon. The client.
    async fn lose_one(&self, number: u64) -> Option<Client> {
        // Of two nodes one votes.
        if self.sites.len() < 3 {
            return None;
        }
        let site = &self.sites[number as usize % self.sites.len()];
        self.trace.event(format_args!("node {} dies for good", site.number));
        self.figures.lock().power_failures += 1;
        site.lost.store(true, Relaxed);
        site.order(Order::Crash { down: None });
        let died = Instant::now();
        let mut working = JoinSet::new();
        self.begin(self.plan.newcomer.clone(), &mut working);
        let loss = if self.plan.weather.loss_per_mille > 0 { LOSS_BUDGET } else { Duration::ZERO };
        let moving = if self.plan.moves.is_some() { MOVING_BUDGET } else { Duration::ZERO };
        let budget = self.plan.config.node.lease * 4 + FAILOVER_BUDGET + loss + moving;
        let client = match timeout(budget, working.join_next()).await {
            Ok(client) => client,
            Err(_) => {
                self.violation(format!(
                    "node {} died, and {} ms later not all is served",
                    site.number,
                    budget.as_millis()
                ));
                working.join_next().await
            }
        };
        let took = died.elapsed().as_millis() as u64;
        let mut figures = self.figures.lock();
        figures.failover_ms = took.max(figures.failover_ms);
        client.map(|client| client.expect("a client's panic is noted where it happens"))
    }

    /// Looks at what there is.
    async fn end(&self, clients: Vec<Client>) {
        // What a node had taken and has lost with its power comes again, once its client has noticed: it may have heard nothing since.
        sleep(IDLE_TIMEOUT + Duration::from_secs(1)).await;
        for client in &clients {
            match timeout(SETTLE_BUDGET, client.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.violation(format!("a client does not know what became of its tells: {error}")),
                Err(_) => {
                    self.violation(format!("a client's tells had not arrived within {} s", SETTLE_BUDGET.as_secs()))
                }
            }
        }
        self.settle().await;
        // Past every timer; and a device that is just being restarted is up again.
        sleep(DELAY_MAX + Duration::from_secs(1)).await;
        self.settle().await;
        let client = connect(self.client_options(true)).await;
        let sources = self.logs.lock().len() as u64;
        let looked = look(&client, sources).await;
        let _ = client.close().await;
        looked.iter().filter_map(|looked| looked.as_ref().err()).for_each(|failed| self.violation(failed.clone()));
        let states = looked.into_iter().flatten().collect();
        let mut reconnects = 0;
        for client in clients {
            reconnects += client.stats().reconnects;
            match timeout(SETTLE_BUDGET, client.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.violation(format!("a client closed, and was told: {error}")),
                Err(_) => self.violation(format!("a client had not closed within {} s", SETTLE_BUDGET.as_secs())),
            }
        }
        let operations: Vec<Vec<(Operation, Said)>> = self.logs.lock().iter().map(|log| log.lock().clone()).collect();
        let answered = |(_, said): &&(Operation, Said)| matches!(said, Said::Reply(_));
        let devices: Vec<_> = self.sites.iter().flat_map(|site| site.devices()).collect();
        let mut figures = *self.figures.lock();
        figures.answers = operations.iter().flatten().filter(answered).count() as u64;
        figures.reconnects = reconnects;
        figures.datagrams = self.net.datagrams();
        figures.writes_lost = self.sites.iter().map(|site| site.disk.figures().lost).sum();
        figures.device_restarts = devices.iter().flat_map(|d| d.terms()).map(|t| u64::from(t.saturating_sub(1))).sum();
        let newest = self.newest();
        figures.failovers = newest.iter().flat_map(|state| state.devices.values()).map(|device| device.term - 1).sum();
        *self.figures.lock() = figures;
        let mut refused: BTreeSet<u32> = BTreeSet::new();
        // What had not been let in by a node that stopped in good order was refused.
        for reason in [Reason::Overloaded, Reason::Stopping] {
            refused.extend(self.sites.iter().flat_map(|site| clients::refused(&*site.letters, reason)));
        }
        let told = |(operation, said): &(Operation, Said)| {
            matches!(said, Said::Error(Reason::Overloaded | Reason::Stopping)).then_some(operation.what)
        };
        refused.extend(operations.iter().flatten().filter_map(told));
        let evidence = Evidence {
            committed: self.plan.committed(),
            devices: None,
            operations,
            refused,
            states,
            stops: figures.stops > 0,
            failures: figures.power_failures + figures.stops + figures.given_up + figures.failovers,
            crashed: devices.iter().flat_map(|devices| devices.crashed()).any(|crashed| crashed),
        };
        check::check(&evidence).into_iter().for_each(|violation| self.violation(violation));
    }

    async fn settle(&self) {
        for (site, node) in self.running() {
            if !node.router.settled(SETTLE_BUDGET).await {
                let budget = SETTLE_BUDGET.as_secs();
                self.violation(format!("node {} had not handled everything within {budget} s", site.number));
            }
        }
    }
}

/// Looks all the time whether two nodes hold a device. It does not end.
async fn watch(world: Arc<World>) {
    loop {
        let mut held: BTreeMap<DeviceNumber, NodeNumber> = BTreeMap::new();
        for (_, node) in world.running() {
            let (cluster, number) = (&node.cluster, node.cluster.number());
            if !cluster.lease().is_some_and(|lease| lease.holds()) {
                continue;
            }
            for (device, _) in cluster.state().devices_of(number) {
                if let Some(other) = held.insert(device, number) {
                    world.violation(format!("nodes {other} and {number} both hold device {device}"));
                }
            }
        }
        sleep(LOOK).await;
    }
}
