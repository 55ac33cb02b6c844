//! What is known of a plan's assets, and what follows from it.
//!
//! Owns the decisions: which outcome an asset has, what is tried again. Pure: it
//! neither waits nor sends.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::time::Instant;

use super::attempt::Attempt;
use super::{FAILED_PARTS, REFUSED_PARTS};
use crate::aws::error::CallFailure;
use crate::aws::retry::{ASSET_ROUNDS, ROUND_PAUSE};
use crate::input::id::{AssetId, ProjectId};
use crate::outcome::{Failure, Outcome, code};
use crate::plan::Batch;

/// Assets with which something is wrong, as far as the service says.
#[derive(Debug)]
pub(super) struct Refusal {
    attempt: Attempt,
    /// whether a 200 names them, rather than their call being refused
    is_by_name: bool,
}

/// For each asset that several batches have, the batches and its positions.
type Overlaps = HashMap<(ProjectId, AssetId), Vec<(usize, u8)>>;

/// What is known so far.
pub(super) struct State<'a> {
    batches: &'a [Batch],
    /// final, or what is so if nothing more is found out
    outcomes: Vec<Vec<Outcome>>,
    /// what waits for a read of its project
    refusals: BTreeMap<ProjectId, Vec<Refusal>>,
    reading: HashSet<ProjectId>,
    /// projects that exist, as far as the service has shown
    existing: HashSet<ProjectId>,
    /// projects that do not exist
    missing: HashMap<ProjectId, Failure>,
    /// shared calls that failed while the service answered nothing else
    deferred: Vec<Attempt>,
    /// found out when a call first fails
    overlaps: Option<Overlaps>,
    /// calls that the service has accepted, or refused for their assets
    answers: usize,
}

impl<'a> State<'a> {
    pub(super) fn new(batches: &'a [Batch]) -> Self {
        // What has no other outcome in the end panicked.
        let failure = Failure::new(code::INTERNAL_ERROR, "the function failed on this batch");
        let untried =
            |batch: &Batch| vec![Outcome::Unfinished(failure.clone()); batch.assets.len()];
        Self {
            batches,
            outcomes: batches.iter().map(untried).collect(),
            refusals: BTreeMap::new(),
            reading: HashSet::new(),
            existing: HashSet::new(),
            missing: HashMap::new(),
            deferred: Vec::new(),
            overlaps: None,
            answers: 0,
        }
    }

    /// Returns the final outcomes. An asset that one batch's call has taken out of
    /// the project is done for all batches.
    pub(super) fn into_outcomes(mut self) -> Vec<Vec<Outcome>> {
        for places in self.overlaps.into_iter().flat_map(HashMap::into_values) {
            let is_removed = |(batch, position): &(usize, u8)| {
                self.outcomes[*batch][usize::from(*position)] == Outcome::Disassociated
            };
            if places.iter().any(is_removed) {
                for (batch, position) in places {
                    self.outcomes[batch][usize::from(position)] = Outcome::Disassociated;
                }
            }
        }
        self.outcomes
    }

    /// Finds the assets that several batches have, once a call has failed.
    pub(super) fn find_overlaps(&mut self) {
        self.overlaps.get_or_insert_with(|| overlaps(self.batches));
    }

    pub(super) fn conclude(&mut self, batch: usize, positions: &[u8], outcome: &Outcome) {
        for position in positions {
            self.outcomes[batch][usize::from(*position)] = outcome.clone();
        }
    }

    /// Concludes that assets are absent: in other batches too, where what is known
    /// is older.
    fn conclude_absent(&mut self, batch: usize, positions: &[u8]) {
        self.conclude(batch, positions, &Outcome::Absent);
        let Batch {
            project, assets, ..
        } = &self.batches[batch];
        for position in positions {
            let key = (*project, assets[usize::from(*position)]);
            let places = self
                .overlaps
                .iter()
                .filter_map(|overlaps| overlaps.get(&key));
            for (batch, position) in places.flatten() {
                let outcome = &mut self.outcomes[*batch][usize::from(*position)];
                if *outcome != Outcome::Disassociated {
                    *outcome = Outcome::Absent;
                }
            }
        }
    }

    /// Concludes what of an attempt needs no call or read, and takes it out.
    pub(super) fn conclude_known(&mut self, attempt: &mut Attempt) {
        let removed = self.removed_elsewhere(attempt);
        self.conclude(attempt.batch, &removed, &Outcome::Disassociated);
        attempt
            .positions
            .retain(|position| !removed.contains(position));
        let project = self.batches[attempt.batch].project;
        if let Some(failure) = self.missing.get(&project) {
            let outcome = Outcome::Rejected(failure.clone());
            self.conclude(attempt.batch, &attempt.positions, &outcome);
            attempt.positions.clear();
        }
    }

    /// Returns those of an attempt's assets that another batch's call has taken
    /// out of the project in this invocation.
    fn removed_elsewhere(&self, attempt: &Attempt) -> Vec<u8> {
        let Some(overlaps) = &self.overlaps else {
            return Vec::new();
        };
        let batch = &self.batches[attempt.batch];
        let is_removed = |position: &u8| {
            let asset = batch.assets[usize::from(*position)];
            let mut places = overlaps.get(&(batch.project, asset)).into_iter().flatten();
            places.any(|(batch, position)| {
                self.outcomes[*batch][usize::from(*position)] == Outcome::Disassociated
            })
        };
        attempt
            .positions
            .iter()
            .copied()
            .filter(is_removed)
            .collect()
    }

    /// Ends an attempt before its pause, which there is no time for.
    pub(super) fn end_for_lack_of_time(&mut self, attempt: &Attempt) {
        for position in &attempt.positions {
            let outcome = &mut self.outcomes[attempt.batch][usize::from(*position)];
            if let Outcome::Unfinished(error) = outcome {
                *outcome = Outcome::Unfinished(super::requests::too_late(Some(error)));
            }
        }
    }

    /// Keeps refused assets until their project is read, unless all is known.
    pub(super) fn refused(&mut self, mut attempt: Attempt, is_by_name: bool) {
        let project = self.batches[attempt.batch].project;
        let removed = self.removed_elsewhere(&attempt);
        if removed.len() == attempt.positions.len() || self.missing.contains_key(&project) {
            self.conclude_known(&mut attempt);
        } else {
            let refusal = Refusal {
                attempt,
                is_by_name,
            };
            self.refusals.entry(project).or_default().push(refusal);
        }
    }

    /// Returns a project whose membership is to be read, once.
    pub(super) fn next_project_to_read(&mut self) -> Option<ProjectId> {
        let mut waiting = self.refusals.keys();
        let project = *waiting.find(|project| !self.reading.contains(project))?;
        self.reading.insert(project);
        Some(project)
    }

    /// Notes that a call for a project was accepted.
    pub(super) fn project_exists(&mut self, project: ProjectId) {
        self.existing.insert(project);
    }

    /// Returns whether a project's other batches wait for a read: without that, a
    /// project that does not exist would cost a call for each while it is read.
    pub(super) fn is_in_doubt(&self, project: ProjectId) -> bool {
        let is_to_be_read = self.reading.contains(&project) || self.refusals.contains_key(&project);
        is_to_be_read && !self.existing.contains(&project)
    }

    /// Takes what waits for a read of a project.
    pub(super) fn take_refusals(&mut self, project: ProjectId) -> Vec<Refusal> {
        self.refusals.remove(&project).unwrap_or_default()
    }

    /// Ends a read: decides by it what is refused, and returns what is to be tried
    /// again.
    pub(super) fn read(
        &mut self,
        project: ProjectId,
        refusals: Vec<Refusal>,
        membership: Result<HashSet<AssetId>, CallFailure>,
    ) -> Vec<Attempt> {
        self.reading.remove(&project);
        let error = match membership {
            Ok(listed) => {
                self.existing.insert(project);
                let refusals = refusals.into_iter();
                return refusals
                    .flat_map(|refusal| self.decide(refusal, &listed))
                    .collect();
            }
            Err(error) => error,
        };
        let mut refusals = refusals;
        if error.is_not_found() {
            self.missing.insert(project, error.failure.clone());
            refusals.extend(self.take_refusals(project));
        }
        for Refusal { mut attempt, .. } in refusals {
            self.conclude_known(&mut attempt);
            let outcome = Outcome::Unfinished(error.failure.clone());
            self.conclude(attempt.batch, &attempt.positions, &outcome);
        }
        Vec::new()
    }

    /// Decides a refusal by the membership that was read after it, and returns
    /// what is to be tried again.
    fn decide(&mut self, refusal: Refusal, listed: &HashSet<AssetId>) -> Vec<Attempt> {
        let Refusal {
            mut attempt,
            is_by_name,
        } = refusal;
        let count = attempt.positions.len();
        self.conclude_known(&mut attempt);
        let assets = &self.batches[attempt.batch].assets;
        let is_listed = |position: &u8| listed.contains(&assets[usize::from(*position)]);
        let (listed, absent): (Vec<u8>, Vec<u8>) =
            attempt.positions.iter().copied().partition(is_listed);
        self.conclude_absent(attempt.batch, &absent);
        let again = self.part(&attempt, listed);
        let are_all_listed = again.positions.len() == count;
        match again.positions.len() {
            0 => Vec::new(),
            1 if are_all_listed => self.next_round(again),
            _ if is_by_name => self.next_round(again),
            _ if are_all_listed => self.split(&again, REFUSED_PARTS),
            _ => vec![again],
        }
    }

    /// Makes an attempt with some of another's assets.
    fn part(&self, attempt: &Attempt, positions: Vec<u8>) -> Attempt {
        Attempt {
            answers_before: self.answers,
            ..attempt.part(positions)
        }
    }

    fn split(&self, attempt: &Attempt, parts: usize) -> Vec<Attempt> {
        let parts = attempt
            .split(&self.batches[attempt.batch], parts)
            .into_iter();
        parts.map(|part| self.part(attempt, part)).collect()
    }

    /// Returns the next round of listed assets; after the last they are rejected.
    fn next_round(&mut self, attempt: Attempt) -> Vec<Attempt> {
        let round = attempt.round + 1;
        if round < ASSET_ROUNDS {
            let pause = ROUND_PAUSE * 2_u32.pow(round - 1);
            let not_before = Some(Instant::now() + pause);
            return vec![Attempt {
                round,
                not_before,
                ..attempt
            }];
        }
        for position in attempt.positions {
            let outcome = &mut self.outcomes[attempt.batch][usize::from(position)];
            if let Outcome::Unfinished(error) = outcome {
                *outcome = Outcome::Rejected(error.clone());
            }
        }
        Vec::new()
    }

    /// Takes an attempt that failed for a reason that may be one of its requests':
    /// it is split once the service answers something else.
    pub(super) fn failed(&mut self, attempt: Attempt) -> Vec<Attempt> {
        if self.answers > attempt.answers_before {
            return self.isolate(&attempt);
        }
        self.deferred.push(attempt);
        Vec::new()
    }

    /// Notes that the service has answered a call, and splits the shared calls
    /// that failed before.
    pub(super) fn answered(&mut self) -> Vec<Attempt> {
        self.answers += 1;
        let deferred = std::mem::take(&mut self.deferred).into_iter();
        deferred
            .flat_map(|attempt| self.isolate(&attempt))
            .collect()
    }

    /// Splits the deferred batches whose messages were delivered before, though
    /// the service answers nothing else. Where there are none, what is deferred
    /// stays unfinished.
    pub(super) fn probe_deferred(&mut self) -> Vec<Attempt> {
        let deferred = std::mem::take(&mut self.deferred).into_iter();
        let (probed, others): (Vec<Attempt>, Vec<Attempt>) =
            deferred.partition(|attempt| attempt.is_whole && self.receives(attempt) > 1);
        self.deferred = others;
        let probed = probed.into_iter();
        probed.flat_map(|attempt| self.isolate(&attempt)).collect()
    }

    /// Splits a failed call between its requests. Of a whole batch two groups are
    /// tried, and the others only once the service answers something: in an outage
    /// this costs two calls more. The groups are others at each delivery, and
    /// smaller ones, so that in the end the service answers one of them.
    fn isolate(&mut self, attempt: &Attempt) -> Vec<Attempt> {
        let receives = self.receives(attempt).max(2);
        let mut groups = match attempt.is_shared(&self.batches[attempt.batch]) {
            false => vec![self.part(attempt, attempt.positions.clone())],
            true if attempt.is_whole => self.split(attempt, 1 << (receives - 1).min(16)),
            true => self.split(attempt, FAILED_PARTS),
        };
        for group in &mut groups {
            group.is_suspect = true;
        }
        if !attempt.is_whole {
            return groups;
        }
        let count = groups.len();
        groups.rotate_left(2 * receives % count);
        if receives % 2 == 1 {
            // The first may take all the time.
            groups.swap(0, 1);
        }
        let others = groups.split_off(2);
        if !others.is_empty() {
            let positions = others.into_iter().flat_map(|other| other.positions);
            let others = self.part(attempt, positions.collect());
            self.deferred.push(others);
        }
        groups
    }

    /// Returns how often the messages of an attempt's batch were delivered at most.
    fn receives(&self, attempt: &Attempt) -> usize {
        let shares = self.batches[attempt.batch].shares.iter();
        let receives = shares.map(|share| share.receives).max();
        receives.unwrap_or_default() as usize
    }
}

/// Finds the assets that several batches have.
fn overlaps(batches: &[Batch]) -> Overlaps {
    let mut places: Vec<(ProjectId, AssetId, usize, u8)> = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        let assets = batch.assets.iter().zip(0..);
        places.extend(assets.map(|(asset, position)| (batch.project, *asset, index, position)));
    }
    places.sort_unstable();
    places
        .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
        .filter(|same| same.len() > 1)
        .map(|same| {
            let places = same.iter().map(|(.., batch, position)| (*batch, *position));
            ((same[0].0, same[0].1), places.collect())
        })
        .collect()
}
