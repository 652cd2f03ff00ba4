//! The maps of each address family, and the engine's stages as global functions: each is verified once, with any arguments, and
//! finds the packet in hand in per-processor memory.

use aya_ebpf::bindings::BPF_NOEXIST;
use sluicegate_engine::family::{V4, V6};
use sluicegate_engine::flow::{Flow, Key};
use sluicegate_engine::fragment::{Datagram, DatagramKey};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::stage::{self, Outcome, Refusal};
use sluicegate_engine::tables::Stage;
use sluicegate_engine::work::Work;

use crate::judged::Judging;
use crate::maps::{
    FLOWS4, FLOWS6, FRAGMENTS4, FRAGMENTS6, HALF_OPEN4, HALF_OPEN6, SCRATCH4, SCRATCH6, WORK4, WORK6,
};
use crate::sources::Sources;
use crate::tables::Maps;

/// The maps of one address family.
pub trait PerFamily: Judging + Sources {
    fn get(stage: Stage, key: &Key<Self::Address>) -> Option<*mut Flow<Self::Address>>;
    fn insert(
        stage: Stage,
        key: &Key<Self::Address>,
        flow: &Flow<Self::Address>,
        flags: u64,
    ) -> Result<(), i32>;
    /// Whether it was there.
    fn remove(stage: Stage, key: &Key<Self::Address>) -> bool;
    fn scratch() -> Option<*mut Flow<Self::Address>>;
    /// Memory for the packet in hand.
    fn work() -> Option<&'static mut Work<Self::Address>>;
    /// The family's global function for each stage.
    fn renew(stage: u32) -> u64;
    fn meet(stage: u32) -> u64;
    fn advance(stage: u32) -> u64;
    fn admit() -> u64;
    fn count_opening(answered: u32) -> u64;
    fn claim(taken: u32) -> u64;
    fn join() -> u64;
    fn reserve() -> u64;
    fn insert_both() -> u64;
    fn relate() -> u64;
    fn follow(looking: u32) -> u64;
    fn remember() -> u64;
    fn datagram(key: &DatagramKey<Self::Address>) -> Option<*mut Datagram>;
    fn insert_datagram(key: &DatagramKey<Self::Address>, datagram: &Datagram) -> Result<(), i32>;
}

macro_rules! per_family {
    ($family:ty, $confirmed:ident, $half_open:ident, $scratch:ident, $work:ident, $renew:ident, $meet:ident, $advance:ident, $admit:ident, $opening:ident, $claim:ident, $reserve:ident, $insert:ident, $join:ident,
     $relate:ident, $follow:ident, $remember:ident, $fragments:ident) => {
        impl PerFamily for $family {
            #[inline(always)]
            fn get(stage: Stage, key: &Key<Self::Address>) -> Option<*mut Flow<Self::Address>> {
                match stage {
                    Stage::Confirmed => $confirmed.get_ptr_mut(key),
                    Stage::HalfOpen => $half_open.get_ptr_mut(key),
                }
            }

            #[inline(always)]
            fn insert(
                stage: Stage,
                key: &Key<Self::Address>,
                flow: &Flow<Self::Address>,
                flags: u64,
            ) -> Result<(), i32> {
                match stage {
                    Stage::Confirmed => $confirmed.insert(key, flow, flags),
                    Stage::HalfOpen => $half_open.insert(key, flow, flags),
                }
            }

            #[inline(always)]
            fn remove(stage: Stage, key: &Key<Self::Address>) -> bool {
                match stage {
                    Stage::Confirmed => $confirmed.remove(key),
                    Stage::HalfOpen => $half_open.remove(key),
                }
                .is_ok()
            }

            #[inline(always)]
            fn scratch() -> Option<*mut Flow<Self::Address>> {
                $scratch.get_ptr_mut(0)
            }

            #[inline(always)]
            fn work() -> Option<&'static mut Work<Self::Address>> {
                // SAFETY: the entry of this processor; the programs run with bottom halves off, so none interrupts another.
                $work.get_ptr_mut(0).map(|work| unsafe { &mut *work })
            }

            #[inline(always)]
            fn renew(stage: u32) -> u64 {
                $renew(stage)
            }

            #[inline(always)]
            fn meet(stage: u32) -> u64 {
                $meet(stage)
            }

            #[inline(always)]
            fn advance(stage: u32) -> u64 {
                $advance(stage)
            }

            #[inline(always)]
            fn admit() -> u64 {
                $admit()
            }

            #[inline(always)]
            fn count_opening(answered: u32) -> u64 {
                $opening(answered)
            }

            #[inline(always)]
            fn claim(taken: u32) -> u64 {
                $claim(taken)
            }

            #[inline(always)]
            fn join() -> u64 {
                $join()
            }

            #[inline(always)]
            fn reserve() -> u64 {
                $reserve()
            }

            #[inline(always)]
            fn insert_both() -> u64 {
                $insert()
            }

            #[inline(always)]
            fn relate() -> u64 {
                $relate()
            }

            #[inline(always)]
            fn follow(looking: u32) -> u64 {
                $follow(looking)
            }

            #[inline(always)]
            fn remember() -> u64 {
                $remember()
            }

            #[inline(always)]
            fn datagram(key: &DatagramKey<Self::Address>) -> Option<*mut Datagram> {
                $fragments.get_ptr_mut(key)
            }

            #[inline(always)]
            fn insert_datagram(key: &DatagramKey<Self::Address>, datagram: &Datagram) -> Result<(), i32> {
                $fragments.insert(key, datagram, u64::from(BPF_NOEXIST))
            }
        }

        /// A stage of the engine as a global function: verified once, with any arguments.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $renew(table: u32) -> u64 {
            in_work::<$family>(|maps, work| {
                stage::renew::<$family, _>(maps, work.side(), stage_of(table), work)
            })
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $meet(table: u32) -> u64 {
            in_work::<$family>(|maps, work| stage::meet::<$family, _>(maps, stage_of(table), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $advance(table: u32) -> u64 {
            in_work::<$family>(|maps, work| stage::advance::<$family, _>(maps, stage_of(table), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $admit() -> u64 {
            in_work::<$family>(|maps, work| stage::admit::<$family, _>(maps, work.side(), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $opening(answered: u32) -> u64 {
            in_work::<$family>(|maps, work| stage::count_opening::<$family, _>(maps, answered != 0, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $claim(taken: u32) -> u64 {
            in_work::<$family>(|maps, work| stage::claim::<$family, _>(maps, taken, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $join() -> u64 {
            in_work::<$family>(|maps, work| stage::join::<$family, _>(maps, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $reserve() -> u64 {
            in_work::<$family>(|maps, work| stage::reserve::<$family, _>(maps, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $insert() -> u64 {
            in_work::<$family>(|maps, work| stage::insert::<$family, _>(maps, work.side(), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $relate() -> u64 {
            in_work::<$family>(|maps, work| stage::relate::<$family, _>(maps, work.side(), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $follow(looking: u32) -> u64 {
            in_work::<$family>(|maps, work| stage::follow::<$family, _>(maps, looking != 0, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $remember() -> u64 {
            in_work::<$family>(|maps, work| stage::remember::<$family, _>(maps, work))
        }
    };
}

per_family!(
    V4, FLOWS4, HALF_OPEN4, SCRATCH4, WORK4, renew4, meet4, advance4, admit4, opening4, claim4, reserve4,
    insert4, join4, relate4, follow4, remember4, FRAGMENTS4
);
per_family!(
    V6, FLOWS6, HALF_OPEN6, SCRATCH6, WORK6, renew6, meet6, advance6, admit6, opening6, claim6, reserve6,
    insert6, join6, relate6, follow6, remember6, FRAGMENTS6
);

/// The table with this number.
#[inline(always)]
const fn stage_of(table: u32) -> Stage {
    if table == 0 { Stage::Confirmed } else { Stage::HalfOpen }
}

/// Runs a stage on the packet in hand.
#[inline(always)]
pub fn in_work<F: PerFamily>(
    stage: impl FnOnce(&mut Maps, &mut Work<F::Address>) -> Result<bool, Refusal>,
) -> u64 {
    let (Some(mut maps), Some(work)) = (Maps::new(), F::work()) else {
        return Outcome::from(Err(Refusal::from(DropReason::Internal))).0;
    };
    Outcome::from(stage(&mut maps, work)).0
}

/// Calls a stage's global function, which finds `work` by itself: for the compiler, `work` is in its hands meanwhile.
#[inline(always)]
pub fn lend<A>(work: &mut Work<A>, stage: impl FnOnce() -> u64) -> Result<bool, Refusal> {
    core::hint::black_box(&raw mut *work);
    Outcome(stage()).into()
}
