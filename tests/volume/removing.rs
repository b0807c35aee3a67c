//! Nothing goes that might be somebody's: an image that its secret doesn't open, a secret whose image may come back.

use std::fs;

use strongroom::volume::{Format, Orphan, Plan, Removal, Step};

use crate::house::{GONE, House, SIZE, before, cut_short, die, nothing};

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
