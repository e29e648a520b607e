//! Whether a node that knows few others may believe that there are no more: by the seeds, where it
//! was told to look for them.

use crate::wire::Ms;

/// A seed that says nothing may be cut off and serve with others, so it counts as one that is not
/// known; but a host that is gone for good says nothing either. Longer than a process takes to
/// start again and most disturbances of a network last.
pub const SILENCE_COUNTS_AFTER: Ms = 60_000;

/// How many of its seeds a node has found out about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeds {
    pub all: usize,
    /// Heard of as members, or refusing connections: nobody is there.
    pub known: usize,
}

impl Seeds {
    /// Whether nobody can be at the seeds whom this node has not heard of, after having looked for so
    /// long. Of a cluster that is cut in two, the smaller part never believes so.
    pub fn are_met(self, looked_for: Ms) -> bool {
        let (known, all) = (self.known + 1, self.all + 1); // with this node itself
        known == all || (looked_for >= SILENCE_COUNTS_AFTER && known * 2 >= all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_met(known: usize, all: usize, looked_for: Ms) -> bool {
        Seeds { all, known }.are_met(looked_for)
    }

    #[test]
    fn seeds_are_met_at_once_when_each_is_known_or_refuses() {
        assert!(are_met(0, 0, 0), "there are none");
        assert!(are_met(2, 2, 0));
        assert!(!are_met(1, 2, 0));
    }

    #[test]
    fn a_host_that_is_gone_for_good_is_not_waited_for_without_bound() {
        assert!(!are_met(1, 2, SILENCE_COUNTS_AFTER - 1));
        assert!(are_met(1, 2, SILENCE_COUNTS_AFTER));
        assert!(are_met(0, 1, SILENCE_COUNTS_AFTER), "one of two");
    }

    #[test]
    fn whoever_is_cut_off_from_most_seeds_never_believes_that_they_are_gone() {
        assert!(!are_met(0, 2, Ms::MAX));
        assert!(!are_met(1, 4, Ms::MAX));
        assert!(are_met(2, 4, Ms::MAX));
    }
}
