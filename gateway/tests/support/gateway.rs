//! A gateway in the kernel between the devices `overlay` and `site`, as these tests open it.

use std::path::PathBuf;

use sluicegate_api::image::Image;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{
    Choice, Datapath as _, Egress, FlowSettings, Settings, XdpChoice, XdpSettings,
};

/// What one is opened with: small tables, and XDP as asked for.
pub(crate) fn settings(bpf_dir: PathBuf, xdp: XdpChoice) -> Settings {
    Settings {
        choice: Choice::Ebpf,
        bpf_dir,
        site_devices: vec!["site".into()],
        nat_ports: 20_000..=32_767,
        flow_entries: 4096,
        image_words: 1 << 17,
        mtu: 1420,
        flows: FlowSettings::default(),
        xdp: XdpSettings { choice: xdp, guard: None },
    }
}

/// The way out to the site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// Index of the device.
    pub(crate) device: u32,
    /// The first address that is masqueraded with, by family.
    pub(crate) sources: [&'static str; 2],
    /// How many of them there are, by family; the device's own one alone with zeros.
    pub(crate) pool: [u16; 2],
}

/// Tells the datapath of the overlay, and of the way out for all routes of `image`, as an agent does before it applies
/// the image. In the gateway's namespace.
pub(crate) fn prepare(datapath: &mut EbpfDatapath, image: &Image, way: &Way) -> anyhow::Result<()> {
    datapath.set_overlay("100.64.0.1/16".parse()?, "fd64::6440:1/64".parse()?)?;
    datapath.set_egress(&ways(image, way))
}

/// The way out of every route of `image`.
pub(crate) fn ways(image: &Image, way: &Way) -> Vec<Egress> {
    let egress = |route: &u32| Egress {
        route: *route as u16,
        device: way.device,
        source_v4: way.sources[0].parse().ok(),
        source_v6: way.sources[1].parse().ok(),
        pool: way.pool,
    };
    image.routes.keys().map(egress).collect()
}
