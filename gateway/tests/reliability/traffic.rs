//! Numbered datagrams of a permitted, a revocable and a denied flow of each family, in rounds: a round is over when every
//! permitted datagram of it has come back.
//!
//! A sender stays on one processor. Datagrams of one processor go through a pair of veth devices in their order, so with the
//! last permitted one of a round, which is sent behind the others, every other one of the round has been judged too.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::thread::Scope;
use std::time::Duration;

use socket2::SockRef;

use crate::account::{DENIED, PERMITTED, REVOCABLE, SERVER, USER};
use crate::world::{World, socket};

/// Datagrams of each flow in a round: fewer than a queue between two devices holds.
const ROUND: u64 = 8;
/// How long nothing may come, so many times in a row, before what is missing counts as lost: a machine that stood still for a
/// while has lost nothing.
const LOST: Duration = Duration::from_secs(10);
const SILENCES: u32 = 2;
/// How long two rounds may take: longer than where something is lost in each, so that it is told what.
const ROUNDS: Duration = Duration::from_secs(180);

/// What senders and whoever changes the policy know of each other.
pub(crate) struct Shared {
    /// 0 while it is not certain which image judges; else a number that never comes twice, its last bit telling whether
    /// the revocable flow is admitted.
    window: AtomicU64,
    windows: AtomicU64,
    stop: AtomicBool,
    /// Rounds that each family's sender has finished.
    rounds: Mutex<[u64; 2]>,
    finished: Condvar,
}

/// What became of the datagrams of one family.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Permitted ones that were sent.
    pub(crate) sent: u64,
    /// Permitted ones that did not come back in time.
    pub(crate) lost: Vec<u64>,
    /// Revocable ones sent and judged while an image that admits them was in force.
    pub(crate) admitted: BTreeSet<u64>,
    /// Revocable ones sent and judged while an image that does not admit them was.
    pub(crate) revoked: BTreeSet<u64>,
    /// Revocable ones that the server got.
    pub(crate) passed: BTreeSet<u64>,
    /// Denied ones that the server got.
    pub(crate) leaked: Vec<u64>,
    /// Source ports that the server saw permitted ones come from.
    pub(crate) ports: BTreeSet<u16>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            window: AtomicU64::new(0),
            windows: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            rounds: Mutex::default(),
            finished: Condvar::new(),
        }
    }

    /// From now on an image is in force that admits the revocable flow or does not.
    pub(crate) fn open_window(&self, admits: bool) {
        let number = self.windows.fetch_add(1, SeqCst) + 1;
        self.window.store(number << 1 | u64::from(admits), SeqCst);
    }

    /// From now on it is not certain.
    pub(crate) fn close_window(&self) {
        self.window.store(0, SeqCst);
    }

    /// Waits until both senders have made a whole round from now on.
    pub(crate) fn wait_for_round(&self) {
        let rounds = self.rounds.lock().unwrap();
        let goal = rounds.map(|done| done + 2);
        let reached = |rounds: &mut [u64; 2]| rounds.iter().zip(goal).any(|(done, goal)| *done < goal);
        let (_rounds, late) = self.finished.wait_timeout_while(rounds, ROUNDS, reached).unwrap();
        assert!(!late.timed_out(), "a sender makes no rounds");
    }

    /// Stops the senders when it is dropped, also by a test that fails.
    pub(crate) fn stopper(&self) -> Stopper<'_> {
        Stopper(&self.stop)
    }
}

/// Sets what it holds when it is dropped.
pub(crate) struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Starts sender and receivers of both families; each sends until it is told to stop.
pub(crate) fn run<'scope>(
    scope: &'scope Scope<'scope, '_>,
    world: &World,
    shared: &'scope Shared,
) -> [std::thread::ScopedJoinHandle<'scope, Outcome>; 2] {
    [0, 1].map(|family| {
        let server: IpAddr = SERVER[family].parse().unwrap();
        let user: IpAddr = USER[family].parse().unwrap();
        let tick = Duration::from_millis(100);
        let [permitted, revocable, denied] = [PERMITTED, REVOCABLE, DENIED]
            .map(|port| socket(&world.server, SocketAddr::new(server, port), tick));
        let near = [PERMITTED, REVOCABLE, DENIED].map(|port| {
            let near = socket(&world.peer, SocketAddr::new(user, 0), LOST);
            let to = SocketAddr::new(server, port);
            world.peer.enter(|| near.connect(to)).unwrap().unwrap();
            near
        });
        scope.spawn(move || {
            let over = &AtomicBool::new(false);
            std::thread::scope(|inner| {
                let permitted = inner.spawn(move || receive(&permitted, over, true));
                let revocable = inner.spawn(move || receive(&revocable, over, false));
                let denied = inner.spawn(move || receive(&denied, over, false));
                let stopper = Stopper(over);
                let mut outcome = send(family, &near, shared);
                drop(stopper);
                (outcome.ports, _) = permitted.join().unwrap();
                outcome.passed = revocable.join().unwrap().1.into_iter().collect();
                outcome.leaked = denied.join().unwrap().1;
                outcome
            })
        })
    })
}

fn send(family: usize, [permitted, revocable, denied]: &[UdpSocket; 3], shared: &Shared) -> Outcome {
    stay_on_this_processor();
    let mut outcome = Outcome::default();
    let mut rounds = 0;
    while !shared.stop.load(SeqCst) {
        let before = shared.window.load(SeqCst);
        let numbers = outcome.sent..outcome.sent + ROUND;
        for number in numbers.clone() {
            // What is dropped on its way is told by nobody, so an error is the test's.
            denied.send(&number.to_be_bytes()).unwrap();
            revocable.send(&number.to_be_bytes()).unwrap();
        }
        for number in numbers.clone() {
            permitted.send(&number.to_be_bytes()).unwrap();
        }
        let missing = echoes(permitted, numbers.clone());
        let judged = missing.is_empty() && before != 0 && shared.window.load(SeqCst) == before;
        if judged {
            let set = if before & 1 == 1 { &mut outcome.admitted } else { &mut outcome.revoked };
            set.extend(numbers);
        }
        read_away(revocable);
        outcome.lost.extend(missing);
        outcome.sent += ROUND;
        rounds += 1;
        shared.rounds.lock().unwrap()[family] = rounds;
        shared.finished.notify_all();
    }
    outcome
}

/// Takes the answers that nobody looks at out of their buffer: over a long run they would use up what memory the kernel has for UDP,
/// and then it drops what comes for all others.
fn read_away(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    while socket.recv_with_flags(&mut [MaybeUninit::uninit(); 8], libc::MSG_DONTWAIT).is_ok() {}
}

/// Waits for the echoes of `numbers`; returns those that did not come.
fn echoes(socket: &UdpSocket, numbers: std::ops::Range<u64>) -> BTreeSet<u64> {
    let mut missing: BTreeSet<u64> = numbers.collect();
    let mut silences = 0;
    while !missing.is_empty() && silences < SILENCES {
        match number(socket) {
            Some((number, _)) => {
                missing.remove(&number);
            }
            None => silences += 1,
        }
    }
    missing
}

/// Receives until it is over and nothing more comes, and echoes what it gets where that is wanted; returns the ports it came
/// from, and the numbers unless they are echoed.
fn receive(socket: &UdpSocket, over: &AtomicBool, echo: bool) -> (BTreeSet<u16>, Vec<u64>) {
    let (mut ports, mut numbers) = (BTreeSet::new(), Vec::new());
    loop {
        let ends = over.load(SeqCst);
        match number(socket) {
            Some((number, from)) => {
                ports.insert(from.port());
                // Answered too, so that the flow is a confirmed one.
                socket.send_to(&number.to_be_bytes(), from).unwrap();
                if !echo {
                    numbers.push(number);
                }
            }
            None if ends => return (ports, numbers),
            None => {}
        }
    }
}

fn number(socket: &UdpSocket) -> Option<(u64, SocketAddr)> {
    let mut bytes = [0; 8];
    let came = loop {
        match socket.recv_from(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            came => break came,
        }
    };
    match came {
        Ok((8, from)) => Some((u64::from_be_bytes(bytes), from)),
        Ok((length, from)) => panic!("{length} bytes from {from}"),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("{error}"),
    }
}

fn stay_on_this_processor() {
    // SAFETY: plain old data for which zeros are valid, filled in by plain calls; the set lives through the last one.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().try_into().unwrap(), &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
