//! Where things lie: the workspace, the cargo target directory, and a folder of its own for every test.
//! Called by everything in `real`; nothing is ever written outside the target directory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;

/// The root of the workspace, known from where this package was compiled.
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// The package's committed clients.
pub fn client_sources() -> PathBuf {
    workspace().join("cluster-tests").join("clients")
}

/// The cargo target directory of this test run.
///
/// `CARGO_TARGET_DIR` says it where it is absolute. Otherwise the running program lies in it (also under
/// `--target-dir` or a `build.target-dir` of some config), below the directory that cargo tags.
pub fn target() -> PathBuf {
    if let Some(named) = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from)
        && named.is_absolute()
    {
        return named;
    }
    let tagged = std::env::current_exe().ok().and_then(|exe| {
        exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).map(Path::to_path_buf)
    });
    tagged.unwrap_or_else(|| workspace().join("target"))
}

/// A new, empty folder below the target directory for the files of one test.
/// It stays after the run, so that logs can be read; a run is told from the next by its process id.
pub fn scratch(label: &str) -> anyhow::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let run = format!("run-{}", std::process::id());
    let dir = target().join("real").join(run).join(format!("{number:03}-{label}"));
    // A process id comes round again: what an earlier run of that number left is not ours.
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("clearing {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir)
}
