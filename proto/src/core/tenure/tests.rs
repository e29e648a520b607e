//! What was said once and is said again by somebody who heard it: datagrams are sealed, but whoever stands on
//! the way can keep them and play them back, to whom they were meant for or to anybody else.

use super::*;

fn life(tag: u32, inc: u64) -> NodeRef {
    NodeRef { tag: Tag(tag), inc: Incarnation(inc) }
}

fn node(tag: u32) -> NodeRef {
    life(tag, 1)
}

/// Two nodes that know each other, and every datagram that they have sent.
struct Pair {
    nodes: [Tenure; 2],
    heard: Vec<Note>,
    now: Ms,
}

impl Pair {
    /// Node 2 needs node 1 to serve; of an even number the lowest weighs more.
    fn new() -> Self {
        let nodes = [1, 2].map(|tag| Tenure::new(node(tag), 0, Rules::ALL));
        let mut pair = Self { nodes, heard: Vec::new(), now: 0 };
        for at in [0, 1] {
            let other = pair.nodes[1 - at].me();
            pair.nodes[at].see([(other, Phase::Active)].into_iter(), true, 0);
        }
        for _ in 0..50 {
            pair.pass(20, |_| true);
        }
        assert!(
            pair.nodes.iter().all(|node| node.may_serve(pair.now)),
            "both serve before anybody interferes"
        );
        pair
    }

    /// Lets time pass and delivers what `arrives`.
    fn pass(&mut self, ms: Ms, arrives: impl Fn(&Note) -> bool) {
        self.now += ms;
        for at in [0, 1] {
            self.nodes[at].tick(self.now);
        }
        for _ in 0..4 {
            for at in [0, 1] {
                let from = self.nodes[at].me();
                for effect in self.nodes[at].effects() {
                    let Effect::Send { to, say } = effect else { continue };
                    let note = Note { from, to, say };
                    if arrives(&note) {
                        self.nodes[1 - at].hear(&note, self.now);
                    }
                    self.heard.push(note);
                }
            }
        }
    }

    /// The last that `from` said of that kind.
    fn last(&self, from: NodeRef, kind: impl Fn(&Say) -> bool) -> Note {
        let said = self.heard.iter().rev().find(|note| note.from == from && kind(&note.say));
        said.expect("it was said").clone()
    }
}

fn is_beat(say: &Say) -> bool {
    matches!(say, Say::Beat { .. })
}

fn is_ack(say: &Say) -> bool {
    matches!(say, Say::Acked { .. })
}

#[test]
fn a_beat_that_is_played_back_is_no_sign_of_life() {
    let mut pair = Pair::new();
    let beats: Vec<_> =
        pair.heard.iter().filter(|note| note.from == node(2) && is_beat(&note.say)).cloned().collect();
    assert!(beats.len() > 5, "{beats:?}");
    let (from, witness) = (pair.now, &mut pair.nodes[0]);
    let mut ms = 0;
    // Node 2 is silent, and somebody plays all that it ever said, again and again.
    while !witness.succession().is_over(node(2)) {
        ms += 20;
        assert!(ms <= SILENCE + 2 * RANK_STEP_SILENCE, "it never counts as silent");
        beats.iter().for_each(|beat| witness.hear(beat, from + ms));
        witness.want(node(2), from + ms);
        witness.tick(from + ms);
    }
    assert!(ms + BEAT > SILENCE, "and not before its time: {ms}");
}

#[test]
fn an_acknowledgement_that_is_played_back_extends_no_lease() {
    let mut pair = Pair::new();
    let acks: Vec<_> =
        pair.heard.iter().filter(|note| note.from == node(1) && is_ack(&note.say)).cloned().collect();
    let (until, owner) = (pair.nodes[1].serves_until(), &mut pair.nodes[1]);
    for ms in (0..=LEASE).step_by(20) {
        acks.iter().for_each(|ack| owner.hear(ack, pair.now + ms));
        owner.tick(pair.now + ms);
        assert_eq!(owner.serves_until(), until, "after {ms} ms");
    }
    assert!(!owner.may_serve(pair.now + LEASE));
}

#[test]
fn beats_that_are_held_back_and_acknowledged_late_extend_no_lease_beyond_their_sending() {
    let mut pair = Pair::new();
    for _ in 0..LEASE / 20 {
        pair.pass(20, |note| note.from != node(2) || !is_beat(&note.say));
    }
    let beat = pair.last(node(2), is_beat);
    let Say::Beat { sent, .. } = beat.say else { panic!("{beat:?}") };
    let late = pair.now + 5_000;
    pair.nodes[0].hear(&beat, late);
    for effect in pair.nodes[0].effects() {
        if let Effect::Send { to, say } = effect
            && is_ack(&say)
        {
            pair.nodes[1].hear(&Note { from: node(1), to, say }, late);
        }
    }
    assert_eq!(pair.nodes[1].serves_until(), sent + LEASE);
}

#[test]
fn what_is_sent_back_to_its_sender_or_to_another_changes_nothing() {
    let mut pair = Pair::new();
    let said = pair.heard.clone();
    assert!(said.len() > 20, "{said:?}");
    let mut third = Tenure::new(node(3), pair.now, Rules::ALL);
    let before = pair.nodes.clone().map(|node| format!("{node:?}"));
    let third_before = format!("{third:?}");
    for note in said {
        let sender = usize::from(note.from == node(2));
        pair.nodes[sender].hear(&note, pair.now + 1);
        third.hear(&note, pair.now + 1);
    }
    assert_eq!(pair.nodes.map(|node| format!("{node:?}")), before);
    assert_eq!(format!("{third:?}"), third_before);
}

#[test]
fn what_an_earlier_life_said_or_was_told_is_not_heard_by_a_later_one() {
    let mut pair = Pair::new();
    let said = pair.heard.clone();
    // Node 1 has started again and knows nothing of node 2 but what somebody plays to it.
    let mut again = Tenure::new(life(1, 2), pair.now, Rules::ALL);
    let before = format!("{again:?}");
    said.iter().for_each(|note| again.hear(note, pair.now + 1));
    assert_eq!(format!("{again:?}"), before);

    // Node 2 has met that later life, and is played what the first one said.
    let beat = Say::Beat { sent: pair.now, digest: 0 };
    pair.nodes[1].hear(&Note { from: life(1, 2), to: node(2), say: beat }, pair.now);
    pair.nodes[1].effects();
    let until = pair.nodes[1].serves_until();
    for note in said.iter().filter(|note| note.to == node(2)) {
        pair.nodes[1].hear(note, pair.now + 1);
        assert_eq!(pair.nodes[1].effects(), [], "{note:?} is answered");
    }
    assert_eq!(pair.nodes[1].serves_until(), until);
}
