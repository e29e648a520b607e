//! Which of the programs that Ringway is compared with are installed here. Called by `bench`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where programs for administrators are, which is not in everybody's `PATH`.
const ADMINISTRATORS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// `None` is left out, and reports say how to install it.
#[derive(Debug)]
pub(in super::super) struct Installed {
    pub(super) nginx: Option<PathBuf>,
    pub(super) haproxy: Option<PathBuf>,
}

impl Installed {
    pub(in super::super) fn find() -> Installed {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let find = |name: &str| find(name, std::env::split_paths(&path));
        Installed { nginx: find("nginx"), haproxy: find("haproxy") }
    }

    /// A line for each: its version, or how to get it.
    pub(in super::super) fn programs(&self) -> Vec<String> {
        let line = |name: &str, package: &str, program: &Option<PathBuf>| match program {
            Some(program) => version(program),
            None => {
                format!("{name} is not installed and is left out; on Debian: `apt-get install {package}`")
            }
        };
        vec![line("nginx", "nginx-light", &self.nginx), line("HAProxy", "haproxy", &self.haproxy)]
    }
}

fn find(name: &str, path: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let folders = path.chain(ADMINISTRATORS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// The first line of what it says of itself, on whichever of stdout and stderr it says it.
fn version(program: &Path) -> String {
    let said = Command::new(program).arg("-v").output();
    let said = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&said);
    text.lines().next().map_or_else(|| program.display().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        assert_eq!(find("no-such-program", [PathBuf::from("/bin")].into_iter()), None);
        let none = Installed { nginx: None, haproxy: None }.programs();
        assert!(none[0].contains("left out") && none[0].contains("apt-get install nginx-light"), "{none:?}");
        assert!(none[1].contains("apt-get install haproxy"), "{none:?}");
    }
}
