//! A volume and its secret come together, change together and go together; what can't be made leaves neither.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;
use strongroom::memory::SecretBytes;
use strongroom::volume::{Format, Named, Plan, Preallocation, Progress, Removal, Verdict};
use strongroom::{ErrorCode, UsageType};

use crate::house::{FORMATS, House, SIZE, nothing, write_program};
use crate::support::note;

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
        for unfit in [&b"\xff\xfe"[..], b"a\0b"] {
            secret.set_value(unfit).unwrap();
            let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
            assert!(error.to_string().ends_with("disk': Data from secret s is not valid UTF-8"), "{error}");
            assert!(error.advice().unwrap().contains("text only") && !path.exists(), "{error}");
        }
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
fn a_machine_too_busy_to_be_measured_is_measured_again() {
    let mut house = House::new();
    // As qemu-img does it: it removes what it has begun. The first and the third of its runs fail.
    let (program, real) = (house.directory.path().join("busy"), house.program.take().unwrap());
    let runs = house.directory.path().join("runs");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = map ] || echo >> {runs}\ncase \"$1 $(wc -l < {runs})\" in\n\
         map*) ;;\n*[13]) rm -f image*; echo 'qemu-img: Unable to get accurate CPU usage' >&2; exit 1;;\nesac\n\
         exec {real} \"$@\"\n",
        runs = runs.display(),
        real = real.display()
    );
    write_program(&program, &script);
    house.program = Some(program);
    for format in FORMATS {
        let path = house.path(&format!("{format:?}"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(&runs, "").unwrap();
        let plan = Plan { replace: true, ..Plan::new(&path, format, SIZE) };
        house.volumes().create(&plan, None, &mut nothing).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        house.volumes().change_passphrase(&path, None, None, &mut nothing).unwrap();
        assert_eq!(house.check(&path), Verdict::Opens);
        assert_eq!(fs::read_to_string(&runs).unwrap().len(), 5, "create twice, add twice, erase once");
    }
}

#[test]
fn a_volume_that_is_replaced_keeps_the_kind_of_its_secret_and_hands_it_over() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan { replace: true, ..Plan::new(&path, Format::Raw, SIZE) };
    for ephemeral in [true, false] {
        let first = Plan { ephemeral, ..plan.clone() };
        let uuid = house.volumes().create(&first, None, &mut nothing).unwrap().uuid;
        let other = Plan { ephemeral: !ephemeral, ..plan.clone() };
        let mut never = |_: &SecretBytes| panic!("nothing is made");
        let error = house.volumes().create(&other, Some(&mut never), &mut nothing).unwrap_err();
        assert!(error.advice().unwrap().contains("--ephemeral"), "{error}");
        let mut taken: Vec<u8> = Vec::new();
        let mut take = |passphrase: &SecretBytes| {
            taken.extend(passphrase.expose_secret());
            Ok(())
        };
        assert_eq!(house.volumes().create(&first, Some(&mut take), &mut nothing).unwrap().uuid, uuid);
        assert_eq!(taken, house.value(uuid));
        assert_eq!(house.check(&path), Verdict::Opens);
        house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap();
    }
}

#[test]
fn a_secret_that_no_guest_would_take_makes_no_volume() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan { replace: true, ..Plan::new(&path, Format::Raw, SIZE) };
    let define = |usage: &str| {
        let secret =
            house.connection().define_xml(format!("<secret><usage {usage}</usage></secret>"), 0).unwrap();
        secret.set_value(b"a passphrase").unwrap();
        Plan { secret: Some(Named::Uuid(secret.uuid())), ..plan.clone() }
    };
    let ceph = define("type='ceph'><name>pool</name>");
    let error = house.volumes().create(&ceph, None, &mut nothing).unwrap_err();
    assert!(error.to_string().ends_with("of usage ceph, not volume") && !path.exists(), "{error}");
    // Nor one of two secrets, when guests would look for the other.
    house.volumes().create(&plan, None, &mut nothing).unwrap();
    let other = define("type='volume'><volume>/elsewhere</volume>");
    let error = house.volumes().create(&other, None, &mut nothing).unwrap_err();
    assert!(error.to_string().contains("has a secret of its own"), "{error}");
    assert_eq!(house.check(&path), Verdict::Opens);
}

#[test]
fn a_passphrase_too_long_to_be_noted_stays() {
    let house = House::new();
    let path = house.path("disk");
    let xml = "<secret><usage type='volume'><volume>/elsewhere</volume></usage></secret>";
    let secret = house.connection().define_xml(xml, 0).unwrap();
    secret.set_value(&[b'p'; 65_500]).unwrap();
    let named = Named::Uuid(secret.uuid());
    let plan = Plan { secret: Some(named.clone()), ..Plan::new(&path, Format::Raw, SIZE) };
    house.volumes().create(&plan, None, &mut nothing).unwrap();
    let error = house.volumes().change_passphrase(&path, Some(&named), None, &mut nothing).unwrap_err();
    assert!(error.advice().unwrap().contains("luksChangeKey"), "{error}");
    assert_eq!(house.connection().num_of_secrets().unwrap(), 1);
    assert_eq!(house.volumes().check(&path, Some(&named)).unwrap().verdict, Verdict::Opens);
}
