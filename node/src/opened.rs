//! Session ids that were opened a moment ago. A client names its session with every request, and to open a seal is a
//! tenth of what a call costs this node's own code (docs/performance.md); so each thread remembers the last ones.
//!
//! What is remembered was opened by these very keys: when the secrets change, nothing is. An id is found by a digest
//! of all of it before it is compared, so that how long a guess takes says nothing about how much of it is right.

use proto::id::{OpenError, SealKeys, SessionId};
use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};
use xxhash_rust::xxh3::xxh3_64;

/// Per thread; an entry is some 300 bytes.
const SLOTS: usize = 1024;

struct Opened {
    digest: u64,
    text: Box<str>,
    id: SessionId,
}

#[derive(Default)]
struct Memory {
    /// Whose ids these are. Held weakly, so that keys which are gone are gone.
    keys: Weak<SealKeys>,
    slots: Vec<Option<Opened>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// The session id that was sealed as `text`.
pub(crate) fn open(keys: &Arc<SealKeys>, text: &str) -> Result<SessionId, OpenError> {
    let digest = xxh3_64(text.as_bytes());
    let at = digest as usize % SLOTS;
    MEMORY.with_borrow_mut(|memory| {
        if !std::ptr::eq(memory.keys.as_ptr(), Arc::as_ptr(keys)) {
            memory.keys = Arc::downgrade(keys);
            memory.slots.clear();
            memory.slots.resize_with(SLOTS, || None);
        }
        let slot = &mut memory.slots[at];
        if let Some(known) = slot.as_ref().filter(|known| known.digest == digest && *known.text == *text) {
            return Ok(known.id.clone());
        }
        let (id, secret) = keys.open_by(text)?;
        // What rotated secrets open is counted, each time.
        if secret == 0 {
            *slot = Some(Opened { digest, text: text.into(), id: id.clone() });
        }
        Ok(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::{
        Birth, ClusterSecret, Incarnation, NodeRef, Nonce, Principal, RouteId, Tag, UpstreamBirth,
    };

    fn keys(secrets: &[u8]) -> Arc<SealKeys> {
        let secrets: Vec<_> = secrets.iter().map(|byte| ClusterSecret::from_entropy([*byte; 32])).collect();
        Arc::new(SealKeys::new(&secrets, "ringway"))
    }

    fn sealed(keys: &SealKeys, nonce: u8) -> String {
        let birth = Birth {
            minted_s: 1,
            home: NodeRef { tag: Tag(1), inc: Incarnation(1) },
            route: RouteId(1),
            principal: Principal::ANYONE,
            upstream: Some(UpstreamBirth { url: "http://127.0.0.1:1/mcp".into(), session: "s".into() }),
        };
        keys.seal(Nonce([nonce; 12]), &birth).expect("it is short")
    }

    #[test]
    fn what_is_remembered_is_what_the_seal_says() {
        let keys = keys(&[1]);
        let texts: Vec<_> = (0..200).map(|nonce| sealed(&keys, nonce)).collect();
        for _ in 0..3 {
            for text in &texts {
                assert_eq!(open(&keys, text), keys.open(text));
            }
        }
    }

    #[test]
    fn an_id_that_was_altered_is_not_the_one_that_is_remembered() {
        let keys = keys(&[1]);
        let text = sealed(&keys, 1);
        open(&keys, &text).expect("its own id");
        for at in "rw1.".len()..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("text");
            assert_eq!(open(&keys, &altered).is_ok(), keys.open(&altered).is_ok(), "{altered}");
        }
    }

    #[test]
    fn other_keys_remember_nothing_of_it() {
        let (old, new, both) = (keys(&[1]), keys(&[2]), keys(&[2, 1]));
        let text = sealed(&old, 1);
        open(&old, &text).expect("its own id");
        assert_eq!(open(&new, &text), Err(OpenError::Forged));
        for _ in 0..3 {
            open(&both, &text).expect("the second secret opens it");
        }
        assert_eq!(both.opened().collect::<Vec<_>>(), [0, 3], "each is counted");
    }
}
