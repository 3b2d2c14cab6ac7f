//! Calls between nodes on simulated time: they take theirs, get lost, and reach one side and not the other.
//!
//! This stands where `ringhold_cluster::peers` is in a node: a message is a call or its answer, whole, and not datagrams.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::control::{Calls, Control};
use ringhold_cluster::network::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::random::{Random, Stream};
use crate::trace::{Trace, fnv1a};

/// What happens to messages.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub delay_min: Duration,
    pub delay_max: Duration,
    /// Of a call, once for it and once for its answer. A call that is lost is not sent again: its caller does that.
    pub loss_per_mille: u64,
}

/// The wires between all nodes. Clones are the same.
#[derive(Clone)]
pub struct Wires(Arc<Mutex<Inner>>);

struct Inner {
    random: Random,
    trace: Trace,
    weather: Weather,
    /// Who is where.
    there: BTreeMap<String, (u64, Control)>,
    /// Pairs of which the first does not reach the second, and how often that was wanted.
    cut: BTreeMap<(u64, u64), u32>,
    /// What a node's messages, and those to it, take more.
    slow: BTreeMap<u64, Duration>,
    /// Until when nodes are paused that were.
    paused: BTreeMap<u64, Instant>,
    calls: u64,
    lost: u64,
    /// A mistake on purpose: these bytes become others in calls to a node.
    alters: Option<(u64, Vec<u8>, Vec<u8>)>,
}

impl Wires {
    pub fn new(seed: u64, weather: Weather, trace: Trace) -> Wires {
        Wires(Arc::new(Mutex::new(Inner {
            random: Random::new(seed, Stream::Wires, 0),
            trace,
            weather,
            there: BTreeMap::new(),
            cut: BTreeMap::new(),
            slow: BTreeMap::new(),
            paused: BTreeMap::new(),
            calls: 0,
            lost: 0,
            alters: None,
        })))
    }

    /// A node is at this address from now on.
    pub fn connect(&self, address: &str, control: &Control) {
        self.0.lock().there.insert(address.into(), (control.number(), control.clone()));
    }

    /// A node is nowhere any more.
    pub fn disconnect(&self, number: u64) {
        self.0.lock().there.retain(|_, (there, _)| *there != number);
    }

    /// Nothing goes from the one to the other, until it was mended as often.
    pub fn cut(&self, from: u64, to: u64) {
        *self.0.lock().cut.entry((from, to)).or_default() += 1;
    }

    pub fn mend(&self, from: u64, to: u64) {
        let mut inner = self.0.lock();
        if let Some(count) = inner.cut.get_mut(&(from, to)) {
            *count -= 1;
            if *count == 0 {
                inner.cut.remove(&(from, to));
            }
        }
    }

    pub fn slow_down(&self, number: u64, by: Duration) {
        self.0.lock().slow.insert(number, by);
    }

    /// For so long a node does nothing: what comes to it waits, and so does what it would send.
    pub fn pause(&self, number: u64, span: Duration) {
        let mut inner = self.0.lock();
        let until = inner.paused.entry(number).or_insert_with(Instant::now);
        *until = (Instant::now() + span).max(*until);
    }

    fn paused_until(&self, number: u64) -> Option<Instant> {
        self.0.lock().paused.get(&number).copied().filter(|until| *until > Instant::now())
    }

    /// Waits until a node is not paused.
    async fn awake(&self, number: u64) {
        while let Some(until) = self.paused_until(number) {
            sleep_until(until).await;
        }
    }

    /// Does what a node does, but for when it is paused.
    pub async fn while_awake<T>(&self, number: u64, task: impl Future<Output = T>) -> T {
        let mut task = pin!(task);
        let mut waits: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|context| {
            while let Some(until) = self.paused_until(number) {
                let waits = waits.insert(Box::pin(sleep_until(until)));
                if waits.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
            task.as_mut().poll(context)
        })
        .await
    }

    pub fn alter(&self, to: u64, from: Vec<u8>, into: Vec<u8>) {
        self.0.lock().alters = Some((to, from, into));
    }

    /// Calls that were made, and messages that did not arrive.
    pub fn figures(&self) -> (u64, u64) {
        let inner = self.0.lock();
        (inner.calls, inner.lost)
    }

    /// Takes as long as a message does; false if it does not arrive.
    async fn travel(&self, from: u64, to: u64, what: &str, bytes: &[u8]) -> bool {
        let (delay, arrives) = {
            let mut inner = self.0.lock();
            let Weather { delay_min, delay_max, loss_per_mille } = inner.weather;
            let spread = (delay_max - delay_min).as_micros() as u64;
            let slow = [from, to].iter().filter_map(|number| inner.slow.get(number)).sum::<Duration>();
            let delay = delay_min + Duration::from_micros(inner.random.below(spread + 1)) + slow;
            let lost = inner.random.per_mille(loss_per_mille) || inner.cut.contains_key(&(from, to));
            inner.lost += u64::from(lost);
            let hash = fnv1a(0xcbf2_9ce4_8422_2325, bytes);
            let fate = if lost { "lost" } else { "" };
            inner.trace.event(format_args!("{what} {from} -> {to} {} bytes {hash:016x} {fate}", bytes.len()));
            (delay, !lost)
        };
        sleep(delay).await;
        arrives
    }
}

/// The calls of one node.
pub struct From {
    pub wires: Wires,
    pub number: u64,
}

impl Calls for From {
    fn call<'a>(
        &'a self,
        address: &'a str,
        mut request: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        Box::pin(async move {
            let (wires, from) = (&self.wires, self.number);
            wires.awake(from).await;
            let there = {
                let mut inner = wires.0.lock();
                inner.calls += 1;
                inner.there.get(address).map(|(number, _)| *number)
            };
            let Some(to) = there else {
                // Its machine says so, or nothing does: the address stands for nobody then, and nobody is cut off from it.
                let says = wires.travel(from, 0, "call", &request).await;
                return if says { Err("connection refused".into()) } else { std::future::pending().await };
            };
            if !wires.travel(from, to, "call", &request).await {
                return std::future::pending().await;
            }
            wires.awake(to).await;
            let there = {
                let inner = wires.0.lock();
                if let Some((_, old, new)) = inner.alters.as_ref().filter(|(number, ..)| *number == to) {
                    replace(&mut request, old, new);
                }
                inner.there.get(address).map(|(_, control)| control.clone())
            };
            let Some(there) = there else { return Err("connection lost".into()) };
            // What was begun is done, also when the caller does not wait any more.
            let (done, answer) = oneshot::channel();
            tokio::spawn(async move {
                let _ = done.send(there.answer(request).await);
            });
            let Ok(answer) = answer.await else { return Err("connection lost".into()) };
            wires.awake(to).await;
            if !wires.travel(to, from, "answer", &answer).await {
                return std::future::pending().await;
            }
            wires.awake(from).await;
            Ok(answer)
        })
    }
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    for at in 0..(bytes.len() + 1).saturating_sub(old.len()) {
        if bytes[at..].starts_with(old) {
            bytes[at..at + new.len()].copy_from_slice(new);
        }
    }
}
