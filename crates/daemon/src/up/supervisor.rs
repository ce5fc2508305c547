//! The running `overlay up`: serves the concerns that only `up` has, and ends the daemon in order.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use overlay_core::Event;
use overlay_os::netlink::Noticed;

use super::door::Door;
use super::follow;
use super::footprint::Footprint;
use super::naming;
use super::paths::{self, Paths};
use super::reload;
use super::resolving::Resolving;
use super::running::Running;
use super::standing::Standing;
use crate::agent::request::AgentCall;
use crate::agent::{self, Agent, Changed};
use crate::api::{ReloadError, Request};
use crate::config::{self, Config};
use crate::control::{self, AgentAnswer, Concerns, Daemon, End, Inbox, Signals, Watchdog, no_agent};
use crate::device::{Change, ChangeError, Device, ReloadReport, named_endpoints};
use crate::engine::{Datagram, Reports};
use crate::failure::{ExitKind, Failure};
use crate::names::Names;
use crate::resolve::Answer;
use crate::uapi::Setting;
use crate::view::StatusWarning;
use crate::{host, names, notify};

/// The topic of warnings about the agent.
const AGENT: &str = "agent";
/// The code of the warning about the log of decisions.
const DECISIONS: &str = "decisions";

/// A running `overlay up`.
pub(super) struct Supervisor {
    pub(super) running: Running,
    pub(super) paths: Paths,
    pub(super) footprint: Footprint,
    pub(super) standing: Standing,
    pub(super) resolving: Resolving,
    pub(super) door: Door,
    pub(super) agent: Option<Agent>,
    pub(super) names: Option<Names>,
}

/// The inputs that every daemon has.
pub(super) struct Inputs {
    pub(super) reports: Reports,
    pub(super) requests: Inbox<Request>,
    pub(super) settings: Inbox<Setting>,
}

/// News from the concerns that only `up` has.
pub(super) enum News {
    /// A host name was resolved.
    Resolved(Answer),
    /// Another program may have changed something on the host.
    Noticed(Noticed),
    /// Routes must follow what is now known about paths.
    DirtyPaths,
    /// The agent has something to do.
    Agent(agent::News),
    /// Something has happened to names.
    Names(names::News),
    /// It is time to look for changes that nothing reports.
    Look,
}

impl Supervisor {
    /// Serves until the daemon is told to end, and removes everything that it added. The known flows go to `flows_file`,
    /// which the next daemon of this name reads.
    pub(super) async fn run(
        mut self,
        inputs: Inputs,
        flows_file: PathBuf,
        ready: Option<Box<dyn FnOnce() + Send>>,
    ) -> Result<(), Failure> {
        let signals = Signals::catch()?.and_reload()?;
        overlay_os::memory::give_back();
        notify::ready(&self.summary());
        tracing::info!("{}", self.summary());
        if let Some(ready) = ready {
            ready();
        }
        let Inputs { reports, requests, settings } = inputs;
        let mut concerns = Concerns { signals, reports, requests, settings, watchdog: Watchdog::start() };
        let end = control::serve(&mut concerns, &mut self).await;
        notify::stopping();
        // Those who read its events are told while the rest ends.
        drop(self.agent);
        let is_nameless = match self.names {
            Some(names) => names.end().await,
            None => true,
        };
        let Running { config, netlink, mut journal, host, device, .. } = self.running;
        if !is_nameless {
            tracing::error!(
                "names of agents may be left in /etc/hosts: sudo overlay down {} removes them",
                config.interface.name
            );
        } else if let Err(failure) = journal.record_hosts(false) {
            tracing::error!("{failure}");
        }
        let legacy = device.stop().await;
        if let Err(error) = host::flows::write(&flows_file, &legacy) {
            tracing::warn!(%error, "the connections that this host opened will be cut: they cannot be handed over to the next daemon");
        }
        if matches!(end, End::Failed(_)) && host::fails_closed(&config) {
            let name = &config.interface.name;
            tracing::error!(
                "traffic that the default route covers does not leave this host until `overlay up {name}` or `overlay down {name}`"
            );
            return end.into_result();
        }
        for line in host.take_down(&netlink, journal).await {
            tracing::error!("left behind: {line}");
        }
        end.into_result()
    }

    async fn reload(&mut self) -> Result<ReloadReport, Failure> {
        let report = reload::reload(&mut self.running, &mut self.paths, self.agent.as_ref()).await?;
        // Only what is in force counts for the agent, too.
        if let (Some(agent), Some(file)) = (&mut self.agent, &self.running.file) {
            let changed = agent.on_config(file);
            self.follow_agent(changed).await;
        }
        self.resolving.on_names(named_endpoints(&self.running.config.peers));
        self.look_around(true).await;
        tracing::info!(
            "reloaded: {} peers added, {} removed, {} changed, {} unchanged",
            report.added.len(),
            report.removed.len(),
            report.changed.len(),
            report.unchanged
        );
        Ok(report)
    }

    /// Looks for changes on the host that nothing reports. `is_new` says that a reload has just changed something.
    async fn look_around(&mut self, is_new: bool) {
        let Running { config, netlink, journal, host, view, .. } = &mut self.running;
        self.standing.on_look(netlink, host, config, view, is_new).await;
        self.door.try_again(&config.interface.name, journal, view).await;
        if let (Some(names), Some(agent)) = (&mut self.names, &self.agent) {
            names.on_look();
            naming::follow(names, agent, &self.running);
        }
    }

    /// Brings the data plane up to date with the agent, and answers who waited for that.
    async fn follow_agent(&mut self, changed: Changed) {
        let Some(agent) = &mut self.agent else { return };
        if changed.is_any()
            && let Err(failure) = follow::follow(agent, changed, &mut self.running, &mut self.paths).await
        {
            tracing::error!(error = %failure, "the data plane cannot follow the agent");
            agent.on_not_followed(changed);
        }
        if (changed.peers || changed.addresses)
            && let Some(names) = &mut self.names
        {
            naming::follow(names, agent, &self.running);
        }
        // The node knows by now which relays may answer.
        for datagram in agent.take_datagrams() {
            self.running.device.engine().send(datagram);
        }
        follow::hand_over(agent, &self.running).await;
        agent.give_answers();
    }

    /// Passes on what happened to trust, and shows whether decisions are logged.
    fn publish(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        agent.publish();
        let view = &self.running.view;
        let failure = agent.log_failure().map(|error| {
            let message = format!("decisions about trust hold, but are not logged: {error}");
            StatusWarning::new(DECISIONS, message, "make room, or remove what is in the way: see docs/agents.md")
        });
        let warnings: Vec<_> = failure
            .into_iter()
            .chain(agent.twin_warning())
            .chain(agent.clock_warning())
            .chain(agent.restored_warning())
            .chain(agent.rendezvous_warnings())
            .collect();
        if !warnings.is_empty() || view.has_warnings(AGENT) {
            view.set_warnings(AGENT, warnings);
        }
    }

    /// Leaves out a family that collides with this host from now on, and takes back one that no longer does.
    async fn look_for_families(&mut self) {
        if let Some(agent) = &self.agent
            && follow::is_due(agent, &self.running).await
        {
            self.follow_agent(Changed { addresses: true, ..Changed::default() }).await;
        }
    }

    fn summary(&self) -> String {
        let Config { interface, peers, .. } = &self.running.config;
        let plural = if peers.len() == 1 { "" } else { "s" };
        format!("{} is up, {} peer{plural}, MTU {}", interface.name, peers.len(), self.paths.mtu().start)
    }
}

impl Daemon for Supervisor {
    type News = News;

    fn device(&self) -> &Device {
        &self.running.device
    }

    async fn next(&mut self) -> News {
        tokio::select! {
            answer = self.resolving.next() => News::Resolved(answer),
            noticed = self.footprint.next(&self.running.host) => News::Noticed(noticed),
            () = self.paths.next(&self.running.host) => News::DirtyPaths,
            () = self.standing.next() => News::Look,
            news = next_of(&mut self.agent) => News::Agent(news),
            news = next_name(&mut self.names) => News::Names(news),
        }
    }

    async fn on_news(&mut self, news: News) -> ControlFlow<End> {
        match news {
            News::Resolved(answer) => {
                self.running.device.on_resolved(answer).await;
                self.standing.on_endpoint();
            }
            News::Noticed(noticed) => {
                self.footprint.on_noticed(noticed, &mut self.running).await;
                self.look_for_families().await;
                if let Some(agent) = &mut self.agent
                    && noticed.surroundings
                {
                    agent.on_surroundings();
                }
            }
            News::DirtyPaths => self.paths.on_dirty(&mut self.running).await,
            News::Names(news) => {
                if let Some(names) = &mut self.names {
                    names.on_news(news);
                    naming::show(names, &self.running);
                }
            }
            News::Look => {
                self.look_around(false).await;
                self.look_for_families().await;
            }
            News::Agent(news) => {
                let port = self.running.device.table().interface().listen_port;
                if let Some(agent) = &mut self.agent {
                    let changed = agent.on_news(news, &self.running.netlink, port).await;
                    self.follow_agent(changed).await;
                    self.publish();
                }
            }
        }
        ControlFlow::Continue(())
    }

    async fn on_event(&mut self, event: Event) {
        // The peer may be gone by now.
        let Some(peer) = self.running.device.table().key_of(event.peer()) else { return };
        let identity = self.running.device.table().agent_of(peer);
        if let Some(agent) = &mut self.agent {
            let changed = agent.on_tunnel_event(peer, identity, &event);
            self.follow_agent(changed).await;
            self.publish();
        }
        self.resolving.on_event(peer, &event);
        self.paths.on_event(peer, event, &mut self.running).await;
    }

    async fn on_foreign(&mut self, datagram: Datagram) {
        if let Some(agent) = &mut self.agent {
            let changed = agent.on_foreign(&datagram);
            self.follow_agent(changed).await;
        }
    }

    async fn on_copied(&mut self) {
        if let Some(agent) = &mut self.agent {
            let changed = agent.on_copied();
            self.follow_agent(changed).await;
            self.publish();
        }
    }

    async fn on_engine_ended(&mut self, error: io::Error) -> End {
        let Config { interface, path, .. } = &self.running.config;
        End::Failed(
            Failure::new(ExitKind::Other, format!("the interface `{}` cannot be used any more", interface.name))
                .with_cause(error)
                .with_hint(format!("was it deleted? sudo overlay up {}", config::argument_for(path))),
        )
    }

    async fn on_setting(&mut self, changes: Vec<Change>) -> Result<(), ChangeError> {
        let touched = paths::prefixes_of(&changes, &self.running);
        let result = self.running.device.apply(changes).await;
        self.paths.on_setting(touched, &mut self.running.host);
        // An endpoint that `wg` has set replaces a host name.
        self.resolving.on_names(self.running.device.named_endpoints());
        result
    }

    async fn on_reload(&mut self) -> Result<ReloadReport, ReloadError> {
        notify::reloading();
        let result = self.reload().await;
        overlay_os::memory::give_back();
        notify::ready(&self.summary());
        result.map_err(ReloadError::from)
    }

    async fn on_agent_call(&mut self, call: AgentCall, reply: AgentAnswer) {
        if let Some(agent) = &mut self.agent {
            let changed = agent.on_call(call, reply);
            self.follow_agent(changed).await;
            self.publish();
            return;
        }
        let Config { interface, path, .. } = &self.running.config;
        let (file, again) = (path.display(), config::argument_for(path));
        let _ = reply.send(Err(no_agent(format!(
            "write an [agent] table into {file}, then: sudo overlay down {} && sudo overlay up {again}",
            interface.name
        ))));
    }
}

/// Waits for the agent, if there is one.
async fn next_of(agent: &mut Option<Agent>) -> agent::News {
    match agent {
        Some(agent) => agent.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for news of names, if there are any.
async fn next_name(names: &mut Option<Names>) -> names::News {
    match names {
        Some(names) => names.next().await,
        None => std::future::pending().await,
    }
}
