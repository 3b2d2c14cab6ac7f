//! `cluster backup` and `cluster restore`.

use std::path::Path;
use std::time::{Duration, Instant};

use ringhold_cluster::network::RealNetwork;
use ringhold_kernels::registry::Registry;
use serde_json::json;

use super::connect::{self, Connection};
use super::exit::{self, Failure};
use super::output::{Output, bytes, counted, fine_span, utc};
use super::{Globals, config};
use crate::backup::{self, Contents, Error};
use crate::config::{Config, Format, Log};
use crate::logs;
use crate::progress::{Progress, Unit};

/// A command that is done sooner shows no progress.
const QUIET: Duration = Duration::from_secs(1);

/// Shows how many bytes are done, once it is known how many there are.
fn progress(what: &'static str) -> impl FnMut(u64, u64) {
    let mut progress = None;
    move |total, done| {
        progress.get_or_insert_with(|| Progress::new(total, Unit { text: bytes, what }, QUIET)).at(done);
    }
}

fn bytes_of(contents: &Contents) -> u64 {
    contents.state.bytes + contents.devices.iter().map(|device| device.bytes).sum::<u64>()
}

/// Takes a backup of the running cluster.
pub fn backup(globals: &Globals, folder: &Path, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let began = Instant::now();
        let fetched = backup::fetch(node.client(), node.limit(), folder, &mut progress("fetched")).await;
        let contents = fetched.map_err(failure)?;
        let took_ms = began.elapsed().as_millis() as u64;
        let value = json!({
            "folder": folder.display().to_string(),
            "bytes": bytes_of(&contents),
            "took_ms": took_ms,
            "backup": contents,
        });
        output.result(value, || {
            format!(
                "{} of cluster `{}`, as it was at {} UTC, in {}\n{}; devices committed nothing for {} of it\n",
                counted(contents.devices.len() as u64, "device"),
                contents.cluster.name,
                contents.at,
                folder.display(),
                bytes(bytes_of(&contents)),
                fine_span(contents.held_us * 1_000),
            )
        });
        Ok(exit::OK)
    })
}

/// Makes a data folder of a backup.
pub fn restore(globals: &Globals, folder: &Path, registry: &Registry, output: Output) -> Result<u8, Failure> {
    logs::start(&Log { level: logs::level_of_client(globals.verbose), format: Format::Text });
    let config = Config::load(globals.config.as_deref(), &config::overrides(globals))?;
    let verified = backup::verify(folder, registry, &mut progress("read")).map_err(failure)?;
    let restored = verified.restore(&config, &RealNetwork, &mut progress("written")).map_err(failure)?;
    let (contents, data_dir) = (&verified.contents, restored.data_dir.display().to_string());
    let value = json!({
        "data_dir": data_dir,
        "cluster": {"name": contents.cluster.name, "id": restored.cluster},
        "backup": contents,
    });
    output.result(value, || {
        format!(
            "cluster `{}` ({}) begins in {data_dir} with what cluster {} had at {} UTC: {}\n`ringhold node start` with this folder runs \
             its first node, which has all of them; `ringhold cluster token` then makes tokens for others to join by, and `ringhold \
             cluster rebalance` gives them shards\n",
            contents.cluster.name,
            restored.cluster,
            contents.cluster.id,
            utc(contents.at_us),
            counted(contents.devices.len() as u64, "device"),
        )
    });
    Ok(exit::OK)
}

fn failure(error: Error) -> Failure {
    let code = match error {
        Error::Client(error) => return connect::failure(error),
        Error::NotEmpty(_) | Error::NoBackup(_) | Error::Joins | Error::NoCheckpoints => exit::USAGE,
        Error::Types { .. } => exit::REFUSED,
        _ => exit::FAILED,
    };
    Failure::new(code, error.to_string())
}
