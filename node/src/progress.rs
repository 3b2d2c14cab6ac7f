//! How far something long has come: a bar on a terminal, a line a second elsewhere. Both on standard error.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// What is counted, and how it is written.
#[derive(Clone, Copy)]
pub struct Unit {
    pub text: fn(u64) -> String,
    /// Behind the numbers: `flights`, `read`.
    pub what: &'static str,
}

/// Shows progress from when it is made until it is dropped.
pub struct Progress {
    total: u64,
    unit: Unit,
    started: Instant,
    /// `None` where there is no terminal.
    bar: Option<ProgressBar>,
    next: Instant,
}

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How often the bar is drawn.
const BAR_EVERY: Duration = Duration::from_millis(100);

impl Progress {
    /// Shows how many of `total` are done. Nothing is shown of what takes less than `quiet`.
    pub fn new(total: u64, unit: Unit, quiet: Duration) -> Progress {
        let started = Instant::now();
        let bar = stderr().is_terminal().then(|| bar(total, unit));
        let mut progress = Progress { total, unit, started, bar, next: started };
        progress.next += progress.every().max(quiet);
        progress
    }

    /// So many are.
    pub fn at(&mut self, done: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + self.every();
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None => self.line(done, now - self.started),
        }
    }

    /// A line for people, above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            // Where standard error is closed, there is nobody to tell.
            None => drop(writeln!(stderr(), "{line}")),
        }
    }

    fn every(&self) -> Duration {
        if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY }
    }

    /// One line. Where standard error is closed, there is nobody to tell.
    fn line(&self, done: u64, elapsed: Duration) {
        let rate = (done as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
        let percent = done.saturating_mul(100) / self.total.max(1);
        let Unit { text, what } = self.unit;
        let _ =
            writeln!(stderr(), "{} of {} {what} ({percent} %), {} a second", text(done), text(self.total), text(rate));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: u64, Unit { text, what }: Unit) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {done} of {all} {what}, {rate} a second")
        .map(|style| style.progress_chars("=> "))
        .expect("the template is a constant, and well formed")
        .with_key("done", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&text(state.pos()));
        })
        .with_key("all", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&text(state.len().unwrap_or(0)));
        })
        .with_key("what", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(what);
        })
        .with_key("rate", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&text(state.per_sec() as u64));
        });
    bar.set_style(style);
    bar
}
