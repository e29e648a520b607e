//! The list of all metrics: their names, what they mean and by what they are told apart. Nothing is registered
//! that is not listed; `deploy/METRICS.md` is this list, and dashboards and alerts use nothing else.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub(super) struct Listed {
    /// As Prometheus knows it: a counter's ends in `_total`.
    pub(super) name: &'static str,
    pub(super) of: Type,
    /// With their values, where these are few: for people, and for a test that they are all.
    #[cfg_attr(not(test), expect(dead_code))]
    pub(super) labels: &'static str,
    pub(super) help: &'static str,
}

const fn counter(name: &'static str, labels: &'static str, help: &'static str) -> Listed {
    Listed { name, of: Type::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static str, help: &'static str) -> Listed {
    Listed { name, of: Type::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static str, help: &'static str) -> Listed {
    Listed { name, of: Type::Histogram, labels, help }
}

pub(super) const LISTED: [Listed; 37] = [
    counter("ringway_requests_total", "route, outcome, hops", "Requests by route, outcome and peer hops"),
    histogram(
        "ringway_request_seconds",
        "way = local, forwarded, takeover, refused",
        "Time from a request's head to the head of its answer: by this node's session, another node's, one \
         whose owner was lost and that went on for this request, or without an answer of an upstream",
    ),
    counter(
        "ringway_session_not_found_total",
        "why = forged, other_route, unknown, deleted, expired, lost_upstream, lost_owner, ...",
        "404 answers by the reason that clients do not see",
    ),
    gauge("ringway_sessions", "state = live, idle", "Sessions that this node owns"),
    counter("ringway_sessions_opened_total", "route", "Sessions that were opened on this node"),
    counter(
        "ringway_sessions_ended_total",
        "why = deleted, expired, lost_upstream, lost_owner, ended_by_operator",
        "Sessions that ended on this node; those that other nodes take over go on",
    ),
    histogram(
        "ringway_session_open_seconds",
        "",
        "Time to open a session: its upstream's answer, and the first copy at another node",
    ),
    counter(
        "ringway_forwards_total",
        "peer, outcome = answered, refused, not_here, unsent",
        "Requests sent to the owning node, by node and outcome",
    ),
    histogram(
        "ringway_forward_seconds",
        "peer",
        "Time from sending a request to another node to the head of its answer",
    ),
    counter(
        "ringway_takeovers_total",
        "how = reattach, reinitialize; outcome = served, failed, lost, nothing_left",
        "Sessions of nodes that are over, by how they went on here, and whether they did",
    ),
    histogram(
        "ringway_takeover_seconds",
        "",
        "Time from the first sign that a node is over until its first session was served here, where \
         somebody asked for one within a minute",
    ),
    gauge("ringway_members", "phase = joining, active, draining, dead", "Members of the cluster by phase"),
    counter("ringway_deaths_total", "", "Incarnations of other nodes that were agreed to be over"),
    counter("ringway_rebirths_total", "", "Times that the others took this node for gone, and it began anew"),
    gauge("ringway_lease_held", "", "Whether this node may serve sessions now"),
    gauge("ringway_lease_remaining_seconds", "", "For how long it may, if it hears of nobody from now on"),
    gauge("ringway_parked_seconds", "", "For how long it has not been allowed to; 0 while it is"),
    gauge("ringway_streams", "", "Answers that this node is sending to clients"),
    counter(
        "ringway_reattached_total",
        "outcome = resumed, given_up",
        "Clients' event streams that lost their owner, by what became of them",
    ),
    gauge("ringway_children", "", "Child processes of stdio servers"),
    counter(
        "ringway_upstream_errors_total",
        "route, reason",
        "Requests that an upstream did not answer: it was not reached, broke off, or has too much to do",
    ),
    counter("ringway_connections_total", "mouth = clients, operators", "Connections that were accepted"),
    counter("ringway_events_total", "kind", "Changes of the cluster's state that this node has seen"),
    gauge(
        "ringway_secrets",
        "fingerprint, role = used, accepted",
        "Cluster secrets that this node has: the one it uses, and those it only accepts",
    ),
    counter(
        "ringway_other_secret_uses_total",
        "fingerprint, by = client, node",
        "What was accepted under another secret than the one this node uses: ids of clients, datagrams of nodes",
    ),
    counter(
        "ringway_strangers_total",
        "at",
        "Attempts to talk to this node by whoever has none of its cluster secrets",
    ),
    counter("ringway_peer_sent_bytes_total", "", "Bytes sent to other nodes, in UDP payload"),
    counter("ringway_peer_received_bytes_total", "", "Bytes received from other nodes, in UDP payload"),
    counter("ringway_spans_sent_total", "", "Spans that the collector took"),
    counter(
        "ringway_spans_dropped_total",
        "why = full, collector",
        "Spans that had no room, or that the collector did not take",
    ),
    gauge("ringway_build_info", "version, node", "Always 1; which program this is, and the node's name"),
    counter("process_cpu_seconds_total", "", "CPU time of this process, user and system"),
    gauge("process_resident_memory_bytes", "", "Memory that this process holds"),
    gauge("process_virtual_memory_bytes", "", "Addresses that this process has"),
    gauge("process_open_fds", "", "Files and sockets that are open"),
    gauge("process_max_fds", "", "Files and sockets that may be open"),
    gauge("process_start_time_seconds", "", "When this process started, since 1970"),
];

/// What is listed under that name.
pub(super) fn of(name: &str) -> &'static Listed {
    let found = LISTED.iter().find(|listed| listed.name == name);
    found.unwrap_or_else(|| panic!("the metric {name} is not listed"))
}
