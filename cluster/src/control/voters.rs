//! Which nodes vote: a pure decision.
//!
//! An odd number of them, since an even one survives no more losses than the odd one below it and needs one more for each
//! decision. They stay what they are as long as they serve: each change of voters is a moment at which less can be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A voter that was not heard of for so long is replaced, if there is somebody to replace it.
pub const LOST_AFTER: Duration = Duration::from_secs(30);
/// A learner that was heard of within so long may become a voter.
pub const LIVE_WITHIN: Duration = Duration::from_secs(2);

/// A member of the cluster, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What fails together.
    pub zone: String,
    /// It is not about to leave.
    pub serving: bool,
    /// How long ago the leader heard of it; `None` if never.
    pub heard: Option<Duration>,
}

impl Candidate {
    fn is_live(&self) -> bool {
        self.heard.is_some_and(|heard| heard <= LIVE_WITHIN)
    }

    fn is_lost(&self) -> bool {
        self.heard.is_none_or(|heard| heard > LOST_AFTER)
    }
}

/// Who is to vote, where `present` do. At most `most` (an odd number), never an even number, and those that are present as long as
/// they serve. A voter that is lost is replaced by a live member or stays; one that leaves is replaced, or the number shrinks.
///
/// Where there is a choice: first zones that have the fewest voters, then low numbers.
pub fn choose(members: &BTreeMap<u64, Candidate>, present: &BTreeSet<u64>, most: u32) -> BTreeSet<u64> {
    let serves = |number: &u64| members.get(number).is_some_and(|member| member.serving);
    let is_lost = |number: &u64| members[number].is_lost();
    let mut chosen: BTreeSet<u64> = present.iter().copied().filter(serves).collect();
    let mut spare: BTreeSet<u64> =
        members.iter().filter(|(_, member)| member.serving && member.is_live()).map(|(number, _)| *number).collect();
    spare.retain(|number| !chosen.contains(number));

    let target = odd_up_to((chosen.len() + spare.len()).min(most as usize));
    if target == 0 {
        // Somebody has to vote that the last one may go.
        return present.clone();
    }
    while chosen.len() < target
        && let Some(next) = best(members, &chosen, &spare)
    {
        spare.remove(&next);
        chosen.insert(next);
    }
    while chosen.len() > target {
        // Those that are lost first, then of the fullest zone, then high numbers.
        let worst =
            chosen.iter().copied().max_by_key(|number| (is_lost(number), crowd(members, &chosen, *number), *number));
        chosen.remove(&worst.expect("there are more than enough"));
    }
    let lost: Vec<u64> = chosen.iter().copied().filter(is_lost).collect();
    for number in lost {
        let mut others = chosen.clone();
        others.remove(&number);
        let Some(next) = best(members, &others, &spare) else { break };
        spare.remove(&next);
        others.insert(next);
        chosen = others;
    }
    chosen
}

fn odd_up_to(count: usize) -> usize {
    if count.is_multiple_of(2) { count.saturating_sub(1) } else { count }
}

/// Who of `spare` is to join `chosen` first.
fn best(members: &BTreeMap<u64, Candidate>, chosen: &BTreeSet<u64>, spare: &BTreeSet<u64>) -> Option<u64> {
    spare.iter().copied().min_by_key(|number| (crowd(members, chosen, *number), *number))
}

/// How many others of `chosen` are in its zone. A node that has none is in one of its own.
fn crowd(members: &BTreeMap<u64, Candidate>, chosen: &BTreeSet<u64>, number: u64) -> usize {
    let zone = &members[&number].zone;
    let same = |other: &&u64| **other != number && !zone.is_empty() && members[other].zone == *zone;
    chosen.iter().filter(same).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(zone: &str) -> Candidate {
        Candidate { zone: zone.into(), serving: true, heard: Some(Duration::from_millis(80)) }
    }

    fn unheard(seconds: u64) -> Candidate {
        Candidate { heard: Some(Duration::from_secs(seconds)), ..live("") }
    }

    fn draining() -> Candidate {
        Candidate { serving: false, ..live("") }
    }

    fn members(all: &[(u64, Candidate)]) -> BTreeMap<u64, Candidate> {
        all.iter().cloned().collect()
    }

    fn plain(numbers: impl IntoIterator<Item = u64>) -> BTreeMap<u64, Candidate> {
        numbers.into_iter().map(|number| (number, live(""))).collect()
    }

    fn chosen(members: &BTreeMap<u64, Candidate>, present: &[u64], most: u32) -> Vec<u64> {
        choose(members, &present.iter().copied().collect(), most).into_iter().collect()
    }

    #[test]
    fn a_growing_cluster_has_one_three_five_or_seven() {
        let mut present = vec![1];
        for (count, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (7, 7), (8, 7), (20, 7)] {
            present = chosen(&plain(1..=count), &present, 7);
            assert_eq!(present, (1..=voters).collect::<Vec<_>>(), "of {count}");
        }
        assert_eq!(chosen(&plain(1..=20), &[1], 3), [1, 2, 3]);
        assert_eq!(chosen(&plain(1..=20), &[1], 1), [1]);
    }

    #[test]
    fn voters_stay_as_long_as_they_serve() {
        assert_eq!(chosen(&plain(1..=9), &[4, 6, 9], 3), [4, 6, 9]);
        let zones = members(&[(1, live("a")), (2, live("a")), (3, live("a")), (4, live("b")), (5, live("c"))]);
        assert_eq!(chosen(&zones, &[1, 2, 3], 3), [1, 2, 3], "a better zone is no reason");
    }

    #[test]
    fn a_voter_that_is_lost_is_replaced_but_never_just_removed() {
        let mut three = plain(1..=3);
        three.insert(3, unheard(3_600));
        assert_eq!(chosen(&three, &[1, 2, 3], 3), [1, 2, 3], "nobody is there for it");
        three.insert(4, unheard(3));
        assert_eq!(chosen(&three, &[1, 2, 3], 3), [1, 2, 3], "one that is not live is nobody");
        three.insert(4, live(""));
        assert_eq!(chosen(&three, &[1, 2, 3], 3), [1, 2, 4]);
        three.insert(3, unheard(30));
        assert_eq!(chosen(&three, &[1, 2, 3], 3), [1, 2, 3], "it may come back");
        three.insert(3, Candidate { heard: None, ..live("") });
        assert_eq!(chosen(&three, &[1, 2, 3], 3), [1, 2, 4]);
        let mut five = plain(1..=6);
        five.insert(1, unheard(60));
        five.insert(2, unheard(60));
        assert_eq!(chosen(&five, &[1, 2, 3, 4, 5], 5), [2, 3, 4, 5, 6], "one is there for one of them");
    }

    #[test]
    fn one_that_leaves_is_replaced_or_the_number_shrinks() {
        let mut nodes = plain(1..=4);
        nodes.insert(2, draining());
        assert_eq!(chosen(&nodes, &[1, 2, 3], 3), [1, 3, 4]);
        nodes.remove(&4);
        assert_eq!(chosen(&nodes, &[1, 2, 3], 3), [1], "two are no better than one");
        nodes.remove(&2);
        assert_eq!(chosen(&nodes, &[1, 2, 3], 3), [1]);
        nodes.insert(1, unheard(60));
        assert_eq!(chosen(&nodes, &[1, 2, 3], 3), [3], "the one that is there stays");
        assert_eq!(chosen(&members(&[(1, draining())]), &[1], 5), [1], "the last one votes to its end");
        assert_eq!(chosen(&BTreeMap::new(), &[1], 5), [1], "before the first is known");
    }

    #[test]
    fn fewer_voters_are_those_that_are_there_and_apart() {
        let mut nodes = plain(1..=5);
        nodes.insert(1, unheard(60));
        assert_eq!(chosen(&nodes, &[1, 2, 3, 4, 5], 3), [2, 3, 4]);
        let zones = members(&[(1, live("a")), (2, live("a")), (3, live("a")), (4, live("b")), (5, live("c"))]);
        assert_eq!(chosen(&zones, &[1, 2, 3, 4, 5], 3), [1, 4, 5]);
    }

    #[test]
    fn zones_come_before_numbers() {
        let zones = members(&[(1, live("a")), (2, live("a")), (3, live("b")), (4, live("b")), (5, live("c"))]);
        assert_eq!(chosen(&zones, &[1], 3), [1, 3, 5]);
        assert_eq!(chosen(&zones, &[1], 5), [1, 2, 3, 4, 5]);
    }

    /// Every set of up to five members in four states each, and every set of present voters among them.
    #[test]
    fn it_is_always_odd_settles_at_once_and_removes_nobody_that_serves_without_need() {
        let states = [live("a"), live("b"), unheard(60), draining()];
        for count in 1..=5u32 {
            for drawn in 0..4u64.pow(count) {
                let state = |n: u32| states[(drawn / 4u64.pow(n) % 4) as usize].clone();
                let members: BTreeMap<u64, Candidate> = (0..count).map(|n| (u64::from(n), state(n))).collect();
                for bits in 1..1u64 << count {
                    let present: BTreeSet<u64> = (0..u64::from(count)).filter(|n| bits >> n & 1 == 1).collect();
                    for most in [1, 3, 5] {
                        let voters = choose(&members, &present, most);
                        let about = format!("{members:?} {present:?} {most} -> {voters:?}");
                        let serving = |n: &&u64| members[n].serving;
                        if !members.values().any(|m| m.serving && m.is_live()) && !present.iter().any(|n| serving(&n)) {
                            assert_eq!(voters, present);
                            continue;
                        }
                        assert!(voters.len() % 2 == 1 && voters.len() <= most as usize, "{about}");
                        assert_eq!(choose(&members, &voters, most), voters, "{about}");
                        assert!(voters.iter().all(|n| serving(&n)), "{about}");
                        let come = voters.difference(&present).collect::<Vec<_>>();
                        assert!(come.iter().all(|n| members[n].is_live()), "{about}");
                        // Whoever serves and is heard of goes only where the number shrinks.
                        let gone =
                            present.difference(&voters).filter(serving).filter(|n| !members[n].is_lost()).count();
                        let kept = present.iter().filter(serving).count();
                        assert!(gone == 0 || voters.len() < kept, "{about}");
                    }
                }
            }
        }
    }
}
