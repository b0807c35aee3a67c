//! Halves are listed, and nothing that somebody is at work on.

use std::fs;
use std::os::unix::fs::DirBuilderExt;

use strongroom::volume::{Format, Orphan, Plan, Progress, Removal};

use crate::house::{GONE, House, SIZE, nothing};
use crate::kills::WORKS;

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
    fs::DirBuilder::new().mode(0o700).create(house.path(".new.strongroom-0123abcd")).unwrap();
    fs::DirBuilder::new().mode(0o755).create(house.path(".new.strongroom-89ababcd")).unwrap();
    fs::write(house.path(".new.strongroom-4567abcd"), "somebody's").unwrap();
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
