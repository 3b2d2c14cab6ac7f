//! The demo's logic without a node: the handlers run one by one, in this thread, over all flights.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ringhold_kernels::actor::Actor;
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::plain::Plain;
use ringhold_kernels::trial::{self, Outcome};

use super::actors::{aircraft, airport, carrier};
use super::feed;
use super::flights::{self, Flight};
use super::reference::Reference;
use super::report::Run;
use super::states::{Check, Difference, States};

/// Actors and what waits for them.
#[derive(Default)]
struct Mill {
    states: HashMap<ActorId, Vec<u8>>,
    waiting: VecDeque<(ActorId, ActorId, Vec<u8>)>,
    handled: u64,
}

impl Mill {
    /// All flights through the actors. `tamper` says how often to deliver each message, given its receiver and its
    /// number from 0.
    fn run(flights: &[Flight], mut tamper: impl FnMut(ActorId, u64) -> u32) -> Mill {
        let mut mill = Mill::default();
        let mut number = 0;
        for (aircraft, message) in feed::messages(flights) {
            mill.waiting.push_back((aircraft::id(aircraft.0), ActorId::default(), message.to_bytes()));
            // A different backlog each time, so that airports hear from aircraft in another order.
            while mill.waiting.len() > number as usize % 7 {
                let (to, from, payload) = mill.waiting.pop_front().expect("just seen that there is one");
                for _ in 0..tamper(to, number) {
                    mill.handle(to, from, &payload);
                }
                number += 1;
            }
        }
        while let Some((to, from, payload)) = mill.waiting.pop_front() {
            mill.handle(to, from, &payload);
        }
        mill
    }

    fn handle(&mut self, to: ActorId, from: ActorId, payload: &[u8]) {
        type Handler = fn(&mut [u8], &[u8], ActorId, ActorId, Hlc) -> Outcome;
        let (handler, size): (Handler, usize) = match to.type_id {
            aircraft::Actor::TYPE => (trial::run::<aircraft::Actor>, aircraft::State::SIZE),
            airport::Actor::TYPE => (trial::run::<airport::Actor>, airport::State::SIZE),
            carrier::Actor::TYPE => (trial::run::<carrier::Actor>, carrier::State::SIZE),
            TypeId(other) => panic!("a message to type {other:08x}"),
        };
        self.handled += 1;
        let state = self.states.entry(to).or_insert_with(|| vec![0; size]);
        let outcome = handler(state, payload, to, from, Hlc(self.handled));
        assert_eq!(outcome.fault, None);
        assert!(!outcome.stopped && outcome.reply.is_none());
        self.waiting.extend(outcome.sends.into_iter().map(|sent| (sent.to, to, sent.payload)));
    }

    fn states(&self) -> States {
        let mut states = States::default();
        for (id, state) in &self.states {
            assert!(states.insert(*id, state), "{id:?}");
        }
        states
    }
}

fn name(text: &str) -> Key {
    Key::name(text).unwrap()
}

#[test]
fn the_actors_agree_with_the_reference_on_every_flight() {
    let flights = flights::shipped().unwrap();
    let reference = Reference::of(&flights);
    let mill = Mill::run(&flights, |_, _| 1);
    let check = reference.states.check(&mill.states());
    assert_eq!(check, Check { actors: 4044 + 107 + 16, ..Check::default() });
    assert!(check.passed());
    assert_eq!(mill.handled, reference.messages);
}

/// Figures that `make.py` computed from the package's rows, by code of its own.
#[test]
fn the_reference_agrees_with_figures_computed_elsewhere() {
    let reference = Reference::of(&flights::shipped().unwrap());
    let (airports, carriers) = (&reference.states.airports, &reference.states.carriers);

    let knock_ons: u32 = carriers.values().map(|state| state.knock_ons).sum();
    let minutes: i64 = carriers.values().map(|state| state.knock_on_minutes).sum();
    assert_eq!((knock_ons, minutes), (10_000, 321_257));
    let began = |code| airports[&name(code)].knock_on_minutes_caused;
    assert_eq!(["DCA", "CLT", "RDU", "BUF", "CHS"].map(began), [23_138, 18_824, 18_198, 15_030, 10_772]);
    let suffered = |code| airports[&name(code)].knock_on_minutes_suffered;
    assert_eq!(["EWR", "JFK", "LGA"].map(suffered), [125_922, 101_416, 93_919]);
    let of = |code| carriers[&name(code)].knock_on_minutes;
    assert_eq!(["EV", "B6", "MQ"].map(of), [133_237, 85_690, 36_796]);

    let flights = |code| carriers[&name(code)].flights;
    assert_eq!(["UA", "B6", "OO"].map(flights), [58_665, 54_635, 32]);
    assert_eq!(carriers.values().map(|state| state.cancelled).sum::<u32>(), 8_255);
    assert_eq!(carriers.values().map(|state| state.departure_delay_minutes).sum::<i64>(), 4_152_200);
    assert_eq!(airports.values().map(|state| state.arrival_delay_minutes).sum::<i64>(), 2_257_174);
    // The longest delay of a departure in the package's rows is 1,301 minutes.
    assert_eq!(airports.values().map(|state| state.worst_delay).max(), Some(1_301));
    assert_eq!(reference.states.aircraft[&flights::NO_TAIL].cancelled, 2_512);
}

#[test]
fn a_lost_and_a_doubled_message_are_found_and_named() {
    let flights = &flights::shipped().unwrap()[..20_000];
    let reference = Reference::of(flights);
    let check =
        |tamper: &mut dyn FnMut(ActorId, u64) -> u32| reference.states.check(&Mill::run(flights, tamper).states());

    // The 1,000th message is lost: it, and what would have come of it.
    let lost = check(&mut |_, number| (number != 1_000) as u32);
    assert!(lost.lost >= 1 && lost.duplicated == 0 && lost.differing >= 1 && !lost.passed(), "{lost:?}");

    let doubled = check(&mut |_, number| 1 + (number == 1_000) as u32);
    assert!(doubled.duplicated >= 1 && doubled.lost == 0 && !doubled.passed(), "{doubled:?}");

    // Newark gets one message twice and never gets another: the counts agree, the hashes do not.
    let mut received = 0;
    let swapped = check(&mut |to, _| {
        received += (to == airport::id(name("EWR").0)) as u32;
        match received {
            100 if to == airport::id(name("EWR").0) => 2,
            101 if to == airport::id(name("EWR").0) => 0,
            _ => 1,
        }
    });
    assert_eq!((swapped.lost, swapped.duplicated, swapped.differing), (1, 1, 1), "{swapped:?}");
}

#[test]
fn a_state_that_differs_is_shown_by_field() {
    let flights = &flights::shipped().unwrap()[..1_000];
    let reference = Reference::of(flights);
    let mut found = Reference::of(flights).states;
    found.airports.get_mut(&name("JFK")).unwrap().departures += 1;
    found.carriers.remove(&name("HA"));
    let check = reference.states.check(&found);
    assert_eq!(check.differing, 2);
    assert_eq!(check.lost, reference.states.carriers[&name("HA")].received);
    assert_eq!(check.duplicated, 0);
    let missing = Difference {
        actor: "carrier HA".into(),
        field: "the actor".into(),
        expected: "there".into(),
        found: "missing".into(),
    };
    assert_eq!(check.differences[0], missing);
    let expected = reference.states.airports[&name("JFK")].departures;
    let text = format!("airport JFK: departures is {}, expected {expected}", expected + 1);
    assert_eq!(check.differences[1].to_string(), text);
}

#[test]
fn the_report_names_the_worst_and_gives_the_verdict() {
    let flights = flights::shipped().unwrap();
    let reference = Reference::of(&flights);
    let found = &reference.states;
    let check = reference.states.check(found);
    let run = |check| Run {
        flights: &flights,
        found,
        check,
        messages: reference.messages,
        messages_expected: reference.messages,
        streaming: Duration::from_secs(2),
        nodes: 1,
        device: "cpu".into(),
        recoveries: None,
        failover: None,
    };
    let text = run(&check).text();
    for line in ["DCA", "Ronald Reagan Washington Natl", "Frontier Airlines Inc.", "336,776 (168,388 a second)"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.contains("Every actor's state is what"));
    let json = run(&check).json();
    assert_eq!(json["events"], 336_776);
    assert_eq!((&json["lost"], &json["duplicated"]), (&0.into(), &0.into()));
    assert_eq!((&json["actors"], &json["matches_reference"]), (&4167.into(), &true.into()));
    assert_eq!((&json["events_per_second"], &json["device"]), (&168_388.into(), &"cpu".into()));

    let failed = Check { lost: 3, differing: 1, ..Check::default() };
    assert!(run(&failed).text().contains("do NOT agree"));
    assert_eq!(run(&failed).json()["matches_reference"], false);
}
