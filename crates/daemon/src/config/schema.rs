//! The keys that a config may have, both as tables for the parser and as a JSON schema for editors.
//!
//! One test keeps the two in agreement, and a second one compares `configs/schema.json` with [`schema`].

use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

/// The keys of one table.
pub(super) struct TableKeys {
    /// The header as written in the file, or empty for the top level.
    pub(super) header: &'static str,
    pub(super) keys: &'static [&'static str],
    /// Common alternative names for keys, in lower case and without `_` and `-`.
    aliases: &'static [(&'static str, &'static str)],
}

pub(super) static TOP: TableKeys = TableKeys {
    header: "",
    keys: &["interface", "peer", "metrics", "tuning", "agent"],
    aliases: &[("peers", "peer"), ("iface", "interface"), ("prometheus", "metrics")],
};

pub(super) static INTERFACE: TableKeys = TableKeys {
    header: "[interface]",
    keys: &[
        "name",
        "private_key_file",
        "addresses",
        "listen_port",
        "mtu",
        "forward",
        "fwmark",
        "table",
        "dns",
        "guard",
    ],
    aliases: &[
        ("address", "addresses"),
        ("ip", "addresses"),
        ("ips", "addresses"),
        ("port", "listen_port"),
        ("keyfile", "private_key_file"),
        ("forwarding", "forward"),
        ("mark", "fwmark"),
        ("killswitch", "guard"),
    ],
};

pub(super) static PEER: TableKeys = TableKeys {
    header: "[[peer]]",
    keys: &["name", "public_key", "preshared_key_file", "endpoint", "allowed_ips", "persistent_keepalive", "allow"],
    aliases: &[
        ("key", "public_key"),
        ("keepalive", "persistent_keepalive"),
        ("persistentkeepaliveinterval", "persistent_keepalive"),
        ("pskfile", "preshared_key_file"),
        ("routes", "allowed_ips"),
        ("ports", "allow"),
        ("rules", "allow"),
    ],
};

pub(super) static METRICS: TableKeys = TableKeys {
    header: "[metrics]",
    keys: &["listen"],
    aliases: &[("address", "listen"), ("listenaddress", "listen"), ("port", "listen")],
};

pub(super) static TUNING: TableKeys = TableKeys {
    header: "[tuning]",
    keys: &["udp_gso", "tun_offload", "scheduling", "mtu_discovery"],
    aliases: &[("gso", "udp_gso"), ("pmtud", "mtu_discovery")],
};

/// The tables below the top level.
pub(super) static TABLES: [&TableKeys; 4] = [&INTERFACE, &PEER, &METRICS, &TUNING];

impl TableKeys {
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains(&key)
    }

    /// Returns the key that was most likely meant.
    pub(super) fn meant(&self, plain: &str) -> Option<&'static str> {
        self.alias(plain).or_else(|| self.nearest(plain))
    }

    /// Returns the key for an alternative name or an alternative spelling such as `AllowedIPs` or `allowed-ips`.
    pub(super) fn alias(&self, plain: &str) -> Option<&'static str> {
        let spelled = self.keys.iter().find(|key| key.replace('_', "") == plain).copied();
        spelled.or_else(|| self.aliases.iter().find(|(word, _)| *word == plain).map(|(_, key)| *key))
    }

    /// Returns the key whose name or alias differs by one or two typing errors.
    fn nearest(&self, plain: &str) -> Option<&'static str> {
        let spelled = self.keys.iter().map(|key| (key.replace('_', ""), *key));
        let words = spelled.chain(self.aliases.iter().map(|(word, key)| ((*word).to_owned(), *key)));
        let near = words.filter_map(|(word, key)| {
            let slips = strsim::damerau_levenshtein(&word, plain);
            (slips <= (word.len() / 4).clamp(1, 3) && slips < plain.len()).then_some((slips, key))
        });
        near.min_by_key(|(slips, _)| *slips).map(|(_, key)| key)
    }

    pub(super) fn listed(&self) -> String {
        self.keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
    }
}

/// Returns the JSON schema of the config file, for editors that complete and check TOML. It ends in a newline.
pub fn schema() -> String {
    let mut schema = schema_for!(ConfigFile);
    without_null(schema.ensure_object().values_mut());
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

/// Removes the types that stand for an absent key in JSON. TOML has no null.
pub(crate) fn without_null<'a>(values: impl Iterator<Item = &'a mut Value>) {
    for value in values {
        match value {
            Value::Array(entries) => {
                entries.retain(|entry| !entry.is_null() && *entry != "null" && *entry != json!({ "type": "null" }));
                without_null(entries.iter_mut());
            }
            Value::Object(members) => {
                without_null(members.values_mut());
                collapse(members);
            }
            _ => {}
        }
    }
}

/// Simplifies a choice with a single alternative: `{"anyOf": [X]}` becomes X, and `{"type": ["string"]}` becomes a string.
fn collapse(members: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = members.get_mut("type")
        && let [only] = types.as_mut_slice()
    {
        let only = only.take();
        members.insert("type".to_owned(), only);
    }
    if let Some(Value::Array(choices)) = members.get_mut("anyOf")
        && let [Value::Object(only)] = choices.as_mut_slice()
    {
        let only = std::mem::take(only);
        members.remove("anyOf");
        members.extend(only);
    }
}

/// The config of one overlay interface.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "overlay config")]
#[expect(dead_code, reason = "only its shape is used")]
struct ConfigFile {
    /// This host's side of the tunnel.
    interface: InterfaceTable,
    /// The remote nodes.
    peer: Option<Vec<PeerTable>>,
    /// Where Prometheus may ask. Without it, nowhere.
    metrics: Option<MetricsTable>,
    /// Switches that exist because kernels and drivers have faults.
    tuning: Option<TuningTable>,
}

/// This host's side of the tunnel.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct InterfaceTable {
    /// The kernel's name for the interface. Without it, the name of the file.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_=+.-]{1,15}$"))]
    name: Option<String>,
    /// The file that holds the private key in base64, mode 0600. A relative path starts in the config's folder.
    private_key_file: String,
    /// The virtual IPs of this host with the prefix each is connected to, as "10.77.0.1/24".
    #[schemars(length(min = 1))]
    addresses: Vec<String>,
    /// UDP port; 0 lets the kernel choose. Without it, 51820.
    listen_port: Option<u16>,
    /// MTU of the inner packets in bytes. Without it or "auto": computed from the route to the endpoint, and where a path is
    /// found to carry more, more.
    mtu: Option<MtuValue>,
    /// true: peers may reach destinations that are not this host's own addresses.
    forward: Option<bool>,
    /// Mark of the outer packets; 0 is none.
    fwmark: Option<u32>,
    /// The routing table for the peers' prefixes.
    table: Option<TableValue>,
    /// Whether names of peers are made known to this host. Neither value has an effect yet.
    dns: Option<DnsValue>,
    /// "auto": virtual IPs answer on their interface, on loopback and to this host's own containers, and what a /0 covers
    /// leaves by the tunnel alone. "strict": not to containers. "off": no nft table at all.
    guard: Option<GuardValue>,
}

/// A remote node and what it may do.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct PeerTable {
    /// For people, and for `overlay ping NAME`.
    name: Option<String>,
    /// The peer's public key in base64.
    #[schemars(length(equal = 44))]
    public_key: String,
    /// The file that holds the preshared key in base64, mode 0600.
    preshared_key_file: Option<String>,
    /// Where the peer is reached: `203.0.113.7:51820`, `[2001:db8::7]:51820` or `host.example.net:51820`.
    /// Without it, the peer calls us.
    endpoint: Option<String>,
    /// The virtual prefixes that are the peer's: routed out to it, accepted in from it.
    allowed_ips: Vec<String>,
    /// Seconds between empty packets that keep a NAT's mapping open; 0 is off.
    persistent_keepalive: Option<u16>,
    /// What the peer may open towards us: "icmp", "tcp", "udp", "tcp/22", "udp/8000-8010", or an IP protocol number.
    /// Without it everything, [] only answers.
    allow: Option<Vec<AllowEntry>>,
}

/// Where Prometheus may ask.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct MetricsTable {
    /// Address and TCP port, as "127.0.0.1:9586".
    listen: String,
}

/// Switches that exist because kernels and drivers have faults.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct TuningTable {
    /// Trains of outer datagrams, cut by the kernel on the way out and joined on the way in. "auto": where the kernel has
    /// it; "on": `up` is refused where it has not.
    udp_gso: Option<SwitchValue>,
    /// Super-packets between the kernel and the daemon. "auto": where the kernel has them; "on": `up` is refused where
    /// it has not.
    tun_offload: Option<SwitchValue>,
    /// How the engine thread is scheduled.
    scheduling: Option<SchedulingValue>,
    /// Whether it is searched for how long packets may be to reach each peer. "off": every peer keeps the MTU it starts with.
    mtu_discovery: Option<AutoOffValue>,
}

#[derive(JsonSchema)]
#[schemars(inline, transparent)]
#[expect(dead_code, reason = "only its shape is used")]
struct AllowEntry(#[schemars(regex(pattern = r"^(icmp|(tcp|udp)(/[0-9]{1,5}(-[0-9]{1,5})?)?|[0-9]{1,3})$"))] String);

#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum MtuValue {
    Word(AutoValue),
    Bytes(#[schemars(range(min = 576, max = 65535))] u16),
}

#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum TableValue {
    Word(AutoOffValue),
    Number(#[schemars(range(min = 1))] u32),
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum AutoValue {
    Auto,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum AutoOffValue {
    Auto,
    Off,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum DnsValue {
    Auto,
    Off,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum GuardValue {
    Auto,
    Strict,
    Off,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum SwitchValue {
    Auto,
    On,
    Off,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum SchedulingValue {
    Default,
    High,
    Realtime,
}
