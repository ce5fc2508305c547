//! Every key that a config file may have, in one table.
//!
//! Whatever is said about a key comes from here: the JSON schema that editors ask, the guess at what an unknown key was
//! meant to be, `configs/reference.toml`, and the table in `docs/configuration.md`. Values are read in `sections`, where
//! the errors are; tests hold the shapes and defaults of this table to what is read there.

use super::Config;

mod agents;
mod spelling;

pub(super) use agents::{AGENT, TRUST};

/// The keys of one table of the file.
#[derive(Debug)]
pub struct KeyTable {
    /// As people write it above its keys; empty for the top of the file.
    pub header: &'static str,
    /// In the order in which they are documented.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it is for, in one or two sentences.
    pub meaning: &'static str,
    /// What may be written, with units and ranges; not a full sentence.
    pub values: &'static str,
    /// What applies if it is left out.
    pub default: Absent,
    /// What makes a running daemon use a new value.
    pub applied: Applied,
    /// What kind of value it has.
    pub(super) shape: Shape,
    /// Other people's words for it, in lower case and without `_` and `-`.
    pub(super) aliases: &'static [&'static str],
}

/// What applies if a key is left out.
#[derive(Debug)]
pub enum Absent {
    /// The key is required. This is an example of a value, in TOML.
    Required(&'static str),
    /// The key is required in static mode. Agent mode does not need it, and refuses it unless it is a table. This is an
    /// example of a value, in TOML.
    RequiredInStaticMode(&'static str),
    /// This value applies, in TOML.
    Value(&'static str),
    /// The first says in words what applies. The second is an example of a value, in TOML.
    Means(&'static str, &'static str),
}

/// What makes a running daemon use a changed value.
#[derive(Clone, Copy, Debug)]
pub enum Applied {
    /// Each key of this table says it for itself.
    EachKey,
    /// `overlay reload`.
    Reload,
    /// The next `overlay up`. The function tells whether the value differs between two configs, so that `reload` can
    /// report that the new one has to wait.
    NextUp(fn(&Config, &Config) -> bool),
    /// `overlay down` and `overlay up`: `reload` refuses it.
    DownAndUp,
}

/// What kind of value a key has.
#[derive(Debug)]
pub(super) enum Shape {
    /// A string; the regular expression that it matches, if there is one.
    Text(Option<&'static str>),
    /// A string of 44 characters: 32 bytes in base64.
    PublicKey,
    /// A string of 52 characters: 32 bytes in base32.
    Identity,
    /// True or false.
    Flag,
    /// A whole number between these, both included.
    Number(u32, u32),
    /// One of these words.
    Words(&'static [&'static str]),
    /// One of these words, or a whole number between these.
    WordsOrNumber(&'static [&'static str], u32, u32),
    /// A list of at least this many strings, and the regular expression that each one matches, if there is one.
    Texts(usize, Option<&'static str>),
    /// A table of its own, once.
    Table(&'static KeyTable),
    /// Tables of their own, any number of them.
    Tables(&'static KeyTable),
    /// A date and a time with its zone.
    Moment,
}

/// The top of the file.
pub(super) static TOP: KeyTable = KeyTable {
    header: "",
    keys: &[
        Key {
            name: "interface",
            meaning: "This host's side of the tunnel.",
            values: "one table",
            default: Absent::RequiredInStaticMode(""),
            applied: Applied::EachKey,
            shape: Shape::Table(&INTERFACE),
            aliases: &["iface"],
        },
        Key {
            name: "peer",
            meaning: "A remote node, and what it may do.",
            values: "one table for each peer, up to 1,048,576",
            default: Absent::Means("no peers", ""),
            applied: Applied::EachKey,
            shape: Shape::Tables(&PEER),
            aliases: &["peers"],
        },
        Key {
            name: "metrics",
            meaning: "Where Prometheus may ask.",
            values: "one table",
            default: Absent::Means("no metrics are served", ""),
            applied: Applied::EachKey,
            shape: Shape::Table(&METRICS),
            aliases: &["prometheus"],
        },
        Key {
            name: "tuning",
            meaning: "Switches that exist because kernels and drivers have faults.",
            values: "one table",
            default: Absent::Means("every switch has its default", ""),
            applied: Applied::EachKey,
            shape: Shape::Table(&TUNING),
            aliases: &[],
        },
        Key {
            name: "agent",
            meaning: "Agent mode: who this agent is, and where agents meet.",
            values: "one table",
            default: Absent::Means("static mode", ""),
            applied: Applied::EachKey,
            shape: Shape::Table(&AGENT),
            aliases: &["agents"],
        },
        Key {
            name: "trust",
            meaning: "An agent that this file trusts, whatever was decided by commands. Only with `[agent]`.",
            values: "one table for each agent",
            default: Absent::Means("trust is given by commands alone", ""),
            applied: Applied::EachKey,
            shape: Shape::Tables(&TRUST),
            aliases: &["trusted", "trusts"],
        },
    ],
};

pub(super) static INTERFACE: KeyTable = KeyTable {
    header: "[interface]",
    keys: &[
        Key {
            name: "name",
            meaning: "Name of the kernel interface.",
            values: "1 to 15 of `A-Z a-z 0-9 _ = + . -`",
            default: Absent::Means("the name of the file", r#""overlay0""#),
            applied: Applied::DownAndUp,
            shape: Shape::Text(Some(r"^[A-Za-z0-9_=+.-]{1,15}$")),
            aliases: &[],
        },
        Key {
            name: "private_key_file",
            meaning: "File that holds the private key. A relative path starts in the folder of the config.",
            values: "path of a file with one key in base64, mode 0600",
            default: Absent::RequiredInStaticMode(r#""/etc/overlay/overlay0.key""#),
            applied: Applied::Reload,
            shape: Shape::Text(None),
            aliases: &["keyfile"],
        },
        Key {
            name: "addresses",
            meaning: "Virtual IPs of this host, each with the prefix of the network that it is connected to.",
            values: "list of at least one address, such as `10.77.0.1/24`",
            default: Absent::RequiredInStaticMode(r#"["10.77.0.1/24"]"#),
            applied: Applied::Reload,
            shape: Shape::Texts(1, None),
            aliases: &["address", "ip", "ips"],
        },
        Key {
            name: "listen_port",
            meaning: "UDP port, for IPv4 and IPv6.",
            values: "0 to 65535; 0: the kernel chooses",
            default: Absent::Value("51820"),
            applied: Applied::Reload,
            shape: Shape::Number(0, 65535),
            aliases: &["port"],
        },
        Key {
            name: "mtu",
            meaning: "The most bytes of an inner packet.",
            values: r#"`"auto"`: from the route to the endpoint, and more where a path carries more; or 576 to 65535"#,
            default: Absent::Value(r#""auto""#),
            applied: Applied::Reload,
            shape: Shape::WordsOrNumber(&["auto"], 576, 65535),
            aliases: &[],
        },
        Key {
            name: "forward",
            meaning: "Whether peers may reach other hosts through this one, and other hosts may send through it.",
            values: "`true` or `false`; `true` also needs the sysctl `ip_forward`, which overlay never sets",
            default: Absent::Value("false"),
            applied: Applied::Reload,
            shape: Shape::Flag,
            aliases: &["forwarding"],
        },
        Key {
            name: "fwmark",
            meaning: "Firewall mark of the outer packets.",
            values: r#"0 to 4294967295; 0: none, but a /0 with `table = "auto"` takes one"#,
            default: Absent::Value("0"),
            applied: Applied::Reload,
            shape: Shape::Number(0, u32::MAX),
            aliases: &["mark"],
        },
        Key {
            name: "table",
            meaning: "Where the routes to `allowed_ips` go.",
            values: r#"`"auto"`: the main table, a /0 as with wg-quick; `"off"`: no routes; 1 to 4294967295: that table"#,
            default: Absent::Value(r#""auto""#),
            applied: Applied::Reload,
            shape: Shape::WordsOrNumber(&["auto", "off"], 1, u32::MAX),
            aliases: &[],
        },
        Key {
            name: "dns",
            meaning: "How the programs of this host find agents by name.",
            values: r#"`"resolved"`: by systemd-resolved; `"hosts"`: by /etc/hosts; `"auto"`: the first if this host asks it, else the second; `"off"`: not at all"#,
            default: Absent::Value(r#""auto""#),
            applied: Applied::NextUp(|old, new| old.interface.dns != new.interface.dns),
            shape: Shape::Words(&["auto", "resolved", "hosts", "off"]),
            aliases: &[],
        },
        Key {
            name: "guard",
            meaning: "From where the virtual IPs can be reached, and whether a /0 has a second lock in nft.",
            values: r#"`"auto"`: interface, loopback, own containers; `"strict"`: no containers; `"off"`: no nft table"#,
            default: Absent::Value(r#""auto""#),
            applied: Applied::Reload,
            shape: Shape::Words(&["auto", "strict", "off"]),
            aliases: &["killswitch"],
        },
    ],
};

pub(super) static PEER: KeyTable = KeyTable {
    header: "[[peer]]",
    keys: &[
        Key {
            name: "name",
            meaning: "Name for people, and for `overlay ping NAME`.",
            values: "1 to 63 of `A-Z a-z 0-9 - _ .`; unique, and case does not count",
            default: Absent::Means("none; the public key is shown", r#""bob""#),
            applied: Applied::Reload,
            shape: Shape::Text(None),
            aliases: &[],
        },
        Key {
            name: "public_key",
            meaning: "The X25519 public key of the peer.",
            values: "one key in base64; unique, not our own, not of low order",
            default: Absent::Required(r#""slrxqPYU8sn9xhgxuRVcBvWAoiXf80XrAmK8b0QofBA=""#),
            applied: Applied::Reload,
            shape: Shape::PublicKey,
            aliases: &["key"],
        },
        Key {
            name: "preshared_key_file",
            meaning: "File that holds the preshared key, which is the same on both sides.",
            values: "path of a file with one key in base64, mode 0600",
            default: Absent::Means("no preshared key", r#""/etc/overlay/bob.psk""#),
            applied: Applied::Reload,
            shape: Shape::Text(None),
            aliases: &["pskfile"],
        },
        Key {
            name: "endpoint",
            meaning: "Where the peer is reached until it is heard from a different address.",
            values: "`203.0.113.7:51820`, `[2001:db8::7]:51820` or `bob.example.net:51820`; port 1 to 65535",
            default: Absent::Means("the peer calls us", r#""203.0.113.7:51820""#),
            applied: Applied::Reload,
            shape: Shape::Text(None),
            aliases: &[],
        },
        Key {
            name: "allowed_ips",
            meaning: "Inner prefixes of the peer: packets to them go to it, and packets from them are accepted from it.",
            values: "list of prefixes without host bits; a prefix has one owner, and the longest match wins",
            default: Absent::Required(r#"["10.77.0.2/32"]"#),
            applied: Applied::Reload,
            shape: Shape::Texts(0, None),
            aliases: &["routes"],
        },
        Key {
            name: "persistent_keepalive",
            meaning: "Seconds of silence after which an empty packet keeps the mapping of a NAT open.",
            values: "0 to 65535 seconds; 0: off",
            default: Absent::Value("0"),
            applied: Applied::Reload,
            shape: Shape::Number(0, 65535),
            aliases: &["keepalive", "persistentkeepaliveinterval"],
        },
        Key {
            name: "allow",
            meaning: "What the peer may open towards this host.",
            values: r#"list of `"icmp"`, `"tcp"`, `"udp/53"`, `"tcp/8000-8010"` or a protocol as `"47"`; `[]`: only answers"#,
            default: Absent::Means("everything", r#"["icmp", "tcp/22", "tcp/8000-8010", "47"]"#),
            applied: Applied::Reload,
            shape: Shape::Texts(0, Some(r"^(icmp|(tcp|udp)(/[0-9]{1,5}(-[0-9]{1,5})?)?|[0-9]{1,3})$")),
            aliases: &["ports", "rules"],
        },
    ],
};

pub(super) static METRICS: KeyTable = KeyTable {
    header: "[metrics]",
    keys: &[Key {
        name: "listen",
        meaning: "Address and TCP port where the metrics are served.",
        values: "`127.0.0.1:9586` or `[::1]:9586`",
        default: Absent::Required(r#""127.0.0.1:9586""#),
        applied: Applied::NextUp(|old, new| old.metrics != new.metrics),
        shape: Shape::Text(None),
        aliases: &["address", "listenaddress", "port"],
    }],
};

pub(super) static TUNING: KeyTable = KeyTable {
    header: "[tuning]",
    keys: &[
        Key {
            name: "udp_gso",
            meaning: "Trains of outer datagrams, which the kernel cuts on the way out and joins on the way in.",
            values: r#"`"auto"`: where the kernel supports it; `"on"`: `up` fails where it does not; `"off"`: never"#,
            default: Absent::Value(r#""auto""#),
            applied: Applied::NextUp(|old, new| old.tuning.udp_gso != new.tuning.udp_gso),
            shape: Shape::Words(&["auto", "on", "off"]),
            aliases: &["gso"],
        },
        Key {
            name: "tun_offload",
            meaning: "Super-packets between the kernel and the daemon.",
            values: r#"`"auto"`: where the kernel supports them; `"on"`: `up` fails where it does not; `"off"`: never"#,
            default: Absent::Value(r#""auto""#),
            applied: Applied::NextUp(|old, new| old.tuning.tun_offload != new.tuning.tun_offload),
            shape: Shape::Words(&["auto", "on", "off"]),
            aliases: &[],
        },
        Key {
            name: "scheduling",
            meaning: "How the engine thread is scheduled.",
            values: r#"`"default"`; `"high"`: nice -20; `"realtime"`: SCHED_RR"#,
            default: Absent::Value(r#""default""#),
            applied: Applied::NextUp(|old, new| old.tuning.scheduling != new.tuning.scheduling),
            shape: Shape::Words(&["default", "high", "realtime"]),
            aliases: &[],
        },
        Key {
            name: "mtu_discovery",
            meaning: "Whether overlay searches for the MTU of the path to each peer of this file.",
            values: r#"`"auto"`; `"off"`: every peer keeps the MTU that it starts with"#,
            default: Absent::Value(r#""auto""#),
            applied: Applied::Reload,
            shape: Shape::Words(&["auto", "off"]),
            aliases: &["pmtud"],
        },
    ],
};

/// The tables of the file, in the order in which they are documented, each with its key at the top of the file.
pub fn tables() -> impl Iterator<Item = (&'static Key, &'static KeyTable)> {
    TOP.keys.iter().filter_map(|key| match key.shape {
        Shape::Table(table) | Shape::Tables(table) => Some((key, table)),
        _ => None,
    })
}

/// Returns the keys whose value differs between two configs and is used at the next `up`, such as `metrics.listen`.
pub fn keys_for_next_up(old: &Config, new: &Config) -> Vec<String> {
    let keys = tables().flat_map(|(table, keys)| keys.keys.iter().map(|key| (table.name, key)));
    let waiting = keys.filter(|(_, key)| matches!(key.applied, Applied::NextUp(differs) if differs(old, new)));
    waiting.map(|(table, key)| format!("{table}.{}", key.name)).collect()
}

impl KeyTable {
    /// Whether only agent mode has this table.
    pub fn is_of_agent_mode(&self) -> bool {
        std::ptr::eq(self, &AGENT) || std::ptr::eq(self, &TRUST)
    }
}

impl Absent {
    /// A value as an example, in TOML.
    pub(super) fn example(&self) -> &'static str {
        match self {
            Self::Required(example)
            | Self::RequiredInStaticMode(example)
            | Self::Value(example)
            | Self::Means(_, example) => example,
        }
    }
}

impl Shape {
    /// Whether the value is one table or several tables.
    pub(super) fn is_a_table(&self) -> bool {
        matches!(self, Self::Table(_) | Self::Tables(_))
    }
}
