//! The demo from beginning to end: nodes of its own, the flights through them, the check.

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
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::actors::{aircraft, airport, carrier};
use super::chaos::{self, Chaos};
use super::drive::{self, Driven, Harm, Watched, drive};
use super::failover::{self, Kill};
use super::flights::{self, Flight};
use super::nodes::{self, Nodes};
use super::reference::Reference;
use super::report::Run;
use crate::client::{self, Client};
use crate::config::{Config, DeviceKind};
use crate::node::{self, Environment, Node};
use crate::shipped::counter;

/// What the demo can be told.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// 3: nodes of a cluster, each a process of its own, one of which is killed half-way; 1: a single one
    /// [default: 3; 1 with --chaos, and with a --device other than cpu]
    #[arg(long, value_name = "COUNT", value_parser = node_count)]
    pub nodes: Option<usize>,

    /// Take only this many of the flights: the year's first
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub flights: Option<u32>,

    /// Send at most so many flights a second, to have time to look on
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,

    /// While the flights stream, kill and hang the one node's device hosts at random moments; every state is checked all
    /// the same
    #[arg(long)]
    pub chaos: bool,

    /// What runs the actors: cpu; or, of one node, auto (a GPU, else the CPU), cuda, or emulated (a GPU's ring kernel run by
    /// threads; needs a C++ compiler, and is slow)
    #[arg(long, value_name = "KIND", value_parser = device_kind)]
    pub device: Option<DeviceKind>,
}

impl Options {
    /// How many nodes there are to be.
    fn count(&self) -> Result<usize, Error> {
        // Several nodes have a CPU device each, and chaos is done to a node in this process.
        let alone = match self.device {
            _ if self.chaos => Some("--chaos"),
            Some(DeviceKind::Auto | DeviceKind::Cuda | DeviceKind::Emulated) => Some("--device with anything but cpu"),
            Some(DeviceKind::Cpu) | None => None,
        };
        match (self.nodes, alone) {
            (Some(count), Some(what)) if count > 1 => Err(Error::OneNode(what)),
            (Some(count), _) => Ok(count),
            (None, Some(_)) => Ok(1),
            (None, None) => Ok(nodes::NAMES.len()),
        }
    }
}

fn node_count(word: &str) -> Result<usize, String> {
    let count = word.parse().ok().filter(|count| [1, nodes::NAMES.len()].contains(count));
    count.ok_or_else(|| format!("must be 1 or {}", nodes::NAMES.len()))
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
    #[error("{0} is for one node: say --nodes 1, or leave --nodes out")]
    OneNode(&'static str),
    #[error("the demo could not make a folder for its nodes: {0}")]
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
    #[error(transparent)]
    Nodes(#[from] nodes::Error),
    #[error(transparent)]
    Failover(#[from] failover::Error),
    #[error("{why}{logs}")]
    WithLogs { why: Box<Error>, logs: String },
    #[error("interrupted: the demo's nodes were stopped in good order, and nothing was checked")]
    Interrupted,
}

/// Of the node that chaos is done to.
const STALLED_AFTER: Duration = Duration::from_millis(500);
const BACKOFF: Duration = Duration::from_millis(10);
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the demo: with a cluster of processes of this binary, or with one node in this process, whose device host is a process of its
/// own. The registry is the binary's own. SIGINT and SIGTERM end it early, with [`Error::Interrupted`].
pub fn run(options: &Options, registry: Registry) -> Result<Report, Error> {
    let count = options.count()?;
    for (type_id, name) in [
        (aircraft::Actor::TYPE, aircraft::Actor::NAME),
        (airport::Actor::TYPE, airport::Actor::NAME),
        (carrier::Actor::TYPE, carrier::Actor::NAME),
        (counter::Actor::TYPE, counter::Actor::NAME),
    ] {
        registry.get(type_id).ok_or(Error::NotRegistered(name))?;
    }
    let mut flights = flights::shipped()?;
    flights.truncate(options.flights.map_or(usize::MAX, |count| count as usize));
    let reference = Reference::of(&flights);

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Start)?;
    let driven = runtime.block_on(async {
        match count {
            1 => with_node(&flights, options, &reference, registry).await,
            _ => with_nodes(&flights, options, &reference).await,
        }
    })?;

    let mut check = reference.states.check(&driven.found);
    check.strays(driven.actors.saturating_sub(reference.states.len() as u64));
    let run = Run {
        flights: &flights,
        found: &driven.found,
        check: &check,
        nodes: count,
        messages: driven.handled.unwrap_or_else(|| driven.found.messages()),
        messages_expected: reference.messages,
        streaming: driven.streaming,
        device: driven.device,
        recoveries: driven.met.recoveries,
        failover: driven.met.failover,
    };
    Ok(Report { passed: check.passed(), json: run.json(), text: run.text() })
}

/// Once it is there a signal interrupts, and does not kill.
struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    fn new() -> Result<Interrupt, Error> {
        let listen = |kind| signal(kind).map_err(Error::Start);
        Ok(Interrupt { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Does the work unless a signal comes first.
    async fn or<T>(&mut self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Err(Error::Interrupted),
            _ = self.terminate.recv() => Err(Error::Interrupted),
            done = work => done,
        }
    }
}

/// Starts a node in a folder of its own, drives the flights through it, and stops it.
async fn with_node(
    flights: &[Flight],
    options: &Options,
    reference: &Reference,
    registry: Registry,
) -> Result<Driven, Error> {
    let mut interrupt = Interrupt::new()?;
    let folder = folder()?;
    let mut config = Config::default();
    config.node.data_dir = folder.path().into();
    config.node.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.devices.0[0].kind = options.device.unwrap_or(DeviceKind::Auto);
    if options.chaos {
        // What is done to the hosts is no fault of theirs: the next one need not wait, and a hang ends soon.
        config.supervision.stalled_after = STALLED_AFTER;
        (config.supervision.restart_backoff_min, config.supervision.restart_backoff_max) = (BACKOFF, BACKOFF);
        // A stream of seconds is to see checkpoints between the blows too.
        config.checkpoints.interval = CHECKPOINT_INTERVAL;
    }
    let node = Node::start(&config, registry, Environment::real(&config)?).await?;
    let address = node.address().to_string();
    invite(options, &address, folder.path());

    let harm = match options.chaos {
        true => Harm::Chaos(Chaos::new(node.router().devices(), Arc::new(RealNetwork), flights.len() as u64)),
        false => Harm::None,
    };
    let driven = interrupt
        .or(async {
            let identity = Identity::load(Files::client(&folder.path().join("tls")), Role::Client, &RealNetwork)?;
            let admin = client::Options { admin: true, ..client::Options::new(&address, identity.clone()) };
            let client = connect([address], identity).await?;
            let watched = [Arc::new(Watched::connect(admin).await.map_err(Error::Connect)?)];
            let driven = drive(&client, &watched, flights, options.rate, harm, &reference.states.ids()).await?;
            client.close().await.map_err(drive::Error::Client)?;
            Ok(driven)
        })
        .await;
    node.drain().await;
    driven
}

/// Starts a cluster of processes, drives the flights through it while one of them is killed, and stops it.
async fn with_nodes(flights: &[Flight], options: &Options, reference: &Reference) -> Result<Driven, Error> {
    let mut interrupt = Interrupt::new()?;
    let folder = folder()?;
    let mut nodes = Nodes::new(folder.path());
    let driven = interrupt
        .or(async {
            nodes.start().await?;
            let first = &nodes.all()[0];
            invite(options, &first.address, &nodes.data_dir(first.name));
            let addresses: Vec<String> = nodes.all().iter().map(|node| node.address.clone()).collect();
            let watched: Vec<_> = nodes.all().iter().map(|node| node.watched.clone()).collect();
            let kill = Kill::new(&nodes, nodes.identity()?, flights.len() as u64).await?;
            let client = connect(addresses, nodes.identity()?).await?;
            let (harm, actors) = (Harm::Kill(Some(kill)), reference.states.ids());
            let driven = tokio::select! {
                biased;
                driven = drive(&client, &watched, flights, options.rate, harm, &actors) => driven?,
                ended = nodes.ended() => return Err(ended.into()),
            };
            Ok(driven)
        })
        .await;
    // What they said before they were told to stop.
    let logs = nodes.logs();
    nodes.stop().await;
    driven.map_err(|why| match why {
        Error::Interrupted => why,
        why => Error::WithLogs { why: Box::new(why), logs },
    })
}

fn folder() -> Result<TempDir, Error> {
    tempfile::Builder::new().prefix("ringhold-demo-").tempdir().map_err(Error::Folder)
}

/// Says how to look on, where there is time to.
fn invite(options: &Options, address: &str, data_dir: &Path) {
    if options.rate.is_some() {
        let folder = data_dir.display();
        // Where standard error is closed, there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "to look on from another terminal: ringhold status --address {address} --data-dir {folder}"
        );
    }
}

/// A client of the node at the first address that answers, and so of its cluster.
async fn connect(addresses: impl IntoIterator<Item = String>, identity: Identity) -> Result<Client, Error> {
    let mut options = client::Options::new("", identity).with::<aircraft::Actor>();
    options.addresses = addresses.into_iter().collect();
    Client::connect(options).await.map_err(Error::Connect)
}
