//! Somebody on the way between two nodes, who passes everything on and keeps a copy of it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// What was said, in pieces as they came.
#[derive(Debug, Default)]
struct Copies {
    conversations: usize,
    ended: usize,
    there: Vec<Vec<u8>>,
    back: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
pub(in crate::peer) struct Recorded(Arc<Mutex<Copies>>);

impl Recorded {
    /// What the one who dialled has sent.
    pub(in crate::peer) fn there(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).there.clone()
    }

    /// How many TCP connections there have been.
    pub(in crate::peer) fn conversations(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).conversations
    }

    /// How many of them are open.
    pub(in crate::peer) fn open(&self) -> usize {
        let copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        copies.conversations - copies.ended
    }

    /// What it was answered, as one.
    pub(in crate::peer) fn back(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).back.concat()
    }

    fn keep(&self, way: Way, bytes: &[u8]) {
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match way {
            Way::There => copies.there.push(bytes.to_vec()),
            Way::Back => copies.back.push(bytes.to_vec()),
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    There,
    Back,
}

/// Where to send to, and what is heard there.
type Tapped = (SocketAddr, Recorded);

/// For one sender.
pub(in crate::peer) async fn udp(to: SocketAddr) -> Tapped {
    let [near, far] = [bind().await, bind().await];
    far.connect(to).await.expect("loopback");
    let (at, recorded) = (near.local_addr().expect("a bound socket"), Recorded::default());
    let copies = recorded.clone();
    tokio::spawn(async move {
        let (mut out, mut back) = ([0; 65_536], [0; 65_536]);
        let mut sender = None;
        loop {
            tokio::select! {
                Ok((len, from)) = near.recv_from(&mut out) => {
                    sender = Some(from);
                    copies.keep(Way::There, &out[..len]);
                    let _ = far.send(&out[..len]).await;
                }
                Ok(len) = far.recv(&mut back), if sender.is_some() => {
                    copies.keep(Way::Back, &back[..len]);
                    let _ = near.send_to(&back[..len], sender.expect("it was looked at")).await;
                }
            }
        }
    });
    (at, recorded)
}

async fn bind() -> UdpSocket {
    UdpSocket::bind(("127.0.0.1", 0)).await.expect("a free port")
}

/// For any number of connections.
pub(in crate::peer) async fn tcp(to: SocketAddr) -> Tapped {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let (at, recorded) = (listener.local_addr().expect("a bound socket"), Recorded::default());
    let copies = recorded.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            copies.0.lock().unwrap_or_else(PoisonError::into_inner).conversations += 1;
            let Ok(far) = TcpStream::connect(to).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let (there, back) = (copies.clone(), copies.clone());
            tokio::spawn(async move {
                tokio::join!(
                    pass(near_in, far_out, there.clone(), Way::There),
                    pass(far_in, near_out, back, Way::Back)
                );
                there.0.lock().unwrap_or_else(PoisonError::into_inner).ended += 1;
            });
        }
    });
    (at, recorded)
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    copies: Recorded,
    way: Way,
) {
    let mut buffer = [0; 4_096];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        copies.keep(way, &buffer[..len]);
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
