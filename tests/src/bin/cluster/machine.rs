//! Nodes on this machine, each a process with device hosts of its own, and clients of theirs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringhold::Key;
use ringhold::client::{Client, Options};
use ringhold_cluster::control::admin::{self, Migrated, Status};
use ringhold_cluster::control::state::{DeviceNumber, NodeNumber};
use ringhold_cluster::wire::{Request, Response};
use ringhold_kernels::outbox::{SHARDS, shard_of};

use crate::Failure;
use crate::actors::{cell, pair};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster in a folder of its own, which goes with it.
pub struct Cluster {
    // Before its folder.
    pub nodes: Vec<Node>,
    folder: tempfile::TempDir,
    settings: Settings,
}

/// What all its nodes are told.
#[derive(Clone, Copy)]
pub struct Settings {
    pub lease: Duration,
    /// Whether cells are of a committed type.
    pub committed: bool,
}

/// A running node, killed when dropped.
pub struct Node {
    pub process: Child,
    pub address: String,
    pub data: PathBuf,
    pub number: NodeNumber,
}

impl Cluster {
    /// So many nodes that know each other, three of which vote if there are three. The shards are all of the first one's.
    pub async fn start(count: usize, settings: Settings) -> Result<Cluster, Failure> {
        let mut cluster = Cluster { nodes: Vec::new(), folder: tempfile::tempdir()?, settings };
        for number in 1..=count {
            let node = cluster.start_node(number as NodeNumber).await.map_err(|e| cluster.with_logs(e))?;
            cluster.nodes.push(node);
        }
        let voters = if count < 3 { 1 } else { 3 };
        let vote = |status: &Status| {
            let voters_now =
                status.nodes.iter().filter(|node| matches!(node.role, admin::Role::Voter | admin::Role::Leader));
            status.agreed && status.nodes.len() == count && voters_now.count() == voters
        };
        cluster.until("all vote", vote).await?;
        Ok(cluster)
    }

    async fn start_node(&self, number: NodeNumber) -> Result<Node, Failure> {
        let name = format!("n{number}");
        let path = |what: &str| self.folder.path().join(format!("{name}{what}"));
        let (config, data, log) = (path(".toml"), path(""), path(".log"));
        let committed = if self.settings.committed { "\"cell\"" } else { "" };
        fs::write(
            &config,
            format!(
                "[node]\nname = \"{name}\"\nlease = \"{}ms\"\n[actors]\ncommitted = [{committed}]\n[[devices]]\nkind = \"cpu\"\n\
                 workers = 1\n",
                self.settings.lease.as_millis()
            ),
        )?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", "start", "--json", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
        command.arg("--config").arg(&config);
        if let Some(first) = self.nodes.first() {
            let client = first.client().await?;
            let token = match ask(&client, admin::Request::Token { valid_s: 600 }).await? {
                admin::Response::Token { text, .. } => text,
                other => return Err(format!("{other:?}").into()),
            };
            fs::write(path(".token"), token)?;
            command.args(["--join", &first.address, "--token"]).arg(path(".token"));
        }
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(log)?).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(address) = said["listening"].as_str().map(String::from) else {
            let _ = process.kill();
            let _ = process.wait();
            return Err(format!("node {number} did not start: {line}").into());
        };
        Ok(Node { process, address, data, number })
    }

    /// An error with what the nodes have logged.
    pub fn with_logs(&self, error: impl std::fmt::Display) -> Failure {
        let logs: String = (1..=self.nodes.len() + 1)
            .filter_map(|number| {
                let log = fs::read_to_string(self.folder.path().join(format!("n{number}.log"))).ok()?;
                Some(format!("\nthe log of node {number}:\n{log}"))
            })
            .collect();
        format!("{error}{logs}").into()
    }

    /// The folder with the certificates of the first node.
    pub fn tls(&self) -> PathBuf {
        self.nodes[0].data.join("tls")
    }

    /// A client of these nodes, the first of them first, that knows where the others are.
    pub async fn client(&self, nodes: &[usize]) -> Result<Client, Failure> {
        let addresses = nodes.iter().map(|node| self.nodes[*node].address.clone()).collect();
        let mut options = options(&self.nodes[0])?;
        options.addresses = addresses;
        Ok(Client::connect(options).await?)
    }

    /// Looks at the cluster until this is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Result<Status, Failure> {
        let client = self.nodes[0].client().await?;
        let since = Instant::now();
        loop {
            if let Ok(status) = status(&client).await
                && is_so(&status)
            {
                return Ok(status);
            }
            if since.elapsed() > PATIENCE {
                return Err(self.with_logs(format!("it never came to it that {what}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Deals all shards out among the devices, as many to each, and says who has which by their first ones.
    pub async fn deal(&self) -> Result<(), Failure> {
        let client = self.nodes[0].client().await?;
        let devices = status(&client).await?.devices;
        let (first, each) = (devices[0].number, SHARDS as u32 / devices.len() as u32);
        for (place, device) in (0..).zip(&devices).filter(|(_, device)| device.number != first) {
            migrate(&client, place * each..(place + 1) * each, device.number).await?;
        }
        Ok(())
    }

    /// The node that has each shard.
    pub async fn owners(&self) -> Result<Vec<NodeNumber>, Failure> {
        let client = self.nodes[0].client().await?;
        let nodes: BTreeMap<DeviceNumber, NodeNumber> =
            status(&client).await?.devices.iter().map(|device| (device.number, device.node)).collect();
        let owned = match ask(&client, admin::Request::Shards).await? {
            admin::Response::Shards(owned) => owned,
            other => return Err(format!("{other:?}").into()),
        };
        let mut owners = vec![0; SHARDS];
        for of in owned {
            for shard in of.shards.into_iter().flatten() {
                owners[shard as usize] = of.device.and_then(|device| nodes.get(&device).copied()).unwrap_or(0);
            }
        }
        Ok(owners)
    }
}

impl Node {
    pub async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(options(self)?).await?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn options(node: &Node) -> Result<Options, Failure> {
    let mut options = Options::from_data_dir(node.address.clone(), Path::new(&node.data))?
        .with::<cell::Actor>()
        .with::<pair::Actor>();
    options.ask_deadline = PATIENCE;
    Ok(options)
}

/// Asks the cluster.
pub async fn ask(client: &Client, request: admin::Request) -> Result<admin::Response, Failure> {
    match client.request(Request::Cluster(request), PATIENCE).await? {
        Response::Cluster(response) => Ok(response),
        other => Err(format!("{other:?}").into()),
    }
}

pub async fn status(client: &Client) -> Result<Status, Failure> {
    match ask(client, admin::Request::Status { within_ms: 2_000 }).await? {
        admin::Response::Status(status) => Ok(*status),
        other => Err(format!("{other:?}").into()),
    }
}

pub async fn migrate(client: &Client, shards: std::ops::Range<u32>, to: DeviceNumber) -> Result<Migrated, Failure> {
    match ask(client, admin::Request::Migrate { shards: vec![shards], to }).await? {
        admin::Response::Migrated(migrated) => Ok(migrated),
        other => Err(format!("{other:?}").into()),
    }
}

/// The shard of an actor.
pub fn shard(key: u64) -> usize {
    shard_of(Key(key)) as usize
}
