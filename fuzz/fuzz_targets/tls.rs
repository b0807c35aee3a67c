//! Noise for TLS's handshakes and records. Leans on the body in the library; refuses nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strongroom::fuzzing::fuzz_tls(bytes));
