//! The admin token, as its file holds it.

/// 16 characters of base64 are 96 bits: beyond guessing. Headers end at 64 KiB.
const TOKEN_LEN_MIN: usize = 16;
const TOKEN_LEN_MAX: usize = 512;

/// The token in a file: one line of visible characters.
pub(crate) fn admin_token(content: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(content).unwrap_or_default().trim();
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic());
    match text.len() {
        TOKEN_LEN_MIN..=TOKEN_LEN_MAX if is_plain => Ok(text.to_owned()),
        _ => Err(format!(
            "a token is one line of {TOKEN_LEN_MIN} to {TOKEN_LEN_MAX} visible ASCII characters \
             (such as `openssl rand -hex 32` prints)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_token_is_refused() {
        for bad in ["", "short", "0123456789 abcdef", "0123456789abcde\u{e4}"] {
            assert!(admin_token(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
