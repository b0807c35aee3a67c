//! Names and passwords that lie ready: libvirt's `auth.conf`.
//!
//! A group `[auth-SERVICE-HOST]` (or `[auth-SERVICE-default]`) names another, `[credentials-NAME]`, which has them. The service
//! is `libvirt` for SASL, `ssh` for libssh. The file is read into secret memory, and of a password there is no other copy. Leans
//! on `memory`. Refuses, by a warning that is logged, to be silent about a file that others can read; and a line that is none of
//! the three there are.
#![cfg_attr(
    not(all(feature = "sasl", feature = "libssh")),
    allow(dead_code, reason = "each service has keys of its own")
)]

use std::collections::BTreeSet;
use std::env;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret, ExposeSecretMut};

use crate::memory::SecretBytes;
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// What lies ready for one service of one host.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// Who we are on the host: for ssh.
    pub(super) username: Option<SecretBytes>,
    /// Who we are for SASL.
    pub(super) authname: Option<SecretBytes>,
    /// What proves it.
    pub(super) password: Option<SecretBytes>,
    /// Where the name is known.
    pub(super) realm: Option<SecretBytes>,
}

impl Credentials {
    /// Those for this host: none, if no file has any. `authfile`: the file that the URI names.
    pub(super) fn find(service: &str, host: &str, authfile: Option<&Path>) -> Result<Self, Error> {
        match file(authfile) {
            Some(file) => Self::read(&file, service, host),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path, service: &str, host: &str) -> Result<Self, Error> {
        let failed = |error: io::Error| {
            Error::system(format!("cannot read the credentials in '{}'", path.display()), &error)
        };
        let mut file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        warn_of_others(path, &about);
        let length = usize::try_from(about.len()).unwrap_or(usize::MAX);
        if length > LARGEST {
            let detail = format!("the credentials in '{}' are larger than {LARGEST} bytes", path.display());
            return Err(syntax(detail));
        }
        let mut text = SecretBytes::zeroed(length)?;
        file.read_exact(text.expose_secret_mut()).map_err(failed)?;
        Self::parse(path, text.expose_secret(), service, host)
    }

    fn parse(path: &Path, text: &[u8], service: &str, host: &str) -> Result<Self, Error> {
        let shown = path.display();
        let groups = Groups::parse(text).map_err(|line| {
            syntax(format!("'{shown}' has no group, key or comment in line {line}"))
                .advise("write [GROUP], KEY=VALUE, or # and a comment")
        })?;
        let of_service = [host, "default"].map(|host| format!("auth-{service}-{host}"));
        let Some(group) = of_service.iter().find(|name| groups.has(name)) else {
            return Ok(Self::default());
        };
        let Some(name) = groups.value(group, b"credentials") else {
            return Err(syntax(format!("Missing item 'credentials' in group '{group}' in '{shown}'"))
                .advise("add a line credentials=NAME, and a group [credentials-NAME]"));
        };
        let named = format!("credentials-{}", String::from_utf8_lossy(name));
        if !groups.has(&named) {
            let detail = format!("Missing group '{named}' referenced from group '{group}' in '{shown}'");
            return Err(syntax(detail).advise(format!("add the group [{named}]")));
        }
        let copy = |key| groups.value(&named, key).map(SecretBytes::copy_of).transpose();
        Ok(Self {
            username: copy(b"username")?,
            authname: copy(b"authname")?,
            password: copy(b"password")?,
            realm: copy(b"realm")?,
        })
    }
}

/// The first of the places that names a file. One that is named must be there; of the usual ones, the first that can be read.
fn file(authfile: Option<&Path>) -> Option<PathBuf> {
    let named = |name| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let config = named("XDG_CONFIG_HOME").or_else(|| named("HOME").map(|home| home.join(".config")));
    let usual =
        [config.map(|config| config.join("libvirt/auth.conf")), Some("/etc/libvirt/auth.conf".into())];
    named("LIBVIRT_AUTH_FILE")
        .or_else(|| authfile.map(Path::to_owned))
        .or_else(|| usual.into_iter().flatten().find(|path| File::open(path).is_ok()))
}

/// Once for a file: ssh looks into it, and then SASL.
fn warn_of_others(path: &Path, about: &Metadata) {
    static WARNED: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());
    let is_open = about.mode() & 0o077 != 0;
    let file = (about.dev(), about.ino());
    if is_open && WARNED.lock().unwrap_or_else(PoisonError::into_inner).insert(file) {
        let (path, mode) = (path.display(), about.mode() & 0o7777);
        tracing::warn!(
            "the credentials in '{path}' can be read by others (mode {mode:04o}): chmod 600 '{path}'"
        );
    }
}

/// The lines of a file, each with the group that it stands in. They stay where they are.
struct Groups<'a>(Vec<Line<'a>>);

struct Line<'a> {
    group: &'a [u8],
    /// Nothing for the group's own line.
    entry: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> Groups<'a> {
    /// The number of a line that is none tells what is wrong.
    fn parse(text: &'a [u8]) -> Result<Self, usize> {
        let mut lines = Vec::new();
        let mut group = None;
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            match (line.trim_ascii_start(), group) {
                ([] | [b'#' | b';', ..], _) => {}
                ([b'[', rest @ ..], _) => {
                    let name = rest.trim_ascii_end().strip_suffix(b"]").ok_or(at + 1)?;
                    group = Some(name);
                    lines.push(Line { group: name, entry: None });
                }
                (line, Some(group)) => {
                    let equals = line.iter().position(|byte| *byte == b'=').ok_or(at + 1)?;
                    // As libvirt has it: what stands behind a value belongs to it.
                    let (key, value) =
                        (line[..equals].trim_ascii_end(), line[equals + 1..].trim_ascii_start());
                    lines.push(Line { group, entry: Some((key, value)) });
                }
                (_, None) => return Err(at + 1),
            }
        }
        Ok(Self(lines))
    }

    fn has(&self, group: &str) -> bool {
        self.0.iter().any(|line| line.group == group.as_bytes())
    }

    /// The last one counts.
    fn value(&self, group: &str, key: &[u8]) -> Option<&'a [u8]> {
        let of_group = self.0.iter().rev().filter(|line| line.group == group.as_bytes());
        of_group.filter_map(|line| line.entry).find(|entry| entry.0 == key).map(|entry| entry.1)
    }
}

fn syntax(detail: String) -> Error {
    Error::new(ErrorCode::ConfSyntax, ErrorDomain::None, detail)
}

/// Far more than anybody has credentials; the memory that it is read to is bounded.
const LARGEST: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn parse(text: &str, host: &str) -> Result<Credentials, String> {
        parse_for("libvirt", text, host)
    }

    fn parse_for(service: &str, text: &str, host: &str) -> Result<Credentials, String> {
        let parsed = Credentials::parse(Path::new("/x/auth.conf"), text.as_bytes(), service, host);
        parsed.map_err(|error| error.to_string())
    }

    fn shown(secret: Option<&SecretBytes>) -> Option<String> {
        secret.map(|it| String::from_utf8(it.expose_secret().to_vec()).unwrap())
    }

    const TWO: &str = "# ours\n\n[credentials-a]\nauthname = fred \npassword=pass=w#rd\\s\n;\n[auth-libvirt-localhost]\n\
                       credentials=a\n[credentials-b]\nauthname=bob\nrealm=R\nother=1\n[auth-libvirt-default]\ncredentials = b";

    #[test]
    fn a_host_has_its_own_credentials_or_the_default_ones() {
        let own = parse(TWO, "localhost").unwrap();
        assert_eq!(shown(own.authname.as_ref()).as_deref(), Some("fred "), "blanks behind a value count");
        assert_eq!(shown(own.password.as_ref()).as_deref(), Some("pass=w#rd\\s"));
        assert!(own.realm.is_none());
        let default = parse(TWO, "elsewhere").unwrap();
        assert_eq!(shown(default.authname.as_ref()).as_deref(), Some("bob"));
        assert_eq!(shown(default.realm.as_ref()).as_deref(), Some("R"));
        assert!(parse("[auth-libvirt-x]\ncredentials=y\n", "localhost").unwrap().authname.is_none());
    }

    #[test]
    fn a_service_has_its_own_credentials() {
        let text =
            format!("[auth-ssh-localhost]\ncredentials=s\n[credentials-s]\nusername=root\npassword=q\n{TWO}");
        let ssh = parse_for("ssh", &text, "localhost").unwrap();
        assert_eq!(shown(ssh.username.as_ref()).as_deref(), Some("root"));
        assert_eq!(shown(ssh.password.as_ref()).as_deref(), Some("q"));
        let libvirts = parse(&text, "localhost").unwrap();
        assert!(libvirts.username.is_none(), "that is ssh's");
        assert!(parse_for("ssh", &text, "elsewhere").unwrap().password.is_none(), "the default is libvirt's");
    }

    #[test]
    fn a_group_may_come_twice_and_the_last_value_counts() {
        let text = "[auth-libvirt-h]\ncredentials=a\n[credentials-a]\nauthname=x\n[credentials-a]\nauthname=y\npassword=p";
        let both = parse(text, "h").unwrap();
        assert_eq!(shown(both.authname.as_ref()).as_deref(), Some("y"));
        assert_eq!(shown(both.password.as_ref()).as_deref(), Some("p"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let prefix = "configuration file syntax error: ";
        for (text, what) in [
            (
                "[auth-libvirt-h]\ncredentials=b\n",
                "Missing group 'credentials-b' referenced from group 'auth-libvirt-h' in '/x/auth.conf'",
            ),
            (
                "[auth-libvirt-h]\npassword=hunter2\n",
                "Missing item 'credentials' in group 'auth-libvirt-h' in '/x/auth.conf'",
            ),
            ("[a]\nhunter2\n", "'/x/auth.conf' has no group, key or comment in line 2"),
            ("password=hunter2\n", "'/x/auth.conf' has no group, key or comment in line 1"),
            ("[a\n", "'/x/auth.conf' has no group, key or comment in line 1"),
            ("\u{feff}[a]\n", "'/x/auth.conf' has no group, key or comment in line 1"),
        ] {
            assert_eq!(parse(text, "h").unwrap_err(), format!("{prefix}{what}"), "{text}");
        }
        assert!(!format!("{:?}", parse(TWO, "localhost")).contains("w#rd"));
    }

    #[test]
    fn a_file_that_others_can_read_is_told_of_once() {
        /// Counts warnings.
        struct Counted(Arc<AtomicUsize>);
        impl tracing::Subscriber for Counted {
            fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
                true
            }
            fn event(&self, event: &tracing::Event<'_>) {
                if *event.metadata().level() == tracing::Level::WARN {
                    self.0.fetch_add(1, Ordering::Relaxed);
                }
            }
            fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
                panic!("there are no spans")
            }
            fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}
            fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}
            fn enter(&self, _: &tracing::Id) {}
            fn exit(&self, _: &tracing::Id) {}
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.conf");
        std::fs::write(&path, TWO).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let count = Arc::<AtomicUsize>::default();
        tracing::subscriber::with_default(Counted(Arc::clone(&count)), || {
            for service in ["ssh", "libvirt"] {
                Credentials::read(&path, service, "localhost").unwrap();
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_file_that_the_uri_names_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.conf");
        let find = |host: &str| Credentials::find("libvirt", host, Some(&path));
        assert!(find("localhost").unwrap_err().to_string().contains("cannot read the credentials"));
        std::fs::write(&path, TWO).unwrap();
        assert!(find("localhost").unwrap().password.is_some());
        assert!(find("elsewhere").unwrap().password.is_none());
    }
}
