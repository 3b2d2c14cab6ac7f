//! The clients that a node knows, connected or not: by what number, and what it may know of one that comes back.
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
    next_number: u32,
    connections: u64,
    last_born: u64,
    /// When the youngest client that was forgotten was born.
    forgotten: u64,
    /// Numbers that answers still to come bear, of clients that are not known any more.
    reserved: BTreeSet<u32>,
}

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
    /// Begins with what there was before. The first new client gets this number, or one after it. Nobody could be seen while the
    /// node was away, nor is it known for sure how long that was: all are away since now.
    pub fn begin(&mut self, remembered: Remembered, first_number: u32, now_us: u64) {
        let Remembered { clients, forgotten, reserved } = remembered;
        self.next_number = first_number;
        self.forgotten = forgotten;
        self.last_born = clients.iter().map(|client| client.born).max().unwrap_or(0).max(forgotten);
        self.reserved = reserved.into_iter().collect();
        let seen = |client| Client { seen_us: now_us, ..client };
        let known = |client: Client| (client.id, Known { client: seen(client), connection: None });
        self.known = clients.into_iter().map(known).collect();
    }

    /// Takes in what a device that begins here while the node runs knows of clients. They are away, but for those that are here.
    pub fn remember(&mut self, clients: impl Iterator<Item = Client>, forgotten: u64) {
        self.forgotten = self.forgotten.max(forgotten);
        for client in clients {
            self.last_born = self.last_born.max(client.born);
            self.known.entry(client.id).or_insert(Known { client, connection: None });
        }
    }

    /// Takes in a client's hello. `before` is when it was born here, as it says. Adds who is forgotten for it.
    pub fn arrive(&mut self, lane: &Lane, before: Option<u64>, now_us: u64, gone: &mut Vec<Gone>) -> Arrival {
        self.connections += 1;
        let connection = self.connections;
        if let Some(known) = self.known.get_mut(&lane.client)
            && before == Some(known.client.born)
        {
            known.connection = Some(connection);
            known.client.seen_us = now_us;
            return Arrival { client: known.client, connection, resumed: Resumed::Known };
        }
        if let Some(other) = self.known.remove(&lane.client) {
            gone.push(Gone { number: other.client.number, for_good: true });
        }
        let resumed = match (before, &lane.before) {
            // It was born after all that were forgotten, so it was not: the node has died before it could remember this one,
            // and all that this one sent died with it.
            (Some(born), _) if born > self.forgotten => Resumed::Known,
            (None, None) => Resumed::New,
            _ => Resumed::Forgotten,
        };
        self.last_born = (self.last_born + 1).max(now_us);
        let client = Client { number: self.free_number(), id: lane.client, born: self.last_born, seen_us: now_us };
        self.known.insert(lane.client, Known { client, connection: Some(connection) });
        self.forget_too_many(gone);
        Arrival { client, connection, resumed }
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
            let number = self.next_number;
            self.next_number = number.wrapping_add(1);
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

    fn lane(client: u8, before: Option<u64>) -> Lane {
        let before = before.map(|born| Before { node: "n".into(), born });
        Lane { client: [client; 16], first: 1, again: 0, waiting: vec![], before }
    }

    fn arrive(clients: &mut Clients, client: u8, before: Option<u64>, now_us: u64) -> (Arrival, Vec<Gone>) {
        let mut gone = Vec::new();
        (clients.arrive(&lane(client, before), before, now_us, &mut gone), gone)
    }

    #[test]
    fn a_client_that_comes_back_is_who_it_was() {
        let mut clients = Clients::default();
        clients.begin(Remembered::default(), 7, 0);
        let (first, _) = arrive(&mut clients, 1, None, 100);
        let (other, _) = arrive(&mut clients, 2, None, 100);
        assert_eq!((first.resumed, first.client.number, other.client.number), (Resumed::New, 7, 8));
        assert!(other.client.born > first.client.born, "also in the same microsecond");
        // Its last connection is not known to have ended yet.
        let (again, gone) = arrive(&mut clients, 1, Some(first.client.born), 200);
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
        clients.begin(Remembered::default(), 1, 0);
        let (old, _) = arrive(&mut clients, 1, None, 100);
        let (young, _) = arrive(&mut clients, 2, None, 200);
        clients.leave(&old, false, 300);
        let late = 301 + CLIENT_KEPT.as_micros() as u64;
        assert_eq!(clients.forget_old(late - 1), [], "not yet");
        assert_eq!(clients.forget_old(late), [Gone { number: 1, for_good: false }]);
        assert_eq!(arrive(&mut clients, 1, Some(old.client.born), late).0.resumed, Resumed::Forgotten);

        // The node dies, and remembers that it forgot.
        let mut clients = Clients::default();
        clients.begin(Remembered { forgotten: old.client.born, reserved: vec![5], ..Remembered::default() }, 5, 0);
        assert_eq!(arrive(&mut clients, 1, Some(old.client.born), late).0.resumed, Resumed::Forgotten);
        let (back, _) = arrive(&mut clients, 2, Some(young.client.born), late);
        assert_eq!((back.resumed, back.client.number), (Resumed::Known, 7), "5 is taken, 6 is the other's");
        // One that was at another node.
        let strange = clients.arrive(&lane(3, Some(9)), None, late, &mut vec![]);
        assert_eq!(strange.resumed, Resumed::Forgotten);
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut clients = Clients::default();
        clients.begin(Remembered::default(), 1, 0);
        let mut gone = Vec::new();
        for i in 0..CLIENTS_MAX as u64 + 10 {
            let mut lane = lane(0, None);
            lane.client[..8].copy_from_slice(&i.to_le_bytes());
            let arrival = clients.arrive(&lane, None, i, &mut gone);
            // One in two is away.
            if i % 2 == 1 {
                clients.leave(&arrival, false, i);
            }
        }
        let expected: Vec<Gone> = (0..10).map(|i| Gone { number: 2 + 2 * i, for_good: false }).collect();
        assert_eq!(gone, expected, "the longest away, and nobody who is there");
    }
}
