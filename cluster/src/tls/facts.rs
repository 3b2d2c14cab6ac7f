//! What a certificate says of itself that TLS does not pass on.

use std::time::Duration;

use rcgen::date_time_ymd;

/// Which certificate it is, and until when it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// What its authority has given to no other.
    pub serial: Vec<u8>,
    /// The last second, since the Unix epoch.
    pub not_after_s: u64,
}

// Tags of DER (X.690 §8).
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl Facts {
    /// Reads a certificate in DER (RFC 5280 §4.1) as far as these go; `None` where it is none.
    pub(crate) fn of(certificate: &[u8]) -> Option<Facts> {
        let (certificate, _) = take(certificate, SEQUENCE)?;
        let (signed, _) = take(certificate, SEQUENCE)?;
        let (_, rest) = take(signed, VERSION)?;
        let (serial, rest) = take(rest, INTEGER)?;
        let (_algorithm, rest) = take(rest, SEQUENCE)?;
        let (_issuer, rest) = take(rest, SEQUENCE)?;
        let (validity, _) = take(rest, SEQUENCE)?;
        let (_, _not_before, rest) = element(validity)?;
        let (tag, not_after, _) = element(rest)?;
        Some(Facts { serial: serial.into(), not_after_s: seconds(tag, not_after)? })
    }
}

/// The content of an element with this tag, and what follows it.
fn take(bytes: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == expected).then_some((content, rest))
}

/// The first element: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (long, rest) = rest.split_at_checked(usize::from(short - 0x80))?;
            (long.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// `YYMMDDhhmmssZ`, or the same with the whole year.
fn seconds(tag: u8, time: &[u8]) -> Option<u64> {
    let two = |at: usize| -> Option<u64> {
        let digits = time.get(at..at + 2)?;
        digits.iter().try_fold(0, |n, digit| digit.is_ascii_digit().then(|| n * 10 + u64::from(digit - b'0')))
    };
    let (year, at) = match tag {
        // RFC 5280 §4.1.2.5.1.
        UTC_TIME => (two(0)? + if two(0)? < 50 { 2000 } else { 1900 }, 2),
        GENERALIZED_TIME => (two(0)? * 100 + two(2)?, 4),
        _ => return None,
    };
    let (month, day) = (two(at)?, two(at + 2)?);
    let (hour, minute, second) = (two(at + 4)?, two(at + 6)?, two(at + 8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || time.get(at + 10..) != Some(b"Z") {
        return None;
    }
    let time = (day - 1) * 86_400 + hour * 3_600 + minute * 60 + second;
    let time = date_time_ymd(year as i32, month as u8, 1) + Duration::from_secs(time);
    u64::try_from(time.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Network, RealNetwork};
    use crate::tls::{Authority, Role, pem_certificates};

    #[test]
    fn times_are_read_to_the_second() {
        assert_eq!(seconds(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, b"260228235959Z"), Some(1_772_323_199));
        assert_eq!(seconds(GENERALIZED_TIME, b"20500101000000Z"), Some(2_524_608_000));
        for bad in [&b"260228235959"[..], b"261328235959Z", b"260200235959Z", b"26022823595xZ", b"", b"260228235959ZZ"]
        {
            assert_eq!(seconds(UTC_TIME, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_certificate_says_who_it_is_and_garbage_nothing() {
        let authority = Authority::in_memory(&RealNetwork).unwrap();
        let pem = authority.issue(Role::Node, &RealNetwork).unwrap().certificate;
        let der = pem_certificates(&pem, "x".as_ref()).unwrap().remove(0);
        let facts = Facts::of(&der).unwrap();
        assert_eq!(facts.serial.len(), 16);
        let years = (facts.not_after_s - RealNetwork.wall_us() / 1_000_000) / 31_556_952;
        assert!((9..=11).contains(&years), "{years}");
        for len in 0..120 {
            assert_eq!(Facts::of(&der[..len]), None, "{len}");
        }
        let mut seed = 1u64;
        for _ in 0..2_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut bad = der.to_vec();
            bad[(seed >> 33) as usize % 140] = (seed >> 20) as u8;
            // Whatever it says, it says it without a panic.
            let _ = Facts::of(&bad);
        }
    }
}
