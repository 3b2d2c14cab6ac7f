//! What clients of journals and sketches do, and what can be seen of these: of one node, or of several.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold::client::{Client, Error, Options as ClientOptions};
use ringhold::{ActorId, Registry};
use ringhold_cluster::wire::{Request, Response};
use ringhold_kernels::message::Reason;
use ringhold_kernels::plain::Plain;
use ringhold_storage::dead_letters::{self, DeadLetters};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::actors::{journal, sketch};
use super::plan::{self, OWN, Operation, SHARED, operation};
use crate::observed::Observed;
use crate::random::Random;
use crate::scenario::check::Said;
use crate::scenario::{ask_node, said};
use crate::trace::Trace;

/// How often an actor is looked at whose shard moves at that very time.
const LOOKS_MAX: u32 = 20;
/// How long an ask waits.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a client has done and heard.
pub type Log = Arc<Mutex<Vec<(Operation, Said)>>>;

/// What became a dead letter for this reason.
pub fn refused(letters: &dyn DeadLetters, reason: Reason) -> BTreeSet<u32> {
    let filter = dead_letters::Filter { reason: Some(reason), ..dead_letters::Filter::default() };
    let listed = letters.list(&filter, usize::MAX).expect("letters in memory can be read");
    let what = |payload: &[u8]| {
        // Both types have the same messages.
        let message = journal::Message::from_bytes(payload).expect("clients send messages of these types");
        match message {
            journal::Message::Put { what }
            | journal::Message::Forward { what, .. }
            | journal::Message::Later { what, .. }
            | journal::Message::Close { what } => what,
        }
    };
    listed.letters.iter().map(|(_, letter)| what(&letter.payload)).collect()
}

/// The state of every actor there may be; `Err` where one cannot be looked at.
pub async fn look(client: &Client, clients: u64) -> Vec<Result<(ActorId, Option<Vec<u8>>), String>> {
    let keys = (0..SHARED).chain((0..clients).map(|source| OWN + source));
    let mut states = Vec::new();
    for id in keys.flat_map(|key| [journal::id(key), sketch::id(key)]) {
        let request = Request::Inspect { type_id: id.type_id, key: id.key.into() };
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            match ask_node(client, request.clone()).await {
                // Its shard has just moved, or is about to, until that is called off.
                Err(Error::Failed(failed))
                    if matches!(failed.reason(), Some(Reason::NoDevice | Reason::DeadlineExceeded))
                        && tries < LOOKS_MAX =>
                {
                    sleep(Duration::from_millis(50)).await;
                }
                answer => break answer,
            }
        };
        states.push(match answer {
            Ok(Response::Inspected(found)) => Ok((id, Some(found.state))),
            Err(Error::Failed(failed)) if failed.reason() == Some(Reason::NoActor) => Ok((id, None)),
            other => Err(format!("{id:?} could not be looked at: {other:?}")),
        });
    }
    states
}

pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Observed<journal::Actor>>().expect("it is the first");
    registry.register::<Observed<sketch::Actor>>().expect("it has a name of its own");
    registry
}

/// A node that is down comes up again.
pub async fn connect(options: ClientOptions) -> Client {
    loop {
        match Client::connect(options.clone()).await {
            Ok(client) => return client,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What a client does from its first operation to its last.
pub struct Driver {
    pub source: u32,
    pub plan: plan::Client,
    pub random: Random,
    pub log: Log,
    pub trace: Trace,
}

type Asking = Pin<Box<dyn Future<Output = Said> + Send>>;

impl Driver {
    /// Does it all, and waits for the answers.
    pub async fn run(mut self, options: ClientOptions) -> Client {
        let client = connect(options).await;
        let mut asks = JoinSet::new();
        for seq in 1..=self.plan.operations {
            let (operation, payload) = operation(&mut self.random, self.source, seq, self.plan.asks_per_mille);
            self.perform(&client, operation, payload, &mut asks).await;
            while asks.len() >= self.plan.asks_max {
                asks.join_next().await;
            }
            if self.random.per_mille(self.plan.pause_per_mille) {
                let pause_ms = self.random.between(1, self.plan.pause_max.as_millis() as u64);
                sleep(Duration::from_millis(pause_ms)).await;
            }
        }
        while asks.join_next().await.is_some() {}
        if let Err(error) = client.flush().await {
            self.trace.event(format_args!("client {} flushes: {error}", self.source));
        }
        client
    }

    /// Sends one message, in the order of these calls, and leaves its answer to a task.
    async fn perform(&mut self, client: &Client, operation: Operation, payload: Vec<u8>, asks: &mut JoinSet<()>) {
        let (what, to) = (operation.what, operation.to);
        self.trace.event(format_args!("client {} sends {operation:?}", self.source));
        let place = self.log.lock().len();
        if !operation.asks {
            let said = match client.tell_raw(to, &payload).await {
                Ok(()) => Said::Told,
                Err(_) => Said::NotSent,
            };
            return self.log.lock().push((operation, said));
        }
        let client = client.clone();
        let mut asking: Asking = Box::pin(async move { said(client.ask_raw(to, &payload, PATIENCE).await) });
        // It is sent when it is first polled: here, so that the order is this one.
        let first = poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx))).await;
        self.log.lock().push((operation, Said::Left));
        let (log, trace) = (self.log.clone(), self.trace.clone());
        asks.spawn(async move {
            let said = match first {
                Poll::Ready(said) => said,
                Poll::Pending => asking.await,
            };
            trace.event(format_args!("{what:x} heard {said:?}"));
            log.lock()[place].1 = said;
        });
    }
}
