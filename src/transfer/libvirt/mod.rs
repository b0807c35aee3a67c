//! A directory of libvirt's secret driver: what lies in it, how a value file is read and written, and with which key.
//!
//! Leans on `memory`: values and keys are there from the first read(2) on. Refuses to be as lenient as libvirt where that
//! gives rubbish for a value: padding must be right to the last byte.

mod base64;
mod cipher;
mod directory;
mod key;
mod take_out;
mod unfit;
mod value;

#[cfg(test)]
pub(super) use directory::interruption;
pub(super) use directory::{Directory, Found, Held, Listing, ValueFile, definition_name};
pub use key::LibvirtKey;
pub(super) use unfit::Unfit;
pub(crate) use value::{Form, read_value, write_value};
