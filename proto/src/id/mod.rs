//! Floor 0: what things are called.

mod fingerprint;
mod node;
mod secret;
mod session;
mod wrapped;

pub use fingerprint::Fingerprint;
pub use node::{BadNodeName, Incarnation, NodeName, NodeRef, Tag};
pub use secret::{BadSecret, ClusterSecret, DEVELOPMENT_SECRET};
pub use session::{
    Birth, Nonce, OpenError, Principal, RouteId, SEALED_TEXT_LEN_MAX, SealError, SealKeys, SessionId,
    UpstreamBirth, shortened,
};
pub use wrapped::{UpstreamTag, WrapKind, Wrapped};
