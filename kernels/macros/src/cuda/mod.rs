//! The device's back end: an actor module as CUDA C++.
//!
//! The text compiles by NVRTC for a GPU and, with a host compiler, as C++17 for the tests; the headers in
//! `kernels/cuda` come before it. Rust evaluates operands in a strict order and C++ does not, so the functions
//! are lowered to statements in Rust's order, and what is left inside one C++ expression has no effects.

mod lower;
mod names;
mod patterns;
mod threads;
mod types;

use crate::ir::Module;

/// The text of a module. Every registered module's types come before any module's functions, for a function
/// may send another module's message.
pub struct Source {
    pub types: String,
    pub functions: String,
}

pub fn emit(module: &Module) -> Source {
    Source { types: types::emit(module), functions: lower::emit(module) }
}
