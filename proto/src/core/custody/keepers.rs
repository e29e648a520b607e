//! What other nodes have of a record, as far as its owner knows. They are few: one short list, and none for a
//! record that nobody else has.

use crate::id::NodeRef;

#[derive(Clone, Debug, Default)]
pub(super) struct Keepers(Vec<Keeper>);

#[derive(Clone, Debug)]
struct Keeper {
    node: NodeRef,
    /// It may have some version.
    may_have: bool,
    latest: Latest,
}

/// What a node said, or was told, of the latest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latest {
    Unsaid,
    /// It has said that it keeps it.
    Kept,
    /// It has been told not to.
    Dismissed,
}

impl Keepers {
    /// Who may have any version.
    pub(super) fn may_have(&self) -> impl Iterator<Item = NodeRef> {
        self.0.iter().filter(|keeper| keeper.may_have).map(|keeper| keeper.node)
    }

    pub(super) fn has_latest(&self, node: NodeRef) -> bool {
        self.latest(node) == Latest::Kept
    }

    pub(super) fn is_dismissed(&self, node: NodeRef) -> bool {
        self.latest(node) == Latest::Dismissed
    }

    /// How many have the latest version.
    pub(super) fn count(&self) -> usize {
        self.0.iter().filter(|keeper| keeper.latest == Latest::Kept).count()
    }

    pub(super) fn sent(&mut self, node: NodeRef) {
        self.keeper(node).may_have = true;
    }

    /// A node says that it has the latest version.
    pub(super) fn kept(&mut self, node: NodeRef) {
        self.keeper(node).latest = Latest::Kept;
    }

    pub(super) fn dismiss(&mut self, node: NodeRef) {
        self.keeper(node).latest = Latest::Dismissed;
    }

    /// Those have no version: they have said so, or are over.
    pub(super) fn have_none(&mut self, is_it: impl Fn(NodeRef) -> bool) {
        for keeper in self.0.iter_mut().filter(|keeper| is_it(keeper.node)) {
            keeper.may_have = false;
        }
        self.0.retain(|keeper| keeper.may_have || keeper.latest != Latest::Unsaid);
    }

    /// The latest version is to be sent again to those that have it.
    pub(super) fn tell_again(&mut self) {
        for keeper in self.0.iter_mut().filter(|keeper| keeper.latest == Latest::Kept) {
            keeper.latest = Latest::Unsaid;
        }
    }

    /// There is a later version, of which nobody has said anything.
    pub(super) fn is_outdated(&mut self) {
        for keeper in &mut self.0 {
            keeper.latest = Latest::Unsaid;
        }
    }

    fn latest(&self, node: NodeRef) -> Latest {
        self.0.iter().find(|keeper| keeper.node == node).map_or(Latest::Unsaid, |keeper| keeper.latest)
    }

    fn keeper(&mut self, node: NodeRef) -> &mut Keeper {
        let at = self.0.iter().position(|keeper| keeper.node == node).unwrap_or_else(|| {
            self.0.push(Keeper { node, may_have: false, latest: Latest::Unsaid });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}
