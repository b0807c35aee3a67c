//! A guest's disk: its source, what its source is backed by, and what it is being copied to.
//!
//! Secrets stand in the source, and in old documents beside it. Leans on `survey`. Refuses what libvirt refuses: both at
//! once, a secret of another kind than the source's protocol has, and an encryption that no guest can use.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::Format;
use super::survey::{Survey, Want, filled, first};
use crate::secret::{Element, UsageType};

/// An image that a guest uses: where it lies, and in which format.
pub(super) struct Image<'d, 'a> {
    source: Option<Element<'d, 'a>>,
    /// `file`, `network`, `volume`, …
    kind: &'d str,
    /// libvirt takes what has no format for raw, or looks.
    format: Option<&'d str>,
}

impl<'d, 'a> Image<'d, 'a> {
    /// The one that `holder` says is in `source`. Disks have their format in `<driver>`, what they are backed by and copied
    /// to in `<format>`, and the firmware's variables in an attribute.
    pub(super) fn of(holder: Element<'d, 'a>, source: Option<Element<'d, 'a>>) -> Self {
        let inside = |name| first(holder, name).and_then(|inside| filled(inside, "type"));
        let format = inside("driver").or_else(|| inside("format")).or_else(|| filled(holder, "format"));
        Self { source, kind: filled(holder, "type").unwrap_or("file"), format }
    }

    /// Why libvirt doesn't start a guest with it, if it is encrypted so; `librbd`: by Ceph's library.
    pub(super) fn refuses(&self, format: Format, librbd: bool) -> Option<&'static str> {
        match (format, librbd) {
            (Format::Qcow | Format::Default, _) => Some("old qcow/qcow2 encryption is not supported"),
            (Format::Luks2, false) => Some("luks2 is currently not supported by the qemu encryption engine"),
            (Format::LuksAny, false) => {
                Some("luks-any is currently not supported by the qemu encryption engine")
            }
            (_, true) if !self.may_be_rbd() => {
                Some("librbd encryption is supported only with RBD backed disks")
            }
            _ if self.format.is_some_and(|format| !OPENED.contains(&format)) => {
                Some("encryption is supported only with 'raw' and 'qcow2' image format")
            }
            _ => None,
        }
    }

    /// What is reached by way of a pool may be anything.
    fn may_be_rbd(&self) -> bool {
        match self.kind {
            "volume" => true,
            "network" => self.source.and_then(|source| source.attribute("protocol")) == Some("rbd"),
            _ => false,
        }
    }
}

/// A `<disk>`, of a guest or of a snapshot.
pub(super) fn disk(place: &str, disk: Element<'_, '_>, survey: &mut Survey) {
    let inside = first(disk, "source");
    let has = |name| inside.is_some_and(|source| first(source, name).is_some());
    let image = Image::of(disk, inside);
    if let Some(beside) = first(disk, "auth") {
        if has("auth") {
            survey.fault(place, "an <auth> definition already found for disk source");
        }
        auth(place, &image, beside, survey);
    }
    if has("encryption") && first(disk, "encryption").is_some() {
        survey.fault(place, "an <encryption> definition already found for disk source");
    }
    survey.encryption(place, disk, Some(&image));
    source(place, image, survey);
    chain(place, disk, survey);
    if let Some(mirror) = first(disk, "mirror") {
        let place = format!("{place}, mirror");
        source(&place, Image::of(mirror, first(mirror, "source")), survey);
        chain(&place, mirror, survey);
    }
}

/// What an image is backed by, and what that is backed by.
fn chain(place: &str, image: Element<'_, '_>, survey: &mut Survey) {
    let backing = std::iter::successors(first(image, "backingStore"), |above| first(*above, "backingStore"));
    for (number, backing) in (1_usize..).zip(backing) {
        let place = match number {
            1 => format!("{place}, backing store"),
            _ => format!("{place}, backing store {number}"),
        };
        source(&place, Image::of(backing, first(backing, "source")), survey);
    }
}

/// An image's source, and the file that its data lies in if that is another.
pub(super) fn source(place: &str, image: Image<'_, '_>, survey: &mut Survey) {
    let Some(inside) = image.source else { return };
    one_source(place, &image, inside, survey);
    if let Some(store) = first(inside, "dataStore")
        && let Some(inside) = first(store, "source")
    {
        one_source(&format!("{place}, data store"), &Image::of(store, Some(inside)), inside, survey);
    }
}

fn one_source(place: &str, image: &Image<'_, '_>, source: Element<'_, '_>, survey: &mut Survey) {
    if let Some(inside) = first(source, "auth") {
        auth(place, image, inside, survey);
    }
    survey.encryption(place, source, Some(image));
    if source.attribute("tls") == Some("yes") {
        survey.tls(place);
    }
    if image.kind == "volume"
        && let Some(pool) = filled(source, "pool")
    {
        survey.pooled(place, pool);
    }
}

/// Ceph's images want a secret for Ceph; whoever else asks for a password wants one for iSCSI.
fn auth(place: &str, image: &Image<'_, '_>, auth: Element<'_, '_>, survey: &mut Survey) {
    let protocol = image.source.and_then(|source| filled(source, "protocol"));
    let want = match protocol {
        Some("rbd") => Want::bytes(UsageType::Ceph),
        _ => Want::text(UsageType::Iscsi),
    };
    if let Some(protocol) = protocol.filter(|it| image.kind == "network" && ANONYMOUS.contains(it)) {
        survey.fault(place, format!("authentication is not supported for protocol '{protocol}'"));
    }
    let Some(secret) = survey.auth(place, want, auth) else { return };
    let kind = secret.property("type");
    match kind.and_then(UsageType::from_name) {
        None => survey.fault(place, format!("unknown secret type '{}'", kind.unwrap_or("<null>"))),
        Some(kind) if kind != want.usage() && matches!(protocol, Some("rbd" | "iscsi")) => {
            survey.fault(place, format!("invalid secret type '{}'", kind.name()));
        }
        Some(_) => {}
    }
}

/// The formats in which QEMU opens what is encrypted, and libvirt's words for "look" and "raw" in old documents.
const OPENED: [&str; 4] = ["raw", "qcow2", "auto", "aio"];

/// Protocols that have no passwords.
const ANONYMOUS: [&str; 3] = ["nbd", "gluster", "tftp"];
