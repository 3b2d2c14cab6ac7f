//! Mistakes on purpose in what leases stand on, to see that the simulator notices them.
//!
//! Without the feature `mistakes` none can be made. With it, as in the simulator, a thread makes the one it was told to make.

/// A mistake about leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A lease counts from when the answer came.
    CountsFromTheAnswer,
    /// A new leader gives nodes up as if leaders before it had granted nothing.
    DoesNotWait,
    /// A leader grants leases of which it does not know whether it still leads.
    GrantsWithoutMajority,
    /// A node that has held its lease once goes on without it.
    GoesOnWithout,
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

    pub(in crate::control) fn is_made(mistake: Mistake) -> bool {
        PLANTED.get() == Some(mistake)
    }
}

#[cfg(not(feature = "mistakes"))]
mod planted {
    pub(in crate::control) const fn is_made(_: super::Mistake) -> bool {
        false
    }
}

#[cfg(feature = "mistakes")]
pub use planted::plant;

pub(super) use planted::is_made;
