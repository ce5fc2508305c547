//! Every kind of NAT with every other: reached at once, and directly within seconds where that can be.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use overlay_sim::nat::{Kind, traversable};

use crate::lab::Apart;

/// How long the first answer may take, and the direct path.
const FIRST: Duration = Duration::from_secs(3);
const DIRECT: Duration = Duration::from_secs(10);
/// How much later the second side begins.
const LATER: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(500)];

/// What became of one run.
#[derive(Clone, Debug)]
struct Run {
    later: Duration,
    /// How long after both had begun the first ping was answered, and the path was direct.
    first: Option<Duration>,
    direct: Option<Duration>,
    /// What both say of their paths at the end.
    said: String,
}

impl Run {
    /// Why it is not what was expected.
    fn fault(&self, is_direct: bool) -> Option<String> {
        let what = match (self.first, self.direct) {
            (None, _) => "never answered".to_owned(),
            (Some(first), _) if first > FIRST => format!("answered after {first:?}"),
            (_, None) if is_direct => "not direct".to_owned(),
            (_, Some(_)) if !is_direct => "direct, against all expectation".to_owned(),
            _ => return None,
        };
        Some(format!("{what}, where the second side began {:?} later\n{}", self.later, self.said))
    }
}

/// Starts both agents anew, and pings from alice.
fn run(apart: &mut Apart, address: &str, later: Duration, is_direct: bool) -> Run {
    apart.restart(later);
    let (began, wall) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"));
    let pings = apart.alice.host.spawn(format!("ping -D -i 0.1 {address}"));
    let mut direct = None;
    while began.elapsed() < DIRECT {
        if apart.are_direct() && first_answer(&pings.stdout()).is_some() {
            direct = Some(began.elapsed());
            break;
        }
        // Where no direct path is expected, it is enough to look for a while.
        if !is_direct && began.elapsed() > DIRECT * 7 / 10 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let first = first_answer(&pings.stdout()).map(|at| at.saturating_sub(wall));
    let said = [(&apart.alice, "bob"), (&apart.bob, "alice")];
    let said = said.map(|(agent, peer)| agent.verb(format!("path {peer}")).stdout).join("\n");
    Run { later, first, direct, said }
}

/// When the first answer came, since 1970, as `ping -D` prints it.
fn first_answer(printed: &str) -> Option<Duration> {
    let line = printed.lines().find(|line| line.contains("bytes from"))?;
    let seconds: f64 = line.strip_prefix('[')?.split(']').next()?.parse().ok()?;
    Some(Duration::from_secs_f64(seconds))
}

/// Runs a pair this many times, each time with the other side a little later, and returns what it says in the table and what was wrong.
fn pair(kinds: [Kind; 2], runs: usize) -> Option<(String, Vec<String>)> {
    let name = format!("{}-{}", kinds[0].name(), kinds[1].name());
    let mut apart = Apart::new(&name, kinds)?;
    let is_direct = traversable(kinds[0], kinds[1]);
    let address = apart.bob.v6();
    let number = Kind::ALL.iter().position(|kind| *kind == kinds[0]).unwrap_or_default();
    let all: Vec<_> = (0..runs)
        .map(|run_number| run(&mut apart, &address, LATER[(run_number + number) % LATER.len()], is_direct))
        .collect();
    let faults = all.iter().filter_map(|run| Some(format!("{name}: {}", run.fault(is_direct)?))).collect();
    let mut row =
        format!("| {} | {} | {} |", kinds[0].name(), kinds[1].name(), if is_direct { "direct" } else { "relay" });
    for run in &all {
        let shown = |span: Option<Duration>| span.map_or("-".to_owned(), |span| format!("{:.1}", span.as_secs_f64()));
        let _ = write!(row, " {} / {} |", shown(run.first), shown(run.direct));
    }
    Some((row, faults))
}

/// Asserts that one run of a pair is as expected.
#[track_caller]
fn is_as_expected(one: Kind, other: Kind) {
    let Some((row, faults)) = pair([one, other], 1) else { return };
    eprintln!("{row}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn moderate_and_linux() {
    is_as_expected(Kind::Moderate, Kind::Linux);
}

#[test]
fn linux_and_linux() {
    is_as_expected(Kind::Linux, Kind::Linux);
}

#[test]
fn strict_and_strict() {
    is_as_expected(Kind::Strict, Kind::Strict);
}

#[test]
fn strict_and_address_restricted() {
    is_as_expected(Kind::Strict, Kind::AddressRestricted);
}

#[test]
fn carrier_grade_and_moderate() {
    is_as_expected(Kind::CarrierGrade, Kind::Moderate);
}

#[test]
fn none_and_linux() {
    is_as_expected(Kind::None, Kind::Linux);
}

#[test]
fn ipv6_firewall_and_open() {
    is_as_expected(Kind::Ipv6Firewall, Kind::Open);
}

#[test]
fn one_to_one_and_open() {
    is_as_expected(Kind::OneToOne, Kind::Open);
}

#[test]
fn ipv6_firewall_and_none() {
    is_as_expected(Kind::Ipv6Firewall, Kind::None);
}

/// Every pair that begins with this kind, three times each. The rows of the table go to a file.
#[track_caller]
fn all_with(one: Kind) {
    let (mut rows, mut faults) = (String::new(), Vec::new());
    for other in Kind::ALL {
        let Some((row, wrong)) = pair([one, other], 3) else { return };
        eprintln!("{row}");
        let _ = writeln!(rows, "{row}");
        faults.extend(wrong);
    }
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("nats");
    std::fs::create_dir_all(&folder).expect("a folder for the table");
    let number = Kind::ALL.iter().position(|kind| *kind == one).expect("one of all");
    std::fs::write(folder.join(format!("{number}.md")), rows).expect("rows of the table");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nats_with_none() {
    all_with(Kind::None);
}

#[test]
fn nats_with_open() {
    all_with(Kind::Open);
}

#[test]
fn nats_with_address_restricted() {
    all_with(Kind::AddressRestricted);
}

#[test]
fn nats_with_moderate() {
    all_with(Kind::Moderate);
}

#[test]
fn nats_with_linux() {
    all_with(Kind::Linux);
}

#[test]
fn nats_with_strict() {
    all_with(Kind::Strict);
}

#[test]
fn nats_with_carrier_grade() {
    all_with(Kind::CarrierGrade);
}

#[test]
fn nats_with_one_to_one() {
    all_with(Kind::OneToOne);
}

#[test]
fn nats_with_ipv6_firewall() {
    all_with(Kind::Ipv6Firewall);
}
