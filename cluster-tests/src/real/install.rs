//! Installs the client programs and foreign servers that the tests drive: npm packages and Python packages,
//! pinned by lock files below `cluster-tests/clients/<set>/`, installed below `target/clients/<set>/`.
//!
//! Called by `clients`, `cluster` (server-everything) and the conformance runner. An installation is done once
//! per content of its lock file; concurrent test programs wait for each other on a file lock.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use super::places;

/// The slowest installation seen took 20 s; a cold cache on a slow line may need fifteen times that.
const INSTALL_DEADLINE: Duration = Duration::from_secs(300);

/// Set to `1` where a test that can't find its clients has to fail instead of being left out.
pub const REQUIRE_CLIENTS: &str = "RINGWAY_REQUIRE_CLIENTS";

/// What the npm sets need.
const NODE: &str = "Node.js 20 or newer with npm";

/// An installed npm set.
#[derive(Debug, Clone)]
pub struct Npm {
    /// Holds `package.json`, `node_modules` and a copy of every file of the committed set.
    pub dir: PathBuf,
}

impl Npm {
    /// A file of an installed package, such as `@scope/name/dist/index.js`.
    pub fn module(&self, path: &str) -> PathBuf {
        self.dir.join("node_modules").join(path)
    }

    /// A program that an installed package brings.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.dir.join("node_modules").join(".bin").join(name)
    }
}

/// What a test needs and this machine can't give. Found in an error by `skip_or_fail`.
#[derive(Debug)]
pub struct Missing {
    what: String,
}

impl Missing {
    /// Says what is missing, in words for whoever runs the tests.
    pub fn new(what: impl Into<String>) -> Missing {
        Missing { what: what.into() }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Missing {}

/// Ends a test that could not get its clients: says plainly that it was left out, so that the test can return.
///
/// Panics where the error is anything but `Missing`, and where `RINGWAY_REQUIRE_CLIENTS=1` asks for completeness.
pub fn skip_or_fail(test: &str, error: &anyhow::Error) {
    let required = std::env::var_os(REQUIRE_CLIENTS).is_some_and(|value| value == "1");
    match error.downcast_ref::<Missing>() {
        // Not with a print macro: the test program would keep that to itself, as the test passes.
        Some(missing) if !required => drop(writeln!(std::io::stderr(), "LEFT OUT: {test}: {missing}")),
        Some(_) => panic!("{test}: {REQUIRE_CLIENTS}=1, but {error:#}"),
        None => panic!("{test}: {error:#}"),
    }
}

/// What a test got ready, or `None` where it has to be left out, which is then said: see `skip_or_fail`.
pub fn or_left_out<T>(test: &str, prepared: anyhow::Result<T>) -> Option<T> {
    prepared.map_err(|error| skip_or_fail(test, &error)).ok()
}

/// Installs the npm set `cluster-tests/clients/<set>` exactly as its lock file says.
pub async fn npm(set: &str) -> anyhow::Result<Npm> {
    // Needed to run what is installed, too.
    require_program("node", NODE).await?;
    let installation = Installation::begin(set, &["package.json", "package-lock.json"]).await?;
    let dir = installation.dir.clone();
    if !installation.is_current() {
        require_program("npm", NODE).await?;
        let mut ci = Command::new("npm");
        // The audit and the funding notice would each ask the network for something no test needs.
        ci.args(["ci", "--no-audit", "--no-fund"]).current_dir(&dir);
        installation.run(ci).await?;
        installation.finish()?;
    }
    Ok(Npm { dir })
}

/// Installs the Python set `cluster-tests/clients/<set>` into a virtual environment and gives its interpreter.
pub async fn python(set: &str) -> anyhow::Result<PathBuf> {
    let installation = Installation::begin(set, &["requirements.txt"]).await?;
    let venv = installation.dir.join("venv");
    let interpreter = venv.join("bin").join("python");
    if !installation.is_current() {
        require_program("python3", "Python 3.11 or newer with venv").await?;
        let mut create = Command::new("python3");
        create.args(["-m", "venv", "--clear"]).arg(&venv);
        installation.run(create).await?;
        let mut install = Command::new(&interpreter);
        // Every transitive package is pinned in the file; without dependencies pip can't add one that is not.
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]);
        install.arg(installation.dir.join("requirements.txt"));
        installation.run(install).await?;
        installation.finish()?;
    }
    Ok(interpreter)
}

/// Unpacks the newest build of a package that Debian's stable release has, as this machine's lists know it, below
/// the target directory, and gives that folder: nothing of the machine's own is changed. `program` is one of its
/// files, by which a former installation is known to be whole.
pub async fn debian(package: &str, program: &str) -> anyhow::Result<PathBuf> {
    let dir = places::target().join("clients").join(format!("debian-{package}"));
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let lock_path = dir.join(".lock");
    let lock = tokio::task::spawn_blocking(move || lock_exclusively(&lock_path)).await??;
    let installation = Installation { set: package.to_owned(), dir, pins: package.to_owned(), _lock: lock };
    let dir = installation.dir.clone();
    if !installation.is_current() || !dir.join(program).is_file() {
        require_program("apt-get", "a Debian system").await?;
        require_program("dpkg", "a Debian system").await?;
        let mut download = Command::new("apt-get");
        download.args(["download", "-q", package]).current_dir(&dir);
        installation.run(download).await?;
        let files = std::fs::read_dir(&dir)?.filter_map(Result::ok).map(|entry| entry.path());
        let packages = files.filter(|path| path.extension().is_some_and(|it| it == "deb"));
        let newest = packages.max().with_context(|| format!("apt-get download {package} left nothing"))?;
        let mut unpack = Command::new("dpkg");
        unpack.arg("-x").arg(newest).arg(&dir);
        installation.run(unpack).await?;
        installation.finish()?;
    }
    Ok(dir)
}

/// One set being installed; holds the set's file lock for as long as it lives.
struct Installation {
    set: String,
    dir: PathBuf,
    /// What the pinning files say: an installation made from the same text is current.
    pins: String,
    _lock: File,
}

impl Installation {
    async fn begin(set: &str, pin_files: &[&str]) -> anyhow::Result<Installation> {
        let source = places::client_sources().join(set);
        let dir = places::target().join("clients").join(set);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let lock_path = dir.join(".lock");
        let lock = tokio::task::spawn_blocking(move || lock_exclusively(&lock_path)).await??;
        copy_files(&source, &dir)?;
        let mut pins = String::new();
        for name in pin_files {
            let path = source.join(name);
            pins += &std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        }
        Ok(Installation { set: set.to_owned(), dir, pins, _lock: lock })
    }

    fn stamp(&self) -> PathBuf {
        self.dir.join(".installed-from")
    }

    fn is_current(&self) -> bool {
        std::fs::read_to_string(self.stamp()).is_ok_and(|installed| installed == self.pins)
    }

    /// Runs one step. A failure counts as `Missing`: nearly always the registry can't be reached from here.
    async fn run(&self, mut step: Command) -> anyhow::Result<()> {
        let shown = shown(&step);
        step.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(INSTALL_DEADLINE, step.output())
            .await
            .map_err(|_| self.failed(&shown, &format!("not done within {INSTALL_DEADLINE:?}")))?
            .with_context(|| format!("starting `{shown}`"))?;
        if !output.status.success() {
            let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
            bail!(
                self.failed(&shown, &format!("{}: {}", output.status, String::from_utf8_lossy(&said).trim()))
            );
        }
        Ok(())
    }

    fn failed(&self, step: &str, why: &str) -> Missing {
        Missing::new(format!("the client set `{}` could not be installed: `{step}`: {why}", self.set))
    }

    fn finish(&self) -> anyhow::Result<()> {
        let stamp = self.stamp();
        std::fs::write(&stamp, &self.pins).with_context(|| format!("writing {}", stamp.display()))
    }
}

/// The step as one would type it, without the folders that lead to its program.
fn shown(step: &Command) -> String {
    let step = step.as_std();
    let program = Path::new(step.get_program()).file_name().unwrap_or(step.get_program());
    let words: Vec<_> = std::iter::once(program).chain(step.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// Fails with `Missing` where `program` can't be started at all.
async fn require_program(program: &str, needed: &str) -> anyhow::Result<()> {
    let answer = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await;
    match answer {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            bail!(Missing::new(format!("`{program} --version` ends with {status}; needed: {needed}")))
        }
        Err(error) => bail!(Missing::new(format!("`{program}` is missing ({error}); needed: {needed}"))),
    }
}

/// Copies every plain file of the committed set, since a script finds its packages beside itself.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let source = entry?.path();
        let Some(name) = source.file_name().filter(|_| source.is_file()) else { continue };
        let content = std::fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
        let copy = to.join(name);
        if std::fs::read(&copy).is_ok_and(|present| present == content) {
            continue;
        }
        // Renamed into place: another test program may be running the copy right now.
        let fresh = to.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        std::fs::write(&fresh, &content).with_context(|| format!("writing {}", fresh.display()))?;
        std::fs::rename(&fresh, &copy).with_context(|| format!("writing {}", copy.display()))?;
    }
    Ok(())
}

/// Waits for the file's exclusive lock. The kernel gives it back when the file closes, however the program ends.
#[allow(unsafe_code)] // flock: `File::lock` needs Rust 1.89, the workspace promises 1.88
fn lock_exclusively(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    loop {
        // SAFETY: `file` is open for the whole call, and flock touches no memory of ours.
        let answer = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
        if answer == 0 {
            return Ok(file);
        }
        let error = std::io::Error::last_os_error();
        // A signal that interrupts the wait says nothing about the lock.
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).with_context(|| format!("locking {}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use super::*;

    #[test]
    fn a_step_is_shown_without_the_folders_that_lead_to_it() {
        let mut step = Command::new("/some/where/python");
        step.args(["-m", "pip"]);
        assert_eq!(shown(&step), "python -m pip");
    }

    #[test]
    fn a_missing_program_is_told_from_a_mistake() {
        let missing = anyhow::Error::new(Missing::new("`npm` is missing"));
        assert!(missing.downcast_ref::<Missing>().is_some());
        let mistake = anyhow::anyhow!("no such set");
        assert!(mistake.downcast_ref::<Missing>().is_none());
    }

    #[test]
    fn a_copied_set_is_left_alone_until_it_changes() {
        let dir = places::scratch("copied-set").unwrap();
        let (from, to) = (dir.join("from"), dir.join("to"));
        std::fs::create_dir_all(&from).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        std::fs::write(from.join("drive"), "one").unwrap();
        copy_files(&from, &to).unwrap();
        let first = std::fs::metadata(to.join("drive")).unwrap().modified().unwrap();
        copy_files(&from, &to).unwrap();
        assert_eq!(std::fs::metadata(to.join("drive")).unwrap().modified().unwrap(), first);
        std::fs::write(from.join("drive"), "two").unwrap();
        copy_files(&from, &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("drive")).unwrap(), "two");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = require_program("no-such-program-here", "a thing").await.unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
    }
}
