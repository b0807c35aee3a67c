//! Any bytes as a description that names secrets, as a volume to be made, and as a `qemu.conf`.
//!
//! Leans on `references`, `volume` and `conf`. Refuses nothing.

use std::collections::HashSet;
use std::path::Path;

use crate::conf::Conf;
use crate::references::{Description, Named};
use crate::secret::Definition;
use crate::volume::Plan;

/// Reading never panics, says of each finding where it stands, and finds no more than there are tags.
pub fn fuzz_references(bytes: &[u8]) {
    if let Ok(description) = Description::from_xml(bytes) {
        check(&description);
        // Latin-1 doubles its bytes, and no tag.
        let tags = bytes.iter().filter(|byte| **byte == b'<').count();
        assert!(description.references.len() <= tags, "{description:?}");
        assert!(description.encryptions.len() <= tags, "{description:?}");
        assert!(description.faults.len() <= 3 * tags, "{description:?}");
        assert!(Definition::from_xml(bytes, false).is_err(), "a secret's own definition names none");
        assert_eq!(Description::from_xml(bytes).as_ref(), Ok(&description));
    }
    if let Ok(plan) = Plan::from_xml(bytes, Some(Path::new("/srv"))) {
        let description = Description::from_xml(bytes);
        let named = description.as_ref().map(|it| it.references.first().map(|reference| &reference.named));
        assert_eq!(named, Ok(plan.secret.as_ref()), "the volume's secret is the one that is looked for");
    }
    if let Ok(conf) = Conf::parse(Path::new("qemu.conf"), bytes) {
        let description = Description::from_conf(&conf);
        check(&description);
        let keys: HashSet<&str> =
            conf.entries().map(|(key, _)| key).filter(|key| key.ends_with("_tls_x509_secret_uuid")).collect();
        assert_eq!(description.references.len() + description.faults.len(), keys.len(), "{description:?}");
    }
}

fn check(description: &Description) {
    for reference in &description.references {
        assert!(!reference.place.is_empty());
    }
    for fault in &description.faults {
        assert!(!fault.place.is_empty() && !fault.text.is_empty());
    }
    // A secret that opens something is a reference like any other.
    let named: HashSet<&Named> = description.references.iter().map(|reference| &reference.named).collect();
    let opening = description.encryptions.iter().flat_map(|encryption| &encryption.secrets);
    for secret in opening {
        assert!(named.contains(secret), "{description:?}");
    }
    assert_eq!(description.name.as_deref().filter(|name| name.is_empty()), None);
}
