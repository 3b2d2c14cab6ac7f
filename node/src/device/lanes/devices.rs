//! Lanes between devices, of one node or of several: what actors of committed types send to actors of other devices.
//!
//! A device is called by the number that its cluster has given it, so that it is the same wherever it runs; on a node without a
//! cluster, by its place. (Checkpoints of builds before there were lanes between nodes have places in any case.)

use std::collections::{BTreeMap, VecDeque};

use ringhold_kernels::message::{HEADER_BYTES, Header, append, split_first};

use super::{Mark, NotWhole, record, u64_at};
use crate::device::mistake::{self, Mistake};

/// A message from one device to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// Where it goes to.
    pub device: u16,
    /// Its number among those from its device to that one, from 1.
    pub number: u64,
    pub header: Header,
    pub payload: Vec<u8>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct DeviceLanes {
    peers: BTreeMap<u16, Peer>,
    bytes: usize,
}

#[derive(Default)]
struct Peer {
    /// The last number that a message for it has, of those that a durable checkpoint has.
    sent: u64,
    /// The last number that was given out; ahead of `sent` while a checkpoint is under way.
    given: u64,
    /// What no checkpoint of it is known to have.
    kept: VecDeque<Away>,
    /// How many of them the last durable checkpoint has, though they may have been let go of since; and that being closed.
    in_checkpoint: usize,
    closing: usize,
    /// What was taken of its messages to here.
    mark: Mark,
}

fn bytes_of(away: &Away) -> usize {
    HEADER_BYTES + away.payload.len()
}

impl DeviceLanes {
    /// Bytes of the messages that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next message for a device, for the checkpoint that is being closed.
    pub fn number(&mut self, device: u16, header: Header, payload: Vec<u8>) -> Away {
        let peer = self.peers.entry(device).or_default();
        peer.given += 1;
        Away { device, number: peer.given, header, payload }
    }

    /// Adds what a checkpoint is to know, record by record, with what was numbered for it.
    pub fn close<'a>(&mut self, numbered: impl Iterator<Item = &'a Away>, mut record: impl FnMut(u8, &[u8])) {
        let mut body = Vec::new();
        for (device, peer) in &mut self.peers {
            body.clear();
            body.extend(u64::from(*device).to_le_bytes());
            [peer.given, peer.mark.close()].iter().for_each(|word| body.extend(word.to_le_bytes()));
            record(record::DEVICE, &body);
            peer.kept.iter().for_each(|away| push_away(away, &mut body, &mut record));
            peer.closing = peer.kept.len();
        }
        for away in numbered {
            self.peers.entry(away.device).or_default().closing += 1;
            push_away(away, &mut body, &mut record);
        }
    }

    /// Takes in that the checkpoint is durable that has these: they are kept from now on.
    pub fn commit<'a>(&mut self, numbered: impl Iterator<Item = &'a Away>) {
        numbered.for_each(|away| self.keep(away.clone()));
        for peer in self.peers.values_mut() {
            (peer.sent, peer.in_checkpoint) = (peer.given, peer.closing);
            peer.mark.commit();
        }
    }

    /// Takes in that there is no such checkpoint: the numbers given out for it will be given again.
    pub fn give_back(&mut self) {
        for peer in self.peers.values_mut() {
            peer.given = peer.sent;
            peer.mark.give_back();
        }
    }

    fn keep(&mut self, away: Away) {
        self.bytes += bytes_of(&away);
        self.peers.entry(away.device).or_default().kept.push_back(away);
    }

    /// What is kept for a device behind this number, in order.
    pub fn kept_after(&self, device: u16, number: u64) -> impl Iterator<Item = &Away> {
        let kept = self.peers.get(&device).into_iter().flat_map(|peer| &peer.kept);
        kept.filter(move |away| away.number > number)
    }

    /// Messages for a device that may be sent to it again, by this host or one that begins with the last checkpoint.
    pub fn keeps_for(&self, device: u16) -> usize {
        self.peers.get(&device).map_or(0, |peer| peer.kept.len().max(peer.in_checkpoint))
    }

    /// Takes in that a device has everything up to this number in a durable checkpoint.
    pub fn cover(&mut self, device: u16, number: u64) {
        let Some(peer) = self.peers.get_mut(&device) else { return };
        while let Some(away) = peer.kept.pop_front_if(|away| away.number <= number) {
            self.bytes -= bytes_of(&away);
        }
    }

    /// Whether a message from another device is new here.
    pub fn takes(&mut self, device: u16, number: u64) -> bool {
        let new = self.peers.entry(device).or_default().mark.takes(number);
        new || mistake::is_made(Mistake::TakesTwiceFromDevices)
    }

    /// Up to which number a durable checkpoint has what a device sent here.
    pub fn covered(&self, device: u16) -> u64 {
        self.peers.get(&device).map_or(0, |peer| peer.mark.covered)
    }

    /// Takes up a record of a checkpoint, and returns the message to be sent again, if it is one. `Err`: it is none of this kind,
    /// or not whole.
    pub fn take_up(&mut self, kind: u8, body: &[u8]) -> Result<Option<Away>, NotWhole> {
        self.read(kind, body).ok_or(NotWhole)
    }

    fn read(&mut self, kind: u8, body: &[u8]) -> Option<Option<Away>> {
        let device = u16::try_from(u64_at(body, 0)?).ok()?;
        let number = u64_at(body, 8)?;
        match kind {
            record::DEVICE => {
                let peer = self.peers.entry(device).or_default();
                (peer.sent, peer.given) = (number, number);
                peer.mark = Mark::durable(u64_at(body, 16)?);
            }
            record::AWAY => {
                let (header, payload, _) = split_first(&body[16..])?;
                let away = Away { device, number, header, payload: payload.to_vec() };
                self.keep(away.clone());
                self.peers.entry(device).or_default().in_checkpoint += 1;
                return Some(Some(away));
            }
            _ => return None,
        }
        Some(None)
    }

    /// Takes in what a device had taken from here before: its checkpoint may be younger than this device's, if that one's last
    /// was damaged. Numbers that it would drop are not given again.
    pub fn skip(&mut self, device: u16, taken: u64) {
        if taken > 0 {
            let peer = self.peers.entry(device).or_default();
            peer.sent = peer.sent.max(taken);
            peer.given = peer.given.max(taken);
        }
    }

    /// The last number taken from a device.
    pub fn taken(&self, device: u16) -> u64 {
        self.peers.get(&device).map_or(0, |peer| peer.mark.taken)
    }
}

fn push_away(away: &Away, body: &mut Vec<u8>, record: &mut impl FnMut(u8, &[u8])) {
    body.clear();
    body.extend(u64::from(away.device).to_le_bytes());
    body.extend(away.number.to_le_bytes());
    append(body, &away.header, &away.payload);
    record(record::AWAY, body);
}
