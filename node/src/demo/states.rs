//! The states of all actors of the demo, and how two sets of them differ.

use std::collections::BTreeMap;
use std::fmt;

use ringhold_kernels::actor::Actor;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::json::{self, TypeNames};
use ringhold_kernels::plain::Plain;
use ringhold_kernels::schema::{Field, Type};

use super::actors::{aircraft, airport, carrier};

/// The states of the demo's actors.
#[derive(Default)]
pub struct States {
    pub aircraft: BTreeMap<Key, aircraft::State>,
    pub airports: BTreeMap<Key, airport::State>,
    pub carriers: BTreeMap<Key, carrier::State>,
}

/// What came of comparing the states found with those expected.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Actors that were found.
    pub actors: usize,
    /// Messages that actors ought to have handled and did not.
    pub lost: u64,
    /// Messages that actors handled more often than once.
    pub duplicated: u64,
    /// Actors whose state differs in some way.
    pub differing: u64,
    /// The first few differences.
    pub differences: Vec<Difference>,
}

/// One field of one actor that is not as expected. Values are JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    pub actor: String,
    pub field: String,
    pub expected: String,
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is {}, expected {}", self.actor, self.field, self.found, self.expected)
    }
}

const DIFFERENCES_MAX: usize = 12;
const DIFFERENCES_PER_ACTOR_MAX: usize = 3;

impl States {
    pub fn len(&self) -> usize {
        self.aircraft.len() + self.airports.len() + self.carriers.len()
    }

    /// The ids of all actors there are.
    pub fn ids(&self) -> Vec<ActorId> {
        let aircraft = self.aircraft.keys().map(|key| ActorId::new(aircraft::Actor::TYPE, *key));
        let airports = self.airports.keys().map(|key| ActorId::new(airport::Actor::TYPE, *key));
        let carriers = self.carriers.keys().map(|key| ActorId::new(carrier::Actor::TYPE, *key));
        aircraft.chain(airports).chain(carriers).collect()
    }

    /// Messages that made them.
    pub fn messages(&self) -> u64 {
        fn sum<S: Tally>(states: &BTreeMap<Key, S>) -> u64 {
            states.values().map(|state| state.tally().0).sum()
        }
        sum(&self.aircraft) + sum(&self.airports) + sum(&self.carriers)
    }

    /// Adds the state of one actor. False where the bytes are no state of its type, or it has none of these types.
    pub fn insert(&mut self, id: ActorId, state: &[u8]) -> bool {
        fn put<S: Plain>(states: &mut BTreeMap<Key, S>, key: Key, bytes: &[u8]) -> bool {
            let state = S::from_bytes(bytes).filter(|_| bytes.len() == S::SIZE);
            state.map(|state| states.insert(key, state)).is_some()
        }
        match id.type_id {
            aircraft::Actor::TYPE => put(&mut self.aircraft, id.key, state),
            airport::Actor::TYPE => put(&mut self.airports, id.key, state),
            carrier::Actor::TYPE => put(&mut self.carriers, id.key, state),
            _ => false,
        }
    }

    /// Compares these, the expected states, with those found.
    pub fn check(&self, found: &States) -> Check {
        let mut check = Check { actors: found.len(), ..Check::default() };
        check.compare::<carrier::Actor>(&self.carriers, &found.carriers);
        check.compare::<airport::Actor>(&self.airports, &found.airports);
        check.compare::<aircraft::Actor>(&self.aircraft, &found.aircraft);
        check
    }
}

impl Check {
    pub fn passed(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.differing == 0
    }

    /// Counts actors that exist and that nobody expected.
    pub fn strays(&mut self, strays: u64) {
        if strays > 0 {
            self.differing += strays;
            let (field, expected, found) = ("number".into(), "0".into(), strays.to_string());
            self.note(Difference { actor: "actors besides those expected".into(), field, expected, found });
        }
    }

    fn compare<A: Actor<State: Tally>>(&mut self, expected: &BTreeMap<Key, A::State>, found: &BTreeMap<Key, A::State>) {
        for (key, expected) in expected {
            self.compare_actor::<A>(*key, Some(expected), found.get(key));
        }
        for (key, found) in found.iter().filter(|(key, _)| !expected.contains_key(key)) {
            self.compare_actor::<A>(*key, None, Some(found));
        }
    }

    fn compare_actor<A: Actor<State: Tally>>(
        &mut self,
        key: Key,
        expected: Option<&A::State>,
        found: Option<&A::State>,
    ) {
        let bytes = |state: Option<&A::State>| state.map(Plain::to_bytes);
        let (expected_bytes, found_bytes) = (bytes(expected), bytes(found));
        if expected_bytes == found_bytes {
            return;
        }
        self.differing += 1;
        let tally = |state: Option<&A::State>| state.map_or((0, [0; 2]), Tally::tally);
        let ((expected_messages, expected_hashes), (found_messages, found_hashes)) = (tally(expected), tally(found));
        self.lost += expected_messages.saturating_sub(found_messages);
        self.duplicated += found_messages.saturating_sub(expected_messages);
        if expected_messages == found_messages && expected_hashes != found_hashes {
            // As many as expected, and not the same ones: at least one is missing, and another came for it.
            self.lost += 1;
            self.duplicated += 1;
        }
        self.explain::<A>(key, expected_bytes.as_deref(), found_bytes.as_deref());
    }

    fn explain<A: Actor>(&mut self, key: Key, expected: Option<&[u8]>, found: Option<&[u8]>) {
        let actor = format!("{} {key}", A::NAME);
        let (Some(expected), Some(found)) = (expected, found) else {
            let presence = |state: Option<&[u8]>| if state.is_some() { "there" } else { "missing" }.to_string();
            let field = "the actor".into();
            return self.note(Difference { actor, field, expected: presence(expected), found: presence(found) });
        };
        let Type::Struct(state) = A::State::describe() else { unreachable!("a state is a struct") };
        let range = |field: &Field| field.offset as usize..field.offset as usize + field.ty.size();
        let differ = |field: &&Field| expected[range(field)] != found[range(field)];
        for field in state.fields.iter().filter(differ).take(DIFFERENCES_PER_ACTOR_MAX) {
            let text = |state: &[u8]| {
                let bytes = &state[range(field)];
                json::from_bytes(&field.ty, bytes, &TypeNames::default())
                    .map_or_else(|| format!("{bytes:02x?}"), |value| value.to_string())
            };
            let (expected, found) = (text(expected), text(found));
            self.note(Difference { actor: actor.clone(), field: field.name.clone(), expected, found });
        }
    }

    fn note(&mut self, difference: Difference) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference);
        }
    }
}

/// What a state knows about the messages that made it.
trait Tally: Plain {
    /// How many there were, and hashes of which they were that do not depend on their order (0 where none are kept).
    fn tally(&self) -> (u64, [u64; 2]);
}

impl Tally for aircraft::State {
    fn tally(&self) -> (u64, [u64; 2]) {
        (self.flown as u64 + self.diverted as u64 + self.cancelled as u64, [0; 2])
    }
}

impl Tally for airport::State {
    fn tally(&self) -> (u64, [u64; 2]) {
        (self.received, [self.received_sum, self.received_xor])
    }
}

impl Tally for carrier::State {
    fn tally(&self) -> (u64, [u64; 2]) {
        (self.received, [self.received_sum, self.received_xor])
    }
}
