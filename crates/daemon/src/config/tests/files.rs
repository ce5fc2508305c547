//! Which files are read, and what is said of a file that cannot be read.

use std::os::unix::fs::PermissionsExt;

use overlay_golden::golden_with;

use super::*;
use crate::failure::{ExitKind, Failure};

#[test]
fn a_missing_file_is_named_with_the_way_to_make_one() {
    let error = Config::load(Path::new("/nonexistent/lab.toml")).expect_err("there is no such file");
    assert_eq!(error.problems()[0].kind, "missing_file");
    golden("in one line", error.to_string());
    golden("drawn", error.render(false));
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::load(folder.path()).expect_err("a folder");
    let varying = [(&*folder.path().to_string_lossy(), "DIR")];
    assert_eq!(error.problems()[0].kind, "unreadable_file");
    golden_with("a folder", error.to_string(), &varying);

    let binary = folder.path().join("lab.toml");
    std::fs::write(&binary, b"[interface]\nname = \"\xff\"\n").unwrap();
    let error = Config::load(&binary).expect_err("not text");
    assert_eq!(error.problems()[0].kind, "bad_encoding");
    golden_with("a binary", error.to_string(), &varying);
}

#[test]
fn a_file_of_another_user_is_a_matter_of_permission_and_not_of_the_config() {
    let forbidden = Problem::permission("the key file `own.key`", Path::new("own.key"));
    let failure = Failure::from(ConfigError::of_file(Path::new("lab.toml"), forbidden));
    assert_eq!((failure.code, failure.cause, failure.details), (ExitKind::Permission, None, None));
    assert_eq!(failure.hint, Some(crate::permission::denied(Path::new("own.key")).hint));
    golden("a key file of another user", failure.error);
}

#[test]
fn key_files_are_looked_for_beside_the_config() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    std::fs::write(&path, with_interface("")).unwrap();
    let error = Config::load(&path).expect_err("no key yet");
    let key = folder.path().join("own.key");
    assert_eq!(error.problems()[0].kind, "key_file");
    golden_with("no key yet", &error.problems()[0].message, &[(&folder.path().to_string_lossy(), "DIR")]);

    crate::files::write_secret(&key, OWN).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(public_key_of(&config), OWN_PUBLIC);
    assert!(config.warnings().is_empty());
}

#[test]
fn a_key_file_that_others_can_read_is_accepted_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("lab.toml"), folder.path().join("own.key"));
    std::fs::write(&path, with_interface("")).unwrap();
    std::fs::write(&key, OWN).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let config = Config::load(&path).unwrap();
    let [warning] = config.warnings() else { panic!("one warning") };
    assert_eq!(placed(warning.problem()), "key_file_mode 3:20");
    let varying = [(&*folder.path().to_string_lossy(), "DIR")];
    golden_with("in one line", warning.to_string(), &varying);
    golden_with("the hint", warning.problem().hint.as_deref().expect("what to do"), &varying);
}

#[test]
fn a_key_file_that_is_a_folder_or_no_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    let key = folder.path().join("own.key");
    std::fs::create_dir(&key).unwrap();
    let error = Config::parse(&with_interface(""), &path).expect_err("a folder");
    assert_eq!(error.problems()[0].kind, "key_file");
    golden_with("a folder", &error.problems()[0].message, &[(&folder.path().to_string_lossy(), "DIR")]);

    std::fs::remove_dir(&key).unwrap();
    std::fs::write(&key, [0xff; 44]).unwrap();
    let error = Config::parse(&with_interface(""), &path).expect_err("no text");
    assert_eq!(error.problems()[0].kind, "bad_key");
    golden("no text", &error.problems()[0].message);
}

#[test]
fn a_bare_name_is_a_config_of_the_system() {
    assert_eq!(resolve_path("lab"), Path::new("/etc/overlay/lab.toml"));
    assert_eq!(resolve_path("lab.toml"), Path::new("lab.toml"));
    assert_eq!(resolve_path("wg0.conf"), Path::new("wg0.conf"));
    assert_eq!(resolve_path("lab.eu"), Path::new("/etc/overlay/lab.eu.toml"));
    assert_eq!(resolve_path("./lab"), Path::new("./lab"));
    assert_eq!(resolve_path("/srv/lab"), Path::new("/srv/lab"));
}

#[test]
fn an_argument_made_for_a_file_means_that_file() {
    let rows = [
        ("/etc/overlay/lab.toml", "lab"),
        ("/etc/overlay/lab", "/etc/overlay/lab"),
        ("/etc/overlay/a/lab.toml", "/etc/overlay/a/lab.toml"),
        ("/etc/overlay/lab.toml.toml", "/etc/overlay/lab.toml.toml"),
        ("lab.toml", "lab.toml"),
        ("lab", "./lab"),
        ("lab.eu", "./lab.eu"),
        ("../lab", "../lab"),
    ];
    for (file, argument) in rows {
        assert_eq!(argument_for(Path::new(file)), argument);
        assert_eq!(std::path::absolute(resolve_path(argument)).unwrap(), std::path::absolute(file).unwrap());
    }
}
