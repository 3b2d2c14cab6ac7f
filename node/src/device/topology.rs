//! Where in its machine a device is, as the system tells it: what the placement strategy `topology` goes by.
//!
//! All of it is read from a folder that stands for `/sys`, and from what NVML says of NVLinks. Whatever is missing there, or makes no
//! sense, is not known, and a node starts all the same.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use ringhold_cluster::placement::Place;
use ringhold_kernels::gpu::pci;

/// Where the system says what the machine has.
pub const SYSTEM: &str = "/sys";

/// Where the GPU with this PCI bus id is, whose NVLinks end at `nvlinks`.
pub fn of_gpu(system: &Path, pci_bus_id: &str, nvlinks: BTreeSet<String>) -> Place {
    let Some(address) = pci::address(pci_bus_id) else { return Place::default() };
    let folder = system.join("bus/pci/devices").join(&address);
    Place { numa_node: numa_node(system, &folder), pcie_switch: pcie_switch(&folder), pci: Some(address), nvlinks }
}

/// Where threads are that may run on these CPUs, which are written as the system writes them: `0-3,8`. Those that may run next to
/// several memory nodes are next to none.
pub fn of_cpus(system: &Path, allowed: &str) -> Place {
    let numa_node = list(allowed).and_then(|allowed| {
        let nodes = nodes(system)?;
        let near =
            |cpus: &Cpus| cpus.iter().any(|a| allowed.iter().any(|b| a.start() <= b.end() && b.start() <= a.end()));
        only(nodes.into_iter().filter(|(_, cpus)| near(cpus)))
    });
    Place { numa_node, ..Place::default() }
}

/// Where this process is, and what it starts: device hosts pin no threads to CPUs, so they run wherever their node may.
pub fn of_this_process() -> Place {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    of_cpus(Path::new(SYSTEM), allowed.unwrap_or_default().trim())
}

/// In a few words, for people: `0000:3b:00.0, NUMA 1`. Switches and NVLinks are for programs: a table has no room for them.
pub fn words(place: &Place) -> String {
    let numa = place.numa_node.map(|node| format!("NUMA {node}"));
    place.pci.clone().into_iter().chain(numa).collect::<Vec<_>>().join(", ")
}

/// The memory node that a PCI device is next to. The firmware need not say, and then the system says -1: of the only one there is,
/// everything is next to it.
fn numa_node(system: &Path, device: &Path) -> Option<u32> {
    let said = std::fs::read_to_string(device.join("numa_node")).ok()?;
    match said.trim() {
        "-1" => only(nodes(system)?.into_iter()),
        node => node.parse().ok(),
    }
}

/// The upstream port of the nearest PCIe switch that a PCI device is behind; `None` where it is behind none.
///
/// The system's folder of a device lies in that of the bridge above it, up to the root of the bus:
/// `…/pci0000:36/0000:36:01.0/0000:37:00.0/0000:38:04.0/0000:3b:00.0`. What kinds of bridges those are only root may read, but by
/// their order they are a root port, the upstream port of a switch and one of its downstream ports, and then a GPU, or another
/// switch's upstream port. So the nearest switch is the second bridge above a device, where there is a third, the root port.
/// A GPU right beneath a root port has one above it, one behind an old PCI bridge two, and one of a virtual machine often none.
fn pcie_switch(device: &Path) -> Option<String> {
    let folder = device.canonicalize().ok()?;
    let above = folder.ancestors().skip(1).map_while(|folder| {
        let name = folder.file_name()?.to_str()?;
        pci::address(name).filter(|address| address == name)
    });
    match &above.collect::<Vec<_>>()[..] {
        [_, upstream, _, ..] => Some(upstream.clone()),
        _ => None,
    }
}

type Cpus = Vec<RangeInclusive<u32>>;

/// The memory nodes that have CPUs, with these. Others are memory alone: of a GPU, or at the end of a bus.
fn nodes(system: &Path) -> Option<Vec<(u32, Cpus)>> {
    let mut nodes = Vec::new();
    for folder in std::fs::read_dir(system.join("devices/system/node")).ok()? {
        let folder = folder.ok()?;
        let Some(number) = folder.file_name().to_str().and_then(|name| name.strip_prefix("node")?.parse().ok()) else {
            continue;
        };
        let cpus = list(&std::fs::read_to_string(folder.path().join("cpulist")).ok()?)?;
        if !cpus.is_empty() {
            nodes.push((number, cpus));
        }
    }
    Some(nodes)
}

/// The only one that there is.
fn only(mut nodes: impl Iterator<Item = (u32, Cpus)>) -> Option<u32> {
    let (first, _) = nodes.next()?;
    nodes.next().is_none().then_some(first)
}

/// `0-3,8` as ranges; nothing is none. `None` for anything else.
fn list(text: &str) -> Option<Cpus> {
    let each = text.trim().split(',').filter(|part| !part.is_empty()).map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A made-up `/sys`.
    struct System(tempfile::TempDir);

    impl System {
        /// With memory nodes of these CPUs.
        fn new(cpus: &[&str]) -> System {
            let system = System(tempfile::tempdir().unwrap());
            for (node, cpus) in cpus.iter().enumerate() {
                let node = system.0.path().join(format!("devices/system/node/node{node}"));
                fs::create_dir_all(&node).unwrap();
                fs::write(node.join("cpulist"), format!("{cpus}\n")).unwrap();
            }
            // Beside them lie files and folders that are no nodes.
            fs::create_dir_all(system.0.path().join("devices/system/node/power")).unwrap();
            fs::write(system.0.path().join("devices/system/node/online"), "0\n").unwrap();
            system
        }

        /// A device in `devices/`, where the link lies that the system makes for each.
        fn device(self, path: &str, numa_node: &str) -> System {
            let (folder, links) = (self.0.path().join("devices").join(path), self.0.path().join("bus/pci/devices"));
            fs::create_dir_all(&folder).unwrap();
            fs::create_dir_all(&links).unwrap();
            fs::write(folder.join("numa_node"), format!("{numa_node}\n")).unwrap();
            let link = links.join(folder.file_name().unwrap());
            symlink(Path::new("../../../devices").join(path), link).unwrap();
            self
        }

        fn gpu(&self, pci_bus_id: &str) -> Place {
            of_gpu(self.0.path(), pci_bus_id, BTreeSet::new())
        }

        fn cpus(&self, allowed: &str) -> Option<u32> {
            let place = of_cpus(self.0.path(), allowed);
            assert_eq!(place, Place { numa_node: place.numa_node, ..Place::default() });
            place.numa_node
        }
    }

    fn switch(place: &Place) -> Option<&str> {
        place.pcie_switch.as_deref()
    }

    #[test]
    fn gpus_of_one_switch_have_the_same_and_those_of_two_root_ports_none() {
        let behind = "pci0000:36/0000:36:01.0/0000:37:00.0";
        let system = System::new(&["0-7", "8-15"])
            .device(&format!("{behind}/0000:38:00.0/0000:39:00.0"), "0")
            .device(&format!("{behind}/0000:38:04.0/0000:3b:00.0"), "0")
            .device(&format!("{behind}/0000:38:08.0/0000:3c:00.0/0000:3d:00.0/0000:3e:00.0"), "0")
            .device("pci0000:80/0000:80:01.0/0000:81:00.0", "1")
            .device("pci0000:80/0000:80:03.0/0000:82:00.0", "1")
            .device("pci0000:a0/0000:a0:05.5/pci10000:e0/10000:e0:02.0/10000:e1:00.0/10000:e2:01.0", "1");
        let links = BTreeSet::from(["0000:3b:00.0".to_string()]);
        let expected = Place {
            numa_node: Some(0),
            pci: Some("0000:39:00.0".into()),
            pcie_switch: Some("0000:37:00.0".into()),
            nvlinks: links.clone(),
        };
        assert_eq!(of_gpu(system.0.path(), "00000000:39:00.0", links), expected);
        assert_eq!(switch(&system.gpu("0000:3B:00.0")), Some("0000:37:00.0"));
        assert_eq!(switch(&system.gpu("0000:3e:00.0")), Some("0000:3c:00.0"), "of two switches, the nearer");
        for apart in ["0000:81:00.0", "0000:82:00.0"] {
            let place = system.gpu(apart);
            assert_eq!((place.numa_node, switch(&place)), (Some(1), None), "{apart}");
        }
        assert_eq!(
            switch(&system.gpu("10000:e2:01.0")),
            None,
            "another bus begins there: what is above that is no bridge"
        );
    }

    #[test]
    fn a_gpu_of_which_the_system_says_nothing_is_next_to_the_only_memory_or_to_none() {
        let gpu = "pci0000:00/0000:00:05.0";
        assert_eq!(System::new(&["0-1"]).device(gpu, "-1").gpu("0000:00:05.0").numa_node, Some(0));
        assert_eq!(System::new(&["0-1", "2-3"]).device(gpu, "-1").gpu("0000:00:05.0").numa_node, None);
        assert_eq!(System::new(&["0-1", ""]).device(gpu, "-1").gpu("0000:00:05.0").numa_node, Some(0), "memory alone");
        for garbage in ["", "one", "-2", "4294967296", "0x1"] {
            let place = System::new(&["0-1"]).device(gpu, garbage).gpu("0000:00:05.0");
            assert_eq!(place, Place { pci: Some("0000:00:05.0".into()), ..Place::default() }, "{garbage}");
        }
    }

    #[test]
    fn what_the_system_does_not_have_is_not_known() {
        let system = System::new(&["0-1"]).device("pci0000:00/0000:00:05.0", "0");
        let links = BTreeSet::from(["0000:3b:00.0".to_string()]);
        let place = of_gpu(system.0.path(), "0000:99:00.0", links.clone());
        assert_eq!(place, Place { pci: Some("0000:99:00.0".into()), nvlinks: links.clone(), ..Place::default() });
        assert_eq!(of_gpu(system.0.path(), "../0000:00:05.0", links), Place::default());
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(of_cpus(&nothing.path().join("sys"), "0-1"), Place::default());
    }

    #[test]
    fn threads_are_next_to_the_memory_of_all_the_cpus_that_they_may_run_on() {
        let system = System::new(&["0-3,8-11", "4-7,12-15", ""]);
        assert_eq!(system.cpus("0-15"), None, "they float");
        assert_eq!(system.cpus("2-4"), None);
        assert_eq!((system.cpus("2-3,9"), system.cpus("12")), (Some(0), Some(1)));
        assert_eq!((system.cpus(""), system.cpus("0-x"), system.cpus("99")), (None, None, None));
        assert_eq!(System::new(&["0-1"]).cpus("0-1"), Some(0));
        assert_eq!(System::new(&["zero"]).cpus("0-1"), None);
    }

    #[test]
    fn a_place_is_told_in_a_few_words() {
        let place = Place { numa_node: Some(1), pci: Some("0000:3b:00.0".into()), ..Place::default() };
        assert_eq!(words(&place), "0000:3b:00.0, NUMA 1");
        assert_eq!(words(&Place { pci: None, ..place }), "NUMA 1");
        assert_eq!(words(&Place::default()), "");
    }
}
