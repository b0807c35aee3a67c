//! What a user or a host prefers: `libvirt.conf`, which every client of libvirt reads.
//!
//! root has `/etc/libvirt/libvirt.conf`, everybody else `$XDG_CONFIG_HOME/libvirt/libvirt.conf`; a missing one says nothing.
//! Leans on `conf` for the grammar. Refuses malformed aliases as libvirt does; of keys that are not for clients of ours it
//! takes no notice.

use std::env;
use std::path::{Path, PathBuf};

use crate::conf::{Conf, ConfError};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// A URI as it was meant, and the file, if it was read to find that out.
#[derive(Debug, Clone)]
pub(crate) struct Meant {
    pub(crate) uri: String,
    pub(crate) preferences: Option<Preferences>,
}

impl Meant {
    /// What this word means. An alias stands for its URI, and for no other alias: whatever it stands for is taken as it is.
    pub(crate) fn by(word: &str) -> Result<Self, Error> {
        if !is_alias(word) {
            return Ok(Self { uri: word.to_owned(), preferences: None });
        }
        let preferences = Preferences::read()?;
        let uri = preferences.alias(word)?.unwrap_or_else(|| word.to_owned());
        Ok(Self { uri, preferences: Some(preferences) })
    }

    /// What is meant by those who say nothing, if the file has a URI for them. It may well be for other drivers; then it isn't
    /// for us.
    #[cfg(feature = "cli")]
    pub(crate) fn by_nothing() -> Result<Option<Self>, Error> {
        let preferences = Preferences::read()?;
        let uri = preferences.string("uri_default")?;
        let ours = uri.filter(|uri| uri.starts_with("secret:") || uri.starts_with("secret+"));
        Ok(ours.map(str::to_owned).map(|uri| Self { uri, preferences: Some(preferences) }))
    }
}

/// The file, read.
#[derive(Debug, Clone)]
pub(crate) struct Preferences(Conf);

impl Preferences {
    /// Those of this process's user.
    pub(super) fn read() -> Result<Self, Error> {
        match path() {
            Some(path) => Self::of(&path),
            None => Ok(Self::none()),
        }
    }

    /// None at all.
    pub(super) fn none() -> Self {
        Self(Conf::empty(Path::new("libvirt.conf")))
    }

    fn of(path: &Path) -> Result<Self, Error> {
        Ok(Self(Conf::read(path).map_err(|error| wrong(&error))?.unwrap_or_else(|| Conf::empty(path))))
    }

    /// The URI that this word stands for. Entries are looked at one after the other, and a malformed one on the way is an
    /// error.
    fn alias(&self, word: &str) -> Result<Option<String>, Error> {
        let entries = self.0.strings("uri_aliases").map_err(|error| wrong(&error))?.unwrap_or_default();
        for entry in entries {
            let malformed = |what: &str| {
                let detail = format!("Malformed 'uri_aliases' config entry '{entry}', {what}");
                Error::new(ErrorCode::ConfSyntax, ErrorDomain::Conf, detail)
                    .advise(format!("see '{}'", self.0.file().display()))
            };
            let (alias, uri) =
                entry.split_once('=').ok_or_else(|| malformed("expected 'alias=uri://host/path'"))?;
            if !alias.bytes().all(is_alias_byte) {
                return Err(malformed("aliases may only contain 'a-Z, 0-9, _, -'"));
            }
            if alias == word {
                return Ok(Some(uri.to_owned()));
            }
        }
        Ok(None)
    }

    /// Which daemon's socket is meant, where a URI doesn't say `mode=`.
    pub(super) fn mode(&self) -> Result<Option<&str>, Error> {
        self.string("remote_mode")
    }

    /// What runs at the far end of ssh, where a URI doesn't say `proxy=`.
    pub(super) fn proxy(&self) -> Result<Option<&str>, Error> {
        self.string("remote_proxy")
    }

    /// Which ciphers TLS may use, where a URI doesn't say `tls_priority=`.
    pub(super) fn tls_priority(&self) -> Result<Option<&str>, Error> {
        self.string("tls_priority")
    }

    fn string(&self, key: &str) -> Result<Option<&str>, Error> {
        self.0.string(key).map_err(|error| wrong(&error))
    }
}

/// Whether this may be an alias. No URI is one: it has a colon.
fn is_alias(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(is_alias_byte)
}

fn is_alias_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn path() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/etc/libvirt/libvirt.conf"));
    }
    Some(configuration()?.join("libvirt/libvirt.conf"))
}

/// Where a user's programs have their configuration.
pub(super) fn configuration() -> Option<PathBuf> {
    let directory = |name| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    directory("XDG_CONFIG_HOME").or_else(|| directory("HOME").map(|home| home.join(".config")))
}

fn wrong(error: &ConfError) -> Error {
    let text = error.text.strip_prefix(SYNTAX).unwrap_or(&error.text);
    Error::new(ErrorCode::from_number(error.code), ErrorDomain::Conf, text).advise(error.advice.clone())
}

/// What stands before the text of an error of syntax, and comes with its code.
const SYNTAX: &str = "configuration file syntax error: ";

#[cfg(test)]
mod tests {
    use super::*;

    fn preferences(text: &str) -> Preferences {
        Preferences(Conf::parse(Path::new("f"), text.as_bytes()).unwrap())
    }

    #[test]
    fn an_alias_stands_for_its_uri() {
        let some = preferences("uri_aliases = [ 'a=secret+ssh://h/system?x=y', 'b-1_X=a', 'a=later', ]");
        assert_eq!(some.alias("a").unwrap().as_deref(), Some("secret+ssh://h/system?x=y"));
        assert_eq!(some.alias("b-1_X").unwrap().as_deref(), Some("a"), "and no further");
        assert_eq!(some.alias("c").unwrap(), None);
        assert_eq!(Preferences::none().alias("a").unwrap(), None);
        assert!(is_alias("b-1_X"));
        for uri in ["secret:///system", "a.b", "a/b", ""] {
            assert!(!is_alias(uri), "{uri}");
        }
    }

    #[test]
    fn what_libvirt_calls_malformed_is() {
        for (text, code, told) in [
            (
                "uri_aliases = ['xy']",
                33,
                "configuration file syntax error: Malformed 'uri_aliases' config entry 'xy', expected \
                 'alias=uri://host/path'",
            ),
            (
                "uri_aliases = ['x.y=z']",
                33,
                "configuration file syntax error: Malformed 'uri_aliases' config entry 'x.y=z', aliases may only \
                 contain 'a-Z, 0-9, _, -'",
            ),
            ("uri_aliases = 5", 1, "internal error: f: expected a string list for 'uri_aliases' parameter"),
        ] {
            let error = preferences(text).alias("q").unwrap_err();
            assert_eq!((error.code().number(), error.to_string().as_str()), (code, told));
        }
        assert_eq!(preferences("uri_aliases = ['a=b', 'xy']").alias("a").unwrap().as_deref(), Some("b"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("libvirt.conf");
        std::fs::write(&file, "x=").unwrap();
        let error = Preferences::of(&file).unwrap_err().to_string();
        assert!(error.ends_with("libvirt.conf:1: expecting a value"), "{error}");
    }
}
