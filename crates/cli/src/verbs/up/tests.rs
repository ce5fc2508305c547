//! Which config an argument refers to.

use std::fs;

use overlay_golden::golden_with;

use super::*;
use crate::output::rendered;

#[test]
fn an_argument_is_a_path_or_a_name() {
    assert_eq!(config_path(Some("a/b.toml"), "up").expect("a path"), PathBuf::from("a/b.toml"));
    assert_eq!(config_path(Some("lab"), "up").expect("a name"), PathBuf::from("/etc/overlay/lab.toml"));
}

#[test]
fn without_an_argument_the_only_config_is_meant() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let varying = [(&*folder.path().to_string_lossy(), "DIR")];
    let failure = only_config(folder.path(), "up").expect_err("none there");
    assert_eq!(failure.code, ExitKind::Usage);
    golden_with("none there", rendered(&failure, false), &varying);

    fs::write(folder.path().join("lab.toml"), "").expect("a file");
    fs::write(folder.path().join("lab.key"), "").expect("a file");
    assert_eq!(only_config(folder.path(), "up").expect("the only one"), folder.path().join("lab.toml"));

    fs::write(folder.path().join("home.toml"), "").expect("a file");
    let failure = only_config(folder.path(), "up").expect_err("two there");
    assert_eq!(failure.code, ExitKind::Usage);
    golden_with("two there", rendered(&failure, false), &varying);
}
