//! `strongroom check` agrees with what libvirt's own client gets, for every reference in tests/data/references.
//!
//! All descriptions at once: with every secret there, then with some in each of the states they can be in, by turns.
//! Leans on Debian's Python binding for libvirt's side (tests/clients/lookups.py).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use strongroom::Connection;

use crate::site::Site;

#[test]
fn what_check_calls_ready_libvirts_client_gets() {
    let site = Site::new(&[]);
    let connection = Connection::open(&format!(
        "secret:///system?socket=/proc/{}/root/run/libvirt/virtsecretd-sock",
        site.pid()
    ))
    .unwrap();
    let named = wanted(&site).into_iter().map(|(named, wants, _)| (named, wants)).collect::<BTreeSet<_>>();
    assert!(named.len() > 20, "{named:?}");
    let mut seen = BTreeMap::new();
    for turn in 0..=STATES.len() {
        for secret in connection.list_all(0).unwrap() {
            secret.undefine().unwrap();
        }
        let states = named.iter().enumerate().map(|(at, (name, wants))| {
            // First all are ready.
            let state = if turn == 0 { "ready" } else { STATES[(at + turn) % STATES.len()] };
            (state, name, wants)
        });
        let (others, plain): (Vec<_>, Vec<_>) = states.partition(|(state, ..)| *state == "other-usage");
        for (state, name, wants) in plain.into_iter().chain(others) {
            set(&connection, name, wants, state, &named);
        }
        let judged = wanted(&site);
        let answers = libvirts(&site, &judged);
        for ((name, wants, state), answer) in judged.iter().zip(&answers) {
            // Where a usage is looked for, one of another type is none to libvirt.
            let by_usage = matches!(name, Named::Usage(_)) && state == "other-usage";
            let expected = if by_usage { "missing" } else { state.as_str() };
            assert_eq!(answer, expected, "turn {turn}: {name:?} for {wants}");
            assert!(turn > 0 || state == "ready", "{name:?} for {wants} is {state}");
            *seen.entry(state.clone()).or_insert(0) += 1;
        }
    }
    assert!(["ready", "no-value", "missing", "other-usage"].iter().all(|it| seen[*it] >= 10), "{seen:?}");
}

/// How a secret may stand.
const STATES: [&str; 5] = ["ready", "private", "no-value", "missing", "other-usage"];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Uuid(String),
    Usage(String),
}

/// The secrets that the descriptions name, the usage type they want, and how `strongroom check` says they stand.
fn wanted(site: &Site) -> Vec<(Named, String, String)> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/references");
    let check = format!("strongroom -c secret:///system check --json '{}'/*.xml || true", files.display());
    let report: Value = serde_json::from_str(&site.run(&check)).unwrap();
    let lines =
        report["files"].as_array().unwrap().iter().flat_map(|file| file["secrets"].as_array().unwrap());
    lines
        .filter_map(|line| {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let named = text(&line["uuid"]).map(Named::Uuid).or(text(&line["usage"]).map(Named::Usage));
            Some((named?, text(&line["wants"])?, text(&line["here"]["state"])?))
        })
        .collect()
}

/// What libvirt's client gets for them.
fn libvirts(site: &Site, judged: &[(Named, String, String)]) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/lookups.py");
    let token = "/run/libvirt/common/system.token";
    let mut command = site.operator(&["python3", "-B", script.to_str().unwrap(), "secret:///system", token]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut asked = client.stdin.take().unwrap();
    let mut answers = BufReader::new(client.stdout.take().unwrap()).lines();
    let answers = judged.iter().map(|(named, wants, _)| {
        let (how, name) = match named {
            Named::Uuid(uuid) => ("uuid", uuid),
            Named::Usage(id) => ("usage", id),
        };
        writeln!(asked, "{wants} {how} {name}").unwrap();
        answers.next().unwrap().unwrap()
    });
    let answers = answers.collect();
    drop(asked);
    assert!(client.wait().unwrap().success());
    answers
}

/// Brings one to its state.
fn set(connection: &Connection, name: &Named, wants: &str, state: &str, all: &BTreeSet<(Named, String)>) {
    if state == "missing" {
        return;
    }
    let private = if state == "private" { "yes" } else { "no" };
    let other = if wants == "ceph" { "iscsi" } else { "ceph" };
    let kind = if state == "other-usage" { other } else { wants };
    let (uuid, id) = match name {
        Named::Uuid(uuid) => (format!("<uuid>{uuid}</uuid>"), format!("of {uuid}")),
        Named::Usage(id) => (String::new(), id.clone()),
    };
    let child = match kind {
        "volume" => "volume",
        "iscsi" => "target",
        _ => "name",
    };
    // One UUID that is wanted for several uses can be of none.
    let shared = matches!(name, Named::Uuid(_)) && all.iter().filter(|(other, _)| other == name).count() > 1;
    if shared && all.iter().find(|(other, _)| other == name).is_some_and(|(_, first)| first != wants) {
        return;
    }
    let usage =
        if shared { String::new() } else { format!("<usage type='{kind}'><{child}>{id}</{child}></usage>") };
    let secret = connection.define_xml(format!("<secret private='{private}'>{uuid}{usage}</secret>"), 0);
    let secret = match secret {
        Ok(secret) => secret,
        // The id is another reference's, of that usage.
        Err(_) if state == "other-usage" => return,
        Err(error) => panic!("{name:?} for {wants}: {error}"),
    };
    if state != "no-value" {
        secret.set_value(b"value").unwrap();
    }
}
