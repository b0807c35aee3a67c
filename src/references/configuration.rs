//! `qemu.conf`: the secrets with the passphrases of TLS keys.
//!
//! Guests, migrations and backups say only that they use TLS; which secret opens the host's key stands in that file, as
//! `NAME_tls_x509_secret_uuid`. Leans on `conf`. Refuses what libvirt refuses: a value that is no UUID.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashSet;

use super::Description;
use super::survey::{Survey, Want};
use crate::conf::Conf;
use crate::secret::UsageType;

impl Description {
    /// Reads the secrets that a `qemu.conf` names. A file that names none is a good one too.
    pub fn from_conf(conf: &Conf) -> Self {
        let mut survey = Survey::default();
        let mut seen = HashSet::new();
        // Of a key that is given twice the first value holds.
        let keys = conf.entries().map(|(key, _)| key).filter(|key| key.ends_with(KEYS));
        for key in keys.filter(|key| seen.insert(*key)) {
            match conf.string(key) {
                Ok(uuid) => {
                    let uuid = uuid.unwrap_or_default();
                    let malformed = format!("malformed TLS secret uuid '{uuid}' provided");
                    survey.uuid(key, Want::text(UsageType::Tls), uuid, malformed);
                }
                Err(error) => survey.fault(key, error.text),
            }
        }
        survey.into_description("configuration", None)
    }
}

/// How the keys end: `default_`, `vnc_`, `chardev_`, `migrate_`, `backup_`, `vxhs_` and `nbd_` come before.
const KEYS: &str = "_tls_x509_secret_uuid";
