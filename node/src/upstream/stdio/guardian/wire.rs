//! What passes between a node, its guardian and the wardens.
//!
//! To the guardian: one byte for each child to be, with four descriptors beside it (`SCM_RIGHTS`): the
//! *control* socket to its warden, and the child's ends of the three pipes. On the control socket the
//! node sends one [`Order`] and nothing more; that it closes its half ends the session. The warden
//! answers in [`Report`]s, and closes the socket when nothing of the session is left.

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut, Read},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::ExitStatus,
};

/// Linux takes 2 MiB of arguments and environment for a new process (a quarter of its stack's 8 MiB);
/// as JSON, where a byte may take six, that is 12 MiB.
const ORDER_LEN_MAX: u32 = 12 * 1024 * 1024;

/// What to start.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Order {
    pub(in super::super) program: String,
    pub(in super::super) arguments: Vec<String>,
    /// Added to the node's own environment.
    pub(in super::super) env: BTreeMap<String, String>,
    /// The soft limit of open files.
    pub(in super::super) open_files: Option<u64>,
}

impl Order {
    /// Its length, in four bytes, and itself.
    ///
    /// # Errors
    /// If it is longer than any system would take.
    pub(in super::super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let len = u32::try_from(json.len()).ok().filter(|len| *len <= ORDER_LEN_MAX);
        let len = len.ok_or_else(|| io::Error::from(io::ErrorKind::ArgumentListTooLong))?;
        Ok([&len.to_be_bytes()[..], &json].concat())
    }

    pub(super) fn read(mut from: impl Read) -> io::Result<Self> {
        let mut len = [0; 4];
        from.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len).min(ORDER_LEN_MAX);
        let mut json = Vec::new();
        from.take(len.into()).read_to_end(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }
}

/// What a warden tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Report {
    /// The child's process.
    Started(i32),
    /// The system's error number.
    Failed(i32),
    /// The child has ended. What is left of it is being killed.
    Ended(ExitStatus),
}

impl Report {
    pub(in super::super) const LEN: usize = 5;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let (tag, [a, b, c, d]) = match self {
            Self::Started(pid) => (0, pid.to_be_bytes()),
            Self::Failed(errno) => (1, errno.to_be_bytes()),
            Self::Ended(status) => (2, status.into_raw().to_be_bytes()),
        };
        [tag, a, b, c, d]
    }

    pub(in super::super) fn from_bytes([tag, number @ ..]: [u8; Self::LEN]) -> Option<Self> {
        let number = i32::from_be_bytes(number);
        match tag {
            0 => Some(Self::Started(number)),
            1 => Some(Self::Failed(number)),
            2 => Some(Self::Ended(ExitStatus::from_raw(number))),
            _ => None,
        }
    }
}

/// Sends the guardian what one child needs: control, and stdin, stdout, stderr as the child has them.
pub(in super::super) fn hand_over(guardian: BorrowedFd<'_>, what: [BorrowedFd<'_>; 4]) -> io::Result<()> {
    let what = what.map(|one| one.as_raw_fd());
    let (one_byte, rights) = ([IoSlice::new(&[0])], [ControlMessage::ScmRights(&what)]);
    sendmsg::<()>(guardian.as_raw_fd(), &one_byte, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The next of what was handed over; none if the node is gone.
pub(super) fn take_over(node: &UnixStream) -> io::Result<Option<(UnixStream, [OwnedFd; 3])>> {
    let (mut byte, mut room) = ([0], cmsg_space!([RawFd; 4]));
    let mut one_byte = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(node.as_raw_fd(), &mut one_byte, Some(&mut room), flags)?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut received = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            received.extend(descriptors.into_iter().map(own));
        }
    }
    let received = <[OwnedFd; 4]>::try_from(received);
    let [control, pipes @ ..] =
        received.map_err(|_| io::Error::other("four descriptors belong to a child"))?;
    Ok(Some((control.into(), pipes)))
}

#[expect(unsafe_code, reason = "nix gives received descriptors as numbers")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for this process; nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::fd::AsFd};

    #[test]
    fn orders_and_reports_arrive_as_they_were_sent() {
        let order = Order {
            program: "server".to_owned(),
            arguments: vec!["--stdio".to_owned(), "\"\n".to_owned()],
            env: [("KEY".to_owned(), "ä=b".to_owned())].into(),
            open_files: Some(1_024),
        };
        let sent = order.to_bytes().expect("a short order");
        assert_eq!(Order::read(&sent[..]).expect("the same"), order);
        assert!(Order::read(&sent[..sent.len() - 1]).is_err(), "a part of an order is none");
        for report in [Report::Started(77), Report::Failed(2), Report::Ended(ExitStatus::from_raw(9))] {
            assert_eq!(Report::from_bytes(report.to_bytes()), Some(report));
        }
        assert_eq!(Report::from_bytes([3, 0, 0, 0, 0]), None);
    }

    #[test]
    fn an_order_that_no_system_would_take_is_refused() {
        let arguments = vec!["x".repeat(13 * 1024 * 1024)];
        let order = Order { program: "a".to_owned(), arguments, env: BTreeMap::new(), open_files: None };
        let refused = order.to_bytes().expect_err("too long");
        assert_eq!(refused.kind(), io::ErrorKind::ArgumentListTooLong);
    }

    #[test]
    fn descriptors_arrive_in_their_order_and_an_end_is_an_end() {
        let (node, guardian) = UnixStream::pair().expect("a socket pair");
        let (control, mut warden) = UnixStream::pair().expect("a socket pair");
        let (mut stdin_end, stdin) = UnixStream::pair().expect("a socket pair");
        let (_stdout_end, stdout) = UnixStream::pair().expect("a socket pair");
        let what = [control.as_fd(), stdin.as_fd(), stdout.as_fd(), stdout.as_fd()];
        hand_over(node.as_fd(), what).expect("sent");
        drop((node, control, stdin));
        let (mut control, [stdin, ..]) = take_over(&guardian).expect("received").expect("one child");
        control.write_all(b"a").expect("written");
        stdin_end.write_all(b"b").expect("written");
        let (mut first, mut second) = ([0], [0]);
        warden.read_exact(&mut first).expect("read");
        UnixStream::from(stdin).read_exact(&mut second).expect("read");
        assert_eq!((&first, &second), (b"a", b"b"));
        assert!(take_over(&guardian).expect("no error").is_none(), "the node is gone");
    }
}
