//! The cases on ractor: one message enum an actor, `cast`, actors spawned by `Actor::spawn`.
//!
//! ractor boxes each message itself, and its mailboxes are unbounded. Built without
//! `message_span_propogation`, which costs it a span a message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

use super::{Done, Flavour, report};
use crate::definitions::{BIG_ACTORS, Case, FORK_JOIN_ACTORS, RING_ACTORS, Runner, Shape, partner, seed};

pub struct Ractor(pub Flavour);

impl Runner for Ractor {
    fn name(&self) -> &'static str {
        "ractor"
    }

    fn flavour(&self) -> &'static str {
        self.0.name()
    }

    fn run(&self, case: Case, shape: &Shape, n: u64) -> Duration {
        let shape = *shape;
        match case {
            Case::PingPong => self.0.block_on(ping_pong(n)),
            Case::Counting => self.0.block_on(counting(shape.counting_batch, n)),
            Case::ThreadRing => self.0.block_on(thread_ring(n)),
            Case::ForkJoinThroughput => self.0.block_on(fork_join_throughput(shape.fork_join_messages, n)),
            Case::Big => self.0.block_on(big(n)),
            Case::ForkJoinCreate => self.0.block_on(fork_join_create(shape.create_actors, n)),
        }
    }
}

/// An actor whose state is its argument and whose handler is the given block.
macro_rules! actor {
    ($name:ident, $state:ty, $message:ty, |$s:ident, $m:ident, $me:ident| $body:block) => {
        struct $name;
        impl Actor for $name {
            type Msg = $message;
            type State = $state;
            type Arguments = $state;

            async fn pre_start(&self, _: ActorRef<$message>, state: $state) -> Result<$state, ActorProcessingErr> {
                Ok(state)
            }

            async fn handle(
                &self,
                $me: ActorRef<$message>,
                $m: $message,
                $s: &mut $state,
            ) -> Result<(), ActorProcessingErr> {
                $body
                Ok(())
            }
        }
    };
}

async fn spawn<A: Actor>(actor: A, state: A::Arguments) -> ActorRef<A::Msg> {
    Actor::spawn(None, actor, state).await.expect("an actor with no name and no way to fail starts").0
}

fn cast<M: ::ractor::Message>(to: &ActorRef<M>, message: M) {
    assert!(to.cast(message).is_ok(), "an actor of the case has stopped");
}

enum Player {
    Meet(ActorRef<Player>),
    Serve(u64, Done),
    Ping,
    Pong,
}

#[derive(Default)]
struct Play {
    other: Option<ActorRef<Player>>,
    pings_left: u64,
    pings: u64,
    done: Done,
}

actor!(PlayerActor, Play, Player, |state, message, _me| {
    match message {
        Player::Meet(other) => state.other = Some(other),
        Player::Ping => {
            state.pings += 1;
            cast(state.other.as_ref().expect("met"), Player::Pong);
        }
        message => {
            if let Player::Serve(pings, done) = message {
                (state.pings_left, state.done) = (pings, done);
            } else {
                state.pings += 1;
            }
            if state.pings_left > 0 {
                state.pings_left -= 1;
                cast(state.other.as_ref().expect("met"), Player::Ping);
            } else {
                report(&mut state.done, state.pings);
            }
        }
    }
});

async fn ping_pong(pings: u64) -> Duration {
    let ping = spawn(PlayerActor, Play::default()).await;
    let pong = spawn(PlayerActor, Play::default()).await;
    cast(&ping, Player::Meet(pong.clone()));
    cast(&pong, Player::Meet(ping.clone()));
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    cast(&ping, Player::Serve(pings, Some(done)));
    let seen = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(seen, pings);
    elapsed
}

enum ToCounter {
    Increment,
    Retrieve(ActorRef<ToProducer>),
}

enum ToProducer {
    Start(Done),
    Count(u64),
}

struct Produce {
    counter: ActorRef<ToCounter>,
    batch: u64,
    batches_left: u64,
    done: Done,
}

actor!(Counter, u64, ToCounter, |count, message, _me| {
    match message {
        ToCounter::Increment => *count += 1,
        ToCounter::Retrieve(asker) => cast(&asker, ToProducer::Count(*count)),
    }
});

actor!(Producer, Produce, ToProducer, |state, message, me| {
    let mut counted = 0;
    match message {
        ToProducer::Start(done) => state.done = done,
        ToProducer::Count(count) => counted = count,
    }
    if state.batches_left > 0 {
        state.batches_left -= 1;
        for _ in 0..state.batch {
            cast(&state.counter, ToCounter::Increment);
        }
        cast(&state.counter, ToCounter::Retrieve(me));
    } else {
        report(&mut state.done, counted);
    }
});

async fn counting(batch: u64, batches: u64) -> Duration {
    let counter = spawn(Counter, 0).await;
    let producer = spawn(Producer, Produce { counter, batch, batches_left: batches, done: None }).await;
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    cast(&producer, ToProducer::Start(Some(done)));
    let counted = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(counted, batch * batches);
    elapsed
}

enum ToNode {
    Next(ActorRef<ToNode>, Done),
    Token(u64),
}

#[derive(Default)]
struct RingNode {
    next: Option<ActorRef<ToNode>>,
    done: Done,
}

actor!(Node, RingNode, ToNode, |state, message, _me| {
    match message {
        ToNode::Next(next, done) => (state.next, state.done) = (Some(next), done),
        ToNode::Token(0) => report(&mut state.done, 0),
        ToNode::Token(hops_left) => cast(state.next.as_ref().expect("linked"), ToNode::Token(hops_left - 1)),
    }
});

async fn thread_ring(hops: u64) -> Duration {
    let mut nodes = Vec::new();
    for _ in 0..RING_ACTORS {
        nodes.push(spawn(Node, RingNode::default()).await);
    }
    let (done, end) = oneshot::channel();
    let mut done = Some(done);
    for i in 0..RING_ACTORS {
        let done = if i == hops % RING_ACTORS { done.take() } else { None };
        cast(&nodes[i as usize], ToNode::Next(nodes[((i + 1) % RING_ACTORS) as usize].clone(), done));
    }
    let start = Instant::now();
    cast(&nodes[0], ToNode::Token(hops));
    end.await.expect("the token ends where its hops say");
    start.elapsed()
}

enum ToWorker {
    Hello,
    Work,
}

enum ToSource {
    Workers(Vec<ActorRef<ToWorker>>, Done),
    Start(u64, Done),
    Complete,
}

struct Share {
    source: ActorRef<ToSource>,
    messages: u64,
    seen: u64,
}

struct Spread {
    workers: Vec<ActorRef<ToWorker>>,
    messages: u64,
    rounds_left: u64,
    complete: u64,
    done: Done,
}

actor!(Worker, Share, ToWorker, |state, message, _me| {
    match message {
        ToWorker::Hello => cast(&state.source, ToSource::Complete),
        ToWorker::Work => {
            state.seen += 1;
            if state.seen == state.messages {
                state.seen = 0;
                cast(&state.source, ToSource::Complete);
            }
        }
    }
});

actor!(Source, Spread, ToSource, |state, message, _me| {
    match message {
        ToSource::Workers(workers, done) => {
            (state.workers, state.done) = (workers, done);
            state.workers.iter().for_each(|worker| cast(worker, ToWorker::Hello));
            return Ok(());
        }
        ToSource::Start(rounds, done) => (state.rounds_left, state.complete, state.done) = (rounds, 0, done),
        ToSource::Complete => {
            state.complete += 1;
            if !state.complete.is_multiple_of(FORK_JOIN_ACTORS) {
                return Ok(());
            }
        }
    }
    if state.rounds_left > 0 {
        state.rounds_left -= 1;
        for _ in 0..state.messages {
            state.workers.iter().for_each(|worker| cast(worker, ToWorker::Work));
        }
    } else {
        report(&mut state.done, state.complete);
    }
});

async fn fork_join_throughput(messages: u64, rounds: u64) -> Duration {
    let spread = Spread { workers: Vec::new(), messages, rounds_left: 0, complete: 0, done: None };
    let source = spawn(Source, spread).await;
    let mut workers = Vec::new();
    for _ in 0..FORK_JOIN_ACTORS {
        workers.push(spawn(Worker, Share { source: source.clone(), messages, seen: 0 }).await);
    }
    let (done, ready) = oneshot::channel();
    cast(&source, ToSource::Workers(workers, Some(done)));
    ready.await.expect("every worker says hello");
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    cast(&source, ToSource::Start(rounds, Some(done)));
    let complete = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(complete, FORK_JOIN_ACTORS * rounds);
    elapsed
}

enum ToBig {
    Meet(Arc<Vec<ActorRef<ToBig>>>),
    Start,
    Ping { from: u32 },
    Pong,
}

enum ToSink {
    Finished,
}

struct BigNode {
    me: u32,
    nodes: Arc<Vec<ActorRef<ToBig>>>,
    sink: ActorRef<ToSink>,
    random: u64,
    pings_left: u64,
}

struct BigSink {
    expected: u64,
    finished: u64,
    done: Done,
}

actor!(Big, BigNode, ToBig, |state, message, _me| {
    match message {
        ToBig::Meet(nodes) => state.nodes = nodes,
        ToBig::Ping { from } => cast(&state.nodes[from as usize], ToBig::Pong),
        ToBig::Start | ToBig::Pong => {
            if state.pings_left > 0 {
                state.pings_left -= 1;
                let to = partner(&mut state.random);
                cast(&state.nodes[to as usize], ToBig::Ping { from: state.me });
            } else {
                cast(&state.sink, ToSink::Finished);
            }
        }
    }
});

actor!(Sink, BigSink, ToSink, |state, _message, _me| {
    state.finished += 1;
    if state.finished == state.expected {
        report(&mut state.done, state.finished);
    }
});

async fn big(pings: u64) -> Duration {
    let (done, end) = oneshot::channel();
    let sink = spawn(Sink, BigSink { expected: BIG_ACTORS, finished: 0, done: Some(done) }).await;
    let mut nodes = Vec::new();
    for i in 0..BIG_ACTORS {
        let nobody = Arc::new(Vec::new());
        let node = BigNode { me: i as u32, nodes: nobody, sink: sink.clone(), random: seed(i), pings_left: pings };
        nodes.push(spawn(Big, node).await);
    }
    let nodes = Arc::new(nodes);
    nodes.iter().for_each(|node| cast(node, ToBig::Meet(nodes.clone())));
    let start = Instant::now();
    nodes.iter().for_each(|node| cast(node, ToBig::Start));
    end.await.expect("the case ends");
    start.elapsed()
}

enum ToDriver {
    Start(Done),
    Complete,
}

struct Drive {
    actors: u64,
    rounds_left: u64,
    complete: u64,
    done: Done,
}

actor!(Brief, ActorRef<ToDriver>, ToSink, |driver, _message, me| {
    cast(driver, ToDriver::Complete);
    me.stop(None);
});

actor!(Driver, Drive, ToDriver, |state, message, me| {
    match message {
        ToDriver::Start(done) => state.done = done,
        ToDriver::Complete => {
            state.complete += 1;
            if !state.complete.is_multiple_of(state.actors) {
                return Ok(());
            }
        }
    }
    if state.rounds_left > 0 {
        state.rounds_left -= 1;
        for _ in 0..state.actors {
            cast(&spawn(Brief, me.clone()).await, ToSink::Finished);
        }
    } else {
        report(&mut state.done, state.complete);
    }
});

async fn fork_join_create(actors: u64, rounds: u64) -> Duration {
    let driver = spawn(Driver, Drive { actors, rounds_left: rounds, complete: 0, done: None }).await;
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    cast(&driver, ToDriver::Start(Some(done)));
    let complete = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(complete, actors * rounds);
    elapsed
}

/// An ask of [`Echo`].
pub struct Ask(u64, RpcReplyPort<u64>);

actor!(Echo, (), Ask, |_state, message, _me| {
    let Ask(value, port) = message;
    let _ = port.send(value + 1);
});

/// An actor that answers a number with the next.
pub async fn echo() -> ActorRef<Ask> {
    spawn(Echo, ()).await
}

pub async fn ask(echo: &ActorRef<Ask>, value: u64) -> u64 {
    match echo.call(|port| Ask(value, port), None).await {
        Ok(::ractor::rpc::CallResult::Success(answer)) => answer,
        _ => panic!("the echo actor has stopped"),
    }
}

actor!(Idle, u64, Ask, |state, message, _me| {
    *state += message.0;
    let _ = message.1.send(*state);
});

/// Actors with 8 bytes of state, each of which has handled one message and waits for the next.
pub async fn idle(actors: u64) -> Vec<ActorRef<Ask>> {
    let mut idle = Vec::with_capacity(actors as usize);
    for i in 0..actors {
        let actor = spawn(Idle, i).await;
        ask(&actor, 1).await;
        idle.push(actor);
    }
    idle
}
