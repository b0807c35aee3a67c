//! No passphrase is in arguments, environments or files of whatever a volume's making starts.

use std::fs;

use secrecy::ExposeSecret;
use strongroom::UsageType;
use strongroom::volume::{Format, Plan, Verdict};

use crate::house::{House, SIZE, nothing, write_program};
use crate::support::files_below;
use crate::support::markers::Needles;

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
