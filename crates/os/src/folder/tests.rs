//! Folders and files of every kind and owner, on a real file system.

use std::fs::{create_dir, read_to_string, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use overlay_golden::golden_with;

use super::*;

const STRANGER: u32 = 12_345;

fn mode(path: &Path, mode: u32) {
    set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// What a person is told.
fn said(error: &TrustError) -> String {
    format!("error: {error}\nhint: {}", error.fix().unwrap_or_default())
}

fn is_root() -> bool {
    geteuid().is_root()
}

#[test]
fn a_missing_folder_is_made_and_one_that_others_may_change_is_refused() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("a/b");
    assert!(
        matches!(Folder::trusted(&path, &[]), Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound)
    );
    Folder::make_trusted(&path, &[]).unwrap();
    Folder::trusted(&path, &[]).unwrap();

    for bad in [0o777, 0o1777, 0o775, 0o757] {
        mode(&path, bad);
        let error = Folder::trusted(&path, &[]).unwrap_err();
        golden_with(format!("{bad:o}"), said(&error), &[(&top.path().to_string_lossy(), "DIR")]);
    }
    mode(&path, 0o755);
    // A sticky folder above it is accepted. The same folder without the sticky bit is not.
    mode(&top.path().join("a"), 0o1777);
    Folder::trusted(&path, &[]).unwrap();
    mode(&top.path().join("a"), 0o777);
    assert!(matches!(Folder::trusted(&path, &[]), Err(TrustError::Writable { path, .. }) if path.ends_with("a")));
}

#[test]
fn a_folder_of_a_stranger_is_refused_unless_he_is_a_friend_wherever_it_is_on_the_way() {
    if !is_root() {
        eprintln!("skipped: only root can give folders away");
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let (theirs, ours) = (top.path().join("theirs"), top.path().join("theirs/ours"));
    create_dir(&theirs).unwrap();
    create_dir(&ours).unwrap();
    chown(&theirs, Some(STRANGER), None).unwrap();
    let varying = [(&*top.path().to_string_lossy(), "DIR")];
    for path in [&theirs, &ours] {
        let error = Folder::trusted(path, &[]).unwrap_err();
        assert!(matches!(&error, TrustError::Owner { path, user: STRANGER, .. } if *path == theirs), "{error:?}");
        golden_with(path.to_string_lossy(), said(&error), &varying);
        Folder::trusted(path, &[STRANGER]).unwrap();
    }
    // A link is trusted if its owner is.
    let (good, bad) = (top.path().join("good"), top.path().join("bad"));
    create_dir(top.path().join("real")).unwrap();
    symlink("real", &good).unwrap();
    Folder::trusted(&good, &[]).unwrap();
    symlink("real", &bad).unwrap();
    std::os::unix::fs::lchown(&bad, Some(STRANGER), None).unwrap();
    assert!(matches!(Folder::trusted(&bad, &[]), Err(TrustError::Owner { user: STRANGER, .. })));
    symlink("loop", top.path().join("loop")).unwrap();
    assert!(matches!(Folder::trusted(&top.path().join("loop"), &[]), Err(TrustError::Io(_))));
    assert!(Folder::trusted(&top.path().join("real/../theirs"), &[]).is_err());
}

#[test]
fn only_a_regular_file_of_ours_is_opened_and_others_cannot_open_it_then() {
    let top = tempfile::tempdir().unwrap();
    let folder = Folder::trusted(top.path(), &[]).unwrap();
    let victim = top.path().join("victim");
    write(&victim, "precious").unwrap();
    mode(&victim, 0o666);
    symlink(&victim, top.path().join("link")).unwrap();
    std::fs::hard_link(&victim, top.path().join("second")).unwrap();
    rustix::fs::mknodat(CWD, top.path().join("pipe"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    create_dir(top.path().join("folder")).unwrap();
    for name in ["link", "second", "pipe", "folder"] {
        for access in [Access::Read, Access::Own, Access::Append] {
            let error = folder.open(name, access).unwrap_err();
            golden_with(format!("{name} to {access:?}"), said(&error), &[(&top.path().to_string_lossy(), "DIR")]);
        }
    }
    std::fs::remove_file(top.path().join("second")).unwrap();
    assert!(matches!(folder.open("victim", Access::Read), Err(TrustError::Writable { .. })));
    folder.open("victim", Access::Own).unwrap();
    assert_eq!(victim.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    folder.open("victim", Access::Read).unwrap();
    if is_root() {
        chown(&victim, Some(STRANGER), None).unwrap();
        assert!(matches!(folder.open("victim", Access::Own), Err(TrustError::Owner { user: STRANGER, .. })));
    }
}

#[test]
fn a_new_file_takes_no_name_from_another_and_a_replacement_follows_no_link() {
    let top = tempfile::tempdir().unwrap();
    let folder = Folder::any(top.path()).unwrap();
    let (name, temporary) = (OsStr::new("page"), OsStr::new(".page.tmp"));
    let victim = top.path().join("victim");
    write(&victim, "precious").unwrap();
    // A link under the temporary name is not followed either.
    symlink(&victim, top.path().join(temporary)).unwrap();
    symlink(&victim, top.path().join(name)).unwrap();

    let error = folder.write_new(name, temporary, b"new", 0o640).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert!(!top.path().join(temporary).exists(), "nothing stays behind");
    folder.replace(name, temporary, b"new", 0o640).unwrap();
    assert_eq!(read_to_string(&victim).unwrap(), "precious");
    let written = top.path().join(name);
    assert_eq!(read_to_string(&written).unwrap(), "new");
    assert_eq!(std::fs::symlink_metadata(&written).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn sockets_are_told_from_links_to_them() {
    let top = tempfile::tempdir().unwrap();
    let folder = Folder::any(top.path()).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(top.path().join("s")).unwrap();
    symlink("s", top.path().join("link")).unwrap();
    let found = ["s", "link", "nothing"].map(|name| folder.is_socket(name).unwrap());
    assert_eq!(found, [Some(true), Some(false), None]);
}
