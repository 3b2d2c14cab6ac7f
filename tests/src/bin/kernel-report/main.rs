//! What the ring kernel with every shipped actor takes of a GPU, by architecture: registers, stack, shared memory.
//!
//! `cargo run -p ringhold-tests --bin kernel-report -- [--source]`
//!
//! NVRTC compiles it (`RINGHOLD_NVRTC` names its folder) and `ptxas` assembles it (`RINGHOLD_PTXAS` is its path); without
//! them the program says that it skips, and ends with 0. It ends with 1 where the kernel is refused or a register spills.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use ringhold_kernels::registry::Registry;
use ringhold_kernels::ring_kernel::{self, Plan};
use ringhold_kernels::segment::{Framing, Shape};
use ringhold_tests::differential::nvrtc::{HOW_TO_GET_IT, Nvrtc};

/// What Ringhold promises to run on; of these, those that the compiler knows.
const ARCHITECTURES: [u32; 8] = [70, 75, 80, 86, 89, 90, 100, 120];
/// Threads of a block.
const THREADS: u32 = 128;

fn main() -> ExitCode {
    let mut registry = Registry::new();
    ringhold::shipped::register(&mut registry).expect("the shipped actors have names of their own");
    let shape = Shape {
        workers: 132,
        lanes: 4,
        framing: Framing::Flits as u32,
        types: registry.types().len() as u32,
        ..Shape::default()
    };
    let plan = Plan::divide(16 << 30, THREADS, &registry, &shape);
    let source = ring_kernel::source(&registry, &shape, &plan).expect("shipped actors fit the default slots");
    if std::env::args().any(|argument| argument == "--source") {
        println!("{source}");
        return ExitCode::SUCCESS;
    }
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
    println!("arch    threads  registers  stack  spilled  shared");
    for architecture in ARCHITECTURES.into_iter().filter(|architecture| known.contains(architecture)) {
        match report(&nvrtc, &ptxas, &source, architecture) {
            Ok(used) => {
                failed |= used.spilled > 0;
                let Used { registers, stack, spilled, shared } = used;
                println!("sm_{architecture:<5} {THREADS:>6} {registers:>10} {stack:>6} {spilled:>8} {shared:>7}");
            }
            Err(said) => {
                failed = true;
                println!("sm_{architecture}: {said}");
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
