//! One cell of the matrix: a path, and everything that must work on it.

use std::fmt;
use std::time::{Duration, Instant};

use super::road::{FAR, Found, Road, Router, SHORT_STALL, around};
use super::streams::{Fetched, fetch};
use crate::lab::services::{self, SshServer, random_file, sha256};
use crate::lab::{A, Outside, Pings};

const TWO_MINUTES: Duration = Duration::from_secs(120);

/// The properties of a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    /// The MTU of the hosts' own links.
    pub(super) hosts: u16,
    /// The MTU of the hop in the middle.
    pub(super) middle: u16,
    pub(super) router: Router,
    pub(super) outside: Outside,
}

/// The results for a cell.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) cell: Cell,
    /// What `a` and `b` have found.
    pub(super) found: [Found; 2],
    /// What `a` and `b` have fetched over inner IPv4.
    pub(super) fetched: [Fetched; 2],
}

impl Cell {
    /// The largest inner packet that gets through, in bytes.
    pub(super) fn truth(self) -> u16 {
        self.middle.min(self.hosts) - around(self.outside)
    }

    /// How long the search may take.
    fn patience(self) -> Duration {
        Duration::from_secs(match self.router {
            Router::Says => 10,
            Router::IsSilent => 15,
        })
    }

    /// Runs everything on a link of this rate (in `tc` syntax), with files of `bytes`. `None` if this machine cannot.
    #[track_caller]
    pub(super) fn run(self, rate: Option<&str>, bytes: u64) -> Option<Seen> {
        eprintln!("{self}");
        let road = Road::new("mtu", self.hosts)?;
        road.narrow(self.middle, self.router);
        if let Some(rate) = rate {
            road.limit(rate);
        }
        let (a, b) = (&road.a, &road.b);
        let files = [a, b].map(|host| random_file(host, "served", bytes));
        let few = random_file(a, "few", 1 << 20);
        let _http = [a, b].map(|host| services::http_server(host, host.dir()));
        let _grpc = services::grpc_server(b);
        let ssh = SshServer::start(b);
        let _daemons = road.up(self.outside);
        let began = Instant::now();
        a.reaches(FAR.v4);
        let found = [a, b].map(|host| road.found_by(host, began, self.patience(), |_| true));
        for found in &found {
            assert!((self.truth() - 16..=self.truth()).contains(&found.mtu), "{self}: {found:?} of {}", self.truth());
            assert_eq!(found.by, "control_frames", "{self}");
        }

        let fetched = [fetch(a, FAR.v4, &files[1]), fetch(b, A.v4, &files[0])];
        let over_v6 = fetch(a, FAR.v6, &random_file(b, "few", 1 << 20));
        for fetched in fetched.iter().chain([&over_v6]) {
            assert!(fetched.longest_pause < SHORT_STALL, "{self}: {fetched:?}");
        }
        // In fragments, since nothing forbids that.
        for (from, to) in [(a, FAR.v4), (a, FAR.v6), (b, A.v4), (b, A.v6)] {
            Pings::new(3, Duration::from_millis(20)).of(5_000).are_answered(from, to);
        }
        let copy = b.dir().join("copy");
        let calls = [
            ssh.ssh(a, FAR.v4, &format!("cat > {}", copy.display()), &few),
            services::grpc_call(a, FAR.v4, 1 << 20),
            services::grpc_call(a, FAR.v6, 1 << 20),
        ];
        for call in calls {
            call.succeed_within(TWO_MINUTES);
        }
        assert_eq!(sha256(&copy), sha256(&few), "{self}: ssh");
        // None of this was a reason to change the path MTU.
        for (host, found) in [a, b].into_iter().zip(&found) {
            assert_eq!(super::road::mtu(host)["mtu"], found.mtu, "{self}: on {}", host.name());
        }
        Some(Seen { cell: self, found, fetched })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { hosts, middle, router, outside } = self;
        write!(f, "{middle} between hosts of {hosts}, the router {router:?}, over {outside:?}")
    }
}
