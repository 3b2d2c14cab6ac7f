//! Mistakes on purpose in what recovery stands on, to see that the simulator notices them.
//!
//! Without the feature `mistakes` none can be made. With it, as in the simulator, a thread makes the one it was told to make.

/// A mistake in a mechanism of recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A checkpoint covers a few messages less than it holds, so that they are done twice.
    CoversLess,
    /// A checkpoint covers a few messages more than it holds, so that they are lost.
    CoversMore,
    /// What a committed type sends goes out before it is durable.
    ReleasesEarly,
    /// What a dead host had sent goes out beside what its successor sends for the same messages.
    KeepsHeld,
    /// A host begins with an older checkpoint than the last.
    BeginsOlder,
    /// A device that goes on elsewhere does not take all along that it had been given since its checkpoint.
    LeavesBehind,
    /// What a client sends again is done again.
    TakesTwiceFromClients,
    /// What a device of the node sends another again is done again.
    TakesTwiceFromDevices,
    /// A shard that moves takes no marks of clients along.
    LeavesMarks,
    /// A host begins without what has moved to its device since its checkpoint.
    ForgetsAdoptions,
    /// Shards that leave do so without what their actors had sent and was held.
    LeavesHeld,
    /// A checkpoint counts as committed before its copies are there.
    CommitsAlone,
    /// A device that begins on another node knows nothing of clients.
    BeginsUnmarked,
    /// A device that begins on another node counts as having heard what its clients send to the others of that node.
    BeginsCaughtUp,
}

#[cfg(feature = "mistakes")]
mod planted {
    use std::cell::Cell;

    use super::Mistake;

    thread_local! {
        static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// Has this thread make a mistake from now on, or none.
    pub fn plant(mistake: Option<Mistake>) {
        PLANTED.set(mistake);
    }

    pub(crate) fn is_made(mistake: Mistake) -> bool {
        PLANTED.get() == Some(mistake)
    }
}

#[cfg(not(feature = "mistakes"))]
mod planted {
    pub(crate) const fn is_made(_: super::Mistake) -> bool {
        false
    }
}

#[cfg(feature = "mistakes")]
pub use planted::plant;

pub(crate) use planted::is_made;
