//! Reading a URI (RFC 3986), as far as libvirt's connection URIs go.
//!
//! `scheme[+transport]://[user@][host][:port]/path[?name=value&…][#fragment]`. Parameters are separated by `&` or `;`,
//! names and values percent-decoded. Leans on nothing. Refuses characters that no URI has and broken escapes; says
//! nothing of what the parts mean.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

/// A URI in parts, all decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// The driver: `secret`.
    pub scheme: String,
    /// The transport behind a `+`.
    pub transport: Option<String>,
    /// The user to log in as.
    pub user: Option<String>,
    /// The host, without the brackets of an IPv6 address. `None` if it is empty.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The path, with its leading slash.
    pub path: String,
    /// The parameters, in order.
    pub params: Vec<(String, String)>,
    /// The fragment.
    pub fragment: Option<String>,
}

/// Why text is no URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUri {
    /// There is no `scheme:` in front.
    #[error("it has no scheme")]
    NoScheme,
    /// A character that must be percent-encoded, or a broken escape, at this byte.
    #[error("byte {0} can't stand in a URI")]
    Character(usize),
    /// The part between `//` and `/` is not `[user@]host[:port]`.
    #[error("its host and port can't be read")]
    Authority,
}

impl Uri {
    /// Reads a URI.
    pub fn parse(text: &str) -> Result<Self, BadUri> {
        if let Some(at) = text.bytes().position(|byte| !is_uri_byte(byte)) {
            return Err(BadUri::Character(at));
        }
        let (scheme, rest) = text.split_once(':').ok_or(BadUri::NoScheme)?;
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
        };
        if !is_scheme(scheme) {
            return Err(BadUri::NoScheme);
        }
        let (scheme, transport) = match scheme.split_once('+') {
            Some((scheme, transport)) => (scheme, Some(transport.to_owned())),
            None => (scheme, None),
        };
        let (rest, fragment) = split_off(rest, '#');
        let (rest, query) = split_off(rest, '?');
        let (authority, path) = match rest.strip_prefix("//") {
            None => ("", rest),
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        };
        let (user, host, port) = read_authority(authority)?;
        let decode = |part: &str| decode(part, offset_in(text, part));
        let params =
            query.unwrap_or_default().split(['&', ';']).filter(|param| !param.is_empty()).map(|param| {
                let (name, value) = param.split_once('=').unwrap_or((param, ""));
                Ok((decode(name)?, decode(value)?))
            });
        Ok(Self {
            scheme: scheme.to_owned(),
            transport,
            user: user.map(decode).transpose()?,
            host: Some(decode(host)?).filter(|host| !host.is_empty()),
            port,
            path: decode(path)?,
            params: params.collect::<Result<_, _>>()?,
            fragment: fragment.map(decode).transpose()?,
        })
    }

    /// What a parameter of the way there says. As libvirt has it: the last of that name, and its letters' case doesn't matter.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().rev().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

fn split_off(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn read_authority(authority: &str) -> Result<(Option<&str>, &str, Option<u16>), BadUri> {
    let (user, rest) = match authority.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, authority),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(BadUri::Authority)?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")).ok_or(BadUri::Authority)?)
        }
        None => rest.split_once(':').unwrap_or((rest, "")),
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadUri::Authority); // `parse` would let a sign pass
    }
    let port = if port.is_empty() { None } else { Some(port.parse().map_err(|_| BadUri::Authority)?) };
    Ok((user, host, port))
}

/// Undoes percent-encoding. `offset` is where `part` stands in the URI, for errors.
fn decode(part: &str, offset: usize) -> Result<String, BadUri> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes().enumerate();
    while let Some((at, byte)) = rest.next() {
        let bad = BadUri::Character(offset.saturating_add(at));
        bytes.push(match byte {
            b'%' => {
                let mut digit =
                    || rest.next().and_then(|(_, digit)| char::from(digit).to_digit(16)).ok_or(bad);
                let (high, low) = (digit()?, digit()?);
                // A NUL would end a path early in whatever opens it.
                u8::try_from(high << 4 | low).ok().filter(|&byte| byte != 0).ok_or(bad)?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| BadUri::Character(offset))
}

fn offset_in(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// What may stand in a URI: printable ASCII but for `"<>\^`{|}`. Beyond ASCII we are lenient, as libxml2 is.
fn is_uri_byte(byte: u8) -> bool {
    byte >= 0x80 || (byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedded_keystores_uri() {
        let uri = Uri::parse("secret:///embed?root=/srv/a%20b&key=/k;x#f").unwrap();
        assert_eq!((uri.scheme.as_str(), uri.transport, uri.host), ("secret", None, None));
        assert_eq!((uri.path.as_str(), uri.fragment.as_deref()), ("/embed", Some("f")));
        let params = [("root", "/srv/a b"), ("key", "/k"), ("x", "")];
        assert_eq!(uri.params, params.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn of_a_setting_given_twice_the_last_counts_however_it_is_spelt() {
        let uri = Uri::parse("secret:///system?socket=/a&Socket=/b&sockets=/c").unwrap();
        assert_eq!((uri.setting("socket"), uri.setting("mode")), (Some("/b"), None));
        assert_eq!(crate::client::name::name(&uri, &[]), "secret:///system?sockets=/c");
    }

    #[test]
    fn a_remote_keystores_uri() {
        let uri = Uri::parse("secret+ssh://root@[fe80::1]:22/system").unwrap();
        assert_eq!(uri.transport.as_deref(), Some("ssh"));
        assert_eq!(
            (uri.user.as_deref(), uri.host.as_deref(), uri.port),
            (Some("root"), Some("fe80::1"), Some(22))
        );
        assert_eq!(uri.path, "/system");
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        assert_eq!(Uri::parse("embed"), Err(BadUri::NoScheme));
        assert_eq!(Uri::parse("9x:///y"), Err(BadUri::NoScheme));
        assert_eq!(Uri::parse("secret:///a b"), Err(BadUri::Character(11)));
        assert_eq!(Uri::parse("secret:///embed?root=%2"), Err(BadUri::Character(21)));
        assert_eq!(Uri::parse("secret:///embed?root=%00"), Err(BadUri::Character(21)));
        assert_eq!(Uri::parse("secret://h:port/system"), Err(BadUri::Authority));
        assert_eq!(Uri::parse("secret://h:+80/system"), Err(BadUri::Authority));
        assert_eq!(Uri::parse("secret://[::1/system"), Err(BadUri::Authority));
    }
}
