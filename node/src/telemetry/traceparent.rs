//! The header by which a request belongs to a trace (W3C Trace Context, level 2).
//!
//! A node that exports no spans takes no part: the header passes it untouched, whatever it says.

use hyper::header::{HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LEN: usize = 55;
const SAMPLED: u8 = 1;
/// The trace id's last 7 bytes are random (level 2).
const RANDOM: u8 = 2;

/// Which trace, and which span of it everything that follows belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(super) trace: u128,
    pub(super) span: u64,
    flags: u8,
}

impl Context {
    /// A new trace, to be sampled.
    pub(super) fn begin(trace: u128, span: u64) -> Self {
        Self { trace, span, flags: SAMPLED | RANDOM }
    }

    /// What its lines say; `None` where they say nothing, or nothing valid.
    pub(super) fn of<'a>(mut lines: impl Iterator<Item = &'a HeaderValue>) -> Option<Self> {
        match (lines.next(), lines.next()) {
            (Some(line), None) => Self::parse(line.as_bytes()),
            _ => None,
        }
    }

    pub(super) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace, seen from another span of it.
    pub(super) fn at(self, span: u64) -> Self {
        Self { span, ..self }
    }

    /// As this node writes it: of version 0, with the flags that version has.
    pub(super) fn to_header(self) -> HeaderValue {
        let Self { trace, span, flags } = self;
        let text = format!("00-{trace:032x}-{span:016x}-{:02x}", flags & (SAMPLED | RANDOM));
        HeaderValue::from_str(&text).expect("digits and dashes")
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LEN)?;
        let digits = |from: usize, to: usize| {
            let digits = &known[from..to];
            let is_one = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let text = str::from_utf8(digits).ok().filter(|_| digits.iter().all(is_one))?;
            u128::from_str_radix(text, 16).ok()
        };
        let version = digits(0, 2)?;
        // A later version may say more behind a dash, and 255 is none.
        let is_whole = if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|it| *it == b'-') };
        let has_dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        if version == 0xff || !is_whole || !has_dashes {
            return None;
        }
        let (trace, span) = (digits(3, 35)?, u64::try_from(digits(36, 52)?).ok()?);
        let flags = u8::try_from(digits(53, 55)?).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(lines: &[&str]) -> Option<Context> {
        let values: Vec<_> = lines.iter().map(|line| HeaderValue::from_str(line).expect("plain")).collect();
        Context::of(values.iter())
    }

    #[test]
    fn a_header_is_read_and_written_again() {
        let context = of(&[GIVEN]).expect("valid");
        assert_eq!(context.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((context.span, context.is_sampled()), (0xb7ad_6b71_6920_3331, true));
        assert_eq!(context.to_header(), GIVEN);
        let next = context.at(1).to_header();
        assert_eq!(next, "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01");
    }

    #[test]
    fn what_later_versions_add_is_passed_over() {
        let later = format!("cc{}-what-else", &GIVEN[2..]);
        assert_eq!(of(&[&later]).expect("valid").to_header(), GIVEN);
        assert_eq!(of(&[&format!("cc{}x", &GIVEN[2..])]), None);
        let flags = format!("{}ff", &GIVEN[..53]);
        assert_eq!(of(&[&flags]).expect("valid").to_header(), format!("{}03", &GIVEN[..53]).as_str());
    }

    #[test]
    fn what_is_no_context_is_none() {
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        for invalid in [
            "",
            "00",
            zero_trace.as_str(),
            zero_span.as_str(),
            &format!("ff{}", &GIVEN[2..]),
            &format!("{GIVEN}-x"),
            &GIVEN.to_uppercase(),
            &GIVEN.replace('-', "_"),
            &GIVEN.replace("b7ad", "+7ad"),
            &GIVEN[..54],
        ] {
            assert_eq!(of(&[invalid]), None, "{invalid}");
        }
        assert_eq!(of(&[GIVEN, GIVEN]), None, "two of them say nothing");
        assert_eq!(of(&[]), None);
    }
}
