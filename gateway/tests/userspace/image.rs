//! The smallest image for the world of these tests: one rule, between everybody and everything the gateway knows.

use sluicegate_api::image::Image;
use sluicegate_engine::image::{Attributes, Decision, HEADER, LAYOUT, LINE, MAGIC, header};

/// What the one rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It accepts; towards the site with masquerade or without.
    Accept { masquerade: bool },
    /// There is none.
    None,
}

const SITE: u32 = 1;
const LOCAL: u32 = 2;
const REMOTE: u32 = 3;

/// 10.9.0.0/24 and fd09::/64 are route 0, 100.64.0.1 and fd64::1 this host, the rest of their /24 and /64 the overlay.
pub(crate) fn image(rule: Rule) -> Image {
    let masquerade = if rule == (Rule::Accept { masquerade: false }) { 0 } else { Attributes::MASQUERADE };
    let cell = if rule == Rule::None { 0 } else { Decision::accept(0).0 };
    let classes = [0, SITE, 0, REMOTE, LOCAL, REMOTE, 0, 0];
    let starts4 = [0, 0x0a09_0000, 0x0a09_0100, 0x6440_0000, 0x6440_0001, 0x6440_0002, 0x6440_0100, u32::MAX];
    let top = |high: u32, next: u32, low: u32| [high << 16, next, 0, low];
    let starts6 = [
        [0; 4],
        top(0xfd09, 0, 0),
        top(0xfd09, 1, 0),
        top(0xfd64, 0, 0),
        top(0xfd64, 0, 1),
        top(0xfd64, 0, 2),
        top(0xfd64, 1, 0),
        [u32::MAX; 4],
    ];
    let mut image = Builder { words: vec![0; HEADER] };
    image.section(header::SRC4_LEN, header::SRC4, 1, &[0]);
    image.section(header::SRC4_LEN, header::SRC4_CLASS, 1, &[1]);
    image.section(header::SRC6_LEN, header::SRC6, 1, &[0; 4]);
    image.section(header::SRC6_LEN, header::SRC6_CLASS, 1, &[1]);
    image.section(header::DST4_LEN, header::DST4, 8, &starts4);
    image.section(header::DST4_LEN, header::DST4_CLASS, 8, &classes);
    image.section(header::DST6_LEN, header::DST6, 8, starts6.as_flattened());
    image.section(header::DST6_LEN, header::DST6_CLASS, 8, &classes);
    image.section(header::ROWS_LEN, header::ROWS, 2, &[0, 1]);
    let mut pages = [0; 2 * LINE];
    pages[LINE] = 1;
    image.section(header::PAGES_LEN, header::PAGES, 2, &pages);
    let mut blocks = [0; 2 * LINE];
    blocks[LINE + SITE as usize..=LINE + REMOTE as usize].fill(cell);
    image.section(header::BLOCKS_LEN, header::BLOCKS, 2, &blocks);
    image.section(header::SERVICES_LEN, header::SERVICES, 0, &[]);
    let attributes = [0, Attributes::ROUTED | masquerade, Attributes::LOCAL, Attributes::REMOTE];
    let classes = [0, 1, 2, 3].map(|class: u32| [attributes[class as usize], class]);
    image.section(header::CLASSES_LEN, header::CLASSES, 4, classes.as_flattened());
    for (length, offset) in [
        (header::ROW_LISTS_LEN, header::ROW_LISTS),
        (header::COLUMN_LISTS_LEN, header::COLUMN_LISTS),
        (header::RANKS_LEN, header::RANKS),
    ] {
        image.section(length, offset, 0, &[]);
    }
    image.finish()
}

struct Builder {
    words: Vec<u32>,
}

impl Builder {
    /// Appends a section whose length goes into header word `length` and whose offset into `offset`.
    fn section(&mut self, length: usize, offset: usize, len: u32, words: &[u32]) {
        self.words[length] = len;
        self.words[offset] = self.words.len() as u32;
        self.words.extend(words);
        self.words.resize(self.words.len().next_multiple_of(LINE), 0);
    }

    fn finish(mut self) -> Image {
        self.words[header::MAGIC] = MAGIC;
        self.words[header::LAYOUT] = LAYOUT;
        self.words[header::WORDS] = self.words.len() as u32;
        self.words[header::COLUMNS_LEN] = 4;
        self.words[header::ROW_PAGES] = 1;
        self.words[header::RULE_SLOTS] = 1;
        self.words[header::ROUTES] = 1;
        Image { words: self.words, ..Image::default() }
    }
}
