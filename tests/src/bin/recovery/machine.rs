//! The machine, the nodes on it, and clients of theirs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringhold::Key;
use ringhold::client::{Client, Options};
use ringhold::config::Config;
use ringhold::device::Device;
use ringhold::node::{Environment, Node};
use ringhold_cluster::wire::{DeviceStatus, Request, Response};

use crate::actors::cell;
use crate::{Failure, registry};

pub const PATIENCE: Duration = Duration::from_secs(120);

/// One line of what this machine is.
pub fn print() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("machine: {cores} cores, {model}; load when it began: {}", load.trim());
}

/// A node in this process with one CPU device of one worker, whose host is a process.
pub struct Here {
    pub node: Node,
    pub client: Client,
    pub folder: tempfile::TempDir,
}

impl Here {
    pub async fn start(change: impl FnOnce(&mut Config)) -> Result<Here, Failure> {
        let folder = tempfile::tempdir()?;
        let mut config = Config::default();
        config.node.data_dir = folder.path().into();
        config.node.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.devices.0[0].kind = ringhold::config::DeviceKind::Cpu;
        config.devices.0[0].workers = Some(1);
        change(&mut config);
        let node = Node::start(&config, registry(), Environment::real(&config)?).await?;
        let client = connect(&node.address().to_string(), folder.path()).await?;
        Ok(Here { node, client, folder })
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.node.router().devices()[0]
    }

    pub async fn end(self) -> Result<(), Failure> {
        self.client.close().await?;
        self.node.drain().await;
        Ok(())
    }
}

async fn connect(address: &str, data: &Path) -> Result<Client, Failure> {
    let mut options = Options::from_data_dir(address, data)?.with::<cell::Actor>();
    options.ask_deadline = PATIENCE;
    Ok(Client::connect(options).await?)
}

/// Tells every `step`th of so many cells to change, and waits until all have.
pub async fn touch(client: &Client, cells: u64, step: u64) -> Result<(), Failure> {
    for key in (0..cells).step_by(step as usize) {
        client.tell(Key(key), cell::Message::Touch).await?;
    }
    match client.settle(PATIENCE).await?.settled {
        true => Ok(()),
        false => Err("the cells did not settle".into()),
    }
}

/// A node in a process of its own, killed when dropped.
pub struct There {
    pub process: Child,
    address: String,
    data: PathBuf,
}

impl There {
    /// Starts one on the folder's `data`, with one device of this kind. It makes a checkpoint every second, and leaves a GPU at
    /// its first failure.
    pub fn start(folder: &Path, kind: &str) -> Result<There, Failure> {
        let (config, data) = (folder.join("node.toml"), folder.join("data"));
        fs::write(
            &config,
            format!(
                "[[devices]]\nkind = \"{kind}\"\nworkers = 1\n[supervision]\nrestart_backoff_max = \"100ms\"\n\
                 breaker_failures = 1\nbreaker_retry_min = \"1h\"\nbreaker_retry_max = \"1h\"\n"
            ),
        )?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["node", "start", "--json", "--listen", "127.0.0.1:0", "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let said: serde_json::Value = serde_json::from_str(&line)?;
        let address = said["listening"].as_str().ok_or("the node did not start: see its log")?.to_owned();
        Ok(There { process, address, data })
    }

    pub async fn client(&self) -> Result<Client, Failure> {
        connect(&self.address, &self.data).await
    }
}

impl Drop for There {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub async fn status(client: &Client) -> Result<DeviceStatus, Failure> {
    match client.request(Request::Devices, PATIENCE).await? {
        Response::Devices(mut devices) => Ok(devices.remove(0)),
        other => Err(format!("{other:?}").into()),
    }
}

/// Waits until a checkpoint has everything that there is.
pub async fn covered(client: &Client) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let checkpoints = status(client).await?.checkpoints.ok_or("the device makes no checkpoints")?;
        if checkpoints.count > 0 && checkpoints.retained_bytes == 0 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("no checkpoint has everything: {checkpoints:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
