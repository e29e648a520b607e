//! Callers whom a proxy in front has authenticated, and names in a header. That a header of this name comes from
//! nobody else is made sure before ([`Auth::cleanse`](super::Auth::cleanse)).

use super::{Denied, principal};
use crate::headers::Headers;
use hyper::header::HeaderName;
use proto::id::Principal;

/// Longer than any user's name, distinguished name or mail address (254) that a proxy passes on.
const NAME_LEN_MAX: usize = 1_024;

/// The header in which callers are named.
#[derive(Clone, Debug)]
pub(super) struct Named(pub(super) HeaderName);

impl Named {
    pub(super) fn check(&self, headers: &Headers) -> Result<Principal, Denied> {
        let mut named = headers.get_all(&self.0);
        let Some(name) =
            named.next().map(|name| name.as_bytes().trim_ascii()).filter(|name| !name.is_empty())
        else {
            return Err(Denied::Unproven("No trusted proxy says who calls"));
        };
        // A proxy that adds its header to what the client sent would let anybody be anybody.
        if named.next().is_some() {
            return Err(Denied::Unproven("More than one caller is named"));
        }
        if name.len() > NAME_LEN_MAX {
            return Err(Denied::Unproven("The caller's name is too long"));
        }
        Ok(principal("header", [self.0.as_str().as_bytes(), name]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn one_name_is_one_caller_and_several_are_none() {
        let named = Named(HeaderName::from_static("x-user"));
        let check = |values: &[&str]| {
            let mut headers = Headers::new();
            for value in values {
                headers.append(
                    HeaderName::from_static("x-user"),
                    HeaderValue::from_str(value).expect("a value"),
                );
            }
            named.check(&headers)
        };
        assert_eq!(check(&["alice"]), check(&[" alice "]));
        assert_ne!(check(&["alice"]), check(&["bob"]));
        for wrong in [&[][..], &[""], &[" "], &["alice", "alice"], &["alice", "bob"], &[&"a".repeat(1_025)]] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
        assert!(check(&[&"a".repeat(1_024)]).is_ok());
    }
}
