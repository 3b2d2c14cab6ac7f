//! The demo from beginning to end: a node of its own, the flights through it, the check.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{self, Files, Identity, Role};
use ringhold_kernels::actor::Actor;
use ringhold_kernels::registry::Registry;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::actors::{aircraft, airport, carrier};
use super::chaos::{self, Chaos};
use super::drive::{self, Driven, drive};
use super::flights::{self, Flight};
use super::reference::Reference;
use super::report::Run;
use crate::client::{self, Client};
use crate::config::{Config, DeviceKind};
use crate::node::{self, Environment, Node};

/// What the demo can be told.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// Take only this many of the flights: the year's first
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub flights: Option<u32>,

    /// Send at most so many flights a second, to have time to look on
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,

    /// While the flights stream, kill and hang the node's device hosts at random moments; every state is checked all the
    /// same
    #[arg(long)]
    pub chaos: bool,

    /// What runs the actors: auto (a GPU, else the CPU), cpu, cuda, or emulated (a GPU's ring kernel run by threads; needs
    /// a C++ compiler, and is slow)
    #[arg(long, value_name = "KIND", value_parser = device_kind)]
    pub device: Option<DeviceKind>,
}

fn device_kind(word: &str) -> Result<DeviceKind, String> {
    let found = DeviceKind::ALL.into_iter().find(|(known, _)| *known == word);
    found.map(|(_, kind)| kind).ok_or_else(|| {
        let words: Vec<_> = DeviceKind::ALL.iter().map(|(word, _)| *word).collect();
        format!("must be one of {}", words.join(", "))
    })
}

/// What the demo found out.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether every state is as expected.
    pub passed: bool,
    /// For programs.
    pub json: Value,
    /// For people: tables and the verdict.
    pub text: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the demo's flights cannot be read: {0}")]
    Flights(#[from] flights::Error),
    #[error("this binary does not have the demo's actor type `{0}`: register the types of `ringhold::shipped`")]
    NotRegistered(&'static str),
    #[error("the demo could not make a folder for its node: {0}")]
    Folder(io::Error),
    #[error("the demo could not start: {0}")]
    Start(io::Error),
    #[error("the demo's node did not start: {0}")]
    Node(#[from] node::Error),
    #[error("the demo's client did not connect: {0}")]
    Identity(#[from] tls::Error),
    #[error("the demo's client did not connect: {0}")]
    Connect(client::Error),
    #[error("the flights did not get through: {0}")]
    Drive(#[from] drive::Error),
    #[error("no chaos: {0}")]
    Chaos(#[from] chaos::Error),
    #[error("interrupted: the demo's node was stopped in good order, and nothing was checked")]
    Interrupted,
}

/// Of the node that chaos is done to.
const STALLED_AFTER: Duration = Duration::from_millis(500);
const BACKOFF: Duration = Duration::from_millis(10);
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the demo with a node in this process, whose device host is a process of its own. The registry is the
/// binary's own. SIGINT and SIGTERM end it early, with [`Error::Interrupted`].
pub fn run(options: &Options, registry: Registry) -> Result<Report, Error> {
    for (type_id, name) in [
        (aircraft::Actor::TYPE, aircraft::Actor::NAME),
        (airport::Actor::TYPE, airport::Actor::NAME),
        (carrier::Actor::TYPE, carrier::Actor::NAME),
    ] {
        registry.get(type_id).ok_or(Error::NotRegistered(name))?;
    }
    let mut flights = flights::shipped()?;
    flights.truncate(options.flights.map_or(usize::MAX, |count| count as usize));
    let reference = Reference::of(&flights);

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Start)?;
    let driven = runtime.block_on(with_node(&flights, options, &reference, registry))?;

    let mut check = reference.states.check(&driven.found);
    check.strays(driven.actors.saturating_sub(reference.states.len() as u64));
    let run = Run {
        flights: &flights,
        found: &driven.found,
        check: &check,
        messages: driven.handled,
        messages_expected: reference.messages,
        streaming: driven.streaming,
        device: driven.device,
        recoveries: driven.recoveries,
    };
    Ok(Report { passed: check.passed(), json: run.json(), text: run.text() })
}

/// Starts a node in a folder of its own, drives the flights through it, and stops it.
async fn with_node(
    flights: &[Flight],
    options: &Options,
    reference: &Reference,
    registry: Registry,
) -> Result<Driven, Error> {
    // From here on a signal interrupts; it does not kill.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Start)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Start)?;

    let folder = tempfile::Builder::new().prefix("ringhold-demo-").tempdir().map_err(Error::Folder)?;
    let mut config = Config::default();
    config.node.data_dir = folder.path().into();
    config.node.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.devices.0[0].kind = options.device.unwrap_or(DeviceKind::Auto);
    let rate = options.rate;
    if options.chaos {
        // What is done to the hosts is no fault of theirs: the next one need not wait, and a hang ends soon.
        config.supervision.stalled_after = STALLED_AFTER;
        (config.supervision.restart_backoff_min, config.supervision.restart_backoff_max) = (BACKOFF, BACKOFF);
        // A stream of seconds is to see checkpoints between the blows too.
        config.checkpoints.interval = CHECKPOINT_INTERVAL;
    }
    let node = Node::start(&config, registry, Environment::real(&config)?).await?;

    if rate.is_some() {
        let (address, folder) = (node.address(), folder.path().display());
        // Where standard error is closed, there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "to look on from another terminal: ringhold status --address {address} --data-dir {folder}"
        );
    }

    let chaos = match options.chaos {
        true => Some(Chaos::new(node.router().devices(), Arc::new(RealNetwork), flights.len() as u64)),
        false => None,
    };
    let actors = reference.states.ids();
    let driven = tokio::select! {
        biased;
        _ = interrupt.recv() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
        driven = async {
            let client = connect(&node, folder.path()).await?;
            let driven = drive(&client, flights, rate, chaos, &actors).await?;
            client.close().await.map_err(drive::Error::Client)?;
            Ok(driven)
        } => driven,
    };
    node.drain().await;
    driven
}

async fn connect(node: &Node, folder: &Path) -> Result<Client, Error> {
    let identity = Identity::load(Files::client(&folder.join("tls")), Role::Client, &RealNetwork)?;
    let options = client::Options::new(node.address().to_string(), identity).with::<aircraft::Actor>();
    Client::connect(options).await.map_err(Error::Connect)
}
