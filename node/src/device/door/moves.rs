//! What a door does for shards that leave its device for another one, or arrive.
//!
//! Leaving: at first what their actors send to other devices is held, so that it leaves with them and not after them. Then
//! nothing is let in for them any more; what other devices send to them is blocked. Once the workers have taken what had been
//! let in, the device is cut: all that is left of them is in the cut, held, or blocked. Arriving is the same from its end.

use std::collections::HashSet;

use ringhold_kernels::checkpoint::{self, Kind as RecordKind, Record};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::message::{Header, Kind};
use ringhold_kernels::outbox::Owners;
use ringhold_kernels::queue::Queue;

use super::{Door, Outcome, is_answer, is_ask};
use crate::device::lanes;
use crate::device::mistake::{self, Mistake};
use crate::shards::ShardSet;

/// Shards that are about to leave, or to arrive.
pub(super) struct Moving {
    shards: ShardSet,
    leaves: bool,
    /// Nothing is let in for them.
    closed: bool,
    /// What their actors had sent to other devices, and the last checkpoint has without a number: it leaves with them.
    pub outs: Vec<(Header, Vec<u8>)>,
    /// How many of the blocked messages leave with them.
    carried: usize,
}

impl Moving {
    /// Whether a message that came out of the device leaves with who sent it.
    pub fn leaves_with(&self, header: &Header) -> bool {
        self.leaves && header.is(Kind::Tell) && self.shards.has(header.from().key)
    }
}

/// How far a device is to have taken what it was let have.
pub struct Taken {
    transit: u64,
    waiting: u64,
    /// For each lane, once all of that is in the rings.
    rings: Option<Vec<u64>>,
}

/// What a door had of shards that leave, as records.
#[derive(Default)]
pub struct Left {
    /// What their actors had sent.
    pub outs: Vec<u8>,
    /// What is for them and was blocked.
    pub blocked: Vec<u8>,
    /// What is known of clients.
    pub clients: Vec<u8>,
}

impl Door {
    /// Whether nothing is let in for its actor now.
    pub(super) fn takes_none(&self, header: &Header) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.closed && moving.shards.has(header.to().key))
    }

    /// Holds from now on what actors of these shards send to other devices.
    pub fn prepare_to_leave(&mut self, shards: &ShardSet) {
        assert!(self.moving.is_none(), "one migration at a time");
        self.moving =
            Some(Moving { shards: shards.clone(), leaves: true, closed: false, outs: Vec::new(), carried: 0 });
    }

    /// Lets nothing in any more for the shards that leave. What clients have been told is taken goes in first where the shards
    /// leave for another `node`: its answers go out here.
    pub fn close_shards(&mut self, node: bool) {
        let Door { moving, transit, waiting, blocked, .. } = self;
        let moving = moving.as_mut().expect("they were prepared");
        moving.closed = true;
        for queue in [Some(transit), Some(waiting).filter(|_| !node)].into_iter().flatten() {
            let mut stays = Queue::default();
            queue.drain(|header, payload| {
                let to = if moving.shards.has(header.to().key) { &mut *blocked } else { &mut stays };
                to.push(header, payload);
                true
            });
            stays.drain(|header, payload| {
                queue.push(header, payload);
                true
            });
        }
    }

    /// What the device is to have taken so that it has all that was let in until now.
    pub fn let_in_until_now(&self) -> Taken {
        Taken { transit: self.transit.pushed(), waiting: self.waiting.pushed(), rings: None }
    }

    /// Whether it has.
    pub fn has_taken(&self, taken: &mut Taken) -> bool {
        let waits = self.transit.popped() < taken.transit || self.waiting.popped() < taken.waiting;
        if waits || self.unsent() > 0 {
            return false;
        }
        let lanes = 0..self.link.lanes();
        let rings = taken.rings.get_or_insert_with(|| lanes.map(|lane| self.link.pushed(lane)).collect());
        rings.iter().enumerate().all(|(lane, until)| self.link.done(lane) >= *until)
    }

    /// The asks that have no answer yet, by the keys of who waits.
    pub fn asks(&self) -> Vec<u64> {
        self.desk.asks.iter().copied().collect()
    }

    /// Leaves out those that have been handled: their answers are out, or wait for a checkpoint.
    pub fn leave_out_handled(&self, asks: &mut Vec<u64>) {
        let held = self.kept.iter().flat_map(|kept| &kept.lanes).flat_map(|lane| &lane.held);
        let answered: HashSet<u64> =
            held.filter(|held| is_answer(&held.header)).map(|held| held.header.to().key.0).collect();
        asks.retain(|key| self.desk.asks.contains(key) && !answered.contains(key));
    }

    /// What there is here of the shards that leave, once the checkpoint of the cut at which they left is durable.
    pub fn carry_off(&mut self) -> Left {
        let Door { moving, blocked, desk, .. } = self;
        let moving = moving.as_mut().expect("they were prepared");
        let mut left = Left::default();
        for (header, payload) in moving.outs.iter().filter(|_| !mistake::is_made(Mistake::LeavesHeld)) {
            checkpoint::push_message(&mut left.outs, RecordKind::Out, 0, header, payload);
        }
        moving.carried = blocked.len();
        blocked.for_each(|header, payload| {
            checkpoint::push_message(&mut left.blocked, RecordKind::Queued, 1, header, payload);
        });
        desk.clients.carry_off(&moving.shards, |kind, body| checkpoint::push_node(&mut left.clients, kind, body));
        left
    }

    /// Has the shards that leave be another device's, with all that is known of them here. `arriving` is what that one is to
    /// take in, the adoption of this number; the tables are what each goes by from now on.
    pub fn hand_over(
        &mut self,
        to: &mut Door,
        index: u16,
        number: u64,
        arriving: &[u8],
        left: Owners,
        arrived: Owners,
    ) {
        let Moving { shards, carried, .. } = self.moving.take().expect("they were prepared");
        let mut gone = 0;
        self.blocked.drain(|header, payload| {
            if gone >= carried {
                to.blocked.push(header, payload);
            }
            gone += 1;
            true
        });
        to.desk.clients.take_over(&self.desk.clients, &shards);
        self.desk.clients.let_go_of(&shards);
        for record in checkpoint::records(arriving) {
            if let Ok(Record::Queued { header, .. }) = record
                && is_ask(&header)
                && self.desk.asks.remove(&header.from().key.0)
            {
                to.desk.asks.insert(header.from().key.0);
            }
        }
        self.link.set_owners(left);
        to.link.set_owners(arrived);
        to.clock = to.clock.merge(self.clock);
        let theirs = to.kept.as_mut().expect("only a device that keeps takes shards");
        theirs.keeping.shards.give(&shards, index);
        theirs.adoption = number;
        to.moving = Some(Moving { shards, leaves: false, closed: true, outs: Vec::new(), carried: 0 });
    }

    /// What clients may not have of the answers of the shards that leave, as records.
    pub fn carry_answers(&self) -> Vec<u8> {
        let moving = self.moving.as_ref().expect("they were prepared");
        let mut answers = Vec::new();
        self.desk.clients.carry_answers(&moving.shards, |kind, body| {
            checkpoint::push_node(&mut answers, kind, body);
        });
        answers
    }

    /// Has the shards that leave be those of the device of this number, of another node. Returns what is for them and was blocked
    /// since they were carried off. `index` is the place of this device.
    pub fn hand_over_elsewhere(&mut self, index: u16, number: u16, left: Owners) -> Vec<(Header, Vec<u8>)> {
        let Moving { shards, carried, .. } = self.moving.take().expect("they were prepared");
        let (mut gone, mut rest) = (0, Vec::new());
        self.blocked.drain(|header, payload| {
            if gone >= carried {
                rest.push((*header, payload.to_vec()));
            }
            gone += 1;
            true
        });
        self.desk.clients.let_go_of(&shards);
        self.link.set_owners(left);
        self.kept
            .as_mut()
            .expect("only a device that keeps gives shards")
            .keeping
            .shards
            .give_elsewhere(&shards, index, number);
        rest
    }

    /// Has shards of a device of another node be this one's, whose place is `index`. `arriving` is what it is to take in, the
    /// adoption of this number; the table is what it goes by from now on, and `term` says since when each shard is so. Nothing is let
    /// in for them yet.
    pub fn take_over(
        &mut self,
        shards: &ShardSet,
        index: u16,
        term: impl Fn(usize) -> u32,
        number: u64,
        arriving: &[u8],
        arrived: Owners,
    ) {
        self.link.set_owners(arrived);
        self.desk.clients.begin_apart(shards);
        for record in checkpoint::records(arriving) {
            let record = record.expect("what arrives was written as records");
            if let Record::Cut(cut) = &record {
                self.clock = self.clock.merge(Hlc(cut.hlc));
            }
            if let Err(why) = self.adopt(&record) {
                tracing::error!("of shards that have arrived: {why}: a bug of Ringhold");
            }
        }
        let kept = self.kept.as_mut().expect("only a device that keeps takes shards");
        kept.keeping.shards.take(shards, index, term);
        kept.adoption = number;
        self.moving =
            Some(Moving { shards: shards.clone(), leaves: false, closed: true, outs: Vec::new(), carried: 0 });
    }

    /// Lets messages in for the shards that have arrived, if it does not yet.
    pub fn open_shards(&mut self) {
        if self.moving.take().is_none() {
            return;
        }
        let Door { blocked, transit, .. } = self;
        blocked.drain(|header, payload| {
            transit.push(header, payload);
            true
        });
        self.let_in();
    }

    /// Takes in that the device's host has this adoption, and so have the checkpoints that are made from now on.
    pub fn has_adopted(&mut self, number: u64) {
        let kept = self.kept.as_mut().expect("only a device that keeps takes shards");
        kept.adopted = kept.adopted.max(number);
    }

    /// Takes up which adoption the last checkpoint has. Before the first host.
    pub fn begin_adopted(&mut self, number: u64) {
        let kept = self.kept.as_mut().expect("only a device that keeps takes shards");
        (kept.adopted, kept.adopted_durably) = (number, number);
    }

    /// Whether the checkpoint that was taken up has what is another device's by now.
    pub fn has_passed_over(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.passed_over)
    }

    /// The last adoption that a durable checkpoint has, where there is a later one.
    pub fn lacks_after(&self) -> Option<u64> {
        let kept = self.kept.as_ref()?;
        (kept.adoption > kept.adopted_durably).then_some(kept.adopted_durably)
    }

    /// Which adoption the checkpoint under way has.
    pub fn closing_adopted(&self) -> u64 {
        let closing = self.kept.as_ref().and_then(|kept| kept.closing.as_ref());
        closing.map_or(0, |closing| closing.adopted)
    }

    /// The last adoption that its host has, and the last that a durable checkpoint has.
    pub fn adopted(&self) -> (u64, u64) {
        self.kept.as_ref().map_or((0, 0), |kept| (kept.adopted, kept.adopted_durably))
    }

    /// Takes up that there is an adoption of these shards that the last checkpoint has not. Before the first host.
    pub fn begin_to_adopt(&mut self, number: u64, shards: &ShardSet) {
        self.desk.clients.begin_apart(shards);
        self.kept.as_mut().expect("only a device that keeps takes shards").adoption = number;
    }

    /// Takes up a record of it.
    ///
    /// # Errors
    /// What of it is no such record.
    pub fn adopt(&mut self, record: &Record<'_>) -> Result<(), &'static str> {
        match record {
            Record::Queued { header, .. } if is_ask(header) && self.link.lane_of(header.to().key).is_some() => {
                self.desk.asks.insert(header.from().key.0);
            }
            Record::Node { kind: kind @ lanes::record::APART, body } => {
                let taken = self.desk.clients.take_up(*kind, body);
                return taken.map_err(|_| "what it knows of a client is not whole");
            }
            // Of a client that has been forgotten since there is nobody to have it.
            Record::Node { kind: kind @ lanes::record::ANSWER, body } => {
                let _ = self.desk.clients.take_up(*kind, body);
            }
            _ => {}
        }
        Ok(())
    }

    /// Holds whatever comes out from now on for the checkpoint from which the device is to go on: what is sent after the cut is made
    /// again. Until the host is lost, or this is [called off](Door::hold_no_more).
    pub fn hold_to_stand(&mut self) {
        self.holds_to_stand = true;
    }

    /// The device goes on as it is: what need not wait for a checkpoint goes on at once, before whatever comes out from now on.
    pub fn hold_no_more(&mut self, out: &mut Outcome) {
        self.holds_to_stand = false;
        self.hand_on_held(out);
    }

    /// Hands on what was held and need not be any more.
    fn hand_on_held(&mut self, out: &mut Outcome) {
        let Door { kept, desk, moving, holds_all, holds_to_stand, .. } = self;
        let Some(kept) = kept.as_mut().filter(|_| !*holds_all && !*holds_to_stand) else { return };
        let first = out.letters.len();
        let lanes: Vec<_> = kept.lanes.iter_mut().map(|lane| std::mem::take(&mut lane.held)).collect();
        for (number, held) in lanes.into_iter().enumerate() {
            for held in held {
                let leaves = moving.as_ref().is_some_and(|moving| moving.leaves_with(&held.header));
                match leaves || kept.holds(&held.header) {
                    true => kept.lanes[number].held.push_back(held),
                    false => desk.hand_on(&held.header, &held.payload, out),
                }
            }
        }
        self.judge(out, first);
    }

    /// The shards stay. If they had left already they are back, and so is what had left with them.
    pub fn call_off(&mut self, out: &mut Outcome) {
        let Some(Moving { outs, .. }) = self.moving.take() else { return };
        let Door { kept, desk, .. } = self;
        let kept = kept.as_mut().expect("only a device that keeps gives shards");
        // What need not wait for a checkpoint goes on at once: what its actors send from now on will, too.
        for (header, payload) in outs {
            match kept.holds(&header) {
                true => kept.unnumbered.push_back((header, payload)),
                false => desk.hand_on(&header, &payload, out),
            }
        }
        self.hand_on_held(out);
        let Door { blocked, transit, .. } = self;
        blocked.drain(|header, payload| {
            transit.push(header, payload);
            true
        });
        self.let_in();
    }
}
