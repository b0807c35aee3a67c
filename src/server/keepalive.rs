//! When to ping a silent client, and when to give it up.
//!
//! Armed once a client has asked whether we know keepalive; never before, because others can't answer. With libvirt's
//! defaults (5 s, 5 times): pings after 5, 10, 15, 20 and 25 silent seconds, given up after 30. Leans on the clock it is
//! handed. Refuses to ping a client that never asked.

use std::time::{Duration, Instant};

/// One connection's keepalive.
#[derive(Debug, Clone)]
pub(super) struct Keepalive {
    interval: Option<Duration>,
    count: u32,
    unanswered: u32,
    due: Option<Instant>,
}

impl Keepalive {
    /// Pings after each silent `interval`, `count` times at most; never if there is none.
    pub(super) fn new(interval: Option<Duration>, count: u32) -> Self {
        Self { interval, count, unanswered: 0, due: None }
    }

    /// The client can be pinged.
    pub(super) fn arm(&mut self, now: Instant) {
        if self.due.is_none() {
            self.due = self.interval.map(|interval| now + interval);
        }
    }

    /// Something came from the client: all is well.
    pub(super) fn heard(&mut self, now: Instant) {
        self.unanswered = 0;
        self.due = self.due.and(self.interval).map(|interval| now + interval);
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// What to do now: ping, give up (`false`), or nothing yet.
    pub(super) fn tick(&mut self, now: Instant) -> Option<bool> {
        self.due.filter(|due| *due <= now)?;
        if self.unanswered >= self.count {
            return Some(false);
        }
        self.unanswered += 1;
        self.due = self.interval.map(|interval| now + interval);
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_client_is_pinged_five_times_and_given_up_after_thirty_seconds() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(Duration::from_secs(5)), 5);
        assert_eq!(keepalive.deadline(), None, "a client that didn't ask is never pinged");
        keepalive.arm(start);
        let mut seen = Vec::new();
        while let Some(due) = keepalive.deadline() {
            let verdict = keepalive.tick(due);
            seen.push(((due - start).as_secs(), verdict.unwrap()));
            if verdict == Some(false) {
                break;
            }
        }
        assert_eq!(seen, [(5, true), (10, true), (15, true), (20, true), (25, true), (30, false)]);
    }

    #[test]
    fn any_packet_starts_the_count_anew() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(Duration::from_secs(5)), 0);
        keepalive.arm(start);
        keepalive.heard(start + Duration::from_secs(4));
        assert_eq!(keepalive.tick(start + Duration::from_secs(5)), None);
        assert_eq!(
            keepalive.tick(start + Duration::from_secs(9)),
            Some(false),
            "a count of 0: at the first silence"
        );
    }

    #[test]
    fn without_an_interval_nobody_is_pinged() {
        let mut keepalive = Keepalive::new(None, 5);
        keepalive.arm(Instant::now());
        assert_eq!(keepalive.deadline(), None);
    }
}
