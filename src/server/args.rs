//! What may be typed after `strongroomd`.
//!
//! The options are virtsecretd's, so that its units, its `VIRTSECRETD_ARGS` and libvirt's clients (which start a user's
//! daemon with `--timeout=120`) work unchanged, under either name; `--root` is ours. Leans on clap. Refuses words that
//! are no option, as stock does, with status 1 and one line. Paths come out absolute: a detached daemon lives in `/`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;

use super::process::{Exit, StartError};

/// Answer libvirt's secret driver protocol from a keystore that is encrypted at rest
#[derive(Debug, Parser)]
#[command(version, infer_long_args = true, args_override_self = true, max_term_width = 100)]
#[command(override_usage = "strongroomd [OPTIONS]", after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Log what happens too, not only what goes wrong (level info)
    #[arg(short, long)]
    pub(super) verbose: bool,

    /// Run in the background; return when the sockets are there
    #[arg(short, long)]
    pub(super) daemon: bool,

    /// Exit after this many seconds without a client and without an ephemeral secret; 0 is never
    #[arg(short, long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(..=MAX_TIMEOUT))]
    pub(super) timeout: Option<u32>,

    /// Read this configuration instead
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Listen on the network too: by TLS, or as listen_tls and listen_tcp of the configuration say
    #[arg(short, long)]
    pub(super) listen: bool,

    /// Write the process id to this file instead
    #[arg(short, long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,

    /// Serve the keystore in DIR/etc/secrets, with sockets and pid file in DIR/run
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,

    /// How a daemon that runs in the background is told that it is: by itself, never by a person.
    #[arg(long = DETACHED, hide = true)]
    pub(super) detached: bool,

    #[arg(hide = true)]
    stray: Vec<OsString>,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Asked {
    /// Serve.
    Run(Arguments),
    /// Print this on standard output, and end well.
    Print(String),
}

/// The argument that marks the process as the one in the background. No abbreviation of another option.
pub(super) const DETACHED: &str = "is-detached";

/// What stock takes: its milliseconds must fit in an `int`.
const MAX_TIMEOUT: i64 = i32::MAX as i64 / 1000;

/// Reads the command line, `argv[0]` included.
pub(super) fn parse(words: Vec<OsString>) -> Result<Asked, StartError> {
    let name = words.first().map_or("strongroomd", |name| name.to_str().unwrap_or("strongroomd")).to_owned();
    let refused = |line: String| {
        StartError::new(Exit::Usage, format!("{name}: {line}")).advise(format!("try '{name} --help'"))
    };
    let mut arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(Asked::Print(error.to_string())),
        Err(error) if error.kind() == ErrorKind::DisplayVersion => return Ok(Asked::Print(version(&name))),
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            return Err(refused(line.trim_start_matches("error: ").to_owned()));
        }
    };
    if !arguments.stray.is_empty() {
        return Err(refused("unexpected, non-option, command line arguments".to_owned()));
    }
    for path in [&mut arguments.config, &mut arguments.pid_file, &mut arguments.root].into_iter().flatten() {
        *path = std::path::absolute(&path)
            .map_err(|error| refused(format!("cannot tell where '{}' is: {error}", path.display())))?;
    }
    Ok(Asked::Run(arguments))
}

/// Stock's form, `NAME (libvirt) VERSION`, but nobody shall take us for libvirt.
fn version(name: &str) -> String {
    let name = Path::new(name).file_name().and_then(OsStr::to_str).unwrap_or(name);
    format!("{name} (strongroom) {}\n", env!("CARGO_PKG_VERSION"))
}

const AFTER_HELP: &str = "\
It does the same when it is started as virtsecretd.

Files, when root starts it:
  /etc/libvirt/virtsecretd.conf           configuration
  /etc/libvirt/secrets                    the keystore
  /run/libvirt/virtsecretd-sock           main socket
  /run/libvirt/virtsecretd-sock-ro        read-only socket
  /run/libvirt/virtsecretd-admin-sock     admin socket, for virt-admin
  /run/virtsecretd.pid                    process id
Files, when any other user starts it:
  $XDG_CONFIG_HOME/libvirt/virtsecretd.conf, $XDG_CONFIG_HOME/libvirt/secrets
  $XDG_RUNTIME_DIR/libvirt/virtsecretd-sock, virtsecretd-admin-sock, virtsecretd.pid
Files, with --root DIR:
  DIR/etc/secrets
  DIR/run/virtsecretd-sock, virtsecretd-sock-ro, virtsecretd-admin-sock, virtsecretd.pid
Sockets that systemd hands over are used in place of these.
Certificates for TLS, unless the configuration names others:
  /etc/pki/CA/cacert.pem, /etc/pki/libvirt/servercert.pem, /etc/pki/libvirt/private/serverkey.pem

Environment:
  LIBVIRT_DEBUG         log level: 1 debug, 2 info, 3 warning, 4 error
  LIBVIRT_LOG_OUTPUTS   where the log goes, such as '3:stderr 1:file:/var/log/strongroom.log'
  LIBVIRT_LOG_FILTERS   other levels for parts of the program, such as '1:rpc 4:store'

Signals:
  TERM, INT, QUIT       end, when what is under way is done
  HUP                   look at the keystore and its keys again, and at the certificates for TLS

Exit status:
  0  ended as asked, or by --timeout; with --daemon: it runs, and its sockets are there
  1  wrong option or configuration; or the pid file is taken, so another one runs
  2  no directory for the sockets
  3  the keystore can't be served: in use by another process, or not readable
  4  signals can't be caught
  6  nobody could come in: the sockets can't be made, systemd handed over others than
     expected, TLS has no certificates that fit, or SASL no mechanism";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Asked, StartError> {
        parse(line.split(' ').map(OsString::from).collect())
    }

    fn arguments(line: &str) -> Arguments {
        match parsed(line) {
            Ok(Asked::Run(arguments)) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_takes_what_stock_units_and_clients_pass() {
        assert_eq!(arguments("virtsecretd --timeout=120").timeout, Some(120));
        let all = arguments("virtsecretd -v -d -t 30 -f /a/b.conf -p /run/x.pid");
        assert!(all.verbose && all.daemon && !all.detached);
        assert_eq!((all.timeout, all.config), (Some(30), Some("/a/b.conf".into())));
        assert_eq!(all.pid_file, Some("/run/x.pid".into()));
        assert!(!all.listen && arguments("libvirtd -l").listen && arguments("libvirtd --listen").listen);
    }

    #[test]
    fn the_last_of_two_options_holds_and_names_may_be_short() {
        assert_eq!(arguments("strongroomd --time 1 --timeout 2").timeout, Some(2));
        assert!(arguments("strongroomd --d").daemon);
    }

    #[test]
    fn paths_become_absolute() {
        let here = std::env::current_dir().unwrap();
        let given = arguments("strongroomd --root some/dir -f c -p p");
        assert_eq!(given.root, Some(here.join("some/dir")));
        assert_eq!((given.config, given.pid_file), (Some(here.join("c")), Some(here.join("p"))));
    }

    #[test]
    fn what_it_does_not_know_is_refused_in_one_line_with_status_1() {
        for (line, text) in [
            (
                "/usr/sbin/virtsecretd stray",
                "/usr/sbin/virtsecretd: unexpected, non-option, command line arguments",
            ),
            ("strongroomd -v -- x", "strongroomd: unexpected, non-option, command line arguments"),
            ("strongroomd --dance", "strongroomd: unexpected argument '--dance' found"),
            (
                "strongroomd --timeout",
                "strongroomd: a value is required for '--timeout <SECS>' but none was supplied",
            ),
        ] {
            let error = parsed(line).unwrap_err();
            assert_eq!((error.line(), error.exit().status()), (text, 1));
            assert!(error.advice().unwrap().ends_with("--help'"));
        }
        for wrong in ["-t -1", "-t 2147484", "-t x"] {
            assert!(parsed(&format!("strongroomd {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_and_version_are_printed() {
        let Ok(Asked::Print(version)) = parsed("/usr/sbin/virtsecretd --version") else { panic!() };
        assert_eq!(version, format!("virtsecretd (strongroom) {}\n", env!("CARGO_PKG_VERSION")));
        let Ok(Asked::Print(help)) = parsed("strongroomd -h") else { panic!() };
        assert!(help.contains("--pid-file <FILE>") && help.contains("virtsecretd-sock-ro"), "{help}");
        assert!(!help.contains(DETACHED) && !help.contains("stray"), "{help}");
    }
}
