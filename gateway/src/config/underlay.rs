//! XDP's mode and the underlay guard.

use serde::Deserialize;

use super::{ConfigError, File, RunFlags, pick};
use crate::datapath::{GuardSettings, XdpChoice, XdpSettings};

/// `[underlay]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnderlayKeys {
    /// Whether WireGuard's port is guarded.
    pub guard: Option<bool>,
    /// Devices that WireGuard's packets arrive on.
    pub devices: Option<Vec<String>>,
    /// Handshake initiations a second for each source prefix (/24 of IPv4, /56 of IPv6).
    pub handshakes_per_second: Option<u32>,
    /// As many at once after silence.
    pub burst: Option<u32>,
}

/// A hundred peers behind one address translator come back within a second after an outage, and go on as they like.
const HANDSHAKES_PER_SECOND: u32 = 20;
const BURST: u32 = 100;

/// From flags, environment and file.
pub(super) fn resolve(run: &RunFlags, file: &File) -> Result<XdpSettings, ConfigError> {
    let keys = &file.underlay;
    let choice = pick(&run.xdp, &file.datapath.xdp, XdpChoice::default);
    if !(run.underlay_guard || keys.guard.unwrap_or(false)) {
        return Ok(XdpSettings { choice, guard: None });
    }
    let refused = |why: &str| Err(ConfigError::Value(why.into()));
    let devices = match run.underlay_devices.is_empty() {
        true => keys.devices.clone().unwrap_or_default(),
        false => run.underlay_devices.clone(),
    };
    if devices.is_empty() {
        return refused(
            "the underlay guard is on but no device is named: set `[underlay] devices` to those that WireGuard's packets arrive on",
        );
    }
    if choice == XdpChoice::Off {
        return refused(
            "the underlay guard is an XDP program: it cannot be on with `[datapath] xdp = \"off\"`",
        );
    }
    let guard = GuardSettings {
        devices,
        handshakes_per_second: pick(&run.handshakes_per_second, &keys.handshakes_per_second, || {
            HANDSHAKES_PER_SECOND
        }),
        burst: pick(&run.handshake_burst, &keys.burst, || BURST),
    };
    if guard.handshakes_per_second == 0 || guard.burst == 0 {
        return refused("handshakes_per_second and burst are 1 at the least: with 0 no peer could connect");
    }
    Ok(XdpSettings { choice, guard: Some(guard) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(toml: &str, run: RunFlags) -> Result<XdpSettings, ConfigError> {
        resolve(&run, &toml::from_str(toml).unwrap())
    }

    #[test]
    fn native_and_unguarded_unless_asked_for() {
        let settings = resolved("", RunFlags::default()).unwrap();
        assert_eq!(settings, XdpSettings { choice: XdpChoice::Native, guard: None });
        let run = RunFlags { xdp: Some(XdpChoice::Off), ..RunFlags::default() };
        assert_eq!(resolved("[datapath]\nxdp = \"generic\"\n", run).unwrap().choice, XdpChoice::Off);
    }

    #[test]
    fn a_guard_comes_from_the_file_or_from_flags() {
        let file = "[underlay]\nguard = true\ndevices = [\"eth0\"]\nhandshakes_per_second = 7\n";
        let guard = GuardSettings { devices: vec!["eth0".into()], handshakes_per_second: 7, burst: BURST };
        assert_eq!(resolved(file, RunFlags::default()).unwrap().guard, Some(guard.clone()));
        let run = RunFlags {
            underlay_guard: true,
            underlay_devices: vec!["eth9".into()],
            handshake_burst: Some(3),
            ..RunFlags::default()
        };
        let both = GuardSettings { devices: vec!["eth9".into()], burst: 3, ..guard };
        assert_eq!(resolved(file, run).unwrap().guard, Some(both));
    }

    #[test]
    fn a_guard_that_cannot_work_is_refused() {
        for toml in [
            "[underlay]\nguard = true\n",
            "[underlay]\nguard = true\ndevices = [\"eth0\"]\n[datapath]\nxdp = \"off\"\n",
            "[underlay]\nguard = true\ndevices = [\"eth0\"]\nburst = 0\n",
            "[underlay]\nguard = true\ndevices = [\"eth0\"]\nhandshakes_per_second = 0\n",
        ] {
            assert!(resolved(toml, RunFlags::default()).is_err(), "{toml}");
        }
    }
}
