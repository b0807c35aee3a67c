//! Points in time as people read them, always in UTC.
//!
//! std has no calendar, and this is all of one that is needed. Leans on nothing. Refuses local time: a sheet that is
//! sent to somebody else reads the same there.

use std::time::SystemTime;

/// libvirt's timestamps: `2026-11-21 23:24:28.106+0000`.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs() % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (date, milli) = (date(since.as_secs()), since.subsec_millis());
    format!("{date} {hour:02}:{minute:02}:{second:02}.{milli:03}+0000")
}

/// The date of a Unix time: `2026-11-21`.
pub(crate) fn date(seconds: u64) -> String {
    // Days since 0000-03-01 fall into eras of 400 years; counting from March puts the leap day last in its year.
    let day = seconds / 86_400 + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_know_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00.000+0000"),
            (951_782_400, "2000-02-29 00:00:00.000+0000"),
            (951_868_800, "2000-03-01 00:00:00.000+0000"),
            (4_107_542_399, "2100-02-28 23:59:59.000+0000"),
            (4_107_542_400, "2100-03-01 00:00:00.000+0000"),
        ] {
            assert_eq!(timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
