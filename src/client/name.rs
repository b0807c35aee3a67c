//! What a server is asked to open: the URI without the way to it.
//!
//! Leans on the URI. Refuses nothing: a parameter that isn't known here is the server's to judge.

use super::Uri;
use crate::conf::nearest_within;

/// The URI as the server shall see it: without the way to it, but for these parameters of the way.
pub(super) fn name(uri: &Uri, kept: &[&str]) -> String {
    let mut name = format!("{}://{}", uri.scheme, encoded(&uri.path, b"/"));
    let params = uri.params.iter().filter(|(param, _)| is_among(param, kept) || !is_among(param, &OURS));
    for (at, (param, value)) in params.enumerate() {
        let mark = if at == 0 { '?' } else { '&' };
        name.push_str(&format!("{mark}{}={}", encoded(param, b""), encoded(value, b"/")));
    }
    if let Some(fragment) = &uri.fragment {
        name.push_str(&format!("#{}", encoded(fragment, b"/")));
    }
    name
}

/// Parameters that go to the server, though they are nearly ones of ours: each with the one that may be meant.
pub(super) fn misspelt(uri: &Uri) -> impl Iterator<Item = (&str, &'static str)> {
    uri.params.iter().filter_map(|(given, _)| {
        let lower = given.to_ascii_lowercase();
        let known = nearest_within(1, &lower, &OURS)?;
        (known != lower).then_some((given.as_str(), known))
    })
}

/// To libvirt the case of their letters doesn't matter.
fn is_among(param: &str, names: &[&str]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(param))
}

/// Percent-encoded, but for what every URI may hold and for `kept`.
pub(super) fn encoded(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Parameters that say how to get to a server. It doesn't hear of them.
const OURS: [&str; 19] = [
    "name",
    "mode",
    "socket",
    "auth",
    "authfile",
    "proxy",
    "netcat",
    "command",
    "keyfile",
    "no_verify",
    "no_tty",
    "sshauth",
    "known_hosts",
    "known_hosts_verify",
    "pkipath",
    "no_sanity",
    "tls_priority",
    "argv",
    "cleartext",
];
