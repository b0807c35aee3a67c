//! What must hold for any input, as bodies for fuzzers: `fuzz/` feeds them noise, the tests here replay its corpus.
//!
//! Leans on every room that reads bytes from outside. Refuses nothing: every body takes any bytes, and panics only if
//! a promise is broken.

mod backup;
mod conf;
mod edit;
mod libvirt;
mod references;
mod rpc;
#[cfg(feature = "daemon")]
mod session;
mod store;
mod tls;
mod uri;

pub use backup::fuzz_backup;
pub use conf::fuzz_conf;
pub use libvirt::fuzz_libvirt;
pub use references::fuzz_references;
pub use rpc::fuzz_rpc;
#[cfg(feature = "daemon")]
pub use session::fuzz_session;
pub use store::{fuzz_frames, fuzz_keyring};
pub use tls::{fuzz_certificate, fuzz_tls};
pub use uri::fuzz_uri;

use crate::secret::Definition;
use crate::volume::Plan;

/// Reading a document never panics; what was read is written as a document that is read as the same.
/// Nor does it if the document shall be a volume's.
pub fn fuzz_xml(bytes: &[u8]) {
    _ = Plan::from_xml(bytes, None);
    let lenient = Definition::from_xml(bytes, false);
    let strict = Definition::from_xml(bytes, true);
    let Ok(definition) = lenient else {
        assert!(strict.is_err(), "validation let through what plain reading refuses");
        return;
    };
    let xml = definition.to_xml();
    // A raw carriage return is written as it is, and read as a line feed: all else survives.
    let with_line_feeds = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
    let mut expected = definition;
    expected.description = expected.description.map(|text| with_line_feeds(&text).into());
    expected.usage.id = with_line_feeds(&expected.usage.id).into();
    let again = Definition::from_xml(xml.as_bytes(), false);
    assert_eq!(again.as_ref(), Ok(&expected), "from {xml}");
    assert_eq!(expected.to_xml(), with_line_feeds(&xml));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn replay(folder: &str, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut count = 0;
        for entry in folder.read_dir().unwrap() {
            body(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 20, "{count} inputs in {}", folder.display());
    }

    #[test]
    fn the_xml_corpus_holds() {
        replay("fuzz/corpus/xml", fuzz_xml);
        replay("tests/data/xml", fuzz_xml);
    }

    #[test]
    fn the_frames_corpus_holds() {
        replay("fuzz/corpus/frames", fuzz_frames);
    }

    #[test]
    fn the_keyring_corpus_holds() {
        replay("fuzz/corpus/keyring", fuzz_keyring);
    }

    #[test]
    fn the_backup_corpus_holds() {
        replay("fuzz/corpus/backup", fuzz_backup);
    }

    #[test]
    fn the_certificate_corpus_holds() {
        replay("fuzz/corpus/certificate", fuzz_certificate);
    }

    #[test]
    fn the_conf_corpus_holds() {
        replay("fuzz/corpus/conf", fuzz_conf);
    }

    #[test]
    fn the_libvirt_corpus_holds() {
        replay("fuzz/corpus/libvirt", fuzz_libvirt);
    }

    #[test]
    fn the_references_corpus_holds() {
        replay("fuzz/corpus/references", fuzz_references);
        replay("fuzz/corpus/xml", fuzz_references);
        replay("fuzz/corpus/conf", fuzz_references);
    }

    #[test]
    fn descriptions_cut_and_spoilt_anywhere_do_not_panic() {
        spoil("fuzz/corpus/references", fuzz_references);
    }

    #[test]
    fn the_rpc_corpus_holds() {
        replay("fuzz/corpus/rpc", fuzz_rpc);
    }

    #[cfg(feature = "daemon")]
    #[test]
    fn the_session_corpus_holds() {
        replay("fuzz/corpus/session", fuzz_session);
    }

    #[test]
    fn the_tls_corpus_holds() {
        replay("fuzz/corpus/tls", fuzz_tls);
    }

    #[test]
    fn the_uri_corpus_holds() {
        replay("fuzz/corpus/uri", fuzz_uri);
    }

    /// A corpus again, cut and spoilt at every offset of what is short, and at some of what is long.
    fn spoil(folder: &str, body: fn(&[u8])) {
        for entry in Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).read_dir().unwrap() {
            let whole = std::fs::read(entry.unwrap().path()).unwrap();
            for at in (1..whole.len()).step_by(1 + whole.len() / 100) {
                body(&whole[..at]);
                for spoiler in [1, 0x80, 0xFF] {
                    let mut bytes = whole.clone();
                    bytes[at] ^= spoiler;
                    body(&bytes);
                }
            }
        }
    }

    #[test]
    fn tls_cut_and_spoilt_anywhere_does_not_panic() {
        spoil("fuzz/corpus/tls", fuzz_tls);
    }

    #[test]
    fn certificates_cut_and_spoilt_anywhere_do_not_panic() {
        spoil("fuzz/corpus/certificate", fuzz_certificate);
    }

    /// One document, cut at every offset, and spoilt there in eight ways.
    #[test]
    fn documents_cut_and_spoilt_anywhere_do_not_panic() {
        let whole =
            "<?xml version='1.0'?><secret a=\"&#65;\"><!-- é --><b><![CDATA[x]]></b>&lt;<?pi x?></secret>\n";
        for at in 0..whole.len() {
            fuzz_xml(&whole.as_bytes()[..at]);
            for spoiler in [b'<', b'>', b'&', b'\'', b'\r', 0, 1, 0xFF] {
                let mut bytes = whole.as_bytes().to_vec();
                bytes[at] = spoiler;
                fuzz_xml(&bytes);
            }
        }
    }
}
