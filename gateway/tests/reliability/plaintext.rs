//! What is sent into the overlay is never seen unencrypted on the network below it.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use sluicegate_gateway::overlay::PeerSpec;
use sluicegate_gateway::tun::index_of;
use sluicegate_lab::{Lab, Namespace};

use crate::end::{End, PATIENCE, public};

/// What the datagrams say.
const MARK: &[u8] = b"in the clear, by all means";

/// CVE-2024-28250 and others (Cilium): before a peer is known, and after it is forgotten, packets left as they were.
#[test]
fn nothing_leaves_the_overlay_unencrypted_before_while_and_after_a_peer_is_known() {
    let lab = Lab::new().expect("these tests need root");
    let (gateway, peer) = (lab.namespace("gateway").unwrap(), lab.namespace("peer").unwrap());
    lab.veth((&gateway, "eth0"), (&peer, "eth0")).unwrap();
    gateway.address("eth0", "192.0.2.1/24").unwrap();
    peer.address("eth0", "192.0.2.2/24").unwrap();
    // Where a packet that finds no way into the overlay would go.
    gateway.route("default", "192.0.2.2").unwrap();
    let tap = Tap::at(&peer, "eth0");
    std::thread::scope(|scope| {
        let end_gateway = End::start(scope, &gateway, 1, ["100.90.0.1/16", "fd77::1/64"]);
        let end_peer = End::start(scope, &peer, 2, ["100.90.0.2/16", "fd77::2/64"]);
        speak(&gateway, "before a peer is known");
        let allowed = |v: [&str; 2]| v.iter().map(|a| a.parse().unwrap()).collect();
        let of_peer = PeerSpec {
            key: public(2),
            endpoint: Some("192.0.2.2:51820".parse().unwrap()),
            allowed: allowed(["100.90.0.2/32", "fd77::2/128"]),
            probe: "fd77::2".parse().ok(),
            watched: false,
        };
        let of_gateway = PeerSpec {
            key: public(1),
            endpoint: None,
            allowed: allowed(["100.90.0.1/32", "fd77::1/128"]),
            probe: None,
            watched: false,
        };
        end_peer.configure(&of_gateway);
        end_gateway.configure(&of_peer);
        end_gateway.link_when(|link| link.round_trip.is_some());
        speak(&gateway, "while it is");
        // The peer no longer has these addresses.
        end_gateway.configure(&PeerSpec { allowed: allowed(["100.90.0.3/32", "fd77::3/128"]), ..of_peer });
        speak(&gateway, "after it is forgotten");
    });
    // The readers are gone; the device and its routes are not.
    speak(&gateway, "when nobody reads the device");
    let (frames, marked) = tap.read();
    assert!(frames > 4, "WireGuard was not seen either: {frames} frames");
    assert!(marked.is_empty(), "of {frames} frames these were in the clear: {marked:#?}");
}

/// Sends marked datagrams to addresses of the overlay, of a peer and of nobody.
fn speak(from: &Namespace, when: &str) {
    let send = || {
        for (own, to) in
            [("100.90.0.1:0", ["100.90.0.2", "100.90.0.77"]), ("[fd77::1]:0", ["fd77::2", "fd77::77"])]
        {
            let socket = UdpSocket::bind(own).unwrap();
            for to in to {
                for _ in 0..5 {
                    // That there is nobody may be told the sender as an error.
                    let _ = socket
                        .send_to(&[MARK, when.as_bytes()].concat(), SocketAddr::new(to.parse().unwrap(), 9));
                }
            }
        }
    };
    from.enter(send).unwrap();
}

/// Sees every frame of a device.
struct Tap(socket2::Socket);

impl Tap {
    fn at(namespace: &Namespace, device: &str) -> Self {
        let open = || {
            // Receives nothing before it is bound, since it asks for no protocol.
            let socket = socket2::Socket::new(libc::AF_PACKET.into(), socket2::Type::RAW, None).unwrap();
            // SAFETY: plain old data for which zeros are valid.
            let mut at: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            at.sll_family = libc::AF_PACKET as u16;
            at.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            at.sll_ifindex = index_of(device).unwrap() as i32;
            // SAFETY: an address that lives through the call, with its length.
            let bound = unsafe {
                let length = size_of_val(&at) as libc::socklen_t;
                libc::bind(socket.as_raw_fd(), (&raw const at).cast(), length)
            };
            assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
            socket
        };
        let socket = namespace.enter(open).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        Self(socket)
    }

    /// How many frames were seen, and those that hold the mark.
    fn read(&self) -> (usize, Vec<String>) {
        use std::io::Read as _;
        let (mut frames, mut marked) = (0, Vec::new());
        let begun = Instant::now();
        let mut buffer = [0; 4096];
        // Until there has been nothing for a while.
        while let Ok(length) = (&self.0).read(&mut buffer) {
            frames += 1;
            let frame = &buffer[..length];
            if frame.windows(MARK.len()).any(|window| window == MARK) {
                marked.push(frame.escape_ascii().to_string());
            }
            assert!(begun.elapsed() < PATIENCE, "the frames do not end");
        }
        (frames, marked)
    }
}
