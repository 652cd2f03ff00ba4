//! Times as NetBird's clients read them: RFC 3339, and the year 1 for never.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What Go's clients read as the zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Unix milliseconds as RFC 3339 in UTC; a time beyond the calendar reads as never.
pub(crate) fn rfc3339(milliseconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| NEVER.into())
}

/// As [`rfc3339`], and `None` is never.
pub(super) fn rfc3339_or_never(milliseconds: Option<i64>) -> String {
    milliseconds.map_or_else(|| NEVER.into(), rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_their_fraction() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_700_000_000_250), "2023-11-14T22:13:20.25Z");
        assert_eq!(rfc3339(i64::MAX), NEVER);
        assert_eq!(rfc3339_or_never(None), NEVER);
    }
}
