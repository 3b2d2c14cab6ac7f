//! What every actor's state ought to be at the end: the same computation in plain sequential Rust.
//!
//! It shares the layout of the states with the actors, and the definition of a knock-on delay; no code. It
//! goes aircraft by aircraft, where the actors go flight by flight.

use std::collections::BTreeMap;

use ringhold_kernels::id::Key;
use ringhold_kernels::plain::Plain;

use super::actors::aircraft;
use super::flights::{Flight, Outcome};
use super::states::States;

/// What is expected of the actors that the flights bring to life.
pub struct Reference {
    pub states: States,
    /// Messages handled by all of them: the flights themselves and what the aircraft send on.
    pub messages: u64,
}

/// The minutes that a flight's aircraft brought along from its flight before, `None` if it did not come late.
struct KnockOn {
    minutes: i64,
    began_at: Key,
}

/// Gate to gate, both at the destination and back in New York.
const TURN_AROUND: i64 = 30;
const LATE: i16 = 15;

impl Reference {
    pub fn of(flights: &[Flight]) -> Reference {
        let mut by_aircraft: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (index, flight) in flights.iter().enumerate() {
            by_aircraft.entry(flight.aircraft).or_default().push(index);
        }

        let mut states = States::default();
        let mut knock_ons: Vec<Option<KnockOn>> = flights.iter().map(|_| None).collect();
        for (key, legs) in by_aircraft {
            let moved: Vec<usize> =
                legs.iter().copied().filter(|leg| flights[*leg].outcome != Outcome::Cancelled).collect();
            for pair in moved.windows(2) {
                knock_ons[pair[1]] = knock_on(&flights[pair[0]], &flights[pair[1]]);
            }
            states.aircraft.insert(key, expect_aircraft(flights, &legs, &knock_ons));
        }
        for ((flight, knock_on), sequence) in flights.iter().zip(&knock_ons).zip(1u32..) {
            expect_carrier(&mut states, flight, knock_on.as_ref(), sequence);
            expect_airports(&mut states, flight, knock_on.as_ref(), sequence);
        }
        let onward = states.airports.values().map(|state| state.received).sum::<u64>()
            + states.carriers.values().map(|state| state.received).sum::<u64>();
        Reference { states, messages: flights.len() as u64 + onward }
    }
}

fn expect_carrier(states: &mut States, flight: &Flight, knock_on: Option<&KnockOn>, sequence: u32) {
    let state = states.carriers.entry(flight.carrier).or_insert_with(zero);
    state.flights += 1;
    let kind = match flight.outcome {
        Outcome::Flown { .. } => 1,
        Outcome::Diverted { .. } => 2,
        Outcome::Cancelled => 3,
    };
    note((&mut state.received, &mut state.received_sum, &mut state.received_xor), sequence, kind);
    state.cancelled += (flight.outcome == Outcome::Cancelled) as u32;
    state.diverted += matches!(flight.outcome, Outcome::Diverted { .. }) as u32;
    if let Some(delay) = departure_delay(flight) {
        state.departure_delay_minutes += delay as i64;
        state.departures_late += (delay >= LATE) as u32;
    }
    if let Outcome::Flown { arrival_delay, .. } = flight.outcome {
        state.arrival_delay_minutes += arrival_delay as i64;
        state.arrivals_late += (arrival_delay >= LATE) as u32;
    }
    if let Some(knock_on) = knock_on {
        state.knock_ons += 1;
        state.knock_on_minutes += knock_on.minutes;
    }
}

fn expect_airports(states: &mut States, flight: &Flight, knock_on: Option<&KnockOn>, sequence: u32) {
    let origin = states.airports.entry(flight.origin).or_insert_with(zero);
    let left = departure_delay(flight);
    let noted = (&mut origin.received, &mut origin.received_sum, &mut origin.received_xor);
    note(noted, sequence, if left.is_some() { 1 } else { 2 });
    match left {
        Some(delay) => {
            origin.departures += 1;
            origin.departures_late += (delay >= LATE) as u32;
            origin.departure_delay_minutes += delay as i64;
            origin.worst_delay = origin.worst_delay.max(delay as i32);
        }
        None => origin.cancelled += 1,
    }
    if let Some(knock_on) = knock_on {
        origin.knock_ons_suffered += 1;
        origin.knock_on_minutes_suffered += knock_on.minutes;
    }

    let destination = states.airports.entry(flight.destination).or_insert_with(zero);
    let noted = (&mut destination.received, &mut destination.received_sum, &mut destination.received_xor);
    if let Outcome::Flown { arrival_delay, .. } = flight.outcome {
        note(noted, sequence, 3);
        destination.arrivals += 1;
        destination.arrivals_late += (arrival_delay >= LATE) as u32;
        destination.arrival_delay_minutes += arrival_delay as i64;
        destination.worst_delay = destination.worst_delay.max(arrival_delay as i32);
    } else {
        note(noted, sequence, 4);
        destination.missed += 1;
    }

    if let Some(knock_on) = knock_on {
        let began_at = states.airports.entry(knock_on.began_at).or_insert_with(zero);
        note((&mut began_at.received, &mut began_at.received_sum, &mut began_at.received_xor), sequence, 5);
        began_at.knock_ons_caused += 1;
        began_at.knock_on_minutes_caused += knock_on.minutes;
    }
}

/// The knock-on that `previous` leaves `flight`, two flights of one aircraft in a row.
fn knock_on(previous: &Flight, flight: &Flight) -> Option<KnockOn> {
    let Outcome::Flown { arrival_delay, .. } = previous.outcome else { return None };
    let lands = previous.scheduled as i64 + previous.block as i64;
    let back = lands + TURN_AROUND + previous.block as i64 + TURN_AROUND;
    let slack = (flight.scheduled as i64 - back).max(0);
    let minutes = (arrival_delay as i64 - slack).min(departure_delay(flight)? as i64);
    (minutes > 0).then_some(KnockOn { minutes, began_at: previous.destination })
}

fn departure_delay(flight: &Flight) -> Option<i16> {
    match flight.outcome {
        Outcome::Flown { departure_delay, .. } | Outcome::Diverted { departure_delay } => Some(departure_delay),
        Outcome::Cancelled => None,
    }
}

/// One aircraft from all its flights (`legs`, indexes in order).
fn expect_aircraft(flights: &[Flight], legs: &[usize], knock_ons: &[Option<KnockOn>]) -> aircraft::State {
    let count = |is: fn(&Outcome) -> bool| legs.iter().filter(|leg| is(&flights[**leg].outcome)).count() as u32;
    let suffered: Vec<(i64, u32)> =
        legs.iter().filter_map(|leg| Some((knock_ons[*leg].as_ref()?.minutes, *leg as u32 + 1))).collect();
    // Of knock-ons of one length, the first.
    let worst = suffered.iter().copied().max_by_key(|(minutes, sequence)| (*minutes, std::cmp::Reverse(*sequence)));
    let last = legs.iter().rev().map(|leg| &flights[*leg]).find(|flight| flight.outcome != Outcome::Cancelled);
    let (last_airport, last_delay, ready) = match last {
        Some(Flight { outcome: Outcome::Flown { arrival_delay, .. }, destination, scheduled, block, .. }) => {
            let ready = *scheduled as i64 + 2 * (*block as i64 + TURN_AROUND);
            (destination.0 as u32, *arrival_delay as i32, ready as u32)
        }
        _ => (0, 0, 0),
    };
    aircraft::State {
        flown: count(|outcome| matches!(outcome, Outcome::Flown { .. })),
        diverted: count(|outcome| matches!(outcome, Outcome::Diverted { .. })),
        cancelled: count(|outcome| matches!(outcome, Outcome::Cancelled)),
        knock_ons: suffered.len() as u32,
        knock_on_minutes: suffered.iter().map(|(minutes, _)| *minutes as u32).sum(),
        worst_knock_on: worst.map_or(0, |(minutes, _)| minutes as u32),
        worst_sequence: worst.map_or(0, |(_, sequence)| sequence),
        last_airport,
        last_delay,
        ready,
        leg: legs.len() as u32,
        skipped: 0,
        repeated: 0,
        order: legs.iter().fold(0, |order: u64, leg| (order ^ (*leg as u64 + 1)).wrapping_mul(0x0000_0100_0000_01b3)),
    }
}

/// Counts a message into an airport's or a carrier's tally: number, sum and exclusive or of hashes.
fn note((received, sum, xor): (&mut u64, &mut u64, &mut u64), sequence: u32, kind: u64) {
    let hash = splitmix64(sequence as u64 * 256 + kind);
    *received += 1;
    *sum = sum.wrapping_add(hash);
    *xor ^= hash;
}

/// The output function of splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
fn splitmix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What every actor's state starts as.
fn zero<T: Plain>() -> T {
    T::from_bytes(&vec![0; T::SIZE]).expect("zero bytes are a value of every plain type")
}
