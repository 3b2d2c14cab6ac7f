//! Asks under way: a slot for each, found by the ticket that its answer bears.

use std::task::{Context, Poll, Waker};

use ringhold_kernels::message::{Header, Kind, Reason};

/// Which ask: the slot's number in the low half and its use, from 1, in the high half. Zero is of tells.
pub(super) type Ticket = u32;

#[derive(Default)]
pub(super) struct Asks {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Answers that nobody waited for any more.
    pub late: u64,
    pub answered: u64,
}

struct Slot {
    uses: u16,
    state: State,
    /// Which message of the client it was, counted from its start; see [`Asks::lose`].
    position: u64,
    waker: Option<Waker>,
    header: Header,
    payload: Vec<u8>,
}

/// A slot is free again only once its answer has come or its connection is gone: so no answer can find its way to
/// another ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    Answered,
    /// Nobody waits, and the answer has not come.
    Abandoned,
}

impl Asks {
    /// A slot for a new ask, if fewer than `max` are taken.
    pub fn begin(&mut self, max: u32, position: u64) -> Option<Ticket> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < max as usize => {
                self.slots.push(Slot {
                    uses: 1,
                    state: State::Free,
                    position: 0,
                    waker: None,
                    header: Header::default(),
                    payload: Vec::new(),
                });
                (self.slots.len() - 1) as u16
            }
            None => return None,
        };
        let slot = &mut self.slots[usize::from(index)];
        slot.state = State::Waiting;
        slot.position = position;
        Some(u32::from(slot.uses) << 16 | u32::from(index))
    }

    fn slot(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        let slot = self.slots.get_mut((ticket & 0xffff) as usize)?;
        (u32::from(slot.uses) == ticket >> 16).then_some(slot)
    }

    fn release(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slot(ticket) {
            slot.state = State::Free;
            slot.uses = slot.uses.checked_add(1).unwrap_or(1);
            slot.waker = None;
            self.free.push(ticket as u16);
        }
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
            // No ask of this client: a node that answers twice, say. Counted, and of no consequence.
            Some(State::Free | State::Answered) | None => {
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
            Some(State::Free | State::Abandoned) | None => {}
        }
    }

    /// The connection is gone: asks from before `position` were on it and get no other answer than this.
    pub fn lose(&mut self, position: u64) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.position >= position {
                continue;
            }
            let ticket = u32::from(slot.uses) << 16 | index as u32;
            match slot.state {
                State::Waiting => {
                    slot.state = State::Answered;
                    slot.header = Header::default().with_kind(Kind::Error).with_reason(Reason::ConnectionLost);
                    slot.payload.clear();
                    wakers.extend(slot.waker.take());
                }
                State::Abandoned => self.release(ticket),
                State::Free | State::Answered => {}
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
        let [a, b] = [0, 1].map(|position| asks.begin(2, position).unwrap());
        assert_eq!(asks.begin(2, 2), None, "the limit holds");
        assert_eq!(poll(&mut asks, a), None);
        let (header, payload) = reply(3);
        asks.complete(b, &header, &payload);
        assert_eq!(poll(&mut asks, a), None);
        assert_eq!(poll(&mut asks, b), Some((Some(Kind::Reply), vec![3; 3])));
        let again = asks.begin(2, 3).unwrap();
        assert_ne!(again, b);
        asks.complete(b, &header, &payload);
        assert_eq!((poll(&mut asks, again), asks.late), (None, 1));
    }

    #[test]
    fn an_abandoned_slot_waits_for_its_answer() {
        let mut asks = Asks::default();
        let a = asks.begin(1, 0).unwrap();
        asks.abandon(a);
        assert_eq!(asks.begin(1, 1), None);
        let (header, payload) = reply(1);
        asks.complete(a, &header, &payload);
        assert_eq!(asks.late, 1);
        assert!(asks.begin(1, 1).is_some());
    }

    #[test]
    fn a_loss_answers_what_was_written_and_nothing_else() {
        let mut asks = Asks::default();
        let [written, abandoned, unwritten] = [0, 1, 2].map(|position| asks.begin(8, position).unwrap());
        asks.abandon(abandoned);
        asks.lose(2);
        let (kind, _) = poll(&mut asks, written).unwrap();
        assert_eq!(kind, Some(Kind::Error));
        assert_eq!(poll(&mut asks, unwritten), None);
        assert_eq!(asks.free.len(), 2);
    }
}
