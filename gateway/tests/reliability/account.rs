//! What the gateway of these tests enforces: a service that stays, one that comes and goes, and rules that do not matter.

use std::net::IpAddr;

use sluicegate_api::image::{Hash, Image};
use sluicegate_policy::model::{Action, Rule, Service};

pub(crate) use crate::policy::{USER, rule};

use crate::policy;

/// The server behind the gateway, by family.
pub(crate) const SERVER: [&str; 2] = ["10.128.0.53", "fd10::53"];
/// The gateway's addresses on the site, which it masquerades with.
pub(crate) const EGRESS: [&str; 2] = ["10.128.0.1", "fd10::1"];
/// How many users there are; the first of them, [`USER`], sends through real devices.
pub(crate) const USERS: u32 = 256;
/// UDP and TCP port of the service that every image admits.
pub(crate) const PERMITTED: u16 = 5000;
/// UDP port of the service that only some images admit.
pub(crate) const REVOCABLE: u16 = 5001;
/// A port that no image admits.
pub(crate) const DENIED: u16 = 5002;

/// Image `variant` with its hash. Variants differ in rules, in rule slots, in resources and in ports that nobody uses here; with
/// `revocable` or without, they admit [`REVOCABLE`].
pub(crate) fn image(variant: u32, revocable: bool) -> (Hash, Image) {
    // The slots of all rules turn with the variant.
    let count = 6;
    let slot = |rule: u32| (rule + variant) % count;
    let port = |at: u16| at..=at;
    let rule = |number: u32, service: Service| Rule { slot: slot(number), ..rule(number, service) };
    let mut rules = vec![
        rule(0, Service::Udp(vec![port(PERMITTED)])),
        rule(1, Service::Tcp(vec![port(PERMITTED)])),
        rule(2, Service::Icmp),
        rule(3, Service::Udp(vec![6000..=6000 + (variant % 16) as u16])),
    ];
    if revocable {
        rules.push(rule(4, Service::Udp(vec![port(REVOCABLE)])));
    }
    if variant % 2 == 1 {
        rules.push(Rule { action: Action::Drop, ..rule(5, Service::Udp(vec![port(DENIED)])) });
    }
    // Resources come and go beside the one that matters, and with them routes.
    let aside: Vec<(String, Vec<String>)> =
        (0..3).map(|i| (format!("aside {i} of {variant}"), vec![format!("10.129.{i}.0/24")])).collect();
    let aside = aside.iter().map(|(name, prefixes)| (name.as_str(), prefixes.clone()));
    let resources: Vec<_> = aside.chain([("server", server())]).collect();
    let image = compile(rules, &resources);
    (image.hash(), image)
}

/// Image `variant` of a kind that differs from the next in one port of one rule, and in nothing else.
pub(crate) fn small_variant(variant: u32, revocable: bool) -> (Hash, Image) {
    let port = |at: u16| at..=at;
    let last = if revocable { REVOCABLE } else { PERMITTED };
    compiled(vec![
        rule(0, Service::Udp(vec![PERMITTED..=last])),
        rule(1, Service::Tcp(vec![port(PERMITTED)])),
        rule(2, Service::Udp(vec![port(6000 + (variant % 16) as u16)])),
    ])
}

/// The server's addresses as prefixes.
pub(crate) fn server() -> Vec<String> {
    vec![format!("{}/32", SERVER[0]), format!("{}/128", SERVER[1])]
}

/// Addresses of user `number`, by family.
pub(crate) fn user(number: u32) -> [IpAddr; 2] {
    policy::parsed(USER).map(|first| above(first, number))
}

/// The address so many above `first`.
pub(crate) fn above(first: IpAddr, number: u32) -> IpAddr {
    match first {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + number).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + u128::from(number)).into()),
    }
}

fn compiled(rules: Vec<Rule>) -> (Hash, Image) {
    let image = compile(rules, &[("server", server())]);
    (image.hash(), image)
}

/// The gateway's image for these rules and resources, with [`USERS`] users.
pub(crate) fn compile(rules: Vec<Rule>, resources: &[(&str, Vec<String>)]) -> Image {
    policy::compile(&(0..USERS).map(user).collect::<Vec<_>>(), resources, true, rules)
}
