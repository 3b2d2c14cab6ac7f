//! What a GPU must be to run a device, and what one lacks.

use std::fmt;

use serde::Serialize;

use super::driver::{Capability, Gpu, Version};

/// The oldest GPUs that can run the ring kernel: Volta's.
pub const CAPABILITY_MIN: Capability = Capability { major: 7, minor: 0 };

/// Memory that any device takes: its tables, queues and the first actors.
pub const MEMORY_BYTES_MIN: u64 = 1 << 30;

/// What is needed of a GPU here.
#[derive(Clone, Debug)]
pub struct Needs {
    pub memory_bytes: u64,
    /// The compiler that makes the device's code; `None` if there is none.
    pub compiler: Option<Toolchain>,
}

/// What a compiler can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Toolchain {
    pub version: Version,
    /// The architectures it makes code for, as in 90 for `sm_90`.
    pub architectures: Vec<u32>,
}

/// Something that a GPU is to be and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    Capability { has: Capability },
    CooperativeLaunch,
    Memory { needs_bytes: u64, has_bytes: u64 },
    NoCompiler,
    Driver { runs: Version, compiler: Version },
    Architecture { has: Capability, compiler: Toolchain },
    KernelTimeout,
    ComputeProhibited,
}

/// Everything that keeps the GPU from running a device.
pub fn check(gpu: &Gpu, needs: &Needs) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    let has = gpu.capability;
    if has < CAPABILITY_MIN {
        unmet.push(Unmet::Capability { has });
    }
    if !gpu.cooperative_launch {
        unmet.push(Unmet::CooperativeLaunch);
    }
    if gpu.memory_bytes < needs.memory_bytes {
        unmet.push(Unmet::Memory { needs_bytes: needs.memory_bytes, has_bytes: gpu.memory_bytes });
    }
    match &needs.compiler {
        None => unmet.push(Unmet::NoCompiler),
        Some(compiler) => {
            if gpu.driver.major < compiler.version.major {
                unmet.push(Unmet::Driver { runs: gpu.driver, compiler: compiler.version });
            }
            // An old GPU is one reason, and not two.
            if has >= CAPABILITY_MIN && architecture(has, &compiler.architectures).is_none() {
                unmet.push(Unmet::Architecture { has, compiler: compiler.clone() });
            }
        }
    }
    if gpu.kernel_timeout {
        unmet.push(Unmet::KernelTimeout);
    }
    if gpu.compute_prohibited {
        unmet.push(Unmet::ComputeProhibited);
    }
    unmet
}

/// The architecture to compile for: the newest whose machine code the GPU runs. Code runs on GPUs of its own major
/// version that are as new or newer ("Binary Compatibility" in the CUDA C++ Programming Guide).
pub fn architecture(has: Capability, known: &[u32]) -> Option<u32> {
    let runs = |number: &u32| number / 10 == has.major && number % 10 <= has.minor;
    known.iter().copied().filter(runs).max()
}

impl Unmet {
    /// In a word, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Unmet::Capability { .. } => "capability",
            Unmet::CooperativeLaunch => "cooperative_launch",
            Unmet::Memory { .. } => "memory",
            Unmet::NoCompiler => "no_compiler",
            Unmet::Driver { .. } => "driver",
            Unmet::Architecture { .. } => "architecture",
            Unmet::KernelTimeout => "kernel_timeout",
            Unmet::ComputeProhibited => "compute_prohibited",
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &u64| bytes >> 20;
        match self {
            Unmet::Capability { has } => write!(
                f,
                "its compute capability is {has} and {CAPABILITY_MIN} is needed, for threads that wait for each other: \
                 use a GPU of the Volta generation (2017) or newer"
            ),
            Unmet::CooperativeLaunch => write!(
                f,
                "its driver does not promise to run all blocks of a kernel at once, and blocks that wait for one that \
                 never runs would wait for ever: use a GPU that is not shared out in parts by software, with the \
                 newest driver"
            ),
            Unmet::Memory { needs_bytes, has_bytes } => write!(
                f,
                "it has {} MiB of memory and a device needs {} MiB: use a larger GPU",
                mib(has_bytes),
                mib(needs_bytes)
            ),
            Unmet::NoCompiler => {
                write!(f, "there is no compiler (NVRTC) on this machine to make its code with: install one")
            }
            Unmet::Driver { runs, compiler } => write!(
                f,
                "its driver runs CUDA up to {runs} and the compiler here makes code for CUDA {compiler}, which it \
                 would refuse: install a newer driver, or name a compiler of CUDA {} with RINGHOLD_NVRTC",
                runs.major
            ),
            Unmet::Architecture { has, compiler } => write!(
                f,
                "its compute capability is {has} and the compiler here, of CUDA {}, makes no code for that: name {} \
                 with RINGHOLD_NVRTC",
                compiler.version,
                match compiler.architectures.iter().min() {
                    Some(oldest) if has.architecture() < *oldest => "an older one",
                    _ => "a newer one",
                }
            ),
            Unmet::KernelTimeout => write!(
                f,
                "it drives a display, so its driver ends every kernel after some seconds, and a device's kernel runs \
                 for as long as the node: use a GPU without a display, or run the machine without one"
            ),
            Unmet::ComputeProhibited => {
                write!(f, "its compute mode lets nobody compute on it: `nvidia-smi -i GPU -c DEFAULT` changes that")
            }
        }
    }
}

impl Serialize for Unmet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut unmet = serializer.serialize_struct("Unmet", 2)?;
        unmet.serialize_field("kind", self.kind())?;
        unmet.serialize_field("reason", &self.to_string())?;
        unmet.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA_12_9: Version = Version { major: 12, minor: 9 };
    const CUDA_13_0: Version = Version { major: 13, minor: 0 };

    fn h100() -> Gpu {
        Gpu {
            number: 0,
            name: "NVIDIA H100 80GB HBM3".into(),
            capability: Capability { major: 9, minor: 0 },
            memory_bytes: 80 << 30,
            multiprocessors: 132,
            pci_bus_id: "0000:3b:00.0".into(),
            driver: CUDA_13_0,
            cooperative_launch: true,
            kernel_timeout: false,
            compute_prohibited: false,
        }
    }

    fn needs() -> Needs {
        let compiler = Toolchain { version: CUDA_12_9, architectures: vec![50, 70, 75, 80, 86, 89, 90, 100, 120] };
        Needs { memory_bytes: MEMORY_BYTES_MIN, compiler: Some(compiler) }
    }

    fn newest() -> Needs {
        let compiler = Toolchain { version: CUDA_13_0, architectures: vec![75, 80, 86, 89, 90, 100, 120] };
        Needs { compiler: Some(compiler), ..needs() }
    }

    #[test]
    fn a_data_centre_gpu_lacks_nothing() {
        assert_eq!(check(&h100(), &needs()), []);
        let exactly = Gpu {
            capability: CAPABILITY_MIN,
            memory_bytes: MEMORY_BYTES_MIN,
            driver: Version { major: 12, minor: 0 },
            ..h100()
        };
        assert_eq!(check(&exactly, &needs()), [], "a driver runs machine code of every release of its major version");
    }

    #[test]
    fn everything_that_is_lacking_is_named_at_once() {
        let gpu = Gpu {
            capability: Capability { major: 6, minor: 1 },
            memory_bytes: MEMORY_BYTES_MIN - 1,
            driver: Version { major: 12, minor: 8 },
            cooperative_launch: false,
            kernel_timeout: true,
            compute_prohibited: true,
            ..h100()
        };
        let unmet = check(&gpu, &newest());
        let kinds: Vec<_> = unmet.iter().map(Unmet::kind).collect();
        assert_eq!(
            kinds,
            ["capability", "cooperative_launch", "memory", "driver", "kernel_timeout", "compute_prohibited"]
        );
        assert!(unmet[0].to_string().starts_with("its compute capability is 6.1 and 7.0 is needed"));
        assert!(unmet[2].to_string().starts_with("it has 1023 MiB of memory and a device needs 1024 MiB"));
        assert!(unmet[3].to_string().contains("CUDA up to 12.8 and the compiler here makes code for CUDA 13.0"));
    }

    #[test]
    fn a_gpu_without_a_compiler_is_of_no_use() {
        assert_eq!(check(&h100(), &Needs { compiler: None, ..needs() }), [Unmet::NoCompiler]);
    }

    #[test]
    fn a_compiler_must_know_the_gpu() {
        let with = |major, minor| Gpu { capability: Capability { major, minor }, ..h100() };
        let v100 = check(&with(7, 0), &newest());
        assert!(v100.len() == 1 && v100[0].to_string().ends_with("name an older one with RINGHOLD_NVRTC"), "{v100:?}");
        let next = check(&with(13, 0), &newest());
        assert!(next.len() == 1 && next[0].to_string().ends_with("name a newer one with RINGHOLD_NVRTC"), "{next:?}");
    }

    #[test]
    fn code_is_made_for_the_newest_architecture_that_the_gpu_runs() {
        let known = [70, 75, 80, 86, 89, 90, 100, 120];
        let of = |major, minor| architecture(Capability { major, minor }, &known);
        assert_eq!([of(9, 0), of(8, 7), of(8, 9), of(12, 1)], [Some(90), Some(86), Some(89), Some(120)]);
        assert_eq!([of(7, 2), of(6, 1), of(11, 0)], [Some(70), None, None]);
    }
}
