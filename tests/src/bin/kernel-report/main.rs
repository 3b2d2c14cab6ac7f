//! What the ring kernel takes of a GPU, by architecture: registers, stack, shared memory. Once with every shipped actor, and
//! once with an actor of 1024 threads too, for which a thread has 64 registers.
//!
//! `cargo run -p ringhold-tests --bin kernel-report -- [--source]`
//!
//! NVRTC compiles it (`RINGHOLD_NVRTC` names its folder) and `ptxas` assembles it (`RINGHOLD_PTXAS` is its path); without
//! them the program says that it skips, and ends with 0. It ends with 1 where a kernel is refused, where a block of it does
//! not fit a multiprocessor, or where a register of the shipped actors' kernel spills.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use ringhold_kernels::registry::Registry;
use ringhold_kernels::ring_kernel::{self, Plan, THREADS_MIN};
use ringhold_kernels::segment::{Framing, Shape};
use ringhold_tests::differential::nvrtc::{HOW_TO_GET_IT, Nvrtc};

/// What Ringhold promises to run on; of these, those that the compiler knows.
const ARCHITECTURES: [u32; 8] = [70, 75, 80, 86, 89, 90, 100, 120];
/// Of any of them: registers of a multiprocessor, and bytes that a block may have of its shared memory without asking.
const REGISTERS: u64 = 64 * 1024;
const SHARED: u64 = 48 * 1024;

/// An actor as wide as there are, with a loop of every kind.
#[ringhold::actor(threads_per_actor = 1024)]
pub mod widest {
    const ITEMS: u32 = 4096;

    pub struct State {
        pub items: [f32; ITEMS],
        pub next: [f32; ITEMS],
    }

    pub enum Message {
        Smooth { by: f32 },
        Scale { by: i32 },
    }

    pub enum Reply {
        Summary { least: f32, most: f32, sum: f32, above: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Smooth { by } => {
                for i in ctx.threads(0..ITEMS) {
                    let left = state.items[if i > 0 { i - 1 } else { i }];
                    let right = state.items[(i + 1).min(ITEMS - 1)];
                    state.next[i] = state.items[i] + (left + right - state.items[i] * 2.0) * by;
                }
                for i in ctx.threads(0..ITEMS) {
                    state.items[i] = state.next[i];
                }
            }
            Message::Scale { by } => {
                for i in ctx.threads(0..ITEMS) {
                    state.items[i] *= (1000 / by) as f32;
                }
            }
        }
        let mut least = f32::INFINITY;
        let mut most = f32::NEG_INFINITY;
        let mut sum = 0.0;
        let mut above = 0;
        for i in ctx.threads(0..ITEMS) {
            least = least.min(state.items[i]);
            most = most.max(state.items[i]);
            sum += state.items[i];
            above += (state.items[i] > 1.0) as u32;
        }
        ctx.reply(Reply::Summary { least, most, sum, above });
    }
}

/// A device's text, and how many threads a block of it has.
fn kernel(registry: &Registry) -> (u32, String) {
    let shape = Shape {
        workers: 132,
        lanes: 4,
        framing: Framing::Flits as u32,
        types: registry.types().len() as u32,
        ..Shape::default()
    };
    let threads = ring_kernel::threads(registry, THREADS_MIN);
    let plan = Plan::divide(16 << 30, threads, registry, &shape);
    (threads, ring_kernel::source(registry, &shape, &plan).expect("these actors fit the default slots"))
}

fn main() -> ExitCode {
    let mut registry = Registry::new();
    ringhold::shipped::register(&mut registry).expect("the shipped actors have names of their own");
    let shipped = kernel(&registry);
    if std::env::args().any(|argument| argument == "--source") {
        println!("{}", shipped.1);
        return ExitCode::SUCCESS;
    }
    registry.register::<widest::Actor>().expect("no shipped actor has its name");
    let kernels = [("shipped", false, shipped), ("and widest", true, kernel(&registry))];
    let Some(nvrtc) = Nvrtc::find() else {
        println!("skipped: no NVRTC ({HOW_TO_GET_IT})");
        return ExitCode::SUCCESS;
    };
    let Some(ptxas) = std::env::var_os("RINGHOLD_PTXAS").map(PathBuf::from) else {
        println!(
            "skipped: no ptxas (pip install --target DIR 'nvidia-cuda-nvcc-cu12==12.9.*', then set RINGHOLD_PTXAS)"
        );
        return ExitCode::SUCCESS;
    };
    let known = nvrtc.architectures();
    let mut failed = false;
    println!("actors      arch    threads  registers  stack  spilled  shared");
    for (actors, may_spill, (threads, source)) in &kernels {
        for architecture in ARCHITECTURES.into_iter().filter(|architecture| known.contains(architecture)) {
            match report(&nvrtc, &ptxas, source, architecture) {
                Ok(Used { registers, stack, spilled, shared }) => {
                    let fits = registers * u64::from(*threads) <= REGISTERS && shared <= SHARED;
                    failed |= !fits || (spilled > 0 && !may_spill);
                    print!(
                        "{actors:<11} sm_{architecture:<5} {threads:>6} {registers:>10} {stack:>6} {spilled:>8} {shared:>7}"
                    );
                    println!("{}", if fits { "" } else { "  a block does not fit" });
                }
                Err(said) => {
                    failed = true;
                    println!("{actors:<11} sm_{architecture}: {said}");
                }
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Of one kernel: registers of a thread, and bytes.
struct Used {
    registers: u64,
    stack: u64,
    spilled: u64,
    shared: u64,
}

fn report(nvrtc: &Nvrtc, ptxas: &PathBuf, source: &str, architecture: u32) -> Result<Used, String> {
    let ptx = nvrtc.ptx(source, architecture)?;
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let (input, output) = (folder.path().join("kernel.ptx"), folder.path().join("kernel.cubin"));
    std::fs::write(&input, ptx).map_err(|e| format!("{}: {e}", input.display()))?;
    let done = Command::new(ptxas)
        .args(["-v", &format!("-arch=sm_{architecture}"), "-o"])
        .args([&output, &input])
        .output()
        .map_err(|e| format!("{}: {e}", ptxas.display()))?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if !done.status.success() {
        return Err(said);
    }
    // A function that is called through a pointer saves its caller's registers, which ptxas counts as spilled. There is one
    // kind of these: the iterations of a wide actor's loop.
    let of_the_kernel = said.split("Function properties for ").skip(1).filter(|text| !text.contains("run_iterations"));
    let of_the_kernel: String = of_the_kernel.collect();
    // "Used 96 registers, …, 20480 bytes smem", "64 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
    let before = |said: &str, what: &str| -> u64 {
        let number = |at: usize| said[..at].trim_end().rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        said.match_indices(what).filter_map(|(at, _)| number(at)).max().unwrap_or(0)
    };
    Ok(Used {
        registers: before(&said, " registers"),
        stack: before(&said, " bytes stack frame"),
        spilled: before(&of_the_kernel, " bytes spill stores").max(before(&of_the_kernel, " bytes spill loads")),
        shared: before(&said, " bytes smem"),
    })
}
