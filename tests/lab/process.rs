//! Programs that are run to their end, or kept running as long as a value lives.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::wait::within;

/// A command line: `"ping -c 3 10.77.0.2"`, which is split at blanks, or an array of words if a word contains blanks.
pub trait CommandLine {
    /// The words, program first.
    fn words(self) -> Vec<String>;
}

impl CommandLine for &str {
    fn words(self) -> Vec<String> {
        self.split_whitespace().map(String::from).collect()
    }
}

impl CommandLine for &String {
    fn words(self) -> Vec<String> {
        self.as_str().words()
    }
}

impl CommandLine for String {
    fn words(self) -> Vec<String> {
        self.as_str().words()
    }
}

impl<const N: usize> CommandLine for [&str; N] {
    fn words(self) -> Vec<String> {
        self.map(String::from).to_vec()
    }
}

impl CommandLine for &[&str] {
    fn words(self) -> Vec<String> {
        self.iter().copied().map(String::from).collect()
    }
}

/// The result of a program that has exited.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code. -1 if a signal killed it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Returns the standard output if the program succeeded.
    ///
    /// # Panics
    /// Panics if it failed, and shows all its output.
    #[track_caller]
    pub fn succeeded(self, what: &str) -> String {
        assert!(self.code == 0, "`{what}` failed with {}\n{}{}", self.code, self.stdout, self.stderr);
        self.stdout
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Finished {
            code: code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A program that runs until this value is dropped. Its output goes to two files.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`. The output files are named after `log`.
    #[track_caller]
    pub fn start(mut command: Command, what: &str, log: &Path) -> Process {
        let (stdout, stderr) = (log.with_extension("out"), log.with_extension("err"));
        let open = |path: &Path| File::create(path).expect("a log file in the lab's folder");
        command.stdin(Stdio::null()).stdout(open(&stdout)).stderr(open(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("`{what}` does not start: {error}"));
        Process { child, what: what.into(), stdout, stderr }
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The standard output so far.
    pub fn stdout(&self) -> String {
        fs::read(&self.stdout).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The standard error so far.
    pub fn stderr(&self) -> String {
        fs::read(&self.stderr).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(&self.pid().to_string(), signal);
    }

    /// The result, if the program has exited.
    pub fn ended(&mut self) -> Option<Finished> {
        let status = self.child.try_wait().expect("our own child")?;
        Some(Finished { code: code(status), stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Waits until the program exits.
    ///
    /// # Panics
    /// Panics if it is still running after `limit`.
    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        let what = format!("the end of `{}`", self.what);
        within(limit, &what, || self.ended())
    }

    /// Waits until the program succeeds, and returns its standard output.
    #[track_caller]
    pub fn succeed_within(self, limit: Duration) -> String {
        let what = self.what.clone();
        self.finish_within(limit).succeeded(&what)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        if std::thread::panicking() {
            let state = ended.map_or("still running".into(), |status| status.to_string());
            let said = self.stdout() + &self.stderr();
            if !said.is_empty() {
                eprintln!("--- `{}`: {state}\n{said}", self.what);
            }
        }
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to a process, which may already be gone.
pub fn kill(pid: &str, signal: Signal) {
    if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Looks for a program: in PATH, in the administrator's folders, and where cargo installs programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(home)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(-1)
}
