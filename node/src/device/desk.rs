//! Who waits for an answer at a device's door, and what became of what came out of the device.

use std::collections::{BTreeMap, HashSet};

use ringhold_cluster::frame::client_id;
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::message::{Header, Kind, Reason, append};

use super::door::{Letter, Outcome};
use super::lanes::{ClientLanes, key_of};

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Desk {
    /// Asks and inspects that went in and have no answer yet, by the key of who waits.
    pub asks: HashSet<u64>,
    pub clients: ClientLanes,
    pub unhandled: BTreeMap<Reason, u64>,
    /// Answers to asks that were not waiting any more.
    pub stray: u64,
}

/// What is known of an ask that came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its answer is still to come.
    Waits,
    Answered(Header, Vec<u8>),
    /// It is no ask of this device, or its answer is not kept any more.
    Nothing,
}

impl Desk {
    pub fn count(&mut self, reason: Reason) {
        *self.unhandled.entry(reason).or_default() += 1;
    }

    /// Sorts what came out of a device by where it goes.
    pub fn hand_on(&mut self, header: &Header, payload: &[u8], out: &mut Outcome) {
        match header.kind() {
            Some(Kind::Reply | Kind::Error | Kind::Inspected) => {
                if self.asks.remove(&header.to().key.0) {
                    // An ask that was put aside is a dead letter too, and counted as that.
                    if let (Some(Kind::Error), Some(reason)) = (header.kind(), header.reason())
                        && reason != Reason::Poison
                    {
                        self.count(reason);
                    }
                    self.answer(header, payload, out);
                } else {
                    self.stray += 1;
                }
            }
            Some(Kind::DeadLetter) => {
                let reason = header.reason().unwrap_or(Reason::Malformed);
                self.count(reason);
                out.letters.push(Letter::new(header, payload, reason));
            }
            Some(Kind::Tell) => append(&mut out.away, header, payload),
            Some(Kind::Ask | Kind::Inspect) | None => self.stray += 1,
        }
    }

    fn answer(&mut self, header: &Header, payload: &[u8], out: &mut Outcome) {
        if self.clients.answer(header, payload) {
            append(&mut out.answers, header, payload);
        }
    }

    /// Answers an ask that nobody handles, by the key of who waits.
    pub fn fail(&mut self, key: u64, reason: Reason, clock: Hlc, out: &mut Outcome) {
        self.count(reason);
        let to = client_id((key >> 32) as u32, key as u32);
        let header = Header::new(Kind::Error, to, Default::default(), 0, clock).with_reason(reason);
        self.answer(&header, &[], out);
    }

    /// What is known of an ask of a client.
    pub fn known(&self, client: u32, number: u64) -> Known {
        if self.asks.contains(&key_of(client, number).0) {
            return Known::Waits;
        }
        match self.clients.answered(client, number) {
            Some((header, payload)) => Known::Answered(header, payload.to_vec()),
            None => Known::Nothing,
        }
    }
}
