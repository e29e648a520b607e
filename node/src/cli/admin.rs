//! A node's admin endpoint, as the commands ask it.

use super::{AdminArgs, Failure, runtime, table::word};
use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

/// An admin endpoint answers from memory, and waits some 3 s for other nodes.
const PATIENCE: Duration = Duration::from_secs(10);
const TOKEN_VARIABLE: &str = "RINGWAY_ADMIN_TOKEN";

/// Where to ask, and what to show there.
#[derive(Debug)]
pub(super) struct Admin {
    url: String,
    bearer: Option<HeaderValue>,
}

impl Admin {
    /// The token is in a file, or else in the environment.
    pub(super) fn new(args: &AdminArgs) -> Result<Self, Failure> {
        let token = match &args.token_file {
            Some(file) => Some(std::fs::read_to_string(file).map_err(|error| {
                Failure::Usage(format!("ringway: --token-file {}: {error}", file.display()))
            })?),
            None => std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty()),
        };
        let bearer = token.map(|token| HeaderValue::from_str(&format!("Bearer {}", token.trim())));
        let bearer = bearer.transpose().map_err(|_| {
            Failure::Usage(format!(
                "ringway: --token-file or {TOKEN_VARIABLE} holds no token, which is one line"
            ))
        })?;
        Ok(Self { url: args.admin.clone(), bearer })
    }

    /// The same without a runtime around it.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(runtime()?.block_on(self.fetch(Method::GET, path, String::new()))?)
    }

    /// One request, and the JSON that is answered.
    pub(super) async fn fetch(&self, method: Method, path: &str, body: String) -> anyhow::Result<Value> {
        let asking = async {
            let answer = self.send(method, path, body, &[]).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            let value = serde_json::from_slice::<Value>(&body)
                .with_context(|| format!("{} is no Ringway node's admin address", self.url))?;
            self.check(status, &value)?;
            Ok(value)
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.with_context(|| format!("{} does not answer within {PATIENCE:?}", self.url))?
    }

    /// One request whose answer goes on.
    pub(super) async fn open(
        &self,
        path: &str,
        headers: &[(header::HeaderName, HeaderValue)],
    ) -> anyhow::Result<Incoming> {
        let asked =
            tokio::time::timeout(PATIENCE, self.send(Method::GET, path, String::new(), headers)).await;
        let answer = asked.with_context(|| format!("{} does not answer within {PATIENCE:?}", self.url))??;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.into_body().collect().await?.to_bytes();
            self.check(status, &serde_json::from_slice(&body).unwrap_or_default())?;
            bail!("{} answered {status}", self.url);
        }
        Ok(answer.into_body())
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    fn check(&self, status: StatusCode, value: &Value) -> anyhow::Result<()> {
        if status == StatusCode::UNAUTHORIZED {
            let what = if self.bearer.is_some() { "another admin token" } else { "its admin token" };
            bail!("{} wants {what}: name its file with --token-file, or set {TOKEN_VARIABLE}", self.url);
        }
        if !status.is_success() {
            bail!("{} answered {status}: {}", self.url, word(&value["error"]));
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
        headers: &[(header::HeaderName, HeaderValue)],
    ) -> anyhow::Result<Response<Incoming>> {
        let admin = &self.url;
        let uri: Uri = admin.parse().with_context(|| format!("--admin {admin} is not a URL"))?;
        let authority = uri.authority().with_context(|| format!("--admin {admin} names no host"))?;
        let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
        let stream = TcpStream::connect(address).await;
        let stream =
            stream.with_context(|| format!("no node answers at {admin} (is it running? see --admin)"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(header::HOST, authority.as_str());
        let mut request = request.body(Full::new(Bytes::from(body)))?;
        request.headers_mut().extend(headers.iter().cloned());
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(header::AUTHORIZATION, bearer.clone());
        }
        Ok(sender.send_request(request).await?)
    }
}
