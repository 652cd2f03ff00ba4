//! Engine types as map keys and values.

use sluicegate_engine::capture::Filter;
use sluicegate_engine::family::{Address4, Address6};
use sluicegate_engine::flow::{Flow, Key};
use sluicegate_engine::guard::Guard;
use sluicegate_engine::hop::Wire;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey};
use sluicegate_engine::tables::{Config, Egress};

/// A `repr(C)` engine type without padding, as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

/// Types made of integers and byte arrays only, whose sizes the engine asserts: every byte is a field.
pub(super) trait Plain: Copy + 'static {}
impl Plain for Config {}
impl Plain for Egress {}
impl Plain for Address4 {}
impl Plain for Address6 {}
impl Plain for Openings {}
impl Plain for Filter {}
impl Plain for Guard {}
impl Plain for Wire {}
impl<A: Copy + 'static> Plain for Key<A> {}
impl<A: Copy + 'static> Plain for Flow<A> {}
impl<A: Copy + 'static> Plain for MappingKey<A> {}
impl<A: Copy + 'static> Plain for Mapping<A> {}

// SAFETY: transparent over a type without padding for which every bit pattern is valid.
unsafe impl<T: Plain> aya::Pod for Raw<T> {}
