//! Policy rules: which routing table is consulted for which packets.
//!
//! This covers the two kinds of rules that keep a default route through a tunnel from capturing the tunnel's own
//! datagrams: `not fwmark M table T`, and `table main suppress_prefixlength 0`.

use rtnetlink::IpVersion;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::{Family, Netlink, NetlinkError, address_family, collect};

/// A policy rule that leads to a table, or ends the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The address family that the rule applies to.
    pub family: Family,
    /// The priority. Lower values are consulted earlier. `None` in a rule to be added puts it before all except the
    /// first.
    pub priority: Option<u32>,
    /// If set, only packets with this mark match.
    pub fwmark: Option<u32>,
    /// Whether the rule applies to packets that do *not* match.
    pub invert: bool,
    /// The table to consult. [`NOWHERE`] ends the search with "unreachable".
    pub table: u32,
    /// Ignores routes of the table with a prefix of at most this length. 0 ignores default routes.
    pub suppress_prefix_length: Option<u32>,
}

/// The table number of a rule that ends the search: "network is unreachable". No real table has this number.
pub const NOWHERE: u32 = 0;

impl Rule {
    /// `not fwmark MARK unreachable`: refuses everything that is not one of our own datagrams.
    pub fn unreachable_unless_marked(family: Family, fwmark: u32) -> Self {
        Self::unless_marked(family, fwmark, NOWHERE)
    }

    /// `not fwmark MARK table TABLE`: our table routes everything except our own datagrams.
    pub fn unless_marked(family: Family, fwmark: u32, table: u32) -> Self {
        Self { family, priority: None, fwmark: Some(fwmark), invert: true, table, suppress_prefix_length: None }
    }

    /// `table TABLE suppress_prefixlength 0`: the table is consulted first, but its default route is ignored.
    pub fn without_default_route(family: Family, table: u32) -> Self {
        Self { family, priority: None, fwmark: None, invert: false, table, suppress_prefix_length: Some(0) }
    }

    /// Whether both rules are the same except for their priority.
    fn is_same_but_for_priority(&self, other: &Self) -> bool {
        Self { priority: None, ..*self } == Self { priority: None, ..*other }
    }
}

impl Netlink {
    /// Lists the rules of both families that lead to a table or end the search, in the order in which they are
    /// consulted. Rules with conditions that [`Rule`] cannot express (addresses, ports, interfaces, users) are left
    /// out.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn rules(&self) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = Vec::new();
        for (family, version) in [(Family::V4, IpVersion::V4), (Family::V6, IpVersion::V6)] {
            match collect(self.handle.rule().get(version).execute()).await {
                Ok(messages) => rules.extend(messages.iter().filter_map(|message| decode(family, message))),
                Err(NetlinkError::Unsupported) => {} // a kernel without this family, or without policy rules
                Err(error) => return Err(error),
            }
        }
        Ok(rules)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `Exists` if there is an identical rule with the same priority.
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::NewRule(encode(rule)), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Deletes the rule that is exactly like this one. Without a priority, the first such rule.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `NotFound` if it does not exist.
    pub async fn delete_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        // The kernel's own search does not compare every field, so it could delete another program's rule.
        let rules = self.rules().await?;
        let found = rules
            .iter()
            .find(|other| {
                rule.is_same_but_for_priority(other) && rule.priority.is_none_or(|p| other.priority == Some(p))
            })
            .ok_or(NetlinkError::NotFound)?;
        self.request(RouteNetlinkMessage::DelRule(encode(found)), 0).await
    }
}

fn encode(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    let leads_nowhere = rule.table == NOWHERE;
    message.header.action = if leads_nowhere { RuleAction::Unreachable } else { RuleAction::ToTable };
    if rule.invert {
        message.header.flags = RuleFlags::Invert;
    }
    let attributes = &mut message.attributes;
    attributes.extend((!leads_nowhere).then_some(RuleAttribute::Table(rule.table)));
    attributes.extend(rule.priority.map(RuleAttribute::Priority));
    attributes.extend(rule.fwmark.map(RuleAttribute::FwMark));
    attributes.extend(rule.suppress_prefix_length.map(RuleAttribute::SuppressPrefixLen));
    message
}

fn decode(family: Family, message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let leads_nowhere = header.action == RuleAction::Unreachable;
    if !(leads_nowhere || header.action == RuleAction::ToTable)
        || header.dst_len != 0
        || header.src_len != 0
        || header.tos != 0
    {
        return None;
    }
    let mut rule = Rule {
        family,
        priority: None,
        fwmark: None,
        invert: header.flags.contains(RuleFlags::Invert),
        table: if leads_nowhere { NOWHERE } else { header.table.into() },
        suppress_prefix_length: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(table) if !leads_nowhere => rule.table = *table,
            RuleAttribute::Table(_) => {}
            RuleAttribute::Priority(priority) => rule.priority = Some(*priority),
            RuleAttribute::FwMark(mark) => rule.fwmark = Some(*mark),
            // The kernel writes "no limit" as all ones.
            RuleAttribute::SuppressPrefixLen(length) => {
                rule.suppress_prefix_length = Some(*length).filter(|&length| length != u32::MAX);
            }
            RuleAttribute::FwMask(u32::MAX | 0) | RuleAttribute::Protocol(_) | RuleAttribute::Other(_) => {}
            RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            _ => return None,
        }
    }
    // The first rule has priority 0, and the kernel omits that attribute.
    rule.priority.get_or_insert(0);
    Some(rule)
}
