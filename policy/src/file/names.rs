//! Names in a file that stand for nothing: neither in the file nor in the account it is meant for.

use std::collections::BTreeSet;

use super::comments::places;
use super::{End, FileError, PolicyFile, Problem, Target, Via, check, yaml};

/// What an account has, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Names of peers.
    pub peers: BTreeSet<String>,
    /// Names of groups.
    pub groups: BTreeSet<String>,
    /// Names of resources.
    pub resources: BTreeSet<String>,
    /// Names of posture checks.
    pub posture_checks: BTreeSet<String>,
}

/// Refuses a file that uses names which neither it nor the account has; each with its place in `text`, which `file` was
/// read from.
pub fn unknown_names(text: &str, file: &PolicyFile, known: &Known) -> Result<(), FileError> {
    let mut finder = Finder { known: known.clone(), unknown: Vec::new() };
    finder.known.groups.insert(check::ALL.to_owned());
    finder.known.groups.extend(file.groups.iter().map(|group| group.name.clone()));
    let resources = file.networks.iter().flat_map(|network| &network.resources);
    finder.known.resources.extend(resources.map(|resource| resource.name.clone()));
    finder.known.posture_checks.extend(file.posture_checks.iter().flatten().map(|check| check.name.clone()));
    finder.file(file);
    if finder.unknown.is_empty() {
        return Ok(());
    }
    let places = places(text);
    let mut problems: Vec<Problem> = (finder.unknown.into_iter())
        .map(|(path, message)| {
            // A single name is no list: then the place is the field's.
            let field = path.rsplit_once('/').map_or("", |(field, _)| field);
            let place = places.get(&path).or_else(|| places.get(field)).copied().unwrap_or_default();
            let (line, column) = place.value;
            Problem { line, column, message }
        })
        .collect();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    Err(FileError { problems })
}

/// What is wrong with what stands at a path in `text`, such as `posture_checks/0/geo_location`, as an error with its place.
pub fn problem_at(text: &str, path: &str, message: String) -> FileError {
    let (line, column) = places(text).get(path).copied().unwrap_or_default().key;
    FileError { problems: vec![Problem { line, column, message }] }
}

struct Finder {
    known: Known,
    /// Paths and what is wrong there.
    unknown: Vec<(String, String)>,
}

impl Finder {
    fn file(&mut self, file: &PolicyFile) {
        for (i, group) in file.groups.iter().enumerate() {
            for (j, peer) in group.peers.iter().flatten().enumerate() {
                self.peer(format!("groups/{i}/peers/{j}"), peer);
            }
        }
        for (i, network) in file.networks.iter().enumerate() {
            for (j, resource) in network.resources.iter().enumerate() {
                self.groups(&format!("networks/{i}/resources/{j}/groups"), resource.groups.iter().flatten());
            }
            for (j, router) in network.routers.iter().enumerate() {
                match &router.via {
                    Via::Peer(peer) => self.peer(format!("networks/{i}/routers/{j}/peer"), peer),
                    Via::Groups(names) => {
                        self.groups(&format!("networks/{i}/routers/{j}/groups"), names.iter())
                    }
                }
            }
        }
        for (i, policy) in file.policies.iter().enumerate() {
            for (j, check) in policy.posture_checks.iter().flatten().enumerate() {
                self.posture_check(format!("policies/{i}/posture_checks/{j}"), check);
            }
            for (j, rule) in policy.rules.iter().enumerate() {
                self.end(&format!("policies/{i}/rules/{j}/from"), &rule.from);
                self.end(&format!("policies/{i}/rules/{j}/to"), &rule.to);
                for group in rule.ssh.iter().flat_map(|users| users.keys()) {
                    self.group(format!("policies/{i}/rules/{j}/ssh_users/{group}"), group);
                }
            }
        }
        for (i, test) in file.tests.iter().enumerate() {
            self.end(&format!("tests/{i}/from"), &test.from);
            for (field, claims) in [("may_reach", &test.may_reach), ("may_not_reach", &test.may_not_reach)] {
                for (j, claim) in claims.iter().enumerate() {
                    let path = format!("tests/{i}/{field}/{j}");
                    match &claim.to {
                        Target::Group(name) => self.group(path, name),
                        Target::Peer(name) => self.peer(path, name),
                        Target::Resource(name) => self.resource(path, name),
                        Target::Address(_) => {}
                    }
                }
            }
        }
    }

    fn end(&mut self, path: &str, end: &End) {
        match end {
            End::Groups(names) => self.groups(path, names.iter()),
            End::Peer(name) => self.peer(format!("{path}/0"), name),
            End::Resource(name) => self.resource(format!("{path}/0"), name),
        }
    }

    fn groups<'n>(&mut self, path: &str, names: impl Iterator<Item = &'n String>) {
        for (index, name) in names.enumerate() {
            self.group(format!("{path}/{index}"), name);
        }
    }

    fn group(&mut self, path: String, name: &str) {
        let meant = meant(name, &self.known.groups);
        if !self.known.groups.contains(name) {
            self.unknown.push((path, format!("there is no group `{name}`{meant}: list it under `groups`")));
        }
    }

    fn peer(&mut self, path: String, name: &str) {
        let meant = meant(name, &self.known.peers);
        if !self.known.peers.contains(name) {
            self.unknown.push((path, format!("there is no peer `{name}`{meant}: it has to join first")));
        }
    }

    fn posture_check(&mut self, path: String, name: &str) {
        let meant = meant(name, &self.known.posture_checks);
        if !self.known.posture_checks.contains(name) {
            self.unknown.push((
                path,
                format!("there is no posture check `{name}`{meant}: list it under `posture_checks`"),
            ));
        }
    }

    fn resource(&mut self, path: String, name: &str) {
        let meant = meant(name, &self.known.resources);
        if !self.known.resources.contains(name) {
            self.unknown
                .push((path, format!("there is no resource `{name}`{meant}: list it under a network")));
        }
    }
}

fn meant(name: &str, known: &BTreeSet<String>) -> String {
    if known.contains(name) {
        return String::new();
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    yaml::nearest(name, &known).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}
