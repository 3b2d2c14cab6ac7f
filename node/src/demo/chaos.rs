//! What `--chaos` does while the flights stream: device hosts are killed and hung, at random moments.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ringhold_cluster::network::Network;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};

use crate::device::Device;
use crate::device::places::Places;

/// What is done to a device host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGKILL while a checkpoint of the device is being made: the node chooses the moment.
    KillInCheckpoint,
    /// SIGSTOP: the process stays, and does nothing any more.
    Hang,
}

/// A device host that was struck, and the one in its place.
#[derive(Clone, Debug)]
pub struct Recovery {
    blow: Blow,
    device: String,
    /// From the signal until the device ran again with what it had.
    pub took: Duration,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = match self.blow {
            Blow::Kill => "killed the host of device",
            Blow::KillInCheckpoint => "killed, while a checkpoint was being made, the host of device",
            Blow::Hang => "hung the host of device",
        };
        write!(f, "chaos: {done} `{}`: it ran again after {} ms", self.device, self.took.as_millis())
    }
}

/// Why a device could not be struck, or did not come back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the host of device `{0}` cannot be sent a signal: {1}")]
    Signal(String, rustix::io::Errno),
    #[error("device `{device}` did not run again within {} s", LIMIT.as_secs())]
    NotBack { device: String },
}

/// What is done to whom, and when: so many flights from the first.
pub struct Chaos {
    devices: Vec<Arc<Device>>,
    network: Arc<dyn Network>,
    due: VecDeque<(u64, Blow)>,
}

/// How long a device may take until it runs again.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a checkpoint is waited for; where nothing happens, none is made.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// What is done, in an order that is drawn.
const BLOWS: [Blow; 5] = [Blow::Kill, Blow::Kill, Blow::KillInCheckpoint, Blow::Hang, Blow::Hang];

impl Chaos {
    /// One blow at a random flight of each fifth of them.
    pub fn new(devices: &Places, network: Arc<dyn Network>, flights: u64) -> Chaos {
        let mut blows = BLOWS;
        for last in (1..blows.len()).rev() {
            blows.swap(last, random(&*network, last as u64 + 1) as usize);
        }
        let stretch = flights / blows.len() as u64;
        let moment = |number| number * stretch + random(&*network, stretch.max(1)) + 1;
        let due = (0..).map(moment).zip(blows).collect();
        Chaos { devices: devices.iter().cloned().collect(), network, due }
    }

    /// What is due now that so many flights are on their way.
    pub fn due(&mut self, sent: u64) -> Option<impl Future<Output = Result<Recovery, Error>> + Send + use<>> {
        let (_, blow) = self.due.pop_front_if(|(at, _)| *at <= sent)?;
        let device = &self.devices[random(&*self.network, self.devices.len() as u64) as usize];
        Some(strike(device.clone(), blow))
    }
}

fn random(network: &dyn Network, below: u64) -> u64 {
    let mut bytes = [0; 8];
    network.random(&mut bytes);
    u64::from_le_bytes(bytes) % below
}

/// Strikes the device's host, and waits until the device runs again.
async fn strike(device: Arc<Device>, mut blow: Blow) -> Result<Recovery, Error> {
    let name = device.name.clone();
    let old = runs(&device, None).await?;
    if blow == Blow::KillInCheckpoint {
        let begun = async {
            while !device.is_making_checkpoint() {
                sleep(LOOK_EVERY).await;
            }
        };
        if timeout(CHECKPOINT_LIMIT, begun).await.is_err() {
            blow = Blow::Kill;
        }
    }
    let struck = Instant::now();
    let signal = if blow == Blow::Hang { Signal::STOP } else { Signal::KILL };
    kill_process(old, signal).map_err(|e| Error::Signal(name.clone(), e))?;
    // Interrupted meanwhile, the demo ends in good order, with its hosts.
    let _hung = (blow == Blow::Hang).then_some(Hung(old));
    runs(&device, Some(old)).await?;
    Ok(Recovery { blow, device: name, took: struck.elapsed() })
}

/// Waits until the device runs, in another process than `old`, and says in which.
async fn runs(device: &Device, old: Option<Pid>) -> Result<Pid, Error> {
    let running = async {
        loop {
            if let Some(pid) = device.running_pid().and_then(|pid| Pid::from_raw(pid as i32))
                && Some(pid) != old
            {
                return pid;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(LIMIT, running).await.map_err(|_| Error::NotBack { device: device.name.clone() })
}

/// A process that goes on when this is dropped, if there still is one.
struct Hung(Pid);

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}
