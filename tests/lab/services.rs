//! Servers and clients that do not know about the tunnel: HTTP, gRPC, ssh, scp, plain TCP.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::Host;
use super::process::{Finished, Process};
use super::wait::AT_LENGTH;

/// Debian's Python interpreter, which has python3-grpcio.
pub const PYTHON: &str = "/usr/bin/python3";

/// The script with the gRPC server and client.
const ECHO_GRPC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/echo_grpc.py");

/// The port of [`http_server`].
pub const HTTP: u16 = 8000;
/// The port of [`grpc_server`].
pub const GRPC: u16 = 50051;
/// The port of [`SshServer`]. It is not 22, so that it cannot be confused with the machine's own sshd.
pub const SSH: u16 = 2222;

/// Starts an HTTP server for the files of a folder, on all addresses of the host.
#[track_caller]
pub fn http_server(host: &Host, folder: &Path) -> Process {
    http_server_at(host, folder, HTTP)
}

/// Like [`http_server`], on a different port.
#[track_caller]
pub fn http_server_at(host: &Host, folder: &Path, port: u16) -> Process {
    let server = host.spawn(format!("{PYTHON} -m http.server {port} --bind :: --directory {}", folder.display()));
    host.wait_for_listener(port);
    server
}

/// Starts `curl` to download one file into another.
pub fn curl(from: &Host, address: &str, file: &str, into: &Path) -> Process {
    let url = format!("http://{}:{HTTP}/{file}", bracketed(address));
    from.spawn(format!("curl -sS --fail --noproxy * --max-time 120 -o {} {url}", into.display()))
}

/// Starts a gRPC server that echoes, on all addresses of the host.
#[track_caller]
pub fn grpc_server(host: &Host) -> Process {
    let server = host.spawn(format!("{PYTHON} {ECHO_GRPC} serve {GRPC}"));
    host.wait_for_listener(GRPC);
    server
}

/// Starts a unary call and a bidirectional stream of `bytes` each. It fails unless the same bytes come back.
pub fn grpc_call(from: &Host, address: &str, bytes: usize) -> Process {
    from.spawn(format!("{PYTHON} {ECHO_GRPC} call {}:{GRPC} {bytes}", bracketed(address)))
}

/// A real sshd with a host key of its own. It accepts only root, with one key.
#[derive(Debug)]
pub struct SshServer {
    _process: Process,
    client_options: String,
}

impl SshServer {
    /// Starts it on all addresses of the host, with new keys.
    #[track_caller]
    pub fn start(host: &Host) -> SshServer {
        let dir = host.dir().join("ssh");
        fs::create_dir(&dir).expect("one sshd for each host");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("our own folder");
        let dir = dir.display();
        for key in ["host_key", "user_key"] {
            host.exec(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &format!("{dir}/{key}")]);
        }
        host.write(
            "ssh/sshd_config",
            format!(
                "Port {SSH}\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/user_key.pub\nStrictModes no\n\
                 PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 UsePAM no\nPidFile none\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
            ),
        );
        host.write("ssh/shadow", "root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n");
        // The namespace has mounts of its own. They give sshd its run folder, and a root account that is not locked,
        // although it is on machines where everyone uses sudo.
        let line = format!(
            "mount --bind {dir}/shadow /etc/shadow; mount -t tmpfs tmpfs /run; mkdir /run/sshd; \
             exec /usr/sbin/sshd -D -e -f {dir}/sshd_config"
        );
        let process = host.spawn(["sh", "-ec", &line]);
        host.wait_for_listener(SSH);
        let client_options = format!(
            "-F none -i {dir}/user_key -o Port={SSH} -o BatchMode=yes -o IdentitiesOnly=yes -o ConnectTimeout=20 \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        );
        SshServer { _process: process, client_options }
    }

    /// Runs a line of shell over `ssh` from another host, with a local file as its input.
    pub fn ssh(&self, from: &Host, address: &str, remote: &str, input: &Path) -> Process {
        let line = format!("exec ssh {} root@{address} '{remote}' < {}", self.client_options, input.display());
        from.spawn(["sh", "-c", &line])
    }

    /// Starts an ssh session that carries traffic both ways until it is dropped. Every tenth of a second the client
    /// sends a line, which goes into `log` on the server's host, and the server sends a line too.
    pub fn chatter(&self, from: &Host, address: &str, log: &Path) -> Process {
        let talk = "while echo tick; do sleep 0.1; done";
        let remote = format!("({talk}) & cat > {}", log.display());
        from.spawn(["sh", "-c", &format!("({talk}) | exec ssh {} root@{address} '{remote}'", self.client_options)])
    }

    /// Starts `scp` from a local file to a path on the server's host.
    pub fn scp_to(&self, from: &Host, address: &str, file: &Path, into: &Path) -> Process {
        let target = format!("root@{}:{}", bracketed(address), into.display());
        from.spawn(format!("scp -q {} {} {target}", self.client_options, file.display()))
    }

    /// Starts `scp` from a file on the server's host to a local path.
    pub fn scp_from(&self, from: &Host, address: &str, file: &Path, into: &Path) -> Process {
        let source = format!("root@{}:{}", bracketed(address), file.display());
        from.spawn(format!("scp -q {} {source} {}", self.client_options, into.display()))
    }
}

/// Creates a file of random bytes in the host's folder.
pub fn random_file(host: &Host, name: &str, bytes: u64) -> PathBuf {
    let path = host.dir().join(name);
    host.shell(&format!("head -c {bytes} /dev/urandom > {}", path.display()));
    path
}

/// The SHA-256 of a file in hexadecimal.
#[track_caller]
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum is part of every Debian");
    let sum = Finished::from(output).succeeded(&format!("sha256sum {}", path.display()));
    sum.split(' ').next().unwrap_or_default().into()
}

/// Sends a file over one TCP connection from `from` to `address` on `to`, with socat on both ends. Returns the SHA-256
/// of what arrived.
#[track_caller]
pub fn tcp_transfer(from: &Host, to: &Host, address: &str, file: &Path) -> String {
    const PORT: u16 = 9000;
    let family = if address.contains(':') { "TCP6" } else { "TCP4" };
    let receive = format!("socat -u {family}-LISTEN:{PORT},reuseaddr STDOUT | sha256sum");
    let receiver = to.spawn(["sh", "-c", &receive]);
    to.wait_for_listener(PORT);
    from.exec(format!("socat -u OPEN:{} {family}:{}:{PORT}", file.display(), bracketed(address)));
    let sum = receiver.succeed_within(AT_LENGTH);
    sum.split(' ').next().unwrap_or_default().into()
}

/// The address as URLs and scp require it.
pub fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.into() }
}
