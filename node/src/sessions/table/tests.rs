//! Sessions come, are used, go, and change owners.

use super::*;
use crate::config::{BODY_LEN_MAX_DEFAULT, Protocol, UpstreamUrl};
use crate::sessions::usage::Use;
use proto::core::route::OnLoss;
use proto::id::{Birth, Incarnation, Principal, RouteId, Tag};
use proto::wire::SessionState;
use proto::wire::Verdict;

fn node(tag: u32) -> NodeRef {
    NodeRef { tag: Tag(tag), inc: Incarnation(1) }
}

fn route(idle_timeout: Duration) -> Arc<Route> {
    Arc::new(Route {
        id: RouteId::of("/mcp"),
        path: "/mcp".into(),
        protocol: Protocol::Mcp,
        key: None,
        upstreams: vec![Upstream::Http(UpstreamUrl::parse("http://127.0.0.1:1/mcp").expect("a URL"))],
        on_loss: OnLoss::Reinitialize,
        idle_timeout,
        sessions_max: 1,
        sessions_per_client_max: 1,
        body_len_max: BODY_LEN_MAX_DEFAULT,
        trust_annotations: true,
        auth: None,
    })
}

fn nonce(number: u8) -> Nonce {
    Nonce([number; 12])
}

fn record(number: u8, home: NodeRef) -> Record {
    let birth =
        Birth { minted_s: 0, home, route: RouteId::of("/mcp"), principal: Principal::ANYONE, upstream: None };
    Record {
        nonce: nonce(number),
        birth,
        epoch: 1,
        rev: 0,
        lives: None,
        renewals: 0,
        initialize: b"{}".as_slice().into(),
        log_level: None,
        subscriptions: Default::default(),
        repeatable: Arc::default(),
        keep_s: 60,
    }
}

fn place() -> Place {
    place_of(&used())
}

fn used() -> Arc<Use> {
    Arc::new(Use::of(&route(Duration::ZERO)))
}

fn place_of(used: &Arc<Use>) -> Place {
    Place { at: AtUpstream::new(used, 0), session: HeaderValue::from_static("x"), _held: None }
}

/// A table of node 1 with that session, born there.
fn table(idle_timeout: Duration) -> (Table, InUse) {
    let table = Table::new(node(1));
    let in_use = table.insert(record(1, node(1)), route(idle_timeout), place());
    (table, in_use)
}

#[test]
fn a_session_in_use_does_not_expire_and_one_at_rest_does() {
    let (table, in_use) = table(Duration::ZERO);
    assert!(table.expire().is_empty());
    assert_eq!(table.holding(nonce(1)), Holding::Live);
    drop(in_use);
    assert_eq!(table.expire().len(), 1);
    assert_eq!(table.holding(nonce(1)), Holding::Ended(GoneWhy::Expired));
    assert!(table.take_up(nonce(1), false).is_none());
    assert_eq!((table.count(), table.census()), (0, (0, 0)));
}

#[test]
fn a_session_that_has_ended_takes_no_place_though_its_last_answer_is_still_being_sent() {
    let (table, used) = (Table::new(node(1)), used());
    let in_use = table.insert(record(1, node(1)), route(Duration::MAX), place_of(&used));
    assert_eq!(used.total(), 1);
    let ended = table.end(nonce(1), GoneWhy::Deleted);
    assert_eq!(used.total(), 0);
    drop((in_use, ended));
    assert_eq!(used.total(), 0, "it is counted off once");
}

#[tokio::test]
async fn a_session_does_not_expire_while_its_old_client_listens() {
    let table = Table::new(node(1));
    table.find(node(1), record(1, node(1)), route(Duration::ZERO), None);
    let listens = table.take_up(nonce(1), true).expect("it is there");
    let outbox = listens.live.outbox.get_or_init(|| Arc::new(Outbox::new(1)));
    let reader = outbox.read(None);
    table.renew(&listens.live, place(), None, |_| {}).expect("it says initialize");
    assert!(table.expire().is_empty());
    drop((reader, listens));
    assert_eq!(table.expire().len(), 1);
}

#[test]
fn a_session_is_given_away_between_two_calls_whatever_streams_it_has() {
    let (table, call) = table(Duration::MAX);
    table.custody(|custody, now| custody.entrust(vec![node(2)], now));
    let stream = table.take_up(nonce(1), true).expect("it is there");
    assert_eq!(table.give_idle(&Succession::default()), Left { busy: 1, all: 1 });
    drop(call);
    assert_eq!(table.give_idle(&Succession::default()), Left { busy: 0, all: 1 });
    assert_eq!(table.holding(nonce(1)), Holding::Given(node(2)));
    assert_eq!(table.explain(nonce(1)).state, SessionState::Moved { to: node(2) });
    assert!(stream.live.readers().admit(None).is_none(), "its streams know, also those that ask later");
}

#[test]
fn what_is_inherited_is_taken_in_once() {
    let table = Table::new(node(1));
    table.custody(|custody, now| custody.keep(node(1), &Item::Live(record(1, node(2)).into()), now));
    let mut succession = Succession::default();
    succession.learn(&Verdict { over: node(2), heirs: vec![node(1)] });
    let settle = |_: &Record| Some((route(Duration::MAX), None));
    assert_eq!(table.inherit(&succession, settle), 1);
    let first = table.take_up(nonce(1), false).expect("it is this node's");
    assert_eq!(table.explain(nonce(1)).state, SessionState::Live { epoch: 2 });
    assert_eq!(table.inherit(&succession, settle), 0);
    table.find(node(1), record(1, node(2)), route(Duration::MAX), None);
    let again = table.take_up(nonce(1), false).expect("it is this node's");
    assert!(Arc::ptr_eq(&first.live, &again.live), "found twice");
}

#[test]
fn what_its_owner_before_has_ended_is_served_no_more() {
    let (table, in_use) = table(Duration::MAX);
    let ended = Item::Ended { nonce: nonce(1), why: GoneWhy::Deleted };
    let live = table.keep(node(1), &ended).expect("it was served here");
    assert!(Arc::ptr_eq(&live, &in_use.live));
    assert_eq!(table.holding(nonce(1)), Holding::Ended(GoneWhy::Deleted));
    assert!(table.keep(node(1), &ended).is_none(), "once");
}

#[test]
fn what_was_found_for_who_this_node_was_is_not_taken_in() {
    let table = Table::new(node(1));
    table.be_reborn(reborn(), false, &Succession::default());
    table.find(node(1), record(1, node(2)), route(Duration::MAX), None);
    assert_eq!(table.holding(nonce(1)), Holding::Unknown);
}

#[test]
fn a_renewed_session_is_another_to_its_upstream_and_the_same_to_its_client() {
    let (table, in_use) = table(Duration::MAX);
    let renewed = table.renew(&in_use.live, place(), None, |record| record.renewals += 1);
    assert_eq!(renewed.expect("it is still there").renewals, 1);
    assert_eq!(table.record(nonce(1)).map(|record| (record.renewals, record.rev)), Some((1, 1)));
    table.end(nonce(1), GoneWhy::Deleted);
    assert!(table.renew(&in_use.live, place(), None, |_| {}).is_none(), "it has ended meanwhile");
    assert_eq!(table.holding(nonce(1)), Holding::Ended(GoneWhy::Deleted));
}

#[test]
fn a_reborn_node_has_what_it_is_the_heir_of_and_nothing_else() {
    for (heirs, kept) in [(vec![node(1)], false), (vec![node(2)], false), (vec![reborn()], true)] {
        let (table, in_use) = table(Duration::MAX);
        let mut succession = Succession::default();
        succession.learn(&Verdict { over: node(1), heirs: heirs.clone() });
        let lost = table.be_reborn(reborn(), heirs == [reborn()], &succession);
        assert_eq!((lost.len(), table.count()), if kept { (0, 1) } else { (1, 0) }, "{heirs:?}");
        drop(in_use);
    }
}

fn reborn() -> NodeRef {
    NodeRef { tag: Tag(1), inc: Incarnation(2) }
}
