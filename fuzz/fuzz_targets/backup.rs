//! Noise for the reader of backups. Leans on the body in the library; refuses nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strongroom::fuzzing::fuzz_backup(bytes));
