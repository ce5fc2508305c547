//! How a running daemon reacts when the host changes around it. A reload judges only what it adds. An obstacle from
//! outside is a warning in `status`. Optional parts come later or not at all.

mod lab;

use std::fs;
use std::path::Path;

use lab::{A, B, Outside, Overlay, Pair, SHORTLY, within, words};
use overlay_golden::golden;

/// A container network that appears where the tunnel already is.
const CONTAINERS: &str = "address add 10.77.0.99/24 dev to-b";

#[test]
fn a_network_that_appears_outside_does_not_stop_reloads() {
    let Some(pair) = Pair::new("network appears") else { return };
    let (a, b) = (&pair.a, &pair.b);
    let carol = "\n[[peer]]\nname = \"carol\"\npublic_key = \"TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=\"\n\
                 allowed_ips = [\"10.77.0.3/32\"]\n";
    let overlay = a.overlay_up(&(pair.config_of_a(Outside::V4) + carol));
    let _far = b.overlay_up(&pair.config_of_b(Outside::V4));
    a.reaches(B.v4);
    assert_eq!(warnings(&overlay), [] as [String; 0]);
    a.ip(CONTAINERS);
    let said = within(SHORTLY, "status to say it", || only(warnings(&overlay)));
    golden("10.77.0.0/24 on to-b", &said);

    fs::write(overlay.config(), pair.config_of_a(Outside::V4)).expect("our own file");
    let reloaded = a.overlay("reload --json");
    assert_eq!(reloaded.code, 0, "{reloaded:?}");
    assert!(reloaded.stdout.contains("\"removed\":[\"carol\"]"), "{reloaded:?}");
    assert_eq!(warnings(&overlay), [said]);

    // What the reload itself adds is judged before anything is touched.
    let more = pair
        .config_of_a(Outside::V4)
        .replace("51820\n", "51999\n")
        .replace("\"10.77.0.2/32\"", "\"10.77.0.2/32\", \"10.1.0.0/24\"");
    fs::write(overlay.config(), more).expect("our own file");
    let refused = a.overlay("reload");
    assert_eq!(refused.code, 9, "{refused:?}");
    a.golden("a prefix of to-b", &refused.stderr);
    assert_eq!(overlay.status()["interface"]["listen_port"], 51820, "what stood stands");

    a.ip(&CONTAINERS.replace(" add ", " delete "));
    within(SHORTLY, "the warning to go", || warnings(&overlay).is_empty().then_some(()));
    a.reaches(B.v4);
}

#[test]
fn a_key_file_that_can_no_longer_be_read_keeps_its_key() {
    let Some(pair) = Pair::new("key file gone") else { return };
    let a = &pair.a;
    let overlay = a.overlay_up(&pair.config_of_a(Outside::V4));
    fs::rename(a.private_key_file(), a.dir().join("elsewhere")).expect("our own file");
    let said = a.overlay("reload");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(overlay.status()["interface"]["public_key"], a.public_key());
    assert!(overlay.log().contains(words::KEY_STAYS), "{}", overlay.log());
}

#[test]
fn metrics_may_listen_on_our_own_virtual_ip() {
    let Some(pair) = Pair::new("metrics on the virtual ip") else { return };
    let (a, b) = (&pair.a, &pair.b);
    let metrics = format!("\n[metrics]\nlisten = \"{}:9586\"\n", A.v4);
    let _overlay = a.overlay_up(&(pair.config_of_a(Outside::V4) + &metrics));
    let _far = b.overlay_up(&pair.config_of_b(Outside::V4));
    a.reaches(B.v4);
    let scraped = b.exec(format!("curl -sS --max-time 5 http://{}:9586/metrics", A.v4));
    assert!(scraped.contains("overlay_peers 1\n"), "{scraped}");
}

#[test]
fn metrics_that_cannot_listen_yet_come_when_they_can() {
    let Some(pair) = Pair::new("metrics port in use") else { return };
    let a = &pair.a;
    let occupant = a.spawn("socat TCP4-LISTEN:9586,bind=127.0.0.1 /dev/null");
    a.wait_for_listener(9586);
    let overlay = a.overlay_up(&(pair.config_of_a(Outside::V4) + "\n[metrics]\nlisten = \"127.0.0.1:9586\"\n"));
    golden("the port is taken", within(SHORTLY, "status to say it", || only(warnings(&overlay))));
    drop(occupant);
    within(SHORTLY, "the metrics to come", || warnings(&overlay).is_empty().then_some(()));
    assert!(a.exec("curl -sS --max-time 5 http://127.0.0.1:9586/metrics").contains("overlay_warnings 0\n"));
}

#[test]
fn without_its_socket_for_wg_it_comes_up_and_opens_it_later() {
    let Some(pair) = Pair::new("no uapi socket") else { return };
    let a = &pair.a;
    let socket = Path::new("/var/run/wireguard").join(format!("{}.sock", a.interface()));
    fs::create_dir_all(socket.join("occupied")).expect("root may");
    let overlay = a.overlay_up(&pair.config_of_a(Outside::V4));
    a.golden("a folder in its place", &only(warnings(&overlay)).expect("one warning"));
    fs::remove_dir_all(&socket).expect("our own folder");
    within(SHORTLY, "the socket to come", || warnings(&overlay).is_empty().then_some(()));
    assert!(a.exec(format!("wg show {}", a.interface())).contains(a.public_key()));
    overlay.stop();
    assert!(!socket.exists());
}

#[test]
fn an_endpoint_on_the_link_inside_allowed_ips_is_reached_by_the_link() {
    let Some(pair) = Pair::new("endpoint on link") else { return };
    let (a, b) = (&pair.a, &pair.b);
    // The wire is 10.1.0.0/24, which is more specific than the prefix that b may send from.
    let wide = pair.config_of_a(Outside::V4).replace("\"10.77.0.2/32\"", "\"10.77.0.2/32\", \"10.1.0.0/16\"");
    let overlay = a.overlay_up(&wide);
    let _far = b.overlay_up(&pair.config_of_b(Outside::V4));
    a.reaches(B.v4);
    assert_eq!(warnings(&overlay), [] as [String; 0]);
    assert!(!overlay.log().contains("WARN"), "{}", overlay.log());
}

#[test]
fn a_name_whose_address_leads_into_the_tunnel_is_said_in_status() {
    let Some(pair) = Pair::new("name in the tunnel") else { return };
    let (a, b) = (&pair.a, &pair.b);
    a.write_etc_hosts("127.0.0.1 localhost\n192.0.2.7 b.lab.test\n");
    let named = pair.config_of_a(Outside::V4).replace("10.1.0.2:51820", "b.lab.test:51820");
    let overlay = a.overlay_up(&named.replace("\"10.77.0.2/32\"", "\"10.77.0.2/32\", \"192.0.2.0/24\""));
    let said = within(SHORTLY, "status to say it", || only(warnings(&overlay)));
    let status = overlay.status();
    let hint = status["warnings"][0]["hint"].as_str().expect("a hint");
    golden("b.lab.test is 192.0.2.7", format!("{said}\nhint: {hint}"));
    // With such a route the warning goes, and the peer is reached.
    b.ip("address add 192.0.2.7/32 dev lo");
    let _far = b.overlay_up(&pair.config_of_b(Outside::V4));
    a.ip("route add 192.0.2.7/32 via 10.1.0.2");
    within(SHORTLY, "the warning to go", || warnings(&overlay).is_empty().then_some(()));
    a.reaches(B.v4);
}

#[test]
fn an_address_that_the_host_has_on_its_loopback_answers_on_both() {
    let Some(pair) = Pair::new("router id") else { return };
    let (a, b) = (&pair.a, &pair.b);
    a.ip(&format!("address add {}/32 dev lo", A.v4));
    b.ip(&format!("route add {}/32 via 10.1.0.1", A.v4));
    let _overlay = a.overlay_up(&pair.config_of_a(Outside::V4));
    b.exec(format!("ping -n -c 1 -W 5 {}", A.v4));
    b.ip(&format!("route delete {}/32 via 10.1.0.1", A.v4));
    let _far = b.overlay_up(&pair.config_of_b(Outside::V4));
    a.reaches(B.v4);
}

/// The warning, if it is one.
fn only(warnings: Vec<String>) -> Option<String> {
    <[String; 1]>::try_from(warnings).ok().map(|[warning]| warning)
}

/// The messages of the warnings that stand.
fn warnings(overlay: &Overlay) -> Vec<String> {
    let status = overlay.status();
    let list = status["warnings"].as_array().expect("a list").iter();
    list.filter_map(|warning| warning["message"].as_str().map(str::to_owned)).collect()
}
