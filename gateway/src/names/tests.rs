mod asking;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate_api::agent::Learned;

use super::*;
use crate::control::Outbox;
use crate::overlay::Questions;

/// Answers as the test wants, and remembers who asked.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Scripted>>);

#[derive(Default)]
struct Scripted {
    answers: BTreeMap<String, Answers>,
    looks: Vec<(String, Instant)>,
    /// How long an answer takes.
    takes: Duration,
    under_way: usize,
    most_under_way: usize,
    renewed: bool,
    breaks: bool,
}

impl Resolve for Script {
    async fn look(&self, name: &str) -> Answers {
        let takes = {
            let mut script = self.0.lock().unwrap();
            script.looks.push((name.to_owned(), Instant::now()));
            script.under_way += 1;
            script.most_under_way = script.most_under_way.max(script.under_way);
            script.takes
        };
        tokio::time::sleep(takes).await;
        let answers = {
            let mut script = self.0.lock().unwrap();
            script.under_way -= 1;
            (!script.breaks).then(|| script.answers.get(name).cloned())
        };
        answers.expect("the script breaks").unwrap_or([gone(), gone()])
    }

    async fn renewed(&self) -> bool {
        std::mem::take(&mut self.0.lock().unwrap().renewed)
    }
}

struct World {
    script: Script,
    handle: Handle,
    outbox: Arc<Outbox>,
    /// What control knows.
    known: Option<Learned>,
    /// How often it was told something else.
    told: usize,
    /// How often it was told.
    reports: usize,
}

const DB: &str = "db.example.org";

fn found(addresses: &[&str], ttl: u64) -> Answer {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Answer::Addresses { addresses, ttl: Duration::from_secs(ttl) }
}

fn nothing() -> Answer {
    Answer::Nothing { ttl: Some(Duration::from_secs(60)), exists: true }
}

fn gone() -> Answer {
    Answer::Nothing { ttl: Some(Duration::from_secs(60)), exists: false }
}

fn failed() -> Answer {
    Answer::Failed("192.0.2.53:53: it answers Server Failure".into())
}

fn wanted(names: &[&str]) -> Wanted {
    let resources = |name: &str| BTreeSet::from([format!("of {name}")]);
    Wanted {
        names: names.iter().map(|name| ((*name).to_owned(), resources(name))).collect(),
        overlay: vec!["100.90.0.0/16".parse().unwrap(), "fd5c::/64".parse().unwrap()],
        ..Wanted::default()
    }
}

impl World {
    fn new(wanted: Option<Wanted>, stood_for: &[(&str, &[&str])]) -> Self {
        let addresses = |list: &[&str]| list.iter().map(|address| address.parse().unwrap()).collect();
        let stood_for =
            stood_for.iter().map(|(name, list)| (format!("of {name}"), addresses(list))).collect();
        let (script, outbox) = (Script::default(), Arc::<Outbox>::default());
        let before = Before { wanted, stood_for, ..Before::default() };
        let (handle, tasks) = start(script.clone(), before, Questions::new(), outbox.clone());
        tokio::spawn(tasks.watcher.run());
        Self { script, handle, outbox, known: None, told: 0, reports: 0 }
    }

    /// One that wants [`DB`], which stands for this from now on.
    fn of(answers: Answers) -> Self {
        let world = Self::new(Some(wanted(&[DB])), &[]);
        world.answers(DB, answers);
        world
    }

    fn answers(&self, name: &str, answers: Answers) {
        self.script.0.lock().unwrap().answers.insert(name.into(), answers);
    }

    fn looks(&self) -> Vec<(String, Instant)> {
        self.script.0.lock().unwrap().looks.clone()
    }

    /// Lets seconds pass, in which flows go to `destinations`; what control knows then.
    async fn pass(&mut self, seconds: u64, destinations: &[&str]) -> Vec<String> {
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.handle.flows(destinations.iter().map(|address| address.parse().unwrap()));
            if let Some(learned) = self.outbox.take().learned {
                self.told += usize::from(self.known.as_ref() != Some(&learned));
                self.known = Some(learned);
                self.reports += 1;
            }
        }
        self.known
            .iter()
            .flat_map(|learned| &learned.addresses)
            .map(|learned| text(&learned.address))
            .collect()
    }
}

fn text(octets: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
    let address = v4.or_else(|_| <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).into()));
    address.unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn both_families_are_told_once_and_looked_up_again_when_the_shorter_ttl_is_over() {
    let mut world = World::of([found(&["192.0.2.1"], 300), found(&["2001:db8::1"], 100)]);
    assert_eq!(world.pass(1, &[]).await, ["192.0.2.1", "2001:db8::1"]);
    let learned = world.known.clone().unwrap();
    assert!(learned.addresses.iter().all(|a| (&*a.resource_id, &*a.name) == ("of db.example.org", DB)));
    world.pass(1000, &[]).await;
    assert_eq!(world.told, 1, "nothing was different");
    assert!((16..=17).contains(&world.reports), "{} reports in 1,001 seconds", world.reports);
    let looks = world.looks();
    assert!((10..=12).contains(&looks.len()), "{}", looks.len());
    for pair in looks.windows(2) {
        let apart = pair[1].1 - pair[0].1;
        assert!(apart >= Duration::from_secs(90) && apart <= Duration::from_secs(101), "{apart:?}");
    }
    assert_eq!(world.handle.lookups(), Lookups { found: looks.len() as u64, nothing: 0, failed: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_ttl_is_neither_shorter_than_five_seconds_nor_longer_than_an_hour() {
    for (ttl, seconds, looks) in [(0, 100, 16..=21), (7 * 86_400, 3200, 1..=1), (7 * 86_400, 7210, 3..=3)] {
        let mut world = World::of([found(&["192.0.2.1"], ttl), found(&["2001:db8::1"], ttl)]);
        world.pass(seconds, &[]).await;
        let count = world.looks().len();
        assert!(looks.contains(&count), "TTL {ttl}: {count} looks in {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_that_rotate_are_all_there_and_do_not_flap() {
    let mut world = World::of([found(&["192.0.2.0"], 5), found(&["2001:db8::0"], 5)]);
    for turn in 0..40 {
        let (v4, v6) = (format!("192.0.2.{}", turn % 4), format!("2001:db8::{}", turn % 4));
        world.answers(DB, [found(&[&v4], 5), found(&[&v6], 5)]);
        world.pass(5, &[]).await;
    }
    assert_eq!(world.pass(1, &[]).await.len(), 8, "{:?}", world.known);
    assert!(world.told <= 8, "told {} times", world.told);
    // Those that come no more go a minute after they came last.
    world.answers(DB, [found(&["192.0.2.9"], 5), found(&["2001:db8::9"], 5)]);
    assert_eq!(world.pass(40, &[]).await.len(), 10);
    assert_eq!(world.pass(30, &[]).await, ["192.0.2.9", "2001:db8::9"]);
}

#[tokio::test(start_paused = true)]
async fn a_flow_keeps_its_address_for_a_day_and_no_longer() {
    let mut world = World::of([found(&["192.0.2.1", "192.0.2.2"], 30), found(&["2001:db8::1"], 30)]);
    world.pass(2, &[]).await;
    world.answers(DB, [found(&["192.0.2.9"], 30), found(&["2001:db8::9"], 30)]);
    let flows = ["198.51.100.1", "192.0.2.1", "2001:db8::1"];
    let kept = ["192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::9"];
    assert_eq!(world.pass(100, &flows).await, kept);
    assert_eq!(world.pass(3600, &flows).await, kept);
    // One of them ends.
    assert_eq!(world.pass(3, &flows[2..]).await, ["192.0.2.9", "2001:db8::1", "2001:db8::9"]);
    assert_eq!(world.pass(82_000, &flows[2..]).await.len(), 3);
    assert_eq!(world.pass(2000, &flows[2..]).await, ["192.0.2.9", "2001:db8::9"]);
}

#[tokio::test(start_paused = true)]
async fn an_address_in_question_stays_until_somebody_knows_of_flows() {
    let mut world = World::of([found(&["192.0.2.1"], 30), found(&["2001:db8::1"], 30)]);
    world.pass(2, &[]).await;
    world.answers(DB, [gone(), gone()]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.handle.rows()[0].addresses.len(), 2, "nobody was there to say");
    assert_eq!(world.pass(3, &[]).await, [""; 0]);
    assert_eq!(world.known, Some(Learned::default()));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_no_more_lets_go_as_one_whose_addresses_change() {
    for answers in [[gone(), gone()], [nothing(), nothing()]] {
        let mut world = World::of([found(&["192.0.2.1"], 30), found(&["2001:db8::1"], 30)]);
        world.pass(2, &[]).await;
        assert_eq!(world.handle.degraded(), [""; 0]);
        world.answers(DB, answers);
        assert_eq!(world.pass(50, &[]).await.len(), 2);
        let [sentence] = &world.handle.degraded()[..] else { panic!("{:?}", world.handle.degraded()) };
        assert!(sentence.starts_with("db.example.org stands for no address since 20"), "{sentence}");
        assert_eq!(world.pass(40, &["192.0.2.1"]).await, ["192.0.2.1"]);
        assert_eq!(world.pass(3, &[]).await, [""; 0]);
        assert_eq!(world.known, Some(Learned::default()));
        assert!(world.handle.lookups().nothing > 0);
        world.answers(DB, [found(&["192.0.2.1"], 30), nothing()]);
        assert_eq!(world.pass(61, &[]).await, ["192.0.2.1"]);
        assert_eq!(world.handle.degraded(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_say_what_is_known_stays_for_an_hour() {
    let mut world = World::of([found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    world.pass(2, &[]).await;
    world.answers(DB, [failed(), failed()]);
    assert_eq!(world.pass(3500, &["2001:db8::1"]).await, ["192.0.2.1", "2001:db8::1"]);
    let [sentence] = &world.handle.degraded()[..] else { panic!("{:?}", world.handle.degraded()) };
    for said in ["db.example.org cannot be looked up since 20", "192.0.2.53:53", "Failure", "[names] servers"]
    {
        assert!(sentence.contains(said), "{said}: {sentence}");
    }
    assert_eq!(world.handle.rows()[0].reason.as_ref(), Some(sentence));
    // Then only what flows go to.
    assert_eq!(world.pass(110, &["2001:db8::1"]).await, ["2001:db8::1"]);
    let looks = world.looks();
    let apart: Vec<u64> = looks.windows(2).skip(1).map(|pair| (pair[1].1 - pair[0].1).as_secs()).collect();
    assert!((5..=6).contains(&apart[0]) && (9..=11).contains(&apart[1]), "{apart:?}");
    assert!(apart[5..].iter().all(|seconds| (54..=61).contains(seconds)), "{apart:?}");
    assert_eq!(world.handle.lookups().failed, looks.len() as u64 - 1);
    world.answers(DB, [found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    assert_eq!(world.pass(62, &[]).await, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(world.handle.degraded(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn one_family_that_fails_does_not_keep_the_other_from_changing() {
    for v6_fails in [true, false] {
        let of = |good: Answer, bad: Answer| if v6_fails { [good, bad] } else { [bad, good] };
        let (good, new, bad) = match v6_fails {
            true => ("192.0.2.1", "192.0.2.2", "2001:db8::1"),
            false => ("2001:db8::1", "2001:db8::2", "192.0.2.1"),
        };
        let mut world = World::of(of(found(&[good], 60), found(&[bad], 60)));
        world.pass(2, &[]).await;
        world.answers(DB, of(found(&[new], 60), failed()));
        let mut expected = [new, bad];
        expected.sort_unstable();
        assert_eq!(world.pass(200, &[]).await, expected);
        let family = if v6_fails { "AAAA of db.example.org" } else { "A of db.example.org" };
        assert!(world.handle.degraded()[0].starts_with(family), "{:?}", world.handle.degraded());
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_of_no_other_machine_are_not_told_but_said() {
    let mut world = World::of([
        found(&["192.0.2.1", "127.0.0.1", "169.254.169.254", "100.90.0.7", "255.255.255.255"], 60),
        found(&["::ffff:192.0.2.2", "::ffff:127.0.0.2", "2001:db8::1", "fe80::1", "fd5c::7"], 60),
    ]);
    assert_eq!(world.pass(1, &[]).await, ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    let [sentence] = &world.handle.degraded()[..] else { panic!("{:?}", world.handle.degraded()) };
    for said in [DB, "100.90.0.7 (in the overlay)", "127.0.0.1 (loopback)", "and 3 more"] {
        assert!(sentence.contains(said), "{said}: {sentence}");
    }
    world.answers(DB, [found(&["192.0.2.1"], 60), nothing()]);
    world.pass(130, &[]).await;
    assert_eq!(world.handle.degraded(), [""; 0]);
    // The overlay moves to where the name is.
    let overlay = vec!["192.0.2.0/24".parse().unwrap(), "fd5c::/64".parse().unwrap()];
    world.handle.want(Wanted { overlay, ..wanted(&[DB]) });
    assert_eq!(world.pass(2, &[]).await, [""; 0]);
    assert!(world.handle.degraded()[0].contains("192.0.2.1 (in the overlay)"));
}

#[tokio::test(start_paused = true)]
async fn of_too_many_addresses_the_first_of_both_families_are_told() {
    let v4: Vec<String> = (1..=80).map(|n| format!("192.0.2.{n}")).collect();
    let v6: Vec<String> = (1..=80).map(|n| format!("2001:db8::{n:x}")).collect();
    let all = |list: &[String]| found(&list.iter().map(String::as_str).collect::<Vec<_>>(), 60);
    let mut world = World::of([all(&v4), all(&v6)]);
    assert_eq!(world.pass(1, &[]).await, [&v4[..32], &v6[..32]].concat());
    assert!(world.handle.degraded()[0].contains("more than 64 addresses"), "{:?}", world.handle.degraded());
    world.answers(DB, [all(&v4), nothing()]);
    assert_eq!(world.pass(130, &[]).await, v4[..64]);
}

#[tokio::test(start_paused = true)]
async fn of_more_addresses_than_control_takes_those_of_the_first_names_are_told() {
    let v4: Vec<String> = (1..=32).map(|n| format!("192.0.2.{n}")).collect();
    let v6: Vec<String> = (1..=32).map(|n| format!("2001:db8::{n:x}")).collect();
    let all = |list: &[String]| found(&list.iter().map(String::as_str).collect::<Vec<_>>(), 600);
    let long = format!("{0}.{0}.{0}", "x".repeat(63));
    // By their number, and by their length: 2 MiB of rows with two texts of that length.
    let most_of_long = (2 << 20) / (2 * (4 + long.len()) + 3 + 32);
    for (below, most) in [("example", 16_384), (long.as_str(), most_of_long)] {
        let names: Vec<String> = (0..257).map(|n| format!("{n:03}.{below}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut world = World::new(Some(wanted(&names)), &[]);
        names.iter().for_each(|name| world.answers(name, [all(&v4), all(&v6)]));
        let expected: Vec<&String> =
            std::iter::repeat_n([&v4, &v6], 257).flatten().flatten().take(most).collect();
        assert_eq!(world.pass(5, &[]).await.iter().collect::<Vec<_>>(), expected);
        let told = world.known.unwrap().addresses;
        assert!(told.iter().zip(0..).all(|(row, i)| row.name == names[i / 64]));
        let [sentence] = &world.handle.degraded()[..] else { panic!("{:?}", world.handle.degraded()) };
        let left = 257 * 64 - most;
        for said in ["names stand for 16448 addresses", &format!("the last {left} ")] {
            assert!(sentence.contains(said), "{said}: {sentence}");
        }
        // Room for all of it makes it right again.
        world.handle.want(wanted(&names[..64]));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.handle.degraded(), [""; 0]);
        assert_eq!(world.outbox.take().learned.unwrap().addresses.len(), 64 * 64);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_the_first_look_at_every_name_is_over() {
    let mut world = World::new(Some(wanted(&["a.example", "b.example"])), &[]);
    world.answers("a.example", [found(&["192.0.2.1"], 60), nothing()]);
    world.answers("b.example", [failed(), failed()]);
    world.script.0.lock().unwrap().takes = Duration::from_secs(8);
    world.handle.stream_opened();
    world.pass(7, &[]).await;
    assert_eq!(world.known, None);
    assert_eq!(world.handle.rows()[1].reason.as_deref(), Some("not looked up yet"));
    assert_eq!(world.pass(2, &[]).await, ["192.0.2.1"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_it_is_known_what_is_wanted() {
    let mut world = World::new(None, &[]);
    world.handle.stream_opened();
    world.pass(60, &[]).await;
    assert_eq!(world.known, None);
    world.answers(DB, [found(&["192.0.2.1"], 60), nothing()]);
    world.handle.want(wanted(&[DB]));
    assert_eq!(world.pass(2, &[]).await, ["192.0.2.1"]);
}

#[tokio::test(start_paused = true)]
async fn it_is_told_again_when_a_stream_has_opened_and_that_nothing_is_wanted_any_more() {
    let mut world = World::of([found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60)]);
    world.pass(10, &[]).await;
    assert_eq!(world.told, 1);
    world.known = None;
    world.handle.stream_opened();
    assert_eq!(world.pass(2, &[]).await.len(), 2);
    world.handle.want(wanted(&[]));
    world.pass(2, &[]).await;
    assert_eq!((world.known.take(), world.told), (Some(Learned::default()), 3));
    world.pass(100, &[]).await;
    assert_eq!((&world.known, world.told), (&None, 3));
    world.handle.stream_opened();
    world.pass(2, &[]).await;
    assert_eq!((&world.known, world.told), (&Some(Learned::default()), 4));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_32_names_are_looked_up_at_once() {
    let names: Vec<String> = (0..100).map(|n| format!("n{n}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(Some(wanted(&names)), &[]);
    world.script.0.lock().unwrap().takes = Duration::from_secs(2);
    world.pass(10, &[]).await;
    let (most, looks) = {
        let script = world.script.0.lock().unwrap();
        (script.most_under_way, script.looks.len())
    };
    assert_eq!((most, looks), (32, 100));
    let said = world.handle.degraded();
    assert_eq!(said.len(), 17);
    assert!(said[16].starts_with("84 more conditions"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_is_not_looked_up_and_says_so() {
    let mut world = World::new(Some(wanted(&["*.example.org", DB])), &[]);
    world.answers(DB, [found(&["192.0.2.1"], 60), nothing()]);
    assert_eq!(world.pass(5, &[]).await, ["192.0.2.1"]);
    assert!(world.looks().iter().all(|(name, _)| name == DB));
    let rows = world.handle.rows();
    let wildcard = rows.iter().find(|row| row.name == "*.example.org").unwrap();
    assert!(wildcard.addresses.is_empty() && wildcard.reason.as_ref().unwrap().contains("wildcard"));
    assert_eq!(world.handle.degraded(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_knew_is_held_until_its_name_says_otherwise_and_no_flow_goes_there() {
    let before: &[(&str, &[&str])] =
        &[(DB, &["192.0.2.8", "192.0.2.9", "2001:db8::9"]), ("x", &["192.0.2.66"])];
    let mut world = World::new(Some(wanted(&[DB])), before);
    world.answers(DB, [found(&["192.0.2.1"], 30), found(&["2001:db8::1"], 30)]);
    let flows = ["192.0.2.9", "2001:db8::9"];
    let all = ["192.0.2.1", "192.0.2.8", "192.0.2.9", "2001:db8::1", "2001:db8::9"];
    assert_eq!(world.pass(2, &flows).await, all);
    let in_use = ["192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::9"];
    assert_eq!(world.pass(100, &flows).await, in_use);
    assert_eq!(world.pass(3, &[]).await, ["192.0.2.1", "2001:db8::1"]);
    // With no answer at all it is what was known last.
    let mut world = World::new(Some(wanted(&[DB])), before);
    world.answers(DB, [failed(), failed()]);
    assert_eq!(world.pass(3000, &[]).await, ["192.0.2.8", "192.0.2.9", "2001:db8::9"]);
    assert_eq!(world.pass(700, &[]).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_breaks_down_is_asked_again() {
    let mut world = World::of([found(&["192.0.2.1"], 60), nothing()]);
    world.script.0.lock().unwrap().breaks = true;
    world.pass(3, &[]).await;
    assert!(world.handle.degraded()[0].contains("broke down"), "{:?}", world.handle.degraded());
    world.script.0.lock().unwrap().breaks = false;
    assert_eq!(world.pass(6, &[]).await, ["192.0.2.1"]);
}
