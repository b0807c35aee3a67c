//! From what was typed to the keystore it means, open in this process or served by a daemon.
//!
//! Leans on `client` and [`Embedded`]: behind [`Administration`] the two are alike. Keys are asked for once, whatever they are for.
//! Refuses to make a keystore in passing, so that a mistyped root is not taken for an empty one.

use std::sync::Arc;

use super::{DaemonArguments, daemon};
use crate::administration::{Administration, Key};
use crate::cli::args::ConnectArguments;
use crate::cli::failure::Failure;
use crate::cli::{Arguments, named, told, uri};
use crate::client::Admin;
use crate::driver::{Root, read_host_key};
use crate::memory::SecretBytes;
use crate::secret::Error;
use crate::{Embedded, OpenOptions};

/// A keystore, and the keys that were given on the way.
pub(super) struct Reached {
    pub(super) keystore: Arc<dyn Administration>,
    pub(super) given: Vec<Key>,
}

/// The keystore that is meant.
pub(super) fn reach(arguments: &Arguments, daemon: &DaemonArguments) -> Result<Reached, Failure> {
    let given = given(&arguments.connect)?;
    let keystore: Arc<dyn Administration> = match daemon::meant(daemon, &arguments.connect) {
        Some(socket) => Arc::new(Admin::connect(&socket?)?),
        None => open_with(arguments, &given)?.administration()?,
    };
    Ok(Reached { keystore, given })
}

/// Opens a keystore that is there, in this process.
pub(super) fn open(arguments: &Arguments) -> Result<Embedded, Failure> {
    open_with(arguments, &given(&arguments.connect)?)
}

fn open_with(arguments: &Arguments, given: &[Key]) -> Result<Embedded, Failure> {
    let uri = named(&arguments.connect)?;
    if !Embedded::exists(&uri)? {
        return Err(Failure::told(format!("there is no keystore at {uri}"))
            .advise("mind the spelling; or make one with: strongroom init"));
    }
    let mut options = OpenOptions {
        key_file: arguments.connect.key_file.clone(),
        read_only: arguments.connect.readonly,
        ..OpenOptions::default()
    };
    for key in given {
        match key {
            Key::Passphrase(secret) => options.passphrase = Some(copy(secret)?),
            Key::Recovery(secret) => options.recovery_key = Some(copy(secret)?),
            Key::Host(_) | Key::Credential(_) => {} // by its file
        }
    }
    Ok(Embedded::open(&uri, options)?)
}

/// Where the keystore lies that no process has open: what works on its files needs them for itself.
pub(super) fn root(connect: &ConnectArguments) -> Result<Root, Failure> {
    let text = named(connect)?;
    match daemon::meant(&DaemonArguments::default(), connect) {
        Some(_) if uri(connect).is_some_and(|uri| uri.contains("/system")) => Ok(Root::system()),
        Some(_) if rustix::process::geteuid().is_root() => Ok(Root::system()),
        Some(_) => Ok(Root::user()?),
        None => Ok(Embedded::root(&text)?),
    }
}

/// The keys that were given.
pub(super) fn given(connect: &ConnectArguments) -> Result<Vec<Key>, Failure> {
    let host_key = connect.key_file.as_deref().map(read_host_key).transpose()?;
    let passphrase = told("passphrase", connect.passphrase, connect.passphrase_fd)?;
    let recovery_key = told("recovery key", connect.recovery_key, connect.recovery_key_fd)?;
    let keys = [host_key.map(Key::Host), recovery_key.map(Key::Recovery), passphrase.map(Key::Passphrase)];
    Ok(keys.into_iter().flatten().collect())
}

fn copy(secret: &SecretBytes) -> Result<SecretBytes, Failure> {
    Ok(secret.try_clone().map_err(Error::from)?)
}
