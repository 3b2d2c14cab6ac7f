//! Addresses on the PCI bus.

/// An address as the system writes it, `0000:3b:00.0`; NVIDIA's libraries write `0000:3B:00.0` and `00000000:3B:00.0`. `None`
/// for what is no address.
pub fn address(said: &str) -> Option<String> {
    let number = |digits: &str, most: u32| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|number| plain && *number <= most)
    };
    let (domain, rest) = said.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let (domain, bus) = (number(domain, u32::MAX)?, number(bus, 0xff)?);
    let (device, function) = (number(device, 0x1f)?, number(function, 7)?);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_one_way_whoever_says_it() {
        for said in ["0000:3b:00.0", "0000:3B:00.0", "00000000:3B:00.0"] {
            assert_eq!(address(said).as_deref(), Some("0000:3b:00.0"), "{said}");
        }
        assert_eq!(address("00010000:01:1f.7").as_deref(), Some("10000:01:1f.7"), "of a domain of the system's own");
        // The last is what a library says that does not know.
        let none =
            ["", "0000:3b:00", "3b:00.0", "0000:../0000:3b:00.0", "+000:3b:00.0", "0000:3b:20.0", "FFFFFFFF:FF:FF.0"];
        assert!(none.iter().all(|said| address(said).is_none()));
    }
}
