//! The frameworks Ringhold is measured against, each used as its own documentation recommends for speed.

pub mod actix;
pub mod kameo;
pub mod ractor;

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

/// Which of tokio's schedulers a peer that runs on any runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    CurrentThread,
    MultiThread,
}

impl Flavour {
    pub const BOTH: [Flavour; 2] = [Flavour::CurrentThread, Flavour::MultiThread];

    pub fn name(self) -> &'static str {
        match self {
            Flavour::CurrentThread => "tokio current-thread",
            Flavour::MultiThread => "tokio multi-thread",
        }
    }

    /// A fresh runtime, with tokio's own defaults.
    pub fn runtime(self) -> Runtime {
        match self {
            Flavour::CurrentThread => Builder::new_current_thread().enable_all().build(),
            Flavour::MultiThread => Builder::new_multi_thread().enable_all().build(),
        }
        .expect("a runtime can be made: this machine ran the last one")
    }

    pub fn block_on<T>(self, future: impl Future<Output = T>) -> T {
        self.runtime().block_on(future)
    }
}

/// Where an actor reports its end, once.
pub type Done = Option<tokio::sync::oneshot::Sender<u64>>;

pub fn report(done: &mut Done, count: u64) {
    if let Some(done) = done.take() {
        let _ = done.send(count);
    }
}
