//! The plot: bars for each tunnel, with one panel for each decisive result.
//!
//! Each panel has its own scale from zero. The bar for the plain wire is below that for the unmodified veth. The bare
//! veth is left out: it would leave no space for the others, and the tables show it.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::contestant::{Identity, Role};
use super::report::Report;
use super::runs::Subject;
use super::settings::Wire;
use super::table::number;
use super::tcp::{Direction, TcpFigures};
use super::udp;

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// The value of a contestant on a wire.
type Value<'a> = Box<dyn Fn(Subject<'_>) -> Option<f64> + 'a>;
type Drawn = Result<(), Box<dyn Error>>;

const WIDTH: u32 = 1200;
const HEAD: u32 = 70;
/// The height of one contestant's row: two bars and the gap to the next row.
const ROW: i32 = 34;
const BAR: i32 = 13;
/// Where the bars begin, and the space next to the longest bar for its value.
const LEFT: i32 = 130;
const RIGHT: i32 = 70;
/// The height of a panel's title.
const TOP: i32 = 36;
const PANELS_ACROSS: usize = 2;

const INK: RGBColor = RGBColor(40, 40, 40);
/// The colours for the unmodified veth and for the plain wire. Ours stand out.
const BARS: [RGBColor; 2] = [RGBColor(120, 138, 160), RGBColor(190, 200, 212)];
const OUR_BARS: [RGBColor; 2] = [RGBColor(200, 85, 45), RGBColor(236, 164, 130)];

/// Draws the plot into an SVG file.
pub(crate) fn draw(path: &Path, report: &Report) -> Drawn {
    let figures = figures(report);
    let panels_down = figures.len().div_ceil(PANELS_ACROSS);
    let panel_height = TOP.unsigned_abs() + ROW.unsigned_abs() * u32::try_from(tunnels(report).count())? + 14;
    let root = SVGBackend::new(path, (WIDTH, HEAD + panel_height * u32::try_from(panels_down)?)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, rest) = root.split_vertically(HEAD);
    title(&head, report)?;
    for (panel, (name, value)) in rest.split_evenly((panels_down, PANELS_ACROSS)).iter().zip(&figures) {
        bars(panel, report, name, value)?;
    }
    root.present()?;
    Ok(())
}

fn figures(report: &Report) -> Vec<(&'static str, Value<'_>)> {
    let runs = &report.runs;
    let [small, _] = udp::PAYLOADS;
    let tcp = |streams, value: fn(&TcpFigures) -> f64| -> Value<'_> {
        Box::new(move |subject| runs.tcp(subject, streams, Direction::Forward, value).median())
    };
    let udp: Value<'_> = Box::new(move |subject| runs.udp(subject, small, |run| run.kilopackets_per_second).median());
    let ping: Value<'_> = Box::new(|subject| runs.ping(subject, true, |run| run.p99_milliseconds).median());
    let memory: Value<'_> = Box::new(|subject| runs.memory(subject, |run| run.peak_bytes).median());
    vec![
        ("TCP, one stream, Gb/s", tcp(1, |run| run.gigabits_per_second)),
        ("TCP, eight streams, Gb/s", tcp(8, |run| run.gigabits_per_second)),
        ("CPU of both daemons, s/GB (less is better)", tcp(1, |run| run.daemon_cpu_seconds_per_gb)),
        ("UDP, 64 bytes, one flow, kpps", udp),
        ("ping beside a TCP stream, p99, ms (less is better)", ping),
        ("memory at most, MB (less is better)", memory),
    ]
}

fn title(head: &Panel<'_>, report: &Report) -> Drawn {
    let machine = &report.machine;
    let text = format!("make bench, {}: {}, {} cores, {}", report.date, machine.cpu, machine.cores, machine.kernel);
    write(head, &text, (20, 24), 22, HPos::Left)?;
    let mut left = 20;
    for (wire, color) in Wire::ALL.into_iter().zip(BARS) {
        head.draw(&Rectangle::new([(left, 44), (left + 22, 44 + BAR)], color.filled()))?;
        write(head, wire.title(), (left + 30, 44 + BAR / 2), 16, HPos::Left)?;
        left += 180;
    }
    Ok(())
}

fn bars(panel: &Panel<'_>, report: &Report, name: &str, value: &Value<'_>) -> Drawn {
    write(panel, name, (20, TOP / 2), 18, HPos::Left)?;
    let values = |contestant: &str| Wire::ALL.map(|wire| value(Subject { contestant, wire }));
    let rows: Vec<_> = tunnels(report).map(|one| (one, values(&one.label))).collect();
    let longest = rows.iter().flat_map(|(_, values)| values).flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(i32::try_from(panel.dim_in_pixel().0)? - LEFT - RIGHT);
    let mut top = TOP;
    for (contestant, values) in rows.iter().filter(|(_, values)| values.iter().any(Option::is_some)) {
        write(panel, &contestant.label, (LEFT - 8, top + BAR), 16, HPos::Right)?;
        let is_ours = matches!(contestant.role, Role::Overlay | Role::OverlayVariant);
        let colors = if is_ours { OUR_BARS } else { BARS };
        for ((value, color), top) in values.iter().zip(colors).zip([top, top + BAR]) {
            let Some(value) = value else { continue };
            let end = LEFT + (value / longest * room).round() as i32;
            panel.draw(&Rectangle::new([(LEFT, top), (end, top + BAR)], color.filled()))?;
            write(panel, &number(Some(*value)), (end + 6, top + BAR / 2 + 1), 14, HPos::Left)?;
        }
        top += ROW;
    }
    Ok(())
}

fn tunnels(report: &Report) -> impl Iterator<Item = &Identity> {
    report.contestants.iter().filter(|contestant| contestant.role != Role::Veth)
}

/// Writes text whose vertical centre is at this point.
fn write(panel: &Panel<'_>, text: &str, at: (i32, i32), size: u32, from: HPos) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&INK).pos(Pos::new(from, VPos::Center));
    Ok(panel.draw(&Text::new(text.to_owned(), at, style))?)
}
