//! The cases on kameo: one type a message, `tell` with `try_send` into unbounded mailboxes.
//!
//! kameo boxes each message itself. Its own advice for sends between actors that may be cyclic is
//! `try_send`, and an unbounded mailbox is the faster of its two. Built without `tracing`, which costs it a
//! span a message.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::kameo::Actor;
use ::kameo::actor::{ActorRef, Spawn};
use ::kameo::mailbox;
use ::kameo::message::{Context, Message};
use tokio::sync::oneshot;

use super::{Done, Flavour, report};
use crate::definitions::{BIG_ACTORS, Case, FORK_JOIN_ACTORS, RING_ACTORS, Runner, Shape, partner, seed};

pub struct Kameo(pub Flavour);

impl Runner for Kameo {
    fn name(&self) -> &'static str {
        "kameo"
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

/// An actor whose state is its argument.
macro_rules! actor {
    ($name:ident) => {
        impl Actor for $name {
            type Args = Self;
            type Error = Infallible;

            async fn on_start(state: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
                Ok(state)
            }
        }
    };
}

/// What an actor does with one type of message.
macro_rules! handles {
    ($actor:ident, $message:ty, |$s:ident, $m:pat_param, $ctx:ident| $body:block) => {
        handles!($actor, $message => (), |$s, $m, $ctx| $body);
    };
    ($actor:ident, $message:ty => $reply:ty, |$s:ident, $m:pat_param, $ctx:ident| $body:block) => {
        impl Message<$message> for $actor {
            type Reply = $reply;

            async fn handle(&mut self, $m: $message, $ctx: &mut Context<Self, $reply>) -> $reply {
                let $s = self;
                $body
            }
        }
    };
}

fn spawn<A: Actor<Args = A>>(state: A) -> ActorRef<A> {
    A::spawn_with_mailbox(state, mailbox::unbounded())
}

fn tell<A: Message<M>, M: Send + 'static>(to: &ActorRef<A>, message: M) {
    assert!(to.tell(message).try_send().is_ok(), "an actor of the case has stopped");
}

/// Starts a case: how much of it, and where to report the end.
struct Start(u64, Done);

struct Ping;
struct Pong;

#[derive(Default)]
struct Player {
    other: Option<ActorRef<Player>>,
    pings_left: u64,
    pings: u64,
    done: Done,
}

struct Meet(ActorRef<Player>);

impl Player {
    fn serve(&mut self) {
        if self.pings_left > 0 {
            self.pings_left -= 1;
            tell(self.other.as_ref().expect("met"), Ping);
        } else {
            report(&mut self.done, self.pings);
        }
    }
}

actor!(Player);
handles!(Player, Meet, |state, Meet(other), _ctx| { state.other = Some(other) });
handles!(Player, Start, |state, Start(pings, done), _ctx| {
    (state.pings_left, state.done) = (pings, done);
    state.serve();
});
handles!(Player, Ping, |state, Ping, _ctx| {
    state.pings += 1;
    tell(state.other.as_ref().expect("met"), Pong);
});
handles!(Player, Pong, |state, Pong, _ctx| {
    state.pings += 1;
    state.serve();
});

async fn ping_pong(pings: u64) -> Duration {
    let ping = spawn(Player::default());
    let pong = spawn(Player::default());
    ask_meet(&ping, &pong).await;
    ask_meet(&pong, &ping).await;
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    tell(&ping, Start(pings, Some(done)));
    let seen = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(seen, pings);
    elapsed
}

/// Introduces one player to the other, and returns when it has started and knows.
async fn ask_meet(player: &ActorRef<Player>, other: &ActorRef<Player>) {
    player.ask(Meet(other.clone())).await.expect("a player answers");
}

struct Increment;
struct Retrieve(ActorRef<Producer>);
struct Count(u64);

struct Counter {
    count: u64,
}

struct Producer {
    counter: ActorRef<Counter>,
    batch: u64,
    batches_left: u64,
    done: Done,
}

impl Producer {
    fn produce(&mut self, me: &ActorRef<Producer>, counted: u64) {
        if self.batches_left > 0 {
            self.batches_left -= 1;
            for _ in 0..self.batch {
                tell(&self.counter, Increment);
            }
            tell(&self.counter, Retrieve(me.clone()));
        } else {
            report(&mut self.done, counted);
        }
    }
}

actor!(Counter);
handles!(Counter, Increment, |state, Increment, _ctx| { state.count += 1 });
handles!(Counter, Retrieve, |state, Retrieve(asker), _ctx| { tell(&asker, Count(state.count)) });
actor!(Producer);
handles!(Producer, Start, |state, Start(batches, done), ctx| {
    (state.batches_left, state.done) = (batches, done);
    state.produce(ctx.actor_ref(), 0);
});
handles!(Producer, Count, |state, Count(counted), ctx| { state.produce(ctx.actor_ref(), counted) });

async fn counting(batch: u64, batches: u64) -> Duration {
    let counter = spawn(Counter { count: 0 });
    let producer = spawn(Producer { counter: counter.clone(), batch, batches_left: 0, done: None });
    counter.wait_for_startup().await;
    producer.wait_for_startup().await;
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    tell(&producer, Start(batches, Some(done)));
    let counted = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(counted, batch * batches);
    elapsed
}

struct Next(ActorRef<Node>, Done);
struct Token(u64);

#[derive(Default)]
struct Node {
    next: Option<ActorRef<Node>>,
    done: Done,
}

actor!(Node);
handles!(Node, Next, |state, Next(next, done), _ctx| { (state.next, state.done) = (Some(next), done) });
handles!(Node, Token, |state, Token(hops_left), _ctx| {
    match hops_left {
        0 => report(&mut state.done, 0),
        _ => tell(state.next.as_ref().expect("linked"), Token(hops_left - 1)),
    }
});

async fn thread_ring(hops: u64) -> Duration {
    let nodes: Vec<ActorRef<Node>> = (0..RING_ACTORS).map(|_| spawn(Node::default())).collect();
    let (done, end) = oneshot::channel();
    let mut done = Some(done);
    for i in 0..RING_ACTORS {
        let done = if i == hops % RING_ACTORS { done.take() } else { None };
        let next = Next(nodes[((i + 1) % RING_ACTORS) as usize].clone(), done);
        nodes[i as usize].ask(next).await.expect("a node answers");
    }
    let start = Instant::now();
    tell(&nodes[0], Token(hops));
    end.await.expect("the token ends where its hops say");
    start.elapsed()
}

struct Work;
struct Complete;
struct Workers(Vec<ActorRef<Worker>>);

struct Worker {
    source: ActorRef<Source>,
    messages: u64,
    seen: u64,
}

struct Source {
    workers: Vec<ActorRef<Worker>>,
    messages: u64,
    rounds_left: u64,
    complete: u64,
    done: Done,
}

impl Source {
    fn spread(&mut self) {
        if self.rounds_left > 0 {
            self.rounds_left -= 1;
            for _ in 0..self.messages {
                self.workers.iter().for_each(|worker| tell(worker, Work));
            }
        } else {
            report(&mut self.done, self.complete);
        }
    }
}

actor!(Worker);
handles!(Worker, Work, |state, Work, _ctx| {
    state.seen += 1;
    if state.seen == state.messages {
        state.seen = 0;
        tell(&state.source, Complete);
    }
});
actor!(Source);
handles!(Source, Workers, |state, Workers(workers), _ctx| { state.workers = workers });
handles!(Source, Start, |state, Start(rounds, done), _ctx| {
    (state.rounds_left, state.done) = (rounds, done);
    state.spread();
});
handles!(Source, Complete, |state, Complete, _ctx| {
    state.complete += 1;
    if state.complete.is_multiple_of(FORK_JOIN_ACTORS) {
        state.spread();
    }
});

async fn fork_join_throughput(messages: u64, rounds: u64) -> Duration {
    let source = spawn(Source { workers: Vec::new(), messages, rounds_left: 0, complete: 0, done: None });
    let mut workers = Vec::new();
    for _ in 0..FORK_JOIN_ACTORS {
        let worker = spawn(Worker { source: source.clone(), messages, seen: 0 });
        worker.wait_for_startup().await;
        workers.push(worker);
    }
    source.ask(Workers(workers)).await.expect("the source answers");
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    tell(&source, Start(rounds, Some(done)));
    let complete = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(complete, FORK_JOIN_ACTORS * rounds);
    elapsed
}

struct Nodes(Arc<Vec<ActorRef<Big>>>);
struct Go;
struct PingFrom(u32);
struct Finished;

struct Big {
    me: u32,
    nodes: Arc<Vec<ActorRef<Big>>>,
    sink: ActorRef<Sink>,
    random: u64,
    pings_left: u64,
}

struct Sink {
    expected: u64,
    finished: u64,
    done: Done,
}

impl Big {
    fn ping(&mut self) {
        if self.pings_left > 0 {
            self.pings_left -= 1;
            let to = partner(&mut self.random);
            tell(&self.nodes[to as usize], PingFrom(self.me));
        } else {
            tell(&self.sink, Finished);
        }
    }
}

actor!(Big);
handles!(Big, Nodes, |state, Nodes(nodes), _ctx| { state.nodes = nodes });
handles!(Big, Go, |state, Go, _ctx| { state.ping() });
handles!(Big, Pong, |state, Pong, _ctx| { state.ping() });
handles!(Big, PingFrom, |state, PingFrom(from), _ctx| { tell(&state.nodes[from as usize], Pong) });
actor!(Sink);
handles!(Sink, Finished, |state, Finished, _ctx| {
    state.finished += 1;
    if state.finished == state.expected {
        report(&mut state.done, state.finished);
    }
});

async fn big(pings: u64) -> Duration {
    let (done, end) = oneshot::channel();
    let sink = spawn(Sink { expected: BIG_ACTORS, finished: 0, done: Some(done) });
    let nobody = Arc::new(Vec::new());
    let node =
        |i: u64| Big { me: i as u32, nodes: nobody.clone(), sink: sink.clone(), random: seed(i), pings_left: pings };
    let nodes: Arc<Vec<ActorRef<Big>>> = Arc::new((0..BIG_ACTORS).map(|i| spawn(node(i))).collect());
    for node in nodes.iter() {
        node.ask(Nodes(nodes.clone())).await.expect("a node answers");
    }
    let start = Instant::now();
    nodes.iter().for_each(|node| tell(node, Go));
    end.await.expect("the case ends");
    start.elapsed()
}

struct Driver {
    actors: u64,
    rounds_left: u64,
    complete: u64,
    done: Done,
}

struct Brief(ActorRef<Driver>);

impl Driver {
    fn create(&mut self, me: &ActorRef<Driver>) {
        if self.rounds_left > 0 {
            self.rounds_left -= 1;
            for _ in 0..self.actors {
                tell(&spawn(Brief(me.clone())), Work);
            }
        } else {
            report(&mut self.done, self.complete);
        }
    }
}

actor!(Brief);
handles!(Brief, Work, |state, Work, ctx| {
    tell(&state.0, Complete);
    ctx.stop();
});
actor!(Driver);
handles!(Driver, Start, |state, Start(rounds, done), ctx| {
    (state.rounds_left, state.done) = (rounds, done);
    state.create(ctx.actor_ref());
});
handles!(Driver, Complete, |state, Complete, ctx| {
    state.complete += 1;
    if state.complete.is_multiple_of(state.actors) {
        state.create(ctx.actor_ref());
    }
});

async fn fork_join_create(actors: u64, rounds: u64) -> Duration {
    let driver = spawn(Driver { actors, rounds_left: 0, complete: 0, done: None });
    driver.wait_for_startup().await;
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    tell(&driver, Start(rounds, Some(done)));
    let complete = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(complete, actors * rounds);
    elapsed
}

/// An ask of [`Echo`].
pub struct Ask(u64);

/// An actor that answers a number with the sum of all it has been sent.
pub struct Echo(u64);

actor!(Echo);
handles!(Echo, Ask => u64, |state, Ask(value), _ctx| {
    state.0 += value;
    state.0
});

pub async fn echo() -> ActorRef<Echo> {
    let echo = spawn(Echo(0));
    echo.wait_for_startup().await;
    echo
}

pub async fn ask(echo: &ActorRef<Echo>, value: u64) -> u64 {
    echo.ask(Ask(value)).send().await.expect("the echo actor answers")
}

/// Actors with 8 bytes of state, each of which has handled one message and waits for the next.
pub async fn idle(actors: u64) -> Vec<ActorRef<Echo>> {
    let mut idle = Vec::with_capacity(actors as usize);
    for i in 0..actors {
        let actor = spawn(Echo(i));
        ask(&actor, 1).await;
        idle.push(actor);
    }
    idle
}
