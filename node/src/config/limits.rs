//! What a node bounds, as it is written and as it is meant. Each bound has the answer that `front/` gives beyond
//! it, or the sessions do.

use super::{
    routes::time,
    written::{At, Mistakes, Table},
};
use crate::open_files;
use std::{num::NonZeroU32, time::Duration};

pub(super) const LIMIT_KEYS: [&str; 7] = [
    "max_connections",
    "max_connections_per_client",
    "header_timeout",
    "body_timeout",
    "send_timeout",
    "max_sessions",
    "new_sessions_per_second",
];

/// Files of the node's own: sockets and logs (some 20), the admin endpoint's connections (256), those to other
/// nodes and their lifelines (two for each of 100), and some that are turned away at the moment (64).
const OWN_FILES: u64 = 600;
/// Where the limit of open files can't be read, or is so low that little is left of it.
const CONNECTIONS_MIN: usize = 64;
/// The whole head of a request: a client writes it at once, and a bad network carries it in a second or two.
const HEADER_TIME_DEFAULT: Duration = Duration::from_secs(10);
/// The default limit of 4 MiB in this time is 70 KB a second.
const BODY_TIME_DEFAULT: Duration = Duration::from_secs(60);
/// In which a client takes nothing at all of what is there for it.
const SEND_TIME_DEFAULT: Duration = Duration::from_secs(60);
/// Each costs its upstream a handshake: a server in Python or Node makes some hundreds a second.
const NEW_SESSIONS_DEFAULT: NonZeroU32 = NonZeroU32::new(1_000).expect("not zero");
/// Beyond these a limit would be none.
const TIME_MIN: Duration = Duration::from_millis(100);
const TIME_MAX: Duration = Duration::from_secs(3_600);

/// What clients may take of a node, connection by connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections_max: usize,
    /// Of one address. Without it there is no such limit: behind a balancer all come from one.
    pub(crate) connections_per_client_max: Option<usize>,
    pub(crate) header_time_max: Duration,
    pub(crate) body_time_max: Duration,
    pub(crate) send_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: connections_by(open_files::most()),
            connections_per_client_max: None,
            header_time_max: HEADER_TIME_DEFAULT,
            body_time_max: BODY_TIME_DEFAULT,
            send_time_max: SEND_TIME_DEFAULT,
        }
    }
}

/// What bounds new sessions, over all routes of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewSessions {
    pub(crate) sessions_max: Option<usize>,
    pub(crate) per_second: NonZeroU32,
}

impl Default for NewSessions {
    fn default() -> Self {
        Self { sessions_max: None, per_second: NEW_SESSIONS_DEFAULT }
    }
}

pub(super) fn read(table: &mut Table<'_>, m: &mut Mistakes) -> (Limits, NewSessions) {
    let default = Limits::default();
    let connections_max = positive(table, "max_connections", m);
    let connections_per_client_max = positive(table, "max_connections_per_client", m);
    let mut patience = |key, default| {
        let Some(At { value, line }) = time(key, table.string(key, m), m) else { return default };
        if !(TIME_MIN..=TIME_MAX).contains(&value) {
            m.add(line, format!("{key} is between \"100ms\" and \"1h\""));
        }
        value
    };
    let limits = Limits {
        header_time_max: patience("header_timeout", default.header_time_max),
        body_time_max: patience("body_timeout", default.body_time_max),
        send_time_max: patience("send_timeout", default.send_time_max),
        connections_max: connections_max.unwrap_or(default.connections_max),
        connections_per_client_max,
    };
    let mut new = NewSessions { sessions_max: positive(table, "max_sessions", m), ..NewSessions::default() };
    if let Some(rate) = table.integer("new_sessions_per_second", m) {
        match u32::try_from(rate.value).ok().and_then(NonZeroU32::new).filter(|rate| rate.get() <= 1_000_000)
        {
            Some(per_second) => new.per_second = per_second,
            None => m.add(rate.line, "new_sessions_per_second is between 1 and 1000000"),
        }
    }
    (limits, new)
}

/// A client that is served may need a connection to an upstream too, so that each takes two files.
fn connections_by(open_files: Option<u64>) -> usize {
    let room = open_files.map_or(0, |most| most.saturating_sub(OWN_FILES) / 2);
    usize::try_from(room).unwrap_or(usize::MAX).max(CONNECTIONS_MIN)
}

fn positive(table: &mut Table<'_>, key: &str, m: &mut Mistakes) -> Option<usize> {
    let At { value, line } = table.integer(key, m)?;
    if value == 0 {
        m.add(line, format!("{key} is at least 1; without the key there is no such limit of your own"));
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_upstreams_and_the_node_itself() {
        assert_eq!(connections_by(Some(20_000)), 9_700);
        assert_eq!(connections_by(Some(1_048_576)), 523_988);
        assert_eq!(connections_by(Some(256)), 64);
        assert_eq!(connections_by(None), 64);
    }
}
