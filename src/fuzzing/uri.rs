//! Any text as a URI: what is read can be written again, and is then read as the same.
//!
//! Leans on `client`. Refuses nothing.

use std::fmt::Write as _;

use crate::client::{BadUri, Uri};

/// Reading never panics, and points into the text when it refuses. What was read holds no NUL (a path would end
/// there), and survives being written out with every doubtful byte escaped.
pub fn fuzz_uri(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let uri = match Uri::parse(text) {
        Ok(uri) => uri,
        Err(BadUri::Character(at)) => return assert!(at < text.len(), "byte {at} of {text:?}"),
        Err(_) => return,
    };
    assert!(uri.scheme.starts_with(|first: char| first.is_ascii_alphabetic()));
    assert_ne!(uri.host.as_deref(), Some(""), "an empty host is none");
    let host_and_path = [uri.host.as_deref().unwrap_or_default(), &uri.path];
    let params = uri.params.iter().flat_map(|(name, value)| [&**name, &**value]);
    let rest = [uri.user.as_deref(), uri.fragment.as_deref()].into_iter().flatten();
    for part in host_and_path.into_iter().chain(params).chain(rest) {
        assert!(!part.contains('\0'), "a NUL in {part:?}");
    }
    let first = uri.params.first();
    assert_eq!(first.and_then(|(name, _)| uri.param(name)), first.map(|(_, value)| &**value));
    let written = written(&uri);
    assert_eq!(Uri::parse(&written).as_ref(), Ok(&uri), "{text:?} written as {written:?}");
}

fn written(uri: &Uri) -> String {
    let mut text = uri.scheme.clone();
    if let Some(transport) = &uri.transport {
        text = text + "+" + transport;
    }
    text.push(':');
    if uri.path.is_empty() || uri.path.starts_with('/') {
        text.push_str("//");
        if let Some(user) = &uri.user {
            text = text + &escaped(user) + "@";
        }
        text += &escaped(uri.host.as_deref().unwrap_or_default());
        if let Some(port) = uri.port {
            text = text + ":" + &port.to_string();
        }
    }
    text += &uri.path.split('/').map(escaped).collect::<Vec<_>>().join("/");
    for (number, (name, value)) in uri.params.iter().enumerate() {
        let before = if number == 0 { '?' } else { '&' };
        text = text + &before.to_string() + &escaped(name) + "=" + &escaped(value);
    }
    if let Some(fragment) = &uri.fragment {
        text = text + "#" + &escaped(fragment);
    }
    text
}

/// Everything but letters and digits as `%XX`.
fn escaped(part: &str) -> String {
    part.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            _ = write!(text, "%{byte:02X}");
        }
        text
    })
}
