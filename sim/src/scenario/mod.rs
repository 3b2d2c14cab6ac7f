//! The first scenario: a node, its devices and its clients, through bad weather and crashes.

pub mod actors;
pub mod check;
pub mod model;
pub mod plan;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold::client::{AskError, Client, Error, Options as ClientOptions};
use ringhold::node::{Environment, Node, Storage};
use ringhold::{ActorId, Registry};
use ringhold_cluster::network::Network;
use ringhold_cluster::tls::{Authority, Role};
use ringhold_cluster::transport::Lost;
use ringhold_cluster::wire::{Request, Response};
use ringhold_kernels::message::Reason;
use ringhold_storage::dead_letters::{DeadLetter, DeadLetters, Filter, InMemory, Listed, Removal, Totals};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::actors::{ledger, sequencer};
use self::check::{Evidence, Said};
use self::plan::{DELAY_MAX, Operation, Plan, SEQUENCERS, Wish, operation};
use crate::devices::SimDevices;
use crate::network::{Machine, Net};
use crate::observed::{self, Observed, Slip};
use crate::random::{Random, Stream, seed_secrets};
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
    /// A handler is not run, run twice, or run with a stamp of long ago.
    Handler(Slip),
    /// A dead letter is not kept.
    Letter,
    /// A client sends two messages in the wrong order.
    Order,
    /// A reply reaches the client changed.
    Reply,
    /// The model is wrong about faults.
    Model,
    /// The node has lost something with a device and does not say how much.
    Report,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report<F = Figures> {
    pub seed: u64,
    /// What was not kept; empty if everything was.
    pub violations: Vec<String>,
    /// The hash of the trace, and how many events it has.
    pub hash: u64,
    pub events: u64,
    pub simulated: Duration,
    pub figures: F,
}

impl<F> Report<F> {
    /// The same with other figures.
    pub fn with<G>(self, figures: G) -> Report<G> {
        let Report { seed, violations, hash, events, simulated, .. } = self;
        Report { seed, violations, hash, events, simulated, figures }
    }
}

/// What happened in a run: whether it was worth running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub handled: u64,
    pub restarts: u64,
    pub spilled: u64,
    pub dead_letters: u64,
    pub reported_lost: u64,
    pub reconnects: u64,
    pub datagrams: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.handled += other.handled;
        self.restarts += other.restarts;
        self.spilled += other.spilled;
        self.dead_letters += other.dead_letters;
        self.reported_lost += other.reported_lost;
        self.reconnects += other.reconnects;
        self.datagrams += other.datagrams;
    }

    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("handled", self.handled),
            ("restarts", self.restarts),
            ("spilled", self.spilled),
            ("dead_letters", self.dead_letters),
            ("reported_lost", self.reported_lost),
            ("reconnects", self.reconnects),
            ("datagrams", self.datagrams),
        ]
    }
}

/// In simulated time: everything is handled, and the node has drained, within this.
const SETTLE_BUDGET: Duration = Duration::from_secs(30);
/// In simulated time: a whole run ends within this.
const RUN_BUDGET: Duration = Duration::from_secs(1_800);

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Has panics on threads that run simulations kept for their reports, instead of printed. Once for a process.
fn watch_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let kept = PANICS.with(|panics| match &mut *panics.borrow_mut() {
                Some(panics) => {
                    panics.push(info.to_string().replace('\n', ": "));
                    true
                }
                None => false,
            });
            if !kept {
                before(info);
            }
        }));
    });
}

/// Runs one seed. A panic anywhere in it is one of its violations.
pub fn run(seed: u64, options: Options) -> Report {
    in_runtime(seed, simulate(seed, options))
}

/// Runs a simulation on a runtime of its own, whose every choice is the seed's.
pub(crate) fn in_runtime<F: Default>(seed: u64, simulation: impl Future<Output = Report<F>>) -> Report<F> {
    watch_panics();
    PANICS.with(|panics| *panics.borrow_mut() = Some(Vec::new()));
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true);
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
        let runtime = builder.build().expect("a runtime of timers alone needs nothing of the system");
        seed_secrets(seed);
        runtime.block_on(simulation)
    }));
    let panics = PANICS.with(|panics| panics.borrow_mut().take()).unwrap_or_default();
    let mut report = result.unwrap_or_else(|_| Report {
        seed,
        violations: Vec::new(),
        hash: 0,
        events: 0,
        simulated: Duration::ZERO,
        figures: F::default(),
    });
    report.violations.extend(panics);
    report
}

async fn simulate(seed: u64, options: Options) -> Report {
    let trace = Trace::new(options.print);
    let _logs = trace.take_logs();
    let plan = Plan::new(seed);
    trace.event(format_args!("plan {plan:?}"));
    let slip = match options.plant {
        Some(Plant::Handler(slip)) => Some((slip, 20)),
        _ => None,
    };
    observed::begin(&trace, slip);
    let net = Net::start(seed, plan.weather, trace.clone());
    let mut world = World { seed, options, plan, trace: trace.clone(), net, violations: Vec::new() };
    let figures = match timeout(RUN_BUDGET, world.run()).await {
        Ok(figures) => figures,
        Err(_) => {
            world.violations.push(format!("it had not ended after {} s of simulated time", RUN_BUDGET.as_secs()));
            Figures::default()
        }
    };
    Report {
        seed,
        violations: world.violations,
        hash: trace.hash(),
        events: trace.events(),
        simulated: trace.elapsed(),
        figures,
    }
}

struct World {
    seed: u64,
    options: Options,
    plan: Plan,
    trace: Trace,
    net: Net,
    violations: Vec<String>,
}

/// What a client has done and heard.
type Log = Arc<Mutex<Vec<(Operation, Said)>>>;

impl World {
    async fn run(&mut self) -> Figures {
        let node_machine = self.net.machine(1, self.plan.skew_us);
        let network: Arc<dyn Network> = node_machine.clone();
        let authority = Authority::in_memory(&*network).expect("an authority can be made");
        let identity = authority.identity(Role::Node, &*network).expect("an identity can be made");
        let letters = Arc::new(Letters {
            kept: InMemory::new(self.plan.config.dead_letters.kept),
            forgets: self.options.plant == Some(Plant::Letter),
        });
        let devices =
            Arc::new(SimDevices::new(self.seed, node_machine.clone(), self.trace.clone(), self.plan.devices.clone()));
        let environment = Environment {
            network: network.clone(),
            devices: devices.clone(),
            storage: Storage {
                node_id: "00000000-0000-0000-0000-000000000001".into(),
                identity,
                dead_letters: letters.clone(),
                checkpoints: None,
                shards: None,
                jobs: Arc::new(ringhold::device::keeper::Blocking),
                control: None,
                folder: None,
            },
        };
        let node = match Node::start(&self.plan.config, registry(), environment).await {
            Ok(node) => node,
            Err(error) => {
                self.violations.push(format!("the node did not start: {error}"));
                return Figures::default();
            }
        };
        let identity = authority.identity(Role::Client, &*network).expect("an identity can be made");

        let mut clients = Vec::new();
        let mut logs = Vec::new();
        let mut working = JoinSet::new();
        for source in 0..self.plan.clients.len() as u32 {
            let machine = self.net.machine(10 + source as u8, 0);
            let mut options = ClientOptions::new(node.address().to_string(), identity.clone())
                .with::<ledger::Actor>()
                .with::<sequencer::Actor>();
            options.network = machine.clone();
            options.name = format!("client {source}");
            let client = match connect(options).await {
                Ok(client) => client,
                Err(error) => {
                    self.violations.push(format!("client {source} could not connect: {error}"));
                    return Figures::default();
                }
            };
            for (at, lasts) in &self.plan.clients[source as usize].cuts {
                self.cut(&node_machine, &machine, *at, *lasts);
            }
            let log = Log::default();
            let random = Random::new(self.seed, Stream::Client, u64::from(source));
            let driver = Driver {
                client: client.clone(),
                source,
                plan: self.plan.clients[source as usize].clone(),
                random,
                log: log.clone(),
                swaps: self.options.plant == Some(Plant::Order),
                garbles: self.options.plant == Some(Plant::Reply),
                trace: self.trace.clone(),
            };
            working.spawn(driver.run());
            clients.push(client);
            logs.push(log);
        }

        let mut states = Vec::new();
        let mut figures = Figures::default();
        if let Some(after) = self.plan.drain_early {
            sleep(after).await;
            self.drain(node).await;
            // What clients still want is refused now, or waits for a node that does not come.
            for client in &clients {
                self.close(client).await;
            }
            while working.join_next().await.is_some() {}
        } else {
            while working.join_next().await.is_some() {}
            self.settle(&node).await;
            devices.disarm();
            // Past every timer; and a device that is just being restarted is up again.
            sleep(DELAY_MAX + Duration::from_secs(1)).await;
            self.settle(&node).await;
            states = self.look(&clients[0]).await;
            self.count(&clients[0], &mut figures).await;
            for (client, plan) in clients.iter().zip(&self.plan.clients) {
                if plan.closes_first {
                    self.close(client).await;
                }
            }
            self.drain(node).await;
            for client in &clients {
                self.close(client).await;
            }
        }

        let reported_lost = match self.options.plant {
            Some(Plant::Report) => 0,
            _ => self.trace.reported_lost(),
        };
        let evidence = Evidence {
            plan: &self.plan,
            operations: logs.iter().map(|log| std::mem::take(&mut *log.lock())).collect(),
            stats: clients.iter().map(Client::stats).collect(),
            runs: observed::take(),
            letters: letters.all(),
            reported_lost,
            terms: devices.terms(),
            crashed: devices.crashed(),
            states,
            wrong_model: self.options.plant == Some(Plant::Model),
        };
        figures.handled = evidence.runs.len() as u64;
        figures.restarts = evidence.terms.iter().map(|terms| u64::from(terms - 1)).sum();
        figures.dead_letters = letters.totals().appended();
        figures.reported_lost = self.trace.reported_lost();
        figures.reconnects = evidence.stats.iter().map(|stats| stats.reconnects).sum();
        figures.datagrams = self.net.datagrams();
        self.violations.extend(check::check(&evidence));
        figures
    }

    /// Cuts the network between two machines at a time, for a while.
    fn cut(&self, a: &Arc<Machine>, b: &Arc<Machine>, at: Duration, lasts: Duration) {
        let (net, a, b) = (self.net.clone(), a.clone(), b.clone());
        tokio::spawn(async move {
            sleep(at).await;
            net.cut(&a, &b, true);
            sleep(lasts).await;
            net.cut(&a, &b, false);
        });
    }

    async fn settle(&mut self, node: &Node) {
        if !node.router().settled(SETTLE_BUDGET).await {
            self.violations.push(format!("not everything was handled within {} s", SETTLE_BUDGET.as_secs()));
        }
    }

    async fn drain(&mut self, node: Node) {
        self.trace.event(format_args!("drain begins"));
        let drained = node.drain().await;
        self.trace.event(format_args!("{drained:?}"));
        // A client behind a cut network, and a device that crashes meanwhile, may keep a drain from being complete.
        let undisturbed = self.plan.drain_early.is_none();
        if undisturbed && !drained.complete {
            self.violations.push(format!("the drain was not complete: {drained:?}"));
        }
        if drained.took > SETTLE_BUDGET + Duration::from_secs(5) {
            self.violations.push(format!("the drain took {} ms", drained.took.as_millis()));
        }
    }

    async fn close(&self, client: &Client) {
        if let Err(error) = client.clone().close().await {
            self.trace.event(format_args!("closing: {error}"));
        }
    }

    /// The state of every actor there may be.
    async fn look(&mut self, client: &Client) -> Vec<(ActorId, Option<Vec<u8>>)> {
        let ledgers = (0..16).map(ledger::id);
        let sequencers = (0..SEQUENCERS).map(sequencer::id);
        let mut states = Vec::new();
        for id in ledgers.chain(sequencers) {
            let request = Request::Inspect { type_id: id.type_id, key: id.key.into() };
            match ask_node(client, request).await {
                Ok(Response::Inspected(found)) => states.push((id, Some(found.state))),
                Err(Error::Failed(failed)) if failed.reason() == Some(Reason::NoActor) => states.push((id, None)),
                other => self.violations.push(format!("{id:?} could not be looked at: {other:?}")),
            }
        }
        states
    }

    async fn count(&mut self, client: &Client, figures: &mut Figures) {
        match ask_node(client, Request::Status).await {
            Ok(Response::Status(status)) => figures.spilled = status.devices.iter().map(|d| d.spilled).sum(),
            other => self.violations.push(format!("the node gave no status: {other:?}")),
        }
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Observed<ledger::Actor>>().expect("it is the first");
    registry.register::<Observed<sequencer::Actor>>().expect("it has a name of its own");
    registry
}

/// Bad weather may eat a handshake; a node that listens is reached in the end.
async fn connect(options: ClientOptions) -> Result<Client, Error> {
    let mut attempts = 1;
    loop {
        match Client::connect(options.clone()).await {
            Err(error) if attempts < 10 && !error.is_final() => attempts += 1,
            result => return result,
        }
    }
}

/// A request goes with its connection; this asks again on the next.
pub(crate) async fn ask_node(client: &Client, request: Request) -> Result<Response, Error> {
    loop {
        match client.request(request.clone(), Duration::from_secs(60)).await {
            Err(Error::ConnectionLost { lost, .. }) if lost != Lost::Here => {}
            result => return result,
        }
    }
}

/// What a client does from its first operation to its last.
struct Driver {
    client: Client,
    source: u32,
    plan: plan::Client,
    random: Random,
    log: Log,
    /// Mistakes made on purpose.
    swaps: bool,
    garbles: bool,
    trace: Trace,
}

type Asking = Pin<Box<dyn Future<Output = Said> + Send>>;

impl Driver {
    async fn run(mut self) {
        let mut asks = JoinSet::new();
        let mut seq = 0;
        while u64::from(seq) < self.plan.operations {
            let mut next: Vec<Operation> = vec![self.next(&mut seq)];
            if self.swaps && seq == 10 {
                // Two that go to one actor, the second first.
                let later = self.next_to_same(&next[0], &mut seq);
                next.insert(0, later);
            }
            for operation in next {
                self.perform(operation, &mut asks).await;
            }
            while asks.len() >= self.plan.asks_max {
                asks.join_next().await;
            }
            if self.random.per_mille(self.plan.pause_per_mille) {
                let pause_ms = self.random.between(1, self.plan.pause_max.as_millis() as u64);
                sleep(Duration::from_millis(pause_ms)).await;
            }
            if self.random.per_mille(10) {
                self.flush().await;
            }
        }
        while asks.join_next().await.is_some() {}
        self.flush().await;
        self.flush().await;
    }

    fn next(&mut self, seq: &mut u32) -> Operation {
        *seq += 1;
        operation(&mut self.random, self.source, *seq)
    }

    fn next_to_same(&mut self, other: &Operation, seq: &mut u32) -> Operation {
        loop {
            let operation = self.next(seq);
            if operation.to == other.to && operation.message.is_some() {
                return operation;
            }
            *seq -= 1;
        }
    }

    /// Sends one message, in the order of these calls, and leaves its answer to a task.
    async fn perform(&mut self, operation: Operation, asks: &mut JoinSet<()>) {
        let (id, to, payload) = (operation.id, operation.to, operation.payload.clone());
        self.trace.event(format_args!("client {} {:?} {id:?} to {to:?}", self.source, operation.wish));
        let place = self.log.lock().len();
        if operation.wish == Wish::Tell {
            let said = match self.client.tell_raw(to, &payload).await {
                Ok(()) => Said::Told,
                Err(_) => Said::NotSent,
            };
            return self.log.lock().push((operation, said));
        }
        let (limit, leaves) = match operation.wish {
            Wish::Ask(limit) => (limit, None),
            Wish::AskAndLeave(leaves) => (plan::PATIENCE, Some(leaves)),
            Wish::Tell => unreachable!("that was dealt with"),
        };
        let client = self.client.clone();
        let mut asking: Asking = Box::pin(async move { said(client.ask_raw(to, &payload, limit).await) });
        // It is sent when it is first polled: here, so that the order is this one.
        let first = poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx))).await;
        let left = leaves.map(|leaves| Instant::now() + leaves);
        self.log.lock().push((operation, Said::Left));
        let (log, trace, garbles) = (self.log.clone(), self.trace.clone(), self.garbles);
        asks.spawn(async move {
            let mut said = match (first, left) {
                (Poll::Ready(said), _) => said,
                (Poll::Pending, None) => asking.await,
                (Poll::Pending, Some(left)) => tokio::select! {
                    biased;
                    said = asking => said,
                    () = sleep_until(left) => Said::Left,
                },
            };
            if let (true, Said::Reply(bytes)) = (garbles, &mut said) {
                bytes[8] ^= 1;
            }
            trace.event(format_args!("{id:?} heard {said:?}"));
            log.lock()[place].1 = said;
        });
    }

    async fn flush(&self) {
        if let Err(error) = self.client.flush().await {
            self.trace.event(format_args!("client {} flushes: {error}", self.source));
        }
    }
}

pub(crate) fn said(answer: Result<Vec<u8>, AskError>) -> Said {
    match answer {
        Ok(reply) => Said::Reply(reply),
        Err(AskError::NotHandled { reason, .. }) => Said::Error(reason),
        Err(AskError::ConnectionLost { .. }) => Said::Error(Reason::ConnectionLost),
        Err(AskError::Deadline { .. }) => Said::Deadline,
        Err(AskError::NotSent(_)) => Said::NotSent,
        Err(error @ AskError::Reply { .. }) => Said::Nonsense(error.to_string()),
    }
}

/// Dead letters in memory; on purpose, one may be forgotten.
struct Letters {
    kept: InMemory,
    forgets: bool,
}

impl Letters {
    fn all(&self) -> Vec<DeadLetter> {
        let kept = self.kept.list(&Filter::default(), usize::MAX).expect("memory can be read");
        kept.letters.into_iter().rev().map(|(_, letter)| letter).collect()
    }
}

impl DeadLetters for Letters {
    fn append(&self, letters: &[DeadLetter]) -> Result<(), ringhold_storage::dead_letters::Error> {
        match letters.split_first() {
            Some((_, rest)) if self.forgets => self.kept.append(rest),
            _ => self.kept.append(letters),
        }
    }

    fn count(&self) -> u64 {
        self.kept.count()
    }

    fn list(&self, filter: &Filter, limit: usize) -> Result<Listed, ringhold_storage::dead_letters::Error> {
        self.kept.list(filter, limit)
    }

    fn remove(&self, numbers: &BTreeSet<u64>, why: Removal) -> u64 {
        self.kept.remove(numbers, why)
    }

    fn totals(&self) -> Totals {
        self.kept.totals()
    }

    fn flush(&self) -> Result<(), ringhold_storage::dead_letters::Error> {
        Ok(())
    }
}
