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

/// What has been told so far, and the state it left.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Told<S> {
    /// Of the calls with an end, in the order of their beginnings: so many from the first on, and these of the others.
    first: usize,
    others: Vec<usize>,
    /// Those of the calls without an end.
    open: Vec<usize>,
    state: S,
}

/// Looks for a story that begins with this state. Calls may be in any order.
pub fn check<O: Operation>(start: &O::State, calls: &[Call<O>], steps_max: usize) -> Verdict {
    let (mut ended, mut open): (Vec<&Call<O>>, Vec<_>) = calls.iter().partition(|call| call.ended.is_some());
    ended.sort_by_key(|call| call.began);
    open.sort_by_key(|call| call.began);
    let mut seen = HashSet::new();
    let mut untried = vec![Told { first: 0, others: Vec::new(), open: Vec::new(), state: start.clone() }];
    let mut best: Option<(usize, String)> = None;
    for _ in 0..steps_max {
        let Some(told) = untried.pop() else { return Verdict::Not(best.map_or(String::new(), |(_, what)| what)) };
        if told.first == ended.len() {
            return Verdict::Linearizable;
        }
        // Nothing that began after another has ended is told before it.
        let mut next = Vec::new();
        let mut first_end = u64::MAX;
        for (number, call) in ended.iter().enumerate().skip(told.first) {
            if call.began > first_end {
                break;
            }
            if !told.others.contains(&number) {
                first_end = first_end.min(call.ended.expect("it is one with an end"));
                next.push((number, *call));
            }
        }
        next.retain(|(_, call)| call.began < first_end);
        let also = open.iter().enumerate().take_while(|(_, call)| call.began < first_end);
        let also: Vec<_> = also.filter(|(number, _)| !told.open.contains(number)).collect();
        let count = told.first + told.others.len();
        if best.as_ref().is_none_or(|(most, _)| count > *most) {
            let next: Vec<_> = next.iter().map(|(_, call)| &call.operation).collect();
            let (all, state) = (ended.len(), &told.state);
            best = Some((
                count,
                format!("{count} of {all} calls can be told, up to {state:?}, and then none of {next:?}"),
            ));
        }
        // What was put last is tried first: that with an end, in the order of the beginnings.
        let mut try_later = |told: Told<O::State>| {
            if seen.insert(told.clone()) {
                untried.push(told);
            }
        };
        for (number, call) in also.into_iter().rev() {
            let Some(state) = call.operation.step(&told.state).filter(|state| *state != told.state) else { continue };
            let mut after = Told { state, ..told.clone() };
            after.open.push(number);
            after.open.sort_unstable();
            try_later(after);
        }
        for (number, call) in next.into_iter().rev() {
            let Some(state) = call.operation.step(&told.state) else { continue };
            let mut after = Told { state, ..told.clone() };
            after.others.push(number);
            after.others.sort_unstable();
            while after.others.first() == Some(&after.first) {
                after.others.remove(0);
                after.first += 1;
            }
            try_later(after);
        }
    }
    Verdict::Undecided
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
