//! How far the stream has come: a bar on a terminal, a line a second elsewhere. Both on standard error.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::report::thousands;

/// Shows progress from when it is made until it is dropped.
pub struct Progress {
    total: u64,
    started: Instant,
    shown: Shown,
    next: Instant,
}

enum Shown {
    Bar(ProgressBar),
    Lines,
}

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How often the bar is drawn.
const BAR_EVERY: Duration = Duration::from_millis(100);

impl Progress {
    /// Shows on standard error how many of `total` flights are on their way.
    pub fn new(total: u64) -> Progress {
        let started = Instant::now();
        let shown = if stderr().is_terminal() { Shown::Bar(bar(total)) } else { Shown::Lines };
        let mut progress = Progress { total, started, shown, next: started };
        progress.next += progress.every();
        progress
    }

    /// `sent` of them all are.
    pub fn sent(&mut self, sent: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + self.every();
        match &self.shown {
            Shown::Bar(bar) => bar.set_position(sent),
            Shown::Lines => line(sent, self.total, now - self.started),
        }
    }

    /// A line for people, above the bar.
    pub fn say(&self, line: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.println(line),
            // Where standard error is closed, there is nobody to tell.
            Shown::Lines => drop(writeln!(stderr(), "{line}")),
        }
    }

    fn every(&self) -> Duration {
        match self.shown {
            Shown::Bar(_) => BAR_EVERY,
            Shown::Lines => LINE_EVERY,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {sent} of {all} flights, {rate} a second")
        .map(|style| style.progress_chars("=> "))
        .expect("the template is a constant, and well formed")
        .with_key("sent", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&thousands(state.pos() as i64));
        })
        .with_key("all", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&thousands(state.len().unwrap_or(0) as i64));
        })
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&thousands(state.per_sec() as i64));
        });
    bar.set_style(style);
    bar
}

/// One line. Where standard error is closed, there is nobody to tell.
fn line(sent: u64, total: u64, elapsed: Duration) {
    let rate = sent as f64 / elapsed.as_secs_f64().max(1e-9);
    let percent = sent * 100 / total.max(1);
    let (sent, total, rate) = (thousands(sent as i64), thousands(total as i64), thousands(rate as i64));
    let _ = writeln!(stderr(), "{sent} of {total} flights ({percent} %), {rate} a second");
}
