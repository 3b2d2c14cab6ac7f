//! Logs: to stderr, for people or, as JSON lines, for programs.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Format, Level, Log};

/// Starts logging for this process. A second call changes nothing.
pub fn start(log: &Log) {
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match log.format {
        Format::Text => stderr.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => stderr.json().flatten_event(true).boxed(),
    };
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter(log.level))).try_init();
}

/// Below warnings, only Ringhold's own: the network's and the store's would drown them. `trace` has everything.
fn filter(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => return Targets::new().with_default(LevelFilter::TRACE),
    };
    // openraft warns of each heartbeat that does not arrive.
    let of_raft = level.min(LevelFilter::ERROR);
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("openraft", of_raft)
        .with_target("ringhold", level)
}

/// What `-v` makes of a node's configured level: each counts one up.
pub fn raised(level: Level, verbose: u8) -> Level {
    let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
    let at = levels.iter().position(|known| *known == level).unwrap_or(0) + usize::from(verbose);
    levels[at.min(levels.len() - 1)]
}

/// A client is quiet, unless asked: its result and its failure are printed anyway.
pub fn level_of_client(verbose: u8) -> Level {
    match verbose {
        0 => Level::Error,
        1 => Level::Debug,
        _ => Level::Trace,
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level as L;

    use super::*;

    #[test]
    fn other_crates_are_heard_from_when_something_is_wrong() {
        let info = filter(Level::Info);
        assert!(
            info.would_enable("ringhold::server", &L::INFO) && info.would_enable("ringhold_cluster::tls", &L::INFO)
        );
        assert!(!info.would_enable("ringhold::server", &L::DEBUG));
        assert!(!info.would_enable("quinn", &L::INFO) && info.would_enable("quinn", &L::WARN));
        assert!(!filter(Level::Error).would_enable("quinn", &L::WARN));
        assert!(filter(Level::Trace).would_enable("quinn", &L::TRACE));
        assert_eq!(
            [0, 1, 2, 9].map(|v| raised(Level::Info, v)),
            [Level::Info, Level::Debug, Level::Trace, Level::Trace]
        );
    }
}
