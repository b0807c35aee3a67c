//! From what was typed to the keystore it means, open in this process or served by a daemon.
//!
//! Leans on `client` and [`Embedded`]: behind [`Administration`] the two are alike. Keys are asked for once, whatever
//! they are for. Refuses to make a keystore in passing, so that a mistyped root is not taken for an empty one.

use std::sync::Arc;

use super::{DaemonArguments, daemon};
use crate::administration::{Administration, Key};
use crate::cli::args::ConnectArguments;
use crate::cli::failure::Failure;
use crate::cli::{Arguments, named, told};
use crate::client::Admin;
use crate::driver::{Root, read_host_key};
use crate::memory::SecretBytes;
use crate::secret::Error;
use crate::{Embedded, OpenOptions};

/// A keystore, and the keys that were given on the way. One in this process has looked at its host key itself.
pub(super) struct Reached {
    pub(super) keystore: Arc<dyn Administration>,
    pub(super) given: Vec<Key>,
}

/// The keystore that is meant.
pub(super) fn reach(arguments: &Arguments, daemon: &DaemonArguments) -> Result<Reached, Failure> {
    let Some(socket) = daemon::meant(daemon, &arguments.connect) else {
        let given = typed(&arguments.connect)?;
        return Ok(Reached { keystore: open_with(arguments, &given)?.administration()?, given });
    };
    let keystore = Arc::new(Admin::connect(&socket?)?); // first: nobody shall type a passphrase for nothing
    Ok(Reached { keystore, given: given(&arguments.connect)? })
}

/// Opens a keystore that is there, in this process.
pub(super) fn open(arguments: &Arguments) -> Result<Embedded, Failure> {
    open_with(arguments, &typed(&arguments.connect)?)
}

fn open_with(arguments: &Arguments, given: &[Key]) -> Result<Embedded, Failure> {
    let uri = named(&arguments.connect)?.uri;
    if !Embedded::exists(&uri)? {
        return Err(Failure::told(format!("there is no keystore at {uri}"))
            .advise("mind the spelling; or make one with: strongroom init"));
    }
    let mut options = OpenOptions { key_file: arguments.connect.key_file.clone(), ..OpenOptions::default() };
    for key in given {
        match key {
            Key::Passphrase(secret) => options.passphrase = Some(copy(secret)?),
            Key::Recovery(secret) => options.recovery_key = Some(copy(secret)?),
            Key::Host(_) | Key::Credential(_) => {} // by its file, which the driver reads
        }
    }
    Ok(Embedded::open(&uri, options)?)
}

/// Where the keystore lies that no process has open: what works on its files needs them for itself.
pub(super) fn root(connect: &ConnectArguments) -> Result<Root, Failure> {
    let text = named(connect)?.uri;
    match daemon::meant(&DaemonArguments::default(), connect) {
        Some(_) => daemon::root_of(&text),
        None => Ok(Embedded::root(&text)?),
    }
}

/// The keys that were given, to be handed over.
pub(super) fn given(connect: &ConnectArguments) -> Result<Vec<Key>, Failure> {
    let mut keys: Vec<Key> = host_key(connect)?.into_iter().collect();
    keys.extend(typed(connect)?);
    Ok(keys)
}

/// The host key that was named.
pub(super) fn host_key(connect: &ConnectArguments) -> Result<Option<Key>, Failure> {
    Ok(connect.key_file.as_deref().map(read_host_key).transpose()?.map(Key::Host))
}

/// The keys that are typed, or come through a descriptor.
fn typed(connect: &ConnectArguments) -> Result<Vec<Key>, Failure> {
    let recovery_key = told("recovery key", connect.recovery_key, connect.recovery_key_fd)?;
    let passphrase = told("passphrase", connect.passphrase, connect.passphrase_fd)?;
    Ok([recovery_key.map(Key::Recovery), passphrase.map(Key::Passphrase)].into_iter().flatten().collect())
}

fn copy(secret: &SecretBytes) -> Result<SecretBytes, Failure> {
    Ok(secret.try_clone().map_err(Error::from)?)
}
