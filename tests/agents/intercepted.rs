//! A squid between the agents and their rendezvous, which opens TLS with a CA of its own as companies and sandboxes do.
//!
//! Behind squid stands a recorder, which opens squid's TLS in turn. What it writes down is what squid has decrypted.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::lab::{Agents, Process};

/// From nothing to a page by virtual IP, through squid.
const FROM_NOTHING: Duration = Duration::from_secs(10);
const RENDEZVOUS: &str = "192.0.2.9:7447";
/// Names that are long enough not to occur in ciphertext by chance.
const NAMES: [&str; 2] = ["alice-hidden", "robert-quiet"];

/// Squid and the recorder, on the host of the rendezvous.
struct Interceptor {
    /// Squid runs as its own user, who cannot enter the lab's folder.
    dir: TempDir,
    recorded: PathBuf,
    _squid: Process,
    _recorder: Process,
}

impl Interceptor {
    /// Starts both, and redirects to squid what agents send to the rendezvous. `None` if this machine cannot.
    fn start(test: &str, router: &Host) -> Option<Interceptor> {
        if !lab::installed(test, &["squid", "openssl", "python3", "curl"]) {
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix(&format!("ovl-{}-squid", std::process::id()))
            .tempdir()
            .expect("a temporary folder");
        let path = dir.path().display();
        router.shell(&format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=CA of squid' \
             -addext basicConstraints=critical,CA:TRUE -keyout {path}/ca.key -out {path}/ca.pem 2>&1"
        ));
        router.shell(&format!("/usr/lib/squid/security_file_certgen -c -s {path}/certificates -M 4MB"));
        router.shell(&format!("chown -R proxy: {path}"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
        let config = format!(
            "https_port 3129 intercept ssl-bump generate-host-certificates=on tls-cert={path}/ca.pem tls-key={path}/ca.key\n\
             http_port 3128\n\
             sslcrtd_program /usr/lib/squid/security_file_certgen -s {path}/certificates -M 4MB\n\
             ssl_bump bump all\n\
             http_access allow all\n\
             http_upgrade_request_protocols websocket allow all\n\
             sslproxy_cert_error allow all\n\
             tls_outgoing_options flags=DONT_VERIFY_PEER\n\
             logformat opened %Ss/%03>Hs %rm %ru %ssl::bump_mode\n\
             access_log stdio:{path}/access.log logformat=opened\n\
             cache_log {path}/cache.log\n\
             cache deny all\n\
             pid_filename none\n\
             coredump_dir {path}\n\
             cache_effective_user proxy\n\
             visible_hostname squid\n\
             shutdown_lifetime 0 seconds\n"
        );
        let file = dir.path().join("squid.conf");
        fs::write(&file, config).expect("our own folder");
        let uid = router.exec("id -u proxy").trim().parse().expect("a number");
        chown(&file, Some(uid), None).expect("our own file");

        let recorded = router.dir().join("recorded");
        fs::create_dir(&recorded).expect("the host's folder");
        let script = router.write("recorder.py", include_str!("recorder.py"));
        let recorder = router.spawn(format!(
            "python3 {} {} 7450 {path}/ca.pem {path}/ca.key 192.0.2.9 7447",
            script.display(),
            recorded.display()
        ));
        let squid = router.spawn(format!("squid -N -f {}", file.display()));
        router.wait_for_listener(7450);
        router.wait_for_listener(3129);
        router.exec("nft add table ip squid");
        router.exec(["nft", "add chain ip squid prerouting { type nat hook prerouting priority -100; }"]);
        router.exec("nft add rule ip squid prerouting tcp dport 7447 redirect to :3129");
        router.exec(["nft", "add chain ip squid output { type nat hook output priority -100; }"]);
        router.exec(format!("nft add rule ip squid output meta skuid {uid} tcp dport 7447 redirect to :7450"));
        Some(Interceptor { dir, recorded, _squid: squid, _recorder: recorder })
    }

    fn ca(&self) -> String {
        self.dir.path().join("ca.pem").display().to_string()
    }

    fn access_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
    }

    /// What each connection carried in each direction: the HTTP head, and the payloads of the WebSocket messages.
    fn plaintexts(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(&self.recorded).expect("the recorder's folder").flatten();
        let files = files.filter(|file| file.file_name() != "inject");
        files.map(|file| opened(&fs::read(file.path()).expect("a record"))).collect()
    }

    fn connections(&self) -> usize {
        fs::read_dir(&self.recorded).expect("the recorder's folder").count() / 2
    }

    /// Puts a message towards an end, in all connections' place the first that is quiet, and waits until it is sent.
    #[track_caller]
    fn inject(&self, end: &str) {
        let (file, whole) = (self.recorded.join("inject"), self.recorded.with_extension("new"));
        fs::write(&whole, end).expect("the host's folder");
        fs::rename(whole, &file).expect("the recorder's folder");
        within(SHORTLY, "the message to be injected", || (!file.exists()).then_some(()));
    }
}

/// Splits a record into the HTTP head and the unmasked payloads of the frames behind it (RFC 6455 section 5.2).
fn opened(record: &[u8]) -> (String, Vec<u8>) {
    let end = record.windows(4).position(|four| four == b"\r\n\r\n").map_or(record.len(), |at| at + 4);
    let (head, mut rest) = record.split_at(end);
    let mut payloads = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk::<2>() {
        let extra = match header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_len = if header[1] & 0x80 == 0 { 0 } else { 4 };
        let Some((fields, after)) = after.split_at_checked(extra + mask_len) else { break };
        let len = fields[..extra].iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
        let len = if extra == 0 { usize::from(header[1] & 0x7f) } else { len };
        let mask = &fields[extra..];
        let (payload, after) = after.split_at(len.min(after.len()));
        payloads.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask.get(i % 4).copied().unwrap_or(0)));
        rest = after;
    }
    (String::from_utf8_lossy(head).into_owned(), payloads)
}

/// Writes bytes as digits of `bits` bits, without padding.
fn digits(bytes: &[u8], bits: u32, alphabet: &str) -> Vec<u8> {
    let (mut held, mut count, mut out) = (0_u32, 0, Vec::new());
    for &byte in bytes {
        held = (held << 8 | u32::from(byte)) & 0xffff;
        count += 8;
        while count >= bits {
            count -= bits;
            out.push(alphabet.as_bytes()[(held >> count) as usize & ((1 << bits) - 1)]);
        }
    }
    out
}

const BASE32: &str = "abcdefghijklmnopqrstuvwxyz234567";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The ways in which bytes may be written: as they are, in hexadecimal, base32 and base64, at any offset in a longer text.
fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![bytes.to_vec(), bytes.to_ascii_uppercase()];
    for (bits, group, alphabet) in [(4, 1, "0123456789abcdef"), (5, 5, BASE32), (6, 3, BASE64), (6, 3, BASE64_URL)] {
        for skipped in 0..group {
            // Digits that bytes before or behind ours take part in are left out.
            let padded = [&vec![0; skipped][..], bytes].concat();
            let text = digits(&padded, bits, alphabet).split_off((skipped * 8).div_ceil(bits as usize));
            if bits < 6 {
                forms.push(text.to_ascii_uppercase());
            }
            forms.push(text);
        }
    }
    forms
}

fn contains(text: &[u8], form: &[u8]) -> bool {
    text.windows(form.len()).any(|window| window == form)
}

/// The bytes of a key that is written in base32.
fn key_bytes(text: &str) -> Vec<u8> {
    let values: Vec<u8> =
        text.bytes().map(|byte| BASE32.bytes().position(|digit| digit == byte).expect("base32") as u8).collect();
    let bits: Vec<u8> = values.iter().flat_map(|value| (0..5).rev().map(move |bit| value >> bit & 1)).collect();
    bits.chunks_exact(8).map(|eight| eight.iter().fold(0, |byte, bit| byte << 1 | bit)).take(32).collect()
}

#[test]
fn the_search_unmasks_frames_and_knows_each_form() {
    // The example of RFC 6455 section 5.7, behind a head.
    let masked = b"GET /\r\n\r\n\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(opened(masked), ("GET /\r\n\r\n".to_owned(), b"Hello".to_vec()));
    let texts = ["x616c6963652d68696464656e", "MFWGSY3FFVUGSZDEMVXA", "eGFsaWNlLWhpZGRlbg==", "alice-hidden"];
    for text in texts {
        assert!(forms(b"alice-hidden").iter().any(|form| contains(text.as_bytes(), form)), "{text}");
    }
}

#[test]
fn squid_that_opens_tls_carries_the_rendezvous_and_reads_no_name_or_key() {
    const TEST: &str = "through squid";
    let Some(mut world) = Agents::new(TEST) else { return };
    let Some(squid) = Interceptor::start(TEST, &world.router) else { return };
    let began = Instant::now();
    let (alice, bob) = (world.agent(NAMES[0]), world.agent(NAMES[1]));
    let _server = bob.serves();
    alice.ask(&format!("handshake {} --want tcp/8000", NAMES[1]));
    bob.is_asked_by(NAMES[0]);
    bob.ask(&format!("approve {}", NAMES[0]));
    let v4 = bob.v4();
    gets_page(&alice, &v4);
    let took = began.elapsed();
    eprintln!("from nothing to curl, through squid: {:.1} s", took.as_secs_f64());
    assert!(took <= FROM_NOTHING, "{took:?}");

    // Squid has opened TLS: the certificate is squid's, and it has read the request.
    let shown = alice
        .host
        .shell(&format!("openssl s_client -connect {RENDEZVOUS} -CAfile {} </dev/null 2>&1 || true", squid.ca()));
    assert!(shown.contains("CN = CA of squid") && shown.contains("Verify return code: 0 (ok)"), "{shown}");
    let upgrade = format!("GET https://{RENDEZVOUS}/v1/control bump");
    within(SHORTLY, "squid's line about the upgrade", || squid.access_log().contains(&upgrade).then_some(()));
    let log = squid.access_log();
    assert!(log.contains(&format!("CONNECT {RENDEZVOUS} bump")), "{log}");

    let plaintexts = squid.plaintexts();
    let heads: Vec<_> = plaintexts.iter().map(|(head, _)| head.as_str()).collect();
    assert!(heads.iter().any(|head| head.starts_with("GET /v1/control HTTP/1.1\r\n")), "{heads:?}");
    assert!(heads.iter().any(|head| head.starts_with("HTTP/1.1 101 ")), "{heads:?}");
    let total: usize = plaintexts.iter().map(|(_, payloads)| payloads.len()).sum();
    assert!(total > 10_000, "only {total} bytes inside the WebSockets");
    eprintln!("{} directions, {total} bytes inside", plaintexts.len());

    let status = [alice.ask("agents"), bob.ask("agents")];
    let mut secrets: Vec<(String, Vec<u8>)> = NAMES.map(|name| (name.to_owned(), name.into())).into();
    let identities = status.iter().map(|status| status["identity"].as_str().expect("an identity"));
    let keys = world.url.split_once('#').expect("keys").1.split('.');
    for key in identities.chain(keys) {
        let bytes = key_bytes(key);
        assert_eq!(bytes.len(), 32, "{key}");
        secrets.push((key.to_owned(), bytes));
    }
    for agent in [&alice, &bob] {
        let v6: std::net::Ipv6Addr = agent.v6().parse().expect("an address");
        secrets.push((v6.to_string(), v6.octets().into()));
        secrets.push((agent.v4(), agent.v4().into_bytes()));
    }
    for (head, payloads) in &plaintexts {
        // The network's name is short. In ciphertext only its CBOR text counts, and the random keys of WebSocket do not.
        let said = |line: &str| !line.starts_with("sec-websocket-") && line.contains("lab");
        let is_named = head.to_lowercase().lines().any(said) || contains(payloads, b"\x63lab");
        assert!(!is_named, "squid reads the network's name: {head}");
        for (what, bytes) in &secrets {
            for form in forms(bytes) {
                assert!(!contains(head.as_bytes(), &form) && !contains(payloads, &form), "squid reads {what}: {head}");
            }
        }
    }
}

#[test]
fn a_message_that_is_injected_behind_squid_ends_the_connection_and_the_agent_reconnects() {
    const TEST: &str = "injected behind squid";
    let Some(mut world) = Agents::new(TEST) else { return };
    let Some(squid) = Interceptor::start(TEST, &world.router) else { return };
    let alice = world.agent(NAMES[0]);
    for end in ["agent", "server"] {
        let (before, shown) = (squid.connections(), alice.ask("agents")["peers"].clone());
        squid.inject(end);
        within(Duration::from_secs(45), &format!("a new connection after a message to the {end}"), || {
            (squid.connections() > before).then_some(())
        });
        alice.is_registered(NAMES[0]);
        assert_eq!(alice.ask("agents")["peers"], shown, "a message to the {end} was believed");
    }
    let log = alice.daemon().log();
    assert!(log.matches("the connection to the rendezvous ended").count() >= 2, "{log}");
}
