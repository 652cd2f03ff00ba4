//! Builds the eBPF programs from `gateway-ebpf/` and leaves the object at `$OUT_DIR/sluicegate`.

fn main() {
    sluicegate_ebpf_toolchain::build_for_cargo();
}
