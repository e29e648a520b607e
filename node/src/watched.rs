//! Files that are read again when they change: secrets, certificates, key sets. Whoever writes one may do it
//! by any means (in place, by renaming, by moving a symbolic link as Kubernetes does), so it is the content
//! that is compared, and what is read while it is being written is never believed.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// A change is acted on by the second look after it: within two of these.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that is being replaced is there again by then.
const ABSENT_MAX: u32 = 5;

/// Files that belong together, such as a certificate and its key, and what was last read of them.
#[derive(Debug)]
pub(crate) struct Watched {
    paths: Vec<PathBuf>,
    known: Option<Vec<Vec<u8>>>,
}

impl Watched {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// When one can't be read; it is named.
    pub(crate) fn read(paths: Vec<PathBuf>) -> io::Result<(Self, Vec<Vec<u8>>)> {
        let named = |path: &PathBuf, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| named(path, error));
        let contents: Vec<_> = paths.iter().map(read).collect::<Result<_, _>>()?;
        Ok((Self { paths, known: Some(contents.clone()) }, contents))
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }

    /// Resolves with what they hold, once that is something else than before and the same at two looks.
    pub(crate) async fn changed(&mut self) -> Vec<Vec<u8>> {
        let (mut seen, mut absent) = (None, 0);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = match self.look().await {
                Ok(contents) => {
                    absent = 0;
                    Some(contents)
                }
                Err((path, error)) => {
                    absent += 1;
                    if absent == ABSENT_MAX {
                        let file = path.display();
                        tracing::error!(%file, %error, "can't be read; what it held before is used on");
                    }
                    None
                }
            };
            match now {
                // One that is not there is about to be.
                None => seen = None,
                Some(_) if now == self.known => seen = None,
                Some(contents) if seen.as_ref() == Some(&contents) => {
                    self.known = Some(contents.clone());
                    return contents;
                }
                Some(contents) => seen = Some(contents),
            }
        }
    }

    async fn look(&self) -> Result<Vec<Vec<u8>>, (&Path, io::Error)> {
        let mut contents = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            contents.push(tokio::fs::read(path).await.map_err(|error| (path.as_path(), error))?);
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pair_is_read_again_when_both_stand_still() {
        let dir = std::env::temp_dir().join(format!("ringway-watched-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder for temporary files");
        let paths = [dir.join("cert"), dir.join("key")];
        for path in &paths {
            std::fs::write(path, "old").expect("it can be written");
        }
        let (mut watched, contents) = Watched::read(paths.to_vec()).expect("both are there");
        assert_eq!(contents, [b"old", b"old"]);
        assert!(
            tokio::time::timeout(LOOK_EVERY * 4, watched.changed()).await.is_err(),
            "nothing has changed"
        );
        std::fs::remove_file(&paths[0]).expect("it is there");
        assert!(tokio::time::timeout(LOOK_EVERY * 4, watched.changed()).await.is_err(), "one is missing");
        for path in &paths {
            std::fs::write(path, "new").expect("it can be written");
        }
        assert_eq!(watched.changed().await, [b"new", b"new"]);
        assert!(tokio::time::timeout(LOOK_EVERY * 4, watched.changed()).await.is_err(), "that is known now");
        assert!(Watched::read(vec![dir.join("absent")]).is_err());
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
}
