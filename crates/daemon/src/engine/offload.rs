//! Which offloads are in use. They are chosen when the daemon starts. The engine gives one up when the kernel refuses what
//! it offered. Status and metrics show them.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A way to hand a whole train to the kernel or to receive one, instead of single packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// TCP super-packets between the kernel and us.
    TunTcp,
    /// UDP super-packets between the kernel and us (Linux 6.2).
    TunUdp,
    /// The kernel cuts trains of outer datagrams (UDP_SEGMENT).
    UdpSegmentation,
    /// The kernel joins outer datagrams (UDP_GRO).
    UdpCoalescing,
}

/// The state of an offload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OffloadState {
    /// In use.
    On,
    /// Switched off in the config.
    #[default]
    Off,
    /// This kernel does not have it.
    Unavailable,
    /// It was in use until the kernel refused.
    FallenBack,
}

/// The state of every offload. The part that finds out writes it, and anyone may read it at any time.
#[derive(Debug)]
pub struct Offloads([AtomicU8; Offload::ALL.len()]);

impl Offload {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TunTcp, Self::TunUdp, Self::UdpSegmentation, Self::UdpCoalescing];

    /// Its name in `overlay status --json` and in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TunTcp => "tun_tcp",
            Self::TunUdp => "tun_udp",
            Self::UdpSegmentation => "udp_segmentation",
            Self::UdpCoalescing => "udp_coalescing",
        }
    }
}

impl OffloadState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::On, Self::Off, Self::Unavailable, Self::FallenBack];

    /// Its name in `overlay status --json` and in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unavailable => "unavailable",
            Self::FallenBack => "fallen_back",
        }
    }

    /// Returns the state at the start: whether the config wants the offload, and whether the kernel provides it.
    pub fn at_start(is_wanted: bool, is_there: bool) -> Self {
        match (is_wanted, is_there) {
            (_, true) => Self::On,
            (false, false) => Self::Off,
            (true, false) => Self::Unavailable,
        }
    }
}

impl Default for Offloads {
    fn default() -> Self {
        Self(Offload::ALL.map(|_| AtomicU8::new(OffloadState::default() as u8)))
    }
}

impl Offloads {
    /// Records the state of an offload.
    pub fn set(&self, offload: Offload, state: OffloadState) {
        self.0[offload as usize].store(state as u8, Relaxed);
    }

    /// Records that the kernel refused an offload. Changes only one that was in use.
    pub fn on_fallen_back(&self, offload: Offload) {
        if self.state(offload) == OffloadState::On {
            self.set(offload, OffloadState::FallenBack);
        }
    }

    /// Returns the state of an offload.
    pub fn state(&self, offload: Offload) -> OffloadState {
        let stored = self.0[offload as usize].load(Relaxed);
        OffloadState::ALL.into_iter().find(|state| *state as u8 == stored).unwrap_or_default()
    }

    /// Lists all offloads with their states.
    pub fn list(&self) -> impl Iterator<Item = (Offload, OffloadState)> {
        Offload::ALL.into_iter().map(|offload| (offload, self.state(offload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_kept_for_each() {
        let offloads = Offloads::default();
        assert!(offloads.list().all(|(_, state)| state == OffloadState::Off));
        for (offload, state) in Offload::ALL.into_iter().zip(OffloadState::ALL) {
            offloads.set(offload, state);
        }
        let listed: Vec<_> = offloads.list().map(|(offload, state)| (offload.name(), state.name())).collect();
        let expected = [
            ("tun_tcp", "on"),
            ("tun_udp", "off"),
            ("udp_segmentation", "unavailable"),
            ("udp_coalescing", "fallen_back"),
        ];
        assert_eq!(listed, expected);
    }

    #[test]
    fn names_are_those_of_the_json() {
        for state in OffloadState::ALL {
            assert_eq!(serde_json::to_value(state).expect("a word"), state.name());
        }
    }

    #[test]
    fn only_what_is_in_use_falls_back() {
        for (before, after) in [
            (OffloadState::On, OffloadState::FallenBack),
            (OffloadState::Off, OffloadState::Off),
            (OffloadState::Unavailable, OffloadState::Unavailable),
        ] {
            let offloads = Offloads::default();
            offloads.set(Offload::TunTcp, before);
            offloads.on_fallen_back(Offload::TunTcp);
            assert_eq!(offloads.state(Offload::TunTcp), after);
        }
    }

    #[test]
    fn the_config_decides_only_what_the_kernel_offers() {
        let states = [true, false].map(|is_wanted| OffloadState::at_start(is_wanted, false));
        assert_eq!(states, [OffloadState::Unavailable, OffloadState::Off]);
        assert_eq!(OffloadState::at_start(true, true), OffloadState::On);
    }
}
