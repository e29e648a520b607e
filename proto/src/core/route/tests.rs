//! Every situation of small worlds, against what must hold in each. Three nodes: `a` decides; the
//! session's home is `a`, `b`, or an earlier start of one of them, and some of them are over.

use super::*;
use crate::core::succession::Owner;
use crate::core::view::{Member, tests::member};
use crate::id::{Principal, RouteId};
use crate::wire::Verdict;

const HOPS: [Hop; 3] = [Hop::Entry, Hop::Forwarded { same_view: true }, Hop::Forwarded { same_view: false }];
const NONCE: Nonce = Nonce([7; 12]);

/// One world in which `a` has to decide.
struct World<'a> {
    view: &'a View,
    ring: &'a Ring,
    succession: &'a Succession,
    my_phase: Phase,
    leased: bool,
    hop: Hop,
    tried: &'a [NodeRef],
    hint: Option<NodeRef>,
    holding: Holding,
    on_loss: OnLoss,
}

impl World<'_> {
    fn situation(&self) -> Situation<'_> {
        Situation {
            me: node("a", 2),
            my_phase: self.my_phase,
            view: self.view,
            ring: self.ring,
            succession: self.succession,
            leased: self.leased,
            hop: self.hop,
            tried: self.tried,
            hint: self.hint,
            holding: self.holding,
            on_loss: self.on_loss,
        }
    }

    fn serving(&self, node: NodeRef) -> bool {
        is_serving(node, self.view) && !self.succession.is_over(node)
    }

    fn session(&self, birth: &Birth) -> Route {
        route(Ask::Session { birth, nonce: NONCE }, &self.situation())
    }

    fn owner(&self, birth: &Birth) -> Owner {
        self.succession.owner(birth.home, Position::of_session(NONCE))
    }
}

fn node(name: &str, inc: u64) -> NodeRef {
    member(name, inc, Phase::Active).node
}

fn birth(home: NodeRef) -> Birth {
    Birth { minted_s: 0, home, route: RouteId(1), principal: Principal::ANYONE, upstream: None }
}

fn births() -> [Birth; 4] {
    [node("a", 2), node("a", 1), node("b", 2), node("b", 1)].map(birth)
}

/// `b` as `a` may see it: absent, or in an older, the meant, or a later incarnation, in any phase.
fn sights_of(name: &str) -> Vec<Option<Member>> {
    let seen = (1..=3).flat_map(|inc| Phase::ALL.map(|phase| Some(member(name, inc, phase))));
    seen.chain([None]).collect()
}

/// Nobody is over; `b` is; an earlier start of `a` is; both, one the other's heir.
fn successions() -> Vec<Succession> {
    let b = Verdict { over: node("b", 2), heirs: vec![node("a", 2), node("c", 2)] };
    let to_c = Verdict { over: node("b", 2), heirs: vec![node("c", 2)] };
    let a = Verdict { over: node("a", 1), heirs: vec![node("b", 2)] };
    let known = |verdicts: &[&Verdict]| {
        let mut succession = Succession::default();
        assert!(verdicts.iter().all(|verdict| succession.learn(verdict)));
        succession
    };
    vec![known(&[]), known(&[&b]), known(&[&to_c]), known(&[&a]), known(&[&a, &b])]
}

fn subsets(nodes: [NodeRef; 3]) -> Vec<Vec<NodeRef>> {
    (0..8).map(|bits| (0..3).filter(|at| bits >> at & 1 == 1).map(|at| nodes[at]).collect()).collect()
}

fn circumstances(hinted: NodeRef) -> Vec<(Hop, Option<NodeRef>, Holding, bool, OnLoss)> {
    let holdings =
        [Holding::Live, Holding::Given(node("c", 2)), Holding::Ended(GoneWhy::Deleted), Holding::Unknown];
    let mut all = Vec::new();
    for hop in HOPS {
        for hint in [None, Some(hinted)] {
            for holding in holdings {
                for leased in [true, false] {
                    for on_loss in [OnLoss::Expire, OnLoss::Reinitialize] {
                        all.push((hop, hint, holding, leased, on_loss));
                    }
                }
            }
        }
    }
    all
}

/// Calls `check` in every world: 4 phases of `a`, 13 sights of `b`, 3 of `c`, and every combination
/// of the rest.
fn in_every_world(mut check: impl FnMut(&World<'_>)) -> usize {
    let mut worlds = 0;
    let nodes = [node("a", 2), node("b", 2), node("c", 2)];
    let circumstances = circumstances(nodes[1]);
    let successions = successions();
    let sights_of_c = [Phase::Active, Phase::Dead].map(|phase| Some(member("c", 2, phase)));
    let others: Vec<_> = sights_of_c
        .into_iter()
        .chain([None])
        .flat_map(|c| sights_of("b").into_iter().map(move |b| (b, c.clone())))
        .collect();
    for my_phase in Phase::ALL {
        for (b, c) in &others {
            let members = [Some(member("a", 2, my_phase)), b.clone(), c.clone()].into_iter().flatten();
            let view = View::new(members.collect());
            let ring = Ring::new(&view);
            for tried in subsets(nodes) {
                for succession in &successions {
                    for (hop, hint, holding, leased, on_loss) in circumstances.iter().copied() {
                        let (view, ring, tried) = (&view, &ring, tried.as_slice());
                        check(&World {
                            view,
                            ring,
                            succession,
                            my_phase,
                            leased,
                            hop,
                            tried,
                            hint,
                            holding,
                            on_loss,
                        });
                        worlds += 1;
                    }
                }
            }
        }
    }
    worlds
}

fn asks<'a>(births: &'a [Birth]) -> Vec<Ask<'a>> {
    let opens = [None, Some(node("a", 2)), Some(node("b", 2))].map(|chosen| Ask::Open { chosen });
    let keys = (0..2u8).map(|key| Ask::Key(Position::of_key(&[key])));
    let sessions = births.iter().map(|birth| Ask::Session { birth, nonce: NONCE });
    let homes = [node("a", 1), node("b", 2)];
    let pinned = homes.into_iter().flat_map(|home| [true, false].map(|is_mine| pinned(home, is_mine)));
    sessions.chain(opens).chain(keys).chain(pinned).chain([Ask::Anyone]).collect()
}

fn pinned(home: NodeRef, is_mine: bool) -> Ask<'static> {
    Ask::Pinned { home, is_mine, position: Position::of_key(b"x") }
}

#[test]
fn what_must_hold_in_every_small_world() {
    let births = births();
    let asks = asks(&births);
    let worlds = in_every_world(|world| {
        let situation = world.situation();
        for ask in &asks {
            let decided = route(*ask, &situation);
            let context = || format!("{ask:?} in {situation:?}: {decided:?}");
            if let Hop::Forwarded { .. } = world.hop {
                assert!(
                    !matches!(decided, Route::There(_) | Route::Wait(_)),
                    "a receiver never sends on: {}",
                    context()
                );
            } else {
                assert!(
                    !matches!(decided, Route::NotHere(_)),
                    "the entry node has nobody to tell: {}",
                    context()
                );
            }
            match decided {
                Route::There(to) => {
                    assert_ne!(to, situation.me, "nobody forwards to itself: {}", context());
                    let by_ring = matches!(ask, Ask::Open { chosen } if *chosen == Some(to))
                        || matches!(ask, Ask::Key(_));
                    assert!(by_ring || world.serving(to), "only to members that live: {}", context());
                    let placed = matches!(ask, Ask::Open { .. });
                    assert!(placed || !world.tried.contains(&to), "nobody is asked twice: {}", context());
                }
                Route::Refuse(Refusal::Undelivered { may_have_run, .. }) => {
                    assert!(!may_have_run, "nothing was sent yet: {}", context());
                }
                Route::Open | Route::Revive => {
                    assert!(world.leased, "nothing begins without a lease: {}", context());
                }
                Route::Here | Route::Wait(_) | Route::NotHere(_) | Route::Refuse(Refusal::Gone(_)) => {}
            }
        }
    });
    assert_eq!(worlds, 4 * 13 * 3 * 8 * 5 * 3 * 2 * 4 * 2 * 2, "no world was left out");
}

#[test]
fn a_session_is_served_only_by_who_holds_it_or_inherits_it_and_only_with_a_lease() {
    in_every_world(|world| {
        for birth in births() {
            let (decided, owner) = (world.session(&birth), world.owner(&birth));
            let serves = matches!(decided, Route::Here | Route::Revive);
            if serves {
                assert!(world.leased, "{decided:?}");
                let inherits = owner.node == node("a", 2) && owner.epoch > 1;
                match world.holding {
                    Holding::Live => assert_eq!(decided, Route::Here),
                    Holding::Unknown => assert!(inherits, "{decided:?}"),
                    Holding::Given(_) | Holding::Ended(_) => panic!("it has it no more: {decided:?}"),
                }
            }
            if let Route::There(to) = decided {
                let expected = [Some(owner.node), world.hint, Some(node("c", 2))];
                assert!(expected.contains(&Some(to)), "no other node is asked: {decided:?}");
            }
        }
    });
}

#[test]
fn a_404_is_given_only_when_known() {
    in_every_world(|world| {
        for birth in births() {
            let Route::Refuse(refusal) = world.session(&birth) else { continue };
            let owner = world.owner(&birth);
            match refusal {
                Refusal::Gone(GoneWhy::LostOwner) => {
                    assert!(world.on_loss == OnLoss::Expire, "404 only where the route says so");
                    assert_eq!(owner.node, node("a", 2), "another node may have it");
                }
                Refusal::Gone(GoneWhy::Unknown) => assert_eq!(owner.epoch, 1),
                Refusal::Gone(_) => assert!(matches!(world.holding, Holding::Ended(_))),
                Refusal::Undelivered { .. } => panic!("somebody owns it"),
            }
        }
    });
}

#[test]
fn who_waits_says_for_whom() {
    in_every_world(|world| {
        let birth = birth(node("b", 2));
        if let Route::Wait(Some(node)) = world.session(&birth) {
            assert!(!world.serving(node) || world.tried.contains(&node));
        }
    });
}

#[test]
fn a_draining_node_takes_no_new_session_from_another() {
    in_every_world(|world| {
        let decided = route(Ask::Open { chosen: Some(node("a", 2)) }, &world.situation());
        if world.my_phase == Phase::Draining && world.hop != Hop::Entry {
            assert_eq!(decided, Route::NotHere(NotHere { hint: None, why: NotHereWhy::Draining }));
        }
    });
}

#[test]
fn two_nodes_with_one_view_agree_on_every_key() {
    let view = View::new(["a", "b", "c"].map(|name| member(name, 2, Phase::Active)).to_vec());
    let ring = Ring::new(&view);
    for key in 0..1_000u32 {
        let ask = Ask::Key(Position::of_key(&key.to_be_bytes()));
        let answers = ["a", "b", "c"].map(|me| {
            let me = node(me, 2);
            let situation = Situation {
                me,
                my_phase: Phase::Active,
                view: &view,
                ring: &ring,
                succession: &Succession::default(),
                leased: true,
                hop: Hop::Entry,
                tried: &[],
                hint: None,
                holding: Holding::Unknown,
                on_loss: OnLoss::Expire,
            };
            match route(ask, &situation) {
                Route::Here => me,
                Route::There(node) => node,
                other @ (Route::Open
                | Route::Revive
                | Route::Wait(_)
                | Route::NotHere(_)
                | Route::Refuse(_)) => panic!("{other:?}"),
            }
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    }
}

#[test]
fn state_at_an_upstream_is_asked_for_at_its_home_alone_as_long_as_that_lives() {
    in_every_world(|world| {
        let home = node("b", 2);
        if world.hop != Hop::Entry || !world.serving(home) {
            return;
        }
        let decided = route(pinned(home, true), &world.situation());
        let was_asked = world.tried.contains(&home);
        assert_eq!(decided, if was_asked { Route::Wait(Some(home)) } else { Route::There(home) });
    });
}

#[test]
fn once_the_home_is_gone_whoever_has_the_upstream_serves_its_state() {
    in_every_world(|world| {
        let home = node("b", 1);
        if world.hop != Hop::Entry || world.my_phase == Phase::Joining {
            return;
        }
        let restarted = node("b", 2);
        let is_asked = world.serving(restarted) && !world.tried.contains(&restarted);
        let [mine, foreign] = [true, false].map(|is_mine| route(pinned(home, is_mine), &world.situation()));
        let started_again = world.view.by_tag(home.tag).is_some_and(|member| member.node == restarted);
        if started_again && is_asked {
            assert_eq!((mine, foreign), (Route::There(restarted), Route::There(restarted)));
        } else if !world.serving(home) && !started_again {
            assert!(matches!(mine, Route::Here | Route::There(_)), "{mine:?}");
            assert_ne!(foreign, Route::Here);
        }
        if let Route::Refuse(refusal) = foreign {
            assert_eq!(refusal, Refusal::not_run(Reason::NoUpstream));
            let mut left = world.ring.nodes().iter().filter(|node| world.serving(**node));
            assert!(left.all(|left| *left == node("a", 2) || world.tried.contains(left)));
        }
    });
}

#[test]
fn who_was_sent_a_request_for_state_serves_it_or_says_that_it_has_no_such_upstream() {
    in_every_world(|world| {
        if let Hop::Forwarded { .. } = world.hop {
            let home = node("c", 2);
            assert_eq!(route(pinned(home, true), &world.situation()), Route::Here);
            let not_here = NotHere { hint: None, why: NotHereWhy::NoUpstream };
            assert_eq!(route(pinned(home, false), &world.situation()), Route::NotHere(not_here));
        }
    });
}
