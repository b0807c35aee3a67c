//! Every form in which libvirt's descriptions name secrets, from `tests/data/references`; and how references stand.
//!
//! Each document there ends in a comment that says what is to be found in it, line by line.

use std::path::Path;

use super::*;
use crate::Connection;
use crate::conf::Conf;

/// A description as the comments have it.
fn told(description: &Description) -> String {
    let Description { kind, name, references, encryptions, pooled, tls, faults } = description;
    let mut lines = vec![name.as_ref().map_or_else(|| (*kind).to_owned(), |name| format!("{kind} '{name}'"))];
    lines.extend(references.iter().map(|Reference { place, wants, takes, named }| {
        let secret = match named {
            Named::Uuid(uuid) => uuid.to_string(),
            Named::Usage(id) => format!("'{id}'"),
        };
        // Where it goes without saying it isn't said.
        let takes = match (wants, takes) {
            (UsageType::Volume | UsageType::Iscsi | UsageType::Tls, Takes::Bytes) => " | bytes",
            (UsageType::Ceph | UsageType::Vtpm, Takes::Text) => " | text",
            _ => "",
        };
        format!("{place} | {} | {secret}{takes}", wants.name())
    }));
    lines.extend(encryptions.iter().map(|it| format!("{}: {}", it.format.name(), it.place)));
    lines.extend(pooled.iter().map(|it| format!("pool '{}': {}", it.pool, it.place)));
    lines.extend(tls.iter().map(|place| format!("tls: {place}")));
    lines.extend(faults.iter().map(|fault| format!("fault: {}: {}", fault.place, fault.text)));
    lines.join("\n")
}

#[test]
fn every_form_is_found_where_it_stands() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/references");
    let mut kinds = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let (_, expected) = text.split_once("<!-- expect\n").unwrap();
        let description = Description::from_xml(text.as_bytes()).unwrap();
        assert_eq!(told(&description), expected.trim_end_matches("\n-->\n"), "{}", file.display());
        kinds.push(description.kind);
    }
    for (kind, _) in KINDS {
        assert!(kinds.contains(&kind), "no example of a <{kind}>");
    }
}

#[test]
fn the_secrets_of_an_encryption_stand_beside_it() {
    let xml = "<volume><target><encryption format='luks'><secret type='passphrase' usage='/a'/></encryption>\
               </target></volume>";
    let description = Description::from_xml(xml.as_bytes()).unwrap();
    let secrets = vec![Named::Usage("/a".to_owned())];
    let encryption = Encryption { place: "volume".to_owned(), format: Format::Luks, secrets };
    assert_eq!(description.encryptions, [encryption]);
}

#[test]
fn other_documents_are_refused() {
    for (xml, code) in [
        ("<network><name>default</name></network>", ErrorCode::XmlError),
        ("<secret/>", ErrorCode::XmlError),
        ("<domain xmlns='urn:example'/>", ErrorCode::XmlError),
        ("", ErrorCode::XmlDetail),
        ("<domain>", ErrorCode::XmlDetail),
        ("<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>", ErrorCode::XmlDetail),
        ("<domain><name>&boom;</name></domain>", ErrorCode::XmlDetail),
    ] {
        assert_eq!(Description::from_xml(xml.as_bytes()).unwrap_err().code(), code, "{xml}");
    }
}

#[test]
fn qemus_configuration_names_the_secrets_of_tls_keys() {
    let conf = "default_tls_x509_secret_uuid = \"00000001-5678-4abc-8def-0123456789ab\"\n\
                # vnc_tls_x509_secret_uuid = \"00000002-5678-4abc-8def-0123456789ab\"\n\
                migrate_tls_x509_secret_uuid = \"any\"\n\
                nbd_tls_x509_secret_uuid = 1\n\
                default_tls_x509_secret_uuid = \"00000003-5678-4abc-8def-0123456789ab\"\n\
                default_tls_x509_cert_dir = \"/etc/pki/qemu\"\n";
    let conf = Conf::parse(Path::new("qemu.conf"), conf.as_bytes()).unwrap();
    let expected = "configuration\n\
                    default_tls_x509_secret_uuid | tls | 00000001-5678-4abc-8def-0123456789ab\n\
                    fault: migrate_tls_x509_secret_uuid: malformed TLS secret uuid 'any' provided\n\
                    fault: nbd_tls_x509_secret_uuid: qemu.conf: expected a string for \
                    'nbd_tls_x509_secret_uuid' parameter";
    assert_eq!(told(&Description::from_conf(&conf)), expected);
}

fn by_usage(wants: UsageType, id: &str) -> Reference {
    Reference { place: "here".to_owned(), wants, takes: Takes::Text, named: Named::Usage(id.to_owned()) }
}

#[test]
fn a_reference_stands_as_what_uses_it_would_find_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().display();
    let connection = Connection::open(&format!("secret:///embed?root={root}&key={root}/host.key")).unwrap();
    let define = |xml: &str| connection.define_xml(xml, 0).unwrap();
    let ready = define("<secret><usage type='volume'><volume>/a</volume></usage></secret>");
    ready.set_value(b"value").unwrap();
    define("<secret><usage type='ceph'><name>b</name></usage></secret>");
    let of_none = define("<secret/>");
    of_none.set_value(b"value").unwrap();
    let private = define("<secret private='yes'><usage type='vtpm'><name>c</name></usage></secret>");
    private.set_value(b"value").unwrap();

    let by_uuid = |wants, uuid| Reference { named: Named::Uuid(uuid), ..by_usage(wants, "") };
    let plain = connection.keystore();
    let standing = |reference: Reference| reference.standing(&*plain);
    assert_eq!(standing(by_usage(UsageType::Volume, "/a")), Standing::Ready);
    assert_eq!(standing(by_uuid(UsageType::Volume, ready.uuid())), Standing::Ready);
    assert_eq!(standing(by_uuid(UsageType::Tls, of_none.uuid())), Standing::Ready);
    assert_eq!(standing(by_usage(UsageType::Ceph, "b")), Standing::NoValue);
    assert_eq!(standing(by_usage(UsageType::Ceph, "nobody")), Standing::Missing);
    assert_eq!(standing(by_uuid(UsageType::Ceph, Uuid::nil())), Standing::Missing);
    assert_eq!(standing(by_usage(UsageType::Iscsi, "b")), Standing::OtherUsage(UsageType::Ceph));
    assert_eq!(standing(by_uuid(UsageType::Vtpm, ready.uuid())), Standing::OtherUsage(UsageType::Volume));
    assert_eq!(standing(by_usage(UsageType::Vtpm, "c")), Standing::Untold(Error::private()));
    let elevated = plain.elevated().unwrap();
    assert_eq!(by_usage(UsageType::Vtpm, "c").standing(&*elevated), Standing::Ready);
}

#[test]
fn a_value_that_its_user_refuses_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().display();
    let connection = Connection::open(&format!("secret:///embed?root={root}&key={root}/host.key")).unwrap();
    let define = |usage: &str| connection.define_xml(format!("<secret><usage {usage}</usage></secret>"), 0);
    let passphrase = define("type='volume'><volume>/a</volume>").unwrap();
    let key = define("type='ceph'><name>a</name>").unwrap();
    let keystore = connection.keystore();

    let standing = |wants, takes| Reference { takes, ..by_usage(wants, id(wants)) }.standing(&*keystore);
    for (value, unfit) in [
        (&b"words, umlauts: \xC3\xBC\n"[..], None),
        (b"\xFF\x01", Some("UTF-8")),
        (b"latin-1: \xFC", Some("UTF-8")),
        (b"a\0b", Some("NUL")),
    ] {
        passphrase.set_value(value).unwrap();
        assert_eq!(standing(UsageType::Volume, Takes::Bytes), Standing::Ready, "{value:?}");
        match (standing(UsageType::Volume, Takes::Text), unfit) {
            (Standing::Ready, None) => {}
            (Standing::Unfit(why), Some(word)) => assert!(why.contains(word), "{why}"),
            (other, _) => panic!("{value:?}: {other:?}"),
        }
    }
    let mut bytes = [7; 28];
    bytes[..2].copy_from_slice(&[1, 0]);
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes);
    for (value, fit) in [
        (&bytes[..], true),
        (text.as_bytes(), false),
        (format!("{text}\n").as_bytes(), false),
        (b"AQ==", true),
    ] {
        key.set_value(value).unwrap();
        assert_eq!(standing(UsageType::Ceph, Takes::Bytes) == Standing::Ready, fit, "{value:?}");
    }
}

fn id(wants: UsageType) -> &'static str {
    if wants == UsageType::Volume { "/a" } else { "a" }
}
