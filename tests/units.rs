//! The systemd units in docs/install: systemd understands them, they name what the daemon has, and with them switched on
//! libvirt's own names mean Strongroom, until they are switched off.
//!
//! Leans on systemd's own tools, of which none needs a running systemd. Where they aren't installed, what needs them is
//! left out, and said. Refuses to know socket paths and names itself: it compares those of the units, of `--help` and
//! of the documentation.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::note;

const DAEMON: &str = env!("CARGO_BIN_EXE_strongroomd");

#[test]
fn systemd_understands_every_unit() {
    if !is_there("systemd-analyze") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    for scope in ["system", "user"] {
        let copies = place.path().join(scope);
        fs::create_dir(&copies).unwrap();
        let mut units = Vec::new();
        for (name, text) in units_of(scope) {
            // It looks whether the programs are there.
            fs::write(copies.join(&name), text.replace("/usr/sbin/strongroomd", DAEMON)).unwrap();
            units.push(copies.join(name));
        }
        let verify = |units: &[PathBuf]| {
            let mut command = Command::new("systemd-analyze");
            command.args(["verify", &format!("--{scope}")]).args(units).env("XDG_RUNTIME_DIR", place.path());
            command.output().unwrap()
        };
        let Output { status, stderr, .. } = verify(&units);
        let said = String::from_utf8_lossy(&stderr);
        // Of units that are on this host it may have to say something as well.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("strongroom")).collect();
        assert!(status.success() && ours.is_empty(), "{scope}: {status}\n{said}");

        // It does look: a setting that it doesn't know is reported.
        let wrong = copies.join("wrong.service");
        fs::write(&wrong, format!("[Service]\nExecStart={DAEMON}\nProtectSytem=strict\n")).unwrap();
        assert!(String::from_utf8_lossy(&verify(&[wrong]).stderr).contains("ProtectSytem"));
    }
}

#[test]
fn switched_on_they_answer_to_libvirts_names_and_switched_off_libvirts_own_units_do() {
    if !is_there("systemctl") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let vendor = place.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&vendor).unwrap();
    for (name, text) in units_of("system") {
        fs::write(vendor.join(name), text).unwrap();
    }
    let names = [".socket", "-ro.socket", "-admin.socket"];
    for name in names {
        let text = "[Socket]\nListenStream=/run/x\nService=virtsecretd.service\n[Install]\nWantedBy=sockets.target\n";
        fs::write(vendor.join(format!("virtsecretd{name}")), text).unwrap();
    }
    fs::write(vendor.join("virtsecretd.service"), "[Service]\nExecStart=/usr/sbin/virtsecretd\n").unwrap();
    let systemctl = |verb: &str, units: &[&str]| {
        let root = format!("--root={}", place.path().display());
        let done = Command::new("systemctl").args([&root, verb]).args(units).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let sockets = names.map(|name| format!("virtsecretd{name}"));
    let stock = sockets.each_ref().map(String::as_str);
    let ours =
        ["strongroomd.service", "strongroomd.socket", "strongroomd-ro.socket", "strongroomd-admin.socket"];

    assert!(systemctl("enable", &stock).0);
    assert!(systemctl("disable", &stock).0);
    assert!(systemctl("enable", &ours[..1]).0);
    for (role, name) in names.into_iter().chain([".service"]).map(|role| (role, format!("virtsecretd{role}")))
    {
        let link = fs::read_link(place.path().join("etc/systemd/system").join(&name)).unwrap();
        assert!(link.ends_with(format!("strongroomd{role}")), "{name} is {}", link.display());
        assert_eq!(systemctl("is-enabled", &[&name]), (true, "alias".into()));
    }
    assert!(place.path().join("etc/systemd/system/sockets.target.wants/strongroomd-ro.socket").is_symlink());

    assert!(systemctl("disable", &ours).0);
    assert_eq!(systemctl("is-enabled", &stock[..1]), (false, "disabled".into()), "it is libvirt's own again");
    assert!(systemctl("enable", &stock).0);
    assert_eq!(systemctl("is-enabled", &stock[..1]), (true, "enabled".into()));
}

#[test]
fn the_units_use_what_the_daemon_has() {
    let help = strongroomd(&["--help"]);
    for scope in ["system", "user"] {
        let units = units_of(scope);
        let (mut sockets, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for (name, text) in &units {
            for path in settings(text, "ListenStream") {
                if let Ok(port) = path.parse::<u16>() {
                    ports.insert((name.clone(), port));
                    continue;
                }
                let path = path.replace("%t/", "$XDG_RUNTIME_DIR/");
                sockets.insert(Path::new(&path).file_name().unwrap().to_owned());
                let shown =
                    help.contains(&format!("{path} ")) || path.starts_with("$XDG_RUNTIME_DIR/libvirt/");
                assert!(shown, "{name}: {path} is not in --help");
            }
            for target in settings(text, "Service") {
                assert!(units.iter().any(|(name, _)| *name == target), "{name}: there is no {target}");
            }
            for also in settings(text, "Also").iter().flat_map(|line| line.split(' ')) {
                assert!(units.iter().any(|(name, _)| name == also), "{name}: there is no {also}");
            }
        }
        let expected: &[&str] = match scope {
            "system" => &["virtsecretd-admin-sock", "virtsecretd-sock", "virtsecretd-sock-ro"],
            _ => &["virtsecretd-admin-sock", "virtsecretd-sock"],
        };
        assert!(sockets.iter().eq(expected), "{scope}: {sockets:?}");
        let expected: &[(&str, u16)] = match scope {
            "system" => &[("strongroomd-tcp.socket", 16509), ("strongroomd-tls.socket", 16514)],
            _ => &[],
        };
        assert!(
            ports.iter().map(|(name, port)| (name.as_str(), *port)).eq(expected.iter().copied()),
            "{scope}: {ports:?}"
        );

        let (_, service) = units.iter().find(|(name, _)| name == "strongroomd.service").unwrap();
        let [start] = &settings(service, "ExecStart")[..] else { panic!("{scope}: not one ExecStart") };
        let mut words: Vec<&str> = start.split(' ').filter(|word| !word.starts_with('$')).collect();
        assert_eq!(words.remove(0), "/usr/sbin/strongroomd");
        words.push("--help"); // read after the others
        assert_eq!(strongroomd(&words), help);
        // The two that @system-service lacks: without them there would be no memfd_secret, and no activation.
        let calls = settings(service, "SystemCallFilter").join(" ");
        assert!(calls.starts_with("@system-service memfd_secret pidfd_getfd "), "{calls}");
    }
}

/// Without the drop-in the network is out of reach; with it, and the sockets of the network, nothing is wrong either.
#[test]
fn the_service_is_let_onto_the_network_by_a_drop_in_alone() {
    let (_, service) =
        units_of("system").into_iter().find(|(name, _)| name == "strongroomd.service").unwrap();
    let network = fs::read_to_string(root().join("docs/install/drop-in/network.conf")).unwrap();
    for (key, without, with) in [
        ("PrivateNetwork", &["yes"][..], &["no"][..]),
        ("RestrictAddressFamilies", &["AF_UNIX"], &["AF_UNIX AF_INET AF_INET6"]),
        ("IPAddressDeny", &["any"], &[""]),
        ("IPAddressAllow", &[], &["any"]),
    ] {
        assert_eq!(
            (settings(&service, key), settings(&network, key)),
            (
                without.iter().map(|it| it.to_string()).collect(),
                with.iter().map(|it| it.to_string()).collect()
            ),
            "{key}"
        );
    }
    let (_, install) = service.split_once("[Install]").unwrap();
    assert!(
        !install.contains("-tls") && !install.contains("-tcp"),
        "nobody is on the network by switching on the service"
    );
}

#[test]
fn the_page_about_the_daemon_names_what_is_there() {
    let page = fs::read_to_string(root().join("docs/daemon.md")).unwrap();
    let sample = fs::read_to_string(root().join("docs/install/virtsecretd.conf")).unwrap();
    let help = strongroomd(&["--help"]);
    let words = |page: &str| -> Vec<String> {
        page.split(|it: char| it.is_whitespace() || "`(),;".contains(it)).map(str::to_owned).collect()
    };
    let mut seen = 0;
    for word in words(&page) {
        let word = word.trim_end_matches(['.', ':']);
        if let Some(path) = word.strip_prefix("docs/") {
            let (folder, _) = path.split_once('*').unwrap_or((path, ""));
            assert!(root().join("docs").join(folder).exists(), "{word} isn't there");
            seen += 1;
        }
        // Only in a unit's name or a path may something follow.
        if let Some(unit) = word.strip_prefix("strongroom").map(|_| word).filter(|it| it.ends_with(".socket"))
        {
            assert!(root().join("docs/install/system").join(unit).exists(), "there is no {unit}");
            seen += 1;
        }
    }
    for line in page.lines().filter(|line| line.trim_start().starts_with("strongroomd ")) {
        for option in line.split(' ').filter(|word| word.starts_with("--")) {
            let option = option.split('=').next().unwrap();
            assert!(help.contains(option), "{line}: {option} is no option");
            seen += 1;
        }
    }
    for key in page.split('`').skip(1).step_by(2).filter(|code| is_key(code)) {
        assert!(sample.contains(&format!("{key} =")), "{key} is no key of the configuration");
        seen += 1;
    }
    assert!(seen > 15, "only {seen} names found: the reader is broken");
}

/// Whether it looks like a key of the configuration: `several_words`.
fn is_key(code: &str) -> bool {
    code.contains('_')
        && code.chars().all(|it| it.is_ascii_lowercase() || it == '_')
        && !code.starts_with("memfd")
}

/// The units for `system` or `user`: name and text.
fn units_of(scope: &str) -> Vec<(String, String)> {
    let folder = root().join("docs/install").join(scope);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut units: Vec<_> = entries
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    units.sort();
    assert!(units.len() >= 3);
    units
}

/// What stands behind `key=`, line by line.
fn settings(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

fn strongroomd(words: &[&str]) -> String {
    let done = Command::new(DAEMON).args(words).output().unwrap();
    assert!(done.status.success(), "{words:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        note(&format!("{program} isn't installed (package systemd): not tested with it"));
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
