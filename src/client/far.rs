//! From a URI to what runs at the far end of ssh: the helper there, or netcat, and with which socket.
//!
//! Leans on what the user prefers. Refuses what libvirt refuses, in its words; and netcat for a user's own daemon, whose socket
//! only a helper finds.

use super::Uri;
use super::name::name;
use super::route::{Mode, Places, invalid};
use super::ssh::{Far, Proxy};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// What runs at the far end of ssh.
pub(super) fn far(
    uri: &Uri,
    mode: Mode,
    transport: &str,
    read_only: bool,
    places: &Places,
) -> Result<Far, Error> {
    if mode == Mode::Direct {
        let detail = format!("Cannot use direct socket mode for {transport} transport");
        return Err(Error::new(ErrorCode::OperationUnsupported, ErrorDomain::Remote, detail)
            .advise("leave out mode=: the far host's helper finds the socket"));
    }
    let (netcat, socket) = (uri.setting("netcat"), uri.setting("socket"));
    let wanted = match uri.setting("proxy") {
        Some(proxy) => Some(proxy),
        None => places.preferences.proxy()?,
    };
    let proxy = match wanted {
        Some("auto") => Proxy::Auto,
        Some("netcat") => Proxy::Netcat,
        Some("native") => Proxy::Native,
        Some(other) => {
            return Err(invalid(format!("Unknown proxy type '{other}'"))
                .advise("proxies are auto, netcat and native"));
        }
        None if socket.is_some() || netcat.is_some() => Proxy::Netcat,
        None => Proxy::Auto,
    };
    let proxy = match (proxy, netcat) {
        (Proxy::Native, Some(_)) => {
            return Err(invalid("netcat path not valid with native proxy mode")
                .in_domain(ErrorDomain::Rpc)
                .advise("leave out netcat=, or proxy="));
        }
        (Proxy::Auto, Some(_)) => Proxy::Netcat,
        // Only a helper knows where that user's socket is.
        (Proxy::Auto, None) if uri.path == "/session" && socket.is_none() => Proxy::Native,
        (proxy, _) => proxy,
    };
    if proxy == Proxy::Netcat && uri.path == "/session" && socket.is_none() {
        // libvirt's client goes to the system's socket then.
        return Err(invalid(
            "netcat finds the system's socket alone, and secret:///session is meant to be that user's own",
        )
        .advise("use proxy=native, whose helper finds that user's socket; or name it: socket=PATH"));
    }
    let suffix = if read_only { "-ro" } else { "" };
    let there = |name: &str| format!("/var/run/libvirt/{name}-sock{suffix}");
    let sockets = match (socket, mode) {
        (Some(socket), _) => vec![socket.to_owned()],
        (None, Mode::Legacy) => vec![there("libvirt")],
        (None, _) => vec![there("virtsecretd"), there("libvirt")],
    };
    Ok(Far {
        proxy,
        uri: uri.setting("name").map_or_else(|| name(uri, &["mode", "socket"]), str::to_owned),
        read_only,
        netcat: netcat.unwrap_or("nc").to_owned(),
        sockets,
    })
}
