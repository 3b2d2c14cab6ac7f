//! Actor types as one CUDA C++ translation unit.
//!
//! The macro leaves the C++ of each module in two constants of its `Actor`; the headers they stand on are in
//! `kernels/cuda`. What comes out compiles by NVRTC for a GPU and as C++17 on the host.

use std::fmt::Write;

use crate::actor::Actor;
use crate::registry::ActorType;

/// The headers, each with its name, in the order in which they stand on each other. They need no other.
pub const PRELUDE: [(&str, &str); 4] = [
    ("types.cuh", include_str!("../cuda/types.cuh")),
    ("arith.cuh", include_str!("../cuda/arith.cuh")),
    ("plain.cuh", include_str!("../cuda/plain.cuh")),
    ("context.cuh", include_str!("../cuda/context.cuh")),
];

/// The options without which NVRTC might give other bits. What a user leaves unused is for rustc to tell.
pub const NVRTC_OPTIONS: [&str; 7] = [
    "--std=c++17",
    "--fmad=false",
    "--ftz=false",
    "--prec-div=true",
    "--prec-sqrt=true",
    "--diag-suppress=177,550",
    "--device-as-default-execution-space",
];

/// The same for a host compiler in the manner of GCC or Clang. A handler's endless loop must stay one.
pub const HOST_OPTIONS: [&str; 4] = ["-std=c++17", "-ffp-contract=off", "-fno-fast-math", "-fno-finite-loops"];

/// The C++ of one actor type.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The module's name; its C++ namespace is `rh_` and this.
    pub module: &'static str,
    pub types: &'static str,
    pub functions: &'static str,
}

impl Source {
    pub const fn of<A: Actor>() -> Source {
        Source { module: A::MODULE, types: A::CUDA_TYPES, functions: A::CUDA_FUNCTIONS }
    }

    /// The C++ namespace of the module; `Actor` in it is what a device's worker is a template over.
    pub fn namespace(&self) -> String {
        let ascii =
            self.module.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("_u{:x}_", c as u32) });
        format!("rh_{}", ascii.collect::<String>())
    }
}

impl From<&ActorType> for Source {
    fn from(of: &ActorType) -> Source {
        Source { module: of.module, types: of.cuda_types, functions: of.cuda_functions }
    }
}

/// The headers, then every module's types, then every module's functions: a handler may send the messages of
/// any other module here. Module names must differ from each other.
pub fn translation_unit(actors: &[Source]) -> String {
    let mut text = String::new();
    for (name, header) in PRELUDE {
        let _ = writeln!(text, "// ---- {name}\n{header}");
    }
    for part in [|actor: &Source| actor.types, |actor: &Source| actor.functions] {
        for actor in actors {
            text.push_str(part(actor));
        }
    }
    text
}
