//! libvirt's wire, pure: packets, XDR, message bodies, keepalive. No sockets and no clock here.
//!
//! [`Header`] stands before every body; [`remote`] has the bodies of the calls on secrets, [`admin`] those on the
//! daemon, [`strongroom`] our own, [`typed`] the parameters of a few calls, [`keepalive`] the heartbeat, [`fault`]
//! how errors travel, `foreign` what other drivers' calls get. `server` reads what `client` writes, and the other way
//! round.
//!
//! Leans on `memory` for packets that carry values, on `secret` for errors. Refuses lengths before it allocates for them.

pub mod admin;
pub mod fault;
#[cfg(feature = "daemon")]
pub(crate) mod foreign;
pub mod keepalive;
pub mod packet;
pub mod remote;
pub mod strongroom;
pub mod typed;
pub mod xdr;

pub use packet::{Header, Kind, Status, packet, secret_packet};
pub use xdr::{Decode, Encode, Malformed, Reader, Text, Value};

/// The programs: which protocol a packet belongs to.
pub mod program {
    /// libvirt's main protocol.
    pub const REMOTE: u32 = 0x2000_8086;
    /// Calls of the QEMU driver alone.
    pub const QEMU: u32 = 0x2000_8087;
    /// Calls of the LXC driver alone.
    pub const LXC: u32 = 0x0006_8000;
    /// Ping and pong.
    pub const KEEPALIVE: u32 = 0x6b65_6570;
    /// Administration of the daemon itself.
    pub const ADMIN: u32 = 0x0690_0690;
    /// Ours, on the admin socket: what goes beyond libvirt's API. Spells "Stro".
    pub const STRONGROOM: u32 = 0x5374_726f;
}

/// The version of every program.
pub const VERSION: u32 = 1;

/// Reads a body, whatever stands behind it.
pub fn decode<'a, T: Decode<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    T::decode(&mut Reader::new(body))
}
