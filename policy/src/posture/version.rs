//! Versions, as they are compared.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Numbers between dots, and what marks a pre-release: `1.2`, `v14.2.1`, `10.0.19045.3803`, `0.2.0-beta.1`. A number that is not
/// there is 0, and what follows a `+` says nothing. Ordered as Semantic Versioning 2.0.0 section 11 has it.
#[derive(Clone, Debug)]
pub struct Version {
    numbers: Vec<u64>,
    pre: Vec<String>,
}

/// Why a text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version: numbers between dots, such as 1.2.3")]
pub struct NoVersion(String);

/// More numbers than any system has.
const NUMBERS_MAX: usize = 8;
/// Longer than any version.
const TEXT_MAX: usize = 100;

impl Version {
    /// The version of a kernel release: what stands before the first hyphen. `6.1.0-18-amd64` is 6.1.0, for a distribution's suffix
    /// is no pre-release.
    pub fn of_kernel(release: &str) -> Result<Self, NoVersion> {
        release.split('-').next().unwrap_or_default().parse().map_err(|_| NoVersion(release.to_owned()))
    }
}

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let wrong = || NoVersion(text.chars().take(TEXT_MAX).collect());
        if text.len() > TEXT_MAX {
            return Err(wrong());
        }
        let (version, _) = text.split_once('+').unwrap_or((text, ""));
        let (numbers, pre) = match version.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre)),
            None => (version, None),
        };
        let numbers = numbers.strip_prefix('v').unwrap_or(numbers).split('.');
        // `parse` alone takes a sign.
        let number =
            |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?;
        let numbers: Vec<u64> = numbers.map(number).collect::<Option<_>>().ok_or_else(wrong)?;
        let pre: Vec<String> = pre.into_iter().flat_map(|pre| pre.split('.')).map(str::to_owned).collect();
        let sane = |part: &String| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if numbers.len() > NUMBERS_MAX || !pre.iter().all(sane) {
            return Err(wrong());
        }
        Ok(Self { numbers, pre })
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let longest = self.numbers.len().max(other.numbers.len());
        let at = |version: &Self, place: usize| version.numbers.get(place).copied().unwrap_or(0);
        let numbers = (0..longest).map(|place| at(self, place).cmp(&at(other, place)));
        let pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (false, false) => compare_pre(&self.pre, &other.pre),
            // A pre-release comes before what it is to become.
            (mine, theirs) => mine.cmp(&theirs),
        };
        numbers.fold(Ordering::Equal, Ordering::then).then_with(pre)
    }
}

fn compare_pre(a: &[String], b: &[String]) -> Ordering {
    let one = |(a, b): (&String, &String)| match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    };
    a.iter().zip(b).map(one).fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.numbers.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join("."))?;
        if self.pre.is_empty() { Ok(()) } else { write!(f, "-{}", self.pre.join(".")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_by_their_numbers_and_before_these_come_their_pre_releases() {
        let rising = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2",
            "1.10",
            "10.0.19045.3803",
            "v10.1",
            "18446744073709551615",
        ];
        for (place, low) in rising.iter().enumerate() {
            for high in &rising[place + 1..] {
                assert!(version(low) < version(high), "{low} {high}");
            }
        }
        assert_eq!(version("2.0"), version("v2.0.0+build.7"));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "x.y.z",
            "1.",
            ".1",
            "1..2",
            "1.+2",
            "-1",
            "1.2-",
            "1.2-a..b",
            "1.2 ",
            "18446744073709551616",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
        assert!("1.".repeat(60).parse::<Version>().is_err());
    }

    #[test]
    fn a_kernel_release_is_cut_at_its_first_hyphen() {
        assert_eq!(Version::of_kernel("6.5.11-linuxkit").unwrap(), version("6.5.11"));
        assert_eq!(Version::of_kernel("6.12.0+deb13-amd64").unwrap(), version("6.12"));
        assert!(Version::of_kernel("-generic").is_err());
    }
}
