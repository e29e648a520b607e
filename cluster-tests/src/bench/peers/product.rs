//! The names of what is compared, on the command line and in reports. Called by the cases and by `bench hold`.

use clap::ValueEnum;

use crate::bench::report::RINGWAY;

/// Everything that requests are sent through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Product {
    /// Nothing: the load meets the backend.
    Direct,
    #[value(alias = "proxy")]
    BareHyper,
    Nginx,
    Haproxy,
    /// The node that owns the sessions.
    #[value(alias = "owner")]
    Ringway,
    /// Two, over mutual TLS.
    NginxHop,
    /// Two, over mutual TLS and HTTP/1.1.
    HaproxyHop,
    /// Two, over mutual TLS and HTTP/2.
    HaproxyHopH2,
    /// A node that does not own the sessions, and the one that does.
    #[value(alias = "forwarded")]
    RingwayHop,
}

impl Product {
    /// As reports call it.
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Product::Direct => "direct",
            Product::BareHyper => "bare hyper proxy",
            Product::Nginx => "nginx",
            Product::Haproxy => "HAProxy",
            Product::Ringway => RINGWAY,
            Product::NginxHop => "nginx x2, mTLS",
            Product::HaproxyHop => "HAProxy x2, mTLS h1",
            Product::HaproxyHopH2 => "HAProxy x2, mTLS h2",
            Product::RingwayHop => "Ringway x2, QUIC",
        }
    }
}
