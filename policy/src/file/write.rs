//! A policy file as text, in one canonical form: what `export` writes and `fmt` makes of a file.

use super::check::METRIC_DEFAULT;
use super::words::duration_text;
use super::{
    End, Group, Network, Policy, PolicyFile, PostureCheck, Resource, Router, Rule, Test, Via, posture,
};
use crate::model::Action;
use crate::posture::{Location, Process};

/// Lists that would make a line longer than this have a line for each name.
const WIDTH: usize = 100;

/// The file as YAML. Reading it gives the same file.
pub fn write(file: &PolicyFile) -> String {
    let lines = lines(file, &|_, _| false);
    let mut text = String::new();
    for line in lines {
        line.push_to(&mut text);
    }
    text
}

/// A line to be written.
pub(super) struct Line {
    pub(super) indent: usize,
    pub(super) text: String,
    /// Where in the document it is, as `policies/0/rules/2/from`; empty for a line between sections.
    pub(super) path: String,
}

impl Line {
    pub(super) fn push_to(&self, text: &mut String) {
        if !self.text.is_empty() {
            text.push_str(&" ".repeat(self.indent));
            text.push_str(&self.text);
        }
        text.push('\n');
    }
}

/// The lines of a file. `spread` says whether a list (of so many names) at a path must have a line for each name.
pub(super) fn lines(file: &PolicyFile, spread: &dyn Fn(&str, usize) -> bool) -> Vec<Line> {
    let mut out = Out { lines: Vec::new(), spread };
    out.section("groups", &file.groups, Out::group);
    match file.posture_checks.as_deref() {
        // That there are none is not the same as nothing about them.
        Some([]) => out.heading("posture_checks", " []"),
        checks => out.section("posture_checks", checks.unwrap_or_default(), Out::posture_check),
    }
    out.section("networks", &file.networks, Out::network);
    out.section("policies", &file.policies, Out::policy);
    out.section("tests", &file.tests, Out::test);
    out.lines
}

struct Out<'a> {
    lines: Vec<Line>,
    spread: &'a dyn Fn(&str, usize) -> bool,
}

/// An object being written: its first field stands behind the dash of its list.
struct Object<'p> {
    indent: usize,
    path: &'p str,
    first: bool,
}

impl Out<'_> {
    fn section<T>(&mut self, name: &str, items: &[T], item: fn(&mut Self, &T, Object<'_>)) {
        if items.is_empty() {
            return;
        }
        self.heading(name, "");
        self.items(name, 2, items, item);
    }

    fn heading(&mut self, name: &str, value: &str) {
        if !self.lines.is_empty() {
            self.lines.push(Line { indent: 0, text: String::new(), path: String::new() });
        }
        self.lines.push(Line { indent: 0, text: format!("{name}:{value}"), path: name.to_owned() });
    }

    fn items<T>(&mut self, path: &str, indent: usize, items: &[T], item: fn(&mut Self, &T, Object<'_>)) {
        for (index, one) in items.iter().enumerate() {
            let path = format!("{path}/{index}");
            item(self, one, Object { indent, path: &path, first: true });
        }
    }

    /// One line `key: value` of an object.
    fn field(&mut self, object: &mut Object<'_>, key: &str, value: &str) {
        let dash = if std::mem::take(&mut object.first) { "- " } else { "  " };
        let space = if value.is_empty() { "" } else { " " };
        self.lines.push(Line {
            indent: object.indent,
            text: format!("{dash}{key}:{space}{value}"),
            path: format!("{}/{key}", object.path),
        });
    }

    fn text(&mut self, object: &mut Object<'_>, key: &str, value: &Option<String>) {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            self.field(object, key, &scalar(value));
        }
    }

    /// A list of names, in one line where it fits.
    fn names(&mut self, object: &mut Object<'_>, key: &str, names: &[String]) {
        let words: Vec<String> = names.iter().map(|name| scalar(name)).collect();
        let line = format!("[{}]", words.join(", "));
        let path = format!("{}/{key}", object.path);
        let long = object.indent + key.len() + line.len() + 4 > WIDTH;
        if names.is_empty() || !(long || (self.spread)(&path, names.len())) {
            return self.field(object, key, &line);
        }
        self.field(object, key, "");
        for (index, word) in words.into_iter().enumerate() {
            let path = format!("{path}/{index}");
            self.lines.push(Line { indent: object.indent + 4, text: format!("- {word}"), path });
        }
    }

    fn group(&mut self, group: &Group, mut object: Object<'_>) {
        self.field(&mut object, "name", &scalar(&group.name));
        if let Some(peers) = &group.peers {
            self.names(&mut object, "peers", peers);
        }
    }

    fn posture_check(&mut self, check: &PostureCheck, mut object: Object<'_>) {
        self.field(&mut object, "name", &scalar(&check.name));
        self.text(&mut object, "description", &check.description);
        let checks = &check.checks;
        if let Some(check) = &checks.client_version {
            self.field(&mut object, "client_version", &scalar(&check.min_version));
        }
        if let Some(check) = &checks.os_version {
            let each: Vec<String> =
                check.least().map(|(system, least)| format!("{system}: {}", scalar(least))).collect();
            self.field(&mut object, "os_version", &format!("{{{}}}", each.join(", ")));
        }
        if let Some(check) = &checks.location {
            let names: Vec<String> = check.locations.iter().map(Location::text).collect();
            self.side(&mut object, "geo_location", posture::side(check.action), &names);
        }
        if let Some(check) = &checks.network_range {
            let names: Vec<String> = check.ranges.iter().map(ToString::to_string).collect();
            self.side(&mut object, "network_range", posture::side(check.action), &names);
        }
        if let Some(check) = &checks.processes {
            let (path, indent) = (format!("{}/processes", object.path), object.indent + 4);
            self.field(&mut object, "processes", "");
            self.items(&path, indent, &check.processes, Self::process);
        }
    }

    /// A list under a word of its own.
    fn side(&mut self, object: &mut Object<'_>, key: &str, side: &str, names: &[String]) {
        self.field(object, key, "");
        let path = format!("{}/{key}", object.path);
        let mut below = Object { indent: object.indent + 2, path: &path, first: false };
        self.names(&mut below, side, names);
    }

    fn process(&mut self, process: &Process, mut object: Object<'_>) {
        for (field, path) in process.paths() {
            self.field(&mut object, field, &scalar(path));
        }
    }

    fn network(&mut self, network: &Network, mut object: Object<'_>) {
        self.field(&mut object, "name", &scalar(&network.name));
        self.text(&mut object, "description", &network.description);
        let (path, indent) = (object.path.to_owned(), object.indent + 4);
        if !network.resources.is_empty() {
            self.field(&mut object, "resources", "");
            self.items(&format!("{path}/resources"), indent, &network.resources, Self::resource);
        }
        if !network.routers.is_empty() {
            self.field(&mut object, "routers", "");
            self.items(&format!("{path}/routers"), indent, &network.routers, Self::router);
        }
    }

    fn resource(&mut self, resource: &Resource, mut object: Object<'_>) {
        self.field(&mut object, "name", &scalar(&resource.name));
        self.text(&mut object, "description", &resource.description);
        self.field(&mut object, "address", &scalar(&resource.address));
        if let Some(groups) = &resource.groups {
            self.names(&mut object, "groups", groups);
        }
        self.off(&mut object, "enabled", resource.enabled);
    }

    fn router(&mut self, router: &Router, mut object: Object<'_>) {
        match &router.via {
            Via::Peer(name) => self.field(&mut object, "peer", &scalar(name)),
            Via::Groups(names) => self.names(&mut object, "groups", names),
        }
        if router.metric != METRIC_DEFAULT {
            self.field(&mut object, "metric", &router.metric.to_string());
        }
        self.off(&mut object, "masquerade", router.masquerade);
        self.off(&mut object, "enabled", router.enabled);
    }

    fn policy(&mut self, policy: &Policy, mut object: Object<'_>) {
        self.field(&mut object, "name", &scalar(&policy.name));
        self.text(&mut object, "description", &policy.description);
        match policy.break_glass {
            Some(max) => self.field(&mut object, "break_glass", &format!("{{max: {}}}", duration_text(max))),
            None => self.off(&mut object, "enabled", policy.enabled),
        }
        if let Some(checks) = &policy.posture_checks {
            self.names(&mut object, "posture_checks", checks);
        }
        let (path, indent) = (object.path.to_owned(), object.indent + 4);
        self.field(&mut object, "rules", "");
        for (index, rule) in policy.rules.iter().enumerate() {
            let path = format!("{path}/rules/{index}");
            self.rule(rule, &default_name(&policy.name, index), Object { indent, path: &path, first: true });
        }
    }

    fn rule(&mut self, rule: &Rule, default_name: &str, mut object: Object<'_>) {
        if rule.name != default_name {
            self.field(&mut object, "name", &scalar(&rule.name));
        }
        self.text(&mut object, "description", &rule.description);
        self.off(&mut object, "enabled", rule.enabled);
        if rule.action == Action::Drop {
            self.field(&mut object, "action", "drop");
        }
        self.end(&mut object, "from", &rule.from);
        self.end(&mut object, "to", &rule.to);
        self.field(&mut object, "service", &scalar(&rule.service_text()));
        if rule.bidirectional && !rule.service.always_bidirectional() {
            self.field(&mut object, "bidirectional", "true");
        }
        if let Some(users) = rule.ssh.as_ref().filter(|users| !users.is_empty()) {
            let list =
                |names: &Vec<String>| names.iter().map(|name| scalar(name)).collect::<Vec<_>>().join(", ");
            let users: Vec<String> =
                users.iter().map(|(group, names)| format!("{}: [{}]", scalar(group), list(names))).collect();
            self.field(&mut object, "ssh_users", &format!("{{{}}}", users.join(", ")));
        }
    }

    fn test(&mut self, test: &Test, mut object: Object<'_>) {
        self.field(&mut object, "name", &scalar(&test.name));
        self.end(&mut object, "from", &test.from);
        for (key, claims) in [("may_reach", &test.may_reach), ("may_not_reach", &test.may_not_reach)] {
            if !claims.is_empty() {
                self.field(&mut object, key, "");
                for (index, claim) in claims.iter().enumerate() {
                    let text = format!("- {}", scalar(&claim.to_string()));
                    let path = format!("{}/{key}/{index}", object.path);
                    self.lines.push(Line { indent: object.indent + 4, text, path });
                }
            }
        }
    }

    fn end(&mut self, object: &mut Object<'_>, key: &str, end: &End) {
        match end {
            End::Groups(names) if names.len() == 1 => self.field(object, key, &scalar(&names[0])),
            End::Groups(names) => self.names(object, key, names),
            End::Peer(name) => self.field(object, key, &scalar(&format!("peer:{name}"))),
            End::Resource(name) => self.field(object, key, &scalar(&format!("resource:{name}"))),
        }
    }

    /// A switch that is on by default.
    fn off(&mut self, object: &mut Object<'_>, key: &str, on: bool) {
        if !on {
            self.field(object, key, "false");
        }
    }
}

/// The name of a rule that has none of its own.
pub(super) fn default_name(policy: &str, index: usize) -> String {
    if index == 0 { policy.to_owned() } else { format!("{policy} {}", index + 1) }
}

/// A text as YAML: bare where every reader takes it for that text, also inside brackets; else in double quotes, as JSON,
/// which YAML 1.2 includes.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || " _-./@+".contains(c);
    let colon = text.strip_prefix("peer:").or(text.strip_prefix("resource:")).unwrap_or(text);
    let safe = text.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '/')
        && !text.ends_with(' ')
        && !colon.starts_with(' ')
        && colon.chars().all(plain)
        && !is_other_type(text);
    // Ports have commas, which would end a name in brackets: services stand in none.
    if safe || is_service(text) { text.to_owned() } else { serde_json::to_string(text).unwrap_or_default() }
}

fn is_service(text: &str) -> bool {
    ["tcp/", "udp/", "netbird-ssh/"]
        .iter()
        .filter_map(|protocol| text.strip_prefix(protocol))
        .any(|ports| !ports.is_empty() && ports.bytes().all(|b| b.is_ascii_digit() || b == b',' || b == b'-'))
}

/// Whether some YAML reader would take the text for something else: a number, a date, a truth value, nothing.
fn is_other_type(text: &str) -> bool {
    const WORDS: [&str; 12] =
        ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf", "infinity"];
    let lower = text.to_ascii_lowercase();
    let number = lower.starts_with(|c: char| c.is_ascii_digit())
        && lower.chars().all(|c| c.is_ascii_hexdigit() || "_+-ox".contains(c) || c == '.')
        && text.parse::<std::net::IpAddr>().is_err();
    WORDS.contains(&lower.as_str()) || number || text.parse::<f64>().is_ok()
}
