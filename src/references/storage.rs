//! Storage pools, which log in somewhere, and volumes, which are encrypted.
//!
//! Leans on `survey`. Refuses an `<auth>` of a kind that libvirt doesn't know, or not for that pool.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::survey::{Survey, Want, filled, first, text};
use crate::secret::{Element, UsageType};

/// A `<pool>`.
pub(super) fn pool(pool: Element<'_, '_>, survey: &mut Survey) -> Option<String> {
    if let Some(auth) = first(pool, "source").and_then(|source| first(source, "auth")) {
        let kind = filled(auth, "type");
        let by_auth = match kind {
            Some("ceph") => UsageType::Ceph,
            Some("chap") => UsageType::Iscsi,
            Some(other) => {
                survey.fault(PLACE, format!("unknown auth type '{other}'"));
                UsageType::Iscsi
            }
            None => {
                survey.fault(PLACE, "storage pool missing auth type");
                UsageType::Iscsi
            }
        };
        // Who logs in decides what is looked up, whatever the document says.
        let wants = match pool.attribute("type") {
            Some("rbd") => UsageType::Ceph,
            Some("iscsi" | "iscsi-direct") => UsageType::Iscsi,
            _ => by_auth,
        };
        if let (Some(pool @ ("iscsi" | "iscsi-direct")), Some("ceph")) = (pool.attribute("type"), kind) {
            survey.fault(PLACE, format!("{pool} pool only supports 'chap' auth type"));
        }
        survey.auth(PLACE, Want::bytes(wants), auth);
    }
    text(pool, "name")
}

/// A `<poolstate>`: an active pool, as its daemon keeps it in `/run`.
pub(super) fn state(state: Element<'_, '_>, survey: &mut Survey) -> Option<String> {
    first(state, "pool").and_then(|inside| pool(inside, survey))
}

/// A `<volume>`.
pub(super) fn volume(volume: Element<'_, '_>, survey: &mut Survey) -> Option<String> {
    if let Some(target) = first(volume, "target") {
        survey.encryption("volume", target, None);
    }
    text(volume, "name")
}

/// Where a pool names its secret.
const PLACE: &str = "pool's source";
