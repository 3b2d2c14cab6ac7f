//! What devices this machine can have: its cores and its GPUs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ringhold_cluster::placement::Place;
use ringhold_kernels::gpu::compile::Compiler;
use ringhold_kernels::gpu::driver::{Driver, Error, Gpu, Version};
use ringhold_kernels::gpu::needs::{self, MEMORY_BYTES_MIN, Needs, Toolchain, Unmet};
use ringhold_kernels::gpu::nvml::{self, Health, Nvml};
use serde::Serialize;

use super::topology;

/// A machine, as far as devices are concerned.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: Cpu,
    /// `None` if there is no driver, or none that starts.
    pub driver: Option<DriverFacts>,
    /// What makes the code of GPUs; `None` if there is none.
    pub compiler: Option<CompilerFacts>,
    pub gpus: Vec<Found>,
    /// Why there are no GPUs, where there are none.
    pub no_gpus: Option<String>,
    /// Why there is no compiler, where there is none.
    pub no_compiler: Option<String>,
    /// Why nobody tells how the GPUs' memory does and where their NVLinks end, where nobody does.
    pub no_nvml: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    /// As it calls itself; `None` where it does not.
    pub name: Option<String>,
    /// Those that this process may use.
    pub cores: usize,
    /// The memory node that all of these are next to.
    pub numa_node: Option<u32>,
}

#[derive(Clone, Debug, Serialize)]
pub struct DriverFacts {
    /// The newest CUDA that it runs code of.
    pub cuda: Version,
    /// Its own release, where the system tells.
    pub release: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct CompilerFacts {
    #[serde(flatten)]
    pub toolchain: Toolchain,
    pub file: PathBuf,
}

/// A GPU that the driver counts.
// A machine has few of them, and nobody keeps them.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Found {
    Gpu {
        #[serde(flatten)]
        gpu: Gpu,
        /// `None` where the driver did not say.
        memory_free_bytes: Option<u64>,
        /// What keeps it from running a device.
        unmet: Vec<Unmet>,
        /// That nothing does.
        usable: bool,
        /// How its memory does; `None` where that cannot be told.
        health: Option<Health>,
        /// Why not, where NVML could not for this GPU.
        no_health: Option<String>,
        /// Where it is, as far as that is known.
        place: Place,
        /// Why nobody knows where its NVLinks end, where NVML could not tell for this GPU.
        no_nvlinks: Option<String>,
    },
    /// One that does not answer.
    Broken { number: usize, error: String },
}

impl Machine {
    /// Looks at this machine. NVIDIA's libraries are loaded into this process, where there are any.
    ///
    /// To learn how much of a GPU's memory is free takes some of it for a moment: only if `free` is wanted.
    pub fn look(free: bool) -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let (compiler, no_compiler) = match Compiler::find() {
            Ok(compiler) => {
                let toolchain = compiler.toolchain().clone();
                (Some(CompilerFacts { toolchain, file: compiler.file().to_path_buf() }), None)
            }
            Err(absent) => (None, Some(absent.to_string())),
        };
        let needs = Needs {
            memory_bytes: MEMORY_BYTES_MIN,
            compiler: compiler.as_ref().map(|compiler| compiler.toolchain.clone()),
        };
        let driver = Driver::open();
        let gpus = driver.as_ref().map_err(Clone::clone).and_then(Driver::gpus);
        let driver = driver.ok();
        // It has nothing to say of a machine without GPUs.
        let nvml = gpus.is_ok().then(Nvml::open);
        let no_nvml = nvml.as_ref().and_then(|nvml| nvml.as_ref().err().map(nvml::Absent::to_string));
        let nvml = nvml.and_then(Result::ok);
        let (gpus, no_gpus) = match (&driver, gpus) {
            (Some(driver), Ok(gpus)) => {
                let found = |(number, gpu)| found(driver, nvml.as_ref(), number, gpu, &needs, free);
                (gpus.into_iter().enumerate().map(found).collect(), None)
            }
            (_, Err(absent)) => (Vec::new(), Some(absent.to_string())),
            (None, Ok(_)) => unreachable!("only a driver knows GPUs"),
        };
        Machine {
            cpu: Cpu { name: cpu_name(), cores, numa_node: topology::of_this_process().numa_node },
            driver: driver.map(|driver| DriverFacts { cuda: driver.version, release: driver.release }),
            compiler,
            gpus,
            no_gpus,
            no_compiler,
            no_nvml,
        }
    }
}

fn found(
    driver: &Driver,
    nvml: Option<&Nvml>,
    number: usize,
    gpu: Result<Gpu, Error>,
    needs: &Needs,
    free: bool,
) -> Found {
    match gpu {
        Ok(gpu) => {
            let unmet = needs::check(&gpu, needs);
            let memory_free_bytes = free.then(|| driver.memory_free_bytes(&gpu).ok()).flatten();
            let (health, no_health) = match nvml.map(|nvml| nvml.health(&gpu.pci_bus_id)) {
                Some(Ok(health)) => (Some(health), None),
                Some(Err(e)) => (None, Some(e.to_string())),
                None => (None, None),
            };
            let (nvlinks, no_nvlinks) = match nvml.map(|nvml| nvml.nvlinks(&gpu.pci_bus_id)) {
                Some(Ok(nvlinks)) => (nvlinks, None),
                Some(Err(e)) => (BTreeSet::new(), Some(e.to_string())),
                None => (BTreeSet::new(), None),
            };
            let place = topology::of_gpu(Path::new(topology::SYSTEM), &gpu.pci_bus_id, nvlinks);
            let usable = unmet.is_empty();
            Found::Gpu { usable, gpu, memory_free_bytes, unmet, health, no_health, place, no_nvlinks }
        }
        Err(error) => Found::Broken { number, error: error.to_string() },
    }
}

fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}
