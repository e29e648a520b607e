//! Who is let in, and what those are told who are not: the first that is asked of a request to an MCP route.

use super::{Front, coming::Request, crowd::Arrival, origin, read::Refused, respond};
use crate::answer::Answer;
use crate::auth::{Auth, Denied};
use crate::config::Route;
use crate::headers::FORWARDED_PROTO;
use hyper::{
    Method,
    header::{self, HeaderValue},
};
use proto::wire::Caller;
use std::net::IpAddr;

/// Why a request goes no further, or only as far as it takes to say so.
pub(super) enum Unadmitted {
    Denied(&'static str, Box<HeaderValue>),
    KeysUnknown,
}

impl Front {
    pub(super) async fn admit(
        &self,
        route: &Route,
        from: (IpAddr, &Arrival),
        request: &Request,
    ) -> Result<Caller, Unadmitted> {
        match self.auth.check(route, &request.headers).await {
            Ok(caller) => Ok(caller),
            Err(Denied::KeysUnknown) => Err(Unadmitted::KeysUnknown),
            Err(Denied::Unproven(why)) => {
                tracing::debug!(route = route.path, why, "a caller was not let in");
                let challenge = self.auth.challenge(route, self.called(request, from), why);
                Err(Unadmitted::Denied(why, Box::new(challenge)))
            }
        }
    }

    /// The document that says where tokens are to be had, if that is asked for. Anybody may.
    pub(super) fn document(
        &self,
        request: &Request,
        from: (IpAddr, &Arrival),
    ) -> Option<(Answer, &'static str)> {
        let path = request.uri.path();
        if !Auth::is_metadata(path) {
            return None;
        }
        let document = self.auth.metadata(&self.routes, path, self.called(request, from))?;
        Some(match request.method {
            Method::GET | Method::HEAD => (respond::document(&document), "answered"),
            Method::OPTIONS => match origin::preflight(&request.headers, "GET") {
                Some(answer) => (answer, "preflight"),
                None => (respond::refused(Refused::Method("GET")), "bad_request"),
            },
            _ => (respond::refused(Refused::Method("GET")), "bad_request"),
        })
    }

    /// The scheme and the host that the client called, as far as they can be known.
    fn called<'a>(
        &self,
        request: &'a Request,
        (from, arrival): (IpAddr, &Arrival),
    ) -> (&'static str, Option<&'a str>) {
        let authority = request.uri.authority().map(|authority| authority.as_str()); // HTTP/2
        let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let said = request.headers.get(FORWARDED_PROTO).filter(|_| self.auth.trusts(from));
        let is_https = arrival.is_tls() || said.is_some_and(|said| said == "https");
        (if is_https { "https" } else { "http" }, host.or(authority))
    }
}
