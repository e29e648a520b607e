#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway::fuzzing::rpc(bytes));
