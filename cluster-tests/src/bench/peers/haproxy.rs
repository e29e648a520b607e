//! HAProxy: one process with one thread, its config written for the run. Called by `peers`.

use std::path::Path;

use tokio::process::Command;

use super::certificates::NAME;
use super::{Http, Proxy, Side};

/// `-db` keeps it in the foreground and alone.
pub(super) fn arguments(command: &mut Command, config: &Path) {
    command.args(["-db", "-q", "-f"]).arg(config);
}

/// Requests are spread by session as a cluster's would be: HAProxy hashes though there is but one server (a second line
/// for the same would halve what shares a connection of HTTP/2). It passes bodies on as they come, but tells the kernel
/// to wait for more of them, which holds an event back for 200 ms and longer unless it is told not to (`http-no-delay`).
pub(super) fn config(proxy: &Proxy<'_>) -> String {
    let Proxy { listen, upstream, side, http, certificates, .. } = proxy;
    let (both, authority) = (certificates.both.display(), certificates.authority.display());
    let shown = format!(" ssl crt {both} ca-file {authority} verify required ssl-min-ver TLSv1.3");
    let accepting = match side {
        Side::Clients => format!("{shown} alpn h2,http/1.1"),
        Side::Neither | Side::Upstream => String::new(),
    };
    let dialling = match (side, http) {
        (Side::Upstream, Http::Two) => format!("{shown} sni str({NAME}) verifyhost {NAME} alpn h2"),
        (Side::Upstream, Http::One) => format!("{shown} sni str({NAME}) verifyhost {NAME}"),
        (Side::Neither | Side::Clients, _) => String::new(),
    };
    format!(
        "global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    option http-no-delay
    http-reuse always
frontend in
    bind {listen}{accepting}
    default_backend behind
backend behind
    balance hdr(mcp-session-id)
    hash-type consistent
    server one {upstream}{dialling}
"
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_proxies;
    use super::*;

    #[test]
    fn it_has_one_thread_and_hashes_sessions() {
        with_proxies(|proxy| {
            let text = config(&proxy);
            for line in
                ["nbthread 1", "balance hdr(mcp-session-id)", "hash-type consistent", "http-reuse always"]
            {
                assert!(text.contains(line), "no `{line}` in {text}");
            }
        });
    }

    #[test]
    fn both_ends_of_a_hop_verify_the_other_and_speak_what_is_asked_for() {
        with_proxies(|proxy| {
            let (text, side) = (config(&proxy), proxy.side);
            let line =
                |start: &str| text.lines().find(|line| line.trim().starts_with(start)).unwrap_or_default();
            let (bind, server) = (line("bind"), line("server"));
            assert_eq!(bind.contains("verify required"), side == Side::Clients, "{text}");
            assert_eq!(server.contains("verify required"), side == Side::Upstream, "{text}");
            let is_h2 = side == Side::Upstream && proxy.http == Http::Two;
            assert_eq!(server.ends_with("alpn h2"), is_h2, "{text}");
        });
    }
}
