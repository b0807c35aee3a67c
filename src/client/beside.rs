//! The keystore beside a hypervisor: `qemu+ssh://host/system` uses the secrets of `secret+ssh://host/system`.
//!
//! The same host, by the same way. Leans on the URI. Refuses drivers that no daemon with a keystore stands beside.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::Uri;
use super::name::encoded;
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// The URI of the keystore that the hypervisor with this URI uses. A keystore's own URI stays as it is.
pub(crate) fn keystore_beside(text: &str) -> Result<String, Error> {
    let uri = Uri::parse(text).map_err(|why| {
        Error::new(ErrorCode::InternalError, ErrorDomain::None, format!("Unable to parse URI {text}"))
            .advise(format!("{why}; a host is named so: qemu+ssh://HOST/system"))
    })?;
    if uri.scheme == "secret" {
        return Ok(text.to_owned());
    }
    if !DRIVERS.contains(&uri.scheme.as_str()) {
        return Err(Error::no_driver_for(text).advise(
            "name the hypervisor, qemu+ssh://HOST/system, or its keystore, secret+ssh://HOST/system",
        ));
    }
    Ok(written(uri))
}

/// A hypervisor's URI with the keystore's names in it.
fn written(uri: Uri) -> String {
    let mut text = "secret".to_owned();
    if let Some(transport) = &uri.transport {
        text = text + "+" + transport;
    }
    text += "://";
    if let Some(user) = &uri.user {
        text = text + &encoded(user, b"") + "@";
    }
    match &uri.host {
        Some(address) if address.contains(':') => text = text + "[" + &encoded(address, b":") + "]",
        Some(host) => text += &encoded(host, b""),
        None => {}
    }
    if let Some(port) = uri.port {
        text = text + ":" + &port.to_string();
    }
    // Where a driver has the whole host, its only daemon is the system's.
    let path: &str = if matches!(uri.path.as_str(), "" | "/") { "/system" } else { &uri.path };
    text += &encoded(path, b"/");
    for (number, (name, value)) in uri.params.iter().enumerate() {
        let mark = if number == 0 { "?" } else { "&" };
        text = text + mark + &encoded(name, b"") + "=" + &encoded(&param(name, value), b"/:");
    }
    if let Some(fragment) = &uri.fragment {
        text = text + "#" + &encoded(fragment, b"/");
    }
    text
}

/// A parameter that names the hypervisor's daemon names the secret driver's instead.
fn param(name: &str, value: &str) -> String {
    match name {
        "name" => keystore_beside(value).unwrap_or_else(|_| value.to_owned()),
        "socket" => DRIVERS.iter().fold(value.to_owned(), |path, driver| {
            path.replace(&format!("/virt{driver}d-"), "/virtsecretd-")
        }),
        _ => value.to_owned(),
    }
}

/// The drivers that are daemons on a host, and look secrets up in that host's keystore.
const DRIVERS: [&str; 6] = ["qemu", "bhyve", "ch", "lxc", "storage", "xen"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hypervisor_and_its_keystore_are_reached_alike() {
        for (hypervisor, keystore) in [
            ("qemu:///system", "secret:///system"),
            ("qemu:///session", "secret:///session"),
            ("qemu:///embed?root=/srv/a%20b", "secret:///embed?root=/srv/a%20b"),
            ("qemu+ssh://root@host:2222/system", "secret+ssh://root@host:2222/system"),
            ("qemu+tls://[fe80::1%25eth0]/system", "secret+tls://[fe80::1%25eth0]/system"),
            ("qemu://host/system?pkipath=/k&no_verify=1", "secret://host/system?pkipath=/k&no_verify=1"),
            ("xen+ssh://host/", "secret+ssh://host/system"),
            ("lxc:///", "secret:///system"),
            (
                "qemu+ssh://h/system?name=qemu:///system&socket=/run/libvirt/virtqemud-sock-ro",
                "secret+ssh://h/system?name=secret:///system&socket=/run/libvirt/virtsecretd-sock-ro",
            ),
            ("qemu+unix:///system?socket=/run/x-sock", "secret+unix:///system?socket=/run/x-sock"),
            ("secret+ext://h/system?command=a,b", "secret+ext://h/system?command=a,b"),
        ] {
            assert_eq!(keystore_beside(hypervisor).unwrap(), keystore, "{hypervisor}");
            assert!(Uri::parse(keystore).is_ok(), "{keystore}");
        }
    }

    #[test]
    fn hypervisors_without_a_keystore_are_refused() {
        for uri in ["esx://host/?no_verify=1", "test:///default", "host", "qemu"] {
            assert!(keystore_beside(uri).is_err(), "{uri}");
        }
    }
}
