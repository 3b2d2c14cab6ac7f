//! How near two devices are to each other, and which nodes are far enough from one to hold copies of what it has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::control::state::{DeviceNumber, NodeNumber, State};

/// Where in its machine a device is, as far as the machine tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The memory node that it is next to.
    pub numa_node: Option<u32>,
    /// Where on the PCI bus its GPU is: `0000:3b:00.0`.
    pub pci: Option<String>,
    /// Where on the PCI bus the switch is that it is behind.
    pub pcie_switch: Option<String>,
    /// Where on the PCI bus its NVLinks end: other GPUs, or NVLink switches.
    pub nvlinks: BTreeSet<String>,
}

/// How near two devices are: of two, the nearer is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Near {
    /// NVLink joins them.
    Nvlink,
    /// They are behind the same PCIe switch.
    PcieSwitch,
    /// They are next to the same memory node.
    Numa,
    /// They are of the same node.
    Node,
    /// Their nodes are in the same zone.
    Zone,
    /// Nothing of these.
    Apart,
}

impl Near {
    /// In a few words, for people.
    pub fn words(self) -> &'static str {
        match self {
            Near::Nvlink => "joined by NVLink",
            Near::PcieSwitch => "behind the same PCIe switch",
            Near::Numa => "next to the same memory",
            Near::Node => "of the same node",
            Near::Zone => "in the same zone",
            Near::Apart => "of another node",
        }
    }
}

/// How near two devices are. Those that there are not are near to none.
pub fn near(state: &State, a: DeviceNumber, b: DeviceNumber) -> Near {
    let (Some(a), Some(b)) = (state.devices.get(&a), state.devices.get(&b)) else {
        return Near::Apart;
    };
    if a.node != b.node {
        let zone = |node| state.nodes.get(&node).map(|member| member.zone.as_str()).filter(|zone| !zone.is_empty());
        let same = zone(a.node).is_some_and(|of_a| zone(b.node) == Some(of_a));
        return if same { Near::Zone } else { Near::Apart };
    }
    let (Some(a), Some(b)) = (a.place(), b.place()) else { return Near::Node };
    let ends = |links: &Place, at: &Place| at.pci.as_ref().is_some_and(|pci| links.nvlinks.contains(pci));
    if ends(a, b) || ends(b, a) || !a.nvlinks.is_disjoint(&b.nvlinks) {
        Near::Nvlink
    } else if a.pcie_switch.is_some() && a.pcie_switch == b.pcie_switch {
        Near::PcieSwitch
    } else if a.numa_node.is_some() && a.numa_node == b.numa_node {
        Near::Numa
    } else {
        Near::Node
    }
}

/// The nodes that hold copies of what a node's devices have, so that with itself there are `factor` of them where there are as
/// many nodes: fewer otherwise. First those of zones that have no copy yet, then those of other zones than its own, then the rest;
/// among equals, the ones that follow it by number, so that each node holds those of about as many others.
///
/// A node without a zone is in none with any other. Nodes that are draining hold no copies.
pub fn replicas(state: &State, owner: NodeNumber, factor: usize) -> Vec<NodeNumber> {
    let Some(own) = state.nodes.get(&owner) else {
        return Vec::new();
    };
    let after = state.nodes.range(owner + 1..);
    let before = state.nodes.range(..owner);
    let mut left: Vec<_> = after.chain(before).filter(|(_, member)| !member.draining).collect();
    let mut chosen = Vec::new();
    let mut zones = BTreeSet::from([own.zone.as_str()]);
    while chosen.len() + 1 < factor && !left.is_empty() {
        let apart = |zone: &str| zone.is_empty() || !zones.contains(zone);
        let other = |zone: &str| zone.is_empty() || *zone != own.zone;
        let next = left.iter().position(|(_, member)| apart(&member.zone));
        let next = next.or_else(|| left.iter().position(|(_, member)| other(&member.zone))).unwrap_or(0);
        let (node, member) = left.remove(next);
        chosen.push(*node);
        zones.insert(&member.zone);
    }
    chosen
}
