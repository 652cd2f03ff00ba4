//! A client's agent and two routers, their questions on a wire that loses what it is told to; control and the datapaths open what they are
//! told to.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::overlay::Heard;
use crate::resolver::{Routed as _, RoutedFailure};

const R: &str = "of *.example.org";
const A: &str = "a.example.org";
const CLIENT: u16 = 3;
const STRANGER: u16 = 4;

/// What is open, and how long control takes for it.
#[derive(Clone)]
struct Opens {
    after: Arc<AtomicU64>,
    /// So many of what control is told, in order.
    most: Arc<AtomicUsize>,
}

/// What a router tells control.
#[derive(Default)]
struct Sayings {
    /// So many of its next sayings control does not take.
    refused: AtomicUsize,
    count: AtomicUsize,
}

struct Router {
    script: Script,
    handle: Handle,
    opens: Opens,
    /// Whether what comes to it is lost.
    lost: Arc<AtomicBool>,
    /// What control was told last, and when something else than before.
    told: Arc<Mutex<(Learned, Instant)>>,
    sayings: Arc<Sayings>,
    destinations: Arc<Mutex<Vec<IpAddr>>>,
}

struct Client {
    handle: Handle,
    reaches: Opens,
}

struct Asking {
    routers: [Router; 2],
    client: Client,
    stranger: Client,
}

fn address(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd5c, 0, 0, 0, 0, 0, 0, n)
}

fn opens() -> Opens {
    Opens { after: Arc::default(), most: Arc::new(AtomicUsize::new(usize::MAX)) }
}

fn asked_by(names: &[&str]) -> Wanted {
    let wanted = wanted(names);
    let askers = Arc::new([address(CLIENT)].into());
    let askers = wanted.names.values().flatten().map(|resource| (resource.clone(), Arc::clone(&askers)));
    Wanted { askers: askers.collect(), ..wanted }
}

type Ends = (Arc<Questions>, mpsc::Receiver<Heard>);

/// One end of the wire: its questions, and what leaves it.
fn end(n: u16) -> (Ends, mpsc::Receiver<Vec<u8>>) {
    let (questions, heard) = Questions::new();
    let (out, leaves) = mpsc::channel(4096);
    questions.leave_by(out);
    questions.set_own(address(n));
    ((questions, heard), leaves)
}

/// Answers what is open: what `known` says, once it has been so for as long as it takes.
fn open(mut checks: mpsc::Receiver<Check>, opens: Opens, known: Arc<Mutex<(Learned, Instant)>>) {
    tokio::spawn(async move {
        let mut waiting: Vec<Check> = Vec::new();
        loop {
            tokio::select! {
                check = checks.recv() => match check {
                    Some(check) => waiting.push(check),
                    None => return,
                },
                () = tokio::time::sleep(Duration::from_millis(5)), if !waiting.is_empty() => {}
            }
            let (learned, since) = known.lock().unwrap().clone();
            if since.elapsed() < Duration::from_millis(opens.after.load(Ordering::Relaxed)) {
                continue;
            }
            let rows = learned.addresses.iter().take(opens.most.load(Ordering::Relaxed));
            let rows: BTreeSet<_> = rows.map(|row| (row.resource_id.clone(), text(&row.address))).collect();
            waiting.retain(|check| !check.is_over());
            for check in &waiting {
                let is_open = |a: &IpAddr| rows.contains(&(check.resource.clone(), a.to_string()));
                check.tell(check.addresses.iter().copied().filter(is_open).collect());
            }
        }
    });
}

impl Asking {
    fn new(names: &[&str]) -> Self {
        Self::before(names, Below::new())
    }

    fn before(names: &[&str], below: Below) -> Self {
        let (mut hubs, mut wires) = (BTreeMap::new(), Vec::new());
        let mut routers = Vec::new();
        for n in [1, 2] {
            let (ends, leaves) = end(n);
            let lost = Arc::<AtomicBool>::default();
            hubs.insert(address(n), (ends.0.clone(), lost.clone()));
            wires.push(leaves);
            let (script, outbox) = (Script::default(), Arc::<Outbox>::default());
            let below = if n == 1 { below.clone() } else { Below::new() };
            let before = Before { wanted: Some(asked_by(names)), below, ..Before::default() };
            let (handle, tasks) = start(script.clone(), before, ends, outbox.clone());
            tokio::spawn(tasks.watcher.run());
            tokio::spawn(tasks.answerer.run());
            handle.heed_askers(true);
            let told = Arc::new(Mutex::new((Learned::default(), Instant::now())));
            let hears = told.clone();
            let sayings = Arc::<Sayings>::default();
            let says = sayings.clone();
            tokio::spawn(async move {
                loop {
                    outbox.urgent().await;
                    let Some(learned) = outbox.take().learned else { continue };
                    says.count.fetch_add(1, Ordering::Relaxed);
                    let refused = says.refused.load(Ordering::Relaxed);
                    if refused > 0 {
                        says.refused.store(refused - 1, Ordering::Relaxed);
                        continue;
                    }
                    let mut told = hears.lock().unwrap();
                    if told.0 != learned {
                        *told = (learned, Instant::now());
                    }
                }
            });
            let opens = opens();
            open(tasks.checks, opens.clone(), told.clone());
            routers.push(Router { script, handle, opens, lost, told, sayings, destinations: Arc::default() });
        }
        let [first, second] = <[Router; 2]>::try_from(routers).unwrap_or_else(|_| panic!("two"));
        let mut client = |n: u16| {
            let (ends, leaves) = end(n);
            hubs.insert(address(n), (ends.0.clone(), Arc::default()));
            wires.push(leaves);
            let (handle, tasks) = start(Script::default(), Before::default(), ends, Arc::default());
            let reaches = opens();
            open(tasks.checks, reaches.clone(), first.told.clone());
            let both: BTreeSet<(u32, Ipv6Addr)> = [(100, address(1)), (200, address(2))].into();
            let of = names.iter().map(|name| (format!("of {name}"), both.clone()));
            let live = [address(1), address(2)].into();
            handle.ask_of(Routers { of: Arc::new(of.collect()), live });
            Client { handle, reaches }
        };
        let (client, stranger) = (client(CLIENT), client(STRANGER));
        for mut leaves in wires {
            let hubs = hubs.clone();
            tokio::spawn(async move {
                while let Some(packet) = leaves.recv().await {
                    let to = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap());
                    let (hub, lost) = &hubs[&to];
                    if !lost.load(Ordering::Relaxed) {
                        assert!(hub.consume(&packet));
                    }
                }
            });
        }
        Self { routers: [first, second], client, stranger }
    }

    fn answers(&self, name: &str, answers: Answers) {
        for router in &self.routers {
            router.script.0.lock().unwrap().answers.insert(name.into(), answers.clone());
        }
    }

    /// Lets seconds pass, in which the first router sees where flows go.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let destinations = self.routers[0].destinations.lock().unwrap().clone();
            self.routers[0].handle.flows(destinations.into_iter());
        }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<(ResponseCode, Vec<String>), RoutedFailure> {
        self.client.ask(R, name, kind).await
    }
}

impl Router {
    /// What control holds: names and addresses.
    fn known(&self) -> Vec<(String, String)> {
        let told = self.told.lock().unwrap();
        told.0.addresses.iter().map(|row| (row.name.clone(), text(&row.address))).collect()
    }

    fn looks(&self) -> usize {
        self.script.0.lock().unwrap().looks.len()
    }

    fn heard(&self, result: &str) -> u64 {
        count(&self.handle.asked()[1], result)
    }
}

impl Client {
    async fn ask(
        &self,
        resource: &str,
        name: &str,
        kind: RecordType,
    ) -> Result<(ResponseCode, Vec<String>), RoutedFailure> {
        let query = Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind);
        let answer = self.handle.asker().ask(resource, &query).await?;
        let addresses = answer.records.iter().map(|record| {
            assert!(record.ttl <= 300, "{record:?}");
            record.data.ip_addr().unwrap().to_string()
        });
        Ok((answer.code, addresses.collect()))
    }

    fn asking(&self, resource: &str, name: &str, kind: RecordType) -> JoinHandle<(bool, Duration)> {
        let (asker, resource) = (self.handle.asker(), resource.to_owned());
        let query = Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind);
        let begun = Instant::now();
        tokio::spawn(async move { (asker.ask(&resource, &query).await.is_ok(), begun.elapsed()) })
    }

    fn asked(&self, result: &str) -> u64 {
        count(&self.handle.asked()[0], result)
    }
}

fn count(counts: &[(&'static str, u64)], result: &str) -> u64 {
    counts.iter().find(|(name, _)| *name == result).unwrap().1
}

fn ok(addresses: &[&str]) -> Result<(ResponseCode, Vec<String>), RoutedFailure> {
    Ok((ResponseCode::NoError, addresses.iter().map(|a| (*a).to_owned()).collect()))
}

const WILD: &[&str] = &["*.example.org"];

#[tokio::test(start_paused = true)]
async fn a_name_below_a_wildcard_is_looked_up_told_control_at_once_and_answered_in_both_families() {
    let world = Asking::new(WILD);
    world.answers(A, [found(&["192.0.2.1", "192.0.2.2"], 60), found(&["2001:db8::1"], 60)]);
    world.pass(3).await;
    let begun = Instant::now();
    assert_eq!(world.ask("A.example.org", RecordType::A).await, ok(&["192.0.2.1", "192.0.2.2"]));
    assert_eq!(world.ask(A, RecordType::AAAA).await, ok(&["2001:db8::1"]));
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    assert_eq!(world.routers[0].looks(), 1, "one look gives both families");
    let known = world.routers[0].known();
    assert_eq!(known, ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|a| (A.to_owned(), a.to_owned())));
    assert_eq!((world.client.asked("answered"), world.routers[0].heard("answered")), (2, 2));
    assert_eq!(world.routers[1].looks(), 0, "the other router is not asked");
    let rows = world.routers[0].handle.rows();
    let row = rows.iter().find(|row| row.name == A).unwrap();
    assert!(row.addresses.len() == 3 && row.reason.as_ref().unwrap().contains("asked for"), "{row:?}");
    assert_eq!(world.routers[0].handle.degraded(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_exact_name_is_answered_with_what_is_known_of_it() {
    let world = Asking::new(&[DB]);
    world.answers(DB, [found(&["192.0.2.1"], 60), nothing()]);
    world.pass(3).await;
    let resource = format!("of {DB}");
    assert_eq!(world.client.ask(&resource, DB, RecordType::A).await, ok(&["192.0.2.1"]));
    assert_eq!(world.client.ask(&resource, DB, RecordType::AAAA).await, ok(&[]));
    assert_eq!(world.routers[0].looks(), 1);
    let below = world.client.ask(&resource, "x.db.example.org", RecordType::A).await;
    assert_eq!(below, Err(RoutedFailure::Refused));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_opens_nothing_and_is_not_kept() {
    let world = Asking::new(WILD);
    world.answers("empty.example.org", [nothing(), nothing()]);
    world.answers("broken.example.org", [failed(), failed()]);
    for kind in [RecordType::A, RecordType::AAAA] {
        assert_eq!(world.ask("absent.example.org", kind).await, Ok((ResponseCode::NXDomain, vec![])));
        assert_eq!(world.ask("empty.example.org", kind).await, ok(&[]));
        assert_eq!(world.ask("broken.example.org", kind).await, Err(RoutedFailure::Unresolved));
    }
    world.pass(3).await;
    assert_eq!(world.routers[0].known(), []);
    assert_eq!(world.routers[0].handle.rows().len(), 1, "the wildcard alone");
    assert_eq!((world.routers[0].heard("none"), world.routers[0].heard("failed")), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn of_other_types_a_name_has_none_and_nothing_is_looked_up_for_them() {
    let world = Asking::new(WILD);
    for kind in [RecordType::HTTPS, RecordType::MX, RecordType::CNAME, RecordType::ANY] {
        assert_eq!(world.ask(A, kind).await, ok(&[]), "{kind}");
    }
    assert_eq!(world.routers[0].looks(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_ask_and_what_is_not_below_the_wildcard_is_refused_unseen() {
    let world = Asking::new(WILD);
    world.answers(A, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    let refused = Err(RoutedFailure::Refused);
    for kind in [RecordType::A, RecordType::AAAA] {
        assert_eq!(world.stranger.ask(R, A, kind).await, refused);
        for name in ["example.org", "a.example.com", "badexample.org", "a.b-.example.org", "1"] {
            assert_eq!(world.ask(name, kind).await, refused, "{name}");
        }
        assert_eq!(world.client.ask("of nothing", A, kind).await, Err(RoutedFailure::NoRouter));
    }
    assert!(world.routers.iter().all(|router| router.looks() == 0));
    assert_eq!(world.routers[0].known(), []);
    // The first says so, and then the second.
    assert_eq!(world.routers.each_ref().map(|router| router.heard("refused")), [12, 12]);
}

#[tokio::test(start_paused = true)]
async fn while_what_control_said_does_not_hold_nobody_may_ask_and_then_they_may_again() {
    let world = Asking::new(WILD);
    world.answers(A, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    world.routers.iter().for_each(|router| router.handle.heed_askers(false));
    for kind in [RecordType::A, RecordType::AAAA] {
        assert_eq!(world.ask(A, kind).await, Err(RoutedFailure::Refused), "{kind}");
    }
    assert_eq!(world.routers.each_ref().map(Router::looks), [0, 0]);
    world.routers.iter().for_each(|router| router.handle.heed_askers(true));
    assert_eq!(world.ask(A, RecordType::A).await, ok(&["192.0.2.1"]));
    assert_eq!(world.ask(A, RecordType::AAAA).await, ok(&["2001:db8::1"]));
}

#[tokio::test(start_paused = true)]
async fn addresses_that_no_name_may_stand_for_are_left_out() {
    let world = Asking::new(WILD);
    world.answers(A, [found(&["127.0.0.1", "192.0.2.1", "100.90.0.9"], 60), found(&["fd5c::9", "::1"], 60)]);
    assert_eq!(world.ask(A, RecordType::A).await, ok(&["192.0.2.1"]));
    assert_eq!(world.ask(A, RecordType::AAAA).await, ok(&[]));
    assert_eq!(world.routers[0].known(), [(A.to_owned(), "192.0.2.1".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_held_until_its_addresses_are_open_at_both_ends_and_has_no_others() {
    let both = [found(&["192.0.2.1", "192.0.2.2"], 60), found(&["2001:db8::1"], 60)];
    for at_router in [true, false] {
        let world = Asking::new(WILD);
        world.answers(A, both.clone());
        world.pass(2).await;
        let opens = if at_router { &world.routers[0].opens } else { &world.client.reaches };
        opens.after.store(1500, Ordering::Relaxed);
        let (answered, took) = world.client.asking(R, A, RecordType::A).await.unwrap();
        assert!(answered && (1500..1600).contains(&took.as_millis()), "{answered} {took:?}");

        let world = Asking::new(WILD);
        world.answers(A, both.clone());
        world.pass(2).await;
        let opens = match at_router {
            true => world.routers.each_ref().map(|router| &router.opens),
            false => [&world.client.reaches; 2],
        };
        opens.iter().for_each(|opens| opens.most.store(1, Ordering::Relaxed));
        assert_eq!(world.ask(A, RecordType::A).await, ok(&["192.0.2.1"]));
        opens.iter().for_each(|opens| opens.most.store(0, Ordering::Relaxed));
        let failure = world.ask(A, RecordType::AAAA).await.unwrap_err();
        let late = world.routers.each_ref().map(|router| router.heard("late"));
        match at_router {
            true => assert_eq!((failure, late), (RoutedFailure::Unresolved, [1, 1])),
            false => assert_eq!((failure, world.client.asked("late")), (RoutedFailure::NoAnswer, 1)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_control_did_not_take_in_is_said_again() {
    let world = Asking::new(WILD);
    world.answers(A, [found(&["192.0.2.1"], 60), nothing()]);
    world.pass(2).await;
    world.routers[0].opens.most.store(0, Ordering::Relaxed);
    world.routers[1].opens.most.store(0, Ordering::Relaxed);
    assert_eq!(world.ask(A, RecordType::A).await, Err(RoutedFailure::Unresolved));
    world.routers[0].told.lock().unwrap().0 = Learned::default();
    world.pass(2).await;
    assert_eq!(world.routers[0].known(), [], "nobody asks");
    assert_eq!(world.ask(A, RecordType::A).await, Err(RoutedFailure::Unresolved));
    world.pass(2).await;
    assert_eq!(world.routers[0].known().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_an_answer_waits_control_that_took_only_a_later_word_is_told_again() {
    for (refused, took_ms) in [(0, 0..100), (1, 400..520), (6, 2400..2620)] {
        for (kind, addresses) in [(RecordType::A, "192.0.2.1"), (RecordType::AAAA, "2001:db8::1")] {
            let world = Asking::new(WILD);
            world.answers(A, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
            world.pass(3).await;
            let sayings = &world.routers[0].sayings;
            sayings.refused.store(refused, Ordering::Relaxed);
            let before = sayings.count.load(Ordering::Relaxed);
            let begun = Instant::now();
            assert_eq!(world.ask(A, kind).await, ok(&[addresses]), "{refused}");
            let took = begun.elapsed().as_millis();
            assert!(took_ms.contains(&took), "{refused} {took} ms");
            world.pass(2).await;
            assert_eq!(sayings.count.load(Ordering::Relaxed) - before, refused + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_that_takes_long_is_waited_for_and_equal_questions_are_one() {
    let world = Asking::new(WILD);
    world.answers(A, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    world.routers[0].script.0.lock().unwrap().takes = Duration::from_secs(4);
    let asked: Vec<_> = (0..10).map(|_| world.client.asking(R, A, RecordType::A)).collect();
    for asked in asked {
        let (answered, took) = asked.await.unwrap();
        assert!(answered && took.as_secs() == 4, "{answered} {took:?}");
    }
    assert_eq!(world.routers.each_ref().map(Router::looks), [1, 0]);
    assert_eq!(world.routers[0].heard("answered"), 1);
}

#[tokio::test(start_paused = true)]
async fn of_several_routers_the_next_is_asked_where_one_is_silent_or_known_to_be() {
    let world = Asking::new(WILD);
    world.answers(A, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    world.pass(2).await;
    // What the second opens is open for the client, too.
    assert_eq!(world.ask(A, RecordType::A).await, ok(&["192.0.2.1"]));
    world.routers[0].lost.store(true, Ordering::Relaxed);
    let (answered, took) = world.client.asking(R, A, RecordType::A).await.unwrap();
    assert!(answered && took.as_secs() == 3, "{took:?}");
    assert_eq!(world.routers[1].known().len(), 2, "it has opened them itself");
    let of = Arc::new([(R.to_owned(), [(100, address(1)), (200, address(2))].into())].into());
    world.client.handle.ask_of(Routers { of, live: [address(2)].into() });
    let (answered, took) = world.client.asking(R, A, RecordType::A).await.unwrap();
    assert!(answered && took.as_millis() < 100, "{took:?}");
    // Nobody is there.
    world.routers[1].lost.store(true, Ordering::Relaxed);
    assert_eq!(world.ask(A, RecordType::A).await, Err(RoutedFailure::NoAnswer));
    assert_eq!(world.client.asked("silent"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_watched_while_it_is_asked_for_and_let_go_when_neither_that_nor_a_flow_is_left() {
    let world = Asking::new(WILD);
    world.answers(A, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    assert_eq!(world.ask(A, RecordType::A).await, ok(&["192.0.2.1"]));
    world.pass(400).await;
    // It is followed meanwhile.
    world.answers(A, [found(&["192.0.2.9"], 60), found(&["2001:db8::1"], 60)]);
    world.pass(130).await;
    let addresses = || world.routers[0].known().into_iter().map(|(_, address)| address).collect::<Vec<_>>();
    assert_eq!(addresses(), ["192.0.2.9", "2001:db8::1"]);
    assert_eq!(world.ask(A, RecordType::A).await, ok(&["192.0.2.9"]));
    world.pass(580).await;
    assert_eq!(addresses().len(), 2);
    *world.routers[0].destinations.lock().unwrap() = vec!["2001:db8::1".parse().unwrap()];
    world.pass(60).await;
    assert_eq!(addresses(), ["2001:db8::1"]);
    let looks = world.routers[0].looks();
    world.pass(3600).await;
    assert_eq!((addresses().len(), world.routers[0].looks()), (1, looks), "it is looked up no more");
    world.routers[0].destinations.lock().unwrap().clear();
    world.pass(3).await;
    assert_eq!(addresses(), [""; 0]);
    assert_eq!(world.routers[0].handle.rows().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn names_below_a_wildcard_are_bounded_and_those_asked_for_longest_ago_go_first() {
    let world = Asking::new(WILD);
    for n in 0..300 {
        let (v4, v6) = (format!("192.0.{}.{}", n / 200, n % 200), format!("2001:db8::{n:x}"));
        let name = format!("n{n:03}.example.org");
        world.answers(&name, [found(&[&v4], 600), found(&[&v6], 600)]);
        assert_eq!(world.ask(&name, RecordType::A).await, ok(&[&v4]), "{name}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let known = world.routers[0].known();
    assert_eq!(known.len(), 2 * 256);
    assert_eq!((&*known[0].0, &*known.last().unwrap().0), ("n044.example.org", "n299.example.org"));
}

#[tokio::test(start_paused = true)]
async fn names_to_which_flows_go_make_no_room_and_neither_does_any_for_what_is_not_there() {
    let world = Asking::new(WILD);
    world.routers[1].lost.store(true, Ordering::Relaxed);
    let name = |n: usize| format!("n{n:03}.example.org");
    let addresses = |n: usize| (format!("192.0.{}.{}", n / 200, n % 200), format!("2001:db8::1:{n:x}"));
    for n in 0..259 {
        let (v4, v6) = addresses(n);
        world.answers(&name(n), [found(&[&v4], 600), found(&[&v6], 600)]);
    }
    for n in 0..256 {
        assert_eq!(world.ask(&name(n), RecordType::AAAA).await, ok(&[&addresses(n).1]));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let known = || world.routers[0].known().into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    let flows = |numbers: &[usize]| {
        let to = |n: &usize| [addresses(*n).0, addresses(*n).1][n % 2].parse().unwrap();
        *world.routers[0].destinations.lock().unwrap() = numbers.iter().map(to).collect();
    };
    assert_eq!(world.ask("absent.example.org", RecordType::A).await, Ok((ResponseCode::NXDomain, vec![])));
    assert_eq!(known().len(), 256, "what is not there needs no room");
    // The first two, by either family, are in use: the third goes.
    flows(&[0, 1]);
    world.pass(2).await;
    assert_eq!(world.ask(&name(256), RecordType::A).await, ok(&[&addresses(256).0]));
    assert_eq!(known(), (0..257).filter(|n| *n != 2).map(name).collect());
    let all: Vec<usize> = (0..257).filter(|n| *n != 2).collect();
    flows(&all);
    world.pass(2).await;
    for kind in [RecordType::A, RecordType::AAAA] {
        assert!(world.ask(&name(257), kind).await.is_err(), "{kind}");
    }
    assert_eq!(world.routers[0].heard("failed"), 2);
    assert_eq!(known(), all.iter().copied().map(name).collect());
    // One that is known is looked up on.
    assert_eq!(world.ask(&name(0), RecordType::A).await, ok(&[&addresses(0).0]));
    flows(&[]);
    world.pass(15).await;
    assert_eq!(world.ask(&name(257), RecordType::A).await, ok(&[&addresses(257).0]));
    assert!(!known().contains(&name(1)) && known().contains(&name(0)), "asked for the longest ago");
}

#[tokio::test(start_paused = true)]
async fn addresses_below_a_wildcard_are_no_more_than_control_takes_of_a_resource() {
    let world = Asking::new(WILD);
    for n in 0..20 {
        let v4: Vec<String> = (0..50).map(|a| format!("192.0.{n}.{a}")).collect();
        let v6: Vec<String> = (0..50).map(|a| format!("2001:db8:{n:x}::{a:x}")).collect();
        let all = |list: &[String]| found(&list.iter().map(String::as_str).collect::<Vec<_>>(), 600);
        let name = format!("n{n:02}.example.org");
        world.answers(&name, [all(&v4), all(&v6)]);
        let (code, addresses) = world.ask(&name, RecordType::A).await.unwrap();
        assert_eq!((code, addresses.len()), (ResponseCode::NoError, 32), "{name}");
    }
    world.pass(2).await;
    let known = world.routers[0].known();
    assert_eq!(known.len(), 1024);
    assert_eq!(known[0].0, "n04.example.org");
}

#[tokio::test(start_paused = true)]
async fn who_asks_too_much_is_not_heard_for_a_while_and_nothing_more_is_opened_for_it() {
    let world = Asking::new(WILD);
    let mut asked = Vec::new();
    for n in 0..200 {
        asked.push(world.client.asking(R, &format!("n{n}.example.org"), RecordType::A));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (heard, limited) = (world.routers[0].heard("none"), world.routers[0].heard("limited"));
    assert!((110..=130).contains(&heard) && limited >= 70, "{heard} {limited}");
    for asked in asked {
        asked.await.unwrap();
    }
    world.pass(10).await;
    assert_eq!(world.ask("n0.example.org", RecordType::A).await, Ok((ResponseCode::NXDomain, vec![])));
}

#[tokio::test(start_paused = true)]
async fn of_one_asker_no_more_than_sixteen_questions_are_worked_on_at_once() {
    let world = Asking::new(WILD);
    for router in &world.routers {
        router.script.0.lock().unwrap().takes = Duration::from_millis(900);
    }
    let asked: Vec<_> =
        (0..28).map(|n| world.client.asking(R, &format!("n{n}.example.org"), RecordType::A)).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((world.routers[0].heard("limited"), world.routers[0].looks()), (12, 16));
    for asked in asked {
        assert!(asked.await.unwrap().0, "it is asked again");
    }
    assert_eq!(world.routers[0].script.0.lock().unwrap().most_under_way, 16);
}

#[tokio::test(start_paused = true)]
async fn names_that_take_one_asker_long_leave_room_for_another_and_are_given_up_after_five_seconds() {
    for kind in [RecordType::A, RecordType::AAAA] {
        let world = Asking::new(WILD);
        world.answers(A, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
        for router in &world.routers {
            let both = Arc::new([address(CLIENT), address(STRANGER)].into());
            router.handle.want(Wanted { askers: [(R.to_owned(), both)].into(), ..wanted(WILD) });
            router.script.0.lock().unwrap().takes = Duration::from_secs(15);
        }
        world.pass(2).await;
        let slow: Vec<_> =
            (0..40).map(|n| world.client.asking(R, &format!("n{n}.example.org"), kind)).collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.routers[0].script.0.lock().unwrap().takes = Duration::from_millis(50);
        let (answered, took) = world.stranger.asking(R, A, kind).await.unwrap();
        assert!(answered && took.as_millis() < 200, "{answered} {took:?}");
        tokio::time::sleep(Duration::from_millis(4300)).await;
        assert_eq!(world.routers[0].heard("failed"), 0);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(world.routers[0].heard("failed"), 16);
        for slow in slow {
            slow.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_before_a_restart_is_held_and_what_nobody_wants_any_more_is_not() {
    let addresses = || ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
    let below: Below = [
        (A.to_owned(), ([R.to_owned()].into(), addresses().into())),
        ("a.elsewhere.example".to_owned(), ([R.to_owned()].into(), addresses().into())),
    ]
    .into();
    let world = Asking::before(WILD, below);
    world.answers(A, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    assert_eq!(world.routers[0].handle.below().len(), 1);
    world.pass(2).await;
    let known = world.routers[0].known();
    assert_eq!(known, ["192.0.2.1", "2001:db8::1"].map(|address| (A.to_owned(), address.to_owned())));
    // The resource has another name now.
    world.routers[0].handle.want(asked_by(&["*.example.com"]));
    world.pass(2).await;
    assert_eq!(world.routers[0].known(), []);
    assert_eq!(world.routers[0].handle.below(), Below::new());
}

#[tokio::test(start_paused = true)]
async fn control_is_told_of_what_is_known_while_names_just_asked_for_are_still_looked_up() {
    let world = Asking::new(&["*.example.org", DB]);
    world.answers(DB, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    let takes = |takes| world.routers[0].script.0.lock().unwrap().takes = Duration::from_secs(takes);
    takes(2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    takes(4);
    let asked = [RecordType::A, RecordType::AAAA].map(|kind| world.client.asking(R, A, kind));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let known = world.routers[0].known();
    assert_eq!(known, ["192.0.2.1", "2001:db8::1"].map(|address| (DB.to_owned(), address.to_owned())));
    assert!(asked.iter().all(|asked| !asked.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn while_no_server_answers_what_is_known_is_the_answer() {
    let world = Asking::new(WILD);
    world.answers(A, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    assert_eq!(world.ask(A, RecordType::A).await, ok(&["192.0.2.1"]));
    world.answers(A, [failed(), failed()]);
    world.pass(300).await;
    assert_eq!(world.ask(A, RecordType::A).await, ok(&["192.0.2.1"]));
    assert_eq!(world.ask(A, RecordType::AAAA).await, ok(&["2001:db8::1"]));
    assert_eq!(world.routers[1].looks(), 0);
    let row = |row: &Row| row.name == A && row.reason.as_ref().unwrap().contains("cannot be looked up");
    assert!(world.routers[0].handle.rows().iter().any(row));
    assert_eq!(world.routers[0].handle.degraded(), [""; 0], "who asks is no trouble of this machine's");
}

#[tokio::test(start_paused = true)]
async fn a_name_of_one_resource_below_the_wildcard_of_another_is_opened_for_the_other_when_it_is_asked_for() {
    let world = Asking::new(&["*.example.org", DB]);
    world.answers(DB, [found(&["192.0.2.1"], 600), found(&["2001:db8::1"], 600)]);
    world.pass(3).await;
    let resources = || {
        let told = world.routers[0].told.lock().unwrap();
        told.0.addresses.iter().map(|row| row.resource_id.clone()).collect::<BTreeSet<_>>()
    };
    let exact = format!("of {DB}");
    assert_eq!(resources(), [exact.clone()].into());
    assert_eq!(world.ask(DB, RecordType::AAAA).await, ok(&["2001:db8::1"]));
    assert_eq!(resources(), [exact, R.to_owned()].into());
    assert_eq!(world.routers[0].looks(), 1);
    // The first is there no more, and what was asked for stays.
    world.routers[0].handle.want(asked_by(WILD));
    world.pass(2).await;
    assert_eq!(resources(), [R.to_owned()].into());
}
