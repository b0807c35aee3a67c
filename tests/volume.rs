//! Volumes with their secrets, by real images: made, proved, changed, removed; killed at every step; and no trace of a
//! passphrase.
//!
//! Leans on qemu-img, on `support` for the second process that is killed, and on its markers. LUKS' key derivation is made
//! quick, and where hundreds of images are made qemu-img's look at how quick the machine is, too (`hasty_clock.c`).

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use strongroom::memory::SecretBytes;
use strongroom::secret::{EventSink, Subscription};
use strongroom::volume::{
    Format, Named, Original, Orphan, Plan, Preallocation, Progress, Reading, Removal, Step, Verdict, Volumes,
};
use strongroom::{Connection, Embedded, Error, ErrorCode, EventKind, Handle, Keystore, UsageType};
use support::markers::Needles;
use support::{Dice, Place, files_below, note, say};

const FORMATS: [Format; 2] = [Format::Raw, Format::Qcow2];

#[test]
fn a_volume_is_made_proved_changed_and_removed_with_its_secret() {
    for format in FORMATS {
        let house = House::unhurried();
        let (volumes, path) = (house.volumes(), house.path("a,b\\\"=c.img"));
        let created = volumes.create(&Plan::new(&path, format, SIZE), None, &mut nothing).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let element = format!(
            "<encryption format='luks'>\n  <secret type='passphrase' uuid='{}'/>\n</encryption>\n",
            created.uuid
        );
        assert_eq!(created.encryption(), element);
        let secret = house.connection().lookup_by_usage(UsageType::Volume, path.to_str().unwrap()).unwrap();
        let xml = secret.xml_desc().unwrap();
        assert!(
            xml.starts_with("<secret ephemeral='no' private='yes'>") && !xml.contains("unfinished"),
            "{xml}"
        );
        assert_eq!(house.check(&path), Verdict::Opens);

        let first = created.passphrase.unwrap();
        let changed = volumes.change_passphrase(&path, None, None, &mut nothing).unwrap();
        assert_eq!((changed.uuid, changed.was_begun), (created.uuid, false));
        assert_eq!(house.check(&path), Verdict::Opens);
        assert_ne!(house.value(created.uuid), first.expose_secret());
        assert_eq!(house.connection().num_of_secrets().unwrap(), 1);
        // The old passphrase opens it no more.
        house.connection().lookup_by_uuid(created.uuid).unwrap().set_value(first.expose_secret()).unwrap();
        assert_eq!(house.check(&path), Verdict::DoesNot);

        let force = Removal { unproved: true, gone: false };
        let deleted = volumes.delete(&path, force, &mut nothing).unwrap();
        assert!(deleted.image && deleted.uuid == created.uuid);
        house.is_empty();
    }
}

#[test]
fn a_secret_that_was_named_is_used_and_never_undefined() {
    for format in FORMATS {
        let house = House::new();
        let path = house.path("disk");
        let xml = "<secret><usage type='volume'><volume>/elsewhere</volume></usage></secret>";
        let secret = house.connection().define_xml(xml, 0).unwrap();
        let plan = Plan { secret: Some(Named::Usage("/elsewhere".into())), ..Plan::new(&path, format, SIZE) };
        let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NoSecret, "{error}");
        secret.set_value("pässwort, with\nall".as_bytes()).unwrap();
        let broken = house.volumes().by_program("false").create(&plan, None, &mut nothing).unwrap_err();
        assert!(broken.to_string().contains("cannot make"), "{broken}");
        let created = house.volumes().create(&plan, None, &mut nothing).unwrap();
        assert!(created.passphrase.is_none() && created.uuid == secret.uuid());
        let by_uuid = Named::Uuid(secret.uuid());
        assert_eq!(house.volumes().check(&path, Some(&by_uuid)).unwrap().verdict, Verdict::Opens);
        assert_eq!(house.volumes().check(&path, None).unwrap_err().code(), ErrorCode::NoSecret);
        assert_eq!(
            house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap_err().code(),
            ErrorCode::NoSecret
        );
        house.volumes().change_passphrase(&path, Some(&by_uuid), None, &mut nothing).unwrap();
        assert_eq!(house.volumes().check(&path, Some(&by_uuid)).unwrap().verdict, Verdict::Opens);
        assert_eq!(house.connection().num_of_secrets().unwrap(), 1);
    }
}

#[test]
fn what_is_there_is_replaced_only_when_told_and_keeps_its_secret() {
    let house = House::new();
    let path = house.path("disk");
    fs::write(&path, "precious").unwrap();
    let plan = Plan::new(&path, Format::Raw, SIZE);
    let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
    assert!(error.to_string().ends_with("exists") && error.advice().is_some(), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(house.connection().num_of_secrets().unwrap(), 0);
    let plan = Plan { replace: true, ..plan };
    let first = house.volumes().create(&plan, None, &mut nothing).unwrap();
    let second = house.volumes().create(&Plan { format: Format::Qcow2, ..plan }, None, &mut nothing).unwrap();
    assert_eq!((second.uuid, second.passphrase.is_none()), (first.uuid, true));
    assert_eq!(house.check(&path), Verdict::Opens);
    fs::remove_file(&path).unwrap();
    let error = house.volumes().create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap_err();
    assert!(error.to_string().contains("is for"), "{error}");
}

#[test]
fn a_failure_leaves_neither_image_nor_secret() {
    let house = House::new();
    for program in ["false", "/nonexistent/qemu-img", "true"] {
        let volumes = house.volumes().by_program(program);
        let path = house.path("disk");
        let made = volumes.create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing);
        if program == "true" {
            // One that lies about its success: the volume is there, and check finds it out.
            made.unwrap();
            assert!(
                house.volumes().check(&path, None).unwrap_err().to_string().contains("no encrypted image")
            );
            continue;
        }
        let error = made.unwrap_err();
        assert!(
            error.to_string().starts_with("cannot run") || error.code() == ErrorCode::OperationFailed,
            "{error}"
        );
        house.is_empty();
    }
}

#[test]
fn an_image_in_use_is_checked_but_neither_changed_nor_removed() {
    let house = House::new();
    let path = house.path("disk");
    let volumes = house.volumes();
    let uuid = volumes.create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap().uuid;
    let mut user = Command::new("qemu-io")
        .args(["-f", "raw"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its prompt comes when it has the image.
    std::io::Read::read_exact(user.stdout.as_mut().unwrap(), &mut [0; 4]).unwrap();
    let before = house.value(uuid);
    assert_eq!(house.check(&path), Verdict::Opens);
    for error in [
        volumes.change_passphrase(&path, None, None, &mut nothing).unwrap_err(),
        volumes.delete(&path, Removal::default(), &mut nothing).unwrap_err(),
        volumes
            .create(&Plan { replace: true, ..Plan::new(&path, Format::Raw, SIZE) }, None, &mut nothing)
            .unwrap_err(),
    ] {
        assert!(
            error.advice().is_some_and(|advice| advice.contains("in use")),
            "{error} {:?}",
            error.advice()
        );
    }
    assert_eq!(house.value(uuid), before);
    assert_eq!(house.connection().num_of_secrets().unwrap(), 1, "a note stayed");
    drop(user.stdin.take());
    user.wait().unwrap();
    volumes.change_passphrase(&path, None, None, &mut nothing).unwrap();
    assert_eq!(house.check(&path), Verdict::Opens);
}

#[test]
fn allocating_a_volume_tells_how_far_it_is() {
    let house = House::new();
    for (name, format) in [("raw", Format::Raw), ("qcow2", Format::Qcow2)] {
        let plan =
            Plan { preallocation: Preallocation::Full, ..Plan::new(house.path(name), format, 64 << 20) };
        let mut last = None;
        house
            .volumes()
            .create(&plan, None, &mut |progress| {
                if let Progress::Bytes { done, total } = progress {
                    assert!(done <= total && total == 64 << 20);
                    last = Some(done);
                }
            })
            .unwrap();
        note(&format!("{name}: last told of {last:?} bytes"));
        assert_eq!(house.check(&house.path(name)), Verdict::Opens);
    }
}

#[test]
fn an_ephemeral_secret_is_on_no_disk_and_ends_with_its_keystore() {
    let house = House::new();
    let path = house.path("disk");
    let embedded = house.place.open();
    let volumes = Volumes::over(embedded.keystore()).iterating(QUICK);
    let plan = Plan { ephemeral: true, ..Plan::new(&path, Format::Qcow2, SIZE) };
    let created = volumes.create(&plan, None, &mut nothing).unwrap();
    assert_eq!(volumes.check(&path, None).unwrap().verdict, Verdict::Opens);
    let error = volumes.change_passphrase(&path, None, None, &mut nothing).unwrap_err();
    assert!(error.advice().unwrap().contains("--passphrase-to-fd"), "{error}");
    let mut taken: Vec<u8> = Vec::new();
    let mut take = |passphrase: &SecretBytes| {
        // The old one is still good.
        assert_eq!(volumes.check(&path, None).unwrap().verdict, Verdict::Opens);
        taken.extend(passphrase.expose_secret());
        Ok(())
    };
    volumes.change_passphrase(&path, None, Some(&mut take), &mut nothing).unwrap();
    let kept = {
        let elevated = Connection::over(embedded.keystore()).elevated().unwrap();
        elevated.lookup_by_uuid(created.uuid).unwrap().value().unwrap()
    };
    assert_eq!(taken, kept.expose_secret());
    drop((volumes, embedded));
    assert_eq!(house.connection().num_of_secrets().unwrap(), 0);
    let mut needles = Needles::new();
    needles.add("the first passphrase", created.passphrase.unwrap().expose_secret());
    needles.add("the second passphrase", kept.expose_secret());
    for file in files_below(house.directory.path()) {
        assert_eq!(needles.in_file(&file), [""; 0]);
    }
    // Who kept the passphrase opens the volume by a secret made by hand.
    let xml = format!("<secret><usage type='volume'><volume>{}</volume></usage></secret>", path.display());
    house.connection().define_xml(xml, 0).unwrap();
    let uuid = house.connection().lookup_by_usage(UsageType::Volume, path.to_str().unwrap()).unwrap().uuid();
    house.connection().lookup_by_uuid(uuid).unwrap().set_value(kept.expose_secret()).unwrap();
    assert_eq!(house.check(&path), Verdict::Opens);
}

#[test]
fn no_passphrase_is_in_arguments_environment_or_files() {
    let house = House::unhurried();
    let seen = house.directory.path().join("seen");
    fs::create_dir(&seen).unwrap();
    let wrapper = house.directory.path().join("qemu-img");
    let script = format!(
        "#!/bin/sh\nd=$(mktemp -d {0}/XXXXXX)\ncp /proc/$$/cmdline /proc/$$/environ \"$d\"\nenv > \"$d/env\"\nprintf '%s\\n' \"$@\" > \"$d/words\"\n\
         exec qemu-img \"$@\"\n",
        seen.display()
    );
    write_program(&wrapper, &script);
    let mut needles = Needles::new();
    for (name, format) in [("raw", Format::Raw), ("qcow2", Format::Qcow2)] {
        let volumes = house.volumes().by_program(&wrapper);
        let path = house.path(name);
        let created = volumes.create(&Plan::new(&path, format, SIZE), None, &mut nothing).unwrap();
        needles
            .add_written(&format!("{name}: the first"), created.passphrase.as_ref().unwrap().expose_secret());
        volumes.change_passphrase(&path, None, None, &mut nothing).unwrap();
        needles.add_written(&format!("{name}: the second"), &house.value(created.uuid));
        assert_eq!(volumes.check(&path, None).unwrap().verdict, Verdict::Opens);
    }
    let files = files_below(house.directory.path());
    assert!(files.iter().filter(|file| file.ends_with("cmdline")).count() >= 10, "the wrapper was not run");
    for file in &files {
        assert_eq!(needles.in_file(file), [""; 0]);
    }
    let mut words =
        files.iter().filter(|file| file.ends_with("words")).map(|file| fs::read_to_string(file).unwrap());
    assert!(words.all(|words| words.contains("file=/dev/fd/0")));
    // The control: what a needle looks like in a file is found.
    let planted = house.directory.path().join("planted");
    let secret =
        house.connection().lookup_by_usage(UsageType::Volume, house.path("raw").to_str().unwrap()).unwrap();
    fs::write(&planted, house.value(secret.uuid())).unwrap();
    assert!(!needles.in_file(&planted).is_empty());
}

#[test]
fn halves_without_their_other_halves_are_listed() {
    let house = House::new();
    let [gone, alone, whole] = ["gone", "alone", "whole"].map(|name| house.path(name));
    let volumes = house.volumes();
    let lost = volumes.create(&Plan::new(&gone, Format::Raw, SIZE), None, &mut nothing).unwrap().uuid;
    fs::remove_file(&gone).unwrap();
    let left = volumes.create(&Plan::new(&alone, Format::Qcow2, SIZE), None, &mut nothing).unwrap().uuid;
    house.connection().lookup_by_uuid(left).unwrap().undefine().unwrap();
    volumes.create(&Plan::new(&whole, Format::Raw, SIZE), None, &mut nothing).unwrap();
    fs::write(house.path("plain"), [0; 1000]).unwrap();
    fs::write(house.path(".new.strongroom-0123abcd"), "").unwrap();
    let orphans = volumes.orphans(&[]).unwrap();
    assert_eq!(
        orphans,
        [
            Orphan::Unnamed { path: house.path(".new.strongroom-0123abcd") },
            Orphan::Volume { path: alone },
            Orphan::Secret { uuid: lost, path: gone.clone() },
        ]
    );
    // The secret of a volume that is gone is removed by the volume's name.
    let error = volumes.delete(&gone, Removal::default(), &mut nothing).unwrap_err();
    assert!(
        error.to_string().ends_with("isn't there") && error.advice().unwrap().contains("--gone"),
        "{error}"
    );
    assert!(!volumes.delete(&gone, GONE, &mut nothing).unwrap().image);
    assert_eq!(volumes.orphans(&[]).unwrap().len(), 2);
}

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
        (house.path("copy"), Reading::Plain(Format::Raw), "a copy of itself"),
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
fn an_image_that_names_a_file_of_the_hosts_is_left_alone() {
    let house = House::new();
    let (path, outside) = (house.path("disk"), house.directory.path().join("outside"));
    let uuid =
        house.volumes().create(&Plan::new(&path, Format::Qcow2, SIZE), None, &mut nothing).unwrap().uuid;
    fs::write(&outside, [0x5a; 4096]).unwrap();
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-o"])
        .arg(format!("data_file={},data_file_raw=on", outside.display()))
        .args([&house.path("evil"), Path::new("4096")])
        .status();
    assert!(made.unwrap().success());
    fs::write(&outside, [0x5a; 4096]).unwrap();
    let copy_of = |format| {
        let copied = Original { path: house.path("evil"), reading: Reading::Plain(format) };
        Plan { copy_of: Some(copied), ..Plan::new(house.path("copy"), Format::Raw, 0) }
    };
    let error = house.volumes().create(&copy_of(Format::Qcow2), None, &mut nothing).unwrap_err();
    assert!(error.to_string().contains("keeps its data in another file"), "{error}");
    house.volumes().create(&copy_of(Format::Raw), None, &mut nothing).unwrap(); // its bytes, whatever they say
    // The volume's own header is changed to say so.
    let mut image = fs::read(&path).unwrap();
    image[79] |= 4;
    fs::write(&path, image).unwrap();
    for error in [
        house.volumes().check(&path, None).unwrap_err(),
        house.volumes().change_passphrase(&path, None, None, &mut nothing).unwrap_err(),
        house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap_err(),
    ] {
        assert!(error.to_string().contains("keeps its data in another file"), "{error}");
    }
    assert!(path.exists() && !house.value(uuid).is_empty());
    assert_eq!(fs::read(&outside).unwrap(), [0x5a; 4096]);
}

#[test]
fn links_and_what_is_no_file_are_refused_at_once() {
    let house = House::new();
    let [path, link, pipe] = ["disk", "link", "pipe"].map(|name| house.path(name));
    house.volumes().create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for it in [&link, &pipe, &house.path("../volumes/disk")] {
        for error in [
            house.volumes().check(it, None).unwrap_err(),
            house.volumes().change_passphrase(it, None, None, &mut nothing).unwrap_err(),
        ] {
            let said = error.to_string();
            assert!(
                said.contains("is no ordinary file") || said.contains("can't be a volume's path"),
                "{said}"
            );
        }
    }
    assert!(house.volumes().orphans(&[house.path("")]).unwrap().is_empty());
    let copy_of = Some(Original { path: pipe, reading: Reading::Plain(Format::Raw) });
    let plan = Plan { copy_of, ..Plan::new(house.path("copy"), Format::Raw, 0) };
    assert!(
        house.volumes().create(&plan, None, &mut nothing).unwrap_err().to_string().contains("ordinary file")
    );
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

#[test]
fn a_passphrase_is_handed_over_before_the_volume_is_there_or_nothing_is_made() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan { ephemeral: true, ..Plan::new(&path, Format::Raw, SIZE) };
    let mut broken = |_: &SecretBytes| Err(Error::failed("nobody reads"));
    let error = house.volumes().create(&plan, Some(&mut broken), &mut nothing).unwrap_err();
    assert!(error.to_string().contains("nobody reads"), "{error}");
    house.is_empty();
    let mut taken: Vec<u8> = Vec::new();
    let mut take = |passphrase: &SecretBytes| {
        assert!(!path.exists());
        taken.extend(passphrase.expose_secret());
        Ok(())
    };
    let created = house.volumes().create(&plan, Some(&mut take), &mut nothing).unwrap();
    assert_eq!(taken, created.passphrase.unwrap().expose_secret());
}

#[test]
fn an_image_whose_secret_went_with_its_daemon_goes_too() {
    let house = House::new();
    let path = house.path("disk");
    for (ephemeral, stays) in [(true, false), (false, true)] {
        let daemon = Arc::new(Daemon { keystore: house.keystore(), ended: AtomicBool::new(false) });
        let volumes = Volumes::over(daemon.clone()).iterating(QUICK);
        let plan = Plan { ephemeral, ..Plan::new(&path, Format::Raw, SIZE) };
        let mut end = before(Step::Finish, || daemon.ended.store(true, Ordering::Relaxed));
        let error = volumes.create(&plan, None, &mut end).unwrap_err();
        assert!(error.to_string().contains("socket is closed"), "{error}");
        assert_eq!((path.exists(), error.to_string().contains("removed")), (stays, !stays), "{error}");
    }
    assert!(
        house.volumes().create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap().was_there
    );
}

/// A keystore that comes to its end.
struct Daemon {
    keystore: Arc<dyn Keystore>,
    ended: AtomicBool,
}

impl Daemon {
    fn there(&self) -> Result<&dyn Keystore, Error> {
        match self.ended.load(Ordering::Relaxed) {
            true => Err(Error::failed("client socket is closed")),
            false => Ok(&*self.keystore),
        }
    }
}

impl Keystore for Daemon {
    fn uri(&self) -> String {
        self.keystore.uri()
    }

    fn num_of_secrets(&self) -> Result<usize, Error> {
        self.there()?.num_of_secrets()
    }

    fn list_secrets(&self, max: usize) -> Result<Vec<uuid::Uuid>, Error> {
        self.there()?.list_secrets(max)
    }

    fn list_all(&self, flags: u32) -> Result<Vec<Handle>, Error> {
        self.there()?.list_all(flags)
    }

    fn lookup_by_uuid(&self, uuid: uuid::Uuid) -> Result<Handle, Error> {
        self.there()?.lookup_by_uuid(uuid)
    }

    fn lookup_by_usage(&self, kind: UsageType, id: &str) -> Result<Handle, Error> {
        self.there()?.lookup_by_usage(kind, id)
    }

    fn define_xml(&self, xml: &[u8], flags: u32) -> Result<Handle, Error> {
        self.there()?.define_xml(xml, flags)
    }

    fn xml_desc(&self, uuid: uuid::Uuid, flags: u32) -> Result<String, Error> {
        self.there()?.xml_desc(uuid, flags)
    }

    fn set_value(&self, uuid: uuid::Uuid, value: SecretBytes, flags: u32) -> Result<(), Error> {
        self.there()?.set_value(uuid, value, flags)
    }

    fn value(&self, uuid: uuid::Uuid, flags: u32) -> Result<SecretBytes, Error> {
        self.there()?.value(uuid, flags)
    }

    fn undefine(&self, uuid: uuid::Uuid) -> Result<(), Error> {
        self.there()?.undefine(uuid)
    }

    fn subscribe(
        &self,
        kind: EventKind,
        of: Option<uuid::Uuid>,
        sink: EventSink,
    ) -> Result<Subscription, Error> {
        self.there()?.subscribe(kind, of, sink)
    }

    fn elevated(&self) -> Result<Arc<dyn Keystore>, Error> {
        Err(Error::private())
    }
}

#[test]
fn what_others_do_to_the_secret_meanwhile_is_seen() {
    let house = House::new();
    let (path, connection) = (house.path("disk"), house.connection());
    let own = || connection.lookup_by_usage(UsageType::Volume, path.to_str().unwrap()).unwrap();
    let plan = Plan::new(&path, Format::Raw, SIZE);
    let mut undefine = before(Step::Finish, || own().undefine().unwrap());
    house.volumes().create(&plan, None, &mut undefine).unwrap();
    assert_eq!(house.check(&path), Verdict::Opens);
    house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap();

    let mut change = before(Step::Finish, || own().set_value(b"another").unwrap());
    let error = house.volumes().create(&plan, None, &mut change).unwrap_err();
    assert!(error.to_string().contains("was changed") && !path.exists(), "{error}");
    assert_eq!(house.value(own().uuid()), b"another");
    house.volumes().delete(&path, GONE, &mut nothing).unwrap();

    let xml = "<secret><usage type='volume'><volume>/elsewhere</volume></usage></secret>";
    let secret = connection.define_xml(xml, 0).unwrap();
    secret.set_value(b"one").unwrap();
    let mut change = before(Step::Name, || secret.set_value(b"another").unwrap());
    let plan = Plan { secret: Some(Named::Uuid(secret.uuid())), ..plan };
    let error = house.volumes().create(&plan, None, &mut change).unwrap_err();
    assert!(error.to_string().contains("was changed") && !path.exists(), "{error}");
    secret.undefine().unwrap();
    house.is_empty();
}

#[test]
fn what_another_plan_began_is_finished_and_then_like_any_file() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan::new(&path, Format::Raw, SIZE);
    cut_short(|| house.volumes().create(&plan, None, &mut before(Step::Finish, die)).map(drop));
    let other = Plan { format: Format::Qcow2, ..plan.clone() };
    let mut never = |_: &SecretBytes| panic!("of another plan");
    let error = house.volumes().create(&other, Some(&mut never), &mut nothing).unwrap_err();
    assert!(error.to_string().ends_with("exists"), "{error}");
    assert_eq!(house.check(&path), Verdict::Opens);
    assert!(!fs::read(&path).unwrap().starts_with(b"QFI"));
    let replaced = house.volumes().create(&Plan { replace: true, ..other }, None, &mut nothing).unwrap();
    assert!(!replaced.was_there && fs::read(&path).unwrap().starts_with(b"QFI"));
    house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap();

    cut_short(|| house.volumes().create(&plan, None, &mut before(Step::Finish, die)).map(drop));
    let mut taken = 0;
    let mut take = |_: &SecretBytes| {
        taken += 1;
        Ok(())
    };
    assert!(house.volumes().create(&plan, Some(&mut take), &mut nothing).unwrap().was_there);
    house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap();

    cut_short(|| house.volumes().create(&plan, None, &mut before(Step::Make, die)).map(drop));
    assert!(!house.volumes().create(&plan, Some(&mut take), &mut nothing).unwrap().was_there);
    assert_eq!(taken, 2);
}

#[test]
fn what_another_host_began_is_left_to_it() {
    let house = House::new();
    let path = house.path("disk");
    let xml = format!(
        "<secret private='yes'>
         <description>unfinished: strongroom volume create was cut short on elsewhere.example; run it again (01234567)</description>
         <usage type='volume'><volume>{}</volume></usage></secret>",
        path.display()
    );
    let secret = house.connection().define_xml(&xml, 0).unwrap();
    for error in [
        house.volumes().create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap_err(),
        house.volumes().delete(&path, GONE, &mut nothing).unwrap_err(),
    ] {
        assert!(error.to_string().contains("'elsewhere.example'") && error.advice().is_some(), "{error}");
    }
    secret.undefine().unwrap();
    house.is_empty();
}

#[test]
fn a_secret_that_another_volume_would_end_is_not_shared() {
    let house = House::new();
    let [one, other] = ["one", "other"].map(|name| house.path(name));
    let uuid = house.volumes().create(&Plan::new(&one, Format::Raw, SIZE), None, &mut nothing).unwrap().uuid;
    cut_short(|| house.volumes().change_passphrase(&one, None, None, &mut before(Step::Add, die)).map(drop));
    let secrets = house.connection().list_all(0).unwrap();
    assert_eq!(secrets.len(), 2);
    for secret in secrets {
        let plan = Plan { secret: Some(Named::Uuid(secret.uuid())), ..Plan::new(&other, Format::Raw, SIZE) };
        let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
        let told = if secret.uuid() == uuid { "is that of the volume" } else { "was cut short" };
        assert!(error.to_string().contains(told) && !other.exists(), "{error}");
    }
}

#[test]
fn a_note_of_an_image_that_is_no_more_blocks_nothing() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan { replace: true, ..Plan::new(&path, Format::Raw, SIZE) };
    let uuid = house.volumes().create(&plan, None, &mut nothing).unwrap().uuid;
    cut_short(|| house.volumes().change_passphrase(&path, None, None, &mut before(Step::Add, die)).map(drop));
    house.connection().lookup_by_uuid(uuid).unwrap().set_value(b"by hand").unwrap();
    house.volumes().create(&plan, None, &mut nothing).unwrap();
    let changed = house.volumes().change_passphrase(&path, None, None, &mut nothing).unwrap();
    assert!(!changed.was_begun && changed.uuid == uuid);
    assert_eq!((house.check(&path), house.connection().num_of_secrets().unwrap()), (Verdict::Opens, 1));
}

#[test]
fn only_what_its_secret_opens_is_removed_unasked() {
    let house = House::new();
    let path = house.path("below/disk");
    fs::create_dir(house.path("below")).unwrap();
    let volumes = house.volumes();
    let uuid = volumes.create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap().uuid;
    cut_short(|| house.volumes().change_passphrase(&path, None, None, &mut before(Step::Add, die)).map(drop));
    house.connection().lookup_by_uuid(uuid).unwrap().set_value(b"another").unwrap();
    let error = volumes.delete(&path, Removal::default(), &mut nothing).unwrap_err();
    assert!(error.advice().unwrap().contains("--force") && path.exists(), "{error}");
    let error = volumes.delete(&path, GONE, &mut nothing).unwrap_err();
    assert!(error.to_string().ends_with("is there") && path.exists(), "{error}");
    let force = Removal { unproved: true, gone: false };
    assert!(volumes.delete(&path, force, &mut nothing).unwrap().image);
    house.is_empty(); // the note is gone too

    // The disk that the directory is on isn't mounted.
    volumes.create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap();
    fs::remove_dir_all(house.path("below")).unwrap();
    let orphans = volumes.orphans(&[]).unwrap();
    assert!(
        matches!(&orphans[..], [Orphan::Unseen { path: seen, why }] if *seen == path && why.contains("mounted"))
    );
    volumes.delete(&path, Removal::default(), &mut nothing).unwrap_err();
    assert_eq!(house.connection().num_of_secrets().unwrap(), 1);
    assert!(!volumes.delete(&path, GONE, &mut nothing).unwrap().image);
    house.is_empty();
}

#[test]
fn work_that_goes_on_is_not_called_cut_short() {
    let house = House::new();
    let path = house.path("disk");
    let looking = house.volumes();
    let mut look = |progress: Progress| {
        if let Progress::Next(step) = progress {
            assert_eq!(looking.orphans(&[house.path(".")]).unwrap(), [], "{step:?}");
        }
    };
    for work in WORKS {
        work.run(&house.volumes(), &path, Format::Raw, &mut look).unwrap();
    }
    house.is_empty();
}

#[test]
fn a_killed_caller_leaves_no_qemu_img_behind() {
    const NAME: &str = "a_killed_caller_leaves_no_qemu_img_behind";
    if let Some(role) = support::role() {
        return work_and_die(&role);
    }
    let mut house = House::unhurried();
    let (program, pipe) = (house.directory.path().join("qemu-img"), house.directory.path().join("pipe"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    write_program(&program, &format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", pipe.display()));
    house.program = Some(program);
    let child = house.again(NAME, Work::Create, Format::Raw, "none");
    let left: i32 = fs::read_to_string(&pipe).unwrap().trim().parse().unwrap();
    let left = rustix::process::Pid::from_raw(left).unwrap();
    let ended = rustix::process::pidfd_open(left, rustix::process::PidfdFlags::empty()).unwrap();
    child.kill();
    let mut fds = [rustix::event::PollFd::new(&ended, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1), "it goes on");
}

/// What is done, killed and done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Create,
    Change,
    Delete,
}

const WORKS: [Work; 3] = [Work::Create, Work::Change, Work::Delete];

impl Work {
    fn run(
        self,
        volumes: &Volumes,
        path: &Path,
        format: Format,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        match self {
            Self::Create => volumes.create(&Plan::new(path, format, SIZE), None, watch).map(drop),
            Self::Change => volumes.change_passphrase(path, None, None, watch).map(drop),
            Self::Delete => volumes.delete(path, Removal::default(), watch).map(drop),
        }
    }

    fn steps(self) -> &'static [Step] {
        use Step::*;
        match self {
            Self::Create => &[Define, SetPassphrase, Make, Name, Finish],
            Self::Change => &[Note, NotePassphrases, Add, Store, Erase, Forget],
            Self::Delete => &[Remove, Undefine],
        }
    }
}

#[test]
fn killed_before_each_step_a_second_run_finishes_it() {
    const NAME: &str = "killed_before_each_step_a_second_run_finishes_it";
    if let Some(role) = support::role() {
        return work_and_die(&role);
    }
    for format in FORMATS {
        for work in WORKS {
            let house = House::new();
            for step in work.steps() {
                // What the kill before left, and the second run brought to its end, is where the next one begins.
                house.prepare(work, format);
                let mut child = house.again(NAME, work, format, &format!("{step:?}"));
                child.process.wait().unwrap();
                let said = child.kill();
                assert_eq!(said, [format!("{step:?}")], "{format:?} {work:?}");
                house.survives(work, format, &format!("{format:?} {work:?} killed before {step:?}"));
            }
        }
    }
}

/// The same at random moments: within the store's writes, within qemu-img's. A test for each format, for two processors.
#[test]
fn killed_at_any_moment_a_second_run_finishes_luks() {
    kill_at_any_moment("killed_at_any_moment_a_second_run_finishes_luks", Format::Raw);
}

#[test]
fn killed_at_any_moment_a_second_run_finishes_qcow2() {
    kill_at_any_moment("killed_at_any_moment_a_second_run_finishes_qcow2", Format::Qcow2);
}

fn kill_at_any_moment(name: &str, format: Format) {
    const KILLS: u64 = 100;
    if let Some(role) = support::role() {
        return work_and_die(&role);
    }
    let (started, seed) = (Instant::now(), Dice::seed());
    let mut dice = Dice(seed);
    let mut in_time = 0;
    let house = House::new();
    for kill in 0..KILLS {
        let work = WORKS[(kill % 3) as usize]; // each is the next one's beginning
        house.prepare(work, format);
        let mut child = house.again(name, work, format, "never");
        child.expect("begin");
        std::thread::sleep(Duration::from_micros(dice.roll(if work == Work::Delete {
            10_000
        } else {
            60_000
        })));
        let said = child.kill();
        in_time += u64::from(!said.iter().any(|line| line == "done"));
        house.survives(work, format, &format!("seed {seed}, kill {kill}: {format:?} {work:?}"));
    }
    note(&format!(
        "{} s, seed {seed}: {in_time} of {KILLS} were killed at work",
        started.elapsed().as_secs()
    ));
    assert!(in_time > KILLS / 4, "idle: {in_time}");
}

/// The other process's life: it does its work until it is killed, or kills itself before a step.
fn work_and_die(role: &[String]) {
    let [place, path, program, work, format, until] = role else { panic!("{role:?}") };
    let work = WORKS.into_iter().find(|it| format!("{it:?}") == *work).unwrap();
    let format = FORMATS.into_iter().find(|it| format!("{it:?}") == *format).unwrap();
    let embedded = Place(place.into()).open();
    let volumes = Volumes::over(embedded.keystore()).iterating(QUICK).by_program(program);
    if until == "never" {
        say("begin");
    }
    let done = work.run(&volumes, Path::new(path), format, &mut |progress| {
        if let Progress::Next(step) = progress
            && format!("{step:?}") == *until
        {
            say(until);
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
    });
    done.unwrap();
    say("done");
}

/// Watches, and does this before a step.
fn before(step: Step, mut act: impl FnMut()) -> impl FnMut(Progress) {
    move |progress| {
        if progress == Progress::Next(step) {
            act();
        }
    }
}

/// As a kill would, but for the locks.
fn die() {
    std::panic::resume_unwind(Box::new("cut short"));
}

fn cut_short(work: impl FnOnce() -> Result<(), Error>) {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_err();
}

const GONE: Removal = Removal { unproved: false, gone: true };

/// A keystore, and a directory for its volumes.
struct House {
    directory: tempfile::TempDir,
    place: Place,
    /// If not qemu-img itself.
    program: Option<PathBuf>,
    /// The keystore, while it isn't another process's.
    open: RefCell<Option<Embedded>>,
}

impl House {
    /// With qemu-img as it is.
    fn unhurried() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("volumes")).unwrap();
        let place = Place(directory.path().into());
        Self { directory, place, program: None, open: RefCell::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("volumes").join(name)
    }

    fn volumes(&self) -> Volumes {
        let volumes = Volumes::over(self.keystore()).iterating(QUICK);
        match &self.program {
            Some(program) => volumes.by_program(program),
            None => volumes,
        }
    }

    /// With a qemu-img that doesn't measure the machine.
    fn new() -> Self {
        let mut house = Self::unhurried();
        let [clock, program] = ["clock.so", "qemu-img"].map(|name| house.directory.path().join(name));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).args([&clock, Path::new(HASTY_CLOCK)]);
        assert!(compiler.status().unwrap().success());
        let script = format!("#!/bin/sh\nLD_PRELOAD={} exec qemu-img \"$@\"\n", clock.display());
        write_program(&program, &script);
        house.program = Some(program);
        house
    }

    fn connection(&self) -> Connection {
        Connection::over(self.keystore())
    }

    fn keystore(&self) -> Arc<dyn Keystore> {
        self.open.borrow_mut().get_or_insert_with(|| self.place.open()).keystore()
    }

    fn value(&self, uuid: uuid::Uuid) -> Vec<u8> {
        let secret = self.connection().elevated().unwrap().lookup_by_uuid(uuid).unwrap();
        secret.value().unwrap().expose_secret().to_vec()
    }

    fn check(&self, path: &Path) -> Verdict {
        self.volumes().check(path, None).unwrap().verdict
    }

    /// Nothing is there for what makes a volume, and a volume for what changes or removes it.
    fn prepare(&self, work: Work, format: Format) {
        let path = self.path("disk");
        match (work == Work::Create, path.exists()) {
            (true, true) => Work::Delete.run(&self.volumes(), &path, format, &mut nothing).unwrap(),
            (false, false) => Work::Create.run(&self.volumes(), &path, format, &mut nothing).unwrap(),
            (true, false) | (false, true) => {}
        }
    }

    /// What a guest sees of a volume.
    fn content(&self, path: &Path, format: Format) -> Vec<u8> {
        let uuid =
            self.connection().lookup_by_usage(UsageType::Volume, path.to_str().unwrap()).unwrap().uuid();
        let key = self.directory.path().join("to be read");
        fs::write(&key, self.value(uuid)).unwrap();
        let how = match format {
            Format::Raw => "driver=luks,key-secret=s",
            Format::Qcow2 => "driver=qcow2,encrypt.key-secret=s",
        };
        let out = self.directory.path().join("content");
        let mut command = Command::new("qemu-img");
        command
            .args(["convert", "-q", "-O", "raw", "--object"])
            .arg(format!("secret,id=s,file={}", key.display()));
        command.arg("--image-opts").arg(format!("{how},file.driver=file,file.filename={}", path.display()));
        assert!(command.arg(&out).status().unwrap().success());
        fs::read(out).unwrap()
    }

    fn again(&self, name: &str, work: Work, format: Format, until: &str) -> support::Other {
        self.keystore(); // it is made
        drop(self.open.take());
        let program = self.program.clone().unwrap_or_else(|| "qemu-img".into());
        let paths =
            [self.directory.path(), &self.path("disk"), &program].map(|path| path.display().to_string());
        let [place, path, program] = &paths;
        let (work, format) = (format!("{work:?}"), format!("{format:?}"));
        support::again(name, &[place, path, program, &work, &format, until])
    }

    /// What a kill left is sound, and a second run brings it to its end.
    fn survives(&self, work: Work, format: Format, when: &str) {
        let path = self.path("disk");
        // Killed while it began a qemu-img, that one has the keystore for a moment, before it is qemu-img.
        let end = Instant::now() + Duration::from_secs(10);
        let reopened = loop {
            match self.place.try_open() {
                Err(error) if error.to_string().contains("is in use") && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                opened => break opened.unwrap(),
            }
        };
        *self.open.borrow_mut() = Some(reopened);
        let volumes = self.volumes();
        let end = Instant::now() + Duration::from_secs(60);
        // The qemu-img that it left still works: nobody tells us when it is done.
        let in_use = |error: &Error| {
            let is_so = error.advice().is_some_and(|advice| advice.contains("in use"));
            is_so && Instant::now() < end && {
                std::thread::sleep(Duration::from_millis(10));
                true
            }
        };
        while path.exists() {
            match volumes.check(&path, None) {
                Err(error) if in_use(&error) => {}
                checked => {
                    assert_eq!(checked.unwrap().verdict, Verdict::Opens, "{when}");
                    break;
                }
            }
        }
        loop {
            match work.run(&volumes, &path, format, &mut nothing) {
                Ok(()) => break,
                // Killed in its last moment, it had done all.
                Err(error) if work == Work::Delete && error.code() == ErrorCode::NoSecret => break,
                Err(error) if work == Work::Create && error.to_string().ends_with("exists") => break,
                Err(error) if in_use(&error) => {}
                Err(error) => panic!("{when}: {error}"),
            }
        }
        if work == Work::Delete {
            self.is_empty();
        } else {
            assert_eq!(self.check(&path), Verdict::Opens, "{when}");
            assert_eq!(self.connection().num_of_secrets().unwrap(), 1, "{when}");
            let orphans = volumes.orphans(&[]).unwrap();
            // A qemu-img that was left may make its file after all was swept.
            assert!(orphans.iter().all(|it| matches!(it, Orphan::Unnamed { .. })), "{when}: {orphans:?}");
        }
    }

    fn is_empty(&self) {
        assert_eq!(self.connection().num_of_secrets().unwrap(), 0);
        let files = files_below(&self.directory.path().join("volumes"));
        assert!(files.is_empty(), "{files:?}");
    }
}

/// By another process: what this one has open for writing, no thread of its could start.
fn write_program(path: &Path, script: &str) {
    let write = "printf %s \"$1\" > \"$2\"; chmod 755 \"$2\"";
    let mut shell = Command::new("sh");
    assert!(shell.args(["-c", write, "sh", script]).arg(path).status().unwrap().success());
}

fn nothing(_: Progress) {}

const HASTY_CLOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/hasty_clock.c");

const SIZE: u64 = 1 << 20;

/// LUKS' key derivation, for tests.
const QUICK: Duration = Duration::from_millis(1);
