//! The operator's guides: each page's commands, in order, as they stand there.
//!
//! The blocks of a page under `<!-- tested -->` are one script, run in a fresh directory with the program at hand.
//! Leans on the page for what it promises; here stands what must have been seen besides. Refuses a page without a
//! tested block, and a block that is neither run nor listed here with the reason. The pages about other hosts write into
//! `/etc` and start daemons, so each runs on a host of its own, made of namespaces: root alone can run those.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/host.rs"]
mod host;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use host::Host;

#[test]
fn keys_for_life() {
    let (directory, shown) = live("docs/keys.md");
    for line in
        ["The passphrase opens the slot passphrase 'on call'", "The recovery key opens the slot recovery key"]
    {
        assert!(shown.contains(line), "{line:?} is missing from:\n{shown}");
    }
    assert!(shown.lines().any(|line| line == "a value"), "the value came back with the keyring:\n{shown}");
    assert!(shown.contains("every secret is sealed in epoch 3"), "{shown}");
    assert!(!shown.contains("horse"), "a passphrase was shown:\n{shown}");
    let kept = fs::read_dir(directory.path().join("keystore/etc/secrets")).unwrap();
    assert!(kept.count() >= 3);
}

#[test]
fn copies_checks_and_repair() {
    let (directory, shown) = live("docs/backup.md");
    assert!(shown.lines().any(|line| line == "value 2"), "{shown}");
    assert!(shown.matches("secrets ok: 3, problems: 0").count() >= 3, "{shown}");
    assert!(shown.contains("kept aside: secrets.log.damaged-"), "{shown}");
    let report = fs::read_to_string(directory.path().join("report")).unwrap();
    assert!(report.contains("problem: "), "{report}");
    // What was repaired is whole.
    assert!(shown.lines().last().unwrap().starts_with("secrets ok: "), "{shown}");
    assert!(shown.lines().last().unwrap().contains("problems: 0"), "{shown}");
}

#[test]
fn moving_in_and_out_again() {
    let (directory, shown) = live("docs/import.md");
    assert!(shown.contains("would be imported: 1"), "{shown}");
    assert!(shown.contains("already there: 1, originals removed: 1"), "{shown}");
    assert!(shown.lines().any(|line| line == "a value"), "{shown}");
    assert!(
        shown.lines().any(|line| line.trim() == "5a1c7c52-9c4f-4c65-8f0e-3d1b9a1f0d42   volume /vm/a.img"),
        "{shown}"
    );
    let warned = fs::read_to_string(directory.path().join("warnings")).unwrap();
    assert!(warned.contains("plaintext values still lie in 'libvirt/etc/secrets': 1"), "{warned}");
    assert_eq!(fs::read_dir(directory.path().join("libvirt/etc/secrets")).unwrap().count(), 0);
    let encrypted = "for-libvirt-12/5a1c7c52-9c4f-4c65-8f0e-3d1b9a1f0d42.aes256cbc";
    assert!(directory.path().join(encrypted).exists());
}

#[test]
fn volumes_and_their_secrets() {
    let (directory, shown) = live("docs/volumes.md");
    assert_eq!(shown.matches("opens it\n").count(), 4, "{shown}");
    assert!(shown.contains("secrets ready: 1, can't tell: 0, problems: 0"), "{shown}");
    assert!(shown.contains("passphrase changed, in secret "), "{shown}");
    assert!(
        shown.contains("secret without a volume") && shown.contains("volume without a secret"),
        "{shown}"
    );
    assert!(shown.ends_with("is removed; there was no image\n"), "{shown}");
    assert!(directory.path().join("a.img").exists());
}

/// The second page goes on where the first one ends.
#[test]
fn other_hosts_by_tls_and_passwords_in_it() {
    let host = host();
    let shown = live_on(&host, "docs/remote/tls.md");
    assert!(shown.lines().any(|line| line == "C=GB,O=Example,CN=node7.example.org"), "{shown}");
    assert_eq!(lists(&shown), 2, "{shown}");
    says_why(&shown, &["refused ", "CN=node7.example.org", "has been revoked"]);
    let second = script("docs/remote/tls.md", "<!-- tested apart -->");
    let shown = run_on(&host, "the second thief", &format!("{A_SECOND_CLIENT}\n{second}\n{BOTH_ARE_OUT}"));
    assert_eq!(lists(&shown), 1, "{shown}");
    let shown = live_on(&host, "docs/remote/scram.md");
    assert_eq!(lists(&shown), 2, "{shown}");
    says_why(&shown, &["SASL refused", "alice"]);
}

#[test]
fn other_hosts_by_kerberos() {
    let host = host();
    let shown = live_on(&host, "docs/remote/tcp-kerberos.md");
    assert_eq!(lists(&shown), 2, "{shown}");
    says_why(&shown, &["authentication failed", "No Kerberos credentials available"]);
    says_why(&shown, &["bob", "sasl_allowed_username_list"]);
}

#[test]
fn other_hosts_by_ssh() {
    let host = host();
    host.write("/etc/ssh/sshd_config", SSHD_CONFIG);
    host.sh("ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/host_key; /usr/sbin/sshd");
    assert_eq!(lists(&live_on(&host, "docs/remote/ssh.md")), 6);
}

#[test]
fn other_hosts_by_a_program_of_ones_own() {
    let host = host();
    assert_eq!(lists(&live_on(&host, "docs/remote/ext.md")), 2);
}

/// Blocks that aren't run: the page, how the block begins, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("README.md", "sh docs/quickstart.sh", "tests/readme.rs runs the script"),
    ("README.md", "sh tests/run", "it runs this"),
    ("docs/daemon.md", "cargo build --release", "the build, and the host's own directories"),
    (
        "docs/daemon.md",
        "systemctl disable --now virtsecretd.socket",
        "a running systemd; tests/units.rs does it with none",
    ),
    (
        "docs/daemon.md",
        "strongroom -c secret:///system import",
        "the system's keystore; docs/import.md is run with another",
    ),
    ("docs/daemon.md", "systemctl status virtsecretd.socket", "a running systemd"),
    (
        "docs/daemon.md",
        "systemctl disable --now strongroomd.service",
        "a running systemd; tests/units.rs does it with none",
    ),
    ("docs/daemon.md", "systemd-creds encrypt", "a TPM, or the host's own secret"),
    (
        "docs/daemon.md",
        "strongroom -c secret:///system unlock",
        "each is another case; tests/unlock.rs has them",
    ),
    (
        "docs/keys.md",
        "strongroom -c secret:///system status",
        "the system's keystore; tests/unlock.rs lives it with another",
    ),
    ("docs/remote/tls.md", "systemctl stop strongroomd.service", SOCKETS),
    ("docs/remote/tls.md", "nft add rule", FIREWALL),
    ("docs/remote/tcp-kerberos.md", "systemctl stop strongroomd.service", SOCKETS),
    ("docs/remote/tcp-kerberos.md", "nft add rule", FIREWALL),
];

const SOCKETS: &str = "a running systemd; tests/daemon_life.rs hands such sockets over";
const FIREWALL: &str = "the table and the chain are the host's own";

#[test]
fn every_block_is_run_or_it_is_said_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run =
        [include_str!("guides.rs"), include_str!("readme.rs"), include_str!("scenarios/main.rs")].concat();
    let mut reasons: Vec<_> = NOT_RUN.iter().map(|(page, begins, _)| (*page, *begins)).collect();
    let folders =
        ["", "docs", "docs/remote"].map(|folder| (folder, fs::read_dir(root.join(folder)).unwrap()));
    for (folder, entry) in folders.into_iter().flat_map(|(folder, all)| all.map(move |entry| (folder, entry)))
    {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let page = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if !page.ends_with(".md") {
            continue;
        }
        let text = fs::read_to_string(root.join(&page)).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for at in (1..lines.len()).filter(|&at| lines[at].starts_with("```sh")) {
            if ["<!-- tested -->", "<!-- tested apart -->"].contains(&lines[at - 1]) {
                assert!(run.contains(&format!("\"{page}\")")), "nothing runs the tested blocks of {page}");
                continue;
            }
            let first = lines[at + 1];
            let listed = reasons.iter().position(|(of, begins)| *of == page && first.starts_with(begins));
            let listed =
                listed.unwrap_or_else(|| panic!("{page}: who runs the block that begins with '{first}'?"));
            reasons.swap_remove(listed);
        }
    }
    assert!(reasons.is_empty(), "no longer there: {reasons:?}");
}

/// One line of what was shown has all these words.
fn says_why(shown: &str, words: &[&str]) {
    let told = shown.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told, "no line has {words:?}:\n{shown}");
}

/// How often secrets were listed, of which there are none.
fn lists(shown: &str) -> usize {
    shown.lines().filter(|line| line.trim_start().starts_with("UUID ")).count()
}

/// The host that plays all parts.
fn host() -> Host {
    Host::new("vault.example.org")
}

/// Runs all of a page's tested blocks on a host, in order. Gives what was shown.
fn live_on(host: &Host, page: &str) -> String {
    run_on(host, page, &script(page, "<!-- tested -->"))
}

fn run_on(host: &Host, page: &str, script: &str) -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_strongroom")).parent().unwrap();
    let mut command = host.command("timeout");
    command.args(["120", "sh", "-euc", &format!("mkdir -p /run/page; cd /run/page\n{PATIENT}\n{script}")]);
    command.env("PATH", format!("{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", programs.display()));
    // Tickets lie in /tmp otherwise, which isn't the host's alone.
    let output = command.env("KRB5CCNAME", "FILE:/run/tickets").output().unwrap();
    assert!(output.status.success(), "{page}: {}{}", host::said(&output), host.sh(DAEMON_LOG));
    String::from_utf8(output.stdout).unwrap()
}

/// The daemon's log has a thread of its own: what a person finds there may still be on its way for a script.
const PATIENT: &str =
    r#"grep() { for try in $(seq 100); do command grep "$@" && return; sleep 0.05; done; return 1; }"#;

const DAEMON_LOG: &str = "cat /var/log/libvirt/*.log 2> /dev/null || true";

const A_SECOND_CLIENT: &str = r#"
certtool --generate-certificate --load-privkey authority/clientkey.pem --template authority/client.info \
    --load-ca-certificate authority/cacert.pem --load-ca-privkey authority/cakey.pem --outfile authority/node8cert.pem
for one in client node8; do
    install -D authority/cacert.pem $one/cacert.pem
    install authority/${one}cert.pem $one/clientcert.pem
    install -m 600 authority/clientkey.pem $one/clientkey.pem
done
strongroom -c "secret://vault.example.org/system?pkipath=$PWD/node8" secret-list
"#;

const BOTH_ARE_OUT: &str = r#"
for one in client node8; do
    if strongroom -c "secret://vault.example.org/system?pkipath=$PWD/$one" secret-list; then exit 1; fi
done
"#;

const SSHD_CONFIG: &str = "HostKey /etc/ssh/host_key
UsePAM no
PermitRootLogin yes
";

/// All of a page's blocks under this mark.
fn script(page: &str, mark: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mark = format!("{mark}\n```sh\n");
    let blocks: Vec<_> = text.split(&*mark).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(!blocks.is_empty(), "{page} has no block under {mark}");
    blocks.join("\n")
}

/// Runs all of a page's tested blocks, in order. Gives the directory and what was shown.
fn live(page: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_strongroom"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command
        .args(["-euc", &script(page, "<!-- tested -->")])
        .current_dir(&directory)
        .env("PATH", path)
        .stdin(Stdio::null());
    for variable in ["VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI", "STRONGROOM_KEY_FILE"] {
        command.env_remove(variable);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{page}: {status}\n{stdout}\n{stderr}");
    (directory, stdout)
}
