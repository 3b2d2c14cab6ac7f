//! `demo`.

use ringhold_kernels::registry::Registry;

use super::Globals;
use super::exit::{self, Failure};
use super::output::Output;
use crate::config::{Format, Log};
use crate::demo::{self, Error, Options};
use crate::logs;

pub fn run(options: &Options, globals: &Globals, registry: Registry, output: Output) -> Result<u8, Failure> {
    logs::start(&Log { level: logs::level_of_client(globals.verbose), format: Format::Text });
    let report = demo::run(options, registry).map_err(|error| match error {
        Error::OneNode(_) => Failure::usage(error.to_string()),
        _ => Failure::new(exit::FAILED, error.to_string()),
    })?;
    output.result(report.json, || report.text);
    Ok(if report.passed { exit::OK } else { exit::FAILED })
}
