//! The flights: what is in `node/data/flights.bin`, read and checked.
//!
//! `node/data/README.md` has the format byte by byte, the source and the licence.

use std::io::Read;

use flate2::read::ZlibDecoder;
use ringhold_kernels::id::{Key, fnv1a};

/// One scheduled flight. Keys are names: `JFK`, `UA`, `N14228`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Scheduled departure, in minutes since 2013-01-01 00:00 UTC.
    pub scheduled: u32,
    /// Minutes from scheduled departure to scheduled arrival.
    pub block: u16,
    pub carrier: Key,
    /// The carrier's flight number.
    pub number: u16,
    pub origin: Key,
    pub destination: Key,
    /// The tail number, or [`NO_TAIL`].
    pub aircraft: Key,
    pub outcome: Outcome,
}

/// What became of a flight. Delays are minutes; early is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Flown {
        departure_delay: i16,
        arrival_delay: i16,
    },
    /// It left, and no arrival is recorded against the schedule: diversions, for the most part.
    Diverted {
        departure_delay: i16,
    },
    Cancelled,
}

/// The aircraft of flights that no tail number is recorded for. All of them were cancelled.
pub const NO_TAIL: Key = match Key::name("NOTAIL") {
    Some(key) => key,
    None => unreachable!(),
};

/// Why the bytes are not flights.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the flights are cut short: {what} needs {wanted} bytes, and {left} are left")]
    Short { what: &'static str, wanted: usize, left: usize },
    #[error("this is not a file of flights: it starts with {0:02x?}, not with `RHFLIGHT`")]
    Magic([u8; 8]),
    #[error("the flights are of format version {0}; this build reads version {VERSION}")]
    Version(u32),
    #[error("the flights claim a body of {0} bytes; the most that is read is {BODY_BYTES_MAX}")]
    TooLarge(u64),
    #[error("the flights cannot be decompressed: {0}")]
    Compression(String),
    #[error("the flights decompress to {found} bytes, and the header promises {promised}")]
    Length { promised: u64, found: u64 },
    #[error("the flights are damaged: their checksum is {found:016x}, and the header promises {promised:016x}")]
    Checksum { promised: u64, found: u64 },
    #[error("{what} number {index} is no name in ASCII")]
    Name { what: &'static str, index: usize },
    #[error("flight {flight}: {what} is {value}, and the most it can be is {max}")]
    Range { flight: usize, what: &'static str, value: u64, max: u64 },
    #[error("flight {0} was not cancelled, and yet has no tail number")]
    TailMissing(usize),
    #[error("{0} bytes are left after the last flight")]
    Trailing(usize),
}

pub const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"RHFLIGHT";
const HEADER_BYTES: usize = 32;
/// Three times what the body of the shipped file has.
const BODY_BYTES_MAX: u64 = 16 << 20;
const BLOCK_MINUTES_MAX: u64 = 12 * 60;
const SCHEDULED_MINUTES_MAX: u64 = 366 * 24 * 60;

/// The flights that ship with this build, in order of their scheduled departure.
pub fn shipped() -> Result<Vec<Flight>, Error> {
    read(include_bytes!("../../data/flights.bin"))
}

/// Reads and checks a file of flights.
pub fn read(file: &[u8]) -> Result<Vec<Flight>, Error> {
    let mut header = Cursor { rest: file };
    let magic = header.array::<8>("the header")?;
    if &magic != MAGIC {
        return Err(Error::Magic(magic));
    }
    let version = u32::from_le_bytes(header.array("the header")?);
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let flights = u32::from_le_bytes(header.array("the header")?) as usize;
    let body_bytes = u64::from_le_bytes(header.array("the header")?);
    let checksum = u64::from_le_bytes(header.array("the header")?);
    debug_assert_eq!(file.len() - header.rest.len(), HEADER_BYTES);

    let body = decompress(header.rest, body_bytes)?;
    let found = fnv1a(&body);
    if found != checksum {
        return Err(Error::Checksum { promised: checksum, found });
    }
    let mut cursor = Cursor { rest: &body };
    let read = columns(&mut cursor, flights)?;
    match cursor.rest.len() {
        0 => Ok(read),
        left => Err(Error::Trailing(left)),
    }
}

fn decompress(stream: &[u8], body_bytes: u64) -> Result<Vec<u8>, Error> {
    if body_bytes > BODY_BYTES_MAX {
        return Err(Error::TooLarge(body_bytes));
    }
    let mut body = Vec::with_capacity(body_bytes as usize + 1);
    // One byte more than promised, so that a longer body shows without being read to its end.
    ZlibDecoder::new(stream)
        .take(body_bytes + 1)
        .read_to_end(&mut body)
        .map_err(|error| Error::Compression(error.to_string()))?;
    match body.len() as u64 {
        found if found == body_bytes => Ok(body),
        found => Err(Error::Length { promised: body_bytes, found }),
    }
}

fn columns(body: &mut Cursor<'_>, n: usize) -> Result<Vec<Flight>, Error> {
    let carriers = body.names("carrier", 2)?;
    let airports = body.names("airport", 3)?;
    let tails = body.names("tail number", 6)?;

    let mut scheduled = Vec::with_capacity(n.min(body.rest.len()));
    let mut minute = 0u64;
    for flight in 0..n {
        minute += body.varint(flight)?;
        scheduled.push(at_most(flight, "the scheduled departure", minute, SCHEDULED_MINUTES_MAX)? as u32);
    }
    let carrier = body.take("carriers", n)?;
    let number = body.split("flight numbers", n)?;
    let origin = body.take("origins", n)?;
    let destination = body.take("destinations", n)?;
    let tail = body.split("tail numbers", n)?;
    let block = body.split("block times", n)?;
    let status = body.take("outcomes", n)?;
    let departure = body.split("departure delays", n)?;
    let arrival = body.split("arrival delays", n)?;

    (0..n)
        .map(|i| {
            let departure_delay = unzigzag(departure.at(i));
            let outcome = match status[i] {
                0 => {
                    // Each is within ±32,768, so their sum fits 32 bits; it must fit 16.
                    let sum = departure_delay as i32 + unzigzag(arrival.at(i)) as i32;
                    let arrival_delay = i16::try_from(sum).map_err(|_| Error::Range {
                        flight: i,
                        what: "the arrival delay",
                        value: sum.unsigned_abs() as u64,
                        max: i16::MAX as u64,
                    })?;
                    Outcome::Flown { departure_delay, arrival_delay }
                }
                1 => Outcome::Diverted { departure_delay },
                2 => Outcome::Cancelled,
                other => {
                    return Err(Error::Range { flight: i, what: "the outcome", value: other as u64, max: 2 });
                }
            };
            let aircraft = match tail.at(i) {
                0 if outcome != Outcome::Cancelled => return Err(Error::TailMissing(i)),
                0 => NO_TAIL,
                index => named(i, "the tail number", &tails, index as usize - 1)?,
            };
            Ok(Flight {
                scheduled: scheduled[i],
                block: at_most(i, "the block time", block.at(i) as u64, BLOCK_MINUTES_MAX)? as u16,
                carrier: named(i, "the carrier", &carriers, carrier[i] as usize)?,
                number: number.at(i),
                origin: named(i, "the origin", &airports, origin[i] as usize)?,
                destination: named(i, "the destination", &airports, destination[i] as usize)?,
                aircraft,
                outcome,
            })
        })
        .collect()
}

fn at_most(flight: usize, what: &'static str, value: u64, max: u64) -> Result<u64, Error> {
    if value > max {
        return Err(Error::Range { flight, what, value, max });
    }
    Ok(value)
}

fn named(flight: usize, what: &'static str, names: &[Key], index: usize) -> Result<Key, Error> {
    names.get(index).copied().ok_or(Error::Range {
        flight,
        what,
        value: index as u64,
        max: names.len().saturating_sub(1) as u64,
    })
}

/// 0, 1, 2, 3 … are 0, −1, 1, −2 …
fn unzigzag(value: u16) -> i16 {
    (value >> 1) as i16 ^ -((value & 1) as i16)
}

struct Cursor<'a> {
    rest: &'a [u8],
}

/// A column of 16-bit numbers: all low bytes, then all high bytes.
struct Split<'a> {
    low: &'a [u8],
    high: &'a [u8],
}

impl Split<'_> {
    fn at(&self, i: usize) -> u16 {
        u16::from_le_bytes([self.low[i], self.high[i]])
    }
}

impl<'a> Cursor<'a> {
    fn take(&mut self, what: &'static str, wanted: usize) -> Result<&'a [u8], Error> {
        let left = self.rest.len();
        let (taken, rest) = self.rest.split_at_checked(wanted).ok_or(Error::Short { what, wanted, left })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        Ok(self.take(what, N)?.try_into().expect("take gives as many bytes as were asked for"))
    }

    fn split(&mut self, what: &'static str, n: usize) -> Result<Split<'a>, Error> {
        Ok(Split { low: self.take(what, n)?, high: self.take(what, n)? })
    }

    fn names(&mut self, what: &'static str, width: usize) -> Result<Vec<Key>, Error> {
        let count = u16::from_le_bytes(self.array(what)?) as usize;
        let names = self.take(what, count * width)?;
        let name = |(index, padded): (usize, &[u8])| {
            let length = padded.iter().position(|b| *b == 0).unwrap_or(width);
            let (text, padding) = padded.split_at(length);
            let plain = text.iter().all(u8::is_ascii_graphic) && padding.iter().all(|b| *b == 0);
            let key = std::str::from_utf8(text).ok().filter(|_| plain).and_then(Key::name);
            key.ok_or(Error::Name { what, index })
        };
        names.chunks_exact(width).enumerate().map(name).collect()
    }

    /// LEB128, up to five bytes.
    fn varint(&mut self, flight: usize) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array("the scheduled departures")?;
            value |= ((byte & 0x7f) as u64) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Range { flight, what: "the scheduled departure", value, max: SCHEDULED_MINUTES_MAX })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// What `make.py` printed about the package's own rows, before it encoded them.
    #[test]
    fn the_shipped_flights_are_those_of_the_package() {
        let flights = shipped().unwrap();
        assert_eq!(flights.len(), 336_776);

        let mut by_carrier = BTreeMap::<String, u32>::new();
        let mut by_origin = BTreeMap::<String, u32>::new();
        let mut tails = BTreeSet::new();
        let (mut no_tail, mut cancelled, mut no_arrival) = (0, 0, 0);
        let (mut departure_minutes, mut arrival_minutes) = (0i64, 0i64);
        for flight in &flights {
            *by_carrier.entry(flight.carrier.to_string()).or_default() += 1;
            *by_origin.entry(flight.origin.to_string()).or_default() += 1;
            match flight.aircraft {
                NO_TAIL => no_tail += 1,
                tail => drop(tails.insert(tail)),
            }
            match flight.outcome {
                Outcome::Flown { departure_delay, arrival_delay } => {
                    departure_minutes += departure_delay as i64;
                    arrival_minutes += arrival_delay as i64;
                }
                Outcome::Diverted { departure_delay } => {
                    departure_minutes += departure_delay as i64;
                    no_arrival += 1;
                }
                Outcome::Cancelled => {
                    cancelled += 1;
                    no_arrival += 1;
                }
            }
        }
        let counts = |map: BTreeMap<String, u32>| map.into_iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>();
        assert_eq!(
            counts(by_carrier).join(", "),
            "9E 18460, AA 32729, AS 714, B6 54635, DL 48110, EV 54173, F9 685, FL 3260, HA 342, MQ 26397, OO 32, \
             UA 58665, US 20536, VX 5162, WN 12275, YV 601"
        );
        assert_eq!(counts(by_origin).join(", "), "EWR 120835, JFK 111279, LGA 104662");
        assert_eq!((tails.len(), no_tail, cancelled, no_arrival), (4043, 2512, 8255, 9430));
        assert_eq!((departure_minutes, arrival_minutes), (4_152_200, 2_257_174));
        assert!(flights.is_sorted_by_key(|flight| flight.scheduled));
    }

    /// The package's first row: UA 1545 left EWR for IAH at 5:15 in New York, two minutes late.
    #[test]
    fn a_flight_reads_as_the_package_has_it() {
        let name = |text| Key::name(text).unwrap();
        assert!(shipped().unwrap().contains(&Flight {
            scheduled: 10 * 60 + 15,
            // 5:15 in New York to 8:19 in Houston, an hour behind.
            block: 4 * 60 + 4,
            carrier: name("UA"),
            number: 1545,
            origin: name("EWR"),
            destination: name("IAH"),
            aircraft: name("N14228"),
            outcome: Outcome::Flown { departure_delay: 2, arrival_delay: 11 },
        }));
    }

    const SHIPPED: &[u8] = include_bytes!("../../data/flights.bin");

    #[test]
    fn a_damaged_file_is_refused_with_what_is_wrong() {
        let with = |at: usize, byte: u8| {
            let mut file = SHIPPED.to_vec();
            file[at] = byte;
            read(&file).unwrap_err()
        };
        assert!(matches!(with(0, b'X'), Error::Magic(_)));
        assert_eq!(with(8, 2), Error::Version(2));
        assert!(matches!(with(12, SHIPPED[12] ^ 1), Error::Short { what: "arrival delays", .. }));
        assert!(matches!(with(16, SHIPPED[16] ^ 1), Error::Length { .. }));
        assert!(matches!(with(23, 1), Error::TooLarge(_)));
        assert!(matches!(with(24, !SHIPPED[24]), Error::Checksum { .. }));
        assert!(matches!(
            with(SHIPPED.len() / 2, !SHIPPED[SHIPPED.len() / 2]),
            Error::Compression(_) | Error::Checksum { .. }
        ));
        assert!(matches!(read(&SHIPPED[..31]), Err(Error::Short { .. })));
        assert!(matches!(read(&SHIPPED[..SHIPPED.len() / 2]), Err(Error::Compression(_) | Error::Length { .. })));
        assert!(matches!(read(b""), Err(Error::Short { .. })));
    }

    /// A body made by hand, wrong in one place, under a header that is right for it.
    fn file(body: &[u8], flights: u32) -> Vec<u8> {
        use std::io::Write;
        let mut file = MAGIC.to_vec();
        file.extend(VERSION.to_le_bytes());
        file.extend(flights.to_le_bytes());
        file.extend((body.len() as u64).to_le_bytes());
        file.extend(fnv1a(body).to_le_bytes());
        let mut encoder = flate2::write::ZlibEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_its_flight() {
        const NAMES: usize = 4 + 5 + 8;
        let mut body = b"\x01\0UA\x01\0JFK\x01\0N14228".to_vec();
        // One flight: scheduled, carrier, number, origin, destination, tail, block, status, delays.
        body.extend([5, 0, 1, 0, 0, 0, 1, 0, 60, 0, 0, 4, 0, 5, 0]);
        let read_with = |at: usize, byte: u8| {
            let mut body = body.clone();
            body[NAMES + at] = byte;
            read(&file(&body, 1))
        };
        let flight = read_with(0, 5).unwrap()[0];
        assert_eq!((flight.scheduled, flight.number, flight.block), (5, 1, 60));
        assert_eq!(flight.outcome, Outcome::Flown { departure_delay: 2, arrival_delay: -1 });

        let range = |what, value, max| Err(Error::Range { flight: 0, what, value, max });
        assert_eq!(read_with(1, 1), range("the carrier", 1, 0));
        assert_eq!(read_with(4, 9), range("the origin", 9, 0));
        assert_eq!(read_with(5, 1), range("the destination", 1, 0));
        assert_eq!(read_with(6, 2), range("the tail number", 1, 0));
        assert_eq!(read_with(6, 0), Err(Error::TailMissing(0)));
        assert_eq!(read_with(9, 3), range("the block time", 3 * 256 + 60, 720));
        assert_eq!(read_with(10, 3), range("the outcome", 3, 2));
        assert_eq!(read(&file(&body, 2)), Err(Error::Short { what: "tail numbers", wanted: 2, left: 1 }));
        body.push(0);
        assert_eq!(read(&file(&body, 1)), Err(Error::Trailing(1)));
    }
}
