//! Control killed in the middle of writes, again and again: no half change, no acknowledged change lost, and images that
//! are those of a compilation from scratch. Over SQLite with one control, over PostgreSQL with two on one database, of which
//! either is killed while both are written to.
//!
//! `SLUICEGATE_KILLS` says how often, instead of a number that takes some seconds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use sluicegate_control::pki::Authority;
use sluicegate_control::store::{Location, Role, Store};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::postgres;
use crate::world::{HANG, all, check_trail, image_from_scratch, join, open, setup_key, soon};

const KILLS: usize = 12;
/// Rules of a policy: a change alters all of them, so that half of one would show.
const RULES: usize = 4;
const WRITERS: usize = 4;

fn kills() -> usize {
    std::env::var("SLUICEGATE_KILLS").map_or(KILLS, |text| text.parse().unwrap())
}

/// A control of the built binary.
struct Control {
    process: Child,
    http: String,
}

impl Control {
    fn start(directory: &Path, store: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate-control"));
        command
            .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--data-dir"])
            .arg(directory);
        command.args(store.map(|url| format!("--store={url}")));
        let mut process = command.env_clear().stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let (mut line, mut said) = (String::new(), String::new());
        while !line.contains("control is ready") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it was ready:\n{said}");
            said += &line;
        }
        // Whatever follows is read away, so that it never waits for us.
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(drop));
        let http = line.split_whitespace().find_map(|word| word.strip_prefix("http=")).unwrap().to_owned();
        Control { process, http }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// What a writer's policy may be: by port, or `None` where it may be gone.
#[derive(Clone, Debug, Default)]
struct Policy {
    id: Option<String>,
    allowed: Vec<Option<u16>>,
}

/// A writer of one policy, which alone knows what it asked for and what was answered.
#[derive(Clone)]
struct Writer {
    name: String,
    all: String,
    client: Client,
    token: String,
    policy: Arc<Mutex<Policy>>,
    /// Changes acknowledged to all writers.
    acknowledged: watch::Sender<u64>,
}

impl Writer {
    fn body(&self, port: u16) -> Value {
        let rule = |number| {
            json!({"name": format!("{} {number}", self.name), "enabled": true, "action": "accept", "protocol": "tcp",
                "ports": [port.to_string()], "sources": [self.all], "destinations": [self.all]})
        };
        json!({"name": self.name, "enabled": true, "rules": (0..RULES).map(rule).collect::<Vec<_>>()})
    }

    /// Asks for one change after the other until there is no answer, or it is to stop.
    async fn write(&self, http: &str, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let policy = self.policy.lock().unwrap().clone();
            let port = rand::random_range(1..60_000);
            let (method, path, wanted) = match &policy.id {
                None => (Method::POST, "/api/policies".to_owned(), Some(port)),
                Some(id) if port % 8 == 0 => (Method::DELETE, format!("/api/policies/{id}"), None),
                Some(id) => (Method::PUT, format!("/api/policies/{id}"), Some(port)),
            };
            self.policy.lock().unwrap().allowed.push(wanted);
            let request = self.client.request(method, format!("http://{http}{path}"));
            let request = request.header("Authorization", format!("Token {}", self.token));
            let request = match wanted {
                Some(port) => request.json(&self.body(port)),
                None => request,
            };
            let Ok(answer) = request.send().await else { return };
            let status = answer.status().as_u16();
            let Ok(answer) = answer.json::<Value>().await else { return };
            if status != 200 {
                // The database may be out of reach for a moment; nothing else is an excuse.
                assert_eq!(status, 503, "{answer}");
                return;
            }
            let id = wanted.and_then(|_| answer["id"].as_str().map(str::to_owned));
            *self.policy.lock().unwrap() = Policy { id, allowed: vec![wanted] };
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }

    /// Compares with what is stored, and goes on from there.
    async fn check(&self, store: &Store) {
        let stored = store.policies().await.unwrap().into_iter().find(|policy| policy.name == self.name);
        let port = stored.as_ref().map(|policy| {
            assert_eq!(policy.rules.len(), RULES, "a policy is whole: {policy:?}");
            let ports: Vec<u16> = policy.rules.iter().map(|rule| rule.spec.ports[0]).collect();
            assert!(ports.iter().all(|port| *port == ports[0]), "a change is whole: {ports:?}");
            ports[0]
        });
        let mut policy = self.policy.lock().unwrap();
        assert!(policy.allowed.contains(&port), "{}: {port:?} is none of {:?}", self.name, policy.allowed);
        *policy = Policy { id: stored.map(|policy| policy.id), allowed: vec![port] };
    }
}

/// The image that a running control wants its gateway to have, once that stands for everything done so far.
async fn image_of(control: &Control, token: &str, gateway: &str, revision: u64) -> String {
    let client = Client::new();
    let get = async |path: &str| {
        let request = client.get(format!("http://{}{path}", control.http));
        request
            .header("Authorization", format!("Token {token}"))
            .send()
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap()
    };
    soon("the compilation", async {
        loop {
            let ready = get("/readyz").await;
            if ready.to_string().contains(&format!("images stand for revision {revision}\"")) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    get(&format!("/api/gateways/{gateway}")).await["image"]["hash_wanted"].as_str().unwrap().to_owned()
}

struct Fleet {
    /// One data directory for each control.
    directories: Vec<TempDir>,
    location: Location,
    url: Option<String>,
    token: String,
    gateway: String,
    writers: Vec<Writer>,
}

impl Fleet {
    async fn found(url: Option<String>, controls: usize) -> Self {
        let directories: Vec<TempDir> = (0..controls).map(|_| tempfile::tempdir().unwrap()).collect();
        let location = match &url {
            Some(url) => Location::parse(url, None).unwrap(),
            None => Location::file_in(directories[0].path()),
        };
        // All of them are the same authority to agents.
        Authority::open(directories[0].path()).unwrap();
        for other in &directories[1..] {
            for file in ["ca.pem", "ca.key"] {
                std::fs::copy(directories[0].path().join(file), other.path().join(file)).unwrap();
            }
        }
        let store = open(&location, directories[0].path()).await;
        let token = std::fs::read_to_string(directories[0].path().join("bootstrap-token")).unwrap();
        let token = token.trim().to_owned();
        let key = setup_key(&store).await;
        let gateway = join(&store, &key, 1, Role::Gateway).await.id;
        join(&store, &key, 2, Role::Peer).await;
        let all = all(&store).await;
        let acknowledged = watch::Sender::new(0);
        let writer = |number| Writer {
            name: format!("policy {number}"),
            all: all.clone(),
            client: Client::builder().timeout(HANG).build().unwrap(),
            token: token.clone(),
            policy: Arc::new(Mutex::new(Policy { id: None, allowed: vec![None] })),
            acknowledged: acknowledged.clone(),
        };
        let writers = (0..WRITERS).map(writer).collect();
        store.close().await;
        Fleet { directories, location, url, token, gateway, writers }
    }

    fn start(&self, which: usize) -> Control {
        Control::start(self.directories[which].path(), self.url.as_deref())
    }

    /// Writes to all controls for a moment, kills one, and checks what is stored while it is not there.
    async fn kill(&self, controls: &mut BTreeMap<usize, Control>, victim: usize) {
        let mut acknowledged = self.writers[0].acknowledged.subscribe();
        let (count, stop) = (self.directories.len(), Arc::new(AtomicBool::new(false)));
        let addresses: Vec<String> = controls.values().map(|control| control.http.clone()).collect();
        let writes: Vec<_> = (self.writers.iter().cloned().enumerate())
            .map(|(number, writer)| {
                let http = addresses[number % count].clone();
                let stop = stop.clone();
                tokio::spawn(async move { writer.write(&http, &stop).await })
            })
            .collect();
        // Some changes, and then any moment of those that follow.
        let enough = *acknowledged.borrow() + rand::random_range(1..25);
        soon("changes", acknowledged.wait_for(|count| *count >= enough)).await.unwrap();
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..20_000))).await;
        controls.remove(&victim).unwrap().kill();
        // The others go on: their writers are told to end.
        stop.store(true, Ordering::Relaxed);
        for write in writes {
            soon("the end of a writer", write).await.unwrap();
        }
    }

    async fn run(&self, kills: usize) {
        let mut controls: BTreeMap<usize, Control> =
            (0..self.directories.len()).map(|which| (which, self.start(which))).collect();
        let mut last = 0;
        for round in 0..kills {
            let victim = round % self.directories.len();
            self.kill(&mut controls, victim).await;

            let own = tempfile::tempdir().unwrap();
            // A file is opened where it was; a database from anywhere, beside the control that still runs.
            let directory = if self.url.is_some() { own.path() } else { self.directories[0].path() };
            let store = open(&self.location, directory).await;
            let revision = store.revision().await.unwrap();
            assert!(revision >= last, "round {round}: no revision is taken back");
            last = revision;
            check_trail(&store).await;
            for writer in &self.writers {
                writer.check(&store).await;
            }
            let (revision, image) = image_from_scratch(&store, &self.gateway).await;
            for control in controls.values() {
                // This one has followed every change, one after the other.
                assert_eq!(
                    image_of(control, &self.token, &self.gateway, revision).await,
                    image,
                    "round {round}"
                );
            }
            store.close().await;
            drop(store);
            controls.insert(victim, self.start(victim));
            assert_eq!(
                image_of(&controls[&victim], &self.token, &self.gateway, revision).await,
                image,
                "round {round}"
            );
        }
        println!("{kills} kills in {} changes", *self.writers[0].acknowledged.borrow());
        controls.into_values().for_each(Control::kill);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_in_the_middle_of_writes_over_sqlite() {
    Fleet::found(None, 1).await.run(kills()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_in_the_middle_of_writes_over_postgres() {
    Fleet::found(Some(postgres::database()), 2).await.run(kills()).await;
}
