//! The command line, case by case: `tests/cli/<situation>.case` is a session as a person would see it.
//!
//! ```text
//! # A comment.
//! $ a command for sh, with `strongroom` in its PATH
//! > its next line
//! a line of standard output
//! ! a line of standard error
//! \ no newline at the end of standard output
//! ? the exit status, if it isn't 0
//! ```
//!
//! In expected lines `[UUID]` stands for any UUID, `[TIME]` for a timestamp, `[DIR]` for the case's directory, `[..]`
//! for any text in a line, and a line `[...]` for any further lines. Each case runs in a fresh directory with the
//! files of `tests/cli/files`, a keystore of its own in `$ROOT`, and nothing else in its environment.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn every_case_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let mut cases: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "case"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 40, "only {} cases found", cases.len());
    let mut report = String::new();
    for case in &cases {
        let name = case.file_stem().unwrap().to_str().unwrap();
        if std::env::var("CASE").is_ok_and(|only| !name.contains(&only)) {
            continue;
        }
        let steps = parse(&fs::read_to_string(case).unwrap());
        assert!(!steps.is_empty(), "{name}: no step");
        run(name, &steps, &folder.join("files"), &mut report);
    }
    assert!(report.is_empty(), "\n{report}");
}

/// A command and what is expected of it.
#[derive(Debug, Default)]
struct Step {
    command: String,
    stdout: String,
    stderr: String,
    status: i32,
}

fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), ..Step::default() });
            continue;
        }
        let Some(step) = steps.last_mut() else {
            assert!(line.is_empty() || line.starts_with('#'), "before the first command: {line}");
            continue;
        };
        if let Some(more) = line.strip_prefix("> ") {
            write!(step.command, "\n{more}").unwrap();
        } else if let Some(error) = line.strip_prefix("! ") {
            writeln!(step.stderr, "{error}").unwrap();
        } else if let Some(status) = line.strip_prefix("? ") {
            step.status = status.parse().unwrap();
        } else if line == "\\ no newline" {
            assert_eq!(step.stdout.pop(), Some('\n'));
        } else {
            writeln!(step.stdout, "{line}").unwrap();
        }
    }
    steps
}

fn run(name: &str, steps: &[Step], files: &Path, report: &mut String) {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().canonicalize().unwrap();
    let here = directory.to_str().unwrap();
    for file in fs::read_dir(files).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), directory.join(file.file_name())).unwrap();
    }
    fs::write(directory.join("host.key"), [0x5A; 32]).unwrap();
    Command::new("chmod").args(["600", "host.key"]).current_dir(&directory).status().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_strongroom")).parent().unwrap();
    for step in steps {
        let output = Command::new("timeout")
            .args(["--foreground", "30", "sh", "-c", &step.command])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", program.display()))
            .env("HOME", here)
            .env("LANG", "C.UTF-8")
            .env("ROOT", format!("{here}/root"))
            .env("STRONGROOM_KEY_FILE", format!("{here}/host.key"))
            .env("VIRSH_DEFAULT_CONNECT_URI", format!("secret:///embed?root={here}/root"))
            .output()
            .unwrap();
        let seen = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(here, "[DIR]");
        let (stdout, stderr) = (seen(&output.stdout), seen(&output.stderr));
        let mut differ = |what: &str, expected: &str, got: &str| {
            writeln!(
                report,
                "{name}: $ {}\n--- {what} expected\n{expected}--- got\n{got}---\n",
                step.command
            )
            .unwrap();
        };
        if !matches(&step.stdout, &stdout) {
            differ("standard output", &step.stdout, &stdout);
        }
        if !matches(&step.stderr, &stderr) {
            differ("standard error", &step.stderr, &stderr);
        }
        if output.status.code() != Some(step.status) {
            differ("status", &format!("{}\n", step.status), &format!("{}\n", output.status));
        }
    }
}

/// Whether `text` is what `pattern` says.
fn matches(pattern: &str, text: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("[...]\n") {
        let mut starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
        return starts.any(|start| matches(rest, &text[start..]));
    }
    let fixed = |tag: &str, len: usize, allowed: fn(char) -> bool| {
        let rest = pattern.strip_prefix(tag)?;
        let (head, tail) = text.split_at_checked(len)?;
        Some(head.chars().all(allowed) && matches(rest, tail))
    };
    if pattern.starts_with("[UUID]") {
        return fixed("[UUID]", 36, |c| c.is_ascii_hexdigit() || c == '-').unwrap_or(false);
    }
    if pattern.starts_with("[TIME]") {
        return fixed("[TIME]", 28, |c| c.is_ascii_digit() || "-: .+".contains(c)).unwrap_or(false);
    }
    if let Some(rest) = pattern.strip_prefix("[..]") {
        let line = text.find('\n').unwrap_or(text.len());
        return (0..=line).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]));
    }
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some(expected), Some(got)) if expected == got => {
            matches(&pattern[expected.len_utf8()..], &text[got.len_utf8()..])
        }
        _ => false,
    }
}

#[test]
fn placeholders_match_what_they_stand_for() {
    let uuid = "3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234";
    assert!(matches("Secret [UUID] created\n", &format!("Secret {uuid} created\n")));
    assert!(!matches("Secret [UUID] created\n", "Secret x created\n"));
    assert!(matches("[TIME]: x\n", "2026-11-21 23:24:28.106+0000: x\n"));
    assert!(matches("a[..]d\n[...]\nz\n", "abcd\n1\n2\nz\n"));
    assert!(matches("a\n[...]\n", "a\n"));
    assert!(!matches("a\n", "a"));
}
