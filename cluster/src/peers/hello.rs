//! What two nodes say of themselves when they meet, and why one does not let the other in.

use serde::{Deserialize, Serialize};

use crate::tls::NODE_NAME;
use crate::wire::{VERSION, VERSION_MIN};

/// The first value on a connection between nodes, from the one that connects; the other says the same in its welcome.
///
/// It begins with the versions, whatever the version: see [`crate::wire`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    pub version_min: u16,
    pub version_max: u16,
    /// The program and its version, for people: `ringhold 0.1.0`.
    pub release: String,
    /// The id of the cluster it is a member of, or was told to join; `None` before it knows of one.
    pub cluster: Option<[u8; 16]>,
    /// For people.
    pub cluster_name: String,
    pub node: PeerName,
}

impl PeerHello {
    /// Of a node of this build.
    pub fn new(release: impl Into<String>, node: PeerName) -> PeerHello {
        let (cluster, cluster_name) = (None, String::new());
        PeerHello {
            version_min: VERSION_MIN,
            version_max: VERSION,
            release: release.into(),
            cluster,
            cluster_name,
            node,
        }
    }
}

/// Which node it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerName {
    /// Made once, and kept in the node's data folder.
    pub id: [u8; 16],
    /// Made at each start, of randomness: two that run at the same time with one id are told apart by it.
    pub incarnation: u64,
    /// Its number in the cluster; `None` before it is admitted.
    pub number: Option<u32>,
    /// From the configuration, for people.
    pub name: String,
    /// Where others reach it.
    pub address: String,
}

/// What a hello is answered. The order of its variants never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PeerGreeting {
    Refused(PeerRefused),
    Welcome {
        /// What everything after this is written in.
        version: u16,
        hello: PeerHello,
    },
}

/// Why two nodes do not talk to each other, and what to do. `Display` is meant to be shown as it is, on either side.
///
/// It crosses versions: new variants come last, and none changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PeerRefused {
    #[error(
        "one node speaks protocol versions {caller_min} to {caller_max} and the other {node_min} to {node_max}: nodes \
         of a cluster are at most one version apart. Bring the older one to a release in between first"
    )]
    Version { caller_min: u16, caller_max: u16, node_min: u16, node_max: u16 },
    #[error(
        "the certificate that was shown is not a node's: it does not bear the name `{NODE_NAME}`. Have the node show \
         one that was issued for a node (`node.pem`, not `client.pem`)"
    )]
    Certificate,
    #[error(
        "the node belongs to cluster {} and was met by one of cluster {}: check the address, and whether a data folder \
         of another cluster is used", cluster(.node, .node_name), cluster(.caller, .caller_name)
    )]
    Cluster { caller: [u8; 16], caller_name: String, node: [u8; 16], node_name: String },
    #[error("the node has met itself at this address. Leave its own address out")]
    Itself,
    #[error(
        "two nodes run with one identity, {}: one is `{}` at {}, the other `{}` at {}. One data folder was copied to \
         where another node runs, or is used twice: stop one of them, and give it an empty data folder to join with",
        id(&.there.id), .there.name, .there.address, .here.name, .here.address
    )]
    SameIdentity { there: Box<PeerName>, here: Box<PeerName> },
    #[error(
        "node {} was expected at this address, and `{}` is there, node {}. Its address has changed, or its data folder \
         was replaced: check the cluster's nodes", id(.expected), .found.name, id(&.found.id)
    )]
    AnotherNode { expected: [u8; 16], found: Box<PeerName> },
    #[error("the node has connections of {peers_max} others already, its limit. Try again later")]
    TooMany { peers_max: u32 },
    #[error("the node is stopping. Try again, or use another")]
    Stopping,
    #[error("the node takes no part in a cluster: no other node may connect to it. Start it as one of a cluster")]
    Alone,
    #[error("the hello is not valid: {0}")]
    Hello(String),
    /// What the node behind has against it.
    #[error("{0}")]
    Service(String),
}

fn cluster(id: &[u8; 16], name: &str) -> String {
    format!("`{name}` ({})", self::id(id))
}

/// A node's or a cluster's id, as people read it.
pub fn id(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The newest version that both speak.
pub(crate) fn version((min, max): (u16, u16), node: &PeerHello) -> Result<u16, PeerRefused> {
    let version = max.min(node.version_max);
    if version < min || version < node.version_min {
        let (node_min, node_max) = (node.version_min, node.version_max);
        return Err(PeerRefused::Version { caller_min: min, caller_max: max, node_min, node_max });
    }
    Ok(version)
}

/// What one node has against the other, from what they say alone; each of them asks. `caller` is the one that connected.
pub(crate) fn compare(caller: &PeerHello, node: &PeerHello) -> Result<(), PeerRefused> {
    if caller.node.id == node.node.id {
        return Err(if caller.node.incarnation == node.node.incarnation {
            PeerRefused::Itself
        } else {
            let (there, here) = (Box::new(caller.node.clone()), Box::new(node.node.clone()));
            PeerRefused::SameIdentity { there, here }
        });
    }
    match (caller.cluster, node.cluster) {
        (Some(a), Some(b)) if a != b => Err(PeerRefused::Cluster {
            caller: a,
            caller_name: caller.cluster_name.clone(),
            node: b,
            node_name: node.cluster_name.clone(),
        }),
        // One that is not in a cluster yet may ask to be let in; what it is told is the service's to say.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn hello(id: u8, incarnation: u64, cluster: Option<u8>) -> PeerHello {
        let node = PeerName { id: [id; 16], incarnation, name: format!("n{id}"), ..PeerName::default() };
        PeerHello { cluster: cluster.map(|c| [c; 16]), cluster_name: "c".into(), ..PeerHello::new("test", node) }
    }

    #[test]
    fn the_newest_version_that_both_speak_is_taken() {
        let node = PeerHello { version_min: 4, version_max: 5, ..hello(1, 1, None) };
        assert_eq!(version((4, 5), &node), Ok(5));
        assert_eq!(version((3, 4), &node), Ok(4));
        assert_eq!(version((5, 6), &node), Ok(5));
        for (min, max) in [(2, 3), (6, 7)] {
            let text = version((min, max), &node).unwrap_err().to_string();
            assert!(text.contains(&format!("versions {min} to {max} and the other 4 to 5")), "{text}");
        }
    }

    #[test]
    fn a_hello_of_any_version_begins_with_its_versions() {
        let bytes = wire::encode(&PeerHello { version_min: 300, version_max: 301, ..hello(1, 1, None) }).unwrap();
        assert_eq!(wire::decode_beginning::<(u16, u16)>(&bytes[4..]).unwrap(), (300, 301));
    }

    #[test]
    fn refusals_are_written_as_they_always_were() {
        let stopping = wire::encode(&PeerGreeting::Refused(PeerRefused::Stopping)).unwrap();
        assert_eq!(stopping, [2, 0, 0, 0, 0, 7]);
        let version = PeerRefused::Version { caller_min: 1, caller_max: 2, node_min: 3, node_max: 4 };
        assert_eq!(wire::encode(&PeerGreeting::Refused(version)).unwrap(), [6, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn another_cluster_and_another_with_the_same_identity_are_told_apart() {
        assert_eq!(compare(&hello(1, 1, Some(7)), &hello(2, 2, Some(7))), Ok(()));
        assert_eq!(compare(&hello(1, 1, None), &hello(2, 2, Some(7))), Ok(()));
        let text = compare(&hello(1, 1, Some(7)), &hello(2, 2, Some(8))).unwrap_err().to_string();
        assert!(text.contains("0707") && text.contains("0808") && text.contains("check the address"), "{text}");
        assert_eq!(compare(&hello(1, 1, Some(7)), &hello(1, 1, Some(7))), Err(PeerRefused::Itself));
        let text = compare(&hello(1, 1, None), &hello(1, 2, None)).unwrap_err().to_string();
        assert!(text.contains("one identity") && text.contains("copied"), "{text}");
    }
}
