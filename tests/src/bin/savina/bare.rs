//! The bare loop: what a person would write by hand on one thread, with no runtime.
//!
//! One queue of (actor, message), the actors' states side by side in a `Vec`, and one `match` over the kinds of
//! actors and messages there are in the program. No ids to look up, no hashing, no allocation for a message, no
//! stamps, no counters, no other thread: the mark for what a runtime costs.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::definitions::{BIG_ACTORS, Case, FORK_JOIN_ACTORS, RING_ACTORS, Runner, Shape, partner, seed};

pub struct Bare;

/// Every kind of actor in the program. Where one must know another, it is at a place agreed upon.
enum Actor {
    Ping { pings_left: u64 },
    Pong { pings: u64 },
    Producer { batch: u64, batches_left: u64, counted: u64 },
    Counter { count: u64 },
    Node { next: u32, seen: u64 },
    Source { messages: u64, rounds_left: u64, complete: u64 },
    Worker { messages: u64, seen: u64 },
    Big { random: u64, pings_left: u64 },
    Sink { finished: u64 },
    Driver { actors: u64, rounds_left: u64, complete: u64 },
    Brief { seen: u64 },
    Free,
}

enum Message {
    Start,
    Ping,
    Pong,
    Increment,
    Retrieve,
    Count(u64),
    Token(u64),
    Work,
    Complete,
    PingFrom(u32),
    Finished,
}

/// The place of the actor that drives a case, and of its opposite where there are two.
const FIRST: u32 = 0;
const SECOND: u32 = 1;
/// Where [`Case::Big`]'s sink is: behind the nodes.
const SINK: u32 = BIG_ACTORS as u32;

#[derive(Default)]
struct Program {
    actors: Vec<Actor>,
    free: Vec<u32>,
    queue: VecDeque<(u32, Message)>,
}

impl Program {
    fn send(&mut self, to: u32, message: Message) {
        self.queue.push_back((to, message));
    }

    /// Runs until nothing is queued.
    fn run(&mut self) {
        while let Some((to, message)) = self.queue.pop_front() {
            self.handle(to, message);
        }
    }

    fn handle(&mut self, me: u32, message: Message) {
        let queue = &mut self.queue;
        match (&mut self.actors[me as usize], message) {
            (Actor::Ping { pings_left }, Message::Start | Message::Pong) => {
                if *pings_left > 0 {
                    *pings_left -= 1;
                    queue.push_back((SECOND, Message::Ping));
                }
            }
            (Actor::Pong { pings }, Message::Ping) => {
                *pings += 1;
                queue.push_back((FIRST, Message::Pong));
            }

            (Actor::Counter { count }, Message::Increment) => *count += 1,
            (Actor::Counter { count }, Message::Retrieve) => queue.push_back((FIRST, Message::Count(*count))),
            (Actor::Producer { batch, batches_left, counted }, message @ (Message::Start | Message::Count(_))) => {
                if let Message::Count(count) = message {
                    *counted = count;
                }
                if *batches_left > 0 {
                    *batches_left -= 1;
                    for _ in 0..*batch {
                        queue.push_back((SECOND, Message::Increment));
                    }
                    queue.push_back((SECOND, Message::Retrieve));
                }
            }

            (Actor::Node { next, seen }, Message::Token(hops_left)) => {
                *seen += 1;
                if hops_left > 0 {
                    queue.push_back((*next, Message::Token(hops_left - 1)));
                }
            }

            (Actor::Worker { messages, seen }, Message::Work) => {
                *seen += 1;
                if *seen == *messages {
                    *seen = 0;
                    queue.push_back((FIRST, Message::Complete));
                }
            }
            (Actor::Source { messages, rounds_left, complete }, message @ (Message::Start | Message::Complete)) => {
                *complete += u64::from(matches!(message, Message::Complete));
                if complete.is_multiple_of(FORK_JOIN_ACTORS) && *rounds_left > 0 {
                    *rounds_left -= 1;
                    for _ in 0..*messages {
                        for worker in 0..FORK_JOIN_ACTORS as u32 {
                            queue.push_back((SECOND + worker, Message::Work));
                        }
                    }
                }
            }

            (Actor::Big { .. }, Message::PingFrom(from)) => queue.push_back((from, Message::Pong)),
            (Actor::Big { random, pings_left }, Message::Start | Message::Pong) => {
                if *pings_left > 0 {
                    *pings_left -= 1;
                    queue.push_back((partner(random) as u32, Message::PingFrom(me)));
                } else {
                    queue.push_back((SINK, Message::Finished));
                }
            }
            (Actor::Sink { .. }, Message::Start) => {
                for node in 0..SINK {
                    queue.push_back((node, Message::Start));
                }
            }
            (Actor::Sink { finished }, Message::Finished) => *finished += 1,

            (Actor::Brief { seen }, Message::Work) => {
                *seen += 1;
                self.actors[me as usize] = Actor::Free;
                self.free.push(me);
                queue.push_back((FIRST, Message::Complete));
            }
            (Actor::Driver { actors, rounds_left, complete }, message @ (Message::Start | Message::Complete)) => {
                *complete += u64::from(matches!(message, Message::Complete));
                if complete.is_multiple_of(*actors) && *rounds_left > 0 {
                    *rounds_left -= 1;
                    for _ in 0..*actors {
                        let place = self.free.pop().unwrap_or(self.actors.len() as u32);
                        match self.actors.get_mut(place as usize) {
                            Some(free) => *free = Actor::Brief { seen: 0 },
                            None => self.actors.push(Actor::Brief { seen: 0 }),
                        }
                        self.queue.push_back((place, Message::Work));
                    }
                }
            }
            _ => unreachable!("the program sends nobody what they do not know"),
        }
    }
}

impl Runner for Bare {
    fn name(&self) -> &'static str {
        "bare_loop"
    }

    fn flavour(&self) -> &'static str {
        "one thread"
    }

    fn run(&self, case: Case, shape: &Shape, n: u64) -> Duration {
        let mut program = Program { actors: actors(case, shape, n), ..Program::default() };
        let (first, message) = match case {
            Case::ThreadRing => (FIRST, Message::Token(n)),
            Case::Big => (SINK, Message::Start),
            _ => (FIRST, Message::Start),
        };
        let start = Instant::now();
        black_box(&mut program).send(first, message);
        program.run();
        let elapsed = start.elapsed();
        check(case, shape, n, &program.actors);
        elapsed
    }
}

fn actors(case: Case, shape: &Shape, n: u64) -> Vec<Actor> {
    match case {
        Case::PingPong => vec![Actor::Ping { pings_left: n }, Actor::Pong { pings: 0 }],
        Case::Counting => {
            let producer = Actor::Producer { batch: shape.counting_batch, batches_left: n, counted: 0 };
            vec![producer, Actor::Counter { count: 0 }]
        }
        Case::ThreadRing => {
            (0..RING_ACTORS).map(|i| Actor::Node { next: ((i + 1) % RING_ACTORS) as u32, seen: 0 }).collect()
        }
        Case::ForkJoinThroughput => {
            let messages = shape.fork_join_messages;
            let workers = (0..FORK_JOIN_ACTORS).map(|_| Actor::Worker { messages, seen: 0 });
            [Actor::Source { messages, rounds_left: n, complete: 0 }].into_iter().chain(workers).collect()
        }
        Case::Big => {
            let nodes = (0..BIG_ACTORS).map(|i| Actor::Big { random: seed(i), pings_left: n });
            nodes.chain([Actor::Sink { finished: 0 }]).collect()
        }
        Case::ForkJoinCreate => vec![Actor::Driver { actors: shape.create_actors, rounds_left: n, complete: 0 }],
    }
}

fn check(case: Case, shape: &Shape, n: u64, actors: &[Actor]) {
    let done = match (case, &actors[0]) {
        (Case::PingPong, _) => matches!(actors[1], Actor::Pong { pings } if pings == n),
        (Case::Counting, Actor::Producer { counted, .. }) => *counted == case.operations(shape, n),
        (Case::ThreadRing, _) => {
            let seen = actors.iter().map(|node| if let Actor::Node { seen, .. } = node { *seen } else { 0 });
            seen.sum::<u64>() == n + 1
        }
        (Case::ForkJoinThroughput, Actor::Source { complete, .. }) => *complete == n * FORK_JOIN_ACTORS,
        (Case::Big, _) => matches!(actors[SINK as usize], Actor::Sink { finished: BIG_ACTORS }),
        (Case::ForkJoinCreate, Actor::Driver { complete, .. }) => *complete == case.operations(shape, n),
        _ => false,
    };
    assert!(done, "the bare loop of {} lost something", case.name());
}
