//! Judging a packet by an image: the four look-ups of [`crate::image`], the same code in the kernel and in user space.

use crate::flow::Side;
use crate::image::{Attributes, Decision, INTERVALS_LOG_MAX, LINE, SERVICE_LOG_MAX, header};

/// One 64-byte line of an image.
pub type Line = [u32; LINE];

/// Reads lines of one image. A line that is not there reads as `None`, and whatever was sought is denied.
pub trait Lines {
    /// Line `index` of the image.
    fn line(&self, index: u32) -> Option<&Line>;

    /// Word `index` of the image; 0 where there is none.
    #[inline(always)]
    fn word(&self, index: u32) -> u32 {
        match self.line(index / LINE as u32) {
            Some(line) => line[index as usize % LINE],
            None => 0,
        }
    }

    /// All ones when `a <= b`, else 0: a mask instead of a branch. A branching search is three times slower, and doubles
    /// the verifier's states at every step. A method because compilers see through the arithmetic and make a branch of it
    /// after all, where their idea of the processor says so: the kernel's implementation is in assembly.
    #[inline(always)]
    fn le_mask(&self, a: u32, b: u32) -> u32 {
        // The sign of b - a, spread over the word, is the inverse of the mask.
        !((i64::from(b) - i64::from(a)) >> 63) as u32
    }

    /// Index of the last of `len` (a power of two) IPv4 intervals that starts at or below `key`. The three searches are
    /// methods so that the kernel can verify each once, as a function of its own: inline, their exits would multiply.
    #[inline(always)]
    fn search4(&self, starts: u32, len: u32, key: u32) -> u32 {
        search4(self, starts, len, key)
    }

    /// The same for IPv6.
    #[inline(always)]
    fn search6(&self, starts: u32, len: u32, key: Wide) -> u32 {
        search6(self, starts, len, key)
    }

    /// The decision of the last of 2^`log` service entries that starts at or below `axis`.
    #[inline(always)]
    fn search_services(&self, set: u32, log: u32, axis: u32) -> u32 {
        search_services(self, set, log, axis)
    }
}

impl Lines for [Line] {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        self.get(index as usize)
    }
}

/// An IPv6 address or interval start as two host-order halves, most significant first.
pub type Wide = (u64, u64);

/// What an image says about one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The deciding rule, if any.
    pub decision: Decision,
    /// How the destination is reached.
    pub attributes: Attributes,
    /// Whose the source address is.
    pub source: Source,
}

/// Whose a source address is: of a peer, of the agent itself, of either as far as the image says, or of nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source(pub(crate) u8);

impl Source {
    const PEER: u8 = 1;
    const OWN: u8 = 2;

    #[inline(always)]
    const fn of(class: u32, own: u32) -> Self {
        Self(match class {
            0 => 0,
            _ if own == 0 => Self::PEER | Self::OWN,
            class if class == own => Self::OWN,
            _ => Self::PEER,
        })
    }

    /// Whether a flow with this source may be opened from a side: from the host with its own address, from the overlay
    /// with a peer's. Anything else is spoofed.
    #[inline(always)]
    pub const fn may_open(self, side: Side) -> bool {
        match side {
            Side::Overlay => self.0 & Self::PEER != 0,
            Side::Local => self.0 & Self::OWN != 0,
            Side::Site => false,
        }
    }
}

/// Judges an IPv4 packet. Addresses in host order; `axis` is the folded protocol and port ([`crate::image::axis`]).
#[inline(always)]
pub fn classify4(image: &(impl Lines + ?Sized), source: u32, destination: u32, axis: u32) -> Judgement {
    let Some(head) = image.line(0) else { return Judgement::default() };
    let host = source.wrapping_sub(head[header::HOSTS4_BASE]);
    let source_class = if host < head[header::HOSTS4_LEN] {
        image.word(head[header::HOSTS4].wrapping_add(host))
    } else {
        let i = image.search4(head[header::SRC4], head[header::SRC4_LEN], source);
        image.word(head[header::SRC4_CLASS].wrapping_add(i))
    };
    let i = image.search4(head[header::DST4], head[header::DST4_LEN], destination);
    let destination_class = image.word(head[header::DST4_CLASS].wrapping_add(i));
    judge(image, source_class, destination_class, axis)
}

/// Judges an IPv6 packet; otherwise as [`classify4`].
#[inline(always)]
pub fn classify6(image: &(impl Lines + ?Sized), source: Wide, destination: Wide, axis: u32) -> Judgement {
    let Some(head) = image.line(0) else { return Judgement::default() };
    let i = image.search6(head[header::SRC6], head[header::SRC6_LEN], source);
    let source_class = image.word(head[header::SRC6_CLASS].wrapping_add(i));
    let dst_len = head[header::DST6_LEN];
    let Some(head) = image.line(1) else { return Judgement::default() };
    let i = image.search6(head[header::DST6 - LINE], dst_len, destination);
    let destination_class = image.word(head[header::DST6_CLASS - LINE].wrapping_add(i));
    judge(image, source_class, destination_class, axis)
}

#[inline(always)]
fn judge(image: &(impl Lines + ?Sized), source: u32, destination: u32, axis: u32) -> Judgement {
    let Some(head) = image.line(1) else { return Judgement::default() };
    let attributes = Attributes(image.word(head[header::ATTRIBUTES - LINE].wrapping_add(destination)));
    let row = source.wrapping_mul(head[header::ROW_BLOCKS - LINE]).wrapping_add(destination / LINE as u32);
    let block = image.word(head[header::ROWS - LINE].wrapping_add(row));
    let first = head[header::BLOCKS - LINE].wrapping_add(block.wrapping_mul(LINE as u32));
    let cell = image.word(first.wrapping_add(destination % LINE as u32));
    let decision = if cell == 0 || Decision(cell).is_set() {
        Decision(cell)
    } else {
        let entry = image.search_services(
            head[header::SERVICES - LINE].wrapping_add((cell >> 4) * 16),
            cell & 15,
            axis,
        );
        Decision(entry)
    };
    let source = Source::of(source, head[header::OWN - LINE]);
    Judgement { decision, attributes, source }
}

/// [`Lines::search4`], for whoever implements it.
#[inline(always)]
pub fn search4(image: &(impl Lines + ?Sized), starts: u32, len: u32, key: u32) -> u32 {
    let mut index = 0;
    let mut step = len / 2;
    for _ in 0..INTERVALS_LOG_MAX {
        if step == 0 {
            break;
        }
        let Some(start) = at(image, starts.wrapping_add(index).wrapping_add(step)) else { return 0 };
        index = index.wrapping_add(step & image.le_mask(start, key));
        step /= 2;
    }
    index
}

/// [`Lines::search6`], for whoever implements it.
#[inline(always)]
pub fn search6(image: &(impl Lines + ?Sized), starts: u32, len: u32, key: Wide) -> u32 {
    let mut index = 0u32;
    let mut step = len / 2;
    for _ in 0..INTERVALS_LOG_MAX {
        if step == 0 {
            break;
        }
        let Some(start) = wide(image, starts.wrapping_add(index.wrapping_add(step).wrapping_mul(4))) else {
            return 0;
        };
        index = index.wrapping_add(step & wide_le_mask(start, key));
        step /= 2;
    }
    index
}

/// The word at `offset`. A search gives up at once where an image ends early: going on with a made-up value would give
/// the verifier two states per step.
#[inline(always)]
fn at(image: &(impl Lines + ?Sized), offset: u32) -> Option<u32> {
    image.line(offset / LINE as u32).map(|line| line[offset as usize % LINE])
}

/// The four-word start at `offset`. Starts are aligned to four words, so one never crosses a line.
#[inline(always)]
fn wide(image: &(impl Lines + ?Sized), offset: u32) -> Option<Wide> {
    let line = image.line(offset / LINE as u32)?;
    let i = (offset as usize % LINE) & !3;
    let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    Some((join(line[i], line[i + 1]), join(line[i + 2], line[i + 3])))
}

#[inline(always)]
const fn wide_le_mask(a: Wide, b: Wide) -> u32 {
    // The borrow of b - a over both halves is 1 exactly when a > b. Written out, because the compiler turns comparisons
    // of 64-bit halves into branches.
    let low = borrow(b.1, a.1, b.1.wrapping_sub(a.1));
    let high = borrow(b.0, a.0, b.0.wrapping_sub(a.0).wrapping_sub(low));
    (high as u32).wrapping_sub(1)
}

/// The borrow out of `x - y` (and a borrow in), given the difference `d`: the full subtractor's.
#[inline(always)]
const fn borrow(x: u64, y: u64, d: u64) -> u64 {
    ((!x & y) | ((!x | y) & d)) >> 63
}

/// [`Lines::search_services`], for whoever implements it.
#[inline(always)]
pub fn search_services(image: &(impl Lines + ?Sized), set: u32, log: u32, axis: u32) -> u32 {
    let mut index = 0u32;
    let mut step = (1u32 << (log & 15)) / 2;
    for _ in 0..SERVICE_LOG_MAX {
        if step == 0 {
            break;
        }
        let Some(start) = at(image, set.wrapping_add(index.wrapping_add(step).wrapping_mul(2))) else {
            return 0;
        };
        index = index.wrapping_add(step & image.le_mask(start, axis));
        step /= 2;
    }
    image.word(set.wrapping_add(index.wrapping_mul(2)).wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_agree_with_comparison() {
        let edges = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX];
        for a in edges {
            for b in edges {
                let lines: &[Line] = &[];
                assert_eq!(lines.le_mask(a, b), if a <= b { u32::MAX } else { 0 }, "{a} {b}");
                let wide = |x: u32| (u64::from(x) << 32, u64::from(x));
                assert_eq!(wide_le_mask(wide(a), wide(b)) == u32::MAX, a <= b);
                assert_eq!(wide_le_mask((7, u64::from(a)), (7, u64::from(b))) == u32::MAX, a <= b);
            }
        }
    }
}
