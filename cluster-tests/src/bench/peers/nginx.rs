//! nginx: one process without a master, its config written for the run. Called by `peers`.

use std::path::Path;

use tokio::process::Command;

use super::certificates::{Certificates, NAME};
use super::{KEPT, Proxy, Side};

/// Of a connection, which nginx would otherwise close after a thousand.
const REQUESTS_MAX: u32 = 1_000_000_000;

/// `-e` is for what it has to say before it has read its config.
pub(super) fn arguments(command: &mut Command, config: &Path) {
    command.args(["-e", "stderr", "-c"]).arg(config);
}

/// Requests are spread by session as a cluster's would be, over a server that is named twice: of a single one nginx
/// makes no choice, and the two share their connections. Nothing is buffered that an event stream could wait in; the
/// room for a piece of an answer (`proxy_buffer_size`) is that of a large body's pieces.
pub(super) fn config(proxy: &Proxy<'_>) -> String {
    let Proxy { listen, upstream, dir, side, certificates, .. } = proxy;
    let dir = dir.display();
    let (tls_in, scheme, tls_out) = match side {
        Side::Neither => (String::new(), "http", String::new()),
        Side::Clients => (accepting(certificates), "http", String::new()),
        Side::Upstream => (String::new(), "https", dialling(certificates)),
    };
    let ssl = if *side == Side::Clients { " ssl" } else { "" };
    format!(
        "worker_processes 1;
master_process off;
daemon off;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    keepalive_requests {REQUESTS_MAX};
    keepalive_timeout 1h;
    client_max_body_size 64m;
    client_body_buffer_size 64k;
    client_body_temp_path {dir}/client-bodies;
    proxy_temp_path {dir}/answers;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    upstream behind {{
        hash $http_mcp_session_id consistent;
        server {upstream};
        server {upstream};
        keepalive {KEPT};
        keepalive_requests {REQUESTS_MAX};
        keepalive_timeout 1h;
    }}
    server {{
        listen {listen}{ssl};
{tls_in}        location / {{
            proxy_pass {scheme}://behind;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_buffering off;
            proxy_buffer_size 64k;
            proxy_buffers 4 64k;
            proxy_request_buffering off;
            proxy_read_timeout 1h;
{tls_out}        }}
    }}
}}
"
    )
}

fn accepting(Certificates { authority, certificate, key, .. }: &Certificates) -> String {
    let (authority, certificate, key) = (authority.display(), certificate.display(), key.display());
    format!(
        "        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_client_certificate {authority};
        ssl_verify_client on;
        ssl_protocols TLSv1.3;
"
    )
}

fn dialling(Certificates { authority, certificate, key, .. }: &Certificates) -> String {
    let (authority, certificate, key) = (authority.display(), certificate.display(), key.display());
    format!(
        "            proxy_ssl_certificate {certificate};
            proxy_ssl_certificate_key {key};
            proxy_ssl_trusted_certificate {authority};
            proxy_ssl_verify on;
            proxy_ssl_name {NAME};
            proxy_ssl_server_name on;
            proxy_ssl_protocols TLSv1.3;
"
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_proxies;
    use super::*;

    #[test]
    fn it_is_one_process_that_keeps_its_connections() {
        with_proxies(|proxy| {
            let text = config(&proxy);
            for line in [
                "master_process off;",
                "daemon off;",
                "keepalive 64;",
                "hash $http_mcp_session_id consistent;",
            ] {
                assert!(text.contains(line), "no `{line}` in {text}");
            }
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        });
    }

    #[test]
    fn both_ends_of_a_hop_verify_the_other() {
        with_proxies(|proxy| {
            let (text, side) = (config(&proxy), proxy.side);
            assert_eq!(text.contains("ssl_verify_client on;"), side == Side::Clients, "{text}");
            assert_eq!(text.contains("listen 127.0.0.1:1 ssl;"), side == Side::Clients, "{text}");
            assert_eq!(text.contains("proxy_ssl_verify on;"), side == Side::Upstream, "{text}");
            assert_eq!(text.contains("https://behind"), side == Side::Upstream, "{text}");
        });
    }
}
