//! That something has changed, for those who wait for it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// A count that grows with each change. Those who wait are woken in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Changes {
    count: AtomicU64,
    happened: Notify,
}

impl Changes {
    pub fn happened(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.happened.notify_waiters();
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Resolves once the count is not the given one any more, and says what it is.
    pub async fn since(&self, seen: u64) -> u64 {
        loop {
            // It takes notice from here on.
            let happened = self.happened.notified();
            let count = self.count();
            if count != seen {
                return count;
            }
            happened.await;
        }
    }
}
