//! Writes an image's words: the header, and sections that each start a line.

use sluicegate_engine::image::{HEADER, LAYOUT, LINE, MAGIC, header};

/// An image being written.
#[derive(Debug)]
pub(super) struct Words(Vec<u32>);

impl Words {
    pub(super) fn new() -> Self {
        let mut words = vec![0; HEADER];
        words[header::MAGIC] = MAGIC;
        words[header::LAYOUT] = LAYOUT;
        Self(words)
    }

    /// Sets a header word.
    pub(super) fn set(&mut self, at: usize, value: u32) {
        self.0[at] = value;
    }

    /// Appends a section and puts its offset into header word `at`. Up to an eighth of room follows it, so that the
    /// sections behind it rarely move when it grows: a section that moves is sent again as a whole.
    pub(super) fn section(&mut self, at: usize, words: &[u32]) {
        self.0[at] = self.0.len() as u32;
        self.0.extend_from_slice(words);
        let step = (words.len().next_power_of_two() / 16).max(LINE);
        self.0.resize(self.0[at] as usize + words.len().next_multiple_of(step), 0);
    }

    /// Appends a section of `count` things, whose number goes into header word `len`.
    pub(super) fn counted(&mut self, at: usize, len: usize, count: u32, words: &[u32]) {
        self.set(len, count);
        self.section(at, words);
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
        self.section(at + 1, &starts);
        self.section(at + 2, &classes);
    }

    /// The finished image.
    pub(super) fn finish(mut self) -> Vec<u32> {
        self.0[header::WORDS] = self.0.len() as u32;
        self.0
    }
}
