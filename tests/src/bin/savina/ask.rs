//! How long a thread that is no actor waits for an actor's answer.
//!
//! *Spinning*: asks back to back, the asker polls for the answer. *Parked*: nothing happens for a while before
//! each ask, so that whatever runs the actor has gone to sleep, and the asker sleeps until the answer wakes it.
//! Waking an idle core takes what the machine takes, so each figure stands beside a bare program's that does
//! the same with two threads and one atomic word.

use std::future::Future;
use std::hint::spin_loop;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::ours;
use crate::peers::actix::Actix;
use crate::peers::{self, Flavour};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Spinning,
    Parked,
}

impl Mode {
    pub const BOTH: [Mode; 2] = [Mode::Spinning, Mode::Parked];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Spinning => "spinning",
            Mode::Parked => "parked",
        }
    }

    /// Waits for an answer the way the mode says.
    pub fn wait<T>(self, future: impl Future<Output = T>) -> T {
        match self {
            Mode::Spinning => spin_on(future),
            Mode::Parked => park_on(future),
        }
    }
}

/// How many asks of each mode.
#[derive(Clone, Copy, Debug)]
pub struct Asks {
    pub spinning: usize,
    pub parked: usize,
    /// The silence before each parked ask.
    pub pause: Duration,
}

impl Asks {
    pub const FULL: Asks = Asks { spinning: 100_000, parked: 2_000, pause: Duration::from_micros(500) };
    pub const QUICK: Asks = Asks { spinning: 5_000, parked: 200, pause: Duration::from_micros(500) };
}

#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub p50: Duration,
    pub p99: Duration,
}

/// Asks as often as the mode says and sorts what it took. The first tenth warms up and is not counted.
///
/// `ask` must return its argument plus something, so that no answer can be a stale one.
pub fn sample(mode: Mode, asks: &Asks, mut ask: impl FnMut(u64) -> u64) -> Latency {
    let (count, pause) = match mode {
        Mode::Spinning => (asks.spinning, Duration::ZERO),
        Mode::Parked => (asks.parked, asks.pause),
    };
    let warm_up = count / 10;
    let mut taken = Vec::with_capacity(count);
    for i in 0..count + warm_up {
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        let start = Instant::now();
        let answer = ask(i as u64 + 1);
        let elapsed = start.elapsed();
        assert!(answer > i as u64, "an answer older than its ask");
        if i >= warm_up {
            taken.push(elapsed);
        }
    }
    percentiles(taken)
}

pub fn percentiles(mut taken: Vec<Duration>) -> Latency {
    taken.sort();
    Latency { p50: taken[taken.len() / 2], p99: taken[taken.len() * 99 / 100] }
}

/// One line of the section.
pub struct Row {
    pub name: &'static str,
    pub flavour: &'static str,
    pub mode: Mode,
    pub latency: Latency,
}

/// Ours, every peer on each of its flavours, and the bare program, in both modes.
pub fn run(asks: &Asks) -> Vec<Row> {
    let mut rows = Vec::new();
    for mode in Mode::BOTH {
        let latency = ours::asks(mode, asks);
        rows.push(Row { name: "ours", flavour: "CPU device, one worker", mode, latency });
        rows.push(Row { name: "bare_loop", flavour: "two threads", mode, latency: bare(mode, asks) });
        for flavour in Flavour::BOTH {
            let latency = while_serving(
                move |serve| flavour.block_on(async { serve.until_stopped(peers::ractor::echo().await).await }),
                |echo| sample(mode, asks, |value| mode.wait(peers::ractor::ask(echo, value))),
            );
            rows.push(Row { name: "ractor", flavour: flavour.name(), mode, latency });
            let latency = while_serving(
                move |serve| flavour.block_on(async { serve.until_stopped(peers::kameo::echo().await).await }),
                |echo| sample(mode, asks, |value| mode.wait(peers::kameo::ask(echo, value))),
            );
            rows.push(Row { name: "kameo", flavour: flavour.name(), mode, latency });
        }
        // One actor runs on one arbiter, whatever the others do.
        let latency = while_serving(
            |serve| Actix::OneArbiter.block_on(async |place| serve.until_stopped(peers::actix::echo(place)).await),
            |echo| sample(mode, asks, |value| mode.wait(peers::actix::ask(echo, value))),
        );
        rows.push(Row { name: "actix", flavour: "one arbiter (tokio current-thread)", mode, latency });
    }
    rows
}

/// The server's half of [`while_serving`].
struct Serve<T> {
    to_asker: mpsc::Sender<T>,
    stop: oneshot::Receiver<()>,
}

impl<T> Serve<T> {
    async fn until_stopped(self, echo: T) {
        let _ = self.to_asker.send(echo);
        let _ = self.stop.await;
    }
}

/// Runs a framework on a thread of its own while `measure` asks the actor it hands over.
fn while_serving<T: Send + 'static, R>(
    server: impl FnOnce(Serve<T>) + Send + 'static,
    measure: impl FnOnce(&T) -> R,
) -> R {
    let (to_asker, from_server) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let server = thread::spawn(move || server(Serve { to_asker, stop: stopped }));
    let echo = from_server.recv().expect("the server starts its echo actor");
    let result = measure(&echo);
    drop(stop);
    server.join().expect("the server ends in order");
    result
}

/// Two threads and a word each way.
fn bare(mode: Mode, asks: &Asks) -> Latency {
    #[derive(Default)]
    struct Words {
        request: AtomicU64,
        response: AtomicU64,
        stop: AtomicBool,
    }
    fn await_change(word: &AtomicU64, from: u64, mode: Mode, stop: &AtomicBool) -> u64 {
        loop {
            let value = word.load(Ordering::Acquire);
            if value != from || stop.load(Ordering::Relaxed) {
                return value;
            }
            match mode {
                Mode::Spinning => spin_loop(),
                Mode::Parked => thread::park(),
            }
        }
    }
    let words = Words::default();
    let asker = thread::current();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut last = 0;
            while !words.stop.load(Ordering::Relaxed) {
                last = await_change(&words.request, last, mode, &words.stop);
                words.response.store(last + 1, Ordering::Release);
                if mode == Mode::Parked {
                    asker.unpark();
                }
            }
        });
        let mut before = 0;
        let latency = sample(mode, asks, |value| {
            words.request.store(value, Ordering::Release);
            if mode == Mode::Parked {
                server.thread().unpark();
            }
            loop {
                before = await_change(&words.response, before, mode, &words.stop);
                if before > value {
                    return before;
                }
            }
        });
        words.stop.store(true, Ordering::Relaxed);
        server.thread().unpark();
        latency
    })
}

fn spin_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        spin_loop();
    }
}

fn park_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark {
        thread: Thread,
        woken: AtomicBool,
    }
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            self.woken.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }
    let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(unpark.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        while !unpark.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}
