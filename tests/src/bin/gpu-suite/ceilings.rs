//! What the machine itself can do, measured in the same run: printed beside what Ringhold does with it.
//!
//! Small kernels of the suite's own (`ceilings.cu`), compiled and launched as a ring kernel is.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ringhold_kernels::gpu::context::{Context, Grid};
use ringhold_kernels::gpu::driver::Driver;
use ringhold_kernels::gpu::program::Program;

use super::Suite;
use super::device::{Machine, cubin, expect, failed};
use super::report::Figure;
use super::speed::Measured;

/// The step.
pub const NAME: &str = "the machine's ceilings";

/// Names of the figures.
pub const COPY: &str = "device copy";
pub const L2: &str = "L2 round trip";
pub const FLAGS: &str = "flags of two blocks, to and fro";
pub const PCIE: &str = "PCIe round trip";

const TEXT: &str = include_str!("ceilings.cu");

/// More than any cache holds.
const COPIED_BYTES_MAX: u64 = 1 << 30;
const COPIES: u64 = 8;
const LAUNCHES: usize = 20;
/// More than a multiprocessor's cache holds, and less than the cache of all.
const CHASED_WORDS: u64 = 1 << 17;
const CHASED_STEPS: u64 = 64;
const SAMPLES: usize = 4_000;
/// Round trips that are not counted.
const WARM: usize = 100;
const BOUNCES: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(20);

pub fn measure(suite: &Suite) -> Measured {
    let Machine::Cuda { gpu, compiler } = &suite.machine else {
        return Err("the emulated device has no ceilings of its own".into());
    };
    let code = cubin(gpu, compiler, &program(), &suite.folder)?;
    let context = Context::new(Driver::open().map_err(failed)?, gpu.number).map_err(failed)?;
    // SAFETY: the compiler has made all of it.
    let module = unsafe { context.module(&code) }.map_err(failed)?;
    let stream = context.stream().map_err(failed)?;
    let run = |name: &str, grid: Grid, arguments: &[u64]| -> Result<(), String> {
        let kernel = module.kernel(name).map_err(failed)?;
        // SAFETY: the arguments are those of `ceilings.cu`, and what they name lives until `wait`, or the end of the process.
        unsafe { stream.launch_cooperative(&kernel, grid, arguments) }.map_err(failed)
    };
    let words = Words::new(2 + SAMPLES.max(32));
    // SAFETY: it is whole pages, and lives until the process ends. The host reads its words as atomics.
    let pinned = unsafe { context.pin(words.base.cast(), words.layout.size()) }.map_err(failed)?;
    let mut figures = Vec::new();

    let bytes = (gpu.memory_bytes / 8).min(COPIED_BYTES_MAX) / 4096 * 4096;
    let (from, to) = (context.allocate(bytes).map_err(failed)?, context.allocate(bytes).map_err(failed)?);
    let grid = Grid { blocks: gpu.multiprocessors * 2, threads: 512 };
    let mut rates = Vec::new();
    for _ in 0..LAUNCHES {
        let began = Instant::now();
        run("suite_copy", grid, &[from.address, to.address, bytes / 16, COPIES])?;
        stream.wait().map_err(failed)?;
        rates.push((2 * bytes * COPIES) as f64 / began.elapsed().as_secs_f64());
    }
    figures.push(Figure::new(COPY, "B/s", rates[1..].to_vec(), &[50.0, 1.0]).method(
        "a kernel that copies device memory, 16 bytes an access, from the launch until the host knows of its end: bytes read \
         and written",
    ));

    run(
        "suite_chase",
        Grid { blocks: 1, threads: 1 },
        &[from.address, CHASED_WORDS, CHASED_STEPS, pinned.address, SAMPLES as u64],
    )?;
    stream.wait().map_err(failed)?;
    let each = words.nanoseconds()?.iter().map(|ns| ns / CHASED_STEPS as f64).collect();
    figures.push(Figure::new(L2, "ns", each, &[50.0, 99.0]).method(
        "loads of scope gpu that depend on each other, in a megabyte, by one thread: one sample is the mean of 64",
    ));

    // SAFETY: the memory is as long as that.
    unsafe { stream.zero(&from, 4096) }.and_then(|()| stream.wait()).map_err(failed)?;
    run("suite_flags", Grid { blocks: 2, threads: 1 }, &[from.address, pinned.address, SAMPLES as u64])?;
    stream.wait().map_err(failed)?;
    figures.push(Figure::new(FLAGS, "ns", words.nanoseconds()?, &[50.0, 99.0]).method(
        "two blocks of one thread each: from a store by one until it has loaded what the other stored in answer",
    ));

    let (flag, answer) = (words.word(0), words.word(16));
    flag.store(0, Relaxed);
    answer.store(0, Relaxed);
    run("suite_bounce", Grid { blocks: 1, threads: 1 }, &[pinned.address, BOUNCES])?;
    let (mut took, started) = (Vec::new(), Instant::now());
    for bounce in 1..=BOUNCES {
        let began = Instant::now();
        // Each flag is one word that stands for itself.
        flag.store(bounce, Relaxed);
        while answer.load(Relaxed) != bounce {
            expect(started.elapsed() < PATIENCE, || format!("the GPU has not answered flag {bounce}"))?;
        }
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    stream.wait().map_err(failed)?;
    let took = took.split_off(WARM);
    figures.push(Figure::new(PCIE, "us", took, &[50.0, 99.0, 99.9]).method(
        "two words of host memory: from a store by the host until it has loaded what one thread of the GPU stored in answer",
    ));
    Ok(figures)
}

pub fn program() -> Program {
    Program::new(TEXT.into(), &[])
}

/// Words of host memory, in whole pages; the GPU writes them.
struct Words {
    base: NonNull<AtomicU64>,
    layout: Layout,
}

impl Words {
    fn new(count: usize) -> Words {
        let layout = Layout::from_size_align((count * 8).next_multiple_of(4096), 4096).expect("some pages");
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("there is memory for some pages");
        Words { base: base.cast(), layout }
    }

    fn word(&self, number: usize) -> &AtomicU64 {
        assert!((number + 1) * 8 <= self.layout.size());
        // SAFETY: it is within the allocation, zero or written whole, and only ever read and written as an atomic.
        unsafe { self.base.add(number).as_ref() }
    }

    /// What a kernel has timed, in nanoseconds, without the first. The kernel has ended.
    fn nanoseconds(&self) -> Result<Vec<f64>, String> {
        let (cycles, ns) = (self.word(0).load(Relaxed), self.word(1).load(Relaxed));
        expect(cycles > 0 && ns > 100_000, || format!("{cycles} cycles in {ns} ns are too little to tell the rate"))?;
        let sample = |number| self.word(2 + number).load(Relaxed) as f64 * ns as f64 / cycles as f64;
        Ok((WARM..SAMPLES).map(sample).collect())
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout; what pinned it is dropped before.
        unsafe { dealloc(self.base.as_ptr().cast(), self.layout) }
    }
}
