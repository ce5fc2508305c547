//! `overlay import WG.conf`: turns a wg-quick config into one of ours, with its keys in separate files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use overlay_daemon::Failure;
use overlay_daemon::failure::ExitKind;
use overlay_daemon::import::names::shell_word;
use overlay_daemon::{config, files, import};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::arguments::Import;
use crate::file_failure;
use crate::session::Session;

#[derive(Serialize)]
struct Imported<'a> {
    schema: &'static str,
    /// `degraded` if a warning says that something does not work until the user acts.
    status: &'static str,
    config: &'a Path,
    key_files: &'a [PathBuf],
    warnings: &'a [String],
}

pub(crate) fn run(session: &Session, arguments: &Import) -> Result<ExitCode, Failure> {
    let source = &arguments.file;
    // As with `wg`, comments may be in any encoding.
    let bytes = fs::read(source).map(Zeroizing::new).map_err(|error| unreadable(source, &error))?;
    let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
    let name = source.file_stem().and_then(|stem| stem.to_str()).unwrap_or("overlay0");
    let imported = import::import(&text, name, &import::Surroundings::of_this_host()).map_err(|error| {
        Failure::new(ExitKind::Config, format!("`{}` cannot be imported", source.display())).with_cause(error)
    })?;

    let path = arguments.output.join(format!("{}.toml", imported.name));
    let key_files: Vec<PathBuf> = imported.files.iter().map(|(file, _)| arguments.output.join(file)).collect();
    // All files are written or none: existing files are detected before anything is written.
    for file in key_files.iter().chain([&path]) {
        // A dangling link also occupies the name.
        if file.symlink_metadata().is_ok() {
            let word = shell_word(&source.display().to_string());
            return Err(file_failure("write", file, &io::ErrorKind::AlreadyExists.into())
                .with_hint(format!("overlay import {word} -o DIR writes into a different folder")));
        }
    }
    fs::create_dir_all(&arguments.output)
        .map_err(|error| file_failure("make the folder", &arguments.output, &error))?;
    for ((_, secret), file) in imported.files.iter().zip(&key_files) {
        files::write_secret(file, secret).map_err(|error| file_failure("write", file, &error))?;
    }
    files::write_new(&path, &imported.toml).map_err(|error| file_failure("write", &path, &error))?;

    let is_whole = imported.losses == 0;
    let result = Imported {
        schema: "overlay.import.v1",
        status: if is_whole { "ok" } else { "degraded" },
        config: &path,
        key_files: &key_files,
        warnings: &imported.warnings,
    };
    session.output.result(&result, || path.display().to_string());
    for warning in &imported.warnings {
        session.output.say(&format!("warning: {warning}"));
    }
    let up = format!("sudo overlay up {}", shell_word(&config::argument_for(&path)));
    if is_whole {
        session.output.say(&format!("hint: {up}"));
        return Ok(ExitCode::SUCCESS);
    }
    session.output.say(&format!(
        "error: not everything in `{}` works with overlay as before\nhint: do what the warnings say, then: {up}",
        source.display()
    ));
    Ok(ExitCode::from(ExitKind::Degraded.exit_code()))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let failure = file_failure("read", path, error);
    match error.kind() {
        io::ErrorKind::NotFound => Failure { code: ExitKind::Config, ..failure }.with_hint("ls /etc/wireguard"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use overlay_daemon::config::Config;
    use overlay_golden::{golden, golden_with};

    use super::*;
    use crate::output::{Output, rendered};

    const WG: &str = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n\
                      Address = 10.77.0.1/24\nListenPort = 51820\n\n[Peer]\n\
                      PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nAllowedIPs = 10.77.0.2/32\n";

    fn session() -> Session {
        Session {
            runtime_dir: "/nonexistent".into(),
            state_dir: "/nonexistent".into(),
            verbose: 0,
            output: Output { json: true, color: false },
        }
    }

    #[test]
    fn a_wg_quick_config_becomes_ours_and_a_second_time_nothing_is_touched() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("wg0.conf");
        fs::write(&file, WG).expect("a file");
        let output = folder.path().join("new/overlay");
        let arguments = Import { file, output: output.clone() };
        run(&session(), &arguments).expect("imported");
        let config = Config::load(&output.join("wg0.toml")).expect("a valid config");
        assert_eq!((config.interface.name.as_str(), config.peers.len()), ("wg0", 1));
        assert!(!fs::read_to_string(output.join("wg0.toml")).expect("text").contains("yAnz5TF"));

        let before: Vec<_> = fs::read_dir(&output).expect("a folder").flatten().map(|entry| entry.path()).collect();
        let failure = run(&session(), &arguments).expect_err("it is there already");
        assert_eq!(failure.code, ExitKind::Conflict);
        golden_with("a second time", rendered(&failure, false), &[(&folder.path().to_string_lossy(), "DIR")]);
        let after: Vec<_> = fs::read_dir(&output).expect("a folder").flatten().map(|entry| entry.path()).collect();
        assert_eq!(after, before);
    }

    #[test]
    fn a_missing_file_is_a_config_failure() {
        let arguments = Import { file: "/nonexistent/wg0.conf".into(), output: "/nonexistent".into() };
        let failure = run(&session(), &arguments).expect_err("no such file");
        assert_eq!(failure.code, ExitKind::Config);
        golden("import /nonexistent/wg0.conf", rendered(&failure, false));
    }
}
