//! The text a scraper reads.

use std::time::UNIX_EPOCH;

use overlay_core::Instant;
use overlay_golden::golden;

use super::*;
use crate::engine::Offload;
use crate::view::tests::{bob, find_path_mtu, nameless, shake_hands, tag, view, watch_loopback};

#[test]
fn every_reason_for_a_drop_is_there_with_zero() {
    let text = text(&view([]));
    for reason in DropReason::ALL {
        let line = format!("\noverlay_dropped_packets_total{{reason=\"{}\"}} 0\n", reason.name());
        assert!(text.contains(&line), "{line} is missing in {text}");
    }
}

#[test]
fn every_method_and_every_nat_is_there_with_zero() {
    let text = text(&view([]));
    for name in ["path_attempts", "path_attempts_succeeded"] {
        for (method, nat) in Method::ALL.into_iter().flat_map(|method| Nat::ALL.map(|nat| (method, nat))) {
            let line = format!("\noverlay_{name}_total{{method=\"{}\",nat=\"{}\"}} 0\n", method.name(), nat.name());
            assert!(text.contains(&line), "{line} is missing in {text}");
        }
    }
}

#[test]
fn every_family_says_what_it_is() {
    let text = text(&view([bob()]));
    let meanings: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    let families = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(meanings.len(), families);
    golden("help", meanings.join("\n"));
}

#[test]
fn peers_carry_their_name_and_key_and_the_handshake_is_absent_before_the_first() {
    let view = view([bob(), nameless()]);
    shake_hands(&view, 0xbb, Instant::default(), 1_700_000_123);
    let text = text(&view);
    let bob = r#"{peer="bob",public_key="u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7s="}"#;
    let nameless = r#"{peer="",public_key="zMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMw="}"#;
    for name in PeerStats::COUNTERS.iter().map(|figure| format!("overlay_{}", figure.name)) {
        assert!(text.contains(&format!("\n{name}_total{bob} 0\n{name}_total{nameless} 0\n")), "{name} in {text}");
    }
    assert!(text.contains(&format!("\noverlay_latest_handshake_seconds{bob} 1700000123.000005")), "{text}");
    assert!(!text.contains(&format!("overlay_latest_handshake_seconds{nameless}")), "{text}");
}

#[test]
fn the_mtu_of_a_path_is_there_once_something_is_known_of_it() {
    let view = view([bob(), nameless()]);
    find_path_mtu(&view, 0xbb, 1228, overlay_core::PathMtuState::Found, 1);
    let text = text(&view);
    let bob = r#"peer="bob",public_key="u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7s=""#;
    for line in [
        format!("overlay_peer_path_mtu_bytes{{{bob}}} 1228"),
        format!("overlay_peer_path_mtu_state{{{bob},state=\"found\"}} 1"),
        format!("overlay_peer_path_mtu_state{{{bob},state=\"searching\"}} 0"),
        "overlay_mtu_bytes 1420".to_owned(),
        "overlay_max_mtu_bytes 1440".to_owned(),
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
    assert_eq!(text.matches("\noverlay_peer_path_mtu_bytes{").count(), 1);
}

#[test]
fn the_kind_of_path_in_use_is_1() {
    let view = view([bob(), nameless()]);
    let relay = "192.0.2.1:7447".parse().expect("an address and a port");
    view.table().on_event(overlay_core::Event::EndpointChanged(tag(&view, 0xbb), relay, true), |_| UNIX_EPOCH);
    let text = text(&view);
    let bob = r#"peer="bob",public_key="u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7s=""#;
    for (kind, value) in [("direct", 0), ("relay", 1)] {
        let line = format!("\noverlay_peer_path{{{bob},kind=\"{kind}\"}} {value}\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert_eq!(text.matches("\noverlay_peer_path{").count(), 2, "nothing of a peer whose endpoint is not known");
}

#[test]
fn every_peer_has_a_sample_for_each_state_and_one_of_them_is_1() {
    let view = view([bob(), nameless()]);
    shake_hands(&view, 0xbb, crate::engine::now(), 1);
    view.table().on_event(overlay_core::Event::Answering(tag(&view, 0xbb), false), |_| UNIX_EPOCH);
    let text = text(&view);
    let bob = r#"peer="bob",public_key="u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7s=""#;
    for (state, value) in [("suspect", 1), ("connected", 0), ("unreachable", 0)] {
        let line = format!("overlay_peer_state{{{bob},state=\"{state}\"}} {value}");
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
    let samples = text.lines().filter(|line| line.starts_with("overlay_peer_state{"));
    assert_eq!(samples.clone().count(), 2 * PeerState::ALL.len());
    assert_eq!(samples.filter(|line| line.ends_with(" 1")).count(), 2);
}

#[test]
fn every_offload_has_a_sample_for_each_state_and_one_of_them_is_1() {
    let view = view([]);
    view.shell_stats().offloads.set(Offload::TunTcp, OffloadState::FallenBack);
    let text = text(&view);
    for (labels, value) in [
        (r#"{offload="tun_tcp",state="fallen_back"}"#, 1),
        (r#"{offload="tun_tcp",state="on"}"#, 0),
        (r#"{offload="udp_coalescing",state="off"}"#, 1),
    ] {
        assert!(text.contains(&format!("\noverlay_offload{labels} {value}\n")), "{labels} in {text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("overlay_offload{") && line.ends_with(" 1")).count(), 4);
}

#[test]
fn what_the_kernel_holds_and_drops_is_asked_at_scrape_time() {
    let view = view([]);
    assert!(!text(&view).contains("overlay_tun_queue_dropped"), "there is nobody to ask yet");
    let _sockets = watch_loopback(&view);
    let text = text(&view);
    for line in [
        "overlay_tun_queue_dropped_total 0",
        "overlay_udp_receive_overflow_total 0",
        "overlay_udp_receive_queued_bytes 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
    assert!(text.contains("\noverlay_udp_receive_buffer_bytes "), "{text}");
}

#[test]
fn each_family_stands_once_and_the_text_ends_as_openmetrics_asks() {
    let view = view([bob()]);
    let _sockets = watch_loopback(&view);
    let text = text(&view);
    let mut families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), count);
    assert!(families.contains(&"overlay_udp_send_errors counter") && families.contains(&"overlay_build info"));
    assert!(text.contains("overlay_peers 1\n") && text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn the_families_of_the_text_are_those_that_are_documented() {
    let view = view([bob()]);
    let _sockets = watch_loopback(&view);
    view.attach_host(Arc::new(HostFacts::new("no such interface")));
    view.attach_agent(Arc::default(), Arc::default(), Arc::default());
    view.set_names(Some(NamesShown {
        domain: "lab.overlay.internal".to_owned(),
        way: "hosts".to_owned(),
        servers: Vec::new(),
        agents: 2,
        ambiguous: Vec::new(),
        shadowed: Vec::new(),
        questions: [("answered".to_owned(), 7)].into(),
    }));
    shake_hands(&view, 0xbb, Instant::default(), 1_700_000_123);
    find_path_mtu(&view, 0xbb, 1228, overlay_core::PathMtuState::Found, 1);
    let text = text(&view);
    let groups = groups();
    let families: Vec<_> = groups.iter().flat_map(|group| &group.families).collect();
    let declared: Vec<_> = families.iter().map(|f| format!("overlay_{} {}", f.name, f.kind.name())).collect();
    let written: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(written, declared.iter().map(String::as_str).collect::<Vec<_>>());
    for family in families {
        let shown = family.to_string();
        let name = shown.split('{').next().expect("a name");
        let sample = text.lines().find(|line| line.split(['{', ' ']).next() == Some(name));
        let sample = sample.unwrap_or_else(|| panic!("no sample of {shown} in {text}"));
        let labels: Vec<_> =
            sample.split(['{', ',']).skip(1).filter_map(|label| Some(label.split_once('=')?.0)).collect();
        assert_eq!(labels, family.labels, "{sample}");
    }
}

#[test]
fn no_secret_is_in_the_text() {
    let text = text(&view([nameless()]));
    for secret in ["ERERERER", "11111111", "3d3d3d3d", "dddddddd"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
