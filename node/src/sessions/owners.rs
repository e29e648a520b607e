//! When owners change: what this node takes over, is given, gives away and loses.

use super::{Left, Sessions};
use proto::core::succession::Succession;
use proto::id::{NodeRef, Nonce};
use proto::wire::{Give, Item, Keep};
use std::sync::Arc;

impl Sessions {
    /// What this node keeps copies of and now owns by the verdicts.
    pub(crate) fn inherit(&self, succession: &Succession) -> usize {
        let count = self.table.inherit(succession, |record| self.settle(record));
        self.publish_count();
        count
    }

    /// The backups of this node, and who it gives its sessions to when it leaves.
    pub(crate) fn entrust(&self, heirs: Vec<NodeRef>) {
        self.table.custody(|custody, now| custody.entrust(heirs, now));
    }

    /// Whether it was meant for who this node is now; only then is anything promised.
    pub(crate) fn keep(self: &Arc<Self>, keep: &Keep) -> bool {
        self.keep_items(keep.to, &keep.items);
        keep.to == self.cluster.me()
    }

    /// What an owner before this node has ended may have been taken up here meanwhile.
    pub(super) fn keep_items(self: &Arc<Self>, to: NodeRef, items: &[Item]) {
        let ended: Vec<_> = items.iter().filter_map(|item| self.table.keep(to, item)).collect();
        if !ended.is_empty() {
            self.publish_count();
            self.end_upstream_soon(ended);
        }
    }

    pub(crate) fn take(&self, give: &Give) -> bool {
        let has_route = self.route(give.record.birth.route).is_some();
        self.table.take(give.to, &give.record, |record| self.settle(record));
        self.publish_count();
        has_route && give.to == self.cluster.me()
    }

    pub(crate) fn recall_copy(&self, nonce: Nonce) -> Option<Item> {
        self.table.recall(nonce)
    }

    /// Gives away what nothing calls at the moment; says what is left to be given or taken.
    pub(crate) fn give_idle(&self, succession: &Succession) -> Left {
        let left = self.table.give_idle(succession);
        self.publish_count();
        left
    }

    pub(crate) fn left(&self) -> Left {
        self.table.left()
    }

    /// Whether new calls have to wait until their session has been given away. What belongs to a call
    /// in progress (its cancellation, answers to what the server asks) does not wait.
    pub(crate) fn park(&self, parks: bool) {
        self.table.park(parks);
    }

    /// This node goes on as another incarnation.
    pub(crate) fn be_reborn(&self, heir: bool, succession: &Succession) -> usize {
        let lost = self.table.be_reborn(self.cluster.me(), heir, succession);
        self.publish_count();
        lost.len()
    }
}
