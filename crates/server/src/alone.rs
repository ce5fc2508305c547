//! A relay without a rendezvous: its state folder, its life, its metrics.
//!
//! ```text
//! STATE-DIR/relay/NAME/   0700
//!   lock                  held while the relay runs
//!   relay.key             0600
//! ```

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use overlay_rendezvous::relay::{Limits, Members};
use overlay_wire::signed::PublicKey;
use tokio::task::JoinSet;

use crate::failure::ServeError;
use crate::process::prepare;
use crate::relay::{Counters, Open};
use crate::state::{check_network, lock, private_folder, relay_key};
use crate::{http, listening, metrics};

/// What a relay is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the network, which names the state folder.
    pub network: String,
    /// The UDP address. Port 0: any free one.
    pub listen: SocketAddr,
    /// The folder below which all relays keep their state.
    pub state_dir: PathBuf,
    /// The agents that it serves.
    pub members: Members,
    /// How much it takes.
    pub limits: Limits,
    /// Where to serve metrics and health. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// What a relay is, once it relays.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its key, which agents need to know.
    pub key: PublicKey,
    /// Where agents find it. If it listens on all addresses, it is the one that packets to the Internet leave from.
    pub address: SocketAddr,
    /// Its counters.
    pub counters: Arc<Counters>,
}

/// Runs a relay until `end` completes. `ready` is called once agents can bind.
///
/// # Errors
/// What keeps it from starting.
pub async fn serve(
    options: Options,
    ready: impl FnOnce(&Setup),
    end: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    check_network(&options.network)?;
    prepare();
    let folder = private_folder(&options.state_dir, "relay", &options.network)?;
    let _lock = lock(&folder, || format!("a relay of the network `{}` is running", options.network))?;
    let key = relay_key(&folder)?;
    let counters = Arc::<Counters>::default();
    let open = Open::at(options.listen, (key, options.members, options.limits), Arc::clone(&counters))?;
    let mut beside = JoinSet::new();
    if let Some(address) = options.metrics {
        let socket = listening::bind("for metrics", address)?;
        let (listener, address) = listening::acceptor(&socket)?;
        tracing::info!(%address, "serving /metrics and /health");
        let counters = Arc::clone(&counters);
        beside.spawn(http::serve(listener, move || metrics::relay_text(&counters)));
    }
    let address = SocketAddr::new(listening::shown_address(open.address().ip()), open.address().port());
    let setup = Setup { key, address, counters };
    tracing::info!(address = %setup.address, network = options.network, "the relay is ready");
    let relay = open.start()?;
    ready(&setup);
    end.await;
    drop(relay);
    beside.shutdown().await;
    Ok(())
}
