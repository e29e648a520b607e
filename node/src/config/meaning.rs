//! From what is written to what is meant: the node's own settings.

use super::{
    Collector, Config, Flags, Route, auth, limits, parse_secrets,
    routes::{self, Short},
    token,
    written::{At, Mistakes, Table},
};
use crate::telemetry::LogFormat;
use crate::tls::{BadPair, TlsFiles};
use clap::ValueEnum;
use hyper::Uri;
use proto::id::{ClusterSecret, DEVELOPMENT_SECRET, NodeName};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

const NODE_KEYS: [&str; 18] = [
    "name",
    "listen",
    "peer",
    "advertise",
    "admin",
    "admin_token_file",
    "seeds",
    "secret_file",
    "tls",
    "upstream",
    "allowed_origins",
    "auth",
    "trusted_proxies",
    "log",
    "log_format",
    "otlp",
    "otlp_sample",
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
    let config = file.map(|(path, _)| path);
    let tls = tls(table.words("tls", m), flags.tls_cert, flags.tls_key, config, m);
    let admin_token_file = table.string("admin_token_file", m);
    let admin_token_file = admin_token_file.and_then(|at| token_file(at, config, m));
    let (limits, new_sessions) = limits::read(&mut table, m);
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

    let (otlp, otlp_sample) = otlp(&mut table, flags.otlp, m);

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
    let beside = file.and_then(|(path, _)| path.parent());
    let auth = auth::read(&mut table, beside, m);
    let trusted_proxies = auth::proxies(table.strings("trusted_proxies", m), m);
    let routes = routes::read(table.tables("route", "a route", m), short, (auth, beside), m);
    let known: Vec<_> = NODE_KEYS.into_iter().chain(limits::LIMIT_KEYS).collect();
    table.finish(&known, m);

    let name = name.unwrap_or_else(|| At { value: host_name(), line: None });
    let name = name.value.parse::<NodeName>().map_err(|error| m.add(name.line, error.to_string())).ok();
    let secrets = secrets(secret_file, config, addresses.as_ref(), m);
    match (name, addresses, secrets) {
        (Some(name), Some(addresses), Some((secrets, secret_file))) if mistakes.0.is_empty() => Ok(Config {
            name,
            listen: addresses.listen,
            peer: addresses.peer,
            advertise: addresses.advertise,
            admin: addresses.admin,
            seeds,
            secrets,
            secret_file,
            admin_token_file,
            routes: routes.into_iter().map(|route: Route| Arc::new(route)).collect(),
            tls,
            limits,
            new_sessions,
            allowed_origins: allowed_origins.into_iter().map(|origin| origin.value).collect(),
            trusted_proxies,
            log,
            log_format,
            otlp,
            otlp_sample,
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

/// A client that samples its trace has it sampled; of all others one in a hundred shows what is usual.
const OTLP_SAMPLE_DEFAULT: f64 = 0.01;

fn otlp(table: &mut Table<'_>, flag: Option<String>, m: &mut Mistakes) -> (Option<Collector>, f64) {
    let collector = setting(table, "otlp", flag, m).and_then(|at| {
        let collector = Collector::parse(&at.value);
        collector.map_err(|what| m.add(at.line, what)).ok()
    });
    let Some(sample) = table.number("otlp_sample", m) else { return (collector, OTLP_SAMPLE_DEFAULT) };
    if !(0.0..=1.0).contains(&sample.value) {
        let what = format!("otlp_sample {} is not a share from 0 to 1, such as 0.01", sample.value);
        m.add(sample.line, what);
    }
    (collector, sample.value)
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

/// Its path is relative to the configuration file that names it.
fn secrets(
    file: Option<At<String>>,
    config: Option<&Path>,
    addresses: Option<&Addresses>,
    m: &mut Mistakes,
) -> Option<(Vec<ClusterSecret>, Option<PathBuf>)> {
    let Some(at) = file else {
        return match addresses?.exposed() {
            None => Some((vec![DEVELOPMENT_SECRET], None)),
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
    let path = beside(config, &at);
    let read = std::fs::read(&path).map_err(|error| error.to_string());
    match read.and_then(|text| parse_secrets(&text)) {
        Ok(secrets) => Some((secrets, Some(path))),
        Err(error) => {
            m.add(at.line, format!("secret_file {}: {error}", path.display()));
            None
        }
    }
}

/// The file with the admin token; that it holds one is looked at here, so that `check` says so.
fn token_file(at: At<String>, config: Option<&Path>, m: &mut Mistakes) -> Option<PathBuf> {
    let path = beside(config, &at);
    let read = std::fs::read(&path).map_err(|error| error.to_string());
    match read.and_then(|bytes| token::admin_token(&bytes)) {
        Ok(_) => Some(path),
        Err(why) => {
            m.add(at.line, format!("admin_token_file {}: {why}", path.display()));
            None
        }
    }
}

/// A path in the file is relative to the file, one in a flag to where the node is started.
fn beside(config: Option<&Path>, at: &At<String>) -> PathBuf {
    let folder = at.line.and(config).and_then(Path::parent);
    folder.map_or_else(|| PathBuf::from(&at.value), |folder| folder.join(&at.value))
}

/// A certificate and its key: both of the file, both of flags, or one of each.
fn tls(
    written: Option<At<BTreeMap<String, At<String>>>>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    config: Option<&Path>,
    m: &mut Mistakes,
) -> Option<TlsFiles> {
    let line = written.as_ref().and_then(|at| at.line);
    let mut words = written.map(|at| at.value).unwrap_or_default();
    let mut of = |key: &str, flag: Option<PathBuf>| {
        let written = words.remove(key);
        flag.map(|path| At { value: path.to_string_lossy().into_owned(), line: None }).or(written)
    };
    let (cert, key) = (of("cert", cert), of("key", key));
    for (unknown, at) in &words {
        m.add(at.line, format!("unknown key {unknown:?} in tls; known are cert, key"));
    }
    match (cert, key) {
        (Some(cert), Some(key)) => {
            let files = TlsFiles { cert: beside(config, &cert), key: beside(config, &key) };
            if let Err(bad) = files.check() {
                let (line, which) = match &bad {
                    BadPair::Cert(_) => (cert.line, "cert"),
                    BadPair::Key(_) => (key.line, "key"),
                };
                m.add(line, format!("tls {which} {bad}"));
            }
            Some(files)
        }
        (None, None) if line.is_none() => None,
        (cert, key) => {
            let line = cert.or(key).map_or(line, |at| at.line.or(line));
            m.add(
                line,
                "tls needs both: a certificate (cert, or --tls-cert) and its key (key, or --tls-key)",
            );
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
