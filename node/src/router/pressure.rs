//! What the router refuses while the node is short of memory or capacity, and what it says of that and of its health.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::wire::{Health, ShedLevel, Shedding};
use ringhold_kernels::message::{Header, Kind, Reason};
use tokio::time::{Instant, sleep};

use super::Router;
use crate::health::{self, Facts};
use crate::memory;
use crate::shed::{Level, Pressure, Shed, Signals};

/// How often the node looks how short it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct State {
    level: AtomicU8,
    now: Mutex<Pressure>,
    sessions: AtomicU64,
    tells: AtomicU64,
    asks: AtomicU64,
}

impl Router {
    /// Decides what is refused, for as long as the node runs. `memory_max` is in bytes.
    pub async fn shed_load(self: Arc<Router>, memory_max: Option<u64>) {
        let (origin, mut shed, mut before) = (Instant::now(), Shed::default(), Level::Nothing);
        loop {
            let hosts = self.devices.iter().filter_map(|device| device.running_pid());
            let memory = memory_max.map(|max| (memory::in_use(hosts), max));
            let devices = self.present().map(|device| device.signals()).collect();
            let (level, pressure) = shed.step(origin.elapsed(), &Signals { memory, devices });
            if level != before {
                match text(level) {
                    Some(what) => tracing::warn!(percent = pressure.percent, "{what}: {}", pressure.why),
                    None => tracing::info!(percent = pressure.percent, "nothing is refused any more"),
                }
                before = level;
            }
            *self.pressure.now.lock() = pressure;
            self.pressure.level.store(level as u8, Relaxed);
            sleep(LOOK_EVERY).await;
        }
    }

    pub(super) fn sheds(&self) -> Level {
        Level::from_u8(self.pressure.level.load(Relaxed))
    }

    /// A message from outside as it may go in now, if it may.
    #[inline]
    pub(super) fn shed(&self, level: Level, header: &Header) -> Result<Header, Reason> {
        if level < Level::Creation {
            return Ok(*header);
        }
        if level >= if header.is(Kind::Tell) { Level::Tells } else { Level::Asks } {
            return Err(Reason::Overloaded);
        }
        // An inspect makes no actor in any case.
        Ok(if header.is(Kind::Inspect) { *header } else { header.creating_nothing() })
    }

    /// Takes in that a message from outside was refused.
    pub(super) fn count_shed(&self, reason: Reason, header: &Header) {
        if reason == Reason::Overloaded {
            let count = if header.is(Kind::Tell) { &self.pressure.tells } else { &self.pressure.asks };
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn refuses_new_session(&self) -> Option<String> {
        (self.sheds() >= Level::Sessions).then(|| {
            self.pressure.sessions.fetch_add(1, Relaxed);
            self.pressure.now.lock().why.clone()
        })
    }

    pub(super) fn shedding(&self) -> Shedding {
        let level = self.sheds();
        let now = self.pressure.now.lock().clone();
        let (tells, asks) = (self.pressure.tells.load(Relaxed), self.pressure.asks.load(Relaxed));
        // Beside what doors refused, what devices did because it would have made an actor.
        let refused = self.devices.iter().filter_map(|d| d.door.lock().unhandled().get(&Reason::Overloaded).copied());
        let creations = refused.sum::<u64>().saturating_sub(tells + asks);
        Shedding {
            level: match level {
                Level::Nothing => ShedLevel::Nothing,
                Level::Sessions => ShedLevel::Sessions,
                Level::Creation => ShedLevel::Creation,
                Level::Tells => ShedLevel::Tells,
                Level::Asks => ShedLevel::Asks,
            },
            pressure_percent: now.percent,
            why: if level == Level::Nothing { String::new() } else { now.why },
            sessions: self.pressure.sessions.load(Relaxed),
            creations,
            tells,
            asks,
        }
    }

    /// How the node does.
    pub fn health(&self) -> Health {
        let why = self.pressure.now.lock().why.clone();
        health::judge(&Facts {
            draining: self.draining.load(SeqCst),
            no_lease: self.cluster.as_ref().and_then(|cluster| cluster.lease()).is_some_and(|lease| !lease.holds()),
            loop_age: self.pulse.loop_age(),
            storage_age: self.pulse.storage_age(),
            devices: self.present().map(|device| device.status()).collect(),
            shedding: text(self.sheds()).map(|what| format!("{what}: {why}")),
            letters_failed: self.letters.failed(),
        })
    }
}

/// What is refused, for people.
fn text(level: Level) -> Option<&'static str> {
    Some(match level {
        Level::Nothing => return None,
        Level::Sessions => "new sessions are refused",
        Level::Creation => "new sessions, and messages that would make actors, are refused",
        Level::Tells => "new sessions, and tells from outside, are refused",
        Level::Asks => "everything from outside is refused",
    })
}
