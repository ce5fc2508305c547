//! nebula from Debian's package: an overlay network with certificates instead of key pairs, and the same kind of data
//! plane.
//!
//! Both hosts are in `static_host_map`, so no lighthouse takes part. It keeps its default cipher.

use std::path::Path;

use super::{MTU, Side, Start, Tunnel, version_of};
use crate::lab::Pair;
use crate::lab::process::find;

/// How its configuration differs from the default.
pub(super) const NOTE: &str =
    "AES-256-GCM as it comes; no lighthouse; tun.mtu 1420 in place of its 1300, as the others";

const PORT: u16 = 4242;

/// The programs `nebula` and `nebula-cert`.
#[derive(Debug)]
pub(super) struct Nebula;

impl Tunnel for Nebula {
    fn prepare(&self, pair: &Pair, side: Side) -> Start {
        let host = side.host(pair).clone();
        let authority = pair.lab.dir();
        if !authority.join("ca.crt").exists() {
            host.exec(format!("nebula-cert ca -name contest {}", files("-out", authority, "ca")));
        }
        host.exec(format!(
            "nebula-cert sign {} -name {} -ip {}/24 {}",
            files("-ca", authority, "ca"),
            host.name(),
            side.addresses().v4,
            files("-out", host.dir(), "host"),
        ));
        let far = side.other().addresses();
        let config = host.write(
            "nebula.yml",
            format!(
                "pki: {{ca: {ca}/ca.crt, cert: {own}/host.crt, key: {own}/host.key}}\n\
                 static_host_map: {{\"{inner}\": [\"{outer}:{PORT}\"]}}\n\
                 lighthouse: {{am_lighthouse: false, hosts: []}}\n\
                 listen: {{host: 0.0.0.0, port: {PORT}}}\n\
                 tun: {{dev: {interface}, mtu: {MTU}}}\n\
                 logging: {{level: error}}\n\
                 firewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  \
                 inbound: [{{port: any, proto: any, host: any}}]\n",
                ca = authority.display(),
                own = host.dir().display(),
                inner = far.v4,
                outer = far.outer_v4,
                interface = host.interface(),
            ),
        );
        Box::new(move || host.spawn(["nebula", "-config", &config.to_string_lossy()]))
    }

    fn version(&self) -> Option<String> {
        version_of(&find("nebula")?, "-version").map(|line| line.replace("Version:", "nebula"))
    }
}

/// The two arguments that name a certificate and its key: `-out-crt DIR/host.crt -out-key DIR/host.key`.
fn files(option: &str, folder: &Path, name: &str) -> String {
    let stem = folder.join(name).display().to_string();
    format!("{option}-crt {stem}.crt {option}-key {stem}.key")
}
