//! The ways to a server: what a URI says for each, with the right credentials and with wrong ones.
//!
//! Leans on what [`crate::server`] puts into `/etc`. Refuses nothing.

use crate::clients::Client;
use crate::server::{NAME, Server};

/// A way to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Unix,
    Tls,
    /// By address, over the other family.
    Tls6,
    /// TLS, and SASL with a password in it.
    Scram,
    /// TCP, encrypted by Kerberos.
    Kerberos,
    /// SSH, with virt-ssh-helper on the far side: the stock one with the stock daemon, ours with ours.
    Ssh,
    /// The other way round: the stock helper with our daemon, ours with the stock one.
    SshCrossed,
    SshNetcat,
    Ext,
    Libssh,
    Libssh2,
}

/// How somebody comes in, or doesn't.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub(crate) uri: String,
    pub(crate) environment: Vec<(&'static str, &'static str)>,
    /// As the user nobody.
    pub(crate) nobody: bool,
}

impl Transport {
    /// All that a host has for its own clients.
    pub(crate) const LOCAL: [Self; 11] = [
        Self::Unix,
        Self::Tls,
        Self::Tls6,
        Self::Scram,
        Self::Kerberos,
        Self::Ssh,
        Self::SshCrossed,
        Self::SshNetcat,
        Self::Ext,
        Self::Libssh,
        Self::Libssh2,
    ];

    /// Those that are gone through from another host too, once over IPv4 and once over IPv6.
    pub(crate) const ACROSS: [Self; 4] = [Self::Tls, Self::Scram, Self::Kerberos, Self::Ssh];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tls => "tls",
            Self::Tls6 => "tls, [::1]",
            Self::Scram => "tls + SCRAM",
            Self::Kerberos => "tcp + GSSAPI",
            Self::Ssh => "ssh",
            Self::SshCrossed => "ssh, the other helper",
            Self::SshNetcat => "ssh netcat",
            Self::Ext => "ext",
            Self::Libssh => "libssh",
            Self::Libssh2 => "libssh2",
        }
    }

    /// With the right credentials.
    pub(crate) fn access(self, server: &Server, client: Client) -> Access {
        let keys = "known_hosts=/run/root/.ssh/known_hosts&sshauth=privkey";
        let uri = match self {
            Self::Unix => "secret:///system".to_owned(),
            Self::Tls => format!("secret://{NAME}/system"),
            Self::Tls6 => "secret://[::1]/system".to_owned(),
            Self::Scram => {
                let asked = if client == Client::Python { "&authfile=/etc/libvirt/nobody.conf" } else { "" };
                format!("secret+tls://{NAME}/system?auth=sasl.SCRAM-SHA-256{asked}")
            }
            Self::Kerberos => format!("secret+tcp://{NAME}/system"),
            Self::Ssh => format!("secret+ssh://root@{NAME}/system?proxy=native"),
            Self::SshCrossed => format!("secret+ssh://root@{NAME}:2222/system?proxy=native"),
            Self::SshNetcat => {
                format!("secret+ssh://root@{NAME}/system?proxy=netcat&socket={}", server.socket())
            }
            Self::Ext => format!("secret+ext://{NAME}/system?command=/run/bin/relay"),
            Self::Libssh => {
                format!("secret+libssh://root@{NAME}/system?{keys}&keyfile=/run/root/.ssh/id_ed25519")
            }
            Self::Libssh2 => {
                format!("secret+libssh2://root@{NAME}/system?{keys}&keyfile=/run/root/.ssh/id_ed25519")
            }
        };
        let environment = match (self, client) {
            (Self::Scram, Client::Python) => vec![("AUTHNAME", "alice"), ("PASSPHRASE", "geheim")],
            _ => Vec::new(),
        };
        Access { uri, environment, nobody: false }
    }

    /// With wrong ones, and what must be among the words of whoever says so.
    pub(crate) fn refused(self, server: &Server, client: Client) -> (Access, &'static str) {
        let mut access = self.access(server, client);
        let add = |text: &str| match access.uri.contains('?') {
            true => format!("{}&{text}", access.uri),
            false => format!("{}?{text}", access.uri),
        };
        let words = match self {
            Self::Unix => {
                access.nobody = true;
                "Permission denied"
            }
            Self::Tls | Self::Tls6 => {
                access.uri = add("pkipath=/etc/stranger&no_sanity=1");
                "Unable to read TLS confirmation"
            }
            Self::Scram => {
                match client {
                    Client::Python => {
                        access.environment = vec![("AUTHNAME", "alice"), ("PASSPHRASE", "falsch")];
                    }
                    _ => access.uri = add("authfile=/etc/libvirt/wrong.conf"),
                }
                "authentication failed"
            }
            Self::Kerberos => {
                access.environment = vec![("KRB5CCNAME", "FILE:/run/no-ticket")];
                "authentication failed"
            }
            Self::Ssh | Self::SshCrossed | Self::SshNetcat => {
                // ssh's own configuration is what keeps the user's other key out of it.
                access.uri = add("keyfile=/run/root/.ssh/stranger");
                "Permission denied"
            }
            Self::Ext => {
                access.uri = access.uri.replace("relay", "relay-that-refuses");
                "nobody is let in"
            }
            Self::Libssh | Self::Libssh2 => {
                access.uri = access.uri.replace("id_ed25519", "stranger");
                // "failed to authenticate" or "authentication failed": libvirt's two words for it.
                "authenticat"
            }
        };
        (access, words)
    }
}
