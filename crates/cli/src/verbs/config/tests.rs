//! What `config init` writes and prints, and what `config check` finds.

use std::os::unix::fs::PermissionsExt as _;

use overlay_golden::golden;

use super::*;
use crate::output::Output;

fn session() -> Session {
    Session {
        runtime_dir: "/nonexistent".into(),
        state_dir: "/nonexistent".into(),
        verbose: 0,
        output: Output { json: true, color: false },
    }
}

#[test]
fn a_config_to_begin_with_is_valid_has_its_own_key_and_is_never_overwritten() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("lab.toml");
    init(&session(), &file, &[]).expect("a new config");
    let config = config::Config::load(&file).expect("a valid config");
    assert_eq!(config.interface.name, "lab");
    let key = folder.path().join("lab.key");
    let mode = std::fs::metadata(&key).expect("a key file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let failure = init(&session(), &file, &[]).expect_err("it is there already");
    assert_eq!(failure.code, ExitKind::Conflict);
    std::fs::remove_file(&file).expect("it is there");
    let before = std::fs::read(&key).expect("a key");
    init(&session(), &file, &[]).expect("a new config");
    assert_eq!(std::fs::read(&key).expect("a key"), before, "a key that exists is kept");
}

#[test]
fn a_second_host_gets_the_addresses_it_asks_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("lab.toml");
    let addresses = ["10.77.0.2/24", "fd00:77::2/64"].map(|address| address.parse().expect("a prefix"));
    init(&session(), &file, &addresses).expect("a new config");
    assert_eq!(config::Config::load(&file).expect("a valid config").interface.addresses, addresses);
}

#[test]
fn the_next_step_is_a_command_that_means_this_very_file() {
    let said = |config: &str, interface: &str| {
        let config = Path::new(config);
        let key = config.with_extension("key");
        next_steps(&Made { schema: "", config, interface, private_key_file: &key, public_key: "" })
    };
    let rows =
        [("/etc/overlay/lab.toml", "lab"), ("lab.toml", "lab"), ("lab", "lab"), ("sixteen-letters0.toml", "overlay0")];
    for (file, interface) in rows {
        let said = said(file, interface);
        let up = format!("sudo overlay up {}", config::argument_for(Path::new(file)));
        assert!(said.ends_with(&up), "{said}");
        golden(file, said);
    }
}

#[test]
fn a_file_whose_name_is_none_of_an_interface_is_a_config_all_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sixteen-letters0.toml");
    init(&session(), &file, &[]).expect("a new config");
    assert_eq!(config::Config::load(&file).expect("a valid config").interface.name, "overlay0");
}
