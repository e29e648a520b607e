//! What is asked of every node for an operator: which sessions there are, how much there is to do, and that
//! one session shall end. Who does not answer is named; nothing is missing without a word.

use crate::events::Event;
use crate::journey::Journey;
use crate::peer::Peers;
use crate::telemetry::{Forwarded, Metrics};
use proto::core::{ring::Position, view::Phase};
use proto::id::{Birth, NodeName, NodeRef, Nonce, shortened};
use proto::wire::{Counted, End, EndOutcome, Forwards, List, Listed, Seen, Whose};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// Sessions in one answer to an operator.
pub(crate) const LISTED_MAX: usize = 1_000;
/// A session that moves is between two nodes for some milliseconds. It is looked for this often.
const ROUNDS_MAX: usize = 10;
const ROUND_EVERY: Duration = Duration::from_millis(50);
/// Nodes that an end is carried to: from the one which the verdicts name to the one that it gave it to.
const CARRIED_MAX: usize = 4;

/// A piece of the list of all sessions.
#[derive(Debug)]
pub(crate) struct Page {
    /// By nonce, each with its owner.
    pub(crate) sessions: Vec<(NodeRef, Seen)>,
    /// There are more behind the last one.
    pub(crate) more: bool,
    /// Members that did not answer, or of which it is not settled who owns what they owned.
    pub(crate) unreachable: BTreeSet<NodeName>,
}

/// This node's own sessions.
pub(crate) fn own_sessions(journey: &Journey, from: Nonce, most: usize) -> Page {
    let me = journey.cluster.me();
    let (mut sessions, mut next, mut more) = (Vec::new(), Some(from), true);
    // Again where some of these were given away.
    while let Some(from) = next.filter(|_| more && sessions.len() < most) {
        let listed = journey.sessions.list(list(from, most - sessions.len()));
        next = listed.sessions.last().and_then(|last| last.nonce.next());
        more = listed.more;
        sessions.extend(
            listed.sessions.into_iter().filter(|seen| seen.whose == Whose::Own).map(|seen| (me, seen)),
        );
    }
    Page { sessions, more, unreachable: BTreeSet::new() }
}

/// The sessions of all nodes, each once, however it moves meanwhile.
pub(crate) async fn sessions(journey: &Arc<Journey>, from: Nonce, most: usize) -> Page {
    let mut silent = BTreeSet::new();
    let mut round = 0;
    loop {
        round += 1;
        let (page, is_settled) = look(journey, from, most, &mut silent).await;
        if is_settled || round == ROUNDS_MAX {
            return page;
        }
        tokio::time::sleep(ROUND_EVERY).await;
    }
}

/// One look at all nodes; whether it shows everything once. Who has been silent is not waited for again.
async fn look(
    journey: &Arc<Journey>,
    from: Nonce,
    most: usize,
    silent: &mut BTreeSet<NodeRef>,
) -> (Page, bool) {
    let (me, world) = (journey.cluster.me(), journey.cluster.world());
    let mut unreachable = BTreeSet::new();
    let mut asked = JoinSet::new();
    for member in world.view.members().iter().filter(|member| member.node != me) {
        let (node, at) = (member.node, member.peer);
        let is_gone = member.phase == Phase::Dead || journey.cluster.is_gone(node);
        if world.succession.is_over(node) && is_gone {
            continue; // what it owned is its heirs', and they are asked
        }
        if is_gone || silent.contains(&node) {
            unreachable.insert(member.name.clone());
            continue;
        }
        let peers = journey.peers.clone();
        let name = member.name.clone();
        asked.spawn(async move { (node, name, all_of(&peers, node, at, from, most).await) });
    }
    let own = all_of_own(journey, from, most);
    let mut is_settled = own.digest == world.succession.digest();
    let mut merged = Merged::default();
    merged.take(me, own);
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((node, _, Some(listed))) => {
                is_settled &= listed.digest == world.succession.digest();
                merged.take(node, listed);
            }
            Ok((node, name, None)) => {
                silent.insert(node);
                unreachable.insert(name);
            }
            Err(_) => is_settled = false, // a task that was ended with its runtime
        }
    }
    let (sessions, more, all_found) = merged.page(most);
    (Page { sessions, more, unreachable }, is_settled && all_found)
}

fn list(from: Nonce, most: usize) -> List {
    List { from, most: u16::try_from(most).unwrap_or(u16::MAX) }
}

/// As many of a node's sessions as are asked for, or all. Their digest is that of the first answer: what
/// the node inherited by then is in all of them.
async fn all_of(
    peers: &Arc<Peers>,
    node: NodeRef,
    at: SocketAddr,
    from: Nonce,
    most: usize,
) -> Option<Listed> {
    let mut all = peers.list(node, at, list(from, most)).await?;
    while let Some(from) = goes_on(&all, most) {
        let next = peers.list(node, at, list(from, most - all.sessions.len())).await?;
        all.more = next.more;
        all.sessions.extend(next.sessions);
    }
    Some(all)
}

fn all_of_own(journey: &Journey, from: Nonce, most: usize) -> Listed {
    let mut all = journey.sessions.list(list(from, most));
    while let Some(from) = goes_on(&all, most) {
        let next = journey.sessions.list(list(from, most - all.sessions.len()));
        all.more = next.more;
        all.sessions.extend(next.sessions);
    }
    all
}

/// Where the rest of a list begins that was cut for its length.
fn goes_on(listed: &Listed, most: usize) -> Option<Nonce> {
    let last = listed.sessions.last().filter(|_| listed.more && listed.sessions.len() < most)?;
    last.nonce.next()
}

/// What several nodes have said, by session.
#[derive(Debug, Default)]
struct Merged {
    sessions: BTreeMap<Nonce, (NodeRef, Seen)>,
    /// Behind it not every node has said what it has.
    until: Option<Nonce>,
}

impl Merged {
    fn take(&mut self, node: NodeRef, listed: Listed) {
        if let Some(last) = listed.sessions.last().filter(|_| listed.more) {
            self.until = Some(self.until.map_or(last.nonce, |until| until.min(last.nonce)));
        }
        for seen in listed.sessions {
            // Of two owners the later one is right; who has a session comes before who gave it away, and who
            // gave it before who has a copy.
            let rank = |seen: &Seen| (seen.epoch, Reverse(seen.whose));
            let known = self.sessions.get(&seen.nonce);
            if known.is_none_or(|(_, known)| rank(known) < rank(&seen)) {
                self.sessions.insert(seen.nonce, (node, seen));
            }
        }
    }

    /// The first of them; whether there are more; and whether each has been seen at its owner's.
    fn page(self, most: usize) -> (Vec<(NodeRef, Seen)>, bool, bool) {
        let Self { sessions, until } = self;
        let known = |nonce: Nonce| until.is_none_or(|until| nonce <= until);
        let all = sessions.len();
        let page: Vec<_> = sessions.into_values().filter(|(_, seen)| known(seen.nonce)).take(most).collect();
        let more = until.is_some() || page.len() < all;
        let all_found = !page.iter().any(|(_, seen)| matches!(seen.whose, Whose::Given { .. }));
        let at_owners = page.into_iter().map(|(node, seen)| match seen.whose {
            Whose::Own => (node, seen),
            Whose::Given { to: owner } | Whose::Kept { owner } => (owner, seen),
        });
        (at_owners.collect(), more, all_found)
    }
}

/// What a session is, where all that is known of it is its nonce; and who did not answer.
pub(crate) async fn find(journey: &Arc<Journey>, nonce: Nonce) -> (Option<Birth>, BTreeSet<NodeName>) {
    let page = sessions(journey, nonce, 1).await;
    let found = page.sessions.into_iter().find(|(_, seen)| seen.nonce == nonce);
    (found.map(|(_, seen)| seen.birth), page.unreachable)
}

/// Ends a session wherever it is.
pub(crate) async fn end(journey: &Arc<Journey>, nonce: Nonce, birth: &Birth) -> Option<EndOutcome> {
    let (me, world) = (journey.cluster.me(), journey.cluster.world());
    let mut owner = world.succession.owner(birth.home, Position::of_session(nonce)).node;
    let mut outcome = None;
    for _ in 0..CARRIED_MAX {
        let end = End { nonce, birth: birth.clone() };
        let said = match world.view.get(owner) {
            _ if owner == me => Some(end_here(journey, end).await),
            Some(member) if member.phase != Phase::Dead => journey.peers.end(owner, member.peer, &end).await,
            Some(_) | None => None,
        };
        outcome = said;
        match said {
            Some(EndOutcome::Elsewhere(Some(next))) if next != owner => owner = next,
            Some(
                EndOutcome::Elsewhere(_) | EndOutcome::Ended | EndOutcome::Gone(_) | EndOutcome::Unsettled,
            )
            | None => break,
        }
    }
    outcome
}

/// This node is told to end a session.
pub(crate) async fn end_here(journey: &Journey, End { nonce, birth }: End) -> EndOutcome {
    let route = journey.sessions.path(birth.route).unwrap_or_default().to_owned();
    let id = journey.cluster.seal().seal(nonce, &birth);
    let outcome = journey.sessions.end_by_operator(nonce, birth).await;
    if outcome == EndOutcome::Ended {
        let session = id.map(|id| shortened(&id).to_owned()).unwrap_or_default();
        journey.events.tell(Event::SessionEnded { session, route });
    }
    outcome
}

/// How much every node has to do; who does not answer is named.
pub(crate) async fn traffic(journey: &Arc<Journey>) -> (Vec<(NodeName, Counted)>, BTreeSet<NodeName>) {
    let (me, world) = (journey.cluster.me(), journey.cluster.world());
    let mut asked = JoinSet::new();
    for member in world.view.members() {
        // One that is dead and gone has nothing to do.
        if member.node == me || (member.phase == Phase::Dead && world.succession.is_over(member.node)) {
            continue;
        }
        let (peers, node, at) = (journey.peers.clone(), member.node, member.peer);
        let (name, is_dead) = (member.name.clone(), member.phase == Phase::Dead);
        asked.spawn(async move {
            let counted = if is_dead { None } else { peers.count(node, at).await };
            (name, counted)
        });
    }
    let mut nodes = vec![(journey.cluster.name().clone(), count(journey))];
    let mut unreachable = BTreeSet::new();
    while let Some(answer) = asked.join_next().await {
        let Ok((name, counted)) = answer else { continue };
        match counted {
            Some(counted) => nodes.push((name, counted)),
            None => drop(unreachable.insert(name)),
        }
    }
    nodes.sort_by(|(one, _), (other, _)| one.cmp(other));
    (nodes, unreachable)
}

/// How much this node has to do: the counters of /metrics.
pub(crate) fn count(journey: &Journey) -> Counted {
    let (live, idle) = journey.sessions.census();
    let metrics = &journey.metrics;
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let world = journey.cluster.world();
    let others = world.view.members().iter().filter(|member| member.node.tag != journey.cluster.me().tag);
    Counted {
        phase: journey.cluster.phase(),
        is_leased: journey.cluster.is_leased(),
        live: small(live),
        idle: small(idle),
        streams: u32::try_from(metrics.streams.get()).unwrap_or(0),
        children: small(journey.sessions.children()),
        requests: metrics.all_requests(),
        forwards: others.map(|member| forwards(metrics, &member.name)).collect(),
    }
}

fn forwards(metrics: &Metrics, to: &NodeName) -> Forwards {
    let count = |what| metrics.forwarded(to.as_str(), what);
    Forwards {
        to: to.clone(),
        answered: count(Forwarded::Answered),
        refused: count(Forwarded::Refused),
        not_here: count(Forwarded::NotHere),
        unsent: count(Forwarded::Unsent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::{Incarnation, Principal, RouteId, Tag};

    fn node(tag: u32) -> NodeRef {
        NodeRef { tag: Tag(tag), inc: Incarnation(1) }
    }

    fn seen(nonce: u8, epoch: u32, whose: Whose) -> Seen {
        let (route, principal) = (RouteId(1), Principal::ANYONE);
        Seen {
            nonce: Nonce([nonce; 12]),
            birth: Birth { minted_s: 0, home: node(1), route, principal, upstream: None },
            epoch,
            whose,
            is_idle: false,
            idle_s: 0,
            streams: 0,
            client: None,
            protocol: None,
        }
    }

    fn merged(answers: Vec<(u32, Vec<Seen>, bool)>) -> Merged {
        let mut merged = Merged::default();
        for (by, sessions, more) in answers {
            merged.take(node(by), Listed { digest: 0, sessions, more });
        }
        merged
    }

    fn page(merged: Merged, most: usize) -> (Vec<(u8, u32)>, bool, bool) {
        let (sessions, more, all_found) = merged.page(most);
        (sessions.iter().map(|(owner, seen)| (seen.nonce.0[0], owner.tag.0)).collect(), more, all_found)
    }

    #[test]
    fn a_session_that_moves_is_listed_once_at_its_later_owner() {
        let moved =
            merged(vec![(2, vec![seen(7, 2, Whose::Own)], false), (1, vec![seen(7, 1, Whose::Own)], false)]);
        assert_eq!(page(moved, 9), (vec![(7, 2)], false, true));
        let given = seen(7, 2, Whose::Given { to: node(2) });
        let taken = merged(vec![(1, vec![given.clone()], false), (2, vec![seen(7, 2, Whose::Own)], false)]);
        assert_eq!(page(taken, 9), (vec![(7, 2)], false, true));
        let kept = seen(7, 2, Whose::Kept { owner: node(2) });
        let known = merged(vec![(3, vec![kept.clone()], false), (2, vec![seen(7, 2, Whose::Own)], false)]);
        assert_eq!(page(known, 9), (vec![(7, 2)], false, true));
        assert_eq!(page(merged(vec![(3, vec![kept], false)]), 9), (vec![(7, 2)], false, true));
        // Its next owner was asked before it had it.
        let between = merged(vec![(2, vec![], false), (1, vec![given], false)]);
        assert_eq!(page(between, 9), (vec![(7, 2)], false, false));
    }

    #[test]
    fn a_page_ends_where_a_node_has_not_said_everything() {
        let all = || {
            let one = vec![seen(1, 1, Whose::Own), seen(4, 1, Whose::Own)];
            merged(vec![(1, one, true), (2, vec![seen(2, 1, Whose::Own), seen(6, 1, Whose::Own)], false)])
        };
        assert_eq!(page(all(), 9), (vec![(1, 1), (2, 2), (4, 1)], true, true));
        assert_eq!(page(all(), 2), (vec![(1, 1), (2, 2)], true, true));
        let whole =
            merged(vec![(1, vec![seen(1, 1, Whose::Own)], false), (2, vec![seen(2, 1, Whose::Own)], false)]);
        assert_eq!(page(whole, 2), (vec![(1, 1), (2, 2)], false, true));
    }
}
