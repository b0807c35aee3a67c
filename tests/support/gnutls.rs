//! GnuTLS' own client, which carries what it is given: a stranger to all that is ours.
//!
//! Leans on gnutls-cli, and fails without it. Refuses to outlive the test.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(dead_code, reason = "every test uses its own part of this")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// One that has been told to connect. Whether it is served shows in what comes.
pub(crate) struct Gnutls(Child);

impl Gnutls {
    /// `own`: its certificate and key.
    pub(crate) fn connect(to: SocketAddr, authority: &Path, own: Option<(&Path, &Path)>) -> Self {
        let mut command = Command::new("gnutls-cli");
        command.args(["--logfile=/dev/null", "--disable-sni", "--verify-hostname=localhost"]);
        command.arg(format!("--x509cafile={}", authority.display()));
        if let Some((certificate, key)) = own {
            command.arg(format!("--x509certfile={}", certificate.display()));
            command.arg(format!("--x509keyfile={}", key.display()));
        }
        command.args(["-p", &to.port().to_string(), &to.ip().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().expect("gnutls-cli: apt-get install gnutls-bin"))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let pipe = self.0.stdin.as_mut().unwrap();
        pipe.write_all(bytes).and_then(|()| pipe.flush()).unwrap();
    }

    /// So many bytes, or as many as come before it ends.
    pub(crate) fn next(&mut self, count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.stdout.as_mut().unwrap().take(count).read_to_end(&mut bytes).unwrap();
        bytes
    }
}

impl Drop for Gnutls {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
