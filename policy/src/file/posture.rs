//! Posture checks in policy files: how they stand there, what is refused, and how two of them differ.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::{Location as At, Spanned};

use super::PostureCheck;
use super::check::{Checker, Seen};
use super::diff::{differs, members, optional};
use super::yaml::Names;
use crate::posture::{
    Action, Checks, GeoLocation, Location, MinKernelVersion, MinVersion, NetworkRange, OsVersion, Process,
    ProcessCheck, Version,
};

/// What is asked of a machine before policies that name this count it among their sources: all that is given here.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PostureCheck")]
pub(super) struct Definition {
    /// Its name, unique.
    #[schemars(with = "String")]
    name: Spanned<String>,
    /// What it is for.
    description: Option<String>,
    /// The least version of the agent, such as "0.9.0".
    #[schemars(with = "Option<String>")]
    client_version: Option<Spanned<String>>,
    /// The least version of each operating system; a machine of one that is not named fails.
    #[schemars(with = "Option<Systems>")]
    os_version: Option<Spanned<Systems>>,
    /// Where machines must, or must not, connect to control from: DE for a country, DE/Berlin for a city.
    #[schemars(with = "Option<Sides>")]
    geo_location: Option<Spanned<Sides>>,
    /// Prefixes in which machines must, or must not, have an address.
    #[schemars(with = "Option<Sides>")]
    network_range: Option<Spanned<Sides>>,
    /// What must run on it: every one of these.
    #[schemars(with = "Option<Vec<Paths>>", length(min = 1))]
    processes: Option<Spanned<Vec<Spanned<Paths>>>>,
}

/// The least version of each operating system.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OsVersions")]
struct Systems {
    /// Android, such as "13".
    #[schemars(with = "Option<String>")]
    android: Option<Spanned<String>>,
    /// macOS, such as "14.2".
    #[schemars(with = "Option<String>")]
    darwin: Option<Spanned<String>>,
    /// iOS, such as "17".
    #[schemars(with = "Option<String>")]
    ios: Option<Spanned<String>>,
    /// Linux, by its kernel, such as "6.1".
    #[schemars(with = "Option<String>")]
    linux: Option<Spanned<String>>,
    /// Windows, by its build, such as "10.0.19045".
    #[schemars(with = "Option<String>")]
    windows: Option<Spanned<String>>,
}

/// One of both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AllowOrDeny")]
struct Sides {
    /// Only what is in one of these passes.
    allow: Option<Names>,
    /// What is in one of these fails.
    deny: Option<Names>,
}

/// An executable by the path it has on each system; a machine of a system without a path fails.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Process")]
struct Paths {
    /// On Linux.
    linux_path: Option<String>,
    /// On macOS.
    mac_path: Option<String>,
    /// On Windows.
    windows_path: Option<String>,
}

impl Checker {
    pub(super) fn posture_check(&mut self, one: Definition, seen: &mut Seen) -> PostureCheck {
        let at = one.name.referenced;
        let name = self.unique(one.name, "posture check", seen);
        let sound = self.count();
        let checks = Checks {
            client_version: one.client_version.map(|least| self.version(least)),
            os_version: one.os_version.map(|systems| self.systems(systems)),
            location: one.geo_location.and_then(|sides| self.places(sides)),
            network_range: one.network_range.and_then(|sides| self.ranges(sides)),
            processes: one.processes.map(|processes| self.processes(processes)),
        };
        let checks = match self.count() == sound {
            true if checks == Checks::default() => {
                let message = format!(
                    "posture check `{name}` asks for nothing; give it client_version, os_version, geo_location, \
                     network_range or processes"
                );
                self.problem(at, message);
                checks
            }
            // Each part was looked at; what is left is that there are too many of them.
            true => self.sound(at, checks).unwrap_or_default(),
            false => checks,
        };
        PostureCheck { name, description: one.description, checks }
    }

    /// The checks in their one form, unless something is wrong with them.
    fn sound(&mut self, at: At, checks: Checks) -> Option<Checks> {
        checks.validated().map_err(|error| self.problem(at, error.to_string())).ok()
    }

    fn least(&mut self, least: Spanned<String>) -> String {
        if let Err(error) = least.value.parse::<Version>() {
            self.problem(least.referenced, error.to_string());
        }
        least.value
    }

    fn version(&mut self, least: Spanned<String>) -> MinVersion {
        MinVersion { min_version: self.least(least) }
    }

    fn kernel(&mut self, least: Spanned<String>) -> MinKernelVersion {
        MinKernelVersion { min_kernel_version: self.least(least) }
    }

    fn systems(&mut self, systems: Spanned<Systems>) -> OsVersion {
        let (at, systems) = (systems.referenced, systems.value);
        let check = OsVersion {
            android: systems.android.map(|least| self.version(least)),
            darwin: systems.darwin.map(|least| self.version(least)),
            ios: systems.ios.map(|least| self.version(least)),
            linux: systems.linux.map(|least| self.kernel(least)),
            windows: systems.windows.map(|least| self.kernel(least)),
        };
        if check == OsVersion::default() {
            self.problem(at, "`os_version` names no system: give android, darwin, ios, linux or windows");
        }
        check
    }

    /// Which side is meant, and what is on it, each with its place.
    fn side(&mut self, field: &str, sides: Spanned<Sides>) -> Option<(Action, Vec<(String, At)>)> {
        let at = sides.referenced;
        let (action, names) = match (sides.value.allow, sides.value.deny) {
            (Some(names), None) => (Action::Allow, names),
            (None, Some(names)) => (Action::Deny, names),
            _ => {
                self.problem(at, format!("`{field}` needs either `allow` or `deny`, and not both"));
                return None;
            }
        };
        if names.0.is_empty() {
            self.problem(at, format!("`{field}` names nothing to allow or deny; name at least one"));
        }
        Some((action, names.0.into_iter().map(|(name, place)| (name, place.unwrap_or(at))).collect()))
    }

    fn places(&mut self, sides: Spanned<Sides>) -> Option<GeoLocation> {
        let (action, names) = self.side("geo_location", sides)?;
        let mut place = |(name, at): (String, At)| {
            let (country, city) = match name.split_once('/') {
                Some((country, city)) => (country, Some(city)),
                None => (name.as_str(), None),
            };
            if city.is_some_and(|city| city.trim().is_empty()) {
                self.problem(
                    at,
                    format!("`{name}` names no city; write `{country}` for the whole of a country"),
                );
                return None;
            }
            let location = Location { country_code: country.to_owned(), city_name: city.map(str::to_owned) };
            let alone = GeoLocation { locations: vec![location], action };
            self.sound(at, Checks { location: Some(alone), ..Checks::default() })?.location?.locations.pop()
        };
        Some(GeoLocation { locations: names.into_iter().filter_map(&mut place).collect(), action })
    }

    fn ranges(&mut self, sides: Spanned<Sides>) -> Option<NetworkRange> {
        let (action, names) = self.side("network_range", sides)?;
        let mut range = |(name, at): (String, At)| {
            let host = name.parse::<IpAddr>().map(IpNet::from).ok();
            let Some(range) = name.parse::<IpNet>().ok().or(host) else {
                let message =
                    format!("`{name}` is no prefix; write for example 10.0.0.0/8, fd00::/8 or 192.0.2.1");
                self.problem(at, message);
                return None;
            };
            let alone = NetworkRange { ranges: vec![range], action };
            self.sound(at, Checks { network_range: Some(alone), ..Checks::default() })?
                .network_range?
                .ranges
                .pop()
        };
        Some(NetworkRange { ranges: names.into_iter().filter_map(&mut range).collect(), action })
    }

    fn processes(&mut self, list: Spanned<Vec<Spanned<Paths>>>) -> ProcessCheck {
        if list.value.is_empty() {
            self.problem(list.referenced, "`processes` names no process; name at least one");
        }
        let mut process = |one: Spanned<Paths>| {
            let Paths { linux_path, mac_path, windows_path } = one.value;
            let alone = ProcessCheck { processes: vec![Process { linux_path, mac_path, windows_path }] };
            let checks = Checks { processes: Some(alone), ..Checks::default() };
            self.sound(one.referenced, checks)?.processes?.processes.pop()
        };
        ProcessCheck { processes: list.value.into_iter().filter_map(&mut process).collect() }
    }
}

impl OsVersion {
    /// The least version of each system that has one, by its name in a policy file.
    pub(super) fn least(&self) -> impl Iterator<Item = (&'static str, &String)> {
        fn version(check: &Option<MinVersion>) -> Option<&String> {
            check.as_ref().map(|check| &check.min_version)
        }
        fn kernel(check: &Option<MinKernelVersion>) -> Option<&String> {
            check.as_ref().map(|check| &check.min_kernel_version)
        }
        let systems = [
            ("android", version(&self.android)),
            ("darwin", version(&self.darwin)),
            ("ios", version(&self.ios)),
            ("linux", kernel(&self.linux)),
            ("windows", kernel(&self.windows)),
        ];
        systems.into_iter().filter_map(|(system, least)| Some((system, least?)))
    }
}

impl Location {
    /// As it stands in a policy file.
    pub(super) fn text(&self) -> String {
        match &self.city_name {
            Some(city) => format!("{}/{city}", self.country_code),
            None => self.country_code.clone(),
        }
    }
}

impl Process {
    /// Its path on each system that has one, by its name in a policy file.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let paths = [
            ("linux_path", &self.linux_path),
            ("mac_path", &self.mac_path),
            ("windows_path", &self.windows_path),
        ];
        paths.into_iter().filter_map(|(field, path)| Some((field, path.as_ref()?)))
    }
}

/// The name of a side in a policy file.
pub(super) fn side(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

/// What of a posture check changes, in words.
pub(super) fn changes(has: &PostureCheck, wanted: &PostureCheck) -> Vec<String> {
    let mut changes = Vec::new();
    optional(&mut changes, "description", &has.description, &wanted.description);
    let (has, wanted) = (&has.checks, &wanted.checks);
    let least =
        |version: Option<&String>| version.map_or("any".to_owned(), |least| format!("{least} or later"));
    let client = |checks: &Checks| least(checks.client_version.as_ref().map(|check| &check.min_version));
    differs(&mut changes, "client version", client(has), client(wanted));
    let systems = |checks: &Checks| match &checks.os_version {
        None => "any".to_owned(),
        Some(check) => {
            let each: Vec<String> =
                check.least().map(|(system, least)| format!("{system} {least}")).collect();
            format!("{} or later", each.join(", "))
        }
    };
    differs(&mut changes, "os version", systems(has), systems(wanted));
    let places = |checks: &Checks| {
        let check = checks.location.as_ref()?;
        Some((side(check.action), check.locations.iter().map(Location::text).collect()))
    };
    listed(&mut changes, "geo location", places(has), places(wanted));
    let ranges = |checks: &Checks| {
        let check = checks.network_range.as_ref()?;
        Some((side(check.action), check.ranges.iter().map(|range| range.trunc().to_string()).collect()))
    };
    listed(&mut changes, "network range", ranges(has), ranges(wanted));
    let processes = |checks: &Checks| {
        let each = |process: &Process| {
            let paths: Vec<String> = process.paths().map(|(field, path)| format!("{field} {path}")).collect();
            paths.join(" or ")
        };
        let check = checks.processes.as_ref()?;
        Some(("running", check.processes.iter().map(each).collect()))
    };
    listed(&mut changes, "processes", processes(has), processes(wanted));
    changes
}

/// A list under a word: what comes and goes where the word stays, else both.
fn listed(
    changes: &mut Vec<String>,
    field: &str,
    has: Option<(&str, Vec<String>)>,
    wanted: Option<(&str, Vec<String>)>,
) {
    match (has, wanted) {
        (Some((was, has)), Some((is, wanted))) if was == is => {
            members(changes, &format!("{field} {is}"), &Some(has), &Some(wanted));
        }
        (has, wanted) => {
            let text = |side: Option<(&str, Vec<String>)>| {
                side.map_or("any".to_owned(), |(word, names)| format!("{word} {}", names.join(", ")))
            };
            differs(changes, field, text(has), text(wanted));
        }
    }
}
