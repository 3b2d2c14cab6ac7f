//! Which message ends hosts: decisions only.
//!
//! A message that is in hand when its host stalls or crashes gets a *strike*. A message made by an actor has another stamp when it is
//! made again, so the first strike against one is against its actor: the next host says of that actor's messages what they
//! are. A message with two strikes is condemned.

use std::collections::VecDeque;

use ringhold_kernels::message::{Header, Kind};
use ringhold_kernels::segment::SUSPECTS_MAX;
use ringhold_kernels::suspects::{self, Suspect};
use ringhold_storage::dead_letters::Strike;

/// The strikes against messages of one device. See the module's documentation.
#[derive(Default)]
pub struct Poison {
    known: VecDeque<Known>,
    /// A host has ended by its own fault, and no other has begun since.
    careful: bool,
}

/// What is known of one message.
struct Known {
    suspect: Suspect,
    /// The hosts that it ended, as far as it was known again.
    history: Vec<Strike>,
    /// The stamps under which it has been put aside.
    aside: VecDeque<u64>,
}

/// A message that is condemned may have been sent more than once: the stamps of so many are remembered.
const ASIDE_MAX: usize = 1_024;

impl Poison {
    /// Takes in what was in hand when a host ended by its own fault. Returns those that are condemned by it.
    pub fn strike(&mut self, hands: &[Suspect], strike: &Strike) -> Vec<Suspect> {
        self.careful = true;
        let mut condemned = Vec::new();
        for hand in hands {
            let mut history: Vec<Strike> = Vec::new();
            let again = self.known.iter().filter(|known| !known.suspect.condemned && known.suspect.is(hand));
            again.for_each(|known| history.extend_from_slice(&known.history));
            let again = !history.is_empty();
            history.push(strike.clone());
            let suspect = Suspect { condemned: again, ..*hand };
            if again {
                condemned.push(suspect);
                self.known.retain(|known| known.suspect.condemned || !known.suspect.is(hand));
            }
            self.known.push_back(Known { suspect, history, aside: VecDeque::new() });
            if self.known.len() > SUSPECTS_MAX {
                self.known.pop_front();
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
        self.known.iter().map(|known| known.suspect).collect()
    }

    /// Takes in that a host has put this message aside. Returns the hosts that it had ended; `None` where this very message has been
    /// put aside before, by a host that began with the same checkpoint.
    pub fn put_aside(&mut self, letter: &Header, payload: &[u8]) -> Option<Vec<Strike>> {
        // Which of the two it was is not told any more.
        let is = |suspect: &Suspect| {
            [Kind::Tell, Kind::Ask].into_iter().any(|kind| {
                let hash = suspects::hash_of(&letter.with_kind(kind).without_reason(), payload);
                suspect.is(&Suspect { actor: letter.to(), hlc: letter.hlc, hash, condemned: true })
            })
        };
        let Some(known) = self.known.iter_mut().find(|known| known.suspect.condemned && is(&known.suspect)) else {
            return Some(Vec::new());
        };
        if known.aside.contains(&letter.hlc) {
            return None;
        }
        known.aside.push_back(letter.hlc);
        if known.aside.len() > ASIDE_MAX {
            known.aside.pop_front();
        }
        Some(known.history.clone())
    }
}

#[cfg(test)]
mod tests {
    use ringhold_kernels::hlc::Hlc;
    use ringhold_kernels::id::{ActorId, Key, TypeId};
    use ringhold_kernels::message::Reason;

    use super::*;

    fn hand(key: u64, hlc: u64, hash: u64) -> Suspect {
        Suspect { actor: ActorId::new(TypeId(1), Key(key)), hlc, hash, condemned: false }
    }

    fn at(term: u64) -> Strike {
        Strike { at_us: 1_000 * term, term, how: "stalled".into() }
    }

    #[test]
    fn a_message_from_outside_is_condemned_by_its_second_strike() {
        let mut poison = Poison::default();
        assert!(poison.strike(&[hand(1, 10, 0), hand(2, 11, 0)], &at(1)).is_empty());
        let condemned = poison.strike(&[hand(1, 10, 99)], &at(2));
        assert_eq!(condemned.len(), 1);
        assert!(condemned[0].condemned && condemned[0].actor.key.0 == 1);
        assert!(poison.suspects().iter().any(|s| s.condemned && s.is(&hand(1, 0, 99))), "known by what it is, too");
    }

    #[test]
    fn a_message_that_is_made_again_is_known_by_what_it_is() {
        let mut poison = Poison::default();
        assert!(poison.strike(&[hand(1, 10, 0)], &at(1)).is_empty());
        assert!(
            poison.strike(&[hand(1, 20, 77)], &at(2)).is_empty(),
            "its stamp is another, and what the first one was is not known"
        );
        assert_eq!(poison.strike(&[hand(1, 30, 77)], &at(3)).len(), 1);
    }

    #[test]
    fn other_messages_of_an_actor_are_not_condemned_with_it() {
        let mut poison = Poison::default();
        poison.strike(&[hand(1, 10, 5)], &at(1));
        assert!(poison.strike(&[hand(1, 11, 6)], &at(2)).is_empty());
        assert!(poison.strike(&[hand(2, 10, 5)], &at(3)).is_empty(), "of another actor");
    }

    #[test]
    fn the_oldest_strikes_are_forgotten() {
        let mut poison = Poison::default();
        (0..100).for_each(|key| drop(poison.strike(&[hand(key, 1, 0)], &at(1))));
        assert_eq!(poison.suspects().len(), SUSPECTS_MAX);
    }

    fn letter(hlc: u64, payload: &[u8]) -> Header {
        let to = ActorId::new(TypeId(1), Key(1));
        let header = Header::new(Kind::DeadLetter, to, ActorId::default(), payload.len(), Hlc(hlc));
        header.with_reason(Reason::Poison)
    }

    #[test]
    fn a_message_is_put_aside_once_with_the_hosts_that_it_ended() {
        let mut poison = Poison::default();
        for term in [1, 2] {
            poison.strike(&[hand(1, 10, 0), hand(2, 10, 0)], &at(term));
        }
        assert_eq!(poison.put_aside(&letter(10, b"x"), b"x"), Some(vec![at(1), at(2)]));
        assert_eq!(poison.put_aside(&letter(10, b"x"), b"x"), None, "the next host puts it aside too");
        assert_eq!(poison.put_aside(&letter(11, b"y"), b"y"), Some(vec![]), "of that one nothing is known");
    }

    #[test]
    fn an_ask_and_another_message_like_it_are_put_aside_with_their_history_each() {
        for kind in [Kind::Tell, Kind::Ask] {
            let mut poison = Poison::default();
            let hash = suspects::hash_of(&letter(0, b"x").with_kind(kind).without_reason(), b"x");
            poison.strike(&[hand(1, 10, 0)], &at(1));
            poison.strike(&[hand(1, 10, hash)], &at(2));
            for hlc in [10, 20] {
                assert_eq!(poison.put_aside(&letter(hlc, b"x"), b"x"), Some(vec![at(1), at(2)]));
                assert_eq!(poison.put_aside(&letter(hlc, b"x"), b"x"), None);
            }
        }
    }

    #[test]
    fn a_message_that_is_sent_again_has_strikes_of_its_own() {
        let mut poison = Poison::default();
        let first = letter(10, b"x").with_kind(Kind::Tell).without_reason();
        let hash = suspects::hash_of(&first, b"x");
        poison.strike(&[hand(1, 10, hash)], &at(1));
        assert_eq!(poison.strike(&[hand(1, 10, hash)], &at(2)).len(), 1);
        let known = |header: &Header| Suspect {
            actor: header.to(),
            hlc: header.hlc,
            hash: suspects::hash_of(header, b"x"),
            condemned: false,
        };
        let condemns = |poison: &Poison, header: &Header| {
            poison.suspects().iter().any(|suspect| suspect.condemned && suspect.is(&known(header)))
        };
        for hlc in [20, 30] {
            let with = |mut header: Header| {
                header.hlc = hlc;
                header
            };
            let again = with(first.sent_again());
            assert!(condemns(&poison, &with(first)), "what is like it, and was not sent again");
            assert!(!condemns(&poison, &again));
            assert!(poison.strike(&[known(&again)], &at(3)).is_empty());
            assert_eq!(poison.strike(&[known(&again)], &at(4)).len(), 1);
            assert!(condemns(&poison, &again));
        }
    }
}
