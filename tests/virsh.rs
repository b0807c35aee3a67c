//! The same commands through stock virsh and through strongroom: what they print, how they end, what they leave on
//! disk.
//!
//! Each `tests/data/differential/*.sh` is a case: one command a line, `VIRSH` standing for the program with its URI.
//! `# daemon only` in a case keeps it from libvirt's embedded driver, whose 9.0 crashes on undefine and on ephemeral
//! definitions. The stock side is run twice, against a private libvirtd and embedded. Every file of `tests/data/xml`
//! is a case of its own: defined, validated, shown.
//!
//! Where the two may differ stands in two tables below, each line with its reason: [`WORDS`], texts that libvirt
//! 11.3 words otherwise than the 9.0 at hand, and [`KNOWN`], steps that differ on purpose. A line that is no longer
//! needed fails the test like a difference that isn't listed. `CASE=name` in the environment runs a part of it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Texts of libvirt 9.0 and what 11.3 and 12.8 say instead.
const WORDS: &[(&str, &str, &str)] = &[
    (
        "error: Passing secret value as command-line argument is insecure!",
        "warning: Passing secret value as command-line argument is insecure!",
        "12.8 no longer calls a warning an error",
    ),
    ("error: (definition_of_secret):", "error: at line ", "11.3 leaves out the document's made-up name"),
    (
        "error: XML error: unknown secret usage type\n",
        "error: XML error: Missing required attribute 'type' in element 'usage'\n",
        "11.3 reads attributes by a common function",
    ),
    (
        "error: unsupported configuration: unknown secret usage type ",
        "error: XML error: Invalid value for attribute 'type' in element 'usage': ",
        "11.3 reads attributes by a common function",
    ),
];

/// A step that differs on purpose; `*` is any step of its case.
struct Known {
    case: &'static str,
    step: &'static str,
    reason: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        case: "set-value-invalid-base64",
        step: "VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file nothing",
        reason: "12.8 refuses wholly invalid base64 itself; 9.0 sends an empty value",
    },
    Known {
        case: "set-value-invalid-base64",
        step: "VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file digit",
        reason: "12.8 refuses wholly invalid base64 itself; 9.0 sends an empty value",
    },
    Known {
        case: "set-value-long",
        step: "VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file long --plain",
        reason: "virsh reads 1,024 bytes of a file at most; a value may have 65,536",
    },
    Known {
        case: "set-value-long",
        step: "VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234",
        reason: "follows from the step before",
    },
    Known {
        case: "set-value-stdin",
        step: "printf hello | VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234",
        reason: "ours: without an option a piped value is taken",
    },
    Known {
        case: "set-value-stdin",
        step: "printf aGVs | VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file -",
        reason: "ours: the file - is standard input",
    },
    Known {
        case: "set-value-stdin",
        step: "VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234",
        reason: "follows from the steps before",
    },
    Known {
        case: "event-bad-secret",
        step: "VIRSH secret-event --event lifecycle --timeout 1 --secret nope",
        reason: "virsh forgets the failed look-up and waits for all secrets; we stop",
    },
    Known {
        case: "event-bad-secret",
        step: "VIRSH secret-event --event lifecycle --timeout 1 --secret 00000000-0000-0000-0000-000000000001",
        reason: "virsh forgets the failed look-up and waits for all secrets; we stop",
    },
    Known {
        case: "get-value-private",
        step: "VIRSH secret-get-value 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234",
        reason: "libvirt's embedded driver has no identity and says so, instead of what its daemon says",
    },
    Known {
        case: "define-bad-documents",
        step: "VIRSH secret-define empty-type.xml",
        reason: "9.0 takes an empty type for a missing one, 11.3 for an invalid one",
    },
    Known {
        case: "xml/bad-usage-empty-type",
        step: "*",
        reason: "9.0 takes an empty type for a missing one, 11.3 for an invalid one",
    },
    Known {
        case: "xml/differs-doctype",
        step: "*",
        reason: "we refuse document types: no known client sends one, and entities can be bombs",
    },
    Known {
        case: "xml/differs-doctype-entities",
        step: "*",
        reason: "we refuse document types: no known client sends one, and entities can be bombs",
    },
    Known {
        case: "xml/differs-latin-1",
        step: "*",
        reason: "12.8 reads Latin-1; Debian's 9.0 takes it for broken UTF-8",
    },
    Known {
        case: "xml/differs-usage-type-in-namespace",
        step: "*",
        reason: "9.0 finds the type by XPath, where a prefix counts; 11.3 looks at the attribute's local name",
    },
    Known {
        case: "xml/differs-usage-type-in-second-usage",
        step: "*",
        reason: "9.0 finds the type by XPath, in any usage; 11.3 looks at the first usage only",
    },
    Known { case: "xml/ok-attribute-by-reference", step: "*", reason: EPHEMERAL },
    Known { case: "xml/ok-attribute-unknown", step: "*", reason: EPHEMERAL },
    Known { case: "xml/ok-attributes-both-yes", step: "*", reason: EPHEMERAL },
    Known { case: "xml/ok-attributes-double-quotes", step: "*", reason: EPHEMERAL },
];

const EPHEMERAL: &str = "an ephemeral secret: our embedded keystore ends with its process, libvirtd lives on";

#[test]
fn strongroom_answers_as_virsh_does() {
    for (program, package) in [("virsh", "libvirt-clients"), ("libvirtd", "libvirt-daemon")] {
        assert!(
            found(program),
            "{program} is missing: apt-get install libvirt-clients libvirt-daemon ({package})"
        );
    }
    let daemon = Libvirtd::start();
    let mut judge = Judge::default();
    let only = std::env::var("CASE").unwrap_or_default();
    for case in scripts().into_iter().filter(|case| case.name.contains(&only)) {
        judge.compare(&case, &daemon, true);
        if !case.daemon_only {
            judge.compare(&case, &daemon, false);
        }
    }
    for case in documents().into_iter().filter(|case| case.name.contains(&only)) {
        judge.compare(&case, &daemon, true);
    }
    if only.is_empty() {
        judge.miss_what_did_not_occur();
    }
    assert!(judge.report.is_empty(), "\n{}", judge.report);
}

/// Commands to be run on both sides.
struct Case {
    name: String,
    steps: Vec<String>,
    daemon_only: bool,
    file: Option<PathBuf>,
}

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

fn listed(folder: &str, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(data(folder)) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

fn scripts() -> Vec<Case> {
    let cases: Vec<_> = listed("differential", "sh")
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let steps = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            Case {
                name: stem(&path),
                steps: steps.map(str::to_owned).collect(),
                daemon_only: text.contains("# daemon only"),
                file: None,
            }
        })
        .collect();
    assert!(!cases.is_empty());
    cases
}

fn documents() -> Vec<Case> {
    let steps = [
        "VIRSH secret-define document.xml",
        "VIRSH secret-list",
        "for u in $(VIRSH -q secret-list | cut -c2-37); do VIRSH secret-dumpxml $u; done",
        "VIRSH secret-define --validate document.xml",
    ];
    let case = |path: PathBuf| Case {
        name: format!("xml/{}", stem(&path)),
        steps: steps.map(str::to_owned).to_vec(),
        daemon_only: true,
        file: Some(path),
    };
    listed("xml", "xml").into_iter().map(case).collect()
}

/// What a side showed: for each step output, errors and status; then the definitions it left behind.
type Seen = (Vec<[String; 3]>, BTreeMap<String, String>);

#[derive(Default)]
struct Judge {
    report: String,
    words_used: BTreeSet<usize>,
    known_met: BTreeSet<usize>,
}

impl Judge {
    fn compare(&mut self, case: &Case, daemon: &Libvirtd, with_daemon: bool) {
        let side = if with_daemon { "libvirtd" } else { "embedded" };
        let stock = tempfile::tempdir().unwrap();
        let ours = tempfile::tempdir().unwrap();
        let theirs = if with_daemon {
            daemon.forget_all();
            run(case, stock.path(), &daemon.virsh(), &daemon.secrets())
        } else {
            let uri = format!("secret:///embed?root={}", stock.path().display());
            run(case, stock.path(), &format!("virsh -c '{uri}'"), &stock.path().join("etc/secrets"))
        };
        let uri = format!("secret:///embed?root={}", ours.path().display());
        let program = format!("{} -c '{uri}'", env!("CARGO_BIN_EXE_strongroom"));
        let ours = run(case, ours.path(), &program, &ours.path().join("etc/secrets"));
        let (theirs, ours) = (self.modern(theirs), without_hints(ours));
        let (theirs, ours) = without_random(theirs, ours);
        for (index, step) in case.steps.iter().enumerate() {
            if theirs.0[index] == ours.0[index] || self.expected(&case.name, step) {
                continue;
            }
            let [out, err, status] = &theirs.0[index];
            let [our_out, our_err, our_status] = &ours.0[index];
            writeln!(
                self.report,
                "{} ({side}): {step}\n--- virsh: status {status}\n{out}{err}--- strongroom: status {our_status}\n\
                 {our_out}{our_err}---\n",
                case.name
            )
            .unwrap();
        }
        if theirs.1 != ours.1 && !self.expected(&case.name, "files") {
            let (theirs, ours) = (theirs.1, ours.1);
            writeln!(
                self.report,
                "{} ({side}): files\n--- virsh\n{theirs:#?}\n--- strongroom\n{ours:#?}\n",
                case.name
            )
            .unwrap();
        }
    }

    /// Notes that a listed difference occurred; false if it isn't listed.
    fn expected(&mut self, case: &str, step: &str) -> bool {
        let found =
            KNOWN.iter().position(|known| known.case == case && (known.step == step || known.step == "*"));
        self.known_met.extend(found);
        found.is_some()
    }

    /// The stock side as a newer libvirt would have worded it.
    fn modern(&mut self, mut seen: Seen) -> Seen {
        for [_, stderr, _] in &mut seen.0 {
            for (index, (old, new, _)) in WORDS.iter().enumerate() {
                if stderr.contains(old) {
                    self.words_used.insert(index);
                    *stderr = stderr.replace(old, new);
                    if new.ends_with("'usage': ") {
                        *stderr = quoted(stderr, new);
                    }
                }
            }
            *stderr = without_parser_details(stderr);
        }
        seen
    }

    /// A table's line that isn't needed any more is as bad as one that is missing.
    fn miss_what_did_not_occur(&mut self) {
        for (index, (old, _, reason)) in WORDS.iter().enumerate() {
            if !self.words_used.contains(&index) {
                writeln!(self.report, "no longer needed in WORDS: {old:?} ({reason})").unwrap();
            }
        }
        for (index, known) in KNOWN.iter().enumerate() {
            let document =
                known.case.strip_prefix("xml/").map(|name| data("xml").join(name).with_extension("xml"));
            let here = document.is_none_or(|document| document.exists());
            if here && !self.known_met.contains(&index) {
                let Known { case, step, reason } = known;
                writeln!(self.report, "no longer needed in KNOWN: {case}: {step} ({reason})").unwrap();
            }
        }
    }
}

/// 11.3 puts the unknown usage type in quotes, with a full stop behind.
fn quoted(stderr: &str, before: &str) -> String {
    let (head, tail) = stderr.split_once(before).unwrap();
    let (kind, rest) = tail.split_once('\n').unwrap_or((tail, ""));
    format!("{head}{before}'{kind}'.\n{rest}")
}

/// What libxml2 says of a document is its own: kept are the line it says it of, and that the schema refused.
fn without_parser_details(stderr: &str) -> String {
    for start in ["error: at line ", "error: XML document failed to validate against schema: "] {
        if let Some(at) = stderr.find(start) {
            let kept = at + start.len();
            let digits = stderr[kept..].chars().take_while(char::is_ascii_digit).count();
            return format!("{} …\n", &stderr[..kept + digits]);
        }
    }
    stderr.to_owned()
}

/// Ours without the advice that virsh doesn't give.
fn without_hints(mut seen: Seen) -> Seen {
    for [_, stderr, _] in &mut seen.0 {
        *stderr = stderr.split_inclusive('\n').filter(|line| !line.starts_with("hint: ")).collect();
        *stderr = without_parser_details(stderr);
    }
    seen
}

/// UUIDs that only one side shows were made up there.
fn without_random(mut theirs: Seen, mut ours: Seen) -> (Seen, Seen) {
    let (known, also_known) = (uuids(&theirs), uuids(&ours));
    for (seen, made_up) in
        [(&mut theirs, known.difference(&also_known)), (&mut ours, also_known.difference(&known))]
    {
        for uuid in made_up {
            for text in seen.0.iter_mut().flatten() {
                *text = text.replace(uuid, "[UUID]");
            }
            let files = std::mem::take(&mut seen.1);
            let blank = |text: String| text.replace(uuid, "[UUID]");
            seen.1 = files.into_iter().map(|(name, text)| (blank(name), blank(text))).collect();
        }
    }
    (theirs, ours)
}

fn uuids(seen: &Seen) -> BTreeSet<String> {
    let texts = seen.0.iter().flatten().chain(seen.1.values());
    let is_part = |c: char| c.is_ascii_hexdigit() || c == '-';
    texts
        .flat_map(|text| text.split(|c| !is_part(c)))
        .filter(|word| word.len() == 36 && word.matches('-').count() == 4)
        .map(str::to_owned)
        .collect()
}

fn run(case: &Case, directory: &Path, program: &str, secrets: &Path) -> Seen {
    if let Some(file) = &case.file {
        fs::copy(file, directory.join("document.xml")).unwrap();
    }
    let key = directory.join("host.key");
    fs::write(&key, [0x5A; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let step = |step: &String| {
        let output = Command::new("timeout")
            .args(["30", "setsid", "-w", "sh", "-c", &step.replace("VIRSH", program)])
            .current_dir(directory)
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", directory)
            .env("LANG", "C.UTF-8")
            .env("STRONGROOM_KEY_FILE", &key)
            .output()
            .unwrap();
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(directory.to_str().unwrap(), "[DIR]");
        [text(&output.stdout), text(&output.stderr), format!("{:?}", output.status.code())]
    };
    let seen = case.steps.iter().map(step).collect();
    (seen, definitions(secrets))
}

/// The definitions that lie in a secrets directory, by file name.
fn definitions(secrets: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(secrets) else { return BTreeMap::new() };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .map(|path| (stem(&path), String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()))
        .collect()
}

fn found(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/usr/bin"]).any(|folder| Path::new(folder).join(program).exists())
}

/// A private session libvirtd. It isn't run by root, whose drivers want the whole system.
struct Libvirtd {
    child: Child,
    home: tempfile::TempDir,
}

impl Libvirtd {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let configuration = format!("unix_sock_dir = \"{}/run\"\nauth_unix_rw = \"none\"\n", path.display());
        fs::write(path.join("libvirtd.conf"), configuration).unwrap();
        let as_root = rustix::process::geteuid().is_root();
        for folder in ["run", "config", "cache"] {
            fs::create_dir(path.join(folder)).unwrap();
            if as_root {
                std::os::unix::fs::chown(path.join(folder), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let log = fs::File::create(path.join("log")).unwrap();
        let mut command = Command::new("libvirtd");
        command.arg("-f").arg(path.join("libvirtd.conf"));
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", path);
        command.env("XDG_RUNTIME_DIR", path.join("run")).env("XDG_CONFIG_HOME", path.join("config"));
        command.env("XDG_CACHE_HOME", path.join("cache"));
        if as_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let daemon = Self { child: command.spawn().unwrap(), home };
        for _ in 0..100 {
            let answer = Command::new("sh").args(["-c", &format!("{} secret-list", daemon.virsh())]).output();
            if answer.unwrap().status.success() {
                return daemon;
            }
            sleep(Duration::from_millis(100));
        }
        panic!("libvirtd does not answer:\n{}", fs::read_to_string(daemon.home.path().join("log")).unwrap());
    }

    fn virsh(&self) -> String {
        format!("virsh -c 'secret:///session?socket={}/run/libvirt-sock'", self.home.path().display())
    }

    fn secrets(&self) -> PathBuf {
        self.home.path().join("config/libvirt/secrets")
    }

    fn forget_all(&self) {
        let virsh = self.virsh();
        let script = format!(
            "for u in $({virsh} -q secret-list | cut -c2-37); do {virsh} -q secret-undefine $u; done"
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        for path in fs::read_dir(self.secrets()).unwrap() {
            fs::remove_file(path.unwrap().path()).unwrap();
        }
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

const NOBODY: u32 = 65_534;
