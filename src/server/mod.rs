//! The daemon: libvirt's secret driver behind sockets, and the one asynchronous floor of the house.
//!
//! A call's way: [`listen`] has the sockets, [`serve`] accepts, [`connection`] moves bytes ([`inbound`],
//! [`outgoing`], [`stream`]; [`records`] where they are encrypted), [`session`] judges each packet, [`calls`] asks the driver, and back. Around it: [`start`] and
//! [`process`] begin and end the daemon, [`settings`] and [`args`] say how, [`admin`] serves virt-admin and our own
//! lock and unlock, [`log`] tells.
//!
//! Leans on `driver` for every answer, on `rpc` for every byte. Refuses to wait on a reactor thread: what may block
//! runs elsewhere, but for reads of what the page cache has.

mod admin;
mod args;
mod authority;
mod calls;
mod clients;
mod connection;
mod crew;
mod failure;
mod flood;
mod identity;
mod inbound;
mod keepalive;
mod listen;
mod log;
mod opening;
mod origin;
mod outgoing;
mod parameters;
mod places;
#[cfg(feature = "polkit")]
mod polkit;
mod process;
mod records;
#[cfg(any(fuzzing, test))]
mod rehearsal;
mod room;
mod rotation;
#[cfg(feature = "sasl")]
mod sasl;
#[cfg(feature = "sasl")]
mod sasl_conf;
mod serve;
mod session;
mod settings;
mod sojourn;
mod start;
mod steps;
mod stream;
mod tls;
mod transit;

/// The libvirt whose answers these are, as its own daemons number themselves: 12.8.0.
const LIBVIRT_LEVEL: u64 = 12_008_000;

#[cfg(any(fuzzing, test))]
pub(crate) use rehearsal::rehearse;

/// Runs the daemon, from the command line to its end.
pub fn main() -> std::process::ExitCode {
    start::main()
}
