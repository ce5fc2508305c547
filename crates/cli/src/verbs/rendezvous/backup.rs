//! `overlay rendezvous backup` and `restore`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use overlay_daemon::Failure;
use overlay_server::backup::{Counts, Restored};
use serde::Serialize;

use super::{client, failure};
use crate::arguments::rendezvous::{Backup, Restore};
use crate::background::path_from_root;
use crate::file_failure;
use crate::session::Session;

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    status: &'static str,
    file: &'a Path,
    #[serde(flatten)]
    counts: Counts,
    /// The network, and when the backup was made, of a backup that was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
}

impl Answer<'_> {
    const SCHEMA: &'static str = "overlay.rendezvous.backup.v1";
}

pub(crate) fn run(session: &Session, arguments: &Backup) -> Result<(), Failure> {
    let path = &arguments.file;
    let client = client(session, &arguments.on)?;
    let cannot = |error: &std::io::Error| file_failure("write", path, error);
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| cannot(&error))?;
    let mut writer = BufWriter::new(&file);
    let written = client.back_up(&mut writer).map_err(failure).and_then(|counts| {
        writer.flush().and_then(|()| file.sync_all()).map_err(|error| cannot(&error))?;
        Ok(counts)
    });
    let counts = written.inspect_err(|_| {
        // Nobody can use half a backup.
        let _ = std::fs::remove_file(path);
    })?;
    let answer = Answer { schema: Answer::SCHEMA, status: "ok", file: path, counts, network: None, time: None };
    session.output.result(&answer, || format!("{} files and {} entries", counts.files, counts.entries));
    Ok(())
}

pub(crate) fn restore(session: &Session, arguments: &Restore) -> Result<(), Failure> {
    let path = &arguments.file;
    // A different user may have opened it for us.
    let file: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(|error| file_failure("read", path, &error))?),
    };
    let state_dir = path_from_root(&session.state_dir)?;
    let wanted = if arguments.shared { Restored::Process } else { Restored::Whole };
    let restored =
        overlay_server::backup::restore((&state_dir, arguments.on.network.as_deref()), wanted, BufReader::new(file));
    let (head, counts) = restored.map_err(failure)?;
    let (network, time) = (Some(head.network.as_str()), Some(head.time.as_str()));
    let answer = Answer { schema: Answer::SCHEMA, status: "ok", file: path, counts, network, time };
    if arguments.shared {
        session
            .output
            .result(&answer, || format!("this host can serve `{}`, too: {} files", head.network, counts.files));
        session.output.say(
            "next: overlay rendezvous serve --store etcd://HOST:PORT ..., with the cluster of the other processes",
        );
        return Ok(());
    }
    session.output.result(&answer, || {
        format!(
            "restored `{}` as of {}: {} files and {} entries",
            head.network, head.time, counts.files, counts.entries
        )
    });
    session.output.say("tokens that were used or revoked since count as they did then: see `token list`");
    Ok(())
}
