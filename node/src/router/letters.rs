//! What a client may do with dead letters: look at them, send them again, drop them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::frame::client_id;
use ringhold_cluster::peers::lane::Envelope;
use ringhold_cluster::wire::{self, DeadLetters, Failed, LetterFilter, LetterStrike, LettersDone, Response};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::message::{Header, Kind, Reason};
use ringhold_storage::dead_letters::{self, DeadLetter, Filter, Listed, Removal};
use tokio::time::{Instant, sleep, timeout};

use super::{OWN_SESSION, Router, SETTLE_EVERY};
use crate::device::door::Admitted;
use crate::shed::Level;

/// How long the disk may take to answer.
const DISK_LIMIT: Duration = Duration::from_secs(10);
/// Asks for them that may wait for the disk at a time.
pub(super) const READERS_MAX: usize = 4;
/// Letters read in one go to be sent again.
const RETRIED_AT_ONCE: usize = 256;

/// An answer, whichever it is.
pub(super) fn response<T: Into<Answer>>(answer: Result<T, Failed>) -> Response {
    match answer.map(Into::into) {
        Ok(Answer(response)) => response,
        Err(failed) => Response::Failed(failed),
    }
}

pub(super) struct Answer(Response);

impl From<DeadLetters> for Answer {
    fn from(letters: DeadLetters) -> Answer {
        Answer(Response::DeadLetters(letters))
    }
}

impl From<LettersDone> for Answer {
    fn from(done: LettersDone) -> Answer {
        Answer(Response::DeadLettersDone(done))
    }
}

impl Router {
    pub(super) async fn list_letters(&self, filter: LetterFilter, limit: u32) -> Result<DeadLetters, Failed> {
        let listed = self.read_letters(from_wire(filter)?, limit.min(wire::LETTERS_MAX) as usize).await?;
        Ok(DeadLetters {
            matching: listed.numbers.len() as u64,
            newest: listed.numbers.first().copied(),
            letters: listed.letters.into_iter().map(to_wire).collect(),
        })
    }

    pub(super) async fn drop_letters(&self, filter: LetterFilter) -> Result<LettersDone, Failed> {
        let _one = self.handling_letters.lock().await;
        let numbers: BTreeSet<u64> = self.read_letters(from_wire(filter)?, 0).await?.numbers.into_iter().collect();
        let done = self.letters.remove(&numbers, Removal::Dropped);
        Ok(LettersDone { matching: numbers.len() as u64, done, left: Vec::new() })
    }

    /// Sends letters again, the oldest first. One that its device does not take stays where it is.
    pub(super) async fn retry_letters(&self, filter: LetterFilter, limit: Duration) -> Result<LettersDone, Failed> {
        let _one = self.handling_letters.lock().await;
        let deadline = Instant::now() + limit.min(RETRY_LIMIT_MAX);
        let mut numbers = self.read_letters(from_wire(filter)?, 0).await?.numbers;
        let (matching, mut done, mut left) = (numbers.len() as u64, 0, BTreeMap::<Reason, u64>::new());
        while !numbers.is_empty() {
            let oldest = numbers.split_off(numbers.len().saturating_sub(RETRIED_AT_ONCE));
            let filter = Filter { numbers: Some(oldest.into_iter().collect()), ..Filter::default() };
            let letters = self.read_letters(filter, RETRIED_AT_ONCE).await?.letters;
            for (number, letter) in letters.into_iter().rev() {
                match self.send_again(&letter, deadline).await {
                    // At once: what is kept is what has not been sent.
                    Ok(()) => done += self.letters.remove(&[number].into(), Removal::Retried),
                    Err(reason) => *left.entry(reason).or_default() += 1,
                }
            }
        }
        Ok(LettersDone { matching, done, left: left.into_iter().map(|(reason, n)| (reason as u8, n)).collect() })
    }

    /// Sends a letter as a tell, from the actor that sent it, or from the node where a client did. Waits for room.
    async fn send_again(&self, letter: &DeadLetter, deadline: Instant) -> Result<(), Reason> {
        let (to, mut from) = (letter.header.to(), letter.header.from());
        if from.is_client() {
            from = client_id(OWN_SESSION, 0);
        }
        let mut header = Header::new(Kind::Tell, to, from, letter.payload.len(), self.now());
        if letter.reason == Reason::Poison {
            // Or it would be put aside at once, as what is like it is.
            header = header.sent_again();
        }
        if self.sheds() >= Level::Tells {
            return Err(Reason::Overloaded);
        }
        loop {
            let mut letters = Vec::new();
            let (device, admitted) = {
                let Some((device, mut door)) = self.door_of(to) else {
                    return self.send_away(&header, &letter.payload);
                };
                let admitted = door.admit(&header, &letter.payload, None, self.now(), &mut letters);
                door.link().ring();
                (device, admitted)
            };
            self.keep(&device.name, letters);
            match admitted {
                // A tell has no answer; it is here.
                Admitted::Taken | Admitted::Answered(..) | Admitted::Unknown => return Ok(()),
                Admitted::Refused(reason) => return Err(reason),
                Admitted::Full if Instant::now() >= deadline => return Err(Reason::DeadlineExceeded),
                Admitted::Full => sleep(SETTLE_EVERY).await,
            }
        }
    }

    /// Sends a letter to the node that has its actor.
    fn send_away(&self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        let mut letters = Vec::new();
        self.send_elsewhere(Envelope::default(), header, payload, &mut letters);
        letters.first().map_or(Ok(()), |letter| Err(letter.reason))
    }

    async fn read_letters(&self, filter: Filter, limit: usize) -> Result<Listed, Failed> {
        let late = || {
            Failed::text(format!(
                "the disk did not give the dead letters within {} s: see `ringhold health`",
                DISK_LIMIT.as_secs()
            ))
        };
        // Held until the disk has answered, however long that takes: one that does not must not take a thread for each ask.
        let reading = timeout(DISK_LIMIT, self.reading_letters.clone().acquire_owned()).await.map_err(|_| late())?;
        let letters = self.letters.clone();
        let listed = Arc::new(Mutex::new(None));
        let to = listed.clone();
        let job = self.jobs.run(Box::new(move || {
            *to.lock() = Some(letters.list(&filter, limit));
            drop(reading);
        }));
        timeout(DISK_LIMIT, job).await.map_err(|_| late())?;
        let listed = listed.lock().take().expect("the job was done");
        listed.map_err(|e: dead_letters::Error| Failed::text(e.to_string()))
    }
}

/// Nobody waits longer for an answer.
const RETRY_LIMIT_MAX: Duration = Duration::from_secs(3_600);

fn from_wire(filter: LetterFilter) -> Result<Filter, Failed> {
    let reason = match filter.reason {
        None => None,
        Some(number) => {
            Some(Reason::from_u8(number).ok_or_else(|| Failed::text(format!("this node knows no reason {number}")))?)
        }
    };
    let numbers = filter.numbers.map(|numbers| numbers.into_iter().collect());
    Ok(Filter { numbers, newest: filter.newest, to_type: filter.to_type, reason })
}

fn to_wire((number, letter): (u64, DeadLetter)) -> wire::DeadLetter {
    let (to, from) = (letter.header.to(), letter.header.from());
    let strike = |s: dead_letters::Strike| LetterStrike { at_us: s.at_us, term: s.term, how: s.how };
    wire::DeadLetter {
        number,
        at_us: letter.at_us,
        device: letter.device,
        history: letter.history.into_iter().map(strike).collect(),
        hlc: Hlc(letter.header.hlc),
        reason: letter.reason as u8,
        to_type: to.type_id,
        to_key: to.key.into(),
        from_type: from.type_id,
        from_key: from.key.into(),
        payload: letter.payload,
    }
}
