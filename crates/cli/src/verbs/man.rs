//! `overlay man`: manual pages, generated from the same description as `--help`.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use overlay_daemon::Failure;
use overlay_daemon::failure::ExitKind;
use overlay_daemon::files;
use serde::Serialize;

use crate::arguments::{Arguments, Man};
use crate::file_failure;
use crate::session::Session;

#[derive(Serialize)]
struct Page {
    schema: &'static str,
    page: String,
}

#[derive(Serialize)]
struct Written<'a> {
    schema: &'static str,
    folder: &'a Path,
    pages: usize,
}

pub(crate) fn run(session: &Session, arguments: &Man) -> Result<(), Failure> {
    match &arguments.output {
        None => print(session),
        Some(folder) => write(session, folder),
    }
}

fn print(session: &Session) -> Result<(), Failure> {
    let mut page = Vec::new();
    // `help` is a verb without a page.
    clap_mangen::Man::new(Arguments::command().disable_help_subcommand(true))
        .render(&mut page)
        .map_err(|error| Failure::new(ExitKind::Other, "cannot make the manual page").with_cause(error))?;
    let page = Page { schema: "overlay.man.v1", page: String::from_utf8_lossy(&page).into_owned() };
    session.output.result(&page, || page.page.clone());
    Ok(())
}

fn write(session: &Session, folder: &Path) -> Result<(), Failure> {
    let pages = write_pages(folder).map_err(|error| file_failure("write manual pages to", folder, &error))?;
    let written = Written { schema: "overlay.man.v1", folder, pages };
    session.output.result(&written, || format!("{pages} pages in {}", folder.display()));
    Ok(())
}

/// Writes one page for the program and one for each verb that is not hidden.
fn write_pages(folder: &Path) -> io::Result<usize> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    render(command, &mut pages)?;
    // Each page replaces what has its name. A link in a folder that another user owns is not followed.
    files::replace_all(folder, pages.iter().map(|(name, page)| (name.as_str(), page.as_slice())))?;
    Ok(pages.len())
}

/// Renders the page of a command and of all commands below it.
fn render(command: clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()).cloned() {
        render(below, pages)?;
    }
    let man = clap_mangen::Man::new(command);
    let mut page = Vec::new();
    man.render(&mut page)?;
    pages.push((man.get_filename(), page));
    Ok(())
}
