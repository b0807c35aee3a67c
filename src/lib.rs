//! Strongroom keeps the secrets of virtualization hosts (LUKS and qcow2 passphrases, Ceph, iSCSI, TLS and vTPM secrets)
//! encrypted at rest, and speaks libvirt: its definitions, its rules, its error codes, its words.
//!
//! Start from [`Connection`]. It opens a keystore by URI and gives [`Secret`]s, as libvirt's own API does:
//!
//! ```
//! use secrecy::ExposeSecret;
//! use strongroom::{Connection, EventKind, ListFlags, UsageType};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = tempfile::tempdir()?;
//! let root = directory.path().display();
//! // A keystore is made on first use, and so is its key. Keep the two apart: this key lies inside for the example's sake.
//! let connection = Connection::open(&format!("secret:///embed?root={root}&key={root}/host.key"))?;
//! let mut events = connection.events(EventKind::ValueChanged, None)?;
//!
//! let secret = connection.define_xml(
//!     "<secret ephemeral='no' private='no'>
//!        <description>passphrase of the database's disk</description>
//!        <usage type='volume'><volume>/srv/images/db.qcow2</volume></usage>
//!      </secret>",
//!     0,
//! )?;
//! secret.set_value(b"correct horse battery staple")?; // durable when this returns
//!
//! let found = connection.lookup_by_usage(UsageType::Volume, "/srv/images/db.qcow2")?;
//! assert_eq!(found.value()?.expose_secret(), b"correct horse battery staple"); // in secret memory, wiped on drop
//!
//! assert_eq!(connection.list_all(ListFlags::NO_EPHEMERAL)?.len(), 1);
//! assert_eq!(events.next().map(|event| event.secret().uuid), Some(secret.uuid()));
//!
//! secret.undefine()?;
//! assert_eq!(found.value().unwrap_err().to_string(), format!("Secret not found: no secret with matching uuid '{}'", secret.uuid()));
//! # Ok(())
//! # }
//! ```
//!
//! # What is here
//!
//! Keystores that this process opens itself (`secret:///embed?root=DIR`), with an append-only log of sealed
//! records that survives crashes, names damage and notices rollback; keyrings with host keys, systemd credentials,
//! passphrases and recovery keys; secret memory; the daemon `strongroomd`, which answers libvirt's RPC protocol on
//! virtsecretd's sockets, for stock clients and for `virtqemud`; connections to such daemons, ours or libvirt's
//! (`secret:///system`, `secret:///session`), and to those of other hosts, by TLS, ssh, TCP with SASL, or any program;
//! what the one who runs a keystore needs ([`Administration`]): slots, rotation, backup, repair, libvirt's own directories
//! in and out; and the command line `strongroom` for all of it.
//!
//! # The map
//!
//! The modules below stand in the order of the floors; each uses only those above it in this list.
//!
//! | floor | module | what for |
//! |---|---|---|
//! | 0 | [`memory`] | pages for values and keys: never swapped, never dumped, wiped; the one home of `unsafe` |
//! | 0 | [`conf`] | libvirt's configuration grammar |
//! | 1 | [`secret`] | what a secret is: definition, usage, UUID, XML, errors, and the trait [`Keystore`] |
//! | 2 | [`seal`] | a value becomes a sealed record and back; the keyring that holds the keys for it |
//! | 2 | [`rpc`] | libvirt's wire: packets, XDR, the bodies of messages; no sockets |
//! | 2 | [`net`] | who is at the other end of a socket; TLS and SASL between; the token that a host's daemons share |
//! | 2 | [`administration`] | what the one who runs a keystore asks of it: keys, rotation, copies, repair; the trait [`Administration`] |
//! | 3 | [`store`] | the storage engine: log, group commit, recovery, index, compaction, locks |
//! | 4 | [`driver`] | libvirt's secret driver on a store: rules, ephemeral secrets, events, locked keystores |
//! | 4 | [`client`] | a daemon's keystore, over every transport; how keystores are named: URIs |
//! | 5 | [`transfer`] | whole keystores in and out: libvirt's directories |
//! | 5 | [`references`] | which secrets libvirt's descriptions of guests, pools and volumes name |
//! | 6 | [`Connection`] | the face for programs |
//! | 6 | [`volume`] | encrypted volumes with their secrets: made, proved, changed and removed together |
//! | 6 | `server` | the daemon (feature `daemon`, on by default): sockets, sessions, authentication, systemd |
//! | 7 | `cli` | the command line (feature `cli`, on by default; the library builds without it) |
//!
//! docs/architecture.md tells the way of a value through them, docs/threat-model.md what is promised and what is not,
//! docs/daemon.md how to run the daemon.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod memory;
pub mod conf;
#[cfg(any(feature = "cli", feature = "daemon"))]
mod clock;
pub mod secret;
pub mod seal;
pub mod rpc;
pub mod net;
pub mod administration;
pub mod store;
pub mod driver;
pub mod client;
pub mod transfer;
pub mod references;
mod connection;
pub mod volume;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;

pub use administration::{Administration, Finding, Inventory, Made, Status, Verified};
pub use client::{Ask, Question};
pub use connection::{Connection, Embedded, Events, OpenOptions, Secret};
pub use driver::NewStore;
pub use memory::SecretBytes;
pub use seal::RecoveryKey;
pub use secrecy::ExposeSecret;
pub use secret::{
    DefineFlags, Error, ErrorCode, ErrorDomain, Event, EventKind, Handle, Keystore, Lifecycle, ListFlags,
    Usage, UsageType,
};

/// The README's example, so that it is tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
