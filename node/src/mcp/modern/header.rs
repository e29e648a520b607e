//! Header values that mirror a body's (2026-07-28, Streamable HTTP, "Value Encoding").

use data_encoding::BASE64;
use hyper::header::HeaderValue;
use std::borrow::Cow;

const PREFIX: &str = "=?base64?";
const SUFFIX: &str = "?=";

/// What a mirrored value says. One that is encoded badly is taken as it stands.
pub(crate) fn decoded(value: &HeaderValue) -> Cow<'_, [u8]> {
    said(value).unwrap_or(Cow::Borrowed(value.as_bytes()))
}

/// What a mirrored value says; `None` for one that is encoded badly, or is of bytes that no value is.
pub(super) fn said(value: &HeaderValue) -> Option<Cow<'_, [u8]>> {
    let text = value.as_bytes();
    let encoded = text.strip_prefix(PREFIX.as_bytes()).and_then(|text| text.strip_suffix(SUFFIX.as_bytes()));
    match encoded {
        Some(encoded) => BASE64.decode(encoded).ok().map(Cow::Owned),
        None => text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')).then_some(Cow::Borrowed(text)),
    }
}

/// The header value that says `text`.
pub(crate) fn encoded(text: &str) -> HeaderValue {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && text.trim_matches(' ').len() == text.len()
        && !text.starts_with(PREFIX);
    let plain = is_plain.then(|| HeaderValue::from_str(text).ok()).flatten();
    plain.unwrap_or_else(|| {
        let encoded = format!("{PREFIX}{}{SUFFIX}", BASE64.encode(text.as_bytes()));
        HeaderValue::from_str(&encoded).expect("base64 is visible ASCII")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_can_not_carry_is_encoded_and_comes_back() {
        for (text, value) in [
            ("task-1", "task-1"),
            ("a b", "a b"),
            ("", ""),
            ("ä", "=?base64?w6Q=?="),
            (" x", "=?base64?IHg=?="),
            ("a\n", "=?base64?YQo=?="),
            ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
        ] {
            let header = encoded(text);
            assert_eq!(header, value, "{text:?}");
            assert_eq!(decoded(&header), text.as_bytes());
        }
        for plain in ["=?base64?***?=", "=?base64?", "x?="] {
            assert_eq!(decoded(&HeaderValue::from_static(plain)), plain.as_bytes());
        }
    }
}
