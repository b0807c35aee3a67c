//! Distinguished names as GnuTLS prints them, because that is what libvirt's lists of allowed clients are written against.
//!
//! In the certificate's order, with commas and no blanks between, escapes of RFC 4514, GnuTLS's own spelling of the keys, and
//! `#` with hexadecimal DER for what is no text of the kind that the attribute has. Leans on x509-cert. Refuses nothing:
//! every name prints as something.

use std::fmt::Write as _;

use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::name::Name;

/// The name of whom a certificate is for. `None`: it is no certificate.
pub(crate) fn of(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(print(certificate.tbs_certificate().subject()))
}

/// A name, as GnuTLS prints it.
pub(crate) fn print(name: &Name) -> String {
    let mut printed = String::new();
    for (index, several) in name.iter_rdn().enumerate() {
        if index > 0 {
            printed.push(',');
        }
        for (index, one) in several.iter().enumerate() {
            if index > 0 {
                printed.push('+');
            }
            attribute(one, &mut printed);
        }
    }
    printed
}

/// The common names in it, from the first to the last.
pub(crate) fn common_names(name: &Name) -> Vec<String> {
    let own = name.iter().filter(|attribute| attribute.oid.to_string() == COMMON_NAME);
    own.filter_map(|attribute| text(attribute, DIRECTORY)).collect()
}

fn attribute(attribute: &AttributeTypeAndValue, printed: &mut String) {
    let oid = attribute.oid.to_string();
    let known = KEYS.iter().find(|(known, ..)| *known == oid);
    let value = known.and_then(|(_, _, kinds)| text(attribute, kinds));
    printed.push_str(known.map_or(&oid, |(_, key, _)| key));
    printed.push('=');
    match value {
        Some(value) => escape(&value, printed),
        None => {
            printed.push('#');
            for byte in attribute.value.to_der().unwrap_or_default() {
                _ = write!(printed, "{byte:02x}");
            }
        }
    }
}

/// The text of an attribute, if it is of one of these kinds.
fn text(attribute: &AttributeTypeAndValue, kinds: &[Tag]) -> Option<String> {
    let (tag, bytes) = (attribute.value.tag(), attribute.value.value());
    if !kinds.contains(&tag) {
        return None;
    }
    match tag {
        Tag::BmpString => {
            let (units, rest) = bytes.as_chunks();
            let units: Vec<_> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            if rest.is_empty() { String::from_utf16(&units).ok() } else { None }
        }
        Tag::TeletexString if !bytes.is_ascii() => None,
        _ => String::from_utf8(bytes.to_vec()).ok(),
    }
}

fn escape(value: &str, printed: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        let escaped = match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '\0' => true,
            '#' => index == 0,
            ' ' => index == 0 || index == last,
            _ => false,
        };
        if escaped {
            printed.push('\\');
        }
        printed.push(character);
    }
}

/// The kinds of text that most attributes may be.
const DIRECTORY: &[Tag] = &[Tag::Utf8String, Tag::PrintableString, Tag::TeletexString, Tag::BmpString];
const PRINTABLE: &[Tag] = &[Tag::PrintableString];
const IA5: &[Tag] = &[Tag::Ia5String];

const COMMON_NAME: &str = "2.5.4.3";

/// The attributes that GnuTLS has a key for, the key, and the kinds of text that it reads.
const KEYS: &[(&str, &str, &[Tag])] = &[
    ("2.5.4.6", "C", PRINTABLE),
    ("2.5.4.9", "street", DIRECTORY),
    ("2.5.4.12", "title", DIRECTORY),
    ("2.5.4.10", "O", DIRECTORY),
    ("2.5.4.11", "OU", DIRECTORY),
    (COMMON_NAME, "CN", DIRECTORY),
    ("2.5.4.7", "L", DIRECTORY),
    ("2.5.4.8", "ST", DIRECTORY),
    ("2.5.4.13", "description", DIRECTORY),
    ("2.5.4.5", "serialNumber", PRINTABLE),
    ("2.5.4.20", "telephoneNumber", PRINTABLE),
    ("2.5.4.4", "surName", DIRECTORY),
    ("2.5.4.43", "initials", DIRECTORY),
    ("2.5.4.44", "generationQualifier", DIRECTORY),
    ("2.5.4.42", "givenName", DIRECTORY),
    ("2.5.4.65", "pseudonym", DIRECTORY),
    ("2.5.4.46", "dnQualifier", PRINTABLE),
    ("2.5.4.17", "postalCode", DIRECTORY),
    ("2.5.4.41", "name", DIRECTORY),
    ("2.5.4.15", "businessCategory", DIRECTORY),
    ("0.9.2342.19200300.100.1.25", "DC", IA5),
    ("0.9.2342.19200300.100.1.1", "UID", DIRECTORY),
    ("1.2.840.113549.1.9.1", "EMAIL", IA5),
    ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionOfIncorporationLocalityName", DIRECTORY),
    ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionOfIncorporationStateOrProvinceName", DIRECTORY),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionOfIncorporationCountryName", PRINTABLE),
];

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString};
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    /// A certificate for these attributes, as PEM and as DER.
    fn certificate(attributes: &[(DnType, DnValue)]) -> (String, Vec<u8>) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        attributes
            .iter()
            .for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), value.clone()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        (certificate.pem(), certificate.der().to_vec())
    }

    fn oid(oid: &str) -> DnType {
        DnType::CustomDnType(oid.split('.').map(|part| part.parse().unwrap()).collect())
    }

    fn printable(text: &str) -> DnValue {
        DnValue::PrintableString(PrintableString::try_from(text).unwrap())
    }

    fn ia5(text: &str) -> DnValue {
        DnValue::Ia5String(Ia5String::try_from(text).unwrap())
    }

    #[test]
    fn a_name_reads_as_in_libvirts_manual() {
        let (_, der) = certificate(&[
            (DnType::CountryName, printable("GB")),
            (DnType::StateOrProvinceName, "London".into()),
            (DnType::LocalityName, "London".into()),
            (DnType::OrganizationName, "Test Org".into()),
            (DnType::CommonName, "client1".into()),
        ]);
        assert_eq!(of(&der).as_deref(), Some("C=GB,ST=London,L=London,O=Test Org,CN=client1"));
        assert_eq!(of(&der[1..]), None);
    }

    #[test]
    fn what_would_mislead_is_escaped() {
        for (value, printed) in [
            ("a,b", "a\\,b"),
            ("a+b=c", "a\\+b=c"),
            ("\"<;>\\\"", "\\\"\\<\\;\\>\\\\\\\""),
            ("#a#", "\\#a#"),
            (" a b ", "\\ a b\\ "),
            (" ", "\\ "),
            ("Zoë", "Zoë"),
        ] {
            let (_, der) = certificate(&[(DnType::CommonName, value.into())]);
            assert_eq!(of(&der), Some(format!("CN={printed}")));
        }
    }

    /// One certificate for each attribute, printed by GnuTLS itself.
    #[test]
    fn every_attribute_prints_as_gnutls_prints_it() {
        let bmp = || DnValue::BmpString(BmpString::try_from("Zoë").unwrap());
        let teletex = || DnValue::TeletexString(TeletexString::try_from("plain").unwrap());
        let mut attributes: Vec<(DnType, DnValue)> = Vec::new();
        for (known, ..) in KEYS {
            attributes.push((oid(known), "utf8, ü".into()));
            attributes.push((oid(known), printable("XY")));
            attributes.push((oid(known), ia5("a@b")));
        }
        attributes.push((DnType::OrganizationName, bmp()));
        attributes.push((DnType::OrganizationName, teletex()));
        attributes.push((oid("1.2.3.4"), "unknown".into()));
        attributes.push((oid("2.5.4.45"), "unknown too".into()));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("certificate.pem");
        for attribute in attributes {
            let (pem, der) = certificate(std::slice::from_ref(&attribute));
            let ours = of(&der).unwrap();
            std::fs::write(&file, pem).unwrap();
            let mut certtool = Command::new("certtool");
            let printed = certtool.arg("--certificate-info").arg("--infile").arg(&file).output();
            let printed = printed.expect("certtool must be there: sh tests/packages");
            let text = String::from_utf8(printed.stdout).unwrap();
            let subject = text.lines().find_map(|line| line.trim().strip_prefix("Subject: "));
            assert_eq!(subject, Some(&*ours), "{attribute:?}");
        }
    }
}
