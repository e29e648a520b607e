//! What the admin endpoint answers, in one table: the router and the text that names what is known read it.

use hyper::Method;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Livez,
    Readyz,
    Members,
    Ring,
    Lookup,
    Sessions,
    /// One session; the id follows.
    Session,
    Traffic,
    Events,
    Drain,
    Metrics,
}

impl Resource {
    pub(super) const ALL: [Self; 11] = [
        Self::Livez,
        Self::Readyz,
        Self::Members,
        Self::Ring,
        Self::Lookup,
        Self::Sessions,
        Self::Session,
        Self::Traffic,
        Self::Events,
        Self::Drain,
        Self::Metrics,
    ];

    /// Its path, or what its path begins with.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Members => "/v1/members",
            Self::Ring => "/v1/ring",
            Self::Lookup => "/v1/ring/lookup",
            Self::Sessions => "/v1/sessions",
            Self::Session => "/v1/sessions/",
            Self::Traffic => "/v1/traffic",
            Self::Events => "/v1/events",
            Self::Drain => "/v1/drain",
            Self::Metrics => "/metrics",
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            Self::Livez
            | Self::Readyz
            | Self::Members
            | Self::Ring
            | Self::Lookup
            | Self::Sessions
            | Self::Traffic
            | Self::Events
            | Self::Metrics => Method::GET,
            Self::Session => Method::DELETE,
            Self::Drain => Method::POST,
        }
    }

    /// Whether whoever asks has to show the admin token, where there is one: all but what balancers ask.
    pub(super) fn is_guarded(self) -> bool {
        !matches!(self, Self::Livez | Self::Readyz)
    }

    /// What a path is about, and what follows it.
    pub(super) fn of(path: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|resource| {
            let rest = path.strip_prefix(resource.path())?;
            let is_it = if resource == Self::Session { !rest.is_empty() } else { rest.is_empty() };
            is_it.then_some((resource, rest))
        })
    }

    /// For whoever asks for something else.
    pub(super) fn known() -> String {
        let paths = Self::ALL.map(|resource| {
            let id = if resource == Self::Session { "ID" } else { "" };
            match resource.method() {
                Method::GET => format!("{}{id}", resource.path()),
                method => format!("{}{id} ({method})", resource.path()),
            }
        });
        format!("known are {}", paths.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_about_one_thing() {
        for resource in Resource::ALL {
            let rest = if resource == Resource::Session { "rw1.x" } else { "" };
            let path = format!("{}{rest}", resource.path());
            assert_eq!(Resource::of(&path), Some((resource, rest)), "{path}");
            assert!(Resource::known().contains(resource.path()));
        }
        for unknown in ["", "/", "/v1", "/v1/sessions/", "/v1/members/", "/metrics2"] {
            assert_eq!(Resource::of(unknown), None, "{unknown:?}");
        }
    }
}
