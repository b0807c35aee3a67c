//! Revocation lists: several by one CA, by a CA with a new key, by one that may sign none.

use super::*;

const REVOKED: &str =
    "Certificate failed validation: The certificate has been revoked. (C=GB,CN=client.example)";

/// A CA with a server, and a client that has a serial number of its own.
fn pki() -> Pki {
    let pki = Pki::whole();
    pki.issue(Side::Client, |client| client.serial_number = Some(SerialNumber::from(9)));
    pki
}

/// What this server says of this one's client, and its warnings at the start.
fn comes(server: &Pki, client: &Pki) -> (Result<(), String>, Vec<String>) {
    let acceptor = server.acceptor();
    let mut files = client.files(Side::Client);
    (files.ca, files.crl) = (server.files(Side::Client).ca, None);
    let rules = Rules { sanity: false, ..Rules::default() };
    let connector = Connector::load(&files, &rules).unwrap();
    let (_, servers) = both(&mut connector.connect("host.example").unwrap(), &mut acceptor.accept().unwrap());
    let verdict = servers.unwrap().unwrap().verdict.map_err(|error| error.to_string());
    (verdict, acceptor.warnings().to_vec())
}

fn put(pki: &Pki, lists: &[&str]) {
    std::fs::write(pki.directory.path().join("cacrl.pem"), lists.concat()).unwrap();
}

#[test]
fn of_several_lists_by_one_ca_each_counts() {
    let pki = pki();
    let (none, other, revoked) = (pki.list(&[], 4000), pki.list(&[8], 2026), pki.list(&[9], 4000));
    for lists in [[&none, &revoked], [&revoked, &none], [&other, &revoked], [&revoked, &other]] {
        put(&pki, &lists.map(|list| &**list));
        assert_eq!(comes(&pki, &pki).0, Err(REVOKED.to_owned()));
    }
    put(&pki, &[&none, &other]);
    assert_eq!(comes(&pki, &pki).0, Ok(()));
}

#[test]
fn a_ca_with_a_new_key_and_its_old_name_is_no_fault_of_its_clients() {
    let (old, new, stranger) = (pki(), pki(), pki());
    let both_cas =
        [&old, &new].map(|pki| std::fs::read_to_string(pki.files(Side::Server).ca).unwrap()).concat();
    std::fs::write(old.files(Side::Server).ca, both_cas).unwrap();
    let [by_old, by_new, by_stranger] = [&old, &new, &stranger].map(|pki| pki.list(&[3], 4000));
    for lists in [&[&*by_old][..], &[&by_new], &[&by_old, &by_new], &[&by_new, &by_old], &[&by_stranger]] {
        put(&old, lists);
        for client in [&old, &new] {
            let (verdict, warnings) = comes(&old, client);
            assert_eq!((verdict, warnings.len()), (Ok(()), usize::from(lists[0] == by_stranger)));
        }
        assert!(comes(&old, &stranger).0.is_err(), "a CA by that name, and not in the file");
    }
    // As GnuTLS has it, a CA is its name: the new key revokes what the old one has signed, and the other way round.
    for list in [old.list(&[9], 4000), new.list(&[9], 4000)] {
        put(&old, &[&list]);
        for client in [&old, &new] {
            assert_eq!(comes(&old, client).0, Err(REVOKED.to_owned()));
        }
    }
    // Anybody can write a list by that name.
    put(&old, &[&stranger.list(&[9], 4000)]);
    let (verdict, warnings) = comes(&old, &new);
    assert_eq!(verdict, Ok(()));
    assert!(warnings[0].contains("not signed by the CA of that name"), "{warnings:?}");
}

#[test]
fn a_list_by_a_ca_that_may_sign_none_counts_and_is_worth_a_warning() {
    let pki = Pki::with(|ca| ca.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    pki.issue(Side::Server, |_| {});
    pki.issue(Side::Client, |client| client.serial_number = Some(SerialNumber::from(9)));
    for (serial, expected) in [(8, Ok(())), (9, Err(REVOKED.to_owned()))] {
        pki.revoke(&[serial], 4000);
        let (verdict, warnings) = comes(&pki, &pki);
        assert_eq!(verdict, expected);
        assert!(warnings[0].contains("does not permit signing such lists"), "{warnings:?}");
    }
    let survey = Survey::of(Some(pki.directory.path()), None, &[Side::Server], None);
    let told = survey.faults.iter().find(|fault| fault.text.contains("does not permit signing such lists"));
    assert!(told.is_some_and(|fault| !fault.fatal), "{survey:?}");
}

/// The CA in the file has signed another, that one the client; the list is by the one between.
#[test]
fn a_ca_between_revokes_what_it_has_signed() {
    let pki = Pki::whole();
    let between = pki.below(|_| {});
    between.issue(Side::Client, |client| client.serial_number = Some(SerialNumber::from(9)));
    for (list, expected) in [
        (between.list(&[8], 4000), Ok(())),
        (between.list(&[9], 4000), Err(REVOKED.to_owned())),
        (pki.list(&[9], 4000), Ok(())),
        (pki.list(&[5], 4000), Err(REVOKED.to_owned())),
    ] {
        put(&pki, &[&list]);
        assert_eq!(comes(&pki, &between).0, expected);
    }
}
