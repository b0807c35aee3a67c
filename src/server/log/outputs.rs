//! Where the log goes: libvirt's outputs, each with a thread that writes.
//!
//! Whoever logs hands the line over and goes on; a terminal that is stopped or a disk that hangs holds up that thread
//! only, and lines that don't fit into its queue are counted and left out. Leans on std. Refuses relative paths and
//! unknown destinations, and to fail when an output goes away: what can't be written is lost.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use rustix::fs::OFlags;

use super::Malformed;
use super::filters::Level;
use super::line::Line;

/// An output, as it is asked for and shown: `3:stderr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Wanted {
    /// The least level that it takes.
    pub(super) level: Level,
    /// Where to.
    pub(super) destination: Destination,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// Standard error.
    Stderr,
    /// syslog, under this name.
    Syslog(String),
    /// The end of this file.
    File(PathBuf),
    /// systemd's journal.
    Journald,
}

impl Wanted {
    /// Reads libvirt's text: outputs with spaces between them.
    pub(in crate::server) fn parse(text: &str) -> Result<Vec<Self>, Malformed> {
        text.split_ascii_whitespace().map(output).collect()
    }

    pub(super) fn is_stderr(&self) -> bool {
        self.destination == Destination::Stderr
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level as u8;
        match &self.destination {
            Destination::Stderr => write!(f, "{level}:stderr"),
            Destination::Journald => write!(f, "{level}:journald"),
            Destination::Syslog(identity) => write!(f, "{level}:syslog:{identity}"),
            Destination::File(path) => write!(f, "{level}:file:{}", path.display()),
        }
    }
}

fn output(word: &str) -> Result<Wanted, Malformed> {
    let shown = word.escape_debug();
    let (level, rest) = word
        .split_once(':')
        .filter(|(_, rest)| !rest.is_empty())
        .ok_or_else(|| Malformed(format!("Malformed format for log output '{shown}'")))?;
    let level = level.parse().ok().and_then(Level::from_number).ok_or_else(|| {
        Malformed(format!("Invalid log priority '{}' for log output '{shown}'", level.escape_debug()))
    })?;
    let (kind, detail) = match rest.split_once(':') {
        Some((kind, detail)) => (kind, Some(detail)),
        None => (rest, None),
    };
    let destination = match (kind, detail) {
        ("stderr", None) => Destination::Stderr,
        ("journald", None) => Destination::Journald,
        ("syslog", Some(identity)) if !identity.is_empty() => Destination::Syslog(identity.to_owned()),
        ("file", Some(path)) if path.starts_with('/') => Destination::File(path.into()),
        ("stderr" | "journald" | "syslog" | "file", _) => {
            return Err(Malformed(format!(
                "Log output '{shown}' does not meet the format requirements for destination type '{kind}'"
            )));
        }
        _ => {
            let kind = kind.escape_debug();
            return Err(Malformed(format!("Invalid log destination '{kind}' for log output '{shown}'")));
        }
    };
    Ok(Wanted { level, destination })
}

/// An output that is open. Dropped, it writes what it has, and ends.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) wanted: Wanted,
    queue: SyncSender<Job>,
    lost: Arc<AtomicU64>,
}

enum Job {
    Write(Arc<Line>),
    /// All before this is written.
    Done(SyncSender<()>),
}

impl Output {
    /// Opens it. `identity` is the daemon's name in the journal.
    pub(super) fn open(wanted: &Wanted, identity: &str) -> io::Result<Self> {
        let sink: Box<dyn Sink> = match &wanted.destination {
            Destination::Stderr => Box::new(Lines(io::stderr())),
            Destination::File(path) => Box::new(Lines(open_file(path)?)),
            Destination::Syslog(identity) => {
                let form = Line::for_syslog;
                Box::new(Datagrams { socket: datagrams()?, to: SYSLOG, identity: identity.clone(), form })
            }
            Destination::Journald => {
                let (form, identity) = (Line::for_journal, identity.to_owned());
                Box::new(Datagrams { socket: datagrams()?, to: JOURNAL, identity, form })
            }
        };
        Self::start(wanted.clone(), sink)
    }

    fn start(wanted: Wanted, sink: Box<dyn Sink>) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(sink, &jobs, &counter))?;
        Ok(Self { wanted, queue, lost })
    }

    /// Takes the line, if it is important enough. Doesn't wait.
    pub(super) fn take(&self, line: &Arc<Line>) {
        if line.level >= self.wanted.level
            && let Err(TrySendError::Full(_)) = self.queue.try_send(Job::Write(Arc::clone(line)))
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was taken is written, up to then.
    pub(super) fn flush(&self, until: Instant) {
        let (done, wait) = sync_channel(1);
        // A full queue means that it writes nothing now: a while later, perhaps.
        if self.queue.try_send(Job::Done(done)).is_ok() {
            _ = wait.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
}

/// The output's thread.
fn write(mut sink: Box<dyn Sink>, jobs: &Receiver<Job>, lost: &AtomicU64) {
    let mut fresh = true;
    for job in jobs {
        let line = match job {
            Job::Write(line) => line,
            Job::Done(done) => {
                _ = done.try_send(());
                continue;
            }
        };
        if std::mem::take(&mut fresh) {
            sink.put(&Line::own(Level::Info, format!("strongroom version: {}", env!("CARGO_PKG_VERSION"))));
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            sink.put(&Line::own(Level::Info, format!("hostname: {}", host.trim_end().escape_debug())));
        }
        sink.put(&line);
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            count => sink.put(&Line::own(Level::Warning, format!("{count} lines of this log were lost"))),
        }
    }
}

/// Writes lines as well as it can. Nobody can be told if it can't.
trait Sink: Send {
    fn put(&mut self, line: &Line);
}

struct Lines<W>(W);

impl<W: Write + Send> Sink for Lines<W> {
    fn put(&mut self, line: &Line) {
        _ = self.0.write_all(line.with_time().as_bytes());
    }
}

/// Addressed one by one: a service that was started anew hears us again.
struct Datagrams {
    socket: UnixDatagram,
    to: &'static str,
    identity: String,
    form: fn(&Line, &str) -> String,
}

impl Sink for Datagrams {
    fn put(&mut self, line: &Line) {
        _ = self.socket.send_to((self.form)(line, &self.identity).as_bytes(), self.to);
    }
}

fn datagrams() -> io::Result<UnixDatagram> {
    UnixDatagram::unbound()
}

fn open_file(path: &Path) -> io::Result<File> {
    // Not to wait for the reader of a FIFO, now or later.
    let flags = OFlags::NONBLOCK.union(OFlags::NOCTTY).bits() as i32;
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

/// The journal's socket.
pub(super) const JOURNAL: &str = "/run/systemd/journal/socket";

const SYSLOG: &str = "/dev/log";

/// How many lines may wait.
const QUEUE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn outputs_read_back_as_they_were_given() {
        let text = "3:stderr 1:file:/var/log/a:b.log 2:syslog:virtsecretd 4:journald";
        let shown: Vec<String> = Wanted::parse(text).unwrap().iter().map(Wanted::to_string).collect();
        assert_eq!(shown.join(" "), text);
    }

    #[test]
    fn wrong_ones_are_named() {
        let unfit = |word: &str, kind: &str| {
            let text = format!(
                "Log output '{word}' does not meet the format requirements for destination type '{kind}'"
            );
            (word.to_owned(), text)
        };
        for (word, told) in [
            ("stderr".to_owned(), "Malformed format for log output 'stderr'".to_owned()),
            ("0:stderr".to_owned(), "Invalid log priority '0' for log output '0:stderr'".to_owned()),
            ("1:tape".to_owned(), "Invalid log destination 'tape' for log output '1:tape'".to_owned()),
            unfit("1:file:relative", "file"),
            unfit("1:file", "file"),
            unfit("1:syslog", "syslog"),
            unfit("1:stderr:x", "stderr"),
        ] {
            assert_eq!(Wanted::parse(&format!("3:stderr {word}")).unwrap_err().to_string(), told);
        }
    }

    /// Waits before it keeps the first line.
    struct Stuck(Mutex<Option<Receiver<()>>>, Arc<Mutex<Vec<String>>>);

    impl Sink for Stuck {
        fn put(&mut self, line: &Line) {
            if let Some(wait) = self.0.lock().unwrap().take() {
                wait.recv().unwrap();
            }
            self.1.lock().unwrap().push(line.with_time());
        }
    }

    #[test]
    fn an_output_that_is_stuck_holds_nobody_up_and_says_what_it_lost() {
        let (free, wait) = channel();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let wanted = Wanted { level: Level::Info, destination: Destination::Stderr };
        let stuck = Stuck(Mutex::new(Some(wait)), Arc::clone(&kept));
        let output = Output::start(wanted, Box::new(stuck)).unwrap();
        let line = |level| Arc::new(Line::own(level, "text".to_owned()));
        for _ in 0..QUEUE * 2 {
            output.take(&line(Level::Info));
            output.take(&line(Level::Debug)); // not for this one
        }
        output.flush(Instant::now()); // returns
        free.send(()).unwrap();
        while !kept.lock().unwrap().iter().any(|line| line.contains("were lost")) {
            std::thread::yield_now();
        }
        output.flush(Instant::now() + Duration::from_secs(10));
        let kept = kept.lock().unwrap();
        assert!(kept[0].contains("info : strongroom version: ") && kept[1].contains("info : hostname: "));
        let lost: usize = kept
            .iter()
            .filter_map(|line| line.split(" : ").last()?.strip_suffix(" lines of this log were lost\n"))
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        let written = kept.iter().filter(|line| line.ends_with(" : text\n")).count();
        assert_eq!(written + lost, QUEUE * 2);
        assert!(lost >= QUEUE - 1, "{lost}");
    }
}
