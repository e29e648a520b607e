//! Every server with every client over every transport: directly, and through a cluster whose balancer sends each
//! request to the next node. Prints the table, and leaves it in `target/transports.md`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;

use cluster_tests::real::balancer::Balancer;
use cluster_tests::real::chromium;
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::places;
use cluster_tests::real::route::Route;
use cluster_tests::real::tours::{
    Guest, Outcome, PAGE_HEADING, PAGE_TITLE, Places, Server, Target, Tour, Transport,
};
use cluster_tests::real::upstream::{self, Upstream};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Drivers side by side: each runs a client and a server at a time, which a core has enough to do with.
const AT_ONCE: usize = 2;

/// A server as the cluster finds it.
struct Backend {
    server: Server,
    /// What it speaks.
    transport: Transport,
    target: Target,
    path: &'static str,
    /// Ends with this.
    _process: Option<Upstream>,
}

impl Backend {
    fn command(server: Server, path: &'static str, command: Vec<String>) -> Backend {
        let (transport, target) = (Transport::Stdio, Target::Command(command));
        Backend { server, transport, target, path, _process: None }
    }

    fn served(server: Server, path: &'static str, transport: Transport, upstream: Upstream) -> Backend {
        let target = Target::Url(upstream.url.clone());
        Backend { server, transport, target, path, _process: Some(upstream) }
    }

    fn route(&self) -> Route {
        let route = match &self.target {
            Target::Command(command) => Route::command(command),
            Target::Url(url) => Route::upstreams(std::slice::from_ref(url)),
        };
        let route = route.at(self.path);
        if self.transport == Transport::Sse { route.text("transport", "sse") } else { route }
    }

    /// Itself, and both of the cluster's faces.
    fn ways(&self, balancer: &Balancer) -> [(Way, Transport, Target); 3] {
        let url = |path: &str| Target::Url(balancer.url(path));
        let old = format!("{}/sse", self.path);
        [
            (Way::Direct, self.transport, self.target.clone()),
            (Way::AnyNode, Transport::StreamableHttp, url(self.path)),
            (Way::AnyNode, Transport::Sse, url(&old)),
        ]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Direct,
    AnyNode,
}

#[tokio::test]
async fn every_server_serves_every_client_over_every_transport_at_any_node() {
    let test = "every_server_serves_every_client_over_every_transport_at_any_node";
    let places = Places { folder: places::scratch("folder").unwrap(), page: page().await };
    let Some(mut backends) = or_left_out(test, backends(&places).await) else { return };
    let browser = chromium::playwright_stdio().await;
    let browser = or_left_out("playwright in the table of transports", browser);
    backends.extend(browser.map(|command| Backend::command(Server::Playwright, "/playwright", command)));

    let routes: Vec<Route> = backends.iter().map(Backend::route).collect();
    let cluster = Plan::nodes(3).routes(&routes).start().await.unwrap();
    let table = fill(&backends, &cluster, &places).await;
    let text = table.to_markdown(&backends);
    println!("{text}");
    std::fs::write(places::target().join("transports.md"), &text).unwrap();
    assert!(table.failures().is_empty(), "{:#?}", table.failures());
}

async fn backends(places: &Places) -> anyhow::Result<Vec<Backend>> {
    let folder = upstream::filesystem_stdio(&places.folder).await?;
    Ok(vec![
        Backend::command(Server::Everything, "/everything", upstream::everything_stdio().await?),
        Backend::served(Server::Everything, "/old", Transport::Sse, Upstream::everything_sse().await?),
        Backend::served(Server::Everything, "/new", Transport::StreamableHttp, Upstream::everything().await?),
        Backend::command(Server::Memory, "/memory", upstream::memory_stdio().await?),
        Backend::command(Server::Filesystem, "/filesystem", folder),
        Backend::command(
            Server::SequentialThinking,
            "/thinking",
            upstream::sequential_thinking_stdio().await?,
        ),
        Backend::command(Server::FastMcp, "/fastmcp", upstream::fastmcp_stdio().await?),
        Backend::served(
            Server::FastMcp,
            "/fastmcp-http",
            Transport::StreamableHttp,
            Upstream::fastmcp().await?,
        ),
    ])
}

async fn fill(backends: &[Backend], cluster: &Cluster, places: &Places) -> Table {
    let balancer = Balancer::start(cluster.listens()).await.unwrap();
    let (mut serial, mut guests) = (0, Vec::new());
    let gate = std::sync::Arc::new(Semaphore::new(AT_ONCE));
    for guest in Guest::ALL {
        let (mut keys, mut tours) = (Vec::new(), Vec::new());
        for backend in backends {
            for (way, transport, target) in backend.ways(&balancer) {
                serial += 1;
                keys.push((backend.path, guest, way, transport));
                tours.push(Tour::new(backend.server, transport, target, serial, places));
            }
        }
        let gate = gate.clone();
        guests.push(tokio::spawn(async move {
            let _turn = gate.acquire().await.unwrap();
            (keys, guest.take(&tours).await.unwrap())
        }));
    }
    let mut cells = BTreeMap::new();
    for guest in guests {
        let (keys, outcomes) = guest.await.unwrap();
        cells.extend(keys.into_iter().zip(outcomes));
    }
    Table { cells }
}

/// By the path of the backend: the client, the way it takes, and what it speaks.
type Key = (&'static str, Guest, Way, Transport);

struct Table {
    cells: BTreeMap<Key, Outcome>,
}

impl Table {
    fn failures(&self) -> Vec<String> {
        let failed = self.cells.iter().filter_map(|(key, outcome)| Some((key, outcome.error.as_ref()?)));
        failed.map(|(key, error)| format!("{key:?}: {error}")).collect()
    }

    fn to_markdown(&self, backends: &[Backend]) -> String {
        let mut text =
            "| server | speaks | client | directly | any node, Streamable HTTP | any node, HTTP+SSE |\n\
                        |---|---|---|---|---|---|\n"
                .to_owned();
        for backend in backends {
            for guest in Guest::ALL {
                let cell = |way, transport| match &self.cells[&(backend.path, guest, way, transport)] {
                    Outcome { error: None, ms, .. } => format!("ok, {ms} ms"),
                    Outcome { error: Some(_), .. } => "failed".to_owned(),
                };
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} | {} | {} |",
                    backend.server.name(),
                    name(backend.transport),
                    guest.name(),
                    cell(Way::Direct, backend.transport),
                    cell(Way::AnyNode, Transport::StreamableHttp),
                    cell(Way::AnyNode, Transport::Sse),
                );
            }
        }
        text
    }
}

fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Stdio => "stdio",
        Transport::StreamableHttp => "Streamable HTTP",
        Transport::Sse => "HTTP+SSE",
    }
}

/// Serves the browser's page until the test's runtime ends, and says where.
async fn page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let html = format!("<!doctype html><title>{PAGE_TITLE}</title><h1>{PAGE_HEADING}</h1>");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let html = html.clone();
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                let response = Response::builder().header("content-type", "text/html").body(html.clone());
                async move { Ok::<_, Infallible>(response.unwrap()) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    url
}
