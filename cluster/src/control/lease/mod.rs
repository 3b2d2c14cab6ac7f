//! Who may run a node's devices, and until when: leases, as three pure state machines.
//!
//! A node runs its devices under one lease, which the leader grants and the node keeps renewing. [`Holder`] is the node's half: it
//! says until when the node holds its lease, by the node's own clock. [`Grantor`] is the leader's: it knows until when a node may hold
//! one at most, and says whose devices may begin elsewhere. [`Voter`] is that of who votes: it says who may be elected. None has a clock: `now_us` is the monotonic one of its own machine,
//! and those of two machines have nothing to do with each other.
//!
//! # Why no two nodes hold a device
//!
//! All that is assumed of clocks is that in a second of true time each advances by a second, give or take [`DRIFT_PER_MILLE`].
//!
//! * A lease counts from the moment at which its holder **sent** the question, and ends for the holder a little early
//!   ([`at_most`]). The leader notes the same span from the moment at which it **answered**, which is later, and lengthened
//!   ([`at_least`]). So by true time it is over at the node before it is over at the leader, however long messages took.
//! * A leader may have been replaced without knowing it. But when it sent the last thing that a majority has acknowledged, nobody
//!   else had been elected yet. What it grants is shorter by the time since then, so that all it ever granted is over one whole lease
//!   after the election of the next leader, at the latest; and that one takes nothing from anybody before.
//! * A voter has nobody elected for a while after it has acknowledged something, or may have before it started. One of those who
//!   elected the next leader is of the majority that acknowledged. So that leader need not wait for a whole lease: the while has
//!   passed already. It has to, where the leader before it handed over, for then nobody waits to elect it.
//! * Once it is decided to give a node up, it is granted nothing until it is known what became of that. A leader grants nothing
//!   either before it has applied all that was left by leaders before it; then it knows what these had decided. And with its question
//!   a node says how often it knows to have been given up: who does not know of the last time is granted nothing.
//!
//! * A node that ends in good order says so once it runs nothing: it has dropped its lease, and takes none any more. What it says is
//!   good for that start of it alone: its next one runs what it is told to have.
//!
//! C. Gray and D. Cheriton, *Leases: An Efficient Fault-Tolerant Mechanism for Distributed File Cache Consistency* (1989).

mod grantor;
mod holder;
#[cfg(test)]
mod tests;
mod voter;

pub use grantor::{Grantor, LOOKS_PER_LEASE, Verdict};
pub use holder::{Event, Holder};
pub use voter::Voter;

/// By how much a clock may be fast or slow, of a thousand parts. A quartz is a hundred times better; this leaves room for clocks that
/// are being brought into step.
pub const DRIFT_PER_MILLE: u64 = 10;

/// A span by one's own clock in which no more than `span_us` of true time passes.
pub fn at_most(span_us: u64) -> u64 {
    span_us - (span_us * DRIFT_PER_MILLE).div_ceil(1_000)
}

/// A span by one's own clock in which no less than `span_us` of true time passes; and the most that `span_us` by one's own clock can
/// be of true time.
pub fn at_least(span_us: u64) -> u64 {
    span_us.saturating_add(span_us.saturating_mul(2 * DRIFT_PER_MILLE).div_ceil(1_000))
}
