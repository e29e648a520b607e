//! The secret file: one secret a line, of which the first is in use and all are accepted. Read when the node
//! starts and whenever the file changes ([`rotation`](crate::rotation)).

use proto::id::ClusterSecret;
use std::{os::unix::fs::PermissionsExt, path::Path};

/// A rotation takes two, and somebody may begin the next before the last one is done with. Each is one more key
/// to try what is forged with.
const SECRETS_MAX: usize = 8;

/// What the file holds. One that stands there twice counts once.
///
/// # Errors
/// What is wrong, with its line, and with nothing of what stands there.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<ClusterSecret>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
    let mut secrets = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let secret: ClusterSecret = line.parse().map_err(|error| format!("line {number}: {error}"))?;
        if !secrets.contains(&secret) {
            secrets.push(secret);
        }
    }
    match secrets.len() {
        0 => Err("it holds no secret".to_owned()),
        1..=SECRETS_MAX => Ok(secrets),
        count => Err(format!("it holds {count} secrets, at most {SECRETS_MAX} are read")),
    }
}

/// Whom the file's mode lets at the secrets, where that is more than the owner and a group that may read, with
/// the remedy.
pub(crate) fn exposure(file: &Path) -> Option<String> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode() & 0o777;
    let whom = match mode {
        _ if mode & 0o007 != 0 => "every user of this machine",
        _ if mode & 0o020 != 0 => "its whole group, to write,",
        _ => return None,
    };
    let file = file.display();
    Some(format!("the secret file {file} is open to {whom} (mode {mode:04o}): run `chmod 600 {file}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(seed: u8) -> ClusterSecret {
        ClusterSecret::from_entropy([seed; 32])
    }

    #[test]
    fn secrets_come_in_the_order_of_their_lines_and_each_once() {
        let [old, new] = [secret(1), secret(2)];
        let text =
            format!("# to be removed\n{}\n\n  {}  \n{}\n", old.to_text(), new.to_text(), old.to_text());
        assert_eq!(parse(text.as_bytes()), Ok(vec![old, new]));
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_shows_nothing_of_a_secret() {
        let whole = secret(1).to_text();
        let cut = &whole[..whole.len() - 1];
        let many: String = (0..9).map(|seed| secret(seed).to_text() + "\n").collect();
        for (text, part) in [
            (format!("{whole}\n{cut}"), "line 2"),
            (String::new(), "no secret"),
            ("# none yet".to_owned(), "no secret"),
            (many, "at most 8"),
        ] {
            let error = parse(text.as_bytes()).expect_err("it is wrong");
            assert!(error.contains(part), "{error}");
            assert!(!error.contains(&cut[10..20]), "{error}");
        }
        assert!(parse(b"\xff\xfe").is_err());
    }

    #[test]
    fn a_file_that_others_may_read_is_named_with_the_remedy() {
        let file = std::env::temp_dir().join(format!("ringway-exposure-{}", std::process::id()));
        std::fs::write(&file, "x").expect("a folder for temporary files");
        for (mode, is_open) in
            [(0o600, false), (0o400, false), (0o640, false), (0o644, true), (0o604, true), (0o660, true)]
        {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("it is ours");
            let said = exposure(&file);
            assert_eq!(said.is_some(), is_open, "{mode:o}: {said:?}");
            assert!(said.is_none_or(|said| said.contains("chmod 600")));
        }
        std::fs::remove_file(&file).expect("it is ours");
        assert_eq!(exposure(&file), None);
    }
}
