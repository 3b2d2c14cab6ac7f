//! The shipped binary: a node, its device hosts and the command line, with the shipped actor types.

use std::process::ExitCode;

use ringhold_kernels::registry::Registry;

fn main() -> ExitCode {
    let mut registry = Registry::new();
    ringhold::shipped::register(&mut registry).expect("the shipped types have names of their own");
    ringhold::cli::main(registry)
}
