//! A ring kernel under test, emulated or on a GPU, and the node's end of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringhold::rt::{Actor, MessageOf};
use ringhold_kernels::bell::Bell;
use ringhold_kernels::emulated;
use ringhold_kernels::gpu::compile::{Compiler, options};
use ringhold_kernels::gpu::driver::{Driver, Gpu};
use ringhold_kernels::gpu::launch::{self, Look};
use ringhold_kernels::gpu::needs::{self, MEMORY_BYTES_MIN, Needs};
use ringhold_kernels::gpu::program::Program;
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::link::{Link, Reading, Refused};
use ringhold_kernels::message::{Header, Inspected, Kind, Reason};
use ringhold_kernels::outbox::{AWAY, Owner, Owners, SHARDS};
use ringhold_kernels::plain::Plain;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::ring_kernel::{self, Plan, THREADS_MIN};
use ringhold_kernels::segment::{Framing, Segment, Shape};
use ringhold_storage::kernels::{Kernels, Recipe};

use super::actors;

/// How long a device may take to start, to come to rest, or to end.
const LIMIT: Duration = Duration::from_secs(60);

/// What a check was to find otherwise, or could not do. The process that tried it ends with it, and whatever it ran.
pub type Failed = String;

/// Fails unless `holds`.
pub fn expect(holds: bool, said: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(said()) }
}

/// For what fails with an error of its own.
pub fn failed(error: impl std::fmt::Display) -> Failed {
    error.to_string()
}

/// What ring kernels are run by.
pub enum Machine {
    Emulated,
    Cuda { gpu: Gpu, compiler: Box<Compiler> },
}

impl Machine {
    /// The GPU of this number, where it can run a device.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn cuda(number: u32) -> Result<Machine, String> {
        let driver = Driver::open().map_err(|e| e.to_string())?;
        let mut gpus = driver.gpus().map_err(|e| e.to_string())?;
        if number as usize >= gpus.len() {
            return Err(format!("this machine has {} GPUs, numbered from 0", gpus.len()));
        }
        let gpu = gpus.swap_remove(number as usize).map_err(|e| e.to_string())?;
        let compiler = Compiler::find().map_err(|e| e.to_string())?;
        let needs = Needs { memory_bytes: MEMORY_BYTES_MIN, compiler: Some(compiler.toolchain().clone()) };
        let unmet: Vec<_> = needs::check(&gpu, &needs).iter().map(ToString::to_string).collect();
        if unmet.is_empty() { Ok(Machine::Cuda { gpu, compiler: Box::new(compiler) }) } else { Err(unmet.join("; ")) }
    }

    pub fn is_emulated(&self) -> bool {
        matches!(self, Machine::Emulated)
    }

    pub fn name(&self) -> String {
        match self {
            Machine::Emulated => "emulated".into(),
            Machine::Cuda { gpu, .. } => format!("cuda:{} ({})", gpu.number, gpu.name),
        }
    }

    /// Free memory of the GPU, in bytes.
    pub fn free_bytes(&self) -> Option<u64> {
        let Machine::Cuda { gpu, .. } = self else { return None };
        Driver::open().ok()?.memory_free_bytes(gpu).ok()
    }
}

enum Code {
    Emulated(Arc<emulated::Program>),
    Cuda { gpu: Gpu, cubin: Arc<[u8]> },
}

/// What a kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub workers: u32,
    pub lanes: u32,
    /// Of each block.
    pub threads: u32,
    /// Of each ring and inbox.
    pub slots: u32,
    /// Of a slot.
    pub slot_bytes: u32,
    /// Device memory, in bytes.
    pub memory: u64,
}

impl Sizes {
    /// As a node would choose them, but for the memory.
    pub fn usual(machine: &Machine) -> Sizes {
        let (slots, slot_bytes) = (16_384, 128);
        match machine {
            Machine::Emulated => Sizes { workers: 2, lanes: 1, threads: 32, slots, slot_bytes, memory: 1 << 30 },
            // Of a GPU's blocks one is for control, and two are for each lane.
            Machine::Cuda { gpu, .. } => {
                let lanes = 4.min(gpu.multiprocessors / 4).max(1);
                let workers = gpu.multiprocessors.saturating_sub(1 + 2 * lanes).max(lanes);
                let threads = ring_kernel::threads(&actors::for_kernels(), THREADS_MIN);
                Sizes { workers, lanes, threads, slots, slot_bytes, memory: gpu.memory_bytes / 2 }
            }
        }
    }

    /// What that comes to with these actors.
    pub fn divide(&self, registry: &Registry) -> (Shape, Plan) {
        let shape = Shape {
            workers: self.workers,
            lanes: self.lanes,
            framing: Framing::Flits as u32,
            types: registry.types().len() as u32,
            slot_bytes: self.slot_bytes,
            ingress_slots: self.slots,
            egress_slots: self.slots,
            inbox_slots: self.slots,
            ..Shape::default()
        };
        (shape, Plan::divide(self.memory, self.threads, registry, &shape))
    }
}

/// A compiled ring kernel.
pub struct Kernel {
    code: Code,
    registry: Registry,
    shape: Shape,
    plan: Plan,
    pub compile_time: Duration,
}

impl Kernel {
    /// Compiles the kernel, or takes what is kept in `folder` of the same text.
    ///
    /// # Errors
    /// What the compiler said.
    pub fn compile(machine: &Machine, registry: Registry, sizes: Sizes, folder: &Path) -> Result<Kernel, Failed> {
        let (shape, plan) = sizes.divide(&registry);
        let began = Instant::now();
        let code = match machine {
            Machine::Emulated => {
                let source = ring_kernel::source(&registry, &shape, &plan).map_err(failed)?;
                Code::Emulated(Arc::new(emulated::Program::compile(&source, &[], folder).map_err(failed)?))
            }
            Machine::Cuda { gpu, compiler } => {
                let program = launch::program(&registry, &shape, &plan).map_err(failed)?;
                let cubin = cubin(gpu, compiler, &program, folder)?.into();
                Code::Cuda { gpu: gpu.clone(), cubin }
            }
        };
        Ok(Kernel { code, registry, shape, plan, compile_time: began.elapsed() })
    }

    /// Where the actors of the suite are the device's, and where half of the shards are another's.
    pub fn owners(&self, half_away: bool) -> Owners {
        let workers = self.shape.workers as usize;
        Owners::from_fn(|shard| if half_away && shard >= SHARDS / 2 { AWAY } else { (shard % workers) as Owner })
    }
}

/// A program's machine code for a GPU: compiled, or kept in `folder` from before.
pub fn cubin(gpu: &Gpu, compiler: &Compiler, program: &Program, folder: &Path) -> Result<Vec<u8>, Failed> {
    let toolchain = compiler.toolchain();
    let architecture = needs::architecture(gpu.capability, &toolchain.architectures)
        .ok_or("the compiler knows no architecture of this GPU")?;
    let recipe = Recipe {
        source: program.text(),
        options: &options(architecture),
        compiler: &format!("NVRTC {}", toolchain.version),
        architecture,
    };
    let made = || compiler.compile(program, architecture).map(|compiled| compiled.cubin).map_err(failed);
    Ok(Kernels::new(folder).get(&recipe, made)?.code)
}

struct NoBell;

impl Bell for NoBell {
    fn ring(&self) {}
}

enum Host {
    Emulated(emulated::Host),
    /// The thread that has the GPU.
    Cuda(JoinHandle<Result<(), String>>),
}

impl Host {
    fn is_over(&self) -> bool {
        match self {
            Host::Emulated(host) => host.is_over(),
            Host::Cuda(thread) => thread.is_finished(),
        }
    }

    fn join(self) -> Result<(), String> {
        match self {
            Host::Emulated(host) => host.join().map_err(|e| e.to_string()),
            Host::Cuda(thread) => thread.join().unwrap_or_else(|_| Err("the thread that has the GPU panicked".into())),
        }
    }
}

/// What came of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The bytes of the reply.
    Reply(Vec<u8>),
    Error(Reason),
}

/// A device that runs. Call [`Device::end`] when done: a device that is dropped without is left behind.
pub struct Device<'a> {
    kernel: &'a Kernel,
    pub link: Link,
    segment: Arc<Segment>,
    host: Option<Host>,
    pub answers: Vec<(Header, Vec<u8>)>,
    pub start_time: Duration,
}

impl<'a> Device<'a> {
    pub fn start(kernel: &'a Kernel) -> Result<Device<'a>, Failed> {
        Device::start_with(kernel, &kernel.owners(false))
    }

    pub fn start_with(kernel: &'a Kernel, owners: &Owners) -> Result<Device<'a>, Failed> {
        let segment = Segment::create(kernel.shape, kernel.registry.layout_hash(), owners);
        let segment = segment.map_err(failed)?;
        let bell: Arc<dyn Bell> = Arc::new(NoBell);
        let link = Link::new(segment.clone(), Arc::new(vec![bell; kernel.shape.workers as usize]));
        let mut device =
            Device { kernel, link, segment, host: None, answers: Vec::new(), start_time: Duration::default() };
        device.launch()?;
        Ok(device)
    }

    pub fn launch(&mut self) -> Result<(), Failed> {
        let began = Instant::now();
        self.link.begin_term();
        self.host = Some(match &self.kernel.code {
            Code::Emulated(program) => Host::Emulated(program.start(&self.segment, Arc::new(NoBell)).map_err(failed)?),
            Code::Cuda { gpu, cubin } => {
                let (gpu, cubin, plan) = (gpu.clone(), cubin.clone(), self.kernel.plan);
                let segment = self.segment.clone();
                Host::Cuda(std::thread::spawn(move || serve(&gpu, &cubin, &plan, &segment)))
            }
        });
        while !self.link.is_running() {
            self.pause(began, "start")?;
        }
        self.start_time = began.elapsed();
        Ok(())
    }

    /// Waits a moment for the device, which is to do something since `began`.
    pub fn pause(&mut self, began: Instant, what: &str) -> Result<(), Failed> {
        if self.host.as_ref().is_none_or(Host::is_over) {
            let why = self.host.take().map(Host::join);
            return Err(format!("the device has ended by itself: {why:?}"));
        }
        self.wait(began, what)
    }

    fn wait(&self, began: Instant, what: &str) -> Result<(), Failed> {
        expect(began.elapsed() < LIMIT, || format!("the device does not {what}: {:?}", self.link.read()))?;
        match self.kernel.code {
            Code::Emulated(_) => std::thread::sleep(Duration::from_micros(50)),
            Code::Cuda { .. } => std::hint::spin_loop(),
        }
        Ok(())
    }

    /// Ends the device in order, and waits for it. [`Device::launch`] starts another on the same rings.
    pub fn stop(&mut self) -> Result<(), Failed> {
        let began = Instant::now();
        self.link.stop();
        while self.host.as_ref().is_some_and(|host| !host.is_over()) {
            self.wait(began, "end")?;
            self.collect();
        }
        let Some(host) = self.host.take() else { return Ok(()) };
        while self.collect() > 0 {}
        host.join()
    }

    /// Ends the device in order, and waits for it.
    pub fn end(mut self) -> Result<(), Failed> {
        self.stop()
    }

    /// Puts a message in; where there is no room, waits for it and takes answers meanwhile. The answer to an ask comes
    /// back under its ticket.
    pub fn push(&mut self, kind: Kind, to: ActorId, ticket: u64, payload: &[u8]) -> Result<(), Failed> {
        let from = ActorId::new(Default::default(), Key(ticket));
        self.push_message(&Header::new(kind, to, from, payload.len(), Hlc(0)), payload)
    }

    pub fn push_message(&mut self, header: &Header, payload: &[u8]) -> Result<(), Failed> {
        let mut began = None;
        loop {
            match self.link.push(header, payload) {
                Ok(()) => return Ok(()),
                Err(Refused::Full) => {}
                Err(refused) => return Err(format!("a message for {:?} is refused: {refused:?}", header.to())),
            }
            self.pause(*began.get_or_insert_with(Instant::now), "make room")?;
            self.collect();
        }
    }

    pub fn tell<M: MessageOf>(&mut self, to: ActorId, message: M) -> Result<(), Failed> {
        self.push(Kind::Tell, to, 0, &message.to_bytes())
    }

    /// Takes what the device has sent.
    pub fn collect(&mut self) -> usize {
        let answers = &mut self.answers;
        self.link.drain(1024, |header, payload| answers.push((*header, payload.to_vec())))
    }

    /// Waits until the device has nothing to do.
    pub fn quiet(&mut self) -> Result<(), Failed> {
        let began = Instant::now();
        loop {
            self.collect();
            if self.link.is_quiet() {
                return Ok(());
            }
            self.pause(began, "come to rest")?;
        }
    }

    /// Asks, and waits for rest: everything that followed from the message has been done.
    pub fn ask_bytes(&mut self, to: ActorId, message: &[u8]) -> Result<Answer, Failed> {
        self.answers.clear();
        self.push(Kind::Ask, to, 77, message)?;
        self.quiet()?;
        let mut of_ask = self.answers.iter().filter(|(header, _)| !header.is(Kind::DeadLetter));
        let (Some((header, payload)), None) = (of_ask.next(), of_ask.next()) else {
            return Err(format!("an ask of {to:?} has not one answer: {:?}", self.answers));
        };
        expect(header.to().key == Key(77), || format!("the answer went to {:?}", header.to()))?;
        match (header.kind(), header.reason()) {
            (Some(Kind::Reply), _) => Ok(Answer::Reply(payload.clone())),
            (_, Some(reason)) => Ok(Answer::Error(reason)),
            _ => Err(format!("the answer has neither kind nor reason: {header:?}")),
        }
    }

    pub fn ask<M: MessageOf>(&mut self, to: ActorId, message: M) -> Result<<M::Actor as Actor>::Reply, Failed> {
        match self.ask_bytes(to, &message.to_bytes())? {
            Answer::Reply(bytes) => {
                Plain::from_bytes(&bytes).ok_or_else(|| format!("the reply of {to:?} is none of its type: {bytes:?}"))
            }
            Answer::Error(reason) => Err(format!("an ask of {to:?} was answered: {reason}")),
        }
    }

    /// Asks a device that does other things too, and waits for the reply alone.
    pub fn ask_meanwhile<M: MessageOf>(
        &mut self,
        to: ActorId,
        message: M,
    ) -> Result<<M::Actor as Actor>::Reply, Failed> {
        self.answers.clear();
        self.push(Kind::Ask, to, 77, &message.to_bytes())?;
        let began = Instant::now();
        while self.collect() == 0 {
            self.pause(began, "answer")?;
        }
        let (header, payload) = &self.answers[0];
        Plain::from_bytes(payload)
            .filter(|_| header.is(Kind::Reply))
            .ok_or_else(|| format!("an ask of {to:?} was answered with {header:?}, {payload:02x?}"))
    }

    /// The state of an actor, of so many bytes; `None` if there is no such actor. It must have nothing to do. What comes
    /// besides is left among the answers.
    pub fn inspect(&mut self, of: ActorId, bytes: usize) -> Result<Option<Vec<u8>>, Failed> {
        let room = self.kernel.shape.payload_bytes_max() - size_of::<Inspected>();
        let mut asked = 0;
        for offset in (0..bytes.max(1)).step_by(room) {
            self.push(Kind::Inspect, of, offset as u64, &(offset as u32).to_le_bytes())?;
            asked += 1;
        }
        let (mut state, mut exists, began) = (vec![0; bytes], true, Instant::now());
        while asked > 0 {
            self.collect();
            for (header, payload) in std::mem::take(&mut self.answers) {
                if header.from() != of || !(header.is(Kind::Inspected) || header.reason() == Some(Reason::NoActor)) {
                    self.answers.push((header, payload));
                    continue;
                }
                asked -= 1;
                let Some((about, part)) = Inspected::split(&payload).filter(|_| header.is(Kind::Inspected)) else {
                    exists = false;
                    continue;
                };
                let at = about.offset as usize;
                expect(about.state_bytes as usize == bytes && at + part.len() <= bytes, || {
                    format!("{of:?}: {bytes} bytes of state are wanted: {about:?}")
                })?;
                state[at..at + part.len()].copy_from_slice(part);
            }
            if asked > 0 {
                self.pause(began, "show a state")?;
            }
        }
        Ok(exists.then_some(state))
    }

    /// The sum of a counter over all workers.
    pub fn sum(&self, of: impl Fn(&Reading) -> u64) -> u64 {
        self.link.read().iter().map(of).sum()
    }

    /// Messages taken from the ingress rings, whose slots are free again.
    pub fn consumed(&self) -> u64 {
        let lanes = 0..self.kernel.shape.lanes();
        let of = |lane| self.segment.worker(lane).ingress.0.consumed.load(Acquire);
        lanes.map(of).sum()
    }
}

/// Starts the kernel on the GPU and has it until it ends.
fn serve(gpu: &Gpu, cubin: &[u8], plan: &Plan, segment: &Arc<Segment>) -> Result<(), String> {
    let driver = Driver::open().map_err(|e| e.to_string())?;
    // SAFETY: the compiler made all of it, of the program for this segment's shape and this plan.
    let device = unsafe { launch::Device::start(driver, gpu, cubin, plan, segment, Arc::new(NoBell)) };
    let mut device = device.map_err(|e| e.to_string())?;
    while let Look::Runs(pause) = device.look().map_err(|e| e.to_string())? {
        std::thread::sleep(pause);
    }
    Ok(())
}
