//! A cluster of the demo's own: nodes on this machine, each a process of this binary as `ringhold node start` runs it.
//!
//! [`Nodes::start`] returns when the cluster can lose any one of them: each votes, each has shards, and what each device commits is
//! on another node too. They end with this process, however that ends.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ringhold_cluster::control::admin;
use ringhold_cluster::control::state::NodeNumber;
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{self, Files, Identity, Role};
use ringhold_cluster::wire::{Request, Response};
use ringhold_kernels::actor::Actor;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::actors::{aircraft, airport, carrier};
use super::drive::Watched;
use crate::client::{self, Client};
use crate::config::{self, Config, DeviceKind};
use crate::shipped::counter;

/// What the nodes are called, and so how many there are.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// For a node to say where it listens.
const UP_LIMIT: Duration = Duration::from_secs(60);
/// For the nodes to agree, to share the shards, and to have copies of each other.
const READY_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Of cores, each node wants two, and the client too. On a machine with fewer a node may well be silent for longer than the default.
const CORES: usize = 2 * (NAMES.len() + 1);
const LEASE: Duration = Duration::from_secs(1);
/// Nobody starts them again, so nothing is lost with what is not finished.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// From SIGTERM to SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const TOKEN_VALID_S: u64 = 600;
/// What errors have of a node's log.
const LOG_LINES: usize = 8;

/// Why there is no such cluster, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("node `{name}` cannot be started: {why}")]
    Start { name: &'static str, why: io::Error },
    #[error("node `{name}` did not come up: {why}")]
    NotUp { name: &'static str, why: String },
    #[error("node `{name}` ended by itself ({status})")]
    Ended { name: &'static str, status: ExitStatus },
    #[error("the nodes were not ready within {} s: {missing}", READY_LIMIT.as_secs())]
    NotReady { missing: String },
    #[error("the demo cannot look after its nodes: {0}")]
    Identity(#[from] tls::Error),
    #[error("the demo cannot look after node `{name}`: {why}")]
    Client { name: &'static str, why: Box<client::Error> },
    #[error("node `{name}` answered another question than it was asked")]
    Strange { name: &'static str },
}

/// One of the nodes.
pub struct Node {
    pub name: &'static str,
    pub number: NodeNumber,
    pub address: String,
    pid: Pid,
    /// What looks after it, and knows whether it was killed.
    pub watched: Arc<Watched>,
}

/// The nodes, killed when dropped.
pub struct Nodes {
    folder: PathBuf,
    processes: Vec<(&'static str, Child)>,
    nodes: Vec<Arc<Node>>,
}

impl Nodes {
    /// None yet. Each is to have a folder, a configuration and a log in this one.
    pub fn new(folder: &Path) -> Nodes {
        Nodes { folder: folder.into(), processes: Vec::new(), nodes: Vec::new() }
    }

    /// Starts the first, has the others join it, and waits until all of them share the work and have copies of it.
    pub async fn start(&mut self) -> Result<(), Error> {
        let [first, others @ ..] = NAMES;
        self.spawn(first, None)?;
        let address = self.listens(0).await?;
        let founder = self.watch(first, &address).await?.client;
        for name in others {
            let request = admin::Request::Token { valid_s: TOKEN_VALID_S };
            let admin::Response::Token { text, .. } = ask(first, &founder, request).await? else {
                return Err(Error::Strange { name: first });
            };
            let token = self.folder.join(format!("{name}.token"));
            std::fs::write(&token, text).map_err(|why| Error::Start { name, why })?;
            self.spawn(name, Some((&address, &token)))?;
        }
        let mut addresses = vec![address];
        for index in 1..NAMES.len() {
            addresses.push(self.listens(index).await?);
        }
        let status = ready(first, &founder).await?;
        for ((name, process), address) in self.processes.iter().zip(addresses) {
            let gone = || Error::NotUp { name, why: "it is gone again".into() };
            let pid = process.id().and_then(|pid| Pid::from_raw(pid as i32)).ok_or_else(gone)?;
            let number = status.nodes.iter().find(|node| node.name == *name).ok_or_else(gone)?.number;
            let watched = Arc::new(self.watch(name, &address).await?);
            self.nodes.push(Arc::new(Node { name, number, address, pid, watched }));
        }
        Ok(())
    }

    pub fn all(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The certificate of a client on this machine.
    pub fn identity(&self) -> Result<Identity, tls::Error> {
        let tls = self.data_dir(NAMES[0]).join("tls");
        Identity::load(Files::client(&tls), Role::Client, &RealNetwork)
    }

    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Resolves once a node has ended that nobody killed.
    pub async fn ended(&mut self) -> Error {
        loop {
            for ((name, process), node) in self.processes.iter_mut().zip(&self.nodes) {
                match process.try_wait() {
                    Ok(Some(status)) if !node.watched.is_gone() => return Error::Ended { name, status },
                    _ => {}
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The last lines of each node's log.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for (name, _) in &self.processes {
            let log = std::fs::read(self.log(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            text += &format!("\nthe log of node `{name}` ends with:");
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                text += &format!("\n  {line}");
            }
        }
        text
    }

    /// Ends all in good order, and those by force that do not end so in time.
    pub async fn stop(self) {
        let processes = || self.processes.iter();
        for pid in processes().filter_map(|(_, process)| Pid::from_raw(process.id()? as i32)) {
            // One that is gone already needs none.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for (_, mut process) in self.processes {
            if timeout_at(deadline, process.wait()).await.is_err() {
                // It waits, too: nothing writes into the folder any more.
                let _ = process.kill().await;
            }
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn spawn(&mut self, name: &'static str, join: Option<(&str, &Path)>) -> Result<(), Error> {
        let failed = |why| Error::Start { name, why };
        let file = self.folder.join(format!("{name}.toml"));
        std::fs::write(&file, config(name, self.data_dir(name)).to_toml()).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["node", "start", "--json", "--config"]).arg(file);
        command.args(["--listen", &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string()]);
        if let Some((address, token)) = join {
            command.args(["--join", address, "--token"]).arg(token);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.log(name)).map_err(failed)?)
            // A Ctrl-C in the terminal is for the demo, which ends its nodes in good order.
            .process_group(0)
            .kill_on_drop(true);
        // The kernel looks at the thread that forks: it is the one that waits for the whole demo.
        // SAFETY: between fork and exec only `prctl` is called.
        unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
        self.processes.push((name, command.spawn().map_err(failed)?));
        Ok(())
    }

    /// Waits until a node says where it listens.
    async fn listens(&mut self, index: usize) -> Result<String, Error> {
        let (name, process) = &mut self.processes[index];
        let stdout: ChildStdout = process.stdout.take().expect("it is piped, and taken once");
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let not_up = |why: String| Error::NotUp { name, why };
        match timeout(UP_LIMIT, stdout.read_line(&mut line)).await {
            Err(_) => return Err(not_up(format!("it said nothing for {} s", UP_LIMIT.as_secs()))),
            Ok(read) => read.map_err(|why| not_up(why.to_string()))?,
        };
        let said: Value = serde_json::from_str(&line).unwrap_or_default();
        match said["listening"].as_str() {
            Some(address) => Ok(address.into()),
            None => Err(not_up(said["error"]["message"].as_str().unwrap_or("it does not say why").into())),
        }
    }

    async fn watch(&self, name: &'static str, address: &str) -> Result<Watched, Error> {
        let options = client::Options { admin: true, ..client::Options::new(address, self.identity()?) };
        Watched::connect(options).await.map_err(|why| Error::Client { name, why: Box::new(why) })
    }
}

impl Node {
    /// What it knows of its cluster.
    pub async fn status(&self) -> Result<admin::Status, Error> {
        status(self.name, &self.watched.client).await
    }

    /// The shards of a node's devices.
    pub async fn shards_of(&self, node: NodeNumber) -> Result<Vec<u32>, Error> {
        let devices = self.status().await?.devices;
        let is_its = |number| devices.iter().any(|device| device.node == node && Some(device.number) == number);
        match ask(self.name, &self.watched.client, admin::Request::Shards).await? {
            admin::Response::Shards(owned) => Ok(owned
                .into_iter()
                .filter(|owned| is_its(owned.device))
                .flat_map(|owned| owned.shards)
                .flatten()
                .collect()),
            _ => Err(Error::Strange { name: self.name }),
        }
    }

    /// SIGKILL.
    pub fn kill(&self) -> io::Result<()> {
        self.watched.set_gone();
        Ok(kill_process(self.pid, Signal::KILL)?)
    }
}

/// What a node of the demo is told that a node is not by default.
fn config(name: &str, data_dir: PathBuf) -> Config {
    let mut config = Config::default();
    config.node.name = Some(name.into());
    config.node.data_dir = data_dir;
    if std::thread::available_parallelism().map_or(1, |cores| cores.get()) < CORES {
        config.node.lease = LEASE;
    }
    config.node.drain_timeout = DRAIN_TIMEOUT;
    config.devices.0[0] = config::Device { kind: DeviceKind::Cpu, workers: Some(1), ..Default::default() };
    // Nothing is lost with a node, and nothing done twice; and an answer says that this holds for it.
    let committed = [aircraft::Actor::NAME, airport::Actor::NAME, carrier::Actor::NAME, counter::Actor::NAME];
    config.actors.committed = committed.map(Into::into).to_vec();
    config
}

/// Waits until all nodes vote, have shards, and have their devices' checkpoints copied.
async fn ready(name: &'static str, founder: &Client) -> Result<admin::Status, Error> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let status = status(name, founder).await?;
        let Some(missing) = missing(&status) else { return Ok(status) };
        if Instant::now() >= deadline {
            return Err(Error::NotReady { missing: missing.to_string() });
        }
        match missing {
            Missing::Shards => share(name, founder).await?,
            Missing::Voters(_) | Missing::Copy(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// What a cluster lacks that is to lose a node: the first of these.
enum Missing {
    /// So many vote.
    Voters(usize),
    /// A device has none, and all are there.
    Shards,
    /// Nobody has one of what a device of this node has committed.
    Copy(NodeNumber),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Voters(voters) => write!(f, "{voters} of {} vote", NAMES.len()),
            Missing::Shards => f.write_str("not all have shards"),
            Missing::Copy(node) => write!(f, "nobody has a copy of what node {node} has"),
        }
    }
}

fn missing(status: &admin::Status) -> Option<Missing> {
    let votes = |node: &&admin::Node| matches!(node.role, admin::Role::Leader | admin::Role::Voter);
    let voters = status.nodes.iter().filter(votes).count();
    if voters < NAMES.len() {
        return Some(Missing::Voters(voters));
    }
    if status.devices.iter().any(|device| device.shards == 0) {
        return Some(Missing::Shards);
    }
    let alone = status.devices.iter().find(|device| device.in_sync.len() < 2);
    alone.map(|device| Missing::Copy(device.node))
}

/// Moves shards as `ringhold cluster rebalance` does.
async fn share(name: &'static str, founder: &Client) -> Result<(), Error> {
    let admin::Response::Plans(plans) = ask(name, founder, admin::Request::Plan { node: None }).await? else {
        return Err(Error::Strange { name });
    };
    for to_do in plans.into_iter().filter_map(|of| of.plan.ok()).flat_map(|plan| plan.moves) {
        ask(name, founder, admin::Request::Migrate { shards: to_do.shards, to: to_do.to }).await?;
    }
    Ok(())
}

async fn status(name: &'static str, client: &Client) -> Result<admin::Status, Error> {
    let request = admin::Request::Status { within_ms: REQUEST_LIMIT.as_millis() as u64 / 2 };
    match ask(name, client, request).await? {
        admin::Response::Status(status) => Ok(*status),
        _ => Err(Error::Strange { name }),
    }
}

async fn ask(name: &'static str, client: &Client, request: admin::Request) -> Result<admin::Response, Error> {
    match client.request(Request::Cluster(request), REQUEST_LIMIT).await {
        Ok(Response::Cluster(answer)) => Ok(answer),
        Ok(_) => Err(Error::Strange { name }),
        Err(why) => Err(Error::Client { name, why: Box::new(why) }),
    }
}
