//! What the README and docs/daemon.md tell people to type works as it stands there.
//!
//! Runs `docs/quickstart.sh` with the program at hand, and each block under a `<!-- tested -->` line in a fresh
//! directory. The README's Rust example is a doctest (lib.rs includes it). Refuses to run `tests/run`, which
//! would run this; that it is there and is a shell script has to do.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn the_quickstart_shows_what_it_says() {
    let shown = run(Command::new("sh").arg("docs/quickstart.sh").current_dir(root()));
    for line in [
        "Secret 6f2f7c9e-5a3b-4a0e-9c57-3d1b9a1f0d42 created",
        "Secret value set",
        "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==",
        "correct horse battery staple",
        "keystore/etc/secrets/6f2f7c9e-5a3b-4a0e-9c57-3d1b9a1f0d42.xml",
        "in no file, neither as it is nor in base64",
        "it ended with status 1",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line:?} is missing from:\n{shown}");
    }
    assert!(shown.contains("the keystore is locked: no key file"), "{shown}");
    assert_eq!(shown.lines().filter(|line| *line == "correct horse battery staple").count(), 2, "{shown}");
    let place = shown.split("root=").nth(1).unwrap().split("/keystore").next().unwrap();
    assert!(place.starts_with('/') && !Path::new(place).exists(), "{place} was left behind");
}

#[test]
fn the_readmes_commands_work() {
    // One shell runs them in their order, as a reader does.
    let directory = tempfile::tempdir().unwrap();
    let blocks = tested_blocks("README.md").join("\n");
    let shown = run(Command::new("sh").args(["-euc", &blocks]).current_dir(&directory));
    assert!(shown.contains("\n32\n"), "the value has another length:\n{shown}");
    assert!(shown.contains("ceph client.cinder secret"), "{shown}");
    assert!(shown.contains("ok: db.qcow2: secret "), "{shown}");
}

#[test]
fn the_daemons_page_can_be_tried_out() {
    for block in tested_blocks("docs/daemon.md") {
        let directory = tempfile::tempdir().unwrap();
        let shown = run(Command::new("sh").args(["-euc", &block]).current_dir(&directory));
        assert!(shown.contains("ceph client.cinder secret"), "{shown}");
        assert!(directory.path().join("try/etc/secrets/secrets.log").exists());
    }
}

#[test]
fn the_scripts_and_pages_that_are_named_are_there() {
    for script in ["docs/quickstart.sh", "tests/run", "fuzz/run"] {
        run(Command::new("sh").args(["-n", script]).current_dir(root()));
    }
    run(Command::new("bash").args(["-n", ".ci/run"]).current_dir(root()));
    for (page, folder) in [("README.md", ""), ("docs/daemon.md", "docs")] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let is_there = match link.strip_prefix('#') {
                Some(heading) => text.lines().any(|line| anchor(line).is_some_and(|it| it == heading)),
                None => root().join(folder).join(link).exists(),
            };
            assert!(is_there, "{page} links to {link}");
        }
    }
}

/// The blocks of a page that are under `<!-- tested -->`.
fn tested_blocks(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let behind = text.split("<!-- tested -->\n```sh\n").skip(1);
    let blocks: Vec<_> = behind.map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect();
    assert!(!blocks.is_empty(), "{page} has no tested block");
    blocks
}

/// What a heading is called in links.
fn anchor(line: &str) -> Option<String> {
    let heading = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
    Some(heading.to_lowercase().replace(' ', "-"))
}

/// Runs it as a newcomer would: `strongroom` in the path, nothing of ours in the environment. Gives what was shown.
fn run(command: &mut Command) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_strongroom"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    for variable in ["VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI", "STRONGROOM_KEY_FILE"] {
        command.env_remove(variable);
    }
    let Output { status, stdout, stderr } =
        command.env("PATH", path).env("STRONGROOM", program).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    assert_eq!(stderr, "", "{command:?}");
    stdout
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
