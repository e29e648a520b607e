//! From what is written to what is meant: the node's own settings.

use super::{
    Config, Flags, Route,
    routes::{self, Short},
    written::{At, Mistakes, Table},
};
use crate::telemetry::LogFormat;
use clap::ValueEnum;
use hyper::Uri;
use proto::id::{ClusterSecret, DEVELOPMENT_SECRET, NodeName};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

const NODE_KEYS: [&str; 12] = [
    "name",
    "listen",
    "peer",
    "advertise",
    "admin",
    "seeds",
    "secret_file",
    "upstream",
    "allowed_origins",
    "log",
    "log_format",
    "route",
];

/// A setting, from a flag or from the file.
type Setting = Option<At<String>>;

/// Reads the configuration of a node; `file` is the path and text of the TOML file, if there is one.
///
/// # Errors
/// With every mistake found, in the order of the file.
pub(crate) fn load(file: Option<(&Path, &str)>, flags: Flags) -> Result<Config, Mistakes> {
    let mut mistakes = Mistakes::default();
    let m = &mut mistakes;
    let mut table = Table::parse(file.map_or("", |(_, text)| text), m);
    if !m.0.is_empty() {
        return Err(mistakes); // what else there is to say would be guessed from broken syntax
    }
    let name = setting(&mut table, "name", flags.name, m);
    let addresses = Addresses::read(
        [
            setting(&mut table, "listen", flags.listen, m),
            setting(&mut table, "peer", flags.peer, m),
            setting(&mut table, "advertise", flags.advertise, m),
            setting(&mut table, "admin", flags.admin, m),
        ],
        m,
    );
    let secret_file = flags.secret_file.map(|path| path.to_string_lossy().into_owned());
    let secret_file = setting(&mut table, "secret_file", secret_file, m);
    let seeds = seeds(listed(&mut table, "seeds", m), flags.seeds, m);
    let allowed_origins = listed(&mut table, "allowed_origins", m);
    for origin in &allowed_origins {
        let is_origin = origin.value.parse::<Uri>().is_ok_and(|uri| {
            let authority = uri.authority().map(|authority| authority.as_str().to_ascii_lowercase());
            let plain = uri.scheme_str().zip(authority).map(|(scheme, host)| format!("{scheme}://{host}"));
            plain.as_deref() == Some(origin.value.as_str())
        });
        if !is_origin {
            let form = "as browsers send it: https://host or https://host:port, in lower case, with no path";
            m.add(origin.line, format!("allowed_origins: write {:?} {form}", origin.value));
        }
    }
    let log = setting(&mut table, "log", flags.log, m).map_or_else(|| "info".to_owned(), |at| at.value);
    let log_format = log_format(setting(&mut table, "log_format", None, m), flags.log_format, m);

    let written = listed(&mut table, "upstream", m);
    let of_flags: Vec<_> = flags.upstreams.into_iter().map(|value| At { value, line: None }).collect();
    if !of_flags.is_empty() && !flags.command.is_empty() {
        m.add(None, "--upstream and a command both stand for the route /mcp: name one of them");
    }
    let short = match (of_flags.is_empty(), flags.command.is_empty()) {
        (false, _) => Some(Short::Upstreams(of_flags)),
        (true, false) => Some(Short::Command(flags.command)),
        (true, true) => Some(written).filter(|written| !written.is_empty()).map(Short::Upstreams),
    };
    let routes = routes::read(table.tables("route", "a route", m), short, m);
    table.finish(&NODE_KEYS, m);

    let name = name.unwrap_or_else(|| At { value: host_name(), line: None });
    let name = name.value.parse::<NodeName>().map_err(|error| m.add(name.line, error.to_string())).ok();
    let secrets = secrets(secret_file, file.map(|(path, _)| path), addresses.as_ref(), m);
    match (name, addresses, secrets) {
        (Some(name), Some(addresses), Some(secrets)) if mistakes.0.is_empty() => Ok(Config {
            name,
            listen: addresses.listen,
            peer: addresses.peer,
            advertise: addresses.advertise,
            admin: addresses.admin,
            seeds,
            secrets,
            routes: routes.into_iter().map(|route: Route| Arc::new(route)).collect(),
            allowed_origins: allowed_origins.into_iter().map(|origin| origin.value).collect(),
            log,
            log_format,
        }),
        _ => {
            mistakes.0.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
            Err(mistakes)
        }
    }
}

/// A flag wins over the file.
fn setting(table: &mut Table<'_>, key: &str, flag: Option<String>, m: &mut Mistakes) -> Setting {
    let written = table.string(key, m);
    flag.map(|value| At { value, line: None }).or(written)
}

fn listed(table: &mut Table<'_>, key: &str, m: &mut Mistakes) -> Vec<At<String>> {
    table.strings(key, m).map(|at| at.value).unwrap_or_default()
}

fn seeds(written: Vec<At<String>>, flags: Vec<String>, m: &mut Mistakes) -> Vec<String> {
    let flags = flags.into_iter().map(|value| At { value, line: None });
    let mut seeds = Vec::new();
    for seed in written.into_iter().chain(flags) {
        if host_and_port(&seed.value) {
            seeds.push(seed.value);
        } else {
            m.add(seed.line, format!("seed {:?} is not HOST:PORT", seed.value));
        }
    }
    seeds
}

fn log_format(written: Setting, flag: Option<LogFormat>, m: &mut Mistakes) -> LogFormat {
    let written = written.and_then(|at| {
        let format = LogFormat::from_str(&at.value, false);
        format
            .map_err(|_| {
                m.add(at.line, format!("log_format {:?} is neither \"text\" nor \"json\"", at.value))
            })
            .ok()
    });
    flag.or(written).unwrap_or(LogFormat::Text)
}

/// Where the node binds, and where others find it.
struct Addresses {
    listen: SocketAddr,
    peer: SocketAddr,
    advertise: Option<SocketAddr>,
    admin: SocketAddr,
}

impl Addresses {
    fn read([listen, peer, advertise, admin]: [Setting; 4], m: &mut Mistakes) -> Option<Self> {
        let peer_line = peer.as_ref().and_then(|at| at.line);
        let advertise_line = advertise.as_ref().and_then(|at| at.line);
        let listen = address("listen", listen, "127.0.0.1:8080", m);
        let peer = address("peer", peer, "127.0.0.1:7400", m);
        let admin = address("admin", admin, "127.0.0.1:9400", m);
        let advertise = match advertise {
            Some(at) => Some(address("advertise", Some(at), "", m)?),
            None => None,
        };
        let nobody_dials = |addr: &SocketAddr| addr.ip().is_unspecified();
        if let Some(advertise) = advertise.filter(nobody_dials) {
            let what =
                format!("advertise is {advertise}, which nobody can dial: name this host's own address");
            m.add(advertise_line, what);
        } else if let Some(peer) = peer.filter(nobody_dials)
            && advertise.is_none()
        {
            let what =
                format!("peer is {peer}, which nobody can dial: set advertise to this host's own address");
            m.add(peer_line, what);
        }
        Some(Self { listen: listen?, peer: peer?, advertise, admin: admin? })
    }

    /// An address that other machines can reach, if there is one.
    fn exposed(&self) -> Option<SocketAddr> {
        let all = [Some(self.listen), Some(self.peer), self.advertise, Some(self.admin)];
        all.into_iter().flatten().find(|addr| !addr.ip().is_loopback())
    }
}

fn address(key: &str, written: Option<At<String>>, default: &str, m: &mut Mistakes) -> Option<SocketAddr> {
    let at = written.unwrap_or_else(|| At { value: default.to_owned(), line: None });
    let parsed = at.value.parse();
    if parsed.is_err() {
        m.add(
            at.line,
            format!("{key} {:?} is not an address such as 127.0.0.1:8080 or [::1]:8080", at.value),
        );
    }
    parsed.ok()
}

fn host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// A secret file holds one secret a line; the first is the current one. Its path is relative to the
/// configuration file that names it.
fn secrets(
    file: Option<At<String>>,
    config: Option<&Path>,
    addresses: Option<&Addresses>,
    m: &mut Mistakes,
) -> Option<Vec<ClusterSecret>> {
    let Some(at) = file else {
        return match addresses?.exposed() {
            None => Some(vec![DEVELOPMENT_SECRET]),
            Some(address) => {
                m.add(
                    None,
                    format!(
                        "{address} is not a loopback address, so this node needs a cluster secret: \
                         run `ringway secret > cluster.key`, copy the file to every node, and name it with \
                         secret_file or --secret-file"
                    ),
                );
                None
            }
        };
    };
    let beside = at.line.and(config).and_then(Path::parent);
    let path = beside.map_or_else(|| PathBuf::from(&at.value), |folder| folder.join(&at.value));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            m.add(at.line, format!("secret_file {}: {error}", path.display()));
            return None;
        }
    };
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let secrets: Result<Vec<ClusterSecret>, _> = lines().map(str::parse).collect();
    match secrets {
        Ok(secrets) if !secrets.is_empty() => Some(secrets),
        Ok(_) => {
            m.add(at.line, format!("secret_file {} holds no secret", path.display()));
            None
        }
        Err(error) => {
            m.add(at.line, format!("secret_file {}: {error}", path.display()));
            None
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests;
