//! What is another host's, or on a disk that isn't mounted: neither finished nor cleared in its place, unless the image
//! that its passphrase opens is here.

use std::fs;
use std::path::Path;

use strongroom::UsageType;
use strongroom::volume::{Format, Named, Orphan, Plan, Removal, Step, Verdict};

use crate::house::{GONE, House, SIZE, before, cut_short, die, nothing};

const FORCE: Removal = Removal { unproved: true, gone: false };

#[test]
fn what_another_host_began_is_left_to_it() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan::new(&path, Format::Raw, SIZE);
    cut_short(|| house.volumes().create(&plan, None, &mut before(Step::Make, die)).map(drop));
    let uuid = house.is_said_to_be_of("elsewhere.example", &path);
    for error in [
        house.volumes().create(&plan, None, &mut nothing).unwrap_err(),
        house.volumes().delete(&path, GONE, &mut nothing).unwrap_err(),
    ] {
        assert!(error.to_string().contains("'elsewhere.example'"), "{error}");
        assert!(error.advice().unwrap().contains("secret-undefine"), "{error}");
    }
    let host = "elsewhere.example".to_owned();
    assert_eq!(house.volumes().orphans(&[]).unwrap(), [Orphan::Elsewhere { uuid, path: path.clone(), host }]);
    house.connection().lookup_by_uuid(uuid).unwrap().undefine().unwrap();

    // But what its passphrase opens here is its volume: this host had another name.
    cut_short(|| house.volumes().create(&plan, None, &mut before(Step::Finish, die)).map(drop));
    house.is_said_to_be_of("formerly.example", &path);
    assert!(house.volumes().create(&plan, None, &mut nothing).unwrap().was_there);
    assert_eq!(house.check(&path), Verdict::Opens);
}

#[test]
fn a_volume_of_another_host_keeps_its_secret() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan::new(&path, Format::Raw, SIZE);
    house.volumes().create(&plan, None, &mut nothing).unwrap();
    let uuid = house.is_said_to_be_of("elsewhere.example", &path);
    let passphrase = house.value(uuid);
    for error in [
        house.volumes().delete(&path, FORCE, &mut nothing).unwrap_err(),
        house.volumes().create(&Plan { replace: true, ..plan.clone() }, None, &mut nothing).unwrap_err(),
    ] {
        assert!(error.to_string().contains("'elsewhere.example'"), "{error}");
    }
    let image = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    for removal in [GONE, Removal::default()] {
        let error = house.volumes().delete(&path, removal, &mut nothing).unwrap_err();
        assert!(error.to_string().contains("'elsewhere.example'"), "{error}");
    }
    let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
    assert!(error.advice().unwrap().contains("choose another"), "{error} {:?}", error.advice());
    assert!(matches!(&house.volumes().orphans(&[]).unwrap()[..], [Orphan::Elsewhere { .. }]));
    assert_eq!(house.value(uuid), passphrase);
    // On a disk that both see it may be removed by either.
    fs::write(&path, image).unwrap();
    assert_eq!(house.volumes().orphans(&[]).unwrap(), []);
    house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap();
    house.is_empty();
}

#[test]
fn what_was_begun_on_a_disk_that_is_not_mounted_waits_for_it() {
    let house = House::new();
    let [mounted, away] = ["mounted", "away"].map(|name| house.path(name));
    fs::create_dir(&mounted).unwrap();
    let path = mounted.join("disk");
    let plan = Plan::new(&path, Format::Qcow2, SIZE);
    let unmount = || {
        fs::rename(&mounted, &away).unwrap();
        fs::create_dir(&mounted).unwrap();
    };
    let mount = || {
        fs::remove_dir(&mounted).unwrap();
        fs::rename(&away, &mounted).unwrap();
    };
    cut_short(|| house.volumes().create(&plan, None, &mut before(Step::Finish, die)).map(drop));
    unmount();
    for error in [
        house.volumes().create(&plan, None, &mut nothing).unwrap_err(),
        house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap_err(),
    ] {
        assert!(error.advice().unwrap().contains("mount the disk"), "{error}");
    }
    mount();
    assert!(house.volumes().create(&plan, None, &mut nothing).unwrap().was_there);

    cut_short(|| house.volumes().delete(&path, Removal::default(), &mut before(Step::Remove, die)).map(drop));
    unmount();
    let error = house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap_err();
    assert!(error.advice().unwrap().contains("--gone"), "{error}");
    mount();
    assert!(house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap().image);

    cut_short(|| house.volumes().create(&plan, None, &mut before(Step::Finish, die)).map(drop));
    unmount();
    house.volumes().delete(&path, GONE, &mut nothing).unwrap();
    assert_eq!(house.connection().num_of_secrets().unwrap(), 0);
}

#[test]
fn a_deletion_that_was_cut_short_needs_no_further_word() {
    let house = House::new();
    let path = house.path("disk");
    house.volumes().create(&Plan::new(&path, Format::Raw, SIZE), None, &mut nothing).unwrap();
    cut_short(|| {
        house.volumes().delete(&path, Removal::default(), &mut before(Step::Undefine, die)).map(drop)
    });
    let uuid = house.own(&path);
    assert_eq!(house.volumes().orphans(&[]).unwrap(), [Orphan::Deletion { uuid, path: path.clone() }]);
    let plan = Plan { secret: Some(Named::Uuid(uuid)), ..Plan::new(house.path("other"), Format::Raw, SIZE) };
    let error = house.volumes().create(&plan, None, &mut nothing).unwrap_err();
    assert!(error.to_string().contains("was cut short"), "{error}");
    assert!(!house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap().image);
    house.is_empty();

    // Nor does a new volume of that path.
    let plan = Plan::new(&path, Format::Raw, SIZE);
    house.volumes().create(&plan, None, &mut nothing).unwrap();
    cut_short(|| house.volumes().delete(&path, Removal::default(), &mut before(Step::Remove, die)).map(drop));
    for error in [
        house.volumes().create(&Plan { replace: true, ..plan.clone() }, None, &mut nothing).unwrap_err(),
        house.volumes().change_passphrase(&path, None, None, &mut nothing).unwrap_err(),
    ] {
        assert!(error.advice().unwrap().contains("strongroom volume delete"), "{error}");
    }
    cut_short(|| {
        house.volumes().delete(&path, Removal::default(), &mut before(Step::Undefine, die)).map(drop)
    });
    assert_ne!(house.volumes().create(&plan, None, &mut nothing).unwrap().uuid, uuid);
    assert_eq!((house.check(&path), house.connection().num_of_secrets().unwrap()), (Verdict::Opens, 1));
}

#[test]
fn a_volume_that_was_renamed_keeps_its_secret() {
    let house = House::new();
    let [path, renamed] = ["disk", "renamed"].map(|name| house.path(name));
    house.volumes().create(&Plan::new(&path, Format::Qcow2, SIZE), None, &mut nothing).unwrap();
    house.volumes().create(&Plan::new(house.path("other"), Format::Raw, SIZE), None, &mut nothing).unwrap();
    fs::rename(&path, &renamed).unwrap();
    let uuid = house.own(&path);
    let error = house.volumes().delete(&path, GONE, &mut nothing).unwrap_err();
    assert!(error.to_string().ends_with(&format!("opens '{}'", renamed.display())), "{error}");
    // With a secret of its own it goes on under its new name.
    let xml = format!("<secret><usage type='volume'><volume>{}</volume></usage></secret>", renamed.display());
    house.connection().define_xml(xml, 0).unwrap().set_value(&house.value(uuid)).unwrap();
    house.volumes().delete(&path, GONE, &mut nothing).unwrap();
    assert_eq!(house.check(&renamed), Verdict::Opens);
}

#[test]
fn a_volume_that_was_renamed_when_its_work_was_cut_short_keeps_its_secret() {
    let house = House::new();
    let [path, renamed] = ["disk", "renamed"].map(|name| house.path(name));
    let plan = Plan::new(&path, Format::Raw, SIZE);
    for removing in [false, true] {
        if removing {
            house.volumes().create(&plan, None, &mut nothing).unwrap();
            let mut kill = before(Step::Remove, die);
            cut_short(|| house.volumes().delete(&path, Removal::default(), &mut kill).map(drop));
        } else {
            cut_short(|| house.volumes().create(&plan, None, &mut before(Step::Finish, die)).map(drop));
        }
        fs::rename(&path, &renamed).unwrap();
        for error in [
            house.volumes().create(&plan, None, &mut nothing).unwrap_err(),
            house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap_err(),
        ] {
            assert!(error.to_string().ends_with(&format!("opens '{}'", renamed.display())), "{error}");
        }
        fs::rename(&renamed, &path).unwrap();
        house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap();
        house.is_empty();
    }
}

#[test]
fn what_is_no_file_is_no_volume_that_could_come_back() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan::new(&path, Format::Raw, SIZE);
    cut_short(|| house.volumes().create(&plan, None, &mut before(Step::Make, die)).map(drop));
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let error = house.volumes().delete(&path, Removal::default(), &mut nothing).unwrap_err();
    assert!(error.to_string().contains("no ordinary file"), "{error}");
    assert!(!house.volumes().delete(&path, GONE, &mut nothing).unwrap().image);
    assert_eq!((house.connection().num_of_secrets().unwrap(), path.is_symlink()), (0, true));
}

impl House {
    /// The volume's own secret.
    fn own(&self, path: &Path) -> uuid::Uuid {
        self.connection().lookup_by_usage(UsageType::Volume, path.to_str().unwrap()).unwrap().uuid()
    }

    /// What its description says of this host it says of another one.
    fn is_said_to_be_of(&self, host: &str, path: &Path) -> uuid::Uuid {
        let uuid = self.own(path);
        let xml = self.connection().lookup_by_uuid(uuid).unwrap().xml_desc().unwrap();
        let (before, rest) = xml.split_once(" was cut short on ").map_or_else(
            || {
                xml.split_once(", made on ")
                    .map(|(before, rest)| (format!("{before}, made on "), rest))
                    .unwrap()
            },
            |(before, rest)| (format!("{before} was cut short on "), rest),
        );
        let behind = &rest[rest.find([';', '<']).unwrap()..];
        self.connection().define_xml(format!("{before}{host}{behind}"), 0).unwrap();
        uuid
    }
}
