//! One name: what it stands for, until when, and when it is looked up again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::refused;
use super::resolve::{Answer, Answers};
use crate::system;

/// Between looks at a name, whatever its records say.
const LOOK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// Between looks at what is not there: who adds a record waits no longer.
const LOOK_FOR_NOTHING: Duration = Duration::from_secs(300);
/// Between looks when nobody could say.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How long an address is held for after a server last gave it: clients may hold it as long, and answers that rotate are one set.
const HOLD: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// How long it is held for while nobody can say what is true (in the spirit of RFC 8767).
const STALE: Duration = Duration::from_secs(3600);
/// How long it is held for at the most while flows go to it.
const IN_USE: Duration = Duration::from_secs(24 * 3600);
/// Between looks at a name that was asked for, unless it is asked for again.
const LOOK_FOR_ASKED: Duration = Duration::from_secs(30);
/// How long a name that was asked for is held for after it was last: for longer than any answer is good for.
const ASKED: Duration = Duration::from_secs(600);
/// How long a flow that was seen counts as one that goes on: for longer than between looks at flows, on a loaded machine too.
const FLOWS: Duration = Duration::from_secs(10);
/// How long an answer is good for of what nobody can confirm now.
const STALE_ANSWER: Duration = Duration::from_secs(30);
/// The most addresses of one name.
pub(super) const MOST: usize = 64;
/// Refused addresses that a sentence lists.
const LISTED: usize = 4;

/// What the two questions ask for.
const FAMILIES: [&str; 2] = ["A", "AAAA"];

/// What a look came to, both families together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    Found,
    Nothing,
    Failed,
}

/// A name that is looked up.
#[derive(Debug)]
pub(super) struct Name {
    /// The resources that it is the name of.
    pub(super) resources: BTreeSet<String>,
    /// The resources below whose wildcards it was asked for.
    pub(super) below: BTreeSet<String>,
    /// When it was asked for last.
    asked: Option<Instant>,
    /// When a flow to one of its addresses was seen last; kept only where it is here because it was asked for.
    flowed: Option<Instant>,
    questions: [Question; 2],
    /// When it is looked up next; `None` while it is.
    due: Option<Instant>,
    /// Looks in a row that failed.
    failures: u32,
    looked_ms: Option<u64>,
    /// Since when it has no address, and whether there is such a name.
    nothing: Option<(u64, bool)>,
    refused: BTreeMap<IpAddr, &'static str>,
    /// Whether there were more addresses than are taken.
    surplus: bool,
}

/// A or AAAA.
#[derive(Debug, Default)]
struct Question {
    held: BTreeMap<IpAddr, Held>,
    /// When it was answered last, with addresses or without.
    answered: Option<Instant>,
    /// Until when that is good.
    good_until: Option<Instant>,
    failing: Option<Failing>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// When a server last gave it.
    confirmed: Instant,
    hold: Duration,
}

#[derive(Debug)]
struct Failing {
    since_ms: u64,
    why: String,
}

impl Name {
    /// One that is due at once. `stood_for` is what it stood for when this agent last ran: that is held as if it had just been given.
    pub(super) fn new(resources: BTreeSet<String>, stood_for: &BTreeSet<IpAddr>, now: Instant) -> Self {
        let mut questions = [Question::default(), Question::default()];
        for address in stood_for {
            let question = &mut questions[usize::from(address.is_ipv6())];
            question.held.insert(*address, Held { confirmed: now, hold: HOLD.0 });
        }
        Self {
            resources,
            below: BTreeSet::new(),
            asked: None,
            flowed: None,
            questions,
            due: Some(now),
            failures: 0,
            looked_ms: None,
            nothing: None,
            refused: BTreeMap::new(),
            surplus: false,
        }
    }

    /// Notes that it is asked for as one below the wildcard of a resource; whether that is new.
    pub(super) fn ask_below(&mut self, resource: &str, now: Instant) -> bool {
        self.asked = Some(now);
        !self.below.contains(resource) && self.below.insert(resource.to_owned())
    }

    /// Notes that a flow goes there where one goes to one of `destinations`.
    pub(super) fn note_flows(&mut self, destinations: &HashSet<IpAddr>, now: Instant) {
        let mut held = self.questions.iter().flat_map(|question| question.held.keys());
        if held.any(|address| destinations.contains(address)) {
            self.flowed = Some(now);
        }
    }

    /// Whether a flow went there lately.
    pub(super) fn has_flows(&self, now: Instant) -> bool {
        self.flowed.is_some_and(|seen| now < seen + FLOWS)
    }

    /// When it was asked for last, where it is here for that alone.
    pub(super) fn only_asked(&self) -> Option<Instant> {
        self.asked.filter(|_| self.resources.is_empty())
    }

    /// Whether it is here only for the flows that go to it.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.only_asked().is_some_and(|asked| now >= asked + ASKED)
    }

    /// All resources it is for.
    pub(super) fn all_resources(&self) -> impl Iterator<Item = &String> {
        self.resources.union(&self.below)
    }

    /// How many addresses it stands for.
    pub(super) fn count(&self) -> usize {
        self.questions.iter().map(|question| question.held.len()).sum()
    }

    /// Whether what is known of it answers a question.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        let is_soon = || self.due.is_some_and(|due| due > now);
        self.looked()
            && self.questions.iter().all(|question| match question.failing {
                None => question.good_until.is_some_and(|until| until > now),
                Some(_) => is_soon(),
            })
    }

    /// What a question for it is answered with.
    pub(super) fn given(&self, now: Instant) -> Answers {
        let exists = self.nothing.is_none_or(|(_, exists)| exists);
        self.questions.each_ref().map(|question| question.given(exists, now))
    }

    /// Whether it was looked up at all.
    pub(super) fn looked(&self) -> bool {
        self.looked_ms.is_some()
    }

    /// When that was last, Unix milliseconds.
    pub(super) fn looked_ms(&self) -> Option<u64> {
        self.looked_ms
    }

    /// Whether it is to be looked up now; then it is under way until it is answered.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        if self.is_idle(now) {
            return false;
        }
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// Looks again at once, unless a look is under way.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.due = self.due.map(|_| now);
    }

    /// Takes what a look gave. `early` is what part of a time between looks is waited, so that not all names come at once.
    pub(super) fn answer(
        &mut self,
        answers: Answers,
        overlay: &[IpNet],
        now: Instant,
        unix_ms: u64,
        early: f64,
    ) -> Came {
        let nothing = |answer: &Answer| matches!(answer, Answer::Nothing { .. });
        let came = match &answers {
            [Answer::Failed(_), _] | [_, Answer::Failed(_)] => Came::Failed,
            [v4, v6] if nothing(v4) && nothing(v6) => Came::Nothing,
            _ => Came::Found,
        };
        self.looked_ms = Some(unix_ms);
        let exists = answers.iter().all(|answer| !matches!(answer, Answer::Nothing { exists: false, .. }));
        let since = self.nothing.map_or(unix_ms, |(since, _)| since);
        self.nothing = (came == Came::Nothing).then_some((since, exists));
        self.failures = if came == Came::Failed { self.failures + 1 } else { 0 };
        let retry = (RETRY.0 * 2_u32.saturating_pow(self.failures.saturating_sub(1).min(8))).min(RETRY.1);
        let pause = answers.iter().map(|answer| pause(answer, retry)).min().unwrap_or(retry);
        let least = if self.only_asked().is_some() { LOOK_FOR_ASKED } else { LOOK.0 };
        self.due = Some(now + pause.mul_f64(early).max(least));

        self.refused.clear();
        self.surplus = false;
        for (question, answer) in self.questions.iter_mut().zip(answers) {
            match answer {
                Answer::Addresses { addresses, ttl } => {
                    let mut taken = BTreeSet::new();
                    for address in addresses.iter().map(IpAddr::to_canonical) {
                        match refused::why(address, overlay) {
                            Some(why) => drop(self.refused.insert(address, why)),
                            None => drop(taken.insert(address)),
                        }
                    }
                    self.surplus |= taken.len() > MOST;
                    let held = Held { confirmed: now, hold: ttl.clamp(HOLD.0, HOLD.1) };
                    question.held.extend(taken.into_iter().take(MOST).map(|address| (address, held)));
                    question.answered_until(now, now + ttl);
                }
                Answer::Nothing { ttl, .. } => {
                    question.answered_until(now, now + ttl.unwrap_or(LOOK.0).min(LOOK_FOR_NOTHING));
                }
                Answer::Failed(why) => {
                    let since_ms = question.failing.as_ref().map_or(unix_ms, |failing| failing.since_ms);
                    question.failing = Some(Failing { since_ms, why });
                }
            }
        }
        self.keep_only(overlay);
        self.bound();
        came
    }

    /// Lets go of what is the overlay's own by now.
    pub(super) fn keep_only(&mut self, overlay: &[IpNet]) {
        for question in &mut self.questions {
            question.held.retain(|address, _| refused::why(*address, overlay).is_none());
        }
    }

    /// Holds no more than [`MOST`]: those given last, of both families alike, in order.
    fn bound(&mut self) {
        let held = || self.questions.iter().flat_map(|question| &question.held);
        if held().count() <= MOST {
            return;
        }
        self.surplus = true;
        let mut order = Vec::new();
        for question in &self.questions {
            let mut of_family: Vec<_> = question.held.iter().map(|(a, held)| (held.confirmed, *a)).collect();
            of_family.sort_by_key(|(confirmed, address)| (std::cmp::Reverse(*confirmed), *address));
            let placed = of_family.into_iter().enumerate();
            order.extend(
                placed.map(|(place, (confirmed, address))| (std::cmp::Reverse(confirmed), place, address)),
            );
        }
        order.sort_unstable();
        let kept: BTreeSet<IpAddr> = order.into_iter().take(MOST).map(|(_, _, address)| address).collect();
        for question in &mut self.questions {
            question.held.retain(|address, _| kept.contains(address));
        }
    }

    /// What it stands for, and when a server last said so.
    pub(super) fn addresses(&self) -> BTreeMap<IpAddr, Instant> {
        let mut addresses = BTreeMap::new();
        for (address, held) in self.questions.iter().flat_map(|question| &question.held) {
            let confirmed = addresses.entry(*address).or_insert(held.confirmed);
            *confirmed = held.confirmed.max(*confirmed);
        }
        addresses
    }

    /// Addresses that stay only while flows go to them.
    pub(super) fn in_question(&self, now: Instant) -> impl Iterator<Item = IpAddr> {
        let idle = self.is_idle(now);
        self.questions.iter().flat_map(move |question| {
            let asked = question.held.iter().filter(move |(_, held)| idle || question.doubts(held, now));
            asked.map(|(address, _)| *address)
        })
    }

    /// Lets go of those of `idle` that are in question, and of what has been held for too long; whether there was any.
    pub(super) fn let_go(&mut self, idle: &BTreeSet<IpAddr>, now: Instant) -> bool {
        let mut gone = false;
        let is_idle = self.is_idle(now);
        for question in &mut self.questions {
            let keep = |address: &IpAddr, held: &Held| {
                let doubted = is_idle || question.doubts(held, now);
                !doubted || (now < held.confirmed + IN_USE && !idle.contains(address))
            };
            let kept: BTreeMap<IpAddr, Held> =
                question.held.iter().filter(|(a, held)| keep(a, held)).map(|(a, held)| (*a, *held)).collect();
            gone |= kept.len() != question.held.len();
            question.held = kept;
        }
        gone
    }

    /// What a person should know of it, at the most one sentence of each kind.
    pub(super) fn trouble(&self, name: &str) -> [Option<String>; 4] {
        [self.failing(name), self.standing_for_nothing(name), self.refusing(name), self.bounded(name)]
    }

    fn failing(&self, name: &str) -> Option<String> {
        let failing = |family: usize| self.questions[family].failing.as_ref();
        let (what, why, since_ms) = match (failing(0), failing(1)) {
            (None, None) => return None,
            (Some(v4), Some(v6)) => {
                let why = match v4.why == v6.why {
                    true => v4.why.clone(),
                    false => format!("{}: {}; {}: {}", FAMILIES[0], v4.why, FAMILIES[1], v6.why),
                };
                (name.to_owned(), why, v4.since_ms.min(v6.since_ms))
            }
            (Some(v4), None) => (format!("{} of {name}", FAMILIES[0]), v4.why.clone(), v4.since_ms),
            (None, Some(v6)) => (format!("{} of {name}", FAMILIES[1]), v6.why.clone(), v6.since_ms),
        };
        Some(format!(
            "{what} cannot be looked up since {} ({why}): what it stood for is held for an hour; see to the name server, or \
             name others in `[names] servers`",
            system::time(since_ms)
        ))
    }

    fn standing_for_nothing(&self, name: &str) -> Option<String> {
        let (since, exists) = self.nothing?;
        let why = if exists { "it has no A and no AAAA record" } else { "there is no such name" };
        Some(format!(
            "{name} stands for no address since {} ({why}): correct the resource or its records",
            system::time(since)
        ))
    }

    fn refusing(&self, name: &str) -> Option<String> {
        if self.refused.is_empty() {
            return None;
        }
        let mut list = String::new();
        for (address, why) in self.refused.iter().take(LISTED) {
            let comma = if list.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(list, "{comma}{address} ({why})");
        }
        if self.refused.len() > LISTED {
            let _ = write!(list, " and {} more", self.refused.len() - LISTED);
        }
        Some(format!(
            "{name} stands for {list}, to which nothing is opened: such an address is no other machine's; correct its records"
        ))
    }

    fn bounded(&self, name: &str) -> Option<String> {
        self.surplus.then(|| {
            format!(
                "{name} stands for more than {MOST} addresses, of which {MOST} are open; make a resource of their prefix instead"
            )
        })
    }
}

impl Question {
    fn answered_until(&mut self, now: Instant, until: Instant) {
        (self.answered, self.good_until, self.failing) = (Some(now), Some(until), None);
    }

    /// What the last answer gave, with the time that it is still good for; where there is none any more, what it gave before.
    fn given(&self, exists: bool, now: Instant) -> Answer {
        let left = |until: Option<Instant>| until.map(|until| until.saturating_duration_since(now));
        let of = |addresses: BTreeSet<IpAddr>, ttl| (!addresses.is_empty()).then_some((addresses, ttl));
        let given = match &self.failing {
            Some(_) => of(self.held.keys().copied().collect(), STALE_ANSWER),
            None => {
                let last = self.held.iter().filter(|(_, held)| Some(held.confirmed) == self.answered);
                of(last.map(|(address, _)| *address).collect(), left(self.good_until).unwrap_or_default())
            }
        };
        match (given, &self.failing) {
            (Some((addresses, ttl)), _) => Answer::Addresses { addresses, ttl },
            (None, Some(failing)) => Answer::Failed(failing.why.clone()),
            (None, None) => Answer::Nothing { ttl: left(self.good_until), exists },
        }
    }

    /// Whether `held` stays only while flows go to it.
    fn doubts(&self, held: &Held, now: Instant) -> bool {
        let (Some(answered), None) = (self.answered, &self.failing) else {
            // What an earlier run knew stays until its name was looked up.
            return self.failing.is_some() && now >= held.confirmed + STALE;
        };
        // What the last answer gave stays until the next, however late that is.
        answered != held.confirmed && now >= held.confirmed + held.hold
    }
}

/// How long what `answer` says is good for.
fn pause(answer: &Answer, retry: Duration) -> Duration {
    match answer {
        Answer::Addresses { ttl, .. } => (*ttl).clamp(LOOK.0, LOOK.1),
        Answer::Nothing { ttl, .. } => ttl.unwrap_or(LOOK_FOR_NOTHING).clamp(LOOK.0, LOOK_FOR_NOTHING),
        Answer::Failed(_) => retry,
    }
}
