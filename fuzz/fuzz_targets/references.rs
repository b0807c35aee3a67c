//! Noise for the reader of descriptions that name secrets. Leans on the body in the library; refuses nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strongroom::fuzzing::fuzz_references(bytes));
