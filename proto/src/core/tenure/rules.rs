//! The rules that keep two nodes from owning one session, by name, so that a simulation can leave
//! each of them out and show that it is missed.

/// One rule. What it guards against is said where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A node serves only while a quorum of its witnesses has acknowledged it lately.
    Lease,
    /// A witness that has agreed on a node's end acknowledges it no more.
    AgreeingFences,
    /// A node counts as silent only after longer than its lease can last.
    SilenceOutlastsLease,
    /// Each witness agrees only on what it has seen itself.
    OwnEvidence,
    /// A witness that was not running itself judges nobody for a while.
    ObserverGrace,
    /// A lease counts from when the acknowledged beat was sent, not from when the answer came.
    LeaseFromSending,
    /// A proposer takes up the heirs that an earlier one may have got through.
    TakeUpAccepted,
    /// A witness that has promised a higher ballot accepts no lower one.
    KeepPromises,
    /// A change of witnesses needs a quorum of the old and of the new ones.
    JointChange,
    /// A witness that knows of a later set answers no proposal made by an earlier one.
    LatestSet,
    /// A backup keeps the latest of what it was told, in whatever order that came.
    RecordsNeverRegress,
    /// A node that gave a session away serves it no more, also when it hears nothing of the taker.
    GivenIsGiven,
    /// A new session is told to its client only once a backup has it.
    CopiedBeforeAnswered,
    /// What has ended stays ended where a late copy of it arrives.
    EndedStaysEnded,
    /// A call that may have run is not run again, unless that can't hurt.
    NeverTwice,
}

impl Rule {
    pub const ALL: [Self; 15] = [
        Self::Lease,
        Self::AgreeingFences,
        Self::SilenceOutlastsLease,
        Self::OwnEvidence,
        Self::ObserverGrace,
        Self::LeaseFromSending,
        Self::TakeUpAccepted,
        Self::KeepPromises,
        Self::JointChange,
        Self::LatestSet,
        Self::RecordsNeverRegress,
        Self::GivenIsGiven,
        Self::CopiedBeforeAnswered,
        Self::EndedStaysEnded,
        Self::NeverTwice,
    ];
}

/// All rules but at most one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    without: Option<Rule>,
}

impl Rules {
    pub const ALL: Self = Self { without: None };

    /// For simulations that must fail.
    pub const fn without(rule: Rule) -> Self {
        Self { without: Some(rule) }
    }

    pub fn keeps(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}
