//! One way to write what can be written in several.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::model::Service;

/// Sorts ranges and joins those that touch, so that two ways of writing the same ports are equal.
pub fn merged(service: Service) -> Service {
    match service {
        Service::Tcp(ranges) => Service::Tcp(merge(ranges)),
        Service::Udp(ranges) => Service::Udp(merge(ranges)),
        other => other,
    }
}

fn merge(mut ranges: Vec<RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    ranges.sort_unstable_by_key(|range| (*range.start(), *range.end()));
    let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// One way to write an address: `10.0.0.1/32` and `10.0.0.1` are one host, host bits of a prefix do not count, and a
/// domain has no case.
pub fn plain_address(text: &str) -> String {
    if let Ok(address) = text.parse::<IpAddr>() {
        return address.to_string();
    }
    match text.parse::<IpNet>() {
        Ok(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        Ok(net) => net.trunc().to_string(),
        Err(_) => text.trim_end_matches('.').to_ascii_lowercase(),
    }
}

/// Units of times, in seconds, the longest first.
const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The seconds of a time such as `90s`, `30m`, `4h` or `7d`.
pub fn parse_duration(text: &str) -> Option<u32> {
    let unit = text.chars().last()?;
    let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let number = &text[..text.len() - 1];
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u32>().ok()?.checked_mul(seconds)
}

/// Seconds in the longest unit that has no remainder.
pub fn duration_text(seconds: u32) -> String {
    let whole = UNITS.into_iter().find(|(_, unit)| seconds.is_multiple_of(*unit) && seconds >= *unit);
    match whole {
        Some((name, unit)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_ports_are_equal_however_written() {
        let tcp = |ranges: &[RangeInclusive<u16>]| merged(Service::Tcp(ranges.to_vec()));
        assert_eq!(tcp(&[443..=443, 80..=80]), tcp(&[80..=80, 443..=443]));
        assert_eq!(tcp(&[80..=89, 90..=99]), tcp(&[80..=99]));
        assert_eq!(tcp(&[1..=65535, 80..=80]), tcp(&[1..=65535]));
        assert_ne!(tcp(&[80..=80, 82..=82]), tcp(&[80..=82]));
    }

    #[test]
    fn the_same_address_is_equal_however_written() {
        for (a, b) in [
            ("10.0.0.1/32", "10.0.0.1"),
            ("10.0.0.5/24", "10.0.0.0/24"),
            ("FD00:20:0::10", "fd00:20::10/128"),
            ("*.Example.com.", "*.example.com"),
        ] {
            assert_eq!(plain_address(a), plain_address(b));
        }
        assert_ne!(plain_address("10.0.0.0/24"), plain_address("10.0.0.0"));
    }

    #[test]
    fn times_are_read_and_written_alike() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("4h", 14_400), ("7d", 604_800), ("0s", 0)] {
            assert_eq!((parse_duration(text), duration_text(seconds)), (Some(seconds), text.to_owned()));
        }
        for wrong in ["", "s", "1", "-1s", "1.5h", "1 h", "99999999d", "1w", "ü"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
