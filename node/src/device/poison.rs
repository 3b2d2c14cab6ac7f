//! Which message ends hosts: decisions only.
//!
//! A message that is in hand when its host stalls or crashes gets a *strike*. A message made by an actor has another stamp when it is
//! made again, so the first strike against one is against its actor: the next host says of that actor's messages what they
//! are. A message with two strikes is condemned.

use std::collections::VecDeque;

use ringhold_kernels::segment::SUSPECTS_MAX;
use ringhold_kernels::suspects::Suspect;

/// The strikes against messages of one device. See the module's documentation.
#[derive(Default)]
pub struct Poison {
    strikes: VecDeque<Suspect>,
    /// A host has ended by its own fault, and no other has begun since.
    careful: bool,
}

impl Poison {
    /// Takes in what was in hand when a host ended by its own fault. Returns those that are condemned by it.
    pub fn strike(&mut self, hands: &[Suspect]) -> Vec<Suspect> {
        self.careful = true;
        let mut condemned = Vec::new();
        for hand in hands {
            let again = self.strikes.iter().any(|strike| !strike.condemned && strike.is(hand));
            let strike = Suspect { condemned: again, ..*hand };
            if again {
                condemned.push(strike);
                self.strikes.retain(|strike| strike.condemned || !strike.is(hand));
            }
            self.strikes.push_back(strike);
            if self.strikes.len() > SUSPECTS_MAX {
                self.strikes.pop_front();
            }
        }
        condemned
    }

    /// Whether the next host is to say of each message what it is before it runs it: what ended the last one may not be known.
    pub fn take_careful(&mut self) -> bool {
        std::mem::take(&mut self.careful)
    }

    /// What the next host is told.
    pub fn suspects(&self) -> Vec<Suspect> {
        self.strikes.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use ringhold_kernels::id::{ActorId, Key, TypeId};

    use super::*;

    fn hand(key: u64, hlc: u64, hash: u64) -> Suspect {
        Suspect { actor: ActorId::new(TypeId(1), Key(key)), hlc, hash, condemned: false }
    }

    #[test]
    fn a_message_from_outside_is_condemned_by_its_second_strike() {
        let mut poison = Poison::default();
        assert!(poison.strike(&[hand(1, 10, 0), hand(2, 11, 0)]).is_empty());
        let condemned = poison.strike(&[hand(1, 10, 99)]);
        assert_eq!(condemned.len(), 1);
        assert!(condemned[0].condemned && condemned[0].actor.key.0 == 1);
        assert!(poison.suspects().iter().any(|s| s.condemned && s.is(&hand(1, 0, 99))), "known by what it is, too");
    }

    #[test]
    fn a_message_that_is_made_again_is_known_by_what_it_is() {
        let mut poison = Poison::default();
        assert!(poison.strike(&[hand(1, 10, 0)]).is_empty());
        assert!(
            poison.strike(&[hand(1, 20, 77)]).is_empty(),
            "its stamp is another, and what the first one was is not known"
        );
        assert_eq!(poison.strike(&[hand(1, 30, 77)]).len(), 1);
    }

    #[test]
    fn other_messages_of_an_actor_are_not_condemned_with_it() {
        let mut poison = Poison::default();
        poison.strike(&[hand(1, 10, 5)]);
        assert!(poison.strike(&[hand(1, 11, 6)]).is_empty());
        assert!(poison.strike(&[hand(2, 10, 5)]).is_empty(), "of another actor");
    }

    #[test]
    fn the_oldest_strikes_are_forgotten() {
        let mut poison = Poison::default();
        (0..100).for_each(|key| drop(poison.strike(&[hand(key, 1, 0)])));
        assert_eq!(poison.suspects().len(), SUSPECTS_MAX);
    }
}
