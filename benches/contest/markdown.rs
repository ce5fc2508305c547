//! The report as a document, for the terminal and for `target/bench/RESULTS.md`, which is committed as
//! `benches/RESULTS.md`.

mod wire;

use super::asked::Limit;
use super::contestant::Identity;
use super::latency::ProtocolFigures;
use super::report::Report;
use super::scale::Crowd;
use super::settings::Wire;
use super::table::{Table, number, pair};

/// The whole report.
pub(crate) fn document(report: &Report) -> String {
    let mut text = head(report);
    text += &format!("\n## What is asked\n\n{}", asked(report));
    for wire in Wire::ALL.into_iter().filter(|wire| report.settings.wants_wire(*wire)) {
        text += &wire::section(report, wire);
    }
    text + &cryptography(report) + &latency(report) + &scale(report) + &fairness(report) + &failures(report)
}

fn head(report: &Report) -> String {
    let Report { machine, settings, .. } = report;
    let virtual_or_not = if machine.is_virtual { "virtual " } else { "" };
    let only = if settings.only.is_empty() { String::new() } else { format!(", only {}", settings.only.join(", ")) };
    let mut contestants = Table::new(3, &["contestant", "version", "remark"]);
    for Identity { label, version, note, .. } in &report.contestants {
        contestants.row(vec![label.clone(), version.clone(), (*note).into()]);
    }
    format!(
        "# Results of `make bench`\n\n\
         {date}: {rounds} rounds, {seconds} s for each run{only}, {minutes:.0} minutes in all.\n\
         {cpu}, {cores} {virtual_or_not}cores, {memory:.1} GB; {kernel}, {distribution}; TCP with {congestion}.\n\n\
         Everything runs on these cores: both daemons, both ends of each load, the kernel. Figures are medians over the\n\
         rounds, ratios are taken within a round. 1 GB is 10^9 bytes. An absolute figure from a shared machine proves\n\
         nothing; read ratios.\n\n{contestants}",
        date = report.date,
        rounds = settings.rounds,
        seconds = settings.seconds,
        minutes = report.duration_minutes,
        cpu = machine.cpu,
        cores = machine.cores,
        memory = machine.memory_bytes as f64 / 1e9,
        kernel = machine.kernel,
        distribution = machine.distribution,
        congestion = machine.tcp_congestion_control,
        contestants = contestants.to_markdown(),
    )
}

fn asked(report: &Report) -> String {
    let mut table = Table::new(2, &["figure", "asked", "seen", "least to most", "met"]);
    // Measurements that the run was told to leave out are not listed.
    for line in report.asked.iter().filter(|line| line.seen.is_some() || report.settings.only.is_empty()) {
        let limit = match line.limit {
            Limit::AtLeast(least) => format!("at least {least} {}", line.unit),
            Limit::AtMost(most) => format!("at most {most} {}", line.unit),
        };
        table.row(vec![
            line.figure.clone(),
            limit.trim_end().into(),
            number(line.seen),
            line.range.map_or("-".into(), |[least, most]| format!("{} to {}", number(Some(least)), number(Some(most)))),
            line.is_met.map_or("-", |is_met| if is_met { "yes" } else { "**no**" }).into(),
        ]);
    }
    table.to_markdown()
}

fn row(name: &str, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    [name.to_owned()].into_iter().chain(cells).collect()
}

fn cryptography(report: &Report) -> String {
    let Some(aead) = report.runs.aead.last() else { return String::new() };
    let mut table = Table::new(1, &["", "seal, ns a packet", "open, ns a packet", "CPU s/GB"]);
    for (name, cost) in [("ChaCha20-Poly1305", aead.chacha20_poly1305), ("AES-256-GCM", aead.aes_256_gcm)] {
        let figures = [cost.seal_nanoseconds_per_packet, cost.open_nanoseconds_per_packet, cost.cpu_seconds_per_gb];
        table.row(row(name, figures.map(|figure| number(Some(figure)))));
    }
    let bound = report.bound_gigabits_per_second.map_or(String::new(), |bound| {
        let cores = report.machine.cores;
        format!("\nBound for one stream, {cores} / (t_veth + t_aead): {} Gb/s.\n", number(Some(bound)))
    });
    format!(
        "\n## The AEAD alone\n\nPackets of {} bytes, in place, hot; the last round.\n\n{}{bound}",
        aead.packet_bytes,
        table.to_markdown()
    )
}

fn latency(report: &Report) -> String {
    let Some(latency) = &report.chapters.latency else { return String::new() };
    let mut table =
        Table::new(1, &["", "veth, us p50 / p99", "copier", "overlay", "overlay / copier", "least to most", "lost"]);
    for (protocol, ProtocolFigures { veth, copier, overlay, ratio, ratio_range }) in
        [("UDP", &latency.udp), ("TCP", &latency.tcp)]
    {
        let [least, most] = ratio_range.map(|ratio| number(Some(ratio)));
        let trips = [veth, copier, overlay];
        let cells = trips.map(|trip| pair(Some(trip.p50_microseconds), Some(trip.p99_microseconds)));
        let rest = [number(Some(*ratio)), format!("{least} to {most}"), overlay.lost.to_string()];
        table.row(row(protocol, cells.into_iter().chain(rest)));
    }
    format!(
        "\n## A request and its response\n\n{} bytes each, one under way at a time, {} in each of {} rounds; beside a copier\n\
         between TUN and UDP without cryptography.\n\n{}",
        latency.message_bytes,
        latency.exchanges_per_round,
        latency.rounds,
        table.to_markdown()
    )
}

fn scale(report: &Report) -> String {
    let Some(scale) = &report.chapters.scale else { return String::new() };
    let mut table = Table::new(
        1,
        &["", "`up`, s", "`status`, s", "idle, % of a core", "memory, MB", "after `status`", "a further peer, KiB"],
    );
    let kinds = [("peers that are waited for", scale.waited_for), ("peers with endpoints", scale.with_endpoints)];
    for (kind, crowd) in kinds {
        let Crowd { up_seconds, status_seconds, idle_cores, resident_bytes, resident_after_status_bytes, .. } = crowd;
        let figures = [
            up_seconds,
            status_seconds,
            idle_cores * 100.0,
            resident_bytes as f64 / 1e6,
            resident_after_status_bytes as f64 / 1e6,
            crowd.further_peer_bytes / 1024.0,
        ];
        table.row(row(kind, figures.map(|figure| number(Some(figure)))));
    }
    format!(
        "\n## {} configured peers\n\nWith one peer a daemon holds {} MB.\n\n{}",
        scale.peers,
        number(Some(scale.one_peer_resident_bytes as f64 / 1e6)),
        table.to_markdown()
    )
}

fn fairness(report: &Report) -> String {
    let Some(fairness) = &report.chapters.fairness else { return String::new() };
    let mut table = Table::new(
        1,
        &["", "Jain's index", "longest stall, s", "longest of one stream, s", "least / mean", "together, Gb/s"],
    );
    let others = fairness.others.iter().map(|other| {
        let name = format!("overlay, {}, {}", other.congestion_control, other.wire.title());
        (name, other.sharing)
    });
    let own =
        [("veth", fairness.veth), ("overlay", fairness.overlay)].map(|(name, sharing)| (name.to_owned(), sharing));
    for (name, sharing) in own.into_iter().chain(others) {
        let figures = [
            sharing.jain_index,
            sharing.longest_stall_seconds,
            sharing.longest_silence_of_one_seconds,
            sharing.least_share_of_mean,
            sharing.gigabits_per_second,
        ];
        table.row(row(&name, figures.map(|figure| number(Some(figure)))));
    }
    format!("\n## {} TCP streams at once, {} s\n\n{}", fairness.streams, fairness.seconds, table.to_markdown())
}

fn failures(report: &Report) -> String {
    if report.failures.is_empty() {
        return String::new();
    }
    let mut text = "\n## What failed\n\n".to_owned();
    for failure in &report.failures {
        let wire = failure.wire.map_or(String::new(), |wire| format!(", {}", wire.title()));
        let round = failure.round.map_or(String::new(), |round| format!(", round {}", round + 1));
        let reason: String =
            failure.reason.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
        text += &format!("* {}: {}{wire}{round}: {reason}\n", failure.contestant, failure.step);
    }
    text
}
