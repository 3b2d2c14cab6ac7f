//! A voter's part in leases.

use super::at_most;

/// What a node that votes owes to leases: for a while after it has acknowledged something of a leader, nobody is elected with its
/// vote. So whoever is elected knows that this while has passed since the last thing by which a leader before may have granted a
/// lease. See the module.
#[derive(Clone, Debug)]
pub struct Voter {
    /// For how long.
    silence_us: u64,
    /// When it last acknowledged something. A node that has started does not know, and may have done so just before.
    heard_us: u64,
    /// So many things of leaders are being taken in, and may be acknowledged.
    hearing: u32,
}

impl Voter {
    /// One that starts. `silence_us`: for so long it elects nobody; it is the same on all nodes.
    pub fn new(now_us: u64, silence_us: u64) -> Voter {
        Voter { silence_us, heard_us: now_us, hearing: 0 }
    }

    /// Something of a leader has come, and is taken in.
    pub fn hears(&mut self) {
        self.hearing += 1;
    }

    /// What came is taken in, and is acknowledged from now on, or refused.
    pub fn heard(&mut self, now_us: u64, acknowledged: bool) {
        self.hearing -= 1;
        if acknowledged {
            self.heard_us = self.heard_us.max(now_us);
        }
    }

    /// It leads, and has granted a lease by what a majority has acknowledged that it sent at `sent_us`: it is of that majority.
    pub fn led(&mut self, sent_us: u64) {
        self.heard_us = self.heard_us.max(sent_us);
    }

    /// Whether somebody may be elected with the vote that it has given.
    pub fn may_elect(&self, now_us: u64) -> bool {
        self.hearing == 0 && now_us >= self.heard_us.saturating_add(self.silence_us)
    }

    /// It was elected by voters each of which may elect. So much true time has passed, at least, since the last thing was sent by
    /// which a leader before has granted a lease.
    pub fn waited_us(&self, now_us: u64) -> u64 {
        if self.may_elect(now_us) { at_most(self.silence_us) } else { 0 }
    }
}
