//! The system's `ssh` as a transport: how it is called, and what it runs on the far host.
//!
//! There either a helper finds the daemon's socket ([`Proxy::Native`]), or netcat connects to the one that is named
//! ([`Proxy::Netcat`]). libssh runs the same command over its own connection. Leans on nothing: this file makes words. Refuses
//! to let anything from a URI reach a shell unquoted.

use super::program::Program;

/// Where ssh goes, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ssh {
    pub(super) program: String,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
    pub(super) key: Option<String>,
    /// Whether the host's key is looked at.
    pub(super) verify: bool,
    /// Whether a person may be asked.
    pub(super) may_ask: bool,
    pub(super) far: Far,
}

impl Ssh {
    /// The call of the program.
    pub(super) fn program(&self) -> Program {
        let mut arguments = Vec::new();
        let mut option = |letter: &str, value: Option<String>| {
            arguments.extend(value.map(|value| [letter.to_owned(), value]).into_iter().flatten());
        };
        option("-p", self.port.map(|port| port.to_string()));
        option("-l", self.user.clone());
        option("-i", self.key.clone());
        arguments.push("-T".to_owned());
        let mut option = |letter: &str, value: &str| arguments.extend([letter.to_owned(), value.to_owned()]);
        option("-e", "none");
        if !self.may_ask {
            option("-o", "BatchMode=yes");
        }
        if !self.verify {
            option("-o", "StrictHostKeyChecking=no");
        }
        option("--", &self.host);
        arguments.push(self.far.command());
        Program {
            name: self.program.clone(),
            arguments,
            variables: if self.may_ask { &ASKING } else { &ASKING[..QUIET] },
            advice: self.far.advice(
                &self.program,
                self.port,
                self.key.as_deref(),
                self.user.as_deref(),
                &self.host,
            ),
        }
    }
}

/// What the far host runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Far {
    pub(super) proxy: Proxy,
    /// What the helper is to find, as a URI of that host.
    pub(super) uri: String,
    pub(super) read_only: bool,
    /// netcat there.
    pub(super) netcat: String,
    /// The sockets that netcat may connect to: the first that exists, or the last.
    pub(super) sockets: Vec<String>,
}

/// How the far host gets from ssh to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxy {
    /// By the helper if it is there, else by netcat.
    Auto,
    Netcat,
    Native,
}

impl Far {
    /// What a person can do who doesn't get there: `program` is the ssh by which it can be tried.
    pub(super) fn advice(
        &self,
        program: &str,
        port: Option<u16>,
        key: Option<&str>,
        user: Option<&str>,
        host: &str,
    ) -> String {
        let port = port.map(|port| format!(" -p {port}")).unwrap_or_default();
        let key = key.map(|key| format!(" -i {}", quoted(key))).unwrap_or_default();
        let host = quoted(&format!("{}{host}", user.map(|user| format!("{user}@")).unwrap_or_default()));
        let needs = match self.proxy {
            Proxy::Netcat => format!("that '{}' is a program there", self.netcat),
            Proxy::Native => "that virt-ssh-helper or strongroom is a program there".to_owned(),
            Proxy::Auto => "that virt-ssh-helper, strongroom or nc is a program there".to_owned(),
        };
        format!(
            "see that '{program}{port}{key} {host}' gets there by itself, {needs}, and that a daemon runs on that host"
        )
    }

    /// One line for the login shell there, whichever that is: it hands all of it to `sh`.
    pub(super) fn command(&self) -> String {
        let flag = if self.read_only { "-r " } else { "" };
        let words = format!("{flag}{}", quoted(&self.uri));
        let script = match self.proxy {
            Proxy::Netcat => self.netcat(),
            Proxy::Auto => format!(
                "if command -v virt-ssh-helper >/dev/null 2>&1; then exec virt-ssh-helper {words}; \
                 elif command -v strongroom >/dev/null 2>&1; then exec strongroom ssh-helper {words}; \
                 else {}; fi",
                self.netcat()
            ),
            Proxy::Native => format!(
                "if ! command -v virt-ssh-helper >/dev/null 2>&1 && command -v strongroom >/dev/null 2>&1; \
                 then exec strongroom ssh-helper {words}; else exec virt-ssh-helper {words}; fi"
            ),
        };
        format!("sh -c {}", quoted(&script))
    }

    /// Some netcats wait for more when their input ends, unless told `-q0`; others don't know `-q`. One that misses its
    /// argument knows it.
    fn netcat(&self) -> String {
        let netcat = quoted(&self.netcat);
        let (last, others) = self.sockets.split_last().map_or(("", &[][..]), |(last, rest)| (last, rest));
        let mut socket = format!("s={}; ", quoted(last));
        for other in others {
            let other = quoted(other);
            socket =
                format!("if test -e {other}; then s={other}; else {}; fi; ", socket.trim_end_matches("; "));
        }
        format!(
            "{socket}if {netcat} -q 2>&1 | grep 'requires an argument' >/dev/null; then q=-q0; else q=; fi; \
             exec {netcat} $q -U \"$s\""
        )
    }
}

/// A word for a shell that it takes as it is.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._:=@%+,-".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// What ssh gets of our environment: how to find an agent, a ticket, and, behind the first [`QUIET`], a person.
const ASKING: [&str; 9] = [
    "KRB5CCNAME",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
    "OPENSSL_CONF",
    "SSH_ASKPASS",
    "DISPLAY",
    "XAUTHORITY",
    "GPG_TTY",
    "TERM",
];
const QUIET: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn ssh() -> Ssh {
        Ssh {
            program: "ssh".to_owned(),
            host: "h".to_owned(),
            port: None,
            user: None,
            key: None,
            verify: true,
            may_ask: true,
            far: far(Proxy::Netcat),
        }
    }

    fn far(proxy: Proxy) -> Far {
        let (uri, netcat) = ("secret:///system".to_owned(), "nc".to_owned());
        Far { proxy, uri, read_only: false, netcat, sockets: vec!["/s".to_owned()] }
    }

    #[test]
    fn ssh_is_called_as_libvirt_calls_it() {
        let words = |ssh: &Ssh| ssh.program().arguments.split_last().unwrap().1.join(" ");
        assert_eq!(words(&ssh()), "-T -e none -- h");
        let all = Ssh {
            port: Some(77),
            user: Some("u".to_owned()),
            key: Some("/k".to_owned()),
            verify: false,
            may_ask: false,
            ..ssh()
        };
        assert_eq!(
            words(&all),
            "-p 77 -l u -i /k -T -e none -o BatchMode=yes -o StrictHostKeyChecking=no -- h"
        );
        assert!(!all.program().variables.contains(&"GPG_TTY"));
        assert!(ssh().program().variables.contains(&"GPG_TTY"));
    }

    #[test]
    fn whoever_does_not_get_there_is_told_what_to_try_and_what_it_takes() {
        let advice = far(Proxy::Native).advice("ssh", Some(2222), Some("/my key"), Some("root"), "h");
        assert!(
            advice.starts_with("see that 'ssh -p 2222 -i '/my key' root@h' gets there by itself, "),
            "{advice}"
        );
        assert!(advice.contains("that virt-ssh-helper or strongroom is a program there"), "{advice}");
        assert!(ssh().program().advice.starts_with("see that 'ssh h' gets there by itself, that 'nc' is"));
    }

    /// Runs the command as a login shell would, with these programs alone, which print their words.
    fn run(far: &Far, programs: &[&str]) -> String {
        let directory = tempfile::tempdir().unwrap();
        for program in ["sh", "grep"] {
            let there = format!("/bin/{program}");
            std::os::unix::fs::symlink(there, directory.path().join(program)).unwrap();
        }
        let print = "#!/bin/sh\nif test \"$*\" = -q; then echo \"nc: $Q requires an argument\" >&2; exit; fi\n\
                     printf '%s' \"${0##*/}\"; for a; do printf ' <%s>' \"$a\"; done\n";
        for program in programs {
            let path = directory.path().join(program);
            std::fs::write(&path, print).unwrap();
            // Not by this process: while a child of another test's has it open for writing, it can't be run.
            assert!(Command::new("chmod").arg("755").arg(&path).status().unwrap().success());
        }
        let mut shell = Command::new("/bin/sh");
        let output = shell.env("PATH", directory.path()).arg("-c").arg(far.command()).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    #[test]
    fn the_far_host_runs_what_it_has() {
        let read_only = |proxy| Far { read_only: true, ..far(proxy) };
        let helped = "virt-ssh-helper <-r> <secret:///system>";
        let ours = "strongroom <ssh-helper> <-r> <secret:///system>";
        for (proxy, programs, ran) in [
            (Proxy::Auto, &["virt-ssh-helper", "strongroom", "nc"][..], helped),
            (Proxy::Auto, &["strongroom", "nc"], ours),
            (Proxy::Auto, &["nc"], "nc <-q0> <-U> </s>"),
            (Proxy::Native, &["virt-ssh-helper", "strongroom"], helped),
            (Proxy::Native, &["strongroom"], ours),
            (Proxy::Netcat, &["virt-ssh-helper", "nc"], "nc <-q0> <-U> </s>"),
        ] {
            assert_eq!(run(&read_only(proxy), programs), ran, "{proxy:?} {programs:?}");
        }
        assert!(run(&far(Proxy::Native), &[]).contains("virt-ssh-helper"), "what is missing is named");
    }

    #[test]
    fn nothing_of_a_uri_is_taken_for_a_command() {
        let evil = "/a b'c\"$(touch /tmp/x)`id`;\\";
        let mut far = Far { sockets: vec![evil.to_owned()], ..far(Proxy::Netcat) };
        assert_eq!(run(&far, &["nc"]), format!("nc <-q0> <-U> <{evil}>"));
        far.proxy = Proxy::Auto;
        evil.clone_into(&mut far.uri);
        assert_eq!(run(&far, &["virt-ssh-helper"]), format!("virt-ssh-helper <{evil}>"));
        "n c's".clone_into(&mut far.netcat);
        far.proxy = Proxy::Netcat;
        assert_eq!(run(&far, &["n c's"]), format!("n c's <-q0> <-U> <{evil}>"));
    }

    #[test]
    fn of_several_sockets_the_first_that_exists_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().to_str().unwrap().to_owned();
        let sockets = |first: &str| vec![first.to_owned(), "/legacy".to_owned()];
        let there = Far { sockets: sockets(&here), ..far(Proxy::Netcat) };
        assert_eq!(run(&there, &["nc"]), format!("nc <-q0> <-U> <{here}>"));
        let absent = Far { sockets: sockets("/nonexistent"), ..far(Proxy::Netcat) };
        assert_eq!(run(&absent, &["nc"]), "nc <-q0> <-U> </legacy>");
    }
}
