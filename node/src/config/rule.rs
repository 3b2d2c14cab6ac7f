//! The rules of fields: how a value is read from TOML, checked, written, and what it must be in words.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ringhold_kernels::suggest;
use toml::de::DeValue;

/// What a field's values are.
pub trait Rule<T> {
    /// What the value must be, to follow "must be".
    fn text(&self) -> String;

    /// The value, or where there is none (a wrong type, a number that does not fit), what to write instead if
    /// that can be told.
    fn read(&self, found: &DeValue<'_>) -> Result<T, Option<String>>;

    /// Whether a value of the right type is allowed; if not, what to write instead.
    fn check(&self, value: &T) -> Result<(), String> {
        let _ = value;
        Ok(())
    }

    /// In TOML; `None` where it is not set.
    fn write(&self, value: &T) -> Option<String>;

    /// A value to show where there is none.
    fn example(&self) -> Option<&'static str> {
        None
    }

    /// The same in TOML. A number is none in quotes.
    fn shown(&self) -> String {
        let example = self.example().unwrap_or_default();
        let number = !example.is_empty() && example.bytes().all(|byte| byte.is_ascii_digit());
        if number { example.into() } else { quoted(example) }
    }
}

/// A whole number of either width.
pub trait Whole: Copy + TryFrom<u64> + Into<u64> {}
impl Whole for u32 {}
impl Whole for u64 {}

/// A whole number between two others, both included.
#[derive(Clone, Copy)]
pub struct Range {
    min: u64,
    max: u64,
}

impl Range {
    pub const fn new(min: u64, max: u64) -> Range {
        Range { min, max }
    }
}

impl<T: Whole> Rule<T> for Range {
    fn text(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn read(&self, found: &DeValue<'_>) -> Result<T, Option<String>> {
        let number = integer(found)?;
        let fits = u64::try_from(number).ok().and_then(|n| T::try_from(n).ok());
        fits.ok_or_else(|| Some(format!("write {}", number.clamp(self.min.into(), self.max.into()))))
    }

    fn check(&self, value: &T) -> Result<(), String> {
        let number = (*value).into();
        let near = number.clamp(self.min, self.max);
        if near == number { Ok(()) } else { Err(format!("write {near}")) }
    }

    fn write(&self, value: &T) -> Option<String> {
        Some((*value).into().to_string())
    }
}

/// A power of two between two others, both included.
#[derive(Clone, Copy)]
pub struct PowerOfTwo {
    range: Range,
}

impl PowerOfTwo {
    pub const fn new(min: u64, max: u64) -> PowerOfTwo {
        assert!(min.is_power_of_two() && max.is_power_of_two());
        PowerOfTwo { range: Range::new(min, max) }
    }
}

impl<T: Whole> Rule<T> for PowerOfTwo {
    fn text(&self) -> String {
        format!("a power of two from {} to {}", self.range.min, self.range.max)
    }

    fn read(&self, found: &DeValue<'_>) -> Result<T, Option<String>> {
        self.range.read(found)
    }

    fn check(&self, value: &T) -> Result<(), String> {
        self.range.check(value)?;
        let number = (*value).into();
        let above = number.next_power_of_two();
        if above == number { Ok(()) } else { Err(format!("write {above} (or {})", above / 2)) }
    }

    fn write(&self, value: &T) -> Option<String> {
        self.range.write(value)
    }
}

/// `"auto"`, or a number.
#[derive(Clone, Copy)]
pub struct AutoOr(pub Range);

impl Rule<Option<u32>> for AutoOr {
    fn text(&self) -> String {
        format!("\"auto\" or {}", Rule::<u32>::text(&self.0))
    }

    fn read(&self, found: &DeValue<'_>) -> Result<Option<u32>, Option<String>> {
        if found.as_str() == Some("auto") { Ok(None) } else { self.0.read(found).map(Some) }
    }

    fn check(&self, value: &Option<u32>) -> Result<(), String> {
        value.map_or(Ok(()), |number| self.0.check(&number))
    }

    fn write(&self, value: &Option<u32>) -> Option<String> {
        Some(value.map_or("\"auto\"".into(), |number| number.to_string()))
    }
}

/// A length of time between two others, in milliseconds, both included.
#[derive(Clone, Copy)]
pub struct Span {
    min_ms: u64,
    max_ms: u64,
}

impl Span {
    pub const fn new(min_ms: u64, max_ms: u64) -> Span {
        Span { min_ms, max_ms }
    }
}

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// In the largest unit that it is a whole number of.
pub fn span_text(ms: u64) -> String {
    let (unit, unit_ms) =
        UNITS.into_iter().find(|(_, unit_ms)| ms >= *unit_ms && ms.is_multiple_of(*unit_ms)).unwrap_or(("s", 1));
    format!("{}{unit}", ms / unit_ms)
}

/// Reads `250ms`, `30s`, `5m`, `1h`.
pub fn span_ms(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

impl Rule<Duration> for Span {
    fn text(&self) -> String {
        let (min, max) = (span_text(self.min_ms), span_text(self.max_ms));
        format!("a length of time from \"{min}\" to \"{max}\" (units: ms, s, m, h)")
    }

    fn read(&self, found: &DeValue<'_>) -> Result<Duration, Option<String>> {
        match found.as_str() {
            Some(text) => span_ms(text).map(Duration::from_millis).ok_or(None),
            // A bare number: seconds, most likely.
            None => Err(integer(found).ok().map(|number| format!("write \"{number}s\""))),
        }
    }

    fn check(&self, value: &Duration) -> Result<(), String> {
        let ms = value.as_millis() as u64;
        let near = ms.clamp(self.min_ms, self.max_ms);
        if near == ms { Ok(()) } else { Err(format!("write \"{}\"", span_text(near))) }
    }

    fn write(&self, value: &Duration) -> Option<String> {
        Some(quoted(&span_text(value.as_millis() as u64)))
    }
}

/// One of a few words.
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Choice<T> {
    fn words(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.0.iter().map(|(word, _)| *word)
    }
}

impl<T: Copy + PartialEq> Rule<T> for Choice<T> {
    fn text(&self) -> String {
        let words: Vec<String> = self.words().map(quoted).collect();
        match words.as_slice() {
            [only] => only.clone(),
            [first @ .., last] => format!("{} or {last}", first.join(", ")),
            [] => "nothing".into(),
        }
    }

    fn read(&self, found: &DeValue<'_>) -> Result<T, Option<String>> {
        let word = found.as_str().ok_or(None)?;
        let known = self.0.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
        known.ok_or_else(|| suggest::nearest(word, self.words()).map(|near| format!("write {}", quoted(near))))
    }

    fn write(&self, value: &T) -> Option<String> {
        self.0.iter().find(|(_, known)| known == value).map(|(word, _)| quoted(word))
    }
}

/// An address and a port to listen at.
pub struct Address;

impl Rule<SocketAddr> for Address {
    fn text(&self) -> String {
        "an IP address and a port from 1 to 65535, \"IP:PORT\"".into()
    }

    fn read(&self, found: &DeValue<'_>) -> Result<SocketAddr, Option<String>> {
        let text = found.as_str().ok_or(None)?;
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => {
                Err(Some(format!("name a port, or start the node with `--listen {address}` to take any free one")))
            }
            Ok(address) => Ok(address),
            Err(_) => Err(address_fix(text)),
        }
    }

    fn write(&self, value: &SocketAddr) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// The name or address of a host, and a port.
#[derive(Clone, Copy)]
pub struct HostPort;

/// Whether this is `HOST:PORT`, with a port from 1 to 65535.
fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_host = !host.is_empty() && host.len() <= 253 && (bracketed || host.chars().all(named));
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

const HOST_PORT: &str = "the name or IP address of a host and a port from 1 to 65535, \"HOST:PORT\"";

impl Rule<String> for HostPort {
    fn text(&self) -> String {
        HOST_PORT.into()
    }

    fn read(&self, found: &DeValue<'_>) -> Result<String, Option<String>> {
        found.as_str().map(String::from).ok_or(None)
    }

    fn check(&self, value: &String) -> Result<(), String> {
        if is_host_port(value) { Ok(()) } else { Err(format!("write {}", quoted(&host_port_near(value)))) }
    }

    fn write(&self, value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

/// What was meant, perhaps.
fn host_port_near(text: &str) -> String {
    let with_port = format!("{}:7420", text.trim_end_matches(':'));
    if is_host_port(&with_port) { with_port } else { "node-1.example:7420".into() }
}

/// A list of these.
pub struct HostPorts;

impl Rule<Vec<String>> for HostPorts {
    fn text(&self) -> String {
        format!("a list, each {HOST_PORT}")
    }

    fn read(&self, found: &DeValue<'_>) -> Result<Vec<String>, Option<String>> {
        Names.read(found)
    }

    fn check(&self, value: &Vec<String>) -> Result<(), String> {
        match value.iter().find(|text| !is_host_port(text)) {
            None => Ok(()),
            Some(bad) => Err(format!("write {} for {}", quoted(&host_port_near(bad)), quoted(bad))),
        }
    }

    fn write(&self, value: &Vec<String>) -> Option<String> {
        Names.write(value)
    }
}

fn address_fix(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "7420"));
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).unwrap_or(7420);
    match host {
        "localhost" => Some(format!("write \"127.0.0.1:{port}\"")),
        "" | "*" => Some(format!("write \"0.0.0.0:{port}\" to listen on every address of the host")),
        host if host.parse::<std::net::IpAddr>().is_ok() => {
            Some(format!("write \"{}\"", SocketAddr::new(host.parse().ok()?, port)))
        }
        _ => None,
    }
}

/// A word for people and for files.
pub struct Name;

const NAME_BYTES_MAX: usize = 63;

impl Rule<String> for Name {
    fn text(&self) -> String {
        format!("a name of 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`")
    }

    fn read(&self, found: &DeValue<'_>) -> Result<String, Option<String>> {
        match found.as_str() {
            Some(text) => Ok(text.into()),
            None => Err(integer(found).ok().map(|number| format!("write \"{number}\""))),
        }
    }

    fn check(&self, value: &String) -> Result<(), String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !value.is_empty() && value.len() <= NAME_BYTES_MAX && value.chars().all(allowed) {
            return Ok(());
        }
        let near: String = value.chars().map(|c| if allowed(c) { c } else { '-' }).take(NAME_BYTES_MAX).collect();
        Err(if near.is_empty() { "give it a name, or leave the line out".into() } else { format!("write \"{near}\"") })
    }

    fn write(&self, value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

/// Names, in any order.
pub struct Names;

impl Rule<Vec<String>> for Names {
    fn text(&self) -> String {
        "a list of names, [\"one\", \"another\"]".into()
    }

    fn read(&self, found: &DeValue<'_>) -> Result<Vec<String>, Option<String>> {
        if let Some(one) = found.as_str() {
            return Err(Some(format!("write [{}]", quoted(one))));
        }
        let names = found.as_array().ok_or(None)?;
        names.iter().map(|name| name.get_ref().as_str().map(String::from).ok_or(None)).collect()
    }

    fn write(&self, value: &Vec<String>) -> Option<String> {
        Some(format!("[{}]", value.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")))
    }
}

/// Lengths of time by name.
pub struct Spans {
    pub each: Span,
    /// A name to show.
    pub example: &'static str,
}

impl Rule<BTreeMap<String, Duration>> for Spans {
    fn text(&self) -> String {
        format!("names with, for each, {}", self.each.text())
    }

    fn read(&self, found: &DeValue<'_>) -> Result<BTreeMap<String, Duration>, Option<String>> {
        let Some(table) = found.as_table() else {
            return Err(Some(format!("write {{ {} = {} }}", quoted(self.example), quoted("500ms"))));
        };
        let each = table.iter().map(|(name, value)| {
            let name = name.get_ref().to_string();
            match self.each.read(value.get_ref()) {
                Ok(span) => Ok((name, span)),
                // `a.b = …` without quotes is a table within a table.
                Err(_) if value.get_ref().is_table() => Err(Some(format!("put quotes around the name: \"{name}.…\""))),
                Err(fix) => {
                    Err(Some(format!("for {}, {}", quoted(&name), fix.unwrap_or_else(|| "write \"500ms\"".into()))))
                }
            }
        });
        each.collect()
    }

    fn check(&self, value: &BTreeMap<String, Duration>) -> Result<(), String> {
        for (name, span) in value {
            self.each.check(span).map_err(|fix| format!("for {}, {fix}", quoted(name)))?;
        }
        Ok(())
    }

    fn write(&self, value: &BTreeMap<String, Duration>) -> Option<String> {
        let pairs =
            value.iter().filter_map(|(name, span)| Some(format!("{} = {}", quoted(name), self.each.write(span)?)));
        let pairs: Vec<String> = pairs.collect();
        Some(if pairs.is_empty() { "{}".into() } else { format!("{{ {} }}", pairs.join(", ")) })
    }
}

/// A path of a file or folder.
pub struct PathTo;

impl Rule<PathBuf> for PathTo {
    fn text(&self) -> String {
        "a path".into()
    }

    fn read(&self, found: &DeValue<'_>) -> Result<PathBuf, Option<String>> {
        found.as_str().map(PathBuf::from).ok_or(None)
    }

    fn check(&self, value: &PathBuf) -> Result<(), String> {
        if value.as_os_str().is_empty() { Err("give the path, or leave the line out".into()) } else { Ok(()) }
    }

    fn write(&self, value: &PathBuf) -> Option<String> {
        Some(quoted(&value.display().to_string()))
    }
}

/// A value that may be left out; with an example to show in its place.
pub struct Optional<R>(pub R, pub &'static str);

impl<T, R: Rule<T>> Rule<Option<T>> for Optional<R> {
    fn text(&self) -> String {
        self.0.text()
    }

    fn read(&self, found: &DeValue<'_>) -> Result<Option<T>, Option<String>> {
        self.0.read(found).map(Some)
    }

    fn check(&self, value: &Option<T>) -> Result<(), String> {
        value.as_ref().map_or(Ok(()), |value| self.0.check(value))
    }

    fn write(&self, value: &Option<T>) -> Option<String> {
        value.as_ref().and_then(|value| self.0.write(value))
    }

    fn example(&self) -> Option<&'static str> {
        Some(self.1)
    }
}

fn integer(found: &DeValue<'_>) -> Result<i128, Option<String>> {
    match found {
        DeValue::Integer(n) => i128::from_str_radix(n.as_str(), n.radix()).map_err(|_| None),
        DeValue::String(text) => {
            Err(text.trim().parse::<i128>().ok().map(|number| format!("write {number}, without quotes")))
        }
        _ => Err(None),
    }
}

pub fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}
