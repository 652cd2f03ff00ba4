//! The programs of site and underlay devices: put there, kept there, and what is in their way.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use anyhow::anyhow;
use aya::Ebpf;
use aya::programs::SchedClassifier;

use super::attach::{self, GUARD_XDP, Hook, OVERLAY_XDP, SITE_XDP, TRUNK_XDP};
use super::links::Neighbour;
use super::netlink;
use super::tags;
use super::wires::{self, Wires};
use crate::datapath::{Settings, XdpChoice, XdpDevice, XdpMode, device};

/// The devices besides the overlay's, and how it stands with each of their hooks.
pub(super) struct Devices {
    bpf_dir: PathBuf,
    /// The overlay device, where that is an Ethernet: XDP runs on it too.
    overlay: Option<String>,
    site: Vec<String>,
    /// Devices that are guarded; some may be site devices too.
    guarded: Vec<String>,
    xdp: XdpChoice,
    /// The XDP program of each device as of the last look; what is told of devices is of the same moment.
    programs: BTreeMap<String, &'static str>,
    modes: BTreeMap<String, XdpMode>,
    /// Sentences, by device and hook.
    trouble: BTreeMap<(String, &'static str), String>,
}

impl Devices {
    /// Those that `settings` name; nothing is attached yet.
    pub(super) fn new(settings: &Settings, overlay: Option<&str>) -> Self {
        Self {
            bpf_dir: settings.bpf_dir.clone(),
            overlay: overlay.map(str::to_owned),
            site: settings.site_devices.clone(),
            guarded: settings.xdp.guard.as_ref().map(|guard| guard.devices.clone()).unwrap_or_default(),
            xdp: settings.xdp.choice,
            programs: BTreeMap::new(),
            modes: BTreeMap::new(),
            trouble: BTreeMap::new(),
        }
    }

    /// Every place that is to have a program.
    pub(super) fn hooks(&self) -> Vec<(String, Hook)> {
        let site = self.site.iter().flat_map(|device| attach::SITE.map(|hook| (device.clone(), hook)));
        // TC first, since XDP alone forwards nothing.
        let xdp = self.xdp_programs().into_iter();
        site.chain(xdp.filter_map(|(device, program)| Some((device, Hook::xdp(program, self.xdp)?))))
            .collect()
    }

    /// The XDP program of every device that is to have one: VLANs are told apart below them.
    fn xdp_programs(&self) -> BTreeMap<String, &'static str> {
        let guarded = self.guarded.iter().map(|device| (wires::base(device), GUARD_XDP));
        let named = self.site.iter().chain(&self.overlay);
        let mut programs: BTreeMap<_, _> =
            guarded.chain(named.map(|device| (wires::base(device), TRUNK_XDP))).collect();
        for (devices, program) in [(&self.site[..], SITE_XDP), (self.overlay.as_slice(), OVERLAY_XDP)] {
            for device in devices.iter().filter(|device| wires::base(device) == **device) {
                programs.insert(device.clone(), program);
            }
        }
        programs
    }

    /// Puts the programs on the devices that are there and lack them; with `renew`, in place of an earlier agent's. What
    /// fails is kept as a condition: a site device without our programs forwards nothing, since the host does not forward either.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, renew: bool) {
        self.programs = self.xdp_programs();
        for (device, hook) in self.hooks() {
            let done = match device::index(&device) {
                Some(index) if self.carries(hook) && tags::are_hidden(&device, index) => {
                    let _ = attach::release(&self.bpf_dir, &device, hook);
                    Err(anyhow::Error::new(tags::Hidden(device.clone())))
                }
                Some(index) => attach::ensure(ebpf, &self.bpf_dir, &device, index, hook, renew)
                    .map(|program| (index, program)),
                None => Err(anyhow!("{} device {device} is not there", self.role(&device))),
            };
            let sentence = match done {
                Ok((index, program)) => self.settled(&device, hook, index, program),
                Err(e) => Some(self.failed(&device, hook, &e)),
            };
            let key = (device, hook.name());
            match sentence {
                Some(sentence) => drop(self.trouble.insert(key, sentence)),
                None => drop(self.trouble.remove(&key)),
            }
        }
    }

    /// Whether XDP judges there for the whole path, and so must know which VLAN a frame is of. What is only dropped is
    /// dropped of any.
    fn carries(&self, hook: Hook) -> bool {
        self.overlay.is_some() && matches!(hook, Hook::Xdp { program, .. } if program != GUARD_XDP)
    }

    /// How XDP is attached to `device`.
    pub(super) fn mode(&self, device: &str) -> XdpMode {
        match self.xdp {
            XdpChoice::Off => XdpMode::Off,
            _ => self.modes.get(device).copied().unwrap_or(XdpMode::Refused),
        }
    }

    /// Names of the site devices.
    pub(super) fn site(&self) -> &[String] {
        &self.site
    }

    /// How XDP is attached to each device, as of the last look.
    pub(super) fn xdp(&self, wires: &Wires) -> Vec<XdpDevice> {
        let told = |device: &String| XdpDevice {
            device: device.clone(),
            mode: self.mode(device),
            sends: wires.sends(device),
        };
        self.programs.keys().map(told).collect()
    }

    /// Sentences about what is not as it should be.
    pub(super) fn degraded(&self) -> impl Iterator<Item = &String> {
        self.trouble.values()
    }

    fn role(&self, device: &String) -> &'static str {
        match device {
            _ if self.site.contains(device) => "site",
            _ if self.overlay.as_ref() == Some(device) => "overlay",
            _ => "underlay",
        }
    }

    /// The program is there: in what mode, and is anybody in front of it?
    fn settled(&mut self, device: &str, hook: Hook, index: u32, program: Option<u32>) -> Option<String> {
        match hook {
            Hook::Xdp { generic, .. } => {
                let there = netlink::xdp_programs(index).unwrap_or_default();
                let mode = match program {
                    Some(_) if there.native == program => XdpMode::Native,
                    Some(_) if there.generic == program => XdpMode::Generic,
                    // The kernel does not tell: it was attached as asked.
                    _ if generic => XdpMode::Generic,
                    _ => XdpMode::Native,
                };
                self.modes.insert(device.to_owned(), mode);
                None
            }
            Hook::Tc(..) => in_front(device, hook, program?),
        }
    }

    fn failed(&mut self, device: &String, hook: Hook, error: &anyhow::Error) -> String {
        let Hook::Xdp { generic, .. } = hook else { return format!("{error:#}") };
        self.modes.insert(device.clone(), XdpMode::Refused);
        let guarded = self.guarded.iter().any(|guarded| wires::base(guarded) == *device);
        let judged = hook.program() != GUARD_XDP;
        let judged = judged.then(|| format!("TC alone judges what comes from {device}"));
        let guarded = guarded.then(|| format!("WireGuard's port is not guarded on {device}"));
        let consequence = [judged, guarded].into_iter().flatten().collect::<Vec<_>>().join(", and ");
        format!("{}; {consequence}", why_not(device, generic, error))
    }
}

/// Why XDP cannot be had on `device`, and what to do.
fn why_not(device: &str, generic: bool, error: &anyhow::Error) -> String {
    const WITHOUT: &str = "or set `[datapath] xdp = \"off\"` to live without XDP";

    if let Some(hidden) = error.downcast_ref::<tags::Hidden>() {
        return hidden.to_string();
    }
    let errno = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    let there = device::index(device).and_then(|index| netlink::xdp_programs(index).ok());
    if let Some(id) = there.and_then(|there| there.other_than(None)) {
        let neighbour = Neighbour::of(id);
        return if neighbour.is_dispatcher() {
            format!(
                "XDP of {device} belongs to {neighbour}, the dispatcher of libxdp, which goes on undisturbed: Sluicegate does not \
                 join it; unload what it runs (`xdp-loader unload {device} --all`) {WITHOUT}"
            )
        } else {
            format!(
                "XDP of {device} belongs to {neighbour}, which goes on undisturbed: the kernel runs one program there; take it off \
                 (`bpftool net show dev {device}` tells more) {WITHOUT}"
            )
        };
    }
    if errno == Some(libc::EOPNOTSUPP) && !generic {
        return format!(
            "the driver of {device} has no native XDP; set `[datapath] xdp = \"generic\"` for the slower kind, which needs no \
             driver, {WITHOUT}"
        );
    }
    if device::index(device).is_none() {
        return format!("{error:#}");
    }
    format!(
        "{error:#}; lower its MTU or switch off large receive offload if the driver asks for that, {WITHOUT}"
    )
}

/// What to say of a TC program that runs before `own` at `hook` of `device`, where the kernel keeps an order.
pub(super) fn in_front(device: &str, hook: Hook, own: u32) -> Option<String> {
    let Hook::Tc(_, side) = hook else { return None };
    if !attach::has_tcx() {
        return None;
    }
    let (_, programs) = SchedClassifier::query_tcx(device, side).ok()?;
    let first = programs.first().filter(|first| first.id() != own)?;
    // Not among them at all: it has just been taken off, and comes back with the next look.
    programs.iter().find(|program| program.id() == own)?;
    let first = Neighbour { id: first.id(), name: first.name_as_str().unwrap_or_default().to_owned() };
    Some(format!(
        "{first} runs before Sluicegate's at {} of {device}: what it drops, rewrites or redirects is not judged as it arrived; \
         attach it after Sluicegate's",
        hook.name()
    ))
}
