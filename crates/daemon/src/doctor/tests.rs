//! What is said about each broken set-up, in golden texts. A set-up that works gives no finding.

use std::io;

use overlay_golden::golden;
use overlay_rendezvous::channel::Refusal;
use overlay_wire::signed::SecretKey;

use super::commands::Commands;
use super::rendezvous::{Answered, Daemon as Standing, Tried, Trouble};
use super::start::{Daemon, Start};
use super::trust::Peers;
use super::*;
use crate::agent::KEY_CLONE;
use crate::agent::connection::ConnectError;
use crate::agent::explain::{Reason, Side};
use crate::agent::request::{Bar, PeerHealth, RendezvousHealth};
use crate::config::RendezvousUrl;
use crate::device::table::PeerState;
use crate::failure::ExitKind;

const NOW: u64 = 1_795_824_000_000;
const DAY: u64 = 86_400_000;

fn key(byte: u8) -> overlay_wire::signed::PublicKey {
    SecretKey::from_bytes(&[byte; 32]).public()
}

fn peer(name: &str, bar: Option<(Reason, Side)>) -> PeerHealth {
    let since = Some(NOW / 1_000 - 3_600);
    PeerHealth {
        name: name.to_owned(),
        identity: key(7).to_string(),
        tunnel_key: Some("TUNNEL".to_owned()),
        request: None,
        bar: bar.map(|(reason, side)| Bar { side, reason, since, is_granted_here: true }),
    }
}

fn commands() -> Commands {
    Commands { name: "alice".to_owned(), is_service: false }
}

/// A set-up that works: a daemon that runs, is connected, and trusts bob.
fn healthy() -> Facts {
    let url = RendezvousUrl {
        url: "https://192.0.2.9:7447".to_owned(),
        host: "192.0.2.9".to_owned(),
        port: 7447,
        rendezvous: key(1),
        network: key(2),
    };
    Facts {
        start: Start::of(Daemon::Runs, commands(), true),
        config: Some("/etc/overlay/alice.toml".into()),
        interface: Some("alice".to_owned()),
        agent: Some("alice".to_owned()),
        peer: None,
        tried: vec![Tried { url: url.clone(), outcome: Ok(Answered { took: Duration::from_millis(12), ahead: 0 }) }],
        standing: Some(Standing {
            name: "alice".to_owned(),
            rendezvous: vec![RendezvousHealth {
                url: url.to_string(),
                connection: "connected".to_owned(),
                ..RendezvousHealth::default()
            }],
        }),
        clocks: Some(clock::Clocks {
            ours: NOW,
            ahead: vec![(String::new(), 0)],
            latest: Some(NOW),
            signed_by_peers: Some(NOW),
        }),
        mark: "/var/lib/overlay/lab/time".to_owned(),
        warnings: Vec::new(),
        no_family: None,
        addresses: Some(vec!["10.99.0.1/16".parse().expect("a prefix")]),
        names: None,
        peers: Some(Peers {
            me: "alice".to_owned(),
            peers: vec![peer("bob", None)],
            tunnels: [("TUNNEL".to_owned(), PeerState::Idle)].into(),
            fixed: Vec::new(),
        }),
    }
}

fn standing(facts: &mut Facts) -> &mut RendezvousHealth {
    &mut facts.standing.as_mut().expect("known").rendezvous[0]
}

/// A healthy set-up after `change`, judged.
fn after(change: impl FnOnce(&mut Facts)) -> Report {
    let mut facts = healthy();
    change(&mut facts);
    facts.judge()
}

/// Compares the findings with the golden file.
#[track_caller]
fn says(what: &str, report: &Report, codes: &[(Code, Severity)]) {
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.code, finding.severity)).collect();
    assert_eq!(found, codes, "{what}");
    assert!(report.findings.iter().all(|finding| finding.check == finding.code.check()));
    let lines = |finding: &Finding| {
        format!("{}: {}\ncause: {}\nfix: {}", finding.severity.name(), finding.what, finding.cause, finding.fix)
    };
    golden(what, report.findings.iter().map(lines).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_set_up_that_works_gives_no_finding() {
    for state in PeerState::ALL.into_iter().filter(|state| *state != PeerState::Unreachable) {
        let report = after(|facts| {
            let peers = facts.peers.as_mut().expect("known");
            peers.tunnels.insert("TUNNEL".to_owned(), state);
        });
        assert_eq!(report.findings, [], "{state:?}");
        assert!(report.healthy);
    }
    let report = after(|facts| facts.peer = Some("bob".to_owned()));
    assert_eq!(report.findings, []);
    let said: Vec<_> =
        report.checks.iter().map(|checked| format!("{}: {}", checked.check.name(), checked.said)).collect();
    golden("the checks", said.join("\n"));
}

#[test]
fn a_rendezvous_that_does_not_answer_as_it_should_is_told_with_its_cause() {
    let tried = |trouble| {
        after(|facts| {
            facts.tried[0].outcome = Err(trouble);
            standing(facts).connection = "unreachable".to_owned();
        })
    };
    let auth = |refusal| Trouble::Connect(ConnectError::BadAuth(refusal));
    let denied = |refusal| Trouble::Connect(ConnectError::Denied(refusal));
    let offered = Some(key(3));
    let cases = [
        ("no address", Trouble::Name("Name or service not known".to_owned()), Code::RendezvousName),
        (
            "nobody listens",
            Trouble::Connect(ConnectError::Unreachable(io::Error::other("Connection refused"))),
            Code::RendezvousUnreachable,
        ),
        ("it hangs", Trouble::Connect(ConnectError::Silent(Duration::from_millis(2_500))), Code::RendezvousSilent),
        (
            "a web server",
            Trouble::Connect(ConnectError::NotARendezvous("WebSocket: 404 Not Found".to_owned())),
            Code::NotARendezvous,
        ),
        ("a different key", Trouble::Connect(ConnectError::WrongRendezvous { offered }), Code::WrongRendezvousKey),
        (
            "a key that is not shown",
            Trouble::Connect(ConnectError::WrongRendezvous { offered: None }),
            Code::WrongRendezvousKey,
        ),
        ("a different network", auth(Refusal::WrongNetwork), Code::WrongNetworkKey),
        ("a different network, it says", denied(Some(Refusal::WrongNetwork)), Code::WrongNetworkKey),
        ("somebody between", auth(Refusal::Relayed), Code::RendezvousIntercepted),
        ("a different version", denied(Some(Refusal::UnknownVersion)), Code::RendezvousVersion),
        ("refused", denied(None), Code::RendezvousRefuses),
        ("no roots", Trouble::Connect(ConnectError::Local("no roots".to_owned())), Code::RendezvousRefuses),
    ];
    for (what, trouble, code) in cases {
        says(what, &tried(trouble), &[(code, Severity::Error)]);
    }
}

#[test]
fn one_of_two_rendezvous_that_is_down_is_a_warning() {
    let report = after(|facts| {
        let mut url = facts.tried[0].url.clone();
        url.url = "https://192.0.2.10:7447".to_owned();
        url.host = "192.0.2.10".to_owned();
        let refused = ConnectError::Unreachable(io::Error::other("Connection refused"));
        facts.tried.push(Tried { url, outcome: Err(Trouble::Connect(refused)) });
    });
    says("the second of two", &report, &[(Code::RendezvousUnreachable, Severity::Warning)]);
    assert!(report.healthy);
}

#[test]
fn an_agent_that_the_rendezvous_does_not_take_is_told_why() {
    let refused = |code: &str| {
        after(|facts| {
            let standing = standing(facts);
            standing.connection = "record_refused".to_owned();
            standing.cause = Some(format!("it refuses this agent's record: {code}"));
            standing.refused_record = Some(code.to_owned());
        })
    };
    for (reason, code) in [
        ("name_taken", Code::NameTaken),
        ("not_a_member", Code::NotAMember),
        ("clock", Code::RecordRefused),
        ("not_found", Code::RecordRefused),
    ] {
        says(reason, &refused(reason), &[(code, Severity::Error)]);
    }
    let connection = |word: &str| {
        after(|facts| {
            let standing = standing(facts);
            standing.connection = word.to_owned();
            standing.cause = (word == "lost").then(|| "the connection has ended: closed".to_owned());
        })
    };
    says("a clone", &connection(KEY_CLONE), &[(Code::KeyClone, Severity::Error)]);
    let stalls = |seconds| after(|facts| standing(facts).unanswered_for = Some(seconds));
    says("stalls", &stalls(40), &[(Code::RendezvousStalls, Severity::Warning)]);
    says("a moment", &stalls(9), &[]);
    says("lost", &connection("lost"), &[(Code::NotConnected, Severity::Warning)]);
    says("connecting", &connection("connecting"), &[(Code::NotConnected, Severity::Warning)]);
}

#[test]
fn a_clock_that_is_wrong_is_told_with_whose_it_is() {
    let clocks = |ours: u64, theirs: Option<u64>, latest, signed| {
        let ahead = |theirs: u64| (String::new(), theirs as i64 - ours as i64);
        let ahead = theirs.map(ahead).into_iter().collect();
        let clocks = clock::Clocks { ours, ahead, latest: Some(latest), signed_by_peers: signed };
        after(|facts| facts.clocks = Some(clocks))
    };
    let behind = clocks(NOW - 400 * DAY, Some(NOW), NOW, Some(NOW));
    says("this host's is behind", &behind, &[(Code::Clock, Severity::Error)]);
    says("it is ahead", &clocks(NOW + DAY, Some(NOW), NOW, None), &[(Code::Clock, Severity::Error)]);
    says("a little", &clocks(NOW, Some(NOW + 90_000), NOW, None), &[(Code::Clock, Severity::Warning)]);
    let theirs = clocks(NOW, Some(NOW - DAY), NOW, Some(NOW));
    says("the rendezvous' is behind", &theirs, &[(Code::RendezvousClock, Severity::Error)]);
    let mark = clocks(NOW, Some(NOW), NOW + DAY, None);
    says("it was wrong once", &mark, &[(Code::ClockMark, Severity::Warning)]);
    let service = after(|facts| {
        let clocks = clock::Clocks { ours: NOW, ahead: Vec::new(), latest: Some(NOW + DAY), signed_by_peers: None };
        (facts.clocks, facts.start.commands.is_service) = (Some(clocks), true);
    });
    says("a service behind the mark", &service, &[(Code::ClockMark, Severity::Warning)]);
    let mark = clocks(NOW, None, NOW + DAY, None);
    says("behind the mark, and nobody to ask", &mark, &[(Code::ClockMark, Severity::Warning)]);
}

#[test]
fn a_family_that_is_left_out_is_told_with_what_is_in_the_way() {
    let warning = |kind: &'static str, message: &str, hint: &str| {
        after(|facts| facts.warnings = vec![StatusWarning::new(kind, message, hint)])
    };
    let off =
        warning("ipv6_off", "this host has IPv6 switched off: this agent goes on without IPv6", "sudo sysctl ...");
    says("IPv6 off", &off, &[(Code::Ipv6Off, Severity::Warning)]);
    let taken = "a route to 10.99.7.0/24 through `eth0` is inside 10.99.0.0/16, which the network uses: this agent goes on without IPv4";
    let taken = warning("family_left_out", taken, "sudo ip -4 route delete 10.99.7.0/24 dev eth0");
    says("a route", &taken, &[(Code::PoolTaken, Severity::Warning)]);
    let other = warning("metrics", "metrics are not served", "choose a different port");
    says("a warning of the daemon", &other, &[(Code::DaemonWarning, Severity::Warning)]);
    for kind in [KEY_CLONE, "clock", "rendezvous"] {
        assert_eq!(warning(kind, "said in a different check", "").findings, [], "{kind}");
    }
    let neither = after(|facts| {
        facts.warnings = vec![StatusWarning::new("ipv6_off", "off", "switch it on")];
        let failure = Failure::new(ExitKind::Conflict, "this agent can have neither IPv4 nor IPv6 on this host");
        facts.no_family = Some(failure.with_cause("both collide").with_hint("free one"));
    });
    says("neither", &neither, &[(Code::NoFamily, Severity::Error)]);
}

#[test]
fn the_side_that_has_to_do_something_for_a_tunnel_is_named() {
    use Side::{Here, There};
    let of = |reason, side, request: Option<&str>, asked_about: bool| {
        after(|facts| {
            let peer = PeerHealth { request: request.map(str::to_owned), ..peer("bob", Some((reason, side))) };
            facts.peers.as_mut().expect("known").peers = vec![peer];
            facts.peer = asked_about.then(|| "bob".to_owned());
        })
    };
    let warned = [
        ("asked, and it waits here", Reason::Asked, There, Some("waiting"), Code::Asked),
        ("asked, and it lies in the mailbox", Reason::Asked, There, Some("sent"), Code::Asked),
        ("asked, and it has arrived", Reason::Asked, There, Some("delivered"), Code::Asked),
        ("pending", Reason::Pending, Here, None, Code::Pending),
        ("beforehand", Reason::Beforehand, There, None, Code::Beforehand),
        ("expired here", Reason::Expired, Here, None, Code::GrantExpired),
        ("expired there", Reason::Expired, There, None, Code::GrantExpired),
        ("revoked there", Reason::Revoked, There, None, Code::Revoked),
        ("no shared key", Reason::NoTunnel, Here, None, Code::NoSharedKey),
        ("one-sided", Reason::NoGrant, There, None, Code::OneSided),
    ];
    for (what, reason, side, request, code) in warned {
        says(what, &of(reason, side, request, false), &[(code, Severity::Warning)]);
        let asked_about = of(reason, side, request, true);
        assert_eq!(asked_about.findings[0].severity, Severity::Error, "{what}: a person asks about it");
        assert!(asked_about.findings[0].peer.is_some() && !asked_about.healthy);
    }
    // What this side wants as it is, is told to a person who asks.
    for (what, reason, code) in
        [("revoked here", Reason::Revoked, Code::Revoked), ("nothing granted here", Reason::NoGrant, Code::OneSided)]
    {
        assert_eq!(of(reason, Here, None, false).findings, [], "{what}");
        says(what, &of(reason, Here, None, true), &[(code, Severity::Error)]);
    }
    let unknown = after(|facts| facts.peer = Some("eve".to_owned()));
    says("unknown", &unknown, &[(Code::UnknownPeer, Severity::Error)]);
}

#[test]
fn a_trusted_peer_that_does_not_answer_is_named() {
    let of = |state, peer: Option<&str>| {
        after(|facts| {
            facts.peers.as_mut().expect("known").tunnels.insert("TUNNEL".to_owned(), state);
            facts.peer = peer.map(str::to_owned);
        })
    };
    says("unreachable", &of(PeerState::Unreachable, None), &[(Code::PeerUnreachable, Severity::Warning)]);
    assert_eq!(of(PeerState::Unreachable, Some("bob")).findings[0].severity, Severity::Error);
    let without = of(PeerState::NoEndpoint, Some("bob"));
    says("no endpoint", &without, &[(Code::PeerWithoutEndpoint, Severity::Error)]);
    // A peer of the config, in static mode.
    let fixed = after(|facts| {
        facts.agent = None;
        facts.tried = Vec::new();
        facts.peers = Some(Peers {
            tunnels: [("FIXED".to_owned(), PeerState::Unreachable)].into(),
            fixed: vec![("hub".to_owned(), "FIXED".to_owned())],
            ..Peers::default()
        });
    });
    says("static", &fixed, &[(Code::PeerUnreachable, Severity::Warning)]);
}

#[test]
fn what_keeps_a_daemon_from_running_comes_before_that_it_does_not_run() {
    let stopped =
        || Failure::new(ExitKind::NoDaemon, "no daemon is running for `alice`").with_cause("no process listens");
    let of = |change: fn(&mut Start)| {
        after(|facts| {
            facts.start = Start::of(Daemon::Stopped(stopped()), commands(), true);
            change(&mut facts.start);
        })
    };
    let failure = |code, error: &str| Some(Failure::new(code, error).with_cause("because").with_hint("do something"));
    let no_daemon = (Code::NoDaemon, Severity::Error);
    let error = |code| (code, Severity::Error);
    says("nothing but that", &of(|_| {}), &[no_daemon]);
    says("a service", &of(|start| start.commands.is_service = true), &[no_daemon]);
    let config = after(|facts| {
        facts.start = Start::of(Daemon::Stopped(stopped()), commands(), true);
        facts.start.config = failure(ExitKind::Config, "the config is wrong");
        facts.start.state = failure(ExitKind::Other, "a file is damaged");
        facts.start.foreign = failure(ExitKind::Conflict, "a different machine");
        facts.start.taken = failure(ExitKind::Conflict, "interface `alice` already exists");
        facts.start.net_admin = failure(ExitKind::Permission, "creating a network interface needs root");
        facts.start.tun = failure(ExitKind::Other, "/dev/net/tun is missing");
    });
    let all = [
        error(Code::NoNetAdmin),
        error(Code::NoTun),
        error(Code::Config),
        error(Code::StateDamaged),
        error(Code::ForeignState),
        error(Code::CannotStart),
        no_daemon,
    ];
    says("everything", &config, &all);
    let state = |code| {
        after(|facts| {
            facts.start = Start::of(Daemon::Stopped(stopped()), commands(), true);
            facts.start.state = failure(code, "the state cannot be used");
        })
    };
    says("no identity", &state(ExitKind::NotFound), &[error(Code::NoIdentity), no_daemon]);
    says("a wrong mode", &state(ExitKind::Permission), &[error(Code::StatePermissions), no_daemon]);
    let user = after(|facts| {
        facts.start = Start::of(Daemon::Stopped(stopped()), commands(), false);
        facts.start.state = failure(ExitKind::Permission, "cannot use /var/lib/overlay/lab");
    });
    says("a user who may not look", &user, &[error(Code::MayNotLook), no_daemon]);
    let daemon = |daemon| after(|facts| facts.start.daemon = daemon);
    let silent = Failure::new(ExitKind::Timeout, "the daemon of `alice` does not answer").with_cause("no answer came");
    says("silent", &daemon(Daemon::Silent(silent)), &[error(Code::DaemonSilent)]);
    let hidden =
        Failure::new(ExitKind::Permission, "only root may look").with_cause("this user may not open the socket");
    says("hidden", &daemon(Daemon::Hidden(hidden)), &[error(Code::MayNotLook)]);
}

#[test]
fn each_code_has_a_name_and_a_meaning_of_its_own() {
    for (at, code) in Code::ALL.iter().enumerate() {
        assert!(
            Code::ALL[at + 1..].iter().all(|other| other.name() != code.name() && other.meaning() != code.meaning())
        );
        assert_eq!(serde_json::to_value(code).expect("a word"), code.name());
    }
}
