//! Each thing that can be wrong, and beside it what looks like it and is not.

use std::time::Duration;

use super::super::schedule::FaultKind;
use super::impact::Served;
use super::*;

fn ms(ms: u64) -> At {
    Duration::from_millis(ms)
}

/// A ledger with sessions 0 and 1, both looked up as `a`'s under epoch 1.
fn two_sessions(upstreams: Upstreams) -> Ledger {
    let mut ledger = Ledger::new(upstreams);
    for _ in 0..2 {
        let session = ledger.opened();
        ledger.owned(&ownership(session, "a", 1, 0));
    }
    ledger
}

fn ownership(session: SessionNo, owner: &str, epoch: u64, at: u64) -> Ownership {
    let (sent, done) = (ms(at), ms(at + 1));
    Ownership { session, owner: owner.to_owned(), epoch: Some(epoch), sent, done, has_served: false }
}

/// A call of session 0 through `b`, answered by `a` after 10 ms.
fn call(at: u64, asked: Asked, outcome: Outcome) -> Call {
    Call {
        session: 0,
        asked,
        entry: "b".to_owned(),
        sent: ms(at),
        done: ms(at + 10),
        outcome,
        owner: Some("a".to_owned()),
        epoch: None,
    }
}

fn counted(at: u64, number: u64) -> Call {
    call(at, Asked::Count, Outcome::Counted(number))
}

fn by(owner: &str, epoch: u64, call: Call) -> Call {
    Call { owner: Some(owner.to_owned()), epoch: Some(epoch), ..call }
}

fn honest(may_have_run: bool) -> Outcome {
    Outcome::Honest { reason: "owner_lost".to_owned(), may_have_run }
}

fn numbers(ledger: &mut Ledger, numbers: &[u64]) {
    for (at, number) in (1..).zip(numbers) {
        ledger.called(&counted(at * 100, *number));
    }
}

fn wrongs(ledger: &Ledger) -> Vec<Wrong> {
    ledger.findings().into_iter().map(|finding| finding.wrong).collect()
}

fn fault(kind: FaultKind, node: &str) -> Fault {
    Fault { kind, nodes: vec![node.to_owned()] }
}

#[test]
fn numbers_that_follow_each_other_are_right() {
    let mut ledger = two_sessions(Upstreams::Http);
    numbers(&mut ledger, &[1, 2, 3]);
    assert!(ledger.is_clean());
    assert_eq!((ledger.tally().ok, ledger.tally().failed()), (3, 0));
}

#[test]
fn a_number_given_twice_is_wrong_once() {
    let mut ledger = two_sessions(Upstreams::Http);
    numbers(&mut ledger, &[1, 2, 2, 3]);
    assert_eq!(wrongs(&ledger), [Wrong::Repeated]);
    assert!(!ledger.is_clean());
}

#[test]
fn a_number_that_goes_backwards_is_wrong() {
    let mut ledger = two_sessions(Upstreams::Http);
    numbers(&mut ledger, &[1, 2, 3, 1, 2]);
    assert_eq!(wrongs(&ledger), [Wrong::Backwards]);
}

#[test]
fn a_number_left_out_needs_a_call_of_unknown_outcome() {
    let mut ledger = two_sessions(Upstreams::Http);
    numbers(&mut ledger, &[1, 3]);
    assert_eq!(wrongs(&ledger), [Wrong::Skipped]);

    for (outcome, is_unknown) in [
        (honest(true), true),
        (Outcome::TimedOut, true),
        (Outcome::Broken, true),
        (honest(false), false),
        (Outcome::NotFound, false),
    ] {
        let mut ledger = two_sessions(Upstreams::Http);
        ledger.called(&call(50, Asked::Count, outcome.clone()));
        // It may run late: the number is left out further on.
        numbers(&mut ledger, &[1, 2, 4]);
        assert_eq!(ledger.is_clean(), is_unknown, "{outcome:?}");
        ledger.called(&counted(900, 6));
        assert_eq!(wrongs(&ledger).last(), Some(&Wrong::Skipped), "one call explains one number");
    }
}

#[test]
fn a_read_of_unknown_outcome_explains_no_number() {
    let mut ledger = two_sessions(Upstreams::Http);
    ledger.called(&call(50, Asked::Read, Outcome::TimedOut));
    numbers(&mut ledger, &[1, 3]);
    assert_eq!(wrongs(&ledger), [Wrong::Skipped]);
}

#[test]
fn the_upstream_session_of_another_session_may_not_answer() {
    let mut ledger = two_sessions(Upstreams::Http);
    let named = |name: &str| call(1, Asked::WhoAmI, Outcome::Named(name.to_owned()));
    ledger.called(&named("7:1"));
    ledger.called(&Call { session: 1, ..named("7:2") });
    ledger.called(&named("7:1"));
    assert!(ledger.is_clean());
    ledger.called(&named("7:2"));
    assert_eq!(wrongs(&ledger), [Wrong::OtherSession]);
    // Nor may one that nobody has.
    ledger.called(&Call { session: 1, ..named("7:3") });
    assert_eq!(wrongs(&ledger), [Wrong::OtherSession, Wrong::OtherSession]);
}

#[test]
fn one_epoch_has_one_owner() {
    let mut ledger = two_sessions(Upstreams::Http);
    ledger.called(&by("b", 1, counted(100, 1)));
    assert_eq!(wrongs(&ledger), [Wrong::TwoOwners]);

    let mut ledger = two_sessions(Upstreams::Http);
    ledger.called(&by("b", 2, counted(100, 1)));
    ledger.owned(&ownership(0, "b", 2, 200));
    assert!(ledger.is_clean());
    ledger.owned(&ownership(0, "c", 2, 300));
    assert_eq!(wrongs(&ledger), [Wrong::TwoOwners]);
}

#[test]
fn an_owner_that_goes_on_after_it_was_superseded_is_one_too_many() {
    let mut ledger = two_sessions(Upstreams::Http);
    ledger.called(&by("b", 2, counted(100, 1)));
    // It has been asked before a client knew better; and a node that is cut off can't know better.
    ledger.called(&by("a", 1, call(105, Asked::Read, Outcome::Read)));
    ledger.owned(&ownership(0, "a", 1, 200));
    assert!(ledger.is_clean());
    ledger.called(&by("a", 1, counted(200, 2)));
    assert_eq!(wrongs(&ledger), [Wrong::TwoOwners]);
}

#[test]
fn an_answer_from_elsewhere_without_its_epoch_is_looked_up() {
    let mut ledger = two_sessions(Upstreams::Http);
    assert_eq!(ledger.called(&counted(100, 1)), Next::Nothing);
    let elsewhere = Call { owner: Some("b".to_owned()), ..counted(200, 2) };
    assert_eq!(ledger.called(&elsewhere), Next::LookUp);
    ledger.owned(&ownership(0, "b", 1, 300));
    assert_eq!(wrongs(&ledger), [Wrong::TwoOwners]);
}

#[test]
fn a_local_upstream_begins_again_only_under_a_later_epoch() {
    let mut ledger = two_sessions(Upstreams::Local);
    numbers(&mut ledger, &[1, 2, 3]);
    assert_eq!(ledger.called(&by("b", 2, counted(500, 1))), Next::Nothing);
    assert_eq!(ledger.called(&by("b", 2, counted(600, 2))), Next::Nothing);
    assert!(ledger.is_clean());
    ledger.called(&by("b", 2, counted(700, 1)));
    assert_eq!(wrongs(&ledger), [Wrong::Backwards]);

    let mut ledger = two_sessions(Upstreams::Http);
    numbers(&mut ledger, &[1, 2, 3]);
    ledger.called(&by("b", 2, counted(500, 1)));
    assert_eq!(wrongs(&ledger), [Wrong::Backwards], "an upstream that lives on has lost nothing");
}

#[test]
fn what_a_later_epoch_would_excuse_waits_for_a_look_up() {
    let mut ledger = two_sessions(Upstreams::Local);
    numbers(&mut ledger, &[1, 2, 3]);
    assert_eq!(ledger.called(&counted(500, 1)), Next::LookUp);
    assert_eq!(wrongs(&ledger), [Wrong::Backwards]);
    ledger.owned(&ownership(0, "b", 2, 600));
    assert!(ledger.is_clean());
}

#[test]
fn a_fresh_local_upstream_is_one_event_however_it_shows() {
    let named = |name: &str| by("b", 2, call(550, Asked::WhoAmI, Outcome::Named(name.to_owned())));
    for name_first in [true, false] {
        let mut ledger = two_sessions(Upstreams::Local);
        ledger.called(&call(1, Asked::WhoAmI, Outcome::Named("7:1".to_owned())));
        numbers(&mut ledger, &[1, 2, 3]);
        let restart = by("b", 2, counted(500, 1));
        let seen = if name_first { [named("8:1"), restart] } else { [restart, named("8:1")] };
        for call in &seen {
            ledger.called(call);
        }
        assert!(ledger.is_clean(), "{:?}", ledger.findings());
    }
}

#[test]
fn a_takeover_lasts_until_another_node_serves_the_session() {
    let mut ledger = two_sessions(Upstreams::Http);
    ledger.begun(fault(FaultKind::Partition, "a"), ms(1_000));
    assert_eq!(ledger.waiting(Wait::Takeover), [0, 1]);
    // Sent before; asked of the cut node; answered by it: none of them is a takeover.
    ledger.called(&by("b", 2, counted(995, 1)));
    ledger.called(&Call { entry: "a".to_owned(), ..counted(1_100, 2) });
    ledger.called(&counted(1_100, 3));
    assert_eq!(ledger.waiting(Wait::Takeover), [0, 1]);
    ledger.called(&by("b", 2, counted(2_500, 4)));
    assert_eq!(ledger.waiting(Wait::Takeover), [1]);
    let served = Served { after: ms(1_510), by_other: true };
    assert_eq!(ledger.impacts()[0].takeovers[&0], Some(served));
    ledger.lost(1, "gone".to_owned());
    assert_eq!(ledger.waiting(Wait::Takeover), [0; 0], "nobody waits for what is lost");
    ledger.healed(ms(5_000));
    assert_eq!(ledger.waiting(Wait::Service), [0]);
    ledger.called(&by("b", 2, counted(5_100, 5)));
    assert_eq!(ledger.impacts()[0].after_healing[&0], Some(ms(110)));
}

#[test]
fn a_node_that_serves_its_sessions_again_once_healed_has_not_been_replaced() {
    let mut ledger = two_sessions(Upstreams::Http);
    ledger.begun(fault(FaultKind::Freeze, "a"), ms(1_000));
    ledger.called(&counted(2_000, 1));
    assert_eq!(ledger.impacts()[0].takeovers[&0], None, "sent while it stood still");
    ledger.healed(ms(5_000));
    ledger.called(&counted(5_000, 2));
    let served = Served { after: ms(4_010), by_other: false };
    assert_eq!(ledger.impacts()[0].takeovers[&0], Some(served));
}

#[test]
fn failures_are_explained_by_the_fault_only_where_nobody_could_prevent_them() {
    let explained = |kind, call: Call| {
        let mut ledger = two_sessions(Upstreams::Http);
        ledger.begun(fault(kind, "a"), ms(1_000));
        ledger.called(&call);
        assert_eq!(ledger.tally().failed(), 1);
        !ledger.tally().unavoidable.is_empty()
    };
    let failed = |at, asked, outcome| Call { owner: None, ..call(at, asked, outcome) };
    assert!(explained(FaultKind::Kill, failed(995, Asked::Count, honest(true))));
    assert!(!explained(FaultKind::Kill, failed(995, Asked::Count, honest(false))), "it could be sent again");
    assert!(!explained(FaultKind::Kill, failed(995, Asked::Read, honest(true))), "so could this");
    assert!(!explained(FaultKind::Kill, failed(900, Asked::Count, honest(true))), "it failed before");
    assert!(!explained(FaultKind::Drain, failed(995, Asked::Count, honest(true))), "a drain waits for it");
    let at_its_door = Call { entry: "a".to_owned(), ..failed(1_100, Asked::Read, Outcome::TimedOut) };
    assert!(explained(FaultKind::Freeze, at_its_door.clone()));
    assert!(!explained(FaultKind::Restart, at_its_door));
}

#[test]
fn ownership_that_moves_under_mere_load_is_needless() {
    let mut ledger = two_sessions(Upstreams::Http);
    ledger.begun(Fault { kind: FaultKind::Busy, nodes: Vec::new() }, ms(1_000));
    ledger.called(&by("b", 2, counted(1_100, 1)));
    ledger.ended(ms(2_000));
    ledger.called(&by("c", 3, counted(2_100, 2)));
    assert_eq!(ledger.impacts()[0].needless.len(), 1);
    assert!(ledger.is_clean());
}

#[test]
fn a_lost_session_is_a_verdict_unless_it_comes_back() {
    let mut ledger = two_sessions(Upstreams::Http);
    ledger.lost(1, "-31001 owner_lost".to_owned());
    assert_eq!(ledger.losses().collect::<Vec<_>>(), [(1, "-31001 owner_lost")]);
    assert!(!ledger.is_clean());
    ledger.regained(1);
    assert!(ledger.is_clean());
}
