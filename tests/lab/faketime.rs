//! Wall clocks that are wrong: libfaketime changes what libc reports to one program. CLOCK_BOOTTIME and the timers are the
//! kernel's.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Host, skip};

/// Where Debian has it.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

/// Gives a program a wall clock that is off by the current content of the file. Returns false if this machine cannot.
#[must_use]
pub fn under_another_clock(command: &mut Command, offset: &Path) -> bool {
    let Some(library) = LIBRARIES.iter().find(|library| Path::new(library).exists()) else {
        skip("wall clock", "not installed: faketime (scripts/setup test)");
        return false;
    };
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", offset)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    true
}

/// Sets the clock of the programs of a host that run under [`under_another_clock`], for example to `-400d`.
pub fn set_offset(host: &Host, offset: &str) -> PathBuf {
    host.write("offset", format!("{offset}\n"))
}
