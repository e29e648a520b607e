//! The limit of open files: the node takes all that the system gives, its child processes get what the
//! node was started with (some walk through every number below the limit, some use select(2)).

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::OnceLock;

/// Of the process, as the limit itself is.
static AT_START: OnceLock<u64> = OnceLock::new();

/// Every client and every upstream connection is an open file: takes all that the system gives.
pub(crate) fn raise() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        AT_START.get_or_init(|| soft);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// As many as the system gives, raised already or not.
pub(crate) fn most() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard)
}

/// The limit before it was raised; none if it was not.
pub(crate) fn at_start() -> Option<u64> {
    AT_START.get().copied()
}
