//! How far lanes got: what a device has taken of what others number, what it keeps of what it numbers itself, and how much of
//! either is durable.
//!
//! Both kinds of lanes work alike. The sender numbers its messages and keeps them. The receiver has a *mark* for each
//! sender: the last number that it took. It drops what is at or below it. Its checkpoint holds the mark; once that is
//! durable, the sender may let go of what the mark *covers*. After the death of either, the sender sends again what it keeps.
//!
//! [`ClientLanes`] are those from clients, which number their messages over all devices: a device's mark says that it has
//! all those up to it that are its own, since they come in order. [`DeviceLanes`] are those to and from other devices. Nothing here has a clock, a socket or a disk.

mod clients;
mod devices;

pub use clients::{Client, ClientLanes, Seen, key_of};
pub use devices::{Away, DeviceLanes};

/// The kinds of records that lanes add to a checkpoint.
pub mod record {
    /// A client: its number u32, zero u32, its mark u64, born u64, seen u64 (wall time, µs since the Unix epoch), its id of 16 bytes.
    pub const CLIENT: u8 = 9;
    /// An answer that a client may not have: the whole number of its ask u64; the answer.
    pub const ANSWER: u8 = 10;
    /// A message for another device that no checkpoint of that device is known to have: device u16, zeros, its number u64; the
    /// message.
    pub const AWAY: u8 = 11;
    /// A device: number u16, zeros, the last number given to a message for it u64, its own mark u64.
    pub const DEVICE: u8 = 12;
    /// The youngest client that was forgotten: born u64.
    pub const FORGOTTEN: u8 = 13;
    /// A mark that a client has for some shards apart: as `CLIENT`, then the shards, a bit for each.
    pub const APART: u8 = 14;
}

/// A mark, and how much of it a durable checkpoint has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    taken: u64,
    covered: u64,
    /// What the checkpoint under way has of it.
    closing: Option<u64>,
}

impl Mark {
    /// As a durable checkpoint has it.
    const fn durable(taken: u64) -> Mark {
        Mark { taken, covered: taken, closing: None }
    }

    /// Whether this number comes after all that was taken, which it then is.
    fn takes(&mut self, number: u64) -> bool {
        let new = number > self.taken;
        self.taken = self.taken.max(number);
        new
    }

    fn close(&mut self) -> u64 {
        self.closing = Some(self.taken);
        self.taken
    }

    fn commit(&mut self) {
        self.covered = self.covered.max(self.closing.take().unwrap_or(0));
    }

    fn give_back(&mut self) {
        self.closing = None;
    }
}

/// A record is not what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWhole;

/// The number at this place of a record.
fn u64_at(body: &[u8], at: usize) -> Option<u64> {
    body.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
