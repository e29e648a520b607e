//! The fuzz targets, one program for each function of `ringway::fuzzing`, where what they check stands.
//!
//! ```text
//! rustup toolchain install nightly && cargo install cargo-fuzz
//! cd cluster-tests/fuzz
//! cargo +nightly fuzz run codec corpus/codec -- -runs=1000000 -max_len=1024
//! ```
//!
//! `corpus/<target>/` is where each begins, and what `cargo test` replays and alters on a stable compiler
//! (`cluster-tests/tests/fuzz`). libFuzzer adds what it finds to the folder that it is given first, so
//! give it another one before it unless that is to be kept. An input that was once a mistake stays in
//! the corpus under a name that says which (`was-...`); a list that is checked against this folder is
//! `ringway::fuzzing::TARGETS`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway::fuzzing::codec(bytes));
