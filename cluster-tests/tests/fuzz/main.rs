//! A short run of every fuzz target, on a stable compiler: the corpus as it is, and inputs made of it by
//! seeded dice. The long runs are libFuzzer's (`cluster-tests/fuzz`); the targets and the corpus are the same.

#![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed

mod mutate;

use mutate::Mutator;
use ringway::fuzzing::{TARGETS, Target};
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So that all targets together take some seconds in a debug build. `RINGWAY_FUZZ_RUNS` is another number.
const RUNS: u64 = 20_000;
/// The slowest takes a millisecond; one that takes this long hangs, or grows with its input as it must not.
const RUN_TIME_MAX: Duration = Duration::from_secs(5);
/// One seed for every run, so that a change that fails did it; `RINGWAY_FUZZ_SEED` is another one.
const SEED: u64 = 20_261_128;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

/// The inputs that a target begins with, in the order of their names.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder().join("corpus").join(target.name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Runs one input; what is wrong with it, if anything.
fn tried(target: &Target, input: &[u8]) -> Result<(), String> {
    let started = Instant::now();
    let ended = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = started.elapsed();
    match ended {
        Err(_) => Err("panicked (its message stands above)".to_owned()),
        Ok(()) if took > RUN_TIME_MAX => Err(format!("took {took:?}")),
        Ok(()) => Ok(()),
    }
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let (seed, runs) = (variable("RINGWAY_FUZZ_SEED", SEED), variable("RINGWAY_FUZZ_RUNS", RUNS));
    let (corpus, started) = (corpus(target), Instant::now());
    for (path, input) in &corpus {
        tried(target, input).unwrap_or_else(|what| panic!("{name}: {} {what}", path.display()));
    }
    let inputs: Vec<_> = corpus.into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(seed, &inputs, target.tokens, target.len_max);
    for run in 0..runs {
        let input = mutator.next();
        if let Err(what) = tried(target, &input) {
            let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fuzz");
            std::fs::create_dir_all(&found).unwrap();
            let path = found.join(format!("{name}-{seed}-{run}"));
            std::fs::write(&path, &input).unwrap();
            panic!("{name}: run {run} of seed {seed} {what}; its input is {}", path.display());
        }
    }
    println!("{name}: {} of the corpus and {runs} more, {:.1?}", inputs.len(), started.elapsed());
}

macro_rules! short_runs {
    ($($name:ident),+) => {
        mod short_run {
            $(#[test] fn $name() { super::run(stringify!($name)); })+
        }

        const TESTED: &[&str] = &[$(stringify!($name)),+];
    };
}

short_runs!(codec, config, events, heads, lines, modern, names, rpc, seal);

#[test]
fn the_programs_the_corpus_and_the_tests_are_of_the_targets_and_no_others() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(TESTED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), targets);

    let of_folder = |name: &str| -> BTreeSet<String> {
        let files = std::fs::read_dir(folder().join(name)).unwrap();
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of_folder("fuzz_targets"), targets);
    assert_eq!(of_folder("corpus"), targets);

    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let named = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""));
    assert_eq!(named.map(str::to_owned).collect::<BTreeSet<_>>(), targets);
    for name in &targets {
        let program = std::fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("ringway::fuzzing::{name}(bytes)")), "{name} runs something else");
    }
}

#[test]
fn an_input_that_panics_or_hangs_is_found() {
    let failing =
        Target { name: "failing", run: |bytes| assert!(bytes.len() < 3), tokens: &["x"], len_max: 10 };
    let inputs = [b"a".to_vec(), b"b".to_vec()];
    let mut mutator = Mutator::new(1, &inputs, failing.tokens, failing.len_max);
    let found = (0..1_000).any(|_| tried(&failing, &mutator.next()).is_err());
    assert!(found, "a thousand inputs of at most ten bytes, and none of three");
}
