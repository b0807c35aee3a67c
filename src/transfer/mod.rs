//! Whole keystores in and out: from the directories that libvirt's own secret driver wrote, and back into such ones.
//!
//! [`import`] and [`export`] speak to any [`Inventory`](crate::Inventory), in this process or behind a daemon's
//! socket; [`expect_import`] and [`import_at_first_start`] are for a daemon that moves into a host where libvirt's
//! was. Leans on `libvirt` for what lies in such a directory. Refuses to take a value's only copy away: an original
//! is removed when what was put in has been read back and compared, and not before.

mod export;
mod first_start;
mod import;
pub(crate) mod libvirt;

pub use export::{ExportForm, Exported, ExportedSecret, export};
pub use first_start::{expect_import, import_at_first_start};
pub use import::{ImportOptions, Imported, KeyTrial, Originals, Outcome, Summary, import};
pub use libvirt::LibvirtKey;
