//! Every situation of small worlds, against what must hold in each. Three nodes: `a` decides; the
//! session's home is `a`, `b`, or an earlier start of one of them.

use super::*;
use crate::core::view::{Member, tests::member};
use crate::id::{Principal, RouteId};

const HOLDINGS: [Holding; 3] = [Holding::Live, Holding::Ended(GoneWhy::Deleted), Holding::Unknown];
const HOPS: [Hop; 3] = [Hop::Entry, Hop::Forwarded { same_view: true }, Hop::Forwarded { same_view: false }];

/// Births are of the year 1970, long before this.
const NOW_S: u32 = 1_000_000;

/// One world in which `a` has to decide.
struct World<'a> {
    view: &'a View,
    ring: &'a Ring,
    my_phase: Phase,
    settled: bool,
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
            settled: self.settled,
            now_s: NOW_S,
            hop: self.hop,
            tried: self.tried,
            hint: self.hint,
            holding: self.holding,
            on_loss: self.on_loss,
        }
    }

    fn serving(&self, node: NodeRef) -> bool {
        is_serving(node, self.view)
    }
}

fn node(name: &str, inc: u64) -> NodeRef {
    member(name, inc, Phase::Active).node
}

fn birth(home: NodeRef) -> Birth {
    Birth { minted_s: 0, home, route: RouteId(1), principal: Principal::ANYONE, upstream: None }
}

/// `b` as `a` may see it: absent, or in an older, the meant, or a later incarnation, in any phase.
fn sights_of(name: &str) -> Vec<Option<Member>> {
    let seen = (1..=3).flat_map(|inc| Phase::ALL.map(|phase| Some(member(name, inc, phase))));
    seen.chain([None]).collect()
}

fn subsets(nodes: [NodeRef; 3]) -> Vec<Vec<NodeRef>> {
    (0..8).map(|bits| (0..3).filter(|at| bits >> at & 1 == 1).map(|at| nodes[at]).collect()).collect()
}

fn circumstances(hinted: NodeRef) -> impl Iterator<Item = (Hop, Option<NodeRef>, Holding, bool, OnLoss)> {
    HOPS.into_iter().flat_map(move |hop| {
        [None, Some(hinted)].into_iter().flat_map(move |hint| {
            HOLDINGS.into_iter().flat_map(move |holding| {
                [
                    (true, OnLoss::Expire),
                    (true, OnLoss::Reinitialize),
                    (false, OnLoss::Expire),
                    (false, OnLoss::Reinitialize),
                ]
                .map(|(settled, on_loss)| (hop, hint, holding, settled, on_loss))
            })
        })
    })
}

/// Calls `check` in every world: 4 phases of `a`, 13 sights of `b`, 5 of `c`, and every combination
/// of the rest.
fn in_every_world(mut check: impl FnMut(&World<'_>)) -> usize {
    let mut worlds = 0;
    let nodes = [node("a", 2), node("b", 2), node("c", 2)];
    let sights_of_c = Phase::ALL.map(|phase| Some(member("c", 2, phase))).into_iter().chain([None]);
    let others: Vec<_> =
        sights_of_c.flat_map(|c| sights_of("b").into_iter().map(move |b| (b, c.clone()))).collect();
    for my_phase in Phase::ALL {
        for (b, c) in &others {
            let members = [Some(member("a", 2, my_phase)), b.clone(), c.clone()].into_iter().flatten();
            let view = View::new(members.collect());
            let ring = Ring::new(&view);
            for tried in subsets(nodes) {
                for (hop, hint, holding, settled, on_loss) in circumstances(nodes[1]) {
                    let (view, ring, tried) = (&view, &ring, tried.as_slice());
                    check(&World { view, ring, my_phase, settled, hop, tried, hint, holding, on_loss });
                    worlds += 1;
                }
            }
        }
    }
    worlds
}

fn asks<'a>(births: &'a [Birth]) -> Vec<Ask<'a>> {
    let opens = [None, Some(node("a", 2)), Some(node("b", 2))].map(|chosen| Ask::Open { chosen });
    let keys = (0..4u8).map(|key| Ask::Key(Position::of_key(&[key])));
    births.iter().map(Ask::Session).chain(opens).chain(keys).chain([Ask::Anyone]).collect()
}

#[test]
fn what_must_hold_in_every_small_world() {
    let births = [node("a", 2), node("a", 1), node("b", 2), node("b", 1)].map(birth);
    let asks = asks(&births);
    let worlds = in_every_world(|world| {
        let situation = world.situation();
        for ask in &asks {
            let decided = route(*ask, &situation);
            let context = || format!("{ask:?} in {situation:?}: {decided:?}");
            if let Hop::Forwarded { .. } = world.hop {
                assert!(
                    !matches!(decided, Route::There(_) | Route::Wait),
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
                    let placed = matches!(ask, Ask::Open { chosen } if *chosen == Some(to));
                    assert!(placed || world.serving(to), "only to members that live: {}", context());
                    assert!(placed || !world.tried.contains(&to), "nobody is asked twice: {}", context());
                }
                Route::Refuse(Refusal::Undelivered { may_have_run, .. }) => {
                    assert!(!may_have_run, "nothing was sent yet: {}", context());
                }
                Route::Here
                | Route::Open
                | Route::Wait
                | Route::NotHere(_)
                | Route::Refuse(Refusal::Gone(_)) => {}
            }
        }
    });
    assert_eq!(worlds, 4 * 13 * 5 * 3 * 2 * 8 * 2 * 3 * 2, "no world was left out");
}

#[test]
fn a_session_is_served_by_its_home_alone() {
    in_every_world(|world| {
        for home in [node("a", 2), node("a", 1), node("b", 2), node("b", 1)] {
            let birth = birth(home);
            let decided = route(Ask::Session(&birth), &world.situation());
            let mine = home == node("a", 2) && world.holding == Holding::Live;
            assert_eq!(decided == Route::Here, mine, "{home} {decided:?}");
            if let Route::There(to) = decided {
                assert_eq!(to, home, "no other node is asked");
            }
        }
    });
}

#[test]
fn a_404_is_given_only_when_known() {
    in_every_world(|world| {
        let home = node("b", 2);
        let birth = birth(home);
        let decided = route(Ask::Session(&birth), &world.situation());
        if world.hop == Hop::Entry && world.serving(home) {
            assert!(!matches!(decided, Route::Refuse(_)), "its owner lives: {decided:?}");
        }
        if let Route::Refuse(refusal) = decided {
            let superseded = world.view.by_tag(home.tag).is_some_and(|now| now.node.inc > home.inc);
            assert!(superseded || world.settled, "neither proof nor a settled view: {decided:?}");
            let gone = matches!(refusal, Refusal::Gone(GoneWhy::LostOwner));
            assert_eq!(gone, world.on_loss == OnLoss::Expire, "404 only where the route says so");
        }
    });
}

#[test]
fn a_settled_view_never_makes_a_request_wait_for_a_gone_owner() {
    in_every_world(|world| {
        let birth = birth(node("b", 2));
        let decided = route(Ask::Session(&birth), &world.situation());
        if world.settled && !world.serving(node("b", 2)) {
            assert_ne!(decided, Route::Wait);
        }
    });
}

#[test]
fn a_session_younger_than_the_news_of_its_home_is_waited_for() {
    let view = View::new(vec![member("a", 2, Phase::Active)]);
    let ring = Ring::new(&view);
    let nobody_tried = [];
    let world = |now_s| Situation {
        me: node("a", 2),
        my_phase: Phase::Active,
        view: &view,
        ring: &ring,
        settled: true,
        now_s,
        hop: Hop::Entry,
        tried: &nobody_tried,
        hint: None,
        holding: Holding::Unknown,
        on_loss: OnLoss::Expire,
    };
    let birth = Birth { minted_s: 100, ..birth(node("unheard-of", 1)) };
    assert_eq!(route(Ask::Session(&birth), &world(100 + NEWS_S)), Route::Wait);
    assert_eq!(route(Ask::Session(&birth), &world(101 + NEWS_S)), lost(OnLoss::Expire));
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
                settled: true,
                now_s: NOW_S,
                hop: Hop::Entry,
                tried: &[],
                hint: None,
                holding: Holding::Unknown,
                on_loss: OnLoss::Expire,
            };
            match route(ask, &situation) {
                Route::Here => me,
                Route::There(node) => node,
                other @ (Route::Open | Route::Wait | Route::NotHere(_) | Route::Refuse(_)) => {
                    panic!("{other:?}")
                }
            }
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    }
}
