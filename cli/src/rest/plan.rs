//! `/api/policy-file`.

use serde::Deserialize;

/// What a change would do, or has done.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Of control's policies before it.
    pub version: String,
    /// What is written.
    pub changes: Vec<Change>,
    /// How much was so already.
    pub unchanged: usize,
    /// What opens and closes.
    pub reach: Reach,
    /// Machines that turn by posture checks.
    pub posture: Turns,
    /// Who gets what.
    pub gateways: Vec<Gateway>,
    /// How many other peers get a new image.
    pub peers: usize,
    /// What it does to live flows.
    pub flows: LiveFlows,
    /// What came of the tests.
    pub tests: Vec<Test>,
    /// Policies that the file does not name.
    pub left_alone: Vec<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
}

/// Machines that stand otherwise by the posture checks that policies ask of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Turns {
    /// How many come to fail a check.
    pub failing: u64,
    /// Some of them.
    pub fails: Vec<Turn>,
    /// How many fail one no more.
    pub passing: u64,
    /// Some of them.
    pub passes: Vec<Turn>,
}

/// A machine and a check.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Turn {
    /// Peer name.
    pub peer: String,
    /// Name of the posture check.
    pub check: String,
    /// Why it fails, or failed.
    pub why: String,
}

/// Flows that are live, and what a change does to them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LiveFlows {
    /// As gateways count them.
    pub reported: u64,
    /// Those that are judged.
    pub known: u64,
    /// Those that are cut.
    pub cut: u64,
    /// What the account's settings keep from being known.
    pub note: Option<String>,
    /// Some of them.
    pub examples: Vec<Traffic>,
    /// Gateways that were asked for theirs.
    pub asked: Vec<Asked>,
}

/// A gateway that was asked which flows it has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Peer name.
    pub name: String,
    /// `answered`, or why not.
    pub answer: String,
    /// Flows it has.
    pub live: u64,
    /// Those it listed.
    pub listed: u64,
    /// Those it has beside.
    pub more: u64,
    /// Those of the listed that are cut.
    pub cut: u64,
    /// Their bytes.
    pub cut_bytes: u64,
}

/// What one source did at one destination.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Peer name.
    pub source: String,
    /// Peer or resource name, when known.
    pub destination: String,
    /// Its address.
    pub address: String,
    /// Which packets.
    pub service: String,
    /// How many flows.
    pub flows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why it is refused.
    pub why: String,
}

/// What was applied.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// What it is kept as.
    pub revision: Option<i64>,
    /// What it did.
    pub plan: Plan,
}

/// One object that is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Change {
    /// `create`, `update` or `delete`.
    pub action: String,
    /// What it is.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The network of a resource or router.
    pub network: Option<String>,
    /// What is changed.
    pub changes: Vec<String>,
}

/// Pairs that open and close.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reach {
    /// Open after it and not before.
    pub opened: Side,
    /// Open before it and not after.
    pub closed: Side,
}

/// One direction.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Side {
    /// How many.
    pub pairs: u64,
    /// Some of them.
    pub examples: Vec<Pair>,
}

/// A source, a destination and packets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pair {
    /// Peer name.
    pub source: String,
    /// Peer or resource name.
    pub destination: String,
    /// An address of it.
    pub address: String,
    /// Which packets.
    pub service: String,
}

/// What one gateway gets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// Peer name.
    pub name: String,
    /// Rules that come.
    pub rules_added: Vec<String>,
    /// Rules that go.
    pub rules_removed: Vec<String>,
    /// Prefixes that come.
    pub routes_added: Vec<String>,
    /// Prefixes that go.
    pub routes_removed: Vec<String>,
    /// Whether only who or what its rules match changes.
    pub members_change: bool,
}

/// What came of one test.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// Pairs asked about.
    pub asked: u64,
    /// Pairs that are not so.
    pub wrong: u64,
    /// Some of those.
    pub failures: Vec<Failed>,
    /// What makes it say less than it seems to.
    pub remarks: Vec<String>,
}

/// Something that is not as a test says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Failed {
    /// The claim.
    pub claim: String,
    /// `may reach` or `may not reach`.
    pub wants: String,
    /// Peer name.
    pub source: Option<String>,
    /// Peer or resource name.
    pub destination: Option<String>,
    /// The address.
    pub address: Option<String>,
    /// Which packets.
    pub service: Option<String>,
    /// Why it is so.
    pub why: String,
}

/// Tests.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TestReport {
    /// Whether all hold.
    pub hold: bool,
    /// Each.
    pub tests: Vec<Test>,
}

/// A revision.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Revision {
    /// From 1.
    pub number: i64,
    /// When.
    pub timestamp: String,
    /// `apply`, `rollback` or `elsewhere`.
    pub kind: String,
    /// Who.
    pub actor: String,
    /// What was said.
    pub message: String,
    /// All of it.
    pub file: String,
}

/// The account as a file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Export {
    /// What tells it from others.
    pub version: String,
    /// The file.
    pub file: String,
}

/// A break-glass policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Glass {
    /// Policy id.
    pub id: String,
    /// Policy name.
    pub name: String,
    /// The longest it may be on.
    pub max_seconds: u32,
    /// Whether it is on.
    pub on: bool,
    /// Until when.
    pub until: Option<String>,
    /// Why.
    pub reason: String,
}
