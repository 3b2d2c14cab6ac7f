//! The program of docs/first-actor.md: a binary of your own that is a node, its device hosts and its command line.

/// An electricity meter.
#[ringhold::actor]
pub mod meter {
    use super::district;

    pub struct State {
        pub watt_hours: u64,
        pub readings: u32,
        pub district: u64,
    }

    pub enum Message {
        /// Says which district the meter is in.
        Install { district: u64 },
        /// A reading since the last one.
        Used { watt_hours: u64 },
        /// Asks for the average of all readings.
        Average,
    }

    pub enum Reply {
        Total { watt_hours: u64 },
        Average { watt_hours: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Install { district } => state.district = district,
            Message::Used { watt_hours } => {
                state.watt_hours += watt_hours;
                state.readings += 1;
                ctx.send(district::id(state.district), district::Message::Used { watt_hours });
            }
            Message::Average => {
                // No reading yet? Then this divides by zero, which is a fault: the asker is told so, and the
                // message has had no effect.
                ctx.reply(Reply::Average { watt_hours: state.watt_hours / state.readings as u64 });
                return;
            }
        }
        ctx.reply(Reply::Total { watt_hours: state.watt_hours });
    }
}

/// All meters of a district together.
#[ringhold::actor]
pub mod district {
    pub struct State {
        pub watt_hours: u64,
        pub largest: u64,
    }

    pub enum Message {
        Used { watt_hours: u64 },
    }

    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        match message {
            Message::Used { watt_hours } => {
                state.watt_hours += watt_hours;
                state.largest = state.largest.max(watt_hours);
            }
        }
    }
}

fn main() -> std::process::ExitCode {
    let mut registry = ringhold::Registry::new();
    registry.register::<meter::Actor>().expect("each type is registered once");
    registry.register::<district::Actor>().expect("each type is registered once");
    ringhold::cli::main(registry)
}
