//! A cut that is also a switch: from one moment on the workers of a device go by another shard table.
//!
//! Shards leave for another device, and arrive from one. What leaves is captured whole by the cut, and then is here no more:
//! actors, the messages for them, the timers that they set, and what they sent to other devices and is not in an egress ring
//! yet. What arrives are the same records, which the node has sent down before; a worker runs on until it has them all.
//!
//! A message must not overtake another one of its sender because its road is a shorter one after the switch. So where shards
//! leave, nothing stays on its way between two workers: each hands what it has for another one over, and that runs it before
//! anything else comes in. What arrives is run first likewise. And what is sent to a shard that is on its way is *parked*: it
//! follows, behind all that was sent before, once a later switch says where to.

use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::cut::STREAM_BYTES;
use super::{Slot, Worker};
use crate::checkpoint::{self, Record, Splitter};
use crate::message::{Header, Kind};
use crate::outbox::{Owners, SHARDS, shard_of};
use crate::queue::{Queue, parts};

/// What workers hand over to each other at a switch: for each worker, from whom and what.
pub(super) type HandedOver = Mutex<Vec<Vec<(usize, Queue)>>>;

/// A switch under way, as one worker sees it.
#[derive(Default)]
pub(super) struct Switch {
    splitter: Splitter,
    /// Records of what arrives, as far as they have come down.
    arriving: Vec<u8>,
    has_all: bool,
    /// The table to go on with, and the shards that leave the device; known once the workers stand.
    to: Option<(Owners, Box<[bool; SHARDS]>)>,
}

impl Switch {
    fn leaves(&self, header: &Header) -> bool {
        self.to.as_ref().is_some_and(|(_, leaves)| leaves[shard_of(header.to().key)])
    }

    /// By who sent it.
    fn leaves_sender(&self, header: &Header) -> bool {
        !header.from().is_client() && self.to.as_ref().is_some_and(|(_, leaves)| leaves[shard_of(header.from().key)])
    }

    fn any_leaves(&self) -> bool {
        self.to.as_ref().is_some_and(|(_, leaves)| leaves.contains(&true))
    }
}

impl Worker {
    /// Takes in more of what arrives with a switch. True once that is all of it.
    pub(super) fn receive(&mut self) -> bool {
        let switch = self.cuts.switch.get_or_insert_default();
        if switch.has_all {
            return true;
        }
        let had = switch.arriving.len();
        self.cuts.down.read(&mut switch.arriving, STREAM_BYTES);
        let Switch { splitter, arriving, has_all, .. } = switch;
        let taken = splitter.feed::<checkpoint::Error>(&arriving[had..], |record, _| {
            *has_all |= matches!(record, Record::Cut(_));
            Ok(())
        });
        // The node has checked what it sends.
        taken.expect("what comes down from the node is records");
        *has_all
    }

    /// All workers stand: finds what leaves, and has the cut capture each actor of it. Returns those actors.
    pub(super) fn prepare_to_leave(&mut self) -> Vec<NonNull<Slot>> {
        let (from, to) = (self.outbox.owners().clone(), self.segment.owners());
        let mut leaves = Box::new([false; SHARDS]);
        for (shard, leaves) in leaves.iter_mut().enumerate() {
            *leaves = from.has(shard) && !to.has(shard);
            let stays = from.has(shard) && to.has(shard);
            debug_assert!(
                !stays || from.of_shard(shard) == to.of_shard(shard),
                "shard {shard} goes from worker to worker"
            );
        }
        let switch = self.cuts.switch.as_mut().expect("what arrives has been received");
        switch.to = Some((to, leaves));
        if !switch.any_leaves() {
            return Vec::new();
        }
        let (_, leaves) = switch.to.as_ref().expect("it was just set");
        // SAFETY: the slots came from the table just now.
        let leaves = |slot: &NonNull<Slot>| leaves[shard_of(unsafe { slot.as_ref() }.key)];
        let leaving: Vec<NonNull<Slot>> = self.table.sweep().filter(leaves).collect();
        for slot in &leaving {
            // SAFETY: as above.
            if unsafe { slot.as_ref() }.touched != self.changes.generation {
                self.changes.touch(*slot);
            }
        }
        leaving
    }

    /// Lets go of what leaves, which has been captured, and hands over what is for other workers. False where nothing leaves.
    pub(super) fn leave(&mut self, leaving: Vec<NonNull<Slot>>) -> bool {
        let switch = self.cuts.switch.take().expect("it was prepared");
        let leaves = switch.any_leaves();
        if leaves {
            for slot in leaving {
                // SAFETY: the slot came from the table, which holds it until just below.
                let (id, type_index) = unsafe { (slot.as_ref().id(), slot.as_ref().type_index as usize) };
                self.hot[type_index].actors -= 1;
                self.changes.remove(id);
                self.table.remove(slot);
            }
            self.sort_out(&switch);
            self.timers.retain(|due| !switch.leaves_sender(&due.header));
        }
        self.cuts.switch = Some(switch);
        leaves
    }

    fn sort_out(&mut self, switch: &Switch) {
        let mut here = Queue::default();
        let moved = &mut self.counts.moved;
        let mut keep = |to: &mut Queue, header: &Header, payload: &[u8]| {
            *moved += 1;
            if !switch.leaves(header) {
                let mut header = *header;
                // It may have lain in a ring.
                header.lap = 0;
                to.push(&header, payload);
            }
        };
        self.outbox.here.drain(|header, payload| {
            keep(&mut here, header, payload);
            true
        });
        // All that was sent is there, and nobody sends more before all have handed over.
        while self
            .inbox
            .next(|at| {
                // SAFETY: a whole message lies there until its credit is given back.
                let (header, payload) = unsafe { parts(at) };
                keep(&mut here, header, payload);
            })
            .is_some()
        {}
        self.inbox.give_credits();
        for (worker, queue) in self.outbox.others.iter_mut().enumerate() {
            let mut kept = Queue::default();
            queue.drain(|header, payload| {
                keep(&mut kept, header, payload);
                true
            });
            if !kept.is_empty() {
                let mut handed = self.cuts.meeting.handed_over.lock().expect("no worker panics with it");
                handed[worker].push((self.index, kept));
            }
        }
        here.drain(|header, payload| {
            self.outbox.here.push(header, payload);
            true
        });
        let mut away = Queue::default();
        self.outbox.away.drain(|header, payload| {
            if !(header.is(Kind::Tell) && switch.leaves_sender(header)) {
                away.push(header, payload);
            }
            true
        });
        self.outbox.away = away;
    }

    /// Goes on by the new table, with what was handed over and what has arrived.
    pub(super) fn enter(&mut self) {
        let switch = self.cuts.switch.take().expect("it was prepared");
        let left = switch.any_leaves();
        let (owners, _) = switch.to.expect("the workers stood");
        self.outbox.set_owners(owners);
        if left {
            let mut handed = std::mem::take(
                &mut self.cuts.meeting.handed_over.lock().expect("no worker panics with it")[self.index],
            );
            handed.sort_by_key(|(from, _)| *from);
            for (_, mut queue) in handed {
                queue.drain(|header, payload| {
                    self.outbox.here.push(header, payload);
                    true
                });
            }
            self.cuts.protect(&self.outbox.here);
        }
        for record in checkpoint::records(&switch.arriving) {
            let record = record.expect("what comes down from the node is records");
            if let Some(slot) = self.take_in(record) {
                self.changes.touch(slot);
            }
        }
        // What was on its way out to a shard that is parked now, or has come here.
        let mut away = std::mem::take(&mut self.outbox.away);
        away.drain(|header, payload| {
            let queue =
                if header.is(Kind::Tell) { self.outbox.road_to(header.to().key) } else { &mut self.outbox.away };
            queue.push(header, payload);
            true
        });
        let mut parked = std::mem::take(&mut self.outbox.parked);
        parked.drain(|header, payload| {
            self.outbox.road_to(header.to().key).push(header, payload);
            true
        });
    }

    /// Says that this worker has handed over, once.
    pub(super) fn has_handed_over(&mut self) {
        self.cuts.meeting.handed.fetch_add(1, AcqRel);
    }

    /// Whether all workers have handed over at this switch, the `count`-th of those at which shards left.
    pub(super) fn all_have_handed_over(&self, count: u64) -> bool {
        self.cuts.meeting.handed.load(Acquire) >= count * u64::from(self.segment.shape().workers)
    }
}
