//! Ours: the release binary, with the config that a user would write.

use std::rc::Rc;

use super::{Side, Start, Tunnel, version_of};
use crate::lab::host::overlay_program;
use crate::lab::{Outside, Pair};

/// `overlay up` in one scheduling class.
#[derive(Debug)]
pub(super) struct Overlay {
    scheduling: &'static str,
}

impl Overlay {
    pub(super) fn with_scheduling(scheduling: &'static str) -> Rc<dyn Tunnel> {
        Rc::new(Self { scheduling })
    }
}

impl Tunnel for Overlay {
    fn prepare(&self, pair: &Pair, side: Side) -> Start {
        let config = match side {
            Side::A => pair.config_of_a(Outside::V4),
            Side::B => pair.config_of_b(Outside::V4),
        };
        let host = side.host(pair).clone();
        let path = host.write("overlay.toml", format!("{config}\n[tuning]\nscheduling = \"{}\"\n", self.scheduling));
        Box::new(move || host.start(host.overlay_command(["up", &path.to_string_lossy()]), "overlay up"))
    }

    fn version(&self) -> Option<String> {
        version_of(&overlay_program(), "version")
    }
}
