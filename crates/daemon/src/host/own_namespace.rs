//! Runs tests in their own network namespace, which contains nothing but loopback.
//!
//! The effects of netlink requests are checked with the real `ip` and `nft`. Left out: anything that needs a second
//! host.

use std::future::Future;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `test` on a thread in a fresh namespace with loopback up. Without root or `/dev/net/tun` it skips and prints
/// why.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    if !Path::new("/dev/net/tun").exists() {
        eprintln!("skipped: there is no /dev/net/tun");
        return;
    }
    // The golden files of the test are named after its thread.
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name);
        let inside = thread.spawn_scoped(scope, || {
            if let Err(error) = overlay_os::netns::isolate_thread() {
                eprintln!("skipped: no network namespace can be made: {error}");
                return;
            }
            ip("link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(test());
        });
        let inside = inside.expect("a thread");
        if let Err(panic) = inside.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs the real `ip` with words separated by blanks, and returns its output.
pub(crate) fn ip(words: &str) -> String {
    program("ip", words)
}

/// Runs the real `nft` in the same way.
pub(super) fn nft(words: &str) -> String {
    program("nft", words)
}

fn program(name: &str, words: &str) -> String {
    let output = Command::new(name).args(words.split(' ')).stderr(Stdio::inherit()).output().expect("it is installed");
    assert!(output.status.success(), "{name} {words}");
    String::from_utf8(output.stdout).expect("text")
}

/// Returns everything that the system shows of the network, to compare before and after.
pub(super) fn everything() -> Vec<String> {
    let asked = ["-br link", "-br address", "-4 route show table all", "-6 route show table all", "-4 rule", "-6 rule"];
    let mut all: Vec<String> = asked.map(ip).into();
    all.push(nft("list ruleset"));
    all
}
