//! The cases: where they come from, how one is run, what a side shows of it.
//!
//! Each `tests/data/differential/*.sh` is a case: one command a line, `VIRSH` standing for the program with its URI,
//! `SOCKET` for the daemon's socket. Every file of `tests/data/xml` is a case of its own: defined, validated, shown. A
//! line of its own in a case says which sides it isn't for: see [`Only`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Commands to be run on all sides.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) steps: Vec<String>,
    pub(crate) only: Only,
    file: Option<PathBuf>,
}

/// Whom a case is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Only {
    /// Everybody.
    All,
    /// `# daemon only`: not libvirt's embedded driver, whose 9.0 crashes on undefine and on ephemeral definitions.
    Daemon,
    /// `# our daemon only`: not our embedded keystore either, which ends with its process.
    OurDaemon,
    /// `# virsh only`: not our own program, which has no such command or option.
    Virsh,
}

/// What a side showed: for each step output, errors and status; then the definitions it left behind.
pub(crate) type Seen = (Vec<[String; 3]>, BTreeMap<String, String>);

/// A side: the program with its URI, the folder with the definitions, and the socket if there is a daemon behind it.
pub(crate) struct Side {
    pub(crate) program: String,
    pub(crate) secrets: PathBuf,
    pub(crate) socket: Option<PathBuf>,
}

/// All cases whose name contains `part`.
pub(crate) fn cases(part: &str) -> Vec<Case> {
    let all: Vec<_> = scripts().into_iter().chain(documents()).collect();
    assert!(all.len() > 100, "only {} cases found", all.len());
    all.into_iter().filter(|case| case.name.contains(part)).collect()
}

fn scripts() -> Vec<Case> {
    let case = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let says = |line| text.lines().any(|found| found == line);
        let only = match () {
            () if says("# virsh only") => Only::Virsh,
            () if says("# our daemon only") => Only::OurDaemon,
            () if says("# daemon only") => Only::Daemon,
            () => Only::All,
        };
        let steps = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Case { name: stem(&path), steps: steps.map(str::to_owned).collect(), only, file: None }
    };
    listed("differential", "sh").into_iter().map(case).collect()
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
        only: Only::Daemon,
        file: Some(path),
    };
    listed("xml", "xml").into_iter().map(case).collect()
}

fn listed(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Runs a case in a directory of its own.
pub(crate) fn run(case: &Case, directory: &Path, side: &Side) -> Seen {
    if let Some(file) = &case.file {
        fs::copy(file, directory.join("document.xml")).unwrap();
    }
    let key = directory.join("host.key");
    fs::write(&key, [0x5A; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let socket = side.socket.as_ref().map_or("", |path| path.to_str().unwrap());
    let step = |step: &String| {
        let script = step.replace("VIRSH", &side.program).replace("SOCKET", socket);
        let output = Command::new("timeout")
            .args(["30", "setsid", "-w", "sh", "-c", &script])
            .current_dir(directory)
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", directory)
            .env("LANG", "C.UTF-8")
            .env("STRONGROOM_KEY_FILE", &key)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).replace(directory.to_str().unwrap(), "[DIR]");
            if socket.is_empty() { text } else { text.replace(socket, "[SOCKET]") }
        };
        assert_ne!(output.status.code(), Some(124), "{}: {script}: it doesn't end", case.name);
        [text(&output.stdout), text(&output.stderr), format!("{:?}", output.status.code())]
    };
    let seen = case.steps.iter().map(step).collect();
    (seen, definitions(&side.secrets))
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

/// What libxml2 says of a document is its own: kept are the line it says it of, and that the schema refused.
pub(crate) fn without_parser_details(mut seen: Seen) -> Seen {
    for [_, stderr, _] in &mut seen.0 {
        for start in ["error: at line ", "error: XML document failed to validate against schema: "] {
            if let Some(at) = stderr.find(start) {
                let kept = at + start.len();
                let digits = stderr[kept..].chars().take_while(char::is_ascii_digit).count();
                *stderr = format!("{} …\n", &stderr[..kept + digits]);
            }
        }
    }
    seen
}

/// Ours without the advice that virsh doesn't give.
pub(crate) fn without_hints(mut seen: Seen) -> Seen {
    for [_, stderr, _] in &mut seen.0 {
        *stderr = stderr.split_inclusive('\n').filter(|line| !line.starts_with("hint: ")).collect();
    }
    seen
}

/// UUIDs that only one side shows were made up there.
pub(crate) fn without_random(mut theirs: Seen, mut ours: Seen) -> (Seen, Seen) {
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
