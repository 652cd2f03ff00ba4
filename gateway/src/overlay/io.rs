//! Where decrypted packets go and packets to encrypt come from: a TUN device, or a user-space datapath's channels.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use gotatun::packet::{Ip, Packet, PacketBufPool};
use gotatun::tun::{IpRecv, IpSend, MtuWatcher};
use tokio::sync::mpsc;

use super::probe::Probes;
use super::questions::Questions;
use crate::tun::Tun;

/// Packets taken from the device in one go before they are encrypted.
const BATCH: usize = 32;

/// The host's side of the overlay.
pub enum HostSide {
    /// The host's stack and the kernel datapath, through a TUN device.
    Tun(Tun),
    /// A datapath in this process.
    Channels(PacketChannels),
}

/// Whole IP packets between the overlay and a datapath in this process.
pub struct PacketChannels {
    /// Decrypted packets. A full channel holds the overlay back.
    pub to_host: mpsc::Sender<Vec<u8>>,
    /// Packets to encrypt.
    pub from_host: mpsc::Receiver<Vec<u8>>,
}

/// The overlay's end towards the host: takes out what is the agents' own, hands everything else on.
pub(super) struct ToHost {
    to: To,
    probes: Arc<Probes>,
    questions: Arc<Questions>,
}

/// The overlay's end from the host, with what is the agent's own mixed in.
pub(super) struct FromHost {
    from: From,
    own: mpsc::Receiver<Vec<u8>>,
    batch: Vec<Packet<Ip>>,
    mtu: MtuWatcher,
}

enum To {
    Tun(Tun),
    Channel(mpsc::Sender<Vec<u8>>),
}

enum From {
    Tun(Tun),
    Channel(mpsc::Receiver<Vec<u8>>),
}

/// Both ends of `host`; `out` yields the probes and questions to send.
pub(super) fn split(
    host: HostSide,
    mtu: u16,
    probes: Arc<Probes>,
    questions: Arc<Questions>,
    out: mpsc::Receiver<Vec<u8>>,
) -> (ToHost, FromHost) {
    let (to, from) = match host {
        HostSide::Tun(tun) => (To::Tun(tun.clone()), From::Tun(tun)),
        HostSide::Channels(PacketChannels { to_host, from_host }) => {
            (To::Channel(to_host), From::Channel(from_host))
        }
    };
    (
        ToHost { to, probes, questions },
        FromHost { from, own: out, batch: Vec::with_capacity(BATCH), mtu: MtuWatcher::new(mtu) },
    )
}

impl IpSend for ToHost {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        let packet = packet.into_bytes();
        if self.probes.consume(&packet) || self.questions.consume(&packet) {
            return Ok(());
        }
        match &self.to {
            To::Tun(tun) => match tun.send(&packet).await {
                // The device is down, or the host finds the packet malformed: this packet is lost, the link is not.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => Ok(()),
                sent => sent,
            },
            To::Channel(channel) => {
                channel.send(packet.to_vec()).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
        }
    }
}

impl IpRecv for FromHost {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        while self.batch.is_empty() {
            tokio::select! {
                Some(own) = self.own.recv() => self.batch.extend(ip(&own)),
                received = self.from.recv(pool, &mut self.batch) => received?,
            }
        }
        Ok(self.batch.drain(..))
    }

    fn mtu(&self) -> MtuWatcher {
        self.mtu.clone()
    }
}

impl From {
    async fn recv(&mut self, pool: &PacketBufPool, batch: &mut Vec<Packet<Ip>>) -> io::Result<()> {
        match self {
            Self::Tun(tun) => {
                let mut buffer = pool.get();
                let mut n = tun.recv(&mut buffer).await?;
                loop {
                    buffer.truncate(n);
                    batch.extend(buffer.try_into_ip().ok());
                    if batch.len() >= BATCH {
                        return Ok(());
                    }
                    buffer = pool.get();
                    match tun.try_recv(&mut buffer) {
                        Ok(more) => n = more,
                        // Whatever is wrong, the next wait for the device says it again.
                        Err(_) => return Ok(()),
                    }
                }
            }
            Self::Channel(channel) => {
                let Some(packet) = channel.recv().await else {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                };
                batch.extend(ip(&packet));
                Ok(())
            }
        }
    }
}

fn ip(packet: &[u8]) -> Option<Packet<Ip>> {
    Packet::from_bytes(BytesMut::from(packet)).try_into_ip().ok()
}
