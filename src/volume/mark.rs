//! What is unfinished, where, and whose work it was: told by a secret's description, so that whoever looks at the secret
//! sees it too.
//!
//! A mark says the host, for hosts that share a keystore: one's path isn't the other's; and the directory by its number, for
//! a disk that isn't mounted: the directory below has the same name. Leans on `secret`. Refuses to clear what another host
//! began, or what was begun in another directory: its image may well be there.

use ::uuid::Uuid;
use ring::digest::{SHA256, digest};

use super::place::Place;
use crate::secret::{Definition, Error, UsageType};

/// The mark of a work that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) work: Work,
    host: String,
    directory: String,
    /// For a creation: what tells its plan from others.
    pub(super) plan: Option<String>,
    /// The volume's.
    pub(super) path: String,
}

/// A work that can be cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Create,
    Delete,
    Change,
}

impl Mark {
    /// The mark of a work that begins now, on this host.
    pub(super) fn new(work: Work, place: &Place, plan: Option<String>) -> Result<Self, Error> {
        Ok(Self { work, host: host(), directory: place.number()?, plan, path: place.text.clone() })
    }

    /// The mark that a secret has.
    pub(super) fn of(secret: &Definition) -> Option<Self> {
        let mark = Self::read(secret.description.as_deref()?)?;
        let is_so = match mark.work {
            Work::Create | Work::Delete => {
                secret.usage.kind == UsageType::Volume && *secret.usage.id == *mark.path
            }
            Work::Change => secret.usage.kind == UsageType::None,
        };
        is_so.then_some(mark)
    }

    /// The description of a secret that has it.
    pub(super) fn text(&self) -> String {
        let Self { work, host, directory, plan, path } = self;
        let plan = plan.as_ref().map_or_else(String::new, |plan| format!("{PLAN}{plan}"));
        format!("{UNFINISHED}{}{ON}{host}{AGAIN}{directory}{plan}{FOR}{path}", work.name())
    }

    fn read(text: &str) -> Option<Self> {
        let (work, rest) = text.strip_prefix(UNFINISHED)?.split_once(ON)?;
        let work = [Work::Create, Work::Delete, Work::Change].into_iter().find(|it| it.name() == work)?;
        let (host, rest) = rest.split_once(AGAIN)?;
        let (seen, path) = rest.split_once(FOR)?;
        let (directory, plan) = match seen.split_once(PLAN) {
            Some((directory, plan)) => (directory, Some(plan.to_owned())),
            None => (seen, None),
        };
        let (host, directory, path) = (host.to_owned(), directory.to_owned(), path.to_owned());
        Some(Self { work, host, directory, plan, path })
    }

    /// Whether it is of this host.
    pub(super) fn is_ours(&self) -> bool {
        self.host == host()
    }

    /// Whether the volume's directory is still the one that it was.
    pub(super) fn is_of(&self, place: &Place) -> bool {
        place.number().is_ok_and(|number| number == self.directory)
    }

    /// Refuses to clear what was begun while the volume's directory was another one.
    pub(super) fn refuse_elsewhere(&self, place: &Place) -> Result<(), Error> {
        if self.is_of(place) {
            return Ok(());
        }
        let (work, path) = (self.work.name(), &self.path);
        let text = format!("'volume {work}' of '{path}' was cut short when its directory was another one");
        Err(Error::not_now(text).advise(format!(
            "mount the disk that it is on, and run that again; if it is gone for good, or never was there, move away what is there now: strongroom volume delete --gone '{path}'"
        )))
    }

    /// What to do first, where the work can't go on with a secret that has it.
    pub(super) fn refused(&self, uuid: Uuid) -> Error {
        let Self { work, path, .. } = self;
        let (text, advice) = match work {
            Work::Create => (
                format!("the creation of '{path}' was cut short"),
                "finish it first: run strongroom volume create again".to_owned(),
            ),
            Work::Delete => (
                format!("the removal of '{path}' was cut short"),
                format!(
                    "finish it with: strongroom volume delete '{path}'; to keep the volume: give secret {uuid} another description (secret-dumpxml, secret-define)"
                ),
            ),
            Work::Change => (
                format!("secret {uuid} holds the passphrases of a change of '{path}' that was cut short"),
                "name the volume's own secret".to_owned(),
            ),
        };
        Error::not_now(text).advise(advice)
    }
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Change => "change-passphrase",
        }
    }
}

/// The description of the secret that a volume's creation made.
pub(super) fn made_for(path: &str) -> String {
    format!("{MADE}{path}{MADE_ON}{}", host())
}

/// The host on which a volume's creation made this secret, if one did.
pub(super) fn made_on(secret: &Definition) -> Option<&str> {
    let rest = secret.description.as_deref()?.strip_prefix(MADE)?;
    let host = rest.strip_prefix(&*secret.usage.id)?.strip_prefix(MADE_ON)?;
    (secret.usage.kind == UsageType::Volume).then_some(host)
}

/// The other host whose volume this secret is for, if it is one's.
pub(super) fn elsewhere(secret: &Definition) -> Option<String> {
    let at = match Mark::of(secret) {
        Some(mark) => mark.host,
        None => made_on(secret)?.to_owned(),
    };
    (at != host()).then_some(at)
}

/// Refuses to undefine, without a proof, what is another host's.
pub(super) fn refuse_foreign(secret: &Definition) -> Result<(), Error> {
    let Some(host) = elsewhere(secret) else { return Ok(()) };
    let uuid = secret.uuid;
    let text = match Mark::of(secret) {
        Some(Mark { work, path, .. }) => {
            format!(
                "'volume {}' of '{path}' was cut short on another host, '{host}' (secret {uuid})",
                work.name()
            )
        }
        None => format!("secret {uuid} is that of '{}' on another host, '{host}'", secret.usage.id),
    };
    Err(Error::not_now(text).advise(format!(
        "do it there; if that host is gone for good, or is this one under a former name: strongroom secret-undefine {uuid}"
    )))
}

/// This host, as others know it; and a few letters of its own, for hosts of one name.
fn host() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let fits = |it: char| it.is_ascii_alphanumeric() || "-._".contains(it);
    let name = read("/proc/sys/kernel/hostname").trim().replace(|it| !fits(it), "?");
    let id = read("/etc/machine-id");
    if id.trim().is_empty() {
        return name;
    }
    // The number itself is not for others to know (machine-id(5)).
    let id = digest(&SHA256, format!("strongroom volumes\0{}", id.trim()).as_bytes());
    format!("{name}/{}", letters(&id.as_ref()[..4]))
}

/// Bytes in hexadecimal.
pub(super) fn letters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const UNFINISHED: &str = "unfinished: strongroom volume ";
const ON: &str = " was cut short on ";
const AGAIN: &str = "; run it again (directory ";
const PLAN: &str = ", plan ";
const FOR: &str = ") for ";

const MADE: &str = "passphrase of the volume ";
const MADE_ON: &str = ", made on ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Usage;

    fn secret(description: &str, kind: UsageType, id: &str) -> Definition {
        let usage = Usage { kind, id: id.into() };
        let description = Some(description.into());
        Definition { uuid: Uuid::from_u128(1), usage, description, private: true, ephemeral: false }
    }

    #[test]
    fn a_mark_says_the_same_when_it_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("a) for b, plan c; run it again (directory 1")).unwrap();
        for (work, plan, kind) in [
            (Work::Create, Some("0a1b2c3d".to_owned()), UsageType::Volume),
            (Work::Delete, None, UsageType::Volume),
            (Work::Change, None, UsageType::None),
        ] {
            let mark = Mark::new(work, &place, plan).unwrap();
            let id = if kind == UsageType::None { "" } else { &place.text };
            let read = Mark::of(&secret(&mark.text(), kind, id)).unwrap();
            assert_eq!(read, mark);
            assert!(read.is_ours() && read.is_of(&place));
            read.refuse_elsewhere(&place).unwrap();
            assert_eq!(Mark::of(&secret(&mark.text(), UsageType::Ceph, id)), None);
            let other = Mark { host: "there".to_owned(), directory: "1@0".to_owned(), ..mark };
            let theirs = secret(&other.text(), kind, id);
            assert!(refuse_foreign(&theirs).unwrap_err().to_string().contains("'there'"));
            assert!(other.refuse_elsewhere(&place).unwrap_err().advice().unwrap().contains("--gone"));
        }
    }

    #[test]
    fn a_made_secret_says_its_host() {
        let ours = secret(&made_for("/a"), UsageType::Volume, "/a");
        assert_eq!((made_on(&ours), elsewhere(&ours)), (Some(&*host()), None));
        let theirs = secret("passphrase of the volume /a, made on there", UsageType::Volume, "/a");
        assert_eq!(elsewhere(&theirs).as_deref(), Some("there"));
        refuse_foreign(&ours).unwrap();
        assert!(refuse_foreign(&theirs).unwrap_err().advice().unwrap().contains("secret-undefine"));
        for (text, kind, id) in [
            ("mine", UsageType::Volume, "/a"),
            ("passphrase of the volume /b, made on there", UsageType::Volume, "/a"),
            ("passphrase of the volume /a, made on there", UsageType::Tls, "/a"),
        ] {
            assert_eq!(made_on(&secret(text, kind, id)), None, "{text}");
        }
    }
}
