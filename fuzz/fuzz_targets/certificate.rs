//! Noise for the reader and the judge of certificates. Leans on the body in the library; refuses nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strongroom::fuzzing::fuzz_certificate(bytes));
