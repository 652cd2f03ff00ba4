//! An image's words: a header, and sections that each start a line.
//!
//! Sections that have a word or more for every peer follow from the rows of peers, and are written out only where somebody
//! wants the whole image.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::{iter, ptr};

use sluicegate_engine::image::{HEADER, LAYOUT, LINE, MAGIC, header};

use super::lines::Lines;
use crate::resolve::{Peers, Resolved};

/// Pages and blocks.
pub(super) type Tables<'a> = [&'a Lines; 2];

/// An image, but for its pages and blocks.
#[derive(Debug)]
pub(super) struct Words {
    header: Vec<u32>,
    /// Offset and words of each section but those of sources, pages and blocks; with the room behind it.
    sections: Vec<(usize, Vec<u32>)>,
    /// Offsets of blocks and pages.
    tables: Vec<usize>,
    hosts: Arc<Hosts>,
    len: usize,
}

/// What follows from the rows of peers alone.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Compared by where they are; not kept alive.
    peers: Weak<Peers>,
    /// Rows of each peer as a word, by number; 0 of whoever has none.
    of_peer: Vec<u32>,
    /// See [`sources`].
    sources: Vec<(Start, u32)>,
}

impl Words {
    /// The header, and the words of hosts; `of_peer` has the rows of each peer. `before` is of use where these are the same.
    pub(super) fn new(r: &Resolved, of_peer: Vec<u32>, before: Option<&Self>) -> Self {
        let overlay = r.state.overlay_v4;
        let addresses = 1 << (32 - overlay.prefix_len());
        let header = vec![0; HEADER];
        let same = before.map(|before| &before.hosts).filter(|hosts| hosts.are(r, &of_peer)).cloned();
        let hosts = same.unwrap_or_else(|| {
            let sources = sources(r, &of_peer);
            Arc::new(Hosts { peers: Arc::downgrade(&r.peers), of_peer, sources })
        });
        let (sections, tables) = (Vec::new(), Vec::new());
        let mut this = Self { header, sections, tables, hosts, len: HEADER };
        this.set(header::MAGIC, MAGIC);
        this.set(header::LAYOUT, LAYOUT);
        this.set(header::HOSTS4_BASE, overlay.network().to_bits());
        this.set(header::HOSTS4_LEN, addresses);
        this.room(header::HOSTS4, addresses as usize);
        this
    }

    /// Appends the search array of IPv6 sources.
    pub(super) fn sources6(&mut self) {
        let len = self.hosts.sources.len().next_power_of_two();
        self.set(header::SRC6_LEN, len as u32);
        self.room(header::SRC6, len * 4);
        self.room(header::SRC6_CLASS, len);
    }

    /// Sets a header word.
    pub(super) fn set(&mut self, at: usize, value: u32) {
        self.header[at] = value;
    }

    /// The length of the image.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for a section of so many words, and puts its offset into header word `at`. Up to an eighth of room follows
    /// it, so that the sections behind it rarely move when it grows: a section that moves is sent again as a whole.
    fn room(&mut self, at: usize, len: usize) -> Range<usize> {
        let start = self.len;
        self.set(at, start as u32);
        let step = (len.next_power_of_two() / 16).max(LINE);
        self.len += len.next_multiple_of(step);
        start..self.len
    }

    /// Appends a section.
    fn section(&mut self, at: usize, mut words: Vec<u32>) {
        let room = self.room(at, words.len());
        words.resize(room.len(), 0);
        self.sections.push((room.start, words));
    }

    /// Appends a section of `count` things, whose number goes into header word `len`.
    pub(super) fn counted(&mut self, at: usize, len: usize, count: u32, words: Vec<u32>) {
        self.set(len, count);
        self.section(at, words);
    }

    /// Appends room for lines, whose number goes into header word `len`.
    pub(super) fn lines(&mut self, at: usize, len: usize, lines: &Lines) {
        self.set(len, (lines.words().len() / LINE) as u32);
        let room = self.room(at, lines.words().len());
        self.tables.push(room.start);
    }

    /// Appends a search array: its length, starts of `width` words each and classes go into header words `at` to `at + 2`.
    pub(super) fn intervals(&mut self, at: usize, width: usize, intervals: &[(u128, u32)]) {
        let len = intervals.len().next_power_of_two();
        let last = intervals.last().map_or(0, |i| i.1);
        let mut starts = Vec::with_capacity(len * width);
        for &(start, _) in intervals {
            starts.extend((0..width).rev().map(|i| (start >> (32 * i)) as u32));
        }
        starts.resize(len * width, u32::MAX);
        let mut classes: Vec<u32> = intervals.iter().map(|i| i.1).collect();
        classes.resize(len, last);
        self.set(at, len as u32);
        self.section(at + 1, starts);
        self.section(at + 2, classes);
    }

    /// This, once every section is there.
    pub(super) fn finish(mut self) -> Self {
        self.set(header::WORDS, self.len as u32);
        self
    }

    /// All words of the image.
    pub(super) fn whole(&self, r: &Resolved, tables: Tables<'_>) -> Vec<u32> {
        let mut all = vec![0; self.len];
        all[..HEADER].copy_from_slice(&self.header);
        let tables = self.tables.iter().copied().zip(tables.map(Lines::words));
        for (start, words) in self.sections.iter().map(|(start, words)| (*start, &words[..])).chain(tables) {
            all[start..start + words.len()].copy_from_slice(words);
        }
        for (peer, v4) in r.peers.iter_v4() {
            all[self.host(v4)] = self.hosts.of_peer[peer as usize];
        }
        let (starts, classes) = (self.offset(header::SRC6), self.offset(header::SRC6_CLASS));
        for (i, source) in padded(&self.hosts.sources).enumerate() {
            all[starts + i * 4..][..4].copy_from_slice(&address(r, source.0));
            all[classes + i] = source.1;
        }
        all
    }

    /// What to write over the image that `before` was to get this: offsets, rising, and words. `None` where
    /// everything may have moved. Peers have the same numbers in both; `tables` are this one's, and `before` had them the time before.
    pub(super) fn over(&self, before: &Self, r: &Resolved, tables: Tables<'_>) -> Option<Vec<Run>> {
        let starts = |this: &Self| {
            let sections = this.sections.iter().map(|section| section.0);
            let own = [header::HOSTS4, header::SRC6_LEN, header::SRC6, header::SRC6_CLASS];
            let own = own.map(|at| this.offset(at));
            sections.chain(this.tables.iter().copied()).chain(own).chain([this.len]).collect::<Vec<_>>()
        };
        if starts(self) != starts(before) {
            return None;
        }
        let mut runs = Runs::default();
        runs.differing(&before.header, 0, &self.header);
        for ((start, words), (_, had)) in self.sections.iter().zip(&before.sections) {
            runs.differing(had, *start, words);
        }
        for (start, lines) in self.tables.iter().zip(tables) {
            lines.written()?.for_each(|(at, words)| runs.put(start + at, words));
        }
        if !Arc::ptr_eq(&self.hosts, &before.hosts) {
            self.hosts_over(&before.hosts, r, &mut runs)?;
            self.sources_over(&before.hosts.sources, r, &mut runs);
        }
        Some(runs.rising())
    }

    /// `None` where `before` is of a peer of which nobody knows here what address it had.
    fn hosts_over(&self, before: &Hosts, r: &Resolved, runs: &mut Runs) -> Option<()> {
        let (old, new) = (&before.of_peer, &self.hosts.of_peer);
        if old.len() > new.len() {
            return None;
        }
        let old = old.iter().copied().chain(iter::repeat(0));
        for ((peer, &new), _) in (0..).zip(new).zip(old).filter(|((_, new), old)| **new != *old) {
            if r.peers[peer].is_nobody() {
                return None;
            }
            let v4 = r.peers[peer].v4;
            // Whoever has the address of one that went says itself what is there, if that is anything.
            let theirs =
                r.peer_at(IpAddr::V4(v4.into())).is_some_and(|now| self.hosts.of_peer[now as usize] != 0);
            if new != 0 || !theirs {
                runs.put(self.host(v4), &[new]);
            }
        }
        Some(())
    }

    fn sources_over(&self, old: &[(Start, u32)], r: &Resolved, runs: &mut Runs) {
        let new = &self.hosts.sources[..];
        let first = new.iter().zip(old).take_while(|(new, old)| new == old).count();
        let behind = match new.len() == old.len() {
            true => new[first..].iter().zip(&old[first..]).rev().take_while(|(new, old)| new == old).count(),
            false => 0,
        };
        // Beyond the last the same is repeated: nothing differs there unless something does before.
        let all = if behind > 0 { new.len() - behind } else { new.len().next_power_of_two() };
        let both = || (first..all).map(|i| (i, padded_at(new, i), padded_at(old, i)));
        let (starts, classes) = (self.offset(header::SRC6), self.offset(header::SRC6_CLASS));
        for (i, new, _) in both().filter(|(_, new, old)| new.0 != old.0) {
            runs.put(starts + i * 4, &address(r, new.0));
        }
        for (i, new, _) in both().filter(|(_, new, old)| new.1 != old.1) {
            runs.put(classes + i, &[new.1]);
        }
    }

    fn offset(&self, at: usize) -> usize {
        self.header[at] as usize
    }

    /// Where the word of a host is.
    fn host(&self, v4: u32) -> usize {
        self.offset(header::HOSTS4) + (v4 - self.header[header::HOSTS4_BASE]) as usize
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let sections: usize = self.sections.iter().map(|(_, words)| words.len() * 4).sum();
        HEADER * 4
            + sections
            + self.hosts.of_peer.len() * 4
            + self.hosts.sources.len() * size_of::<(Start, u32)>()
    }
}

/// Offset in words, and words to write there.
pub(super) type Run = (u32, Vec<u32>);

#[derive(Default)]
struct Runs(Vec<Run>);

impl Runs {
    fn put(&mut self, at: usize, words: &[u32]) {
        match self.0.last_mut() {
            Some((start, run)) if *start as usize + run.len() == at => run.extend_from_slice(words),
            _ => self.0.push((at as u32, words.to_vec())),
        }
    }

    /// What of these words, which begin at `start`, is not as in as many `before`.
    fn differing(&mut self, before: &[u32], start: usize, words: &[u32]) {
        if words == before {
            return;
        }
        for (i, (word, _)) in words.iter().zip(before).enumerate().filter(|(_, (new, old))| new != old) {
            self.put(start + i, &[*word]);
        }
    }

    /// In the order of their offsets.
    fn rising(mut self) -> Vec<Run> {
        self.0.sort_unstable_by_key(|run| run.0);
        self.0
    }
}

/// Where an interval of IPv6 sources starts: at the address of a peer, or behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Zero,
    At(u32),
    Behind(u32),
    Never,
}

/// The four words of an address, most significant first.
fn address(r: &Resolved, start: Start) -> [u32; 4] {
    let address = match start {
        Start::Zero => 0,
        Start::At(peer) => r.peers[peer as usize].v6,
        Start::Behind(peer) => r.peers[peer as usize].v6 + 1,
        Start::Never => u128::MAX,
    };
    [96, 64, 32, 0].map(|shift| (address >> shift) as u32)
}

/// The IPv6 addresses of sources; IPv4 sources are all in `hosts4`. They are two for each peer at the most, and one more: an
/// overlay has no room for as many peers as would be too many.
fn sources(r: &Resolved, of_peer: &[u32]) -> Vec<(Start, u32)> {
    let mut sources = Vec::with_capacity(2 * of_peer.len() + 1);
    sources.push((Start::Zero, 0));
    // Whether the interval of the peer before, or of nobody, ends where that of the next one may begin.
    let mut known = true;
    for (&peer, &adjoining) in r.peers.by_v6.iter().zip(&r.peers.adjoining) {
        let places = of_peer[peer as usize];
        if places != 0 {
            match sources.last_mut().filter(|_| known && adjoining) {
                Some(last) => last.1 = places,
                None => sources.push((Start::At(peer), places)),
            }
            sources.push((Start::Behind(peer), 0));
        }
        known = places != 0;
    }
    // Behind the last address of all there is nothing.
    if let Some((Start::Behind(peer), _)) = sources.last()
        && r.peers[*peer as usize].v6 == u128::MAX
    {
        sources.pop();
    }
    sources.dedup_by_key(|source| source.1);
    sources
}

/// A power of two of them: those beyond the last repeat what it has.
fn padded(sources: &[(Start, u32)]) -> impl Iterator<Item = (Start, u32)> {
    (0..sources.len().next_power_of_two()).map(|i| padded_at(sources, i))
}

fn padded_at(sources: &[(Start, u32)], i: usize) -> (Start, u32) {
    let beyond = || (Start::Never, sources.last().map_or(0, |source| source.1));
    sources.get(i).copied().unwrap_or_else(beyond)
}

impl Hosts {
    /// Whether this is of these rows of the very same peers.
    fn are(&self, r: &Resolved, of_peer: &[u32]) -> bool {
        ptr::eq(self.peers.as_ptr(), Arc::as_ptr(&r.peers)) && self.of_peer == of_peer
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::model::{Peer, State};

    #[test]
    fn sources_are_who_they_are_and_nobody_beside_them() {
        const ADDRESSES: [u128; 6] = [0, 1, 2, 7, u128::MAX - 1, u128::MAX];
        let peer = |(n, v6): (u8, u128)| {
            let peer =
                Peer { name: String::new(), v4: [100, 64, 0, 9 - n].into(), v6: v6.into(), allowed: true };
            (n.to_string(), peer)
        };
        let state = State {
            overlay_v4: "100.64.0.0/24".parse().unwrap(),
            overlay_v6: "::/0".parse().unwrap(),
            peers: (0..).zip(ADDRESSES).map(peer).collect::<BTreeMap<_, _>>().into(),
            groups: Default::default(),
            networks: Default::default(),
            policies: Default::default(),
        };
        let r = Resolved::new(Arc::new(state), None).unwrap();
        // Each is known or not, and in one of two rows.
        for pattern in 0..3u32.pow(6) {
            let of_peer: Vec<u32> = (0..6).map(|peer| pattern / 3u32.pow(peer) % 3).collect();
            let sources = sources(&r, &of_peer);
            let starts: Vec<u128> = (sources.iter())
                .map(|source| address(&r, source.0).iter().fold(0, |all, &word| all << 32 | u128::from(word)))
                .collect();
            assert!(starts[0] == 0 && starts.is_sorted_by(|a, b| a < b), "{of_peer:?}: {sources:?}");
            assert!(sources.is_sorted_by(|a, b| a.1 != b.1), "{of_peer:?}: {sources:?}");
            for around in ADDRESSES {
                for probe in [around.saturating_sub(1), around, around.saturating_add(1)] {
                    let expected = r.peer_at(std::net::IpAddr::V6(probe.into()));
                    let found = sources[starts.partition_point(|&start| start <= probe) - 1].1;
                    let expected = expected.map_or(0, |peer| of_peer[peer as usize]);
                    assert_eq!(found, expected, "{probe:x} of {of_peer:?}: {sources:?}");
                }
            }
        }
    }
}
