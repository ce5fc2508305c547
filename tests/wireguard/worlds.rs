//! The worlds in which most scenarios begin: two devices that know each other, on two hosts and a wire, or with
//! interfaces that were moved away from their sockets.

use super::device::{Device, Key};
use crate::lab::{A, B, Host, Lab, Outside, Pair};

/// The UDP port of the first device.
pub(crate) const A_PORT: u16 = 10_001;
/// The UDP port of the second device.
pub(crate) const B_PORT: u16 = 10_002;

/// One of the two sides.
pub(crate) struct Side {
    /// The side's device.
    pub(crate) device: Device,
    /// The side's key.
    pub(crate) key: Key,
    /// The host with its interface.
    pub(crate) host: Host,
}

/// Two devices that know each other's keys, but not their endpoints.
pub(crate) struct Two {
    /// The first side, with the virtual IPs of [`A`].
    pub(crate) a: Side,
    /// The second side, with the virtual IPs of [`B`].
    pub(crate) b: Side,
}

/// Two hosts and a wire, with the outer addresses of [`A`] and [`B`].
pub(crate) struct Wire {
    /// The devices.
    pub(crate) two: Two,
    /// Dropped last.
    pub(crate) pair: Pair,
}

/// The world of `netns.sh`. Both programs and their sockets are in the middle, where there is only a loopback. Their
/// interfaces were moved out, each to a host that has nothing else.
pub(crate) struct Apart {
    /// The devices.
    pub(crate) two: Two,
    /// The host with the sockets.
    pub(crate) middle: Host,
    /// Dropped last.
    pub(crate) lab: Lab,
}

impl Wire {
    /// Creates the world. `None` if this machine cannot.
    pub(crate) fn new(name: &str) -> Option<Wire> {
        let pair = Pair::new(name)?;
        let (a, b) = (Device::start(&pair.a), Device::start(&pair.b));
        let two = Two::configure(a, Key::of(&pair.a), b, Key::of(&pair.b));
        Some(Wire { two, pair })
    }

    /// Tells each side the other's endpoint.
    #[track_caller]
    pub(crate) fn join(&self, outside: Outside) {
        self.two.endpoints(&A.endpoint(outside, A_PORT), &B.endpoint(outside, B_PORT));
    }
}

impl Apart {
    /// Creates the world. `None` if this machine cannot.
    pub(crate) fn new(name: &str) -> Option<Apart> {
        let lab = Lab::new(name)?;
        let [middle, left, right] = ["middle", "a", "b"].map(|name| lab.host(name));
        let mut a = Device::start(&middle);
        let mut b = Device::second(&middle);
        a.move_to(&left);
        b.move_to(&right);
        let two = Two::configure(a, Key::of(&left), b, Key::of(&right));
        Some(Apart { two, middle, lab })
    }

    /// Tells each side the other's endpoint, on the loopback.
    #[track_caller]
    pub(crate) fn join(&self, outside: Outside) {
        let address = match outside {
            Outside::V4 => "127.0.0.1",
            Outside::V6 => "[::1]",
        };
        self.two.endpoints(&format!("{address}:{A_PORT}"), &format!("{address}:{B_PORT}"));
    }
}

impl Two {
    /// Gives both devices their keys, ports and addresses, and brings them up.
    #[track_caller]
    pub(crate) fn configure(a: Device, a_key: Key, b: Device, b_key: Key) -> Two {
        let host = a.host().clone();
        let preshared = host.write_secret("psk", &host.exec("wg genpsk"));
        let sides = [(&a, A, A_PORT, &a_key, B, &b_key), (&b, B, B_PORT, &b_key, A, &a_key)];
        for (device, own, port, key, far, far_key) in sides {
            for address in own.inner() {
                device.address(&address);
            }
            device.set(&format!(
                "private-key {} listen-port {port} peer {} preshared-key {} allowed-ips {}",
                key.file.display(),
                far_key.public,
                preshared.display(),
                far.allowed().join(",")
            ));
            device.up();
        }
        let side = |device: Device, key| Side { host: device.host().clone(), device, key };
        Two { a: side(a, a_key), b: side(b, b_key) }
    }

    /// Tells each side the other's endpoint.
    #[track_caller]
    pub(crate) fn endpoints(&self, of_a: &str, of_b: &str) {
        self.b.knows_at(&self.a.key, of_a);
        self.a.knows_at(&self.b.key, of_b);
    }
}

impl Side {
    /// Tells this side a peer's endpoint.
    #[track_caller]
    pub(crate) fn knows_at(&self, peer: &Key, endpoint: &str) {
        self.device.set(&format!("peer {} endpoint {endpoint}", peer.public));
    }
}
