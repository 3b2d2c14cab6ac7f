//! Asks under way: a slot for each, found by the number of its message.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::task::{Context, Poll, Waker};

use ringhold_cluster::wire::Lane;
use ringhold_kernels::message::{Header, Kind, Reason};

/// Which ask: the low half of its message's number, which its answer bears.
pub(super) type Ticket = u32;

#[derive(Default)]
pub(super) struct Asks {
    slots: Vec<Slot>,
    free: Vec<u16>,
    by_ticket: HashMap<Ticket, u16>,
    /// Those begun, in order, from the first that still waits for its answer.
    begun: VecDeque<(u64, Ticket)>,
    last: u64,
    /// Answers that nobody waited for any more.
    pub late: u64,
    pub answered: u64,
}

struct Slot {
    state: State,
    number: u64,
    /// Of the actor that is asked.
    shard: u16,
    waker: Option<Waker>,
    header: Header,
    payload: Vec<u8>,
}

/// A slot is free again only once its answer has come or its connection is gone: the node counts it until then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Answered,
    /// Nobody waits, and the answer has not come.
    Abandoned,
}

impl Asks {
    /// A slot for a new ask, if fewer than `max` are taken. Numbers grow.
    pub fn begin(&mut self, max: u32, number: u64, shard: u16) -> Option<Ticket> {
        let (header, payload) = (Header::default(), Vec::new());
        let slot = Slot { state: State::Waiting, number, shard, waker: None, header, payload };
        let index = match self.free.pop() {
            Some(index) => {
                let payload = std::mem::take(&mut self.slots[usize::from(index)].payload);
                self.slots[usize::from(index)] = Slot { payload, ..slot };
                index
            }
            None if self.slots.len() < max as usize => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u16
            }
            None => return None,
        };
        let ticket = number as Ticket;
        self.by_ticket.insert(ticket, index);
        self.begun.push_back((number, ticket));
        self.last = number;
        Some(ticket)
    }

    fn slot(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        self.by_ticket.get(&ticket).map(|index| &mut self.slots[usize::from(*index)])
    }

    fn release(&mut self, ticket: Ticket) {
        if let Some(index) = self.by_ticket.remove(&ticket) {
            self.slots[usize::from(index)].waker = None;
            self.free.push(index);
        }
    }

    /// Up to which message no ask waits for its answer.
    pub fn settled(&mut self) -> u64 {
        while let Some((_, ticket)) = self.begun.front().copied()
            && self.slot(ticket).is_none_or(|slot| slot.state != State::Waiting)
        {
            self.begun.pop_front();
        }
        self.begun.front().map_or(self.last, |(number, _)| number - 1)
    }

    /// Takes an answer in. Returns whom to wake.
    pub fn complete(&mut self, ticket: Ticket, header: &Header, payload: &[u8]) -> Option<Waker> {
        let state = self.slot(ticket).map(|slot| slot.state);
        match state {
            Some(State::Waiting) => {
                self.answered += 1;
                let slot = self.slot(ticket).expect("it was there just now");
                slot.state = State::Answered;
                slot.header = *header;
                slot.payload.clear();
                slot.payload.extend_from_slice(payload);
                slot.waker.take()
            }
            Some(State::Abandoned) => {
                self.late += 1;
                self.release(ticket);
                None
            }
            // It had its answer before its connection was lost, and came again.
            Some(State::Answered) | None => {
                self.late += 1;
                None
            }
        }
    }

    /// The answer, given to `read`, if it is there; the slot is free after that.
    pub fn poll<R>(&mut self, ticket: Ticket, cx: &mut Context<'_>, read: impl FnOnce(&Header, &[u8]) -> R) -> Poll<R> {
        let slot = self.slot(ticket).expect("an ask keeps its slot until it has its answer");
        if slot.state != State::Answered {
            match &mut slot.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let result = read(&slot.header, &slot.payload);
        self.release(ticket);
        Poll::Ready(result)
    }

    /// Nobody waits for this one any more.
    pub fn abandon(&mut self, ticket: Ticket) {
        match self.slot(ticket).map(|slot| slot.state) {
            Some(State::Waiting) => {
                let slot = self.slot(ticket).expect("it was there just now");
                slot.state = State::Abandoned;
                slot.waker = None;
            }
            Some(State::Answered) => self.release(ticket),
            Some(State::Abandoned) | None => {}
        }
    }

    /// Whether anybody waits for an answer.
    pub fn any_waits(&self) -> bool {
        self.by_ticket.values().any(|index| self.slots[usize::from(*index)].state == State::Waiting)
    }

    /// The shard of an ask, where there is one of this ticket.
    pub fn shard(&self, ticket: Ticket) -> Option<u16> {
        self.by_ticket.get(&ticket).map(|index| self.slots[usize::from(*index)].shard)
    }

    /// The shards of asks that wait.
    pub fn shards(&self) -> BTreeSet<u16> {
        let slots = self.by_ticket.values().map(|index| &self.slots[usize::from(*index)]);
        slots.filter(|slot| slot.state == State::Waiting).map(|slot| slot.shard).collect()
    }

    /// The asks of these shards that have no answer, whether anybody waits for it or not.
    pub fn open(&self, of: impl Fn(u16) -> bool) -> BTreeSet<u64> {
        let slots = self.by_ticket.values().map(|index| &self.slots[usize::from(*index)]);
        slots.filter(|slot| slot.state != State::Answered && of(slot.shard)).map(|slot| slot.number).collect()
    }

    /// There is another connection, on which these messages do not come again. Returns the asks among them that wait, as a
    /// hello names them.
    pub fn resume(&mut self, gone: &BTreeSet<u64>) -> Vec<u64> {
        let mut waiting = Vec::new();
        for number in gone {
            let ticket = *number as Ticket;
            match self.slot(ticket).map(|slot| slot.state) {
                Some(State::Waiting) => waiting.push(*number),
                // What is not asked for again is not answered.
                Some(State::Abandoned) => self.release(ticket),
                Some(State::Answered) | None => {}
            }
        }
        Lane::distances(waiting)
    }

    /// These asks get no other answer than that their connection is lost.
    pub fn lose(&mut self, which: impl Fn(u64, u16) -> bool) -> Vec<Waker> {
        let mut lost: Vec<(u64, Ticket)> = Vec::new();
        for (ticket, index) in &self.by_ticket {
            let slot = &self.slots[usize::from(*index)];
            if which(slot.number, slot.shard) {
                lost.push((slot.number, *ticket));
            }
        }
        lost.sort_unstable();
        let mut wakers = Vec::new();
        for (_, ticket) in lost {
            let slot = self.slot(ticket).expect("it is one of those there are");
            match slot.state {
                State::Waiting => {
                    slot.state = State::Answered;
                    slot.header = Header::default().with_kind(Kind::Error).with_reason(Reason::ConnectionLost);
                    slot.payload.clear();
                    wakers.extend(slot.waker.take());
                }
                State::Abandoned => self.release(ticket),
                State::Answered => {}
            }
        }
        wakers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(len: u8) -> (Header, Vec<u8>) {
        (Header::default().with_kind(Kind::Reply), vec![len; usize::from(len)])
    }

    fn poll(asks: &mut Asks, ticket: Ticket) -> Option<(Option<Kind>, Vec<u8>)> {
        match asks.poll(ticket, &mut Context::from_waker(Waker::noop()), |h, p| (h.kind(), p.to_vec())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_answer_finds_its_ask_and_no_other() {
        let mut asks = Asks::default();
        let [a, b] = [1, 2].map(|number| asks.begin(2, number, 0).unwrap());
        assert_eq!(asks.begin(2, 3, 0), None, "the limit holds");
        assert_eq!(poll(&mut asks, a), None);
        let (header, payload) = reply(3);
        asks.complete(b, &header, &payload);
        assert_eq!(poll(&mut asks, a), None);
        assert_eq!(poll(&mut asks, b), Some((Some(Kind::Reply), vec![3; 3])));
        let again = asks.begin(2, 4, 0).unwrap();
        asks.complete(b, &header, &payload);
        assert_eq!((poll(&mut asks, again), asks.late), (None, 1));
    }

    #[test]
    fn an_abandoned_slot_waits_for_its_answer() {
        let mut asks = Asks::default();
        let a = asks.begin(1, 1, 0).unwrap();
        asks.abandon(a);
        assert_eq!(asks.begin(1, 2, 0), None);
        let (header, payload) = reply(1);
        asks.complete(a, &header, &payload);
        assert_eq!(asks.late, 1);
        assert!(asks.begin(1, 2, 0).is_some());
    }

    #[test]
    fn a_loss_answers_what_was_written_and_nothing_else() {
        let mut asks = Asks::default();
        let [written, abandoned, unwritten] = [1, 2, 3].map(|number| asks.begin(8, number, 0).unwrap());
        asks.abandon(abandoned);
        asks.lose(|number, _| number <= 2);
        let (kind, _) = poll(&mut asks, written).unwrap();
        assert_eq!(kind, Some(Kind::Error));
        assert_eq!(poll(&mut asks, unwritten), None);
        assert_eq!(asks.free.len(), 2);
    }

    #[test]
    fn a_new_connection_asks_for_the_answers_of_what_does_not_come_again() {
        let mut asks = Asks::default();
        let tickets = [2, 4, 5, 9, 10].map(|number| asks.begin(8, number, u16::from(number == 9)).unwrap());
        let (header, payload) = reply(1);
        asks.complete(tickets[1], &header, &payload);
        assert_eq!(asks.settled(), 1);
        asks.complete(tickets[0], &header, &payload);
        assert_eq!(asks.settled(), 4, "all up to there have their answers, read or not");
        asks.abandon(tickets[2]);
        assert_eq!(asks.settled(), 8, "or want none");
        assert_eq!((asks.shards(), asks.open(|shard| shard == 0)), ([0, 1].into(), [5, 10].into()));
        assert_eq!(asks.resume(&[4, 5, 9].into()), [9]);
        assert_eq!(asks.free.len(), 1, "no answer will come to what was abandoned");
    }
}
