//! Full names of carriers and airports, from the data set.

use std::collections::HashMap;

use ringhold_kernels::id::Key;

/// Code to name.
pub struct Names(HashMap<Key, &'static str>);

impl Names {
    pub fn airports() -> Names {
        Names::read(include_str!("../../data/airports.csv"))
    }

    pub fn carriers() -> Names {
        Names::read(include_str!("../../data/carriers.csv"))
    }

    /// The name, or nothing for a code that has none.
    pub fn of(&self, code: Key) -> &'static str {
        self.0.get(&code).copied().unwrap_or("")
    }

    /// Two columns, a heading, and no quotes: what `make.py` writes.
    fn read(csv: &'static str) -> Names {
        let row = |line: &'static str| {
            let (code, name) = line.split_once(',')?;
            Some((Key::name(code)?, name))
        };
        Names(csv.lines().skip(1).filter_map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::flights;

    #[test]
    fn every_carrier_and_airport_of_the_flights_has_a_name() {
        let (airports, carriers) = (Names::airports(), Names::carriers());
        assert_eq!((airports.0.len(), carriers.0.len()), (107, 16));
        for flight in flights::shipped().unwrap() {
            assert_ne!(carriers.of(flight.carrier), "", "{}", flight.carrier);
            assert_ne!(airports.of(flight.origin), "", "{}", flight.origin);
            assert_ne!(airports.of(flight.destination), "", "{}", flight.destination);
        }
        assert_eq!(airports.of(Key::name("JFK").unwrap()), "John F Kennedy Intl");
        assert_eq!(carriers.of(Key::name("UA").unwrap()), "United Air Lines Inc.");
    }
}
