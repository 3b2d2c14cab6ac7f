//! What commands print.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::exit::{self, Failure};

/// For whom a command prints.
#[derive(Clone, Copy)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// A command's one result: JSON for programs, text for people.
    pub fn result(self, value: impl serde::Serialize, text: impl FnOnce() -> String) {
        if self.json {
            let value = serde_json::to_string(&value).expect("results are maps with text for keys");
            print(&format!("{value}\n"));
        } else {
            print(&text());
        }
    }

    /// Says what is about to be done and asks whether it should. Without a terminal, and for programs, nobody can be asked.
    pub fn confirm(self, what: &str, question: &str) -> Result<(), Failure> {
        if self.json || !stdin().is_terminal() {
            return Err(Failure::usage(format!("{what}\nsay --yes if they should; nothing was changed")));
        }
        let _ = write!(stderr(), "{what}\n{question} [y/N] ");
        let mut answer = String::new();
        let _ = stdin().read_line(&mut answer);
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::new(exit::FAILED, "nothing was changed")),
        }
    }

    pub fn failure(self, failure: &Failure) -> ExitCode {
        if self.json {
            let mut error = json!({
                "kind": failure.kind(),
                "exit_code": failure.code,
                "message": failure.message,
            });
            if let Some(Value::Object(details)) = &failure.details {
                error.as_object_mut().expect("made as one").extend(details.clone());
            }
            print(&format!("{}\n", json!({"error": error})));
        }
        let _ = writeln!(std::io::stderr(), "error: {}", failure.message);
        ExitCode::from(failure.code)
    }
}

/// Prints; a reader that went away (`| head`) is no error.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Columns that line up: text to the left, numbers to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// A heading that starts with `>` marks a column of numbers.
    right: Vec<bool>,
}

impl Table {
    pub fn new<const N: usize>(heading: [&str; N]) -> Table {
        Table {
            right: heading.iter().map(|cell| cell.starts_with('>')).collect(),
            rows: vec![heading.map(|cell| cell.trim_start_matches('>').to_string()).to_vec()],
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.right.len());
        self.rows.push(cells.map(|cell| printable(&cell)).to_vec());
    }

    /// Leaves a column out in which no row has anything.
    pub fn drop_if_empty(&mut self, heading: &str) {
        let column = self.rows[0].iter().position(|cell| cell == heading).expect("a column of the table");
        if self.rows[1..].iter().all(|row| row[column].is_empty()) {
            self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
            self.right.remove(column);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub fn text(&self) -> String {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.right).map(|((cell, width), right)| {
                if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names come from peers: nothing in them may steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// 336776 as 336,776.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 lane`, `2,000 lanes`.
pub fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", number(n), if n == 1 { "" } else { "s" })
}

/// A length of time in the two units that matter: `2d 3h`, `3m 12s`, `1.2s`, `850ms`.
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{}m {}s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..86_400_000 => format!("{}h {}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{}d {}h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

/// A length of time that may be short: `850ns`, `1.2µs`, `3.4ms`, then as [`span`].
pub fn fine_span(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}.{}µs", ns / 1_000, ns % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{}ms", ns / 1_000_000, ns % 1_000_000 / 100_000),
        _ => span(ns / 1_000_000),
    }
}

/// Microseconds since the Unix epoch as `2026-11-25 12:00:05`. The calendar is Howard Hinnant's `civil_from_days`:
/// <https://howardhinnant.github.io/date_algorithms.html>.
pub fn utc(us: u64) -> String {
    let s = us / 1_000_000;
    let days = s / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + (month <= 2) as u64;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", s / 3_600 % 24, s / 60 % 60, s % 60)
}

/// 16 KiB, 1.5 GiB.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (n.max(1).ilog2() / 10).min(units.len() as u32 - 1);
    if unit == 0 {
        return format!("{n} B");
    }
    format!("{:.1} {}", n as f64 / (1u64 << (10 * unit)) as f64, units[unit as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["NAME", ">COUNT", "WHY"]);
        table.row(["a".into(), number(1_234_567), "x".into()]);
        table.row(["bé\x1b[31m".into(), "7".into(), String::new()]);
        assert_eq!(table.text(), "NAME         COUNT  WHY\na        1,234,567  x\nbé\u{fffd}[31m          7\n");
    }

    #[test]
    fn a_time_is_a_date_and_a_time_of_day() {
        let times = [0, 951_782_399, 951_782_400, 1_795_608_005, 4_107_542_400].map(|s| utc(s * 1_000_000));
        let expected = [
            "1970-01-01 00:00:00",
            "2000-02-28 23:59:59",
            "2000-02-29 00:00:00",
            "2026-11-25 12:00:05",
            "2100-03-01 00:00:00",
        ];
        assert_eq!(times, expected);
    }

    #[test]
    fn numbers_and_spans_read_well() {
        assert_eq!([0, 999, 1_000, 336_776].map(number), ["0", "999", "1,000", "336,776"]);
        assert_eq!([0, 1, 2_000].map(|n| counted(n, "lane")), ["0 lanes", "1 lane", "2,000 lanes"]);
        assert_eq!([5, 1_250, 192_000, 3_660_000, 180_000_000].map(span), ["5ms", "1.2s", "3m 12s", "1h 1m", "2d 2h"]);
        assert_eq!([7, 1_250, 3_490_000, 2_100_000_000].map(fine_span), ["7ns", "1.2µs", "3.4ms", "2.1s"]);
        assert_eq!([0, 1_023, 1_536, 3 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
    }
}
