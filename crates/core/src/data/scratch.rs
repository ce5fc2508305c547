//! Memory for one outbound packet at a time, and for the ICMP error that its sender gets if it does not fit.

use overlay_wire::icmp;
use overlay_wire::ip::{Packet, least_mtu};
use overlay_wire::offload::VirtioHeader;

use crate::context::Context;
use crate::data::allowed_ips::AllowedIps;
use crate::data::icmp_limit::{IcmpLimit, Refusal};
use crate::{Instant, PeerTag};

/// The size of the largest IP packet with its padding, in bytes.
const SCRATCH_LEN: usize = 65_536 + 16;

/// Memory for one packet at a time: the plaintext that is sealed next, and the ICMP error that is written back to TUN.
pub(crate) struct Scratch {
    pub(super) plaintext: Box<[u8]>,
    icmp: Vec<u8>,
    icmp_limit: IcmpLimit,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            plaintext: vec![0; SCRATCH_LEN].into(),
            icmp: Vec::with_capacity(1_280),
            icmp_limit: IcmpLimit::default(),
        }
    }
}

impl Scratch {
    /// Answers a refused packet with an ICMP error, if its sender may have one more of this kind.
    pub(super) fn answer(
        &mut self,
        refused: &Packet<'_>,
        refusal: Refusal,
        allowed_ips: &AllowedIps<PeerTag>,
        context: &mut Context,
        now: Instant,
    ) {
        let party = context.local.party(refused.source(), allowed_ips);
        if !self.icmp_limit.allows(refusal, party, now) {
            return;
        }
        let is_written = match refusal {
            Refusal::Unreachable => icmp::unreachable(refused, &mut self.icmp),
            Refusal::Prohibited => icmp::prohibited(refused, &mut self.icmp),
            Refusal::TooBig(mtu) => icmp::too_big(refused, mtu, &mut self.icmp),
        };
        if is_written {
            let error = context.outbox.copy(&self.icmp);
            context.outbox.packet(VirtioHeader::NONE, error);
        }
    }

    /// Answers a packet that is longer than a path carries, or at least its beginning.
    pub(super) fn answer_too_big(
        &mut self,
        refused: &[u8],
        mtu: usize,
        allowed_ips: &AllowedIps<PeerTag>,
        context: &mut Context,
        now: Instant,
    ) {
        let mtu = u16::try_from(least_mtu(refused, mtu)).unwrap_or(u16::MAX);
        if let Ok(refused) = Packet::parse(refused) {
            self.answer(&refused, Refusal::TooBig(mtu), allowed_ips, context, now);
        }
    }
}
