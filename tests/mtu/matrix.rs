//! The matrix: MTUs of the hop in the middle, the behaviour of routers, and the outer address family.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::cell::{Cell, Seen};
use super::road::Router::{self, IsSilent, Says};
use crate::lab::Outside::{self, V4, V6};

/// The MTUs of the hop in the middle.
const MIDDLES: [u16; 9] = [1500, 1280, 1296, 1368, 1400, 1420, 1480, 1492, 9000];
/// These are also tested with host links of 9000, where a host starts far above the real path MTU.
const BEHIND_JUMBO: [u16; 4] = [1280, 1400, 1492, 1500];

const HTTP_BYTES: u64 = 16 << 20;
/// The rate of the hop in the middle.
const RATE: &str = "100mbit";
/// The least acceptable goodput, as a share of that at 1500.
const LEAST_SHARE: f64 = 0.9;

/// Runs one of the eight cells.
fn cell(hosts: u16, middle: u16, router: Router, outside: Outside) {
    if let Some(seen) = (Cell { hosts, middle, router, outside }).run(None, HTTP_BYTES) {
        eprintln!("{}", seen.row(None));
    }
}

#[test]
fn the_least_that_ipv6_allows_past_a_router_that_says_so_over_ipv6() {
    cell(1500, 1280, Says, V6);
}

#[test]
fn the_least_that_ipv6_allows_past_a_silent_router_over_ipv4() {
    cell(1500, 1280, IsSilent, V4);
}

#[test]
fn mtu_1296_past_a_silent_router_over_ipv6() {
    cell(1500, 1296, IsSilent, V6);
}

#[test]
fn mtu_1368_past_a_router_that_says_so_over_ipv4() {
    cell(1500, 1368, Says, V4);
}

#[test]
fn mtu_1400_behind_jumbo_links_past_a_silent_router_over_ipv4() {
    cell(9000, 1400, IsSilent, V4);
}

#[test]
fn mtu_1420_past_a_router_that_says_so_over_ipv6() {
    cell(1500, 1420, Says, V6);
}

#[test]
fn mtu_1492_past_a_silent_router_over_ipv6() {
    cell(1500, 1492, IsSilent, V6);
}

#[test]
fn jumbo_all_the_way_over_ipv4() {
    cell(9000, 9000, Says, V4);
}

#[test]
fn matrix_over_ipv4() {
    matrix(V4);
}

#[test]
fn matrix_over_ipv6() {
    matrix(V6);
}

/// Runs all cells of a family, the one at 1500 first, and writes their table.
fn matrix(outside: Outside) {
    let own_links = MIDDLES.map(|middle| (if middle > 1500 { middle } else { 1500 }, middle));
    let jumbo_links = BEHIND_JUMBO.map(|middle| (9000, middle));
    let mut table = String::new();
    let mut below = Vec::new();
    for router in [Says, IsSilent] {
        let mut at_1500 = None;
        for (hosts, middle) in own_links.into_iter().chain(jumbo_links) {
            let Some(seen) = (Cell { hosts, middle, router, outside }).run(Some(RATE), HTTP_BYTES) else { return };
            let reference = at_1500.get_or_insert_with(|| seen.clone());
            let row = seen.row(Some(reference));
            eprintln!("{row}");
            writeln!(table, "{row}").expect("text");
            if seen.shares_of(reference).iter().any(|share| *share < LEAST_SHARE) {
                below.push(row);
            }
        }
    }
    // `make matrix` puts the parts together.
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("matrix");
    fs::create_dir_all(&folder).expect("cargo's folder for tests");
    fs::write(folder.join(format!("{outside:?}.md")), table).expect("a file in it");
    assert!(below.is_empty(), "less than {LEAST_SHARE} of the goodput at 1500:\n{}", below.join("\n"));
}

impl Seen {
    /// This cell's goodput as a share of another cell's, for each direction.
    fn shares_of(&self, other: &Seen) -> [f64; 2] {
        [0, 1].map(|at| self.fetched[at].rate() / other.fetched[at].rate())
    }

    fn row(&self, at_1500: Option<&Seen>) -> String {
        let Seen { cell: Cell { hosts, middle, router, outside }, found: [a, b], fetched } = self;
        let router = if *router == Says { "says" } else { "is silent" };
        let [to_a, to_b] = fetched;
        let pause = to_a.longest_pause.max(to_b.longest_pause).as_secs_f64() * 1e3;
        let share = at_1500.map_or("-".to_owned(), |reference| {
            let [to_a, to_b] = self.shares_of(reference);
            format!("{:.0} % / {:.0} %", to_a * 100.0, to_b * 100.0)
        });
        format!(
            "| {middle} | {hosts} | {router} | IP{} | {} | {} / {} | {:.1} s / {:.1} s | {:.1} / {:.1} | {share} | {pause:.0} ms |",
            format!("{outside:?}").to_lowercase(),
            self.cell.truth(),
            a.mtu,
            b.mtu,
            a.took.as_secs_f64(),
            b.took.as_secs_f64(),
            to_a.rate(),
            to_b.rate(),
        )
    }
}
