//! Lanes from clients.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringhold_cluster::frame::{session_and_number, whole_number};
use ringhold_cluster::wire;
use ringhold_kernels::id::Key;
use ringhold_kernels::message::{Header, append, split_first};

use super::{Mark, NotWhole, record, u64_at};
use crate::device::mistake::{self, Mistake};
use crate::shards::ShardSet;

/// Answers kept for one client: as many as it can wait for. It reads them in the order in which they were given, so what it has
/// not read is among these.
const ANSWERS_MAX: usize = wire::ASKS_MAX as usize;
/// Their bytes. Beyond it the oldest goes; who has not read it then, and loses its connection, is told so.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A client, as a device's checkpoint knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The session number: what its messages bear.
    pub number: u32,
    pub id: [u8; 16],
    pub born: u64,
    /// When it was last heard of: wall time.
    pub seen_us: u64,
}

/// Whether a message has come before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    New,
    Before,
    /// It came on a connection that has been followed by another, on which it comes again.
    Elsewhere,
}

/// See the module's documentation.
#[derive(Default)]
pub struct ClientLanes {
    lanes: BTreeMap<u32, ClientLane>,
    /// When the youngest client that was forgotten was born.
    forgotten: u64,
    /// Grows with whatever a checkpoint should have.
    moved: u64,
}

struct ClientLane {
    client: Client,
    mark: Mark,
    /// Shards that came from another device with a mark of their own.
    apart: Vec<Apart>,
    /// Which of its connections is the present one.
    connection: u64,
    /// The last message that came on it. The answers to later ones are only kept: they come again first.
    heard: u64,
    /// Later ones that do not come again, and wait for their answers: another node has taken them, and their shards have moved.
    awaited: BTreeSet<u64>,
    /// By the numbers of their asks, and the order in which they were given.
    answers: BTreeMap<u64, (Header, Vec<u8>)>,
    given: VecDeque<u64>,
    answer_bytes: usize,
}

/// A mark that counts for some shards instead of the lane's.
///
/// A client's messages come in their order, so as long as a node lives one mark would do for all its devices: what is at or
/// below the largest of theirs has come. After its death each device goes back to its own checkpoint, and what a client
/// sends again then is new to one and old to another. A shard that moves before that is over takes the mark along of the
/// device that it leaves. It is dropped with the first message that is above all marks, for then all below has come.
///
/// A shard that came from another node has its own for longer, as has one of a device that begins while others run: what a client
/// sends to the two comes on two connections. Only once there is a later one, made by a client that knows where the shard is, does
/// all come in its order again, and even then the one device has heard of later messages than the other.
struct Apart {
    shards: ShardSet,
    mark: Mark,
    /// The client's connection when it came from another node.
    after: u64,
}

impl ClientLane {
    fn new(client: Client, mark: Mark) -> ClientLane {
        let (answers, given) = (BTreeMap::new(), VecDeque::new());
        let (apart, awaited) = (Vec::new(), BTreeSet::new());
        ClientLane { client, mark, apart, connection: 0, heard: 0, awaited, answers, given, answer_bytes: 0 }
    }

    fn marks(&self) -> impl Iterator<Item = &Mark> {
        std::iter::once(&self.mark).chain(self.apart.iter().map(|apart| &apart.mark))
    }

    fn marks_mut(&mut self) -> impl Iterator<Item = &mut Mark> {
        std::iter::once(&mut self.mark).chain(self.apart.iter_mut().map(|apart| &mut apart.mark))
    }

    /// The mark that counts for an actor.
    fn mark_for(&mut self, to: Key) -> &mut Mark {
        match self.apart.iter_mut().find(|apart| apart.shards.has(to)) {
            Some(apart) => &mut apart.mark,
            None => &mut self.mark,
        }
    }

    /// The last of its messages that was taken here.
    fn newest(&self) -> u64 {
        self.marks().map(|mark| mark.taken).max().expect("there is one at least")
    }

    /// Whether all messages up to this one, which comes now, have come.
    fn catches_up(&self, number: u64) -> bool {
        number > self.newest() && self.apart.iter().all(|apart| apart.after < self.connection)
    }

    /// All messages up to the largest mark have come: one mark does. It covers what all covered.
    fn catch_up(&mut self) {
        let taken = self.newest();
        let covered = self.marks().map(|mark| mark.covered).min().expect("there is one at least");
        let closing = self.marks().map(|mark| mark.closing).min().expect("there is one at least");
        self.mark = Mark { taken, covered, closing };
        self.apart.clear();
    }

    /// Has a mark count for these shards, in which all up to it is in a durable checkpoint. They came from another node after the
    /// client had this connection; 0 where they did not.
    fn set_apart(&mut self, shards: ShardSet, taken: u64, after: u64) {
        self.let_go_of(&shards);
        // Shards of one mark go on together, for from here on what comes for them comes here in its order.
        if taken == self.mark.taken && after == 0 {
            return;
        }
        match self.apart.iter_mut().find(|apart| apart.mark.taken == taken && apart.after == after) {
            Some(apart) => {
                apart.shards = apart.shards.or(&shards);
                apart.mark.closing = None;
            }
            None => self.apart.push(Apart { shards, mark: Mark::durable(taken), after }),
        }
    }

    fn let_go_of(&mut self, shards: &ShardSet) {
        self.apart.iter_mut().for_each(|apart| apart.shards = apart.shards.without(shards));
        self.apart.retain(|apart| !apart.shards.is_empty());
    }

    /// The marks that count for these shards, each with the connection after which they came from another node.
    fn marks_of(&self, shards: &ShardSet) -> Vec<(ShardSet, u64, u64)> {
        let mut rest = shards.clone();
        let mut marks = Vec::new();
        for apart in &self.apart {
            let found = rest.and(&apart.shards);
            rest = rest.without(&found);
            marks.push((found, apart.mark.taken, apart.after));
        }
        marks.push((rest, self.mark.taken, 0));
        marks.retain(|(shards, ..)| !shards.is_empty());
        marks
    }

    fn keep(&mut self, number: u64, header: &Header, payload: &[u8]) {
        self.answer_bytes += payload.len();
        match self.answers.insert(number, (*header, payload.to_vec())) {
            Some((_, before)) => self.answer_bytes -= before.len(),
            None => self.given.push_back(number),
        }
        while self.answers.len() > ANSWERS_MAX || self.answer_bytes > ANSWER_BYTES_MAX {
            let oldest = self.given.pop_front().expect("each that is kept was given");
            self.let_go(oldest);
        }
    }

    fn let_go(&mut self, number: u64) {
        if let Some((_, payload)) = self.answers.remove(&number) {
            self.answer_bytes -= payload.len();
        }
    }
}

impl ClientLanes {
    /// The clients there are.
    pub fn clients(&self) -> impl Iterator<Item = Client> {
        self.lanes.values().map(|lane| lane.client)
    }

    /// When the youngest client that was forgotten was born: what an older one had sent is not known here.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Takes in that a client has another connection, of which nothing has come yet: its answers are only kept.
    pub fn detach(&mut self, client: Client, connection: u64) {
        let lane = self.lanes.entry(client.number).or_insert_with(|| ClientLane::new(client, Mark::default()));
        lane.client = client;
        (lane.connection, lane.heard) = (connection, 0);
        lane.awaited.clear();
    }

    /// Has the answers to what came before this message go to the client from now on.
    pub fn attach(&mut self, number: u32, first: u64) {
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.heard = lane.heard.max(first.saturating_sub(1));
        }
    }

    /// Has the answer to this ask go to the client, which does not send it again on its connection.
    pub fn wait_for(&mut self, client: u32, number: u64) {
        if let Some(lane) = self.lanes.get_mut(&client).filter(|lane| number > lane.heard) {
            lane.awaited.insert(number);
        }
    }

    /// Lets go of a client; `for_good` where it will not come back.
    pub fn forget(&mut self, number: u32, for_good: bool) {
        if let Some(lane) = self.lanes.remove(&number) {
            self.moved += 1;
            if !for_good {
                self.forgotten = self.forgotten.max(lane.client.born);
            }
        }
    }

    /// Looks at a message of a client's connection, for an actor of this key.
    pub fn look(&mut self, client: u32, connection: u64, number: u64, to: Key) -> Seen {
        let Some(lane) = self.lanes.get_mut(&client).filter(|lane| lane.connection == connection) else {
            return Seen::Elsewhere;
        };
        lane.heard = lane.heard.max(number);
        match number > lane.mark_for(to).taken || mistake::is_made(Mistake::TakesTwiceFromClients) {
            true => Seen::New,
            false => Seen::Before,
        }
    }

    /// Takes in that a message was let in, or turned away for good.
    pub fn take(&mut self, client: u32, number: u64, to: Key, now_us: u64) {
        if let Some(lane) = self.lanes.get_mut(&client) {
            if !lane.apart.is_empty() && lane.catches_up(number) {
                lane.catch_up();
            }
            lane.mark_for(to).takes(number);
            lane.client.seen_us = now_us;
            self.moved += 1;
        }
    }

    /// Keeps an answer, and says whether it may go to its client now.
    pub fn answer(&mut self, header: &Header, payload: &[u8]) -> bool {
        let (client, low) = session_and_number(header.to());
        // The node's own questions are of no client, and those of a client that was forgotten are of none any more.
        let Some(lane) = self.lanes.get_mut(&client) else { return true };
        let number = whole_number(lane.newest(), low);
        lane.keep(number, header, payload);
        lane.awaited.remove(&number) || number <= lane.heard
    }

    /// The answer that was given to an ask, while it is kept.
    pub fn answered(&self, client: u32, number: u64) -> Option<(Header, &[u8])> {
        let (header, payload) = self.lanes.get(&client)?.answers.get(&number)?;
        Some((*header, payload))
    }

    /// Takes in that a client needs no answers any more to asks up to this one.
    pub fn release(&mut self, client: u32, number: u64) {
        let Some(lane) = self.lanes.get_mut(&client) else { return };
        while let Some((first, _)) = lane.answers.first_key_value()
            && *first <= number
        {
            let first = *first;
            lane.let_go(first);
        }
        // What is behind one that is kept goes later: there are no more of those than asks that wait.
        while lane.given.front().is_some_and(|number| !lane.answers.contains_key(number)) {
            lane.given.pop_front();
        }
    }

    /// A message of this client from which on some may be in no durable checkpoint; `None` if all that was taken is in one.
    pub fn uncovered(&self, client: u32) -> Option<u64> {
        let marks = self.lanes.get(&client)?.marks();
        marks.filter(|mark| mark.covered < mark.taken).map(|mark| mark.covered + 1).min()
    }

    /// Whether there are answers that a client may not have read.
    pub fn keep_answers(&self) -> bool {
        self.lanes.values().any(|lane| !lane.answers.is_empty())
    }

    /// Takes over what another device of the node, which had these shards, has taken of its clients' messages to them. All of
    /// that is in a durable checkpoint.
    pub fn take_over(&mut self, from: &ClientLanes, shards: &ShardSet) {
        if mistake::is_made(Mistake::LeavesMarks) {
            return;
        }
        let unknown = |number: &u32| !from.lanes.contains_key(number);
        let unheard = self.lanes.iter_mut().filter(|(number, _)| unknown(number));
        unheard.for_each(|(_, lane)| lane.set_apart(shards.clone(), 0, 0));
        for (number, theirs) in &from.lanes {
            let new = || ClientLane::new(theirs.client, Mark::default());
            let lane = self.lanes.entry(*number).or_insert_with(new);
            // On one connection whatever the one has heard of, the other would have.
            if lane.connection == 0 {
                lane.connection = theirs.connection;
            }
            if lane.connection == theirs.connection {
                lane.heard = lane.heard.max(theirs.heard);
                lane.awaited.extend(&theirs.awaited);
            }
            let marks = theirs.marks_of(shards).into_iter();
            marks.for_each(|(shards, taken, after)| lane.set_apart(shards, taken, after));
            self.moved += 1;
        }
    }

    /// Takes in that these shards came from a device, of this node or another, that has taken nothing for them of any client, but of
    /// those of which it is said in what follows.
    pub fn begin_apart(&mut self, shards: &ShardSet) {
        self.lanes.values_mut().for_each(|lane| lane.set_apart(shards.clone(), 0, lane.connection));
        self.moved += 1;
    }

    /// Takes in that the device of these shards begins here while the node runs. What present clients send for them comes on
    /// connections that others of the node have heard more of by now: only one that is made later has all in its order.
    pub fn begin_here(&mut self, shards: &ShardSet) {
        if mistake::is_made(Mistake::BeginsUnmarked) {
            self.lanes.values_mut().for_each(|lane| lane.mark = Mark::default());
        }
        if mistake::is_made(Mistake::BeginsCaughtUp) {
            return;
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.connection > 0) {
            let after = lane.connection;
            for (shards, taken, _) in lane.marks_of(shards) {
                lane.set_apart(shards, taken, after);
            }
        }
        self.moved += 1;
    }

    /// Adds the answers of actors of these shards that clients may not have, for [`ClientLanes::take_up`].
    pub fn carry_answers(&self, shards: &ShardSet, mut record: impl FnMut(u8, &[u8])) {
        let mut body = Vec::new();
        for lane in self.lanes.values() {
            for number in &lane.given {
                let Some((header, payload)) = lane.answers.get(number) else { continue };
                if shards.has(header.from().key) {
                    push_answer(&mut body, *number, header, payload);
                    record(record::ANSWER, &body);
                }
            }
        }
    }

    /// Takes in that these shards are another device's.
    pub fn let_go_of(&mut self, shards: &ShardSet) {
        self.lanes.values_mut().for_each(|lane| lane.let_go_of(shards));
    }

    /// Adds what another device is to know of these shards, for [`ClientLanes::take_up`].
    pub fn carry_off(&self, shards: &ShardSet, mut record: impl FnMut(u8, &[u8])) {
        let mut body = Vec::new();
        for lane in self.lanes.values() {
            for (shards, taken, _) in lane.marks_of(shards) {
                push_client(&mut body, &lane.client, taken);
                body.extend(shards.to_bytes());
                record(record::APART, &body);
            }
        }
    }

    /// Adds what a checkpoint is to know, record by record.
    pub fn close(&mut self, mut record: impl FnMut(u8, &[u8])) {
        let mut body = Vec::new();
        for lane in self.lanes.values_mut() {
            push_client(&mut body, &lane.client, lane.mark.close());
            record(record::CLIENT, &body);
            for apart in &mut lane.apart {
                push_client(&mut body, &lane.client, apart.mark.close());
                body.extend(apart.shards.to_bytes());
                record(record::APART, &body);
            }
            for number in &lane.given {
                let Some((header, payload)) = lane.answers.get(number) else { continue };
                push_answer(&mut body, *number, header, payload);
                record(record::ANSWER, &body);
            }
        }
        if self.forgotten > 0 {
            record(record::FORGOTTEN, &self.forgotten.to_le_bytes());
        }
    }

    /// Takes in that the checkpoint is durable.
    pub fn commit(&mut self) {
        self.lanes.values_mut().flat_map(ClientLane::marks_mut).for_each(Mark::commit);
    }

    /// Takes in that there is no such checkpoint.
    pub fn give_back(&mut self) {
        self.lanes.values_mut().flat_map(ClientLane::marks_mut).for_each(Mark::give_back);
    }

    /// Takes up a record of a checkpoint. `Err`: it is none of this kind, or not whole.
    pub fn take_up(&mut self, kind: u8, body: &[u8]) -> Result<(), NotWhole> {
        self.read(kind, body).ok_or(NotWhole)
    }

    fn read(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        match kind {
            record::CLIENT | record::APART => {
                let number = u32::try_from(u64_at(body, 0)?).ok()?;
                let client = Client {
                    number,
                    id: *body.get(32..)?.first_chunk()?,
                    born: u64_at(body, 16)?,
                    seen_us: u64_at(body, 24)?,
                };
                let taken = u64_at(body, 8)?;
                if kind == record::CLIENT {
                    self.lanes.insert(number, ClientLane::new(client, Mark::durable(taken)));
                    return Some(());
                }
                let shards = ShardSet::from_bytes(body.get(48..)?.first_chunk()?);
                // Of one that has been forgotten since nothing will come any more.
                if self.lanes.contains_key(&number) || client.born > self.forgotten {
                    let lane = self.lanes.entry(number).or_insert_with(|| ClientLane::new(client, Mark::default()));
                    lane.set_apart(shards, taken, lane.connection);
                }
            }
            record::ANSWER => {
                let number = u64_at(body, 0)?;
                let (header, payload, _) = split_first(&body[8..])?;
                let (client, _) = session_and_number(header.to());
                self.lanes.get_mut(&client)?.keep(number, &header, payload);
            }
            record::FORGOTTEN => self.forgotten = u64_at(body, 0)?,
            _ => return None,
        }
        Some(())
    }
}

fn push_client(body: &mut Vec<u8>, client: &Client, taken: u64) {
    let Client { number, id, born, seen_us } = client;
    body.clear();
    body.extend(u64::from(*number).to_le_bytes());
    [taken, *born, *seen_us].iter().for_each(|word| body.extend(word.to_le_bytes()));
    body.extend(id);
}

fn push_answer(body: &mut Vec<u8>, number: u64, header: &Header, payload: &[u8]) {
    body.clear();
    body.extend(number.to_le_bytes());
    append(body, header, payload);
}

/// The key by which a client's message is known in its device.
pub const fn key_of(client: u32, number: u64) -> Key {
    Key((client as u64) << 32 | number as u32 as u64)
}
