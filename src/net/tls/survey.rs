//! All that is wrong with a host's certificates, not only the first of it: for the person who sets them up.
//!
//! Leans on the same checks as a server's start. Refuses to stop at a fault: what can still be looked at is looked at.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::Certificate;
use super::check::{self, Fault, Role};
use super::error::visible;
use super::files::{Files, certificates};
use super::identity::{Identity, is_hidden};
use super::named::Certificates;
use super::revocation::Revoked;
use super::verify::{Judge, Side, hosts, is_for};

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// All in one directory; `None`: in the usual places.
    pub(crate) pkipath: Option<&'a Path>,
    /// A user's home; root has none.
    pub(crate) home: Option<&'a Path>,
    /// What the server's configuration names instead, and its file.
    pub(crate) named: Option<(&'a Certificates, &'a Path)>,
}

/// What no side before had too.
struct News {
    ca: bool,
    crl: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// What is in order, a sentence for each.
    pub(crate) good: Vec<String>,
    /// What isn't. Those that are fatal keep TLS from working; the others don't.
    pub(crate) faults: Vec<Fault>,
}

impl Survey {
    /// Looks at the certificates of these sides. `host`: the name of this host. `asked`: somebody wants to know of these sides;
    /// else a key is left out that is root's business.
    pub(crate) fn of(places: Places<'_>, sides: &[Side], asked: bool, host: Option<&str>) -> Self {
        let mut survey = Self::default();
        let mut paths = BTreeSet::new();
        if let (Some((_, conf)), true) = (places.named, sides.contains(&Side::Server)) {
            let text = format!("The server's certificates are those that {} names", conf.display());
            survey.faults.push(Fault::new(false, text, "--pkipath looks elsewhere"));
        }
        for &side in sides {
            let files = places.of(side);
            let is_new = |path: &PathBuf| !paths.contains(path);
            let news = News { ca: is_new(&files.ca), crl: files.crl.as_ref().is_none_or(is_new) };
            survey.side(&files, side, (news, asked), host);
            paths.extend(files.own.into_iter().flat_map(|(certificate, key)| [certificate, key]));
            paths.extend([files.ca].into_iter().chain(files.crl));
        }
        survey.faults.extend(open_to_others(&paths));
        survey
    }

    /// Which sides have a certificate or a key in its place. Of a key that this user may not see nothing is known.
    pub(crate) fn present(places: Places<'_>) -> Vec<Side> {
        let there = |path: &PathBuf| !matches!(path.try_exists(), Ok(false));
        let has = |side: &Side| {
            let own = places.of(*side).own;
            let is_named =
                *side == Side::Server && places.named.is_some_and(|(named, _)| named.own.is_some());
            is_named
                || own.iter().any(|(certificate, key)| there(certificate) || there(key) && !is_hidden(key))
        };
        [Side::Server, Side::Client].into_iter().filter(has).collect()
    }

    /// One side. The CA and its list are told of once.
    fn side(&mut self, files: &Files, side: Side, (news, asked): (News, bool), host: Option<&str>) {
        let now = UnixTime::now();
        let authorities = certificates("CA certificate", &files.ca);
        let lists = files.revocation_lists();
        if news.ca {
            match &authorities {
                Err(error) => self.faults.push(error.clone().into()),
                Ok(authorities) => {
                    for der in authorities {
                        let faults = check::certificate(&files.ca, der, Role::Authority, now);
                        self.tell("CA certificate", &files.ca, der, faults);
                    }
                }
            }
        }
        if news.crl {
            match (&lists, &files.crl) {
                (Err(error), _) => self.faults.push(error.clone().into()),
                (Ok(lists), Some(crl)) if !lists.is_empty() => {
                    let authorities = authorities.as_deref().unwrap_or_default();
                    let faults = check::revocation_lists(crl, lists, authorities, now);
                    if faults.is_empty() {
                        self.good.push(format!("CA revocation list {}", crl.display()));
                    }
                    self.faults.extend(faults);
                }
                _ => {}
            }
        }
        // What can't be read of it was told above.
        let revoked =
            Revoked::read(files.crl.as_deref().unwrap_or(Path::new("")), &lists.unwrap_or_default()).ok();
        let judge = authorities
            .ok()
            .zip(revoked)
            .and_then(|(authorities, revoked)| Judge::new(&files.ca, &authorities, revoked).ok());
        for (path, key) in &files.own {
            // The host's, behind half of a user's.
            let missing = |path: &Path| matches!(path.try_exists(), Ok(false));
            if files.own.len() > 1 && missing(path) && missing(key) {
                continue;
            }
            // A client goes without it, and a server isn't this user's to start.
            let without_key = is_hidden(key) && (side == Side::Client || !asked);
            let chain = if without_key {
                let text = format!("This user may not read '{}': it is left out", key.display());
                let advice = match side {
                    Side::Server => "to look at it too, run this as root",
                    Side::Client => {
                        "this user's programs go without a certificate: put one, with its key, into ~/.pki/libvirt"
                    }
                };
                self.faults.push(Fault::new(false, text, advice));
                certificates("certificate", path)
            } else {
                Identity::load(path, key).map(|identity| identity.chain().to_vec())
            };
            let chain = match chain {
                Ok(chain) => chain,
                Err(error) => {
                    self.faults.push(error.into());
                    continue;
                }
            };
            let Some(der) = chain.first() else { continue };
            let mut faults = check::certificate(path, der, Role::Own(side), now);
            if let Some(judge) = &judge
                && faults.iter().all(|fault| !fault.fatal)
            {
                faults.extend(check::own_chain(path, &chain, &files.ca, judge, now));
            }
            // To whoever sets it up it is no comfort that TLS starts.
            faults.iter_mut().for_each(|fault| fault.fatal |= fault.vain);
            if let (Side::Server, Some(host)) = (side, host) {
                let constrained = judge.as_ref().is_some_and(|judge| judge.constrains(&chain, now));
                faults.extend(not_for(path, der, host, constrained));
            }
            self.tell(&format!("{side} certificate"), path, der, faults);
        }
        self.faults.extend(files.own.iter().filter_map(|(_, key)| check::key_file(key)));
    }

    /// A certificate in a sentence, if nothing is wrong with it; else what is.
    fn tell(&mut self, what: &str, path: &Path, der: &CertificateDer<'_>, faults: Vec<Fault>) {
        if faults.iter().all(|fault| !fault.fatal)
            && let Ok(certificate) = Certificate::read(der)
        {
            let (path, until) = (path.display(), certificate.not_after.to_date_time());
            let good = format!("{what} {path}: {}, valid until {until}", certificate.subject);
            self.good.push(visible(good));
        }
        self.faults.extend(faults);
    }
}

impl Places<'_> {
    /// One side's files.
    fn of(&self, side: Side) -> Files {
        match (self.pkipath, side) {
            (Some(directory), side) => Files::within(directory, side),
            (None, Side::Client) => Files::client(None, self.home),
            (None, Side::Server) => {
                let usual = Files::server(self.home);
                self.named.map_or_else(|| usual.clone(), |(named, _)| usual.clone().with(named))
            }
        }
    }
}

/// A server's certificate that isn't for the name that the host has.
fn not_for(path: &Path, der: &CertificateDer<'_>, host: &str, constrained: bool) -> Option<Fault> {
    let name = ServerName::try_from(host).ok()?;
    is_for(der, &name, constrained).err()?;
    let certificate = Certificate::read(der).ok()?;
    let names = match &hosts(&certificate, constrained)[..] {
        [] if constrained => {
            "no host: its CA may sign for some alone, and the subject's name doesn't count".to_owned()
        }
        [] => "no host".to_owned(),
        names => names.join(", "),
    };
    let text =
        format!("The server certificate {} is for {names}; this host calls itself {host}", path.display());
    Some(Fault::new(false, text, "clients must reach it by a name or an address in the certificate"))
}

/// Files and directories that others could put something else into.
fn open_to_others(files: &BTreeSet<PathBuf>) -> Vec<Fault> {
    let ancestors = files.iter().flat_map(|file| file.ancestors());
    let paths: BTreeSet<&Path> = ancestors.filter(|path| path.is_absolute()).collect();
    let mut faults = Vec::new();
    for path in paths {
        let Ok(about) = std::fs::metadata(path) else { continue };
        let (mode, shown) = (about.mode() & 0o7777, path.display());
        // In a sticky directory others can't move what isn't theirs.
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            let what = if about.is_dir() { "directory" } else { "file" };
            let text = format!("The {what} {shown} can be changed by others (mode {mode:04o})");
            faults.push(Fault::new(true, text, format!("run: chmod go-w '{shown}'")));
        }
        let owner = about.uid();
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            let text = format!("{shown} belongs to another user (uid {owner}), who can change it");
            faults.push(Fault::new(true, text, format!("run: chown root '{shown}'")));
        }
    }
    faults
}
