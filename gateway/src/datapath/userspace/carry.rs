//! Carries packets between the overlay, the host and the site, past the judge.

use std::io;
use std::sync::Arc;

use sluicegate_engine::flow::Side;
use sluicegate_engine::packet::Slice;
use tokio::sync::mpsc;

use super::judge::{Fate, Judge};
use super::offload::{Whole, segments};
use super::site::{Arrived, SiteReceiver};
use crate::tun::Tun;

/// Packets of the overlay: decrypted ones in, ones to encrypt out.
pub(super) async fn from_overlay(
    judge: Arc<Judge>,
    mut decrypted: mpsc::Receiver<Vec<u8>>,
    tun: Tun,
    overlay: mpsc::WeakSender<Vec<u8>>,
) {
    while let Some(mut packet) = decrypted.recv().await {
        let mut whole = Whole::new(&mut packet, 0);
        match judge.judge(&mut whole, Side::Overlay) {
            Fate::Done => {}
            Fate::Back => {
                let (answer, overlay) = (whole.into_answer(), overlay.upgrade());
                if let (Some(answer), Some(overlay)) = (answer, overlay)
                    && overlay.try_send(answer).is_err()
                {
                    judge.unsent("to the overlay: its queue is full");
                }
            }
            Fate::Host => match tun.send(&packet).await {
                Ok(()) => {}
                // The device is gone, which whoever reads it finds out too; anything else concerns this packet alone.
                Err(e) if e.raw_os_error() == Some(libc::EBADFD) => return,
                Err(e) => judge.unsent(format_args!("to this host: {e}")),
            },
            Fate::Site(sender) => {
                if let Err(e) = sender.send(&packet) {
                    judge.unsent(format_args!("to the site: {e}"));
                }
            }
            // Without waiting: what is encrypted must not hold up what is decrypted.
            Fate::Overlay => {
                if let Some(overlay) = overlay.upgrade()
                    && overlay.try_send(packet).is_err()
                {
                    judge.unsent("to the overlay: its queue is full");
                }
            }
        }
    }
}

/// Packets the host sends into the overlay. Returns when the device is gone; the overlay's queue closes with it, since this
/// is its only lasting sender.
pub(super) async fn from_host(judge: Arc<Judge>, tun: Tun, overlay: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = match tun.recv(&mut buffer).await {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                tracing::warn!("the overlay device {} cannot be read any more: {e}", tun.name());
                return;
            }
        };
        let packet = &mut buffer[..length];
        match judge.judge(&mut Slice(packet), Side::Local) {
            // What the host sends is never answered: it has the overlay's MTU from the device.
            Fate::Done | Fate::Host | Fate::Back => {}
            Fate::Overlay => {
                if overlay.send(packet.to_vec()).await.is_err() {
                    return;
                }
            }
            Fate::Site(sender) => {
                if let Err(e) = sender.send(packet) {
                    judge.unsent(format_args!("to the site: {e}"));
                }
            }
        }
    }
}

/// Packets that arrive on the site device with this index. Returns when the overlay's queue closes, or the device is gone for good.
pub(super) async fn from_site(
    judge: Arc<Judge>,
    device: u32,
    mut receiver: SiteReceiver,
    overlay: mpsc::WeakSender<Vec<u8>>,
) {
    loop {
        let arrived = match receiver.recv().await {
            Ok(Some(arrived)) => arrived,
            Ok(None) => continue,
            Err(e) => match e.raw_os_error() {
                // The device is down, and may come up again; the kernel says so once.
                Some(libc::ENETDOWN | libc::EINTR | libc::ENOBUFS | libc::EAGAIN) => continue,
                // A packet with an offload that the kernel cannot describe.
                Some(libc::EINVAL) => {
                    judge.unsent("from the site: a packet with an unknown offload");
                    continue;
                }
                _ => {
                    tracing::warn!("a site device cannot be read any more: {e}");
                    return;
                }
            },
        };
        let Arrived { packet, cut } = arrived;
        let mut whole = Whole::new(packet, cut.map_or(0, |cut| cut.payload()));
        match judge.judge(&mut whole, Side::Site) {
            Fate::Overlay => {}
            Fate::Back => {
                let sent = match (whole.into_answer(), judge.sender(device)) {
                    (Some(answer), Some(sender)) => sender.send(&answer),
                    _ => Err(io::ErrorKind::NotConnected.into()),
                };
                if let Err(e) = sent {
                    judge.unsent(format_args!("back to the site: {e}"));
                }
                continue;
            }
            Fate::Done | Fate::Host | Fate::Site(_) => continue,
        }
        let Some(overlay) = overlay.upgrade() else { return };
        let Some(cut) = cut else {
            if overlay.send(packet.to_vec()).await.is_err() {
                return;
            }
            continue;
        };
        let Some(parts) = segments(packet, cut) else {
            judge.unsent("from the site: a large packet whose headers contradict each other");
            continue;
        };
        for part in parts {
            if overlay.send(part).await.is_err() {
                return;
            }
        }
    }
}
