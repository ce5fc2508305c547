//! Which users root trusts with files, and what to say when the system says "permission denied".
//!
//! "Run it with sudo" helps a user who is not root. It does not help root without CAP_DAC_OVERRIDE, the user of the
//! systemd unit, or root in a container. Those are told which owner and mode are in the way, and how to change them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use overlay_os::folder::TrustError;
use overlay_os::privileges::{effective_uid, has_net_admin};
use overlay_os::process::{group_id, user_id, user_name};

use crate::failure::{ExitKind, Failure};

/// The user and the group under which the systemd unit runs the daemon.
pub const SERVICE_USER: &str = "overlayd";

/// Where to look for a refusal by a security module.
const LOOK_FOR_DENIAL: &str = "sudo journalctl -k -g denied";

/// Returns the users besides root whose folders root trusts: the service's user.
pub(crate) fn friends() -> Vec<u32> {
    let is_root = effective_uid() == 0;
    is_root.then(|| user_id(SERVICE_USER)).flatten().into_iter().collect()
}

/// Returns the group of the service, if the service is installed.
pub(crate) fn service_group() -> Option<u32> {
    group_id(SERVICE_USER)
}

/// Describes a folder or file that is not used because of its owner.
pub(crate) fn not_trusted(what: &str, error: &TrustError) -> Failure {
    let failure = Failure::new(ExitKind::Permission, format!("{what} cannot be trusted")).with_cause(error);
    match error.fix() {
        Some(fix) => failure.with_hint(fix),
        None => failure,
    }
}

/// Why a file cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The cause, in one line.
    pub cause: String,
    /// A command or other advice.
    pub hint: String,
}

/// Explains why `path`, which the system has just refused, cannot be read or written.
pub fn denied(path: &Path) -> Denied {
    let uid = effective_uid();
    if uid != 0 && !has_net_admin() {
        return Denied { cause: "permission denied".to_owned(), hint: "run the same command with sudo".to_owned() };
    }
    let culprit = culprit(path);
    let Ok(metadata) = fs::metadata(&culprit) else {
        return Denied { cause: "permission denied".to_owned(), hint: format!("sudo namei -l {}", quoted(path)) };
    };
    describe(&culprit, &metadata, uid, culprit == path)
}

fn describe(culprit: &Path, metadata: &fs::Metadata, uid: u32, is_the_file: bool) -> Denied {
    let shown = quoted(culprit);
    let owner = user_name(metadata.uid()).unwrap_or_else(|| metadata.uid().to_string());
    let what = if is_the_file { "it".to_owned() } else { format!("the folder {}", culprit.display()) };
    let mode = metadata.mode() & 0o7777;
    let is_own = metadata.uid() == uid;
    let ours = match uid {
        0 => "root without the capability CAP_DAC_OVERRIDE".to_owned(),
        uid => format!("the user {}", user_name(uid).unwrap_or_else(|| uid.to_string())),
    };
    let cause = format!("{what} belongs to {owner} and has mode {mode:04o}; this process runs as {ours}");
    let right = if metadata.is_dir() { "rx" } else { "r" };
    let hint = match (uid, is_own) {
        // Owner and mode permit it, so something else forbids it.
        (_, true) if mode & 0o400 != 0 => LOOK_FOR_DENIAL.to_owned(),
        (_, true) => format!("sudo chmod u+{right} {shown}"),
        (0, false) if metadata.is_dir() => {
            "move the file into a folder that belongs to root, such as /etc/overlay".to_owned()
        }
        (0, false) => format!("sudo chown root {shown} && sudo chmod 600 {shown}"),
        _ => {
            let group = user_name(uid).unwrap_or_else(|| SERVICE_USER.to_owned());
            format!("sudo chgrp {group} {shown} && sudo chmod g+{right} {shown}")
        }
    };
    Denied { cause, hint }
}

/// Returns the first folder on the path that cannot be entered, or the file itself.
fn culprit(path: &Path) -> PathBuf {
    let mut above: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    above.reverse();
    let is_hidden =
        |path: &&Path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    match above.iter().position(is_hidden) {
        Some(at) if at > 0 => above[at - 1].to_owned(),
        _ => path.to_owned(),
    }
}

/// Describes a refusal by the kernel, depending on whether this process has CAP_NET_ADMIN.
pub(crate) fn refused_by_kernel(failure: Failure) -> Failure {
    if has_net_admin() {
        return failure
            .with_cause("the kernel refused it although this process has CAP_NET_ADMIN: a security module forbids it, or the network namespace belongs to somebody else")
            .with_hint(LOOK_FOR_DENIAL);
    }
    failure
        .with_cause("the kernel refused it: this needs CAP_NET_ADMIN")
        .with_hint(hint_to_get_net_admin("run it with sudo"))
}

/// How this process would get CAP_NET_ADMIN: `with_sudo`, unless it is already root.
pub(crate) fn hint_to_get_net_admin(with_sudo: &str) -> String {
    match effective_uid() {
        0 => {
            "root lacks it here; in a container: docker run --cap-add NET_ADMIN --device /dev/net/tun ...; in a unit: \
              AmbientCapabilities=CAP_NET_ADMIN"
                .to_owned()
        }
        _ => with_sudo.to_owned(),
    }
}

/// Quotes a path for the shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use overlay_golden::golden_with;

    use super::*;

    #[test]
    fn each_reader_is_told_what_lets_him_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("lab.key");
        fs::write(&file, "").expect("writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our own file");
        let metadata = fs::metadata(&file).expect("there");
        let (own, stranger) = (metadata.uid(), metadata.uid() + 54_321);
        let shown = &file;

        let said = describe(&file, &metadata, stranger, true);
        let owner = user_name(own).unwrap_or_else(|| own.to_string());
        let (stranger_shown, folder_shown) = (stranger.to_string(), folder.path().to_string_lossy());
        let varying = [(&*folder_shown, "DIR"), (&*stranger_shown, "UID"), (&*format!("to {owner} "), "to OWNER ")];
        assert!(said.hint.contains(&*shown.to_string_lossy()), "{said:?}");
        golden_with("a file", format!("cause: {}\nhint: {}", said.cause, said.hint), &varying);
        assert_eq!(describe(&file, &metadata, own, true).hint, LOOK_FOR_DENIAL);

        let metadata = fs::metadata(folder.path()).expect("there");
        let said = describe(folder.path(), &metadata, stranger, false);
        let said = format!("cause: {}\nhint: {}", said.cause, said.hint);
        let mode = format!("{:04o}", metadata.mode() & 0o7777);
        golden_with("a folder", said, &[&varying[..], &[(&*mode, "MODE")]].concat());
    }

    #[test]
    fn a_path_with_blanks_and_quotes_is_one_word() {
        assert_eq!(quoted(Path::new("/etc/overlay/lab.key")), "/etc/overlay/lab.key");
        assert_eq!(quoted(Path::new("/my key's")), r"'/my key'\''s'");
    }
}
