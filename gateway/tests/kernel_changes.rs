//! Changes of images as the kernel's maps have them: every word of the half that is read is the image's, whatever was changed,
//! refused, grown or cut off in between. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::maps::{Array, Map, MapData};
use sluicegate_api::agent::{self, Acknowledgement};
use sluicegate_api::image::{Delta, Image};
use sluicegate_gateway::agent::Images;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{Choice, FlowSettings, Settings, XdpChoice, XdpSettings};
use sluicegate_lab::Lab;
use sluicegate_model::case::AGENT;
use sluicegate_model::random::Random;
use sluicegate_model::world;
use sluicegate_policy::Compiler;

const LINES: usize = 1 << 13;

#[test]
fn after_every_change_the_maps_have_the_image_and_nothing_else() {
    let lab = Lab::new().expect("this test needs root");
    let [peers, gateway, site] = ["peers", "gateway", "site"].map(|name| lab.namespace(name).unwrap());
    lab.veth((&peers, "out"), (&gateway, "overlay")).unwrap();
    lab.veth((&gateway, "site"), (&site, "in")).unwrap();
    let settings = Settings {
        choice: Choice::Ebpf,
        bpf_dir: lab.bpffs().unwrap().join("gateway"),
        site_devices: vec!["site".into()],
        nat_ports: 20_000..=32_767,
        flow_entries: 4096,
        image_words: (LINES * 16) as u32,
        mtu: 1420,
        flows: FlowSettings::default(),
        xdp: XdpSettings { choice: XdpChoice::default(), guard: None },
    };
    let open = || {
        let datapath = gateway.enter(|| EbpfDatapath::open(&settings, "overlay")).unwrap().unwrap();
        Images::start(lab.dir(), Box::new(datapath))
    };
    let mut images = open();
    let mut r = Random::new(5);
    let mut now = image(&mut r);
    let whole = agent::Snapshot { revision: 1, hash: now.hash().to_vec(), image: now.encode() };
    assert_applied(&images.snapshot(&whole));
    for (revision, step) in (1..).zip(0..40) {
        // Another image altogether, or one in which some words of the last are gone or there again.
        let next = image(&mut r);
        let mut delta = delta(revision, &now, &next);
        if step % 5 == 3 {
            delta.hash[0] ^= 1;
            assert!(!images.delta(&delta).applied);
            same(&settings.bpf_dir, &now, step);
            delta.hash[0] ^= 1;
        }
        if step % 9 == 7 {
            // A new agent finds maps and disk as they were left.
            drop(images);
            images = open();
        }
        assert_applied(&images.delta(&delta));
        same(&settings.bpf_dir, &next, step);
        now = next;
    }
}

fn image(r: &mut Random) -> Image {
    let compiler = Compiler::new(Arc::new(world::state(r))).unwrap();
    compiler.compile(AGENT).unwrap()
}

fn delta(revision: u64, from: &Image, to: &Image) -> agent::Delta {
    agent::Delta {
        base_revision: revision,
        base_hash: from.hash().to_vec(),
        revision: revision + 1,
        hash: to.hash().to_vec(),
        delta: Delta::between(from, to).encode(),
    }
}

fn assert_applied(said: &Acknowledgement) {
    assert!(said.applied, "{}", said.refusal);
}

/// The half of the maps that `ACTIVE` names has the words of `image`.
fn same(bpf_dir: &Path, image: &Image, step: usize) {
    let active: Array<MapData, u64> =
        Map::from_map_data(pinned(bpf_dir, "ACTIVE")).unwrap().try_into().unwrap();
    let lines: Array<MapData, [u32; 16]> =
        Map::from_map_data(pinned(bpf_dir, "IMAGE")).unwrap().try_into().unwrap();
    let half = sluicegate_engine::tables::Active(active.get(&0, 0).unwrap()).half();
    for (i, line) in image.words.as_chunks().0.iter().enumerate() {
        let found = lines.get(&(half * LINES as u32 + i as u32), 0).unwrap();
        assert!(found == *line, "step {step}, line {i}: {found:?} and not {line:?}");
    }
}

fn pinned(dir: &Path, name: &str) -> MapData {
    let path = find(dir, name).unwrap_or_else(|| panic!("{name} is not pinned below {}", dir.display()));
    MapData::from_pin(path).unwrap()
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (dirs, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    files
        .into_iter()
        .find(|path| path.ends_with(name))
        .or_else(|| dirs.iter().find_map(|dir| find(dir, name)))
}
