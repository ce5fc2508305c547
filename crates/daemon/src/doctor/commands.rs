//! The commands that start and end the daemon of this host, as findings name them.

use std::io;
use std::path::Path;

use crate::config;

/// How the daemon is started and ended here.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    /// What names the daemon in `overlay up`.
    pub(super) name: String,
    /// Whether systemd runs it.
    pub(super) is_service: bool,
}

impl Commands {
    pub(super) fn start(&self) -> String {
        let name = &self.name;
        match self.is_service {
            true => format!("sudo systemctl start overlay@{name}; if it fails: journalctl -u overlay@{name}"),
            false => format!("sudo overlay up -d {name}"),
        }
    }

    pub(super) fn restart(&self) -> String {
        let name = &self.name;
        match self.is_service {
            true => format!("sudo systemctl restart overlay@{name}"),
            false => format!("sudo overlay down {name}; sudo overlay up -d {name}"),
        }
    }

    /// Ends it, does something, and starts it again.
    pub(super) fn restart_after(&self, between: &str) -> String {
        let name = &self.name;
        match self.is_service {
            true => format!("sudo systemctl stop overlay@{name}; {between}; sudo systemctl start overlay@{name}"),
            false => format!("sudo overlay down {name}; {between}; sudo overlay up -d {name}"),
        }
    }
}

/// Whether an agent's state lies where the service of its interface has it.
pub(super) fn is_of_service(agent: &config::Agent, state_dir: &Path, interface: &str) -> bool {
    let Some(network) = &agent.network else { return false };
    let has_state = |folder: &Path| match folder.join(network).join("identity.key").try_exists() {
        // The service has a folder that no other user may look into.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        Ok(is_there) => is_there,
    };
    !has_state(state_dir) && has_state(&state_dir.join(interface))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_service_is_known_by_where_its_state_is() {
        let text = "[interface]\nname = \"alice\"\n[agent]\nname = \"alice\"\nnetwork = \"lab\"\nrendezvous = [\"https://rv:7447#KEY.KEY\"]\n";
        let key = overlay_wire::signed::SecretKey::from_bytes(&[1; 32]).public().to_string();
        let config = Config::parse(&text.replace("KEY", &key), Path::new("alice.toml")).expect("a good config");
        let agent = config.agent.expect("an agent");
        let dir = tempfile::tempdir().expect("a folder");
        let make = |folder: &str| {
            fs::create_dir_all(dir.path().join(folder)).expect("our own folder");
            fs::write(dir.path().join(folder).join("identity.key"), "").expect("our own folder");
        };
        assert!(!is_of_service(&agent, dir.path(), "alice"), "nothing is there");
        make("alice/lab");
        assert!(is_of_service(&agent, dir.path(), "alice"));
        assert!(!is_of_service(&agent, dir.path(), "bob"));
        make("lab");
        assert!(!is_of_service(&agent, dir.path(), "alice"), "a start by hand takes that one");
    }
}
