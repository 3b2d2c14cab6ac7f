//! Lanes under random losses: what was sent is taken once, in order, and nothing is kept for ever.

use ringhold_cluster::frame::client_id;
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::message::{Header, Kind};
use ringhold_kernels::outbox::{SHARDS, shard_of};

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::shards::ShardSet;

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit
    }
}

type Records = Vec<(u8, Vec<u8>)>;

const ANY: Key = Key(0);
const CLIENT: Client = Client { number: 7, id: [3; 16], born: 5, seen_us: 0 };

/// A device to which a client sends, with its checkpoints.
#[derive(Default)]
struct Receiver {
    lanes: ClientLanes,
    /// What its actors have been told.
    did: Vec<u64>,
    /// The same at the checkpoint under way, and in the last durable one.
    closing: Option<(Vec<u64>, Records)>,
    durable: (Vec<u64>, Records),
    connection: u64,
}

fn answer(number: u64) -> (Header, Vec<u8>) {
    let to = client_id(CLIENT.number, number as u32);
    (Header::new(Kind::Reply, to, ActorId::default(), 8, Hlc(1)), number.to_le_bytes().to_vec())
}

impl Receiver {
    fn close(&mut self) {
        let mut records = Vec::new();
        self.lanes.close(|kind, body| records.push((kind, body.to_vec())));
        self.closing = Some((self.did.clone(), records));
    }

    fn die(&mut self) {
        self.closing = None;
        self.lanes = ClientLanes::default();
        self.did = self.durable.0.clone();
        for (kind, body) in &self.durable.1 {
            self.lanes.take_up(*kind, body).unwrap();
        }
    }

    /// A new connection, on which everything from this message on comes again. Returns which messages were new.
    fn connect(&mut self, first: u64) {
        self.connection += 1;
        self.lanes.detach(CLIENT, self.connection);
        self.lanes.attach(CLIENT.number, first);
    }

    fn take(&mut self, number: u64) -> Seen {
        let seen = self.lanes.look(CLIENT.number, self.connection, number, ANY);
        if seen == Seen::New {
            self.lanes.take(CLIENT.number, number, ANY, 1);
            self.did.push(number);
            let (header, payload) = answer(number);
            assert!(self.lanes.answer(&header, &payload), "it was heard of on this connection");
        }
        seen
    }
}

#[test]
fn a_client_that_sends_again_what_is_not_durable_is_heard_once() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        // Around where the low halves of numbers begin anew.
        let begin = [1, u64::from(u32::MAX) - 40][random.below(2) as usize];
        let mut device = Receiver::default();
        let (mut next, mut covered) = (begin, begin - 1);
        let mut sent: Vec<u64> = Vec::new();
        device.connect(begin);
        for _ in 0..300 {
            match random.below(10) {
                0..5 => {
                    // Some go to another device.
                    if random.below(3) > 0 {
                        assert_eq!(device.take(next), Seen::New);
                        sent.push(next);
                    }
                    next += 1;
                }
                5 => device.close(),
                6 => {
                    if let Some(closing) = device.closing.take() {
                        device.durable = closing;
                        device.lanes.commit();
                    }
                }
                7 => {
                    device.closing = None;
                    device.lanes.give_back();
                }
                8 => {
                    let taken = next - 1;
                    let until = device.lanes.uncovered(CLIENT.number).map_or(taken, |first| first - 1);
                    covered = covered.max(until.min(taken));
                    device.lanes.release(CLIENT.number, covered);
                }
                _ => {
                    let dies = random.below(2) == 0;
                    if dies {
                        device.die();
                    }
                    device.connect(covered + 1);
                    for number in sent.iter().copied().filter(|number| *number > covered) {
                        let seen = device.take(number);
                        assert!(dies || seen == Seen::Before, "seed {seed}: {number} was there");
                        // Whatever was done, its answer is there too.
                        let (header, payload) = answer(number);
                        assert_eq!(device.lanes.answered(CLIENT.number, number), Some((header, &payload[..])));
                    }
                }
            }
            assert_eq!(device.did, sent, "seed {seed}");
        }
        device.close();
        device.lanes.commit();
        assert_eq!(device.lanes.uncovered(CLIENT.number), None);
        device.lanes.release(CLIENT.number, next);
        let mut records = 0;
        device.lanes.close(|_, _| records += 1);
        assert_eq!(records, 1, "nothing is kept but the mark");
    }
}

#[test]
fn what_comes_on_a_connection_that_was_followed_by_another_is_left_to_that_one() {
    let mut device = Receiver::default();
    device.connect(1);
    assert_eq!(device.take(1), Seen::New);
    device.connect(2);
    assert_eq!(device.lanes.look(CLIENT.number, 1, 2, ANY), Seen::Elsewhere);
    // Its answer is kept until it comes again.
    let (header, payload) = answer(2);
    device.lanes.take(CLIENT.number, 2, ANY, 1);
    assert!(!device.lanes.answer(&header, &payload));
    assert_eq!(device.take(2), Seen::Before);
    assert_eq!(device.lanes.answered(CLIENT.number, 2), Some((header, &payload[..])));
}

#[test]
fn answers_that_nobody_takes_are_bounded_and_the_oldest_goes_first() {
    let mut device = Receiver::default();
    device.connect(1);
    let last = u64::from(ringhold_cluster::wire::ASKS_MAX) + 10;
    for number in 1..=last {
        device.take(number);
    }
    let there = |number| device.lanes.answered(CLIENT.number, number).is_some();
    assert!(!there(10) && there(11) && there(last));
}

#[test]
fn a_client_that_was_forgotten_is_known_to_have_been() {
    let mut lanes = ClientLanes::default();
    let young = Client { number: 8, born: 9, ..CLIENT };
    for client in [CLIENT, young] {
        lanes.detach(client, 1);
    }
    lanes.forget(young.number, true);
    assert_eq!(lanes.forgotten(), 0, "that one will not come back");
    lanes.forget(CLIENT.number, false);
    let mut records: Records = Vec::new();
    lanes.close(|kind, body| records.push((kind, body.to_vec())));
    let mut again = ClientLanes::default();
    records.iter().for_each(|(kind, body)| again.take_up(*kind, body).unwrap());
    assert_eq!((again.forgotten(), again.clients().count()), (5, 0));
}

#[test]
fn a_record_that_is_not_whole_is_refused() {
    let mut device = Receiver::default();
    device.connect(1);
    device.take(1);
    device.close();
    let (_, records) = device.closing.take().unwrap();
    for (kind, body) in records {
        for len in 0..body.len() {
            assert_eq!(ClientLanes::default().take_up(kind, &body[..len]), Err(NotWhole), "kind {kind}, {len} bytes");
        }
    }
    let away = Away { device: 1, number: 2, header: answer(1).0, payload: answer(1).1 };
    let mut records: Records = Vec::new();
    let mut lanes = DeviceLanes::default();
    lanes.takes(1, 1);
    lanes.close([away].iter(), |kind, body| records.push((kind, body.to_vec())));
    for (kind, body) in records {
        assert!(DeviceLanes::default().take_up(kind, &body).is_ok());
        for len in 0..body.len() {
            assert_eq!(DeviceLanes::default().take_up(kind, &body[..len]), Err(NotWhole), "kind {kind}, {len} bytes");
        }
    }
}

/// One of two devices that count what comes from the other.
#[derive(Clone, Default)]
struct Counting {
    /// How many messages its actors have sent, and which they have been told of, both as of now.
    sent: u64,
    did: Vec<u64>,
}

#[derive(Default)]
struct Sending {
    lanes: DeviceLanes,
    now: Counting,
    held: u64,
    closing: Option<(Counting, Vec<Away>, Records)>,
    durable: (Counting, Records),
}

impl Sending {
    fn close(&mut self, peer: u16) {
        if let Some((_, away, _)) = self.closing.take() {
            self.lanes.give_back();
            self.held += away.len() as u64;
        }
        let first = self.now.sent - std::mem::take(&mut self.held);
        let message = |count: u64| {
            let header = Header::new(Kind::Tell, ActorId::default(), ActorId::default(), 8, Hlc(1));
            (header, count.to_le_bytes().to_vec())
        };
        let away: Vec<Away> = (first..self.now.sent)
            .map(|count| {
                let (header, payload) = message(count);
                self.lanes.number(peer, header, payload)
            })
            .collect();
        let mut records = Vec::new();
        self.lanes.close(away.iter(), |kind, body| records.push((kind, body.to_vec())));
        self.closing = Some((self.now.clone(), away, records));
    }

    /// What goes out.
    fn commit(&mut self) -> Vec<Away> {
        let Some((counting, away, records)) = self.closing.take() else { return vec![] };
        self.durable = (counting, records);
        self.lanes.commit(away.iter());
        away
    }

    fn take(&mut self, from: u16, away: &Away) {
        if self.lanes.takes(from, away.number) {
            self.now.did.push(u64::from_le_bytes(away.payload[..].try_into().unwrap()));
        }
    }

    /// The node starts again: what goes out again.
    fn start(&mut self) -> Vec<Away> {
        let (counting, records) = std::mem::take(&mut self.durable);
        *self = Sending { now: counting.clone(), durable: (counting, records.clone()), ..Sending::default() };
        records.iter().filter_map(|(kind, body)| self.lanes.take_up(*kind, body).unwrap()).collect()
    }
}

#[test]
fn two_devices_hear_of_each_other_once_though_their_node_dies() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let mut devices = [Sending::default(), Sending::default()];
        let mut ends = 0;
        for step in 0..400 {
            // At the end without losses, until everything is durable.
            ends += u32::from(step > 380);
            let at = if ends > 0 { step as usize % 2 } else { random.below(2) as usize };
            let peer = 1 - at;
            match (ends, random.below(12)) {
                (0, 0..5) => {
                    devices[at].now.sent += 1;
                    devices[at].held += 1;
                }
                (0, 5..7) => devices[at].close(peer as u16),
                (0, 7) => {
                    let again: Vec<Vec<Away>> = devices.iter_mut().map(Sending::start).collect();
                    for (from, again) in again.iter().enumerate() {
                        again.iter().for_each(|away| devices[1 - from].take(from as u16, away));
                    }
                }
                (0, 8) => {
                    let covered = devices[peer].lanes.covered(at as u16);
                    devices[at].lanes.cover(peer as u16, covered);
                }
                (0, 9..) => devices[at].commit().iter().for_each(|away| devices[peer].take(at as u16, away)),
                _ => {
                    devices[at].close(peer as u16);
                    devices[at].commit().iter().for_each(|away| devices[peer].take(at as u16, away));
                    let covered = devices[peer].lanes.covered(at as u16);
                    devices[at].lanes.cover(peer as u16, covered);
                }
            }
            for at in 0..2 {
                let did = &devices[1 - at].now.did;
                assert!(did.iter().copied().eq(0..did.len() as u64), "seed {seed}, step {step}: {did:?}");
            }
        }
        for at in 0..2 {
            assert_eq!(devices[1 - at].now.did.len() as u64, devices[at].now.sent, "seed {seed}");
            assert_eq!(devices[at].lanes.bytes(), 0, "seed {seed}: nothing is kept for ever");
        }
    }
}

/// A device of several, with what its actors have been told.
#[derive(Default)]
struct Owning {
    lanes: ClientLanes,
    did: BTreeMap<u64, Vec<u64>>,
    durable: (BTreeMap<u64, Vec<u64>>, Records),
    /// What has come to it since its last checkpoint.
    adoptions: Vec<(ShardSet, Records, BTreeMap<u64, Vec<u64>>)>,
}

impl Owning {
    fn checkpoint(&mut self) {
        let mut records = Vec::new();
        self.lanes.close(|kind, body| records.push((kind, body.to_vec())));
        self.lanes.commit();
        self.durable = (self.did.clone(), records);
        self.adoptions.clear();
    }

    fn die(&mut self, owns: impl Fn(u64) -> bool) {
        self.lanes = ClientLanes::default();
        self.did = self.durable.0.clone();
        self.did.retain(|key, _| owns(*key));
        let mut all = self.durable.1.clone();
        for (shards, records, did) in &self.adoptions {
            all.drain(..).for_each(|(kind, body)| self.lanes.take_up(kind, &body).unwrap());
            self.lanes.begin_apart(shards);
            all.extend(records.iter().cloned());
            self.did.extend(did.iter().filter(|(key, _)| owns(**key)).map(|(key, did)| (*key, did.clone())));
        }
        all.into_iter().for_each(|(kind, body)| self.lanes.take_up(kind, &body).unwrap());
    }
}

/// Shards move between devices, while a client sends, and while it sends again what was not durable when one of them died, and
/// began beside the others, or when all died.
#[test]
fn a_shard_that_moves_hears_of_each_message_once_though_its_node_dies() {
    const DEVICES: usize = 3;
    const KEYS: u64 = 12;
    let mut again = 0;
    for seed in 0..400 {
        let random = &mut Random(seed);
        let mut devices: Vec<Owning> = (0..DEVICES).map(|_| Owning::default()).collect();
        let mut owner: Vec<usize> = (0..KEYS).map(|key| key as usize % DEVICES).collect();
        // To which key each message goes, by its number less one; the next to come on the connection; what need not come again.
        let (mut sent, mut next, mut covered, mut connection): (Vec<u64>, usize, u64, u64) = (Vec::new(), 0, 0, 0);
        let connect = |devices: &mut Vec<Owning>, connection: &mut u64, covered: u64| {
            *connection += 1;
            for device in devices {
                device.lanes.detach(CLIENT, *connection);
                device.lanes.attach(CLIENT.number, covered + 1);
            }
            covered as usize
        };
        let mut away = true;
        // Where the client does not know yet who has these: it sends nothing for them.
        let mut astray: BTreeSet<u64> = BTreeSet::new();
        for step in 0..500 {
            away |= step == 450;
            match random.below(if step > 450 { 1 } else { 17 }) {
                0..9 => {
                    if std::mem::take(&mut away) {
                        next = connect(&mut devices, &mut connection, covered);
                        astray.clear();
                    }
                    if next == sent.len() {
                        sent.push(random.below(KEYS));
                    } else {
                        again += 1;
                    }
                    let (key, number) = (sent[next], next as u64 + 1);
                    let device = &mut devices[owner[key as usize]];
                    if !astray.contains(&key)
                        && device.lanes.look(CLIENT.number, connection, number, Key(key)) == Seen::New
                    {
                        device.lanes.take(CLIENT.number, number, Key(key), 1);
                        device.did.entry(key).or_default().push(number);
                    }
                    next += 1;
                }
                9 | 10 => devices[random.below(DEVICES as u64) as usize].checkpoint(),
                11 if away || !astray.is_empty() => {}
                11 => {
                    let uncovered = devices.iter().filter_map(|device| device.lanes.uncovered(CLIENT.number)).min();
                    covered = covered.max(uncovered.map_or(next as u64, |first| first - 1).min(next as u64));
                }
                12 => away = true,
                13 => {
                    for (index, device) in devices.iter_mut().enumerate() {
                        device.die(|key| owner[key as usize] == index);
                    }
                    away = true;
                }
                14 => {
                    let begins = random.below(DEVICES as u64) as usize;
                    let its: Vec<u64> = (0..KEYS).filter(|key| owner[*key as usize] == begins).collect();
                    let device = &mut devices[begins];
                    device.die(|key| its.contains(&key));
                    device.lanes.detach(CLIENT, connection);
                    device.lanes.attach(CLIENT.number, next as u64 + 1);
                    device.lanes.begin_here(&its.iter().map(|key| shard_of(Key(*key))).collect());
                    astray.extend(its);
                }
                _ => {
                    let from = random.below(DEVICES as u64) as usize;
                    let to = (from + 1 + random.below(2) as usize) % DEVICES;
                    let keys: Vec<u64> =
                        (0..KEYS).filter(|key| owner[*key as usize] == from && random.below(2) == 0).collect();
                    let shards: ShardSet = keys.iter().map(|key| shard_of(Key(*key))).collect();
                    devices[to].checkpoint();
                    devices[from].checkpoint();
                    let mut records = Vec::new();
                    devices[from].lanes.carry_off(&shards, |kind, body| records.push((kind, body.to_vec())));
                    let mut did = BTreeMap::new();
                    for key in keys {
                        owner[key as usize] = to;
                        did.extend(devices[from].did.remove(&key).map(|did| (key, did)));
                    }
                    let [source, target] = devices.get_disjoint_mut([from, to]).unwrap();
                    target.lanes.take_over(&source.lanes, &shards);
                    source.lanes.let_go_of(&shards);
                    target.did.extend(did.clone());
                    target.adoptions.push((shards, records, did));
                }
            }
            if next == sent.len() && !away && astray.is_empty() {
                for key in 0..KEYS {
                    let wanted = (1u64..).zip(&sent).filter(|(_, to)| **to == key).map(|(number, _)| number);
                    let did = devices[owner[key as usize]].did.get(&key).map(Vec::as_slice).unwrap_or_default();
                    assert!(wanted.eq(did.iter().copied()), "seed {seed}, step {step}: key {key} has {did:?}");
                }
            }
        }
    }
    assert!(again > 10_000, "{again}");
}

/// What a client sends to two nodes comes on two connections: what it sent to the one may come to the other behind what it sent
/// there.
#[test]
fn a_shard_that_came_from_another_node_hears_what_comes_behind_later_messages() {
    let [here, came]: [ShardSet; 2] = [[shard_of(ANY)].into_iter().collect(), (0..SHARDS).collect()];
    let came = came.without(&here);
    let there = (0..).map(Key).find(|key| came.has(*key)).unwrap();
    let (mut source, mut target) = (Receiver::default(), Receiver::default());
    source.connect(1);
    target.connect(1);
    (3..=40).for_each(|number| assert_eq!(source.take(number), Seen::New));
    [1, 2, 100].iter().for_each(|number| assert_eq!(target.take(*number), Seen::New));
    let mut records = Vec::new();
    source.lanes.carry_off(&came, |kind, body| records.push((kind, body.to_vec())));
    target.lanes.begin_apart(&came);
    records.iter().for_each(|(kind, body)| target.lanes.take_up(*kind, body).unwrap());

    let connection = target.connection;
    let look = |device: &mut Receiver, number, to| {
        let seen = device.lanes.look(CLIENT.number, device.connection, number, to);
        if seen == Seen::New {
            device.lanes.take(CLIENT.number, number, to, 1);
        }
        seen
    };
    // The client does not know of it yet, and sends here what is for the others.
    assert_eq!(look(&mut target, 101, ANY), Seen::New);
    assert_eq!((look(&mut target, 40, there), look(&mut target, 41, there)), (Seen::Before, Seen::New));
    // Now it does, and connects anew with what it keeps: all comes in its order.
    target.connect(41);
    assert!(target.connection > connection);
    let all = [(41, there), (50, there), (101, ANY), (102, there), (103, ANY), (50, there), (102, ANY)];
    let seen = all.map(|(number, to)| look(&mut target, number, to));
    assert_eq!(seen.map(|seen| seen == Seen::New), [false, true, false, true, true, false, false]);
}

/// The same of a device that begins where another runs, whose connection with the client knows nothing of it.
#[test]
fn a_device_that_begins_beside_another_hears_what_comes_behind_later_messages() {
    let here: ShardSet = [shard_of(ANY)].into_iter().collect();
    let came = (0..SHARDS).collect::<ShardSet>().without(&here);
    let there = (0..).map(Key).find(|key| came.has(*key)).unwrap();
    let (mut runs, mut begins) = (Receiver::default(), Receiver::default());
    runs.connect(1);
    [1, 3, 12].iter().for_each(|number| assert_eq!(runs.take(*number), Seen::New));
    begins.connect(13);
    begins.lanes.begin_here(&came);
    begins.lanes.take_over(&runs.lanes, &here);
    let mut look = |number, to| begins.lanes.look(CLIENT.number, begins.connection, number, to);
    assert_eq!((look(12, ANY), look(2, there)), (Seen::Before, Seen::New));
}

#[test]
fn the_answer_to_an_ask_that_does_not_come_again_goes_to_its_client() {
    let mut device = Receiver::default();
    device.connect(1);
    assert_eq!(device.take(50), Seen::New);
    // It is durable, and its shard has moved here from another node; earlier ones come again, and it does not.
    device.connect(10);
    let (header, payload) = answer(50);
    assert!(!device.lanes.answer(&header, &payload), "it is kept for when it comes again");
    device.connect(10);
    device.lanes.wait_for(CLIENT.number, 50);
    assert!(device.lanes.answer(&header, &payload));
    assert!(!device.lanes.answer(&header, &payload), "once");
}
