//! How what waits for a disk is done, where it holds up nobody.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use ringhold_storage::raft_log;

use crate::network::BoxFuture;

/// Where jobs that wait for a disk are done.
pub trait Disk: Send + Sync + 'static {
    /// Does the job; it is done when this resolves.
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// Tokio's threads for blocking work.
pub struct Blocking;

impl Disk for Blocking {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let job = tokio::task::spawn_blocking(job);
        Box::pin(async move {
            if let Err(e) = job.await
                && e.is_panic()
            {
                std::panic::resume_unwind(e.into_panic());
            }
        })
    }
}

/// A job and what comes of it.
pub(super) async fn on<T: Send + 'static>(
    disk: &Arc<dyn Disk>,
    job: impl FnOnce() -> Result<T, raft_log::Error> + Send + 'static,
) -> io::Result<T> {
    let done = Arc::new(Mutex::new(None));
    let slot = done.clone();
    disk.run(Box::new(move || *slot.lock() = Some(job()))).await;
    let done = done.lock().take();
    // A runtime that shuts down drops jobs.
    match done {
        Some(done) => done.map_err(io::Error::other),
        None => Err(io::Error::other("the node ends, and does no more on its disk")),
    }
}
