//! `docs/policy-as-code.md` is a recorded run: what it shows is what the commands say.
//!
//! Blocks that begin with ```` ```yaml NAME ```` are files; in blocks of ```` ```console ````, each line `$ sluice …` is a command,
//! and what follows is its output. `UPDATE_GOLDEN=1` writes the outputs.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sluicegate_api::agent::flow_event::Kind;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{FlowEvent, FlowList, Health, LiveFlow, ReportRequest, SyncRequest};
use sluicegate_control::store::{PeerFacts, Told};

use crate::Control;

#[tokio::test]
async fn the_document_shows_what_the_commands_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy-as-code.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let control = Control::start().await;
    control.join().await;
    let driver = control.agents.start_driver();
    control.agents.hub().compiled(control.revision().await).await;
    let live = Arc::default();
    let mut run = Run { control, traffic: false, posture: false, live };
    for gateway in ["gateway-1", "gateway-2"] {
        run.connect(gateway).await;
    }
    let mut seen = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        seen.push_str(&format!("{line}\n"));
        let Some(kind) = line.strip_prefix("```") else { continue };
        let mut block = Vec::new();
        for line in lines.by_ref() {
            if line == "```" {
                break;
            }
            block.push(line);
        }
        match kind.split_once(' ') {
            Some(("yaml", name)) => {
                std::fs::write(run.control.shell.path(name), block.join("\n") + "\n").unwrap();
                seen.push_str(&(block.join("\n") + "\n"));
            }
            _ if kind == "console" => {
                for command in block.iter().filter_map(|line| line.strip_prefix("$ ")) {
                    seen.push_str(&run.command(command).await);
                }
            }
            _ => seen.push_str(&(block.join("\n") + "\n")),
        }
        seen.push_str("```\n");
    }
    driver.abort();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(&path, &seen).unwrap();
    }
    for (line, (seen, written)) in (1..).zip(seen.lines().zip(text.lines())) {
        assert_eq!(seen, written, "line {line}: run with UPDATE_GOLDEN=1 when the change is meant");
    }
    assert_eq!(seen.len(), text.len());
}

struct Run {
    control: Control,
    traffic: bool,
    posture: bool,
    /// What gateway-1 says when it is asked for its flows.
    live: Arc<Mutex<Vec<LiveFlow>>>,
}

impl Run {
    /// The command with what it printed, as a terminal shows it.
    async fn command(&mut self, command: &str) -> String {
        if command.contains("suggest --from-flows") && !self.traffic {
            self.traffic = true;
            self.report_traffic().await;
        }
        if command.contains("posture.yml") && !self.posture {
            self.posture = true;
            self.report_versions().await;
        }
        let mut words = Vec::new();
        for (index, part) in command.split('"').enumerate() {
            // Between quotes a blank is part of the word.
            if index % 2 == 1 {
                words.push(part.to_owned())
            } else {
                words.extend(part.split_whitespace().map(str::to_owned))
            }
        }
        let shell = &self.control.shell;
        let words: Vec<String> = words[1..]
            .iter()
            .map(|word| match word.ends_with(".yml") {
                true => shell.path(word).display().to_string(),
                false => word.clone(),
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = shell.run(&words).await;
        let mut shown = format!("$ {command}\n{}", ran.out);
        if !ran.err.is_empty() {
            let error = if ran.code == 0 { "" } else { "error: " };
            shown.push_str(&format!("{error}{}\n", ran.err.trim_end()));
        }
        if ran.code != 0 {
            shown.push_str(&format!("(exit code {})\n", ran.code));
        }
        let directory = format!("{}/", shell.path("").display().to_string().trim_end_matches('/'));
        let shown = shown.replace(&directory, "").replace(&self.control.url, "http://127.0.0.1:8080");
        self.neutral(&shown).await
    }

    /// Addresses and times differ from run to run.
    async fn neutral(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (number, peer) in (1..).zip(self.control.store.peers(None, None).await.unwrap()) {
            text = text.replace(&peer.ip.to_string(), &format!("100.64.0.{number}"));
            text = text.replace(&peer.ipv6.to_string(), &format!("fd00:64::{number}"));
        }
        let year = time::UtcDateTime::now().year().to_string();
        let mut neutral = String::new();
        for line in text.split_inclusive('\n') {
            let mut line = line.to_owned();
            let mut from = 0;
            while let Some(at) = line[from..].find(&format!("{year}-")).map(|at| at + from) {
                from = at + 1;
                if line[at..].len() >= 19
                    && line.as_bytes()[at + 10] == b' '
                    && line.as_bytes()[at + 13] == b':'
                {
                    line.replace_range(at..at + 19, "2026-11-22 12:00:00");
                }
            }
            // The terminal's clock stands still, control's does not.
            if let (Some(open), true) = (line.find("UTC ("), line.contains(" is ON "))
                && let Some(close) = line[open..].find(')')
            {
                line.replace_range(open + 5..open + close, "in 30 min");
            }
            neutral.push_str(&line);
        }
        neutral
    }

    /// Keeps a gateway's stream, and answers for it. Only the first one carries anything.
    async fn connect(&self, gateway: &str) {
        let peers = self.control.store.peers(None, None).await.unwrap();
        let id = peers.iter().find(|peer| peer.name == gateway).unwrap().id.clone();
        let (hub, live) = (self.control.agents.hub().clone(), self.live.clone());
        let carries = gateway == "gateway-1";
        let request = SyncRequest { lists_flows: true, ..SyncRequest::default() };
        let mut stream = hub.open(&id, &request, self.control.revision().await).unwrap();
        tokio::spawn(async move {
            while let Ok(update) = stream.next().await {
                let Some(Update::Flows(query)) = update.update else { continue };
                let flows = if carries { live.lock().unwrap().clone() } else { Vec::new() };
                let list =
                    FlowList { query: query.id, live: flows.len() as u64, flows, ..FlowList::default() };
                let report = ReportRequest { flow_list: Some(list), ..ReportRequest::default() };
                hub.report(&id, report, 1_795_332_909_200).unwrap();
            }
        });
    }

    /// What the machines say of themselves.
    async fn report_versions(&self) {
        for peer in self.control.store.peers(None, None).await.unwrap() {
            let version = if peer.name == "bob" { "0.1.0" } else { "0.3.0" };
            let system = PeerFacts { version: version.into(), ..PeerFacts::default() };
            let addresses = Some(vec!["10.9.0.1/24".parse().unwrap(), "fd09::1/64".parse().unwrap()]);
            let told = Told { system, addresses, ..Told::default() };
            self.control.store.note_facts(&peer.id, &told).await.unwrap();
        }
    }

    /// Flows as gateways report them, of what happens at the site within a day.
    async fn report_traffic(&self) {
        let peers = self.control.store.peers(None, None).await.unwrap();
        let peer = |name: &str| peers.iter().find(|peer| peer.name == name).unwrap().clone();
        let policies = self.control.store.policies().await.unwrap();
        let broad = policies.iter().find(|policy| policy.name == "everything at the site").unwrap();
        self.control.agents.hub().compiled(self.control.revision().await).await;
        let mut flows = Vec::new();
        for (source, destination, protocol, port, times, bytes) in [
            ("alice", "10.20.0.10", 6, 443, 40, 120_000),
            ("alice", "fd20::10", 6, 443, 12, 64_000),
            ("bob", "10.20.0.10", 6, 443, 25, 90_000),
            ("bob", "10.20.0.20", 6, 5432, 3, 800_000),
            ("probe", "10.20.0.30", 6, 9100, 288, 2_000),
            ("alice", "10.20.0.10", 1, 0x0800, 4, 168),
        ] {
            let from = peer(source);
            let from = if destination.contains(':') { from.ipv6.to_string() } else { from.ip.to_string() };
            for (time, kind) in (0..times).flat_map(|time| [(time, Kind::Start), (time, Kind::End)]) {
                let bytes = if kind == Kind::End { bytes } else { 0 };
                flows.push(FlowEvent {
                    time_ms: 1_795_332_909_120 + time * 300_000,
                    kind: kind.into(),
                    protocol,
                    source: from.clone(),
                    source_port: 40_000 + time as u32,
                    destination: destination.into(),
                    destination_port: port,
                    policy_id: broad.id.clone(),
                    rule_id: broad.rules[0].id.clone(),
                    packets: bytes / 700 + 1,
                    bytes,
                    ..FlowEvent::default()
                });
            }
        }
        // Two that are still open.
        for (source, destination, port) in [("bob", "10.20.0.20", 5432), ("alice", "10.20.0.10", 443)] {
            flows.push(FlowEvent {
                time_ms: 1_795_332_909_120,
                kind: Kind::Start.into(),
                protocol: 6,
                source: peer(source).ip.to_string(),
                source_port: 50_000,
                destination: destination.into(),
                destination_port: port,
                policy_id: broad.id.clone(),
                rule_id: broad.rules[0].id.clone(),
                ..FlowEvent::default()
            });
            let IpAddr::V4(to) = destination.parse().unwrap() else { panic!("{destination}") };
            self.live.lock().unwrap().push(LiveFlow {
                protocol: 6,
                source: peer(source).ip.octets().to_vec(),
                source_port: 50_000,
                destination: to.octets().to_vec(),
                destination_port: port,
                packets: 1_200,
                bytes: 840_000,
                confirmed: true,
                ..LiveFlow::default()
            });
        }
        let health = Some(Health { flows: 2, ..Health::default() });
        let report = ReportRequest { flows, health, ..ReportRequest::default() };
        self.control.agents.hub().report(&peer("gateway-1").id, report, 1_795_332_909_200).unwrap();
    }
}
