//! The engine over the smallest surroundings there can be, which let another processor in wherever they are used.

mod carried;
mod conformance;
mod host;
mod races;
mod world;
