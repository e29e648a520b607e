//! A client that wants to leave HTTP for another protocol, a WebSocket's for the most part: the wish goes
//! with its request to the upstream, and if that agrees, the client's connection is joined to the
//! upstream's.

use super::{Front, Open, coming::Request};
use crate::answer::{Answer, BodyStream, Broke, whole};
use crate::headers::Headers;
use crate::upgraded::{self, Joint};
use hyper::{
    StatusCode, Version,
    body::Body,
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use std::time::Duration;

/// Protocols that carry requests: who spoke one of them to an upstream directly would have got past the
/// routes. Such a wish is passed over, as RFC 9110 allows, and the request served by what it speaks now.
const HTTP_AGAIN: [&str; 3] = ["h2c", "http", "tls"];

/// A client whose upstream has ended its direction ends too, or is cut off: what it could still say, hardly
/// anybody would hear. Linux gives a connection as long that is closed at one end (`tcp_fin_timeout`).
const LAST_WORDS: Duration = Duration::from_secs(60);

/// The wish of a request that is served otherwise if it is not granted.
pub(super) struct Wish {
    pub(super) protocol: HeaderValue,
    pub(super) client: Client,
}

/// The client's connection, for when HTTP is done with it.
pub(super) struct Client {
    upgrade: OnUpgrade,
    joint: Joint,
}

impl Wish {
    /// The wish, and what the client will send once it is granted.
    pub(super) fn of(request: &mut Request) -> Option<(Self, BodyStream)> {
        // One with a body would have to be answered before the protocol changes; nobody sends such.
        let protocol = protocol(request.version, &request.headers)?;
        if !request.body.is_end_stream() {
            return None;
        }
        let upgrade = request.extensions.remove()?; // of HTTP/1.1 hyper puts it on each that asks
        let (coming, joint) = upgraded::body(Broke::Client);
        let client = Client { upgrade, joint };
        Some((Self { protocol, client }, coming))
    }
}

impl Front {
    /// What goes to a client that had wished for it when the upstream agrees: the head of that answer.
    /// What follows it goes between the two until they have done, or the node leaves.
    pub(super) fn switch(&self, answer: Answer, client: Option<Client>) -> Answer {
        let Some(Client { upgrade, joint }) =
            client.filter(|_| answer.status() == StatusCode::SWITCHING_PROTOCOLS)
        else {
            return answer;
        };
        let (head, body) = answer.into_parts();
        let (open, leaving) = (Open::new(self.metrics.clone()), self.leaving.clone());
        self.lasting.spawn(async move {
            let turn = leaving.turn();
            let joined = async {
                match upgrade.await {
                    Ok(io) => joint.join(TokioIo::new(io), body, Some(LAST_WORDS)).await,
                    Err(error) => tracing::debug!(%error, "a client left before it was upgraded"),
                }
            };
            // It would never end by itself, as a server's own stream of events.
            tokio::select! {
                () = joined => {}
                () = leaving.comes_to(turn) => {}
                () = leaving.cuts() => {}
            }
            drop(open);
        });
        Answer::from_parts(head, whole(""))
    }
}

/// The protocol that a request asks for, if it can be had.
fn protocol(version: Version, headers: &Headers) -> Option<HeaderValue> {
    let listed = headers.get_all(header::CONNECTION).filter_map(|list| list.to_str().ok());
    let is_asked =
        listed.flat_map(|list| list.split(',')).any(|name| name.trim().eq_ignore_ascii_case("upgrade"));
    let mut lines = headers.get_all(header::UPGRADE);
    let (Some(wish), None) = (lines.next(), lines.next()) else { return None };
    let names = wish.to_str().ok()?.split(',').filter_map(|protocol| protocol.split('/').next());
    let is_http =
        names.map(str::trim).any(|name| HTTP_AGAIN.iter().any(|one| name.eq_ignore_ascii_case(one)));
    (version == Version::HTTP_11 && is_asked && !is_http).then(|| wish.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(version: Version, connection: &'static str, upgrade: &'static str) -> Option<HeaderValue> {
        let mut headers = Headers::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
        headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
        protocol(version, &headers)
    }

    #[test]
    fn any_protocol_may_be_asked_for_but_http_by_another_name() {
        for (connection, protocol) in
            [("Upgrade", "websocket"), ("keep-alive, upgrade", "WebSocket"), ("upgrade", "rotate/13, tcp")]
        {
            assert_eq!(asked(Version::HTTP_11, connection, protocol).expect("a wish"), protocol);
        }
        for http in ["h2c", "websocket, H2C", "HTTP/2.0", "TLS/1.2, HTTP/1.1"] {
            assert_eq!(asked(Version::HTTP_11, "upgrade", http), None, "{http}");
        }
        assert_eq!(
            asked(Version::HTTP_11, "keep-alive", "websocket"),
            None,
            "not listed, so not for this hop"
        );
        assert_eq!(asked(Version::HTTP_10, "upgrade", "websocket"), None);
        assert_eq!(asked(Version::HTTP_2, "upgrade", "websocket"), None);
        let mut headers = Headers::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        assert_eq!(protocol(Version::HTTP_11, &headers), None, "to what?");
    }
}
