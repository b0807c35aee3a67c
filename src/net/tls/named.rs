//! Certificates that `virtsecretd.conf` names instead of the usual places: for the daemon, and for whoever checks them.
//!
//! Leans on `conf`. Refuses, in libvirt's words, certificates without their keys, and either without an authority.

use std::path::PathBuf;

use crate::conf::{CONFIG_UNSUPPORTED, Conf, ConfError};

/// What the file says of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) crl_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) cert_files: Option<Vec<PathBuf>>,
    pub(crate) key_files: Option<Vec<PathBuf>>,
}

/// Where a server's certificates lie, if not in the usual places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// The authority, and the server's own certificates, each with its key.
    pub(crate) own: Option<(PathBuf, Vec<(PathBuf, PathBuf)>)>,
    /// The list of those that are revoked.
    pub(crate) crl: Option<PathBuf>,
}

impl Named {
    /// The keys as they stand there: whole paths, whatever they lead to.
    pub(crate) fn read(conf: &Conf) -> Result<Self, ConfError> {
        Ok(Self {
            ca_file: conf.path("ca_file")?,
            crl_file: conf.path("crl_file")?,
            cert_file: conf.path("cert_file")?,
            key_file: conf.path("key_file")?,
            cert_files: conf.paths("cert_files")?,
            key_files: conf.paths("key_files")?,
        })
    }

    /// Where the certificates lie.
    pub(crate) fn certificates(&self, conf: &Conf) -> Result<Certificates, ConfError> {
        let refused = |key: &str, text: &str, advice: &str| {
            Err(conf.wrong(key, CONFIG_UNSUPPORTED, format!("{}: {text}", conf.file().display()), advice))
        };
        const TOGETHER: &str = "ca_file, cert_file and key_file are set all three or not at all";
        for (one, several, set) in [
            ("cert_file", "cert_files", self.cert_file.is_some() && self.cert_files.is_some()),
            ("key_file", "key_files", self.key_file.is_some() && self.key_files.is_some()),
        ] {
            if set {
                let text = format!("'{one}' and '{several}' are set at the same time");
                return refused(
                    several,
                    &text,
                    &format!("leave one of them away: '{several}' can have a single entry"),
                );
            }
        }
        let list = |one: &Option<PathBuf>, several: &Option<Vec<PathBuf>>| {
            several.clone().or_else(|| Some(vec![one.clone()?])).unwrap_or_default()
        };
        let (certificates, keys) =
            (list(&self.cert_file, &self.cert_files), list(&self.key_file, &self.key_files));
        let own = match (&self.ca_file, certificates.len(), keys.len()) {
            (None, 0, 0) => None,
            (None, ..) => {
                let key = ["cert_file", "cert_files", "key_file", "key_files"]
                    .into_iter()
                    .find(|key| conf.line(key).is_some());
                return refused(
                    key.unwrap_or("ca_file"),
                    "No CA certificate path set to match server key/cert",
                    TOGETHER,
                );
            }
            (Some(_), 0, _) => {
                return refused("ca_file", "No server certificate path set to match server key", TOGETHER);
            }
            (Some(_), _, 0) => {
                return refused("ca_file", "No server key path set to match server cert", TOGETHER);
            }
            (Some(_), some, others) if some != others => {
                let text =
                    format!("there are {some} certificates in cert_files and {others} keys in key_files");
                return refused("key_files", &text, "name one key for each certificate, in the same order");
            }
            (Some(ca), ..) => Some((ca.clone(), certificates.into_iter().zip(keys).collect())),
        };
        Ok(Certificates { own, crl: self.crl_file.clone() })
    }
}
