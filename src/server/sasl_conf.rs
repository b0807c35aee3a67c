//! What Cyrus is configured with, looked at before anybody comes: whether its users and its keys are there.
//!
//! Cyrus itself starts without them, offers what it has, and refuses everybody who tries. Leans on std: the file has a line for
//! each option, `name: value`. Refuses nothing; whoever reads the log decides.

use std::collections::BTreeSet;
use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The configuration of libvirt's service.
#[derive(Debug)]
pub(super) struct Conf {
    /// `None`: there is none, and Cyrus has its defaults.
    file: Option<PathBuf>,
    options: Vec<(String, String)>,
}

impl Conf {
    /// The one that Cyrus reads: the first in its directories.
    pub(super) fn read() -> Self {
        let named = env::var_os("SASL_CONF_PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>());
        let directories = named.unwrap_or_else(|| DIRECTORIES.iter().map(PathBuf::from).collect());
        let found = directories.iter().find_map(|directory| {
            let file = directory.join(FILE);
            Some((std::fs::read(&file).ok()?, file))
        });
        match found {
            Some((text, file)) => Self::parse(&String::from_utf8_lossy(&text), Some(file)),
            None => Self::parse("", None),
        }
    }

    fn parse(text: &str, file: Option<PathBuf>) -> Self {
        let option = |line: &str| {
            let (name, value) = line.trim().split_once(':').filter(|(name, _)| !name.starts_with('#'))?;
            Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        };
        Self { file, options: text.lines().filter_map(option).collect() }
    }

    /// What keeps somebody out, or lets in by more than was meant: each in a line, with the next step. `offered`: the
    /// mechanisms that Cyrus offers, over all sockets.
    pub(super) fn doubts(&self, offered: &BTreeSet<&str>) -> Vec<String> {
        let listed = self.listed();
        let mut doubts = Vec::new();
        match (&self.file, &listed) {
            (None, _) => doubts.push(format!(
                "SASL has no configuration: there is no {USUAL}, so every mechanism that is installed is offered; write \
                 it, with mech_list and what those mechanisms need"
            )),
            (Some(file), None) => doubts.push(format!(
                "{} names no mech_list: every SASL mechanism that is installed is offered; name those that you mean, \
                 such as 'mech_list: gssapi' or 'mech_list: scram-sha-256'",
                file.display()
            )),
            _ => {}
        }
        let meant: Vec<&str> = match &listed {
            Some(listed) => listed.iter().map(String::as_str).collect(),
            None => offered.iter().copied().collect(),
        };
        let of = |kind: &[&str]| {
            let of_it: Vec<&str> = meant.iter().copied().filter(|name| kind.contains(name)).collect();
            Some(of_it.join(", ")).filter(|names| !names.is_empty())
        };
        doubts.extend(of(BY_TICKET).and_then(|names| self.keytab(&names)));
        doubts.extend(of(&self.by_password()).and_then(|names| self.users(&names)));
        let is_told = |name: &&str| BY_TICKET.contains(name) && self.keytab(name).is_some();
        // libvirt has neither for them: an identity from outside, a binding to TLS' channel.
        let is_idle = |name: &&str| *name == "EXTERNAL" || name.ends_with("-PLUS");
        let absent: Vec<&str> = meant
            .iter()
            .copied()
            .filter(|name| !offered.contains(name) && !is_told(name) && !is_idle(name))
            .collect();
        if !absent.is_empty() {
            let why = match absent.iter().any(|name| name.contains(',')) {
                true => "names are parted by blanks there, not by commas",
                false => {
                    "it isn't installed, or it has no security of its own, which TCP wants: see 'pluginviewer -s' of \
                     sasl2-bin"
                }
            };
            doubts.push(format!(
                "mech_list in {} names {}, but no socket offers it: {why}",
                self.name(),
                absent.join(", ")
            ));
        }
        doubts
    }

    /// The mechanisms of `mech_list`, in capitals.
    fn listed(&self) -> Option<Vec<String>> {
        let list = self.option("mech_list")?;
        Some(list.split_ascii_whitespace().map(str::to_ascii_uppercase).collect())
    }

    /// Mechanisms whose passwords are looked up.
    fn by_password(&self) -> Vec<&'static str> {
        // Where nobody says whom to ask, all that are installed are asked.
        let others_know = match self.option("auxprop_plugin") {
            Some(plugins) => plugins.split_ascii_whitespace().any(|plugin| plugin != "sasldb"),
            None => {
                self.options.iter().any(|(name, _)| name.starts_with("sql_") || name.starts_with("ldapdb_"))
            }
        };
        if others_know {
            return Vec::new();
        }
        // Who shows the password may be judged by somebody else: one of them suffices.
        let ways = self.option("pwcheck_method").unwrap_or("auxprop");
        let by_others = ways.split_ascii_whitespace().any(|way| !way.starts_with("auxprop"));
        LOOKED_UP.iter().chain(if by_others { &[] } else { SHOWN }).copied().collect()
    }

    /// Whether the users of these mechanisms are nowhere.
    fn users(&self, names: &str) -> Option<String> {
        let named = self.option("sasldb_path");
        let places = named.map_or_else(|| SASLDB.iter().map(PathBuf::from).collect(), |it| vec![it.into()]);
        let why = places.iter().map(|place| missing(place)).collect::<Option<Vec<_>>>()?.swap_remove(0);
        let (place, told) = (
            places[0].display(),
            match named {
                Some(_) => format!("sasldb_path in {} is", self.name()),
                None => "SASL's users are, without a sasldb_path, in".to_owned(),
            },
        );
        Some(format!(
            "{told} '{place}', which {why}: nobody can log in by {names}; saslpasswd2 -a libvirt -f '{place}' -c USER \
             makes it, or name another"
        ))
    }

    /// Whether these mechanisms, of Kerberos, have no key.
    fn keytab(&self, names: &str) -> Option<String> {
        let (place, told) = match self.option("keytab") {
            Some(named) => (named.to_owned(), format!("keytab in {} is", self.name())),
            None => {
                let is_said =
                    |text: String| ["default_keytab_name", "include"].iter().any(|it| text.contains(it));
                let elsewhere = std::fs::read_to_string("/etc/krb5.conf").is_ok_and(is_said)
                    || ["KRB5_CONFIG", "GSS_USE_PROXY"].iter().any(|name| env::var_os(name).is_some());
                let variable = env::var("KRB5_KTNAME").ok();
                if variable.is_none() && elsewhere {
                    return None; // only Kerberos itself could tell where it is
                }
                (variable.unwrap_or_else(|| KEYTAB.to_owned()), "Kerberos' keytab is".to_owned())
            }
        };
        let file = match place.split_once(':') {
            Some(("FILE" | "WRFILE", file)) => file,
            Some(_) => return None, // no file
            None => &place,
        };
        let why = missing(Path::new(file))?;
        Some(format!(
            "{told} '{file}', which {why}: nobody can log in by {names}; put the key of libvirt/HOST there (kadmin: ktadd \
             -k {file} libvirt/HOST)"
        ))
    }

    fn option(&self, name: &str) -> Option<&str> {
        // Of a key given twice Cyrus takes the first.
        let found = self.options.iter().find(|option| option.0 == name);
        found.map(|option| option.1.as_str()).filter(|value| !value.is_empty())
    }

    fn name(&self) -> String {
        self.file.as_deref().unwrap_or(Path::new(USUAL)).display().to_string()
    }
}

/// Why a file can't be read by us, in words that go on from "which".
fn missing(file: &Path) -> Option<&'static str> {
    match std::fs::File::open(file).err()?.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Some("isn't there"),
        ErrorKind::PermissionDenied => Some("this daemon may not read"),
        _ => Some("can't be read"),
    }
}

/// By the name of the service.
const FILE: &str = "libvirt.conf";

/// Where people write it.
const USUAL: &str = "/etc/sasl2/libvirt.conf";

/// Where Cyrus looks.
const DIRECTORIES: &[&str] = &[
    "/etc/sasl2",
    "/etc/sasl",
    "/usr/lib/x86_64-linux-gnu/sasl2",
    "/usr/lib/aarch64-linux-gnu/sasl2",
    "/usr/lib64/sasl2",
    "/usr/lib/sasl2",
];

/// Where users are, when nobody says: Debian's place, and Fedora's.
const SASLDB: &[&str] = &["/etc/sasldb2", "/etc/sasl2/sasldb2"];

/// Where keys are, when nobody says.
const KEYTAB: &str = "/etc/krb5.keytab";

/// Mechanisms of Kerberos.
const BY_TICKET: &[&str] = &["GSSAPI", "GSS-SPNEGO", "GS2-KRB5", "GS2-IAKERB"];

/// Mechanisms for which the server needs the password itself, or what it keeps of it.
const LOOKED_UP: &[&str] = &[
    "SCRAM-SHA-1",
    "SCRAM-SHA-224",
    "SCRAM-SHA-256",
    "SCRAM-SHA-384",
    "SCRAM-SHA-512",
    "DIGEST-MD5",
    "CRAM-MD5",
];

/// Mechanisms that show it the password.
const SHOWN: &[&str] = &["PLAIN", "LOGIN"];

#[cfg(test)]
mod tests {
    use super::*;

    fn doubts(text: &str, offered: &[&str]) -> Vec<String> {
        Conf::parse(text, Some("/s/libvirt.conf".into())).doubts(&offered.iter().copied().collect())
    }

    #[test]
    fn what_is_as_it_should_be_needs_no_word() {
        let (users, keys) =
            (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let text = format!(
            "# mech_list: nonsense\nMech_List: scram-sha-256 GSSAPI\nsasldb_path: {}\nkeytab: {}\n",
            users.path().display(),
            keys.path().display()
        );
        assert_eq!(doubts(&text, &["GSSAPI", "SCRAM-SHA-256"]), [""; 0]);
        let others = "mech_list: plain\npwcheck_method: saslauthd\nsasldb_path: /nonexistent\n";
        assert_eq!(doubts(others, &["PLAIN"]), [""; 0], "saslauthd knows the users");
        let ldap = "mech_list: digest-md5\nauxprop_plugin: ldapdb\nsasldb_path: /nonexistent\n";
        assert_eq!(doubts(ldap, &["DIGEST-MD5"]), [""; 0], "a directory knows them");
        for quiet in [
            "mech_list: plain\npwcheck_method: auxprop saslauthd\nsasldb_path: /nonexistent\n",
            "mech_list: plain\nsql_engine: sqlite3\nsasldb_path: /nonexistent\n",
            "mech_list: plain\nauxprop_plugin: sasldb sql\nsasldb_path: /nonexistent\n",
            "mech_list: external plain scram-sha-256-plus\nmech_list: cram-md5\nsasldb_path: /etc/passwd\n",
        ] {
            assert_eq!(doubts(quiet, &["PLAIN"]), [""; 0], "{quiet}");
        }
    }

    #[test]
    fn what_keeps_people_out_is_named_with_the_next_step() {
        for (text, offered, expected) in [
            (
                "sasldb_path: /etc/passwd\n",
                &["PLAIN"][..],
                &["names no mech_list", "'mech_list: gssapi'"][..],
            ),
            (
                "mech_list: scram-sha-256\nsasldb_path: /nonexistent/users\n",
                &["SCRAM-SHA-256"],
                &[
                    "sasldb_path in /s/libvirt.conf is '/nonexistent/users', which isn't there: nobody can log in by \
                     SCRAM-SHA-256; saslpasswd2 -a libvirt -f '/nonexistent/users' -c USER",
                ],
            ),
            (
                // Cyrus leaves the mechanism out, and doesn't say so to anybody.
                "mech_list: gssapi\nkeytab: /nonexistent/krb5.tab\n",
                &[],
                &[
                    "keytab in /s/libvirt.conf is '/nonexistent/krb5.tab', which isn't there",
                    "by GSSAPI",
                    "ktadd",
                ],
            ),
            (
                "mech_list: plain no-such\nsasldb_path: /etc/passwd\n",
                &["PLAIN"],
                &["mech_list in /s/libvirt.conf names NO-SUCH, but no socket offers it: it isn't installed"],
            ),
            (
                "mech_list: plain,login\nsasldb_path: /etc/passwd\n",
                &[],
                &["names PLAIN,LOGIN, but no socket offers it: names are parted by blanks"],
            ),
        ] {
            let doubts = doubts(text, offered);
            assert_eq!(doubts.len(), 1, "{doubts:?}");
            assert!(expected.iter().all(|words| doubts[0].contains(words)), "{doubts:?}");
        }
        let without = Conf::parse("", None).doubts(&BTreeSet::new());
        assert!(without[0].contains("there is no /etc/sasl2/libvirt.conf"), "{without:?}");
    }
}
