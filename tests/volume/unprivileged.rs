//! A caller that may not read private values, as over a network, makes volumes all the same, and is told plainly what it
//! can't do.

use secrecy::ExposeSecret;
use strongroom::Error;
use strongroom::memory::SecretBytes;
use strongroom::volume::{Format, Plan, Removal, Step, Verdict, Volumes};

use crate::daemon::Daemon;
use crate::house::{FORMATS, House, QUICK, SIZE, before, cut_short, die, nothing};

#[test]
fn it_makes_a_volume_and_gets_the_passphrase() {
    for format in FORMATS {
        let house = House::new();
        let path = house.path("disk");
        let volumes = unprivileged(&house);
        let mut taken: Vec<u8> = Vec::new();
        let mut take = |passphrase: &SecretBytes| {
            taken.extend(passphrase.expose_secret());
            Ok(())
        };
        let created = volumes.create(&Plan::new(&path, format, SIZE), Some(&mut take), &mut nothing).unwrap();
        assert_eq!(taken, house.value(created.uuid));
        assert_eq!(house.check(&path), Verdict::Opens);
        let secret = house.connection().lookup_by_uuid(created.uuid).unwrap();
        assert!(!secret.xml_desc().unwrap().contains("unfinished"));
        // What takes the value is refused, and nothing is touched.
        for error in [
            volumes.check(&path, None).unwrap_err(),
            volumes.change_passphrase(&path, None, None, &mut nothing).unwrap_err(),
            volumes.delete(&path, Removal::default(), &mut nothing).unwrap_err(),
        ] {
            assert_private(&error);
        }
        assert_eq!(house.check(&path), Verdict::Opens);
        assert_eq!(house.connection().num_of_secrets().unwrap(), 1);
    }
}

#[test]
fn it_clears_what_was_cut_short_where_no_image_is() {
    for step in [Step::SetPassphrase, Step::Make, Step::Name] {
        let house = House::new();
        let path = house.path("disk");
        let plan = Plan::new(&path, Format::Qcow2, SIZE);
        cut_short(|| unprivileged(&house).create(&plan, None, &mut before(step, die)).map(drop));
        assert!(!path.exists());
        let created = unprivileged(&house).create(&plan, None, &mut nothing).unwrap();
        assert!(!created.was_there, "{step:?}");
        assert_eq!(house.check(&path), Verdict::Opens);
        assert_eq!(house.connection().num_of_secrets().unwrap(), 1, "{step:?}");
    }
}

#[test]
fn it_leaves_what_was_cut_short_where_an_image_is_to_others() {
    let house = House::new();
    let path = house.path("disk");
    let plan = Plan::new(&path, Format::Raw, SIZE);
    cut_short(|| unprivileged(&house).create(&plan, None, &mut before(Step::Finish, die)).map(drop));
    for plan in [plan.clone(), Plan { replace: true, ..plan.clone() }] {
        assert_private(&unprivileged(&house).create(&plan, None, &mut nothing).unwrap_err());
    }
    assert_private(&unprivileged(&house).delete(&path, Removal::default(), &mut nothing).unwrap_err());
    // Who may read the value finishes it.
    assert!(house.volumes().create(&plan, None, &mut nothing).unwrap().was_there);
    assert_eq!(house.check(&path), Verdict::Opens);
}

fn unprivileged(house: &House) -> Volumes {
    let volumes = Volumes::over(Daemon::of(house)).iterating(QUICK);
    match &house.program {
        Some(program) => volumes.by_program(program),
        None => volumes,
    }
}

fn assert_private(error: &Error) {
    assert!(error.to_string().ends_with("secret is private"), "{error}");
    assert!(error.advice().is_some_and(|advice| advice.contains("as root on the host")), "{error}");
}
