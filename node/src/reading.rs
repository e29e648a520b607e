//! Connections that are read without hyper: what there is of them is read at once, and no more is reserved than that, so
//! that one on which nothing comes for hours holds no buffer.

use bytes::BytesMut;
use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, ReadBuf};

/// Read at once, on the stack.
const READ_LEN: usize = 8 * 1024;

/// Adds what has come to what is held: how much, and nothing at the connection's end.
pub(crate) fn poll_read_more(
    connection: &mut (impl AsyncRead + Unpin),
    held: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut room = [MaybeUninit::uninit(); READ_LEN];
    let mut read = ReadBuf::uninit(&mut room);
    ready!(Pin::new(connection).poll_read(cx, &mut read))?;
    held.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}
