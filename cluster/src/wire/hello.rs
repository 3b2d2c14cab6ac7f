//! What a client says when it comes, and what it is answered.

use ringhold_kernels::schema::Schema;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{ADMIN_SESSIONS_MAX, ASKS_MAX};

/// The first value a client sends, on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version_min: u16,
    pub version_max: u16,
    /// The program and its version, for people: `ringhold 0.1.0`.
    pub client: String,
    /// The cluster the client means to talk to; `None` takes any.
    pub cluster: Option<String>,
    /// The actor types the client was built with.
    pub types: Vec<TypeLayout>,
    /// It looks after the node, and is let in though that is full or sheds load: up to [`ADMIN_SESSIONS_MAX`] at a time are.
    pub admin: bool,
    pub lane: Lane,
}

/// A client's lane to one node: what it has sent, over all its connections, and what it has still to hear.
///
/// A client numbers its messages over all nodes of a cluster. The lane to a node carries those for that node's actors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Made once by the client, of randomness.
    pub client: [u8; 16],
    /// Which node it means, by its number in its cluster; 0 where any will do.
    pub node: u32,
    /// The first message that this connection may carry; those before it need not be sent again.
    pub first: u64,
    /// The last message that an earlier connection, to whichever node, may have carried: what comes up to it may have been answered.
    pub again: u64,
    /// The asks that do not come on this connection and whose answers have not come, in order, each as its distance from the one
    /// before it (the first one's from 0): at most [`ASKS_MAX`]. Their messages are for this node's actors.
    pub waiting: Vec<u64>,
    /// Who it is, if a node has told it before.
    pub before: Option<Before>,
    /// The [`Owners::version`] by which it comes to this node, which may not know as much yet.
    pub table: u64,
}

/// What a client was told when it first came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// [`Welcome::home`].
    pub home: String,
    /// [`Welcome::session`].
    pub session: u32,
    /// [`Welcome::born`].
    pub born: u64,
}

impl Lane {
    /// What to say of these asks, whose numbers grow.
    pub fn distances(numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut last = 0;
        numbers.into_iter().map(|number| number - std::mem::replace(&mut last, number)).collect()
    }

    /// The numbers of the asks that wait.
    pub fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().scan(0u64, |number, distance| {
            *number = number.saturating_add(*distance);
            Some(*number)
        })
    }
}

/// What a node knows of a client that says hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resumed {
    /// It has sent nothing before.
    #[default]
    New,
    /// The node knows what of its messages it has, if any: the client sends again what it keeps, and nothing is done twice.
    Known,
    /// The node cannot know what of its messages was handled: the client must not send them again.
    Forgotten,
}

/// An actor type as somebody was built with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeLayout {
    pub name: String,
    /// [`Schema::layout_hash`].
    pub layout_hash: u64,
}

impl TypeLayout {
    pub fn of(schema: &Schema) -> TypeLayout {
        TypeLayout { name: schema.name.clone(), layout_hash: schema.layout_hash() }
    }
}

/// The answer to a hello.
// There is one of it for each connection, and not for long.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    Welcome(Welcome),
    Refused(Refused),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    pub node: NodeName,
    /// Where the client is known by its number: the id of the cluster, or of a node that stands alone.
    pub home: String,
    /// The node's number in its cluster; 0 where it stands alone.
    pub number: u32,
    /// The number by which all nodes of the cluster know this client, also after a restart; of no other as long as anything of it is
    /// left.
    pub session: u32,
    /// When the client first came, microseconds since the Unix epoch by the clock of the node that it came to: no two of one node
    /// are alike.
    pub born: u64,
    pub resumed: Resumed,
    pub owners: Owners,
    /// The largest payload of a message.
    pub payload_bytes_max: u32,
    /// Asks that may wait for their answers at a time.
    pub asks_max: u32,
    /// Those of the hello's types that the node does not have.
    pub unknown_types: Vec<String>,
    /// The types it has.
    pub types: Vec<String>,
}

/// Which node's actors are those of which shard, as a node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Grows: of two, the one with the greater is newer, whichever nodes they are from. 0 from a node that stands alone.
    pub version: u64,
    /// The nodes of the cluster by number, and where each is reached (`host:port`). Empty from a node that stands alone, which has
    /// all shards.
    pub nodes: Vec<(u32, String)>,
    /// The owners of the shards, in their order from the first: so many next to each other have this node. Number 0: nobody has
    /// them.
    pub shards: Vec<(u32, u32)>,
}

impl Owners {
    /// What a list of each shard's node comes to.
    pub fn runs(nodes: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for node in nodes {
            match runs.last_mut() {
                Some((count, last)) if *last == node => *count += 1,
                _ => runs.push((1, node)),
            }
        }
        runs
    }

    /// The node of each shard, from the first.
    pub fn of_shards(&self) -> impl Iterator<Item = u32> {
        self.shards.iter().flat_map(|(count, node)| std::iter::repeat_n(*node, *count as usize))
    }
}

/// Who a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeName {
    /// Made once and kept in the node's data folder.
    pub id: String,
    /// From the configuration, for people.
    pub name: String,
    pub cluster: String,
    /// The version of the program it runs.
    pub version: String,
}

/// Why a client is not let in, and what to do. `Display` is meant to be shown as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    #[error(
        "the client speaks protocol versions {client_min} to {client_max} and the node {node_min} to {node_max}: \
         use a client and a node of the same release"
    )]
    Version { client_min: u16, client_max: u16, node_min: u16, node_max: u16 },
    #[error("{}", layouts(.0))]
    Layout(Vec<LayoutMismatch>),
    #[error("the client asked for cluster `{wanted}`, and this node belongs to `{actual}`: check the address")]
    Cluster { wanted: String, actual: String },
    #[error("the node already serves {sessions_max} sessions, its limit: try again, or use another node")]
    TooManySessions { sessions_max: u32 },
    #[error("the node is overloaded and takes no new sessions ({0}): try again later, or use another node")]
    Overloaded(String),
    #[error("the node is stopping: try again, or use another node")]
    Stopping,
    #[error("the client's hello is not valid: {0}")]
    Hello(String),
    #[error("the node is starting, and not open yet{}: try again", if .0.is_empty() { String::new() } else { format!(" ({})", .0) })]
    Starting(String),
    #[error("this is node {actual} of its cluster, and the client means node {wanted}")]
    OtherNode { wanted: u32, actual: u32 },
    #[error("the client's number {0} is another one's here: connect anew")]
    NumberTaken(u32),
    #[error(
        "the certificate is a join token's: it lets a node join and opens no client's session. Use a client's \
         (`client.pem` and `client.key`)"
    )]
    Token,
}

/// One actor type of which client and node were built from different sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutMismatch {
    pub name: String,
    pub client: u64,
    pub node: u64,
}

fn layouts(mismatches: &[LayoutMismatch]) -> String {
    let each: Vec<String> = mismatches
        .iter()
        .map(|m| format!("`{}` has layout {:016x} in the client and {:016x} on the node", m.name, m.client, m.node))
        .collect();
    format!(
        "the client was built with other actor types than the node: {}. Build both from the same actor modules \
         (a change to a state, a message or a reply changes the layout), then restart the older one",
        each.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_told_as_runs_and_come_back_one_by_one() {
        let nodes = [1, 1, 2, 0, 0, 0, 1];
        let owners = Owners { shards: Owners::runs(nodes), ..Owners::default() };
        assert_eq!(owners.shards, [(2, 1), (1, 2), (3, 0), (1, 1)]);
        assert!(owners.of_shards().eq(nodes));
    }

    #[test]
    fn a_layout_refusal_names_both_hashes_and_what_to_do() {
        let text = Refused::Layout(vec![LayoutMismatch { name: "a.b".into(), client: 0xabc, node: 0xdef }]).to_string();
        assert!(text.contains("0000000000000abc") && text.contains("0000000000000def") && text.contains("`a.b`"));
        assert!(text.contains("Build both"));
    }
}
