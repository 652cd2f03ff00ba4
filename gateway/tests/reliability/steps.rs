//! The whole agent, stopped behind each call of bpf(2) and each removal or renaming of a file that it makes while it starts,
//! attaches, applies and takes over from another version, and asked there with real packets: what was permitted and established
//! goes on by its port, what is denied stays denied. What it stores in mapped maps (an image's words, and the one that publishes
//! them) and what it asks for by netlink is no step of its own. Then it is killed at some of those steps, and another agent must
//! come up right. But for a first start, the host of the gateway forwards by itself, so a hook without its program would show.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use sluicegate_api::agent::Snapshot;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_lab::{Program, wait};
use tokio::runtime::Runtime;

use crate::account::{self, DENIED, EGRESS, PERMITTED, REVOCABLE, SERVER, USER};
use crate::agents::network;
use crate::control::Control;
use crate::tracer::{self, Call, Traced};
use crate::world::{World, chosen, socket};

/// Behind how many of the calls that change something it is killed, evenly spread; `SLUICEGATE_STEPS=1000` for every one.
const STEPS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(240);
/// An image of one size after one of the other is the succession of another version: the maps of images are others.
const SIZES: [u32; 2] = [1 << 17, 1 << 18];
/// Where the server sends to unasked.
const UNASKED: u16 = 7000;

#[test]
fn an_agent_killed_at_any_step_of_its_first_start_opens_nothing() {
    let gate = Gate::new("native", false);
    let mut talks = gate.talks();
    let shut = |talks: &mut [Talk; 2], when: &str| talks.iter_mut().for_each(|talk| talk.is_denied(when));
    let changes = gate.walk(1, SIZES[0], &mut |when| shut(&mut talks, when));
    for (revision, change) in (2..).zip(sample(changes)) {
        gate.detach();
        let when = gate.kill_at(revision, SIZES[0], change);
        shut(&mut talks, &when);
        gate.start_whole(revision, SIZES[0]);
        talks.iter_mut().for_each(|talk| talk.obeys(revision));
    }
}

#[test]
fn an_agent_killed_at_any_step_of_another_start_leaves_the_gate_neither_open_nor_cut() {
    // Without XDP, what TC lets by passes.
    for xdp in ["off", "native"] {
        kill_at_steps(xdp, [SIZES[0]; 2]);
    }
}

#[test]
fn an_agent_killed_at_any_step_of_a_succession_leaves_the_gate_neither_open_nor_cut() {
    for xdp in ["off", "native"] {
        kill_at_steps(xdp, SIZES);
    }
}

fn kill_at_steps(xdp: &'static str, sizes: [u32; 2]) {
    let gate = Gate::new(xdp, true);
    let mut talks = gate.talks();
    let size = |revision: u64| sizes[revision as usize % 2];
    gate.start_whole(1, size(1));
    // Answered and answered to: a flow that nothing evicts.
    for _ in 0..2 {
        talks.iter_mut().for_each(|talk| talk.goes_on("before"));
    }
    let changes = gate.walk(2, size(2), &mut |when| talks.iter_mut().for_each(|talk| talk.goes_on(when)));
    for (revision, change) in (3..).zip(sample(changes)) {
        let when = gate.kill_at(revision, size(revision), change);
        talks.iter_mut().for_each(|talk| talk.goes_on(&when));
        gate.start_whole(revision, size(revision));
        talks.iter_mut().for_each(|talk| talk.obeys(revision));
        talks.iter_mut().for_each(|talk| talk.goes_on(&format!("{when}, and started")));
        let groups = std::fs::read_dir(&gate.world.bpf_dir).unwrap().count();
        assert_eq!(groups, 3, "links, flows and the rest: maps of another version were left");
    }
}

/// Some of so many changes, evenly.
fn sample(changes: u32) -> impl Iterator<Item = u32> {
    let count = chosen("SLUICEGATE_STEPS", STEPS).min(changes);
    (0..count).map(move |i| 1 + (2 * i + 1) * changes / (2 * count))
}

/// Whether the image of a revision admits [`REVOCABLE`].
fn admits(revision: u64) -> bool {
    revision.is_multiple_of(2)
}

/// A gateway between two Ethernets, its agent, and that one's control.
struct Gate {
    world: World,
    control: Control,
    xdp: &'static str,
    _runtime: Runtime,
}

impl Gate {
    /// On a host that forwards by itself, or does not.
    fn new(xdp: &'static str, forwards: bool) -> Self {
        let world = World::new();
        if forwards {
            for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                world.gateway.sysctl(path, "1").unwrap();
            }
        }
        for (to, via) in [("100.64.0.0/16", EGRESS[0]), ("fd64::/64", EGRESS[1])] {
            world.server.route(to, via).unwrap();
        }
        let (runtime, control) = world
            .gateway
            .enter(|| {
                // Its threads are made here, and so in the gateway's namespace.
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .unwrap();
                let control = runtime.block_on(async {
                    let (control, address) = Control::start().await.unwrap();
                    control.join(address, world.lab.dir()).await.unwrap();
                    control
                });
                (runtime, control)
            })
            .unwrap();
        // A busy machine takes long for a start, in which nothing is sent.
        std::fs::write(world.lab.dir().join("gateway.toml"), "[timeouts]\nudp = 36000\n").unwrap();
        Self { world, control, xdp, _runtime: runtime }
    }

    fn talks(&self) -> [Talk; 2] {
        [0, 1].map(|family| Talk::new(&self.world, family))
    }

    /// Has control say `revision` to whoever asks.
    fn tell(&self, revision: u64) {
        let (hash, image) = account::image(revision as u32 % 4, admits(revision));
        self.control.fall_silent();
        self.control.tell(Update::Network(network(&image)));
        let snapshot = Snapshot { revision, hash: hash.to_vec(), image: image.encode() };
        self.control.tell(Update::Snapshot(snapshot));
    }

    fn args(&self, words: u32) -> Vec<String> {
        let dir = self.world.lab.dir();
        let paths = [
            ("--state-dir", dir.join("state")),
            ("--config", dir.join("gateway.toml")),
            ("--socket", dir.join("agent.sock")),
            ("--bpf-dir", self.world.bpf_dir.clone()),
        ];
        let mut args = vec!["run".to_owned()];
        for (flag, path) in paths {
            args.extend([flag.to_owned(), path.to_str().unwrap().to_owned()]);
        }
        let words = words.to_string();
        let rest = [
            "--overlay-kind",
            "ethernet",
            "--device",
            "overlay",
            "--datapath",
            "ebpf",
            "--site-device",
            "site",
        ];
        args.extend(
            rest.into_iter()
                .chain(["--xdp", self.xdp, "--flow-entries", "4096", "--image-words", &words])
                .map(str::to_owned),
        );
        args
    }

    /// Walks an agent through all steps until `revision` is in force, with something to do at each, and kills it. How many of
    /// them changed what outlives it.
    fn walk(&self, revision: u64, words: u32, at: &mut (dyn FnMut(&str) + Send)) -> u32 {
        self.tell(revision);
        let (mut steps, mut changes) = (0, 0);
        let mut commands: BTreeMap<String, u32> = BTreeMap::new();
        self.trace(words, |command| {
            steps += 1;
            changes += u32::from(tracer::changes(command));
            let command = tracer::name(command);
            at(&format!("stopped at step {steps}, behind {command}"));
            *commands.entry(command).or_default() += 1;
            !self.has(revision)
        });
        println!("revision {revision} took {steps} steps, {changes} of them changes: {commands:?}");
        changes
    }

    /// Starts an agent that is to put `revision` in force, and kills it behind a change with this number; when that was.
    fn kill_at(&self, revision: u64, words: u32, change: u32) -> String {
        self.tell(revision);
        let (mut changes, mut last) = (0, None);
        self.trace(words, |command| {
            changes += u32::from(tracer::changes(command));
            last = Some(command);
            changes < change && !self.has(revision)
        });
        let when = format!("killed behind change {changes}, {}", last.map(tracer::name).unwrap_or_default());
        println!("{when}");
        when
    }

    /// Runs an agent from step to step for as long as it is said to go on, and kills it.
    fn trace(&self, words: u32, mut goes_on: impl FnMut(Call) -> bool + Send) {
        let (args, log) = (self.args(words), self.world.lab.dir().join("traced.log"));
        let run = || {
            let begun = Instant::now();
            let mut agent = Traced::start(env!("CARGO_BIN_EXE_sluicegate-gateway"), &args, &log).unwrap();
            loop {
                let step = agent.step().unwrap();
                let said = || std::fs::read_to_string(&log).unwrap_or_default();
                let command = step.unwrap_or_else(|| panic!("it ended by itself: {}", said()));
                assert!(begun.elapsed() < PATIENCE, "it came to no end: {}", said());
                if !goes_on(command) {
                    break agent.kill();
                }
            }
        };
        self.world.gateway.enter(run).unwrap();
    }

    /// Starts an agent, waits until `revision` is in force, and kills it.
    fn start_whole(&self, revision: u64, words: u32) {
        self.tell(revision);
        let program = Program::new(env!("CARGO_BIN_EXE_sluicegate-gateway")).args(self.args(words));
        let agent = self.world.gateway.spawn("whole", &program).unwrap();
        let applied = wait::until(PATIENCE, || {
            if agent.is_running() { Ok(self.has(revision).then_some(())) } else { Err(()) }
        });
        assert_eq!(applied, Ok(Some(())), "revision {revision} never came into force: {}", agent.tail());
        agent.kill();
    }

    fn has(&self, revision: u64) -> bool {
        self.control.acknowledged(revision).is_some_and(|said| said.applied)
    }

    fn detach(&self) {
        let verb = Program::new(env!("CARGO_BIN_EXE_sluicegate-gateway"))
            .arg("detach")
            .args(["--bpf-dir".as_ref(), self.world.bpf_dir.as_os_str()])
            .args(["--state-dir".as_ref(), self.world.lab.dir().join("state").as_os_str()]);
        self.world.gateway.run(&verb, PATIENCE).unwrap().output().unwrap();
    }
}

/// What the user and the server of one family send each other.
struct Talk {
    /// The user's, connected to the server's ports of the same name.
    permitted: UdpSocket,
    revocable: UdpSocket,
    denied: UdpSocket,
    /// Where nothing may come.
    unasked: UdpSocket,
    far: UdpSocket,
    far_revocable: UdpSocket,
    far_denied: UdpSocket,
    user: IpAddr,
    /// Where the permitted flow comes from, as the server sees it.
    from: Option<SocketAddr>,
    sent: u64,
}

impl Talk {
    fn new(world: &World, family: usize) -> Self {
        let [server, user] = [SERVER, USER].map(|addresses| addresses[family].parse::<IpAddr>().unwrap());
        let patience = Duration::from_secs(20);
        let near = |port: u16| {
            let near = socket(&world.peer, SocketAddr::new(user, 0), patience);
            world.peer.enter(|| near.connect(SocketAddr::new(server, port))).unwrap().unwrap();
            near
        };
        let far = |port: u16| socket(&world.server, SocketAddr::new(server, port), patience);
        let silent = |socket: UdpSocket| {
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self {
            permitted: near(PERMITTED),
            revocable: near(REVOCABLE),
            denied: near(DENIED),
            unasked: silent(socket(&world.peer, SocketAddr::new(user, UNASKED), patience)),
            far: far(PERMITTED),
            far_revocable: silent(far(REVOCABLE)),
            far_denied: silent(far(DENIED)),
            user,
            from: None,
            sent: 0,
        }
    }

    /// One question and its answer, with what must not pass before each.
    fn goes_on(&mut self, when: &str) {
        self.sent += 1;
        let number = self.sent.to_be_bytes();
        let mut buffer = [0; 16];
        self.denied.send(&number).unwrap();
        self.permitted.send(&number).unwrap();
        let (got, from) =
            self.far.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{when}: the flow was cut: {e}"));
        assert_eq!(buffer[..got], number, "{when}");
        assert_eq!(*self.from.get_or_insert(from), from, "{when}: the flow has another port");
        self.far.send_to(&number, SocketAddr::new(self.user, UNASKED)).unwrap();
        self.far.send_to(&number, from).unwrap();
        let got = self.permitted.recv(&mut buffer).unwrap_or_else(|e| panic!("{when}: no answer came: {e}"));
        assert_eq!(buffer[..got], number, "{when}");
        self.is_silent(when);
    }

    /// What must not pass is sent.
    fn is_denied(&mut self, when: &str) {
        self.denied.send(b"denied").unwrap();
        self.far.send_to(b"unasked", SocketAddr::new(self.user, UNASKED)).unwrap();
        self.is_silent(when);
    }

    /// Nothing came that must not; what still comes is seen the next time.
    fn is_silent(&self, when: &str) {
        for (socket, what) in [(&self.far_denied, "a denied"), (&self.unasked, "an unasked")] {
            let came = socket.recv(&mut [0; 16]);
            assert!(
                matches!(&came, Err(e) if e.kind() == ErrorKind::WouldBlock),
                "{when}: {what} datagram passed for {}: {came:?}",
                self.user
            );
        }
    }

    /// The image of `revision` judges.
    fn obeys(&mut self, revision: u64) {
        let mut buffer = [0; 16];
        while self.far_revocable.recv(&mut buffer).is_ok() {}
        self.revocable.send(b"revocable").unwrap();
        self.from = None;
        self.goes_on("in force");
        let begun = Instant::now();
        loop {
            let passed = self.far_revocable.recv(&mut buffer).is_ok();
            assert!(!passed || admits(revision), "an older image than revision {revision} judges");
            if passed || !admits(revision) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "revision {revision} does not judge");
        }
    }
}
