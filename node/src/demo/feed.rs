//! Flights as messages to aircraft: what the client sends.

use std::collections::HashMap;

use ringhold_kernels::id::Key;

use super::actors::aircraft::Message;
use super::flights::{Flight, Outcome};

/// Each flight's aircraft and message, in the order given. Flights are numbered from 1 over all (`sequence`) and
/// for each aircraft (`leg`).
pub fn messages(flights: &[Flight]) -> impl Iterator<Item = (Key, Message)> + '_ {
    let mut legs: HashMap<Key, u32> = HashMap::new();
    flights.iter().zip(1u32..).map(move |(flight, sequence)| {
        let leg = legs.entry(flight.aircraft).and_modify(|leg| *leg += 1).or_insert(1);
        (flight.aircraft, message(flight, sequence, *leg))
    })
}

fn message(flight: &Flight, sequence: u32, leg: u32) -> Message {
    // Names of three and two letters, packed: they fit.
    let (origin, destination) = (flight.origin.0 as u32, flight.destination.0 as u32);
    let carrier = flight.carrier.0 as u16;
    let (scheduled, block) = (flight.scheduled, flight.block);
    match flight.outcome {
        Outcome::Flown { departure_delay, arrival_delay } => Message::Flown {
            sequence,
            leg,
            scheduled,
            origin,
            destination,
            carrier,
            block,
            departure_delay,
            arrival_delay,
        },
        Outcome::Diverted { departure_delay } => {
            Message::Diverted { sequence, leg, scheduled, origin, destination, carrier, departure_delay }
        }
        Outcome::Cancelled => Message::Cancelled { sequence, leg, origin, destination, carrier },
    }
}
