//! The daemon's log: libvirt's outputs, filters and line format, behind tracing's macros.
//!
//! Set up from the command line, the environment and the configuration, in this order of weight; changed and shown at
//! run time in libvirt's text form, for virt-admin. Leans on tracing-subscriber for the place to hook in. Refuses
//! to hold anybody up (each output has a thread that writes), and to let a client's text forge a line.
//!
//! [`filters`] says which events are told, [`line`] how they read, [`outputs`] where they go.

mod filters;
mod line;
mod outputs;

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub(super) use filters::{Filters, Level};
use line::Line;
pub(super) use outputs::Wanted;
use outputs::{Destination, JOURNAL, Output};

use super::process::{Exit, StartError};

/// The log. Clones are the same log.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Shared>);

/// How to set it up.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// `log_level`.
    pub(super) level: Level,
    /// `log_outputs`.
    pub(super) outputs: Vec<Wanted>,
    /// `log_filters`.
    pub(super) filters: Filters,
    /// `-v`.
    pub(super) verbose: bool,
    /// In the background: standard error leads nowhere.
    pub(super) detached: bool,
    /// Where a daemon in the background writes when there is no journal, see [`default_file`].
    pub(super) file: PathBuf,
}

/// Outputs or filters that can't be: libvirt's text for it, to be told as an invalid argument.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

/// Why outputs can't be set.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// What could not be done, in libvirt's words, and why.
    #[error("{0}: {1}")]
    Unopened(String, io::Error),
}

#[derive(Debug)]
struct Shared {
    /// Replaced as a whole, so that nobody logs by half a change.
    state: RwLock<Arc<State>>,
    /// What an empty text stands for when outputs are set.
    default: Wanted,
    /// Whether whoever waits for the daemon to go into the background hears its warnings too.
    echoes: AtomicBool,
    /// What is left to say standard error has already.
    is_told: AtomicBool,
    /// In the background.
    detached: bool,
}

#[derive(Debug)]
struct State {
    level: Level,
    filters: Arc<Filters>,
    outputs: Arc<[Output]>,
}

/// Where a daemon in the background logs to if there is no journal: `/var/log/libvirt`, or a user's cache.
pub(super) fn default_file(cache: Option<&Path>) -> PathBuf {
    let directory = cache.unwrap_or(Path::new("/var/log"));
    directory.join("libvirt/virtsecretd.log")
}

impl Log {
    /// Sets it up: command line before environment before configuration.
    pub(super) fn new(setup: Setup) -> Result<Self, StartError> {
        Self::with_environment(setup, |name| std::env::var(name).ok().filter(|text| !text.is_empty()))
    }

    fn with_environment(
        setup: Setup,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, StartError> {
        let mut level = setup.level;
        if let Some(text) = variable("LIBVIRT_DEBUG") {
            let wrong =
                || wrong("LIBVIRT_DEBUG", format_args!("Invalid log priority '{}'", text.escape_debug()));
            level = Level::from_text(&text).ok_or_else(wrong)?;
        }
        if setup.verbose {
            level = level.min(Level::Info);
        }
        let filters = match variable("LIBVIRT_LOG_FILTERS") {
            Some(text) => Filters::parse(&text).map_err(|error| wrong("LIBVIRT_LOG_FILTERS", error))?,
            None => setup.filters,
        };
        let outputs = match variable("LIBVIRT_LOG_OUTPUTS") {
            Some(text) => Wanted::parse(&text).map_err(|error| wrong("LIBVIRT_LOG_OUTPUTS", error))?,
            None => setup.outputs,
        };
        let default = Wanted { level, destination: usual(setup.detached, setup.file) };
        let wanted = if outputs.is_empty() { vec![default.clone()] } else { outputs };
        let outputs = open(&wanted).map_err(|error| {
            StartError::new(Exit::Usage, format!("cannot set up the log: {error}"))
                .advise("choose another place in log_outputs, or in LIBVIRT_LOG_OUTPUTS")
        })?;
        let echoes = AtomicBool::new(setup.detached && !wanted.iter().any(Wanted::is_stderr));
        let state = RwLock::new(Arc::new(State { level, filters: Arc::new(filters), outputs }));
        let is_told = AtomicBool::new(false);
        Ok(Self(Arc::new(Shared { state, default, echoes, is_told, detached: setup.detached })))
    }

    /// Whoever started the daemon into the background has gone.
    pub(super) fn echo_no_more(&self) {
        self.0.echoes.store(false, Ordering::Relaxed);
    }

    /// Keeps why the daemon didn't start, or has ended, where somebody will look for it: standard error has it besides, which
    /// systemd has in its journal.
    pub(super) fn tell_of_failure(&self, error: &StartError) {
        self.echo_no_more();
        self.0.is_told.store(true, Ordering::Relaxed);
        let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        tracing::error!("{}{advice}", error.line());
    }

    /// Whether an output shows, or passes on, what standard error has.
    fn has_stderr(&self, output: &Output) -> bool {
        match output.wanted.destination {
            Destination::Stderr => true,
            Destination::Journald => !self.0.detached,
            Destination::Syslog(_) | Destination::File(_) => false,
        }
    }

    /// Makes it the log of all threads.
    pub(super) fn install(&self) -> Result<(), StartError> {
        tracing::subscriber::set_global_default(self.subscriber())
            .map_err(|error| StartError::new(Exit::Usage, format!("this process has a log already: {error}")))
    }

    fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::registry().with(self.clone())
    }

    /// The outputs in libvirt's form, and how many they are.
    pub(super) fn outputs(&self) -> (String, usize) {
        let state = self.state();
        let shown: Vec<String> = state.outputs.iter().map(|output| output.wanted.to_string()).collect();
        (shown.join(" "), shown.len())
    }

    /// The filters in libvirt's form, and how many they are.
    pub(super) fn filters(&self) -> (String, usize) {
        let state = self.state();
        (state.filters.to_string(), state.filters.len())
    }

    /// Sets the outputs; an empty text brings the usual one back. If one can't be had, all stays as it is. Blocks on
    /// opening a file: not for the event loop's thread.
    pub(super) fn set_outputs(&self, text: &str) -> Result<(), Unusable> {
        let mut wanted = Wanted::parse(text)?;
        if wanted.is_empty() {
            wanted.push(self.0.default.clone());
        }
        let outputs = open(&wanted)?;
        self.change(|old| State { level: old.level, filters: Arc::clone(&old.filters), outputs });
        Ok(())
    }

    /// Sets the filters; an empty text is none.
    pub(super) fn set_filters(&self, text: &str) -> Result<(), Malformed> {
        let filters = Arc::new(Filters::parse(text)?);
        self.change(|old| State { level: old.level, filters, outputs: Arc::clone(&old.outputs) });
        Ok(())
    }

    /// Waits until all that was logged is written, but not for ever: for the end of the process.
    pub(super) fn flush(&self) {
        let until = Instant::now() + Duration::from_secs(1);
        for output in self.state().outputs.iter() {
            output.flush(until);
        }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.0.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&State) -> State) {
        {
            let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
            *state = Arc::new(change(&state));
        }
        // The lock is free again: each place that logs now asks us anew.
        tracing::callsite::rebuild_interest_cache();
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        Level::of(*metadata.level()).is_some_and(|level| self.state().wants(level, metadata.target()))
    }
}

impl State {
    fn wants(&self, level: Level, target: &str) -> bool {
        level >= self.filters.level(target).unwrap_or(self.level)
            && self.outputs.iter().any(|output| level >= output.wanted.level)
    }
}

/// An event that nobody wants costs a look at an atomic: tracing asks once a place, and again after a change.
impl<S: Subscriber> Layer<S> for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let state = self.state();
        Some(match state.filters.finest().unwrap_or(Level::Error).min(state.level) {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warning => LevelFilter::WARN,
            Level::Error => LevelFilter::ERROR,
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(level) = Level::of(*event.metadata().level()) else { return };
        let line = Arc::new(Line::of(event, level));
        if level >= Level::Warning && self.0.echoes.load(Ordering::Relaxed) {
            _ = writeln!(io::stderr(), "{}: {}", level.name(), line.text());
        }
        let is_told = self.0.is_told.load(Ordering::Relaxed);
        for output in self.state().outputs.iter().filter(|output| !is_told || !self.has_stderr(output)) {
            output.take(&line);
        }
    }
}

/// The usual destination: the journal, unless somebody looks at a terminal.
fn usual(detached: bool, file: PathBuf) -> Destination {
    let journal = Path::new(JOURNAL).exists();
    match (detached, journal) {
        (true, true) => Destination::Journald,
        (true, false) => {
            // For a user it may be the first file there. If it can't be made, opening the file says so.
            let directory = file.parent().unwrap_or(Path::new("/"));
            _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            Destination::File(file)
        }
        (false, true) if !io::stderr().is_terminal() => Destination::Journald,
        (false, _) => Destination::Stderr,
    }
}

fn open(wanted: &[Wanted]) -> Result<Arc<[Output]>, Unusable> {
    let one = |wanted: &Wanted| {
        Output::open(wanted, IDENTITY).map_err(|error| {
            let doing = match &wanted.destination {
                Destination::File(path) => format!("failed to open {}", path.display()),
                _ => format!("failed to open the log output '{wanted}'"),
            };
            Unusable::Unopened(doing, error)
        })
    };
    wanted.iter().map(one).collect()
}

fn wrong(variable: &str, what: impl std::fmt::Display) -> StartError {
    StartError::new(Exit::Usage, format!("{variable}: {what}"))
        .advise(format!("correct {variable} in the environment, or take it out"))
}

/// Our name in the journal.
const IDENTITY: &str = "strongroomd";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tracing::{debug, error, info, subscriber, trace, warn};

    use super::*;

    fn setup(level: Level) -> Setup {
        let filters = Filters::default();
        let file = PathBuf::from("/nowhere/virtsecretd.log");
        Setup { level, outputs: Vec::new(), filters, verbose: false, detached: false, file }
    }

    fn log_to(file: &Path, level: Level) -> Log {
        let outputs = Wanted::parse(&format!("1:file:{}", file.display())).unwrap();
        Log::with_environment(Setup { outputs, ..setup(level) }, |_| None).unwrap()
    }

    /// What a file has, without times and threads, and without the two lines on top.
    fn written(log: &Log, file: &Path) -> Vec<String> {
        log.flush();
        let text = std::fs::read_to_string(file).unwrap();
        let body = |line: &str| line.splitn(3, ": ").last().map(strip_number).unwrap_or_default();
        text.lines().skip(2).map(body).collect()
    }

    /// `error : target:12 : text` without the 12.
    fn strip_number(body: &str) -> String {
        body.split(" : ")
            .map(|part| part.trim_end_matches(|c: char| c.is_ascii_digit()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn lines_are_libvirts_and_a_log_begins_with_the_version() {
        let at = tempfile::tempdir().unwrap();
        let file = at.path().join("log");
        let log = log_to(&file, Level::Warning);
        subscriber::with_default(log.subscriber(), || {
            warn!(target: "strongroom::server", client = 7, who = %"x\ny", "no\nforged\u{1b}[1m line");
            info!("not told");
        });
        log.flush();
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let thread = rustix::thread::gettid();
        assert!(lines[0].ends_with(&format!(": info : strongroom version: {}", env!("CARGO_PKG_VERSION"))));
        let (time, rest) = lines[2].split_at("2026-11-21 23:24:28.106+0000".len());
        assert!(time.ends_with("+0000") && time.is_ascii(), "{time}");
        let start = format!(": {thread}: warning : strongroom::server:");
        let rest = rest.strip_prefix(&start).unwrap_or_else(|| panic!("{rest:?} {start:?}"));
        let (number, text) = rest.split_once(" : ").unwrap();
        assert!(number.parse::<u32>().unwrap() > 0);
        assert_eq!(text, "no\\nforged\\u{1b}[1m line client=7 who=x\\ny");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn filters_and_outputs_change_at_run_time_and_read_back() {
        let at = tempfile::tempdir().unwrap();
        let (first, second) = (at.path().join("first"), at.path().join("second"));
        let log = log_to(&first, Level::Error);
        let speak = || {
            debug!(target: "strongroom::rpc::packet", "packet");
            debug!(target: "strongroom::store", "store");
            error!(target: "strongroom::store", "broken");
            trace!(target: "strongroom::rpc::packet", "bytes");
        };
        subscriber::with_default(log.subscriber(), || {
            speak();
            assert_eq!(written(&log, &first), ["error strongroom::store: broken"]);
            log.set_filters("1:rpc").unwrap();
            speak();
            let more = ["debug strongroom::rpc::packet: packet", "error strongroom::store: broken"];
            assert_eq!(written(&log, &first)[1..], more);
            log.set_outputs(&format!("4:file:{} 1:file:{}", first.display(), second.display())).unwrap();
            speak();
            assert_eq!(written(&log, &second), more);
        });
        assert_eq!(log.filters(), ("1:*rpc* ".to_owned(), 1));
        assert_eq!(log.outputs(), (format!("4:file:{} 1:file:{}", first.display(), second.display()), 2));
        log.set_filters("").unwrap();
        assert_eq!(log.filters(), (String::new(), 0));
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let at = tempfile::tempdir().unwrap();
        let log = log_to(&at.path().join("log"), Level::Error);
        let before = log.outputs();
        for wrong in ["1:stderr 1:tape", "1:file:/no/such/directory/x", "stderr"] {
            log.set_outputs(wrong).unwrap_err();
        }
        log.set_filters("1:a b").unwrap_err();
        assert_eq!((log.outputs(), log.filters()), (before, (String::new(), 0)));
    }

    #[test]
    fn the_command_line_weighs_more_than_the_environment_than_the_configuration() {
        let log = |verbose, level, variables: &[(&str, &str)]| {
            let setup = Setup { verbose, filters: Filters::parse("4:store").unwrap(), ..setup(level) };
            let variable = |name: &'static str| {
                variables.iter().find(|(it, _)| *it == name).map(|(_, text)| (*text).to_owned())
            };
            Log::with_environment(setup, variable)
        };
        let level = |log: Result<Log, StartError>| log.unwrap().state().level;
        assert_eq!(level(log(false, Level::Warning, &[])), Level::Warning);
        assert_eq!(level(log(false, Level::Warning, &[("LIBVIRT_DEBUG", "error")])), Level::Error);
        assert_eq!(level(log(true, Level::Warning, &[("LIBVIRT_DEBUG", "4")])), Level::Info);
        assert_eq!(level(log(true, Level::Debug, &[])), Level::Debug);
        let both = [("LIBVIRT_LOG_FILTERS", "1:rpc"), ("LIBVIRT_LOG_OUTPUTS", "2:stderr")];
        let changed = log(false, Level::Warning, &both).unwrap();
        assert_eq!((changed.filters().0, changed.outputs().0), ("1:*rpc* ".into(), "2:stderr".into()));
        changed.set_outputs("").unwrap();
        assert!(changed.outputs().0.starts_with("3:"), "the usual one, at the general level");
        let error = log(false, Level::Warning, &[("LIBVIRT_DEBUG", "9")]).unwrap_err();
        assert_eq!(error.line(), "LIBVIRT_DEBUG: Invalid log priority '9'");
    }

    #[test]
    fn an_output_that_goes_away_is_no_trouble() {
        let at = tempfile::tempdir().unwrap();
        let file = at.path().join("log");
        let log = log_to(&file, Level::Error);
        log.set_outputs(&format!("4:file:{} 4:file:/dev/full", file.display())).unwrap();
        subscriber::with_default(log.subscriber(), || error!("one"));
        std::fs::remove_file(&file).unwrap();
        subscriber::with_default(log.subscriber(), || error!("two"));
        log.flush();
    }
}
