//! Noise for the reader of libvirt's value files. Leans on the body in the library; refuses nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strongroom::fuzzing::fuzz_libvirt(bytes));
