//! Lines of words at places that follow from what is in them, and only those written that are not what they were.

use std::mem;

use sluicegate_engine::image::LINE;

use super::slots::{assign, mix_words};

/// One line.
pub(super) type Line = [u32; LINE];

/// Lines by the place that their hash gives them; place 0 stays empty.
#[derive(Debug, Default)]
pub(super) struct Lines {
    words: Vec<u32>,
    /// Place and hash of each line that has a number; place 0 is that of lines not in use.
    of: Vec<(u32, u64)>,
    /// Numbers of the lines that have another place, or something else in them, than the time before.
    moved: Vec<u32>,
    /// Places written the last time.
    written: Written,
}

/// What of the lines is not as it was the time before.
#[derive(Debug, Default, PartialEq, Eq)]
enum Written {
    /// There may be more lines or fewer: all of them.
    #[default]
    All,
    /// These places, rising.
    Places(Vec<u32>),
}

impl Lines {
    /// Places the lines of these numbers, which rise, and nothing else. `line` says what is in a line, `stays` whether that is
    /// surely what was in it the time before.
    pub(super) fn place(&mut self, used: &[u32], stays: impl Fn(u32) -> bool, line: impl Fn(u32) -> Line) {
        let numbers = used.last().map_or(0, |&last| last as usize + 1);
        self.of.resize(self.of.len().max(numbers), (0, 0));
        self.moved.clear();
        self.written = Written::Places(Vec::new());
        let mut hashes = Vec::with_capacity(used.len());
        for &number in used {
            if self.of[number as usize].0 == 0 || !stays(number) {
                self.clear(number);
                self.of[number as usize].1 = mix_words(line(number));
            }
            hashes.push(self.of[number as usize].1);
        }
        let (places, size) = assign(&hashes);
        if self.words.len() != size as usize * LINE {
            self.words = vec![0; size as usize * LINE];
            self.of.iter_mut().for_each(|of| of.0 = 0);
            self.written = Written::All;
        }
        let mut place_of = vec![0; self.of.len()];
        used.iter().zip(&places).for_each(|(&number, &place)| place_of[number as usize] = place);
        for (number, &place) in (0..).zip(&place_of) {
            if self.of[number as usize].0 != place {
                self.clear(number);
            }
        }
        for (&number, place) in used.iter().zip(places) {
            if self.of[number as usize].0 != place {
                self.of[number as usize].0 = place;
                self.write(place, &line(number));
                self.moved.push(number);
            }
        }
        if let Written::Places(places) = &mut self.written {
            places.sort_unstable();
            places.dedup();
        }
    }

    /// The place of the line of a number; 0 where it is not in use.
    pub(super) fn place_of(&self, number: u32) -> u32 {
        self.of.get(number as usize).map_or(0, |of| of.0)
    }

    /// Of the lines that were placed last, those with another place or something else in them than the time before.
    pub(super) fn moved(&self) -> &[u32] {
        &self.moved
    }

    /// All of them as words.
    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    /// Offset and words of whatever is not as it was the time before, rising; `None` where that may be everything.
    pub(super) fn written(&self) -> Option<impl Iterator<Item = (usize, &[u32])>> {
        let Written::Places(places) = &self.written else { return None };
        Some(places.iter().map(|&place| (place as usize * LINE, &self.line(place)[..])))
    }

    /// About how many bytes they take.
    pub(super) fn size(&self) -> usize {
        self.words.len() * 4 + self.of.len() * size_of::<(u32, u64)>()
    }

    fn line(&self, place: u32) -> &Line {
        &self.words.as_chunks().0[place as usize]
    }

    fn clear(&mut self, number: u32) {
        match mem::take(&mut self.of[number as usize].0) {
            0 => {}
            place => self.write(place, &[0; LINE]),
        }
    }

    fn write(&mut self, place: u32, line: &Line) {
        self.words.as_chunks_mut().0[place as usize] = *line;
        if let Written::Places(places) = &mut self.written {
            places.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in the lines of `numbers` when each holds its `content`.
    fn lines(kept: &mut Lines, numbers: &[u32], content: impl Fn(u32) -> u32) -> Vec<u32> {
        let before: Vec<(u32, Option<Line>)> = (0..1000)
            .map(|number| {
                (kept.place_of(number), kept.words.as_chunks().0.get(kept.place_of(number) as usize).copied())
            })
            .collect();
        let stays = |number: u32| before[number as usize].1 == Some([content(number); LINE]);
        kept.place(numbers, stays, |number| [content(number); LINE]);
        let moved = |number: &u32| kept.place_of(*number) != before[*number as usize].0 || !stays(*number);
        assert!(numbers.iter().filter(|number| moved(number)).all(|number| kept.moved().contains(number)));
        kept.words().to_vec()
    }

    #[test]
    fn lines_are_where_they_would_be_the_first_time_and_what_differs_is_told() {
        let mut kept = Lines::default();
        let mut before = lines(&mut kept, &(1..500).collect::<Vec<_>>(), |number| number);
        assert!(kept.written().is_none());
        for step in 1..40u32 {
            // Some are not in use, some hold something else, and some are new.
            let numbers: Vec<u32> = (1..500 + step).filter(|number| number % 7 != step % 7).collect();
            let content = |number: u32| if number % 11 == step % 11 { number * step } else { number };
            let words = lines(&mut kept, &numbers, content);
            assert_eq!(words, lines(&mut Lines::default(), &numbers, content));
            for &number in &numbers {
                assert_eq!(words[kept.place_of(number) as usize * LINE], content(number));
            }
            if let Some(written) = kept.written() {
                for (at, line) in written {
                    before[at..at + LINE].copy_from_slice(line);
                }
                assert_eq!(before, words);
            } else {
                assert_ne!(before.len(), words.len());
            }
            before = words;
        }
    }

    #[test]
    fn a_line_that_stays_is_not_written() {
        let mut kept = Lines::default();
        lines(&mut kept, &[1, 2, 3], |number| number);
        lines(&mut kept, &[1, 2, 3], |number| number);
        assert_eq!(kept.written().unwrap().count(), 0);
        lines(&mut kept, &[1, 3], |number| number);
        assert_eq!(kept.written().unwrap().count(), 1);
        assert_eq!(kept.place_of(2), 0);
    }
}
