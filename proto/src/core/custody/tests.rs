//! What is hard to see in a whole cluster: the simulation runs custody with all the rest.

use super::*;
use crate::id::{Birth, Incarnation, Principal, RouteId, Tag};
use crate::wire::Verdict;

const NONCE: Nonce = Nonce([7; 12]);

/// A session as it was born.
pub(crate) fn record(nonce: Nonce, home: NodeRef) -> Record {
    let (route, principal) = (RouteId(1), Principal::ANYONE);
    Record {
        nonce,
        birth: Birth { minted_s: 0, home, route, principal, upstream: None },
        epoch: 1,
        rev: 0,
        lives: None,
        renewals: 0,
        initialize: b"{}".as_slice().into(),
        log_level: None,
        subscriptions: Default::default(),
        repeatable: Default::default(),
        keep_s: 60,
    }
}

fn node(tag: u32) -> NodeRef {
    NodeRef { tag: Tag(tag), inc: Incarnation(1) }
}

fn over(verdicts: &[(u32, &[u32])]) -> Succession {
    let mut succession = Succession::default();
    for (over, heirs) in verdicts {
        let heirs = heirs.iter().map(|heir| node(*heir)).collect();
        assert!(succession.learn(&Verdict { over: node(*over), heirs }));
    }
    succession
}

/// The custody of that node, whose heirs are these.
fn custody(me: u32, heirs: &[u32]) -> Custody {
    let mut custody = Custody::new(node(me), Rules::ALL);
    custody.entrust(heirs.iter().map(|heir| node(*heir)).collect(), 0);
    custody
}

fn log_at(level: &str) -> impl FnOnce(&mut Record) {
    let level = level.into();
    |record| record.log_level = Some(level)
}

/// What this node would send to a backup now.
fn copy(custody: &Custody) -> Item {
    Item::Live(custody.record(NONCE).expect("it owns it").clone())
}

fn given(custody: &mut Custody, now: Ms) -> Arc<Record> {
    let gives = custody.parcels(now).into_iter().filter_map(|parcel| match parcel {
        Parcel::Give { record, .. } => Some(record),
        Parcel::Keep { .. } => None,
    });
    gives.last().expect("something is given")
}

#[test]
fn a_taker_goes_on_from_what_it_is_given_where_its_copy_is_older() {
    let (mut giver, mut taker) = (custody(1, &[2]), custody(2, &[]));
    giver.own(record(NONCE, node(1)), 0);
    taker.keep(node(2), &copy(&giver), 0);
    giver.change(NONCE, log_at("debug"), 0);
    assert_eq!(giver.give(NONCE, &Succession::default(), 0), Some(node(2)));
    let taken = taker.take(node(2), &given(&mut giver, 0), 0).expect("it is the taker's");
    assert_eq!((taken.epoch, taken.log_level.as_deref()), (2, Some("debug")));
}

#[test]
fn a_taker_goes_on_from_its_copy_where_that_is_of_an_owner_whom_the_giver_lost() {
    let (mut giver, mut lost) = (custody(1, &[2, 3]), custody(2, &[]));
    giver.own(record(NONCE, node(1)), 0);
    let to = giver.give(NONCE, &Succession::default(), 0).expect("two heirs");
    let last = if to == node(2) { 3 } else { 2 };
    lost.me = to;
    lost.take(to, &given(&mut giver, 0), 0).expect("it is the first taker's");
    lost.change(NONCE, log_at("error"), 0);
    let mut taker = custody(last, &[]);
    taker.keep(node(last), &copy(&lost), 0);
    giver.inherit(&over(&[(to.tag.0, &[last])]), 1);
    let taken = taker.take(node(last), &given(&mut giver, 1), 1).expect("it is the last one's");
    assert_eq!((taken.epoch, taken.log_level.as_deref()), (3, Some("error")));
}

#[test]
fn no_epoch_is_used_twice_where_a_gift_is_forgotten() {
    let (mut giver, mut taker) = (custody(1, &[2]), custody(2, &[3]));
    giver.own(record(NONCE, node(1)), 0);
    assert_eq!(giver.give(NONCE, &Succession::default(), 0), Some(node(2)));
    taker.take(node(2), &given(&mut giver, 0), 0).expect("it is the taker's");
    let mut last = custody(3, &[4]);
    last.keep(node(3), &copy(&taker), 0);
    // Who decides alone what becomes of both knows of no gift.
    let succession = over(&[(1, &[3]), (2, &[3])]);
    assert_eq!(succession.owner(node(1), Position::of_session(NONCE)).epoch, 2);
    let inherited = last.inherit(&succession, 1);
    assert_eq!(inherited.iter().map(|record| record.epoch).collect::<Vec<_>>(), [3]);
    // Its own heirs come after it all the same.
    assert_eq!(last.give(NONCE, &succession, 2), Some(node(4)));
    assert_eq!(given(&mut last, 2).epoch, 4);
}

#[test]
fn what_was_given_is_not_given_on_before_the_giver_is_over() {
    let (mut giver, mut taker) = (custody(1, &[2]), custody(2, &[1, 3]));
    giver.own(record(NONCE, node(1)), 0);
    giver.give(NONCE, &Succession::default(), 0).expect("an heir");
    taker.take(node(2), &given(&mut giver, 0), 0).expect("it is the taker's");
    assert_eq!(taker.give(NONCE, &Succession::default(), 0), None);
    assert_eq!(taker.holding(NONCE), Holding::Live);
    assert!(taker.give(NONCE, &over(&[(1, &[2])]), 0).is_some());
}

#[test]
fn an_end_that_is_told_ends_a_session_also_at_its_owner() {
    let mut owner = custody(1, &[2]);
    owner.own(record(NONCE, node(1)), 0);
    owner.keep(node(1), &Item::Ended { nonce: NONCE, why: GoneWhy::Deleted }, 0);
    assert_eq!(owner.holding(NONCE), Holding::Ended(GoneWhy::Deleted));
}

#[test]
fn what_is_kept_of_a_session_whose_owner_is_over_is_listed_for_its_next_owner() {
    let mut keeper = custody(2, &[1, 3]);
    keeper.keep(node(2), &Item::Live(record(NONCE, node(1)).into()), 0);
    let listed =
        |custody: &Custody, verdicts: &[(u32, &[u32])]| custody.listed(Nonce([0; 12]), 9, &over(verdicts));
    assert_eq!(listed(&keeper, &[]), [], "its owner lives, and lists it");
    let kept = listed(&keeper, &[(1, &[3])]);
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].0.epoch, kept[0].1), (2, Whose::Kept { owner: node(3) }));
    keeper.keep(node(2), &Item::Ended { nonce: NONCE, why: GoneWhy::Deleted }, 0);
    assert_eq!(listed(&keeper, &[(1, &[3])]), []);

    let mut owner = custody(1, &[2]);
    owner.own(record(NONCE, node(1)), 0);
    assert_eq!(listed(&owner, &[])[0].1, Whose::Own);
    owner.give(NONCE, &over(&[]), 0);
    assert_eq!(listed(&owner, &[])[0].1, Whose::Given { to: node(2) });
}
