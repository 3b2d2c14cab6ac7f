//! The clients that a node knows, connected or not: by what number, and what it may know of one that comes back.
//!
//! A client has one number at all nodes of a cluster: that which it was given by the one that it came to first. The node's own
//! number is in it, so no two nodes give the same.
//!
//! No clock or socket in it: the caller brings the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringhold_cluster::wire::{Lane, Resumed};

pub use crate::device::lanes::Client;

/// Clients that a node knows, at most. Beyond it the one goes that was away the longest.
pub const CLIENTS_MAX: usize = 2_048;
/// How long a client may be away until it is forgotten. One that closes in good order is forgotten at once.
pub const CLIENT_KEPT: Duration = Duration::from_secs(3_600);

/// See the module's documentation.
#[derive(Default)]
pub struct Clients {
    known: BTreeMap<[u8; 16], Known>,
    numbers: Numbers,
    connections: u64,
    last_born: u64,
    /// When the youngest client that was forgotten was born.
    forgotten: u64,
    /// Numbers that answers still to come bear, of clients that are not known any more.
    reserved: BTreeSet<u32>,
}

/// The numbers that a node gives to clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    /// What all of them begin with.
    prefix: u32,
    /// The bits that count.
    counter: u32,
    next: u32,
}

/// The bits of a client's number that count, where a cluster's node gives it; the node's own number is above them.
const COUNTER_BITS: u32 = 20;

impl Numbers {
    /// Those of a node with this number in its cluster, 0 where it stands alone, from one on that is drawn by chance: answers to
    /// clients of which the node knows nothing any more may still come.
    pub fn new(node: u32, random: u32) -> Numbers {
        let counter = if node == 0 { u32::MAX } else { (1 << COUNTER_BITS) - 1 };
        let prefix = if node == 0 { 0 } else { node << COUNTER_BITS };
        Numbers { prefix, counter, next: random }
    }

    fn draw(&mut self) -> u32 {
        let number = self.prefix | self.next & self.counter;
        self.next = self.next.wrapping_add(1);
        number
    }
}

/// A client that a node of this cluster has given a number before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub number: u32,
    pub born: u64,
}

/// The number by which a client comes is another one's that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberTaken;

struct Known {
    client: Client,
    /// Its present connection, if it has one.
    connection: Option<u64>,
}

/// What a node's checkpoints knew of its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    pub clients: Vec<Client>,
    pub forgotten: u64,
    pub reserved: Vec<u32>,
}

/// A client that has said hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub client: Client,
    /// Which connection this is, of all that the node had.
    pub connection: u64,
    pub resumed: Resumed,
}

/// A client that is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    pub number: u32,
    /// It will not come back as who it was.
    pub for_good: bool,
}

impl Clients {
    /// Begins with what there was before. Nobody could be seen while the node was away, nor is it known for sure how long that was:
    /// all are away since now.
    pub fn begin(&mut self, remembered: Remembered, numbers: Numbers, now_us: u64) {
        let Remembered { clients, forgotten, reserved } = remembered;
        self.numbers = numbers;
        self.forgotten = forgotten;
        self.last_born = clients.iter().map(|client| client.born).max().unwrap_or(0).max(forgotten);
        self.reserved = reserved.into_iter().collect();
        let seen = |client| Client { seen_us: now_us, ..client };
        let known = |client: Client| (client.id, Known { client: seen(client), connection: None });
        self.known = clients.into_iter().map(known).collect();
    }

    /// Takes in what a device that begins here while the node runs knows of clients. They are away since now, for the device has
    /// counted by another machine's clock; but for those that are here.
    pub fn remember(&mut self, clients: impl Iterator<Item = Client>, forgotten: u64, now_us: u64) {
        self.forgotten = self.forgotten.max(forgotten);
        for client in clients {
            self.last_born = self.last_born.max(client.born);
            let seen = Client { seen_us: now_us, ..client };
            self.known.entry(client.id).or_insert(Known { client: seen, connection: None });
        }
    }

    /// Takes in a client's hello: `named` where a node of this cluster has given it its number. Adds who is forgotten for it.
    pub fn arrive(
        &mut self,
        lane: &Lane,
        named: Option<Named>,
        now_us: u64,
        gone: &mut Vec<Gone>,
    ) -> Result<Arrival, NumberTaken> {
        let connection = self.connections + 1;
        if let Some(known) = self.known.get_mut(&lane.client)
            && named == Some(Named { number: known.client.number, born: known.client.born })
        {
            self.connections = connection;
            known.connection = Some(connection);
            known.client.seen_us = now_us;
            return Ok(Arrival { client: known.client, connection, resumed: Resumed::Known });
        }
        if let Some(named) = named {
            self.vacate(named.number, lane.client, gone)?;
        }
        self.connections = connection;
        if let Some(other) = self.known.remove(&lane.client) {
            gone.push(Gone { number: other.client.number, for_good: true });
        }
        let resumed = match (named, &lane.before) {
            // It was born after all that were forgotten, so it was not: the node has taken nothing of it, or has died before it could
            // remember that, and all of it died with it.
            (Some(named), _) if named.born > self.forgotten => Resumed::Known,
            (None, None) => Resumed::New,
            _ => Resumed::Forgotten,
        };
        let Named { number, born } = named.unwrap_or_else(|| {
            self.last_born = (self.last_born + 1).max(now_us);
            Named { number: self.free_number(), born: self.last_born }
        });
        let client = Client { number, id: lane.client, born, seen_us: now_us };
        self.known.insert(lane.client, Known { client, connection: Some(connection) });
        self.forget_too_many(gone);
        Ok(Arrival { client, connection, resumed })
    }

    /// Has nobody but this client have a number. Whoever is away and has it is forgotten.
    fn vacate(&mut self, number: u32, id: [u8; 16], gone: &mut Vec<Gone>) -> Result<(), NumberTaken> {
        let other = self.known.iter().find(|(other, known)| known.client.number == number && **other != id);
        match other.map(|(other, known)| (*other, known.connection)) {
            None => Ok(()),
            Some((_, Some(_))) => Err(NumberTaken),
            Some((other, None)) => {
                gone.push(self.forget(other));
                Ok(())
            }
        }
    }

    /// Takes in that a connection has ended; `for_good` where its client will not come back.
    pub fn leave(&mut self, arrival: &Arrival, for_good: bool, now_us: u64) -> Option<Gone> {
        let known = self.known.get_mut(&arrival.client.id)?;
        if known.connection != Some(arrival.connection) {
            return None;
        }
        (known.connection, known.client.seen_us) = (None, now_us);
        for_good.then(|| {
            self.known.remove(&arrival.client.id);
            Gone { number: arrival.client.number, for_good }
        })
    }

    /// Forgets who has been away for too long.
    pub fn forget_old(&mut self, now_us: u64) -> Vec<Gone> {
        let kept_us = CLIENT_KEPT.as_micros() as u64;
        let old = |known: &Known| known.connection.is_none() && known.client.seen_us.saturating_add(kept_us) < now_us;
        let ids: Vec<_> = self.known.iter().filter(|(_, known)| old(known)).map(|(id, _)| *id).collect();
        ids.into_iter().map(|id| self.forget(id)).collect()
    }

    fn forget_too_many(&mut self, gone: &mut Vec<Gone>) {
        while self.known.len() > CLIENTS_MAX {
            let away = self.known.iter().filter(|(_, known)| known.connection.is_none());
            let Some((id, _)) = away.min_by_key(|(_, known)| known.client.seen_us) else { return };
            let id = *id;
            gone.push(self.forget(id));
        }
    }

    fn forget(&mut self, id: [u8; 16]) -> Gone {
        let known = self.known.remove(&id).expect("it was there just now");
        self.forgotten = self.forgotten.max(known.client.born);
        Gone { number: known.client.number, for_good: false }
    }

    /// A number of which nothing is left. Zero is the node's own.
    fn free_number(&mut self) -> u32 {
        loop {
            let number = self.numbers.draw();
            let taken = self.known.values().any(|known| known.client.number == number);
            if number != 0 && !taken && !self.reserved.contains(&number) {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringhold_cluster::wire::Before;

    use super::*;

    fn lane(client: u8, before: Option<Named>) -> Lane {
        let before = before.map(|Named { number, born }| Before { home: "n".into(), session: number, born });
        Lane { client: [client; 16], node: 0, first: 1, again: 0, waiting: vec![], before, table: 0 }
    }

    fn named(arrival: &Arrival) -> Option<Named> {
        Some(Named { number: arrival.client.number, born: arrival.client.born })
    }

    fn arrive(clients: &mut Clients, client: u8, named: Option<Named>, now_us: u64) -> (Arrival, Vec<Gone>) {
        let mut gone = Vec::new();
        (clients.arrive(&lane(client, named), named, now_us, &mut gone).unwrap(), gone)
    }

    #[test]
    fn a_client_that_comes_back_is_who_it_was() {
        let mut clients = Clients::default();
        clients.begin(Remembered::default(), Numbers::new(0, 7), 0);
        let (first, _) = arrive(&mut clients, 1, None, 100);
        let (other, _) = arrive(&mut clients, 2, None, 100);
        assert_eq!((first.resumed, first.client.number, other.client.number), (Resumed::New, 7, 8));
        assert!(other.client.born > first.client.born, "also in the same microsecond");
        // Its last connection is not known to have ended yet.
        let (again, gone) = arrive(&mut clients, 1, named(&first), 200);
        assert_eq!((again.resumed, again.client.number, gone), (Resumed::Known, 7, vec![]));
        assert_eq!(clients.leave(&first, true, 300), None, "that one has been followed by another");
        assert_eq!(clients.leave(&again, true, 300), Some(Gone { number: 7, for_good: true }));
        // It was for good: what comes now under its name is not it.
        let (stranger, _) = arrive(&mut clients, 1, None, 400);
        assert_eq!((stranger.resumed, stranger.client.number), (Resumed::New, 9));
    }

    #[test]
    fn a_client_that_was_forgotten_is_told_so_and_one_that_the_node_never_kept_is_not() {
        let mut clients = Clients::default();
        clients.begin(Remembered::default(), Numbers::new(0, 1), 0);
        let (old, _) = arrive(&mut clients, 1, None, 100);
        let (young, _) = arrive(&mut clients, 2, None, 200);
        clients.leave(&old, false, 300);
        let late = 301 + CLIENT_KEPT.as_micros() as u64;
        assert_eq!(clients.forget_old(late - 1), [], "not yet");
        assert_eq!(clients.forget_old(late), [Gone { number: 1, for_good: false }]);
        assert_eq!(arrive(&mut clients, 1, named(&old), late).0.resumed, Resumed::Forgotten);

        // A device that begins here has counted by the clock of a machine that has not been up for so long.
        let other = Client { number: 3, id: [3; 16], born: 150, seen_us: 1 };
        clients.remember([other].into_iter(), 0, late);
        assert_eq!(clients.forget_old(late + 1), []);

        // The node dies, and remembers that it forgot.
        let mut clients = Clients::default();
        let remembered = Remembered { forgotten: old.client.born, reserved: vec![5], ..Remembered::default() };
        clients.begin(remembered, Numbers::new(0, 5), 0);
        assert_eq!(arrive(&mut clients, 1, named(&old), late).0.resumed, Resumed::Forgotten);
        let (back, _) = arrive(&mut clients, 2, named(&young), late);
        assert_eq!((back.resumed, back.client.number), (Resumed::Known, 2), "it is who it was");
        // One that was at home elsewhere.
        let elsewhere = Named { number: 1, born: 9 };
        let strange = clients.arrive(&lane(3, Some(elsewhere)), None, late, &mut vec![]).unwrap();
        assert_eq!((strange.resumed, strange.client.number), (Resumed::Forgotten, 6), "5 is taken");
    }

    #[test]
    fn a_client_has_one_number_at_all_nodes_and_no_two_nodes_give_the_same() {
        let [mut a, mut b] = [1, 2].map(|node| {
            let mut clients = Clients::default();
            clients.begin(Remembered::default(), Numbers::new(node, u32::MAX), 0);
            clients
        });
        let [(at_a, _), (at_b, _)] = [arrive(&mut a, 1, None, 100), arrive(&mut b, 2, None, 90)];
        assert_eq!((at_a.client.number, at_b.client.number), (0x1f_ffff, 0x2f_ffff));
        assert_eq!(arrive(&mut a, 9, None, 100).0.client.number, 0x10_0000, "the counter begins anew");
        // It comes to another node, which has taken nothing of it.
        let (also_at_b, _) = arrive(&mut b, 1, named(&at_a), 200);
        assert_eq!((also_at_b.resumed, also_at_b.client.number), (Resumed::Known, at_a.client.number));
        assert_eq!(arrive(&mut b, 1, named(&at_a), 300).0.client, Client { seen_us: 300, ..also_at_b.client });

        // Its number is another's only where something was lost: that one is not cut off, and forgotten once it is away.
        let impostor = lane(3, named(&at_a));
        assert_eq!(b.arrive(&impostor, named(&at_a), 400, &mut vec![]), Err(NumberTaken));
        let (back, _) = arrive(&mut b, 1, named(&at_a), 500);
        b.leave(&back, false, 600);
        let (_, gone) = arrive(&mut b, 3, named(&at_a), 700);
        assert_eq!(gone, [Gone { number: at_a.client.number, for_good: false }]);
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut clients = Clients::default();
        clients.begin(Remembered::default(), Numbers::new(0, 1), 0);
        let mut gone = Vec::new();
        for i in 0..CLIENTS_MAX as u64 + 10 {
            let mut lane = lane(0, None);
            lane.client[..8].copy_from_slice(&i.to_le_bytes());
            let arrival = clients.arrive(&lane, None, i, &mut gone).unwrap();
            // One in two is away.
            if i % 2 == 1 {
                clients.leave(&arrival, false, i);
            }
        }
        let expected: Vec<Gone> = (0..10).map(|i| Gone { number: 2 + 2 * i, for_good: false }).collect();
        assert_eq!(gone, expected, "the longest away, and nobody who is there");
    }
}
