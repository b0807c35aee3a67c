//! The `<secret>` document, in and out, as libvirt reads and writes it.
//!
//! Reading is as lenient as libvirt: of what it knows it takes the first, the rest it ignores. Writing is exact to the
//! byte. Leans on `document` for XML and on `schema` for callers who want rigour. Refuses what libvirt 11.3 refuses,
//! in its words and order: ephemeral, private, uuid, usage.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt::Write as _;
use std::sync::Arc;

use super::document::{Document, Element};
use super::encoding::Source;
use super::scan::is_character;
use super::schema;
use super::uuid::{parse_uuid, random_uuid};
use super::{Definition, Error, Usage, UsageType};

impl Definition {
    /// Reads a document. `validate`: check it against the schema first.
    pub fn from_xml(xml: &[u8], validate: bool) -> Result<Self, Error> {
        let source = Source::decode(xml)?;
        let document = Document::read(&source)?;
        let root = document.root();
        if root.name() != "secret" {
            return Err(Error::wrong_root(root.name()));
        }
        if validate {
            schema::check(root)?;
        }
        let ephemeral = yes_or_no(root, "ephemeral")?;
        let private = yes_or_no(root, "private")?;
        let uuid = match first(root, "uuid") {
            Some(text) => parse_uuid(text.as_bytes()).ok_or_else(Error::malformed_uuid)?,
            None => random_uuid().ok_or_else(Error::no_randomness)?,
        };
        let description = first(root, "description").map(Arc::from);
        let usage = usage(root)?;
        Ok(Self { uuid, usage, description, private, ephemeral })
    }

    /// The document as libvirt writes it: two-space indent, single quotes, a newline at the end.
    pub fn to_xml(&self) -> String {
        let yes_or_no = |is: bool| if is { "yes" } else { "no" };
        let (ephemeral, private) = (yes_or_no(self.ephemeral), yes_or_no(self.private));
        let mut xml = format!("<secret ephemeral='{ephemeral}' private='{private}'>\n");
        let _ = writeln!(xml, "  <uuid>{}</uuid>", self.uuid); // writing to a String cannot fail
        // libvirt holds no empty description, and neither do we.
        if let Some(description) = self.description.as_deref().filter(|text| !text.is_empty()) {
            push_element(&mut xml, "  ", "description", description);
        }
        if let Some(element) = id_element(self.usage.kind) {
            let _ = writeln!(xml, "  <usage type='{}'>", self.usage.kind.name());
            push_element(&mut xml, "    ", element, &self.usage.id);
            xml.push_str("  </usage>\n");
        }
        xml.push_str("</secret>\n");
        xml
    }
}

/// A flag of the root. Absent and empty are no.
fn yes_or_no(root: Element<'_, '_>, name: &'static str) -> Result<bool, Error> {
    match root.attribute(name) {
        None | Some("" | "no") => Ok(false),
        Some("yes") => Ok(true),
        Some(_) => Err(Error::bad_flag(name)),
    }
}

fn usage(root: Element<'_, '_>) -> Result<Usage, Error> {
    let Some(usage) = root.elements("usage").next() else { return Ok(Usage::none()) };
    let kind = usage.property("type").ok_or_else(Error::no_usage_type)?;
    let kind = UsageType::from_name(kind).ok_or_else(|| Error::unknown_usage_type(kind))?;
    let Some(element) = id_element(kind) else { return Ok(Usage::none()) };
    // libvirt asks for `./usage/name`, which a second <usage> can answer if the first doesn't.
    let id = root.elements("usage").flat_map(|usage| usage.elements(element)).next();
    let id =
        id.map(Element::string_value).filter(|id| !id.is_empty()).ok_or_else(|| Error::no_usage_id(kind))?;
    Ok(Usage { kind, id: Arc::from(id) })
}

/// The text of the first element of this name, unless it is empty.
fn first(root: Element<'_, '_>, name: &str) -> Option<String> {
    root.elements(name).next().map(Element::string_value).filter(|text| !text.is_empty())
}

/// The element that holds the id of a usage of this type.
pub(super) fn id_element(kind: UsageType) -> Option<&'static str> {
    match kind {
        UsageType::None => None,
        UsageType::Volume => Some("volume"),
        UsageType::Iscsi => Some("target"),
        UsageType::Ceph | UsageType::Tls | UsageType::Vtpm => Some("name"),
    }
}

fn push_element(xml: &mut String, indent: &str, name: &str, text: &str) {
    let _ = write!(xml, "{indent}<{name}>"); // writing to a String cannot fail
    for character in text.chars() {
        match character {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\'' => xml.push_str("&apos;"),
            // XML has no way to say the others; libvirt drops control characters too.
            _ if is_character(character) => xml.push(character),
            _ => {}
        }
    }
    let _ = writeln!(xml, "</{name}>");
}

#[cfg(test)]
mod tests;
