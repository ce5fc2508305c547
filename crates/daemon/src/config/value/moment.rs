//! A moment in time as TOML has it, `2027-01-01T00:00:00Z`.

use toml::value::{Datetime, Offset};

use crate::config::problem::Problem;

/// Returns the moment in milliseconds since 1970.
pub(crate) fn parse_moment(written: &Datetime) -> Result<u64, Problem> {
    let bad = |message: &str, hint: String| Problem::new("bad_time", message).hint(hint);
    let Some(date) = written.date else {
        return Err(bad("this is a time without a date", "write both, as 2027-01-01T00:00:00Z".to_owned()));
    };
    let Some(time) = written.time else {
        return Err(bad("this is a date without a time", format!("write both, as {date}T00:00:00Z")));
    };
    let Some(offset) = written.offset else {
        let hint = format!("write {written}Z for UTC, or add an offset such as +02:00");
        return Err(bad("this time has no time zone", hint));
    };
    let minutes_ahead = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let minutes = days * 1_440 + i64::from(time.hour) * 60 + i64::from(time.minute) - minutes_ahead;
    let millis = (minutes * 60 + i64::from(time.second.unwrap_or(0))) * 1_000
        + i64::from(time.nanosecond.unwrap_or(0)) / 1_000_000;
    u64::try_from(millis).map_err(|_| bad("this is before 1970", "write when the trust is to end".to_owned()))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March, so that the leap day is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: i64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    // 153 days are the five months from March to July, and again from August to December.
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - EPOCH
}
