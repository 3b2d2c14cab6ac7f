//! Whether what clients heard of an object can be told as one story: calls one after the other, each at some moment between its
//! beginning and its end.
//!
//! J. Wing and C. Gong, *Testing and Verifying Concurrent Objects* (1993): try every call that may come next, and go back where
//! none fits. G. Lowe, *Testing for linearizability* (2017): do not try again what has been tried, which is known by the calls
//! that were told and by the state they left.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// What a call does to an object.
pub trait Operation: Debug {
    type State: Clone + Debug + Eq + Hash;

    /// The state after it, where what was heard of it is what it would have said; `None` where it is not. Of a call that nobody
    /// heard the end of: the state that it would leave.
    fn step(&self, state: &Self::State) -> Option<Self::State>;
}

/// A call of a client. Moments are numbered in their order.
#[derive(Clone, Debug)]
pub struct Call<O> {
    pub began: u64,
    /// `None` where its end was not heard of: it may have been done at any later moment, or never.
    pub ended: Option<u64>,
    pub operation: O,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// What could be told, at best, and what it stopped at.
    Not(String),
    /// It was given up after so many steps.
    Undecided,
}

/// Looks for a story that begins with this state. Calls may be in any order.
pub fn check<O: Operation>(start: &O::State, calls: &[Call<O>], steps_max: usize) -> Verdict {
    let mut calls: Vec<&Call<O>> = calls.iter().collect();
    calls.sort_by_key(|call| call.began);
    let wanted = calls.iter().filter(|call| call.ended.is_some()).count();
    let mut seen = HashSet::new();
    // Calls that were told, a bit each; of those that had an end, how many; and the state.
    let mut open = vec![(vec![0u64; calls.len().div_ceil(64)], 0, start.clone())];
    let mut best = (0, None);
    let mut steps = 0;
    while let Some((told, count, state)) = open.pop() {
        if count == wanted {
            return Verdict::Linearizable;
        }
        steps += 1;
        if steps > steps_max {
            return Verdict::Undecided;
        }
        let is_told = |number: usize| told[number / 64] >> (number % 64) & 1 == 1;
        let left =
            || calls.iter().enumerate().filter(|(number, _)| !is_told(*number)).map(|(number, call)| (number, *call));
        // Nothing that began after another has ended is told before it.
        let first_end = left().filter_map(|(_, call)| call.ended).min().expect("one with an end is left");
        if best.1.is_none() || count > best.0 {
            let next: Vec<_> =
                left().take_while(|(_, call)| call.began < first_end).map(|(_, call)| &call.operation).collect();
            best = (
                count,
                Some(format!("{count} of {wanted} calls can be told, up to {state:?}, and then none of {next:?}")),
            );
        }
        // Those that may have been done or not are tried last: the stack gives them last if they are put first.
        let may_be_next = left().take_while(|(_, call)| call.began < first_end);
        let mut next: Vec<_> = may_be_next.collect();
        next.sort_by_key(|(number, call)| (call.ended.is_some(), std::cmp::Reverse(*number)));
        for (number, call) in next {
            let Some(after) = call.operation.step(&state) else { continue };
            if call.ended.is_none() && after == state {
                continue;
            }
            let mut told = told.clone();
            told[number / 64] |= 1 << (number % 64);
            if seen.insert((told.clone(), after.clone())) {
                open.push((told, count + usize::from(call.ended.is_some()), after));
            }
        }
    }
    Verdict::Not(best.1.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register of a number.
    #[derive(Clone, Copy, Debug)]
    enum Register {
        Write(u8),
        Read(u8),
    }

    impl Operation for Register {
        type State = u8;

        fn step(&self, state: &u8) -> Option<u8> {
            match *self {
                Register::Write(value) => Some(value),
                Register::Read(value) => (value == *state).then_some(value),
            }
        }
    }

    fn call(began: u64, ended: u64, operation: Register) -> Call<Register> {
        Call { began, ended: (ended > 0).then_some(ended), operation }
    }

    fn is_told(calls: &[Call<Register>]) -> bool {
        match check(&0, calls, 10_000) {
            Verdict::Linearizable => true,
            Verdict::Not(_) => false,
            Verdict::Undecided => panic!("it is small"),
        }
    }

    #[test]
    fn what_can_be_told_is_told_and_what_cannot_is_not() {
        use Register::{Read, Write};
        assert!(is_told(&[]));
        assert!(is_told(&[call(1, 2, Write(1)), call(3, 4, Read(1))]));
        assert!(!is_told(&[call(1, 2, Write(1)), call(3, 4, Read(0))]), "a read of what was");
        assert!(is_told(&[call(1, 4, Write(1)), call(2, 3, Read(0))]), "at the same time either");
        assert!(is_told(&[call(1, 4, Write(1)), call(2, 3, Read(1))]));
        let back_and_forth = [call(1, 10, Write(1)), call(2, 3, Read(1)), call(4, 5, Read(0))];
        assert!(!is_told(&back_and_forth), "what was read once stays");
        assert!(!is_told(&[call(1, 2, Read(7))]), "out of nothing");
        let two = [call(1, 9, Write(1)), call(2, 8, Write(2)), call(10, 11, Read(1)), call(12, 13, Read(1))];
        assert!(is_told(&two));
        assert!(!is_told(&[two.as_slice(), &[call(14, 15, Read(2))]].concat()));
    }

    #[test]
    fn a_call_without_an_end_is_done_at_any_time_or_never() {
        use Register::{Read, Write};
        for reads in [[0, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1]] {
            let mut calls = vec![call(1, 0, Write(1))];
            calls.extend((2..).zip(reads).map(|(at, value)| call(at * 2, at * 2 + 1, Read(value))));
            assert!(is_told(&calls), "{reads:?}");
        }
        assert!(!is_told(&[call(1, 0, Write(1)), call(2, 3, Read(1)), call(4, 5, Read(0))]));
        assert!(!is_told(&[call(2, 3, Read(1)), call(4, 0, Write(1))]), "but not before it began");
    }

    #[test]
    fn one_that_takes_too_long_is_given_up() {
        let calls: Vec<_> = (0..40).map(|n| call(1 + n, 100 + n, Register::Write(n as u8))).collect();
        let never = [calls.as_slice(), &[call(200, 201, Register::Read(99))]].concat();
        assert_eq!(check(&0, &never, 1_000), Verdict::Undecided);
    }
}
