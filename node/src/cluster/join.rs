//! How a node comes to belong to a cluster: it founds one, joins one, or goes on in the one that it belongs to.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::control::state::{
    self, Admission, Command, Device, DeviceNumber, Member, Outcome, Refused, State, id_text,
};
use ringhold_cluster::control::{self, Control, Disk};
use ringhold_cluster::network::{BoxFuture, Network};
use ringhold_cluster::peers::{CallError, PeerRefused};
use ringhold_storage::raft_log::{self, RaftLog};
use tokio::time::{Instant, sleep};

use super::message::{self, Join, Joined, Message, NotJoined, Reply};
use super::{Belongs, Cluster, Options, Peering};
use crate::device::keeper::Jobs;
use crate::server::Server;

/// The shortest time that a leader is waited for at most.
const ELECTION_MAX_MIN: Duration = Duration::from_millis(200);
/// Under which name the log keeps what a node belongs to.
const RECORD: &str = "member";
/// Under which name it keeps the numbers of the node's devices, by their names.
const DEVICES: &str = "devices";
/// Under which name it keeps how many pieces there are of what the cluster begins with, u32, where that is not nothing; and under
/// which, with their numbers, these.
const BEGINS_WITH: &str = "begins-with";
/// How long a node tries to join before it gives up: whom it is to join may only be starting.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// One attempt at one node.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// How long another process has to say that it has this node's id.
const PRESENT_LIMIT: Duration = Duration::from_secs(1);
/// How long a node waits for the log before it asks whether it is wanted at all.
const LOG_LIMIT: Duration = Duration::from_secs(2);
/// How often a node that waits says so in its log.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Why a node does not belong to its cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] raft_log::Error),
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error(
        "the data folder's record of its cluster cannot be read ({0}): restore the folder from a backup, or join with an empty one"
    )]
    Record(String),
    #[error("which copies of other nodes' devices there are cannot be read: {0}")]
    Copies(#[from] ringhold_storage::checkpoints::Error),
    #[error("the cluster does not take this node: {0}")]
    Refused(#[from] Refused),
    #[error("node {address} does not take this one: {why}")]
    NotJoined { address: String, why: NotJoined },
    #[error(transparent)]
    Stranger(CallError),
    #[error("node {address} refuses this one: {why}")]
    Unwanted { address: String, why: PeerRefused },
    #[error("no cluster could be joined in {} s: {}", JOIN_LIMIT.as_secs(), each(.0))]
    Unreachable(Vec<(String, String)>),
    #[error(
        "the data folder belongs to cluster `{name}` already, which this node has founded and which has no other member: to join another, \
         start with an empty data folder (`--data-dir`)"
    )]
    FoundedOwn { name: String },
    #[error("the data folder belongs to cluster `{name}` already ({id}): use an empty one for another cluster")]
    Belongs { name: String, id: String },
    #[error("node {number} was removed from cluster `{name}`: to join again, start it with an empty data folder")]
    Removed { number: u32, name: String },
    #[error(
        "another process is this node already (id {id}), at {address}: stop it. If the data folder was copied, only one of the two may be \
         used: start the other with an empty one"
    )]
    Duplicate { id: String, address: String },
}

fn each(attempts: &[(String, String)]) -> String {
    attempts.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ")
}

/// See [`Cluster::start`]. Returns the numbers of the node's devices, in their order.
pub(super) async fn start(cluster: &Cluster, server: &Server) -> Result<Vec<DeviceNumber>, Error> {
    let options = &cluster.options;
    let joining = Joining { cluster, options, server, said: Mutex::default() };
    let belongs = match record(&options.log)? {
        Some(belongs) => belongs,
        None if options.join.is_empty() => found_as(&options.log, &options.node.cluster, &*options.network)?,
        None => joining.join().await?,
    };
    cluster.known.lock().belongs = Some(belongs.clone());
    let control = Control::start(control::Options {
        number: belongs.number.into(),
        log: options.log.clone(),
        disk: Arc::new(LogDisk(options.jobs.clone())),
        calls: Arc::new(Peering(cluster.peers.clone())),
        network: options.network.clone(),
        timing: timing(options.lease),
    })
    .await?;
    control.advertise(&cluster.address());
    // Nobody else sets it.
    let _ = cluster.control.set(control);
    if belongs.founder {
        joining.begin(&belongs).await?;
    }
    let devices = joining.come_back(&belongs).await?;
    joining.give_up_lost_copies().await?;
    if !options.join.is_empty()
        && belongs.founder
        && cluster.state().nodes.len() == 1
        && !cluster.state().was_removed(2)
    {
        return Err(Error::FoundedOwn { name: belongs.cluster_name });
    }
    server.waits_for(String::new());
    Ok(devices)
}

/// Those of these devices of which the node has something that is another node's by now: it was given up, and what has the name here
/// now has another number.
pub(super) fn devices_lost(log: &RaftLog, devices: &[(String, DeviceNumber)]) -> Result<Vec<String>, Error> {
    let Some(bytes) = log.record(DEVICES)? else { return Ok(Vec::new()) };
    let before: Vec<(String, DeviceNumber)> = message::decode(&bytes).map_err(Error::Record)?;
    let other = |(name, number): &(String, DeviceNumber)| before.iter().any(|(had, was)| had == name && was != number);
    Ok(devices.iter().filter(|device| other(device)).map(|(name, _)| name.clone()).collect())
}

/// From now on what the node has of its devices is of those with these numbers.
pub(super) fn keep_devices(log: &RaftLog, devices: &[(String, DeviceNumber)]) -> Result<(), Error> {
    let bytes = message::encode(&devices).map_err(Error::Record)?;
    Ok(log.set_record(DEVICES, &bytes)?)
}

/// The disk of the log, as the control plane knows it: worked on by whoever writes checkpoints.
struct LogDisk(Arc<dyn Jobs>);

impl Disk for LogDisk {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        self.0.run(job)
    }
}

/// How soon a silent leader is followed by another, in view of how soon a silent node is: after half of a lease to a whole one, within
/// bounds. By then half of the lease is over that the next one has to wait for until it may give the one before up.
fn timing(lease: Duration) -> control::Timing {
    let timing = control::Timing::default();
    let election_max = (lease / 2).clamp(ELECTION_MAX_MIN, timing.election_max);
    control::Timing {
        heartbeat: timing.heartbeat.min(election_max / 3),
        election_min: election_max / 2,
        election_max,
        lease,
        spare: lease / 4,
        ..timing
    }
}

/// What a data folder says of the cluster that its node belongs to.
fn record(log: &RaftLog) -> Result<Option<Belongs>, Error> {
    let Some(bytes) = log.record(RECORD)? else { return Ok(None) };
    message::decode(&bytes).map(Some).map_err(Error::Record)
}

fn keep(log: &RaftLog, belongs: &Belongs) -> Result<(), Error> {
    let bytes = message::encode(belongs).map_err(Error::Record)?;
    Ok(log.set_record(RECORD, &bytes)?)
}

/// Makes a node the founder of a cluster of its own.
fn found_as(log: &RaftLog, cluster_name: &str, network: &dyn Network) -> Result<Belongs, Error> {
    let mut cluster = [0; 16];
    network.random(&mut cluster);
    let belongs = Belongs { cluster, cluster_name: cluster_name.into(), number: 1, founder: true };
    keep(log, &belongs)?;
    Ok(belongs)
}

/// The same for a node that does not run, in whose log this is; returns the cluster's id.
///
/// # Errors
/// Where the node belongs to a cluster already.
pub fn found(log: &RaftLog, cluster_name: &str, network: &dyn Network) -> Result<String, Error> {
    match record(log)? {
        Some(belongs) => Err(Error::Belongs { name: belongs.cluster_name, id: id_text(&belongs.cluster) }),
        None => Ok(id_text(&found_as(log, cluster_name, network)?.cluster)),
    }
}

/// Makes a node that does not run, in whose log this is and which belongs to no cluster, the founder of one that begins with this: see
/// [`State::anew`].
///
/// # Errors
/// Where the node belongs to a cluster already.
pub fn restore(log: &RaftLog, state: &State) -> Result<(), Error> {
    if let Some(belongs) = record(log)? {
        return Err(Error::Belongs { name: belongs.cluster_name, id: id_text(&belongs.cluster) });
    }
    let cluster = state.cluster.as_ref().expect("a cluster that begins anew has its name");
    let bytes = message::encode(state).map_err(Error::Record)?;
    let pieces = bytes.chunks(raft_log::RECORD_BYTES_MAX);
    let count = pieces.len() as u32;
    for (number, piece) in pieces.enumerate() {
        log.set_record(&format!("{BEGINS_WITH}/{number}"), piece)?;
    }
    log.set_record(BEGINS_WITH, &count.to_le_bytes())?;
    // Last: without it the node belongs to none.
    let (id, name) = (cluster.id, cluster.name.clone());
    keep(log, &Belongs { cluster: id, cluster_name: name, number: 1, founder: true })
}

/// What the cluster begins with that a node founds; `None`: with nothing.
fn begins_with(log: &RaftLog) -> Result<Option<State>, Error> {
    let Some(count) = log.record(BEGINS_WITH)? else { return Ok(None) };
    let missing = || Error::Record("some of what the cluster begins with is missing".into());
    let count = u32::from_le_bytes(count.try_into().map_err(|_| missing())?);
    let mut bytes = Vec::new();
    for number in 0..count {
        bytes.extend(log.record(&format!("{BEGINS_WITH}/{number}"))?.ok_or_else(missing)?);
    }
    message::decode(&bytes).map(Some).map_err(Error::Record)
}

/// A node on its way into a cluster.
struct Joining<'a> {
    cluster: &'a Cluster,
    options: &'a Options,
    server: &'a Server,
    /// When the log was last told what the node waits for.
    said: Mutex<Option<Instant>>,
}

impl Joining<'_> {
    /// Makes the founder's log begin, unless it has.
    async fn begin(&self, belongs: &Belongs) -> Result<(), Error> {
        let control = self.cluster.control();
        if control.state().cluster.is_some() {
            return Ok(());
        }
        // A start that was broken off may have come this far.
        if control.members().voters.is_empty() {
            control.initialize(&self.cluster.address()).await?;
        }
        let cluster = state::Cluster { id: belongs.cluster, name: belongs.cluster_name.clone() };
        let found = match begins_with(&self.options.log)? {
            Some(state) => Command::from(state),
            None => Command::Found { cluster, shards: self.options.shards },
        };
        self.propose(found, "for its own log").await.map(|_| ())
    }

    /// Becomes a member of the cluster of one of the nodes that it was given.
    async fn join(&self) -> Result<Belongs, Error> {
        let deadline = Instant::now() + JOIN_LIMIT;
        loop {
            let mut failed = Vec::new();
            for address in &self.options.join {
                match self.ask_to_join(address).await {
                    Ok(Ok(Joined { number, cluster, cluster_name })) => {
                        let belongs = Belongs { cluster, cluster_name, number, founder: false };
                        keep(&self.options.log, &belongs)?;
                        tracing::info!("the node is node {number} of cluster `{}`", belongs.cluster_name);
                        return Ok(belongs);
                    }
                    Ok(Err(NotJoined::NotNow(why))) => failed.push((address.clone(), why)),
                    Ok(Err(NotJoined::Refused(Refused::NameTaken { .. }))) if self.takes_another_name() => {
                        failed.push((address.clone(), "its name is taken".into()));
                    }
                    Ok(Err(why)) => return Err(Error::NotJoined { address: address.clone(), why }),
                    Err(why @ CallError::Stranger { .. }) => return Err(Error::Stranger(why)),
                    Err(why) => failed.push((address.clone(), why.to_string())),
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::Unreachable(failed));
            }
            self.say(&format!("to be taken into a cluster: {}", each(&failed)));
            sleep(PAUSE).await;
        }
    }

    async fn ask_to_join(&self, address: &str) -> Result<Result<Joined, NotJoined>, CallError> {
        let cluster_name = self.options.node.cluster.clone();
        let join = Join { cluster_name, member: self.member(), devices: self.options.devices.clone() };
        match self.cluster.call(address, &Message::Join(Box::new(join)), ATTEMPT_LIMIT).await {
            Ok(Reply::Joined(joined)) => Ok(joined),
            Ok(_) => Ok(Err(NotJoined::NotNow("it answered another question".into()))),
            Err(why) => Err(why),
        }
    }

    /// Has the cluster know the node as it is now, and returns the numbers of its devices.
    async fn come_back(&self, belongs: &Belongs) -> Result<Vec<DeviceNumber>, Error> {
        self.refuse_to_be_two().await?;
        let known = |state: &State| {
            let (number, member) = state.by_id(&self.options.id)?;
            let devices: Vec<_> = self
                .options
                .devices
                .iter()
                .map(|about| {
                    state.devices_of(number).find(|(_, device)| device.about == *about).map(|(device, _)| device)
                })
                .collect::<Option<_>>()?;
            (member.incarnation == self.cluster.incarnation).then_some(devices)
        };
        let since = Instant::now();
        let control = self.cluster.control();
        loop {
            let seen = control.changes();
            let state = control.state();
            if let Some(devices) = known(&state) {
                let given_up = state.times_given_up(belongs.number);
                self.cluster.known.lock().given_up = given_up;
                return Ok(devices);
            }
            let is_known = state.by_id(&self.options.id).is_some();
            // A node that has just joined is known, and will be told so by the log.
            if is_known || belongs.founder {
                self.admit(belongs).await?;
            } else if since.elapsed() > LOG_LIMIT {
                self.refuse_where_refused(&state).await?;
            }
            self.say("for the cluster's log");
            let _ = tokio::time::timeout(PAUSE, control.changed(seen)).await;
        }
    }

    /// Has the cluster know which copies this node has not, although it was in sync with their devices: their disk was emptied. Before it
    /// asks for its lease, for from then on it may be given these devices.
    async fn give_up_lost_copies(&self) -> Result<(), Error> {
        let own = self.cluster.number();
        for number in self.cluster.copies_lost().await? {
            loop {
                let state = self.cluster.state();
                let is_in = |device: &&Device| device.node != own && device.in_sync.contains(&own);
                let Some(device) = state.devices.get(&number).filter(is_in) else { break };
                let Device { term, changes, .. } = *device;
                let command = Command::InSync { device: number, term, changes, node: own, in_sync: false };
                match self.propose(command, "for the cluster to know which copies it has lost").await {
                    Ok(_) => {
                        tracing::warn!(
                            device = device.about.name,
                            "the copy of the device's checkpoints is gone: it is made anew"
                        );
                        break;
                    }
                    // Another decision about the device came first.
                    Err(Error::Refused(_)) => sleep(PAUSE).await,
                    Err(why) => return Err(why),
                }
            }
        }
        Ok(())
    }

    /// Nobody sends a log to a node that was removed; who is asked says so.
    async fn refuse_where_refused(&self, state: &State) -> Result<(), Error> {
        let others = state.nodes.values().filter(|member| member.id != self.options.id).map(|member| &member.address);
        for address in others.chain(&self.options.join) {
            let asked = self.cluster.call(address, &Message::Present, PRESENT_LIMIT).await;
            if let Err(CallError::Refused { address, refused }) = asked {
                return Err(Error::Unwanted { address, why: refused });
            }
        }
        Ok(())
    }

    async fn admit(&self, belongs: &Belongs) -> Result<(), Error> {
        loop {
            let admission = Admission {
                cluster: belongs.cluster,
                number: Some(belongs.number),
                member: self.member(),
                devices: self.options.devices.clone(),
                fresh: self.options.fresh,
            };
            match self.propose(Command::Admit(admission), "for the cluster to take it back").await {
                Ok(Outcome::Admitted { .. } | Outcome::Done) => return Ok(()),
                Err(Error::Refused(Refused::NameTaken { .. })) if self.takes_another_name() => {}
                Err(Error::Refused(Refused::Removed(number))) => {
                    return Err(Error::Removed { number, name: belongs.cluster_name.clone() });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Proposes as often as it takes: without a majority of the voters a node waits.
    async fn propose(&self, command: Command, what_for: &str) -> Result<Outcome, Error> {
        loop {
            match self.cluster.control().propose(command.clone(), ATTEMPT_LIMIT).await {
                Ok(applied) => return Ok(applied?),
                Err(why @ (control::Error::Stopped(_) | control::Error::TooLarge { .. })) => return Err(why.into()),
                Err(why) => {
                    // To one that was removed nobody talks but to say so.
                    self.refuse_where_refused(&self.cluster.state()).await?;
                    self.say(&format!("{what_for}: {why}"));
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// A data folder that was copied makes two nodes of one.
    async fn refuse_to_be_two(&self) -> Result<(), Error> {
        let state = self.cluster.state();
        // Where this one listens there is no other.
        let own = self.cluster.address();
        let Some((_, member)) = state.by_id(&self.options.id).filter(|(_, m)| m.address != own) else { return Ok(()) };
        let there = self.cluster.call(&member.address, &Message::Present, PRESENT_LIMIT).await;
        match there {
            Err(CallError::Refused { refused: PeerRefused::SameIdentity { .. }, .. }) => {
                Err(Error::Duplicate { id: id_text(&self.options.id), address: member.address.clone() })
            }
            _ => Ok(()),
        }
    }

    fn member(&self) -> Member {
        let (name, address) = {
            let known = self.cluster.known.lock();
            (known.name.clone(), known.address.clone())
        };
        Member {
            id: self.options.id,
            incarnation: self.cluster.incarnation,
            name,
            address,
            zone: self.options.zone.clone(),
            release: self.options.node.version.clone(),
            versions: (state::VERSION_MIN, state::VERSION),
            types: self.options.types.clone(),
            draining: false,
            lease_ms: self.options.lease.as_millis() as u32,
        }
    }

    /// A node that nobody has named is called by its host; where others on that are too, by its port besides.
    fn takes_another_name(&self) -> bool {
        let port = self.server.address().port();
        let other = format!("{}-{port}", self.options.node.name);
        let mut known = self.cluster.known.lock();
        let takes = !self.options.named && known.name != other;
        if takes {
            known.name = other;
        }
        takes
    }

    /// Tells clients at once and the log now and then what the node waits for.
    fn say(&self, what: &str) {
        self.server.waits_for(format!("it waits {what}"));
        let mut said = self.said.lock();
        let last = *said.get_or_insert_with(Instant::now);
        if last.elapsed() >= SAY_EVERY {
            *said = Some(Instant::now());
            tracing::warn!("the node waits {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ringhold_storage::blocks::InMemory;

    use super::*;

    #[test]
    fn what_a_node_has_of_a_device_is_lost_once_another_has_its_number() {
        let log = RaftLog::open(Arc::new(InMemory::default()), Path::new("a disk")).unwrap();
        let device = |name: &str, number| (name.to_string(), number);
        assert!(devices_lost(&log, &[device("a", 0)]).unwrap().is_empty(), "it is new");
        keep_devices(&log, &[device("a", 0), device("b", 1)]).unwrap();
        assert!(devices_lost(&log, &[device("a", 0), device("b", 1), device("c", 2)]).unwrap().is_empty());
        assert_eq!(devices_lost(&log, &[device("a", 3), device("b", 1)]).unwrap(), ["a"]);
        keep_devices(&log, &[device("a", 3), device("b", 1)]).unwrap();
        assert!(devices_lost(&log, &[device("a", 3), device("b", 1)]).unwrap().is_empty());
    }
}
