//! A keystore in a directory where libvirt's own driver was: its files stay.

use super::*;
use crate::administration::Finding;

const OTHERS: &str = "33333333-3333-3333-3333-333333333333";

/// What libvirt has left: two secrets, one with a value.
fn libvirts(root: &Path) -> Vec<(String, Vec<u8>)> {
    let etc = root.join("root/etc/secrets");
    fs::create_dir_all(&etc).unwrap();
    let files = vec![
        (format!("{ONE}.xml"), xml(ONE, "ephemeral='no' private='yes'", "theirs").into_bytes()),
        (format!("{ONE}.base64"), b"czNjcmV0".to_vec()),
        (format!("{OTHERS}.xml"), xml(OTHERS, "", "valueless").into_bytes()),
        (format!("{OTHERS}.xml.new"), b"<secret".to_vec()),
    ];
    for (name, contents) in &files {
        fs::write(etc.join(name), contents).unwrap();
    }
    files
}

fn assert_there(root: &Path, files: &[(String, Vec<u8>)]) {
    for (name, contents) in files {
        let found = fs::read(root.join("root/etc/secrets").join(name));
        assert_eq!(found.as_ref().ok(), Some(contents), "{name}");
    }
}

fn orphans(driver: &Driver) -> Vec<String> {
    let orphan = |finding| match finding {
        Finding::Orphan { file } => Some(file),
        _ => None,
    };
    driver.status().findings.into_iter().filter_map(orphan).collect()
}

#[test]
fn libvirts_files_are_kept_and_named_and_not_served() {
    let root = tempfile::tempdir().unwrap();
    let files = libvirts(root.path());
    for _ in 0..3 {
        let driver = driver(root.path());
        let connection = connect(&driver);
        let named = [format!("{ONE}.base64"), format!("{ONE}.xml"), format!("{OTHERS}.xml")];
        assert_eq!(orphans(&driver), named);
        assert!(connection.lookup_by_uuid_string(ONE).is_err());
        connection.define_xml(xml(TWO, "", "ours"), 0).unwrap();
        driver.reload().unwrap();
        assert_there(root.path(), &files);
    }
    // As after kill -9: nothing is closed in order.
    let driver_before = driver(root.path());
    let etc = root.path().join("root/etc/secrets");
    connect(&driver_before).define_xml(xml(TWO, "", "ours"), 0).unwrap();
    let log = fs::read(etc.join("secrets.log")).unwrap();
    drop(driver_before);
    fs::write(etc.join("secrets.log"), log).unwrap();
    fs::remove_file(root.path().join("root/run/secrets/anchor")).unwrap();
    assert_eq!(connect(&driver(root.path())).num_of_secrets().unwrap(), 1);
    assert_there(root.path(), &files);
}

#[test]
fn a_definition_in_our_copys_way_is_set_aside() {
    let root = tempfile::tempdir().unwrap();
    let files = libvirts(root.path());
    let etc = root.path().join("root/etc/secrets");
    let aside = |uuid: &str, contents: &[u8]| {
        assert_eq!(fs::read(etc.join(format!("{uuid}.xml.libvirt"))).unwrap(), contents);
    };
    {
        let connection = open(root.path());
        for uuid in [ONE, OTHERS] {
            let secret = connection.define_xml(xml(uuid, "", uuid), 0).unwrap();
            let copy = etc.join(format!("{uuid}.xml"));
            assert_eq!(fs::read_to_string(&copy).unwrap(), secret.xml_desc().unwrap());
        }
        connection.define_xml(xml(ONE, "private='yes'", ONE), 0).unwrap();
        connection.lookup_by_uuid_string(OTHERS).unwrap().undefine().unwrap();
    }
    for _ in 0..2 {
        let connection = open(root.path());
        assert_eq!(connection.num_of_secrets().unwrap(), 1);
        aside(ONE, &files[0].1);
        aside(OTHERS, &files[2].1);
        assert!(!etc.join(format!("{OTHERS}.xml")).exists());
        assert_there(root.path(), &files[1..2]);
    }
}

#[test]
fn what_libvirt_defines_anew_after_we_deleted_it_is_not_our_stale_copy() {
    let root = tempfile::tempdir().unwrap();
    open(root.path()).define_xml(xml(ONE, "", "a"), 0).unwrap().undefine().unwrap();
    let files = libvirts(root.path());
    for _ in 0..2 {
        assert_eq!(open(root.path()).num_of_secrets().unwrap(), 0);
        assert_there(root.path(), &files);
    }
}

#[test]
fn a_locked_keystore_does_not_list_libvirts_secrets_as_its_own() {
    let root = tempfile::tempdir().unwrap();
    libvirts(root.path());
    drop(driver(root.path()));
    fs::remove_file(root.path().join("host.key")).unwrap();
    let connection = open(root.path());
    let listed: Vec<_> = connection.list_all(0).unwrap().iter().map(Secret::uuid_string).collect();
    assert!(connection.locked().is_some() && !listed.contains(&ONE.to_owned()), "{listed:?}");
}
