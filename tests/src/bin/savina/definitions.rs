//! What each case is: the same for every runner, and told to people in `docs/benchmarks.md`.
//!
//! The cases are those of Savina (Imam and Sarkar, "Savina - An Actor Benchmark Suite", AGERE 2014) that
//! measure messages and creations and nothing else, so their handlers do no work of their own.

use std::time::Duration;

/// One Savina case. `n` in [`Runner::run`] is what grows until a repetition is long enough to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Two actors, one message on its way. `n` pings, each answered by a pong: 2 n messages.
    PingPong,
    /// A producer sends a batch to a counter in one run of its handler, asks for the count, and starts the
    /// next batch when it comes. `n` batches.
    Counting,
    /// One token round 100 actors. `n` hops.
    ThreadRing,
    /// A source sends to 10,000 actors, one message to each in turn, 100 times, all in one run of its handler;
    /// each actor tells it when its share is complete. `n` rounds.
    ForkJoinThroughput,
    /// 120 actors, each of which pings a random one of them and waits for the pong, `n` times: 240 n messages.
    Big,
    /// A source creates 100,000 actors and sends each one message; each tells a sink and stops. `n` rounds.
    ForkJoinCreate,
}

impl Case {
    pub const ALL: [Case; 6] =
        [Case::PingPong, Case::Counting, Case::ThreadRing, Case::ForkJoinThroughput, Case::Big, Case::ForkJoinCreate];

    /// The case's name in the report and after `--case`.
    pub fn name(self) -> &'static str {
        match self {
            Case::PingPong => "ping_pong",
            Case::Counting => "counting",
            Case::ThreadRing => "thread_ring",
            Case::ForkJoinThroughput => "fork_join_throughput",
            Case::Big => "big",
            Case::ForkJoinCreate => "fork_join_create",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Case::ForkJoinCreate => "actors/s",
            _ => "messages/s",
        }
    }

    /// What `n` of the case comes to, in its unit.
    pub fn operations(self, shape: &Shape, n: u64) -> u64 {
        match self {
            Case::PingPong => 2 * n,
            Case::Counting => n * shape.counting_batch,
            Case::ThreadRing => n,
            Case::ForkJoinThroughput => n * FORK_JOIN_ACTORS * shape.fork_join_messages,
            Case::Big => 2 * n * BIG_ACTORS,
            Case::ForkJoinCreate => n * shape.create_actors,
        }
    }

    /// The `n` of the first, untimed run: a few milliseconds for the slowest runner where the case allows.
    pub fn n_first(self) -> u64 {
        match self {
            Case::PingPong | Case::ThreadRing => 10_000,
            Case::Big => 100,
            Case::Counting | Case::ForkJoinThroughput | Case::ForkJoinCreate => 1,
        }
    }
}

pub const RING_ACTORS: u64 = 100;
pub const FORK_JOIN_ACTORS: u64 = 10_000;
pub const BIG_ACTORS: u64 = 120;

/// The sizes that `--quick` makes smaller. The number of actors in a case stays, except where creating them
/// is the case.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub counting_batch: u64,
    pub fork_join_messages: u64,
    pub create_actors: u64,
}

impl Shape {
    pub const FULL: Shape = Shape { counting_batch: 1_000_000, fork_join_messages: 100, create_actors: 100_000 };
    pub const QUICK: Shape = Shape { counting_batch: 100_000, fork_join_messages: 10, create_actors: 10_000 };
}

/// One way of running the cases: a framework on one flavour of its runtime.
pub trait Runner {
    /// The framework: one of [`crate::report::RUNNERS`].
    fn name(&self) -> &'static str;

    /// The flavour, of which the better is kept for each case.
    fn flavour(&self) -> &'static str;

    /// Sets the case up, runs `n` of it, and returns the time from just before the message that starts it
    /// to just after word of its end has reached the thread that waits.
    ///
    /// # Panics
    /// If the actors' own counts say that anything was lost or done twice.
    fn run(&self, case: Case, shape: &Shape, n: u64) -> Duration;
}

/// The partner an actor of [`Case::Big`] pings next: xorshift64 (Marsaglia 2003), the same everywhere.
#[inline(always)]
pub fn partner(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random % BIG_ACTORS
}

/// The seed of actor `index` of [`Case::Big`].
pub fn seed(index: u64) -> u64 {
    (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
