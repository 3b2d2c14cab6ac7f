//! A cut of a device at which it goes on with other shards: what goes down to its workers for it, and what of the cut leaves.

use std::collections::VecDeque;

use ringhold_kernels::checkpoint::{self, Cut, Record};
use ringhold_kernels::link::Link;
use ringhold_kernels::message::Kind;
use ringhold_kernels::outbox::Owners;
use tokio::time::Instant;

use super::door::Left;
use crate::shards::{SHARD_SET_BYTES, ShardSet};

/// What a cut is to be beside a checkpoint.
pub(crate) struct Switch {
    /// By which the workers go on.
    pub owners: Owners,
    /// Records of what arrives, in their order; empty where nothing does.
    pub arriving: Vec<u8>,
    /// The door lets messages in for what arrives once the workers have it.
    pub opens: bool,
    /// What arrives comes back: the cut, which is from before that, is no checkpoint, for it would have none of it.
    pub returns: bool,
    /// The shards that leave.
    pub leaving: Option<ShardSet>,
    /// What the workers had of those.
    pub left: Vec<LeftLane>,
    /// The workers have gone on by the new table, whatever became of the checkpoint.
    pub done: bool,
    /// When the door was opened.
    pub opened: Option<Instant>,
}

impl Switch {
    pub fn new(owners: Owners) -> Switch {
        Switch {
            owners,
            arriving: Vec::new(),
            opens: false,
            returns: false,
            leaving: None,
            left: Vec::new(),
            done: false,
            opened: None,
        }
    }

    /// What is to go down each lane.
    pub fn down(&self, link: &Link, epoch: u64) -> VecDeque<Vec<u8>> {
        let mut lanes: VecDeque<Vec<u8>> = (0..link.lanes()).map(|_| Vec::new()).collect();
        let (router, mut hlc, mut at) = (link.router(), 0, 0);
        for record in checkpoint::records(&self.arriving) {
            let record = record.expect("what arrives was written as records");
            let end = at + bytes_of(&self.arriving[at..]);
            if let Record::Cut(cut) = record {
                hlc = hlc.max(cut.hlc);
            }
            if let Some(lane) = router.lane_of_record(&record) {
                lanes[lane].extend_from_slice(&self.arriving[at..end]);
            }
            at = end;
        }
        for (lane, bytes) in lanes.iter_mut().enumerate() {
            checkpoint::push_cut(bytes, &Cut { epoch, lane: lane as u32, ingress: 0, egress: 0, hlc });
        }
        lanes
    }
}

/// Bytes of the record that begins here.
fn bytes_of(records: &[u8]) -> usize {
    let len = u32::from_le_bytes(records[4..8].try_into().expect("four bytes"));
    checkpoint::HEAD_BYTES + (len as usize).next_multiple_of(8)
}

/// What one lane's part of a cut had of shards that leave, by what goes first.
#[derive(Default)]
pub(crate) struct LeftLane {
    actors: Vec<u8>,
    /// Timers, and what actors had sent out of the device.
    sent: Vec<u8>,
    queued: [Vec<u8>; 2],
    hlc: u64,
}

impl LeftLane {
    /// Takes a record in, if it leaves.
    pub fn look(&mut self, leaving: &ShardSet, record: &Record<'_>, bytes: &[u8]) {
        match record {
            Record::Actor { id, .. } if leaving.has(id.key) => self.actors.extend_from_slice(bytes),
            Record::Queued { phase, header, .. } if leaving.has(header.to().key) => {
                self.queued[usize::from(*phase)].extend_from_slice(bytes);
            }
            Record::Timer { header, .. } if leaving.has(header.from().key) => self.sent.extend_from_slice(bytes),
            Record::Out { header, .. } if header.is(Kind::Tell) && leaving.has(header.from().key) => {
                self.sent.extend_from_slice(bytes);
            }
            Record::Cut(cut) => self.hlc = self.hlc.max(cut.hlc),
            _ => {}
        }
    }
}

/// What is carried from one device to another: a stream of records, in the order in which it is to be taken in.
pub(crate) struct Carried(pub Vec<u8>);

/// The kind of the record that an adoption begins with: its number u64, wall time of the cut u64 (µs since the Unix epoch), the
/// shards, a bit for each.
const ADOPTION: u8 = 15;

impl Carried {
    /// Puts together what the workers and the door had. `cut_us` is when the device was cut.
    pub fn new(number: u64, cut_us: u64, shards: &ShardSet, lanes: &[LeftLane], left: &Left) -> Carried {
        let mut bytes = Vec::new();
        let mut head = Vec::with_capacity(16 + SHARD_SET_BYTES);
        [number, cut_us].iter().for_each(|word| head.extend(word.to_le_bytes()));
        head.extend(shards.to_bytes());
        checkpoint::push_node(&mut bytes, ADOPTION, &head);
        bytes.extend_from_slice(&left.clients);
        lanes.iter().for_each(|lane| bytes.extend_from_slice(&lane.actors));
        // What had come out of the device was sent before what had not.
        bytes.extend_from_slice(&left.outs);
        lanes.iter().for_each(|lane| bytes.extend_from_slice(&lane.sent));
        for phase in 0..2 {
            lanes.iter().for_each(|lane| bytes.extend_from_slice(&lane.queued[phase]));
        }
        bytes.extend_from_slice(&left.blocked);
        let hlc = lanes.iter().map(|lane| lane.hlc).max().unwrap_or(0);
        checkpoint::push_cut(&mut bytes, &Cut { hlc, ..Cut::default() });
        Carried(bytes)
    }

    /// When the cut was that it is of, and which shards; `None` where it is none.
    pub fn head(&self) -> Option<(u64, ShardSet)> {
        let Record::Node { kind: ADOPTION, body } = checkpoint::records(&self.0).next()?.ok()? else { return None };
        let cut_us = u64::from_le_bytes(*body.get(8..)?.first_chunk()?);
        Some((cut_us, ShardSet::from_bytes(body.get(16..)?.first_chunk()?)))
    }

    /// The same for a node whose steady clock says `now_us`, where it has none of the giver's: timers have as long to wait as they
    /// had when the cut was made. `None` where it is none.
    pub fn rebased(&self, now_us: u64) -> Option<Carried> {
        let (cut_us, _) = self.head()?;
        let mut bytes = Vec::with_capacity(self.0.len());
        self.each(|record, own| {
            match *record {
                Record::Timer { due_us, header, payload } => {
                    let due_us = now_us + due_us.saturating_sub(cut_us);
                    checkpoint::push_timer(&mut bytes, due_us, &header, payload);
                }
                Record::Node { kind: ADOPTION, body } => {
                    let mut head = body.to_vec();
                    head[8..16].copy_from_slice(&now_us.to_le_bytes());
                    checkpoint::push_node(&mut bytes, ADOPTION, &head);
                }
                _ => bytes.extend_from_slice(own),
            }
            Ok::<(), checkpoint::Error>(())
        })
        .ok()?;
        Some(Carried(bytes))
    }

    /// Its records, each with its bytes.
    pub fn each<E: From<checkpoint::Error>>(
        &self,
        mut each: impl FnMut(&Record<'_>, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        for record in checkpoint::records(&self.0) {
            let record = record?;
            let end = at + bytes_of(&self.0[at..]);
            each(&record, &self.0[at..end])?;
            at = end;
        }
        Ok(())
    }
}
