//! `node start`, and the hidden role of a device host.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use ringhold_cluster::control::Dismissed;
use ringhold_kernels::message::payload_bytes_max;
use ringhold_kernels::registry::Registry;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::exit::{self, Failure};
use super::output::{self, Output};
use super::{Globals, config};
use crate::config::{Config, DeviceKind, Log, Overrides};
use crate::device::cuda::Place;
use crate::device::host;
use crate::device::machine::Machine;
use crate::logs;
use crate::node::{Environment, Node};

/// How a node is started.
pub struct Start {
    pub listen: Option<SocketAddr>,
    pub join: Vec<String>,
    pub token: Option<PathBuf>,
}

pub fn start(
    globals: &Globals,
    Start { listen, join, token }: Start,
    registry: Registry,
    output: Output,
) -> Result<u8, Failure> {
    let overrides = Overrides { listen, join, ..config::overrides(globals) };
    let config = Config::load(globals.config.as_deref(), &overrides)?;
    logs::start(&Log { level: logs::raised(config.log.level, globals.verbose), ..config.log.clone() });
    warn_of_wide_messages(&config, &registry);
    // The other half of the cores is the devices'.
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).max(1))
        .enable_all()
        .build()
        .map_err(|error| failed(&format!("the node cannot start its threads: {error}")))?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        if let Some(token) = &token {
            tokio::select! {
                enrolled = super::cluster::enrol(&config, token) => enrolled?,
                name = signals.next() => {
                    info!("{name} before the node had been let join: it ends. If its token is refused the next time, have another made");
                    return Ok(exit::OK);
                }
            }
        }
        serve(&config, registry, signals, output).await
    })
}

async fn serve(config: &Config, registry: Registry, mut signals: Signals, output: Output) -> Result<u8, Failure> {
    let environment = Environment::real(config).map_err(|error| failed(&error))?;
    let node = tokio::select! {
        node = Node::start(config, registry, environment) => node.map_err(|error| failed(&error))?,
        name = signals.next() => {
            info!("{name} before the node was up: nothing to finish");
            return Ok(exit::OK);
        }
    };
    let address = node.address();
    info!("node {} listens on {address}, process {}", node.id(), std::process::id());
    if let Some(address) = node.health_address() {
        info!("how it does is told at http://{address}: /live, /ready, /devices");
    }
    if output.json {
        let health = node.health_address().map(|address| address.to_string());
        let pid = std::process::id();
        let listening = json!({"listening": address.to_string(), "node": node.id(), "pid": pid, "health": health});
        output::print(&format!("{listening}\n"));
    }
    let why = tokio::select! {
        name = signals.next() => name,
        () = node.drain_asked() => "a client's request",
        why = node.failed() => {
            let what = "the node ends at once, and goes on from its last checkpoints when it is started again";
            return Err(failed(&format!("{why}: {what}. This is a bug of Ringhold: its log has the panic")));
        }
        why = node.dismissed() => return Err(failed(&match why {
            Dismissed::GivenUp => {
                "the node was silent for longer than its lease, and its cluster has given it up: other nodes go on with its devices. It \
                 ends at once; started again, it is a member as before, with devices that have no actors yet"
            }
            Dismissed::Removed => {
                "the node was removed from its cluster, and ends. To join again it needs an empty data folder and another token"
            }
        })),
    };
    info!("{why}: the node takes nothing new and finishes what it has; a signal now ends it at once");
    let drained = tokio::select! {
        drained = node.drain() => drained,
        name = signals.next() => return Err(failed(&format!("{name} while the node finished what it had: it ended at once"))),
    };
    if !drained.complete {
        return Err(failed(&format!(
            "the node could not finish what it had in {} ms: {} asks are unanswered. `node.drain_timeout` gives it longer",
            drained.took.as_millis(),
            drained.unanswered
        )));
    }
    info!("the node finished what it had in {} ms", drained.took.as_millis());
    Ok(exit::OK)
}

fn failed(error: &impl ToString) -> Failure {
    Failure::new(exit::FAILED, error.to_string())
}

/// A type whose messages never fit is known now; the sender would be told one by one.
fn warn_of_wide_messages(config: &Config, registry: &Registry) {
    let max = payload_bytes_max(config.queues.slot_bytes as usize);
    for actor in registry.types() {
        for (what, bytes) in [("messages", actor.message_bytes), ("replies", actor.reply_bytes)] {
            if bytes > max {
                warn!(
                    "the {what} of `{}` take {bytes} bytes, and slots of {} bytes take {max}: none of them can be \
                     delivered until queues.slot_bytes is raised",
                    actor.schema.name, config.queues.slot_bytes
                );
            }
        }
    }
}

/// The signals that ask a node to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Failure> {
        let listen = |kind| signal(kind).map_err(|error| failed(&format!("signals cannot be received: {error}")));
        Ok(Signals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Serves a device for the node that started this process with these descriptors.
pub fn device_host(mut arguments: impl Iterator<Item = String>, registry: Registry) -> Result<u8, Failure> {
    logs::start(&Log::default());
    let mut given = || {
        let kind = arguments.next()?;
        let (_, kind) = DeviceKind::ALL.into_iter().find(|(word, _)| *word == kind)?;
        let mut number = || arguments.next()?.parse::<u64>().ok();
        let (gpu, sharers, memory_bytes) = (number()? as u32, number()? as u32, number()?);
        let place = Place { gpu, sharers, memory_bytes: (memory_bytes > 0).then_some(memory_bytes) };
        let kernels = PathBuf::from(arguments.next()?);
        let fds: Option<Vec<OwnedFd>> = arguments.by_ref().map(|text| inherited(text.parse().ok()?)).collect();
        Some((kind, place, kernels, fds?))
    };
    let by_hand = || Failure::usage(format!("`{}` is started by a node, not by hand", host::ROLE));
    let (kind, place, kernels, fds) = given().ok_or_else(by_hand)?;
    host::serve(kind, place, &kernels, fds, registry)
        .map_err(|failed| Failure::new(failed.ending.code(), failed.message))?;
    Ok(exit::OK)
}

/// A descriptor that the node left open for this process.
fn inherited(fd: RawFd) -> Option<OwnedFd> {
    if fd <= 2 {
        return None;
    }
    // SAFETY: it is looked at and not kept; one that is not open is an error.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).ok()?;
    // SAFETY: it is open, and nothing in this process has opened any yet: it is the node's gift, named once.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Says what GPUs there are to the node that started this process.
pub fn gpu_probe() -> u8 {
    let machine = serde_json::to_string(&Machine::look(false)).expect("a machine is maps with text for keys");
    output::print(&machine);
    exit::OK
}
