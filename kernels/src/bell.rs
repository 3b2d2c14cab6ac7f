//! Waking the other side: a word that says "I wait", and a bell to ring then.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Wakes whoever waits. Rung from any thread, and for another process too.
pub trait Bell: Send + Sync {
    fn ring(&self);
}

/// Rings `bell` if its owner has said in `parked` that it waits. Call it after publishing what it waits for.
#[inline(always)]
pub fn wake(parked: &AtomicU32, bell: &dyn Bell) {
    // Pairs with the fence in `park`: either we see the word, or the owner's last look sees what we published.
    fence(Ordering::SeqCst);
    if parked.load(Ordering::Relaxed) != 0 && parked.swap(0, Ordering::Relaxed) != 0 {
        bell.ring();
    }
}

/// Says in `parked` that the caller waits. It must look once more for work before it does.
#[inline(always)]
pub fn park(parked: &AtomicU32) {
    parked.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// A bell that works between processes: an eventfd.
pub struct EventBell(OwnedFd);

impl EventBell {
    pub fn new() -> std::io::Result<EventBell> {
        Ok(EventBell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// The bell behind a descriptor that was handed over.
    pub fn from_fd(fd: OwnedFd) -> EventBell {
        EventBell(fd)
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Waits until the bell has been rung since the last wait, or the time is over.
    pub fn wait(&self, timeout: Option<Duration>) {
        let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        // An interrupted or failed wait only means that the caller looks for work once more.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref());
        self.clear();
    }

    /// Forgets rings so far.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl Bell for EventBell {
    fn ring(&self) {
        // It fails only when the counter is full, and then the waiter is awake anyway.
        let _ = rustix::io::write(self.0.as_fd(), &1u64.to_ne_bytes());
    }
}
