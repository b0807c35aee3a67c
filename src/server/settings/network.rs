//! The settings of the network: where the daemon listens, with which certificates, and whom it lets in.
//!
//! libvirt has these keys for libvirtd and virtproxyd; they hold here when the daemon is started with `--listen`, or when
//! systemd hands over sockets of the network. Leans on `conf`. Refuses, once they are to hold: TCP on which nothing is
//! encrypted, unless it is meant; SASL where this build has none; and certificates without their keys.

use super::{Auth, wrong};
use crate::conf::{CONFIG_UNSUPPORTED, Conf, ConfError};
use crate::net::tls::Named;
use crate::server::listen::{Port, Role};

/// What holds on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Network {
    /// Whether `--listen` means TLS.
    pub(in super::super) listen_tls: bool,
    /// Whether `--listen` means TCP.
    pub(in super::super) listen_tcp: bool,
    /// A number or a service's name.
    pub(in super::super) tls_port: String,
    /// A number or a service's name.
    pub(in super::super) tcp_port: String,
    /// An address or a name that has some. `None`: all of this host.
    pub(in super::super) listen_addr: Option<String>,
    /// What TLS clients prove besides their certificate.
    pub(in super::super) auth_tls: Auth,
    /// How TCP clients prove who they are.
    pub(in super::super) auth_tcp: Auth,
    /// What SASL's encryption on TCP must be worth, in bits of its key.
    pub(in super::super) tcp_min_ssf: u32,
    /// Whether the daemon's own certificates are looked at before it starts.
    pub(in super::super) sane_certificate: bool,
    /// Whether clients need a certificate.
    pub(in super::super) verify_certificate: bool,
    /// The names of the certificates that are let in. `None`: all that our authority has signed.
    pub(in super::super) tls_allowed_dn_list: Option<Vec<String>>,
    /// Which versions and ciphers, in GnuTLS' words.
    pub(in super::super) tls_priority: Option<String>,
    /// The users whom SASL lets in. `None`: all.
    pub(in super::super) sasl_allowed_username_list: Option<Vec<String>>,
    /// Where the certificates lie, if not in the usual places.
    pub(super) files: Named,
    /// Whether TCP that nothing encrypts is meant.
    allow_cleartext_tcp: bool,
}

impl Network {
    /// What holds when nothing is said. As in libvirtd.
    pub(super) fn default() -> Self {
        Self {
            listen_tls: true,
            listen_tcp: false,
            tls_port: "16514".into(),
            tcp_port: "16509".into(),
            listen_addr: None,
            auth_tls: Auth::None,
            auth_tcp: Auth::Sasl,
            tcp_min_ssf: 56,
            sane_certificate: true,
            verify_certificate: true,
            tls_allowed_dn_list: None,
            tls_priority: None,
            sasl_allowed_username_list: None,
            files: Named::default(),
            allow_cleartext_tcp: false,
        }
    }

    pub(super) fn from_conf(conf: &Conf) -> Result<Self, ConfError> {
        let default = Self::default();
        let boolean = |key, default| Ok(conf.boolean(key, default)?.unwrap_or(default));
        let text = |key| Ok(conf.string(key)?.map(str::to_owned));
        let filled = |key: &str, example: &str| match conf.string(key)? {
            Some("") => Err(wrong(
                conf,
                key,
                &format!("'{key}' is empty"),
                &format!("write {example}, or leave the key away"),
            )),
            text => Ok(text.map(str::to_owned)),
        };
        let list = |key| Ok(conf.strings(key)?.map(|list| list.into_iter().map(str::to_owned).collect()));
        Ok(Self {
            listen_tls: boolean("listen_tls", default.listen_tls)?,
            listen_tcp: boolean("listen_tcp", default.listen_tcp)?,
            tls_port: filled("tls_port", "a number as a string, such as \"16514\"")?
                .unwrap_or(default.tls_port),
            tcp_port: filled("tcp_port", "a number as a string, such as \"16509\"")?
                .unwrap_or(default.tcp_port),
            listen_addr: filled("listen_addr", "an address of this host")?,
            auth_tls: auth(conf, "auth_tls")?.unwrap_or(default.auth_tls),
            auth_tcp: auth(conf, "auth_tcp")?.unwrap_or(default.auth_tcp),
            tcp_min_ssf: match conf.unsigned("tcp_min_ssf", LEAST_SSF)? {
                Some(bits) if bits < LEAST_SSF => {
                    let text = format!(
                        "{}: minimum SSF levels lower than {LEAST_SSF} are not supported",
                        conf.file().display()
                    );
                    let advice =
                        format!("write {LEAST_SSF} or more: the bits of the key that SASL encrypts with");
                    return Err(conf.wrong("tcp_min_ssf", CONFIG_UNSUPPORTED, text, &advice));
                }
                bits => bits.unwrap_or(default.tcp_min_ssf),
            },
            sane_certificate: !boolean("tls_no_sanity_certificate", false)?,
            verify_certificate: !boolean("tls_no_verify_certificate", false)?,
            tls_allowed_dn_list: list("tls_allowed_dn_list")?,
            tls_priority: text("tls_priority")?,
            sasl_allowed_username_list: list("sasl_allowed_username_list")?,
            files: Named::read(conf)?,
            allow_cleartext_tcp: boolean("allow_cleartext_tcp", default.allow_cleartext_tcp)?,
        })
    }

    /// The ports of `--listen`.
    pub(in super::super) fn ports(&self, backlog: u32) -> Vec<Port> {
        let port =
            |role, port: &str| Port { role, host: self.listen_addr.clone(), port: port.to_owned(), backlog };
        let tls = self.listen_tls.then(|| port(Role::Tls, &self.tls_port));
        tls.into_iter().chain(self.listen_tcp.then(|| port(Role::Tcp, &self.tcp_port))).collect()
    }

    /// Whether this may hold for the sockets that there are to be.
    /// `open`: whether it is meant that everybody comes in.
    pub(super) fn judge(&self, conf: &Conf, tls: bool, tcp: bool, open: bool) -> Result<(), ConfError> {
        let refused = |key: &str, text: &str, advice: &str| {
            Err(conf.wrong(key, CONFIG_UNSUPPORTED, format!("{}: {text}", conf.file().display()), advice))
        };
        if tcp && self.auth_tcp == Auth::None && !self.allow_cleartext_tcp {
            let text = "auth_tcp is \"none\": on TCP every secret would pass the network in the clear, to whoever asks";
            let advice = "use TLS (listen_tls), or SASL, which encrypts (auth_tcp = \"sasl\"), or mean it \
                          (allow_cleartext_tcp = 1)";
            return refused("auth_tcp", text, advice);
        }
        if tls && self.auth_tls == Auth::None && !self.verify_certificate && !open {
            let text = "tls_no_verify_certificate is 1 and auth_tls is \"none\": whoever reaches the TLS port could read \
                        and change the secrets";
            let advice = "verify certificates (tls_no_verify_certificate = 0), or ask who comes (auth_tls = \"sasl\"), or \
                          mean it (allow_unauthenticated = 1)";
            return refused("tls_no_verify_certificate", text, advice);
        }
        for (listens, key, auth) in [(tls, "auth_tls", self.auth_tls), (tcp, "auth_tcp", self.auth_tcp)] {
            if listens && auth == Auth::Sasl && cfg!(not(feature = "sasl")) {
                let text = format!("{key}: unsupported auth sasl: this build has no SASL");
                let advice = match key {
                    "auth_tls" => {
                        "write \"none\": the certificates say who comes; or take a build with the feature sasl"
                    }
                    _ => "use TLS (listen_tcp = 0, listen_tls = 1), or take a build with the feature sasl",
                };
                return refused(key, &text, advice);
            }
        }
        Ok(())
    }
}

/// What libvirt takes on the network.
fn auth(conf: &Conf, key: &str) -> Result<Option<Auth>, ConfError> {
    match conf.string(key)? {
        None => Ok(None),
        Some("none") => Ok(Some(Auth::None)),
        Some("sasl") => Ok(Some(Auth::Sasl)),
        Some(word) => {
            let text = format!("{}: {key}: unsupported auth {word}", conf.file().display());
            let advice = "write \"sasl\" or \"none\": polkit knows the users of this host only";
            Err(conf.wrong(key, CONFIG_UNSUPPORTED, text, advice))
        }
    }
}

/// The keys of this part.
pub(super) const KEYS: &[&str] = &[
    "listen_tls",
    "listen_tcp",
    "tls_port",
    "tcp_port",
    "listen_addr",
    "auth_tls",
    "auth_tcp",
    "tcp_min_ssf",
    "key_file",
    "cert_file",
    "ca_file",
    "crl_file",
    "cert_files",
    "key_files",
    "tls_no_sanity_certificate",
    "tls_no_verify_certificate",
    "tls_no_verify_address",
    "tls_allowed_dn_list",
    "tls_priority",
    "sasl_allowed_username_list",
    "allow_cleartext_tcp",
];

/// What a `tcp_min_ssf` must be at least: triple DES' 112 bits.
const LEAST_SSF: u32 = 112;

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::net::tls::Certificates;
    use std::path::{Path, PathBuf};

    fn read(text: &str) -> Result<Settings, ConfError> {
        let conf = Conf::parse(Path::new("v.conf"), text.as_bytes()).unwrap();
        Settings::from_conf(conf, true)
    }

    fn network(text: &str) -> Network {
        read(text).unwrap().network
    }

    /// The error's text without the file.
    fn refused<T: std::fmt::Debug>(outcome: Result<T, ConfError>) -> (i32, String, String) {
        let error = outcome.unwrap_err();
        (error.code, error.text.strip_prefix("v.conf: ").unwrap().to_owned(), error.advice)
    }

    #[test]
    fn every_value_finds_its_place() {
        let read = network(
            "listen_tls = 0\nlisten_tcp = 1\ntls_port = '1'\ntcp_port = 'two'\nlisten_addr = '::1'\nauth_tls = 'sasl'\n\
             auth_tcp = 'none'\ntcp_min_ssf = 128\ntls_no_sanity_certificate = 1\ntls_no_verify_certificate = 1\n\
             tls_no_verify_address = 1\ntls_allowed_dn_list = [ 'C=GB,*' ]\ntls_priority = 'NORMAL'\n\
             sasl_allowed_username_list = [ 'fred', '*@X' ]\nca_file = '/ca'\ncrl_file = '/crl'\ncert_file = '/c'\nkey_file = '/k'\n\
             cert_files = [ '/c1', '/c2' ]\nkey_files = [ '/k1' ]\nallow_cleartext_tcp = 1\n",
        );
        let list = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
        let expected = Network {
            listen_tls: false,
            listen_tcp: true,
            tls_port: "1".into(),
            tcp_port: "two".into(),
            listen_addr: Some("::1".into()),
            auth_tls: Auth::Sasl,
            auth_tcp: Auth::None,
            tcp_min_ssf: 128,
            sane_certificate: false,
            verify_certificate: false,
            tls_allowed_dn_list: list(&["C=GB,*"]),
            tls_priority: Some("NORMAL".into()),
            sasl_allowed_username_list: list(&["fred", "*@X"]),
            files: Named {
                ca_file: Some("/ca".into()),
                crl_file: Some("/crl".into()),
                cert_file: Some("/c".into()),
                key_file: Some("/k".into()),
                cert_files: Some(vec!["/c1".into(), "/c2".into()]),
                key_files: Some(vec!["/k1".into()]),
            },
            allow_cleartext_tcp: true,
        };
        assert_eq!(read, expected);
        assert_eq!(network(""), Network::default());
        let (all, nobody) =
            (network(""), network("tls_allowed_dn_list = [ ]; sasl_allowed_username_list = [ ]"));
        assert_eq!((all.tls_allowed_dn_list, nobody.tls_allowed_dn_list), (None, Some(Vec::new())));
        assert_eq!(
            (all.sasl_allowed_username_list, nobody.sasl_allowed_username_list),
            (None, Some(Vec::new()))
        );
    }

    #[test]
    fn listening_means_tls_unless_it_is_told_otherwise() {
        let ports = |text: &str| {
            let ports = network(text).ports(7);
            ports
                .into_iter()
                .map(|it| format!("{:?} {:?} {} {}", it.role, it.host, it.port, it.backlog))
                .collect::<Vec<_>>()
        };
        assert_eq!(ports(""), ["Tls None 16514 7"]);
        assert_eq!(ports("listen_tls = 0"), [""; 0]);
        assert_eq!(
            ports("listen_tcp = 1; tcp_port = 'x'; tls_port = '5'; listen_addr = 'h'"),
            ["Tls Some(\"h\") 5 7", "Tcp Some(\"h\") x 7"]
        );
    }

    #[test]
    fn tcp_in_the_clear_must_be_meant() {
        let open = read("auth_tcp = 'none'").unwrap();
        assert_eq!(open.judge_network(true, false), Ok(()), "nobody listens there");
        let (code, text, advice) = refused(open.judge_network(false, true));
        assert_eq!(code, 67);
        assert!(text.starts_with("auth_tcp is \"none\": on TCP every secret would pass"), "{text}");
        for way in ["listen_tls", "\"sasl\"", "allow_cleartext_tcp = 1"] {
            assert!(advice.contains(way), "{advice}");
        }
        let meant = read("auth_tcp = 'none'; allow_cleartext_tcp = 1").unwrap();
        assert_eq!(meant.judge_network(true, true), Ok(()));
    }

    #[test]
    fn tls_that_asks_nobody_must_be_meant() {
        let open = read("tls_no_verify_certificate = 1; auth_tcp = 'none'; allow_cleartext_tcp = 1").unwrap();
        assert_eq!(open.judge_network(false, true), Ok(()), "nobody listens there");
        let (code, text, advice) = refused(open.judge_network(true, false));
        assert_eq!(code, 67);
        assert!(text.contains("whoever reaches the TLS port could read"), "{text}");
        assert!(advice.contains("allow_unauthenticated = 1"), "{advice}");
        let meant = read("tls_no_verify_certificate = 1; allow_unauthenticated = 1").unwrap();
        assert_eq!(meant.judge_network(true, false), Ok(()));
    }

    #[cfg(not(feature = "sasl"))]
    #[test]
    fn without_sasl_nobody_relies_on_it() {
        for (text, tls, tcp) in [("", false, true), ("auth_tls = 'sasl'", true, false)] {
            let settings = read(text).unwrap();
            assert_eq!(settings.judge_network(false, false), Ok(()));
            let (code, text, advice) = refused(settings.judge_network(tls, tcp));
            assert_eq!((code, text.contains("this build has no SASL")), (67, true), "{text}");
            assert!(advice.contains("the feature sasl"), "{advice}");
        }
    }

    #[cfg(feature = "sasl")]
    #[test]
    fn sasl_is_taken() {
        assert_eq!(read("auth_tls = 'sasl'").unwrap().judge_network(true, true), Ok(()));
    }

    #[test]
    fn certificates_come_with_their_keys_and_their_authority() {
        let certificates = |text: &str| read(text).unwrap().certificates();
        assert_eq!(
            certificates("crl_file = '/crl'"),
            Ok(Certificates { own: None, crl: Some("/crl".into()) })
        );
        let pair =
            |number: &str| (PathBuf::from(format!("/c{number}")), PathBuf::from(format!("/k{number}")));
        let own = Some(("/ca".into(), vec![pair("")]));
        assert_eq!(certificates("ca_file = '/ca'; cert_file = '/c'; key_file = '/k'").unwrap().own, own);
        let own = Some(("/ca".into(), vec![pair("1"), pair("2")]));
        let lists = "cert_files = [ '/c1', '/c2' ]; key_files = [ '/k1', '/k2' ]";
        assert_eq!(certificates(&format!("ca_file = '/ca'; {lists}")).unwrap().own, own);
        for (text, expected) in [
            ("key_file = '/k'", "No CA certificate path set to match server key/cert"),
            (lists, "No CA certificate path set to match server key/cert"),
            ("ca_file = '/ca'; key_file = '/k'", "No server certificate path set to match server key"),
            ("ca_file = '/ca'; cert_file = '/c'", "No server key path set to match server cert"),
            ("ca_file = '/ca'", "No server certificate path set to match server key"),
            (
                "cert_file = '/c'; cert_files = [ '/c' ]",
                "'cert_file' and 'cert_files' are set at the same time",
            ),
            ("key_file = '/c'; key_files = [ '/c' ]", "'key_file' and 'key_files' are set at the same time"),
            (
                "ca_file = '/ca'; cert_files = [ '/c' ]; key_files = [ '/a', '/b' ]",
                "there are 1 certificates in cert_files and 2 keys in key_files",
            ),
        ] {
            let (code, shown, advice) = refused(certificates(text));
            assert_eq!((code, shown.as_str()), (67, expected), "{text}");
            assert!(advice.starts_with("line 1: "), "{text}: {advice}");
        }
    }

    #[test]
    fn what_is_of_no_use_is_refused_at_once() {
        for (text, code, expected) in [
            ("tcp_min_ssf = 111", 67, "minimum SSF levels lower than 112 are not supported"),
            ("tcp_min_ssf = 56", 67, "minimum SSF levels lower than 112 are not supported"),
            ("auth_tcp = 'polkit'", 67, "auth_tcp: unsupported auth polkit"),
            ("auth_tls = 'x509'", 67, "auth_tls: unsupported auth x509"),
            ("listen_addr = ''", 1, "'listen_addr' is empty"),
            ("tls_port = ''", 1, "'tls_port' is empty"),
            ("tls_port = 16514", 1, "expected a string for 'tls_port' parameter"),
            ("ca_file = 'x'", 1, "the path 'x' of ca_file is not absolute"),
            ("key_files = [ '/k', 'x' ]", 1, "the path 'x' of key_files is not absolute"),
        ] {
            let (was, shown, _) = refused(read(text));
            assert_eq!((was, shown.as_str()), (code, expected), "{text}");
        }
        assert_eq!(network("tcp_min_ssf = 112").tcp_min_ssf, 112);
    }
}
