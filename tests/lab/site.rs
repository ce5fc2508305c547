//! A site: hosts behind real routers of a kind that the simulator has too, at one end of the lab's Internet.
//!
//! The routers are Linux with nft. All kinds but `linux` drop UDP from the WAN in their INPUT chain. With an open one,
//! conntrack takes a stranger's datagram for one to the router and gives our flow a different port, whatever the rest of
//! the rules say.
//!
//! Kinds with endpoint-independent mapping keep it in a map of their own, which is refreshed behind conntrack by every
//! outbound datagram: a chain of type `nat` sees only the first one of each flow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use overlay_sim::nat::Kind;

use super::internet::{Attachment, End, Internet, Segment};
use super::{Host, Lab, Process};

/// The network behind every router that translates, and behind that of a second uplink.
const PRIVATE: [&str; 2] = ["192.168.1", "192.168.2"];
/// The bridge that joins the hosts of a site.
const LAN: &str = "lan";
/// Its Ethernet address, which would change with its ports otherwise.
const LAN_ADDRESS: &str = "02:00:00:00:00:01";

/// Hosts behind routers.
pub struct Site {
    kind: Kind,
    /// What its routers' names end with.
    name: String,
    /// The router that the hosts see.
    router: Host,
    /// The carrier's router in front of it.
    carrier: Option<Host>,
    attachment: Attachment,
    /// The network behind the router, if that translates.
    private: &'static str,
    hosts: AtomicU8,
}

/// How long mappings live.
#[derive(Clone, Copy, Debug)]
pub struct Ageing {
    /// Idle, before an answer: `nf_conntrack_udp_timeout`.
    pub unanswered: Duration,
    /// Idle, after one: `nf_conntrack_udp_timeout_stream`. Also for entries of the router's own map.
    pub idle: Duration,
}

impl Site {
    /// Creates the routers of a site. `name` is short: it becomes part of their names.
    pub fn new(lab: &Lab, internet: &Internet, end: End, name: &str, kind: Kind) -> Site {
        Site::attached(lab, (internet, end), (name, kind), PRIVATE[0], |router| internet.attach(lab, router, end))
    }

    /// The same, on a link that other sites share.
    pub fn on(segment: &Segment, lab: &Lab, internet: &Internet, name: &str, kind: Kind) -> Site {
        let attach = |router: &Host| internet.attach_to(segment, lab, router);
        Site::attached(lab, (internet, segment.end()), (name, kind), PRIVATE[0], attach)
    }

    /// The site of a second uplink: hosts of a different site can join it.
    pub fn beside(lab: &Lab, internet: &Internet, end: End, name: &str, kind: Kind) -> Site {
        Site::attached(lab, (internet, end), (name, kind), PRIVATE[1], |router| internet.attach(lab, router, end))
    }

    fn attached(
        lab: &Lab,
        (internet, end): (&Internet, End),
        (name, kind): (&str, Kind),
        private: &'static str,
        attach: impl FnOnce(&Host) -> Attachment,
    ) -> Site {
        let router = lab.router(&format!("r-{name}"));
        let carrier = (kind == Kind::CarrierGrade).then(|| lab.router(&format!("c-{name}")));
        let attachment = attach(carrier.as_ref().unwrap_or(&router));
        if let Some(carrier) = &carrier {
            lab.link(&router, carrier, &["100.64.0.2/24"], &["100.64.0.1/24"]);
            router.ip("route add default via 100.64.0.1");
        }
        router.ip(&format!("link add {LAN} address {LAN_ADDRESS} type bridge"));
        router.exec(format!("sysctl -qw net.ipv6.conf.{LAN}.accept_dad=0"));
        let (name, hosts) = (name.into(), AtomicU8::new(0));
        let site = Site { kind, name, router, carrier, attachment, private, hosts };
        for address in site.inside_addresses(1) {
            site.router.ip(&format!("address add {address} dev {LAN}"));
        }
        site.router.ip(&format!("link set {LAN} up"));
        if let Some([v4, v6]) = site.public_networks() {
            internet.announce(end, &v4, Some(attachment.v4.into()));
            internet.announce(end, &v6, Some(attachment.v6.into()));
        }
        site.load(Duration::from_secs(300));
        site
    }

    /// Adds a host behind the router.
    pub fn host(&self, lab: &Lab, name: &str) -> Host {
        let host = lab.host(name);
        self.connect(lab, &host, "");
        host
    }

    /// Adds an uplink to a host of a different site. The default route that it has stays preferred.
    pub fn join(&self, lab: &Lab, host: &Host) {
        self.connect(lab, host, " metric 2000");
    }

    fn connect(&self, lab: &Lab, host: &Host, metric: &str) {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 2;
        let addresses = self.inside_addresses(number);
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        lab.link(host, &self.router, &addresses, &[]);
        self.router.ip(&format!("link set {} master {LAN}", self.router.link_to(host)));
        for gateway in self.inside_addresses(1) {
            let (address, _) = gateway.split_once('/').expect("a prefix");
            let family = if address.contains(':') { "-6" } else { "-4" };
            host.ip(&format!("{family} route add default via {address}{metric}"));
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The router that the hosts see.
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// The routers from the inside out.
    pub fn routers(&self) -> impl Iterator<Item = &Host> {
        [Some(&self.router), self.carrier.as_ref()].into_iter().flatten()
    }

    /// The address of a host, by its number from 2, in its own network and the kind's family.
    pub fn inside(&self, number: u8) -> IpAddr {
        self.inside_of(number, self.kind.is_ipv6()).expect("an address of the kind's family")
    }

    /// The address of a host in this family, if the site has the family.
    pub fn inside_of(&self, number: u8, is_ipv6: bool) -> Option<IpAddr> {
        let addresses = self.inside_addresses(number);
        let address = addresses.iter().find(|address| address.contains(':') == is_ipv6)?;
        address.split_once('/')?.0.parse().ok()
    }

    /// The address that the first host has on the other side.
    pub fn outside(&self) -> IpAddr {
        match self.kind {
            Kind::None | Kind::Ipv6Firewall => self.inside(2),
            _ => self.attachment.v4.into(),
        }
    }

    /// All mappings are lost, as after a restart of the routers.
    pub fn forget(&self) {
        for router in self.routers() {
            router.shell("conntrack -F 2>/dev/null");
            for list in ["map ip nat fullcone", "set ip nat seen"] {
                router.run(format!("nft flush {list}"));
            }
        }
    }

    /// Mappings live this long when they are idle.
    pub fn age(&self, ageing: Ageing) {
        let Ageing { unanswered, idle } = ageing;
        for router in self.routers() {
            router.exec(format!(
                "sysctl -qw net.netfilter.nf_conntrack_udp_timeout={} net.netfilter.nf_conntrack_udp_timeout_stream={}",
                unanswered.as_secs(),
                idle.as_secs()
            ));
        }
        self.load(idle);
    }

    /// Mappings end at this age or earlier, whatever the traffic: all of them at once, again and again, until the returned
    /// process is dropped.
    #[track_caller]
    pub fn end_by_age(&self, age: Duration) -> Process {
        let end = "conntrack -D -p udp; nft flush map ip nat fullcone; nft flush set ip nat seen";
        let line = format!("while sleep {}; do {{ {end}; }} 2>/dev/null || :; done", age.as_secs_f64());
        self.routers().last().expect("a site has a router").spawn(["sh", "-c", &line])
    }

    /// The innermost router forwards no UDP except to port 53.
    pub fn block_udp(&self) {
        let rules = "table inet blocked {\n chain forward {\n  type filter hook forward priority -1\n  \
                     meta l4proto udp udp dport != 53 drop\n }\n}\n";
        nft(&self.router, "blocked", rules);
    }

    /// Undoes [`Site::block_udp`].
    pub fn unblock_udp(&self) {
        self.router.exec("nft delete table inet blocked");
    }

    /// Loads the rules of all routers. `idle` is the lifetime of an entry of their own maps.
    fn load(&self, idle: Duration) {
        let attached = self.attachment.v4;
        match &self.carrier {
            Some(carrier) => {
                nft(&self.router, "nat", &self.rules(Kind::Moderate, "100.64.0.2".parse().expect("an address"), idle));
                nft(carrier, "nat", &self.rules(Kind::Moderate, attached, idle));
            }
            None => nft(&self.router, "nat", &self.rules(self.kind, attached, idle)),
        }
    }

    /// The rules of one router. Its WAN is the only link that leads to `core...` or to the carrier.
    fn rules(&self, kind: Kind, own: Ipv4Addr, idle: Duration) -> String {
        let first = format!("{}.2", self.private);
        let idle = idle.as_secs();
        let independent = format!(
            "map fullcone {{ type inet_service : ipv4_addr . inet_service; flags timeout; size 65535; }}
            chain prerouting {{
                type nat hook prerouting priority dstnat
                iifname $WAN meta l4proto udp dnat ip to udp dport map @fullcone
            }}
            chain note {{
                type filter hook postrouting priority mangle
                oifname $WAN meta l4proto udp update @fullcone {{ udp sport timeout {idle}s : ip saddr . udp sport }}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat
                oifname $WAN snat to {own}
            }}"
        );
        let closed = "chain input {
                type filter hook input priority filter
                iifname $WAN meta l4proto udp drop
            }";
        let answers_only = "chain forward {
                type filter hook forward priority filter
                iifname $WAN ct state established,related accept
                iifname $WAN drop
            }";
        let (family, chains) = match kind {
            Kind::None => ("ip", String::new()),
            Kind::Open => ("ip", format!("{independent}\n{closed}")),
            Kind::AddressRestricted => {
                let seen = format!(
                    "set seen {{ type ipv4_addr; flags timeout; size 65535; }}
                    chain forward {{
                        type filter hook forward priority filter
                        oifname $WAN update @seen {{ ip daddr timeout {idle}s }}
                        iifname $WAN ip saddr @seen accept
                        iifname $WAN drop
                    }}"
                );
                ("ip", format!("{independent}\n{closed}\n{seen}"))
            }
            Kind::Moderate | Kind::CarrierGrade => ("ip", format!("{independent}\n{closed}\n{answers_only}")),
            Kind::Linux => {
                let rules = "chain postrouting {
                    type nat hook postrouting priority srcnat
                    oifname $WAN masquerade
                }";
                ("ip", rules.into())
            }
            // Without a chain at prerouting nothing would be translated back.
            Kind::Strict => {
                let rules = "chain prerouting {
                    type nat hook prerouting priority dstnat
                }
                chain postrouting {
                    type nat hook postrouting priority srcnat
                    oifname $WAN masquerade random
                }";
                ("ip", format!("{rules}\n{closed}"))
            }
            Kind::OneToOne => {
                let rules = format!(
                    "chain prerouting {{
                        type nat hook prerouting priority dstnat
                        iifname $WAN dnat to {first}
                    }}
                    chain postrouting {{
                        type nat hook postrouting priority srcnat
                        oifname $WAN ip saddr {first} snat to {own}
                    }}"
                );
                ("ip", rules)
            }
            Kind::Ipv6Firewall => ("ip6", answers_only.into()),
        };
        let wan = format!("{{ \"to-core1\", \"to-core2\", \"to-core3\", \"to-core4\", \"to-c-{}\" }}", self.name);
        format!("define WAN = {wan}\ntable {family} nat {{\n{chains}\n}}\n")
    }

    /// The prefixes of a site without translation, as the Internet routes them.
    fn public_networks(&self) -> Option<[String; 2]> {
        matches!(self.kind, Kind::None | Kind::Ipv6Firewall).then(|| {
            let [v4, v6] = self.public_addresses(0);
            [format!("{v4}/29"), format!("{v6}/64")]
        })
    }

    fn public_addresses(&self, host: u8) -> [IpAddr; 2] {
        let number = self.attachment.number;
        assert!(number < 32, "the address plan has room for 31 attachments before such a site");
        [
            Ipv4Addr::new(203, 0, 113, 8 * number + host).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 1, number.into(), 0, 0, 0, host.into()).into(),
        ]
    }

    /// The addresses of the router (number 1) or a host, with their prefix lengths. A site behind a NAT has no IPv6, and the
    /// site of the IPv6 firewall nothing else.
    fn inside_addresses(&self, host: u8) -> Vec<String> {
        let [v4, v6] = match self.kind {
            Kind::None | Kind::Ipv6Firewall => self.public_addresses(host).map(|address| address.to_string()),
            _ => return vec![format!("{}.{host}/24", self.private)],
        };
        match self.kind {
            Kind::Ipv6Firewall => vec![format!("{v6}/64")],
            _ => vec![format!("{v4}/29"), format!("{v6}/64")],
        }
    }
}

/// Replaces a router's table of this name.
#[track_caller]
fn nft(router: &Host, table: &str, rules: &str) {
    let families = if table == "blocked" { &["inet"][..] } else { &["ip", "ip6"] };
    for family in families {
        router.run(format!("nft delete table {family} {table}"));
    }
    let file = router.write(&format!("{table}.nft"), rules);
    router.exec(format!("nft -f {}", file.display()));
}
