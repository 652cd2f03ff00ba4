//! Builds the gateway's programs and the traffic programs.

fn main() {
    sluicegate_ebpf_toolchain::build_objects_for_cargo(&["traffic"]);
}
