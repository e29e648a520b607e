//! Connections that leave HTTP, WebSockets above all, on routes that are not MCP.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http;
use cluster_tests::real::upstream::Upstream;
use cluster_tests::real::wait::wait_until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_tungstenite::tungstenite::{Error, error::ProtocolError};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

/// Everything here takes milliseconds; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(15);

type Socket = WebSocketStream<TcpStream>;

#[tokio::test]
async fn a_websocket_is_served_where_it_landed_and_through_a_hop() {
    let server = Server::start().await;
    let cluster = cluster(server.address).await;
    for (entry, key, hops) in both_ways(&cluster).await {
        let (mut socket, answer) = connected(&cluster, &entry, &key).await;
        assert_eq!(answer.headers()["ringway-hops"], hops);
        for text in ["hello", "", "good bye"] {
            socket.send(Message::text(text)).await.unwrap();
            assert_eq!(heard(&mut socket).await.unwrap(), Message::text(text));
        }
        // As large as half of what a client takes in one frame, 32 times what may be in flight over a hop.
        let large = Message::binary(vec![7; 8 << 20]);
        socket.send(large.clone()).await.unwrap();
        assert!(heard(&mut socket).await.unwrap() == large, "8 MiB came back as something else");
    }
}
