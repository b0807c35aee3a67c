//! Any bytes as a value file of libvirt's, plain and encrypted.
//!
//! Leans on `transfer`. Refuses nothing.

use secrecy::ExposeSecret;

use crate::memory::SecretBytes;
use crate::secret::MAX_VALUE;
use crate::transfer::LibvirtKey;
use crate::transfer::libvirt::{Form, read_value, write_value};

/// The first 32 bytes are the key, the rest is the file. Reading never panics; what was read is a value that libvirt could
/// give, and survives being written in either form.
pub fn fuzz_libvirt(bytes: &[u8]) {
    let (key, file) = bytes.split_at(bytes.len().min(32));
    let mut whole = [0; 32];
    whole[..key.len()].copy_from_slice(key);
    let key = SecretBytes::copy_of(&whole).expect("room for a key");
    let key = LibvirtKey::from_bytes(key).expect("32 bytes are a key");
    let forms = [Form::Plain, Form::Encrypted(&key)];
    for form in forms {
        let Ok((found, _)) = read_value(&mut &*file, file.len() as u64, form) else { continue };
        let Some(value) = found else {
            assert!(file.is_empty(), "no value in a file that isn't empty");
            continue;
        };
        assert!((1..=MAX_VALUE).contains(&value.len()));
        for form in forms {
            let text = write_value(&value, form).expect("a value has a text");
            let text = text.expose_secret();
            let again = read_value(&mut &*text, text.len() as u64, form);
            let (again, strict) = again.expect("our own text is read");
            let again = again.expect("and is a value");
            assert!(strict, "our own text is no strict base64");
            assert!(again.expose_secret() == value.expose_secret(), "another value than was written");
        }
    }
}
