//! Where every choice of a run comes from: its seed.
//!
//! Each part of the world draws from a stream of its own, so that a change in one (a device that takes one more
//! step) does not shift the choices of all the others. TLS reaches its randomness through statics, so that stream
//! belongs to the thread: a thread runs one simulation at a time.

use std::cell::RefCell;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// The parts of the world that draw numbers.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Stream {
    Secrets = 1,
    Network = 2,
    Device = 3,
    Plan = 4,
    Disk = 5,
    /// What happens to nodes, and when.
    Chaos = 6,
    /// Messages between nodes, where no datagrams carry them.
    Wires = 7,
    /// Of shards; each start of a node adds its number.
    Moves = 2 << 32,
    /// Clients; each adds its own number.
    Client = 1 << 32,
}

/// Numbers that a seed and a stream determine.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64, stream: Stream, number: u64) -> Random {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64 + (number << 8));
        Random(rng)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 up to, and not including, `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of a remainder is far below what any scenario could notice.
        self.0.next_u64() % bound
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

thread_local! {
    static SECRETS: RefCell<Random> = RefCell::new(Random::new(0, Stream::Secrets, 0));
}

/// Starts the stream of this thread's secrets anew.
pub fn seed_secrets(seed: u64) {
    SECRETS.with(|secrets| *secrets.borrow_mut() = Random::new(seed, Stream::Secrets, 0));
}

/// Fills `bytes` from the stream of this thread's secrets.
pub fn secrets(bytes: &mut [u8]) {
    SECRETS.with(|secrets| secrets.borrow_mut().fill(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_stream_determine_the_numbers() {
        let take = |seed, stream, number| {
            let mut random = Random::new(seed, stream, number);
            [0; 4].map(|_: u8| random.word())
        };
        assert_eq!(take(7, Stream::Network, 0), take(7, Stream::Network, 0));
        assert_ne!(take(7, Stream::Network, 0), take(8, Stream::Network, 0));
        assert_ne!(take(7, Stream::Network, 0), take(7, Stream::Device, 0));
        assert_ne!(take(7, Stream::Client, 1), take(7, Stream::Client, 2));
    }
}
