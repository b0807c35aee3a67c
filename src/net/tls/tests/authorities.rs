//! Who is an authority: what may sign, for which names, and what stands in a CA file and is none.

use rcgen::{GeneralSubtree, NameConstraints};

use super::*;

/// What a client that believes the first CA says of a server by the second that calls itself so.
fn ask(root: &Pki, ca: &Pki, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<(), String> {
    ca.issue(Side::Server, change);
    let rules = Rules { sanity: false, ..Rules::default() };
    let acceptor = Arc::new(Acceptor::load(&ca.files(Side::Server), &rules, None).unwrap());
    let connector = Connector::load(&root.files(Side::Client), &rules).unwrap();
    let (clients, _) = both(&mut connector.connect(host).unwrap(), &mut acceptor.accept().unwrap());
    clients.map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn a_ca_that_may_sign_for_some_names_signs_for_no_others_by_leaving_them_out() {
    let bound = |ca: &mut CertificateParams| {
        ca.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("a.example".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    };
    let bare = |server: &mut CertificateParams| server.subject_alt_names.clear();
    let inside = |server: &mut CertificateParams| {
        server.subject_alt_names = vec![rcgen::SanType::DnsName("b.a.example".try_into().unwrap())];
    };
    let refused = "Certificate C=GB,CN=server.example owner does not match the hostname server.example";
    let free = Pki::new();
    let below = free.below(bound);
    assert_eq!(ask(&free, &below, "server.example", bare), Err(refused.to_owned()));
    assert_eq!(ask(&free, &below, "b.a.example", inside), Ok(()));
    assert!(ask(&free, &below, "host.example", |_| {}).unwrap_err().contains("NameConstraintViolation"));
    assert_eq!(ask(&free, &free.below(|_| {}), "server.example", bare), Ok(()));
    let root = Pki::with(bound);
    assert_eq!(ask(&root, &root, "server.example", bare), Err(refused.to_owned()));
    assert_eq!(ask(&root, &root.below(|_| {}), "server.example", bare), Err(refused.to_owned()));
    assert_eq!(ask(&root, &root, "b.a.example", inside), Ok(()));
    // Nor is the host told otherwise beforehand.
    for (ca, faults) in [(&below, 1), (&free, 0)] {
        ca.issue(Side::Server, bare);
        let survey = Survey::of(within(ca.directory.path()), &[Side::Server], true, Some("server.example"));
        let told = survey.faults.iter().filter(|fault| fault.text.contains("this host calls itself"));
        assert_eq!(told.count(), faults, "{survey:?}");
    }
}

#[test]
fn what_stands_in_a_ca_file_and_is_no_ca_proves_nobody() {
    let root = Pki::whole();
    let cas = root.files(Side::Server).ca;
    let alone = std::fs::read_to_string(&cas).unwrap();
    let no_signer = vec![KeyUsagePurpose::DigitalSignature];
    for (is_ca, key_usages, fits) in [
        (IsCa::ExplicitNoCa, no_signer.clone(), false),
        (IsCa::ExplicitNoCa, vec![], false),
        (IsCa::NoCa, vec![], false),
        (IsCa::Ca(BasicConstraints::Unconstrained), no_signer, false),
        (IsCa::Ca(BasicConstraints::Unconstrained), vec![], true),
    ] {
        let mut pinned = root.below(|pinned| (pinned.is_ca, pinned.key_usages) = (is_ca, key_usages));
        let itself = std::mem::take(&mut pinned.behind);
        pinned.issue(Side::Client, |_| {});
        for (in_file, behind) in [(true, false), (true, true), (false, true)] {
            std::fs::write(&cas, if in_file { format!("{alone}{itself}") } else { alone.clone() }).unwrap();
            let rules = Rules { sanity: false, ..Rules::default() };
            let acceptor = Acceptor::load(&root.files(Side::Server), &rules, None).unwrap();
            let warned = acceptor.warnings().iter().any(|warning| warning.contains("proves nobody"));
            assert_eq!(warned, in_file && !fits, "{:?}", acceptor.warnings());
            let place = pinned.files(Side::Client).own.remove(0).0;
            let mut chain: Vec<_> =
                CertificateDer::pem_file_iter(place).unwrap().map(Result::unwrap).collect();
            if behind {
                chain.push(CertificateDer::from_pem_slice(itself.as_bytes()).unwrap());
            }
            let judged = acceptor.judge.judge(&chain, Side::Client, UnixTime::now());
            assert_eq!(judged.is_ok(), fits, "{judged:?}");
        }
    }
}

/// As GnuTLS does: version 1 has no place to say that it is a CA's.
#[test]
fn an_old_root_is_believed_because_it_was_put_there_and_nobody_below_it_for_that() {
    let pki = Pki::new();
    let file = pki.files(Side::Client).ca;
    let chain = |pem: &str| vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().into_owned()];
    let judge = |ca: &str| Judge::new(&file, &chain(ca), Revoked::read(&file, &[]).unwrap()).unwrap();
    let now = UnixTime::now();
    assert_eq!(judge(OLD_ROOT).leads_here(&chain(BY_OLD_ROOT), now), Ok(()));
    assert!(judge(OLD_ROOT).leads_here(&[chain(BY_OLD_CA), chain(OLD_CA)].concat(), now).is_err());
    assert!(judge(OLD_CA).leads_here(&chain(BY_OLD_CA), now).is_err(), "it is no root");
}

const OLD_ROOT: &str = "-----BEGIN CERTIFICATE-----
MIIBGjCBwQIUebYqzJBaApH1KkwVSlKzhZ/NzfEwCgYIKoZIzj0EAwIwDzENMAsG
A1UEAwwEVjFDQTAgFw0yNjExMjIxMjU2MzJaGA8yMTI2MTAyOTEyNTYzMlowDzEN
MAsGA1UEAwwEVjFDQTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIjRnPw/JuSE
s8vThMrxg6JzeW0phOVFUcuFH6vFOO6cY7+NiPju1Ge1vI2ahht5zDRFCbigowC2
+g1gwB88II8wCgYIKoZIzj0EAwIDSAAwRQIgBBhLX9kXNui26sZpx0hDZmr8utln
E7xkkNEd+r9HlX4CIQCjnwYbp83bwg1O4GWiCvI0bs2QNTZefejyXWYITz9rPA==
-----END CERTIFICATE-----";
const BY_OLD_ROOT: &str = "-----BEGIN CERTIFICATE-----
MIIBhzCCASygAwIBAgIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARWMUNBMCAX
DTI2MTEyMjEyNTYzMloYDzIxMjUwNjE2MTI1NjMyWjAXMRUwEwYDVQQDDAxob3N0
LmV4YW1wbGUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASIq9brCbgfENcZBpna
OJx6I2eJMI2bcHfw7Vb71qnYxUolEx25AqXufroJMF9g36mQ/rY3KcJgb7+sIP32
QpEFo28wbTALBgNVHQ8EBAMCB4AwCQYDVR0TBAIwADAdBgNVHQ4EFgQUImg2Umxr
Cfvzo64J66ka5SppY5swNAYDVR0jBC0wK6ETpBEwDzENMAsGA1UEAwwEVjFDQYIU
ebYqzJBaApH1KkwVSlKzhZ/NzfEwCgYIKoZIzj0EAwIDSQAwRgIhAK7oAGHShmgz
p6hfYpSZvh8mRkn954rAkZlDUaxBpvU7AiEA49FKw/Y2RIxYo+S/8KgvxnRBIAhY
v1GJ1BSkeqKYEYU=
-----END CERTIFICATE-----";
const OLD_CA: &str = "-----BEGIN CERTIFICATE-----
MIIBBzCBrwIBAzAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARWMUNBMCAXDTI2MTEy
MjEyNTYzMloYDzIxMjUwNjE2MTI1NjMyWjAQMQ4wDAYDVQQDDAVWMU1pZDBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABBIZ6wtRQqQivkyxE6FHwxSxwnLUsmlv1hQP
R5bmtUVsbpJpOmLeINEX3m/B6jIOGE3Wyi+q9CHjqF+pptoLdx0wCgYIKoZIzj0E
AwIDRwAwRAIgUVBXj/pdQ/Mh1LobImXv7l+AlpcpdWObKUaF//BlBNkCIHLnSBNH
RsO1YcJYv0a6Vts4sywty1P46VI6NHUT6cGD
-----END CERTIFICATE-----";
const BY_OLD_CA: &str = "-----BEGIN CERTIFICATE-----
MIIBdDCCARqgAwIBAgIBBDAKBggqhkjOPQQDAjAQMQ4wDAYDVQQDDAVWMU1pZDAg
Fw0yNjExMjIxMjU2MzJaGA8yMTIyMDkyMDEyNTYzMlowFzEVMBMGA1UEAwwMaG9z
dC5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEiKvW6wm4HxDXGQaZ
2jiceiNniTCNm3B38O1W+9ap2MVKJRMduQKl7n66CTBfYN+pkP62NynCYG+/rCD9
9kKRBaNcMFowCwYDVR0PBAQDAgeAMAkGA1UdEwQCMAAwHQYDVR0OBBYEFCJoNlJs
awn786OuCeupGuUqaWObMCEGA1UdIwQaMBihE6QRMA8xDTALBgNVBAMMBFYxQ0GC
AQMwCgYIKoZIzj0EAwIDSAAwRQIhAI+vasxl4zQCOMZMFlX+9lTihAi/fJbPNOv2
RZSnKOU1AiB5kK0e1ymo0+fGoDOnTgI1kgAA5JFiw8zx5oRz0dKWXw==
-----END CERTIFICATE-----";
