//! The config that `overlay config init` writes.

/// What goes into a [`template`].
#[derive(Clone, Debug)]
pub struct Template {
    /// Name of the interface.
    pub name: String,
    /// The file of the private key, as it is to stand in the config.
    pub private_key_file: String,
    /// This host's virtual IP with its prefix, as `10.77.0.1/24`.
    pub address: String,
    /// This host's public key in base64, when it is known: given in a comment, for the peers' configs.
    pub public_key: Option<String>,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            name: "overlay0".to_owned(),
            private_key_file: "/etc/overlay/overlay0.key".to_owned(),
            address: "10.77.0.1/24".to_owned(),
            public_key: None,
        }
    }
}

/// A commented config that works once its key file is there; peers are added below.
pub fn template(with: &Template) -> String {
    let Template { name, private_key_file, address, public_key } = with;
    let own_key = match public_key {
        Some(key) => format!("The public key of this host, for the configs of its peers:\n# {key}"),
        None => format!("The public key of this host, for the configs of its peers:\n# overlay key pub < {private_key_file}"),
    };
    format!(
        r#"# overlay: one interface, its peers. `overlay config check` says whether it is right.
#
# {own_key}

[interface]
name = "{name}"
private_key_file = "{private_key_file}"   # mode 0600; `overlay key gen -o {private_key_file}` makes one
addresses = ["{address}"]                 # the virtual IPs of this host
listen_port = 51820                             # UDP; open it in the firewall
# mtu = "auto"                                  # or bytes of the inner packets, 576 to 65535
# forward = false                               # true: peers may go through this host to others
# fwmark = 0x77                                 # mark of the outer packets
# table = "auto"                                # "off": no routes are added; or the number of a routing table

# One block for each peer. Remove the `#` and fill in.
# [[peer]]
# name = "bob"
# public_key = "..."                            # on bob: `overlay key pub < PRIVATE_KEY_FILE`
# preshared_key_file = "/etc/overlay/bob.psk"   # optional, the same on both sides; `overlay key psk` makes one
# endpoint = "203.0.113.7:51820"                # address or host name; left out: bob calls us
# allowed_ips = ["10.77.0.2/32"]                # the virtual IPs that are bob's
# persistent_keepalive = 25                     # seconds; where a NAT or firewall stands before this host
# allow = ["icmp", "tcp/22", "tcp/8000-8010"]   # what bob may open towards us; left out: everything

# [metrics]
# listen = "127.0.0.1:9586"                     # Prometheus
"#
    )
}
