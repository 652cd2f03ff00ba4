//! Times, sizes and counts as people read them.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Duration, UtcDateTime};

/// What stands in a cell without a value.
pub const NONE: &str = "-";

/// Reads the API's times. The zero time that Go services write for "never" (year 1) is none.
pub fn parse_time(text: &str) -> Option<UtcDateTime> {
    UtcDateTime::parse(text, &Rfc3339).ok().filter(|time| time.year() > 1)
}

/// `3 min ago`, or `in 23 h` for what is to come; `-` when `text` is no time.
pub fn ago(text: &str, now: UtcDateTime) -> String {
    let Some(time) = parse_time(text) else { return NONE.to_owned() };
    let age = now - time;
    if age.abs() < Duration::seconds(2) {
        return "just now".to_owned();
    }
    if age.is_negative() { format!("in {}", span(-age)) } else { format!("{} ago", span(age)) }
}

/// `2026-11-22 07:15:09` in UTC; `-` when `text` is no time.
pub fn date_time(text: &str) -> String {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    parse_time(text).and_then(|time| time.format(form).ok()).unwrap_or_else(|| NONE.to_owned())
}

/// `07:15:09.120` in UTC.
pub fn clock(time: UtcDateTime) -> String {
    let form = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    time.format(form).unwrap_or_else(|_| NONE.to_owned())
}

/// The two sizes of unit a person would use: `45 s`, `3 min`, `26 h`, `12 d`.
fn span(span: Duration) -> String {
    let seconds = span.whole_seconds();
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `512 B`, `1.2 KiB`, `3.4 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0 of the smaller unit.
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `850 us`, `1.2 ms`, `3.4 s`.
pub fn microseconds(us: u64) -> String {
    match us {
        ..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// `1 peer`, `2 peers`.
pub fn plural(number: usize, noun: &str) -> String {
    let ending = match noun {
        _ if number == 1 => return format!("1 {noun}"),
        _ if noun.ends_with("cy") => return format!("{number} {}ies", &noun[..noun.len() - 1]),
        _ => "s",
    };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use time::macros::utc_datetime;

    use super::*;

    #[test]
    fn ages_take_the_unit_a_person_would() {
        let now = utc_datetime!(2026-11-22 12:00:00);
        for (time, text) in [
            ("2026-11-22T12:00:00.5Z", "just now"),
            ("2026-11-22T11:59:15Z", "45 s ago"),
            ("2026-11-22T11:50:00+00:00", "10 min ago"),
            ("2026-11-22T12:00:00+02:00", "2 h ago"),
            ("2026-11-01T12:00:00Z", "21 d ago"),
            ("2026-11-23T11:00:00Z", "in 23 h"),
            ("0001-01-01T00:00:00Z", "-"),
            ("", "-"),
        ] {
            assert_eq!(ago(time, now), text, "{time}");
        }
        assert_eq!(date_time("2026-11-22T12:00:00+02:00"), "2026-11-22 10:00:00");
    }

    #[test]
    fn sizes_never_show_1024_of_a_unit() {
        for (number, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_288_490_189, "1.2 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!((microseconds(850), microseconds(1_250)), ("850 us".into(), "1.2 ms".into()));
        assert_eq!((plural(1, "policy"), plural(2, "policy"), plural(0, "peer")), {
            ("1 policy".into(), "2 policies".into(), "0 peers".into())
        });
    }
}
