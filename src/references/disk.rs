//! A guest's disk: its source, what its source is backed by, and what it is being copied to.
//!
//! Secrets stand in the source, and in old documents beside it. Leans on `survey`. Refuses what libvirt refuses: both at
//! once, a secret of another kind than the source's protocol has, and an encryption that no guest can use.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::Format;
use super::survey::{Survey, Want, filled, first};
use crate::secret::{Element, UsageType};

/// An image that a guest uses: what for, where it lies, and in which format.
pub(super) struct Image<'d, 'a> {
    role: Role,
    source: Option<Element<'d, 'a>>,
    /// `file`, `network`, `volume`, …
    kind: &'d str,
    /// libvirt takes what has no format for raw, or looks.
    format: Option<&'d str>,
}

/// What an image is for. libvirt judges them by different rules, and says the same of them in different words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A disk's own.
    Disk,
    /// A disk's own, whose guest gives it SCSI commands.
    Lun,
    /// What another is backed by, or has its data in.
    Backing,
    /// What a disk is being copied to.
    Mirror,
    /// What a snapshot makes.
    Overlay,
    /// What a backup writes.
    Backup,
    /// The firmware's variables.
    Variables,
}

impl<'d, 'a> Image<'d, 'a> {
    /// The one that `holder` says is in `source`. Disks have their format in `<driver>`, what they are backed by and copied
    /// to in `<format>`, and the firmware's variables in an attribute.
    pub(super) fn of(role: Role, holder: Element<'d, 'a>, source: Option<Element<'d, 'a>>) -> Self {
        let inside = |name| first(holder, name).and_then(|inside| filled(inside, "type"));
        let format = inside("driver").or_else(|| inside("format")).or_else(|| filled(holder, "format"));
        // What has no source is of the default type, whatever the document says.
        let kind = source.and_then(|_| filled(holder, "type")).unwrap_or("file");
        Self { role, source, kind, format }
    }

    /// Why libvirt takes no guest with it that is encrypted so; in its order.
    pub(super) fn refuses(&self, encryption: Element<'_, '_>, format: Format) -> Option<String> {
        let is_librbd = encryption.property("engine") == Some(LIBRBD);
        if let Some(unknown) = self.format.filter(|format| !self.knows(format)) {
            return Some(match self.role {
                Role::Disk | Role::Lun => format!("unknown driver format value '{unknown}'"),
                Role::Overlay => format!("unknown disk snapshot driver '{unknown}'"),
                Role::Variables => {
                    format!("Invalid value for attribute 'format' in element 'nvram': '{unknown}'.")
                }
                Role::Backing | Role::Mirror | Role::Backup => {
                    format!("unknown storage source format '{unknown}'")
                }
            });
        }
        let is_made_by_it =
            matches!(self.role, Role::Mirror | Role::Overlay | Role::Backup | Role::Variables);
        let cipher = first(encryption, "cipher").filter(|_| format == Format::Luks);
        let text = match format {
            _ if cipher.is_some() && !is_made_by_it => {
                "supplying <cipher> for domain disk definition is unnecessary"
            }
            Format::Luks | Format::Luks2 | Format::LuksAny | Format::Qcow if self.role == Role::Lun => {
                "disk device 'lun' doesn't support encryption"
            }
            _ if self.is_served_elsewhere() => "encryption is not supported with vhostuser disk",
            Format::Qcow | Format::Default => "old qcow/qcow2 encryption is not supported",
            // Of another protocol libvirt takes no notice.
            _ if is_librbd && self.kind != "network" => {
                "librbd encryption is supported only with RBD backed disks"
            }
            _ if is_librbd => return None,
            Format::Luks2 => "luks2 is currently not supported by the qemu encryption engine",
            Format::LuksAny => "luks-any is currently not supported by the qemu encryption engine",
            // A pool's volume has no format that goes without saying.
            Format::Luks if !self.format.map_or(self.kind != "volume", |format| OPENED.contains(&format)) => {
                "encryption is supported only with 'raw' and 'qcow2' image format"
            }
            // Since libvirt 9.3; before, all but the first were looked over.
            Format::Luks if encryption.elements("secret").nth(1).is_some() => {
                "qemu encryption engine expects only a single secret"
            }
            Format::Luks => return None,
        };
        Some(text.to_owned())
    }

    /// Whether libvirt has heard of this format. `aio` is raw, in the `<driver>` of old.
    fn knows(&self, format: &str) -> bool {
        FORMATS.contains(&format) || format == "aio" && matches!(self.role, Role::Disk | Role::Lun)
    }

    /// By a program that the guest talks to, so that QEMU opens nothing.
    fn is_served_elsewhere(&self) -> bool {
        self.kind == "vhostuser" && matches!(self.role, Role::Disk | Role::Lun)
    }

    /// Whether nothing is opened: a drive without a medium, say.
    fn is_empty(&self) -> bool {
        let path = match self.kind {
            "file" => "file",
            "block" => "dev",
            "dir" => "dir",
            _ => return self.is_served_elsewhere(),
        };
        self.source.and_then(|source| filled(source, path)).is_none()
    }

    /// Who is asked for it over a network.
    fn protocol(&self) -> Option<&'d str> {
        self.source.filter(|_| self.kind == "network").and_then(|source| filled(source, "protocol"))
    }
}

/// A `<disk>` of a guest.
pub(super) fn disk(place: &str, disk: Element<'_, '_>, survey: &mut Survey) {
    let inside = first(disk, "source");
    let has = |name| inside.is_some_and(|source| first(source, name).is_some());
    let role = if disk.attribute("device") == Some("lun") { Role::Lun } else { Role::Disk };
    let image = Image::of(role, disk, inside);
    let before = survey.mark();
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
    if image.is_empty() {
        survey.forget_since(before);
    }
    source(place, image, survey);
    chain(place, disk, survey);
    if let Some(mirror) = first(disk, "mirror").filter(|_| survey.is_running) {
        let place = format!("{place}, mirror");
        source(&place, Image::of(Role::Mirror, mirror, first(mirror, "source")), survey);
        chain(&place, mirror, survey);
    }
}

/// What an image is backed by, and what that is backed by. The chain ends where no type is said.
fn chain<'d, 'a>(place: &str, image: Element<'d, 'a>, survey: &mut Survey) {
    let under = |above: Element<'d, 'a>| {
        first(above, "backingStore").filter(|backing| backing.attribute("type").is_some())
    };
    let backing = std::iter::successors(under(image), |above| under(*above));
    for (number, backing) in (1_usize..).zip(backing) {
        let place = match number {
            1 => format!("{place}, backing store"),
            _ => format!("{place}, backing store {number}"),
        };
        source(&place, Image::of(Role::Backing, backing, first(backing, "source")), survey);
    }
}

/// An image's source, and the file that its data lies in if that is another.
pub(super) fn source(place: &str, image: Image<'_, '_>, survey: &mut Survey) {
    let Some(inside) = image.source else { return };
    one_source(place, &image, inside, survey);
    if let Some(store) = first(inside, "dataStore")
        && let Some(inside) = first(store, "source")
    {
        let image = Image::of(Role::Backing, store, Some(inside));
        one_source(&format!("{place}, data store"), &image, inside, survey);
    }
}

fn one_source(place: &str, image: &Image<'_, '_>, source: Element<'_, '_>, survey: &mut Survey) {
    let before = survey.mark();
    if let Some(inside) = first(source, "auth") {
        auth(place, image, inside, survey);
    }
    survey.encryption(place, source, Some(image));
    if image.is_empty() {
        survey.forget_since(before);
    }
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
    let protocol = image.protocol();
    let want = match protocol {
        Some("rbd") => Want::bytes(UsageType::Ceph),
        _ => Want::text(UsageType::Iscsi),
    };
    if image.is_served_elsewhere() {
        survey.fault(place, "auth is not supported with vhostuser disk");
    }
    // Of all other images libvirt looks at nothing but the secret's name.
    let is_judged = matches!(image.role, Role::Disk | Role::Lun | Role::Backing);
    let judged = protocol.filter(|_| is_judged);
    if let Some(protocol) = judged.filter(|protocol| ANONYMOUS.contains(protocol)) {
        survey.fault(place, format!("authentication is not supported for protocol '{protocol}'"));
    }
    let Some(secret) = survey.auth(place, want, auth) else { return };
    let Some(protocol) = judged else { return };
    let kind = secret.property("type");
    match kind.and_then(UsageType::from_name) {
        None => survey.fault(place, format!("unknown secret type '{}'", kind.unwrap_or("<null>"))),
        Some(kind) if kind != want.usage() && ["rbd", "iscsi"].contains(&protocol) => {
            survey.fault(place, format!("invalid secret type '{}'", kind.name()));
        }
        Some(_) => {}
    }
}

/// The engine that is Ceph's library. Where none is said it is QEMU itself.
pub(super) const LIBRBD: &str = "librbd";

/// The formats in which QEMU opens what is encrypted, and an old word for raw.
const OPENED: [&str; 3] = ["raw", "qcow2", "aio"];

/// All that libvirt knows.
const FORMATS: [&str; 16] = [
    "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow",
    "qcow2", "qed", "vmdk",
];

/// Protocols that have no passwords.
const ANONYMOUS: [&str; 6] = ["nbd", "sheepdog", "gluster", "tftp", "vxhs", "nfs"];
