//! Who is let in, who isn't, and what is said of it.

use rcgen::CertificateParams;

use super::*;

/// What the server says of a client whose certificate was made so.
fn verdict(change: impl FnOnce(&mut CertificateParams)) -> Result<(), String> {
    let pki = Pki::whole();
    pki.issue(Side::Client, change);
    let rules = Rules { sanity: false, ..Rules::default() };
    let connector = Connector::load(&pki.files(Side::Client), &rules).unwrap();
    judged(&connector, &pki.acceptor())
}

fn judged(connector: &Connector, acceptor: &Arc<Acceptor>) -> Result<(), String> {
    let (clients, servers) =
        both(&mut connector.connect("host.example").unwrap(), &mut acceptor.accept().unwrap());
    // The client has come to its end: whether it is let in it hears behind it.
    assert!(clients.is_ok(), "{:?}", clients.err());
    let Established { peer, verdict, .. } = servers.unwrap().unwrap();
    assert_eq!(verdict.is_ok(), peer.is_some());
    if let Err(error) = &verdict {
        assert!(error.is_refusal() && !error.advice().is_empty(), "{error}");
    }
    verdict.map_err(|error| error.to_string())
}

const NAME: &str = "C=GB,CN=client.example";

#[test]
fn a_client_is_let_in_or_told_apart_in_the_log() {
    assert_eq!(verdict(|_| {}), Ok(()));
    let expired = verdict(|client| client.not_after = date_time_ymd(2020, 1, 1));
    assert_eq!(expired, Err(format!("The client certificate {NAME} has expired")));
    let early = verdict(|client| client.not_before = date_time_ymd(4000, 1, 1));
    assert_eq!(early, Err(format!("The client certificate {NAME} is not yet active")));
    let purpose = verdict(|client| client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(purpose, Err(format!("Certificate {NAME} purpose does not allow use for with a TLS client")));
    let any = verdict(|client| client.extended_key_usages.clear());
    assert_eq!(any, Ok(()));
    let every = verdict(|client| client.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    assert_eq!(every, Ok(()), "anyExtendedKeyUsage");
    let many = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    assert_eq!(verdict(|client| client.extended_key_usages = many.to_vec()), Ok(()));
    let usage = verdict(|client| client.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
    assert_eq!(usage, Err(format!("Certificate {NAME} usage does not permit digital signature")));
    let ca = verdict(|client| client.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(ca.unwrap_err().contains("a CA's certificate stands in the place"));
}

#[test]
fn who_would_be_refused_is_told_apart_where_nobody_is() {
    let (pki, other) = (Pki::whole(), Pki::whole());
    let rules = Rules { verify: false, ..Rules::default() };
    let acceptor = Arc::new(Acceptor::load(&pki.files(Side::Server), &rules, None).unwrap());
    for (clients, is_known) in [(&pki, true), (&other, false)] {
        let mut files = clients.files(Side::Client);
        files.ca = pki.files(Side::Client).ca;
        let rules = Rules { sanity: false, ..Rules::default() };
        let connector = Connector::load(&files, &rules).unwrap();
        let (_, servers) =
            both(&mut connector.connect("host.example").unwrap(), &mut acceptor.accept().unwrap());
        let Established { peer, verdict, excused, .. } = servers.unwrap().unwrap();
        assert_eq!((verdict, peer.is_some(), excused.is_none()), (Ok(()), is_known, is_known));
    }
}

#[test]
fn a_client_of_another_ca_is_refused() {
    let (pki, other) = (Pki::whole(), Pki::whole());
    let mut files = other.files(Side::Client);
    files.ca = pki.files(Side::Client).ca; // it believes our server
    let rules = Rules { sanity: false, ..Rules::default() };
    let connector = Connector::load(&files, &rules).unwrap();
    let text = "Certificate failed validation: ";
    let refused = judged(&connector, &pki.acceptor()).unwrap_err();
    assert!(refused.starts_with(text) && refused.contains(NAME), "{refused}");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let pki = Pki::whole();
    for file in ["clientcert.pem", "clientkey.pem"] {
        std::fs::remove_file(pki.directory.path().join(file)).unwrap();
        let refused = judged(&pki.connector(), &pki.acceptor());
        assert_eq!(refused, Err("Unable to verify TLS peer: No certificate was found.".to_owned()));
    }
}

#[test]
fn a_revoked_certificate_is_refused_and_others_are_not() {
    let pki = Pki::whole();
    pki.revoke(&[7], 4000);
    let rules = Rules { sanity: false, ..Rules::default() };
    let acceptor = Arc::new(Acceptor::load(&pki.files(Side::Server), &rules, None).unwrap());
    let mut files = pki.files(Side::Client);
    files.crl = None; // the server's has that number too
    let connector = Connector::load(&files, &rules).unwrap();
    let refused = judged(&connector, &acceptor);
    assert_eq!(
        refused,
        Err(format!("Certificate failed validation: The certificate has been revoked. ({NAME})"))
    );
    // A list that should have been renewed counts all the same, and is worth a warning.
    pki.revoke(&[8], 2026);
    let acceptor = pki.acceptor();
    assert!(
        acceptor.warnings()[0].contains("should have been renewed by 2026-01-01"),
        "{:?}",
        acceptor.warnings()
    );
    assert_eq!(judged(&pki.connector(), &acceptor), Ok(()));
}

#[test]
fn a_name_of_several_lines_is_quoted_in_one_and_matched_as_it_is() {
    let name = "x\nhint: run this\u{1b}[2J";
    let (pki, other) = (Pki::whole(), Pki::new());
    let change = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, name);
    other.issue(Side::Server, change);
    let rules = Rules { sanity: false, ..Rules::default() };
    let acceptor = Arc::new(Acceptor::load(&other.files(Side::Server), &rules, None).unwrap());
    let mut handshake = pki.connector().connect("host.example").unwrap();
    let error = both(&mut handshake, &mut acceptor.accept().unwrap()).0.err().unwrap();
    assert!(error.to_string().contains(r"CN=x\0Ahint: run this\1B[2J"), "{error}");
    assert!(!format!("{error}{}", error.advice()).contains(char::is_control), "{error}");
    pki.issue(Side::Client, change);
    let allowed = [format!("C=GB,CN={name}")];
    let acceptor = Acceptor::load(&pki.files(Side::Server), &Rules::default(), Some(&allowed)).unwrap();
    assert_eq!(judged(&pki.connector(), &Arc::new(acceptor)), Ok(()));
}

#[test]
fn the_list_of_names_decides_and_an_empty_one_lets_nobody_in() {
    let pki = Pki::whole();
    let load = |allowed: &[&str], verify| {
        let allowed: Vec<String> = allowed.iter().map(|&pattern| pattern.to_owned()).collect();
        let rules = Rules { verify, ..Rules::default() };
        Arc::new(Acceptor::load(&pki.files(Side::Server), &rules, Some(&allowed)).unwrap())
    };
    let refused = Err(format!("Client's Distinguished name is not on the list of allowed clients: {NAME}"));
    for (allowed, fits) in [
        (&[][..], false),
        (&[""][..], false),
        (&["CN=client.example"][..], false),
        (&["O=other", NAME][..], true),
        (&["C=GB,CN=*"][..], true),
        (&["*"][..], true),
        (&["C=G?,CN=client.exampl?"][..], true),
    ] {
        let expected = if fits { Ok(()) } else { refused.clone() };
        assert_eq!(judged(&pki.connector(), &load(allowed, true)), expected, "{allowed:?}");
    }
    let lenient = load(&[], false);
    let (_, servers) =
        both(&mut pki.connector().connect("host.example").unwrap(), &mut lenient.accept().unwrap());
    let established = servers.unwrap().unwrap();
    assert_eq!((established.verdict, established.peer), (Ok(()), None));
    assert_eq!(lenient.warnings().len(), 2);
}

/// What our client says of a server whose certificate was made so, when it asks for this host.
fn server(host: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<(), String> {
    let pki = Pki::whole();
    pki.issue(Side::Server, change);
    let rules = Rules { sanity: false, ..Rules::default() };
    let acceptor = Arc::new(Acceptor::load(&pki.files(Side::Server), &rules, None).unwrap());
    let mut handshake = pki.connector().connect(host).unwrap();
    let (clients, _) = both(&mut handshake, &mut acceptor.accept().unwrap());
    clients.map(|_| ()).map_err(|error| {
        assert!(error.is_refusal(), "{error}");
        error.to_string()
    })
}

fn named(names: &[&str]) -> Vec<rcgen::SanType> {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        .unwrap()
        .subject_alt_names
}

#[test]
fn a_server_must_be_the_host_that_was_asked_for() {
    assert_eq!(server("host.example", |_| {}), Ok(()));
    assert_eq!(server("HOST.example", |_| {}), Ok(()));
    assert_eq!(server("127.0.0.1", |_| {}), Ok(()));
    for host in ["other.example", "127.0.0.2", "::1", "server.example"] {
        let text = "Certificate C=GB,CN=server.example owner does not match the hostname";
        assert_eq!(server(host, |_| {}), Err(format!("{text} {host}")));
    }
    assert_eq!(server("::1", |server| server.subject_alt_names = named(&["::1"])), Ok(()));
    assert_eq!(
        server("a.example.org", |server| server.subject_alt_names = named(&["*.example.org"])),
        Ok(())
    );
    assert!(
        server("a.b.example.org", |server| server.subject_alt_names = named(&["*.example.org"])).is_err()
    );
}

#[test]
fn the_zone_of_an_address_is_no_part_of_it() {
    let local = |server: &mut CertificateParams| server.subject_alt_names = named(&["fe80::1"]);
    assert_eq!(server("fe80::1%eth0", local), Ok(()));
    let other = "Certificate C=GB,CN=server.example owner does not match the hostname fe80::2".to_owned();
    assert_eq!(server("fe80::2%eth0", local), Err(other));
    assert!(Pki::whole().connector().connect("host.example%eth0").is_err());
}

#[test]
fn a_certificate_that_names_no_host_is_for_its_common_name() {
    let bare = |server: &mut CertificateParams| server.subject_alt_names.clear();
    assert_eq!(server("server.example", bare), Ok(()));
    assert!(server("host.example", bare).is_err());
    let star = |server: &mut CertificateParams| {
        server.subject_alt_names.clear();
        server.distinguished_name.push(DnType::CommonName, "*.example.org");
    };
    assert_eq!(server("a.example.org", star), Ok(()));
    assert!(server("example.org", star).is_err());
}

#[test]
fn an_address_may_stand_among_the_names() {
    let odd = |server: &mut CertificateParams| {
        server.subject_alt_names = vec![rcgen::SanType::DnsName("10.0.0.1".try_into().unwrap())];
    };
    assert_eq!(server("10.0.0.1", odd), Ok(()));
    assert!(server("10.0.0.2", odd).is_err());
}

#[test]
fn a_server_that_is_not_proved_is_refused_before_we_show_ourselves() {
    let expired = server("host.example", |server| server.not_after = date_time_ymd(2020, 1, 1));
    assert_eq!(expired, Err("The server certificate C=GB,CN=server.example has expired".to_owned()));
    let purpose = server("host.example", |server| {
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert!(purpose.unwrap_err().contains("purpose does not allow use for with a TLS server"));
    let (pki, other) = (Pki::whole(), Pki::whole());
    let (clients, servers) =
        both(&mut other.connector().connect("host.example").unwrap(), &mut pki.acceptor().accept().unwrap());
    assert!(clients.err().unwrap().to_string().starts_with("Certificate failed validation: "));
    // The server hears it as an alert.
    let heard = servers.unwrap().err().unwrap();
    let words = "TLS handshake failed: the client refuses our certificate: ";
    assert!(heard.to_string().starts_with(words) && heard.advice().contains("ca_file"), "{heard}");
    let rules = Rules { verify: false, ..Rules::default() };
    let careless = Connector::load(&other.files(Side::Client), &rules).unwrap();
    let (clients, _) =
        both(&mut careless.connect("elsewhere.example").unwrap(), &mut pki.acceptor().accept().unwrap());
    assert!(clients.is_ok());
}

#[test]
fn a_ca_that_has_expired_proves_nobody() {
    let pki = Pki::with(|ca| ca.not_after = date_time_ymd(2020, 1, 1));
    pki.issue(Side::Server, |_| {});
    let rules = Rules { sanity: false, ..Rules::default() };
    let acceptor = Arc::new(Acceptor::load(&pki.files(Side::Server), &rules, None).unwrap());
    let connector = Connector::load(&pki.files(Side::Client), &rules).unwrap();
    let (clients, _) = both(&mut connector.connect("host.example").unwrap(), &mut acceptor.accept().unwrap());
    let error = clients.err().unwrap().to_string();
    assert_eq!(error, "The CA certificate behind server certificate C=GB,CN=server.example has expired");
}

/// What a server says of its own files at the start, with the first of its complaints that is fatal.
fn start(pki: &Pki) -> Result<Vec<String>, String> {
    let loaded = Acceptor::load(&pki.files(Side::Server), &Rules::default(), None);
    let careless = Rules { sanity: false, ..Rules::default() };
    assert!(Acceptor::load(&pki.files(Side::Server), &careless, None).is_ok());
    loaded.map(|acceptor| acceptor.warnings().to_vec()).map_err(|error| error.to_string())
}

#[test]
fn what_can_never_work_is_said_at_the_start() {
    let with = |change: fn(&mut CertificateParams)| {
        let pki = Pki::new();
        pki.issue(Side::Server, change);
        let file = pki.files(Side::Server).own.remove(0).0.display().to_string();
        start(&pki).map_err(|error| error.replace(&file, "FILE"))
    };
    assert_eq!(with(|_| {}), Ok(vec![]));
    assert_eq!(
        with(|server| server.not_after = date_time_ymd(2020, 1, 1)),
        Err("The server certificate FILE has expired".to_owned())
    );
    assert_eq!(
        with(|server| server.not_before = date_time_ymd(4000, 1, 1)),
        Err("The server certificate FILE is not yet active".to_owned())
    );
    assert_eq!(
        with(|server| server.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        Err("The certificate FILE basic constraints show a CA, but we need one for a server".to_owned())
    );
    assert_eq!(
        with(|server| server.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        Err("Certificate FILE usage does not permit digital signature".to_owned())
    );
    // Not critical: libvirt starts, and so do we.
    let warned =
        with(|server| server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]).unwrap();
    assert!(warned[0].contains("purpose does not allow use for with a TLS server"), "{warned:?}");
}

#[test]
fn a_ca_must_be_one() {
    let with = |change: fn(&mut CertificateParams)| {
        let pki = Pki::with(change);
        pki.issue(Side::Server, |_| {});
        let ca = pki.files(Side::Server).ca.display().to_string();
        start(&pki).map_err(|error| error.replace(&ca, "CA"))
    };
    assert_eq!(
        with(|ca| ca.not_after = date_time_ymd(2020, 1, 1)),
        Err("The CA certificate CA has expired".to_owned())
    );
    assert_eq!(
        with(|ca| ca.is_ca = IsCa::ExplicitNoCa),
        Err("The certificate CA basic constraints do not show a CA".to_owned())
    );
    assert_eq!(
        with(|ca| ca.is_ca = IsCa::NoCa),
        Err("The certificate CA is missing basic constraints for a CA".to_owned())
    );
    assert_eq!(
        with(|ca| ca.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        Err("Certificate CA usage does not permit certificate signing".to_owned())
    );
}

#[test]
fn ones_own_certificate_must_lead_to_the_ca_file() {
    let (pki, other) = (Pki::whole(), Pki::new());
    std::fs::copy(other.files(Side::Server).ca, pki.files(Side::Server).ca).unwrap();
    let error = start(&pki).unwrap_err();
    assert!(error.contains("Our own certificate") && error.contains("failed validation against"), "{error}");
}

#[test]
fn files_that_do_not_fit_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let pki = Pki::whole();
    let files = pki.files(Side::Server);
    let (certificate, key) = &files.own[0];
    std::fs::set_permissions(key, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(start(&pki).unwrap()[0].contains("mode 0644"));
    let load = || Acceptor::load(&files, &Rules::default(), None).err().unwrap().to_string();
    let good = std::fs::read(key).unwrap();
    for (text, complaint) in [
        (&b"nothing"[..], "there is no private key in it"),
        (
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "it is encrypted",
        ),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "of no kind that can be used"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA", "its end is missing"),
        (&[b'x'; 70_000], "longer than 64 KiB"),
    ] {
        std::fs::write(key, text).unwrap();
        let error = load();
        assert!(error.contains(complaint) && error.contains(&*key.to_string_lossy()), "{error}");
    }
    let other = Pki::whole();
    std::fs::copy(&other.files(Side::Server).own[0].1, key).unwrap();
    assert!(load().ends_with("The certificate and the given key do not match."));
    std::fs::write(key, [&b"a word before\n"[..], &good].concat()).unwrap();
    assert!(Acceptor::load(&files, &Rules::default(), None).is_ok());
    std::fs::write(certificate, "").unwrap();
    assert!(load().ends_with("there is no certificate in it"));
    std::fs::remove_file(certificate).unwrap();
    assert_eq!(
        load(),
        format!("Cannot read certificate '{}': No such file or directory", certificate.display())
    );
    std::fs::remove_file(&files.ca).unwrap();
    assert_eq!(
        load(),
        format!("Cannot read CA certificate '{}': No such file or directory", files.ca.display())
    );
}

#[test]
fn a_certificate_is_for_names_that_hold_each_told_once() {
    let pki = Pki::new();
    let told = |names: &[&str], common: &str, constrained| {
        pki.issue(Side::Server, |server| {
            server.subject_alt_names = named(names);
            server.distinguished_name.push(DnType::CommonName, common);
        });
        let der = CertificateDer::from_pem_file(&pki.files(Side::Server).own[0].0).unwrap();
        let other = "other.example".try_into().unwrap();
        verify::is_for(&der, &other, constrained).unwrap_err().advice().to_owned()
    };
    let hint = |names: &str| format!("it is for {names}: use such a name in the URI");
    assert_eq!(told(&["a.example", "a.example"], "other.example", false), hint("a.example"));
    assert_eq!(told(&["a.example", "127.0.0.1"], "a.example", false), hint("a.example, 127.0.0.1"));
    assert_eq!(told(&[], "b.example", false), hint("b.example"));
    assert!(told(&[], "b.example", true).starts_with("it is for no host"));
}

#[test]
fn a_certificate_that_no_end_of_ours_accepts_is_a_problem_before_the_start_is_refused() {
    let pki = Pki::new();
    for (side, other) in [
        (Side::Server, ExtendedKeyUsagePurpose::ClientAuth),
        (Side::Client, ExtendedKeyUsagePurpose::ServerAuth),
    ] {
        pki.issue(side, |own| own.extended_key_usages = vec![other]);
        let survey = Survey::of(within(pki.directory.path()), &[side], true, None);
        let [fault] = &survey.faults[..] else { panic!("{survey:?}") };
        assert!(fault.fatal && fault.text.contains("purpose does not allow"), "{fault:?}");
        assert_eq!(survey.good.len(), 1, "the CA's alone: {survey:?}");
    }
    assert_eq!(start(&pki).unwrap().len(), 1, "a warning");
}

#[test]
fn a_file_in_the_place_of_the_directory_is_named_with_what_to_do() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Connector::load(&Files::client(Some(file.path()), None), &Rules::default()).err().unwrap();
    assert!(error.to_string().ends_with(": Not a directory") && !error.advice().is_empty(), "{error:?}");
    let survey = Survey::of(within(file.path()), &[Side::Server, Side::Client], true, None);
    assert!(survey.faults.len() > 2 && survey.good.is_empty(), "{survey:?}");
    assert!(survey.faults.iter().all(|fault| !fault.advice.is_empty()), "{survey:?}");
}

#[test]
fn the_usual_places_are_libvirts() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    let root = Files::client(None, None);
    assert_eq!(root.ca, PathBuf::from("/etc/pki/CA/cacert.pem"));
    assert_eq!(root.own[0].1, PathBuf::from("/etc/pki/libvirt/private/clientkey.pem"));
    assert_eq!(Files::client(None, Some(home)), root, "a user without files of its own has root's");
    let users = home.join(".pki/libvirt");
    std::fs::create_dir_all(&users).unwrap();
    std::fs::write(users.join("clientcert.pem"), "").unwrap();
    let halved = Files::client(None, Some(home)).own;
    assert_eq!(halved.last(), root.own.first(), "a certificate without its key doesn't count");
    assert_eq!(halved[0].0, users.join("clientcert.pem"), "and yet is told of");
    std::fs::write(users.join("clientkey.pem"), "").unwrap();
    let files = Files::client(None, Some(home));
    assert_eq!(files.own, [(users.join("clientcert.pem"), users.join("clientkey.pem"))]);
    assert_eq!(files.ca, root.ca, "each by itself");
    let all = Files::client(Some(home), None);
    assert_eq!((all.ca, all.crl), (home.join("cacert.pem"), Some(home.join("cacrl.pem"))));
}

/// What openssl makes of this.
fn openssl(arguments: &[&str]) -> String {
    let made = std::process::Command::new("openssl").args(arguments).output().unwrap();
    assert!(made.status.success(), "{arguments:?}");
    String::from_utf8(made.stdout).unwrap()
}

#[test]
fn keys_of_every_form_are_read_and_the_fitting_one_is_shown() {
    use rustls::CipherSuite;
    use rustls::version::TLS12;
    let pki = Pki::whole();
    let mut files = pki.files(Side::Server);
    let rsa_place = (pki.directory.path().join("rsacert.pem"), pki.directory.path().join("rsakey.pem"));
    let rsa = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    pki.issue_for(&KeyPair::from_pem(&rsa).unwrap(), &rsa_place, Side::Server, |_| {});
    files.own.push(rsa_place);
    for (_, key) in &files.own {
        let path = key.to_str().unwrap();
        let old = openssl(&["pkey", "-traditional", "-in", path]);
        assert!(
            old.contains("-----BEGIN RSA PRIVATE KEY") || old.contains("-----BEGIN EC PRIVATE KEY"),
            "{old}"
        );
        pki.private(key, &old);
    }
    let acceptor = Arc::new(Acceptor::load(&files, &Rules::default(), None).unwrap());
    assert_eq!(acceptor.warnings(), [""; 0]);
    for suite in [
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ] {
        let (mut peer, _) = pki.peer(Side::Client, suite, &TLS12);
        assert_eq!(meet(&mut acceptor.accept().unwrap(), &mut peer).verdict, Ok(()), "{suite:?}");
    }
    let weak = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    pki.private(&files.own[1].1, &weak);
    let error = Acceptor::load(&files, &Rules::default(), None).err().unwrap();
    assert!(error.advice().contains("2048"), "{error}");
}
