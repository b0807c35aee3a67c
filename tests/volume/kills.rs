//! Killed before each step or at any moment, a second run brings it to its end.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use strongroom::volume::{Format, Orphan, Plan, Progress, Removal, Step, Verdict, Volumes};
use strongroom::{Error, ErrorCode};

use crate::house::{FORMATS, House, QUICK, SIZE, nothing, write_program};
use crate::support::{self, Dice, Place, note, say};

/// What is done, killed and done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Create,
    Change,
    Delete,
}

pub(crate) const WORKS: [Work; 3] = [Work::Create, Work::Change, Work::Delete];

impl Work {
    pub(crate) fn run(
        self,
        volumes: &Volumes,
        path: &Path,
        format: Format,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        match self {
            Self::Create => volumes.create(&Plan::new(path, format, SIZE), None, watch).map(drop),
            Self::Change => volumes.change_passphrase(path, None, None, watch).map(drop),
            Self::Delete => volumes.delete(path, Removal::default(), watch).map(drop),
        }
    }

    pub(crate) fn steps(self) -> &'static [Step] {
        use Step::*;
        match self {
            Self::Create => &[Define, SetPassphrase, Make, Name, Finish],
            Self::Change => &[Note, NotePassphrases, Add, Store, Erase, Forget],
            Self::Delete => &[Remove, Undefine],
        }
    }
}

#[test]
fn a_killed_caller_leaves_no_qemu_img_behind() {
    const NAME: &str = "kills::a_killed_caller_leaves_no_qemu_img_behind";
    if let Some(role) = support::role() {
        return work_and_die(&role);
    }
    let mut house = House::unhurried();
    let (program, pipe) = (house.directory.path().join("qemu-img"), house.directory.path().join("pipe"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    write_program(&program, &format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", pipe.display()));
    house.program = Some(program);
    let child = house.again(NAME, Work::Create, Format::Raw, "none");
    let left: i32 = fs::read_to_string(&pipe).unwrap().trim().parse().unwrap();
    let left = rustix::process::Pid::from_raw(left).unwrap();
    let ended = rustix::process::pidfd_open(left, rustix::process::PidfdFlags::empty()).unwrap();
    child.kill();
    let mut fds = [rustix::event::PollFd::new(&ended, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1), "it goes on");
}

#[test]
fn killed_before_each_step_a_second_run_finishes_it() {
    const NAME: &str = "kills::killed_before_each_step_a_second_run_finishes_it";
    if let Some(role) = support::role() {
        return work_and_die(&role);
    }
    for format in FORMATS {
        for work in WORKS {
            let house = House::new();
            for step in work.steps() {
                // What the kill before left, and the second run brought to its end, is where the next one begins.
                house.prepare(work, format);
                let mut child = house.again(NAME, work, format, &format!("{step:?}"));
                child.process.wait().unwrap();
                let said = child.kill();
                assert_eq!(said, [format!("{step:?}")], "{format:?} {work:?}");
                house.survives(work, format, &format!("{format:?} {work:?} killed before {step:?}"));
            }
        }
    }
}

/// The same at random moments: within the store's writes, within qemu-img's. A test for each format, for two processors.
#[test]
fn killed_at_any_moment_a_second_run_finishes_luks() {
    kill_at_any_moment("kills::killed_at_any_moment_a_second_run_finishes_luks", Format::Raw);
}

#[test]
fn killed_at_any_moment_a_second_run_finishes_qcow2() {
    kill_at_any_moment("kills::killed_at_any_moment_a_second_run_finishes_qcow2", Format::Qcow2);
}

fn kill_at_any_moment(name: &str, format: Format) {
    const KILLS: u64 = 100;
    if let Some(role) = support::role() {
        return work_and_die(&role);
    }
    let (started, seed) = (Instant::now(), Dice::seed());
    let mut dice = Dice(seed);
    let mut in_time = 0;
    let house = House::new();
    for kill in 0..KILLS {
        let work = WORKS[(kill % 3) as usize]; // each is the next one's beginning
        house.prepare(work, format);
        let mut child = house.again(name, work, format, "never");
        child.expect("begin");
        std::thread::sleep(Duration::from_micros(dice.roll(if work == Work::Delete {
            10_000
        } else {
            60_000
        })));
        let said = child.kill();
        in_time += u64::from(!said.iter().any(|line| line == "done"));
        house.survives(work, format, &format!("seed {seed}, kill {kill}: {format:?} {work:?}"));
    }
    note(&format!(
        "{} s, seed {seed}: {in_time} of {KILLS} were killed at work",
        started.elapsed().as_secs()
    ));
    assert!(in_time > KILLS / 4, "idle: {in_time}");
}

/// The other process's life: it does its work until it is killed, or kills itself before a step.
fn work_and_die(role: &[String]) {
    let [place, path, program, work, format, until] = role else { panic!("{role:?}") };
    let work = WORKS.into_iter().find(|it| format!("{it:?}") == *work).unwrap();
    let format = FORMATS.into_iter().find(|it| format!("{it:?}") == *format).unwrap();
    let embedded = Place(place.into()).open();
    let volumes = Volumes::over(embedded.keystore()).iterating(QUICK).by_program(program);
    if until == "never" {
        say("begin");
    }
    let done = work.run(&volumes, Path::new(path), format, &mut |progress| {
        if let Progress::Next(step) = progress
            && format!("{step:?}") == *until
        {
            say(until);
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
    });
    done.unwrap();
    say("done");
}

impl House {
    /// Nothing is there for what makes a volume, and a volume for what changes or removes it.
    fn prepare(&self, work: Work, format: Format) {
        let path = self.path("disk");
        match (work == Work::Create, path.exists()) {
            (true, true) => Work::Delete.run(&self.volumes(), &path, format, &mut nothing).unwrap(),
            (false, false) => Work::Create.run(&self.volumes(), &path, format, &mut nothing).unwrap(),
            (true, false) | (false, true) => {}
        }
    }

    fn again(&self, name: &str, work: Work, format: Format, until: &str) -> support::Other {
        self.keystore(); // it is made
        drop(self.open.take());
        let program = self.program.clone().unwrap_or_else(|| "qemu-img".into());
        let paths =
            [self.directory.path(), &self.path("disk"), &program].map(|path| path.display().to_string());
        let [place, path, program] = &paths;
        let (work, format) = (format!("{work:?}"), format!("{format:?}"));
        support::again(name, &[place, path, program, &work, &format, until])
    }

    /// What a kill left is sound, and a second run brings it to its end.
    fn survives(&self, work: Work, format: Format, when: &str) {
        let path = self.path("disk");
        // Killed while it began a qemu-img, that one has the keystore for a moment, before it is qemu-img.
        let end = Instant::now() + Duration::from_secs(10);
        let reopened = loop {
            match self.place.try_open() {
                Err(error) if error.to_string().contains("is in use") && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                opened => break opened.unwrap(),
            }
        };
        *self.open.borrow_mut() = Some(reopened);
        let volumes = self.volumes();
        let end = Instant::now() + Duration::from_secs(60);
        // The qemu-img that it left still works: nobody tells us when it is done.
        let in_use = |error: &Error| {
            let is_so = error.advice().is_some_and(|advice| advice.contains("in use"));
            is_so && Instant::now() < end && {
                std::thread::sleep(Duration::from_millis(10));
                true
            }
        };
        while path.exists() {
            match volumes.check(&path, None) {
                Err(error) if in_use(&error) => {}
                checked => {
                    assert_eq!(checked.unwrap().verdict, Verdict::Opens, "{when}");
                    break;
                }
            }
        }
        loop {
            match work.run(&volumes, &path, format, &mut nothing) {
                Ok(()) => break,
                // Killed in its last moment, it had done all.
                Err(error) if work == Work::Delete && error.code() == ErrorCode::NoSecret => break,
                Err(error) if work == Work::Create && error.to_string().ends_with("exists") => break,
                Err(error) if in_use(&error) => {}
                Err(error) => panic!("{when}: {error}"),
            }
        }
        if work == Work::Delete {
            self.is_empty();
        } else {
            assert_eq!(self.check(&path), Verdict::Opens, "{when}");
            assert_eq!(self.connection().num_of_secrets().unwrap(), 1, "{when}");
            let orphans = volumes.orphans(&[]).unwrap();
            // A qemu-img that was left may make its file after all was swept.
            assert!(orphans.iter().all(|it| matches!(it, Orphan::Unnamed { .. })), "{when}: {orphans:?}");
        }
    }
}
