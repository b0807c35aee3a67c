//! `strongroom check`: whether the secrets that descriptions name are there, before a guest, a pool or a migration fails.
//!
//! Reads the files, asks the keystore that was named, and a second one where guests are to go (`--also`). Leans on
//! `references`, which knows where descriptions name secrets and what libvirt asks for them. Refuses to make a keystore in
//! passing, and to call anything sound that it could not read: every such way ends in status 1.

mod report;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::args::ConnectArguments;
use super::failure::Failure;
use super::output::{self, Output};
use super::{input, named, options, prompt};
use crate::client::{Meant, Uri, keystore_beside};
use crate::conf::Conf;
use crate::references::{Description, Named, Reference, Standing, Takes};
use crate::secret::{Keystore, UsageType};
use crate::{Ask, Connection, Embedded, OpenOptions};
use report::{File, Judged, Line, Report};

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Descriptions in XML, or configuration files of QEMU's driver (*.conf); - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<OsString>,

    /// The host that guests are to go to, whose keystore must have the secrets too: qemu+ssh://HOST/system, …
    #[arg(long, value_name = "URI")]
    also: Option<String>,

    /// Write JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) const CHECK_HELP: &str = "\
Lists every secret that a guest, a storage pool, a volume, a snapshot or a
backup names, and says of each whether it is there, has a value that can be
used, and is of the usage type that libvirt asks for. TLS keys' secrets stand in
qemu.conf. An encryption that libvirt refuses to start a guest with is told too.

Examples:
  A guest, as it is defined:
    virsh dumpxml web | strongroom check -
  All that a host will start with:
    strongroom check /etc/libvirt/qemu/*.xml /etc/libvirt/storage/*.xml /etc/libvirt/qemu.conf
  Before a migration: here and there
    strongroom check web.xml --also qemu+ssh://there/system

A hypervisor's URI stands for its host's keystore, in --connect too.

The value of a private secret is given to the hypervisor's own daemons only: on
a keystore of another host, whether there is one can't be told.

The last line on standard output is
  secrets ready: N, can't tell: N, problems: N
where a file that can't be read is a problem.

Exit status: 0 if there is no problem; 1 if there is one, or a file or a keystore
can't be read.";

/// Runs it.
pub(super) fn run(
    arguments: &CheckArguments,
    connect: &ConnectArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let read: Vec<_> = arguments.files.iter().map(|name| (name.display().to_string(), read(name))).collect();
    // Before anything is connected, and anybody asked for a password.
    let also = arguments.also.as_deref().map(beside).transpose()?;
    let mut here = Asked::open(its_host(named(connect)?), options(connect)?)?;
    let mut there = match also {
        Some(meant) => {
            let ask: Option<Arc<dyn Ask>> = Some(Arc::new(prompt::Terminal));
            let options = OpenOptions { read_only: connect.readonly, ask, ..OpenOptions::default() };
            Some(Asked::open(meant, options)?)
        }
        None => None,
    };
    let files = read.into_iter().map(|(name, read)| match read {
        Ok(description) => judge(name, description, &mut here, there.as_mut()),
        Err(failure) => File::unread(name, failure),
    });
    let files = files.collect();
    let report = Report::of(here.uri, there.map(|there| there.uri), files);
    if arguments.json {
        report.json(output)?;
    } else {
        report.text(output)?;
    }
    for failure in report.unread() {
        output::tell(failure);
    }
    report.verdict()
}

/// The keystore that was named, be it by its host's hypervisor. What is neither is left to be refused as ever.
fn its_host(meant: Meant) -> Meant {
    let uri = keystore_beside(&meant.uri).unwrap_or_else(|_| meant.uri.clone());
    Meant { uri, ..meant }
}

/// The keystore of the host that was named.
fn beside(word: &str) -> Result<Meant, Failure> {
    let meant = Meant::by(word)?;
    Ok(Meant { uri: keystore_beside(&meant.uri)?, ..meant })
}

/// Reads a file, whatever it is.
fn read(name: &OsStr) -> Result<Description, Failure> {
    let shown = name.display().to_string();
    let failed = |cause: Failure| Failure::told(format!("cannot check '{shown}'")).because(cause);
    let content = input::xml_from_file(name)?;
    let unmarked = content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&content);
    if unmarked.trim_ascii_start().starts_with(b"<") {
        return Description::from_xml(&content).map_err(|error| failed(error.into()));
    }
    if Path::new(name).extension().is_some_and(|extension| extension == "conf") {
        let conf = Conf::parse(Path::new(name), &content);
        let conf = conf.map_err(|error| failed(Failure::told(error.text.clone()).advise(error.advice)))?;
        return Ok(Description::from_conf(&conf));
    }
    let what = "it is neither an XML document nor a configuration file (*.conf)";
    Err(failed(Failure::told(what).advise("give what virsh dumpxml shows, or qemu.conf")))
}

/// A keystore that is asked, and what it has answered already.
struct Asked {
    uri: String,
    keystore: Arc<dyn Keystore>,
    answers: HashMap<(Named, UsageType, Takes), Standing>,
}

impl Asked {
    fn open(meant: Meant, options: OpenOptions) -> Result<Self, Failure> {
        let uri = meant.uri.clone();
        let is_embedded = Uri::parse(&uri).is_ok_and(|uri| uri.scheme == "secret" && uri.path == "/embed");
        if is_embedded && !Embedded::exists(&uri)? {
            return Err(Failure::told(format!("there is no keystore at {uri}"))
                .advise("mind the spelling; or make one with: strongroom init"));
        }
        let connection = Connection::open_meant(meant, options)
            .map_err(|error| Failure::told(format!("cannot open the keystore {uri}")).because(error))?;
        let plain = connection.keystore();
        // What may be read, we read; nobody shall be asked for more.
        let keystore = plain.elevated().unwrap_or(plain);
        Ok(Self { uri, keystore, answers: HashMap::new() })
    }

    fn standing(&mut self, reference: &Reference) -> Standing {
        let question = (reference.named.clone(), reference.wants, reference.takes);
        let answer = self.answers.entry(question).or_insert_with(|| reference.standing(&*self.keystore));
        answer.clone()
    }
}

/// All that a description says of secrets, each judged here and there.
fn judge(name: String, description: Description, here: &mut Asked, mut there: Option<&mut Asked>) -> File {
    let mut lines = Vec::new();
    for reference in &description.references {
        let judged = |asked: &mut Asked| Judged::of(&asked.standing(reference), reference.wants);
        let here = judged(here);
        let there = there.as_deref_mut().map(judged);
        lines.push(Line::of(reference, here, there));
    }
    // A volume may leave it open; a guest that does so doesn't start.
    let bare =
        description.encryptions.iter().filter(|it| it.secrets.is_empty() && description.kind != "volume");
    for place in bare.map(|encryption| &encryption.place) {
        if description.faults.iter().all(|fault| fault.place != *place) {
            lines.push(Line::unnamed(place));
        }
    }
    lines.extend(description.faults.iter().map(|fault| Line::refused(&fault.place, &fault.text)));
    File::read(name, description, lines)
}
