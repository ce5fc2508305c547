//! `wg` with the program under test and with the reference, side by side: the same commands must give the same answers.
//!
//! Parts whose order neither promises are sorted first: peers, and the allowed IPs of a peer.

use std::thread;
use std::time::{Duration, Instant};

use super::device::{Device, Key, Program};
use crate::lab::{Finished, Host, Lab, installed};

/// Two devices, each on its own host, and keys for both. A wire connects the hosts, so that packets to unreachable
/// peers can leave: the reference does not count an initiation that it could not send.
struct Both {
    ours: Device,
    reference: Device,
    own: Key,
    peers: Vec<Key>,
    host: Host,
    _lab: Lab,
}

/// The ports that the tests set begin with these digits. A port that the kernel chooses does not.
const PORTS: &str = "4100";

impl Both {
    fn new(name: &str) -> Option<Both> {
        if !installed(name, &["wireguard-go"]) {
            return None;
        }
        let lab = Lab::new(name)?;
        let (host, other) = (lab.host("a"), lab.host("b"));
        lab.link(&host, &other, &["192.0.2.100/24", "2001:db8::a/64"], &["192.0.2.101/24", "2001:db8::b/64"]);
        let ours = Device::start(&host);
        let reference = Device::named(Program::Reference, &other, other.interface());
        for device in [&ours, &reference] {
            device.up();
        }
        let own = Key::new(&host, "own");
        let peers = (0..4).map(|number| Key::new(&host, &format!("peer-{number}"))).collect();
        Some(Both { ours, reference, own, peers, host, _lab: lab })
    }

    /// Does something to both devices and requires equal answers.
    #[track_caller]
    fn alike(&self, what: &str, act: impl Fn(&Device) -> Finished) -> String {
        let [ours, reference] = [&self.ours, &self.reference].map(|device| self.answer(device, &act));
        assert_eq!(ours, reference, "{what}: ours, then the reference's");
        ours.1
    }

    /// The same for requests that can be repeated: a small difference in the time of sending does not count.
    #[track_caller]
    fn soon_alike(&self, what: &str, look: impl Fn(&Device) -> Finished) -> String {
        let deadline = Instant::now() + Duration::from_secs(2);
        let differ = || self.answer(&self.ours, &look) != self.answer(&self.reference, &look);
        while differ() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        self.alike(what, look)
    }

    /// Exit code and both outputs, without what is specific to the device.
    fn answer(&self, device: &Device, act: impl Fn(&Device) -> Finished) -> (i32, String, String) {
        let said = act(device);
        let port = self.host.run(format!("wg show {} listen-port", device.name())).stdout.trim().to_owned();
        let text = |said: &str| {
            // Like the kernel, ours names the interface of a link-local address. The reference does not.
            let said = said.replace(device.name(), "IFACE").replace("%lo]", "]");
            in_order(&if port.starts_with(PORTS) || port == "0" { said } else { said.replace(&port, "CHOSEN") })
        };
        (said.code, text(&said.stdout), text(&said.stderr))
    }

    /// Runs `wg` with IFACE replaced by the interface's name and `KEY:number` by files.
    #[track_caller]
    fn wg(&self, arguments: &str) -> String {
        let mut line = format!("wg {arguments}").replace("OWN", &self.own.file.to_string_lossy());
        for (number, peer) in self.peers.iter().enumerate() {
            line = line.replace(&format!("PEER{number}"), &peer.public);
            line = line.replace(&format!("FILE{number}"), &peer.file.to_string_lossy());
        }
        let run = |device: &Device| self.host.run(line.replace("IFACE", device.name()));
        if line.starts_with("wg show") { self.soon_alike(&line, run) } else { self.alike(&line, run) }
    }

    /// Runs `wg COMMAND IFACE FILE`. In the config, PEER0 and the like stand for keys.
    #[track_caller]
    fn conf(&self, command: &str, config: &str) -> String {
        let mut config = config.replace("OWN", self.secret(&self.own).trim());
        for (number, peer) in self.peers.iter().enumerate() {
            config = config.replace(&format!("PEER{number}"), &peer.public);
            config = config.replace(&format!("SECRET{number}"), self.secret(peer).trim());
        }
        self.alike(&format!("{command}\n{config}"), |device| device.conf(command, &config))
    }

    fn secret(&self, key: &Key) -> String {
        std::fs::read_to_string(&key.file).expect("a key file of the lab")
    }

    /// Requires that `wg` shows the same for both, and returns the output of `wg showconf`.
    #[track_caller]
    fn shown(&self) -> String {
        self.wg("show IFACE dump");
        self.wg("showconf IFACE")
    }

    /// Requires the same for every way in which `wg` can show something.
    #[track_caller]
    fn shown_in_every_way(&self) {
        for what in [
            "",
            "public-key",
            "private-key",
            "listen-port",
            "fwmark",
            "peers",
            "preshared-keys",
            "endpoints",
            "allowed-ips",
            "latest-handshakes",
            "transfer",
            "persistent-keepalive",
            "dump",
        ] {
            self.wg(&format!("show IFACE {what}"));
        }
        let mine = |device: &Device| {
            let said = self.host.run("wg show all dump");
            // Devices of other tests are listed too, and removed here.
            let lines = said.stdout.lines().filter(|line| line.starts_with(&format!("{}\t", device.name())));
            Finished { code: 0, stdout: lines.map(|line| format!("{line}\n")).collect(), stderr: String::new() }
        };
        self.soon_alike("show all dump", mine);
    }
}

/// Sorts sections, lines in lists, and allowed IPs. Lines within a section keep their order.
fn in_order(said: &str) -> String {
    let is_config = said.starts_with("[Interface]");
    let is_report = said.starts_with("interface: ");
    let blocks: Vec<_> = if is_config || is_report { said.split("\n\n").collect() } else { said.lines().collect() };
    let mut blocks: Vec<_> = blocks
        .into_iter()
        .map(|block| {
            let lines = block.trim_end().lines().filter(|line| !line.starts_with("  transfer: "));
            lines.map(line_in_order).collect::<Vec<_>>().join("\n")
        })
        .collect();
    blocks.sort();
    blocks.join("\n\n")
}

fn line_in_order(line: &str) -> String {
    let sorted = |list: &str, between: &str| {
        let mut list: Vec<_> = list.split(between).collect();
        list.sort_unstable();
        list.join(between)
    };
    for (begin, between) in [("AllowedIPs = ", ", "), ("  allowed ips: ", ", ")] {
        if let Some(list) = line.strip_prefix(begin) {
            return format!("{begin}{}", sorted(list, between));
        }
    }
    if !line.contains('\t') {
        return line.into();
    }
    // The number of initiations sent so far depends on timing. It appears in `transfer` and in the `dump` of a peer,
    // the latter with or without the interface.
    let all: Vec<_> = line.split('\t').collect();
    let counted = match all.len() {
        3 if all[1..].iter().all(|field| field.parse::<u64>().is_ok()) => 1..3,
        8 => 5..7,
        9 => 6..8,
        _ => 0..0,
    };
    let fields = all.iter().enumerate().filter(|(number, _)| !counted.contains(number)).map(|(_, field)| *field);
    let fields: Vec<_> = fields
        .map(|field| {
            let between = if field.contains(", ") {
                ", "
            } else if field.contains(',') {
                ","
            } else {
                " "
            };
            sorted(field, between)
        })
        .collect();
    fields.join("\t")
}

#[test]
fn set_answers_as_the_reference_does() {
    let Some(both) = Both::new("wg set") else { return };
    both.shown();
    for arguments in [
        "private-key OWN",
        "listen-port 41000 fwmark 0x1234",
        "fwmark 0",
        "fwmark off",
        "peer PEER0",
        "peer PEER1 preshared-key FILE3 endpoint 192.0.2.1:1000 persistent-keepalive 25 allowed-ips 10.0.0.0/8,fd00::/16",
        "peer PEER2 endpoint [2001:db8::1]:2000 allowed-ips 0.0.0.0/0,::/0",
        // A prefix with host bits, an address without a prefix, a duplicate.
        "peer PEER3 allowed-ips 172.16.5.4/12,192.0.2.7,2001:db8::7,192.0.2.7/32",
        // Prefixes that move from a different peer.
        "peer PEER0 allowed-ips 10.0.0.0/8",
        "peer PEER0 allowed-ips 10.0.0.0/8,10.1.0.0/16,10.1.2.0/24,10.1.2.3/32,fd00::/16,fd00:1::/32",
        "peer PEER0 allowed-ips 10.1.0.0/16",
        "peer PEER0 allowed-ips",
        "peer PEER1 endpoint [fe80::1%lo]:3000",
        "peer PEER1 persistent-keepalive off",
        "peer PEER1 persistent-keepalive 65535",
        "peer PEER1 preshared-key /dev/null",
        "peer PEER2 remove",
        "peer PEER2 remove",
        "peer PEER0 endpoint 192.0.2.9:9 peer PEER1 remove peer PEER2 allowed-ips ::/0",
        "private-key FILE3",
        "private-key OWN",
        "private-key /dev/null",
        "listen-port 0",
        // Commands that `wg` or the program refuses.
        "peer PEER0 allowed-ips 10.0.0.0/33",
        "listen-port 70000",
        "peer nonsense",
        "nonsense",
    ] {
        both.wg(&format!("set IFACE {arguments}"));
        both.shown();
        if arguments.starts_with("peer PEER2 endpoint") || arguments.contains("10.1.2.3/32") {
            both.shown_in_every_way();
        }
    }
}

const FULL: &str = "[Interface]
PrivateKey = OWN
ListenPort = 41001
FwMark = 0x10

[Peer]
PublicKey = PEER0
PresharedKey = SECRET3
AllowedIPs = 10.0.0.0/24, fd00::/64
Endpoint = 192.0.2.1:1000
PersistentKeepalive = 25

[Peer]
PublicKey = PEER1
AllowedIPs = 10.0.1.0/24
AllowedIPs = 10.0.2.0/24
";

#[test]
fn setconf_addconf_and_syncconf_answer_as_the_reference_does() {
    let Some(both) = Both::new("wg setconf") else { return };
    both.conf("setconf", FULL);
    both.shown_in_every_way();
    let all = both.shown();
    assert!(all.contains("ListenPort = 41001") && all.contains("PersistentKeepalive = 25"), "{all}");
    // The config that it shows recreates the same state.
    both.conf("setconf", "[Interface]\n");
    assert!(!both.shown().contains("[Peer]"));
    both.conf("setconf", FULL);
    assert_eq!(both.shown(), all);

    // These are added to the existing configuration.
    both.conf(
        "addconf",
        "[Peer]\nPublicKey = PEER2\nAllowedIPs = 10.0.2.0/24\n[Peer]\nPublicKey = PEER0\nAllowedIPs = 10.0.9.0/24\n",
    );
    let added = both.shown();
    assert_eq!(added.matches("[Peer]").count(), 3, "{added}");
    // Only differences are changed. Peers that are not listed are removed.
    both.conf("syncconf", FULL);
    assert_eq!(both.shown(), all);
    both.conf(
        "syncconf",
        "[Interface]\nPrivateKey = OWN\nListenPort = 41001\n[Peer]\nPublicKey = PEER1\nAllowedIPs = 10.0.1.0/24\n",
    );
    let synced = both.shown();
    assert_eq!(synced.matches("[Peer]").count(), 1, "{synced}");
    assert!(!synced.contains("FwMark"), "{synced}");
    // A peer without any prefix, and configs that are invalid.
    both.conf("setconf", "[Interface]\nPrivateKey = OWN\n[Peer]\nPublicKey = PEER3\n");
    both.conf("setconf", "[Interface]\nNonsense = 1\n");
    both.conf("addconf", "[Peer]\nAllowedIPs = 10.0.0.0/8\n");
    both.shown();
}

#[test]
fn keys_are_shown_cleared_and_clamped_as_the_reference_does() {
    let Some(both) = Both::new("keys") else { return };
    both.wg("set IFACE private-key OWN peer PEER0 preshared-key FILE1");
    assert_eq!(both.wg("show IFACE private-key").trim(), both.secret(&both.own).trim());
    both.shown();
    both.wg("set IFACE private-key /dev/null peer PEER0 preshared-key /dev/null");
    assert_eq!(both.wg("show IFACE private-key").trim(), "(none)");
    both.shown();
    // A key that no generator would produce: its lowest and highest bits are not clamped.
    let raw = format!("/{}", &both.secret(&both.own).trim()[1..]);
    let file = both.host.write_secret("raw", &raw);
    both.wg(&format!("set IFACE private-key {}", file.display()));
    let shown = both.wg("show IFACE private-key");
    assert!(shown.starts_with('+'), "{shown}");
    both.shown();
}

/// A device's own key cannot be its peer. Such a peer is removed when the key becomes the device's own, and cannot be
/// added afterwards.
#[test]
fn a_device_is_no_peer_of_its_own() {
    let Some(both) = Both::new("self-peer") else { return };
    both.wg("set IFACE private-key OWN peer PEER0 allowed-ips 10.0.0.0/8 peer PEER1");
    both.wg("set IFACE private-key FILE0");
    assert!(!both.wg("show IFACE peers").contains(&both.peers[0].public));
    both.wg("set IFACE peer PEER0 allowed-ips 10.0.0.0/8");
    assert!(!both.wg("show IFACE peers").contains(&both.peers[0].public));
    both.wg("set IFACE private-key OWN peer PEER0");
    assert!(both.wg("show IFACE peers").contains(&both.peers[0].public));
    both.shown();
}

#[test]
fn what_is_not_there_is_refused() {
    let Some(both) = Both::new("not there") else { return };
    let said = both.host.run("wg show doesnotexist");
    assert_ne!(said.code, 0);
    both.wg("show IFACE nonsense");
    both.wg("show interfaces nonsense");
}
