//! The schema of the `<secret>` document (libvirt's secret.rng), rule by rule.
//!
//! Leans on `document`. Refuses what the schema refuses, among it documents that libvirt accepts and writes: a Ceph
//! secret with a slash in its name, say. The first line of the message is fixed; those after it are libxml2's.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::document::{Attribute, Child, Element};
use super::scan::is_blank;
use super::xml::id_element;
use super::{Error, UsageType};

/// Checks a document against the schema: its content first, then the root's attributes, as libxml2 does.
pub(super) fn check(root: Element<'_, '_>) -> Result<(), Error> {
    if root.in_namespace() {
        return Err(against("Expecting no namespace for element secret"));
    }
    let mut seen = Vec::new();
    for child in root.children() {
        match child {
            Child::Text(text) if is_blank_text(text) => {}
            Child::Text(_) => return Err(against("Element secret has extra content: text")),
            Child::Element(element) => {
                let name = element.name();
                let is_right = match name {
                    _ if element.in_namespace() => None,
                    "uuid" => Some(is_data(element, is_uuid)),
                    "description" => Some(is_data(element, |_| true)),
                    "usage" => Some(is_usage(element)),
                    _ => None,
                };
                match is_right {
                    None => return Err(against(&format!("Element secret has extra content: {name}"))),
                    Some(true) if !seen.contains(&name) => seen.push(name),
                    Some(_) => {
                        let extra = format!("Extra element {name} in interleave");
                        return Err(Error::against_schema(&[
                            &extra,
                            "Element secret failed to validate content",
                        ]));
                    }
                }
            }
        }
    }
    let is_right = |attribute: &&Attribute<'_>| {
        !attribute.in_namespace
            && matches!(attribute.name, "ephemeral" | "private")
            && matches!(collapsed(&attribute.value), "yes" | "no")
    };
    match root.attributes().iter().find(|attribute| !is_right(attribute)) {
        Some(wrong) => Err(against(&format!("Invalid attribute {} for element secret", wrong.name))),
        None => Ok(()),
    }
}

fn against(detail: &str) -> Error {
    Error::against_schema(&[detail])
}

/// A usage has a type, and in it just the element that the type asks for. None isn't a type here.
fn is_usage(usage: Element<'_, '_>) -> bool {
    let [attribute] = usage.attributes() else { return false };
    if attribute.in_namespace || attribute.name != "type" {
        return false;
    }
    let Some(kind) = UsageType::from_name(collapsed(&attribute.value)) else { return false };
    let Some(name) = id_element(kind) else { return false };
    let mut content =
        usage.children().filter(|child| !matches!(child, Child::Text(text) if is_blank_text(text)));
    let (Some(Child::Element(id)), None) = (content.next(), content.next()) else { return false };
    let is_id = if kind == UsageType::Volume { is_absolute_path } else { is_object_name };
    id.name() == name && !id.in_namespace() && is_data(id, is_id)
}

/// Whether an element holds text alone, of this form.
fn is_data(element: Element<'_, '_>, form: impl FnOnce(&str) -> bool) -> bool {
    element.attributes().is_empty()
        && element.children().all(|child| matches!(child, Child::Text(_)))
        && form(&element.string_value())
}

/// 32 hex digits, with all four dashes or none.
fn is_uuid(text: &str) -> bool {
    let mut groups = text.split('-').map(str::len);
    let is_dashed = groups.by_ref().eq([8, 4, 4, 4, 12]);
    let is_plain = text.len() == 32 && !text.contains('-');
    (is_dashed || is_plain) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// A path from the root of a Unix file system or of a lettered drive, on one line.
fn is_absolute_path(text: &str) -> bool {
    let rest = text.strip_prefix('/').or_else(|| {
        let after_letter = text.strip_prefix(|letter: char| letter.is_ascii_alphabetic())?;
        after_letter.strip_prefix(":\\")
    });
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['\n', '\r']))
}

fn is_object_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', '\n'])
}

/// The schema's values don't mind blanks around them; the values it knows hold none.
fn collapsed(value: &str) -> &str {
    value.trim_matches(is_blank)
}

fn is_blank_text(text: &str) -> bool {
    text.chars().all(is_blank)
}
