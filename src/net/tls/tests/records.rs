//! Records by themselves: RFC 8448's vectors, and all that may be done to a record on its way.

use rustls::crypto::cipher::{AeadKey, Iv};

use super::*;
use crate::memory::scarcity::while_scarce;
use crate::net::tls::cipher::kind::{ALERT, DATA, HANDSHAKE};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Secrets of 256 bits, all alike.
fn secrets(byte: u8) -> ConnectionTrafficSecrets {
    ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([byte; 32]), iv: Iv::from([byte; 12]) }
}

/// The next secrets of both directions count up.
struct Counting(u8);

impl Next for Counting {
    fn to_open(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error> {
        self.0 += 1;
        Ok(secrets(self.0))
    }

    fn to_seal(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error> {
        self.to_open()
    }
}

/// One end's opener, the other's sealer, and a cipher that seals what no sealer would.
fn pair(version: Version) -> (Opener, Sealer, Cipher) {
    let cipher = || Cipher::new(version, 0, &secrets(1)).unwrap();
    let (opener, _) = halves(cipher(), cipher(), Box::new(Counting(1)), true).unwrap();
    let (_, sealer) = halves(cipher(), cipher(), Box::new(Counting(1)), true).unwrap();
    (opener, sealer, cipher())
}

fn open(opener: &mut Opener, record: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut data = Vec::new();
    opener.open(&mut record.to_vec(), &mut |part| data.extend_from_slice(part))?;
    Ok(data)
}

fn crafted(cipher: &mut Cipher, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    cipher
        .seal(kind, content.len(), [content].into_iter(), &mut vec![0; content.len() + 1], &mut record)
        .unwrap();
    record
}

#[test]
fn records_are_rfc_8448s() {
    // Section 3, from "send application_data" on. Before it the server has sent a ticket under its key.
    let aes = |key: &str, iv: &str| {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&hex(key));
        let iv: [u8; 12] = hex(iv).try_into().unwrap();
        let mut cipher = Cipher::new(
            Version::Tls13,
            0,
            &ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from(bytes), iv: Iv::from(iv) },
        )
        .unwrap();
        cipher.shorten();
        cipher
    };
    let data: Vec<u8> = (0..50).collect();
    let mut client = aes("17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9");
    let record = "17030300 43a23f70 54b62c94 d0affafe 8228ba55 cbefacea 42f914aa 66bcab3f 2b9819a8
                  a5b46b39 5bd54a9a 20441e2b 62974e1f 5a6292a2 977014bd 1e3deae6 3aeebb21 694915e4";
    assert_eq!(crafted(&mut client, DATA, &data), hex(record));
    assert_eq!(crafted(&mut client, ALERT, &[1, 0]), hex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3"));
    let mut server = aes("9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984");
    crafted(&mut server, HANDSHAKE, &[0; 4]);
    let record = "17030300 432e937e 11ef4ac7 40e538ad 36005fc4 a46932fc 3225d05f 82aa1b36 e30efaf9
                  7d90e6df fc602dcb 501a59a8 fcc49c4b f2e5f0a2 1c0047c2 abf33254 0dd032e1 67c2955d";
    assert_eq!(crafted(&mut server, DATA, &data), hex(record));
}

#[test]
fn a_record_that_was_touched_does_not_open_and_nothing_opens_behind_it() {
    for version in [Version::Tls12, Version::Tls13] {
        let (_, mut sealer, _) = pair(version);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        sealer.seal(&[b"attack at dawn"], &mut first).unwrap();
        sealer.seal(&[b"or don't"], &mut second).unwrap();
        let refused = |records: &[&[u8]]| {
            let (mut opener, ..) = pair(version);
            let results: Vec<_> = records.iter().map(|record| open(&mut opener, record)).collect();
            let broken = results.iter().position(Result::is_err).unwrap();
            assert!(
                results[broken..].iter().all(|result| *result == results[broken]),
                "it goes on: {results:?}"
            );
            broken
        };
        for at in 0..first.len() {
            let mut changed = first.clone();
            changed[at] ^= 1;
            // TLS 1.2 authenticates the version that was agreed on, not the record's copy of it.
            if (version, at) != (Version::Tls12, 2) {
                assert_eq!(refused(&[&changed, &first]), 0, "byte {at}");
            }
            assert_eq!(refused(&[&first[..at], &first]), 0, "cut at {at}");
        }
        assert_eq!(refused(&[&first, &first, &second]), 1, "replayed");
        assert_eq!(refused(&[&second, &first]), 0, "in another order");
        assert_eq!(refused(&[&[&first[..], b"x"].concat(), &first]), 0, "longer");
        let (mut opener, ..) = pair(version);
        assert_eq!(open(&mut opener, &first).unwrap(), b"attack at dawn");
        assert_eq!(open(&mut opener, &second).unwrap(), b"or don't");
    }
}

#[test]
fn the_sealer_takes_a_new_key_before_the_old_one_is_worn() {
    let (mut opener, mut sealer, _) = pair(Version::Tls13);
    sealer.records.renew_after = 60;
    let mut updates = 0;
    for round in 0..10_u8 {
        let mut sealed = Vec::new();
        sealer.seal(&[&[round; 5]], &mut sealed).unwrap();
        let mut data = Vec::new();
        while !sealed.is_empty() {
            let length = opener.record(&sealed).unwrap().unwrap();
            data.extend(open(&mut opener, &sealed[..length]).unwrap());
            sealed.drain(..length);
            updates += usize::from(!sealed.is_empty());
        }
        assert_eq!(data, [round; 5]);
    }
    // A record of 27 bytes: three of them are more than 60.
    assert_eq!(updates, 3);
}

#[test]
fn over_tls_1_2_bytes_wear_a_key_out_and_chacha20s_never() {
    let seal = |sealer: &mut Sealer, length: usize| sealer.seal(&[&vec![7; length]], &mut Vec::new());
    let (_, mut sealer, _) = pair(Version::Tls12);
    sealer.records.renew_after = 3000;
    for _ in 0..100 {
        seal(&mut sealer, 1).unwrap(); // 30 bytes each
    }
    assert!(seal(&mut sealer, 1).is_err(), "TLS 1.2 has no second key");
    assert!(seal(&mut sealer, 1).is_err());
    let (_, mut sealer, _) = pair(Version::Tls12);
    sealer.records.renew_after = 3000;
    seal(&mut sealer, 3000).unwrap();
    assert!(seal(&mut sealer, 1).is_err(), "one long record counts as much as many short ones");
    for version in [Version::Tls12, Version::Tls13] {
        let key =
            ConnectionTrafficSecrets::Chacha20Poly1305 { key: AeadKey::from([1; 32]), iv: Iv::from([1; 12]) };
        let cipher = || Cipher::new(version, 0, &key).unwrap();
        let (_, mut sealer) = halves(cipher(), cipher(), Box::new(Counting(1)), true).unwrap();
        sealer.records.renew_after = 3;
        for _ in 0..10 {
            let mut sealed = Vec::new();
            sealer.seal(&[b"on"], &mut sealed).unwrap();
            assert_eq!(sealed.len(), HEAD + 2 + 16 + usize::from(version == Version::Tls13));
        }
    }
}

#[test]
fn for_want_of_secret_memory_records_get_shorter_and_none_is_missing() {
    for version in [Version::Tls13, Version::Tls12] {
        let (mut opener, mut sealer, _) = pair(version);
        let data: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut sealed = Vec::new();
        while_scarce(|| sealer.seal(&[&data[..3], &data[3..700], &data[700..]], &mut sealed)).unwrap();
        sealer.seal(&[b"attack at dawn"], &mut sealed).unwrap();
        let (mut came, mut records) = (Vec::new(), 0);
        while !sealed.is_empty() {
            let length = opener.record(&sealed).unwrap().unwrap();
            assert!(length < SPARE_BENCH + MOST_AROUND);
            came.extend(open(&mut opener, &sealed[..length]).unwrap());
            sealed.drain(..length);
            records += 1;
        }
        assert_eq!((came, records), ([&data[..], b"attack at dawn"].concat(), 9));
    }
}

#[test]
fn without_a_spare_bench_there_is_no_layer() {
    let cipher = || Cipher::new(Version::Tls13, 0, &secrets(1)).unwrap();
    let (one, other) = (cipher(), cipher());
    let halves = while_scarce(|| halves(one, other, Box::new(Counting(1)), true));
    assert!(matches!(halves, Err(Unfit::Memory(_))));
}

#[test]
fn no_number_is_used_twice() {
    let mut cipher = Cipher::new(Version::Tls13, u64::MAX - 1, &secrets(1)).unwrap();
    let mut sealed = Vec::new();
    cipher.seal(DATA, 1, [&b"x"[..]].into_iter(), &mut [0; 2], &mut sealed).unwrap();
    assert_eq!(
        cipher.seal(DATA, 1, [&b"x"[..]].into_iter(), &mut [0; 2], &mut sealed).unwrap_err(),
        cipher.open(&mut [0; 40]).unwrap_err()
    );
}

#[test]
fn padding_is_stripped_and_records_of_nothing_else_are_bounded() {
    let (mut opener, _, mut craft) = pair(Version::Tls13);
    // The kind, and zeros behind it, are what the record ends with.
    let padded = [b"data\x17".as_slice(), &[0; 300]].concat();
    assert_eq!(open(&mut opener, &crafted(&mut craft, 0, &padded)).unwrap(), b"data");
    let nothing = crafted(&mut craft, 0, &[0; 10]);
    assert_eq!(open(&mut opener, &nothing), Err(Broken::Malformed("a TLS record without content")));
    for version in [Version::Tls12, Version::Tls13] {
        let (mut opener, _, mut craft) = pair(version);
        for _ in 0..3 {
            for _ in 0..MAX_FRUITLESS {
                assert_eq!(open(&mut opener, &crafted(&mut craft, DATA, b"")).unwrap(), b"");
            }
            assert_eq!(open(&mut opener, &crafted(&mut craft, DATA, b"x")).unwrap(), b"x");
        }
        for _ in 0..MAX_FRUITLESS {
            open(&mut opener, &crafted(&mut craft, DATA, b"")).unwrap();
        }
        assert!(open(&mut opener, &crafted(&mut craft, DATA, b"")).is_err());
    }
}

#[test]
fn a_record_carries_as_much_as_it_may_and_no_more() {
    let (mut opener, _, mut craft) = pair(Version::Tls13);
    assert_eq!(open(&mut opener, &crafted(&mut craft, DATA, &[7; MAX_PART])).unwrap().len(), MAX_PART);
    assert!(open(&mut opener, &crafted(&mut craft, DATA, &[7; MAX_PART + 1])).is_err());
    let (mut opener, _, mut craft) = pair(Version::Tls12);
    assert_eq!(open(&mut opener, &crafted(&mut craft, DATA, &[7; MAX_PART])).unwrap().len(), MAX_PART);
    assert!(open(&mut opener, &crafted(&mut craft, DATA, &[7; MAX_PART + 1])).is_err());
    let longest = |version| pair(version).0.cipher.longest();
    assert_eq!((longest(Version::Tls12), longest(Version::Tls13)), (MAX_RECORD, HEAD + MAX_PART + 256));
}

#[test]
fn tickets_are_passed_over_however_they_are_cut() {
    let ticket = [&[4, 0, 0, 40][..], &[9; 40]].concat();
    let two = [&ticket[..], &ticket].concat();
    for cut in 1..two.len() {
        let (mut opener, _, mut craft) = pair(Version::Tls13);
        for part in [&two[..cut], &two[cut..]] {
            assert_eq!(open(&mut opener, &crafted(&mut craft, HANDSHAKE, part)).unwrap(), b"");
        }
        assert_eq!(open(&mut opener, &crafted(&mut craft, DATA, b"on")).unwrap(), b"on", "cut at {cut}");
    }
}

#[test]
fn nothing_else_may_come_after_the_handshake() {
    let ticket = [4, 0, 0, 4, 9, 9, 9, 9];
    let finished = [20, 0, 0, 0];
    for (kind, content) in [
        (HANDSHAKE, &finished[..]),
        (HANDSHAKE, b""),
        (HANDSHAKE, &[24, 0, 0, 2, 0, 0]),
        (HANDSHAKE, &[24, 0, 0, 1, 2]),
        (HANDSHAKE, &[24, 0, 0, 1, 0, 24]),
        (HANDSHAKE, &[4, 0xFF, 0xFF, 0xFF]),
        (HANDSHAKE, &[1, 0, 0, 0]),
        (20, &[1]),
        (99, b"?"),
        (ALERT, &[2]),
        (ALERT, &[2, 40]),
        (ALERT, &[2, 200]),
    ] {
        let (mut opener, _, mut craft) = pair(Version::Tls13);
        let refused = open(&mut opener, &crafted(&mut craft, kind, content));
        assert!(matches!(refused, Err(Broken::Malformed(_))), "{kind} {content:?}");
    }
    let (mut opener, _, mut craft) = pair(Version::Tls13);
    open(&mut opener, &crafted(&mut craft, HANDSHAKE, &ticket[..6])).unwrap();
    assert!(open(&mut opener, &crafted(&mut craft, DATA, b"amid")).is_err());
    // A client has no tickets to give; TLS 1.2 has no second handshake with us; and nothing comes in the clear.
    let (mut opener, _, mut craft) = pair(Version::Tls13);
    opener.message = Message::new(false);
    assert!(open(&mut opener, &crafted(&mut craft, HANDSHAKE, &ticket)).is_err());
    let (mut opener, _, mut craft) = pair(Version::Tls12);
    assert!(open(&mut opener, &crafted(&mut craft, HANDSHAKE, &[0, 0, 0, 0])).is_err());
    let (mut opener, ..) = pair(Version::Tls13);
    assert!(open(&mut opener, &[20, 3, 3, 0, 1, 1]).is_err());
    let (mut opener, _, mut craft) = pair(Version::Tls13);
    assert_eq!(open(&mut opener, &crafted(&mut craft, ALERT, &[1, 0])), Err(Broken::Closed));
}
