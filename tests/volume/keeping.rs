//! A passphrase is handed to whoever keeps it before anything depends on it, and what ends with a daemon leaves nothing.

use std::sync::atomic::Ordering;

use secrecy::ExposeSecret;
use strongroom::memory::SecretBytes;
use strongroom::volume::{Format, Plan, Step, Verdict, Volumes};
use strongroom::{Connection, Error, UsageType};

use crate::daemon::Daemon;
use crate::house::{House, QUICK, SIZE, before, nothing};
use crate::support::files_below;
use crate::support::markers::Needles;

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
        let daemon = Daemon::of(&house);
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
