//! The house keeps its order: which room may use which, where `unsafe` may stand, and how every file begins.
//!
//! The floors are read from the table in `docs/architecture.md`, so that the page can't say anything else than the code.
//! The code is read as tokens: comments, strings and what is compiled for tests alone don't count. Leans on nothing but
//! std. Refuses to guess: a path that leads nowhere it knows is a failure too.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files of more than 600 lines, each with the reason why it isn't two.
const LONG: &[(&str, &str)] = &[];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["src/memory/", "src/net/sasl.rs"];

#[test]
fn a_room_uses_only_the_floors_below() {
    let floors = floors();
    let names = reexports(&tokens(&read("src/lib.rs")));
    let mut wrong = Vec::new();
    let mut edges = 0;
    for file in sources() {
        let Some(room) = room_of(&file) else { continue };
        let Some(&floor) = floors.get(&room) else {
            wrong.push(format!("{file}: docs/architecture.md gives no floor to `{room}`"));
            continue;
        };
        if room == "fuzzing" {
            continue; // it may use all
        }
        for used in used_rooms(&file, &names) {
            edges += 1;
            match floors.get(&used) {
                _ if used == room => {}
                None => wrong.push(format!("{file} uses crate::{used}, which is no room")),
                Some(&below) if below < floor => {}
                Some(&other) => {
                    wrong.push(format!("{file} (floor {floor}) uses {used} (floor {other})"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(edges > 30, "only {edges} uses found: the reader of paths is broken");
}

#[test]
fn the_map_lists_the_rooms_from_the_ground_up() {
    let floors = floors();
    let tokens = without_tests(tokens(&read("src/lib.rs"))).0;
    let rooms = tokens.windows(3).filter(|three| three[0] == "mod" && three[2] == ";").map(|three| &three[1]);
    let on: Vec<_> = rooms.map(|room| (floors[room], room.as_str())).collect();
    assert!(on.len() >= 8, "{on:?}");
    assert!(on.is_sorted_by_key(|(floor, _)| floor), "lib.rs declares its rooms in another order: {on:?}");
}

#[test]
fn every_file_says_what_it_is() {
    for file in sources().into_iter().chain(rust_files("tests")).chain(rust_files("fuzz/fuzz_targets")) {
        assert!(read(&file).starts_with("//! "), "{file} doesn't begin with //!");
    }
}

#[test]
fn unsafe_stands_in_two_places_only() {
    let mut seen = false;
    for file in sources() {
        let is_unsafe = tokens(&read(&file)).iter().any(|token| token == "unsafe" || token == "unsafe_code");
        let may_be = UNSAFE.iter().any(|place| file.starts_with(place));
        assert!(!is_unsafe || may_be, "{file} has unsafe code; its homes are {UNSAFE:?}");
        seen |= is_unsafe;
    }
    assert!(seen, "no unsafe anywhere: the reader of tokens is broken");
}

#[test]
fn a_long_file_has_a_reason() {
    for file in sources() {
        let lines = read(&file).lines().count();
        let reason = LONG.iter().find(|(long, _)| *long == file);
        assert!(lines <= 600 || reason.is_some(), "{file} has {lines} lines: cut it, or say here why not");
        assert!(lines > 600 || reason.is_none(), "{file} is short enough now: take it off the list");
    }
}

/// The reader itself, on made-up sources: what must be found, and what must not.
#[test]
fn the_reader_of_paths_finds_every_way_in() {
    let names = BTreeMap::from([("Connection".to_owned(), "connection".to_owned())]);
    let found = |file: &str, text: &str| -> Vec<String> {
        paths_in(file, &without_tests(tokens(text)).0, &names).into_iter().collect()
    };
    assert_eq!(found("src/seal/key.rs", "use crate::store::Store;"), ["store"]);
    assert_eq!(found("src/seal/key.rs", "use crate::{memory, store::{self, Disk}};"), ["memory", "store"]);
    assert_eq!(found("src/seal/key.rs", "fn f() { let x: crate::Connection = 1; }"), ["connection"]);
    assert_eq!(found("src/seal/key.rs", "pub(in crate::store) fn f() {}"), ["store"]);
    assert_eq!(found("src/seal/key.rs", "use super::super::driver::Driver;"), ["driver"]);
    assert_eq!(found("src/seal/mod.rs", "use super::{driver, store::Disk};"), ["driver", "store"]);
    assert_eq!(found("src/connection.rs", "use super::client::Uri;"), ["client"]);
    assert_eq!(found("src/store/log/mod.rs", "use super::disk::File; use super::super::seal::X;"), ["seal"]);
    assert_eq!(found("src/seal/mod.rs", "mod inner { use super::super::store::X; }"), ["store"]);
    assert_eq!(found("src/seal/mod.rs", "mod inner { use super::key::X; }"), [""; 0]);
    let nothing =
        "// crate::a\n/* /* crate::b */ crate::c */ \"crate::d\\\"\" r#\"crate::e\"\"# 'x' b'\\'' x::<'a>";
    assert_eq!(found("src/seal/key.rs", nothing), [""; 0]);
    assert_eq!(
        found("src/seal/key.rs", "#[cfg(test)] mod tests { use crate::store; } use crate::memory;"),
        ["memory"]
    );
    assert_eq!(
        found("src/seal/key.rs", "#[cfg(test)] #[allow(x)] use crate::store; use crate::memory;"),
        ["memory"]
    );
    assert_eq!(found("src/seal/key.rs", "#[cfg(not(test))] use crate::store;"), ["store"]);
}

/// Room by room the floor, from `| 0 | `memory`, … |` in docs/architecture.md.
fn floors() -> BTreeMap<String, u32> {
    let page = read("docs/architecture.md");
    let mut floors = BTreeMap::new();
    for line in page.lines() {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (Some(Ok(floor)), Some(rooms)) = (cells.next().map(str::parse), cells.next()) else { continue };
        for room in rooms.split('`').skip(1).step_by(2) {
            let room = room.trim_end_matches('/').trim_end_matches(".rs");
            assert!(floors.insert(room.to_owned(), floor).is_none(), "`{room}` stands on two floors");
        }
    }
    assert!(floors.len() >= 10, "the table of floors is gone from docs/architecture.md");
    floors
}

/// The room that a file belongs to; `None` for lib.rs and the binaries, which stand above.
fn room_of(file: &str) -> Option<String> {
    let rest = file.strip_prefix("src/").unwrap();
    let room = rest.split('/').next().unwrap().trim_end_matches(".rs");
    (room != "lib" && room != "bin").then(|| room.to_owned())
}

/// The rooms that what ships of a file uses.
fn used_rooms(file: &str, names: &BTreeMap<String, String>) -> BTreeSet<String> {
    if for_tests(file) {
        return BTreeSet::new();
    }
    paths_in(file, &without_tests(tokens(&read(file))).0, names)
}

/// Whether a file is compiled for tests alone: one of the modules on the way to it is declared so.
fn for_tests(file: &str) -> bool {
    let parts: Vec<&str> = file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
    (2..parts.len()).any(|depth| {
        let parent = parts[..depth].join("/");
        let parent = [format!("{parent}/mod.rs"), format!("{parent}.rs")];
        let parent = parent.into_iter().find(|parent| root().join(parent).exists());
        parent.is_some_and(|parent| without_tests(tokens(&read(&parent))).1.contains(parts[depth]))
    })
}

/// The first step of each path that leaves the file's room by `crate::` or by enough `super::`.
fn paths_in(file: &str, tokens: &[String], names: &BTreeMap<String, String>) -> BTreeSet<String> {
    let inside = file.strip_prefix("src/").unwrap().trim_end_matches(".rs").trim_end_matches("/mod");
    let file_depth = inside.split('/').count();
    let mut rooms = BTreeSet::new();
    let (mut braces, mut modules) = (0_usize, Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => {
                braces += 1;
                if at >= 2 && tokens[at - 2] == "mod" {
                    modules.push(braces);
                }
            }
            "}" => {
                if modules.last() == Some(&braces) {
                    modules.pop();
                }
                braces = braces.saturating_sub(1);
            }
            "crate" => first_steps(tokens, at + 1, names, &mut rooms),
            "super" => {
                let mut ups = 1;
                while tokens.get(at + 1).is_some_and(|it| it == "::")
                    && tokens.get(at + 2).is_some_and(|it| it == "super")
                {
                    ups += 1;
                    at += 2;
                }
                if ups >= file_depth + modules.len() {
                    first_steps(tokens, at + 1, names, &mut rooms);
                }
            }
            _ => {}
        }
        at += 1;
    }
    rooms
}

/// The rooms behind the crate's root, where `at` is the `::` behind `crate`: one name, or those in braces.
fn first_steps(tokens: &[String], at: usize, names: &BTreeMap<String, String>, rooms: &mut BTreeSet<String>) {
    if tokens.get(at).is_none_or(|it| it != "::") {
        return; // pub(crate)
    }
    let mut add = |name: &str| {
        rooms.insert(names.get(name).map_or(name, String::as_str).to_owned());
    };
    match tokens.get(at + 1).map(String::as_str) {
        Some("{") => {
            let mut depth = 0;
            for pair in tokens[at + 1..].windows(2) {
                match pair[0].as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                if depth == 1 && (pair[0] == "{" || pair[0] == ",") && pair[1] != "}" {
                    add(&pair[1]);
                }
            }
        }
        Some(name) => add(name),
        None => {}
    }
}

/// Which room each name at the crate's root comes from: `pub use room::{A, B};`.
fn reexports(tokens: &[String]) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (at, three) in tokens.windows(3).enumerate() {
        if three[0] == "pub" && three[1] == "use" {
            let end = tokens[at..].iter().position(|token| token == ";").unwrap() + at;
            for name in tokens[at + 3..end].iter().filter(|name| name.starts_with(char::is_alphabetic)) {
                names.insert(name.clone(), three[2].clone());
            }
        }
    }
    names
}

/// Tokens without the items under `#[cfg(test)]`, and the names of the modules among those that are files.
fn without_tests(tokens: Vec<String>) -> (Vec<String>, BTreeSet<String>) {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut files) = (Vec::new(), BTreeSet::new());
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(String::as_str).take(TEST.len()).eq(TEST) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // The item ends with its first `;`, or with the brace that closes its first one; attributes come before.
        at += TEST.len();
        let mut depth = 0;
        while at < tokens.len() {
            let token = tokens[at].as_str();
            match token {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                "mod" if depth == 0 && tokens.get(at + 2).is_some_and(|it| it == ";") => {
                    files.insert(tokens[at + 1].clone());
                }
                _ => {}
            }
            at += 1;
            if depth == 0 && (token == ";" || token == "}") {
                break;
            }
        }
    }
    (kept, files)
}

/// A file's words and marks, without comments and without what stands in quotes.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let starts =
        |at: usize, mark: &str| mark.chars().enumerate().all(|(n, it)| chars.get(at + n) == Some(&it));
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let char = chars[at];
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            let mut depth = 0;
            loop {
                if starts(at, "/*") {
                    (depth, at) = (depth + 1, at + 2);
                } else if starts(at, "*/") {
                    (depth, at) = (depth - 1, at + 2);
                } else {
                    at += 1;
                }
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if char == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if char == '\'' {
            // A character, or a lifetime.
            if chars.get(at + 1) == Some(&'\\') {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            } else if chars.get(at + 2) == Some(&'\'') {
                at += 3;
            } else {
                at += 1;
            }
        } else if is_word(char) {
            let from = at;
            while at < chars.len() && is_word(chars[at]) {
                at += 1;
            }
            let word: String = chars[from..at].iter().collect();
            let hashes = chars[at..].iter().take_while(|it| **it == '#').count();
            let is_raw = ["r", "br", "cr"].contains(&word.as_str()) && chars.get(at + hashes) == Some(&'"');
            if is_raw {
                let end = format!("\"{}", "#".repeat(hashes));
                at += hashes + 1;
                while at < chars.len() && !starts(at, &end) {
                    at += 1;
                }
                at += end.len();
            } else {
                tokens.push(word);
            }
        } else if starts(at, "::") {
            tokens.push("::".into());
            at += 2;
        } else {
            if !char.is_whitespace() {
                tokens.push(char.into());
            }
            at += 1;
        }
    }
    tokens
}

fn sources() -> Vec<String> {
    let files = rust_files("src");
    assert!(files.len() > 40, "only {} files in src/", files.len());
    files
}

/// Every Rust file below a folder, by its path from the package's root.
fn rust_files(folder: &str) -> Vec<String> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|it| it == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root().join(folder), &mut files);
    files.sort();
    files.iter().map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()).collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
