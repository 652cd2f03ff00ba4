#![no_std]
#![no_main]
use aya_ebpf::{macros::{classifier, xdp}, programs::{TcContext, XdpContext}, bindings::{TC_ACT_OK, xdp_action}};
#[classifier]
pub fn t(_c: TcContext) -> i32 { TC_ACT_OK as i32 }
#[xdp]
pub fn x(_c: XdpContext) -> u32 { xdp_action::XDP_PASS }
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }
