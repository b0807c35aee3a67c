//! The name in CONNECT_OPEN: which URIs this daemon is, and what it says to the others.
//!
//! Leans on `client` for reading URIs. Refuses every URI that would make this daemon a client of another one.

use crate::client::Uri;
use crate::rpc::Text;
use crate::secret::{Error, ErrorCode, ErrorDomain};

use super::failure;

/// The URI as CONNECT_GET_URI shall give it back, if it is one of ours. `paths`: those that are served.
pub(super) fn judge(name: Option<Text<'_>>, paths: &[&str]) -> Result<String, Error> {
    let Some(name) = name else { return Err(failure::not_open()) };
    let name = name.to_text();
    if name.is_empty() {
        return Err(Error::no_driver_for("<null>"));
    }
    let Some((scheme, rest)) = name.split_once(':') else {
        return Err(Error::no_driver_for(&format!("URI '{name}' does not include a driver name")));
    };
    let (scheme, transport) = scheme.split_once('+').map_or((scheme, false), |(scheme, _)| (scheme, true));
    if scheme != "secret" {
        return Err(Error::no_driver_for(&name));
    }
    if transport {
        let detail = format!("Remote URI '{name}' is not permitted to include a transport");
        return Err(Error::new(ErrorCode::OperationDenied, ErrorDomain::Rpc, detail));
    }
    let uri = Uri::parse(&name).map_err(|_| failure::internal(format!("Unable to parse URI {name}")))?;
    if uri.host.is_some() {
        return Err(Error::no_driver_for(&name));
    }
    if uri.path == "/embed" {
        return Err(failure::internal("A secret driver is already registered"));
    }
    if !paths.contains(&uri.path.as_str()) {
        let usual = paths.first().copied().unwrap_or_default();
        let detail = format!("unexpected secret URI path '{}', try secret://{usual}", uri.path);
        return Err(failure::internal(detail));
    }
    let path = rest.strip_prefix("//").unwrap_or(rest);
    Ok(format!("secret://{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_judged_as_libvirt_judges_them() {
        let judge =
            |name: &str| judge(Some(Text(name.as_bytes())), &["/system"]).map_err(|error| error.to_string());
        let taken = |uri: &str| Ok(uri.to_owned());
        assert_eq!(judge("secret:///system"), taken("secret:///system"));
        assert_eq!(judge("secret:/system"), taken("secret:///system"));
        assert_eq!(judge("secret:///system?foo=bar#x"), taken("secret:///system?foo=bar#x"));
        for (name, expected) in [
            ("", "no connection driver available for <null>"),
            ("secret", "no connection driver available for URI 'secret' does not include a driver name"),
            ("Secret:///system", "no connection driver available for Secret:///system"),
            ("qemu:///system", "no connection driver available for qemu:///system"),
            ("secret://host/system", "no connection driver available for secret://host/system"),
            (
                "secret+unix:///system",
                "operation forbidden: Remote URI 'secret+unix:///system' is not permitted to include a transport",
            ),
            ("secret:///embed?root=/x", "internal error: A secret driver is already registered"),
            (
                "secret:///session",
                "internal error: unexpected secret URI path '/session', try secret:///system",
            ),
            ("secret:///", "internal error: unexpected secret URI path '/', try secret:///system"),
            (
                "secret:///system/",
                "internal error: unexpected secret URI path '/system/', try secret:///system",
            ),
        ] {
            assert_eq!(judge(name), Err(expected.to_owned()), "{name}");
        }
    }
}
