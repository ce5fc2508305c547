//! The version of the format of a state folder.
//!
//! | version | what is new |
//! |---|---|
//! | 1 | no file `version` |
//! | 2 | `version`, `registered`, `restored`, `memberships` |
//!
//! A daemon reads every version up to its own, and writes its own when it takes the folder. A folder of a later version is
//! refused and left as it is: what it holds may be more than this release understands, and less would come back than was
//! said. So an agent that is put back to an earlier release starts with a folder of that time, which counts as restored.

use super::*;

const VERSION: &str = "version";
/// The version that this release writes.
const FORMAT: u32 = 2;

impl State {
    /// Refuses a folder of a later release.
    pub(super) fn check_version(&self) -> Result<(), Failure> {
        match self.version()? {
            later if later > FORMAT => Err(self.of_later_release(later)),
            _ => Ok(()),
        }
    }

    /// Writes this release's version, unless it is there.
    pub(super) fn upgrade(&self) -> Result<(), Failure> {
        self.check_version()?;
        match self.version()? {
            FORMAT => Ok(()),
            _ => self.replace(VERSION, &in_line(&FORMAT.to_string())),
        }
    }

    fn version(&self) -> Result<u32, Failure> {
        let Some(bytes) = read(&self.folder, OsStr::new(VERSION))? else { return Ok(1) };
        // The end of the line shows that the number is whole.
        let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
        let version = text.and_then(|text| text.parse().ok()).filter(|version| *version > 1);
        version.ok_or_else(|| {
            let path = self.folder.path_of(VERSION);
            Failure::new(ExitKind::Config, format!("{} is damaged", path.display()))
                .with_cause("it holds no version of a state folder")
                .with_hint(format!(
                    "restore it from a backup; if no later release has used this folder: echo {FORMAT} | sudo tee {}",
                    path.display()
                ))
        })
    }

    fn of_later_release(&self, version: u32) -> Failure {
        let what = format!("a later release of overlay has used {}", self.path().display());
        Failure::new(ExitKind::Config, what)
            .with_cause(format!("its state has version {version}, and this release knows {FORMAT} and those before it"))
            .with_hint("install that release again, or restore a backup of the folder that was made before it was used")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
        (folder, state)
    }

    fn opened(folder: &tempfile::TempDir) -> Result<Option<State>, Failure> {
        State::open(folder.path(), "lab")
    }

    #[test]
    fn a_new_folder_has_this_releases_version() {
        let (folder, state) = state();
        assert_eq!(state.version(), Ok(FORMAT));
        assert!(opened(&folder).is_ok_and(|state| state.is_some()));
    }

    #[test]
    fn a_folder_of_the_release_before_is_read_and_upgraded_by_the_daemon_alone() {
        let (folder, state) = state();
        let path = state.path().join(VERSION);
        fs::remove_file(&path).expect("our own file");
        let mut state = opened(&folder).expect("readable").expect("there");
        assert_eq!(state.version(), Ok(1));
        assert!(!path.exists(), "a verb that looks changes nothing");
        state.lock().expect("nobody else runs it");
        assert_eq!(fs::read_to_string(&path).expect("written"), format!("{FORMAT}\n"));
    }

    #[test]
    fn a_folder_of_a_later_release_is_refused_and_left_alone() {
        let (folder, state) = state();
        let path = state.path().join(VERSION);
        let later = format!("{}\n", FORMAT + 1);
        fs::write(&path, &later).expect("our own file");
        let failure = opened(&folder).err().expect("it is refused");
        assert_eq!(failure.code, ExitKind::Config);
        assert!(failure.error.contains("a later release") && failure.hint.expect("what to do").contains("restore"));
        assert_eq!(fs::read_to_string(&path).expect("there"), later);
    }

    #[test]
    fn a_damaged_version_is_refused_by_name() {
        for damage in ["", "2", "\n", "two\n", "-1\n", "0\n", "1\n", "2\n2\n"] {
            let (folder, state) = state();
            fs::write(state.path().join(VERSION), damage).expect("our own file");
            let failure = opened(&folder).err().expect("it is refused");
            assert!(failure.error.ends_with("/lab/version is damaged"), "{damage:?}: {}", failure.error);
        }
    }
}
