//! What happened in a run, as a running hash, and as text where somebody wants to read it.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The trace of one run. Clones are the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    started: Instant,
    hash: u64,
    events: u64,
    line: String,
    print: bool,
    lost: u64,
}

impl Trace {
    /// A trace that starts now; with `print` every event also goes to standard output.
    pub fn new(print: bool) -> Trace {
        Trace(Arc::new(Mutex::new(Inner {
            started: Instant::now(),
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            line: String::new(),
            print,
            lost: 0,
        })))
    }

    /// Adds an event, stamped with the simulated time.
    pub fn event(&self, what: fmt::Arguments<'_>) {
        let inner = &mut *self.0.lock();
        let at_us = inner.started.elapsed().as_micros();
        inner.line.clear();
        write!(inner.line, "{:>6}.{:03} {what}", at_us / 1_000_000, at_us / 1000 % 1000)
            .expect("a string takes anything");
        inner.hash = fnv1a(inner.hash, inner.line.as_bytes());
        inner.events += 1;
        if inner.print {
            say(format_args!("{}", inner.line));
        }
    }

    /// Simulated time since the trace began.
    pub fn elapsed(&self) -> Duration {
        self.0.lock().started.elapsed()
    }

    /// FNV-1a over every event so far.
    pub fn hash(&self) -> u64 {
        self.0.lock().hash
    }

    pub fn events(&self) -> u64 {
        self.0.lock().events
    }

    /// Messages and timers that the node has said were lost with devices' hosts.
    pub fn reported_lost(&self) -> u64 {
        self.0.lock().lost
    }

    /// Takes in what the thread's code logs, for as long as the guard lives.
    pub fn take_logs(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(Logs(self.clone()))
    }
}

/// Prints a line. Where nobody reads any more, as behind `| head`, the process ends.
pub fn say(line: fmt::Arguments<'_>) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(1);
    }
}

/// FNV-1a, continued from `hash`.
pub fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What the node and the clients log is part of the trace.
struct Logs(Trace);

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::DEBUG && metadata.target().starts_with("ringhold")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(lost) = fields.lost {
            self.0.0.lock().lost += lost;
        }
        let target = event.metadata().target();
        self.0.event(format_args!("log {} {target}: {}", event.metadata().level(), fields.text));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Fields {
    text: String,
    /// Messages and timers, where the event tells of a loss.
    lost: Option<u64>,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if matches!(field.name(), "messages" | "timers") {
            self.lost = Some(self.lost.unwrap_or(0) + value);
        }
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let separator = if self.text.is_empty() { "" } else { " " };
        let written = match field.name() {
            "message" => write!(self.text, "{separator}{value:?}"),
            name => write!(self.text, "{separator}{name}={value:?}"),
        };
        written.expect("a string takes anything");
    }
}
