//! What the demo prints at the end: what the actors found out, and whether it is right.

use std::cmp::Reverse;
use std::fmt::Write;
use std::time::Duration;

use ringhold_kernels::id::Key;
use serde_json::{Value, json};

use super::actors::{airport, carrier};
use super::chaos::Recovery;
use super::failover::Failover;
use super::flights::{Flight, NO_TAIL};
use super::names::Names;
use super::states::{Check, States};

/// One run of the demo, from the first message to the last state read back.
pub struct Run<'a> {
    pub flights: &'a [Flight],
    /// As read back from the actors.
    pub found: &'a States,
    pub check: &'a Check,
    /// Nodes that there were.
    pub nodes: usize,
    /// Messages that were handled, as the devices or the states say: flights, and what the aircraft sent on.
    pub messages: u64,
    /// And how many there ought to have been.
    pub messages_expected: u64,
    /// From the first flight sent to the last message handled.
    pub streaming: Duration,
    /// What the actors ran on.
    pub device: String,
    /// From chaos, where there was any.
    pub recoveries: Option<Vec<Recovery>>,
    /// Of the node that was killed, where one was.
    pub failover: Option<Failover>,
}

impl Run<'_> {
    pub fn passed(&self) -> bool {
        self.check.passed()
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.streaming.as_secs_f64().max(1e-9)
    }

    /// The object that `--json` prints.
    pub fn json(&self) -> Value {
        let differences: Vec<Value> = self
            .check
            .differences
            .iter()
            .map(|d| json!({"actor": d.actor, "field": d.field, "expected": d.expected, "found": d.found}))
            .collect();
        let mut json = json!({
            "events": self.flights.len(),
            "lost": self.check.lost,
            "duplicated": self.check.duplicated,
            "actors": self.check.actors,
            "matches_reference": self.passed(),
            "events_per_second": self.per_second(self.flights.len() as u64) as u64,
            "device": self.device,
            "messages": self.messages,
            "messages_expected": self.messages_expected,
            "messages_per_second": self.per_second(self.messages) as u64,
            "seconds": self.streaming.as_secs_f64(),
            "states_that_differ": self.check.differing,
            "differences": differences,
            "nodes": self.nodes,
            "failover_ms": self.failover.as_ref().map(|failover| failover.took.as_millis() as u64),
        });
        if let Some(recoveries) = &self.recoveries {
            json["recoveries"] = recoveries.len().into();
            json["recovery_ms_max"] = longest(recoveries).into();
        }
        json
    }

    /// The tables and the check, for people.
    pub fn text(&self) -> String {
        let (airports, carriers) = (Names::airports(), Names::carriers());
        let mut text = String::new();
        for table in [self.began(&airports), self.suffered(&airports), self.longest(), self.carriers(&carriers)] {
            text += &table;
            text.push('\n');
        }
        text += &self.verdict();
        text
    }

    /// Where the delays began that came back to New York.
    fn began(&self, names: &Names) -> String {
        const ROWS: usize = 10;
        let mut airports: Vec<(Key, airport::State)> = self.found.airports.iter().map(|(k, s)| (*k, *s)).collect();
        airports.sort_by_key(|(key, state)| (Reverse(state.knock_on_minutes_caused), *key));
        let row = |(key, state): &(Key, airport::State)| {
            vec![
                key.to_string(),
                names.of(*key).to_string(),
                thousands(state.arrivals as i64),
                mean(state.arrival_delay_minutes, state.arrivals),
                thousands(state.knock_ons_caused as i64),
                thousands(state.knock_on_minutes_caused),
                mean(state.knock_on_minutes_caused, state.knock_ons_caused),
            ]
        };
        table(
            "Airports whose late arrivals came back to New York as late departures",
            &["<airport", "<", "arrivals", "mean delay", "knock-ons", "minutes", "mean"],
            airports.iter().filter(|(_, state)| state.knock_ons_caused > 0).take(ROWS).map(row).collect(),
        )
    }

    /// What the airports of New York had to bear.
    fn suffered(&self, names: &Names) -> String {
        let mut airports: Vec<(Key, airport::State)> = self.found.airports.iter().map(|(k, s)| (*k, *s)).collect();
        airports.retain(|(_, state)| state.departures + state.cancelled > 0);
        airports.sort_by_key(|(key, state)| (Reverse(state.knock_on_minutes_suffered), *key));
        let row = |(key, state): &(Key, airport::State)| {
            vec![
                key.to_string(),
                names.of(*key).to_string(),
                thousands(state.departures as i64),
                thousands(state.cancelled as i64),
                percent(state.departures_late as i64, state.departures as i64),
                mean(state.departure_delay_minutes, state.departures),
                thousands(state.knock_ons_suffered as i64),
                thousands(state.knock_on_minutes_suffered),
            ]
        };
        table(
            "Departures from New York",
            &["<airport", "<", "departures", "cancelled", "late", "mean delay", "knock-ons", "minutes"],
            airports.iter().map(row).collect(),
        )
    }

    /// The longest single knock-ons.
    fn longest(&self) -> String {
        const ROWS: usize = 5;
        let mut aircraft: Vec<_> = self.found.aircraft.iter().filter(|(_, state)| state.worst_knock_on > 0).collect();
        aircraft.sort_by_key(|(key, state)| (Reverse(state.worst_knock_on), **key));
        let rows = aircraft.iter().take(ROWS).map(|(key, state)| {
            // The sequence comes from an actor: a wrong one must not end the report.
            let flight = self.flights.get((state.worst_sequence as usize).wrapping_sub(1));
            vec![
                key.to_string(),
                flight.map_or("?".into(), |flight| format!("{}{}", flight.carrier, flight.number)),
                flight.map_or("?".into(), |flight| new_york_time(flight.scheduled)),
                flight.map_or("?".into(), |flight| format!("{} to {}", flight.origin, flight.destination)),
                thousands(state.worst_knock_on as i64),
                thousands(state.knock_ons as i64),
                thousands(state.knock_on_minutes as i64),
            ]
        });
        table(
            "Longest knock-on of an aircraft",
            &["<aircraft", "<flight", "<scheduled", "<route", "minutes", "all its knock-ons", "minutes"],
            rows.collect(),
        )
    }

    fn carriers(&self, names: &Names) -> String {
        let mut carriers: Vec<(Key, carrier::State)> = self.found.carriers.iter().map(|(k, s)| (*k, *s)).collect();
        let left = |state: &carrier::State| state.flights.saturating_sub(state.cancelled);
        // By mean delay, in thousandths of a minute so that it sorts as a whole number.
        carriers.sort_by_key(|(key, state)| {
            (Reverse(state.departure_delay_minutes * 1000 / (left(state) as i64).max(1)), *key)
        });
        let row = |(key, state): &(Key, carrier::State)| {
            vec![
                key.to_string(),
                names.of(*key).to_string(),
                thousands(state.flights as i64),
                percent(state.cancelled as i64, state.flights as i64),
                percent(state.departures_late as i64, left(state) as i64),
                mean(state.departure_delay_minutes, left(state)),
                mean(state.arrival_delay_minutes, left(state).saturating_sub(state.diverted)),
                thousands(state.knock_on_minutes),
                mean(state.knock_on_minutes, left(state)),
            ]
        };
        table(
            "Carriers by mean departure delay",
            &["<carrier", "<", "flights", "cancelled", "late", "departure", "arrival", "knock-on", "a flight"],
            carriers.iter().map(row).collect(),
        )
    }

    fn verdict(&self) -> String {
        let check = self.check;
        let mut text = String::new();
        let events = self.flights.len() as u64;
        let mut line = |label: &str, value: String| writeln!(text, "{label:<20}  {value}").expect("a String takes all");
        let rate =
            |count| format!("{} ({} a second)", thousands(count as i64), thousands(self.per_second(count) as i64));
        line("nodes", self.nodes.to_string());
        line("devices", self.device.clone());
        line("events", rate(events));
        line("messages handled", rate(self.messages));
        let again = self.messages.saturating_sub(self.messages_expected);
        match &self.recoveries {
            // What came after the last checkpoint.
            Some(_) if again > 0 => line("", format!("{} of them again, after a recovery", thousands(again as i64))),
            _ if self.messages != self.messages_expected => {
                line("", format!("{} were expected", thousands(self.messages_expected as i64)));
            }
            _ => {}
        }
        line("lost", thousands(check.lost as i64));
        line("duplicated", thousands(check.duplicated as i64));
        line("actors", thousands(check.actors as i64));
        line("states that differ", thousands(check.differing as i64));
        for difference in &check.differences {
            line("", difference.to_string());
        }
        if let Some(recoveries) = &self.recoveries {
            line("recoveries", format!("{}, the longest in {} ms", recoveries.len(), longest(recoveries)));
        }
        if let Some(Failover { node, led, shards, after, took }) = &self.failover {
            let led = if *led { ", which led," } else { "" };
            line("killed", format!("node `{node}`{led} after {} flights", thousands(*after as i64)));
            let shards = thousands(*shards as i64);
            line("failover", format!("{} ms until all its {shards} shards answered again", took.as_millis()));
        }
        if check.passed() {
            text += "Every actor's state is what a plain sequential computation of the same flights gives.\n";
        } else {
            text += "The actors do NOT agree with a plain sequential computation of the same flights.\n";
        }
        if self.found.aircraft.contains_key(&NO_TAIL) {
            text += "(Cancelled flights that no aircraft is recorded for are counted at the aircraft NOTAIL.)\n";
        }
        text
    }
}

fn longest(recoveries: &[Recovery]) -> u64 {
    recoveries.iter().map(|recovery| recovery.took.as_millis() as u64).max().unwrap_or(0)
}

/// A title, headings and rows. Headings that start with `<` are of columns of text, to the left; the others' are
/// figures, to the right.
fn table(title: &str, headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut lines = vec![headings.iter().map(|heading| heading.trim_start_matches('<').to_string()).collect()];
    lines.extend(rows);
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| lines.iter().map(|line: &Vec<String>| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = format!("{title}\n");
    for line in lines {
        let cell = |((cell, heading), width): ((&String, &&str), &usize)| match heading.starts_with('<') {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        };
        let cells: Vec<String> = line.iter().zip(headings).zip(&widths).map(cell).collect();
        text += "  ";
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// 1234567 is `1,234,567`.
pub fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mean(sum: i64, count: u32) -> String {
    match count {
        0 => "-".into(),
        count => format!("{:.1}", sum as f64 / count as f64),
    }
}

fn percent(part: i64, whole: i64) -> String {
    match whole {
        0 => "-".into(),
        whole => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
    }
}

/// New York's wall clock, from minutes since 2013-01-01 00:00 UTC. Good for that one year.
fn new_york_time(minutes: u32) -> String {
    const DAY: i64 = 24 * 60;
    // Daylight saving time began on 10 March, day 68 of the year counted from 0, at 7:00 UTC, and ended on
    // 3 November, day 306, at 6:00 UTC.
    const SUMMER: std::ops::Range<i64> = 68 * DAY + 7 * 60..306 * DAY + 6 * 60;
    let utc = minutes as i64;
    let local = utc - if SUMMER.contains(&utc) { 4 * 60 } else { 5 * 60 };
    let (mut day, minute) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    const MONTHS: [(&str, i64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    for (name, days) in MONTHS {
        if day < days {
            return format!("{:>2} {name} {:02}:{:02}", day + 1, minute / 60, minute % 60);
        }
        day -= days;
    }
    "after 2013".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_people_write_them() {
        assert_eq!([0, 12, 999, 1000, -1234567].map(thousands).join(" "), "0 12 999 1,000 -1,234,567");
        assert_eq!((mean(7, 2), mean(7, 0), percent(1, 8)), ("3.5".into(), "-".into(), "12.5 %".into()));
    }

    #[test]
    fn times_are_of_new_york() {
        assert_eq!(new_york_time(10 * 60 + 15), " 1 Jan 05:15");
        // 2013-07-04 12:00 UTC is day 184.
        assert_eq!(new_york_time((184 * 24 + 12) * 60), " 4 Jul 08:00");
        assert_eq!(new_york_time(364 * 24 * 60 + 5 * 60), "31 Dec 00:00");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["bcd".into(), "1,000".into()]];
        assert_eq!(table("T", &["<x", "n"], rows), "T\n  x        n\n  a        1\n  bcd  1,000\n");
    }
}
