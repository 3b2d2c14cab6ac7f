//! What a ring kernel cannot do for itself: it rings no bell and knows no calendar, so its host's process does.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crate::bell::{Bell, wake};
use crate::clock_host::ClockHost;
use crate::clock_map::Options;
use crate::ring::Consumer;
use crate::segment::Segment;

/// Looks at a segment on behalf of the ring kernel that serves it. A state machine: [`Pump::look`] is called again and
/// again by whoever waits for the kernel's end.
pub struct Pump {
    segment: Arc<Segment>,
    node: Arc<dyn Bell>,
    clock: ClockHost,
    up: bool,
    /// What the ingress rings' readers had freed when the node was last told of room.
    freed: u64,
    /// How much of cuts had come up when the node was last told of it.
    staged: u64,
    /// Looks since something last happened.
    idle: u32,
}

impl Pump {
    /// `options` say what is known of the device's clock.
    pub fn new(segment: Arc<Segment>, node: Arc<dyn Bell>, options: Options) -> Pump {
        segment.device().pid.store(std::process::id(), Release);
        let clock = ClockHost::new(segment.clone(), Box::new(segment.host_clock()), options);
        Pump { segment, node, clock, up: false, freed: 0, staged: 0, idle: 0 }
    }

    /// Looks once: says that the device runs when its kernel does, rings for a node that waits for messages or for room,
    /// and keeps the device's clock mapped. Returns how long to wait before the next look.
    pub fn look(&mut self) -> Duration {
        self.idle = self.idle.saturating_add(1);
        if !self.up && self.segment.kernel().up.load(Acquire) != 0 {
            self.up = true;
            let term = self.segment.node().term.load(Acquire);
            self.segment.device().running_term.store(term as u32, Release);
            self.node.ring();
        }
        let lanes = 0..self.segment.shape().lanes();
        let words = |lane| &self.segment.staging(lane).host.0;
        // The epoch too, which may follow the last byte.
        let staged =
            lanes.clone().map(|lane| words(lane).written.load(Relaxed) + words(lane).epoch.load(Relaxed)).sum();
        if staged != self.staged {
            (self.staged, self.idle) = (staged, 0);
            wake(&self.segment.node().parked, &*self.node);
        }
        if lanes.clone().any(|lane| !Consumer::attach(self.segment.egress(lane)).is_empty()) {
            self.idle = 0;
            wake(&self.segment.node().parked, &*self.node);
        }
        let freed = lanes.map(|lane| self.segment.worker(lane).ingress.0.consumed.load(Relaxed)).sum();
        if freed != self.freed {
            (self.freed, self.idle) = (freed, 0);
            wake(&self.segment.node().wants_room, &*self.node);
        }
        // A pause and a new mapping are published for the device, and counted for `status`: nothing is left to do here.
        let _ = self.clock.step();
        // Soon after something has happened, more is likely to; at rest it costs next to nothing.
        let rest = Duration::from_micros(if self.idle < 100 { 50 } else { 1_000 });
        rest.min(Duration::from_nanos(self.clock.idle_ns()))
    }
}
