//! A copy has its original's content, and a passphrase of its own.

use std::fs;
use std::process::{Command, Stdio};

use strongroom::volume::{Format, Named, Original, Plan, Reading, Verdict};

use crate::house::{House, SIZE, nothing};
use crate::support::note;

#[test]
fn the_aes_of_old_is_neither_made_nor_proved_nor_changed() {
    let house = House::new();
    let path = house.path("old");
    let key = house.directory.path().join("aes");
    fs::write(&key, "not so secret").unwrap();
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=s", "--object"])
        .arg(format!("secret,id=s,file={}", key.display()))
        .arg(&path)
        .arg("1M")
        .stderr(Stdio::null())
        .status()
        .unwrap();
    if !made.success() {
        return note("this qemu-img no longer makes AES images: what it refuses is not seen");
    }
    let name = format!("driver=qcow2,encrypt.key-secret=s,file.driver=file,file.filename={}", path.display());
    let object = format!("secret,id=s,file={}", key.display());
    let mut write = Command::new("qemu-io");
    write
        .args(["--object", &object, "-c", "write -P 0x5a 0 1M", "--image-opts", &name])
        .stdout(Stdio::null());
    assert!(write.status().unwrap().success());
    let xml = format!("<secret><usage type='volume'><volume>{}</volume></usage></secret>", path.display());
    let secret = house.connection().define_xml(xml, 0).unwrap();
    secret.set_value(b"not so secret").unwrap();
    assert_eq!(house.check(&path), Verdict::Unprovable);
    let error = house.volumes().change_passphrase(&path, None, None, &mut nothing).unwrap_err();
    assert!(error.advice().unwrap().contains("--copy-of"), "{error}");

    let (new, reading) = (house.path("new"), Reading::Encrypted(None));
    let plan =
        Plan { copy_of: Some(Original { path: path.clone(), reading }), ..Plan::new(&new, Format::Qcow2, 0) };
    house.volumes().create(&plan, None, &mut nothing).unwrap();
    assert_eq!(house.check(&new), Verdict::Opens);
    assert_eq!(house.content(&new, Format::Qcow2), [0x5a; 1 << 20]);
}

#[test]
fn a_copy_has_the_originals_content_and_a_passphrase_of_its_own() {
    let house = House::new();
    let content: Vec<_> = (0..3_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let plain = house.path("plain");
    fs::write(&plain, &content).unwrap();
    let mut copied = Original { path: plain.clone(), reading: Reading::Plain(Format::Raw) };
    let mut secrets = Vec::new();
    for (name, format) in [("luks", Format::Raw), ("qcow2", Format::Qcow2), ("again", Format::Raw)] {
        let path = house.path(name);
        let plan = Plan { copy_of: Some(copied), ..Plan::new(&path, format, 0) };
        secrets.push(house.volumes().create(&plan, None, &mut nothing).unwrap().uuid);
        assert_eq!(house.check(&path), Verdict::Opens);
        assert!(house.content(&path, format) == content, "{name}");
        copied = Original { path, reading: Reading::Encrypted(None) };
    }
    assert!(fs::read(&plain).unwrap() == content);
    let values: Vec<_> = secrets.iter().map(|uuid| house.value(*uuid)).collect();
    assert!(values[0] != values[1] && values[1] != values[2]);

    let overlay = house.path("overlay");
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).args([&plain, &overlay]);
    assert!(command.status().unwrap().success());
    for (path, reading, told) in [
        (overlay, Reading::Plain(Format::Qcow2), "only a part of its data"),
        (house.path("luks"), Reading::Plain(Format::Raw), "is encrypted"),
        (plain, Reading::Encrypted(None), "is no encrypted image"),
        (house.path("luks"), Reading::Encrypted(Some(Named::Uuid(secrets[1]))), "doesn't open"),
        (house.path("none"), Reading::Plain(Format::Raw), "No such file"),
        (house.path("copy"), Reading::Plain(Format::Raw), "No such file"),
    ] {
        let copy_of = Some(Original { path, reading });
        let plan = Plan { copy_of, ..Plan::new(house.path("copy"), Format::Raw, 0) };
        let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
        assert!(error.to_string().contains(told), "{told}: {error}");
        assert_eq!(house.connection().num_of_secrets().unwrap(), 3, "{told}");
        assert!(!house.path("copy").exists());
    }
}

#[test]
fn a_raw_disk_that_a_guest_has_encrypted_is_copied_as_it_is() {
    let house = House::new();
    let (theirs, ours) = (house.path("theirs"), house.path("ours"));
    let uuid =
        house.volumes().create(&Plan::new(&theirs, Format::Raw, SIZE), None, &mut nothing).unwrap().uuid;
    let copied = Original { path: theirs.clone(), reading: Reading::Plain(Format::Raw) };
    let plan = Plan { copy_of: Some(copied), ..Plan::new(&ours, Format::Raw, 0) };
    let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
    assert!(error.to_string().ends_with("is encrypted"), "{error}");
    house.connection().lookup_by_uuid(uuid).unwrap().undefine().unwrap();
    house.volumes().create(&plan, None, &mut nothing).unwrap();
    assert!(house.content(&ours, Format::Raw).starts_with(&fs::read(&theirs).unwrap()));
}
