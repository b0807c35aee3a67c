//! Guests: their devices, and the documents that hold guests or parts of them.
//!
//! Disks, the firmware's variables, iSCSI devices that are passed through, TPMs; of other devices only whether they use
//! TLS. Leans on `disk` and `survey`. Refuses what libvirt refuses of the secrets there; of all else it takes no notice, nor
//! of parts that libvirt doesn't read.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;

use super::disk::{Image, Role, disk, source};
use super::survey::{Survey, Want, filled, first, text};
use crate::secret::{Child, Element, UsageType};

/// A `<domain>`. One that is on has a number.
pub(super) fn domain(domain: Element<'_, '_>, survey: &mut Survey) -> Option<String> {
    survey.is_running |= filled(domain, "id").is_some();
    guest("", domain, survey);
    text(domain, "name")
}

/// A `<domstatus>`: a running guest, as its daemon keeps it in `/run`.
pub(super) fn status(status: Element<'_, '_>, survey: &mut Survey) -> Option<String> {
    survey.is_running = true;
    first(status, "domain").and_then(|inside| domain(inside, survey))
}

/// A `<domaincheckpoint>`, which holds the guest as it was.
pub(super) fn checkpoint(checkpoint: Element<'_, '_>, survey: &mut Survey) -> Option<String> {
    if let Some(domain) = first(checkpoint, "domain") {
        guest("", domain, survey);
    }
    text(checkpoint, "name")
}

/// A `<domainsnapshot>`: the images that it makes, and the guest as it was, running and switched off.
pub(super) fn snapshot(snapshot: Element<'_, '_>, survey: &mut Survey) -> Option<String> {
    // What is made by it, and what was made when the guest went back to it.
    for (list, what) in [("disks", "snapshot of"), ("revertDisks", "overlay of")] {
        let external = |disk: Element<'_, '_>| matches!(filled(disk, "snapshot"), None | Some("external"));
        for (number, image) in images(snapshot, list).filter(|(_, image)| external(*image)) {
            let place = format!("{what} {}", called(image, number));
            source(&place, Image::of(Role::Overlay, image, first(image, "source")), survey);
        }
    }
    for (whose, name) in [("guest's ", "domain"), ("switched-off guest's ", "inactiveDomain")] {
        if let Some(domain) = first(snapshot, name) {
            guest(whose, domain, survey);
        }
    }
    text(snapshot, "name")
}

/// A `<domainbackup>`: the images that it writes, be they the backup or what is kept while others fetch it.
pub(super) fn backup(backup: Element<'_, '_>, survey: &mut Survey) -> Option<String> {
    let part = if backup.attribute("mode") == Some("pull") { "scratch" } else { "target" };
    for (number, image) in
        images(backup, "disks").filter(|(_, image)| image.attribute("backup") != Some("no"))
    {
        let place = format!("backup of {}", called(image, number));
        source(&place, Image::of(Role::Backup, image, first(image, part)), survey);
    }
    if first(backup, "server").is_some_and(|server| server.attribute("tls") == Some("yes")) {
        survey.tls("backup's server");
    }
    None
}

/// A device on its own, as it is attached to a running guest.
pub(super) fn device(device: Element<'_, '_>, survey: &mut Survey) -> Option<String> {
    one_device("", device, 1, survey);
    None
}

/// A whole guest. `whose`: what places begin with.
fn guest(whose: &str, domain: Element<'_, '_>, survey: &mut Survey) {
    firmware(whose, domain, survey);
    devices(whose, domain, survey);
}

/// The variables of UEFI: an image like a disk's, but where a type is said. Else they are a file that is named as text.
fn firmware(whose: &str, domain: Element<'_, '_>, survey: &mut Survey) {
    let variables = first(domain, "os").and_then(|os| first(os, "nvram"));
    if let Some(variables) = variables.filter(|variables| filled(*variables, "type").is_some()) {
        let image = Image::of(Role::Variables, variables, first(variables, "source"));
        source(&format!("{whose}NVRAM"), image, survey);
    }
}

/// All devices of a guest.
fn devices(whose: &str, domain: Element<'_, '_>, survey: &mut Survey) {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let devices = first(domain, "devices").into_iter().flat_map(Element::children);
    for device in devices {
        if let Child::Element(device) = device
            && !device.in_namespace()
        {
            let number = numbers.entry(device.name()).or_default();
            *number = number.saturating_add(1);
            one_device(whose, device, *number, survey);
        }
    }
}

/// A device; it is the guest's first, second, … of its kind.
fn one_device(whose: &str, device: Element<'_, '_>, number: usize, survey: &mut Survey) {
    match device.name() {
        "disk" => disk(&format!("{whose}{}", called(device, number)), device, survey),
        "hostdev" => passed_through(whose, device, number, survey),
        "tpm" => tpm(&format!("{whose}TPM"), device, survey),
        name => {
            let place = format!("{whose}{name} {number}");
            let backend = first(device, "backend");
            let mut sources =
                [Some(device), backend].into_iter().flatten().filter_map(|it| first(it, "source"));
            if sources.any(|source| source.attribute("tls") == Some("yes")) {
                survey.tls(&place);
            }
        }
    }
}

/// What guests and people call a disk.
fn called(disk: Element<'_, '_>, number: usize) -> String {
    // In snapshots and backups the target is where they write to.
    let target = || first(disk, "target").and_then(|target| filled(target, "dev"));
    match filled(disk, "name").or_else(target) {
        Some(name) => format!("disk {name}"),
        None => format!("disk {number}"),
    }
}

/// The `<disk>`s of a snapshot or a backup.
fn images<'d, 'a>(
    holder: Element<'d, 'a>,
    list: &str,
) -> impl Iterator<Item = (usize, Element<'d, 'a>)> + use<'d, 'a> {
    (1..).zip(first(holder, list).into_iter().flat_map(|disks| disks.elements("disk")))
}

/// A host's device. Those that are reached by iSCSI may have to log in.
fn passed_through(whose: &str, device: Element<'_, '_>, number: usize, survey: &mut Survey) {
    let Some(source) = first(device, "source") else { return };
    if source.attribute("protocol") != Some("iscsi") {
        return;
    }
    let Some(auth) = first(source, "auth") else { return };
    let place = match filled(source, "name") {
        Some(name) => format!("{whose}hostdev {name}"),
        None => format!("{whose}hostdev {number}"),
    };
    let Some(secret) = survey.auth(&place, Want::text(UsageType::Iscsi), auth) else { return };
    match secret.property("type") {
        Some("iscsi") => {}
        Some(other) if UsageType::from_name(other).is_some() => {
            survey.fault(&place, format!("hostdev invalid secret type '{other}'"));
        }
        other => survey.fault(&place, format!("invalid secret type {}", other.unwrap_or("<null>"))),
    }
}

/// A virtual TPM, whose state may be encrypted. It can be named by UUID only.
fn tpm(place: &str, tpm: Element<'_, '_>, survey: &mut Survey) {
    let backend = first(tpm, "backend").filter(|backend| backend.attribute("type") == Some("emulator"));
    let encryption = backend.and_then(|backend| first(backend, "encryption"));
    if let Some(uuid) = encryption.and_then(|encryption| filled(encryption, "secret")) {
        survey.uuid(
            place,
            Want::bytes(UsageType::Vtpm),
            uuid,
            format!("Unable to parse secret uuid '{uuid}'"),
        );
    }
}
