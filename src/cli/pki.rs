//! `strongroom pki-query-dn` and `strongroom pki-check`: names in certificates, and what is wrong with a host's.
//!
//! Leans on `net` for both. Refuses to call certificates sound that it could not read: every such way ends in status 1.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::{self, Output};
use crate::conf::{Conf, ConfError};
use crate::net::dn;
use crate::net::tls::{Certificates, Named, Places, Side, Survey, first_certificate};

/// Our commands on certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Show the name in a certificate, as tls_allowed_dn_list wants it
    #[command(name = "pki-query-dn", after_help = QUERY_HELP)]
    QueryDn {
        /// The certificate's file, in PEM
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },

    /// Say what is wrong with this host's certificates
    #[command(name = "pki-check", after_help = CHECK_HELP)]
    Check(CheckArguments),
}

const QUERY_HELP: &str = "\
Example, to let in whoever has this certificate and nobody else:
  echo \"tls_allowed_dn_list = [ \\\"$(strongroom pki-query-dn clientcert.pem)\\\" ]\" \\
    >> /etc/libvirt/virtsecretd.conf
In the list, * stands for any text and ? for any one character.";

const CHECK_HELP: &str = "\
Looks at the CA's certificate and revocation list, at the server's and the
client's certificate and key, and at all directories above them: whether they
are there, fit together, are in time, prove each other, and can't be changed by
others. Without --server or --client it looks at those that are there. The
server's are those that virtsecretd.conf names (ca_file, cert_file, key_file,
crl_file), or else those in libvirt's usual places.

One line for each finding, 'ok:', 'problem:' or 'note:'; the last line always is
  certificates ok: N, problems: N, notes: N

Exit status: 0 if there is no problem; 1 if there is one.";

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// What a server needs
    #[arg(long)]
    server: bool,

    /// What a client needs
    #[arg(long)]
    client: bool,

    /// Look in this directory, as ?pkipath= in a URI does
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pkipath: Option<PathBuf>,

    /// The daemon's configuration, which may name the server's certificates
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs a command.
pub(super) fn run(command: &PkiCommand, output: &mut Output) -> Result<(), Failure> {
    match command {
        PkiCommand::QueryDn { file } => query(file, output),
        PkiCommand::Check(arguments) => check(arguments, output),
    }
}

fn query(file: &Path, output: &mut Output) -> Result<(), Failure> {
    let certificate = first_certificate(file).map_err(|error| {
        let failure = Failure::told(error.to_string());
        if error.advice().is_empty() { failure } else { failure.advise(error.advice()) }
    })?;
    match dn::of(&certificate) {
        // The daemon's configuration has no way to write these, and this is what is written there.
        Some(name) if name.contains(|it: char| it == '"' || it.is_control()) => Err(Failure::told(format!(
            "the name in '{}' has quotes or control characters: {name}",
            file.display()
        ))
        .advise("don't let it in by its name: have the authority sign a certificate with another")),
        Some(name) => {
            if name.contains(['*', '?']) {
                output::warn(&format!(
                    "in tls_allowed_dn_list, the * and ? in '{name}' stand for more than themselves"
                ));
            }
            output.text(&format!("{name}\n"))
        }
        None => Err(Failure::told(format!("the certificate in '{}' cannot be read", file.display()))
            .advise("make it anew: it isn't as X.509 wants it")),
    }
}

fn check(arguments: &CheckArguments, output: &mut Output) -> Result<(), Failure> {
    let root = rustix::process::geteuid().is_root();
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| !root && home.is_absolute());
    let pkipath = arguments.pkipath.as_deref().map(std::path::absolute).transpose();
    let pkipath = pkipath.map_err(|error| Failure::system("cannot tell where --pkipath is", &error))?;
    let conf = match pkipath {
        Some(_) => None,
        None if arguments.client && !arguments.server => None,
        None => configuration(arguments.config.as_deref(), home.as_deref())?,
    };
    let (pkipath, home) = (pkipath.as_deref(), home.as_deref());
    let named = conf.as_ref().map(|(named, file)| (named, file.as_path()));
    let places = Places { pkipath, home, named };
    let mut sides = Vec::new();
    sides.extend(arguments.server.then_some(Side::Server));
    sides.extend(arguments.client.then_some(Side::Client));
    let asked = !sides.is_empty();
    if !asked {
        sides = Survey::present(places);
    }
    if sides.is_empty() {
        return Err(Failure::told("this host has neither a server's nor a client's certificate")
            .advise("name the one that is missing, with --server or --client, to see where it belongs"));
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let survey = Survey::of(places, &sides, asked, host.as_deref().map(str::trim));
    let good = survey.good.iter().map(|good| format!("ok: {good}"));
    let faults = survey.faults.iter().flat_map(|fault| {
        let kind = if fault.fatal { "problem" } else { "note" };
        [format!("{kind}: {}", fault.text), format!("  {}", fault.advice)]
    });
    output.lines(&good.chain(faults.filter(|line| !line.trim().is_empty())).collect::<Vec<_>>())?;
    let problems = survey.faults.iter().filter(|fault| fault.fatal).count();
    let notes = survey.faults.len() - problems;
    output
        .text(&format!("certificates ok: {}, problems: {problems}, notes: {notes}\n", survey.good.len()))?;
    if problems == 0 { Ok(()) } else { Err(Failure::Silent) }
}

/// What the daemon's configuration names, and its file; nothing if it names nothing. `home`: a user's, whose daemon it is.
fn configuration(
    named: Option<&Path>,
    home: Option<&Path>,
) -> Result<Option<(Certificates, PathBuf)>, Failure> {
    let users = |home: &Path| {
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        config.unwrap_or_else(|| home.join(".config"))
    };
    let usual = || home.map_or_else(|| "/etc".into(), users).join("libvirt/virtsecretd.conf");
    let file = named.map_or_else(usual, Path::to_owned);
    let wrong = |error: ConfError| Failure::told(error.text).advise(error.advice);
    let Some(conf) = Conf::read(&file).map_err(wrong)? else {
        return match named {
            Some(file) => Err(Failure::told(format!("there is no file '{}'", file.display()))
                .advise("name the daemon's configuration, or leave --config away")),
            None => Ok(None),
        };
    };
    let certificates = Named::read(&conf).and_then(|named| named.certificates(&conf)).map_err(wrong)?;
    let says_something = certificates.own.is_some() || certificates.crl.is_some();
    Ok(says_something.then_some((certificates, file)))
}
