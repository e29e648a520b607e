//! Any value of any message is read as it was written: what golden bytes can't try one by one.

use super::*;
use crate::id::{
    Birth, Fingerprint, Incarnation, NodeName, NodeRef, Nonce, Principal, RouteId, Tag, UpstreamBirth,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

fn reads_alike<'a, M>(message: &M, frame: &'a mut Vec<u8>) -> Result<(), TestCaseError>
where
    M: Message + Serialize + Deserialize<'a> + PartialEq + fmt::Debug,
{
    *frame = codec::frame(message).expect("far below the bound");
    prop_assert_eq!(&codec::read::<M>(frame).expect("its own frame"), message);
    Ok(())
}

prop_compose! {
    fn node()(tag in any::<u32>(), inc in any::<u64>()) -> NodeRef {
        NodeRef { tag: Tag(tag), inc: Incarnation(inc) }
    }
}

fn nodes() -> impl Strategy<Value = Vec<NodeRef>> {
    vec(node(), 0..8)
}

fn name() -> impl Strategy<Value = NodeName> {
    "[A-Za-z0-9._-]{1,64}".prop_map(|name| name.parse().expect("a plain name"))
}

prop_compose! {
    fn upstream()(url in ".{0,40}", session in ".{0,40}") -> UpstreamBirth {
        UpstreamBirth { url: url.into(), session: session.into() }
    }
}

prop_compose! {
    fn birth()(
        minted_s in any::<u32>(), home in node(), route in any::<u32>(), principal in any::<[u8; 16]>(),
        upstream in option::of(upstream()),
    ) -> Birth {
        Birth { minted_s, home, route: RouteId(route), principal: Principal(principal), upstream }
    }
}

prop_compose! {
    fn record()(
        nonce in any::<[u8; 12]>(), birth in birth(), [epoch, rev, renewals, keep_s] in any::<[u32; 4]>(),
        lives in option::of(upstream()), initialize in vec(any::<u8>(), 0..100), log_level in option::of(".{0,9}"),
        subscriptions in btree_set(".{0,20}", 0..4), repeatable in btree_set(".{0,20}", 0..4),
    ) -> Arc<Record> {
        Arc::new(Record {
            nonce: Nonce(nonce), birth, epoch, rev, lives, renewals, initialize: initialize.into(),
            log_level: log_level.map(Into::into),
            subscriptions: subscriptions.into_iter().map(Into::into).collect(),
            repeatable: Arc::new(repeatable), keep_s,
        })
    }
}

fn gone() -> impl Strategy<Value = GoneWhy> {
    proptest::sample::select(vec![
        GoneWhy::Forged,
        GoneWhy::OtherRoute,
        GoneWhy::Unknown,
        GoneWhy::Deleted,
        GoneWhy::Expired,
        GoneWhy::LostUpstream,
        GoneWhy::LostOwner,
    ])
}

fn item() -> impl Strategy<Value = Item> {
    let nonce = || any::<[u8; 12]>().prop_map(Nonce);
    prop_oneof![
        record().prop_map(Item::Live),
        (nonce(), gone()).prop_map(|(nonce, why)| Item::Ended { nonce, why }),
        (nonce(), any::<(u32, u32)>()).prop_map(|(nonce, version)| Item::Elsewhere { nonce, version }),
    ]
}

prop_compose! {
    fn set()(ver in any::<u32>(), members in nodes(), before in option::of(nodes()), gives in any::<bool>()) -> WitnessSet {
        WitnessSet { ver, members, before, gives }
    }
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (any::<u32>(), node()).prop_map(|(n, by)| Ballot { n, by })
}

fn why_not() -> impl Strategy<Value = WhyNot> {
    prop_oneof![Just(WhyNot::NoEvidence), ballot().prop_map(WhyNot::Promised), set().prop_map(WhyNot::Newer)]
}

fn say() -> impl Strategy<Value = Say> {
    let about = || (node(), ballot(), any::<u32>(), nodes(), nodes());
    let verdict = (node(), nodes()).prop_map(|(over, heirs)| Verdict { over, heirs });
    prop_oneof![
        any::<(u64, u64)>().prop_map(|(sent, digest)| Say::Beat { sent, digest }),
        any::<(u64, u32, u64)>().prop_map(|(sent, stored, digest)| Say::Acked { sent, stored, digest }),
        Just(Say::Fenced),
        set().prop_map(|set| Say::Declare { set }),
        any::<u32>().prop_map(|ver| Say::Stored { ver }),
        about().prop_map(|(over, ballot, ver, without, _)| Say::Prepare { over, ballot, ver, without }),
        (node(), ballot(), option::of((ballot(), nodes())))
            .prop_map(|(over, ballot, accepted)| Say::Promised { over, ballot, accepted }),
        about().prop_map(|(over, ballot, ver, without, heirs)| Say::Accept {
            over,
            ballot,
            ver,
            without,
            heirs
        }),
        about().prop_map(|(over, ballot, ..)| Say::Accepted { over, ballot }),
        (node(), ballot(), why_not()).prop_map(|(over, ballot, why)| Say::No { over, ballot, why }),
        vec(verdict, 0..5).prop_map(Say::Verdicts),
    ]
}

fn reason() -> impl Strategy<Value = Reason> {
    let plain = proptest::sample::select(vec![
        Reason::OwnerLost,
        Reason::OwnerUnreachable,
        Reason::OwnerBroke,
        Reason::UpstreamUnreachable,
        Reason::UpstreamBroke,
        Reason::UpstreamInvalid,
        Reason::Overloaded,
        Reason::Moved,
        Reason::AnswerLost,
        Reason::NoUpstream,
    ]);
    prop_oneof![plain, any::<u16>().prop_map(Reason::UpstreamStatus)]
}

fn headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    vec(("[a-z-]{1,20}", vec(any::<u8>(), 0..40)), 0..10)
}

fn borrowed(headers: &[(String, Vec<u8>)]) -> Headers<'_> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
}

fn caller() -> impl Strategy<Value = Caller> {
    prop_oneof![
        Just(Caller::Anyone),
        any::<[u8; 16]>().prop_map(|digest| Caller::Counted(Principal(digest))),
        any::<[u8; 16]>().prop_map(|digest| Caller::Known(Principal(digest))),
    ]
}

const ERRANDS: [Errand; 4] = [Errand::Open, Errand::Session, Errand::Key, Errand::Pinned];
const NATURES: [Nature; 8] = [
    Nature::Unsafe,
    Nature::Safe,
    Nature::ListsTools,
    Nature::SetsLevel,
    Nature::Subscribes,
    Nature::Unsubscribes,
    Nature::Resumes,
    Nature::Listens,
];
const NOT_HERE: [NotHereWhy; 5] = [
    NotHereWhy::NotMine,
    NotHereWhy::Parked,
    NotHereWhy::Draining,
    NotHereWhy::NoRoute,
    NotHereWhy::NoUpstream,
];

proptest! {
    #[test]
    fn a_note_reads_as_it_was_written(from in node(), to in node(), say in say()) {
        reads_alike(&Note { from, to, say }, &mut Vec::new())?;
    }

    #[test]
    fn what_travels_of_sessions_reads_as_it_was_written(
        from in node(), to in node(), items in vec(item(), 0..4), record in record(), item in option::of(item()),
    ) {
        let nonce = record.nonce;
        // How long it says it is decides how many fit a message.
        let len = codec::frame(&Give { from, to, record: record.clone() }).expect("short").len();
        prop_assert!(len <= record.wire_len() + 64, "{len} bytes, {} announced", record.wire_len());
        reads_alike(&Keep { from, to, items }, &mut Vec::new())?;
        reads_alike(&Give { from, to, record }, &mut Vec::new())?;
        reads_alike(&Recall { nonce }, &mut Vec::new())?;
        reads_alike(&Recalled { item }, &mut Vec::new())?;
        reads_alike(&Kept {}, &mut Vec::new())?;
        reads_alike(&Taken {}, &mut Vec::new())?;
    }

    #[test]
    fn a_forwarded_request_reads_as_it_was_written(
        [view, uid] in any::<[u64; 2]>(), [route, sessions] in any::<[u32; 2]>(), errand in 0usize..4, nature in 0usize..8,
        copies in any::<u8>(), may_have_run in any::<bool>(), caller in caller(),
        method in "[A-Z]{1,8}", target in "/.{0,60}", headers in headers(), status in any::<u16>(),
    ) {
        let (view, headers) = (Fingerprint(view), borrowed(&headers));
        let forward = Forward {
            view, route: RouteId(route), errand: ERRANDS[errand], nature: NATURES[nature], uid, copies, may_have_run,
            caller, method: &method, target: &target, headers: headers.clone(),
        };
        reads_alike(&forward, &mut Vec::new())?;
        reads_alike(&Answer { view, sessions, status, headers }, &mut Vec::new())?;
    }

    #[test]
    fn what_is_not_served_reads_as_it_was_written(
        hint in option::of(node()), why in 0usize..5, gone in gone(), reason in reason(), may_have_run in any::<bool>(),
        [epoch, idle_s] in any::<[u32; 2]>(), to in node(),
    ) {
        reads_alike(&NotHere { hint, why: NOT_HERE[why] }, &mut Vec::new())?;
        reads_alike(&Refusal::Gone(gone), &mut Vec::new())?;
        reads_alike(&Refusal::Undelivered { reason, may_have_run }, &mut Vec::new())?;
        for state in [
            SessionState::Live { epoch },
            SessionState::Idle { epoch, idle_s },
            SessionState::Moved { to },
            SessionState::Ended(gone),
        ] {
            reads_alike(&Explained { state, came: None }, &mut Vec::new())?;
        }
    }

    #[test]
    fn a_greeting_reads_as_it_was_written(
        lane in 0usize..3, name in name(), node in node(), ip in any::<std::net::IpAddr>(), port in any::<u16>(),
        known_inc in any::<u64>(),
    ) {
        let lane = [Lane::Control, Lane::Calls, Lane::Streams][lane];
        reads_alike(&Hello { lane, name: name.clone(), node, advertise: (ip, port).into() }, &mut Vec::new())?;
        reads_alike(&HelloAck { name, node, known_inc }, &mut Vec::new())?;
    }
}
