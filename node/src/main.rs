//! The shipped binary: a node, its device hosts and the command line, with the shipped actor types.

use std::process::ExitCode;

use ringhold_kernels::registry::Registry;

fn main() -> ExitCode {
    ringhold::cli::main(Registry::new())
}
