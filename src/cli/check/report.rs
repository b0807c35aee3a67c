//! What `strongroom check` tells: a table for each file, a line that counts, and the same as JSON.
//!
//! Leans on `references` for what there is to tell. Refuses to hide what it doesn't know: a secret whose value can't be
//! asked for is neither ready nor a problem, and is counted apart.

use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::references::{Description, Named, Pooled, Reference, Standing};
use crate::secret::{Error, UsageType};

/// All that was found.
#[derive(Serialize)]
pub(super) struct Report {
    keystore: String,
    /// The keystore of the host that guests are to go to.
    also: Option<String>,
    files: Vec<File>,
    ready: usize,
    cannot_tell: usize,
    problems: usize,
}

/// A file, and the secrets that it names.
#[derive(Serialize)]
pub(super) struct File {
    file: String,
    /// `domain`, `pool`, …
    describes: Option<&'static str>,
    name: Option<String>,
    /// Why it couldn't be read.
    error: Option<String>,
    #[serde(skip)]
    failure: Option<Failure>,
    secrets: Vec<Line>,
    notes: Vec<String>,
}

/// A place that names a secret, or should.
#[derive(Serialize)]
pub(super) struct Line {
    place: String,
    /// The usage type that libvirt looks for.
    wants: Option<UsageType>,
    uuid: Option<String>,
    usage: Option<String>,
    here: Judged,
    also: Option<Judged>,
}

/// What is the matter with a secret, if anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Judged {
    state: State,
    /// In words, where the state alone doesn't say it.
    detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Ready,
    CannotTell,
    NoValue,
    /// The value is none that can be used.
    Unfit,
    OtherUsage,
    Missing,
    Unreadable,
    /// The description names none where one is needed.
    Unnamed,
    /// libvirt doesn't take the description.
    Refused,
}

impl Judged {
    /// For people and programs. `wants`: the usage that libvirt looks for.
    pub(super) fn of(standing: &Standing, wants: UsageType) -> Self {
        let (state, detail) = match standing {
            Standing::Ready => (State::Ready, None),
            Standing::Untold(error) => (State::CannotTell, Some(error.to_string())),
            Standing::NoValue => (State::NoValue, None),
            Standing::Unfit(why) => (State::Unfit, Some(format!("its value {why}"))),
            Standing::OtherUsage(usage) => {
                (State::OtherUsage, Some(format!("of usage {}, not {}", usage.name(), wants.name())))
            }
            Standing::Missing => (State::Missing, None),
            Standing::Unreadable(error) => (State::Unreadable, Some(error.to_string())),
        };
        Self { state, detail }
    }

    fn words(&self) -> String {
        let detail = self.detail.as_deref().unwrap_or_default();
        match self.state {
            State::Ready => "ready".to_owned(),
            State::CannotTell => format!("there; can't tell if it has a value: {detail}"),
            State::NoValue => "has no value".to_owned(),
            State::OtherUsage | State::Unfit => detail.to_owned(),
            State::Missing => "missing".to_owned(),
            State::Unreadable => format!("can't be read: {detail}"),
            State::Unnamed => "no secret is named".to_owned(),
            State::Refused => format!("libvirt refuses it: {detail}"),
        }
    }
}

impl State {
    /// What to do about it.
    fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::Ready | Self::CannotTell => return None,
            Self::Missing => {
                "define what is missing, with the UUID or usage that is shown: strongroom secret-define FILE"
            }
            Self::NoValue => "set what has no value: strongroom secret-set-value UUID",
            Self::Unfit => {
                "an image keeps the passphrase that it was made with; all else: strongroom secret-set-value UUID"
            }
            Self::OtherUsage => "a secret's usage can't be changed: define another, and name that one",
            Self::Unnamed | Self::Refused => "mend the description where it is said",
            Self::Unreadable => "see how the keystore stands: strongroom status",
        })
    }
}

impl Line {
    /// A secret that is named.
    pub(super) fn of(reference: &Reference, here: Judged, also: Option<Judged>) -> Self {
        let (uuid, usage) = match &reference.named {
            Named::Uuid(uuid) => (Some(uuid.to_string()), None),
            Named::Usage(id) => (None, Some(id.clone())),
        };
        Self { place: reference.place.clone(), wants: Some(reference.wants), uuid, usage, here, also }
    }

    /// One that should be.
    pub(super) fn unnamed(place: &str) -> Self {
        Self::amiss(place, Judged { state: State::Unnamed, detail: None })
    }

    /// One that is named wrongly.
    pub(super) fn refused(place: &str, text: &str) -> Self {
        Self::amiss(place, Judged { state: State::Refused, detail: Some(text.to_owned()) })
    }

    fn amiss(place: &str, here: Judged) -> Self {
        Self { place: place.to_owned(), wants: None, uuid: None, usage: None, here, also: None }
    }

    fn judged(&self) -> impl Iterator<Item = &Judged> {
        std::iter::once(&self.here).chain(&self.also)
    }

    /// Its first cells.
    fn cells(&self) -> [String; 3] {
        let secret = match (&self.uuid, &self.usage) {
            (Some(uuid), _) => uuid.clone(),
            (None, Some(usage)) => format!("'{usage}'"),
            (None, None) => "-".to_owned(),
        };
        [self.place.clone(), self.wants.map_or("-", UsageType::name).to_owned(), secret]
    }
}

impl File {
    /// One that was read.
    pub(super) fn read(file: String, description: Description, secrets: Vec<Line>) -> Self {
        let Description { kind, name, tls, encryptions, pooled, .. } = description;
        let mut notes = Vec::new();
        if kind == "volume" && encryptions.iter().any(|encryption| encryption.secrets.is_empty()) {
            // A pool that looks at its volumes sees that they are encrypted, and not with what.
            notes.push("it is encrypted, and doesn't say with which secret".to_owned());
        }
        for Pooled { place, pool } in pooled {
            notes.push(format!("{place} lies in the pool '{pool}': check that pool's description too"));
        }
        if !tls.is_empty() {
            let places = tls.join(", ");
            notes.push(format!("TLS is used by {places}: see the secrets in qemu.conf too"));
        }
        Self { file, describes: Some(kind), name, error: None, failure: None, secrets, notes }
    }

    /// One that couldn't be.
    pub(super) fn unread(file: String, failure: Failure) -> Self {
        let error = match &failure {
            Failure::Told { lines, .. } => lines.join(": "),
            Failure::Interrupted | Failure::Silent => "interrupted".to_owned(),
        };
        let (secrets, notes) = (Vec::new(), Vec::new());
        Self { file, describes: None, name: None, error: Some(error), failure: Some(failure), secrets, notes }
    }

    fn heading(&self) -> String {
        let kind = self.describes.unwrap_or_default();
        let described = match &self.name {
            Some(name) => format!("{kind} '{name}'"),
            None => kind.to_owned(),
        };
        let none = if self.secrets.is_empty() { ", names no secret" } else { "" };
        format!("{}: {described}{none}", self.file)
    }
}

impl Report {
    /// Counts.
    pub(super) fn of(keystore: String, also: Option<String>, files: Vec<File>) -> Self {
        let states = || files.iter().flat_map(|file| &file.secrets).flat_map(Line::judged).map(|it| it.state);
        let ready = states().filter(|state| *state == State::Ready).count();
        let cannot_tell = states().filter(|state| *state == State::CannotTell).count();
        let unread = files.iter().filter(|file| file.failure.is_some()).count();
        let problems = states().count() - ready - cannot_tell + unread;
        Self { keystore, also, files, ready, cannot_tell, problems }
    }

    /// What a person reads.
    pub(super) fn text(&self, output: &mut Output) -> Result<(), Failure> {
        for file in self.files.iter().filter(|file| file.failure.is_none()) {
            output.lines(&[file.heading()])?;
            if !file.secrets.is_empty() {
                self.table(&file.secrets, output)?;
            }
            output.lines(&file.notes.iter().map(|note| format!("note: {note}")).collect::<Vec<_>>())?;
            output.extra("\n")?;
        }
        output.text(&format!(
            "secrets ready: {}, can't tell: {}, problems: {}\n",
            self.ready, self.cannot_tell, self.problems
        ))
    }

    fn table(&self, lines: &[Line], output: &mut Output) -> Result<(), Failure> {
        let words = |judged: Option<&Judged>| judged.map_or_else(|| "-".to_owned(), Judged::words);
        if self.also.is_none() {
            let rows = lines.iter().map(|line| {
                let [place, wants, secret] = line.cells();
                [place, wants, secret, line.here.words()]
            });
            return output.table(["Place", "Usage", "Secret", "State"], &rows.collect::<Vec<_>>());
        }
        let rows = lines.iter().map(|line| {
            let [place, wants, secret] = line.cells();
            [place, wants, secret, line.here.words(), words(line.also.as_ref())]
        });
        output.table(["Place", "Usage", "Secret", "Here", "There"], &rows.collect::<Vec<_>>())
    }

    /// What a program reads.
    pub(super) fn json(&self, output: &mut Output) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::failed(format!("cannot write JSON: {error}")))?;
        output.text(&format!("{text}\n"))
    }

    /// Why files couldn't be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = &Failure> {
        self.files.iter().filter_map(|file| file.failure.as_ref())
    }

    /// A failure if anything is wrong, with the next step for what stands first.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let mut judged = self.files.iter().flat_map(|file| &file.secrets).flat_map(Line::judged);
        let hint = judged.find_map(|judged| judged.state.advice()).map(str::to_owned);
        match hint.is_none() && self.unread().next().is_none() {
            true => Ok(()),
            false => Err(Failure::Told { lines: Vec::new(), hint }),
        }
    }
}
