//! The cluster's secrets while the node runs: when their file changes, the new list is taken without a restart,
//! and nobody notices. What each secret is still used for is counted, so that operators know when the next step
//! of a rotation is safe:
//!
//! 1. `old, new` on every node: `new` is accepted everywhere before anybody uses it.
//! 2. `new, old` on every node: `new` is used, `old` still accepted.
//! 3. `new` on every node, once no client brings an id that was sealed under `old`: an id can't change while its
//!    session lives.
//!
//! At every moment any two nodes are at most one step apart, and so accept what the other one uses.

use crate::cluster::Cluster;
use crate::config::{self, CLUSTER};
use crate::peer::{At, Bound};
use crate::telemetry::{Metrics, SecretLabels, SecretUseLabels, StrangerLabels};
use crate::watched::Watched;
use proto::id::{ClusterSecret, SealKeys};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// Fast enough to be read as "still in use" or "no more" between two looks of a monitor.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// A stranger may come as often as it likes, and is told of this often.
const STRANGERS_EVERY: Duration = Duration::from_secs(60);

/// What is rotated, and whoever goes by it.
pub(crate) struct Rotation {
    pub(crate) file: Option<PathBuf>,
    /// What the node has started with.
    pub(crate) known: Vec<ClusterSecret>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) bound: Arc<Bound>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Rotation {
    /// Follows the file for as long as the node runs.
    pub(crate) async fn run(mut self) {
        self.tell("secrets of this cluster");
        let mut watched = None;
        if let Some(file) = &self.file {
            match Watched::read(vec![file.clone()]) {
                // It may have changed since the node read it first.
                Ok((watching, contents)) => {
                    watching.paths().for_each(|file| tracing::debug!(file = %file.display(), "followed"));
                    watched = Some(watching);
                    self.offer(&contents.concat());
                }
                Err(error) => tracing::error!(%error, "the secret file is not followed: restart the node"),
            }
        }
        let mut counted = Counted::default();
        let mut ticks = tokio::time::interval(COUNT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = Looks::default();
        loop {
            let changed = async {
                match &mut watched {
                    Some(watched) => watched.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(changed);
            // The ticks must not begin the wait for a change anew.
            let contents = loop {
                tokio::select! {
                    contents = &mut changed => break contents,
                    _ = ticks.tick() => {
                        self.count(&mut counted);
                        self.look(&mut looks);
                    }
                }
            };
            self.count(&mut counted);
            if self.offer(&contents.concat()) {
                counted.forget_uses();
            }
        }
    }

    /// Takes what the file holds now, or says why not. Whether there is anything new.
    fn offer(&mut self, text: &[u8]) -> bool {
        match judge(&self.known, text) {
            Ok(None) => false,
            Ok(Some(secrets)) => match self.bound.take_secrets(&secrets) {
                Ok(()) => {
                    self.cluster.take_seal(SealKeys::new(&secrets, CLUSTER));
                    self.known = secrets;
                    self.tell("secrets of this cluster, as changed");
                    true
                }
                Err(error) => {
                    tracing::error!(%error, "the new secrets can't be used; those before stay");
                    false
                }
            },
            Err(why) => {
                let file = self.file.as_deref().unwrap_or_else(|| "".as_ref()).display();
                tracing::error!(%file, %why, "the secret file has changed and is not taken; the secrets before stay");
                false
            }
        }
    }

    /// Which secrets there are now: to the log and the metrics, and of each no more than its fingerprint.
    fn tell(&self, what: &str) {
        self.metrics.secrets.clear();
        let prints: Vec<_> = self.known.iter().map(ClusterSecret::fingerprint).collect();
        for (at, fingerprint) in prints.iter().cloned().enumerate() {
            let role = if at == 0 { "used" } else { "accepted" };
            self.metrics.secrets.get_or_create(&SecretLabels { fingerprint, role }).set(1);
        }
        let Some(file) = &self.file else { return }; // then it is no secret
        tracing::info!(secrets = prints.len(), used = %prints[0], accepted = %prints[1..].join(","), "{what}");
        if let Some(exposure) = config::exposure(file) {
            tracing::warn!("{exposure}");
        }
    }

    fn count(&self, counted: &mut Counted) {
        let by_clients = self.cluster.seal().opened().collect::<Vec<_>>();
        let by_nodes = self.bound.opened_datagrams();
        let uses = [("client", by_clients), ("node", by_nodes)];
        for ((by, now), before) in uses.into_iter().zip(&mut counted.uses) {
            before.resize(now.len(), 0);
            for (at, secret) in self.known.iter().enumerate().skip(1).take(now.len().saturating_sub(1)) {
                let labels = SecretUseLabels { fingerprint: secret.fingerprint(), by };
                self.metrics.secret_uses.get_or_create(&labels).inc_by(now[at].saturating_sub(before[at]));
            }
            *before = now;
        }
        for (at, before) in At::ALL.into_iter().zip(&mut counted.strangers) {
            let now = self.bound.strangers().seen(at);
            let labels = StrangerLabels { at: at.word() };
            self.metrics.strangers.get_or_create(&labels).inc_by(now - *before);
            *before = now;
        }
    }

    /// Says what an operator should know of who tries to talk to this node.
    fn look(&self, looks: &mut Looks) {
        let strangers = At::ALL.map(|at| self.bound.strangers().seen(at)).iter().sum();
        let is_due = looks.told_at.is_none_or(|at| at.elapsed() >= STRANGERS_EVERY);
        if strangers > looks.told && is_due {
            let (attempts, last) = (strangers - looks.told, self.bound.strangers().last());
            tracing::warn!(
                attempts,
                ?last,
                "somebody has none of this cluster's secrets: a node whose secret file is not up to date, or a stranger"
            );
            (looks.told, looks.told_at) = (strangers, Some(Instant::now()));
        }
    }
}

/// What was counted when it was last looked at.
#[derive(Default)]
struct Counted {
    uses: [Vec<u64>; 2],
    strangers: [u64; At::ALL.len()],
}

impl Counted {
    /// Other keys have taken the place of those that were counted.
    fn forget_uses(&mut self) {
        self.uses = Default::default();
    }
}

#[derive(Default)]
struct Looks {
    told: u64,
    told_at: Option<Instant>,
}

/// What to go by after the file has changed: `None` where that is the same as before.
fn judge(known: &[ClusterSecret], text: &[u8]) -> Result<Option<Vec<ClusterSecret>>, String> {
    let secrets = config::parse_secrets(text)?;
    if secrets == known {
        return Ok(None);
    }
    if !secrets.iter().any(|secret| known.contains(secret)) {
        return Err("it has no secret in common with those in use, which would cut this node off from the others \
             and end all its sessions: add the new secret as a second line on every node first (or restart the \
             node, if that is what is meant)"
            .to_owned());
    }
    Ok(Some(secrets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(seeds: &[u8]) -> Vec<ClusterSecret> {
        seeds.iter().map(|seed| ClusterSecret::from_entropy([*seed; 32])).collect()
    }

    fn text(seeds: &[u8]) -> Vec<u8> {
        secrets(seeds).iter().map(|secret| secret.to_text() + "\n").collect::<String>().into_bytes()
    }

    #[test]
    fn each_step_of_a_rotation_is_taken() {
        for (known, file) in [([1].as_slice(), [1, 2].as_slice()), (&[1, 2], &[2, 1]), (&[2, 1], &[2])] {
            assert_eq!(judge(&secrets(known), &text(file)), Ok(Some(secrets(file))), "{known:?} to {file:?}");
            assert_eq!(judge(&secrets(known), &text(known)), Ok(None));
        }
    }

    #[test]
    fn what_would_cut_the_node_off_is_refused_with_the_way_to_go() {
        let why = judge(&secrets(&[1]), &text(&[2])).expect_err("nothing in common");
        assert!(why.contains("second line"), "{why}");
        for bad in [b"".as_slice(), b"# soon", b"rwsec1.cut", b"\xff"] {
            assert!(judge(&secrets(&[1]), bad).is_err());
        }
    }
}
