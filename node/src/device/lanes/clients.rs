//! Lanes from clients.

use std::collections::{BTreeMap, VecDeque};

use ringhold_cluster::frame::{session_and_number, whole_number};
use ringhold_cluster::wire;
use ringhold_kernels::id::Key;
use ringhold_kernels::message::{Header, append, split_first};

use super::{Mark, NotWhole, record, u64_at};
use crate::device::mistake::{self, Mistake};

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
    /// Which of its connections is the present one.
    connection: u64,
    /// The last message that came on it. The answers to later ones are only kept: they come again first.
    heard: u64,
    /// By the numbers of their asks, and the order in which they were given.
    answers: BTreeMap<u64, (Header, Vec<u8>)>,
    given: VecDeque<u64>,
    answer_bytes: usize,
}

impl ClientLane {
    fn new(client: Client, mark: Mark) -> ClientLane {
        let (answers, given) = (BTreeMap::new(), VecDeque::new());
        ClientLane { client, mark, connection: 0, heard: 0, answers, given, answer_bytes: 0 }
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
    }

    /// Has the answers to what came before this message go to the client from now on.
    pub fn attach(&mut self, number: u32, first: u64) {
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.heard = lane.heard.max(first.saturating_sub(1));
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

    /// Looks at a message of a client's connection.
    pub fn look(&mut self, client: u32, connection: u64, number: u64) -> Seen {
        let Some(lane) = self.lanes.get_mut(&client).filter(|lane| lane.connection == connection) else {
            return Seen::Elsewhere;
        };
        lane.heard = lane.heard.max(number);
        match number > lane.mark.taken || mistake::is_made(Mistake::TakesTwiceFromClients) {
            true => Seen::New,
            false => Seen::Before,
        }
    }

    /// Takes in that a message was let in, or turned away for good.
    pub fn take(&mut self, client: u32, number: u64, now_us: u64) {
        if let Some(lane) = self.lanes.get_mut(&client) {
            lane.mark.takes(number);
            lane.client.seen_us = now_us;
            self.moved += 1;
        }
    }

    /// Keeps an answer, and says whether it may go to its client now.
    pub fn answer(&mut self, header: &Header, payload: &[u8]) -> bool {
        let (client, low) = session_and_number(header.to());
        // The node's own questions are of no client, and those of a client that was forgotten are of none any more.
        let Some(lane) = self.lanes.get_mut(&client) else { return true };
        let number = whole_number(lane.mark.taken, low);
        lane.keep(number, header, payload);
        number <= lane.heard
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
        let mark = self.lanes.get(&client)?.mark;
        (mark.covered < mark.taken).then_some(mark.covered + 1)
    }

    /// Adds what a checkpoint is to know, record by record.
    pub fn close(&mut self, mut record: impl FnMut(u8, &[u8])) {
        let mut body = Vec::new();
        for lane in self.lanes.values_mut() {
            let Client { number, id, born, seen_us } = lane.client;
            body.clear();
            body.extend(u64::from(number).to_le_bytes());
            [lane.mark.close(), born, seen_us].iter().for_each(|word| body.extend(word.to_le_bytes()));
            body.extend(id);
            record(record::CLIENT, &body);
            for number in &lane.given {
                let Some((header, payload)) = lane.answers.get(number) else { continue };
                body.clear();
                body.extend(number.to_le_bytes());
                append(&mut body, header, payload);
                record(record::ANSWER, &body);
            }
        }
        if self.forgotten > 0 {
            record(record::FORGOTTEN, &self.forgotten.to_le_bytes());
        }
    }

    /// Takes in that the checkpoint is durable.
    pub fn commit(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.mark.commit());
    }

    /// Takes in that there is no such checkpoint.
    pub fn give_back(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.mark.give_back());
    }

    /// Takes up a record of a checkpoint. `Err`: it is none of this kind, or not whole.
    pub fn take_up(&mut self, kind: u8, body: &[u8]) -> Result<(), NotWhole> {
        self.read(kind, body).ok_or(NotWhole)
    }

    fn read(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        match kind {
            record::CLIENT => {
                let number = u32::try_from(u64_at(body, 0)?).ok()?;
                let client = Client {
                    number,
                    id: *body.get(32..)?.first_chunk()?,
                    born: u64_at(body, 16)?,
                    seen_us: u64_at(body, 24)?,
                };
                self.lanes.insert(number, ClientLane::new(client, Mark::durable(u64_at(body, 8)?)));
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

/// The key by which a client's message is known in its device.
pub const fn key_of(client: u32, number: u64) -> Key {
    Key((client as u64) << 32 | number as u32 as u64)
}
