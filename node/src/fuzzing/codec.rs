//! Messages between nodes: whatever is read is written so that it reads the same.

use proto::wire::{
    Answer, CodecError, Count, Counted, End, EndAnswer, Explain, Explained, FRAME_HEAD_LEN, Forward,
    FrameHead, Give, Hello, HelloAck, Keep, Kept, Kind, List, Listed, Message, News, NotHere, Note, Recall,
    Recalled, Refusal, Taken, codec,
};

pub(super) const TOKENS: &[&str] = &[
    "\u{0}",
    "\u{1}",
    "\x01\x04\0\0\0",
    "127.0.0.1:7400",
    "accept",
    "mcp-session-id",
    "rw1.x",
    "POST",
    "/mcp",
];

/// The bytes as a frame, and as the payload of every kind.
pub fn codec(bytes: &[u8]) {
    if let Some((head, payload)) = bytes.split_first_chunk::<FRAME_HEAD_LEN>() {
        match FrameHead::read(*head) {
            Ok(read) => {
                assert_eq!(read.write(), *head, "a head has one spelling");
                assert!(read.len <= codec::PAYLOAD_LEN_MAX);
                reads_alike(read.kind, payload);
            }
            Err(error) => assert_ne!(error, CodecError::Malformed, "six bytes are a head or say why not"),
        }
    }
    for kind in Kind::ALL {
        reads_alike(kind, bytes);
    }
}

/// A message borrows from its frame, so each is of a type of its own: a macro where a function can't be.
macro_rules! check {
    ($message:ty, $payload:expr) => {
        if let Ok(read) = codec::payload::<$message>(<$message>::KIND, $payload) {
            let frame = codec::frame(&read).expect("no longer than what it was read from");
            let again: $message = codec::read(&frame).expect("its own frame");
            assert_eq!(again, read);
            assert_eq!(codec::frame(&again).as_deref(), Ok(&*frame), "a message has one frame");
        }
    };
}

fn reads_alike(kind: Kind, payload: &[u8]) {
    match kind {
        Kind::Hello => check!(Hello, payload),
        Kind::HelloAck => check!(HelloAck, payload),
        Kind::Gossip => {} // chitchat's own bytes
        Kind::Forward => check!(Forward<'_>, payload),
        Kind::Answer => check!(Answer<'_>, payload),
        Kind::NotHere => check!(NotHere, payload),
        Kind::Refused => check!(Refusal, payload),
        Kind::Note => check!(Note, payload),
        Kind::Keep => check!(Keep, payload),
        Kind::Kept => check!(Kept, payload),
        Kind::Give => check!(Give, payload),
        Kind::Taken => check!(Taken, payload),
        Kind::Recall => check!(Recall, payload),
        Kind::Recalled => check!(Recalled, payload),
        Kind::List => check!(List, payload),
        Kind::Listed => check!(Listed, payload),
        Kind::Explain => check!(Explain, payload),
        Kind::Explained => check!(Explained, payload),
        Kind::End => check!(End, payload),
        Kind::EndAnswer => check!(EndAnswer, payload),
        Kind::Count => check!(Count, payload),
        Kind::Counted => check!(Counted, payload),
        Kind::News => check!(News<'_>, payload),
    }
}
