//! `health`.

use ringhold_cluster::wire::{DeviceHealth, DeviceVerdict, Verdict};
use serde_json::json;

use super::connect::{self, Connection};
use super::exit::{self, Failure};
use super::output::{Output, Table};
use super::{Globals, HealthOf};

pub fn run(globals: &Globals, of: HealthOf, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let health = node.health().await?;
        let ok = match of {
            HealthOf::Live => told("live", &health.live, output),
            HealthOf::Ready => told("ready", &health.ready, output),
            HealthOf::Devices => {
                output.result(json!({"devices": health.devices}), || devices_text(&health.devices));
                health.devices.iter().all(|device| device.verdict != DeviceVerdict::Down)
            }
        };
        Ok(if ok { exit::OK } else { exit::FAILED })
    })
}

/// As over HTTP.
fn told(what: &str, verdict: &Verdict, output: Output) -> bool {
    output.result(json!({what: verdict.ok, "reasons": verdict.reasons}), || {
        let first = if verdict.ok { what.to_string() } else { format!("not {what}") };
        std::iter::once(&first).chain(&verdict.reasons).map(|line| format!("{line}\n")).collect()
    });
    verdict.ok
}

fn devices_text(devices: &[DeviceHealth]) -> String {
    let mut table = Table::new(["DEVICE", "VERDICT", "WHY"]);
    for device in devices {
        let verdict = match device.verdict {
            DeviceVerdict::Well => "well",
            DeviceVerdict::Degraded => "degraded",
            DeviceVerdict::Down => "down",
        };
        table.row([device.name.clone(), verdict.into(), device.reason.clone()]);
    }
    table.text()
}
