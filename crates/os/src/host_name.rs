//! The name of this host.

/// The name, as `uname -n` prints it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn it_is_the_name_that_programs_see() {
        let said = Command::new("uname").arg("-n").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim_end(), host_name());
    }
}
