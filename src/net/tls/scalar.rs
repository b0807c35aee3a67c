//! Private keys for ECDSA as GnuTLS 3.7 writes them: the scalar as a number, in as many bytes as it happens to take.
//!
//! RFC 5915 has it in the length of its curve, and ring takes no other: of certtool's keys every second would be refused,
//! for the 00 before a first bit that is set. Leans on `memory`: all of a key stays in it. Refuses to guess: what isn't such a
//! key, on P-256 or P-384 and with its public key, is left as it is, for ring to judge.

use secrecy::ExposeSecretMut;

use super::files::Form;
use crate::memory::{Exhausted, SecretBytes};

/// The same key with its scalar in its curve's length; `None` if it has it, or is none that is understood.
pub(super) fn in_full(form: Form, der: &[u8]) -> Option<Result<SecretBytes, Exhausted>> {
    match form {
        Form::Pkcs1 => None,
        Form::Sec1 => Some(joined(&Sec1::read(der)?.pieces().each())),
        Form::Pkcs8 => {
            let whole = only(element(SEQUENCE, der)?)?.strip_prefix(&VERSION_0)?;
            let (algorithm, rest) = element(SEQUENCE, whole)?;
            algorithm.strip_prefix(&EC_PUBLIC_KEY)?;
            let (key, attributes) = element(OCTET_STRING, rest)?;
            let key = Sec1::read(key)?.pieces();
            let octets = header(OCTET_STRING, key.length);
            let before = &whole[..whole.len() - rest.len()];
            let length = VERSION_0.len() + before.len() + octets.len() + key.length + attributes.len();
            let outer = header(SEQUENCE, length);
            let wrapped = [&outer[..], &VERSION_0, before, &octets];
            Some(joined(&[&wrapped[..], &key.each(), &[attributes]].concat()))
        }
    }
}

/// An ECPrivateKey whose scalar isn't in its curve's length.
struct Sec1<'a> {
    /// Without zeros in front.
    scalar: &'a [u8],
    /// The length of its curve.
    full: u8,
    /// What stands behind it: the curve's name, the public key.
    behind: &'a [u8],
}

impl<'a> Sec1<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let whole = only(element(SEQUENCE, der)?)?.strip_prefix(&VERSION_1)?;
        let (given, behind) = element(OCTET_STRING, whole)?;
        let public = element(CURVE, behind).map_or(behind, |(_, rest)| rest);
        let point = only(element(BIT_STRING, only(element(PUBLIC_KEY, public)?)?)?)?;
        // No unused bits, 4 for a point with both its numbers, the numbers.
        let full = match (point, point.len()) {
            ([0, 4, ..], 66) => 32,
            ([0, 4, ..], 98) => 48,
            _ => return None,
        };
        let zeros = given.iter().take_while(|&&byte| byte == 0).count();
        let scalar = &given[zeros..];
        let wanted = usize::from(full);
        (given.len() != wanted && scalar.len() <= wanted).then_some(Self { scalar, full, behind })
    }

    fn pieces(&self) -> Pieces<'a> {
        let start = [VERSION_1[0], VERSION_1[1], VERSION_1[2], OCTET_STRING, self.full];
        let inner = start.len() + usize::from(self.full) + self.behind.len();
        let head = [header(SEQUENCE, inner), start.to_vec()].concat();
        let zeros = &ZEROS[..usize::from(self.full) - self.scalar.len()];
        let length = head.len() + usize::from(self.full) + self.behind.len();
        Pieces { head, parts: [zeros, self.scalar, self.behind], length }
    }
}

/// An ECPrivateKey to be joined: of the secret there is no copy yet.
struct Pieces<'a> {
    head: Vec<u8>,
    parts: [&'a [u8]; 3],
    /// Of all together.
    length: usize,
}

impl Pieces<'_> {
    fn each(&self) -> [&[u8]; 4] {
        let [zeros, scalar, behind] = self.parts;
        [&self.head, zeros, scalar, behind]
    }
}

fn joined(pieces: &[&[u8]]) -> Result<SecretBytes, Exhausted> {
    let mut whole = SecretBytes::zeroed(pieces.iter().map(|piece| piece.len()).sum())?;
    let mut room = whole.expose_secret_mut();
    for piece in pieces {
        let (place, rest) = room.split_at_mut(piece.len());
        place.copy_from_slice(piece);
        room = rest;
    }
    Ok(whole)
}

/// What an element holds, and what stands behind it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match *der.strip_prefix(&[tag])? {
        [length @ ..=0x7F, ref rest @ ..] => (usize::from(length), rest),
        [0x81, length @ 0x80..=0xFF, ref rest @ ..] => (usize::from(length), rest),
        [0x82, high @ 1..=0xFF, low, ref rest @ ..] => (usize::from(u16::from_be_bytes([high, low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// What an element holds behind which nothing may stand.
fn only<'a>((value, rest): (&'a [u8], &[u8])) -> Option<&'a [u8]> {
    rest.is_empty().then_some(value)
}

/// How an element begins. Files aren't longer than two bytes can say.
fn header(tag: u8, length: usize) -> Vec<u8> {
    let [.., high, low] = length.to_be_bytes();
    match (high, low) {
        (0, ..=0x7F) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    }
}

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 4;
const BIT_STRING: u8 = 3;
const CURVE: u8 = 0xA0;
const PUBLIC_KEY: u8 = 0xA1;
const VERSION_0: [u8; 3] = [2, 1, 0];
const VERSION_1: [u8; 3] = [2, 1, 1];
/// Its object identifier, 1.2.840.10045.2.1.
const EC_PUBLIC_KEY: [u8; 9] = [6, 7, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1];
const ZEROS: [u8; 48] = [0; 48];

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use rustls::crypto::ring::sign::any_supported_type;
    use secrecy::ExposeSecret;

    use super::super::files::Key;
    use super::*;

    /// Whether ring takes the key in this file.
    fn loads(path: &Path) -> bool {
        any_supported_type(&Key::read(path).unwrap().der()).is_ok()
    }

    #[test]
    fn a_scalar_that_gnutls_has_written_as_a_number_is_brought_to_its_curves_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        for key in [WITH_A_ZERO, SHORT, SHORT_ON_P384, WRAPPED] {
            std::fs::write(&path, key).unwrap();
            assert!(loads(&path), "{key}");
        }
    }

    #[test]
    fn whatever_key_certtool_makes_for_ecdsa_can_be_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        for arguments in
            [&["--curve", "secp256r1"][..], &["--curve", "secp384r1"], &["--pkcs8", "--password="]]
        {
            for _ in 0..20 {
                let mut certtool = Command::new("certtool");
                certtool.args(["--generate-privkey", "--key-type", "ecdsa", "--no-text"]).args(arguments);
                let made = certtool.arg("--outfile").arg(&path).output().unwrap();
                assert!(made.status.success(), "{made:?}");
                assert!(loads(&path), "{}", std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn what_is_not_such_a_key_is_left_as_it_is() {
        let sec1 = |scalar: &[u8], point: usize| {
            let bits = [&[BIT_STRING, point as u8, 0, 4][..], &vec![7; point - 2]].concat();
            let public = [&header(PUBLIC_KEY, bits.len())[..], &bits].concat();
            let octets = [&header(OCTET_STRING, scalar.len())[..], scalar].concat();
            let inner = [&VERSION_1[..], &octets, &public].concat();
            [header(SEQUENCE, inner.len()), inner].concat()
        };
        let fixed = |der: &[u8]| in_full(Form::Sec1, der).map(|der| der.unwrap().expose_secret().to_vec());
        let (short, full) = ([9; 30], [[0; 2].as_slice(), &[9; 30]].concat());
        assert_eq!(fixed(&sec1(&short, 66)), Some(sec1(&full, 66)));
        assert_eq!(fixed(&sec1(&[&[0; 9], &full[..]].concat(), 66)), Some(sec1(&full, 66)));
        let good = sec1(&full, 66);
        assert_eq!(fixed(&good), None, "it has its length");
        assert_eq!(fixed(&sec1(&[9; 33], 66)), None, "no number on this curve");
        assert_eq!(fixed(&sec1(&short, 34)), None, "a point with one number");
        let odd = sec1(&short, 66);
        assert_eq!(fixed(&[&odd[..], &[0]].concat()), None, "something behind it");
        for length in 0..odd.len() {
            assert_eq!(fixed(&odd[..length]), None);
        }
        assert!(in_full(Form::Pkcs8, &odd).is_none() && in_full(Form::Pkcs1, &odd).is_none());
    }

    const WITH_A_ZERO: &str = "-----BEGIN EC PRIVATE KEY-----
MHgCAQEEIQD7VvN2RGY+BW0jEROXbyDNUmHVopxUOb4Kn95YOa2iYqAKBggqhkjO
PQMBB6FEA0IABAKkbM0ZyxK73hhS1MtALD1TtHWTqSOYSzzwQ+o1j+NchNHzJCnL
kknnQrjM33P0sechJd5bJSZWNHoKT6s6xjM=
-----END EC PRIVATE KEY-----";
    const SHORT: &str = "-----BEGIN EC PRIVATE KEY-----
MHYCAQEEH3YTfAVYIbkbyzv+kaunWxrIcsNwRACjkvi+a/lds/CgCgYIKoZIzj0D
AQehRANCAAT9xTQj6HdSeiFeoLbGkhIThVN5FrqwL3kM80j9JYm9Mslo2pDnMDpT
60hftLVKPLIj6xOaJbdlW0tOJ5/aI724
-----END EC PRIVATE KEY-----";
    const SHORT_ON_P384: &str = "-----BEGIN EC PRIVATE KEY-----
MIGjAgEBBC9eMklXg6vHJeUCNuGHSduYEpoqJRnsfBe48iHU3Rr9oz5WeMnoto2C
fyU8KZnuLaAHBgUrgQQAIqFkA2IABIJe56K8jtzbVcZ5DdSXcGqgprGMlLAvs0dF
9js6aRmn+edjQDTx6VsBukYnKi0Uanuy5/dk1ONPsfMVbP64rmcqjJ16i9HUH4aP
41ONKSrsA6OP4XcQe9N1SB1j7xdVog==
-----END EC PRIVATE KEY-----";
    const WRAPPED: &str = "-----BEGIN PRIVATE KEY-----
MIGUAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBHoweAIBAQQhANglbADtIZz+67m1
TfNYlGlBo6NCEFkP9W7L8wSfR1J0oAoGCCqGSM49AwEHoUQDQgAEKa8nbHA89slF
UpKDhZANYVRfiynw0bzhQNtatekCeJFw5ImrefWh27dRMiubsCF8LjmAq+eikNfk
7oTy80UYtg==
-----END PRIVATE KEY-----";
}
