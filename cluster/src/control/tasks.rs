//! The runtime that openraft's tasks are in: tokio's, with two things added.
//!
//! Its randomness (how long until an election) comes from a seed, so that the simulator repeats; and all its tasks can be ended
//! at once, wherever they wait, which is what the death of a node is.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

type Seeded = DeterministicRng<TokioRuntime>;

tokio::task_local! {
    static LIFE: Life;
}

/// Tasks that end together.
#[derive(Clone, Default)]
pub(super) struct Life(Arc<Mutex<Vec<AbortHandle>>>);

impl Life {
    /// Runs what starts openraft: the tasks it spawns, and those that these spawn, are of this life.
    pub async fn begin<F: Future>(&self, seed: u64, f: F) -> F::Output {
        LIFE.scope(self.clone(), Seeded::scope(seed, f)).await
    }

    pub fn add(&self, task: AbortHandle) {
        let mut tasks = self.0.lock();
        // Tasks come and go with leaders: what is over needs no memory. Not each time, for there may be many.
        if tasks.len() >= 64 && tasks.len().is_power_of_two() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }

    pub fn end(&self) {
        self.0.lock().drain(..).for_each(|task| task.abort());
    }
}

pub(super) type Watched = <Seeded as AsyncRuntime>::Watch;

/// See the module.
#[derive(Debug)]
pub struct Tasks(Seeded);

impl AsyncRuntime for Tasks {
    type JoinError = <Seeded as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Seeded as AsyncRuntime>::Sleep;
    type Instant = <Seeded as AsyncRuntime>::Instant;
    type TimeoutError = <Seeded as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Seeded as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Seeded as AsyncRuntime>::Mpsc;
    type Watch = <Seeded as AsyncRuntime>::Watch;
    type Oneshot = <Seeded as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let life = LIFE.with(Life::clone);
        let task = Seeded::spawn(LIFE.scope(life.clone(), future));
        life.add(task.abort_handle());
        task
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Seeded::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Seeded::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Seeded::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Seeded::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Seeded::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Seeded::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Tasks(Seeded::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}
