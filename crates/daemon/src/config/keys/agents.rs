//! The keys of agent mode.

use super::{Absent, Applied, Key, KeyTable, Shape};
use crate::config::{Agent, Config};

/// What a scope may be, as in the config of static mode, and `any`.
const SCOPE: &str = r"^(any|icmp|(tcp|udp)(/[0-9]{1,5}(-[0-9]{1,5})?)?|[0-9]{1,3})$";
const NAME: &str = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$";

pub(crate) static AGENT: KeyTable = KeyTable {
    header: "[agent]",
    keys: &[
        Key {
            name: "name",
            meaning: "Name of this agent in its network.",
            values: "1 to 32 of `a-z 0-9 -`; not reserved, not only digits",
            default: Absent::Required(r#""alice""#),
            applied: Applied::NextUp(|old, new| differ(old, new, |agent| &agent.name)),
            shape: Shape::Text(Some(NAME)),
            aliases: &[],
        },
        Key {
            name: "network",
            meaning: "Name of the network, which is also the name of its state folder.",
            values: "1 to 32 of `a-z 0-9 -`; not reserved, not only digits",
            default: Absent::Required(r#""lab""#),
            applied: Applied::NextUp(|old, new| differ(old, new, |agent| &agent.network)),
            shape: Shape::Text(Some(NAME)),
            aliases: &["net"],
        },
        Key {
            name: "rendezvous",
            meaning: "Where agents meet, with the keys that this agent insists on. All are used.",
            values: "list of 1 to 8 lines, each as `overlay rendezvous serve` prints it: `https://HOST:PORT#RVKEY.NETKEY`",
            default: Absent::Required(concat!(
                r#"["https://rv.example.net:7447#25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena"#,
                r#".hvabpq7iioevvevxbktu2g36xsojqlgpf3cjndgazvk7ckxumyga"]"#
            )),
            applied: Applied::NextUp(|old, new| differ(old, new, |agent| &agent.rendezvous)),
            shape: Shape::Texts(1, Some(r"^https://[^#]+#[a-z2-7]{52}\.[a-z2-7]{52}$")),
            aliases: &["rv", "server", "servers", "url", "urls"],
        },
        Key {
            name: "tags",
            meaning: "What this agent says about itself. Others may look for it, and nobody has to believe it.",
            values: "list of at most 16 words of `a-z 0-9 -`",
            default: Absent::Means("none", r#"["gpu"]"#),
            applied: Applied::NextUp(|old, new| differ(old, new, |agent| &agent.tags)),
            shape: Shape::Texts(0, Some(NAME)),
            aliases: &["tag", "labels"],
        },
        Key {
            name: "services",
            meaning: "What this agent offers. It opens nothing by itself.",
            values: "list of at most 16 services, each with protocol, port and name: `tcp/443=https`",
            default: Absent::Means("none", r#"["tcp/443=https", "tcp/8000=mcp"]"#),
            applied: Applied::NextUp(|old, new| differ(old, new, |agent| &agent.services)),
            shape: Shape::Texts(0, Some(r"^(tcp|udp)/[0-9]{1,5}=[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")),
            aliases: &["service"],
        },
        Key {
            name: "visibility",
            meaning: "The agents that may find this one at the rendezvous.",
            values: r#"`"hidden"`: those who know its key; `"members"`: every agent of the network; `"public"`: everybody"#,
            default: Absent::Value(r#""members""#),
            applied: Applied::NextUp(|old, new| differ(old, new, |agent| &agent.visibility)),
            shape: Shape::Words(&["hidden", "members", "public"]),
            aliases: &["visible"],
        },
        Key {
            name: "allow",
            meaning: "What a trusted agent may open here if the command or `[[trust]]` does not say.",
            values: r#"list of at most 32, as `allow` under `[[peer]]`, and `"any"`; `[]`: only answers"#,
            default: Absent::Value("[]"),
            applied: Applied::Reload,
            shape: Shape::Texts(0, Some(SCOPE)),
            aliases: &["ports", "rules"],
        },
        Key {
            name: "auto_approve",
            meaning: "Agents whose requests are approved without asking a person, with no more than `allow`.",
            values: "list of identities, each 52 characters, and of tags that the network's operator vouches for: `tag:ops`",
            default: Absent::Value("[]"),
            applied: Applied::Reload,
            shape: Shape::Texts(0, Some(r"^([a-z2-7]{52}|tag:[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?)$")),
            aliases: &["approve"],
        },
        Key {
            name: "candidates",
            meaning: "Which addresses of this host its peers are told.",
            values: r#"`"auto"`: private ones only if the peer has the same public one; `"all"`; `"relay"`: none, and peers are reached through relays alone"#,
            default: Absent::Value(r#""auto""#),
            applied: Applied::NextUp(|old, new| differ(old, new, |agent| &agent.candidates)),
            shape: Shape::Words(&["auto", "all", "relay"]),
            aliases: &[],
        },
        Key {
            name: "lan",
            meaning: "Whether this agent and its peers find each other on the links of this host, without anybody else.",
            values: r#"`"auto"`: by multicast, when one looks for the other, unless `candidates` is `"relay"`; `"off"`"#,
            default: Absent::Value(r#""auto""#),
            applied: Applied::NextUp(|old, new| differ(old, new, |agent| &agent.lan)),
            shape: Shape::Words(&["auto", "off"]),
            aliases: &[],
        },
    ],
};

pub(crate) static TRUST: KeyTable = KeyTable {
    header: "[[trust]]",
    keys: &[
        Key {
            name: "key",
            meaning: "Identity of the agent, as `overlay init` prints it there.",
            values: "52 characters from `a-z 2-7`; each agent once",
            default: Absent::Required(r#""7ri43dtcdcq2hdnep3iaemhqlaebn3itxizqhlc55oirkseqqasq""#),
            applied: Applied::Reload,
            shape: Shape::Identity,
            aliases: &["identity", "publickey"],
        },
        Key {
            name: "allow",
            meaning: "What the agent may open here.",
            values: r#"as `allow` under `[agent]`; `[]`: only answers"#,
            default: Absent::Means("what `allow` under `[agent]` says", r#"["icmp", "tcp/22"]"#),
            applied: Applied::Reload,
            shape: Shape::Texts(0, Some(SCOPE)),
            aliases: &["ports", "rules"],
        },
        Key {
            name: "expires",
            meaning: "When the trust ends.",
            values: "date and time with its zone, without quotes",
            default: Absent::Means("never", "2027-01-01T00:00:00Z"),
            applied: Applied::Reload,
            shape: Shape::Moment,
            aliases: &["expiry", "until"],
        },
    ],
};

/// Whether two configs differ in what `part` shows of their agents.
fn differ<T: PartialEq>(old: &Config, new: &Config, part: impl Fn(&Agent) -> &T) -> bool {
    old.agent.as_ref().map(&part) != new.agent.as_ref().map(&part)
}
