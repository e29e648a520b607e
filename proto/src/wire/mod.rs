//! Floor 1: what nodes say to each other.
//!
//! Every message is one frame ([`codec`]); its number is in [`Kind`]. What follows a `Forward` or an
//! `Answer` frame on its stream is the body, raw, until the stream ends.

pub mod codec;
mod control;
mod forward;
mod hello;
mod kinds;
mod listing;
#[cfg(test)]
mod properties;
mod record;
mod refusal;

pub use codec::{CodecError, FRAME_HEAD_LEN, FrameHead, Message};
pub use control::{Ballot, Ms, Note, Say, Verdict, WhyNot, WitnessSet};
pub use forward::{Answer, Caller, Errand, Forward, Headers, Nature, NotHere, NotHereWhy};
pub use hello::{Hello, HelloAck, Lane};
pub use kinds::{CloseCode, Kind, StreamCode};
pub use listing::{
    CLIENT_LEN_MAX, Came, Count, Counted, End, EndAnswer, EndOutcome, Explain, Explained, Forwards,
    LISTED_LEN_MAX, List, Listed, NEWS_LEN_MAX, News, Seen, SessionState, Whose,
};
pub use record::{
    Give, INITIALIZE_LEN_MAX, Item, Keep, Kept, ON_RECORD_LEN_MAX, RECORDS_AT_ONCE, RECORDS_LEN_MAX, Recall,
    Recalled, Record, Taken,
};
pub use refusal::{GoneWhy, Limit, Reason, Refusal};
