//! `devices`: what this machine has, and what its node runs on it.

use std::time::Duration;

use ringhold_cluster::wire::{DeviceState, DeviceStatus};
use ringhold_kernels::gpu::nvml::Health;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Globals;
use super::connect::{self, Connection};
use super::exit::{self, Failure};
use super::output::{Output, Table, bytes};
use super::status::{devices_text, with_reasons};
use crate::device::machine::{Found, Machine};

/// How long to look for a node that nobody has named.
const UNASKED_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked whether a device has moved.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A node that was named has to answer; of one that was not, it is no failure that there is none. The machine of a
/// node at an address that was named may be another one than this.
pub fn run(globals: &Globals, output: Output) -> Result<u8, Failure> {
    let asked = globals.tls.is_some() || globals.data_dir.is_some() || globals.config.is_some();
    let machine = globals.address.is_none().then(|| Machine::look(true));
    let asked = asked || machine.is_none();
    let deadline = if asked { globals.deadline } else { globals.deadline.min(UNASKED_LIMIT) };
    let devices = match of_the_node(&Globals { deadline, ..globals.clone() }) {
        Ok(devices) => Ok(devices),
        Err(failure) if !asked && failure.code == exit::UNREACHABLE => Err(failure.message),
        Err(failure) => return Err(failure),
    };
    let value = json!({
        "machine": machine,
        "devices": devices.as_ref().ok().map(|devices| with_reasons(&json!({"devices": devices}), devices)["devices"].take()),
        "no_node": devices.as_ref().err(),
    });
    output.result(value, || {
        let mut text = machine.as_ref().map(machine_text).unwrap_or_default();
        match &devices {
            Ok(devices) if machine.is_some() => text.push_str(&format!("\n{}", devices_text(devices))),
            Ok(devices) => text.push_str(&devices_text(devices)),
            Err(_) => text.push_str("\nno node of this folder runs here: `ringhold node start` starts one\n"),
        }
        text
    });
    Ok(exit::OK)
}

pub fn retry(globals: &Globals, device: &str, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let backends = node.retry(device).await?;
        output.result(json!({"device": device, "backends": backends}), || match &backends[..] {
            [] => format!("{device} runs where it is to: there is nothing to try again\n"),
            names => format!("{device} tries {} again; `ringhold status` shows what comes of it\n", names.join(", ")),
        });
        Ok(exit::OK)
    })
}

/// Waits until the device has moved: nobody is to pull a GPU out that still runs it.
pub fn fallback(globals: &Globals, name: &str, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let until = Instant::now() + globals.deadline;
        let to = node.leave_backend(name).await?;
        loop {
            let devices = node.devices().await?;
            if let Some(device) = devices.iter().find(|device| device.name == name)
                && device.backend == to
                && device.state == DeviceState::Running
            {
                output.result(json!({"device": name, "backend": to}), || {
                    format!("{name} runs on {to}, until `ringhold devices retry {name}`\n")
                });
                return Ok(exit::OK);
            }
            if Instant::now() >= until {
                let text = format!(
                    "{name} does not run on {to} yet, and may still come to: `ringhold status` shows what becomes of it"
                );
                return Err(Failure::new(exit::DEADLINE, text));
            }
            sleep(LOOK_EVERY).await;
        }
    })
}

fn of_the_node(globals: &Globals) -> Result<Vec<DeviceStatus>, Failure> {
    let mut devices = Vec::new();
    connect::run(globals, async |node: &Connection| {
        devices = node.devices().await?;
        Ok(exit::OK)
    })?;
    Ok(devices)
}

fn machine_text(machine: &Machine) -> String {
    let mut facts = Table::new(["", ""]);
    let mut fact = |name: &str, value: String| facts.row([name.into(), value]);
    let cores = machine.cpu.cores;
    let cores = format!("{cores} core{}", if cores == 1 { "" } else { "s" });
    let numa = machine.cpu.numa_node.map(|node| format!("NUMA {node}"));
    fact("CPU", machine.cpu.name.iter().cloned().chain([cores]).chain(numa).collect::<Vec<_>>().join(", "));
    if let Some(driver) = &machine.driver {
        let release = driver.release.as_ref().map(|release| format!("{release}, ")).unwrap_or_default();
        fact("driver", format!("{release}runs CUDA up to {}", driver.cuda));
    }
    match (&machine.compiler, &machine.no_compiler) {
        // Without a GPU nobody misses it.
        _ if machine.gpus.is_empty() => {}
        (Some(compiler), _) => {
            fact("compiler", format!("NVRTC {} ({})", compiler.toolchain.version, compiler.file.display()))
        }
        (None, why) => fact("compiler", why.clone().unwrap_or_default()),
    }
    if let Some(why) = &machine.no_nvml {
        fact("GPU memory errors", format!("not known: {why}"));
    }
    if let Some(why) = &machine.no_gpus {
        fact("GPUs", why.clone());
    }
    let facts = facts.text();
    let mut text = facts.split_once('\n').map_or("", |(_, rows)| rows).to_string();
    if !machine.gpus.is_empty() {
        text.push_str(&format!("\n{}", gpus_table(machine).text()));
        for found in &machine.gpus {
            text.push_str(&reasons(found));
        }
    }
    text
}

fn gpus_table(machine: &Machine) -> Table {
    let mut table =
        Table::new(["GPU", "NAME", ">COMPUTE", ">MEMORY", ">FREE", ">SMS", ">NUMA NODE", "PCI BUS", "ECC", "USABLE"]);
    for found in &machine.gpus {
        match found {
            Found::Gpu { gpu, memory_free_bytes, usable, health, place, .. } => table.row([
                format!("cuda:{}", gpu.number),
                gpu.name.clone(),
                gpu.capability.to_string(),
                bytes(gpu.memory_bytes),
                memory_free_bytes.map(bytes).unwrap_or_default(),
                gpu.multiprocessors.to_string(),
                place.numa_node.map(|node| node.to_string()).unwrap_or_default(),
                gpu.pci_bus_id.clone(),
                health.as_ref().map(Health::summary).unwrap_or_default(),
                if *usable { "yes" } else { "no" }.into(),
            ]),
            Found::Broken { number, .. } => {
                let mut row: [String; 10] = Default::default();
                (row[0], row[9]) = (format!("cuda:{number}"), "no".into());
                table.row(row);
            }
        }
    }
    table
}

/// Why a GPU is not usable, what somebody should see to, and what it is near to.
fn reasons(found: &Found) -> String {
    match found {
        Found::Gpu { gpu, unmet, health, no_health, place, no_nvlinks, .. } => {
            let unknown = no_health.as_ref().map(|why| format!("errors of its memory are not known: {why}"));
            let notes = health.iter().flat_map(Health::notes).chain(unknown);
            let switch = place.pcie_switch.iter().map(|switch| format!("it is behind the PCIe switch {switch}"));
            let ends = place.nvlinks.iter().cloned().collect::<Vec<_>>().join(", ");
            let links = (!ends.is_empty()).then(|| format!("its NVLinks end at {ends}"));
            let no_links = no_nvlinks.as_ref().map(|why| format!("where its NVLinks end is not known: {why}"));
            let near = switch.chain(links).chain(no_links);
            let lines = unmet.iter().map(ToString::to_string).chain(notes).chain(near);
            lines.map(|line| format!("cuda:{}: {line}\n", gpu.number)).collect()
        }
        Found::Broken { number, error } => format!("cuda:{number}: it does not answer: {error}\n"),
    }
}
