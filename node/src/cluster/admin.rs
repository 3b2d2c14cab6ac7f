//! What operators ask of the cluster, answered by the node that they asked.

use std::collections::BTreeMap;
use std::time::Duration;

use ringhold_cluster::control::admin::{ActorType, Device, Node, Owned, Request, Response, Role, Setting, Status};
use ringhold_cluster::control::state::{Command, NodeNumber, SETTINGS, State, id_text, ranges};
use ringhold_cluster::control::{self, Members};
use ringhold_cluster::tls::Authority;
use ringhold_cluster::wire::Failed;

use super::Cluster;
use super::message::{Message, Reply};

/// How long a change may take to be agreed on.
const CHANGE_LIMIT: Duration = Duration::from_secs(3);
/// How long the leader may take to say whom it has heard of.
const HEARD_LIMIT: Duration = Duration::from_secs(1);
/// How long a question for the newest state may take, at most.
const STATUS_LIMIT_MAX: Duration = Duration::from_secs(10);
/// A token is good for this long at most: a year.
const TOKEN_VALID_MAX_S: u64 = 366 * 86_400;

impl Cluster {
    /// Answers an operator.
    pub async fn answer_admin(&self, request: Request) -> Result<Response, Failed> {
        match request {
            Request::Status { within_ms } => {
                let within = Duration::from_millis(within_ms).min(STATUS_LIMIT_MAX);
                Ok(Response::Status(Box::new(self.status(within).await)))
            }
            Request::Shards => Ok(Response::Shards(owned(&self.state()))),
            Request::Set { name, value } => self.change(Command::Set { name, value }).await,
            Request::Drain { node, draining } => self.change(Command::Drain { node, draining }).await,
            Request::Remove { node } => self.change(Command::Remove { node }).await,
            Request::Token { valid_s } => self.token(valid_s),
            // The router's, which knows what is here.
            Request::Statuses
            | Request::Plan { .. }
            | Request::Migrate { .. }
            | Request::BackUp { .. }
            | Request::BackupPart { .. }
            | Request::EndBackup { .. } => Err(Failed::text("the node has no devices yet")),
        }
    }

    async fn change(&self, command: Command) -> Result<Response, Failed> {
        match self.control().propose(command, CHANGE_LIMIT).await {
            Ok(Ok(_)) => Ok(Response::Done),
            Ok(Err(refused)) => Err(Failed::text(refused.to_string())),
            Err(why @ control::Error::Unknown { .. }) => Err(Failed::text(why.to_string())),
            Err(why) => Err(Failed::text(format!("nothing was changed: {why}"))),
        }
    }

    fn token(&self, valid_s: u64) -> Result<Response, Failed> {
        if valid_s == 0 || valid_s > TOKEN_VALID_MAX_S {
            return Err(Failed::text(format!(
                "a token is good for 1 s to {} days, not for {valid_s} s",
                TOKEN_VALID_MAX_S / 86_400
            )));
        }
        let authority = Authority::of(&self.options.identity).map_err(|e| Failed::text(e.to_string()))?;
        let name = self.state().cluster.as_ref().map(|cluster| cluster.name.clone()).unwrap_or_default();
        let token = authority
            .token(&name, Duration::from_secs(valid_s), &*self.options.network)
            .map_err(|e| Failed::text(e.to_string()))?;
        Ok(Response::Token { text: token.to_string(), expires_s: token.expires().as_secs() })
    }

    async fn status(&self, within: Duration) -> Status {
        let control = self.control();
        let (read, heard) = tokio::join!(biased; control.read(within), self.heard());
        let state = read.as_ref().map_or_else(|_| control.state(), Clone::clone);
        let figures = control.status();
        let leader = figures.leader;
        let (name, id) = state.cluster.as_ref().map(|c| (c.name.clone(), id_text(&c.id))).unwrap_or_default();
        Status {
            name,
            id,
            asked: self.number(),
            leader: leader.map(|leader| leader as NodeNumber),
            term: figures.term,
            agreed: read.is_ok(),
            why_not: read.err().map(|why| why.to_string()).unwrap_or_default(),
            last_log: figures.last_log.unwrap_or(0),
            applied: figures.applied.unwrap_or(0),
            snapshot: figures.snapshot.unwrap_or(0),
            shards: state.shards.len() as u32,
            nodes: nodes(&state, &figures.members, leader, &heard),
            devices: devices(&state),
            types: types(&state),
            settings: settings(&state),
        }
    }

    /// How long ago the leader heard of each node, in milliseconds.
    async fn heard(&self) -> BTreeMap<NodeNumber, u64> {
        let control = self.control();
        let state = control.state();
        if self.leads() {
            return self.heard_here();
        }
        let leader = control.leader().and_then(|leader| state.nodes.get(&(leader as NodeNumber)));
        let Some(leader) = leader else { return BTreeMap::new() };
        match self.call(&leader.address, &Message::Heard, HEARD_LIMIT).await {
            Ok(Reply::Heard(Some(heard))) => heard.into_iter().collect(),
            _ => BTreeMap::new(),
        }
    }

    /// The same, where this node leads.
    pub(super) fn heard_here(&self) -> BTreeMap<NodeNumber, u64> {
        let heard = self.control().heard();
        heard.iter().map(|(node, ago)| (*node as NodeNumber, ago.as_millis() as u64)).collect()
    }
}

fn nodes(state: &State, members: &Members, leader: Option<u64>, heard: &BTreeMap<NodeNumber, u64>) -> Vec<Node> {
    let counts = state.shard_counts();
    let nodes = state.nodes.iter().map(|(number, member)| {
        let raft = u64::from(*number);
        let devices = state.devices_of(*number);
        let (of_it, shards) = devices.fold((0, 0), |(n, shards), (device, _)| (n + 1, shards + counts[&device]));
        Node {
            number: *number,
            id: id_text(&member.id),
            name: member.name.clone(),
            address: member.address.clone(),
            zone: member.zone.clone(),
            release: member.release.clone(),
            role: match () {
                () if leader == Some(raft) => Role::Leader,
                () if members.voters.contains(&raft) => Role::Voter,
                () if members.addresses.contains_key(&raft) => Role::Learner,
                () => Role::Joining,
            },
            draining: member.draining,
            heard_ms: heard.get(number).copied(),
            devices: of_it,
            shards,
        }
    });
    nodes.collect()
}

fn devices(state: &State) -> Vec<Device> {
    let counts = state.shard_counts();
    let devices = state.devices.iter().map(|(number, device)| Device {
        number: *number,
        node: device.node,
        name: device.about.name.clone(),
        kind: device.about.kind.clone(),
        workers: device.about.workers,
        memory_bytes: device.about.memory_bytes,
        place: device.place().cloned().unwrap_or_default(),
        shards: counts[number],
        term: device.term,
        replicas: device.replicas.clone(),
        in_sync: device.in_sync.iter().copied().collect(),
    });
    devices.collect()
}

fn types(state: &State) -> Vec<ActorType> {
    let types = state.types().into_iter();
    types.map(|(name, (layout_hash, nodes))| ActorType { name: name.into(), layout_hash, nodes }).collect()
}

fn settings(state: &State) -> Vec<Setting> {
    let settings = SETTINGS.iter().map(|setting| Setting {
        name: setting.name.into(),
        value: state.settings.get(setting.name).unwrap_or_default(),
        about: setting.about.into(),
        rule: setting.rule.into(),
    });
    settings.collect()
}

fn owned(state: &State) -> Vec<Owned> {
    let mut owners: BTreeMap<_, (Vec<u32>, u64)> = BTreeMap::new();
    for (number, shard) in (0..).zip(&state.shards) {
        let (numbers, term) = owners.entry(shard.owner).or_default();
        numbers.push(number);
        *term = shard.term.max(*term);
    }
    owners.into_iter().map(|(device, (numbers, term))| Owned { device, shards: ranges(numbers), term }).collect()
}
