//! What an agent opens at a different one: a protocol, and a port where the protocol has ports.

use std::fmt;

use overlay_wire::ip::{self, Version};
use overlay_wire::signed::{Protocol, Scope};

use crate::agent::tunnels::rule;
use crate::config::check_scope;
use crate::failure::{ExitKind, Failure};

/// One thing that can be opened. The first packet of such a flow is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    protocol: Protocol,
    /// TCP and UDP have one.
    port: Option<u16>,
}

impl Opening {
    /// Parses `icmp`, `tcp/22`, `udp/53` or the number of an IP protocol.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |hint: String| {
            Failure::new(ExitKind::Usage, format!("`{}` is not one thing to open", text.escape_debug())).with_hint(hint)
        };
        let examples = || "write icmp, tcp/22, udp/53 or the number of an IP protocol".to_owned();
        check_scope(text).map_err(|problem| bad(examples()).with_cause(problem.message))?;
        match Scope::parse(text).map_err(|_| bad(examples()))? {
            Scope::Any => Err(bad(examples())),
            Scope::Only(Protocol::Tcp | Protocol::Udp, None) => Err(bad(format!("name a port, as in {text}/22"))),
            Scope::Only(_, Some(ports)) if ports.first != ports.last => Err(bad("name one port".to_owned())),
            Scope::Only(protocol, ports) => Ok(Self { protocol, port: ports.map(|ports| ports.first) }),
        }
    }

    /// Whether a scope lists it. The judgement is that of the node's rules.
    pub(crate) fn is_listed_by(self, scope: &str) -> bool {
        match Scope::parse(scope) {
            Ok(Scope::Any) => true,
            Ok(scope) => rule(scope).is_some_and(|rule| self.is_listed_by_rule(&rule)),
            Err(_) => false,
        }
    }

    /// Whether a rule of the node lists it.
    pub(crate) fn is_listed_by_rule(self, rule: &overlay_core::Rule) -> bool {
        // A rule that lists ICMP lists that of both families.
        rule.lists(Version::V6, self.number(), self.port)
    }

    /// The number of the protocol in an IPv6 packet.
    fn number(self) -> u8 {
        match self.protocol {
            Protocol::Icmp => ip::ICMPV6,
            Protocol::Tcp => ip::TCP,
            Protocol::Udp => ip::UDP,
            Protocol::Number(number) => number,
        }
    }
}

impl fmt::Display for Opening {
    /// Formats it as a scope.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Icmp => f.write_str("icmp"),
            Protocol::Tcp => f.write_str("tcp"),
            Protocol::Udp => f.write_str("udp"),
            Protocol::Number(number) => write!(f, "{number}"),
        }?;
        self.port.map_or(Ok(()), |port| write!(f, "/{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_protocol_and_one_port_can_be_opened() {
        for (text, shown) in [
            ("icmp", "icmp"),
            ("tcp/22", "tcp/22"),
            ("tcp/22-22", "tcp/22"),
            ("udp/53", "udp/53"),
            ("47", "47"),
            ("58", "icmp"),
        ] {
            assert_eq!(Opening::parse(text).map(|opening| opening.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for text in
            ["", "any", "tcp", "udp", "6", "tcp/1-2", "tcp/0", "tcp/22,80", "icmp/1", "ssh", "\x1b[2J", "tcp/ 22"]
        {
            let failure = Opening::parse(text).expect_err(text);
            assert!(failure.code == ExitKind::Usage && failure.hint.is_some(), "{text}");
            assert!(!failure.error.contains('\x1b'), "{text}");
        }
    }

    #[test]
    fn scopes_list_what_the_nodes_rules_list() {
        let cases: [(&str, &[&str], &[&str]); 6] = [
            ("any", &["icmp", "tcp/1", "udp/65535", "47"], &[]),
            ("icmp", &["icmp"], &["tcp/1", "47"]),
            ("tcp", &["tcp/1", "tcp/65535"], &["udp/1", "icmp"]),
            ("tcp/22", &["tcp/22"], &["tcp/23", "udp/22"]),
            ("udp/8000-8010", &["udp/8000", "udp/8010"], &["udp/7999", "udp/8011", "tcp/8000"]),
            ("47", &["47"], &["46", "icmp"]),
        ];
        for (scope, listed, others) in cases {
            let is_listed = |text: &&&str| Opening::parse(text).expect("an opening").is_listed_by(scope);
            assert!(listed.iter().all(|text| is_listed(&text)), "{scope}");
            assert!(!others.iter().any(|text| is_listed(&text)), "{scope}");
        }
    }
}
