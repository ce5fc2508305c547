//! The configs that `overlay config init` and `overlay init` write.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_wire::signed::{PublicKey, Visibility};

/// The virtual IP if the user gives none.
const EXAMPLE: IpNet = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), 24);

/// The values in a [`template`].
#[derive(Clone, Debug)]
pub struct Template {
    /// The name of the interface.
    pub name: String,
    /// The file of the private key, as it is to appear in the config.
    pub private_key_file: String,
    /// This host's virtual IPs with their prefixes, such as `10.77.0.1/24`. At least one.
    pub addresses: Vec<IpNet>,
    /// This host's public key in base64, if known. It is written in a comment, for the configs of peers.
    pub public_key: Option<String>,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            name: "overlay0".to_owned(),
            private_key_file: "/etc/overlay/overlay0.key".to_owned(),
            addresses: vec![EXAMPLE],
            public_key: None,
        }
    }
}

/// Returns a commented config that works once its key file exists. Its only peer is commented out.
pub fn template(with: &Template) -> String {
    let Template { name, private_key_file, addresses, public_key } = with;
    let public_key = match public_key {
        Some(key) => key.clone(),
        None => format!("overlay key pub < {private_key_file}"),
    };
    let addresses: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let addresses = addresses.join(", ");
    // Quoted as TOML, because a path may contain any character.
    let key_file = toml::Value::from(private_key_file.as_str());
    format!(
        r#"# One overlay interface and its peers. `overlay config check` says whether it is right.
#
# The public key of this host, for the configs of its peers:
#   {public_key}

[interface]
name = "{name}"

# Mode 0600. `overlay key gen -o FILE` makes one. A relative path starts in the folder of this config.
private_key_file = {key_file}

# The virtual IPs of this host.
addresses = [{addresses}]

# UDP; to be open in the firewall. 0 lets the kernel choose.
listen_port = 51820

# mtu = "auto"          # or bytes of an inner packet, 576 to 65535
# forward = false       # true: peers may go through this host to others
# fwmark = 0x77         # mark of the outer packets
# table = "auto"        # "off": no routes are added; or the number of a routing table

# One block for each peer. To add one, remove the `# ` and fill in.
#
# [[peer]]
# name = "bob"
# public_key = "..."                             # shown on bob by `overlay key pub < KEY_FILE`
# allowed_ips = ["10.77.0.2/32"]                 # the virtual IPs that are bob's
# endpoint = "203.0.113.7:51820"                 # address or host name; left out: bob calls us
# persistent_keepalive = 25                      # seconds; when this host is behind a NAT or firewall
# preshared_key_file = "/etc/overlay/bob.psk"    # optional, the same on both sides; `overlay key psk -o FILE`
# allow = ["icmp", "tcp/22", "tcp/8000-8010"]    # what bob may open towards us; left out: everything

# [metrics]
# listen = "127.0.0.1:9586"                      # Prometheus
"#
    )
}

/// The values in an [`agent_template`], all of them valid.
#[derive(Clone, Debug)]
pub struct AgentTemplate {
    /// The name of the interface.
    pub interface: String,
    /// The agent's name.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// `https://HOST:PORT#RVKEY.NETKEY`.
    pub rendezvous: String,
    /// What the agent says about itself.
    pub tags: Vec<String>,
    /// What the agent offers, as `tcp/443=https`.
    pub services: Vec<String>,
    /// The agents that may find this one.
    pub visibility: Visibility,
    /// The agent's identity, which is written in a comment.
    pub identity: PublicKey,
    /// The agent's IPv6 address, which is written in a comment.
    pub ipv6: Ipv6Addr,
}

/// Returns a commented config of agent mode. It trusts nobody.
pub fn agent_template(with: &AgentTemplate) -> String {
    let AgentTemplate { interface, name, network, rendezvous, tags, services, visibility, identity, ipv6 } = with;
    let list = |words: &[String]| {
        let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        format!("[{}]", words.join(", "))
    };
    let (tags, services) = (list(tags), list(services));
    let visibility = match visibility {
        Visibility::Hidden => "hidden",
        Visibility::Members => "members",
        Visibility::Public => "public",
    };
    format!(
        r#"# One agent. `overlay config check` says whether this file is right.
#
# This agent's identity, for a [[trust]] in the configs of others, and its address:
#   {identity}
#   {ipv6}

[interface]
name = "{interface}"

# listen_port = 51820   # UDP; to be open in the firewall of an agent that others reach directly

[agent]
name = "{name}"
network = "{network}"

# Where agents meet, with the keys that this agent insists on.
rendezvous = ["{rendezvous}"]

# What this agent says about itself, and what it offers. Neither opens anything.
tags = {tags}
services = {services}

# Which agents may find it: "hidden", "members" or "public".
visibility = "{visibility}"

# allow = ["icmp"]      # what a trusted agent may open here if the command does not say; left out: only answers
# auto_approve = []     # identities, and tags such as "tag:ops", whose requests are approved without asking

# One block for each agent that this file trusts, whatever is decided by commands.
#
# [[trust]]
# key = "..."                          # the identity of that agent; `overlay init` printed it there
# allow = ["icmp", "tcp/22"]           # what it may open here
# expires = 2027-01-01T00:00:00Z       # left out: never
"#
    )
}
