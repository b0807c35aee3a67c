//! libvirt's rules on a real root, through the connection: what the wire will show, without the wire.

mod beside_libvirt;
mod inventory;
mod keys;
mod locking;
mod rotation;
mod mending;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::{Caller, Driver, Keys, NewStore, Root};
use crate::memory::SecretBytes;
use crate::seal::RecoveryKey;
use crate::secret::{EventKind, Keystore, Lifecycle, ListFlags};
use crate::{Connection, Event, OpenOptions, Secret, UsageType};

const ONE: &str = "11111111-1111-1111-1111-111111111111";
const TWO: &str = "22222222-2222-2222-2222-222222222222";

fn uri(root: &Path) -> String {
    format!("secret:///embed?root={0}/root&key={0}/host.key", root.display())
}

fn open(root: &Path) -> Connection {
    Connection::open(&uri(root)).unwrap()
}

/// The driver itself, for what is not libvirt's API.
fn driver(root: &Path) -> Arc<Driver> {
    let keys = Keys { host_key: Some(root.join("host.key")), ..Keys::default() };
    Driver::open(Root::embed(&root.join("root")).unwrap(), "secret:///system".into(), &keys).unwrap()
}

fn connect(driver: &Arc<Driver>) -> Connection {
    Connection::over(Arc::new(driver.session(Caller::OWNER)))
}

fn xml(uuid: &str, attributes: &str, usage: &str) -> String {
    let usage = match usage {
        "" => String::new(),
        id => format!("<usage type='ceph'><name>{id}</name></usage>"),
    };
    format!("<secret {attributes}><uuid>{uuid}</uuid>{usage}</secret>")
}

fn value(secret: &Secret) -> Vec<u8> {
    secret.value().unwrap().expose_secret().to_vec()
}

#[test]
fn a_secret_survives_reopening() {
    let root = tempfile::tempdir().unwrap();
    let secret = open(root.path()).define_xml(xml(ONE, "", "a"), 0).unwrap();
    secret.set_value(b"s3cret").unwrap();
    assert_eq!(value(&secret), b"s3cret");
    drop(secret);
    let connection = open(root.path());
    let secret = connection.lookup_by_usage(UsageType::Ceph, "a").unwrap();
    assert_eq!((secret.uuid_string().as_str(), value(&secret)), (ONE, b"s3cret".to_vec()));
    assert_eq!(connection.num_of_secrets().unwrap(), 1);
    let copy = fs::read_to_string(root.path().join(format!("root/etc/secrets/{ONE}.xml"))).unwrap();
    assert_eq!(copy, secret.xml_desc().unwrap());
}

#[test]
fn codes_domains_and_texts_are_libvirts() {
    let root = tempfile::tempdir().unwrap();
    let connection = open(root.path());
    let error = connection.lookup_by_uuid_string(ONE).unwrap_err();
    assert_eq!((error.code().number(), error.domain().number()), (66, 30));
    let secret = connection.define_xml(xml(ONE, "", "a"), 0).unwrap();
    assert_eq!(
        secret.value().unwrap_err().to_string(),
        format!("Secret not found: secret '{ONE}' does not have a value")
    );
    assert_eq!(secret.set_value(b"").unwrap_err().code().number(), 8);
    assert_eq!(secret.set_value(&[0; 65_537]).unwrap_err().code().number(), 8);
    assert_eq!(connection.define_xml(xml(TWO, "", "a"), 0).unwrap_err().code().number(), 1);
    assert_eq!(
        connection.define_xml(xml(ONE, "", "a"), 2).unwrap_err().to_string(),
        "unsupported flags (0x2) in function secretDefineXML"
    );
    assert_eq!(
        connection.list_all(0x30).unwrap_err().to_string(),
        "unsupported flags (0x30) in function secretConnectListAllSecrets"
    );
}

#[test]
fn a_redefinition_keeps_the_value() {
    let root = tempfile::tempdir().unwrap();
    let connection = open(root.path());
    let secret = connection.define_xml(xml(ONE, "", "a"), 0).unwrap();
    secret.set_value(b"kept").unwrap();
    let document = format!(
        "<secret><uuid>{ONE}</uuid><description>d</description><usage type='tls'><name>a</name></usage></secret>"
    );
    connection.define_xml(document, 0).unwrap();
    assert!(connection.lookup_by_usage(UsageType::Ceph, "a").is_err());
    assert_eq!(value(&connection.lookup_by_usage(UsageType::Tls, "a").unwrap()), b"kept");
}

#[test]
fn a_private_value_is_given_on_an_explicit_call_only() {
    let root = tempfile::tempdir().unwrap();
    let connection = open(root.path());
    let secret = connection.define_xml(xml(ONE, "private='yes'", ""), 0).unwrap();
    secret.set_value(b"p").unwrap();
    let error = secret.value().unwrap_err();
    assert_eq!(
        (error.code().number(), error.to_string().as_str()),
        (65, "Invalid secret: secret is private")
    );
    assert_eq!(value(&connection.elevated().unwrap().lookup_by_uuid(secret.uuid()).unwrap()), b"p");
    assert!(secret.value().is_err(), "the ordinary connection stays ordinary");
}

#[test]
fn an_ephemeral_secret_never_reaches_the_disk_and_moves_both_ways() {
    let root = tempfile::tempdir().unwrap();
    let connection = open(root.path());
    let log = root.path().join("root/etc/secrets/secrets.log");
    let before = fs::read(&log).unwrap();
    let secret = connection.define_xml(xml(ONE, "ephemeral='yes'", "a"), 0).unwrap();
    secret.set_value(b"e").unwrap();
    assert_eq!(fs::read(&log).unwrap(), before);
    assert_eq!(value(&secret), b"e");

    connection.define_xml(xml(ONE, "", "a"), 0).unwrap();
    assert_eq!((value(&secret), connection.num_of_secrets().unwrap()), (b"e".to_vec(), 1));
    let copy = root.path().join(format!("root/etc/secrets/{ONE}.xml"));
    assert!(copy.exists());

    connection.define_xml(xml(ONE, "ephemeral='yes'", "a"), 0).unwrap();
    assert_eq!((value(&secret), connection.num_of_secrets().unwrap()), (b"e".to_vec(), 1));
    assert!(!copy.exists(), "libvirt leaves it behind; we must not");
    drop((connection, secret));
    assert_eq!(open(root.path()).num_of_secrets().unwrap(), 0);
}

#[test]
fn lists_filter_as_libvirts_do() {
    let root = tempfile::tempdir().unwrap();
    let connection = open(root.path());
    for (at, attributes) in
        ["", "private='yes'", "ephemeral='yes'", "ephemeral='yes' private='yes'"].iter().enumerate()
    {
        let uuid = format!("{at}0000000-0000-0000-0000-000000000000");
        connection.define_xml(xml(&uuid, attributes, ""), 0).unwrap();
    }
    for flags in 0..16_u32 {
        let side = |yes: u32, no: u32| match (flags & yes != 0, flags & no != 0) {
            (true, false) | (false, true) => 1,
            _ => 2,
        };
        let expected = side(ListFlags::EPHEMERAL, ListFlags::NO_EPHEMERAL)
            * side(ListFlags::PRIVATE, ListFlags::NO_PRIVATE);
        assert_eq!(connection.list_all(flags).unwrap().len(), expected, "flags {flags:x}");
    }
    assert_eq!(connection.list_secrets(3).unwrap().len(), 3);
}

#[test]
fn events_tell_what_happened() {
    let root = tempfile::tempdir().unwrap();
    let connection = open(root.path());
    let lifecycle = connection.events(EventKind::Lifecycle, None).unwrap();
    let changed = connection.events(EventKind::ValueChanged, None).unwrap();
    let secret = connection.define_xml(xml(ONE, "", "a"), 0).unwrap();
    secret.set_value(b"x").unwrap();
    secret.undefine().unwrap();
    let next = |events: &crate::Events| events.next_within(std::time::Duration::ZERO);
    assert!(matches!(next(&lifecycle), Some(Event::Lifecycle(_, Lifecycle::Defined))));
    assert!(
        matches!(next(&lifecycle), Some(Event::Lifecycle(handle, Lifecycle::Undefined)) if &*handle.usage.id == "a")
    );
    assert!(matches!(next(&changed), Some(Event::ValueChanged(handle)) if handle.uuid == secret.uuid()));
    assert_eq!(next(&changed), None);
}

#[test]
fn a_lost_key_locks_the_keystore_but_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let secret = open(root.path()).define_xml(xml(ONE, "", "a"), 0).unwrap();
    secret.set_value(b"x").unwrap();
    drop(secret);
    let (key, away) = (root.path().join("host.key"), root.path().join("away"));
    fs::rename(&key, &away).unwrap();
    {
        let connection = open(root.path());
        let listed = connection.lookup_by_usage(UsageType::Ceph, "a").unwrap();
        assert!(listed.xml_desc().unwrap().contains("<name>a</name>"));
        let error = listed.value().unwrap_err();
        assert!(error.to_string().contains("locked") && error.to_string().contains("no key file"), "{error}");
        assert!(error.advice().unwrap().contains("host key"));
        assert!(listed.undefine().is_err() && listed.set_value(b"y").is_err());
        let ephemeral = connection.define_xml(xml(TWO, "ephemeral='yes'", "b"), 0).unwrap();
        ephemeral.set_value(b"works").unwrap();
        assert_eq!(value(&ephemeral), b"works");
        assert!(!key.exists(), "a lost key is not replaced");
    }
    fs::rename(&away, &key).unwrap();
    assert_eq!(value(&open(root.path()).lookup_by_uuid_string(ONE).unwrap()), b"x");
}

#[test]
fn a_recovery_key_and_a_passphrase_open_what_the_host_key_no_longer_does() {
    let root = tempfile::tempdir().unwrap();
    let recovery = RecoveryKey::random().unwrap();
    let text = recovery.text().unwrap();
    let passphrase = || Some(SecretBytes::copy_of(b"open sesame").unwrap());
    let place = Root::embed(&root.path().join("root")).unwrap();
    let keys = Keys { host_key: Some(root.path().join("host.key")), ..Keys::default() };
    let new = NewStore { passphrase: passphrase(), recovery_key: Some(recovery), ..NewStore::default() };
    Driver::init(&place, &keys, &new).unwrap();
    assert!(Driver::init(&place, &keys, &NewStore::default()).unwrap_err().to_string().contains("already"));
    fs::remove_file(root.path().join("host.key")).unwrap();
    let open =
        |options| Connection::open_with(&uri(root.path()), options).unwrap().define_xml(xml(ONE, "", ""), 0);
    assert!(open(OpenOptions::default()).is_err());
    let wrong =
        OpenOptions { passphrase: Some(SecretBytes::copy_of(b"open barley").unwrap()), ..Default::default() };
    assert!(open(wrong).unwrap_err().to_string().contains("wrong passphrase"));
    open(OpenOptions { passphrase: passphrase(), ..Default::default() }).unwrap();
    open(OpenOptions { recovery_key: Some(text), ..Default::default() }).unwrap();
}

#[test]
fn a_root_is_opened_once() {
    let root = tempfile::tempdir().unwrap();
    let _open = open(root.path());
    let error = Connection::open(&uri(root.path())).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
}

#[test]
fn connections_are_shared_by_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Connection>();
    is_shared::<Secret>();
    let root = tempfile::tempdir().unwrap();
    let connection = open(root.path());
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let connection = connection.clone();
            scope.spawn(move || {
                for round in 0..10_u8 {
                    let uuid = format!("{thread:02x}{round:02x}0000-0000-0000-0000-000000000000");
                    let secret = connection.define_xml(xml(&uuid, "", &uuid), 0).unwrap();
                    secret.set_value(&[thread, round]).unwrap();
                    assert_eq!(value(&secret), [thread, round]);
                    if round % 3 == 0 {
                        secret.undefine().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(connection.num_of_secrets().unwrap(), 8 * 6);
}

#[test]
fn a_session_that_changes_its_caller_keeps_its_subscriptions() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let client = Caller { read_only: false, elevated: false, owner: false };
    let plain = driver.session(client);
    let subscribe = |session: &super::Session| {
        session.subscribe(EventKind::Lifecycle, None, Box::new(|_| {})).map(|subscription| subscription.id())
    };
    let kept = plain.subscribe(EventKind::Lifecycle, None, Box::new(|_| {})).unwrap();
    let elevated = plain.with_caller(Caller { elevated: true, ..client });
    assert_eq!(
        subscribe(&elevated).unwrap_err().to_string(),
        "invalid argument: event callback already tracked"
    );
    assert!(subscribe(&driver.session(client)).is_ok(), "another connection may");
    drop(kept);

    let uuid = plain.define_xml(xml(ONE, "private='yes'", "").as_bytes(), 0).unwrap().uuid;
    plain.set_value(uuid, SecretBytes::copy_of(b"p").unwrap(), 0).unwrap();
    assert!(plain.value(uuid, 0).is_err());
    assert_eq!(elevated.value(uuid, 0).unwrap().expose_secret(), b"p");
    assert!(elevated.with_caller(client).value(uuid, 0).is_err(), "and back");
}
