//! CUDA devices: which GPUs a node takes, and what the process does that serves one.
//!
//! The node itself loads no driver: one that crashes or hangs takes a process with it, and that is the device host's, or
//! that of [`PROBE`].

use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use ringhold_cluster::placement;
use ringhold_kernels::bell::Bell;
use ringhold_kernels::gpu::class::Class;
use ringhold_kernels::gpu::compile::{self, Compiler, options};
use ringhold_kernels::gpu::driver::{self, Driver, Gpu};
use ringhold_kernels::gpu::launch::{self, Look};
use ringhold_kernels::gpu::needs::{self, MEMORY_BYTES_MIN, Needs};
use ringhold_kernels::gpu::nvml::Health;
use ringhold_kernels::gpu::xid::Xid;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::ring_kernel::{self, Plan, THREADS_MIN};
use ringhold_kernels::segment::{STOP_AT_ONCE, Segment};
use ringhold_storage::kernels::{Kernels, Recipe};
use serde::Deserialize;
use tracing::{error, info, warn};

use super::ending::Ending;
use super::host::Planned;
use super::topology;
use super::watch::Watch;
use crate::config::{self, DeviceKind, Fallback, Host};

/// The name of the hidden role that prints what GPUs there are: a [`super::machine::Machine`] as JSON.
pub const PROBE: &str = "gpu-probe";

/// A driver that does not answer for so long is as good as none.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// Blocks of a ring kernel that are no workers: one for control, and two for each of four lanes.
const BLOCKS_BESIDE: u32 = 9;

/// How long its GPU has to report what an error of the driver came from.
const REPORT_LIMIT: Duration = Duration::from_millis(500);

/// How long a kernel whose node is gone has to finish what it has, and then to leave it.
const LAST_WORK_LIMIT: Duration = Duration::from_secs(5);
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// How long a GPU has to answer before its kernel runs: to a question, and to the first small launches.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// What a node needs to know of this machine's GPUs.
#[derive(Debug, Default, Deserialize)]
struct Probed {
    gpus: Vec<ProbedGpu>,
    /// Why there are none.
    no_gpus: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProbedGpu {
    name: String,
    multiprocessors: u32,
    usable: bool,
    unmet: Vec<Reason>,
    /// Why it does not answer.
    error: Option<String>,
    health: Option<Health>,
    place: placement::Place,
}

#[derive(Debug, Deserialize)]
struct Reason {
    reason: String,
}

impl ProbedGpu {
    fn why_not(&self) -> Option<String> {
        let unmet = || self.unmet.iter().map(|unmet| unmet.reason.as_str()).collect::<Vec<_>>().join("; ");
        (!self.usable).then(|| self.error.clone().unwrap_or_else(unmet))
    }
}

/// The devices that a node is to have, with what was left to it decided: kinds, GPUs, the workers of GPUs, and what each goes
/// on with where its own GPU fails.
pub fn plan(devices: &config::Devices) -> Vec<Planned> {
    let on_a_gpu = |device: &config::Device| match device.kind {
        DeviceKind::Auto => device.host == Host::Process,
        kind => kind == DeviceKind::Cuda,
    };
    let probed = if devices.0.iter().any(on_a_gpu) { probe() } else { Probed::default() };
    decide(devices, &probed, &topology::of_this_process())
}

/// Workers on a GPU that cannot be looked at: few enough for any that Ringhold runs on.
const WORKERS_UNSEEN: u32 = 32;

/// `cpus` is where devices are that have no GPU.
fn decide(devices: &config::Devices, probed: &Probed, cpus: &placement::Place) -> Vec<Planned> {
    let usable = || (0..).zip(&probed.gpus).filter(|(_, gpu)| gpu.usable).map(|(number, _)| number);
    let mut planned = Vec::new();
    for device in &devices.0 {
        match device.kind {
            DeviceKind::Auto if device.host == Host::Process && usable().next().is_some() => {
                for (nth, gpu) in usable().enumerate() {
                    let name =
                        device.name.as_ref().map(|name| if nth == 0 { name.clone() } else { format!("{name}-{nth}") });
                    planned.push(config::Device { kind: DeviceKind::Cuda, gpu, name, ..device.clone() });
                }
            }
            DeviceKind::Auto => planned.push(config::Device { kind: DeviceKind::Cpu, ..device.clone() }),
            DeviceKind::Cpu | DeviceKind::Cuda | DeviceKind::Emulated => planned.push(device.clone()),
        }
    }
    let planned = config::Devices(planned);
    let idle = usable().filter(|gpu| sharers(&planned, *gpu) == 0).collect::<Vec<u32>>();
    planned.0.iter().map(|device| one(device, &planned, &idle, probed, cpus)).collect()
}

fn one(
    device: &config::Device,
    all: &config::Devices,
    idle: &[u32],
    probed: &Probed,
    cpus: &placement::Place,
) -> Planned {
    let workers = |gpu: u32, sharers: u32| {
        let blocks = probed.gpus.get(gpu as usize).map_or(0, |gpu| gpu.multiprocessors) / sharers.max(1);
        if blocks == 0 { WORKERS_UNSEEN } else { blocks.saturating_sub(BLOCKS_BESIDE).max(1) }
    };
    let mut planned = Planned { device: device.clone(), unusable: None, fallbacks: Vec::new(), place: cpus.clone() };
    if device.kind == DeviceKind::Cuda {
        let (number, count) = (device.gpu, probed.gpus.len());
        planned.unusable = match (probed.gpus.get(number as usize), &probed.no_gpus) {
            (Some(gpu), _) => gpu.why_not(),
            (None, Some(why)) => Some(why.clone()),
            (None, None) => Some(format!("this machine has {count}, numbered from 0")),
        };
        planned.device.workers.get_or_insert(workers(number, sharers(all, number)));
        planned.place = probed.gpus.get(number as usize).map(|gpu| gpu.place.clone()).unwrap_or_default();
    }
    let on_a_gpu = matches!(device.kind, DeviceKind::Cuda | DeviceKind::Emulated);
    if device.kind == DeviceKind::Cuda && device.fallback == Fallback::Auto {
        let other = |gpu: &u32| config::Device { gpu: *gpu, workers: Some(workers(*gpu, 1)), ..device.clone() };
        planned.fallbacks.extend(idle.iter().map(other));
    }
    if on_a_gpu && device.fallback != Fallback::None {
        planned.fallbacks.push(config::Device { kind: DeviceKind::Cpu, gpu: 0, workers: None, ..device.clone() });
    }
    planned
}

/// How many of the devices are on this GPU; each takes its part of it.
pub fn sharers(devices: &config::Devices, gpu: u32) -> u32 {
    devices.0.iter().filter(|device| device.kind == DeviceKind::Cuda && device.gpu == gpu).count() as u32
}

/// Asks a process of this binary. What goes wrong is why there are no GPUs.
fn probe() -> Probed {
    let none = |why: String| Probed { no_gpus: Some(why), ..Probed::default() };
    let probed = match ask().map(|text| serde_json::from_str::<Probed>(&text)) {
        Ok(Ok(probed)) => probed,
        Ok(Err(_)) => none("the process that was to look for GPUs said something else".into()),
        Err(why) => none(why),
    };
    for (number, gpu) in probed.gpus.iter().enumerate() {
        match gpu.why_not() {
            None => info!("cuda:{number} ({}) can run a device", gpu.name),
            Some(why) => warn!("cuda:{number} ({}) cannot run a device: {why}", gpu.name),
        }
        gpu.health.iter().flat_map(Health::notes).for_each(|note| warn!("cuda:{number} ({}): {note}", gpu.name));
    }
    if let Some(why) = &probed.no_gpus {
        info!("no GPU: {why}");
    }
    probed
}

fn ask() -> Result<String, String> {
    let failed = |e: std::io::Error| format!("the process that is to look for GPUs cannot be run: {e}");
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .arg(PROBE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdout = child.stdout.take().expect("it was asked for");
    let read = std::thread::spawn(move || std::io::read_to_string(&mut stdout));
    let began = Instant::now();
    while child.try_wait().map_err(failed)?.is_none() {
        if began.elapsed() > PROBE_LIMIT {
            // It fails only when the process is gone already.
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("the driver did not answer within {} s", PROBE_LIMIT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(format!("the process that looked for GPUs ended with {status}: the driver may be broken"));
    }
    read.join().expect("reading does not panic").map_err(failed)
}

/// Why a device host ends.
pub struct Failed {
    pub ending: Ending,
    pub message: String,
}

impl Failed {
    pub fn new(ending: Ending, message: impl ToString) -> Failed {
        Failed { ending, message: message.to_string() }
    }
}

impl From<driver::Absent> for Failed {
    fn from(absent: driver::Absent) -> Failed {
        use driver::Absent;
        let class = match &absent {
            // Another may be on its way: a driver is being installed.
            Absent::NoLibrary(_) | Absent::Broken { .. } | Absent::Old(_) => Class::Resource,
            Absent::NotStarted(error) => Class::of(error.code),
            // There was one when the node started.
            Absent::NoGpu(_) => Class::Fatal,
        };
        Failed::new(Ending::Driver(class), absent)
    }
}

impl From<launch::Error> for Failed {
    fn from(error: launch::Error) -> Failed {
        use launch::Error;
        let ending = match &error {
            Error::Absent(absent) => return absent.clone().into(),
            Error::Driver(error) => Ending::Driver(Class::of(error.code)),
            Error::Refused { .. } => Ending::LaunchRefused,
            Error::Memory { .. } | Error::Pin { .. } | Error::KernelOutOfMemory | Error::RestoreOutOfMemory => {
                Ending::OutOfMemory
            }
            Error::Sticky(error) => Ending::Sticky(error.code),
            Error::KernelFailed(_) => Ending::Failed,
        };
        Failed::new(ending, error)
    }
}

/// What a device host is to serve a segment with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub gpu: u32,
    /// Devices that share the GPU, this one counted.
    pub sharers: u32,
    /// How much memory to take; `None` for its share.
    pub memory_bytes: Option<u64>,
}

/// Serves the segment on a GPU until the node asks it to end, or `node_gone` says that there is nobody to ask.
pub fn serve(
    place: Place,
    segment: &Arc<Segment>,
    registry: &Registry,
    kernels: &Path,
    node: Arc<dyn Bell>,
    node_gone: &AtomicBool,
) -> Result<(), Failed> {
    let driver = Driver::open()?;
    let compiler = Compiler::find().map_err(|e| Failed::new(Ending::NoKernel, e))?;
    let gpu = gpu(&driver, &compiler, place.gpu)?;
    // A process that died under its kernel may have left the GPU in disorder. Whether it still answers is seen before anything
    // is trusted to it: first a context and a question, and after the compiler, small launches that come before the kernel's.
    let asked = answering(&gpu, "how much of its memory is free", || driver.memory_free_bytes(&gpu));
    asked.map_err(|e| no_answer(gpu.number, e))?;
    // A part of all there is, and not of what is free now: the text of the program, and so its place in the cache, is
    // the same at every start. A quarter is left to the driver and to others.
    let share = gpu.memory_bytes / 4 * 3 / u64::from(place.sharers.max(1));
    let bytes = place.memory_bytes.unwrap_or(share);
    let threads = ring_kernel::threads(registry, THREADS_MIN);
    let plan = Plan::divide(bytes, threads, registry, segment.shape());
    let code = code(&compiler, &gpu, registry, segment, &plan, kernels)?;

    let watch = Watch::start(&gpu);
    // What the driver says of a GPU that is gone differs from call to call.
    let explain = |error: launch::Error| watch.fatal(REPORT_LIMIT).map_or_else(|| error.into(), untrusted);
    // SAFETY: the compiler has made the code of this segment's shape and this plan, now or earlier: its hash says so.
    let start = || unsafe { launch::Device::start(driver, &gpu, &code, &plan, segment, node) };
    let device =
        answering(&gpu, "what time it is, in the launches before that of the ring kernel", start).map_err(explain)?;
    // Never dropped while the kernel runs, not by a panic either: see its documentation.
    let mut device = ManuallyDrop::new(device);
    let mut alone: Option<Instant> = None;
    loop {
        match device.look() {
            Ok(Look::Runs(pause)) => std::thread::sleep(pause),
            Ok(Look::Ended) => break,
            Err(error) => return Err(explain(error)),
        }
        if let Some(xid) = watch.fatal(Duration::ZERO) {
            return Err(untrusted(xid));
        }
        if node_gone.load(Ordering::Acquire) {
            let since = *alone.get_or_insert_with(Instant::now);
            // The word is the node's, and there is none any more.
            let stop = if since.elapsed() > LAST_WORK_LIMIT { STOP_AT_ONCE } else { 1 };
            segment.node().stop.store(stop, Ordering::Release);
            if since.elapsed() > LAST_WORK_LIMIT + LEAVE_LIMIT {
                return Err(Failed::new(Ending::Failed, "the node is gone, and the kernel does not end"));
            }
        }
    }
    // SAFETY: it is not used again, and its kernel has ended.
    unsafe { ManuallyDrop::drop(&mut device) };
    Ok(())
}

fn untrusted(xid: Xid) -> Failed {
    Failed::new(
        Ending::Xid(xid.0),
        format!("the GPU reported {xid}: it is not to be trusted until somebody has seen to it"),
    )
}

/// Makes a call that a GPU in disorder does not come back from. Then the process ends: nothing else gets it out of the call.
fn answering<T>(gpu: &Gpu, question: &'static str, call: impl FnOnce() -> T) -> T {
    let name = format!("cuda:{} ({}, PCI {})", gpu.number, gpu.name, gpu.pci_bus_id);
    within(ANSWER_LIMIT, call, move || {
        error!(
            "{name} was asked {question} and has not answered for {} s: look at it with `nvidia-smi`; if it does not answer \
             there either, reset it (`nvidia-smi --gpu-reset`), or restart the machine",
            ANSWER_LIMIT.as_secs()
        );
        // What a driver does at a process's end may wait for that call too.
        std::thread::spawn(|| {
            std::thread::sleep(LEAVE_LIMIT);
            std::process::abort()
        });
        std::process::exit(Ending::NoAnswer.code().into())
    })
}

/// Makes a call, and does something in another thread if it has not come back by then.
fn within<T>(limit: Duration, call: impl FnOnce() -> T, late: impl FnOnce() + Send + 'static) -> T {
    let (back, waited) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if waited.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            late();
        }
    });
    let result = call();
    drop(back);
    result
}

fn no_answer(number: u32, error: driver::Error) -> Failed {
    Failed::new(Ending::Driver(Class::of(error.code)), format!("cuda:{number} does not answer: {error}"))
}

/// The GPU, if it can run a device.
fn gpu(driver: &Driver, compiler: &Compiler, number: u32) -> Result<Gpu, Failed> {
    let mut gpus = driver.gpus()?;
    if number as usize >= gpus.len() {
        let message = format!("there is no cuda:{number}: the driver sees {} GPUs, numbered from 0", gpus.len());
        return Err(Failed::new(Ending::Driver(Class::Fatal), message));
    }
    let gpu = gpus.swap_remove(number as usize);
    let gpu = gpu.map_err(|e| no_answer(number, e))?;
    let needs = Needs { memory_bytes: MEMORY_BYTES_MIN, compiler: Some(compiler.toolchain().clone()) };
    let unmet: Vec<_> = needs::check(&gpu, &needs).iter().map(|unmet| unmet.to_string()).collect();
    if unmet.is_empty() {
        return Ok(gpu);
    }
    Err(Failed::new(Ending::LaunchRefused, format!("cuda:{number} ({}): {}", gpu.name, unmet.join("; "))))
}

/// The device's machine code, kept from before or compiled now.
fn code(
    compiler: &Compiler,
    gpu: &Gpu,
    registry: &Registry,
    segment: &Segment,
    plan: &Plan,
    kernels: &Path,
) -> Result<Vec<u8>, Failed> {
    let no_kernel = |message: String| Failed::new(Ending::NoKernel, message);
    let program = launch::program(registry, segment.shape(), plan).map_err(|e| no_kernel(e.to_string()))?;
    let architecture = needs::architecture(gpu.capability, &compiler.toolchain().architectures)
        .ok_or_else(|| no_kernel(format!("the compiler makes no code for compute capability {}", gpu.capability)))?;
    let recipe = Recipe {
        source: program.text(),
        options: &options(architecture),
        compiler: &format!("NVRTC {}", compiler.toolchain().version),
        architecture,
    };
    let (kernels, began) = (Kernels::new(kernels), Instant::now());
    let made = kernels.get(&recipe, || {
        info!("compiling the ring kernel for sm_{architecture}; it is kept for the next start");
        compiler.compile(&program, architecture).map(|compiled| compiled.cubin)
    });
    let kernel = made.map_err(|error| {
        let log = match &error {
            compile::Error::Refused(refused) => &refused.log,
            compile::Error::Failed(failed) => &failed.log,
        };
        no_kernel(match kernels.keep_log(&recipe, log) {
            Ok(path) => format!("{error}. All that the compiler said: {}", path.display()),
            Err(e) => format!("{error}. All that the compiler said could not be kept ({e}): {log}"),
        })
    })?;
    kernel.notes.iter().for_each(|note| warn!("{note}"));
    let (how, took_ms) = (if kernel.cached { "found" } else { "compiled" }, began.elapsed().as_millis());
    info!(took_ms, bytes = kernel.code.len(), "ring kernel for sm_{architecture} {how}");
    Ok(kernel.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(multiprocessors: u32) -> ProbedGpu {
        ProbedGpu { name: "H100".into(), multiprocessors, usable: true, ..ProbedGpu::default() }
    }

    fn old() -> ProbedGpu {
        ProbedGpu { unmet: vec![Reason { reason: "it is too old".into() }], ..ProbedGpu::default() }
    }

    fn device(kind: DeviceKind) -> config::Device {
        config::Device { kind, ..config::Device::default() }
    }

    fn cpus() -> placement::Place {
        placement::Place { numa_node: Some(3), ..Default::default() }
    }

    fn decided(devices: Vec<config::Device>, gpus: Vec<ProbedGpu>) -> Vec<Planned> {
        let no_gpus = gpus.is_empty().then(|| "there is no driver".to_string());
        decide(&config::Devices(devices), &Probed { gpus, no_gpus }, &cpus())
    }

    fn planned(devices: Vec<config::Device>, gpus: Vec<ProbedGpu>) -> Vec<(String, u32, Option<u32>)> {
        let planned = decided(devices, gpus);
        assert!(planned.iter().all(|planned| planned.unusable.is_none()), "{planned:?}");
        let devices = config::Devices(planned.into_iter().map(|planned| planned.device).collect());
        let described = |index: usize| (devices.name(index), devices.0[index].gpu, devices.0[index].workers);
        (0..devices.0.len()).map(described).collect()
    }

    #[test]
    fn auto_is_every_usable_gpu_and_otherwise_the_cpu() {
        let auto = || vec![config::Device::default()];
        assert_eq!(planned(auto(), vec![]), [("cpu0".into(), 0, None)]);
        assert_eq!(planned(auto(), vec![old()]), [("cpu0".into(), 0, None)]);
        let two = vec![usable(132), old(), usable(16)];
        assert_eq!(planned(auto(), two), [("cuda0".into(), 0, Some(123)), ("cuda1".into(), 2, Some(7))]);
        let inside = config::Device { host: Host::InProcess, ..config::Device::default() };
        assert_eq!(planned(vec![inside], vec![usable(132)]), [("cpu0".into(), 0, None)]);
    }

    #[test]
    fn devices_on_one_gpu_divide_its_multiprocessors() {
        let two = vec![device(DeviceKind::Cuda), device(DeviceKind::Cuda), device(DeviceKind::Cpu)];
        let expected = [("cuda0".into(), 0, Some(57)), ("cuda1".into(), 0, Some(57)), ("cpu0".into(), 0, None)];
        assert_eq!(planned(two, vec![usable(132)]), expected);
        let few = config::Device { workers: Some(3), ..device(DeviceKind::Cuda) };
        assert_eq!(planned(vec![few], vec![usable(132)]), [("cuda0".into(), 0, Some(3))]);
    }

    #[test]
    fn a_device_is_where_the_gpu_is_that_it_is_configured_for_and_otherwise_where_the_cpus_are() {
        let at = |pci: &str| placement::Place { pci: Some(pci.into()), ..Default::default() };
        let gone = ProbedGpu { usable: false, place: at("0000:af:00.0"), ..usable(132) };
        let gpus = vec![ProbedGpu { place: at("0000:3b:00.0"), ..usable(132) }, gone];
        let on = |gpu| config::Device { gpu, ..device(DeviceKind::Cuda) };
        let devices = vec![device(DeviceKind::Cpu), on(1), on(0), device(DeviceKind::Emulated), on(7)];
        let planned = decided(devices, gpus);
        assert_eq!(planned[1].fallbacks.last().map(|last| last.kind), Some(DeviceKind::Cpu));
        let places: Vec<_> = planned.into_iter().map(|planned| planned.place).collect();
        let unknown = placement::Place::default();
        assert_eq!(places, [cpus(), at("0000:af:00.0"), at("0000:3b:00.0"), cpus(), unknown]);
    }

    #[test]
    fn a_call_is_late_only_if_it_has_not_come_back() {
        let (late, heard) = mpsc::channel();
        let told = late.clone();
        assert_eq!(within(Duration::from_secs(60), || 7, move || told.send(()).unwrap()), 7);
        assert!(heard.try_recv().is_err());
        let told = late.clone();
        // It comes back once it is late.
        within(Duration::from_millis(1), || heard.recv().unwrap(), move || told.send(()).unwrap());
    }

    #[test]
    fn a_gpu_that_is_asked_for_and_cannot_be_had_has_its_reason() {
        let why = |gpu, gpus| {
            let asked = config::Device { gpu, ..device(DeviceKind::Cuda) };
            decided(vec![asked], gpus).remove(0).unusable.expect("it cannot be had")
        };
        assert_eq!(why(0, vec![old()]), "it is too old");
        assert_eq!(why(3, vec![usable(132)]), "this machine has 1, numbered from 0");
        assert_eq!(why(0, vec![]), "there is no driver");
    }

    #[test]
    fn a_gpu_that_fails_is_followed_by_one_that_no_device_is_on_and_then_by_the_cpu() {
        let fallbacks = |fallback, kind, gpus| {
            let device = config::Device { fallback, gpu: 1, ..device(kind) };
            let planned = decided(vec![device], gpus).remove(0);
            let described = |device: &config::Device| (device.kind, device.gpu, device.workers);
            planned.fallbacks.iter().map(described).collect::<Vec<_>>()
        };
        let gpus = || vec![usable(132), usable(132), old(), usable(16)];
        let cpu = (DeviceKind::Cpu, 0, None);
        let others = [(DeviceKind::Cuda, 0, Some(123)), (DeviceKind::Cuda, 3, Some(7)), cpu];
        assert_eq!(fallbacks(Fallback::Auto, DeviceKind::Cuda, gpus()), others);
        assert_eq!(fallbacks(Fallback::Cpu, DeviceKind::Cuda, gpus()), [cpu]);
        assert_eq!(fallbacks(Fallback::None, DeviceKind::Cuda, gpus()), []);
        assert_eq!(fallbacks(Fallback::Auto, DeviceKind::Cuda, vec![]), [cpu]);
        assert_eq!(fallbacks(Fallback::Auto, DeviceKind::Emulated, vec![]), [cpu]);
        assert_eq!(fallbacks(Fallback::Auto, DeviceKind::Cpu, vec![]), []);
    }
}
