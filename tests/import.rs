//! Compares `overlay import` with the real `wg` and `wg-quick`: it accepts what they accept, and the peers are the
//! same.

mod lab;

use std::fs;

use lab::{Finished, Host, Overlay, Pair};
use overlay_golden::golden;

const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const BOB: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const CAROL: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

/// Configs as people write them, valid and invalid. `BOB` and `CAROL` stand for their keys. An [Interface] with key and
/// address precedes each.
const CORPUS: &[&str] = &[
    "[Peer]\nPublicKey = BOB\nAllowedIPs = 10.77.0.2/32\n",
    "[pEER]\npublickey=BOB\nALLOWEDIPS=10.77.0.2\nendpoint=192.0.2.1:51820",
    "[ Peer ] # bob\n\tPublic Key = BOB # his\n Allowed IPs = 10.77. 0.2/32 , fd77::2/128\r\nPersistentKeepalive = off\r\n",
    "[Peer]\nPublicKey = BOB\nAllowedIPs = 10.77.5.9/24\nAllowedIPs = 10.78.0.0/016, fd77::/64\nPersistentKeepalive = 025\n",
    "[Peer]\nPublicKey = BOB\n",
    "[Peer]\nPublicKey = BOB\nAllowedIPs = 10.79.0.0/16\nEndpoint = 192.0.2.1:1\n[Peer]\nPublicKey = CAROL\nAllowedIPs = 10.79.0.0/16\n",
    "[Peer]\nPublicKey = BOB\nAllowedIPs = 10.77.0.2\nEndpoint = 192.0.2.1:1\nPersistentKeepalive = 5\n[Peer]\nPublicKey = BOB\nAllowedIPs = 10.77.0.3\n",
    "[Peer]\nPublicKey = BOB\nEndpoint = [2001:db8::7]:51820\n[Peer]\nPublicKey = CAROL\nEndpoint = 2001:db8::8:51820\n",
    "[Peer]\nPublicKey = BOB\nEndpoint = [192.0.2.1]:51820\n",
    "[Peer]\nPublicKey = BOB\nEndpoint = 192.0.2.1:domain\n",
    "[Peer]\nPublicKey = BOB\nEndpoint = 192.0.2.1:1\nEndpoint = 192.0.2.2:2\n",
    "[Peer]\nPublicKey = BOB\nPresharedKey = XLDg27A/60RZhnh2DjnlZ9FXgcQOV4iko8XKaOJWMxw=\nPersistentKeepalive = 65535\n",
    "[Peer]\nPublicKey = BOB\nPresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    "[Interface]\nListenPort = 0\nFwMark = 0xca6c\nMTU = 1400\n[Peer]\nPublicKey = BOB\n",
    "FwMark = off\nListenPort = 51999\nTable = auto\nDNS = 192.0.2.53, lab.test\nSaveConfig = false\n",
    "FwMark = 51820\n[Peer]\nPublicKey = BOB\n",
    // Both refuse these.
    "[Peer]\nAllowedIPs = 10.77.0.2/32\n",
    "[Peer]\nPublicKey = BOB\nAllowedIPs = 10.77.0.2/33\n",
    "[Peer]\nPublicKey = BOB\nAllowedIPs = ten\n",
    "[Peer]\nPublicKey = BOB\nEndpoint = 192.0.2.1\n",
    "[Peer]\nPublicKey = BOB\nPersistentKeepalive = 65536\n",
    "[Peer]\nPublicKey = BOB\nPersistentKeepalive = often\n",
    "[Peer]\nPublicKey = short\n",
    "[Peer]\nPublicKey = BOB\nAddress = 10.77.0.2\n",
    "FwMark = 0x1ffffffff\n",
    "ListenPort = nosuchservice\n",
    "Jc = 4\nJmin = 40\n",
    "Nonsense = 1\n",
    "[Pear]\n",
    "no equals sign\n",
];

#[test]
fn what_wg_takes_is_imported_and_the_peers_are_the_same() {
    let Some(pair) = Pair::new("import, corpus") else { return };
    let host = &pair.a;
    let (name, device) = (host.interface(), format!("{}2", host.interface()));
    let _device = host.spawn(["overlay", "wg", "-f", &device].map(|word| match word {
        "overlay" => env!("CARGO_BIN_EXE_overlay"),
        word => word,
    }));
    lab::within(lab::SHORTLY, "the device", || (host.run(format!("wg show {device}")).code == 0).then_some(()));
    let mut otherwise = Vec::new();
    for text in CORPUS {
        for file in fs::read_dir(host.dir()).expect("our own folder").flatten().map(|entry| entry.path()) {
            if file.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)) {
                fs::remove_file(file).expect("our own file");
            }
        }
        let text = text.replace("BOB", BOB).replace("CAROL", CAROL);
        let conf = host.write(
            &format!("{name}.conf"),
            format!("[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.77.0.1/24\n{text}"),
        );
        let strip = format!(
            "wg-quick strip {0} > {1}/stripped && wg setconf {device} {1}/stripped",
            conf.display(),
            host.dir().display()
        );
        let wg = host.run(["bash", "-c", &strip]);
        let said = in_its_folder(host, &format!("import {name}.conf -o ."));
        if (wg.code == 0) != matches!(said.code, 0 | 10) {
            otherwise.push(format!("wg {}, import {}:\n{text}\n{}{}", wg.code, said.code, wg.stderr, said.stderr));
            continue;
        }
        if wg.code == 0 {
            let toml = host.dir().join(format!("{name}.toml"));
            let up = Overlay::from_command(host, host.overlay_command(format!("up {}", toml.display())));
            let (ours, theirs) = (peers(host, name), peers(host, &device));
            if ours != theirs {
                otherwise.push(format!("{text}\nours {ours:?}\nwg   {theirs:?}"));
            }
            up.stop();
        }
    }
    assert!(otherwise.is_empty(), "{}", otherwise.join("\n\n"));
}

/// Peers as `wg` shows them: key, preshared key, endpoint, prefixes, keepalive.
fn peers(host: &Host, device: &str) -> Vec<Vec<String>> {
    let dump = host.exec(format!("wg show {device} dump"));
    let peer = |line: &str| {
        let fields: Vec<_> = line.split('\t').collect();
        let mut prefixes: Vec<_> = fields[3].split(',').collect();
        prefixes.sort_unstable();
        [fields[0], fields[1], fields[2], &prefixes.join(","), fields[7]].map(str::to_owned).to_vec()
    };
    let mut peers: Vec<_> = dump.lines().skip(1).map(peer).collect();
    peers.sort_unstable();
    peers
}

#[test]
fn a_hub_that_forwards_is_imported_with_forwarding() {
    let Some(pair) = Pair::new("import a hub") else { return };
    let host = &pair.a;
    host.exec("sysctl -qw net.ipv4.ip_forward=1");
    host.write(
        "wg0.conf",
        format!(
            "[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.77.0.1/24\n\n[Peer]\nPublicKey = {BOB}\n\
             AllowedIPs = 10.77.0.2/32\n\n[Peer]\nPublicKey = {CAROL}\nAllowedIPs = 10.77.0.3/32\n"
        ),
    );
    let said = in_its_folder(host, "import wg0.conf -o out");
    assert_eq!(said.code, 0, "{said:?}");
    let toml = fs::read_to_string(host.dir().join("out/wg0.toml")).expect("written");
    assert!(toml.contains("forward = true\n"), "{toml}{}", said.stderr);
}

#[test]
fn a_table_by_name_never_becomes_the_default_route() {
    let Some(pair) = Pair::new("import a table") else { return };
    let host = &pair.a;
    host.write(
        "wg0.conf",
        format!(
            "[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.77.0.1/24\nTable = vpn\n\n[Peer]\nPublicKey = {BOB}\n\
             AllowedIPs = 0.0.0.0/0\n"
        ),
    );
    let said = in_its_folder(host, "import wg0.conf -o out");
    assert_eq!((said.code, host.dir().join("out").exists()), (5, false), "{said:?}");
}

#[test]
fn a_private_key_that_post_up_sets_is_taken_from_its_file() {
    let Some(pair) = Pair::new("import a key of PostUp") else { return };
    let host = &pair.a;
    let key = host.write_secret("a.key", PRIVATE);
    host.write(
        "wg0.conf",
        format!(
            "[Interface]\nAddress = 10.77.0.1/24\nPostUp = wg set %i private-key {}\n\n[Peer]\nPublicKey = {BOB}\n\
             AllowedIPs = 10.77.0.2/32\n",
            key.display()
        ),
    );
    let said = in_its_folder(host, "import wg0.conf -o out");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(in_its_folder(host, "config check out/wg0.toml").code, 0);
}

#[test]
fn what_does_not_work_afterwards_is_degraded_and_hints_are_quoted() {
    let Some(pair) = Pair::new("import, degraded") else { return };
    let host = &pair.a;
    host.write(
        "two words.conf",
        format!("[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.77.0.1/24\nDNS = 192.0.2.53\n"),
    );
    let said = finished(host.overlay_command(["import", "two words.conf", "-o", "my out"]).current_dir(host.dir()));
    assert_eq!((said.code, said.stdout.as_str()), (10, "my out/two-words.toml\n"), "{said:?}");
    assert!(said.stderr.ends_with("sudo overlay up 'my out/two-words.toml'\n"), "{said:?}");
    golden("import", said.stderr);
    let again = finished(host.overlay_command(["import", "two words.conf", "-o", "my out"]).current_dir(host.dir()));
    assert!(again.stderr.contains("overlay import 'two words.conf' -o DIR "), "{again:?}");
    golden("a second time", again.stderr);
}

fn in_its_folder(host: &Host, arguments: &str) -> Finished {
    finished(host.overlay_command(arguments).current_dir(host.dir()))
}

fn finished(command: &mut std::process::Command) -> Finished {
    command.output().expect("`ip` is installed").into()
}
