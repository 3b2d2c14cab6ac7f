//! Drives flights through a node as any client would: streams them, waits, and reads every state back.

use std::time::{Duration, Instant};

use ringhold_cluster::wire::{DeviceKind, DeviceStatus, Request, Response};
use ringhold_kernels::id::ActorId;
use ringhold_kernels::message::Reason;
use tokio::task::{JoinError, JoinSet};

use super::chaos::{self, Chaos, Recovery};
use super::feed;
use super::flights::Flight;
use super::report::thousands;
use super::states::States;
use crate::client::{self, Client};
use crate::progress::{Progress, Unit};

/// What a run over a node came to.
pub struct Driven {
    pub found: States,
    /// From the first flight told to the last message handled.
    pub streaming: Duration,
    /// Messages that the devices say they handled.
    pub handled: u64,
    /// Actors that exist, as the devices count them.
    pub actors: u64,
    /// The devices, for people and programs.
    pub device: String,
    /// Of the devices, where there was chaos.
    pub recoveries: Option<Vec<Recovery>>,
}

/// Why the flights did not get through.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Chaos(#[from] chaos::Error),
    #[error("the node still had {queued} messages queued after {} s; `ringhold status` shows where", waited.as_secs())]
    Unsettled { queued: u64, waited: Duration },
    #[error("the node answered {asked} with something else")]
    Strange { asked: &'static str },
    #[error("the node's state of {0:?} is not of the layout that this build has")]
    Layout(ActorId),
}

/// How long the actors may take to finish after the last flight was told.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// For each request about states and devices.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// States asked for at a time. More wait in QUIC, which opens no more streams than the node allows.
const INSPECTIONS_AT_ONCE: usize = 32;
/// Flights between two looks at the progress.
const PROGRESS_STEP: u64 = 512;

/// Streams all flights, at most `rate` a second and through what chaos there is, and returns the states of `actors` that exist after the last
/// message was handled.
pub async fn drive(
    client: &Client,
    flights: &[Flight],
    rate: Option<u32>,
    chaos: Option<Chaos>,
    actors: &[ActorId],
) -> Result<Driven, Error> {
    let before = devices(client).await?;
    let started = Instant::now();
    let recoveries = stream(client, flights, rate, chaos).await?;
    let settled = client.settle(SETTLE_LIMIT).await?;
    let streaming = started.elapsed();
    if !settled.settled {
        return Err(Error::Unsettled { queued: settled.queued, waited: SETTLE_LIMIT });
    }
    let after = devices(client).await?;
    let handled = |devices: &[DeviceStatus]| devices.iter().map(|device| device.handled).sum::<u64>();
    Ok(Driven {
        found: read_back(client, actors).await?,
        streaming,
        handled: handled(&after).saturating_sub(handled(&before)),
        actors: after.iter().map(|device| device.actors).sum(),
        device: name(&after),
        recoveries,
    })
}

/// Returns the recoveries from chaos, where there is any.
async fn stream(
    client: &Client,
    flights: &[Flight],
    rate: Option<u32>,
    mut chaos: Option<Chaos>,
) -> Result<Option<Vec<Recovery>>, Error> {
    let unit = Unit { text: |count| thousands(count as i64), what: "flights" };
    let mut progress = Progress::new(flights.len() as u64, unit, Duration::ZERO);
    let mut recoveries = Vec::new();
    let mut under_way = JoinSet::new();
    let started = Instant::now();
    // Paced flights go a hundredth of a second's worth at a time.
    let step = rate.map_or(PROGRESS_STEP, |rate| (rate as u64 / 100).clamp(1, PROGRESS_STEP));
    for ((aircraft, message), number) in feed::messages(flights).zip(1u64..) {
        client.tell(aircraft, message).await?;
        while let Some(blow) = chaos.as_mut().and_then(|chaos| chaos.due(number)) {
            // One blow at a time. Flights stream while a device recovers, but not past the next blow.
            recovered(under_way.join_next().await, &progress, &mut recoveries)?;
            under_way.spawn(blow);
        }
        if number % step == 0 {
            progress.at(number);
            recovered(under_way.try_join_next(), &progress, &mut recoveries)?;
            if let Some(rate) = rate {
                let due = started + Duration::from_secs_f64(number as f64 / rate as f64);
                tokio::time::sleep_until(due.into()).await;
            }
        }
    }
    recovered(under_way.join_next().await, &progress, &mut recoveries)?;
    Ok(chaos.map(|_| recoveries))
}

/// Shows a recovery, where there was one, and takes it down.
fn recovered(
    joined: Option<Result<Result<Recovery, chaos::Error>, JoinError>>,
    progress: &Progress,
    recoveries: &mut Vec<Recovery>,
) -> Result<(), Error> {
    let Some(joined) = joined else { return Ok(()) };
    let recovery = joined.expect("a blow neither panics nor is aborted while it is waited for")?;
    progress.say(&recovery.to_string());
    recoveries.push(recovery);
    Ok(())
}

/// The states of these actors; those that do not exist are left out.
async fn read_back(client: &Client, actors: &[ActorId]) -> Result<States, Error> {
    let mut found = States::default();
    let mut waiting = actors.iter();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < INSPECTIONS_AT_ONCE
            && let Some(id) = waiting.next()
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

async fn devices(client: &Client) -> Result<Vec<DeviceStatus>, Error> {
    match client.request(Request::Devices, REQUEST_LIMIT).await? {
        Response::Devices(devices) => Ok(devices),
        _ => Err(Error::Strange { asked: "a request for its devices" }),
    }
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
