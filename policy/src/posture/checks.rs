//! The checks, in the shapes of NetBird's API, and what is refused.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Platform, Version};

/// What is asked of a machine: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Checks {
    /// The least version of the agent.
    #[serde(rename = "nb_version_check", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub client_version: Option<MinVersion>,
    /// The least version of the operating system.
    #[serde(rename = "os_version_check", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub os_version: Option<OsVersion>,
    /// Where the connection to control comes from.
    #[serde(rename = "geo_location_check", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub location: Option<GeoLocation>,
    /// The addresses of its interfaces, and the one it connects to control from.
    #[serde(rename = "peer_network_range_check", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub network_range: Option<NetworkRange>,
    /// What must run on it.
    #[serde(rename = "process_check", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub processes: Option<ProcessCheck>,
}

/// A least version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = MinVersionCheck))]
#[serde(deny_unknown_fields)]
pub struct MinVersion {
    /// Numbers between dots.
    pub min_version: String,
}

/// A least version of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = MinKernelVersionCheck))]
#[serde(deny_unknown_fields)]
pub struct MinKernelVersion {
    /// Numbers between dots.
    pub min_kernel_version: String,
}

/// The least version of each operating system; one that is not named fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = OSVersionCheck))]
#[serde(default, deny_unknown_fields)]
pub struct OsVersion {
    /// Android.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub android: Option<MinVersion>,
    /// macOS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub darwin: Option<MinVersion>,
    /// iOS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub ios: Option<MinVersion>,
    /// Linux, by its kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub linux: Option<MinKernelVersion>,
    /// Windows, by its build.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub windows: Option<MinKernelVersion>,
}

/// What being at one of these places, or in one of these ranges, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PostureAction))]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Only what matches passes.
    Allow,
    /// What matches fails.
    Deny,
}

/// Places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GeoLocationCheck))]
#[serde(deny_unknown_fields)]
pub struct GeoLocation {
    /// At least one.
    pub locations: Vec<Location>,
    /// Whether being there passes or fails.
    pub action: Action,
}

/// A country, or a city of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// ISO 3166-1 alpha-2, in either case.
    pub country_code: String,
    /// English name, in either case; left out, the whole country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub city_name: Option<String>,
}

/// Ranges of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PeerNetworkRangeCheck))]
#[serde(deny_unknown_fields)]
pub struct NetworkRange {
    /// At least one, of either family.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ranges: Vec<IpNet>,
    /// Whether having an address there passes or fails.
    pub action: Action,
}

/// Processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ProcessCheck {
    /// At least one; each must run.
    pub processes: Vec<Process>,
}

/// An executable, by the path it has on each system; a machine of a system without a path fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// On Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub linux_path: Option<String>,
    /// On macOS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub mac_path: Option<String>,
    /// On Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub windows_path: Option<String>,
}

/// Why checks are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// More entries of one list than a person writes.
const ENTRIES_MAX: usize = 1_024;
/// More processes than an agent is asked to look for.
const PROCESSES_MAX: usize = 64;
/// Longest path, in bytes: Linux's PATH_MAX is 4,096.
const PATH_MAX: usize = 1_024;
/// Longest name of a city, in bytes.
const CITY_MAX: usize = 200;

impl Checks {
    /// The same checks in one form, empty text taken as left out; or what is wrong with them.
    pub fn validated(mut self) -> Result<Self, Invalid> {
        if self == Self::default() {
            return refuse(
                "posture checks must not be empty: give nb_version_check, os_version_check, geo_location_check, \
                 peer_network_range_check or process_check",
            );
        }
        if let Some(check) = &self.client_version {
            version("nb_version_check.min_version", &check.min_version)?;
        }
        if let Some(check) = &self.os_version {
            check.validate()?;
        }
        if let Some(check) = &mut self.location {
            check.validate()?;
        }
        if let Some(check) = &self.network_range {
            check.validate()?;
        }
        if let Some(check) = &mut self.processes {
            check.validate()?;
        }
        Ok(self)
    }

    /// The paths that a machine of this system is to be watched for.
    pub fn watched(&self, platform: Platform) -> impl Iterator<Item = &str> {
        let processes = self.processes.iter().flat_map(|check| &check.processes);
        processes.filter_map(move |process| process.path(platform))
    }
}

impl OsVersion {
    fn validate(&self) -> Result<(), Invalid> {
        let versions = [("android", &self.android), ("darwin", &self.darwin), ("ios", &self.ios)];
        let kernels = [("linux", &self.linux), ("windows", &self.windows)];
        if versions.iter().all(|(_, check)| check.is_none())
            && kernels.iter().all(|(_, check)| check.is_none())
        {
            return refuse("os_version_check must name android, darwin, ios, linux or windows");
        }
        for (os, check) in versions {
            if let Some(check) = check {
                version(&format!("os_version_check.{os}.min_version"), &check.min_version)?;
            }
        }
        for (os, check) in kernels {
            if let Some(check) = check {
                version(&format!("os_version_check.{os}.min_kernel_version"), &check.min_kernel_version)?;
            }
        }
        Ok(())
    }
}

impl GeoLocation {
    fn validate(&mut self) -> Result<(), Invalid> {
        entries("geo_location_check.locations", self.locations.len(), ENTRIES_MAX)?;
        for location in &mut self.locations {
            let code = &location.country_code;
            if code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                return refuse(format!(
                    "country_code {code:?} is not of two letters, as in ISO 3166-1 alpha-2"
                ));
            }
            location.country_code.make_ascii_uppercase();
            location.city_name = location.city_name.take().filter(|city| !city.trim().is_empty());
            if let Some(city) = &location.city_name {
                text("city_name", city, CITY_MAX)?;
            }
        }
        Ok(())
    }
}

impl NetworkRange {
    fn validate(&self) -> Result<(), Invalid> {
        entries("peer_network_range_check.ranges", self.ranges.len(), ENTRIES_MAX)?;
        for range in &self.ranges {
            if let IpNet::V6(v6) = range
                && v6.addr().to_ipv4_mapped().is_some()
            {
                // Addresses are looked at as what they stand for, so it would never match, and a denial of it never deny.
                return refuse(format!(
                    "range {range} is of IPv4-mapped addresses: write it as an IPv4 range"
                ));
            }
        }
        Ok(())
    }
}

impl ProcessCheck {
    fn validate(&mut self) -> Result<(), Invalid> {
        entries("process_check.processes", self.processes.len(), PROCESSES_MAX)?;
        for process in &mut self.processes {
            for path in [&mut process.linux_path, &mut process.mac_path, &mut process.windows_path] {
                *path = path.take().filter(|path| !path.is_empty());
            }
            if *process == Process::default() {
                return refuse(
                    "each entry of process_check.processes needs linux_path, mac_path or windows_path",
                );
            }
            for (field, path) in [("linux_path", &process.linux_path), ("mac_path", &process.mac_path)] {
                let Some(path) = path else { continue };
                text(field, path, PATH_MAX)?;
                if !path.starts_with('/') {
                    return refuse(format!(
                        "{field} {path:?} does not begin at the root: a process is known by its whole path"
                    ));
                }
            }
            if let Some(path) = &process.windows_path {
                text("windows_path", path, PATH_MAX)?;
            }
        }
        Ok(())
    }
}

impl Process {
    /// Its path on a system.
    pub(super) fn path(&self, platform: Platform) -> Option<&str> {
        match platform {
            Platform::Linux => self.linux_path.as_deref(),
            Platform::Darwin => self.mac_path.as_deref(),
            Platform::Windows => self.windows_path.as_deref(),
            Platform::Android | Platform::Ios => None,
        }
    }
}

fn refuse<T>(message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(message.into()))
}

fn version(field: &str, text: &str) -> Result<(), Invalid> {
    text.parse::<Version>().map(drop).map_err(|error| Invalid(format!("{field}: {error}")))
}

fn entries(field: &str, count: usize, most: usize) -> Result<(), Invalid> {
    match count {
        0 => refuse(format!("{field} must not be empty")),
        count if count > most => refuse(format!("{field} has {count} entries; at most {most} are taken")),
        _ => Ok(()),
    }
}

fn text(field: &str, text: &str, most: usize) -> Result<(), Invalid> {
    if text.len() > most {
        return refuse(format!("{field} is of {} bytes; at most {most} are taken", text.len()));
    }
    match text.chars().find(|char| char.is_control()) {
        Some(char) => refuse(format!("{field} must not contain the control character {char:?}")),
        None => Ok(()),
    }
}
