//! Formats numbers for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_daemon::dates::rfc3339;

/// Bytes in the largest binary unit that keeps the number at 1 or above: `3.4 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 and above would be printed as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A length of time in its two largest units: `3 min 12 s`.
pub(crate) fn span(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match seconds % large / small {
        0 => format!("{} {large_unit}", seconds / large),
        rest => format!("{} {large_unit} {rest} {small_unit}", seconds / large),
    };
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => two(MINUTE, "min", 1, "s"),
        HOUR..DAY => two(HOUR, "h", MINUTE, "min"),
        DAY.. => two(DAY, "d", HOUR, "h"),
    }
}

/// How long ago something was: `12 s ago`.
pub(crate) fn ago(seconds: u64) -> String {
    if seconds == 0 { "now".to_owned() } else { format!("{} ago", span(seconds)) }
}

/// The wall clock in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A date in seconds since 1970, and how far away it is: `2026-11-28 12:00:00 UTC (in 3 d 4 h)`.
pub(crate) fn until(at: u64, now: u64) -> String {
    format!("{} ({})", date(at), distance(at, now))
}

/// How far away a date is: `in 3 d 4 h` or `12 s ago`.
pub(crate) fn distance(at: u64, now: u64) -> String {
    if at > now { format!("in {}", span(at - now)) } else { ago(now - at) }
}

/// A date in seconds since 1970: `2026-11-28 12:00:00 UTC`.
pub(crate) fn date(seconds: u64) -> String {
    rfc3339(seconds.saturating_mul(1_000)).replace('T', " ").replace('Z', " UTC")
}

/// A round trip in milliseconds with three significant digits: `0.412 ms`.
pub(crate) fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    let digits = if ms < 10.0 {
        3
    } else if ms < 100.0 {
        2
    } else {
        1
    };
    format!("{ms:.digits$} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_change_their_unit_where_the_next_one_reads_better() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (3_500, "3.4 KiB"),
            (1_048_575, "1.0 MiB"),
            (5_368_709_120, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn spans_have_at_most_two_units() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (192, "3 min 12 s"),
            (3600, "1 h"),
            (7_500, "2 h 5 min"),
            (86_399, "23 h 59 min"),
            (273_600, "3 d 4 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(ago(0), "now");
        assert_eq!(ago(12), "12 s ago");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (68_169_599, "1972-02-28 23:59:59 UTC"),
            (68_169_600, "1972-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (seconds, text) in cases {
            assert_eq!(date(seconds), text);
        }
        assert_eq!(until(90, 30), "1970-01-01 00:01:30 UTC (in 1 min)");
        assert_eq!(distance(30, 90), "1 min ago");
        assert!(!date(u64::MAX).is_empty(), "what a stranger wrote does not end the program");
    }

    #[test]
    fn round_trips_show_three_digits_that_matter() {
        assert_eq!(milliseconds(Duration::from_micros(412)), "0.412 ms");
        assert_eq!(milliseconds(Duration::from_micros(23_456)), "23.46 ms");
        assert_eq!(milliseconds(Duration::from_millis(1234)), "1234.0 ms");
    }
}
