//! The report: tables for people, and one JSON object.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::ask::{self, Mode};
use crate::bench;
use crate::definitions::{Case, Runner};
use crate::memory::{Idle, STATE_BYTES};
use crate::ours::Ours;
use crate::quic;

/// Ours first, then whom it is measured against.
pub const RUNNERS: [&str; 5] = ["ours", "ractor", "kameo", "actix", "bare_loop"];

/// What `--json` prints, grown section by section.
pub struct Report {
    json: Map<String, Value>,
    cases: Map<String, Value>,
}

impl Report {
    pub fn new(quick: bool) -> Report {
        let mut json = Map::new();
        json.insert("quick".into(), quick.into());
        json.insert("cores".into(), std::thread::available_parallelism().map_or(0, usize::from).into());
        println!("{:<22}{:>12}  flavour kept, spread of its repetitions", "case", "a second");
        Report { json, cases: Map::new() }
    }

    /// Prints one case, each runner on its better flavour.
    pub fn case(&mut self, case: Case, rows: &[bench::Row]) {
        let mut object = Map::new();
        object.insert("unit".into(), case.unit().into());
        let mut flavours = Map::new();
        let best = |name: &str| {
            let rows = rows.iter().filter(|row| row.name == name);
            rows.max_by(|a, b| a.median().total_cmp(&b.median()))
        };
        println!("\n{} ({})", case.name(), case.unit());
        let ours = best("ours").map(bench::Row::median);
        let mut ratios = Map::new();
        for name in RUNNERS {
            let Some(row) = best(name) else { continue };
            object.insert(name.into(), json!(row.median().round()));
            flavours.insert(name.into(), row.flavour.into());
            let mut line = format!("  {:<20}{:>12}", name, thousands(row.median()));
            if let (Some(ours), true) = (ours, name != "ours") {
                let ratio = ours / row.median();
                ratios.insert(name.into(), json!(round(ratio, 3)));
                line += &format!("  ours is {ratio:.2} x");
            }
            let (low, high) = (row.rates[0], row.rates[row.rates.len() - 1]);
            println!("{line}  {} ({}..{})", row.flavour, thousands(low), thousands(high));
        }
        object.insert("ratios".into(), ratios.into());
        object.insert("flavours".into(), flavours.into());
        let all = rows.iter().map(|row| {
            json!({ "runner": row.name, "flavour": row.flavour, "median": row.median().round(),
                "low": row.rates[0].round(), "high": row.rates[row.rates.len() - 1].round(),
                "repetitions": row.rates.len() })
        });
        object.insert("all".into(), all.collect());
        self.cases.insert(case.name().into(), object.into());
        if case == Case::ThreadRing {
            self.hop(rows);
        }
    }

    /// What one hop takes, from the rows of [`Case::ThreadRing`]: ours on one worker.
    fn hop(&mut self, rows: &[bench::Row]) {
        let one_worker = Ours::OneWorker.flavour();
        let mut section = Map::new();
        println!("\nhop between two actors, ns (a message of the thread ring; ours on one worker)");
        for name in RUNNERS {
            let rows = rows.iter().filter(|row| row.name == name && (name != "ours" || row.flavour == one_worker));
            let Some(rate) = rows.map(bench::Row::median).max_by(f64::total_cmp) else { continue };
            let ns = round(1e9 / rate, 1);
            println!("  {name:<20}{ns:>12}");
            section.insert(name.into(), ns.into());
        }
        self.json.insert("hop_ns".into(), section.into());
    }

    pub fn asks(&mut self, rows: &[ask::Row]) {
        let mut section = Map::new();
        println!("\nask from another thread, us{:>16}{:>10}", "p50", "p99");
        for mode in Mode::BOTH {
            let mut object = Map::new();
            for name in RUNNERS {
                let rows = rows.iter().filter(|row| row.name == name && row.mode == mode);
                let Some(row) = rows.min_by_key(|row| row.latency.p50) else { continue };
                let (p50, p99) = (micros(row.latency.p50), micros(row.latency.p99));
                println!("  {:<10}{:<20}{p50:>11}{p99:>10}  {}", mode.name(), label(name), row.flavour);
                object.insert(name.into(), json!({ "p50_us": p50, "p99_us": p99, "flavour": row.flavour }));
            }
            section.insert(mode.name().into(), object.into());
        }
        self.json.insert("ask".into(), section.into());
    }

    pub fn quic(&mut self, ours: &quic::Figures, bare: &quic::Figures) {
        println!("\nthrough QUIC on loopback{:>14}{:>10}{:>14}", "ask p50 us", "p99 us", "tells/s");
        let mut section = Map::new();
        for (name, figures) in [("ours", ours), ("bare_quinn", bare)] {
            let (p50, p99) = (micros(figures.ask.p50), micros(figures.ask.p99));
            let tells = bench::median(&figures.tells_per_s);
            println!("  {name:<22}{p50:>14}{p99:>10}{:>14}", thousands(tells));
            let object = json!({ "ask_p50_us": p50, "ask_p99_us": p99, "tells_per_s": tells.round() });
            section.insert(name.into(), object);
        }
        let ask = ours.ask.p50.as_secs_f64() / bare.ask.p50.as_secs_f64();
        let tell = bench::median(&ours.tells_per_s) / bench::median(&bare.tells_per_s);
        println!(
            "  an ask takes {ask:.2} x the bare round trip; tells flow at {:.0} % of the bare stream",
            tell * 100.0
        );
        section.insert("ask_p50_over_bare".into(), json!(round(ask, 3)));
        section.insert("tells_over_bare".into(), json!(round(tell, 3)));
        self.json.insert("quic".into(), section.into());
    }

    pub fn memory(&mut self, rows: &[Idle]) {
        println!("\nidle actors{:>24}{:>16}", "actors", "bytes an actor");
        let mut section = Map::new();
        for row in rows {
            let over = row.rss_bytes - STATE_BYTES as f64;
            let bytes = format!("{over:.0} + {STATE_BYTES}");
            println!("  {:<20}{:>13}{bytes:>16}", row.name, thousands(row.actors as f64));
            let mut object = json!({ "actors": row.actors, "state_bytes": STATE_BYTES,
                "rss_bytes_over_state": round(over, 1) });
            if let Some(bytes) = row.own_account_bytes {
                println!("  {:<33}{:>16}  by its own account", "", format!("{bytes:.0} + {STATE_BYTES}"));
                object["own_account_bytes_over_state"] = json!(round(bytes, 1));
            }
            if let Some(rate) = row.created_per_s {
                println!("  {:<33}{:>16}  created a second", "", thousands(rate));
                self.json.insert("creations_per_s".into(), rate.round().into());
            }
            section.insert(row.name.into(), object);
        }
        self.json.insert("idle_actors".into(), section.into());
    }

    /// The object, `cases` first.
    pub fn into_json(self) -> Value {
        let mut whole = Map::new();
        whole.insert("cases".into(), self.cases.into());
        whole.extend(self.json);
        whole.into()
    }
}

fn label(name: &str) -> &str {
    if name == "bare_loop" { "bare program" } else { name }
}

fn micros(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1e6, 2)
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// 1234567 as `1,234,567`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
