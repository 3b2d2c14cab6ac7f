//! Drives flights through nodes as any client would: streams them, waits, and reads every state back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ringhold_cluster::network::BoxFuture;
use ringhold_cluster::wire::{self, DeviceKind, DeviceStatus, Request, Response};
use ringhold_kernels::id::ActorId;
use ringhold_kernels::message::Reason;
use tokio::task::{JoinError, JoinSet};

use super::chaos::{self, Chaos, Recovery};
use super::failover::{self, Failover, Kill};
use super::feed;
use super::flights::Flight;
use super::report::thousands;
use super::states::States;
use crate::client::{self, Client};
use crate::progress::{Progress, Unit};

/// What a run over one node or several came to.
pub struct Driven {
    pub found: States,
    /// From the first flight told to the last message handled.
    pub streaming: Duration,
    /// Messages that the devices say they handled; `None` where a node was killed, and what it had counted with it.
    pub handled: Option<u64>,
    /// Actors that exist, as the devices count them.
    pub actors: u64,
    /// The devices at first, for people and programs.
    pub device: String,
    pub met: Met,
}

/// What is done to the nodes while the flights stream.
pub enum Harm {
    None,
    Chaos(Chaos),
    Kill(Option<Kill>),
}

/// What they have survived.
#[derive(Default)]
pub struct Met {
    /// Of devices, where there was chaos.
    pub recoveries: Option<Vec<Recovery>>,
    /// Of a node, where one was killed.
    pub failover: Option<Failover>,
}

/// A node that is driven, and who asks it how it does.
pub struct Watched {
    pub client: Client,
    options: client::Options,
    gone: AtomicBool,
}

impl Watched {
    /// Connects to the node at the address of these.
    pub async fn connect(options: client::Options) -> Result<Watched, client::Error> {
        let client = Client::connect(options.clone()).await?;
        Ok(Watched { client, options, gone: AtomicBool::new(false) })
    }

    /// Nobody asks it anything any more: it was killed.
    pub fn set_gone(&self) {
        self.gone.store(true, SeqCst);
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(SeqCst)
    }
}

/// Why the flights did not get through.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Chaos(#[from] chaos::Error),
    #[error(transparent)]
    Failover(#[from] failover::Error),
    #[error("the nodes still had {queued} messages queued after {} s; `ringhold status` shows where", waited.as_secs())]
    Unsettled { queued: u64, waited: Duration },
    #[error("a node answered {asked} with something else")]
    Strange { asked: &'static str },
    #[error("the state of {0:?} is not of the layout that this build has")]
    Layout(ActorId),
}

/// How long the actors may take to finish after the last flight was told.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// For each request about states and devices.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Clients that read states, for each node: of a committed type each answer waits for a checkpoint, so the more are asked for at a time,
/// the fewer of those are waited for.
const READERS: usize = 4;
/// Flights between two looks at the progress.
const PROGRESS_STEP: u64 = 512;

/// Streams all flights, at most `rate` a second and through what harm there is, and returns the states of `actors` that exist after the
/// last message was handled.
pub async fn drive(
    client: &Client,
    nodes: &[Arc<Watched>],
    flights: &[Flight],
    rate: Option<u32>,
    harm: Harm,
    actors: &[ActorId],
) -> Result<Driven, Error> {
    let before = devices(nodes).await?;
    let started = Instant::now();
    let met = stream(client, flights, rate, harm).await?;
    settle(client, nodes).await?;
    let streaming = started.elapsed();
    let after = devices(nodes).await?;
    let counted = !nodes.iter().any(|node| node.is_gone());
    Ok(Driven {
        found: read_back(nodes, actors).await?,
        streaming,
        handled: counted.then(|| handled(&after).saturating_sub(handled(&before))),
        actors: after.iter().map(|device| device.actors).sum(),
        device: name(&before),
        met,
    })
}

/// Returns what came of the harm.
async fn stream(client: &Client, flights: &[Flight], rate: Option<u32>, mut harm: Harm) -> Result<Met, Error> {
    let unit = Unit { text: |count| thousands(count as i64), what: "flights" };
    let mut progress = Progress::new(flights.len() as u64, unit, Duration::ZERO);
    let recoveries = matches!(harm, Harm::Chaos(_)).then(Vec::new);
    let mut met = Met { recoveries, failover: None };
    let mut under_way = JoinSet::new();
    let started = Instant::now();
    // Paced flights go a hundredth of a second's worth at a time.
    let step = rate.map_or(PROGRESS_STEP, |rate| (rate as u64 / 100).clamp(1, PROGRESS_STEP));
    for ((aircraft, message), number) in feed::messages(flights).zip(1u64..) {
        client.tell(aircraft, message).await?;
        while let Some(blow) = harm.due(number) {
            // One blow at a time. Flights stream while a device recovers, but not past the next blow.
            survived(under_way.join_next().await, &progress, &mut met)?;
            under_way.spawn(blow);
        }
        if number % step == 0 {
            progress.at(number);
            survived(under_way.try_join_next(), &progress, &mut met)?;
            if let Some(rate) = rate {
                let due = started + Duration::from_secs_f64(number as f64 / rate as f64);
                tokio::time::sleep_until(due.into()).await;
            }
        }
    }
    survived(under_way.join_next().await, &progress, &mut met)?;
    Ok(met)
}

/// One blow that was survived.
enum Survived {
    Recovery(Recovery),
    Failover(Failover),
}

impl fmt::Display for Survived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Survived::Recovery(recovery) => recovery.fmt(f),
            Survived::Failover(failover) => failover.fmt(f),
        }
    }
}

impl Harm {
    /// What is due now that so many flights are on their way.
    fn due(&mut self, sent: u64) -> Option<BoxFuture<'static, Result<Survived, Error>>> {
        match self {
            Harm::None => None,
            Harm::Chaos(chaos) => {
                let blow = chaos.due(sent)?;
                Some(Box::pin(async { Ok(Survived::Recovery(blow.await?)) }))
            }
            Harm::Kill(kill) => {
                let kill = kill.take_if(|kill| kill.after() <= sent)?;
                Some(Box::pin(async { Ok(Survived::Failover(kill.strike().await?)) }))
            }
        }
    }
}

/// Shows what was survived, where there was something, and takes it down.
fn survived(
    joined: Option<Result<Result<Survived, Error>, JoinError>>,
    progress: &Progress,
    met: &mut Met,
) -> Result<(), Error> {
    let Some(joined) = joined else { return Ok(()) };
    let survived = joined.expect("a blow neither panics nor is aborted while it is waited for")?;
    progress.say(&survived.to_string());
    match survived {
        Survived::Recovery(recovery) => met.recoveries.get_or_insert_default().push(recovery),
        Survived::Failover(failover) => met.failover = Some(failover),
    }
    Ok(())
}

/// Waits until no message is left anywhere: on its way to a node, in one, or from one to another.
async fn settle(client: &Client, nodes: &[Arc<Watched>]) -> Result<(), Error> {
    client.flush().await?;
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut last = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let request = Request::Settle { timeout_ms: left.as_millis() as u64 };
        let mut queued = 0;
        for node in nodes.iter().filter(|node| !node.is_gone()) {
            match node.client.request(request.clone(), left + REQUEST_LIMIT).await? {
                Response::Settled(settled) if settled.settled => {}
                Response::Settled(settled) => queued += settled.queued.max(1),
                _ => return Err(Error::Strange { asked: "whether it has settled" }),
            }
        }
        if queued > 0 {
            return Err(Error::Unsettled { queued, waited: SETTLE_LIMIT });
        }
        // Each had nothing to do when it was asked, which was not at one time. Where nobody has handled anything from one such round
        // to the next, none sent another anything in between.
        let now = handled(&devices(nodes).await?);
        if last.replace(now) == Some(now) {
            return Ok(());
        }
    }
}

/// The states of these actors; those that do not exist are left out. Each node is asked for some of them, whoever has them.
async fn read_back(nodes: &[Arc<Watched>], actors: &[ActorId]) -> Result<States, Error> {
    let mut clients = Vec::new();
    for node in nodes.iter().filter(|node| !node.is_gone()) {
        for _ in 0..READERS {
            clients.push(Client::connect(node.options.clone()).await?);
        }
    }
    let mut found = States::default();
    let mut waiting = actors.iter().zip(clients.iter().cycle());
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < clients.len() * wire::REQUESTS_MAX as usize
            && let Some((id, client)) = waiting.next()
        {
            under_way.spawn(inspect(client.clone(), *id));
        }
        let Some(inspected) = under_way.join_next().await else { return Ok(found) };
        let (id, state) = inspected.expect("an inspection neither panics nor is aborted while it is waited for")?;
        if let Some(state) = state
            && !found.insert(id, &state)
        {
            return Err(Error::Layout(id));
        }
    }
}

async fn inspect(client: Client, id: ActorId) -> Result<(ActorId, Option<Vec<u8>>), Error> {
    let request = Request::Inspect { type_id: id.type_id, key: id.key.into() };
    match client.request(request, REQUEST_LIMIT).await {
        Ok(Response::Inspected(actor)) => Ok((id, Some(actor.state))),
        Ok(_) => Err(Error::Strange { asked: "a request for a state" }),
        Err(client::Error::Failed(failed)) if failed.reason() == Some(Reason::NoActor) => Ok((id, None)),
        Err(error) => Err(error.into()),
    }
}

/// Of all nodes that were not killed.
async fn devices(nodes: &[Arc<Watched>]) -> Result<Vec<DeviceStatus>, Error> {
    let mut all = Vec::new();
    for node in nodes.iter().filter(|node| !node.is_gone()) {
        match node.client.request(Request::Devices, REQUEST_LIMIT).await? {
            Response::Devices(devices) => all.extend(devices),
            _ => return Err(Error::Strange { asked: "a request for its devices" }),
        }
    }
    Ok(all)
}

fn handled(devices: &[DeviceStatus]) -> u64 {
    devices.iter().map(|device| device.handled).sum()
}

/// `cpu (2 workers)`; several devices are joined by `, `.
fn name(devices: &[DeviceStatus]) -> String {
    let one = |device: &DeviceStatus| {
        let kind = match device.kind {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Cuda => "cuda",
            DeviceKind::Emulated => "emulated",
        };
        let workers = device.workers.len();
        format!("{kind} ({workers} worker{})", if workers == 1 { "" } else { "s" })
    };
    devices.iter().map(one).collect::<Vec<_>>().join(", ")
}
