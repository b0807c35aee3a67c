//! `strongroom check` agrees with libvirt on every description in tests/data/references: with what its client gets for each
//! reference, with what its QEMU driver refuses of each device, and with its schemas.
//!
//! References are looked up all at once: with every secret there, then with some in each of the states they can be in, by
//! turns. Leans on Debian's Python binding for libvirt's side (tests/clients/lookups.py, definitions.py).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

#[test]
fn what_check_calls_refused_libvirt_refuses() {
    let site = Site::new(&[]);
    let names = descriptions().filter(|(_, text)| text.contains("<domain type=")).map(|(name, _)| name);
    let names = names.filter(|name| name.starts_with("domain-")).collect::<Vec<_>>();
    assert!(names.len() > 20, "{names:?}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/definitions.py");
    let judged = format!(
        "cd '{}'; python3 -B '{}' /run/definitions {}",
        folder().display(),
        script.display(),
        names.join(" ")
    );
    let libvirts: Value = serde_json::from_str(&site.run(&judged)).unwrap();
    let report = report(&site, &names.join(" "));
    let (mut refused, mut taken) = (0, 0);
    for file in report["files"].as_array().unwrap() {
        let name = file["file"].as_str().unwrap();
        let mut ours = BTreeMap::<_, Vec<_>>::new();
        for line in
            file["secrets"].as_array().unwrap().iter().filter(|line| line["here"]["state"] == "refused")
        {
            let device = line["place"].as_str().unwrap().split(',').next().unwrap();
            ours.entry(device).or_default().push(line["here"]["detail"].as_str().unwrap());
        }
        let devices = libvirts[name].as_object().unwrap();
        assert!(ours.keys().all(|device| devices.contains_key(*device)), "{name}: {ours:?} of {devices:?}");
        for (device, words) in devices {
            if OTHERWISE.contains(&(name, device)) {
                continue;
            }
            let ours = ours.get(device.as_str()).map(Vec::as_slice).unwrap_or_default();
            match words.as_str() {
                // It stops at the first.
                Some(words) => assert!(
                    ours.iter().any(|ours| words.ends_with(ours)),
                    "{name}: {device}: libvirt refuses it: {words}; we: {ours:?}"
                ),
                None => assert!(ours.is_empty(), "{name}: {device}: libvirt takes it; we: {ours:?}"),
            }
            *if words.is_null() { &mut taken } else { &mut refused } += 1;
        }
    }
    assert!(refused >= 40 && taken >= 40, "{refused} refused, {taken} taken");
}

#[test]
fn the_descriptions_are_such_as_libvirts_schemas_know() {
    let directory = tempfile::tempdir().unwrap();
    let document = directory.path().join("document.xml");
    let mut unknown = BTreeSet::new();
    for (name, text) in descriptions() {
        fs::write(&document, whole(&text)).unwrap();
        let output = Command::new("virt-xml-validate").arg(&document).output().unwrap();
        if !output.status.success() {
            assert!(
                String::from_utf8_lossy(&output.stderr).contains("fails to validate"),
                "{name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            unknown.insert(name);
        }
    }
    let listed = |list: &[&str]| list.iter().map(|name| format!("{name}.xml")).collect::<BTreeSet<_>>();
    let must_be = &listed(&BAD) | &listed(&LOOSE);
    // What is newer than the libvirt that is here may be unknown to it.
    let expected = &must_be | &(&listed(&NEW) & &unknown);
    assert_eq!(unknown, expected);
}

/// Descriptions that name secrets as nobody may.
const BAD: [&str; 12] = [
    "domain-cipher",
    "domain-empty-drives",
    "domain-faults",
    "domain-formats",
    "domain-protocols-without-passwords",
    "domain-secret-too-many",
    "domain-that-does-not-start",
    "domain-vhostuser",
    "domainbackup-parts",
    "domainsnapshot-parts",
    "pool-faults",
    "pool-without-auth-type",
];

/// Such as libvirt takes all the same, leaving out what it doesn't know.
const LOOSE: [&str; 4] =
    ["domain-namespaces", "domain-nvram-as-text", "domain-passwords-of-no-schema", "domain-vtpm"];

/// Such as came after libvirt 9.0.
const NEW: [&str; 4] =
    ["domain-data-store", "domain-nvram-in-a-file", "domain-rbd-layers", "domainsnapshot-reverted"];

/// Devices of which libvirt 9.0 says something else: it has no luks-any, and takes several secrets for one; and one that
/// isn't for this architecture.
const OTHERWISE: [(&str, &str); 4] = [
    ("domain-rbd-layers.xml", "disk vdb"),
    ("domain-that-does-not-start.xml", "disk vdd"),
    ("domain-secret-too-many.xml", "disk vda"),
    ("domain-nvram-as-text.xml", "nvram 1"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/references")
}

/// The descriptions with their files' names.
fn descriptions() -> impl Iterator<Item = (String, String)> {
    folder().read_dir().unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
    })
}

/// A document that has a schema: what lies in a state, and a guest around a device.
fn whole(text: &str) -> String {
    let (document, _) = text.split_once("<!-- expect").unwrap();
    let document = document.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap_or(document);
    for (state, inside) in [("<domstatus", "domain"), ("<poolstate", "pool")] {
        if document.starts_with(state) {
            let (from, to) = (format!("<{inside} "), format!("</{inside}>"));
            return document[document.find(&from).unwrap()..document.rfind(&to).unwrap() + to.len()]
                .to_owned();
        }
    }
    if ["<disk ", "<hostdev ", "<tpm "].iter().any(|device| document.starts_with(device)) {
        return format!("<domain type='kvm'><name>web</name><devices>{document}</devices></domain>");
    }
    document.to_owned()
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
    let report = report(site, "*.xml");
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

/// What `strongroom check` says of these descriptions.
fn report(site: &Site, names: &str) -> Value {
    let check = format!("strongroom -c secret:///system check --json {names} || true");
    serde_json::from_str(&site.run(&format!("cd '{}'; {check}", folder().display()))).unwrap()
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
