//! What becomes of a node when one of its own tasks panics.
//!
//! Tokio ends the task, says so on stderr, and goes on. A node of which a part has gone silent is worse than one that has ended and
//! is started again, so each task is one of these:
//!
//! | task | its panic |
//! |---|---|
//! | a device's: what carries its messages, keeps its host alive, makes its checkpoints | ends the node ([`Vital`]) |
//! | shedding, and what tells whether the node lives | ends the node |
//! | accepting clients, serving health over HTTP | is logged, and it goes on |
//! | a client's session | ends the session; the client is told |
//! | answering another node | ends its connection; it is told, and makes another |
//! | sending a device's host what it begins with | the host does not come up in time, and another is started |

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Knows whether a task that its node cannot be without has panicked. Clones are the same.
#[derive(Clone, Default)]
pub struct Vital(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Of the first that did.
    why: Mutex<Option<String>>,
    told: Notify,
}

impl Vital {
    /// Does the task; its panic is the node's failure.
    pub async fn watch(&self, name: String, task: impl Future<Output = ()>) {
        if let Err(why) = caught(task).await {
            let why = format!("the task that {name} has panicked ({why})");
            tracing::error!("{why}");
            self.0.why.lock().get_or_insert(why);
            self.0.told.notify_waiters();
        }
    }

    /// Resolves once such a task has panicked: which, and with what.
    pub async fn failed(&self) -> String {
        loop {
            let told = self.0.told.notified();
            let mut told = pin!(told);
            told.as_mut().enable();
            if let Some(why) = self.0.why.lock().clone() {
                return why;
            }
            told.await;
        }
    }
}

/// What comes of the future, or what it panicked with.
pub async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    // What a panic leaves behind is not looked at again, but for what is behind locks, and there nothing is half done for long.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
    })
    .await
}

/// What a panic says.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it said nothing".into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_first_panic_is_told_whoever_asks_before_or_after() {
        let vital = Vital::default();
        vital.watch("ends well".into(), async {}).await;
        let early = tokio::spawn({
            let vital = vital.clone();
            async move { vital.failed().await }
        });
        tokio::task::yield_now().await;
        assert!(!early.is_finished());
        for number in 1..3 {
            let task = async move {
                tokio::task::yield_now().await;
                panic!("number {number}");
            };
            tokio::spawn({
                let vital = vital.clone();
                async move { vital.watch(format!("fails as {number}"), task).await }
            })
            .await
            .expect("the panic goes no further");
        }
        let why = "the task that fails as 1 has panicked (number 1)";
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), early).await.unwrap().unwrap(), why);
        assert_eq!(vital.failed().await, why);
    }
}
