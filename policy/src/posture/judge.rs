//! A verdict: every check that fails, with the reason.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Action, Checks, Facts, GeoLocation, Live, Location, NetworkRange, OsVersion, Place, Platform, Process,
    ProcessState, Version,
};

/// What a machine fails; nothing, when it passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// In the order of [`Kind::ALL`].
    pub failures: Vec<Failure>,
}

/// A check that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which one.
    pub kind: Kind,
    /// Why, as the end of a sentence about the machine.
    pub reason: String,
}

/// The checks, as metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The agent's version.
    ClientVersion,
    /// The operating system's version.
    OsVersion,
    /// Where it is.
    Location,
    /// Its addresses.
    NetworkRange,
    /// What runs on it.
    Process,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ClientVersion, Self::OsVersion, Self::Location, Self::NetworkRange, Self::Process];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientVersion => "client_version",
            Self::OsVersion => "os_version",
            Self::Location => "location",
            Self::NetworkRange => "network_range",
            Self::Process => "process",
        }
    }
}

impl Verdict {
    /// Whether nothing fails.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<&str> = self.failures.iter().map(|failure| failure.reason.as_str()).collect();
        f.write_str(&reasons.join("; "))
    }
}

/// A reason to fail.
type Outcome = Result<(), String>;

impl Checks {
    /// Judges a machine by what is known of it.
    pub fn judge(&self, facts: &Facts) -> Verdict {
        let outcomes = [
            (
                Kind::ClientVersion,
                self.client_version.as_ref().map(|c| client_version(&c.min_version, facts)),
            ),
            (Kind::OsVersion, self.os_version.as_ref().map(|check| os_version(check, facts))),
            (Kind::Location, self.location.as_ref().map(|check| location(check, facts))),
            (Kind::NetworkRange, self.network_range.as_ref().map(|check| network_range(check, facts))),
            (Kind::Process, self.processes.as_ref().map(|check| processes(&check.processes, facts))),
        ];
        let failed =
            |(kind, outcome): (Kind, Option<Outcome>)| outcome?.err().map(|reason| Failure { kind, reason });
        Verdict { failures: outcomes.into_iter().filter_map(failed).collect() }
    }
}

fn client_version(least: &str, facts: &Facts) -> Outcome {
    at_least("the agent", &facts.version, facts.version.parse().ok(), least)
}

fn os_version(check: &OsVersion, facts: &Facts) -> Outcome {
    let Some(platform) = Platform::parse(&facts.os) else { return Err(foreign(facts)) };
    let version = |check: &Option<super::MinVersion>| check.as_ref().map(|check| check.min_version.clone());
    let kernel = |check: &Option<super::MinKernelVersion>| {
        check.as_ref().map(|check| check.min_kernel_version.clone())
    };
    let (what, said, least) = match platform {
        Platform::Android => ("Android", &facts.os_version, version(&check.android)),
        Platform::Darwin => ("macOS", &facts.os_version, version(&check.darwin)),
        Platform::Ios => ("iOS", &facts.os_version, version(&check.ios)),
        Platform::Linux => ("its Linux kernel", &facts.kernel_version, kernel(&check.linux)),
        Platform::Windows => ("Windows", &facts.kernel_version, kernel(&check.windows)),
    };
    let Some(least) = least else { return Err(foreign(facts)) };
    let has = match platform {
        Platform::Linux => Version::of_kernel(said).ok(),
        _ => said.parse().ok(),
    };
    at_least(what, said, has, &least)
}

fn foreign(facts: &Facts) -> String {
    match facts.os.as_str() {
        "" => "its operating system is not known".into(),
        os => format!("its operating system, {os}, is not among those that the check names"),
    }
}

fn at_least(what: &str, said: &str, has: Option<Version>, least: &str) -> Outcome {
    if said.is_empty() {
        return Err(format!("the version of {what} is not known"));
    }
    let Some(has) = has else { return Err(format!("the version of {what}, {said:?}, cannot be compared")) };
    match least.parse::<Version>() {
        Ok(least) if has >= least => Ok(()),
        Ok(_) => Err(format!("{what} is of version {said}, below {least}")),
        Err(error) => Err(error.to_string()),
    }
}

fn live(facts: &Facts) -> Result<&Live, String> {
    facts.live.as_ref().ok_or_else(|| "it was not heard from lately".to_owned())
}

fn location(check: &GeoLocation, facts: &Facts) -> Outcome {
    let live = live(facts)?;
    let Some(place) = &live.place else {
        return Err(match live.connection_ip {
            Some(address) => format!("it is not known where {address} is"),
            None => "the address it connects from is not known".into(),
        });
    };
    let matches: Vec<Option<bool>> = check.locations.iter().map(|location| at(location, place)).collect();
    let found = match matches.contains(&Some(true)) {
        true => Some(true),
        false if matches.contains(&None) => None,
        false => Some(false),
    };
    match (check.action, found) {
        (Action::Allow, Some(true)) | (Action::Deny, Some(false)) => Ok(()),
        (Action::Allow, Some(false)) => {
            Err(format!("it is in {place}, which is not among the allowed places"))
        }
        (Action::Deny, Some(true)) => Err(format!("it is in {place}, which is denied")),
        (_, None) => Err(format!("its city in {} is not known", place.country_code)),
    }
}

/// Whether a place is of a location; `None` when that would take a city that is not known.
fn at(location: &Location, place: &Place) -> Option<bool> {
    if !location.country_code.eq_ignore_ascii_case(&place.country_code) {
        return Some(false);
    }
    match &location.city_name {
        None => Some(true),
        Some(_) if place.city_name.is_empty() => None,
        Some(city) => Some(city.to_lowercase() == place.city_name.to_lowercase()),
    }
}

fn network_range(check: &NetworkRange, facts: &Facts) -> Outcome {
    let live = live(facts)?;
    let interfaces = live.addresses.iter().flatten().map(IpNet::addr);
    let candidates: Vec<IpAddr> =
        interfaces.chain(live.connection_ip).map(|address| address.to_canonical()).collect();
    let around = |address: &IpAddr| check.ranges.iter().find(|range| range.contains(address));
    let hit = candidates.iter().find_map(|address| Some((address, around(address)?)));
    match (check.action, hit) {
        (Action::Deny, Some((address, range))) => {
            Err(format!("its address {address} is in {range}, which is denied"))
        }
        (Action::Allow, Some(_)) => Ok(()),
        // That none of them is denied can be said of all of them only.
        _ if live.addresses.is_none() => Err("the addresses of its interfaces are not known".into()),
        _ if candidates.is_empty() => Err("it has no address to look at".into()),
        (Action::Deny, None) => Ok(()),
        (Action::Allow, None) => {
            let shown: Vec<String> = candidates.iter().take(4).map(IpAddr::to_string).collect();
            let more = if candidates.len() > shown.len() { ", ..." } else { "" };
            Err(format!("none of its addresses ({}{more}) is in an allowed range", shown.join(", ")))
        }
    }
}

fn processes(wanted: &[Process], facts: &Facts) -> Outcome {
    let live = live(facts)?;
    let Some(platform) = Platform::parse(&facts.os) else { return Err(foreign(facts)) };
    let missing = |process: &Process| {
        let Some(path) = process.path(platform) else {
            return Some(format!("the check names no process for {}", facts.os));
        };
        match live.processes.get(path) {
            Some(ProcessState::Running) => None,
            Some(ProcessState::Stopped) => Some(format!("{path} is not running")),
            Some(ProcessState::Absent) => Some(format!("{path} is not there")),
            Some(ProcessState::Hidden) => Some(format!("its agent may not see whether {path} is running")),
            None => Some(format!("it has not said yet whether {path} is running")),
        }
    };
    match wanted.iter().find_map(missing) {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.city_name.as_str() {
            "" => f.write_str(&self.country_code),
            city => write!(f, "{}/{city}", self.country_code),
        }
    }
}
