//! A guest's disk: its source, what its source is backed by, and what it is being copied to.
//!
//! Secrets stand in the source, and in old documents beside it. Leans on `survey`. Refuses what libvirt refuses: both at
//! once, and a secret of another kind than the source's protocol has.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::survey::{Survey, filled, first};
use crate::secret::{Element, UsageType};

/// A `<disk>`, of a guest or of a snapshot.
pub(super) fn disk(place: &str, disk: Element<'_, '_>, survey: &mut Survey) {
    let inside = first(disk, "source");
    let has = |name| inside.is_some_and(|source| first(source, name).is_some());
    if let Some(beside) = first(disk, "auth") {
        if has("auth") {
            survey.fault(place, "an <auth> definition already found for disk source");
        }
        auth(place, inside, beside, survey);
    }
    if has("encryption") && first(disk, "encryption").is_some() {
        survey.fault(place, "an <encryption> definition already found for disk source");
    }
    survey.encryption(place, disk);
    source(place, inside, survey);
    chain(place, disk, survey);
    if let Some(mirror) = first(disk, "mirror") {
        let place = format!("{place}, mirror");
        source(&place, first(mirror, "source"), survey);
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
        source(&place, first(backing, "source"), survey);
    }
}

/// A `<source>`, and the file that its data lies in if that is another.
fn source(place: &str, source: Option<Element<'_, '_>>, survey: &mut Survey) {
    let Some(inside) = source else { return };
    one_source(place, inside, survey);
    let store = first(inside, "dataStore").and_then(|store| first(store, "source"));
    if let Some(store) = store {
        one_source(&format!("{place}, data store"), store, survey);
    }
}

fn one_source(place: &str, source: Element<'_, '_>, survey: &mut Survey) {
    if let Some(inside) = first(source, "auth") {
        auth(place, Some(source), inside, survey);
    }
    survey.encryption(place, source);
    if source.attribute("tls") == Some("yes") {
        survey.tls(place);
    }
}

/// Ceph's images want a secret for Ceph; whoever else asks for a password wants one for iSCSI.
fn auth(place: &str, source: Option<Element<'_, '_>>, auth: Element<'_, '_>, survey: &mut Survey) {
    let protocol = source.and_then(|source| filled(source, "protocol"));
    let wants = if protocol == Some("rbd") { UsageType::Ceph } else { UsageType::Iscsi };
    let Some(secret) = survey.auth(place, wants, auth) else { return };
    let kind = secret.property("type");
    match kind.and_then(UsageType::from_name) {
        None => survey.fault(place, format!("unknown secret type '{}'", kind.unwrap_or("<null>"))),
        Some(kind) if kind != wants && matches!(protocol, Some("rbd" | "iscsi")) => {
            survey.fault(place, format!("invalid secret type '{}'", kind.name()));
        }
        Some(_) => {}
    }
}
