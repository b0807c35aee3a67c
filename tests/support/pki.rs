//! A certificate authority of a test's own, and what it signs: good certificates, and such as aren't.
//!
//! Leans on rcgen alone: no openssl is started, so a certificate costs nothing. Refuses nothing: a test says what is wrong
//! with a certificate by changing the request before it is signed.

#![allow(dead_code, reason = "every test uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Certificates for both ends of loopback, in a directory that will do for `?pkipath=` and for a daemon's settings.
pub(crate) struct Certificates {
    pub(crate) directory: PathBuf,
    pub(crate) authority: Authority,
    pub(crate) client: Pair,
}

impl Certificates {
    pub(crate) fn new(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let authority = Authority::new("authority");
        let (server, client) = (authority.server(&["localhost"], |_| ()), authority.client("good", |_| ()));
        let ca = authority.pem();
        for (file, content) in [
            ("cacert.pem", &ca),
            ("servercert.pem", &server.certificate),
            ("serverkey.pem", &server.key),
            ("clientcert.pem", &client.certificate),
            ("clientkey.pem", &client.key),
        ] {
            std::fs::write(directory.join(file), content).unwrap();
        }
        Self { directory: directory.to_owned(), authority, client }
    }

    /// The daemon's settings that name them.
    pub(crate) fn settings(&self) -> String {
        let shown = self.directory.display();
        format!(
            "ca_file = \"{shown}/cacert.pem\"\ncert_file = \"{shown}/servercert.pem\"\nkey_file = \"{shown}/serverkey.pem\"\n"
        )
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&[(DnType::CommonName, name)]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these names and addresses.
    pub(crate) fn server(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        self.server_with(KeyPair::generate().unwrap(), names, change)
    }

    /// The same, for a key that is there.
    pub(crate) fn server_with(
        &self,
        key: KeyPair,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name =
            named(&[(DnType::OrganizationName, "Strongroom"), (DnType::CommonName, "server")]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, key, change)
    }

    /// A client's certificate, `C=GB,L=London,O=Strongroom,CN=name`.
    pub(crate) fn client(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&[
            (DnType::CountryName, "GB"),
            (DnType::LocalityName, "London"),
            (DnType::OrganizationName, "Strongroom"),
            (DnType::CommonName, name),
        ]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, KeyPair::generate().unwrap(), change)
    }

    /// A list that revokes one serial number.
    pub(crate) fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2124, 1, 1);
        // Before 11.6 libvirt wants the second one too, whatever the key.
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

fn named(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        match kind {
            // Everybody expects a printable string there, and GnuTLS shows anything else in hexadecimal.
            DnType::CountryName => {
                name.push(kind.clone(), DnValue::PrintableString((*value).try_into().unwrap()));
            }
            _ => name.push(kind.clone(), *value),
        }
    }
    name
}
