//! The third scenario: the control plane of a cluster, while nodes crash, lose each other, move, come and go.

pub mod history;
mod leases;
pub mod linear;
pub mod plan;
mod site;
pub mod wires;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::control::mistake::{self, Mistake};
use ringhold_cluster::control::state::{AboutDevice, Admission, Cluster, Command, Member, Outcome, State};
use ringhold_cluster::control::{Control, Role};
use ringhold_storage::blocks::Blocks;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::history::{Ask, Heard, History, Nodes, Seen, heard};
use self::plan::{Mishap, Plan, SHARDS, STAYS};
use self::site::{Order, Site};
use self::wires::Wires;
use crate::disk::SimDisk;
use crate::network::{Net, Weather};
use crate::random::{Random, Stream};
use crate::scenario::{Report, in_runtime};
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
    /// Entries are acknowledged before they are durable.
    ForgetsEntries,
    /// Votes are.
    ForgetsVotes,
    /// A node that starts has forgotten the last things that it did, and nothing shows that it has.
    GoesBack,
    /// Who believes that it leads is read from, and nobody else asked.
    ReadsTheLeader,
    /// Any node is.
    ReadsAnyNode,
    /// A command that may have been done is said not to have been.
    DeniesTheUnknown,
    /// A node that has lost its disk is taken for the one it was.
    SameIdentity,
    /// A node gets another command than the others.
    AltersCommands,
    /// A client is told that its command was done before it was.
    AnswersEarly,
    /// A node makes one about leases.
    Leases(Mistake),
}

/// What happened in a run: whether it was worth running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub operations: u64,
    pub unknown: u64,
    pub entries: u64,
    pub terms: u64,
    pub calls: u64,
    pub messages_lost: u64,
    pub power_failures: u64,
    pub writes_lost: u64,
    pub writes_torn: u64,
    pub snapshots: u64,
    pub joined: u64,
    pub left: u64,
    pub wiped: u64,
    pub paused: u64,
    /// Nodes that ended in good order, and of which others took notice.
    pub ended: u64,
    /// Devices that began on another node.
    pub failovers: u64,
    /// The longest that a device of a dead node was nobody's, at the end.
    pub failover_ms: u64,
    pub failover_of_leader_ms: u64,
    pub undecided: u64,
}

impl Figures {
    pub fn named(&self) -> [(&'static str, u64); 19] {
        [
            ("operations", self.operations),
            ("unknown", self.unknown),
            ("entries", self.entries),
            ("terms", self.terms),
            ("calls", self.calls),
            ("messages_lost", self.messages_lost),
            ("power_failures", self.power_failures),
            ("writes_lost", self.writes_lost),
            ("writes_torn", self.writes_torn),
            ("snapshots", self.snapshots),
            ("joined", self.joined),
            ("left", self.left),
            ("wiped", self.wiped),
            ("paused", self.paused),
            ("ended", self.ended),
            ("failovers", self.failovers),
            ("failover_ms", self.failover_ms),
            ("failover_of_leader_ms", self.failover_of_leader_ms),
            ("undecided", self.undecided),
        ]
    }
}

/// In simulated time: once nothing goes wrong any more, commands are done within this, though nodes may still have to come up,
const SERVES_BUDGET: Duration = Duration::from_secs(30);
/// and all nodes are the same within this.
const AGREE_BUDGET: Duration = Duration::from_secs(90);
/// In simulated time: a whole run ends within this.
const RUN_BUDGET: Duration = Duration::from_secs(900);
/// How long a client waits.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tokens of one client.
const TOKENS: u64 = 40;
const CLUSTER: [u8; 16] = [9; 16];

/// Runs one seed. A panic anywhere in it is one of its violations.
pub fn run(seed: u64, options: Options) -> Report<Figures> {
    mistake::plant(match options.plant {
        Some(Plant::Leases(mistake)) => Some(mistake),
        _ => None,
    });
    let report = in_runtime(seed, simulate(seed, options));
    mistake::plant(None);
    report
}

async fn simulate(seed: u64, options: Options) -> Report<Figures> {
    let trace = Trace::new(options.print);
    let _logs = trace.take_logs();
    let plan = Plan::new(seed);
    trace.event(format_args!("plan {plan:?}"));
    let calm = Weather {
        delay_min: Duration::ZERO,
        delay_max: Duration::ZERO,
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        straggle_per_mille: 0,
        straggle: Duration::ZERO,
        datagram_bytes_max: 1_472,
    };
    let world = Arc::new(World {
        seed,
        options,
        trace: trace.clone(),
        net: Net::start(seed, calm, trace.clone()),
        wires: Wires::new(seed, plan.weather, trace.clone()),
        plan,
        sites: Mutex::default(),
        nodes: Mutex::default(),
        history: Mutex::default(),
        figures: Mutex::default(),
        calm: AtomicBool::new(false),
    });
    if timeout(RUN_BUDGET, world.run()).await.is_err() {
        world.violation(format!("it had not ended after {} s of simulated time", RUN_BUDGET.as_secs()));
    }
    let (figures, violations) = (*world.figures.lock(), std::mem::take(&mut world.nodes.lock().violations));
    Report { seed, violations, hash: trace.hash(), events: trace.events(), simulated: trace.elapsed(), figures }
}

pub struct World {
    seed: u64,
    options: Options,
    plan: Plan,
    trace: Trace,
    /// It gives machines their randomness; nothing goes over it.
    net: Net,
    wires: Wires,
    /// By number. Those that have left are gone.
    sites: Mutex<BTreeMap<u64, Arc<Site>>>,
    nodes: Mutex<Nodes>,
    history: Mutex<History>,
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
        self.nodes.lock().violations.push(violation);
    }

    /// The same once, whatever follows from it.
    fn once(&self, violation: String) {
        if !self.nodes.lock().violations.contains(&violation) {
            self.violation(violation);
        }
    }

    fn disk(&self, number: u64, which: u64) -> SimDisk {
        site::disk(self, number, which)
    }

    /// The identity of a log, on another disk: a mistake on purpose.
    fn copy_identity(&self, from: &SimDisk, to: &SimDisk) {
        let (old, new) = (from.power_on(None), to.power_on(None));
        let identity = old.get(b"nidentity").expect("it has power").expect("it had one");
        let log = ringhold_storage::raft_log::RaftLog::open(Arc::new(new.clone()), std::path::Path::new("a disk"));
        drop(log.expect("it is empty"));
        new.put(b"nidentity", &identity).and_then(|()| new.sync()).expect("it has power");
        from.power_off();
        to.power_off();
    }

    /// Has a site, and a node on it.
    fn add_site(self: &Arc<World>, number: u64) -> Arc<Site> {
        let site = Site::new(self, number);
        self.sites.lock().insert(number, site.clone());
        tokio::spawn(site.clone().keep(self.clone()));
        site
    }

    fn all(&self) -> Vec<Arc<Site>> {
        self.sites.lock().values().cloned().collect()
    }

    /// One of them all; for some numbers, the one that leads.
    fn pick(&self, number: u64) -> Arc<Site> {
        let all = self.all();
        let leads = |site: &&Arc<Site>| site.node().is_some_and(|node| node.leader() == Some(site.number));
        match number % 5 {
            0 | 1 => all.iter().find(leads),
            _ => None,
        }
        .unwrap_or(&all[(number / 5) as usize % all.len()])
        .clone()
    }

    /// One of those that may leave.
    fn pick_mobile(&self, number: u64) -> Option<Arc<Site>> {
        let mobile: Vec<_> =
            self.all().into_iter().filter(|site| site.number > STAYS && !site.wiped.load(Relaxed)).collect();
        mobile.get(number as usize % mobile.len().max(1)).cloned()
    }

    async fn run(self: &Arc<World>) {
        self.found().await;
        let Some(start) = self.read_somewhere().await else {
            return self.violation("a cluster to which nothing has happened yet does not answer".into());
        };
        let start = Seen::of(&start);
        if self.options.plant == Some(Plant::AltersCommands) {
            let token = |n: u64| n.to_be_bytes().to_vec();
            self.wires.alter(2, token(5), token(5 + (1 << 16)));
        }
        let watch = tokio::spawn(leases::watch(self.clone()));
        let mut clients = JoinSet::new();
        for number in 0..self.plan.clients {
            clients.spawn(client(self.clone(), number));
        }
        let mut others = JoinSet::new();
        others.spawn(pause(self.clone()));
        others.spawn(end(self.clone()));
        let until = Instant::now() + self.plan.span;
        for (after, mishap) in &self.plan.mishaps {
            sleep(*after).await;
            if Instant::now() >= until {
                break;
            }
            self.trace.event(format_args!("{mishap:?}"));
            others.spawn(happen(self.clone(), *mishap));
        }
        while clients.join_next().await.is_some() {}
        while others.join_next().await.is_some() {}
        self.calm.store(true, Relaxed);
        self.end(&start).await;
        watch.abort();
    }

    /// The first nodes, and a cluster of them.
    async fn found(self: &Arc<World>) {
        let first = self.add_site(1);
        let name = "simulated".to_owned();
        let found = Command::Found { cluster: Cluster { id: CLUSTER, name }, shards: 16 };
        loop {
            if let Some(node) = first.node() {
                // It may have been done already, when the node crashed over it.
                let _ = node.initialize(&first.address()).await;
                if node.propose(found.clone(), PATIENCE).await.is_ok() {
                    break;
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.admit(1, &first.address(), 1).await;
        for number in 2..=self.plan.nodes {
            let address = format!("10.0.0.{number}:7000");
            match self.admit(number as u8, &address, 1).await {
                Some(given) if given == number => drop(self.add_site(number)),
                other => self.violation(format!("node {number} was given the number {other:?}")),
            }
        }
    }

    /// Has a node admitted in this start of it, by its id; says its number.
    async fn admit(&self, id: u8, address: &str, run: u64) -> Option<u64> {
        // One that has been a member before is the same or none.
        let number = (run > 1).then_some(id.into());
        let member = Member {
            id: [id; 16],
            incarnation: run,
            name: format!("n{id}"),
            address: address.into(),
            zone: ["a", "b", "c"][id as usize % 3].into(),
            release: "0.1.0".into(),
            versions: (1, 1),
            types: BTreeMap::new(),
            draining: false,
            lease_ms: 400,
        };
        let device = AboutDevice {
            name: "cpu0".into(),
            kind: "cpu".into(),
            workers: 1,
            memory_bytes: None,
            place: Default::default(),
        };
        let admit = Command::Admit(Admission { cluster: CLUSTER, number, member, devices: vec![device], fresh: false });
        match self.settle(admit).await? {
            Outcome::Admitted { node, .. } => Some(node.into()),
            Outcome::Done => None,
        }
    }

    /// Has a command done that may be done twice, if it can be within a minute.
    async fn settle(&self, command: Command) -> Option<Outcome> {
        for attempt in 0..100 {
            let site = self.pick(attempt);
            if let Some(node) = site.node() {
                let proposed = node.propose(command.clone(), PATIENCE);
                let outcome = tokio::select! {
                    biased;
                    () = site.death(&node) => None,
                    proposed = proposed => proposed.ok(),
                };
                match outcome {
                    Some(Ok(outcome)) => return Some(outcome),
                    Some(Err(refused)) => {
                        self.trace.event(format_args!("refused: {refused}"));
                        return None;
                    }
                    None => {}
                }
            }
            sleep(Duration::from_millis(500)).await;
        }
        None
    }

    async fn read_somewhere(&self) -> Option<Arc<State>> {
        for attempt in 0..40 {
            if let Some(node) = self.pick(attempt).node()
                && let Ok(state) = node.read(PATIENCE).await
            {
                return Some(state);
            }
            sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// Everything is well again: all nodes come to the same, and that is what clients were told.
    async fn end(self: &Arc<World>, start: &Seen) {
        let (last, failovers) = match self.come_together().await {
            Ok(state) => (Some(Seen::of(&state)), self.nodes.lock().failovers()),
            Err(violation) => {
                self.violation(violation);
                (None, u64::MAX / 2)
            }
        };
        if last.is_some() {
            leases::check_failover(self).await;
        }
        let mut history = self.history.lock();
        if let Some(seen) = &last {
            let began = history.now();
            history.add(began, Ask::Read, Heard::Read(Box::new(seen.clone())));
        }
        let (mut violations, undecided) = history.judge(start, failovers);
        let lost = last.map_or(Vec::new(), |seen| history.lost(&seen));
        if !lost.is_empty() {
            violations.push(format!("tokens {lost:?} were used, and are not in the state any more"));
        }
        let mut nodes = self.nodes.lock();
        nodes.violations.extend(violations);
        let mut figures = self.figures.lock();
        figures.operations = history.calls() as u64;
        figures.unknown = history.unknown() as u64;
        figures.undecided = undecided;
        figures.failovers = failovers;
        (figures.entries, figures.terms) = (nodes.entries(), nodes.terms() as u64);
        (figures.calls, figures.messages_lost) = self.wires.figures();
        for site in self.all() {
            let disk = site.figures();
            figures.writes_lost += disk.lost;
            figures.writes_torn += disk.torn;
            figures.snapshots += u64::from(site.node().is_some_and(|node| node.status().snapshot.is_some()));
        }
    }

    /// Waits until commands are done, and all nodes have the same; says what.
    async fn come_together(&self) -> Result<Arc<State>, String> {
        let began = Instant::now();
        while self.settle(Command::Set { name: "voters_max".into(), value: "3".into() }).await.is_none() {
            if began.elapsed() > AGREE_BUDGET {
                return Err("commands are not done any more".into());
            }
        }
        let serves = began.elapsed();
        if serves > SERVES_BUDGET {
            return Err(format!("it took {} ms until commands were done again", serves.as_millis()));
        }
        let mut differ = String::new();
        while let Err(how) = self.agree() {
            differ = how;
            if began.elapsed() > AGREE_BUDGET {
                return Err(format!("the nodes do not come to the same: {differ}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.trace.event(format_args!("all nodes agree; before, {differ}"));
        self.read_somewhere().await.ok_or_else(|| "nothing can be read from a cluster that is well".into())
    }

    /// Whether all nodes have applied the same, know the same leader and the same members; else what differs.
    fn agree(&self) -> Result<(), String> {
        let mut first = None;
        for site in self.all().into_iter().filter(|site| !site.wiped.load(Relaxed)) {
            let node = site.node().ok_or(format!("node {} is down", site.number))?;
            let status = node.status();
            let (index, state) = node.state_at();
            let about = (index, status.leader, status.term, status.members);
            if about.1.is_none() || about.3.changing {
                return Err(format!("node {} has {about:?}", site.number));
            }
            let (number, known, known_state) = first.get_or_insert((site.number, about.clone(), state.clone()));
            if *known != about {
                return Err(format!("node {number} has {known:?}, and node {} {about:?}", site.number));
            }
            if let Some(number) = leases::missing(self) {
                return Err(format!("node {number} does not hold its lease"));
            }
            if *known_state != state {
                return Err(format!("nodes {number} and {} have other states after entry {index:?}", site.number));
            }
        }
        Ok(())
    }
}

/// A client: one call after the other, at one node or another.
async fn client(world: Arc<World>, number: u64) {
    let mut random = Random::new(world.seed, Stream::Client, number);
    let until = Instant::now() + world.plan.span;
    let mut home = random.word();
    let mut owners: Vec<u16> = vec![0; SHARDS as usize];
    let mut tokens = 0;
    while Instant::now() < until {
        sleep(Duration::from_micros(random.below(world.plan.think_max.as_micros() as u64))).await;
        if random.per_mille(150) {
            home = random.word();
        }
        let site = world.pick(home);
        let Some(node) = site.node().filter(|_| !site.wiped.load(Relaxed)) else {
            home = random.word();
            continue;
        };
        let ask = match random.below(10) {
            0..4 => {
                let shard = random.below(u64::from(SHARDS)) as u32;
                let from = owners[shard as usize];
                let to = (from + random.between(1, STAYS - 1) as u16) % STAYS as u16;
                Ask::Move { shard, from, to }
            }
            // One of one's own, or one that others use too.
            4 if random.per_mille(300) => {
                Ask::Use { token: (random.below(world.plan.clients) << 32) + random.below(TOKENS) }
            }
            4..6 => {
                tokens += 1;
                Ask::Use { token: (number << 32) + tokens % TOKENS }
            }
            _ => Ask::Read,
        };
        let began = world.history.lock().now();
        let heard = tokio::select! {
            biased;
            () = site.death(&node) => Heard::Unknown,
            heard = call(&world, &node, &ask) => heard,
        };
        if let Heard::Read(seen) = &heard
            && seen.shards.len() == owners.len()
        {
            owners = seen.shards.iter().map(|(owner, _)| owner.unwrap_or(0)).collect();
        }
        world.trace.event(format_args!("client {number} at node {}: {ask:?} {heard:?}", site.number));
        world.history.lock().add(began, ask, heard);
    }
}

async fn call(world: &World, node: &Control, ask: &Ask) -> Heard {
    let plant = world.options.plant;
    let Some(command) = ask.command() else {
        let here = match plant {
            Some(Plant::ReadsAnyNode) => true,
            Some(Plant::ReadsTheLeader) => node.role().0 == Role::Leader,
            _ => false,
        };
        let state = if here { Ok(node.state()) } else { node.read(PATIENCE).await };
        return state.map_or(Heard::Failed, |state| Heard::Read(Box::new(Seen::of(&state))));
    };
    let proposed = match plant {
        Some(Plant::AnswersEarly) => {
            let (node, command) = (node.clone(), command.clone());
            let early = tokio::spawn(async move { node.propose(command, PATIENCE).await });
            match timeout(Duration::from_millis(30), early).await {
                Ok(proposed) => proposed.expect("it does not panic"),
                Err(_) => Ok(Ok(Outcome::Done)),
            }
        }
        _ => node.propose(command, PATIENCE).await,
    };
    match heard(proposed) {
        Ok(Heard::Unknown) if plant == Some(Plant::DeniesTheUnknown) => Heard::Failed,
        Ok(heard) => heard,
        Err(violation) => {
            world.violation(violation);
            Heard::Unknown
        }
    }
}

/// Has something happen, and waits until it is over.
async fn happen(world: Arc<World>, mishap: Mishap) {
    let cut = async |pairs: Vec<(u64, u64)>, span: Duration| {
        pairs.iter().for_each(|(from, to)| world.wires.cut(*from, *to));
        sleep(span).await;
        pairs.iter().for_each(|(from, to)| world.wires.mend(*from, *to));
    };
    match mishap {
        Mishap::Crash { node, down } => crash(&world, &world.pick(node), Order::Crash { down }),
        Mishap::CrashAll { down } => {
            for site in world.all() {
                crash(&world, &site, Order::Crash { down });
            }
        }
        Mishap::CutOff { node, deaf, mute, span } => {
            let one = world.pick(node).number;
            let others: Vec<u64> = world.all().iter().map(|site| site.number).filter(|other| *other != one).collect();
            let heard = others.iter().filter(|_| mute).map(|other| (one, *other));
            let told = others.iter().filter(|_| deaf).map(|other| (*other, one));
            cut(heard.chain(told).collect(), span).await;
        }
        Mishap::Split { node, span } => {
            let mut all: Vec<u64> = world.all().iter().map(|site| site.number).collect();
            let turn = node as usize % all.len();
            all.rotate_left(turn);
            let (here, there) = all.split_at(all.len() / 2);
            let pairs = here.iter().flat_map(|a| there.iter().flat_map(move |b| [(*a, *b), (*b, *a)]));
            cut(pairs.collect(), span).await;
        }
        Mishap::Flap { node, other, times, span } => {
            let (a, b) = (world.pick(node).number, world.pick(other).number);
            for _ in 0..times {
                cut(vec![(a, b), (b, a)], span).await;
                sleep(span).await;
            }
        }
        Mishap::Slow { node, by, span } => {
            let number = world.pick(node).number;
            world.wires.slow_down(number, by);
            sleep(span).await;
            world.wires.slow_down(number, Duration::ZERO);
        }
        Mishap::Move { node, down } => {
            let site = world.pick(node);
            crash(&world, &site, Order::Move { down });
            sleep(down + Duration::from_millis(500)).await;
            // What a node does when it starts: it says where it is.
            world.admit(site.number as u8, &site.address(), site.run()).await;
        }
        Mishap::Wipe { node } => {
            let Some(site) = world.pick_mobile(node).filter(|site| site.is_in()) else { return };
            // One after the other: of three voters two without their disks are a disaster that nothing cures.
            if world.all().iter().any(|site| site.wiped.load(Relaxed)) {
                return;
            }
            world.figures.lock().wiped += 1;
            site.wiped.store(true, Relaxed);
            site.order(Order::Wipe);
            sleep(Duration::from_secs(5)).await;
            leave(&world, &site).await;
            join(&world).await;
        }
        Mishap::Voters { most } => {
            world.settle(Command::Set { name: "voters_max".into(), value: most.to_string() }).await;
        }
        Mishap::Join => join(&world).await,
        Mishap::Leave { node } => {
            if let Some(site) = world.pick_mobile(node) {
                leave(&world, &site).await;
            }
        }
    }
}

/// Has nodes do nothing for a while, again and again.
async fn pause(world: Arc<World>) {
    let until = Instant::now() + world.plan.span;
    for (after, node, span) in world.plan.pauses.clone() {
        sleep(after).await;
        if Instant::now() >= until {
            return;
        }
        let number = world.pick(node).number;
        world.trace.event(format_args!("node {number} is paused for {} ms", span.as_millis()));
        world.figures.lock().paused += 1;
        world.wires.pause(number, span);
        sleep(span).await;
    }
}

/// Has nodes end in good order, and be started again.
async fn end(world: Arc<World>) {
    let until = Instant::now() + world.plan.span;
    for (after, node, down) in world.plan.ends.clone() {
        sleep(after).await;
        if Instant::now() >= until {
            return;
        }
        let site = world.pick(node);
        if site.is_in() && !site.wiped.load(Relaxed) {
            site.order(Order::End { down });
        }
    }
}

fn crash(world: &World, site: &Site, order: Order) {
    if site.node().is_some() {
        world.figures.lock().power_failures += 1;
        site.order(order);
    }
}

async fn join(world: &Arc<World>) {
    let newest = world.sites.lock().last_key_value().map_or(0, |(number, _)| *number);
    // Its id and its address are of the number that it is likely to get; which it gets the cluster says.
    let id = newest as u8 + 1;
    if id > 60 {
        return;
    }
    let address = format!("10.0.0.{id}:7000");
    let Some(number) = world.admit(id, &address, 1).await else { return };
    if number == u64::from(id) && !world.sites.lock().contains_key(&number) {
        world.figures.lock().joined += 1;
        world.add_site(number);
    }
}

/// Drains a node, and removes it when it does not vote any more.
async fn leave(world: &Arc<World>, site: &Arc<Site>) {
    let node = site.number as u32;
    if world.settle(Command::Drain { node, draining: true }).await.is_none() {
        return;
    }
    let votes = || {
        let others = world.all();
        let known = others.iter().filter(|other| other.number != site.number).filter_map(|other| other.node());
        known
            .filter(|other| other.leader() == Some(other.number()))
            .any(|leader| leader.members().voters.contains(&site.number))
    };
    let began = Instant::now();
    while votes() && began.elapsed() < Duration::from_secs(40) {
        sleep(Duration::from_millis(500)).await;
    }
    // It may be refused because it was done already, and the answer was lost.
    let removed = world.settle(Command::Remove { node }).await.is_some();
    let gone = async || world.read_somewhere().await.is_some_and(|state| !state.nodes.contains_key(&node));
    if (removed || gone().await) && world.sites.lock().remove(&site.number).is_some() {
        world.figures.lock().left += 1;
        site.order(Order::Stop);
    }
}
