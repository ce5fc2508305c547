//! `overlay names`: the processes that a daemon starts for names. They end with it.

use overlay_daemon::Failure;
use overlay_daemon::names::{keeper, process};

use crate::arguments::Names;

pub(crate) fn run(role: &Names) -> Result<(), Failure> {
    match role {
        Names::Answer => process::run(),
        Names::Hosts => keeper::run(),
    }
}
