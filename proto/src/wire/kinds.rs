//! Every number on the wire, in one place. A number is never used again: a message that goes away
//! stays listed as removed.

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Hello = 1,
    HelloAck = 2,
    /// One message of chitchat, as its own bytes.
    Gossip = 3,
    Forward = 4,
    Answer = 5,
    NotHere = 6,
    Refused = 7,
    // 8 and 9 are removed: they asked for what a node knows of a session, and `Explain` asks for more.
    /// A datagram about who may serve.
    Note = 10,
    Keep = 11,
    Kept = 12,
    Give = 13,
    Taken = 14,
    Recall = 15,
    Recalled = 16,
    List = 17,
    Listed = 18,
    Explain = 19,
    Explained = 20,
    End = 21,
    EndAnswer = 22,
    Count = 23,
    Counted = 24,
    /// What a node has seen of the cluster's life, for operators at the others.
    News = 25,
}

impl Kind {
    pub const ALL: [Self; 23] = [
        Self::Hello,
        Self::HelloAck,
        Self::Gossip,
        Self::Forward,
        Self::Answer,
        Self::NotHere,
        Self::Refused,
        Self::Note,
        Self::Keep,
        Self::Kept,
        Self::Give,
        Self::Taken,
        Self::Recall,
        Self::Recalled,
        Self::List,
        Self::Listed,
        Self::Explain,
        Self::Explained,
        Self::End,
        Self::EndAnswer,
        Self::Count,
        Self::Counted,
        Self::News,
    ];

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Why one side of a QUIC stream was given up (RESET_STREAM and STOP_SENDING, RFC 9000, 19.4, 19.5).
/// A clean end is FIN and has no code; a broken hop is the loss of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamCode {
    /// The client went away; also what QUIC sends when a stream is dropped unread.
    ClientGone = 0,
    /// The upstream broke off in the middle of its answer.
    UpstreamBroke = 1,
    /// The frame could not be read.
    Malformed = 2,
    /// The node leaves, and the stream would never end by itself.
    Leaving = 3,
    /// A newer request reads the stream.
    Displaced = 4,
}

/// Why a QUIC connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseCode {
    /// The node leaves.
    Leaving = 0,
    /// The greeting was wrong: another protocol, or not a greeting.
    BadHello = 1,
    /// The node at the other end is taken for dead, or is not the one that was meant.
    NotThePeer = 2,
    /// It was made under a secret that this cluster has no more.
    OldSecret = 3,
    /// Nothing is in progress on it, and its place is taken or not needed.
    Unneeded = 4,
}
