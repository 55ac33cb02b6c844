//! What one process asked of the services in one invocation, and what it was
//! answered, by the simulator's record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use simulator::{Call, Operation};

use crate::ledger::Named;

#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// attempts of disassociations that were not throttled, with their assets and
    /// the token that the attempts of one call share
    attempts: Vec<(String, BTreeSet<Named>)>,
    /// attempts of reads that were not throttled
    pub(crate) reads: u64,
    /// attempts of either that were throttled
    pub(crate) throttled: u64,
    /// for each project, the attempts of either that were not throttled
    pub(crate) requests: BTreeMap<String, u64>,
    /// answers that say that something is wrong with the assets of a call
    pub(crate) refusals: u64,
    /// whether SiteWise answered anything with a success or a refusal
    is_answered: bool,
    /// for each asset, the earliest end of each call that failed with it, by its
    /// token: copies of a message make the same call
    failed: BTreeMap<Named, BTreeMap<String, Duration>>,
    /// for each asset, when the last page that showed it was asked for
    shown: BTreeMap<Named, Duration>,
    /// what a list of a project showed before the first disassociation for it
    shown_first: BTreeSet<Named>,
    /// the messages that it sent
    sent: BTreeSet<String>,
}

impl Trace {
    /// Adds a request. A SiteWise call takes `latency` at least.
    pub(crate) fn add(&mut self, call: &Call, latency: Duration) {
        match call.operation {
            Operation::SendMessage | Operation::SendMessageBatch => {
                self.sent.extend(call.bodies.iter().cloned());
                return;
            }
            _ if call.status == Some(429) => {
                self.throttled += 1;
                return;
            }
            Operation::Disassociate => {
                let token = call.token.clone().unwrap_or_default();
                self.attempts
                    .push((token.clone(), named(call, &call.assets)));
                let failed = match call.status {
                    Some(200) => &call.failed,
                    _ => &call.assets,
                };
                let is_refused = matches!(call.status, Some(200 | 400 | 404));
                self.refusals += u64::from(is_refused && !failed.is_empty());
                for named in named(call, failed) {
                    let calls = self.failed.entry(named).or_default();
                    calls.entry(token.clone()).or_insert(call.at + latency);
                }
            }
            _ => {
                self.reads += 1;
                let shown = named(call, &call.listed);
                if call.status == Some(200) && !self.is_called(call) {
                    self.shown_first.extend(shown.iter().cloned());
                }
                let shown = shown.into_iter().map(|named| (named, call.at));
                self.shown.extend(shown);
            }
        }
        let project = call.project.clone().unwrap_or_default();
        *self.requests.entry(project).or_default() += 1;
        self.is_answered |= matches!(call.status, Some(200 | 400 | 404));
    }

    /// Returns whether anything of a call's project was to be disassociated before.
    fn is_called(&self, call: &Call) -> bool {
        let mut assets = self.attempts.iter().flat_map(|(_, assets)| assets);
        assets.any(|(project, _)| Some(project) == call.project.as_ref())
    }

    /// Returns whether a list showed the asset that decides what a request for its
    /// whole project is for.
    pub(crate) fn decides(&self, named: &Named) -> bool {
        self.shown_first.contains(named)
    }

    /// Returns how often a disassociation was attempted, throttled ones left out.
    pub(crate) fn attempts(&self) -> u64 {
        self.attempts.len() as u64
    }

    /// Returns the places of the requests that each attempt was made for.
    pub(crate) fn attempts_of(
        &self,
        owners: &BTreeMap<Named, Vec<usize>>,
    ) -> impl Iterator<Item = usize> {
        self.attempts.iter().flat_map(|(_, assets)| {
            let places = assets
                .iter()
                .filter_map(|named| owners.get(named))
                .flatten();
            places.copied().collect::<BTreeSet<_>>()
        })
    }

    /// Returns whether the process sent this dead letter, and a list showed the
    /// asset that was asked for when the last call that failed with it was over.
    pub(crate) fn confirms(&self, letter: &str, named: &Named) -> bool {
        let failed = self
            .failed
            .get(named)
            .and_then(|calls| calls.values().max());
        let shown = self.shown.get(named);
        self.sent.contains(letter) && failed.is_some() && shown >= failed
    }

    /// Returns the most calls that had a part of an earlier call's assets, where
    /// nothing was answered. Assets that `is_shared` says are in several messages
    /// are in several calls for that reason alone.
    pub(crate) fn extra_calls(&self, is_shared: impl Fn(&Named) -> bool) -> usize {
        if self.is_answered {
            return 0;
        }
        let mut batches: Vec<(&BTreeSet<Named>, usize)> = Vec::new();
        let mut known = BTreeSet::new();
        for (token, assets) in &self.attempts {
            if !known.insert(token) || assets.iter().any(&is_shared) {
                continue;
            }
            // Calls with the same assets are those of equal messages.
            match batches
                .iter_mut()
                .find(|(whole, _)| assets.is_subset(whole) && assets.len() < whole.len())
            {
                Some((_, extra)) => *extra += 1,
                None => batches.push((assets, 0)),
            }
        }
        batches.iter().map(|(_, extra)| *extra).max().unwrap_or(0)
    }
}

fn named(call: &Call, ids: &[String]) -> BTreeSet<Named> {
    let project = call.project.as_deref().unwrap_or_default();
    ids.iter()
        .map(|id| (project.to_owned(), id.clone()))
        .collect()
}
