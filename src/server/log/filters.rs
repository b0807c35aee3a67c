//! Log levels, and libvirt's log filters: which part of the program says how much.
//!
//! `1:rpc 4:store`: a level and a pattern each. A pattern is looked for anywhere in the event's target, which is the path
//! of the module that logs (`strongroom::rpc::packet`); the first that matches decides, whatever the general level is.
//! Leans on nothing. Refuses levels that libvirt doesn't have.

use std::fmt;

use super::Malformed;

/// libvirt's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) enum Level {
    /// What it does, step by step.
    Debug = 1,
    /// What happens.
    Info,
    /// What may go wrong.
    Warning,
    /// What went wrong.
    Error,
}

impl Level {
    /// By its number, as in `log_level`.
    pub(in crate::server) fn from_number(number: u64) -> Option<Self> {
        [Self::Debug, Self::Info, Self::Warning, Self::Error]
            .into_iter()
            .find(|level| *level as u64 == number)
    }

    /// By its number or name, as in `LIBVIRT_DEBUG`.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        [Self::Debug, Self::Info, Self::Warning, Self::Error]
            .into_iter()
            .find(|level| level.name() == text)
            .or_else(|| Self::from_number(text.parse().ok()?))
    }

    /// Of an event. The finest is none: other crates show raw bytes in it, and libvirt has no such level.
    pub(super) fn of(level: tracing::Level) -> Option<Self> {
        match level {
            tracing::Level::ERROR => Some(Self::Error),
            tracing::Level::WARN => Some(Self::Warning),
            tracing::Level::INFO => Some(Self::Info),
            tracing::Level::DEBUG => Some(Self::Debug),
            _ => None,
        }
    }

    /// As it stands in a line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// syslog's number for it, which is the journal's too.
    pub(super) fn syslog(self) -> u8 {
        match self {
            Self::Debug => 7,
            Self::Info => 6,
            Self::Warning => 4,
            Self::Error => 3,
        }
    }
}

/// The filters, in the order in which they were given. Shown as libvirt shows them: `1:*rpc* 4:*store* `.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::server) struct Filters(Vec<(Level, String)>);

impl Filters {
    /// Reads libvirt's text.
    pub(in crate::server) fn parse(text: &str) -> Result<Self, Malformed> {
        text.split_ascii_whitespace().map(filter).collect::<Result<_, _>>().map(Self)
    }

    /// The level for this target, if a filter has a say in it.
    pub(super) fn level(&self, target: &str) -> Option<Level> {
        let found = self.0.iter().find(|(_, pattern)| matches(pattern.as_bytes(), target.as_bytes()));
        found.map(|&(level, _)| level)
    }

    /// The finest level that any of them asks for.
    pub(super) fn finest(&self) -> Option<Level> {
        self.0.iter().map(|&(level, _)| level).min()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(level, pattern)| write!(f, "{}:{pattern} ", *level as u8))
    }
}

fn filter(word: &str) -> Result<(Level, String), Malformed> {
    let malformed = || Malformed(format!("Malformed format for filter '{}'", word.escape_debug()));
    let (level, pattern) = word.split_once(':').ok_or_else(malformed)?;
    let pattern = pattern.strip_prefix('+').unwrap_or(pattern); // once asked for a stack trace, and is allowed still
    if pattern.is_empty() {
        return Err(Malformed("Invalid match string ''".to_owned()));
    }
    let number = level.parse().ok().and_then(Level::from_number).ok_or_else(|| {
        let (level, word) = (level.escape_debug(), word.escape_debug());
        Malformed(format!("Invalid priority '{level}' for filter '{word}'"))
    })?;
    Ok((number, format!("*{pattern}*")))
}

/// Shell patterns with `*` and `?`. Goes back to the last star only, so that no pattern takes long.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut pos, mut star) = (0, 0, None);
    while pos < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, pos));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[pos] => {
                at += 1;
                pos += 1;
            }
            _ => match &mut star {
                Some((back, from)) => {
                    *from += 1;
                    (at, pos) = (*back + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_filter_that_matches_decides() {
        let filters = Filters::parse("4:server::log 1:serv?r 3:+s*re").unwrap();
        assert_eq!(filters.level("strongroom::server::log::line"), Some(Level::Error));
        assert_eq!(filters.level("strongroom::server::session"), Some(Level::Debug));
        assert_eq!(filters.level("strongroom::store"), Some(Level::Warning));
        assert_eq!(filters.level("zbus"), None);
        assert_eq!((filters.finest(), filters.len()), (Some(Level::Debug), 3));
    }

    #[test]
    fn they_read_back_as_in_libvirt_with_stars_more() {
        let filters = Filters::parse("1:secret  1:*rpc*").unwrap();
        assert_eq!(filters.to_string(), "1:*secret* 1:**rpc** ");
        assert_eq!(filters.level("strongroom::rpc::packet"), Some(Level::Debug));
        assert_eq!(Filters::parse(" ").unwrap().to_string(), "");
    }

    #[test]
    fn wrong_ones_are_named() {
        for (text, told) in [
            ("1:a rpc", "Malformed format for filter 'rpc'"),
            ("1:", "Invalid match string ''"),
            ("5:rpc", "Invalid priority '5' for filter '5:rpc'"),
            ("debug:rpc", "Invalid priority 'debug' for filter 'debug:rpc'"),
        ] {
            assert_eq!(Filters::parse(text).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn patterns_match_like_a_shells() {
        for (pattern, text, is) in [
            ("*a*b*", "xaxxbx", true),
            ("*ab*", "xaab", true),
            ("*ab", "abx", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "a", false),
            ("*aab*", "aaaab", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), is, "{pattern} {text}");
        }
    }
}
