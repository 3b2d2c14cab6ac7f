//! The node's half of a lease.

use super::at_most;

/// Whether a node holds its lease. See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// It was never granted any.
    #[default]
    Without,
    /// It has been granted it until then, by the node's clock. That may be past.
    Until(u64),
    /// It leads and votes alone: nobody can be elected without it, so there is nobody who could give its devices to others.
    Alone,
    /// It has ended: it holds none and is granted none, whatever comes late.
    Ended,
}

/// What happens to a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// What the node asked at `sent_us` was granted, for so long.
    Granted { sent_us: u64, span_us: u64 },
    /// It leads and votes alone.
    Alone,
    /// Others are about to vote too. From now on its own word is good for this span, as any other's.
    Joined { lease_us: u64 },
    /// The node runs nothing any more.
    Ended,
}

impl Holder {
    /// Takes in what has happened.
    pub fn step(&mut self, now_us: u64, event: Event) {
        *self = match (event, *self) {
            (Event::Ended, _) | (_, Holder::Ended) => Holder::Ended,
            (Event::Alone, _) | (Event::Granted { .. }, Holder::Alone) => Holder::Alone,
            // An answer may come late, after that to a later question.
            (Event::Granted { sent_us, span_us }, before) => {
                Holder::Until(before.until_us().max(sent_us + at_most(span_us)))
            }
            (Event::Joined { lease_us }, Holder::Alone) => Holder::Until(now_us + at_most(lease_us)),
            (Event::Joined { .. }, before) => before,
        };
    }

    /// Until when it holds the lease; 0 without, and the end of time alone.
    pub fn until_us(&self) -> u64 {
        match *self {
            Holder::Without | Holder::Ended => 0,
            Holder::Until(until_us) => until_us,
            Holder::Alone => u64::MAX,
        }
    }
}
