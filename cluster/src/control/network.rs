//! What nodes say to each other about what they agree on, over [`Calls`].

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use openraft::alias::SnapshotOf;
use openraft::entry::RaftEntry;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::state::{Command, NodeNumber};
use super::types::{Applied, Peer, Raft, SnapshotMeta, Types, Vote, decode, encode};
use super::{Calls, Timing};

/// What the entries of one call have room for. Each that fails is followed by one of half its size, for the line may be too narrow
/// for more in the time there is; one that arrives by one of twice the size.
const APPEND_BYTES: Range<usize> = 32 << 10..16 << 20;
/// What one call carries of a snapshot at most.
const PIECE_BYTES: usize = 4 << 20;

/// What a node says that has not the log of the member whose number it has.
pub(super) const OTHER_LOG: &str =
    "its control data is not that of the member with its number, which has to be removed";

/// A request, and who asks.
#[derive(Serialize, Deserialize)]
pub(super) struct Message<R> {
    pub from: Sender,
    pub request: R,
}

/// What a node says of itself with each request. By that others find it, before the membership says where it is: a cluster that has
/// too few nodes to change its membership has to find those that have moved.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Sender {
    pub number: u64,
    pub log: [u8; 16],
    /// Where it is reached; empty where it has not been told.
    pub address: String,
}

/// What a node asks another.
#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    /// Of the member `to` with the log `log`; whoever else gets it must not answer.
    Raft { to: u64, log: [u8; 16], rpc: Rpc },
    /// Of the leader.
    Propose { command: Command, within: Duration },
    /// Of the leader: up to which index must be applied what a reader sees.
    ReadIndex { within: Duration },
    /// Of anybody.
    Who,
    /// Of the leader: the lease of this node, which says whether it is about to end.
    Renew { node: NodeNumber, start: Start, ends: bool },
    /// Of the leader: to have others go on with the devices of this node. This start of it runs nothing any more, holds no lease, and
    /// asks for none.
    Ended { node: NodeNumber, start: Start },
}

/// Which start of a node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its [`Member::incarnation`](super::state::Member::incarnation).
    pub run: u64,
    /// How often the node had been given up in the state by which it has its devices.
    pub given_up: u64,
}

/// What a node is answered that asks for its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Renewal {
    /// It has it for so long from when it asked.
    Granted {
        span_us: u64,
    },
    NotNow,
    /// It was given up so often: other nodes may have its devices.
    GivenUp {
        times: u64,
    },
    /// It was removed from the cluster.
    Removed,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Rpc {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot(Piece),
    Transfer(TransferLeaderRequest<Types>),
}

/// A piece of a snapshot. They come in their order.
#[derive(Serialize, Deserialize)]
pub(super) struct Piece {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub offset: u64,
    /// Bytes of the whole.
    pub whole: u64,
    pub bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    /// The piece was taken, and others are to come.
    More,
    Snapshot(SnapshotResponse<Types>),
    Transfer(TransferLeaderResponse<Types>),
    Applied(Applied),
    ReadIndex(u64),
    Who {
        number: u64,
        log: [u8; 16],
        leader: Option<u64>,
    },
    /// Nothing was done: it is not the leader.
    NotLeader,
    /// It was begun, and it is not known what came of it.
    Unknown(String),
    /// Nothing was done, and why.
    Failed(String),
    Renewed(Renewal),
    /// Nothing of that start of the node counts any more.
    Ended,
}

/// How a node reaches others: what openraft, and whoever proposes, goes through.
#[derive(Clone)]
pub(super) struct Links(Arc<Inner>);

struct Inner {
    calls: Arc<dyn Calls>,
    timing: Timing,
    /// Of nodes that could not be reached, or refused to answer, when last asked: why.
    silent: Mutex<BTreeMap<u64, String>>,
    /// Of nodes that said they were elsewhere: the address in the membership, and the one to use instead of it.
    moved: Mutex<BTreeMap<u64, (String, String)>>,
    own: Mutex<Sender>,
    /// Who has which address now.
    raft: OnceLock<Weak<Raft>>,
    /// Of nodes for which a call has less room than there is at most: how many bytes it has.
    room: Mutex<BTreeMap<u64, usize>>,
    /// The last term in which this node was to be elected because its leader handed over.
    handed_over: AtomicU64,
}

impl Links {
    pub fn new(calls: Arc<dyn Calls>, timing: Timing, number: u64, log: [u8; 16]) -> Links {
        let own = Mutex::new(Sender { number, log, address: String::new() });
        let (silent, moved, room) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (raft, handed_over) = (OnceLock::new(), AtomicU64::new(0));
        Links(Arc::new(Inner { calls, timing, silent, moved, own, raft, room, handed_over }))
    }

    /// Where this node is, for others.
    pub fn advertise(&self, address: &str) {
        self.0.own.lock().address = address.into();
    }

    /// Takes notice of where a member says that it is.
    pub fn heard_from(&self, sender: Sender) {
        let Some(peer) = self.peer(sender.number).filter(|peer| peer.log == sender.log) else { return };
        let mut moved = self.0.moved.lock();
        match sender.address.is_empty() || sender.address == peer.address {
            true => moved.remove(&sender.number),
            false => moved.insert(sender.number, (peer.address, sender.address)),
        };
    }

    /// Where a member is reached of which the membership has this address.
    fn address_of(&self, number: u64, known: &str) -> String {
        let moved = self.0.moved.lock();
        // Where the membership has another one by now, that is the newer.
        let instead = moved.get(&number).filter(|(instead_of, _)| instead_of == known);
        instead.map_or(known, |(_, address)| address).into()
    }

    /// From here on addresses are those of the newest membership.
    pub fn attach(&self, raft: &Arc<Raft>) {
        let _ = self.0.raft.set(Arc::downgrade(raft));
    }

    /// Asks a member, of which the membership has this address.
    pub async fn ask(&self, number: u64, known: &str, request: &Request, within: Duration) -> Result<Answer, String> {
        let address = self.address_of(number, known);
        let answer = self.ask_address(&address, request, within).await;
        let why = match &answer {
            Err(why) | Ok(Answer::Failed(why)) => Some(why.clone()),
            Ok(Answer::Who { log, .. }) if self.peer(number).is_some_and(|peer| peer.log != *log) => {
                Some(OTHER_LOG.into())
            }
            Ok(_) => None,
        };
        let mut silent = self.0.silent.lock();
        match why {
            Some(why) => silent.insert(number, why),
            None => silent.remove(&number),
        };
        answer
    }

    /// Asks whoever has the address.
    pub async fn ask_address(&self, address: &str, request: &Request, within: Duration) -> Result<Answer, String> {
        let from = self.0.own.lock().clone();
        let request = encode(&Message { from, request }).map_err(|e| e.to_string())?;
        let answer = timeout(within, self.0.calls.call(address, request, within)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} ms", within.as_millis())))?;
        decode(&answer).map_err(|e| format!("its answer cannot be read: {e}"))
    }

    /// Whether this node asked for votes in this term because its leader handed over: then nobody waited to give it theirs.
    pub fn was_handed_over(&self, term: u64) -> bool {
        self.0.handed_over.load(SeqCst) == term
    }

    /// Why a member could not be reached when last tried.
    pub fn silence(&self, number: u64) -> Option<String> {
        self.0.silent.lock().get(&number).cloned()
    }

    /// For how many bytes of what it has not yet a call to this node has room.
    fn room(&self, number: u64) -> usize {
        self.0.room.lock().get(&number).copied().unwrap_or(APPEND_BYTES.end)
    }

    /// Takes in whether so many bytes have got there in time.
    fn note_room(&self, number: u64, bytes: usize, arrived: bool) {
        let mut room = self.0.room.lock();
        let before = room.get(&number).copied().unwrap_or(APPEND_BYTES.end);
        let after = if arrived { before.max(bytes * 2) } else { before.min(bytes / 2).max(APPEND_BYTES.start) };
        match after < APPEND_BYTES.end {
            true => room.insert(number, after),
            false => room.remove(&number),
        };
    }

    fn peer(&self, number: u64) -> Option<Peer> {
        let raft = self.0.raft.get()?.upgrade()?;
        let metrics = raft.metrics();
        let metrics = openraft::async_runtime::WatchReceiver::borrow_watched(&metrics);
        metrics.membership_config.membership().get_node(&number).cloned()
    }
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, number: u64, peer: &Peer) -> Link {
        Link { links: self.clone(), number, peer: peer.clone() }
    }
}

/// A member, as openraft asks it.
pub(super) struct Link {
    links: Links,
    number: u64,
    peer: Peer,
}

impl Link {
    async fn ask(&mut self, rpc: Rpc, within: Duration) -> Result<Answer, Unreachable<Types>> {
        if let Some(peer) = self.links.peer(self.number) {
            self.peer = peer;
        }
        let request = Request::Raft { to: self.number, log: self.peer.log, rpc };
        match self.links.ask(self.number, &self.peer.address, &request, within).await {
            Ok(Answer::Failed(why) | Answer::Unknown(why)) => Err(unreachable(why)),
            Ok(answer) => Ok(answer),
            Err(why) => Err(unreachable(why)),
        }
    }

    /// Asks with so many bytes of what the node has not yet.
    async fn bring(&mut self, rpc: Rpc, bytes: usize, within: Duration) -> Result<Answer, Unreachable<Types>> {
        let answer = self.ask(rpc, within).await;
        if bytes > 0 {
            self.links.note_room(self.number, bytes, answer.is_ok());
        }
        answer
    }
}

fn unreachable(why: String) -> Unreachable<Types> {
    Unreachable::new(&io::Error::other(why))
}

fn unexpected<E: From<Unreachable<Types>>>() -> E {
    unreachable("its answer is to something else".into()).into()
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // A follower may wait for its disk.
        let timing = self.links.0.timing;
        let within = if request.entries.is_empty() { option.hard_ttl() } else { timing.append.max(option.hard_ttl()) };
        let (fitting, bytes) = fitting(&request, self.links.room(self.number))?;
        let cut = fitting < request.entries.len();
        request.entries.truncate(fitting);
        let last = request.entries.last().map(|entry| entry.log_id());
        match self.bring(Rpc::Append(request), bytes, within).await? {
            Answer::Append(AppendEntriesResponse::Success) if cut => Ok(AppendEntriesResponse::PartialSuccess(last)),
            Answer::Append(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        if request.leadership_transfer {
            self.links.0.handed_over.store(request.vote.leader_id.term, SeqCst);
        }
        match self.ask(Rpc::Vote(request), option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(Rpc::PreVote(request), option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Vec<u8>>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let send = async {
            let whole = snapshot.snapshot.len() as u64;
            let mut offset = 0;
            for bytes in snapshot.snapshot.chunks(PIECE_BYTES.min(self.links.room(self.number))) {
                let meta = snapshot.meta.clone();
                let piece = Piece { vote, meta, offset, whole, bytes: bytes.to_vec() };
                offset += bytes.len() as u64;
                match self.bring(Rpc::Snapshot(piece), bytes.len(), option.hard_ttl()).await? {
                    Answer::More if offset < whole => {}
                    Answer::Snapshot(response) => return Ok(response),
                    _ => return Err(unexpected()),
                }
            }
            Err(unexpected())
        };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = send => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.ask(Rpc::Transfer(request), option.hard_ttl()).await? {
            Answer::Transfer(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let heartbeat = self.links.0.timing.heartbeat;
        Some(Backoff::new([heartbeat, heartbeat * 2].into_iter().chain(std::iter::repeat(heartbeat * 4))))
    }
}

/// How many of the entries a call has room for, at least one where there are any, and their bytes.
fn fitting(request: &AppendEntriesRequest<Types>, room: usize) -> Result<(usize, usize), RPCError<Types>> {
    let mut bytes = 0;
    for (number, entry) in request.entries.iter().enumerate() {
        let more = encode(entry).map_err(|e| RPCError::from(unreachable(e.to_string())))?.len();
        if bytes + more > room && number > 0 {
            return Ok((number, bytes));
        }
        bytes += more;
    }
    Ok((request.entries.len(), bytes))
}

/// The pieces of a snapshot that is on its way here.
#[derive(Default)]
pub(super) struct Arriving(Mutex<Option<Piece>>);

impl Arriving {
    /// Takes a piece. The whole, once it is there; an error where one is missing.
    pub fn take(&self, piece: Piece) -> Result<Option<Piece>, String> {
        let mut arriving = self.0.lock();
        let so_far = match arriving.take() {
            _ if piece.offset == 0 => piece,
            Some(mut so_far)
                if (so_far.vote, &so_far.meta, so_far.whole) == (piece.vote, &piece.meta, piece.whole)
                    && so_far.bytes.len() as u64 == piece.offset =>
            {
                so_far.bytes.extend_from_slice(&piece.bytes);
                so_far
            }
            _ => return Err("the pieces of the snapshot before this one are missing: it has to be sent anew".into()),
        };
        match (so_far.bytes.len() as u64).cmp(&so_far.whole) {
            std::cmp::Ordering::Less => {
                *arriving = Some(so_far);
                Ok(None)
            }
            std::cmp::Ordering::Equal => Ok(Some(so_far)),
            std::cmp::Ordering::Greater => Err("the snapshot is larger than it was said to be".into()),
        }
    }
}
