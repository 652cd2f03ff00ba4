//! Where maps and links are pinned, and which of them an agent of another version takes over.
//!
//! ```text
//! links/           a pin for each hook: the program behind it is replaced in place, whatever the version
//! flows-1f0c93ab/  the flow tables
//! rules-77ab01d2/  every other map: images, settings, counters
//! ```
//!
//! The digits are a fingerprint of what the maps look like and what their words mean. An agent that reads them alike takes
//! them over; any other makes its own beside, and the programs of the agent before go on by theirs until an image is in
//! force in the new ones. Flow tables are apart, so that flows outlive a change of the image's layout or size.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::maps::{MapData, MapInfo};
use aya_obj::Object;
use aya_obj::maps::PinningType;
use sluicegate_engine::{flow, image};

use super::memory;

/// The maps of flows. What they hold is read by [`flow::LAYOUT`].
const FLOW_MAPS: [&str; 8] = [
    "FLOWS4",
    "FLOWS6",
    "FRAGMENTS4",
    "FRAGMENTS6",
    "HALF_OPEN4",
    "HALF_OPEN6",
    "HALF_OPEN_COUNTS",
    "HALF_OPEN_SWEPT",
];
const FLOWS: &str = "flows-";
const RULES: &str = "rules-";

/// The directories of maps that the programs of this version use.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    bpf_dir: PathBuf,
    flows: PathBuf,
    rules: PathBuf,
}

impl Pins {
    /// Those for the programs in `object`, with room for images of `image_lines` lines and for `rule_slots` rules.
    pub(super) fn new(
        bpf_dir: &Path,
        object: &[u8],
        image_lines: u32,
        rule_slots: u32,
    ) -> anyhow::Result<Self> {
        let object = Object::parse(object).context("the programs' object cannot be read")?;
        let (mut flows, mut rules) = (Fingerprint::new(), Fingerprint::new());
        flows.add(&flow::LAYOUT.to_le_bytes());
        for number in [image::LAYOUT, image_lines, rule_slots] {
            rules.add(&number.to_le_bytes());
        }
        let pinned = object.maps.iter().filter(|(_, map)| map.pinning() == PinningType::ByName);
        for (name, map) in pinned.collect::<BTreeMap<_, _>>() {
            let group = if FLOW_MAPS.contains(&&**name) { &mut flows } else { &mut rules };
            group.add(name.as_bytes());
            for number in [map.map_type(), map.key_size(), map.value_size(), map.map_flags()] {
                group.add(&number.to_le_bytes());
            }
        }
        let dir = |prefix, fingerprint: Fingerprint| bpf_dir.join(format!("{prefix}{:08x}", fingerprint.0));
        Ok(Self { bpf_dir: bpf_dir.to_owned(), flows: dir(FLOWS, flows), rules: dir(RULES, rules) })
    }

    /// Makes the directories that are not there.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        for dir in [&self.flows, &self.rules, &links(&self.bpf_dir)] {
            fs::create_dir_all(dir).with_context(|| {
                format!(
                    "{} could not be made; is a bpffs mounted there (mount -t bpf bpffs /sys/fs/bpf)?",
                    dir.display()
                )
            })?;
        }
        Ok(())
    }

    /// Where every map but the flows' is pinned.
    pub(super) fn rules(&self) -> &Path {
        &self.rules
    }

    /// The flows' maps, and where they are pinned.
    pub(super) fn flows(&self) -> impl Iterator<Item = (&'static str, PathBuf)> + '_ {
        FLOW_MAPS.into_iter().map(|name| (name, self.flows.join(name)))
    }

    /// Entries of a map an earlier agent left; `None` when there is none.
    pub(super) fn entries(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(None);
        }
        let info = MapInfo::from_pin(&path).with_context(|| format!("{} is not a map", path.display()))?;
        Ok(Some(info.max_entries()))
    }

    /// The bare map called `name`, opened once more from its pin.
    pub(super) fn open(&self, name: &str) -> anyhow::Result<MapData> {
        let path = self.path(name);
        MapData::from_pin(&path).with_context(|| format!("{} could not be opened", path.display()))
    }

    /// Bytes of the kernel's memory, by map.
    pub(super) fn memory(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut all = memory::of_maps(&self.rules)?;
        all.append(&mut memory::of_maps(&self.flows)?);
        Ok(all)
    }

    /// Whether there are maps of another version: its programs are still attached, or were when the agent that was to take
    /// over from it ended.
    pub(super) fn has_others(&self) -> bool {
        !self.others().is_empty()
    }

    /// Removes the pins of maps that no program uses any longer once those of this version are everywhere.
    pub(super) fn remove_others(&self) -> anyhow::Result<()> {
        self.others().iter().try_for_each(|dir| remove_group(dir))
    }

    fn others(&self) -> Vec<PathBuf> {
        let mut others = groups(&self.bpf_dir);
        others.retain(|dir| *dir != self.flows && *dir != self.rules);
        others
    }

    fn path(&self, name: &str) -> PathBuf {
        let dir = if FLOW_MAPS.contains(&name) { &self.flows } else { &self.rules };
        dir.join(name)
    }
}

/// Where links are pinned.
pub(super) fn links(bpf_dir: &Path) -> PathBuf {
    bpf_dir.join("links")
}

/// Removes the pins of every map, and the directories with them.
pub(super) fn remove_all(bpf_dir: &Path) -> anyhow::Result<()> {
    groups(bpf_dir).iter().try_for_each(|dir| remove_group(dir))?;
    for dir in [links(bpf_dir), bpf_dir.to_owned()] {
        // What is not ours keeps its directory.
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

/// The directories of maps, of whatever version.
fn groups(bpf_dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(bpf_dir).into_iter().flatten().flatten();
    let ours = all.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(FLOWS) || name.starts_with(RULES)
    });
    ours.map(|entry| entry.path()).collect()
}

fn remove_group(dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        fs::remove_file(&path).with_context(|| format!("{} could not be removed", path.display()))?;
    }
    fs::remove_dir(dir).with_context(|| format!("{} could not be removed", dir.display()))
}

/// FNV-1a of 32 bits: it tells versions apart, and hides nothing from anybody.
struct Fingerprint(u32);

impl Fingerprint {
    const fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::OBJECT;
    use super::*;

    #[test]
    fn flows_outlive_another_size_of_images_and_images_do_not() {
        let pins = |lines| Pins::new(Path::new("/sys/fs/bpf/test"), OBJECT, lines, 1024).unwrap();
        let (small, large) = (pins(1024), pins(2048));
        assert_eq!(small.flows, large.flows);
        assert_ne!(small.rules, large.rules);
        assert_eq!(small.rules, pins(1024).rules);
    }

    #[test]
    fn every_flow_map_is_one_of_the_programs() {
        let object = Object::parse(OBJECT).unwrap();
        for name in FLOW_MAPS {
            let map = object.maps.get(name).unwrap_or_else(|| panic!("there is no map {name}"));
            assert_eq!(map.pinning(), PinningType::ByName, "{name} ends with the agent");
        }
    }
}
