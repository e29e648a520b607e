//! A witness's part in agreeing on one verdict: single-decree Paxos (Lamport, 2001), where accepting
//! is fencing.

use crate::id::NodeRef;
use crate::wire::Ballot;

/// What a witness has promised and accepted about one node's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Acceptor {
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Vec<NodeRef>)>,
}

impl Acceptor {
    /// Whether the node in question gets no acknowledgement from this witness any more, for ever.
    pub(super) fn is_fencing(&self) -> bool {
        self.accepted.is_some()
    }

    /// Promises to accept nothing below `ballot`, and tells what it has accepted.
    ///
    /// # Errors
    /// The higher ballot that it has promised already.
    pub(super) fn prepare(&mut self, ballot: Ballot) -> Result<Option<(Ballot, Vec<NodeRef>)>, Ballot> {
        match self.promised {
            Some(promised) if promised > ballot => Err(promised),
            Some(_) | None => {
                self.promised = Some(ballot);
                Ok(self.accepted.clone())
            }
        }
    }

    /// Agrees that the node is over and that these are its heirs. From now on it is fenced here.
    ///
    /// # Errors
    /// The higher ballot that it has promised.
    pub(super) fn accept(
        &mut self,
        ballot: Ballot,
        heirs: &[NodeRef],
        keeps_promises: bool,
    ) -> Result<(), Ballot> {
        match self.promised {
            Some(promised) if promised > ballot && keeps_promises => Err(promised),
            Some(_) | None => {
                self.promised = self.promised.max(Some(ballot));
                self.accepted = Some((ballot, heirs.to_vec()));
                Ok(())
            }
        }
    }
}
