//! Routes that are not MCP: a key that the client sends decides, or nothing does.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http;
use cluster_tests::real::upstream::Upstream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Who answered, and over how many hops.
async fn asked(url: &str, headers: &[(&str, &str)]) -> (String, String) {
    let answer = http::request("GET", url, headers, "").await.unwrap();
    let header = |name| answer.header(name).unwrap().to_owned();
    (header("ringway-node"), header("ringway-hops"))
}

#[tokio::test]
async fn a_key_has_the_same_owner_whichever_node_is_asked() {
    // What answers does not matter here; that it is asked by the key's owner does.
    let server = Upstream::demo().await.unwrap();
    let upstream = format!("http://{}", server.address().unwrap());
    let config = format!(
        "[[route]]\npath = \"/free\"\naffinity = \"none\"\nupstream = [\"{upstream}\"]\n\
         [[route]]\npath = \"/jobs\"\naffinity = {{ header = \"X-Job-Id\" }}\nupstream = [\"{upstream}\"]\n\
         [[route]]\npath = \"/carts\"\naffinity = {{ cookie = \"sid\" }}\nupstream = [\"{upstream}\"]\n\
         [[route]]\npath = \"/files\"\naffinity = {{ query = \"name\" }}\nupstream = [\"{upstream}\"]\n"
    );
    let cluster = Plan::nodes(3).config(config).start().await.unwrap();
    let mut owners = BTreeSet::new();
    for key in 0..20 {
        let key = format!("key-{key}");
        let expected = cluster.admin_json("a", &format!("/v1/ring/lookup?key={key}")).await.unwrap();
        let expected = expected["owner"].as_str().unwrap().to_owned();
        for name in cluster.names() {
            let hops = if name == expected { "0" } else { "1" };
            let node = cluster.node(&name);
            let wanted = (expected.clone(), hops.to_owned());
            let cookie = format!("theme=dark; sid={key}");
            assert_eq!(asked(&node.url("/jobs/17"), &[("x-job-id", key.as_str())]).await, wanted);
            assert_eq!(asked(&node.url("/carts"), &[("cookie", cookie.as_str())]).await, wanted);
            assert_eq!(asked(&node.url(&format!("/files?name={key}")), &[]).await, wanted);
            assert_eq!(asked(&node.url("/free/x"), &[]).await, (name.clone(), "0".to_owned()));
            assert_eq!(asked(&node.url("/jobs"), &[]).await, (name, "0".to_owned()), "no key, no owner");
        }
        owners.insert(expected);
    }
    assert_eq!(owners.len(), 3, "twenty keys fall to all three nodes");
}

#[tokio::test]
async fn a_node_that_joins_takes_its_part_of_the_keys_and_no_key_moves_between_the_others() {
    let server = Upstream::demo().await.unwrap();
    let config = format!(
        "[[route]]\npath = \"/jobs\"\naffinity = {{ header = \"X-Job-Id\" }}\nupstream = [\"http://{}\"]\n",
        server.address().unwrap()
    );
    let mut cluster = Plan::nodes(3).config(config).start().await.unwrap();
    let keys: Vec<_> = (0..200).map(|key| format!("key-{key}")).collect();
    let before = owners(&cluster, &keys).await;
    cluster.join("d").await.unwrap();
    let after = owners(&cluster, &keys).await;
    let moved = || keys.iter().zip(before.iter().zip(&after)).filter(|(_, (before, after))| before != after);
    for (key, (before, after)) in moved() {
        assert_eq!(after, "d", "{key} moved from {before}");
    }
    // A fourth of them, give or take half as many: a node has 128 points, and the sample is small.
    let count = moved().count();
    assert!((25..=75).contains(&count), "{count} of 200 keys moved");
    let (key, _) = moved().next().unwrap();
    let url = cluster.node("a").url("/jobs");
    assert_eq!(asked(&url, &[("x-job-id", key.as_str())]).await, ("d".to_owned(), "1".to_owned()));
}

/// Who owns each of these keys.
async fn owners(cluster: &Cluster, keys: &[String]) -> Vec<String> {
    let mut owners = Vec::new();
    for key in keys {
        let found = cluster.admin_json("a", &format!("/v1/ring/lookup?key={key}")).await.unwrap();
        owners.push(found["owner"].as_str().unwrap().to_owned());
    }
    owners
}

#[tokio::test]
async fn a_long_request_flows_through_a_hop_while_its_answer_flows_back() {
    let echo = echo_server().await;
    let config = format!(
        "[[route]]\npath = \"/files\"\naffinity = {{ query = \"name\" }}\nupstream = [\"http://{echo}\"]\n"
    );
    let cluster = Plan::nodes(2).config(config).start().await.unwrap();
    let found = cluster.admin_json("a", "/v1/ring/lookup?key=long").await.unwrap();
    let entry = if found["owner"] == "a" { "b" } else { "a" };

    let stream = TcpStream::connect(cluster.listen(entry)).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (chunks, body) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let request = Request::put("/files?name=long").header("host", "x");
    let request = request.body(StreamBody::new(ReceiverStream::new(body))).unwrap();
    let asking = tokio::spawn(async move { sender.send_request(request).await });

    let piece = Bytes::from(vec![7; 1 << 20]);
    chunks.send(Ok(Frame::data(piece.clone()))).await.unwrap();
    // The request has not ended, and its answer is here already.
    let mut answer = asking.await.unwrap().unwrap();
    assert_eq!(answer.headers()["ringway-hops"], "1");
    let mut came_back = 0;
    // Eight times the limit that an MCP message has.
    for sent in 1..=32 {
        while came_back < sent << 20 {
            came_back += answer.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        if sent < 32 {
            chunks.send(Ok(Frame::data(piece.clone()))).await.unwrap();
        }
    }
    drop(chunks);
    assert!(answer.frame().await.is_none(), "the answer ends with the request");
    assert_eq!(came_back, 32 << 20);
}

/// An HTTP server that sends back what it gets, as it comes. It ends with the test's runtime.
async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let echo = service_fn(async |request: Request<Incoming>| {
                Ok::<_, Infallible>(Response::new(request.into_body()))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), echo),
            );
        }
    });
    address
}
