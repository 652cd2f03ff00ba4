//! Figures of the contract that other commands measure: a report without them would look whole.

use serde::Serialize;

/// One of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Elsewhere {
    /// What is asked.
    pub(crate) figure: &'static str,
    /// How much of it.
    pub(crate) target: &'static str,
    /// The command that measures it.
    pub(crate) command: &'static str,
}

/// All of them; what they came to stands in `bench/RESULTS.md`.
pub(crate) const ELSEWHERE: [Elsewhere; 10] = [
    Elsewhere {
        figure: "REST change to enforced, 1 gateway / 1,000 simulated gateways",
        target: "p99 <= 50 ms / <= 1 s",
        command: "cargo xtask bench control --output json",
    },
    Elsewhere {
        figure: "10,000 peers, 1,000 groups, 5,000 policies compiled for 100 gateways / one change",
        target: "<= 1 s / <= 10 ms",
        command: "cargo xtask bench control --output json",
    },
    Elsewhere {
        figure: "a revoked flow's last packet after the REST answer",
        target: "p99 <= 50 ms",
        command: "cargo xtask demo --once --output json",
    },
    Elsewhere {
        figure: "live router lost to traffic on the next / drained",
        target: "<= 300 ms / 0 packets lost",
        command: "cargo xtask demo --once --output json",
    },
    Elsewhere {
        figure: "agent killed and upgraded under load",
        target: "0 flows lost, ports kept, 0 denied packets passed",
        command: "cargo xtask nightly",
    },
    Elsewhere {
        figure: "random cases, naive = user space = kernel",
        target: ">= 10,000,000, 0 differences",
        command: "cargo xtask test --cases 10000000",
    },
    Elsewhere {
        figure: "random cases against nftables",
        target: ">= 10,000, 0 differences",
        command: "cargo test -p sluicegate-gateway --test nftables",
    },
    Elsewhere {
        figure: "a SYN flood, where this has one of UDP",
        target: "0 of 10,000 established flows lost",
        command: "cargo xtask nightly",
    },
    Elsewhere {
        figure: "the stack of every program",
        target: "<= 400 bytes",
        command: "cargo test -p sluicegate-gateway --test stack",
    },
    Elsewhere {
        figure: "verified instructions of every program, on 6.1, 6.12 and this kernel",
        target: "<= 60,000 in XDP, <= 80,000 in TC",
        command: "cargo xtask vm",
    },
];
