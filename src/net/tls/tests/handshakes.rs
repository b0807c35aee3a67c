//! We and rustls, each as server and as client, over every suite: what one seals the other opens.

use rustls::CipherSuite;
use rustls::version::{TLS12, TLS13};

use super::*;

const SUITES: [(CipherSuite, &SupportedProtocolVersion, u32); 6] = [
    (CipherSuite::TLS13_AES_128_GCM_SHA256, &TLS13, 128),
    (CipherSuite::TLS13_AES_256_GCM_SHA384, &TLS13, 256),
    (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, &TLS13, 256),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, &TLS12, 128),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, &TLS12, 256),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, &TLS12, 256),
];

#[test]
fn what_we_seal_rustls_opens_and_the_other_way_round() {
    let pki = Pki::whole();
    for side in [Side::Client, Side::Server] {
        for (suite, version, bits) in SUITES {
            let (mut peer, mut ours) = pki.peer(side, suite, version);
            let Established { mut layer, peer: name, verdict, .. } = meet(&mut ours, &mut peer);
            assert_eq!(name.as_deref(), Some(&*format!("C=GB,CN={side}.example")));
            assert_eq!((verdict, layer.bits), (Ok(()), bits), "{suite:?}");
            for length in [1, 2, 16_383, 16_384, 16_385, 70_000] {
                let data: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
                let (front, rest) = data.split_at(length / 3);
                let mut sealed = Vec::new();
                layer.sealer.seal(&[front, b"", rest], &mut sealed).unwrap();
                assert_eq!(records(&sealed).len(), length.div_ceil(16_384), "no more records than it takes");
                assert_eq!(give(&mut peer, &sealed).unwrap(), data, "{suite:?} {side} {length}");
                let stream = write(&mut peer, &data);
                assert_eq!(opened(&mut layer, &stream).unwrap(), data, "{suite:?} {side} {length}");
            }
            let mut sealed = Vec::new();
            layer.sealer.seal(&[b"", b""], &mut sealed).unwrap();
            assert!(sealed.is_empty());
        }
    }
}

#[test]
fn keys_are_renewed_when_the_other_end_asks() {
    let pki = Pki::whole();
    for side in [Side::Client, Side::Server] {
        for (suite, version, _) in &SUITES[..3] {
            let (mut peer, mut ours) = pki.peer(side, *suite, version);
            let mut layer = meet(&mut ours, &mut peer).layer;
            for round in 0..3_u8 {
                peer.refresh_traffic_keys().unwrap();
                let stream = [sent(&mut peer), write(&mut peer, &[round; 9])].concat();
                assert_eq!(opened(&mut layer, &stream).unwrap(), [round; 9], "{suite:?} {side}");
                let mut sealed = Vec::new();
                layer.sealer.seal(&[&[round; 7]], &mut sealed).unwrap();
                assert_eq!(records(&sealed).len(), 2, "a KeyUpdate and the data");
                assert_eq!(give(&mut peer, &sealed).unwrap(), [round; 7], "{suite:?} {side}");
                sealed.clear();
                layer.sealer.seal(&[b"more"], &mut sealed).unwrap();
                assert_eq!(records(&sealed).len(), 1);
                assert_eq!(give(&mut peer, &sealed).unwrap(), b"more");
            }
        }
    }
}

#[test]
fn each_end_hears_of_the_others_close() {
    let pki = Pki::whole();
    for (suite, version, _) in [SUITES[0], SUITES[3]] {
        let (mut peer, mut ours) = pki.peer(Side::Client, suite, version);
        let mut layer = meet(&mut ours, &mut peer).layer;
        let mut sealed = Vec::new();
        layer.sealer.close(&mut sealed);
        give(&mut peer, &sealed).unwrap();
        assert!(peer.process_new_packets().unwrap().peer_has_closed());
        let length = sealed.len();
        layer.sealer.close(&mut sealed);
        assert_eq!(sealed.len(), length, "it is said once");
        assert_eq!(layer.sealer.seal(&[b"more"], &mut sealed), Err(Broken::Closed));
        peer.send_close_notify();
        let mut end = records(&sent(&mut peer)).remove(0);
        assert_eq!(layer.opener.open(&mut end, &mut |_| panic!("no data")), Err(Broken::Closed));
    }
}

#[test]
fn our_client_and_our_server_meet() {
    let pki = Pki::whole();
    let (clients, servers) =
        both(&mut pki.connector().connect("host.example").unwrap(), &mut pki.acceptor().accept().unwrap());
    let (mut client, mut server) = (clients.unwrap(), servers.unwrap().unwrap());
    assert_eq!(server.verdict, Ok(()));
    assert_eq!(server.peer.as_deref(), Some("C=GB,CN=client.example"));
    let mut sealed = Vec::new();
    server.layer.sealer.seal(&[&[1]], &mut sealed).unwrap();
    assert_eq!(opened(&mut client.layer, &sealed).unwrap(), [1]);
}

#[test]
fn noise_is_no_handshake() {
    let pki = Pki::whole();
    for front in
        [&b"GET / HTTP/1.1\r\n"[..], b"\0\0\0\x1c\x20\0\x80\x86", &[22, 3, 1, 0xFF, 0xFF], &[22, 3, 1, 0, 0]]
    {
        assert!(Handshake::record(front).is_err(), "{front:?}");
    }
    assert_eq!(Handshake::record(&[22, 3, 1, 0]), Ok(None));
    let mut out = Vec::new();
    let mut handshake = pki.acceptor().accept().unwrap();
    let error = handshake.step(&mut [22, 3, 1, 0, 4, 9, 0, 0, 0], &mut out).err().unwrap();
    assert!(error.to_string().starts_with("TLS handshake failed: "), "{error}");
    assert_eq!(out[0], 21, "it is told why");
    assert!(handshake.step(&mut [22, 3, 1, 0, 1, 1], &mut out).is_err(), "and then it is over");
}

#[test]
fn a_handshake_that_never_ends_is_ended() {
    let pki = Pki::whole();
    let mut handshake = pki.acceptor().accept().unwrap();
    let mut out = Vec::new();
    // A ClientHello of 60,000 bytes, of which no record brings the last.
    let mut record = vec![22, 3, 1, 0x3F, 0xFC, 1, 0, 0xEA, 0x60];
    record.resize(5 + 0x3FFC, 0);
    let mut fed = 0;
    while handshake.step(&mut record.clone(), &mut out).is_ok() {
        fed += record.len();
        assert!(fed <= 128 << 10, "it goes on");
        record[5..9].fill(0);
    }
}

#[test]
fn versions_and_ciphers_are_the_priority_strings() {
    let pki = Pki::whole();
    let rules = |priority: &str| Rules { priority: Some(priority.to_owned()), ..Rules::default() };
    let server =
        |priority: &str| Acceptor::load(&pki.files(Side::Server), &rules(priority), None).map(Arc::new);
    let only_12 = server("NORMAL:-VERS-TLS1.3:%SERVER_PRECEDENCE").unwrap();
    let (clients, _) = both(
        &mut Connector::load(&pki.files(Side::Client), &rules("NORMAL:-VERS-ALL:+VERS-TLS1.3"))
            .unwrap()
            .connect("host.example")
            .unwrap(),
        &mut only_12.accept().unwrap(),
    );
    assert!(clients.err().unwrap().to_string().contains("ProtocolVersion"));
    let strong = server("SECURE256:-ARCFOUR-128:-VERS-TLS1.0").unwrap();
    let (clients, _) =
        both(&mut pki.connector().connect("host.example").unwrap(), &mut strong.accept().unwrap());
    assert_eq!(clients.unwrap().layer.bits, 256);
    for (good, priority) in [
        (true, "@SYSTEM"),
        (true, "@LIBVIRT,SYSTEM"),
        (true, "NORMAL"),
        (false, "NORMAL:+AES-128-CBC"),
        (false, "NORMAL:-VERS-ALL"),
        (false, "LEGACY"),
        (false, ""),
        (false, "NORMAL:-GROUP-ALL"),
    ] {
        assert_eq!(server(priority).is_ok(), good, "{priority}");
    }
}

/// Which suite a client and a server agree on that have these strings.
fn agreed(client: &str, server: &str) -> CipherSuite {
    let pki = Pki::whole();
    let rules = |priority: &str| Rules { priority: Some(priority.to_owned()), ..Rules::default() };
    let acceptor = Acceptor::load(&pki.files(Side::Server), &rules(server), None).map(Arc::new).unwrap();
    let connector = Connector::load(&pki.files(Side::Client), &rules(client)).unwrap();
    let mut hello = Vec::new();
    connector.connect("host.example").unwrap().step(&mut [], &mut hello).unwrap();
    let mut answer = Vec::new();
    acceptor.accept().unwrap().step(&mut hello, &mut answer).unwrap();
    // Head, type and length, version, random, a session's name: then the suite.
    let name = usize::from(answer[43]);
    CipherSuite::from(u16::from_be_bytes([answer[44 + name], answer[45 + name]]))
}

#[test]
fn ciphers_are_preferred_as_they_were_named() {
    use CipherSuite::*;
    let chacha = "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:+AES-256-GCM";
    for (client, server, suite) in [
        ("NORMAL", "NORMAL", TLS13_AES_256_GCM_SHA384),
        ("PERFORMANCE", "NORMAL", TLS13_AES_128_GCM_SHA256),
        (chacha, "NORMAL", TLS13_CHACHA20_POLY1305_SHA256),
        ("NORMAL", chacha, TLS13_AES_256_GCM_SHA384),
        ("NORMAL", &format!("{chacha}:%SERVER_PRECEDENCE"), TLS13_CHACHA20_POLY1305_SHA256),
        (&format!("{chacha}:-VERS-TLS1.3"), "NORMAL", TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ] {
        assert_eq!(agreed(client, server), suite, "{client} and {server}");
    }
}

#[test]
fn the_systems_policy_is_not_ours_to_read_and_that_is_said() {
    let pki = Pki::whole();
    let warnings = |priority: &str| {
        let rules = Rules { priority: Some(priority.to_owned()), ..Rules::default() };
        Acceptor::load(&pki.files(Side::Server), &rules, None).unwrap().warnings().to_vec()
    };
    assert_eq!(warnings("NORMAL"), [""; 0]);
    let told = warnings("@LIBVIRT,SYSTEM");
    assert!(told[0].contains("@LIBVIRT,SYSTEM is taken for NORMAL"), "{told:?}");
}
