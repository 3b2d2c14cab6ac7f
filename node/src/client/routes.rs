//! Which of a client's links leads to which actor, and what becomes of what the links keep when that changes.
//!
//! A client numbers its messages over all nodes, and each link carries those for its node in the order of their numbers. When
//! shards have moved, what a link keeps of theirs is another's to carry: it is sorted in among what that one keeps, by number, and
//! that one begins anew, since a lane's numbers grow. A link that only loses messages goes on as it is.
//!
//! No clock or socket in it.

use std::collections::BTreeSet;

use bytes::Bytes;
use ringhold_cluster::frame::{FRAME_HEADER_BYTES, FrameBuffer, FrameHeader, Spare, numbers_of};
use ringhold_cluster::wire::Owners;
use ringhold_kernels::id::Key;
use ringhold_kernels::message::{Header, Kind, split_first};
use ringhold_kernels::outbox::{SHARDS, shard_of};

use super::retained::{Retained, Written};

/// Bytes of a buffer at which another begins, where what is kept is put together anew.
const BUFFER_BYTES: usize = 256 << 10;

/// Which link leads where. Links are numbered from 0.
pub(super) struct Routes {
    /// Of [`Owners::version`].
    version: u64,
    /// By the number of its link.
    nodes: Vec<Node>,
    /// By shard.
    links: Box<[u16; SHARDS]>,
}

/// A node that a link leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// In its cluster; 0 of one that stands alone.
    pub number: u32,
    /// Where the cluster says that it is.
    pub address: Option<String>,
}

/// What a new table has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Learnt {
    /// Where shards led before.
    before: Box<[u16; SHARDS]>,
}

impl Learnt {
    /// Whether this shard led elsewhere before.
    pub fn has_moved(&self, routes: &Routes, shard: u16) -> bool {
        self.before[usize::from(shard)] != routes.links[usize::from(shard)]
    }
}

impl Routes {
    /// Of the table that it goes by: [`Owners::version`].
    pub fn version(&self) -> u64 {
        self.version
    }

    /// One link, which leads everywhere: to the node of this number.
    pub fn new(number: u32) -> Routes {
        let links = vec![0; SHARDS].try_into().expect("one for each shard");
        Routes { version: 0, nodes: vec![Node { number, address: None }], links }
    }

    #[inline(always)]
    pub fn of(&self, to: Key) -> usize {
        self.of_shard(shard_of(to) as u16)
    }

    #[inline(always)]
    pub fn of_shard(&self, shard: u16) -> usize {
        usize::from(self.links[usize::from(shard)])
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Takes a table in, if it is newer. Nodes that were not known get links after those that there are; a shard that nobody has
    /// goes on leading where it led.
    pub fn learn(&mut self, owners: &Owners) -> Option<Learnt> {
        if owners.version <= self.version {
            return None;
        }
        self.version = owners.version;
        for (number, address) in &owners.nodes {
            match self.link_to(*number) {
                Some(link) => self.nodes[link].address = Some(address.clone()),
                None => self.nodes.push(Node { number: *number, address: Some(address.clone()) }),
            }
        }
        let before = self.links.clone();
        for (shard, number) in owners.of_shards().take(SHARDS).enumerate() {
            if let Some(link) = self.link_to(number) {
                self.links[shard] = link as u16;
            }
        }
        Some(Learnt { before })
    }

    fn link_to(&self, number: u32) -> Option<usize> {
        self.nodes.iter().position(|node| node.number == number && number != 0)
    }

    /// Forgets all nodes but one, that of this link and number, to which everything leads: it is of another cluster.
    pub fn begin_anew(&mut self, link: usize, number: u32) -> Learnt {
        self.version = 0;
        self.nodes.iter_mut().for_each(|node| *node = Node::default());
        self.nodes[link].number = number;
        let links = vec![link as u16; SHARDS].try_into().expect("one for each shard");
        Learnt { before: std::mem::replace(&mut self.links, links) }
    }
}

/// What waits to be written on a link.
#[derive(Default)]
pub(super) struct Unsent {
    pub frames: FrameBuffer,
    /// The number of the first message in them.
    pub first: u64,
    /// Tells among them.
    pub tells: u64,
    /// The last tell and the last ask that was ever to go this way.
    pub last_tell: u64,
    pub last_ask: u64,
}

impl Unsent {
    /// The number of the last message that was ever to go this way.
    pub fn last(&self) -> u64 {
        self.last_tell.max(self.last_ask)
    }

    /// The messages, with their numbers in them and the frames whole.
    pub fn sealed(&mut self) -> &[u8] {
        if !self.frames.is_empty() {
            self.frames.seal(self.first, 0, 0);
        }
        self.frames.bytes()
    }
}

/// What a link keeps.
pub(super) struct Kept<'a> {
    pub retained: &'a mut Retained,
    pub unsent: &'a mut Unsent,
}

/// A message out of its frame.
struct Message {
    number: u64,
    header: Header,
    payload: Vec<u8>,
}

/// The frames of a buffer that was sealed.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (FrameHeader, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let header = FrameHeader::from_bytes(head).expect("this client wrote it");
        let (body, after) = rest.split_at(header.len as usize);
        bytes = after;
        Some((header, body))
    })
}

/// The numbers of the messages of such a buffer.
pub(super) fn frames_numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    frames(bytes).flat_map(|(header, body)| numbers_of(body, header.mark))
}

/// The messages of such a buffer.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u64, Header, &[u8])> {
    frames(bytes).flat_map(|(header, body)| {
        let mut rest = body;
        numbers_of(body, header.mark).map(move |number| {
            let (header, payload, after) = split_first(rest).expect("it has a number");
            rest = after;
            (number, header, payload)
        })
    })
}

/// The messages of a buffer for which the routes lead to another link than this.
fn strays(bytes: &[u8], link: usize, routes: &Routes) -> impl Iterator<Item = Message> {
    let stray = messages(bytes).filter(move |(_, header, _)| routes.of(header.to().key) != link);
    stray.map(|(number, header, payload)| Message { number, header, payload: payload.to_vec() })
}

/// The other messages of a buffer.
fn own<'a>(bytes: &'a [u8], link: usize, routes: &Routes) -> impl Iterator<Item = (u64, Header, &'a [u8])> {
    messages(bytes).filter(move |(_, header, _)| routes.of(header.to().key) == link)
}

/// Puts messages into buffers, each with its messages in frames.
fn write<'a>(messages: impl Iterator<Item = (u64, Header, &'a [u8])>) -> Vec<Written> {
    let spare = Spare::default();
    let mut buffers = Vec::new();
    let mut buffer = FrameBuffer::default();
    let (mut first, mut end, mut tells) = (0, 0, 0);
    let mut close = |buffer: &mut FrameBuffer, first: u64, end: u64, tells: u64| {
        if !buffer.is_empty() {
            buffer.seal(first, 0, 0);
            let frames: Bytes = std::mem::take(buffer).into_bytes(&spare);
            buffers.push(Written { before: first - 1, end, tells, frames });
        }
    };
    for (number, header, payload) in messages {
        if buffer.is_empty() {
            (first, tells) = (number, 0);
        }
        buffer.push(&header, payload);
        tells += u64::from(header.is(Kind::Tell));
        end = number;
        if buffer.len() >= BUFFER_BYTES {
            close(&mut buffer, first, end, tells);
        }
    }
    close(&mut buffer, first, end, tells);
    buffers
}

/// What a link has written, and is another's by the routes that there are now.
pub(super) fn strays_of(retained: &Retained, link: usize, routes: &Routes) -> Vec<Written> {
    let strays: Vec<Message> = retained.buffers().flat_map(|written| strays(&written.frames, link, routes)).collect();
    write(strays.iter().map(|message| (message.number, message.header, message.payload.as_slice())))
}

/// Deals out anew what links keep, to those to which the routes lead now, and has these links begin anew besides. Returns which
/// links begin anew.
pub(super) fn deal_out(links: &mut [Kept<'_>], routes: &Routes, anew: BTreeSet<usize>) -> BTreeSet<usize> {
    let mut moving: Vec<Vec<Message>> = links.iter().map(|_| Vec::new()).collect();
    for (link, kept) in links.iter_mut().enumerate() {
        let mut away = Vec::new();
        kept.retained.buffers().for_each(|written| away.extend(strays(&written.frames, link, routes)));
        away.extend(strays(kept.unsent.sealed(), link, routes));
        if !away.is_empty() {
            leave(link, kept, routes);
        }
        away.into_iter().for_each(|message| moving[routes.of(message.header.to().key)].push(message));
    }
    let mut begin = anew;
    for (link, arriving) in moving.into_iter().enumerate() {
        if !arriving.is_empty() {
            begin.insert(link);
        }
        if begin.contains(&link) {
            arrive(&mut links[link], arriving);
        }
    }
    begin
}

/// Takes out of what a link keeps what is another's.
fn leave(link: usize, Kept { retained, unsent }: &mut Kept<'_>, routes: &Routes) {
    let mut left = Vec::new();
    for written in retained.buffers() {
        let Written { before, end, tells, ref frames } = *written;
        if strays(frames, link, routes).next().is_none() {
            left.push(Written { before, end, tells, frames: frames.clone() });
            continue;
        }
        left.extend(write(own(frames, link, routes)));
    }
    retained.leave(left);
    let mut frames = FrameBuffer::default();
    let (mut first, mut tells) = (0, 0);
    for (number, header, payload) in own(unsent.sealed(), link, routes) {
        first = if frames.is_empty() { number } else { first };
        tells += u64::from(header.is(Kind::Tell));
        frames.push(&header, payload);
    }
    (unsent.frames, unsent.first, unsent.tells) = (frames, first, tells);
    note_last(retained, unsent);
}

/// Sorts messages in among what a link keeps, all of which a new connection is to carry.
fn arrive(Kept { retained, unsent }: &mut Kept<'_>, mut arriving: Vec<Message>) {
    let buffers: Vec<Bytes> = retained.again();
    let unsent_frames = Bytes::copy_from_slice(unsent.sealed());
    let mut all: Vec<(u64, Header, &[u8])> = buffers.iter().chain([&unsent_frames]).flat_map(|b| messages(b)).collect();
    arriving.sort_by_key(|message| message.number);
    all.extend(arriving.iter().map(|message| (message.number, message.header, message.payload.as_slice())));
    all.sort_by_key(|(number, _, _)| *number);
    retained.begin_anew(write(all.into_iter()));
    unsent.frames.clear();
    unsent.tells = 0;
    note_last(retained, unsent);
}

/// Finds out which tell and which ask are the last of those that a link keeps.
fn note_last(retained: &Retained, unsent: &mut Unsent) {
    let (mut last_tell, mut last_ask) = (0, 0);
    let buffers = retained.again();
    let kept = buffers.iter().flat_map(|frames| messages(frames));
    let unsent_frames = Bytes::copy_from_slice(unsent.sealed());
    for (number, header, _) in kept.chain(messages(&unsent_frames)) {
        match header.is(Kind::Tell) {
            true => last_tell = number,
            false => last_ask = number,
        }
    }
    (unsent.last_tell, unsent.last_ask) = (last_tell, last_ask);
}

#[cfg(test)]
mod tests {
    use ringhold_cluster::frame::client_id;
    use ringhold_kernels::hlc::Hlc;
    use ringhold_kernels::id::{ActorId, TypeId};

    use super::*;

    fn owners(version: u64, nodes: &[u32], node_of: impl Fn(usize) -> u32) -> Owners {
        let nodes = nodes.iter().map(|number| (*number, format!("node{number}:1"))).collect();
        Owners { version, nodes, shards: Owners::runs((0..SHARDS).map(node_of)) }
    }

    /// A key of this shard.
    fn key(shard: usize) -> Key {
        (0..).map(Key).find(|key| shard_of(*key) == shard).unwrap()
    }

    fn header(number: u64, shard: usize, kind: Kind) -> Header {
        Header::new(kind, ActorId::new(TypeId(7), key(shard)), client_id(0, number as u32), 8, Hlc(0))
    }

    /// A client without sockets: what its links keep.
    struct Links(Vec<(Retained, Unsent)>);

    impl Links {
        fn new(count: usize) -> Links {
            Links((0..count).map(|_| Default::default()).collect())
        }

        fn push(&mut self, link: usize, number: u64, shard: usize, kind: Kind) {
            let unsent = &mut self.0[link].1;
            if unsent.frames.is_empty() {
                unsent.first = number;
            }
            unsent.frames.push(&header(number, shard, kind), &number.to_le_bytes());
            match kind {
                Kind::Tell => (unsent.tells, unsent.last_tell) = (unsent.tells + 1, number),
                _ => unsent.last_ask = number,
            }
        }

        /// Writes what waits on a link.
        fn write(&mut self, link: usize) {
            let (retained, unsent) = &mut self.0[link];
            let frames = Bytes::copy_from_slice(unsent.sealed());
            let (before, end, tells) = (unsent.first - 1, unsent.last(), unsent.tells);
            retained.push(Written { before, end, tells, frames });
            (unsent.frames, unsent.tells) = (FrameBuffer::default(), 0);
        }

        fn deal(&mut self, routes: &Routes, anew: BTreeSet<usize>) -> Vec<usize> {
            let mut kept: Vec<_> = self.0.iter_mut().map(|(retained, unsent)| Kept { retained, unsent }).collect();
            deal_out(&mut kept, routes, anew).into_iter().collect()
        }

        /// The numbers of what a link has written, and of what waits.
        fn numbers(&mut self, link: usize) -> (Vec<u64>, Vec<u64>) {
            let (retained, unsent) = &mut self.0[link];
            let kept = retained.again().iter().flat_map(|frames| frames_numbers(frames).collect::<Vec<_>>()).collect();
            (kept, frames_numbers(unsent.sealed()).collect())
        }
    }

    #[test]
    fn a_table_is_believed_when_it_is_newer() {
        let mut routes = Routes::new(5);
        assert_eq!(routes.learn(&Owners::default()), None, "a node by itself has none");
        let halves = |shard: usize| if shard < SHARDS / 2 { 5 } else { 9 };
        let learnt = routes.learn(&owners(3, &[5, 9], halves)).unwrap();
        assert_eq!((routes.of_shard(0), routes.of_shard(SHARDS as u16 - 1)), (0, 1));
        assert!(!learnt.has_moved(&routes, 0) && learnt.has_moved(&routes, SHARDS as u16 - 1));
        assert_eq!(routes.nodes()[1], Node { number: 9, address: Some("node9:1".into()) });
        assert_eq!(routes.learn(&owners(2, &[5], |_| 5)), None);
        assert_eq!(routes.learn(&owners(3, &[5], |_| 5)), None);
        // Another node, and shards of nobody.
        routes.learn(&owners(4, &[9, 7], |shard| if shard == 0 { 7 } else { 0 })).unwrap();
        assert_eq!((routes.of_shard(0), routes.of_shard(1), routes.of_shard(SHARDS as u16 - 1)), (2, 0, 1));
        routes.begin_anew(1, 4);
        assert_eq!((routes.of_shard(0), routes.nodes()[0].number, routes.nodes()[1].number), (1, 0, 4));
        assert!(routes.learn(&owners(1, &[4], |_| 4)).is_some(), "it is another cluster's");
    }

    #[test]
    fn what_has_moved_is_sorted_in_and_the_others_go_on() {
        let mut routes = Routes::new(1);
        routes.learn(&owners(1, &[1, 2, 3], |shard| shard as u32 % 3 + 1)).unwrap();
        let mut links = Links::new(3);
        // Shard 0 is node 1's at first, and node 2's then.
        for (number, shard) in [(1, 0), (2, 1), (3, 3), (4, 0), (5, 2), (6, 4)] {
            links.push(shard % 3, number, shard, Kind::Tell);
        }
        (0..3).for_each(|link| links.write(link));
        for (number, shard, kind) in [(7, 0, Kind::Ask), (8, 3, Kind::Ask), (9, 1, Kind::Tell), (10, 0, Kind::Tell)] {
            links.push(shard % 3, number, shard, kind);
        }
        links.0.iter_mut().for_each(|(retained, _)| _ = retained.confirm(6));
        routes.learn(&owners(2, &[1, 2, 3], |shard| if shard == 0 { 2 } else { shard as u32 % 3 + 1 })).unwrap();
        assert_eq!(links.deal(&routes, BTreeSet::new()), [1], "one whose messages are not its last begins anew");
        assert_eq!(links.numbers(0), (vec![3], vec![8]));
        assert_eq!(links.numbers(1), (vec![1, 2, 4, 6, 7, 9, 10], vec![]));
        assert_eq!(links.numbers(2), (vec![5], vec![]));
        let (retained, unsent) = &links.0[1];
        assert_eq!((retained.first(), retained.written(), retained.confirmed(), retained.generation()), (1, 10, 0, 1));
        assert_eq!((unsent.last_tell, unsent.last_ask, retained.unconfirmed_tells()), (10, 7, 6));
        let (retained, unsent) = &links.0[0];
        assert_eq!((retained.generation(), retained.confirmed()), (0, 6));
        assert_eq!((unsent.first, unsent.tells, unsent.last_tell, unsent.last_ask), (8, 0, 3, 8));
        // What it covers it covers still.
        assert!(links.0[0].0.cover(4) && links.0[0].0.is_empty());
        assert_eq!(links.0[1].0.has(&[4, 5, 7, 11].into()), [4, 7].into());
        assert!(links.deal(&routes, BTreeSet::new()).is_empty(), "nothing has moved since");
        assert_eq!(links.deal(&routes, [2].into()), [2], "asks alone may make one begin anew");
        assert_eq!(links.numbers(2), (vec![5], vec![]));
    }

    #[test]
    fn whatever_moves_all_is_kept_once_and_in_order() {
        let mut random = 1u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        const SHARDS_USED: usize = 16;
        let mut routes = Routes::new(1);
        let mut links = Links::new(4);
        let mut owner = [1u32; SHARDS_USED];
        let mut sent: Vec<(u64, usize)> = Vec::new();
        for version in 1..200u64 {
            for _ in 0..draw(40) {
                // Low halves begin anew among them.
                let number = sent.last().map_or(u64::from(u32::MAX) - 900, |(last, _)| last + 1);
                let shard = draw(SHARDS_USED as u64) as usize;
                let kind = if draw(3) == 0 { Kind::Ask } else { Kind::Tell };
                links.push(routes.of_shard(shard as u16), number, shard, kind);
                sent.push((number, shard));
            }
            for link in 0..4 {
                if draw(2) == 0 && !links.0[link].1.frames.is_empty() {
                    links.write(link);
                }
            }
            for _ in 0..draw(3) {
                owner[draw(SHARDS_USED as u64) as usize] = draw(4) as u32 + 1;
            }
            let table = owners(version, &[1, 2, 3, 4], |shard| owner.get(shard).copied().unwrap_or(1));
            routes.learn(&table).unwrap();
            links.deal(&routes, BTreeSet::new());
            let mut found = Vec::new();
            for link in 0..4 {
                let (kept, unsent) = links.numbers(link);
                let all: Vec<u64> = kept.into_iter().chain(unsent).collect();
                assert!(all.is_sorted_by(|a, b| a < b), "a lane's numbers grow: {all:?}");
                found.extend(all.into_iter().map(|number| (number, link)));
            }
            found.sort_unstable();
            let expected = sent.iter().map(|(number, shard)| (*number, routes.of_shard(*shard as u16)));
            assert!(found.into_iter().eq(expected), "version {version}");
        }
    }
}
