//! Where in its machine the device is, as a node tells its cluster.

use std::collections::BTreeSet;
use std::path::Path;

use ringhold::device::topology::{self, SYSTEM};
use ringhold_cluster::placement::Place;
use ringhold_kernels::gpu::nvml::Nvml;
use ringhold_kernels::gpu::pci;

use super::Suite;
use super::device::{Failed, Machine};

/// What is known of it.
pub fn of(machine: &Machine) -> Place {
    let Machine::Cuda { gpu, .. } = machine else { return topology::of_this_process() };
    let nvlinks = Nvml::open().ok().and_then(|nvml| nvml.nvlinks(&gpu.pci_bus_id).ok());
    topology::of_gpu(Path::new(SYSTEM), &gpu.pci_bus_id, nvlinks.unwrap_or_default())
}

/// That a GPU's driver, NVML and the system mean the same by where it is.
pub fn is_known(suite: &Suite) -> Result<String, Failed> {
    let place = of(&suite.machine);
    let Machine::Cuda { gpu, .. } = &suite.machine else { return Ok(described(&place)) };
    let said = match Nvml::open() {
        Ok(nvml) => {
            let address = nvml.address(&gpu.pci_bus_id).map_err(|e| e.to_string());
            let nvlinks = nvml.nvlinks(&gpu.pci_bus_id).map_err(|e| format!("where its NVLinks end is not known: {e}"));
            address.and_then(|address| nvlinks.map(|_| address))
        }
        Err(absent) => Err(absent.to_string()),
    };
    match &missing(Path::new(SYSTEM), &gpu.pci_bus_id, said)[..] {
        [] => Ok(described(&place)),
        missing => Err(format!("{}; known is: {}", missing.join("; "), described(&place))),
    }
}

/// What there should be and is not, where the driver gives the GPU this id, and NVML this address.
fn missing(system: &Path, pci_bus_id: &str, nvml: Result<Option<String>, String>) -> Vec<String> {
    let Some(address) = pci::address(pci_bus_id) else {
        return vec![format!("the driver's `{pci_bus_id}` is no address on the PCI bus")];
    };
    let mut missing = Vec::new();
    match nvml {
        Ok(Some(said)) if said == address => {}
        Ok(said) => {
            let said = said.unwrap_or("nowhere".into());
            missing.push(format!("the driver has it at {address}, and NVML at {said}"));
        }
        Err(why) => missing.push(why),
    }
    let folder = system.join("bus/pci/devices").join(address);
    if !folder.exists() {
        missing.push(format!("{} is not there: NUMA node and PCIe switch are not known", folder.display()));
    }
    missing
}

fn described(place: &Place) -> String {
    let or_none = |what: Option<String>| what.unwrap_or("none known".into());
    let ends = |links: &BTreeSet<String>| links.iter().cloned().collect::<Vec<_>>().join(", ");
    format!(
        "PCI {}; NUMA node {}; PCIe switch {}; NVLinks to {}",
        or_none(place.pci.clone()),
        or_none(place.numa_node.map(|node| node.to_string())),
        or_none(place.pcie_switch.clone()),
        or_none((!place.nvlinks.is_empty()).then(|| ends(&place.nvlinks)))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_together_is_named() {
        let system = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(system.path().join("bus/pci/devices/0000:3b:00.0")).unwrap();
        let missing = |id: &str, nvml: Result<Option<&str>, &str>| {
            let nvml = nvml.map(|said| said.map(String::from)).map_err(String::from);
            missing(system.path(), id, nvml).join("; ")
        };
        assert_eq!(missing("0000:3b:00.0", Ok(Some("0000:3b:00.0"))), "");
        assert!(missing("0000:3b:00.0", Ok(Some("0000:af:00.0"))).ends_with("and NVML at 0000:af:00.0"));
        assert!(missing("0000:3b:00.0", Ok(None)).ends_with("and NVML at nowhere"));
        assert_eq!(missing("0000:3b:00.0", Err("there is no NVML")), "there is no NVML");
        assert!(missing("0000:af:00.0", Ok(Some("0000:af:00.0"))).contains("0000:af:00.0 is not there"));
        assert!(missing("", Err("there is no NVML")).contains("is no address"));
    }
}
