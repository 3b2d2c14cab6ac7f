//! A ring kernel on a GPU: from machine code and a segment to a device that runs, and to its end.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::context::{Context, Grid, Memory, Module, Pinned, Stream};
use super::driver::{self, Absent, Driver, Gpu, OUT_OF_MEMORY};
use super::program::Program;
use crate::bell::Bell;
use crate::clock_map::Options;
use crate::cuda::Source;
use crate::pump::Pump;
use crate::registry::Registry;
use crate::ring_kernel::{self, ARENA_BYTES, KERNEL, Plan};
use crate::segment::{Segment, Shape};

/// Why there is no device, or no more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Absent(#[from] Absent),
    /// A call that harms nothing but this start.
    #[error("{0}")]
    Driver(driver::Error),
    #[error(
        "the ring kernel's {} blocks of {} threads wait for each other, so all must run at once, and {gpu} runs {resident} \
         ({multiprocessors} multiprocessors, {} each): give the device fewer workers (`workers` of its [[devices]])",
        grid.blocks, grid.threads, resident / multiprocessors.max(&1)
    )]
    Refused { gpu: String, grid: Grid, resident: u32, multiprocessors: u32 },
    #[error("{gpu} has {} MiB of free memory, and the device needs {} MiB: {error}", free_bytes >> 20, needs_bytes >> 20)]
    Memory { gpu: String, needs_bytes: u64, free_bytes: u64, error: driver::Error },
    #[error(
        "the {} KiB that the device shares with its node cannot be pinned: {error}; raise the limit of locked memory \
         (`ulimit -l`, LimitMEMLOCK), or make the queues shorter", bytes >> 10
    )]
    Pin { bytes: usize, error: driver::Error },
    /// The kernel is over, and nothing works in this process any more.
    #[error("the ring kernel ended in an error: {0}")]
    Sticky(driver::Error),
    #[error(
        "the ring kernel has no memory left for its actors, what they send, or their timers: give the device more (`memory_bytes` of its [[devices]])"
    )]
    KernelOutOfMemory,
    #[error(
        "the ring kernel has no room for what the checkpoint holds: give the device more memory, by fewer devices on its GPU, or \
         a larger GPU"
    )]
    RestoreOutOfMemory,
    #[error("the ring kernel ended by itself, with reason {0}")]
    KernelFailed(u32),
}

/// Tells the GPU's time, so that the host can tell how far it is from its own.
const CLOCK: &str = "rh_clock";
const CLOCK_TEXT: &str = "
#ifdef __CUDACC__
extern \"C\" __global__ void rh_clock(unsigned long long* to) {
    unsigned long long now;
    asm volatile(\"mov.u64 %0, %%globaltimer;\" : \"=l\"(now));
    *to = now;
}
#endif
";

/// The program of a device that serves segments of this shape.
///
/// # Errors
/// As [`ring_kernel::source`].
pub fn program(registry: &Registry, shape: &Shape, plan: &Plan) -> Result<Program, ring_kernel::Error> {
    let mut text = ring_kernel::source(registry, shape, plan)?;
    let _ = writeln!(text, "// ---- the clock{CLOCK_TEXT}");
    let actors: Vec<_> =
        registry.types().iter().map(|actor| (actor.schema.name.as_str(), Source::from(actor))).collect();
    Ok(Program::new(text, &actors))
}

/// A device that runs on a GPU. One thread has it.
///
/// It must be over before it is dropped: the memory that its kernel uses goes with it, and giving that back waits for the
/// kernel.
pub struct Device {
    // Dropped in this order: what uses before what is used.
    stream: Stream,
    _module: Module,
    _arena: Memory,
    _pinned: Pinned,
    pump: Pump,
    segment: Arc<Segment>,
}

/// What a look at a device found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It runs; look again after so long.
    Runs(Duration),
    /// Its kernel has ended in order: the node had asked it to.
    Ended,
}

impl Device {
    /// Starts the kernel of this machine code for the segment. `plan` is the one that it was made for. The node is told
    /// by the segment and its bell once the kernel is up, by [`Device::look`].
    ///
    /// # Safety
    /// The code is a whole cubin of [`program`] for this segment's shape and this plan.
    pub unsafe fn start(
        driver: Driver,
        gpu: &Gpu,
        code: &[u8],
        plan: &Plan,
        segment: &Arc<Segment>,
        node: Arc<dyn Bell>,
    ) -> Result<Device, Error> {
        let context = Context::new(driver, gpu.number)?;
        // SAFETY: the caller's.
        let module = unsafe { context.module(code) }.map_err(of_a_call)?;
        let kernel = module.kernel(KERNEL).map_err(of_a_call)?;
        let name = || format!("cuda:{} ({})", gpu.number, gpu.name);

        let grid = Grid { blocks: blocks(segment.shape()), threads: plan.threads };
        let each = kernel.blocks_per_multiprocessor(grid.threads).map_err(of_a_call)?;
        let resident = each * gpu.multiprocessors;
        if grid.blocks > resident {
            return Err(Error::Refused { gpu: name(), grid, resident, multiprocessors: gpu.multiprocessors });
        }

        let needs_bytes = module.constant(ARENA_BYTES).map_err(of_a_call)?;
        let (free_bytes, _) = context.memory_bytes().map_err(of_a_call)?;
        let arena = context.allocate(needs_bytes).map_err(|error| match error.code {
            OUT_OF_MEMORY => Error::Memory { gpu: name(), needs_bytes, free_bytes, error },
            _ => of_a_call(error),
        })?;
        let bytes = segment.shape().bytes();
        // SAFETY: the mapping starts at a page and stays for as long as the segment, which outlives the device. What
        // both sides write is atomic, or a slot that the ring protocol gives to one of them.
        let pinned = unsafe { context.pin(segment.base(), bytes) }.map_err(|error| match error.code {
            OUT_OF_MEMORY => Error::Pin { bytes, error },
            _ => of_a_call(error),
        })?;
        let stream = context.stream().map_err(of_a_call)?;
        // SAFETY: the memory is as long as that, and the stream is done before anything else happens.
        unsafe { stream.zero(&arena, needs_bytes) }.and_then(|()| stream.wait()).map_err(of_a_call)?;
        let epoch_offset_ns = epoch_offset_ns(&module, &stream, &arena).map_err(of_a_call)?;
        // SAFETY: the clock's word is the arena's first, which is zero again with this.
        unsafe { stream.zero(&arena, 8) }.and_then(|()| stream.wait()).map_err(of_a_call)?;
        let arguments = [arena.address, pinned.address, epoch_offset_ns];
        // SAFETY: these are the arguments of `kernel.cuh`; arena and segment live as long as the device.
        unsafe { stream.launch_cooperative(&kernel, grid, &arguments) }.map_err(of_a_call)?;
        let pump = Pump::new(segment.clone(), node, Options::default());
        Ok(Device { stream, _module: module, _arena: arena, _pinned: pinned, pump, segment: segment.clone() })
    }

    /// Looks whether the kernel still runs, and does for it what it cannot do for itself: see [`Pump`].
    ///
    /// # Errors
    /// How the kernel ended, if not in order.
    pub fn look(&mut self) -> Result<Look, Error> {
        let done = self.stream.is_done().map_err(Error::Sticky)?;
        // After the question: what the kernel said last is seen.
        let pause = self.pump.look();
        match (done, self.segment.kernel().failed.load(Acquire)) {
            (false, _) => Ok(Look::Runs(pause)),
            (true, 0) => Ok(Look::Ended),
            (true, 1) => Err(Error::KernelOutOfMemory),
            (true, 2) => Err(Error::RestoreOutOfMemory),
            (true, code) => Err(Error::KernelFailed(code)),
        }
    }
}

/// Blocks of the ring kernel, as `kernel.cuh` counts them: the workers, one for control, two for each lane.
pub fn blocks(shape: &Shape) -> u32 {
    shape.workers + 1 + 2 * shape.lanes() as u32
}

/// A call that failed, before the kernel runs: either harmless, or the error that everything ends in by now.
fn of_a_call(error: driver::Error) -> Error {
    if error.is_sticky() { Error::Sticky(error) } else { Error::Driver(error) }
}

/// What to add to the GPU's clock for nanoseconds since the Unix epoch. Each sample is taken between two looks at the
/// host's clock; the one with the least between them says most.
fn epoch_offset_ns(module: &Module, stream: &Stream, arena: &Memory) -> Result<u64, driver::Error> {
    const SAMPLES: u32 = 16;
    let clock = module.kernel(CLOCK)?;
    let mut best = (u64::MAX, 0);
    for _ in 0..SAMPLES {
        let before = since_epoch_ns();
        // SAFETY: it takes an address of 8 bytes, and has ended before the arena is used for anything else.
        unsafe { stream.launch_cooperative(&clock, Grid { blocks: 1, threads: 1 }, &[arena.address]) }?;
        stream.wait()?;
        let after = since_epoch_ns();
        let between = after.saturating_sub(before);
        if between < best.0 {
            let device = arena.first_word()?;
            best = (between, (before + between / 2).wrapping_sub(device));
        }
    }
    Ok(best.1)
}

fn since_epoch_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
