//! What others do meanwhile, have begun before, or share: seen, and left to them.

use std::fs;
use std::sync::atomic::Ordering;

use strongroom::UsageType;
use strongroom::memory::SecretBytes;
use strongroom::volume::{Format, Named, Orphan, Plan, Removal, Step, Verdict, Volumes};

use crate::daemon::Daemon;
use crate::house::{GONE, House, SIZE, before, cut_short, die, nothing, write_program};

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
    // By its usage it is the volume's own, whoever defined it.
    let connection = house.connection();
    connection.lookup_by_uuid(uuid).unwrap().undefine().unwrap();
    let xml = format!("<secret><usage type='volume'><volume>{}</volume></usage></secret>", one.display());
    let by_hand = connection.define_xml(xml, 0).unwrap();
    by_hand.set_value(b"by hand").unwrap();
    let plan = Plan { secret: Some(Named::Uuid(by_hand.uuid())), ..Plan::new(&other, Format::Raw, SIZE) };
    let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
    assert!(error.to_string().contains("is that of the volume"), "{error}");
    fs::remove_file(&one).unwrap();
    house.volumes().create(&plan, None, &mut nothing).unwrap();
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
fn a_file_that_took_the_images_place_stays_and_so_does_the_secret() {
    let house = House::new();
    let [path, other] = ["disk", "other"].map(|name| house.path(name));
    let uuid = house.volumes().create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap().uuid;
    let xml = || house.connection().lookup_by_uuid(uuid).unwrap().xml_desc().unwrap();
    let before_it = xml();
    let daemon = Daemon::of(&house);
    for ends in [false, true] {
        fs::copy(&path, &other).unwrap();
        let mut swap = before(Step::Remove, || {
            fs::rename(&other, &path).unwrap();
            daemon.ended.store(ends, Ordering::Relaxed);
        });
        let removal = Removal { unproved: true, gone: false };
        let error = Volumes::over(daemon.clone()).delete(&path, removal, &mut swap).unwrap_err();
        assert!(error.to_string().contains("is another file by now") && path.exists(), "{error}");
        assert_eq!(error.to_string().contains("is still marked"), ends, "{error}");
        assert_eq!(xml() == before_it, !ends);
    }
    assert_eq!(house.volumes().orphans(&[]).unwrap(), [Orphan::Deletion { uuid, path: path.clone() }]);
    let plan = Plan { secret: Some(Named::Uuid(uuid)), ..Plan::new(&other, Format::Raw, SIZE) };
    let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
    assert!(error.to_string().contains("was cut short"), "{error}");
    house.volumes().delete(&path, Removal { unproved: true, gone: false }, &mut nothing).unwrap();
    house.is_empty();
}

#[test]
fn what_was_not_proved_is_not_removed() {
    let mut house = House::new();
    let [path, other] = ["disk", "other"].map(|name| house.path(name));
    let uuid = house.volumes().create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap().uuid;
    let xml = |house: &House| house.connection().lookup_by_uuid(uuid).unwrap().xml_desc().unwrap();
    let before_it = xml(&house);
    fs::write(&other, "precious").unwrap();
    // As soon as it is proved, another file has the volume's name.
    let (program, real) = (house.directory.path().join("swapping"), house.program.take().unwrap());
    let (real, other, disk) = (real.display(), other.display(), path.display());
    write_program(&program, &format!("#!/bin/sh\n{real} \"$@\" || exit\nmv {other} {disk}\n"));
    house.program = Some(program);
    let error = house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap_err();
    assert!(error.to_string().contains("is another file by now"), "{error}");
    assert_eq!((fs::read(&path).unwrap(), xml(&house)), (b"precious".to_vec(), before_it));
}

#[test]
fn a_file_that_comes_while_a_volume_is_made_stays() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan { replace: true, ..Plan::new(&path, Format::Raw, SIZE) };
    let mut come = before(Step::Name, || fs::write(&path, "precious").unwrap());
    let error = house.volumes().create(&plan, None, &mut come).unwrap_err();
    assert!(error.to_string().ends_with("File exists"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(house.connection().num_of_secrets().unwrap(), 0);
}
