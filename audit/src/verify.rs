//! Walking the chain, and naming the first event that breaks it.

use std::collections::VecDeque;

use super::{Anchor, GENESIS, Head, Link, PRUNE, Pruned};

/// How many events back it is looked where a fork began: what was put in after the newest event is followed by what
/// control writes next, which follows the event before.
const LOOK_BACK: usize = 4096;

/// What is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many events.
    pub events: u64,
    /// The last of them.
    pub head: Head,
    /// When it was, Unix milliseconds; none of an empty trail.
    pub at: Option<i64>,
    /// What the trail begins with.
    pub anchor: Anchor,
}

/// The first event that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Its content or its hash is another one.
    #[error("event {id} was changed: it is not what its hash was made of")]
    Changed {
        /// The event.
        id: i64,
    },
    /// There were events between these two, or after the first of them.
    #[error("events are missing after event {after}{}", match .before {
        Some(before) => format!(": event {before} does not follow it"),
        None => ": the trail does not reach its head".into(),
    })]
    Missing {
        /// The last event before the gap; 0 for the beginning.
        after: i64,
        /// The first event after it; none at the end of the trail.
        before: Option<i64>,
    },
    /// It is not at the place where it was written.
    #[error("event {id} stands at another place than where it was written")]
    Reordered {
        /// The event.
        id: i64,
    },
    /// It was not written by control.
    #[error("event {id} was inserted: what was written after event {after} does not follow from it")]
    Inserted {
        /// The event.
        id: i64,
        /// The last event that is as it was written.
        after: i64,
    },
    /// The beginning of the trail is not where retention left it.
    #[error(
        "the trail begins after event {id}, and no event of retention says so: events at the beginning were removed by \
         somebody else"
    )]
    Anchor {
        /// The anchor's event.
        id: i64,
    },
    /// A head noted earlier is not in the trail with that hash.
    #[error("event {id} has not the hash that was noted: the trail was written anew")]
    Rewritten {
        /// The noted event.
        id: i64,
    },
    /// A head noted earlier is newer than the trail.
    #[error(
        "the trail ends at event {last}, before event {id} that was noted: its end was cut off, or an old state put back"
    )]
    CutOff {
        /// The noted event.
        id: i64,
        /// The last event there is.
        last: i64,
    },
    /// A head noted earlier is older than what retention left.
    #[error(
        "event {id} that was noted has been removed by retention: compare with a newer head, or an export"
    )]
    Removed {
        /// The noted event.
        id: i64,
    },
}

impl Broken {
    /// One word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Broken::Changed { .. } => "changed",
            Broken::Missing { .. } => "missing",
            Broken::Reordered { .. } => "reordered",
            Broken::Inserted { .. } => "inserted",
            Broken::Anchor { .. } => "anchor",
            Broken::Rewritten { .. } => "rewritten",
            Broken::CutOff { .. } => "cut_off",
            Broken::Removed { .. } => "removed",
        }
    }

    /// The event to look at.
    pub fn id(&self) -> i64 {
        match *self {
            Broken::Missing { after, before } => before.unwrap_or(after),
            Broken::Changed { id }
            | Broken::Reordered { id }
            | Broken::Inserted { id, .. }
            | Broken::Anchor { id }
            | Broken::Rewritten { id }
            | Broken::CutOff { id, .. }
            | Broken::Removed { id } => id,
        }
    }
}

/// Walks a chain event by event, in the order in which they are stored, and keeps nothing but what it needs to go on.
pub struct Verifier {
    anchor: Anchor,
    noted: Option<Head>,
    /// The noted event was met, with this hash.
    met: Option<String>,
    tip: Head,
    at: Option<i64>,
    events: u64,
    /// The latest events that were whole, oldest first.
    recent: VecDeque<Head>,
    pruned: Option<Anchor>,
    suspect: Option<Suspect>,
}

/// The first event that does not fit, until it is known why.
struct Suspect {
    id: i64,
    previous: String,
    whole: bool,
    follows: bool,
    beyond: bool,
    /// The event that it says it follows came later.
    follows_later: bool,
    /// Another event came later that follows the last one that was whole.
    displaced: bool,
}

impl Verifier {
    /// Begins after `anchor`; `noted` is a head from elsewhere that must be in the chain.
    pub fn new(anchor: Anchor, noted: Option<Head>) -> Self {
        let tip = Head { id: anchor.id, hash: anchor.hash.clone() };
        Verifier {
            met: noted.as_ref().filter(|noted| noted.id == tip.id).map(|_| tip.hash.clone()),
            noted,
            tip,
            anchor,
            at: None,
            events: 0,
            recent: VecDeque::new(),
            pruned: None,
            suspect: None,
        }
    }

    /// The next event; `head` is what control said was the newest when it gave this one.
    pub fn push(&mut self, link: &Link, head: &Head) {
        let follows = link.previous == self.tip.hash;
        if let Some(suspect) = &mut self.suspect {
            suspect.follows_later |= link.hash == suspect.previous;
            suspect.displaced |= follows && link.is_whole();
            return;
        }
        let (whole, beyond) = (link.is_whole(), link.event.id > head.id);
        if !(whole && follows && !beyond && link.event.id > self.tip.id) {
            let (id, previous) = (link.event.id, link.previous.clone());
            self.suspect = Some(Suspect {
                id,
                previous,
                whole,
                follows,
                beyond,
                follows_later: false,
                displaced: false,
            });
            return;
        }
        if self.recent.len() == LOOK_BACK {
            self.recent.pop_front();
        }
        self.recent.push_back(std::mem::replace(&mut self.tip, link.head()));
        if self.noted.as_ref().is_some_and(|noted| noted.id == link.event.id) {
            self.met = Some(link.hash.clone());
        }
        if link.event.code == PRUNE {
            self.pruned = Pruned::read(&link.event.meta).map(|pruned| pruned.anchor);
        }
        self.at = Some(link.event.at);
        self.events += 1;
    }

    /// The last event so far that is whole.
    pub fn tip(&self) -> &Head {
        &self.tip
    }

    /// How many events so far are whole.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Every event was given; `head` is what the newest one must be.
    pub fn finish(self, head: &Head) -> Result<Report, Broken> {
        if let Some(suspect) = &self.suspect {
            return Err(self.judge(suspect));
        }
        if self.tip.id < head.id {
            return Err(Broken::Missing { after: self.tip.id, before: None });
        }
        if self.tip.id > head.id {
            return Err(Broken::Inserted { id: self.tip.id, after: head.id });
        }
        if self.tip != *head {
            // The same event with another hash, or the head of a trail that went back.
            return Err(Broken::Changed { id: self.tip.id });
        }
        let untouched = self.anchor == Anchor::default();
        if (untouched && self.pruned.is_some()) || (!untouched && self.pruned.as_ref() != Some(&self.anchor))
        {
            return Err(Broken::Anchor { id: self.anchor.id });
        }
        if let Some(Head { id, hash }) = self.noted {
            return Err(match self.met {
                Some(met) if met == hash => {
                    return Ok(Self::report(self.events, self.tip, self.at, self.anchor));
                }
                Some(_) => Broken::Rewritten { id },
                None if id > self.tip.id => Broken::CutOff { id, last: self.tip.id },
                None if id < self.anchor.id => Broken::Removed { id },
                None => Broken::Rewritten { id },
            });
        }
        Ok(Self::report(self.events, self.tip, self.at, self.anchor))
    }

    fn report(events: u64, head: Head, at: Option<i64>, anchor: Anchor) -> Report {
        Report { events, head, at, anchor }
    }

    fn judge(&self, suspect: &Suspect) -> Broken {
        let (id, after) = (suspect.id, self.tip.id);
        if suspect.follows_later {
            return Broken::Reordered { id };
        }
        if suspect.displaced || suspect.beyond {
            return Broken::Inserted { id, after };
        }
        if suspect.follows {
            return if suspect.whole { Broken::Reordered { id } } else { Broken::Changed { id } };
        }
        if !suspect.whole {
            return Broken::Changed { id };
        }
        // It is as it was written, and follows something else than what stands before it.
        if let Some(fork) = self.recent.iter().position(|head| head.hash == suspect.previous) {
            let first = self.recent.get(fork + 1).unwrap_or(&self.tip);
            return Broken::Inserted { id: first.id, after: self.recent[fork].id };
        }
        if id == after + 1 && after != self.anchor.id {
            // There is no room for a missing event: the one before was changed and its hash computed anew.
            return Broken::Changed { id: after };
        }
        if suspect.previous == GENESIS && id == after + 1 {
            return Broken::Anchor { id: after };
        }
        Broken::Missing { after, before: Some(id) }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::Event;

    fn chain(length: i64) -> Vec<Link> {
        let mut links: Vec<Link> = Vec::new();
        for id in 1..=length {
            let event = Event { id, at: id * 10, revision: id, code: "group.add".into(), ..Event::default() };
            let previous = links.last().map_or(GENESIS.to_owned(), |link| link.hash.clone());
            links.push(event.link(&previous));
        }
        links
    }

    fn verify(links: &[Link], head: &Head, noted: Option<Head>) -> Result<Report, Broken> {
        let mut verifier = Verifier::new(Anchor::default(), noted);
        links.iter().for_each(|link| verifier.push(link, head));
        verifier.finish(head)
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let good = chain(20);
        let head = good[19].head();
        let report = verify(&good, &head, None).expect("whole");
        assert_eq!((report.events, report.head.id, report.at), (20, 20, Some(200)));
        let broken = |edit: &dyn Fn(&mut Vec<Link>)| {
            let mut links = good.clone();
            edit(&mut links);
            verify(&links, &head, None).expect_err("broken")
        };
        assert_eq!(broken(&|l| l[4].event.meta = "x".into()), Broken::Changed { id: 5 });
        assert_eq!(broken(&|l| l[4].hash = "x".into()), Broken::Changed { id: 5 });
        assert_eq!(broken(&|l| l[4].previous = "x".into()), Broken::Changed { id: 5 });
        assert_eq!(broken(&|l| l[19].event.at = 1), Broken::Changed { id: 20 });
        let rewritten = |l: &mut Vec<Link>| {
            let event = Event { code: "x".into(), ..l[4].event.clone() };
            l[4] = event.link(&l[3].hash.clone());
        };
        assert_eq!(broken(&rewritten), Broken::Changed { id: 5 });
        assert_eq!(broken(&|l| drop(l.remove(4))), Broken::Missing { after: 4, before: Some(6) });
        assert_eq!(broken(&|l| drop(l.remove(0))), Broken::Missing { after: 0, before: Some(2) });
        assert_eq!(broken(&|l| l.truncate(18)), Broken::Missing { after: 18, before: None });
        assert_eq!(broken(&|l| l.clear()), Broken::Missing { after: 0, before: None });
        assert_eq!(broken(&|l| l.swap(4, 5)), Broken::Reordered { id: 6 });
        assert_eq!(broken(&|l| l.swap(4, 15)), Broken::Reordered { id: 16 });
        let ids = |l: &mut Vec<Link>| {
            (l[4].event.id, l[9].event.id) = (10, 5);
            l.swap(4, 9);
        };
        assert_eq!(broken(&ids), Broken::Reordered { id: 5 });
        let copy = |l: &mut Vec<Link>| l.insert(5, l[4].clone());
        assert_eq!(broken(&copy), Broken::Inserted { id: 5, after: 5 });
        let more = |l: &mut Vec<Link>| l.push(Event { id: 21, ..Event::default() }.link(&l[19].hash.clone()));
        assert_eq!(broken(&more), Broken::Inserted { id: 21, after: 20 });
    }

    #[test]
    fn what_was_put_after_the_newest_event_is_named_when_control_has_gone_on() {
        let mut links = chain(20);
        let newest = links[19].hash.clone();
        links.push(Event { id: 21, ..Event::default() }.link(&newest));
        links.push(Event { id: 22, ..Event::default() }.link(&links[20].hash.clone()));
        links.push(Event { id: 23, ..Event::default() }.link(&newest));
        let head = links[22].head();
        assert_eq!(verify(&links, &head, None), Err(Broken::Inserted { id: 21, after: 20 }));
    }

    #[test]
    fn a_noted_head_finds_what_a_chain_written_anew_hides() {
        let good = chain(20);
        let (head, noted) = (good[19].head(), good[9].head());
        assert!(verify(&good, &head, Some(noted.clone())).is_ok());
        assert!(verify(&good, &head, Some(Head::default())).is_ok());
        let mut anew = Vec::new();
        let mut previous = GENESIS.to_owned();
        for link in &good {
            let code = if link.event.id == 3 { "x".into() } else { link.event.code.clone() };
            let link = Event { code, ..link.event.clone() }.link(&previous);
            previous.clone_from(&link.hash);
            anew.push(link);
        }
        let last = anew[19].head();
        assert!(verify(&anew, &last, None).is_ok(), "a chain alone cannot tell");
        assert_eq!(verify(&anew, &last, Some(noted)), Err(Broken::Rewritten { id: 10 }));
        assert_eq!(verify(&good[..5], &good[4].head(), Some(head)), Err(Broken::CutOff { id: 20, last: 5 }));
    }

    #[test]
    fn an_anchor_counts_only_when_an_event_of_retention_says_so() {
        let mut links = chain(20);
        let anchor = Anchor { id: 8, hash: links[7].hash.clone(), removed: 8 };
        let verify = |links: &[Link], anchor: &Anchor, noted: Option<Head>| {
            let head = links[links.len() - 1].head();
            let mut verifier = Verifier::new(anchor.clone(), noted);
            links.iter().for_each(|link| verifier.push(link, &head));
            verifier.finish(&head)
        };
        assert_eq!(verify(&links[8..], &anchor, None), Err(Broken::Anchor { id: 8 }));
        let meta: std::collections::BTreeMap<_, _> = Pruned { anchor: anchor.clone() }.meta().into();
        let meta = serde_json::to_string(&meta).expect("text");
        let prune = Event { id: 21, code: PRUNE.into(), meta, ..Event::default() };
        links.push(prune.link(&links[19].hash.clone()));
        assert_eq!(verify(&links[8..], &anchor, None).expect("whole").events, 13);
        let noted = |id: usize| Some(links[id - 1].head());
        assert!(verify(&links[8..], &anchor, noted(8)).is_ok());
        assert_eq!(verify(&links[8..], &anchor, noted(7)), Err(Broken::Removed { id: 7 }));
        let wrong = Anchor { removed: 7, ..anchor.clone() };
        assert_eq!(verify(&links[8..], &wrong, None), Err(Broken::Anchor { id: 8 }));
        let further = Anchor { id: 9, hash: links[8].hash.clone(), removed: 9 };
        assert_eq!(verify(&links[9..], &further, None), Err(Broken::Anchor { id: 9 }));
        assert_eq!(verify(&links, &Anchor::default(), None), Err(Broken::Anchor { id: 0 }));
    }

    #[test]
    fn whatever_is_done_to_a_chain_without_its_head_is_found() {
        let mut random = StdRng::seed_from_u64(1);
        for round in 0..2000 {
            let good = chain(30);
            let mut links = good.clone();
            for _ in 0..random.random_range(1..4) {
                let (a, b) = (random.random_range(0..links.len()), random.random_range(0..links.len()));
                match random.random_range(0..6) {
                    0 => links[a].event.revision += 1,
                    1 => links.swap(a, b),
                    2 => drop(links.remove(a)),
                    3 => links.insert(a, links[b].clone()),
                    4 => links[a].hash.clone_from(&good[b % 30].hash),
                    _ => {
                        let event = Event { at: 7, ..links[a].event.clone() };
                        links[a] = event.link(&links[a].previous.clone());
                    }
                }
            }
            assert_eq!(verify(&links, &good[29].head(), None).is_ok(), links == good, "round {round}");
        }
    }
}
