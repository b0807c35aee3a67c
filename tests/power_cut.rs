//! After a power cut, every change that was acknowledged is there.
//!
//! libvirt 12.8, measured by the same steps: 20 of 20 overwrites fell back to the old value and 20 of 20 new secrets were
//! gone. Here a child process keeps its store on an ext4 image behind a loop device. At each acknowledgement the image is
//! copied as it is, while the file system is mounted and the child waits: the copy is the device at that instant, without
//! what the page cache held back. The copy is mounted (its journal replayed), opened and looked through.
//!
//! The control takes the same steps with plain files that nobody syncs, and must lose them all, or the method sees nothing.
//! What this does not see is a disk that lies about its own cache. Leans on root, loop devices and mkfs.ext4; fails where
//! they are missing, because a test of durability that skips itself is a promise nobody keeps.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use secrecy::ExposeSecret;
use strongroom::Connection;
use support::{Place, note, say};
use uuid::Uuid;

const SECRETS: u64 = 20;

#[test]
fn what_was_acknowledged_outlives_the_power() {
    if let Some(role) = support::role() {
        let place = Place(role[0].clone().into());
        return if role[1] == "store" { keep(&StoreKeeper::new(&place)) } else { keep(&FileKeeper(place.0)) };
    }
    let started = Instant::now();
    let lost = cut_at_every_acknowledgement("store", |place| {
        let embedded = place.open();
        let status = embedded.status();
        assert_eq!((status.locked, status.read_only), (None, None));
        let damage: Vec<_> =
            embedded.verify().unwrap().findings.into_iter().filter(|found| found.is_damage()).collect();
        assert_eq!(damage, []);
        let found =
            Connection::over(embedded.keystore()).list_all(0).unwrap().into_iter().filter_map(|secret| {
                let value = secret.value().ok()?;
                Some((secret.uuid(), String::from_utf8_lossy(value.expose_secret()).into_owned()))
            });
        found.collect()
    });
    assert_eq!((lost.overwrites, lost.new), (0, 0), "acknowledged, and lost: {lost:?}");
    let control = cut_at_every_acknowledgement("files", |place| {
        let entries = fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().path());
        let found = entries.filter(|path| path.is_file()).filter_map(|path| {
            let uuid = path.file_name()?.to_str()?.parse().ok()?;
            Some((uuid, fs::read_to_string(path).ok()?))
        });
        found.collect()
    });
    note(&format!("{} s; store: {lost:?}; unsynced files: {control:?}", started.elapsed().as_secs()));
    assert!(control.overwrites == SECRETS && control.new == SECRETS, "this method sees no loss: {control:?}");
}

/// What a power cut behind the last step takes. Nothing may have been gone at an earlier one and be back at the last.
#[derive(Debug, Default)]
struct Lost {
    overwrites: u64,
    new: u64,
}

/// Runs a child through twenty overwrites and twenty new secrets. Behind each, cuts the power and counts what is missing.
fn cut_at_every_acknowledgement(kind: &str, look: impl Fn(&Place) -> BTreeMap<Uuid, String>) -> Lost {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    let disk = Mount::of(&image, directory.path().join("disk"));
    let mut child =
        support::again("what_was_acknowledged_outlives_the_power", &[disk.0.to_str().unwrap(), kind]);
    child.expect("ready");
    let mut lost = Lost::default();
    for step in 1..=2 * SECRETS {
        child.give(b"g");
        child.expect(&format!("done {step}"));
        // The child waits now. Nobody syncs: `cp` reads the image's own pages, which only the loop device writes.
        let copy = directory.path().join("copy.img");
        run(Command::new("cp").arg("--sparse=always").args([&image, &copy]));
        let copied = Mount::of(&copy, directory.path().join("copy"));
        let found = look(&Place(copied.0.clone()));
        let is_missing = |number: &u64| found.get(&uuid(*number)) != Some(&format!("new value of {number}"));
        let last = Lost {
            overwrites: (1..=step.min(SECRETS)).filter(is_missing).count() as u64,
            new: (SECRETS + 1..=step).filter(is_missing).count() as u64,
        };
        assert!(kind != "store" || last.overwrites + last.new == 0, "behind step {step}: {last:?}");
        lost = last;
    }
    child.kill();
    lost
}

/// One that keeps values by number.
trait Keep {
    fn keep(&self, number: u64, value: &str);
    /// Makes durable what was kept so far.
    fn settle(&self);
}

/// The child's life: old values, then at each byte it is given one overwrite or one new secret.
fn keep(keeper: &dyn Keep) {
    for number in 1..=SECRETS {
        keeper.keep(number, &format!("old value of {number}"));
    }
    keeper.settle();
    say("ready");
    for step in 1..=2 * SECRETS {
        std::io::stdin().read_exact(&mut [0]).unwrap();
        keeper.keep(step, &format!("new value of {step}"));
        say(&format!("done {step}"));
    }
    // Until the kill.
    _ = std::io::stdin().read(&mut [0]);
}

/// A keystore. That it settles by itself is the promise.
struct StoreKeeper(Connection);

impl StoreKeeper {
    fn new(place: &Place) -> Self {
        Self(Connection::over(place.open().keystore()))
    }
}

impl Keep for StoreKeeper {
    fn keep(&self, number: u64, value: &str) {
        let uuid = uuid(number);
        let secret = self.0.lookup_by_uuid(uuid);
        let define = || self.0.define_xml(format!("<secret><uuid>{uuid}</uuid></secret>"), 0).unwrap();
        secret.unwrap_or_else(|_| define()).set_value(value.as_bytes()).unwrap();
    }

    fn settle(&self) {}
}

/// A directory of files, written as libvirt writes: beside the old one and renamed, and never synced.
struct FileKeeper(PathBuf);

impl Keep for FileKeeper {
    fn keep(&self, number: u64, value: &str) {
        let path = self.0.join(uuid(number).to_string());
        fs::write(path.with_extension("new"), value).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    fn settle(&self) {
        for entry in fs::read_dir(&self.0).unwrap() {
            _ = fs::File::open(entry.unwrap().path()).unwrap().sync_all();
        }
        fs::File::open(&self.0).unwrap().sync_all().unwrap();
    }
}

fn uuid(number: u64) -> Uuid {
    Uuid::from_u64_pair(1, number)
}

/// A mounted image. Unmounted when this is dropped.
struct Mount(PathBuf);

impl Mount {
    fn of(image: &Path, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        // The journal's own timer must not come to anybody's help.
        run(Command::new("mount").args(["-o", "loop,commit=300"]).args([image, &at]));
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Not lazily: a mount that somebody still uses is a fault of the test.
        let unmounted = Command::new("umount").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            panic!("cannot unmount {}", self.0.display());
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output();
    let failed = match output {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!("this test needs root, loop devices, mount and mkfs.ext4 (e2fsprogs); {command:?}: {failed}");
}
