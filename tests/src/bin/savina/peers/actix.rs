//! The cases on actix: one type a message, `do_send` to typed addresses.
//!
//! actix runs an actor on the single-threaded runtime of one arbiter. Its flavours are therefore one arbiter
//! for all actors, and one arbiter a core with the actors dealt out in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::actix::{Actor, Addr, Arbiter, ArbiterHandle, AsyncContext, Context, Handler, Message, System};
use tokio::sync::oneshot;

use super::{Done, report};
use crate::definitions::{BIG_ACTORS, Case, FORK_JOIN_ACTORS, RING_ACTORS, Runner, Shape, partner, seed};

/// Where actors run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actix {
    OneArbiter,
    ArbiterPerCore,
}

impl Runner for Actix {
    fn name(&self) -> &'static str {
        "actix"
    }

    fn flavour(&self) -> &'static str {
        match self {
            Actix::OneArbiter => "one arbiter (tokio current-thread)",
            Actix::ArbiterPerCore => "one arbiter a core",
        }
    }

    fn run(&self, case: Case, shape: &Shape, n: u64) -> Duration {
        let shape = *shape;
        self.block_on(async |place| match case {
            Case::PingPong => ping_pong(place, n).await,
            Case::Counting => counting(place, shape.counting_batch, n).await,
            Case::ThreadRing => thread_ring(place, n).await,
            Case::ForkJoinThroughput => fork_join_throughput(place, shape.fork_join_messages, n).await,
            Case::Big => big(place, n).await,
            Case::ForkJoinCreate => fork_join_create(place, shape.create_actors, n).await,
        })
    }
}

impl Actix {
    pub const BOTH: [Actix; 2] = [Actix::OneArbiter, Actix::ArbiterPerCore];

    /// Runs `body` in a fresh system.
    pub fn block_on<T>(self, body: impl AsyncFnOnce(&Place) -> T) -> T {
        let system = System::new();
        system.block_on(async {
            let arbiters: Vec<Arbiter> = match self {
                Actix::OneArbiter => Vec::new(),
                Actix::ArbiterPerCore => {
                    let cores = std::thread::available_parallelism().map_or(1, usize::from);
                    (0..cores).map(|_| Arbiter::new()).collect()
                }
            };
            let place = Place(arbiters.iter().map(Arbiter::handle).collect());
            let result = body(&place).await;
            for arbiter in arbiters {
                arbiter.stop();
                let _ = arbiter.join();
            }
            result
        })
    }
}

/// The arbiters actors are dealt out to; none means the caller's own.
#[derive(Clone)]
pub struct Place(Arc<[ArbiterHandle]>);

impl Place {
    fn spawn<A: Actor<Context = Context<A>> + Send>(&self, index: u64, actor: A) -> Addr<A> {
        match self.0.len() as u64 {
            0 => actor.start(),
            arbiters => A::start_in_arbiter(&self.0[(index % arbiters) as usize], |_| actor),
        }
    }
}

macro_rules! actor {
    ($name:ident) => {
        impl Actor for $name {
            type Context = Context<Self>;
        }
    };
}

macro_rules! message {
    ($message:ty) => {
        message!($message => ());
    };
    ($message:ty => $reply:ty) => {
        impl Message for $message {
            type Result = $reply;
        }
    };
}

/// What an actor does with one type of message.
macro_rules! handles {
    ($actor:ident, $message:ty, |$s:ident, $m:pat_param, $ctx:ident| $body:block) => {
        impl Handler<$message> for $actor {
            type Result = <$message as Message>::Result;

            fn handle(&mut self, $m: $message, $ctx: &mut Context<Self>) -> Self::Result {
                let $s = self;
                $body
            }
        }
    };
}

struct Start(u64, Done);
message!(Start);
struct Ping;
message!(Ping);
struct Pong;
message!(Pong);
struct Meet(Addr<Player>);
message!(Meet);

#[derive(Default)]
struct Player {
    other: Option<Addr<Player>>,
    pings_left: u64,
    pings: u64,
    done: Done,
}

impl Player {
    fn serve(&mut self) {
        if self.pings_left > 0 {
            self.pings_left -= 1;
            self.other.as_ref().expect("met").do_send(Ping);
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
    state.other.as_ref().expect("met").do_send(Pong);
});
handles!(Player, Pong, |state, Pong, _ctx| {
    state.pings += 1;
    state.serve();
});

async fn ping_pong(place: &Place, pings: u64) -> Duration {
    let ping = place.spawn(0, Player::default());
    let pong = place.spawn(1, Player::default());
    ping.send(Meet(pong.clone())).await.expect("a player answers");
    pong.send(Meet(ping.clone())).await.expect("a player answers");
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    ping.do_send(Start(pings, Some(done)));
    let seen = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(seen, pings);
    elapsed
}

struct Increment;
message!(Increment);
struct Retrieve(Addr<Producer>);
message!(Retrieve);
struct Count(u64);
message!(Count);

struct Counter {
    count: u64,
}

struct Producer {
    counter: Addr<Counter>,
    batch: u64,
    batches_left: u64,
    done: Done,
}

impl Producer {
    fn produce(&mut self, ctx: &mut Context<Self>, counted: u64) {
        if self.batches_left > 0 {
            self.batches_left -= 1;
            for _ in 0..self.batch {
                self.counter.do_send(Increment);
            }
            self.counter.do_send(Retrieve(ctx.address()));
        } else {
            report(&mut self.done, counted);
        }
    }
}

actor!(Counter);
handles!(Counter, Increment, |state, Increment, _ctx| { state.count += 1 });
handles!(Counter, Retrieve, |state, Retrieve(asker), _ctx| { asker.do_send(Count(state.count)) });
actor!(Producer);
handles!(Producer, Start, |state, Start(batches, done), ctx| {
    (state.batches_left, state.done) = (batches, done);
    state.produce(ctx, 0);
});
handles!(Producer, Count, |state, Count(counted), ctx| { state.produce(ctx, counted) });

async fn counting(place: &Place, batch: u64, batches: u64) -> Duration {
    let counter = place.spawn(0, Counter { count: 0 });
    let producer = place.spawn(1, Producer { counter, batch, batches_left: 0, done: None });
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    producer.do_send(Start(batches, Some(done)));
    let counted = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(counted, batch * batches);
    elapsed
}

struct Next(Addr<Node>, Done);
message!(Next);
struct Token(u64);
message!(Token);

#[derive(Default)]
struct Node {
    next: Option<Addr<Node>>,
    done: Done,
}

actor!(Node);
handles!(Node, Next, |state, Next(next, done), _ctx| { (state.next, state.done) = (Some(next), done) });
handles!(Node, Token, |state, Token(hops_left), _ctx| {
    match hops_left {
        0 => report(&mut state.done, 0),
        _ => state.next.as_ref().expect("linked").do_send(Token(hops_left - 1)),
    }
});

async fn thread_ring(place: &Place, hops: u64) -> Duration {
    let nodes: Vec<Addr<Node>> = (0..RING_ACTORS).map(|i| place.spawn(i, Node::default())).collect();
    let (done, end) = oneshot::channel();
    let mut done = Some(done);
    for i in 0..RING_ACTORS {
        let done = if i == hops % RING_ACTORS { done.take() } else { None };
        let next = Next(nodes[((i + 1) % RING_ACTORS) as usize].clone(), done);
        nodes[i as usize].send(next).await.expect("a node answers");
    }
    let start = Instant::now();
    nodes[0].do_send(Token(hops));
    end.await.expect("the token ends where its hops say");
    start.elapsed()
}

struct Hello;
message!(Hello);
struct Work;
message!(Work);
struct Complete;
message!(Complete);
struct Workers(Vec<Addr<Worker>>);
message!(Workers);

struct Worker {
    source: Addr<Source>,
    messages: u64,
    seen: u64,
}

struct Source {
    workers: Vec<Addr<Worker>>,
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
                self.workers.iter().for_each(|worker| worker.do_send(Work));
            }
        } else {
            report(&mut self.done, self.complete);
        }
    }
}

actor!(Worker);
handles!(Worker, Hello, |_state, Hello, _ctx| {});
handles!(Worker, Work, |state, Work, _ctx| {
    state.seen += 1;
    if state.seen == state.messages {
        state.seen = 0;
        state.source.do_send(Complete);
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

async fn fork_join_throughput(place: &Place, messages: u64, rounds: u64) -> Duration {
    let source = place.spawn(0, Source { workers: Vec::new(), messages, rounds_left: 0, complete: 0, done: None });
    let mut workers = Vec::new();
    for i in 0..FORK_JOIN_ACTORS {
        let worker = place.spawn(i, Worker { source: source.clone(), messages, seen: 0 });
        worker.send(Hello).await.expect("a worker answers");
        workers.push(worker);
    }
    source.send(Workers(workers)).await.expect("the source answers");
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    source.do_send(Start(rounds, Some(done)));
    let complete = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(complete, FORK_JOIN_ACTORS * rounds);
    elapsed
}

struct Nodes(Arc<Vec<Addr<Big>>>);
message!(Nodes);
struct Go;
message!(Go);
struct PingFrom(u32);
message!(PingFrom);
struct Finished;
message!(Finished);

struct Big {
    me: u32,
    nodes: Arc<Vec<Addr<Big>>>,
    sink: Addr<Sink>,
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
            self.nodes[to as usize].do_send(PingFrom(self.me));
        } else {
            self.sink.do_send(Finished);
        }
    }
}

actor!(Big);
handles!(Big, Nodes, |state, Nodes(nodes), _ctx| { state.nodes = nodes });
handles!(Big, Go, |state, Go, _ctx| { state.ping() });
handles!(Big, Pong, |state, Pong, _ctx| { state.ping() });
handles!(Big, PingFrom, |state, PingFrom(from), _ctx| { state.nodes[from as usize].do_send(Pong) });
actor!(Sink);
handles!(Sink, Finished, |state, Finished, _ctx| {
    state.finished += 1;
    if state.finished == state.expected {
        report(&mut state.done, state.finished);
    }
});

async fn big(place: &Place, pings: u64) -> Duration {
    let (done, end) = oneshot::channel();
    let sink = place.spawn(0, Sink { expected: BIG_ACTORS, finished: 0, done: Some(done) });
    let nobody = Arc::new(Vec::new());
    let node =
        |i: u64| Big { me: i as u32, nodes: nobody.clone(), sink: sink.clone(), random: seed(i), pings_left: pings };
    let nodes: Arc<Vec<Addr<Big>>> = Arc::new((0..BIG_ACTORS).map(|i| place.spawn(i, node(i))).collect());
    for node in nodes.iter() {
        node.send(Nodes(nodes.clone())).await.expect("a node answers");
    }
    let start = Instant::now();
    nodes.iter().for_each(|node| node.do_send(Go));
    end.await.expect("the case ends");
    start.elapsed()
}

struct Driver {
    place: Place,
    actors: u64,
    rounds_left: u64,
    complete: u64,
    done: Done,
}

struct Brief(Addr<Driver>);

impl Driver {
    fn create(&mut self, ctx: &mut Context<Self>) {
        if self.rounds_left > 0 {
            self.rounds_left -= 1;
            let me = ctx.address();
            for i in 0..self.actors {
                self.place.spawn(i, Brief(me.clone())).do_send(Work);
            }
        } else {
            report(&mut self.done, self.complete);
        }
    }
}

actor!(Brief);
handles!(Brief, Work, |state, Work, ctx| {
    state.0.do_send(Complete);
    ::actix::ActorContext::stop(ctx);
});
actor!(Driver);
handles!(Driver, Start, |state, Start(rounds, done), ctx| {
    (state.rounds_left, state.done) = (rounds, done);
    state.create(ctx);
});
handles!(Driver, Complete, |state, Complete, ctx| {
    state.complete += 1;
    if state.complete.is_multiple_of(state.actors) {
        state.create(ctx);
    }
});

async fn fork_join_create(place: &Place, actors: u64, rounds: u64) -> Duration {
    let driver = Driver { place: place.clone(), actors, rounds_left: 0, complete: 0, done: None };
    let driver = place.spawn(0, driver);
    let (done, end) = oneshot::channel();
    let start = Instant::now();
    driver.do_send(Start(rounds, Some(done)));
    let complete = end.await.expect("the case ends");
    let elapsed = start.elapsed();
    assert_eq!(complete, actors * rounds);
    elapsed
}

/// An ask of [`Echo`].
pub struct Ask(u64);
message!(Ask => u64);

/// An actor that answers a number with the sum of all it has been sent.
pub struct Echo(u64);

actor!(Echo);
handles!(Echo, Ask, |state, Ask(value), _ctx| {
    state.0 += value;
    state.0
});

pub fn echo(place: &Place) -> Addr<Echo> {
    place.spawn(0, Echo(0))
}

pub async fn ask(echo: &Addr<Echo>, value: u64) -> u64 {
    echo.send(Ask(value)).await.expect("the echo actor answers")
}

/// Actors with 8 bytes of state, each of which has handled one message and waits for the next.
pub async fn idle(place: &Place, actors: u64) -> Vec<Addr<Echo>> {
    let mut idle = Vec::with_capacity(actors as usize);
    for i in 0..actors {
        let actor = place.spawn(i, Echo(i));
        ask(&actor, 1).await;
        idle.push(actor);
    }
    idle
}
