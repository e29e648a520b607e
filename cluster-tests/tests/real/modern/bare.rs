//! An upstream that shows each request as it came and answers it as the test says, byte for byte.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Bare(TcpListener);

impl Bare {
    pub(crate) async fn bind() -> Bare {
        Bare(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0.local_addr().unwrap())
    }

    /// The next request, read whole. Its connection is used for no other.
    pub(crate) async fn accept(&self) -> Asked {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let mut read = Vec::new();
        let end = loop {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "half a head");
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        let mut asked = Asked { head, body: read.split_off(end), stream };
        let len: usize = asked.header("content-length").map_or(0, |len| len.parse().unwrap());
        while asked.body.len() < len {
            assert_ne!(asked.stream.read_buf(&mut asked.body).await.unwrap(), 0, "half a body");
        }
        asked
    }
}

/// A request, and whoever waits for its answer.
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    stream: TcpStream,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    /// A whole answer.
    pub(crate) async fn answer(&mut self, kind: &str, body: &str) {
        let head = format!("content-type: {kind}\r\ncontent-length: {}\r\nconnection: close", body.len());
        self.write(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}")).await;
    }

    /// The beginning of an answer that does not end yet.
    pub(crate) async fn begin(&mut self, kind: &str, piece: &str) {
        let head = format!("content-type: {kind}\r\ntransfer-encoding: chunked");
        self.write(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n")).await;
        self.go_on(piece).await;
    }

    pub(crate) async fn go_on(&mut self, piece: &str) {
        self.write(&format!("{:x}\r\n{piece}\r\n", piece.len())).await;
    }

    /// Returns once the other side has closed the connection.
    pub(crate) async fn closed(mut self, deadline: Duration) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(deadline, self.stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "the connection stays open though nobody waits for the answer");
        assert!(rest.is_empty(), "more than one request on the connection");
    }

    async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }
}
