//! What fuzz targets do with bytes. The targets of `fuzz/` and the test that replays their corpora are thin: all is here.
//!
//! A target panics where something does not hold.

mod engine;
mod image;
mod parse;

pub use engine::{Tale, engine};
pub use image::image;
pub use parse::parse;

/// A target's function.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also its corpus's directory in `fuzz/corpus/`.
pub const TARGETS: [(&str, Target); 3] = [("parse", parse), ("engine", engine), ("image", image)];
