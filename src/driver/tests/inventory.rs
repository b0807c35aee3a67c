//! Whole secrets in and out of a driver.

use super::*;
use crate::administration::{Inventory, Put};
use crate::secret::{Definition, Usage};

fn secret(number: u128, usage: &str) -> Definition {
    let usage = match usage {
        "" => Usage::none(),
        id => Usage { kind: UsageType::Ceph, id: id.into() },
    };
    Definition {
        uuid: uuid::Uuid::from_u128(number),
        usage,
        description: None,
        private: true,
        ephemeral: false,
    }
}

fn bytes(text: &[u8]) -> SecretBytes {
    SecretBytes::copy_of(text).unwrap()
}

#[test]
fn a_whole_secret_goes_in_once_and_changes_nothing_that_is_there() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let (one, value, other) = (secret(1, "a"), bytes(b"\0value"), bytes(b"another"));
    assert_eq!(driver.put(&one, Some(&value)), Ok(Put::Added));
    assert_eq!(driver.put(&one, Some(&value)), Ok(Put::Same));
    assert_eq!(driver.put(&one, Some(&other)), Ok(Put::Differs));
    assert_eq!(driver.put(&one, None), Ok(Put::Differs));
    let public = Definition { private: false, ..one.clone() };
    assert_eq!(driver.put(&public, Some(&value)), Ok(Put::Differs));
    assert_eq!(driver.put(&secret(2, "a"), None), Ok(Put::UsageTaken(one.uuid)));
    assert_eq!(driver.put(&secret(3, ""), None), Ok(Put::Added));
    assert_eq!(driver.holds(&one, Some(&value)), Ok(true));
    assert_eq!(driver.holds(&one, Some(&other)), Ok(false));
    assert_eq!(driver.holds(&public, Some(&value)), Ok(false));
    assert_eq!(driver.holds(&secret(3, ""), None), Ok(true));
    assert_eq!(driver.holds(&secret(2, "a"), None), Ok(false));
    let (found, held) = driver.read(one.uuid).unwrap().unwrap();
    assert_eq!((found, held.unwrap().expose_secret()), (one, &b"\0value"[..]));
    assert!(driver.read(uuid::Uuid::from_u128(2)).unwrap().is_none());
}

#[test]
fn what_an_ephemeral_secret_has_is_not_put_in_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    connect(&driver).define_xml(xml(ONE, "ephemeral='yes'", "a"), 0).unwrap();
    let same = Definition { uuid: ONE.parse().unwrap(), ..secret(1, "b") };
    assert_eq!(driver.put(&same, None), Ok(Put::Differs));
    assert_eq!(driver.put(&secret(1, "a"), None), Ok(Put::UsageTaken(same.uuid)));
    let ephemeral = Definition { ephemeral: true, ..secret(1, "c") };
    assert!(driver.put(&ephemeral, None).unwrap_err().to_string().contains("ephemeral"));
    assert!(driver.list(None, 10).unwrap().is_empty());
}

#[test]
fn pages_come_in_order_and_none_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let mut expected = Vec::new();
    for number in 0..100_u128 {
        let secret = secret(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), "");
        driver.put(&secret, None).unwrap();
        expected.push(secret.uuid);
    }
    expected.sort_unstable();
    expected.dedup();
    for max in [1, 7, 1000] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = driver.list(after, max).unwrap();
            assert!(page.len() <= max);
            let Some(last) = page.last() else { break };
            after = Some(*last);
            found.extend(page);
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn a_secret_that_is_put_in_is_announced() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let connection = connect(&driver);
    let mut defined = connection.events(EventKind::Lifecycle, None).unwrap();
    let mut set = connection.events(EventKind::ValueChanged, None).unwrap();
    driver.put(&secret(1, "a"), Some(&bytes(b"x"))).unwrap();
    let event = defined.next().unwrap();
    assert!(matches!(event, Event::Lifecycle(_, Lifecycle::Defined)), "{event:?}");
    assert_eq!(set.next().unwrap().secret().uuid, uuid::Uuid::from_u128(1));
}

#[test]
fn a_locked_keystore_takes_and_gives_no_whole_secrets() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    driver.put(&secret(1, "a"), None).unwrap();
    driver.lock().unwrap();
    let why = driver.list(None, 1).unwrap_err();
    assert!(why.to_string().contains("locked"), "{why}");
    assert_eq!(driver.read(uuid::Uuid::from_u128(1)).unwrap_err(), why);
    assert_eq!(driver.put(&secret(2, ""), None), Err(why.clone()));
    assert_eq!(driver.holds(&secret(1, "a"), None), Err(why));
}
