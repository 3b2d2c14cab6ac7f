//! The CPU device: a thread per worker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::bell::{Bell, EventBell};
use crate::clock::Clock;
use crate::registry::Registry;
use crate::segment::Segment;
use crate::worker::{Bells, Worker, workers};

/// Idle steps before a worker parks: it looks around for about a microsecond, so that a reply to what it just sent
/// finds it awake, and never burns a core to wait.
const IDLE_STEPS_MAX: u32 = 16;

/// Threads that run a device. Dropping it does not stop them: the segment's stop word does.
pub struct Host {
    threads: Vec<JoinHandle<()>>,
}

/// Starts the workers of a device; they say when they are up. `own` holds each worker's bell, `node` the node's.
pub fn start(
    segment: &Arc<Segment>,
    registry: &Arc<Registry>,
    own: Vec<Arc<EventBell>>,
    node: Arc<dyn Bell>,
    clock: &Arc<dyn Clock>,
) -> io::Result<Host> {
    let as_bells = own.iter().map(|bell| bell.clone() as Arc<dyn Bell>).collect();
    let bells = Bells { workers: Arc::new(as_bells), node: node.clone() };
    segment.device().pid.store(std::process::id(), Release);
    let mut threads = Vec::new();
    for (worker, bell) in workers(segment, registry, &bells).into_iter().zip(own) {
        let clock = clock.clone();
        let name = format!("worker-{}", worker.index());
        threads.push(std::thread::Builder::new().name(name).spawn(move || run(worker, &bell, &*clock))?);
    }
    Ok(Host { threads })
}

impl Host {
    /// Waits until all workers have ended. An error names a worker that panicked instead.
    pub fn join(self) -> Result<(), String> {
        let mut failed = Vec::new();
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or("worker").to_owned();
            if thread.join().is_err() {
                failed.push(name);
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(format!("panicked: {}", failed.join(", "))) }
    }

    /// Whether any worker has ended, in order or not.
    pub fn is_over(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

fn run(mut worker: Worker, bell: &EventBell, clock: &dyn Clock) {
    let mut idle_steps = 0;
    loop {
        let now_us = clock.now_us();
        let step = worker.step(now_us);
        if worker.may_end(step.idle) {
            return worker.end();
        }
        if step.ran > 0 {
            idle_steps = 0;
            continue;
        }
        idle_steps += 1;
        if idle_steps < IDLE_STEPS_MAX {
            std::hint::spin_loop();
        } else if !step.idle {
            // Something waits for room on the other side, which rings no bell: look again soon.
            std::thread::sleep(Duration::from_micros(50));
        } else if worker.park() {
            bell.wait(step.next_timer_us.map(|due| Duration::from_micros(due.saturating_sub(now_us).max(1))));
            worker.unpark();
            idle_steps = 0;
        }
    }
}
