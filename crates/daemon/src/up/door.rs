//! The socket that `wg` talks to. A daemon without it works, but `wg show` does not, so opening it is tried again.

use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::host::Journal;
use crate::serving::uapi_socket;
use crate::uapi::{self, Setting};
use crate::view::{StatusWarning, View};

/// The topic of the socket's warnings.
const TOPIC: &str = "uapi";

/// The socket, open or still to be opened.
pub(super) struct Door {
    /// Where settings go; `None` once the socket is open.
    settings: Option<mpsc::Sender<Setting>>,
}

impl Door {
    /// A socket that is not open yet. What `wg` sets goes to `settings`.
    pub(super) fn closed(settings: mpsc::Sender<Setting>) -> Self {
        Self { settings: Some(settings) }
    }

    /// Serves the socket that an attempt brought, or shows the warning that it brought.
    pub(super) fn on_tried(&mut self, tried: Result<UnixListener, StatusWarning>, view: &Arc<View>) {
        match tried {
            Ok(listener) => {
                let Some(settings) = self.settings.take() else { return };
                view.set_warnings(TOPIC, Vec::new());
                tokio::spawn(uapi::serve(listener, Arc::clone(view), settings));
            }
            Err(warning) => view.set_warnings(TOPIC, vec![warning]),
        }
    }

    /// Tries to open the socket if it is not open.
    pub(super) async fn try_again(&mut self, name: &str, journal: &mut Journal, view: &Arc<View>) {
        if self.settings.is_some() {
            let tried = open(name, journal).await;
            self.on_tried(tried, view);
        }
    }
}

/// Opens the socket, or says in a warning why that failed.
pub(super) async fn open(name: &str, journal: &mut Journal) -> Result<UnixListener, StatusWarning> {
    let path = uapi_socket(name);
    let failed = |why: &str| {
        let message = format!("`wg show {name}` does not work: {why}; overlay keeps trying");
        StatusWarning::new("uapi", message, format!("ls -l {}", path.display()))
    };
    // All network namespaces and WireGuard implementations of a host share this folder.
    if UnixStream::connect(&path).await.is_ok() {
        return Err(failed(&format!("{} belongs to another process", path.display())));
    }
    journal.record_socket(&path).map_err(|failure| failed(&failure.to_string()))?;
    match uapi::bind(name) {
        Ok(listener) => Ok(listener),
        Err(error) => {
            journal.forget_socket(&path).map_err(|failure| failed(&failure.to_string()))?;
            Err(failed(&format!("cannot listen on {}: {error}", path.display())))
        }
    }
}
