//! A `strongroomd` of a test's own, on a keystore of its own: started, looked at from outside, ended.
//!
//! Leans on systemd's notification to learn when it is ready, and on /proc for what it uses. Its log, at the finest
//! level, and what it prints go to files beside the root. Refuses to outlive the test.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Place;
use super::wire::Client;

/// A daemon that runs. Killed when this is dropped.
pub(crate) struct Daemon {
    pub(crate) process: Child,
    place: Place,
}

impl Place {
    pub(crate) fn socket(&self) -> PathBuf {
        self.root().join("run/virtsecretd-sock")
    }

    pub(crate) fn read_only_socket(&self) -> PathBuf {
        self.root().join("run/virtsecretd-sock-ro")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.root().join("run/virtsecretd-admin-sock")
    }

    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.0.join("strongroomd.log")
    }

    /// What the daemon printed.
    pub(crate) fn daemon_output(&self) -> PathBuf {
        self.0.join("strongroomd.out")
    }

    /// Starts a daemon with these lines in its configuration, besides those that a test needs.
    pub(crate) fn serve(&self, lines: &str) -> Daemon {
        self.serve_with(lines, &[])
    }

    /// The same, with more on its command line.
    pub(crate) fn serve_with(&self, lines: &str, words: &[&str]) -> Daemon {
        let mut command = self.command(lines);
        command.args(words);
        self.start(command)
    }

    /// What the daemon has logged. Its log has a thread of its own: see [`Place::hear`].
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.daemon_log()).unwrap_or_default()
    }

    /// Waits until the log has a line with all these words, and gives it.
    pub(crate) fn hear(&self, words: &[&str]) -> String {
        self.hear_behind(0, words)
    }

    /// The same, behind so many bytes that the log had before.
    pub(crate) fn hear_behind(&self, before: usize, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            let mut lines = log.get(before..).unwrap_or_default().lines().rev();
            if let Some(line) = lines.find(|line| words.iter().all(|word| line.contains(word))) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "the log doesn't say {words:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Where the daemon listens for "tcp" or "tls", if that is on loopback.
    pub(crate) fn listens(&self, kind: &str) -> SocketAddr {
        let mark = "listening on 127.0.0.1:";
        let line = self.hear(&[mark, &format!(" ({kind}, ")]);
        let behind = line.rsplit_once(mark).unwrap().1;
        let port = behind.split(' ').next().unwrap();
        format!("127.0.0.1:{port}").parse().unwrap()
    }

    /// Starts one by such a command, and waits until it is ready.
    pub(crate) fn start(&self, mut command: Command) -> Daemon {
        let notify = self.0.join("notify");
        _ = std::fs::remove_file(&notify);
        let ear = UnixDatagram::bind(&notify).unwrap();
        ear.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let process = command.env("NOTIFY_SOCKET", &notify).spawn().unwrap();
        let mut daemon = Daemon { process, place: self.clone() };
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut said = [0; 100];
        while !ear.recv(&mut said).is_ok_and(|length| said[..length].starts_with(b"READY=1")) {
            let ended = daemon.process.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "it isn't ready: {ended:?}\n{}",
                daemon.output()
            );
        }
        daemon
    }

    /// The command that starts one.
    pub(crate) fn command(&self, lines: &str) -> Command {
        let (config, key, log) = (self.0.join("daemon.conf"), self.key_file(), self.daemon_log());
        let common = format!(
            "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nunix_sock_rw_perms = \"0700\"\n\
             host_key_file = \"{}\"\nlog_level = 1\nlog_outputs = \"1:file:{}\"\n",
            key.display(),
            log.display()
        );
        std::fs::write(&config, common + lines).unwrap();
        let output = File::options().create(true).append(true).open(self.daemon_output()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroomd"));
        command.arg("--root").arg(self.root()).arg("-f").arg(config);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        command
    }
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(&self.place.socket(), PATIENCE).unwrap()
    }

    /// What it said outside its log.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.place.daemon_output()).unwrap_or_default()
    }

    /// Bytes of memory that it uses now.
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Descriptors that it has open when it has served somebody, and nobody is there: all its sockets are bound by then, and
    /// the first change has opened the last of its files.
    pub(crate) fn descriptors_at_rest(&self) -> usize {
        let mut client = self.client();
        let uuid = client.define("<secret/>").unwrap().unwrap();
        client.undefine(uuid).unwrap().unwrap();
        drop(client);
        let mut seen = (self.descriptors(), Instant::now());
        while seen.1.elapsed() < Duration::from_millis(250) {
            std::thread::sleep(Duration::from_millis(10));
            if self.descriptors() != seen.0 {
                seen = (self.descriptors(), Instant::now());
            }
        }
        seen.0
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.process.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(Instant::now() < deadline, "it doesn't end\n{}", self.output()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it, as an accident would.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// How long a good client waits for an answer before the test has failed. Machines that run tests are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
