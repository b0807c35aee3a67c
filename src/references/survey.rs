//! What is found on the way through a description, and the three elements that name secrets in it.
//!
//! `<secret>`, the `<encryption>` of disks and volumes, and `<auth>`. Leans on `secret`'s tree. Refuses what libvirt's
//! parser refuses of them, in its words: each as a fault, and reading goes on.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::disk::{Image, LIBRBD};
use super::{Description, Encryption, Fault, Format, Named, Pooled, Reference, Takes};
use crate::secret::{Element, UsageType, parse_uuid};

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Survey {
    references: Vec<Reference>,
    encryptions: Vec<Encryption>,
    pooled: Vec<Pooled>,
    tls: Vec<String>,
    faults: Vec<Fault>,
    /// The guest is on, or was when this was written: what it was doing counts.
    pub(super) is_running: bool,
}

/// Where a survey stood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    references: usize,
    encryptions: usize,
}

/// What is looked for: a secret of a usage, with a value of some kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    usage: UsageType,
    takes: Takes,
}

impl Want {
    pub(super) fn bytes(usage: UsageType) -> Self {
        Self { usage, takes: Takes::Bytes }
    }

    pub(super) fn text(usage: UsageType) -> Self {
        Self { usage, takes: Takes::Text }
    }

    pub(super) fn usage(self) -> UsageType {
        self.usage
    }
}

impl Survey {
    /// The whole.
    pub(super) fn into_description(self, kind: &'static str, name: Option<String>) -> Description {
        let Self { references, encryptions, pooled, tls, faults, is_running: _ } = self;
        Description { kind, name, references, encryptions, pooled, tls, faults }
    }

    /// libvirt refuses this.
    pub(super) fn fault(&mut self, place: &str, text: impl Into<String>) {
        self.faults.push(Fault { place: place.to_owned(), text: text.into() });
    }

    /// TLS is used here.
    pub(super) fn tls(&mut self, place: &str) {
        self.tls.push(place.to_owned());
    }

    /// This is a volume of that pool.
    pub(super) fn pooled(&mut self, place: &str, pool: &str) {
        self.pooled.push(Pooled { place: place.to_owned(), pool: pool.to_owned() });
    }

    /// Where it stands.
    pub(super) fn mark(&self) -> Mark {
        Mark { references: self.references.len(), encryptions: self.encryptions.len() }
    }

    /// The secrets that were named since aren't looked up. What libvirt refuses of them it still does.
    pub(super) fn forget_since(&mut self, mark: Mark) {
        self.references.truncate(mark.references);
        self.encryptions.truncate(mark.encryptions);
    }

    /// A secret is named by this UUID. `malformed`: what libvirt says if it is none.
    pub(super) fn uuid(&mut self, place: &str, want: Want, uuid: &str, malformed: impl Into<String>) {
        match parse_uuid(uuid.as_bytes()) {
            Some(uuid) => self.reference(place, want, Named::Uuid(uuid)),
            None => self.fault(place, malformed),
        }
    }

    /// The `<encryption>` in this element, if there is one. `image`: what a guest is to use it for; a volume that is only
    /// described may be encrypted as no guest can use it.
    pub(super) fn encryption(&mut self, place: &str, holder: Element<'_, '_>, image: Option<&Image<'_, '_>>) {
        let Some(encryption) = first(holder, "encryption") else { return };
        let engine = encryption.property("engine");
        // Ceph's library takes any bytes, QEMU itself doesn't.
        let takes = if image.is_some() && engine == Some(LIBRBD) { Takes::Bytes } else { Takes::Text };
        let want = Want { usage: UsageType::Volume, takes };
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
            secrets.extend(self.secret(place, want, *secret));
        }
        let name = filled(encryption, "format");
        match name.map(Format::from_name) {
            Some(Some(format)) => {
                if let Some(engine) = engine.filter(|engine| !["qemu", LIBRBD].contains(engine)) {
                    let text =
                        format!("Invalid value for attribute 'engine' in element 'encryption': '{engine}'.");
                    self.fault(place, text);
                } else if format == Format::Luks
                    && first(encryption, "ivgen").is_some()
                    && first(encryption, "cipher").is_none()
                {
                    self.fault(place, "ivgen element found, but cipher is missing");
                } else if let Some(text) = image.and_then(|image| image.refuses(encryption, format)) {
                    self.fault(place, text);
                }
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
        want: Want,
        auth: Element<'d, 'a>,
    ) -> Option<Element<'d, 'a>> {
        if filled(auth, "username").is_none() {
            self.fault(place, "missing username for auth");
        }
        let secret = first(auth, "secret");
        match secret {
            Some(secret) => _ = self.secret(place, want, secret),
            None => self.fault(place, "Missing <secret> element in auth"),
        }
        secret
    }

    /// A `<secret>` names a secret by `uuid` or by `usage`.
    fn secret(&mut self, place: &str, want: Want, secret: Element<'_, '_>) -> Option<Named> {
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
                self.reference(place, want, named.clone());
                Some(named)
            }
            Err(text) => {
                self.fault(place, text);
                None
            }
        }
    }

    fn reference(&mut self, place: &str, want: Want, named: Named) {
        self.references.push(Reference {
            place: place.to_owned(),
            wants: want.usage,
            takes: want.takes,
            named,
        });
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
