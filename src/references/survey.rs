//! What is found on the way through a description, and the three elements that name secrets in it.
//!
//! `<secret>`, the `<encryption>` of disks and volumes, and `<auth>`. Leans on `secret`'s tree. Refuses what libvirt's
//! parser refuses of them, in its words: each as a fault, and reading goes on.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{Description, Encryption, Fault, Format, Named, Reference};
use crate::secret::{Element, UsageType, parse_uuid};

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Survey {
    references: Vec<Reference>,
    encryptions: Vec<Encryption>,
    tls: Vec<String>,
    faults: Vec<Fault>,
}

impl Survey {
    /// The whole.
    pub(super) fn into_description(self, kind: &'static str, name: Option<String>) -> Description {
        let Self { references, encryptions, tls, faults } = self;
        Description { kind, name, references, encryptions, tls, faults }
    }

    /// libvirt refuses this.
    pub(super) fn fault(&mut self, place: &str, text: impl Into<String>) {
        self.faults.push(Fault { place: place.to_owned(), text: text.into() });
    }

    /// TLS is used here.
    pub(super) fn tls(&mut self, place: &str) {
        self.tls.push(place.to_owned());
    }

    /// A secret is named by this UUID. `malformed`: what libvirt says if it is none.
    pub(super) fn uuid(&mut self, place: &str, wants: UsageType, uuid: &str, malformed: impl Into<String>) {
        match parse_uuid(uuid.as_bytes()) {
            Some(uuid) => self.reference(place, wants, Named::Uuid(uuid)),
            None => self.fault(place, malformed),
        }
    }

    /// The `<encryption>` in this element, if there is one.
    pub(super) fn encryption(&mut self, place: &str, holder: Element<'_, '_>) {
        let Some(encryption) = first(holder, "encryption") else { return };
        let layers: Vec<_> = encryption.elements("secret").collect();
        let mut secrets = Vec::new();
        for (number, secret) in (1_usize..).zip(&layers) {
            let layer = format!("{place}, layer {number}");
            let place = if layers.len() > 1 { layer.as_str() } else { place };
            match filled(*secret, "type") {
                Some("passphrase") => {}
                Some(other) => {
                    self.fault(place, format!("unknown volume encryption secret type {other}"));
                }
                None => self.fault(place, "unknown volume encryption secret type"),
            }
            secrets.extend(self.secret(place, UsageType::Volume, *secret));
        }
        let name = filled(encryption, "format");
        match name.map(Format::from_name) {
            Some(Some(format)) => {
                self.encryptions.push(Encryption { place: place.to_owned(), format, secrets });
            }
            Some(None) => {
                let name = name.unwrap_or_default();
                self.fault(place, format!("unknown volume encryption format type {name}"));
            }
            None => self.fault(place, "unknown volume encryption format"),
        }
    }

    /// An `<auth>`: the user's name, and the secret. Gives back that secret's element.
    pub(super) fn auth<'d, 'a>(
        &mut self,
        place: &str,
        wants: UsageType,
        auth: Element<'d, 'a>,
    ) -> Option<Element<'d, 'a>> {
        if filled(auth, "username").is_none() {
            self.fault(place, "missing username for auth");
        }
        let secret = first(auth, "secret");
        match secret {
            Some(secret) => _ = self.secret(place, wants, secret),
            None => self.fault(place, "Missing <secret> element in auth"),
        }
        secret
    }

    /// A `<secret>` names a secret by `uuid` or by `usage`.
    fn secret(&mut self, place: &str, wants: UsageType, secret: Element<'_, '_>) -> Option<Named> {
        let named = match (secret.property("uuid"), secret.property("usage")) {
            (None, None) => Err("missing secret uuid or usage attribute".to_owned()),
            (Some(_), Some(_)) => Err("either secret uuid or usage expected".to_owned()),
            (Some(uuid), None) => {
                let parsed = parse_uuid(uuid.as_bytes()).map(Named::Uuid);
                parsed.ok_or_else(|| format!("invalid secret uuid '{uuid}'"))
            }
            (None, Some(usage)) => Ok(Named::Usage(usage.to_owned())),
        };
        match named {
            Ok(named) => {
                self.reference(place, wants, named.clone());
                Some(named)
            }
            Err(text) => {
                self.fault(place, text);
                None
            }
        }
    }

    fn reference(&mut self, place: &str, wants: UsageType, named: Named) {
        self.references.push(Reference { place: place.to_owned(), wants, named });
    }
}

/// The first element of this name, which is the one that libvirt takes.
pub(super) fn first<'d, 'a>(holder: Element<'d, 'a>, name: &str) -> Option<Element<'d, 'a>> {
    holder.elements(name).next()
}

/// The text of the first element of this name, unless it is empty.
pub(super) fn text(holder: Element<'_, '_>, name: &str) -> Option<String> {
    first(holder, name).map(Element::string_value).filter(|text| !text.is_empty())
}

/// An attribute that isn't empty: to libvirt's XPath an empty one isn't there.
pub(super) fn filled<'d>(element: Element<'d, '_>, name: &str) -> Option<&'d str> {
    element.attribute(name).filter(|value| !value.is_empty())
}
