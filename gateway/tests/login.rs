//! The agent's program and the real control, with people who log in for it. The whole way needs root, for a network namespace.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "../../control/tests/common/devices.rs"]
mod devices;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate_control::agents::Agents;
use sluicegate_control::geo::Places;
use sluicegate_control::identity::Identity;
use sluicegate_control::store::{Person, Store, User, UserRole};
use sluicegate_gateway::join::Fingerprint;
use sluicegate_gateway::system;
use sluicegate_lab::Lab;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, block_in_place};

use devices::Devices;

const PATIENCE: Duration = Duration::from_secs(120);

/// A control on loopback, and a place for agents.
struct World {
    store: Store,
    agents: Agents,
    address: SocketAddr,
    dir: PathBuf,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl World {
    async fn start(address: &str, dir: &Path, identity: Identity) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let store = Store::open(&dir.join("control")).await.unwrap();
        let agents = Agents::open(store.clone(), Places::none(), &dir.join("control")).unwrap();
        let agents = agents.knowing(identity);
        agents.start_driver();
        let mut settings = store.account().await.unwrap().settings;
        settings.extra.user_approval_required = false;
        let owner = store.users().await.unwrap().into_iter().find(|user| user.role == UserRole::Owner);
        store.update_settings(&owner.unwrap().actor(), settings).await.unwrap();
        std::fs::write(dir.join("ca.pem"), agents.authority().pem()).unwrap();
        let mut world =
            World { store, agents, address: address.parse().unwrap(), dir: dir.into(), serving: None };
        world.serve().await;
        world
    }

    /// Serves agents, at the address it has once it has one.
    async fn serve(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let agents = self.agents.clone();
        let serving = tokio::spawn(async move {
            agents.serve(listener, Vec::new(), async { drop(stopped.await) }).await.unwrap();
        });
        self.serving = Some((stop, serving));
    }

    /// Nobody answers any more.
    async fn fall_silent(&mut self) {
        let (stop, serving) = self.serving.take().unwrap();
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The program with a state directory of this name.
    fn program(&self, state: &str, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate-gateway"));
        command.env_clear().arg(verb).arg("--state-dir").arg(self.dir.join(state));
        command.arg("--config").arg(self.config()).arg("--socket").arg(self.dir.join("agent.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn config(&self) -> PathBuf {
        let path = self.dir.join("gateway.toml");
        std::fs::write(&path, "").unwrap();
        path
    }

    fn join(&self, state: &str) -> Command {
        let mut command = self.program(state, "join");
        command.args(["--login", "--role", "peer", "--name", "laptop", "--control", &self.url()]);
        command.arg("--ca-file").arg(self.dir.join("ca.pem"));
        command
    }

    /// Somebody at the provider, who has been here.
    async fn person(&self, issuer: &str, subject: &str) -> User {
        let person = Person {
            issuer: issuer.into(),
            subject: subject.into(),
            name: subject.into(),
            email: String::new(),
            email_verified: false,
            at: 0,
        };
        self.store.sign_in(&person, |_| None).await.unwrap()
    }

    fn status(&self) -> Option<Value> {
        let done = self.program("state", "status").args(["--output", "json"]).output().unwrap();
        done.status.success().then(|| serde_json::from_slice(&done.stdout).unwrap())
    }

    /// Asks the agent that runs until its status is as `wanted`.
    async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let last = block_in_place(|| self.status());
            match last {
                Some(status) if wanted(&status) => return status,
                last => assert!(begun.elapsed() < PATIENCE, "{what}: {last:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A program that goes on; it ends with this.
struct Going {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Going {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Going { child, lines }
    }

    fn line(&mut self) -> String {
        block_in_place(|| {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                panic!("it says nothing more: {}", self.errors());
            }
            line
        })
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Its exit code, what else it printed, and its errors.
    fn end(mut self) -> (i32, String, String) {
        block_in_place(|| {
            let (mut out, errors) = (String::new(), self.errors());
            self.lines.read_to_string(&mut out).unwrap();
            (self.child.wait().unwrap().code().unwrap(), out, errors)
        })
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its threads are in the namespace of the one that makes it.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn a_machine_joins_by_a_login_gets_its_image_and_is_logged_in_on_again_once_that_has_expired() {
    assert!(system::is_root(), "this test needs root, for network namespaces");
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let lab = Lab::new().unwrap();
        let bpf_dir = lab.bpffs().unwrap().join("agent");
        let host = lab.namespace("host").unwrap();
        host.enter(|| run(whole(address, lab.dir(), &bpf_dir))).unwrap();
    }
}

async fn whole(address: &str, dir: &Path, bpf_dir: &Path) {
    let devices = Devices::start().await;
    let world = World::start(address, dir, devices.identity()).await;
    let ann = world.person(devices.issuer(), "ann").await;
    let mut command = world.join("state");
    command.args(["--output", "json"]);
    let mut join = Going::start(command);
    let offer = join.json();
    assert_eq!((&offer["event"], &offer["browser"]["user_code"]), (&"login".into(), &"WDJB-MJHT".into()));
    let waiting = world.store.waiting_machine(offer["code"].as_str().unwrap()).await.unwrap();
    let key: String = waiting.identity_key[..2].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(offer["fingerprint"].as_str().unwrap().starts_with(&key), "{offer}");
    devices.agree("ann");
    let joined = join.json();
    assert_eq!(joined["event"], "joined");
    let (code, _, errors) = join.end();
    assert_eq!(code, 0, "{errors}");
    assert!(!format!("{offer}{joined}{errors}").contains("sgl_"), "the secret is shown nowhere");
    let id = joined["peer_id"].as_str().unwrap().to_owned();
    assert_eq!(world.store.peer(&id).await.unwrap().user_id, ann.id);

    let mut command = world.program("state", "run");
    command.args(["--datapath", "userspace", "--device", "sluice0", "--flow-entries", "4096"]);
    command.arg("--bpf-dir").arg(bpf_dir);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut agent = command.spawn().unwrap();
    let has_image =
        |status: &Value| status["policy"]["revision"].is_u64() && status["control"]["connected"] == true;
    let status = world.until("the agent has its image", has_image).await;
    assert_eq!(status["control"]["login_expired"], false);

    world.store.age_peer(&id, 25 * 3_600_000).await.unwrap();
    assert_eq!(world.store.expire_peers().await.unwrap(), 1);
    let status = world.until("the agent knows", |status| status["control"]["login_expired"] == true).await;
    assert!(status["degraded"].to_string().contains("sluicegate-gateway login"), "{status:#}");
    let table = block_in_place(|| world.program("state", "status").output().unwrap().stdout);
    assert!(String::from_utf8(table).unwrap().contains("Login      expired: log in again with"));

    // Somebody else at the provider is not let in, and it stays as it is.
    devices.agree("eve");
    let mut login = Going::start(world.program("state", "login"));
    assert!(login.line().contains("in any browser"));
    let (code, _, errors) = login.end();
    assert_eq!(code, 1);
    assert!(errors.contains("another user's"), "{errors}");
    devices.answer("authorization_pending");
    let mut login = Going::start(world.program("state", "login"));
    let code = loop {
        if let Some((_, code)) = login.line().split_once("sluice peer admit ") {
            break code.trim().to_owned();
        }
    };
    world.store.admit_machine(&ann, &code).await.unwrap();
    let (code, out, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    assert!(out.contains("is as of now"), "{out}");
    let back = |status: &Value| has_image(status) && status["control"]["login_expired"] == false;
    world.until("the agent takes part again", back).await;

    let _ = agent.kill();
    agent.wait().unwrap();
}

#[test]
fn a_login_outlives_a_control_that_is_away_and_asks_another_replica() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::start("[::1]:0", dir.path(), Identity::default()).await;
        let ann = world.person("https://idp.example", "ann").await;
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let fingerprint = world.agents.authority().fingerprint();
        let mut command = world.program("state", "join");
        command.args(["--login", "--role", "peer", "--fingerprint", &fingerprint, "--output", "json"]);
        command.args(["--control", &format!("https://{gone},{}", world.url())]);
        let mut join = Going::start(command);
        let offer = join.json();
        assert!(offer.get("browser").is_none(), "{offer}");
        world.fall_silent().await;
        world.store.admit_machine(&ann, offer["code"].as_str().unwrap()).await.unwrap();
        // Longer than a question and its repetition.
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.serve().await;
        assert_eq!(join.json()["event"], "joined");
        assert_eq!(join.end().0, 0);
    });
}

#[test]
fn who_is_not_let_in_is_told_why_and_nothing_is_kept() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let devices = Devices::start().await;
        let world = World::start("127.0.0.1:0", dir.path(), devices.identity()).await;
        let fails = async |command: Command, word: &str| {
            let (code, _, errors) = Going::start(command).end();
            assert!(code != 0 && errors.contains(word), "{word}: {code} {errors}");
            assert!(!dir.path().join("state").join("identity.json").exists());
        };
        devices.answer("access_denied");
        fails(world.join("state"), "declined at the identity provider").await;
        devices.agree_with("ann", serde_json::json!({"aud": "another"}));
        fails(world.join("state"), "audience").await;
        let mut untrusting = world.program("state", "join");
        untrusting.args(["--login", "--role", "peer", "--control", &world.url()]);
        fails(untrusting, "--fingerprint").await;
        let mut wrong = world.program("state", "join");
        let other = Fingerprint([7; 32]).to_string();
        wrong.args(["--login", "--role", "peer", "--control", &world.url(), "--fingerprint", &other]);
        fails(wrong, "does not have the identity").await;
        fails(world.program("state", "login"), "join first").await;
        let mut of_no_role = world.program("state", "join");
        of_no_role.args(["--login", "--control", &world.url(), "--fingerprint", &other]);
        let (code, _, errors) = Going::start(of_no_role).end();
        assert!(code == 2 && errors.contains("--role peer or --role gateway"), "{code} {errors}");

        // A gateway is let in by the code alone, and not by everybody.
        devices.agree("ann");
        let mut gateway = world.program("state", "join");
        gateway.args(["--login", "--role", "gateway", "--output", "json", "--control", &world.url()]);
        gateway.arg("--ca-file").arg(dir.path().join("ca.pem"));
        let mut gateway = Going::start(gateway);
        let offer = gateway.json();
        assert_eq!((&offer["role"], offer.get("browser")), (&"gateway".into(), None));
        let ann = world.person(devices.issuer(), "ann").await;
        let code = offer["code"].as_str().unwrap();
        let denied = world.store.admit_machine(&ann, code).await.unwrap_err().to_string();
        assert!(denied.contains("may not let a gateway join"), "{denied}");
        world.store.refuse_machine(&ann, code).await.unwrap();
        let (code, _, errors) = gateway.end();
        assert!(code == 1 && errors.contains("turned it away"), "{code} {errors}");
        assert!(world.store.peers(None, None).await.unwrap().is_empty());

        devices.answer("authorization_pending");
        let mut join = Going::start(world.join("state"));
        while !join.line().contains("fingerprint") {}
        world.store.expire_machine_logins().await.unwrap();
        let (code, _, errors) = join.end();
        assert!(code == 1 && errors.contains("begin anew"), "{errors}");
    });
}
