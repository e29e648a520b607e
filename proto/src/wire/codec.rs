//! How messages become bytes: a fixed head, then bincode. The only file that names bincode.
//!
//! A frame is `version (1) | kind (1) | length (4, big endian) | payload`. Decoding is bounded: a
//! length over [`PAYLOAD_LEN_MAX`] is refused before anything is reserved for it, and bincode itself
//! may not reserve more than that for a length it reads.

use super::Kind;
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Deserialize, Serialize};
use std::fmt;

pub const WIRE_VERSION: u8 = 1;
pub const FRAME_HEAD_LEN: usize = 6;
/// Twice the 64 KiB of headers that the client edge accepts, so that what was let in passes on.
pub const PAYLOAD_LEN_MAX: usize = 128 * 1024;

const CONFIG: Configuration<LittleEndian, Varint, Limit<PAYLOAD_LEN_MAX>> =
    bincode::config::standard().with_limit::<PAYLOAD_LEN_MAX>();

/// A type with a number of its own on the wire.
pub trait Message {
    const KIND: Kind;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The peer speaks another version of this protocol.
    Version(u8),
    UnknownKind(u8),
    /// A known message, but not the one that belongs here.
    Unexpected(Kind),
    TooLong {
        len: usize,
    },
    /// Bytes are missing, left over, or not of the message's form.
    Malformed,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "wire version {version}, this node speaks {WIRE_VERSION}"),
            Self::UnknownKind(kind) => write!(f, "unknown message number {kind}"),
            Self::Unexpected(kind) => write!(f, "{kind:?} does not belong here"),
            Self::TooLong { len } => {
                write!(f, "a payload of {len} bytes, at most {PAYLOAD_LEN_MAX} are read")
            }
            Self::Malformed => f.write_str("malformed message"),
        }
    }
}

impl std::error::Error for CodecError {}

/// The first six bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub kind: Kind,
    pub len: usize,
}

impl FrameHead {
    pub fn read(bytes: [u8; FRAME_HEAD_LEN]) -> Result<Self, CodecError> {
        let [version, kind, len @ ..] = bytes;
        if version != WIRE_VERSION {
            return Err(CodecError::Version(version));
        }
        let kind = Kind::from_number(kind).ok_or(CodecError::UnknownKind(kind))?;
        let len = u32::from_be_bytes(len) as usize;
        if len > PAYLOAD_LEN_MAX { Err(CodecError::TooLong { len }) } else { Ok(Self { kind, len }) }
    }

    pub fn write(self) -> [u8; FRAME_HEAD_LEN] {
        let len = u32::try_from(self.len).expect("a payload is at most PAYLOAD_LEN_MAX");
        let [a, b, c, d] = len.to_be_bytes();
        [WIRE_VERSION, self.kind as u8, a, b, c, d]
    }
}

/// A whole frame.
///
/// # Errors
/// If the message is longer than a peer would read.
pub fn frame<M: Message + Serialize>(message: &M) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(1024); // the heads of most calls
    bytes.extend_from_slice(&[0; FRAME_HEAD_LEN]);
    pack_into(&mut bytes, message);
    let len = bytes.len() - FRAME_HEAD_LEN;
    if len > PAYLOAD_LEN_MAX {
        return Err(CodecError::TooLong { len });
    }
    bytes[..FRAME_HEAD_LEN].copy_from_slice(&FrameHead { kind: M::KIND, len }.write());
    Ok(bytes)
}

/// The message of a frame that is there as a whole.
pub fn read<'a, M: Message + Deserialize<'a>>(frame: &'a [u8]) -> Result<M, CodecError> {
    let (head, bytes) = frame.split_first_chunk().ok_or(CodecError::Malformed)?;
    let head = FrameHead::read(*head)?;
    if head.len == bytes.len() { payload(head.kind, bytes) } else { Err(CodecError::Malformed) }
}

/// The message of a frame's payload; it borrows from it.
pub fn payload<'a, M: Message + Deserialize<'a>>(kind: Kind, bytes: &'a [u8]) -> Result<M, CodecError> {
    if kind == M::KIND { unpack(bytes) } else { Err(CodecError::Unexpected(kind)) }
}

/// Appends a value without a frame around it.
pub(crate) fn pack_into(out: &mut Vec<u8>, value: &impl Serialize) {
    bincode::serde::encode_into_std_write(value, out, CONFIG).expect("writing to memory can't fail");
}

/// Reads a value that fills `bytes` to the last one.
pub(crate) fn unpack<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    match bincode::serde::borrow_decode_from_slice(bytes, CONFIG) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok(_) | Err(_) => Err(CodecError::Malformed),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The golden check that every message's own test uses.
    pub(crate) fn assert_golden<'a, M>(message: &M, golden: &str, bytes: &'a mut Vec<u8>)
    where
        M: Message + Serialize + Deserialize<'a> + PartialEq + fmt::Debug,
    {
        *bytes = frame(message).expect("short enough");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden, "{:?}: other nodes of a rolling upgrade read these bytes", M::KIND);
        let (head, rest) = bytes.split_first_chunk().expect("a frame has a head");
        let head = FrameHead::read(*head).expect("own head");
        assert_eq!(head.len, rest.len());
        assert_eq!(&payload::<M>(head.kind, rest).expect("own payload"), message);
    }

    #[test]
    fn a_head_says_what_is_wrong_with_it() {
        assert_eq!(FrameHead::read([2, 1, 0, 0, 0, 0]), Err(CodecError::Version(2)));
        assert_eq!(FrameHead::read([1, 0, 0, 0, 0, 0]), Err(CodecError::UnknownKind(0)));
        assert_eq!(FrameHead::read([1, 1, 0, 2, 0, 1]), Err(CodecError::TooLong { len: 131_073 }));
        assert_eq!(FrameHead::read([1, 1, 0, 2, 0, 0]), Ok(FrameHead { kind: Kind::Hello, len: 131_072 }));
    }

    #[test]
    fn leftover_bytes_are_refused() {
        assert_eq!(unpack::<u8>(&[1, 2]), Err(CodecError::Malformed));
        assert_eq!(unpack::<u8>(&[]), Err(CodecError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic_or_reserve_without_bound(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for kind in Kind::ALL {
                let _ = payload::<super::super::Forward<'_>>(kind, &bytes);
                let _ = payload::<super::super::Answer<'_>>(kind, &bytes);
                let _ = payload::<super::super::Hello>(kind, &bytes);
            }
        }
    }
}
