//! The situations that Strongroom is for, lived through: docs/scenarios.md's commands as they stand there, with a real
//! daemon, real images and real guests.
//!
//! Each section has a `Site` of its own. Leans on the page for what it promises; here stands what must have been seen
//! besides: that guests boot from what was made, and that nothing is left where nothing shall be, with passphrases that
//! are looked for. `references` holds what `strongroom check` says against what libvirt's own client gets.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/host.rs"]
mod host;
mod references;
mod site;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;

use ring::rand::{SecureRandom, SystemRandom};

use site::{FIRST, SECOND, Site};
use support::markers::Needles;

#[test]
fn a_passphrase_is_made_and_kept_here() {
    let page = Page::read();
    let mut site = page.site();
    assert!(
        site.run(&page.section("1. Made and kept here")[0])
            .ends_with("Domain 'db' created from guest.xml\n\n")
    );
    lives(&site);
    let made = site.run("cat /srv/vm/made");
    let (uuid, element) = made.split_once('\n').unwrap();
    let passphrase =
        site.run(&format!("strongroom -q -c secret:///system secret-get-value --plain --elevated {uuid}"));
    let needles = needles(passphrase.as_bytes());
    assert_eq!(site.traces(&needles), [""; 0]);
    site.restart();
    // The element that was shown does as well.
    let by_usage =
        "<encryption format='luks'><secret type='passphrase' usage='/srv/vm/db.qcow2'/></encryption>";
    let guest = page.files[0].1.replace(by_usage, element);
    assert!(guest.contains(uuid));
    site.host.write("/run/guest.xml", guest);
    site.run("virsh -c qemu:///system create /run/guest.xml");
    lives(&site);
    // The secret is private.
    let refused = site.fails(&format!("virsh -c secret:///system secret-get-value {uuid}"));
    assert!(refused.contains("secret is private"), "{refused}");
    assert_eq!(site.traces(&needles), [""; 0]);
}

#[test]
fn a_passphrase_is_made_here_and_kept_elsewhere() {
    let page = Page::read();
    let mut site = page.site();
    let blocks = page.section("2. Made here, kept elsewhere");
    site.run(&blocks[0]);
    let passphrase = site.kept("db");
    assert!(passphrase.len() >= 43, "{} bytes were kept", passphrase.len());
    let needles = needles(&passphrase);
    assert_eq!(site.secrets(), 1);
    // Guests start, if there is a system.
    site.run(
        "cd /srv/vm; vault kv get -field=passphrase secret/db | qemu-img convert \
         --object secret,id=key,file=/dev/stdin -f raw system.img \
         -n --target-image-opts driver=qcow2,encrypt.key-secret=key,file.filename=db.qcow2
         virsh -c qemu:///system create guest.xml",
    );
    lives(&site);
    assert_eq!(site.traces(&needles), [""; 0], "before the restart");
    site.restart();
    assert_eq!(site.secrets(), 0);
    assert_eq!(site.traces(&needles), [""; 0], "after the restart");
    assert!(site.opens(&passphrase));
    assert!(!site.opens(b"another"));
    let shown = site.run(&blocks[1]);
    assert!(
        shown.contains("ok: /srv/vm/db.qcow2: secret 5a1c7c52-9c4f-4c65-8f0e-3d1b9a1f0d42 opens it"),
        "{shown}"
    );
    assert_eq!(site.traces(&needles), [""; 0], "lent anew");
}

#[test]
fn a_passphrase_is_typed_by_a_person() {
    let page = Page::read();
    let mut site = page.site();
    site.host.write("/run/page", &page.section("3. Typed by a person")[0]);
    let mut command = site.operator(&["script", "-qec", "sh -eu /run/page", "/dev/null"]);
    let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keyboard, mut screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (mut shown, mut piece, passphrase) = (Vec::new(), [0; 1000], marker());
    let mut is_typed = false;
    loop {
        let length = screen.read(&mut piece).unwrap();
        shown.extend_from_slice(&piece[..length]);
        if length == 0 {
            break;
        }
        if !is_typed && String::from_utf8_lossy(&shown).contains("Enter new value for secret:") {
            keyboard.write_all(&[passphrase.as_bytes(), b"\n"].concat()).unwrap();
            is_typed = true;
        }
    }
    let shown = String::from_utf8(shown).unwrap();
    assert!(script.wait().unwrap().success() && is_typed, "{shown}");
    assert!(!shown.contains(&passphrase[..16]), "{shown}");
    lives(&site);
    let needles = needles(passphrase.as_bytes());
    assert!(site.opens(passphrase.as_bytes()));
    assert_eq!(site.traces(&needles), [""; 0]);
    site.restart();
    assert_eq!(site.secrets(), 0);
    assert_eq!(site.traces(&needles), [""; 0]);
}

#[test]
fn a_passphrase_is_lent_to_a_guest() {
    let page = Page::read();
    let site = page.site();
    let passphrase = marker();
    site.keep("db", passphrase.as_bytes());
    // The volume was made elsewhere.
    site.run(
        "cd /srv/vm; vault kv get -field=passphrase secret/db | qemu-img convert -f raw -O qcow2 \
         --object secret,id=key,file=/dev/stdin \
         -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 system.img db.qcow2",
    );
    site.run(&page.section("4. Kept elsewhere, lent to a guest")[0]);
    assert_eq!(site.secrets(), 0);
    // What the page warns of.
    assert_eq!(site.run(WHAT_LIBVIRT_KEEPS), passphrase);
    // The guest reads from its disk now as it did before.
    lives(&site);
    assert!(site.fails(WHAT_LIBVIRT_KEEPS).contains("master-key.aes"));
    assert_eq!(site.traces(&needles(passphrase.as_bytes())), [""; 0]);
    let refused = site.fails("virsh -c qemu:///system create /srv/vm/guest.xml");
    assert!(refused.contains("no secret with matching usage '/srv/vm/db.qcow2'"), "{refused}");
}

#[test]
fn a_passphrase_is_lent_to_a_new_volume() {
    let page = Page::read();
    let site = page.site();
    site.run(&page.section("5. Kept elsewhere, lent to a new volume")[0]);
    let passphrase = site.kept("db");
    assert_eq!(site.secrets(), 0);
    assert_eq!(site.traces(&needles(&passphrase)), [""; 0]);
    assert!(site.opens(&passphrase));
    assert!(!site.opens(b"another"));
}

#[test]
fn what_guests_need_besides_is_there_before_they_start() {
    let page = Page::read();
    let site = page.site();
    let values = ["ceph", "tray", "tls"].map(|name| {
        let value = marker();
        site.keep(name, value.as_bytes());
        value
    });
    let shown = site.run(&page.section("Ceph, iSCSI, TLS and vTPM").join("\n"));
    let (before, after) = shown.split_once("not yet\n").unwrap();
    assert!(before.contains("secrets ready: 0, can't tell: 0, problems: 5"), "{shown}");
    assert_eq!(before.matches("missing").count(), 5, "{shown}");
    assert!(after.ends_with("secrets ready: 5, can't tell: 0, problems: 0\n"), "{shown}");
    let ceph = "strongroom -q -c secret:///system secret-get-value --plain --elevated 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234";
    assert_eq!(site.run(ceph), values[0]);
    for value in &values {
        assert_eq!(site.traces(&needles(value.as_bytes())), [""; 0]);
    }
}

#[test]
fn cryptsetup_opens_our_volumes_and_we_open_its() {
    let site = Site::new(&[]);
    let run = |script: &str| site.run(&format!("{CRYPTSETUP}\n{script}"));
    let opens = |image: &str, name: &str| {
        let script = format!("{CRYPTSETUP}\nvault kv get -field=passphrase secret/{name} | opens {image}");
        let output = site.operator(&["sh", "-euc", &script]).output().unwrap();
        let refused =
            String::from_utf8_lossy(&output.stderr).contains("No key available with this passphrase");
        assert!(output.status.success() || refused, "{image}: {}", host::said(&output));
        output.status.success()
    };
    run("strongroom -q volume create /srv/vm/ours.img --size 16M --format raw --iter-time 10 > made
        value \"$(head -n 1 made)\" | vault kv put secret/first passphrase=-
        strongroom volume change-passphrase /srv/vm/ours.img --iter-time 10
        value \"$(head -n 1 made)\" | vault kv put secret/second passphrase=-");
    assert_ne!(site.kept("first"), site.kept("second"));
    assert!(opens("ours.img", "second") && !opens("ours.img", "first"));

    let passphrase = marker();
    site.keep("theirs", passphrase.as_bytes());
    let shown = run("format luks1 8M theirs.img
        keep theirs.img
        strongroom volume check theirs.img
        strongroom volume change-passphrase theirs.img --secret $uuid --iter-time 10
        value $uuid | vault kv put secret/third passphrase=-
        strongroom volume check theirs.img");
    assert_eq!(shown.matches("opens it").count(), 2, "{shown}");
    assert!(opens("theirs.img", "third") && !opens("theirs.img", "theirs"));
    assert_eq!(site.secrets(), 2);
    run(
        "strongroom volume delete /srv/vm/theirs.img /srv/vm/ours.img; test ! -e theirs.img; test ! -e ours.img",
    );
    assert_eq!(site.secrets(), 0);

    run("format 'luks2 --pbkdf pbkdf2' 24M later.img; keep later.img; cp later.img before.img");
    for command in ["check", "change-passphrase", "delete"] {
        let refused = site.fails(&format!("{CRYPTSETUP}\nstrongroom volume {command} /srv/vm/later.img"));
        let words = "'/srv/vm/later.img' is LUKS of version 2, which QEMU doesn't open";
        assert!(refused.contains(words), "{command}: {refused}");
    }
    run("cmp later.img before.img");
    assert!(opens("later.img", "theirs"));
    for kept in ["first", "second", "third", "theirs"] {
        assert_eq!(site.traces(&needles(&site.kept(kept))), [""; 0], "{kept}");
    }
}

/// Words for cryptsetup, which is given passphrases by pipes alone.
const CRYPTSETUP: &str = r#"
export VIRSH_DEFAULT_CONNECT_URI=secret:///system
cd /srv/vm
uuid=5a1c7c52-9c4f-4c65-8f0e-3d1b9a1f0d42
value() { strongroom -q secret-get-value --plain --elevated "$1"; }
opens() { cryptsetup open --test-passphrase --key-file - "$1"; }
format() {
    truncate -s "$2" "$3"
    vault kv get -field=passphrase secret/theirs |
        cryptsetup luksFormat -q --type $1 --pbkdf-force-iterations 1000 --key-file - "$3"
}
keep() {
    echo "<secret private='yes'><uuid>$uuid</uuid><usage type='volume'><volume>$PWD/$1</volume></usage></secret>" |
        strongroom secret-define -
    vault kv get -field=passphrase secret/theirs | strongroom secret-set-value $uuid
}
"#;

/// The passphrase, from QEMU's command line in the log and the key that is there while the guest is on.
const WHAT_LIBVIRT_KEEPS: &str = r#"
cd /run/qemu/db
key=$(od -An -v -tx1 lib/qemu/domain-*/master-key.aes | tr -d ' \n')
secret=$(grep -o '"id":"libvirt-1-format-encryption-secret0",.*"format":"base64"' log/qemu/db.log)
part() { echo "$secret" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/" | base64 -d; }
iv=$(part iv | od -An -v -tx1 | tr -d ' \n')
part data | openssl enc -d -aes-256-cbc -K "$key" -iv "$iv"
"#;

/// The guest boots from its disk, reads from it again when it is told to, and ends.
#[track_caller]
fn lives(site: &Site) {
    assert_eq!(site.guest_says(), FIRST);
    assert_eq!(site.press(), SECOND);
    site.guest_ends();
}

fn marker() -> String {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn needles(passphrase: &[u8]) -> Needles {
    let mut needles = Needles::new();
    needles.add_written("the passphrase", passphrase);
    needles
}

/// docs/scenarios.md.
struct Page {
    /// What comes before the sections, as a script.
    begins: String,
    /// The documents that stand there.
    files: [(&'static str, String); 2],
    text: String,
}

impl Page {
    fn read() -> Self {
        let text = text("docs/scenarios.md");
        let head = text.split("\n## ").next().unwrap();
        let begins = blocks(head, "<!-- tested -->\n```sh\n").concat();
        let documents: [String; 2] = blocks(head, "```xml\n").try_into().unwrap();
        let [guest, secret] = documents;
        Self { begins, files: [("guest.xml", guest), ("secret.xml", secret)], text }
    }

    /// A host on which the page's files lie.
    fn site(&self) -> Site {
        Site::new(&self.files.each_ref().map(|(name, content)| (*name, content.as_str())))
    }

    /// A section's blocks, each a script that is whole.
    #[track_caller]
    fn section(&self, heading: &str) -> Vec<String> {
        let section =
            self.text.split("\n## ").find(|section| section.lines().next() == Some(heading)).unwrap();
        let blocks = blocks(section, "<!-- tested -->\n```sh\n");
        assert!(!blocks.is_empty(), "nothing to be run under '{heading}'");
        blocks.iter().map(|block| format!("{QUICK}\n{}\n{block}\n", self.begins)).collect()
    }
}

fn text(page: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap()
}

fn blocks(text: &str, mark: &str) -> Vec<String> {
    text.split(mark).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// LUKS' key derivation, for tests.
const QUICK: &str = r#"strongroom() {
    case "$*" in
        *"volume create"*) command strongroom "$@" --iter-time 10 ;;
        *) command strongroom "$@" ;;
    esac
}"#;
