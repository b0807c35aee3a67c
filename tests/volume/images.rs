//! What stands at a volume's path is looked at before it is trusted: in use, no file, or naming other files.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use strongroom::volume::{Format, Original, Plan, Reading, Removal, Verdict};

use crate::house::{House, SIZE, nothing};

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
    let error = house.volumes().create(&copy_of(Format::Raw), None, &mut nothing).unwrap_err();
    assert!(error.to_string().ends_with("is a qcow2 image, not a raw one"), "{error}");
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
