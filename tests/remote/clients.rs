//! The programs that go all the ways: stock virsh, libvirt's Python binding, and strongroom.
//!
//! Each lives a secret's whole life on a server and says what it saw, in the same words. Leans on the programs' own output.
//! Refuses to go on after the first step that fails: what it said is the report.

use std::process::{Command, Output};

use crate::host::{Host, said};
use crate::transports::Access;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Virsh,
    Python,
    Strongroom,
}

/// What every client must have seen in the end.
pub(crate) const SEEN: &str = "defined
set
got the same
listed all
told of it
private Invalid secret: secret is private
undefined
";

impl Client {
    pub(crate) const ALL: [Self; 3] = [Self::Virsh, Self::Python, Self::Strongroom];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Virsh => "virsh",
            Self::Python => "python3-libvirt",
            Self::Strongroom => "strongroom",
        }
    }

    /// A secret's whole life. What was seen; or the step that failed, and what was said.
    pub(crate) fn live(self, host: &Host, access: &Access, uuid: &str) -> Result<String, String> {
        if self == Self::Python {
            let output = self.run(host, access, &[uuid, "/run/value"]);
            return match output.status.success() {
                true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
                false => Err(said(&output)),
            };
        }
        let life = Life { client: self, host, access, uuid };
        let mut seen = String::new();
        life.define(false)?;
        seen += "defined\n";
        life.set_value()?;
        seen += "set\n";
        let got = life.done(&["-q", "secret-get-value", uuid, "--plain"])?;
        let same = got.strip_suffix(b"\n").unwrap_or(&got) == [0xA5; 65_536];
        seen += if same { "got the same\n" } else { "got something else\n" };
        let listed = life.done(&["-q", "secret-list"])?;
        let listed = String::from_utf8_lossy(&listed);
        let count = listed.lines().filter(|line| line.trim().len() >= 36).count();
        match count >= 1000 && listed.contains(uuid) {
            true => seen += "listed all\n",
            false => seen += &format!("listed {count}\n"),
        }
        seen += &life.events()?;
        life.done(&["secret-undefine", uuid])?;
        life.define(true)?;
        life.set_value()?;
        let refused = self.run(host, access, &["secret-get-value", uuid]);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        seen += &format!("private {}\n", words.lines().next().unwrap_or("").trim_start_matches("error: "));
        life.done(&["secret-undefine", uuid])?;
        Ok(seen + "undefined\n")
    }

    /// Comes in, and only lists.
    pub(crate) fn look(self, host: &Host, access: &Access) -> Output {
        match self {
            Self::Python => self.run(host, access, &[]),
            _ => self.run(host, access, &["-q", "secret-list"]),
        }
    }

    pub(crate) fn run(self, host: &Host, access: &Access, words: &[&str]) -> Output {
        self.command(host, access, words).output().unwrap()
    }

    fn command(self, host: &Host, access: &Access, words: &[&str]) -> Command {
        let mut command = host.command("timeout");
        command.arg("60").envs(access.environment.iter().copied());
        if access.nobody {
            command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        }
        match self {
            Self::Virsh => command.args(["virsh", "-c", &access.uri]),
            Self::Strongroom => command.args([env!("CARGO_BIN_EXE_strongroom"), "-c", &access.uri]),
            Self::Python => {
                // Not by its path: nobody may look into it, perhaps.
                command.args(["/usr/bin/python3", "-c", include_str!("../clients/remote.py"), &access.uri])
            }
        };
        command.args(words);
        command
    }
}

struct Life<'a> {
    client: Client,
    host: &'a Host,
    access: &'a Access,
    uuid: &'a str,
}

impl Life<'_> {
    fn define(&self, private: bool) -> Result<(), String> {
        let private = if private { "yes" } else { "no" };
        let file = format!("/run/{}-{private}.xml", self.uuid);
        let document = format!("<secret private='{private}'><uuid>{}</uuid></secret>\n", self.uuid);
        self.host.write(&file, document);
        self.done(&["secret-define", &file]).map(|_| ())
    }

    /// virsh 9.0 reads no file of more than 1,024 bytes.
    fn set_value(&self) -> Result<(), String> {
        let base64 = "paWl".repeat(65_536 / 3) + "pQ==";
        let words = match self.client {
            Client::Virsh => vec!["secret-set-value", self.uuid, "--base64", &base64],
            _ => vec!["secret-set-value", self.uuid, "--file", "/run/value", "--plain"],
        };
        self.done(&words).map(|_| ())
    }

    /// A command that must succeed. What it printed.
    fn done(&self, words: &[&str]) -> Result<Vec<u8>, String> {
        let output = self.client.run(self.host, self.access, words);
        // virsh warns of values among its arguments. Ours gets none, and the libraries under it are to be quiet too.
        let quiet = self.client == Client::Virsh || output.stderr.is_empty();
        match output.status.success() && quiet {
            true => Ok(output.stdout),
            false => Err(format!("{}: {}", words[..3.min(words.len())].join(" "), said(&output))),
        }
    }

    /// Waits for an event, and makes some until it comes: nobody else can know when it listens.
    fn events(&self) -> Result<String, String> {
        let words = ["secret-event", "--event", "lifecycle", "--secret", self.uuid, "--timeout", "30"];
        let mut command = self.client.command(self.host, self.access, &words);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut waiting = command.spawn().unwrap();
        while waiting.try_wait().unwrap().is_none() {
            self.define(false)?;
        }
        let output = waiting.wait_with_output().unwrap();
        let told = format!("event 'lifecycle' for secret {}: Defined\nevents received: 1\n", self.uuid);
        match output.status.success() && output.stdout.starts_with(told.as_bytes()) {
            true => Ok("told of it\n".to_owned()),
            false => Err(format!("{}: {}", words.join(" "), said(&output))),
        }
    }
}
