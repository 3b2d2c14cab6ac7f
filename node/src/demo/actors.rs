//! The actors of the demo. A flight goes to its aircraft, and the aircraft tells airports and carrier.
//!
//! An aircraft gets its flights in the order they are scheduled, so its state may depend on that order. An
//! airport and a carrier hear from thousands of aircraft, in an order that no one promises: their states are
//! sums, counts and maxima, which come out the same in any order.
//!
//! Every state can tell whether a message was lost or came twice. An aircraft checks that its flights come
//! numbered 1, 2, 3 …; airports and carriers keep how many messages came, and the sum and the exclusive or of
//! a hash of each.

/// An aircraft: where it was last, how late, and what that did to its next flight.
///
/// **Knock-on delay** of a flight is the part of its departure delay, in whole minutes, that its aircraft
/// brought along. Every flight here leaves from New York, so between two of them the aircraft has come back:
///
/// - the earliest it could be ready by the schedule is the scheduled arrival of its previous flight, a
///   turn-around there, a flight back of the same block time, and a turn-around in New York;
/// - the *slack* is the time from then to the scheduled departure of this flight, or 0 if that is negative;
/// - the knock-on is the previous flight's arrival delay less the slack, but at most this flight's departure
///   delay, and 0 if either is negative.
///
/// A cancelled flight does not move the aircraft. After a diverted flight nobody knows where it is, so the
/// flight after that has no knock-on.
#[ringhold::actor]
pub mod aircraft {
    use super::airport;
    use super::carrier;

    pub struct State {
        /// Flights flown to their destination.
        pub flown: u32,
        pub diverted: u32,
        pub cancelled: u32,
        /// Flights that left late because the one before came late.
        pub knock_ons: u32,
        pub knock_on_minutes: u32,
        /// The longest knock-on in minutes, and the sequence number of its flight: the first one of that length.
        pub worst_knock_on: u32,
        pub worst_sequence: u32,
        /// Where the previous flight went (a packed name), 0 if that is not known.
        pub last_airport: u32,
        /// How late it arrived there, in minutes; early is negative.
        pub last_delay: i32,
        /// The earliest minute at which the aircraft could be ready in New York again, by the schedule.
        pub ready: u32,
        /// The number of the last flight received, of this aircraft's flights counted from 1.
        pub leg: u32,
        /// Flights that were skipped, and flights that came again or too late.
        pub skipped: u32,
        pub repeated: u32,
        /// A hash of the sequence numbers of all flights in the order they came.
        pub order: u64,
    }

    /// Times are minutes since 2013-01-01 00:00 UTC. `sequence` numbers all flights, `leg` those of this
    /// aircraft, both from 1. Airports and carriers are packed names.
    pub enum Message {
        Flown {
            sequence: u32,
            leg: u32,
            scheduled: u32,
            origin: u32,
            destination: u32,
            carrier: u16,
            block: u16,
            departure_delay: i16,
            arrival_delay: i16,
        },
        Diverted {
            sequence: u32,
            leg: u32,
            scheduled: u32,
            origin: u32,
            destination: u32,
            carrier: u16,
            departure_delay: i16,
        },
        Cancelled {
            sequence: u32,
            leg: u32,
            origin: u32,
            destination: u32,
            carrier: u16,
        },
    }

    /// From the gate to the gate again: unload, clean, fuel, load.
    pub const TURN_AROUND_MINUTES: u32 = 30;

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Flown {
                sequence,
                leg,
                scheduled,
                origin,
                destination,
                carrier,
                block,
                departure_delay,
                arrival_delay,
            } => {
                state.receive(sequence, leg);
                let knock_on = depart(state, sequence, scheduled, departure_delay, ctx);
                state.flown += 1;
                state.last_airport = destination;
                state.last_delay = arrival_delay as i32;
                state.ready = scheduled + 2 * (block as u32 + TURN_AROUND_MINUTES);
                ctx.send(
                    airport::id(origin as u64),
                    airport::Message::Departure { sequence, delay: departure_delay, knock_on },
                );
                ctx.send(airport::id(destination as u64), airport::Message::Arrival { sequence, delay: arrival_delay });
                ctx.send(
                    carrier::id(carrier as u64),
                    carrier::Message::Flown { sequence, departure_delay, arrival_delay, knock_on },
                );
            }
            Message::Diverted { sequence, leg, scheduled, origin, destination, carrier, departure_delay } => {
                state.receive(sequence, leg);
                let knock_on = depart(state, sequence, scheduled, departure_delay, ctx);
                state.diverted += 1;
                state.last_airport = 0;
                state.last_delay = 0;
                state.ready = 0;
                ctx.send(
                    airport::id(origin as u64),
                    airport::Message::Departure { sequence, delay: departure_delay, knock_on },
                );
                ctx.send(airport::id(destination as u64), airport::Message::Missed { sequence });
                ctx.send(
                    carrier::id(carrier as u64),
                    carrier::Message::Diverted { sequence, departure_delay, knock_on },
                );
            }
            Message::Cancelled { sequence, leg, origin, destination, carrier } => {
                state.receive(sequence, leg);
                state.cancelled += 1;
                ctx.send(airport::id(origin as u64), airport::Message::Cancelled { sequence });
                ctx.send(airport::id(destination as u64), airport::Message::Missed { sequence });
                ctx.send(carrier::id(carrier as u64), carrier::Message::Cancelled { sequence });
            }
        }
    }

    /// The knock-on of a flight that leaves now; the airport where it began is told.
    fn depart(state: &mut State, sequence: u32, scheduled: u32, delay: i16, ctx: &mut Context) -> i16 {
        if state.last_airport == 0 {
            return 0;
        }
        let slack = (scheduled as i32 - state.ready as i32).max(0);
        let minutes = (state.last_delay - slack).min(delay as i32).max(0);
        if minutes > 0 {
            state.knock_ons += 1;
            state.knock_on_minutes += minutes as u32;
            if minutes as u32 > state.worst_knock_on {
                state.worst_knock_on = minutes as u32;
                state.worst_sequence = sequence;
            }
            ctx.send(
                airport::id(state.last_airport as u64),
                airport::Message::KnockOn { sequence, minutes: minutes as i16 },
            );
        }
        minutes as i16
    }

    impl State {
        /// Takes note of a flight, and of whether it is the next.
        fn receive(&mut self, sequence: u32, leg: u32) {
            if leg <= self.leg {
                self.repeated += 1;
            } else {
                self.skipped += leg - self.leg - 1;
                self.leg = leg;
            }
            // FNV-1a, a whole number at a time.
            self.order = (self.order ^ sequence as u64) * 0x0000_0100_0000_01b3;
        }
    }
}

/// An airport: what leaves it, what arrives, and the delays that started here and came back to New York.
#[ringhold::actor]
pub mod airport {
    pub struct State {
        /// Flights that left.
        pub departures: u32,
        /// Flights that should have left.
        pub cancelled: u32,
        /// Departures 15 minutes late or more.
        pub departures_late: u32,
        /// Flights that arrived.
        pub arrivals: u32,
        /// Flights that should have arrived: they were cancelled or diverted.
        pub missed: u32,
        /// Arrivals 15 minutes late or more.
        pub arrivals_late: u32,
        /// Departures from here that left late because their aircraft came late from the flight before.
        pub knock_ons_suffered: u32,
        /// Flights from New York that left late because their aircraft had come here late.
        pub knock_ons_caused: u32,
        pub knock_on_minutes_suffered: i64,
        pub knock_on_minutes_caused: i64,
        /// Sum over flights that left; early is negative.
        pub departure_delay_minutes: i64,
        /// Sum over flights that arrived; early is negative.
        pub arrival_delay_minutes: i64,
        /// The longest delay of a departure or an arrival, 0 if there was none.
        pub worst_delay: i32,
        /// Messages received, and the sum and the exclusive or of their hashes.
        pub received: u64,
        pub received_sum: u64,
        pub received_xor: u64,
    }

    pub enum Message {
        /// A flight left, `knock_on` minutes of its delay because its aircraft was late.
        Departure {
            sequence: u32,
            delay: i16,
            knock_on: i16,
        },
        /// A flight that should have left did not.
        Cancelled {
            sequence: u32,
        },
        Arrival {
            sequence: u32,
            delay: i16,
        },
        /// A flight that should have arrived did not.
        Missed {
            sequence: u32,
        },
        /// An aircraft came here late, and so its next flight, `sequence`, left New York late.
        KnockOn {
            sequence: u32,
            minutes: i16,
        },
    }

    /// From this many minutes on, a flight counts as late: the Bureau of Transportation Statistics' own rule.
    const LATE_MINUTES: i16 = 15;

    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        match message {
            Message::Departure { sequence, delay, knock_on } => {
                state.receive(sequence, 1);
                state.departures += 1;
                state.departure_delay_minutes += delay as i64;
                state.worst_delay = state.worst_delay.max(delay as i32);
                if delay >= LATE_MINUTES {
                    state.departures_late += 1;
                }
                if knock_on > 0 {
                    state.knock_ons_suffered += 1;
                    state.knock_on_minutes_suffered += knock_on as i64;
                }
            }
            Message::Cancelled { sequence } => {
                state.receive(sequence, 2);
                state.cancelled += 1;
            }
            Message::Arrival { sequence, delay } => {
                state.receive(sequence, 3);
                state.arrivals += 1;
                state.arrival_delay_minutes += delay as i64;
                state.worst_delay = state.worst_delay.max(delay as i32);
                if delay >= LATE_MINUTES {
                    state.arrivals_late += 1;
                }
            }
            Message::Missed { sequence } => {
                state.receive(sequence, 4);
                state.missed += 1;
            }
            Message::KnockOn { sequence, minutes } => {
                state.receive(sequence, 5);
                state.knock_ons_caused += 1;
                state.knock_on_minutes_caused += minutes as i64;
            }
        }
    }

    impl State {
        /// Takes note of a message, whatever the order they come in. The hash is the last step of splitmix64.
        fn receive(&mut self, sequence: u32, kind: u64) {
            let mut hash = ((sequence as u64) << 8) | kind;
            hash = (hash ^ (hash >> 30)) * 0xbf58_476d_1ce4_e5b9;
            hash = (hash ^ (hash >> 27)) * 0x94d0_49bb_1331_11eb;
            hash ^= hash >> 31;
            self.received += 1;
            self.received_sum += hash;
            self.received_xor ^= hash;
        }
    }
}

/// A carrier: how punctual its flights from New York are.
#[ringhold::actor]
pub mod carrier {
    pub struct State {
        /// Flights scheduled.
        pub flights: u32,
        pub cancelled: u32,
        pub diverted: u32,
        /// Flights that left 15 minutes late or more.
        pub departures_late: u32,
        /// Flights that arrived 15 minutes late or more.
        pub arrivals_late: u32,
        /// Flights that left late because their aircraft came late from the flight before.
        pub knock_ons: u32,
        pub knock_on_minutes: i64,
        /// Sum over flights that left; early is negative.
        pub departure_delay_minutes: i64,
        /// Sum over flights that arrived; early is negative.
        pub arrival_delay_minutes: i64,
        /// Messages received, and the sum and the exclusive or of their hashes.
        pub received: u64,
        pub received_sum: u64,
        pub received_xor: u64,
    }

    pub enum Message {
        Flown { sequence: u32, departure_delay: i16, arrival_delay: i16, knock_on: i16 },
        Diverted { sequence: u32, departure_delay: i16, knock_on: i16 },
        Cancelled { sequence: u32 },
    }

    /// From this many minutes on, a flight counts as late: the Bureau of Transportation Statistics' own rule.
    const LATE_MINUTES: i16 = 15;

    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        state.flights += 1;
        match message {
            Message::Flown { sequence, departure_delay, arrival_delay, knock_on } => {
                state.receive(sequence, 1);
                state.depart(departure_delay, knock_on);
                state.arrival_delay_minutes += arrival_delay as i64;
                if arrival_delay >= LATE_MINUTES {
                    state.arrivals_late += 1;
                }
            }
            Message::Diverted { sequence, departure_delay, knock_on } => {
                state.receive(sequence, 2);
                state.depart(departure_delay, knock_on);
                state.diverted += 1;
            }
            Message::Cancelled { sequence } => {
                state.receive(sequence, 3);
                state.cancelled += 1;
            }
        }
    }

    impl State {
        fn depart(&mut self, delay: i16, knock_on: i16) {
            self.departure_delay_minutes += delay as i64;
            if delay >= LATE_MINUTES {
                self.departures_late += 1;
            }
            if knock_on > 0 {
                self.knock_ons += 1;
                self.knock_on_minutes += knock_on as i64;
            }
        }

        /// Takes note of a message, whatever the order they come in. The hash is the last step of splitmix64.
        fn receive(&mut self, sequence: u32, kind: u64) {
            let mut hash = ((sequence as u64) << 8) | kind;
            hash = (hash ^ (hash >> 30)) * 0xbf58_476d_1ce4_e5b9;
            hash = (hash ^ (hash >> 27)) * 0x94d0_49bb_1331_11eb;
            hash ^= hash >> 31;
            self.received += 1;
            self.received_sum += hash;
            self.received_xor ^= hash;
        }
    }
}
