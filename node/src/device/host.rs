//! What runs a device: a process of its own, threads of this one, or (in the simulator) a task.
//!
//! The node sees a device through its segment alone. Here is only what starts and ends whoever serves that segment,
//! and the bells by which the two wake each other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::time::Duration;

use ringhold_cluster::network::BoxFuture;
use ringhold_cluster::placement;
use ringhold_kernels::bell::{Bell, EventBell};
use ringhold_kernels::clock::Clock;
use ringhold_kernels::cpu;
use ringhold_kernels::emulated::{Failure, Program};
use ringhold_kernels::registry::Registry;
use ringhold_kernels::ring_kernel::{self, Plan};
use ringhold_kernels::segment::Segment;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::cuda::{self, Failed, Place};
use super::ending::Ending;
use super::supervisor::Over;
use crate::config::{self, DeviceKind};

/// The node's own bell: rung by workers, awaited by a task.
pub trait NodeBell: Bell {
    /// Resolves once the bell has been rung since this last did.
    fn rung(&self) -> BoxFuture<'_, ()>;
}

/// The bells of one device.
#[derive(Clone)]
pub struct DeviceBells {
    pub workers: Arc<Vec<Arc<dyn Bell>>>,
    pub node: Arc<dyn NodeBell>,
}

/// Whoever serves a device's segment, one term after the other.
pub trait DeviceHost: Send {
    fn bells(&self) -> DeviceBells;

    /// Starts a host for the segment's term. The last one must be over. Returns the process, if it has its own.
    fn start(&mut self, segment: &Arc<Segment>) -> io::Result<Option<u32>>;

    /// Resolves once the host is over.
    fn over(&mut self) -> BoxFuture<'_, Over>;

    /// Ends the host at once, if that is possible. `over` resolves when it has ended.
    fn kill(&mut self);

    /// Whether its workers go on by another shard table when they are asked to. Those of a ring kernel read theirs once, as they
    /// begin.
    fn switches(&self) -> bool {
        true
    }
}

/// A device, with everything decided that the configuration leaves to the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub device: config::Device,
    /// Why it cannot be had, if so.
    pub unusable: Option<String>,
    /// What it goes on with where it fails, in this order.
    pub fallbacks: Vec<config::Device>,
    /// Where it is, as far as that is known: of its own GPU, though it may go on with something else.
    pub place: placement::Place,
}

/// Makes device hosts: chosen once, in `main` or by the simulator.
pub trait Devices: Send + Sync {
    /// The devices that there are to be. Where only CPU devices can be had, that is which are.
    fn plan(&self, devices: &config::Devices) -> Result<Vec<Planned>, super::Error> {
        let decided = |device: &config::Device| Planned {
            device: match device.kind {
                DeviceKind::Auto => config::Device { kind: DeviceKind::Cpu, ..device.clone() },
                _ => device.clone(),
            },
            unusable: None,
            fallbacks: Vec::new(),
            place: placement::Place::default(),
        };
        Ok(devices.0.iter().map(decided).collect())
    }

    /// A host for one of the planned devices or of their fallbacks, of which `sharers` are on its GPU, if it has one.
    fn host(
        &self,
        config: &config::Device,
        sharers: u32,
        workers: usize,
        registry: &Arc<Registry>,
    ) -> io::Result<Box<dyn DeviceHost>>;
}

/// The devices of a real machine.
#[derive(Default)]
pub struct RealDevices {
    /// Where compiled ring kernels are kept. CPU devices need none.
    pub kernels: PathBuf,
}

impl Devices for RealDevices {
    fn plan(&self, devices: &config::Devices) -> Result<Vec<Planned>, super::Error> {
        Ok(cuda::plan(devices))
    }

    fn host(
        &self,
        config: &config::Device,
        sharers: u32,
        workers: usize,
        registry: &Arc<Registry>,
    ) -> io::Result<Box<dyn DeviceHost>> {
        Ok(match config.host {
            config::Host::Process => {
                let place = Place { gpu: config.gpu, sharers, memory_bytes: config.memory_bytes };
                Box::new(ProcessHost::new(config.kind, place, &self.kernels, workers)?)
            }
            config::Host::InProcess => Box::new(ThreadHost::new(workers, registry.clone())?),
        })
    }
}

/// A bell rung inside one process.
#[derive(Default)]
pub struct NotifyBell(Notify);

impl Bell for NotifyBell {
    fn ring(&self) {
        self.0.notify_one();
    }
}

impl NodeBell for NotifyBell {
    fn rung(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.notified())
    }
}

/// A bell rung by another process.
struct FdBell {
    bell: EventBell,
    readable: AsyncFd<OwnedFd>,
}

impl FdBell {
    fn new() -> io::Result<FdBell> {
        let bell = EventBell::new()?;
        // SAFETY: the descriptor is open, and owned by the `AsyncFd` alone until it is dropped.
        let readable =
            unsafe { AsyncFd::register_with_interest(bell.fd().try_clone()?, tokio::io::Interest::READABLE)? };
        Ok(FdBell { bell, readable })
    }
}

impl Bell for FdBell {
    fn ring(&self) {
        self.bell.ring();
    }
}

impl NodeBell for FdBell {
    fn rung(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // An error here means that the runtime is going away; whoever waits goes with it.
            if let Ok(mut guard) = self.readable.readable().await {
                self.bell.clear();
                guard.clear_ready();
            }
        })
    }
}

/// A process of this same binary in the role `device-host`.
struct ProcessHost {
    kind: DeviceKind,
    place: Place,
    kernels: PathBuf,
    own: Vec<Arc<EventBell>>,
    node: Arc<FdBell>,
    child: Option<tokio::process::Child>,
    /// The host ends when this end of the pipe is closed: with the node, however the node ends.
    pipe: Option<tokio::process::ChildStdin>,
}

/// The name of the hidden role, and its arguments: the kind of the device, its GPU and how many devices share that, the bytes of
/// memory that it is to take or 0, the folder of compiled ring kernels, and the descriptors of the segment, of the node's bell, and of the workers' bells in order.
pub const ROLE: &str = "device-host";

impl ProcessHost {
    fn new(kind: DeviceKind, place: Place, kernels: &Path, workers: usize) -> io::Result<ProcessHost> {
        let own = (0..workers).map(|_| EventBell::new().map(Arc::new)).collect::<io::Result<_>>()?;
        let kernels = std::path::absolute(if kernels.as_os_str().is_empty() { Path::new(".") } else { kernels })?;
        Ok(ProcessHost { kind, place, kernels, own, node: Arc::new(FdBell::new()?), child: None, pipe: None })
    }
}

impl DeviceHost for ProcessHost {
    fn bells(&self) -> DeviceBells {
        let workers = self.own.iter().map(|bell| bell.clone() as Arc<dyn Bell>).collect();
        DeviceBells { workers: Arc::new(workers), node: self.node.clone() }
    }

    fn start(&mut self, segment: &Arc<Segment>) -> io::Result<Option<u32>> {
        let fds: Vec<RawFd> = [segment.fd().as_raw_fd(), self.node.bell.fd().as_raw_fd()]
            .into_iter()
            .chain(self.own.iter().map(|bell| bell.fd().as_raw_fd()))
            .collect();
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command
            .arg(ROLE)
            .arg(self.kind.word())
            .args([self.place.gpu, self.place.sharers].map(|number| number.to_string()))
            .arg(self.place.memory_bytes.unwrap_or(0).to_string())
            .arg(&self.kernels)
            .args(fds.iter().map(RawFd::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A Ctrl-C in the terminal is for the node, which drains first.
            .process_group(0);
        // SAFETY: between fork and exec only `fcntl` is called, on descriptors that the parent keeps open.
        unsafe { command.pre_exec(move || fds.iter().try_for_each(|fd| keep_over_exec(*fd))) };
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        let pid = child.id();
        // Taken out of the child, whose `wait` would close it.
        self.pipe = child.stdin.take();
        self.child = Some(child);
        Ok(pid)
    }

    fn over(&mut self) -> BoxFuture<'_, Over> {
        Box::pin(async {
            let Some(child) = &mut self.child else { return std::future::pending().await };
            let over = match child.wait().await {
                Ok(status) => describe(status),
                Err(e) => format!("could not be waited for: {e}").into(),
            };
            (self.child, self.pipe) = (None, None);
            over
        })
    }

    fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // It fails only when the process is gone already.
            let _ = child.start_kill();
        }
    }

    fn switches(&self) -> bool {
        match self.kind {
            DeviceKind::Auto | DeviceKind::Cpu => true,
            DeviceKind::Cuda | DeviceKind::Emulated => false,
        }
    }
}

/// Clears close-on-exec.
fn keep_over_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open in the parent, and so in the child.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
}

fn describe(status: ExitStatus) -> Over {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            // What a program does to itself; others are sent from outside.
            let own = [Signal::ILL, Signal::TRAP, Signal::ABORT, Signal::BUS, Signal::FPE, Signal::SEGV];
            let blames = own.iter().any(|own| own.as_raw() == signal);
            Over { blames, ..format!("killed by signal {signal}").into() }
        }
        (None, Some(code)) => Ending::from(code).into(),
        (None, None) => "ended in a way the system did not tell".into(),
    }
}

/// The role `device-host`: serves the segment behind the descriptors until told to stop, or until the node is gone.
pub fn serve(
    kind: DeviceKind,
    place: Place,
    kernels: &Path,
    fds: Vec<OwnedFd>,
    registry: Registry,
) -> Result<(), Failed> {
    let failed = |message: String| Failed::new(Ending::Failed, message);
    let registry = Arc::new(registry);
    let mut fds = fds.into_iter();
    let (Some(segment), Some(node)) = (fds.next(), fds.next()) else {
        return Err(failed(format!("`{ROLE}` is started by a node, which hands over its descriptors")));
    };
    let segment = Segment::open(segment, registry.layout_hash()).map_err(|e| failed(e.to_string()))?;
    let own: Vec<_> = fds.map(|fd| Arc::new(EventBell::from_fd(fd))).collect();
    if own.len() != segment.shape().workers as usize {
        return Err(failed(format!("{} bells were handed over for {} workers", own.len(), segment.shape().workers)));
    }
    let node: Arc<dyn Bell> = Arc::new(EventBell::from_fd(node));
    match kind {
        DeviceKind::Cuda => {
            let gone = Arc::new(AtomicBool::new(false));
            let told = gone.clone();
            // A process that ends under a running kernel can leave its GPU in disorder: the kernel is ended first.
            std::thread::spawn(move || {
                wait_for_end_of_node();
                told.store(true, Release);
            });
            return cuda::serve(place, &segment, &registry, kernels, node, &gone);
        }
        DeviceKind::Auto | DeviceKind::Cpu | DeviceKind::Emulated => std::thread::spawn(|| {
            wait_for_end_of_node();
            std::process::exit(0)
        }),
    };
    if kind == DeviceKind::Emulated {
        let plan =
            Plan::divide(place.memory_bytes.unwrap_or(EMULATED_BYTES), EMULATED_THREADS, &registry, segment.shape());
        let source = ring_kernel::source(&registry, segment.shape(), &plan).map_err(|e| failed(e.to_string()))?;
        let program = Program::compile(&source, &[], kernels).map_err(|e| failed(e.to_string()))?;
        let host = Arc::new(program).start(&segment, node).map_err(|e| failed(e.to_string()))?;
        return host.join().map_err(|e| match e {
            Failure::OutOfMemory | Failure::RestoreOutOfMemory => Failed::new(Ending::OutOfMemory, e.to_string()),
            Failure::Kernel(_) | Failure::Host(_) => failed(e.to_string()),
        });
    }
    let clock: Arc<dyn Clock> = Arc::new(segment.host_clock());
    cpu::start(&segment, &registry, own, node, &clock).map_err(|e| failed(e.to_string()))?.join().map_err(failed)
}

/// What an emulated device has, unless it is told: memory, taken from the system as it is touched, and threads of each block.
const EMULATED_BYTES: u64 = 1 << 30;
const EMULATED_THREADS: u32 = 32;

/// Returns when the node's end of standard input is closed.
fn wait_for_end_of_node() {
    let mut byte = [0u8; 1];
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut byte) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Threads of the node's own process. They cannot be killed: a stalled worker stays stalled.
struct ThreadHost {
    registry: Arc<Registry>,
    own: Vec<Arc<EventBell>>,
    node: Arc<NotifyBell>,
    host: Option<cpu::Host>,
}

impl ThreadHost {
    fn new(workers: usize, registry: Arc<Registry>) -> io::Result<ThreadHost> {
        let own = (0..workers).map(|_| EventBell::new().map(Arc::new)).collect::<io::Result<_>>()?;
        Ok(ThreadHost { registry, own, node: Arc::default(), host: None })
    }
}

/// How often a thread host is asked whether it is over: it has no descriptor to wait for.
const OVER_POLL: Duration = Duration::from_millis(20);

impl DeviceHost for ThreadHost {
    fn bells(&self) -> DeviceBells {
        let workers = self.own.iter().map(|bell| bell.clone() as Arc<dyn Bell>).collect();
        DeviceBells { workers: Arc::new(workers), node: self.node.clone() }
    }

    fn start(&mut self, segment: &Arc<Segment>) -> io::Result<Option<u32>> {
        let clock: Arc<dyn Clock> = Arc::new(segment.host_clock());
        let node: Arc<dyn Bell> = self.node.clone();
        let own = self.own.clone();
        self.host = Some(cpu::start(segment, &self.registry, own, node, &clock)?);
        Ok(None)
    }

    fn over(&mut self) -> BoxFuture<'_, Over> {
        Box::pin(async {
            while self.host.as_ref().is_none_or(|host| !host.is_over()) {
                tokio::time::sleep(OVER_POLL).await;
            }
            let host = self.host.take().expect("it was just seen");
            // Siblings of a worker that panicked run on until told to stop, so joining may not block the runtime.
            match tokio::task::spawn_blocking(move || host.join()).await {
                Ok(Ok(())) => "ended in order".into(),
                Ok(Err(e)) => e.into(),
                Err(e) => e.to_string().into(),
            }
        })
    }

    fn kill(&mut self) {}
}
