//! Messages that may have ended their host, and how one of them is known again.
//!
//! A host that stalls or crashes leaves in its workers' words which message each had in hand. The next one is told for which actors
//! those were, and says of each message to them what it is, before it runs it. What ends a host twice is *condemned*: the
//! host after that does not run it.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::id::{ActorId, Key, TypeId, fnv1a};
use crate::message::Header;
use crate::segment::{CAREFUL, SUSPECTS_MAX, Segment};

/// A message that was in hand when its host ended. Zero is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    pub actor: ActorId,
    /// Its stamp: the same when it is sent again by the node, another when it is made again by an actor.
    pub hlc: u64,
    /// [`hash_of`] it.
    pub hash: u64,
    /// It is not to be run.
    pub condemned: bool,
}

impl Suspect {
    /// Whether the two are one message.
    pub fn is(&self, other: &Suspect) -> bool {
        let same = |one: u64, other: u64| one != 0 && one == other;
        self.actor == other.actor && (same(self.hlc, other.hlc) || same(self.hash, other.hash))
    }
}

/// What a message is, but for its stamp. Zero for one that is [sent again](Header::is_sent_again): such a one is known by its stamp
/// alone, so that it is run though others like it are not.
pub fn hash_of(header: &Header, payload: &[u8]) -> u64 {
    if header.is_sent_again() {
        return 0;
    }
    let from = header.from();
    let about = [&from.key.0.to_le_bytes()[..], &from.type_id.0.to_le_bytes(), &[header.kind().map_or(0, |k| k as u8)]];
    fnv1a(&[&about.concat(), payload].concat()).max(1)
}

/// Says what the next host is to look out for: the last of them, where they are too many; and whether it is to be [`CAREFUL`].
/// Nobody may serve the segment.
pub fn write(segment: &Segment, suspects: &[Suspect], careful: bool) {
    let words = segment.suspects();
    let last = &suspects[suspects.len().saturating_sub(SUSPECTS_MAX)..];
    for (words, suspect) in words.entries.iter().zip(last) {
        words.key.store(suspect.actor.key.0, Relaxed);
        words.type_id.store(suspect.actor.type_id.0, Relaxed);
        words.condemned.store(suspect.condemned.into(), Relaxed);
        words.hlc.store(suspect.hlc, Relaxed);
        words.hash.store(suspect.hash, Relaxed);
    }
    words.count.store(last.len() as u64 | if careful { CAREFUL } else { 0 }, Release);
}

/// What a host is to look out for.
pub fn read(segment: &Segment) -> Vec<Suspect> {
    let words = segment.suspects();
    let count = ((words.count.load(Acquire) & !CAREFUL) as usize).min(SUSPECTS_MAX);
    let suspect = |words: &crate::segment::SuspectWords| Suspect {
        actor: ActorId::new(TypeId(words.type_id.load(Relaxed)), Key(words.key.load(Relaxed))),
        hlc: words.hlc.load(Relaxed),
        hash: words.hash.load(Relaxed),
        condemned: words.condemned.load(Relaxed) != 0,
    };
    words.entries[..count].iter().map(suspect).collect()
}
