//! Tries the ring kernel on a GPU, or on the emulated device: correctness first, then speed.
//!
//! `cargo build --release -p ringhold-tests --bin gpu-suite`, then `gpu-suite --device cuda:0 --out FOLDER` where the
//! GPU is.
//! `docs/gpu-suite.md` says what it tries and how to read it. It ends with 0 if nothing failed, and with 1 otherwise.
//!
//! Each step is a process of its own, so that one that hangs or crashes costs its own result and no other: [`steps`].

mod actors;
mod by_hand;
mod ceilings;
mod correctness;
mod device;
mod latency;
mod model;
mod nodes;
mod place;
mod programs;
mod report;
mod speed;
mod steps;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ringhold::device::{cuda, host};

use device::{Failed, Kernel, Machine, Sizes};
use report::{Outcome, Report};

/// Tries the ring kernel on a GPU, or on the emulated device.
#[derive(Parser)]
struct Arguments {
    /// What runs it: `cuda:0` or another number, or `emulated`
    #[arg(long, default_value = "cuda:0", value_parser = which)]
    device: Which,
    /// The folder for gpu-suite.json; otherwise that in the variable OUT, otherwise this one
    #[arg(long)]
    out: Option<PathBuf>,
    /// The step that this process is for, and the folder of the suite that started it
    #[arg(long, hide = true, num_args = 2, value_names = ["STEP", "FOLDER"])]
    step: Option<Vec<String>>,
}

#[derive(Clone, Copy)]
pub enum Which {
    Emulated,
    Cuda(u32),
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Which::Emulated => write!(f, "emulated"),
            Which::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

fn which(text: &str) -> Result<Which, String> {
    match (text, text.strip_prefix("cuda:").map(str::parse)) {
        ("emulated", _) => Ok(Which::Emulated),
        (_, Some(Ok(number))) => Ok(Which::Cuda(number)),
        _ => Err("write `emulated`, or `cuda:` and the number of a GPU".into()),
    }
}

/// What checks and measurements are run with.
pub struct Suite {
    which: Which,
    machine: Machine,
    /// Compiled kernels are kept here from one step to the next.
    folder: PathBuf,
}

impl Suite {
    fn new(which: Which, folder: &Path) -> Result<Suite, Failed> {
        let machine = match which {
            Which::Emulated => Machine::Emulated,
            Which::Cuda(number) => Machine::cuda(number)?,
        };
        Ok(Suite { which, machine, folder: folder.into() })
    }

    /// What most steps take.
    fn usual(&self) -> Sizes {
        Sizes::usual(&self.machine)
    }

    /// With rings and inboxes that are always full.
    fn short(&self) -> Sizes {
        Sizes { slots: 16, ..self.usual() }
    }

    fn kernel(&self, sizes: Sizes) -> Result<Kernel, Failed> {
        Kernel::compile(&self.machine, actors::for_kernels(), sizes, &self.folder)
    }

    /// One for wide actors, with so many threads in a block.
    fn wide_kernel(&self, threads: u32) -> Result<Kernel, Failed> {
        Kernel::compile(&self.machine, actors::wide(), Sizes { threads, ..self.usual() }, &self.folder)
    }

    fn is_emulated(&self) -> bool {
        self.machine.is_emulated()
    }

    /// How much of a thing there is: on the emulated device, or on a GPU.
    fn size<T>(&self, emulated: T, gpu: T) -> T {
        if self.is_emulated() { emulated } else { gpu }
    }

    /// A power of two.
    fn many_actors(&self) -> u64 {
        self.size(1 << 11, 1 << 20)
    }

    /// Asks in a comparison with native handlers.
    fn asks(&self) -> u32 {
        self.size(60, 2_000)
    }
}

/// The command of the library that one of the steps runs.
pub const DEMO: &str = "demo";

fn main() -> ExitCode {
    // What the library starts this binary as, and what the suite starts it as. The actors must be the same in all of them.
    if std::env::args().nth(1).is_some_and(|role| [host::ROLE, cuda::PROBE, DEMO].contains(&role.as_str())) {
        return ringhold::cli::main(actors::for_nodes());
    }
    let arguments = Arguments::parse();
    if let Some([step, folder]) = arguments.step.as_deref() {
        let done = steps::run_here(step, arguments.device, Path::new(folder));
        // At once: a device that does not end must not keep the process.
        std::process::exit(i32::from(done.is_err()));
    }
    let mut report = Report::default();
    steps::run_all(arguments.device, &mut report);
    report.print_table();
    let out = arguments.out.or_else(|| std::env::var_os("OUT").map(PathBuf::from)).unwrap_or_else(|| ".".into());
    let written = report.write(&out);
    if let Err(error) = &written {
        eprintln!("{error}");
    }
    ExitCode::from(u8::from(report.count(Outcome::Fail) > 0 || written.is_err()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ringhold_kernels::gpu::compile::Compiler;
    use ringhold_kernels::gpu::launch;

    use super::*;

    /// As on an H200.
    const USUAL: Sizes =
        Sizes { workers: 123, lanes: 4, threads: 256, slots: 16_384, slot_bytes: 128, memory: 70 << 30 };

    #[test]
    fn nvrtc_takes_everything_that_the_suite_has_for_a_gpu() {
        let compiler = match Compiler::find() {
            Ok(compiler) => compiler,
            Err(why) => return println!("skipped: {why}"),
        };
        let kernel = |(registry, sizes): (_, Sizes)| {
            let (shape, plan) = sizes.divide(&registry);
            launch::program(&registry, &shape, &plan).expect("the suite's actors fit")
        };
        let programs = [
            ("the suite's actors", kernel((actors::for_kernels(), USUAL))),
            ("wide actors", kernel((actors::wide(), Sizes { threads: 1024, ..USUAL }))),
            ("its nodes' actors", kernel((actors::for_nodes(), USUAL))),
            ("random programs", kernel(programs::tests::first(4, USUAL))),
            ("the ceilings", ceilings::program()),
        ];
        for (name, program) in programs {
            let began = Instant::now();
            let compiled = compiler.compile(&program, 90).unwrap_or_else(|error| panic!("{name}: {error}"));
            let (bytes, took) = (compiled.cubin.len(), began.elapsed());
            println!("{name}: {bytes} bytes after {took:?}; {}", compiled.log);
        }
    }
}
