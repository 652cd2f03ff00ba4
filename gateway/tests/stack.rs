//! How much of the stack the kernel's programs use: read off their instructions, as the verifier counts it, so that it can be
//! held without a kernel. Linux gives a program and all it calls 512 bytes.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluicegate"));

/// The register that holds a function's frame; what it puts there is below.
const FRAME: u8 = 10;
/// Instruction classes and codes (include/uapi/linux/bpf.h, bpf_common.h).
const CLASS: u8 = 0x07;
const WIDE_LOAD: u8 = 0x18;
const CALL: u8 = 0x85;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
/// `src_reg` of a call of another function of the object.
const PSEUDO_CALL: u8 = 1;

/// What a program needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stack {
    /// Bytes of the one of its functions that needs most.
    function: u32,
    /// Bytes of the chain of calls that needs most, each function in whole frames of 32 bytes.
    chain: u32,
    /// The same in frames of 16.
    compact: u32,
}

/// Every program stays below what `verifier-budget.toml` says. The lines that are printed are what is counted.
#[test]
fn programs_stay_below_the_ceiling_of_their_stack() {
    let ceilings: toml::Table = include_str!("verifier-budget.toml").parse().unwrap();
    let mut object = Object::parse(OBJECT).unwrap();
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).unwrap();
    let stacks: BTreeMap<&String, Stack> = object
        .programs
        .iter()
        .map(|(name, program)| (name, needed(&object.functions[&program.function_key()].instructions)))
        .collect();
    assert!(!stacks.is_empty());
    let mut above = Vec::new();
    for (name, stack) in stacks {
        let Stack { function, chain, compact } = stack;
        println!(
            "stack {name} {function} in one function, {chain} in a chain of calls, {compact} of newer kernels"
        );
        let may = |what: &str| ceilings.get(name)?.get("stack")?.get(what)?.as_integer();
        for (what, counted) in [("function", function), ("chain", chain), ("compact", compact)] {
            if may(what).is_none_or(|most| i64::from(counted) > most) {
                above.push(format!("{name}: {counted} by {what}, and it may be {:?}", may(what)));
            }
        }
    }
    assert!(above.is_empty(), "bytes of stack: {}", above.join("; "));
}

/// What a program needs that begins with the first of these instructions, and whose functions follow one behind the other.
fn needed(instructions: &[bpf_insn]) -> Stack {
    let calls = calls(instructions);
    let starts: BTreeSet<usize> = calls.iter().map(|(_, callee)| *callee).chain([0]).collect();
    let mut functions = BTreeMap::new();
    for (start, end) in starts.iter().zip(starts.iter().skip(1).chain([&instructions.len()])) {
        let own = depth(&instructions[*start..*end]);
        let callees: BTreeSet<usize> =
            calls.iter().filter(|(at, _)| (*start..*end).contains(at)).map(|(_, callee)| *callee).collect();
        functions.insert(*start, (own, callees));
    }
    let function = functions.values().map(|(own, _)| *own).max().unwrap_or(0);
    Stack { function, chain: chain(&functions, 0, 32), compact: chain(&functions, 0, 16) }
}

/// Where functions of the object are called, and where these begin.
fn calls(instructions: &[bpf_insn]) -> Vec<(usize, usize)> {
    let called =
        instructions.iter().enumerate().filter(|(_, i)| i.code == CALL && i.src_reg() == PSEUDO_CALL);
    called.map(|(at, i)| (at, at.checked_add_signed(i.imm as isize + 1).unwrap())).collect()
}

/// As `check_max_stack_depth` of Linux 6.1 adds up (kernel/bpf/verifier.c): whole frames of 32 bytes, and one for a function that
/// needs none. Newer ones with a compiler count frames of 16.
fn chain(functions: &BTreeMap<usize, (u32, BTreeSet<usize>)>, start: usize, frame: u32) -> u32 {
    let (own, callees) = &functions[&start];
    let below = callees.iter().map(|callee| chain(functions, *callee, frame)).max().unwrap_or(0);
    (*own).max(1).next_multiple_of(frame) + below
}

/// The lowest byte below the frame's end that a function reads, writes or points to.
fn depth(instructions: &[bpf_insn]) -> u32 {
    let mut deepest = 0;
    // Registers that point into the frame, and how far below its end.
    let mut pointers: [Option<i64>; 11] = [None; 11];
    pointers[usize::from(FRAME)] = Some(0);
    let mut skip = false;
    for i in instructions {
        if std::mem::take(&mut skip) {
            continue;
        }
        let (to, from) = (usize::from(i.dst_reg()), usize::from(i.src_reg()));
        let touched = match i.code & CLASS {
            // LDX; ST and STX, atomics too.
            1 => pointers[from],
            2 | 3 => pointers[to],
            _ => None,
        };
        deepest = deepest.max(touched.map_or(0, |at| -(at + i64::from(i.off))));
        match (i.code, i.code & CLASS) {
            (MOVE, _) => pointers[to] = pointers[from],
            (ADD, _) => pointers[to] = pointers[to].map(|at| at + i64::from(i.imm)),
            (WIDE_LOAD, _) => (pointers[to], skip) = (None, true),
            (CALL, _) => pointers[..6].fill(None),
            // Loads and arithmetic make something else of a register.
            (_, 0 | 1 | 4 | 7) => pointers[to] = None,
            _ => {}
        }
        pointers[usize::from(FRAME)] = Some(0);
        deepest = deepest.max(pointers[to].map_or(0, |at| -at));
    }
    u32::try_from(deepest).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
        let mut i = bpf_insn { code, _bitfield_align_1: [], _bitfield_1: Default::default(), off, imm };
        i.set_dst_reg(to);
        i.set_src_reg(from);
        i
    }

    #[test]
    fn frames_add_up_along_the_deepest_chain() {
        const STORE: u8 = 0x7b;
        const EXIT: u8 = 0x95;
        let store = |off| instruction(STORE, FRAME, 1, off, 0);
        let call = |imm| instruction(CALL, 0, PSEUDO_CALL, 0, imm);
        let exit = instruction(EXIT, 0, 0, 0, 0);
        let program = [
            store(-40), // 0: 40 bytes, 64 in whole frames
            call(2),    // to 4
            call(4),    // to 7
            exit,
            instruction(MOVE, 2, FRAME, 0, 0), // 4: a pointer 100 bytes below
            instruction(ADD, 2, 0, 0, -100),
            exit,
            instruction(MOVE, 2, FRAME, 0, 0), // 7: nothing of its own, and calls 4
            call(-5),
            exit,
        ];
        assert_eq!(needed(&program), Stack { function: 100, chain: 64 + 32 + 128, compact: 48 + 16 + 112 });
        assert_eq!(depth(&[instruction(MOVE, 2, 1, 0, 0), instruction(ADD, 2, 0, 0, -100)]), 0);
    }
}
