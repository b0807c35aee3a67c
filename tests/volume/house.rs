//! A keystore with a directory for its volumes, and how work there is cut short.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use strongroom::volume::{Format, Progress, Removal, Step, Verdict, Volumes};
use strongroom::{Connection, Embedded, Error, Keystore, UsageType};

use crate::support::{Place, files_below};

/// A keystore, and a directory for its volumes.
pub(crate) struct House {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) place: Place,
    /// If not qemu-img itself.
    pub(crate) program: Option<PathBuf>,
    /// The keystore, while it isn't another process's.
    pub(crate) open: RefCell<Option<Embedded>>,
}

impl House {
    /// With qemu-img as it is.
    pub(crate) fn unhurried() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("volumes")).unwrap();
        let place = Place(directory.path().into());
        Self { directory, place, program: None, open: RefCell::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("volumes").join(name)
    }

    pub(crate) fn volumes(&self) -> Volumes {
        let volumes = Volumes::over(self.keystore()).iterating(QUICK);
        match &self.program {
            Some(program) => volumes.by_program(program),
            None => volumes,
        }
    }

    /// With a qemu-img that doesn't measure the machine.
    pub(crate) fn new() -> Self {
        let mut house = Self::unhurried();
        let [clock, program] = ["clock.so", "qemu-img"].map(|name| house.directory.path().join(name));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).args([&clock, Path::new(HASTY_CLOCK)]);
        assert!(compiler.status().unwrap().success());
        let script = format!("#!/bin/sh\nLD_PRELOAD={} exec qemu-img \"$@\"\n", clock.display());
        write_program(&program, &script);
        house.program = Some(program);
        house
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection::over(self.keystore())
    }

    pub(crate) fn keystore(&self) -> Arc<dyn Keystore> {
        self.open.borrow_mut().get_or_insert_with(|| self.place.open()).keystore()
    }

    pub(crate) fn value(&self, uuid: uuid::Uuid) -> Vec<u8> {
        let secret = self.connection().elevated().unwrap().lookup_by_uuid(uuid).unwrap();
        secret.value().unwrap().expose_secret().to_vec()
    }

    pub(crate) fn check(&self, path: &Path) -> Verdict {
        self.volumes().check(path, None).unwrap().verdict
    }

    /// What a guest sees of a volume.
    pub(crate) fn content(&self, path: &Path, format: Format) -> Vec<u8> {
        let uuid =
            self.connection().lookup_by_usage(UsageType::Volume, path.to_str().unwrap()).unwrap().uuid();
        let key = self.directory.path().join("to be read");
        fs::write(&key, self.value(uuid)).unwrap();
        let how = match format {
            Format::Raw => "driver=luks,key-secret=s",
            Format::Qcow2 => "driver=qcow2,encrypt.key-secret=s",
        };
        let out = self.directory.path().join("content");
        let mut command = Command::new("qemu-img");
        command
            .args(["convert", "-q", "-O", "raw", "--object"])
            .arg(format!("secret,id=s,file={}", key.display()));
        command.arg("--image-opts").arg(format!("{how},file.driver=file,file.filename={}", path.display()));
        assert!(command.arg(&out).status().unwrap().success());
        fs::read(out).unwrap()
    }

    pub(crate) fn is_empty(&self) {
        assert_eq!(self.connection().num_of_secrets().unwrap(), 0);
        let files = files_below(&self.directory.path().join("volumes"));
        assert!(files.is_empty(), "{files:?}");
    }
}

pub(crate) const FORMATS: [Format; 2] = [Format::Raw, Format::Qcow2];

/// Watches, and does this before a step.
pub(crate) fn before(step: Step, mut act: impl FnMut()) -> impl FnMut(Progress) {
    move |progress| {
        if progress == Progress::Next(step) {
            act();
        }
    }
}

/// As a kill would, but for the locks.
pub(crate) fn die() {
    std::panic::resume_unwind(Box::new("cut short"));
}

pub(crate) fn cut_short(work: impl FnOnce() -> Result<(), Error>) {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_err();
}

pub(crate) const GONE: Removal = Removal { unproved: false, gone: true };

/// By another process: what this one has open for writing, no thread of its could start.
pub(crate) fn write_program(path: &Path, script: &str) {
    let write = "printf %s \"$1\" > \"$2\"; chmod 755 \"$2\"";
    let mut shell = Command::new("sh");
    assert!(shell.args(["-c", write, "sh", script]).arg(path).status().unwrap().success());
}

pub(crate) fn nothing(_: Progress) {}

const HASTY_CLOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/hasty_clock.c");

pub(crate) const SIZE: u64 = 1 << 20;

/// LUKS' key derivation, for tests.
pub(crate) const QUICK: Duration = Duration::from_millis(1);
