//! What is known of each asset while the calls are made, and what is decided by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use super::attempt::Attempt;
use crate::aws::error::{CallFailure, FailureClass};
use crate::aws::retry::{ASSET_ROUNDS, ROUND_PAUSE};
use crate::input::id::{AssetId, ProjectId};
use crate::outcome::{Failure, Outcome, code};
use crate::plan::Batch;
use crate::session::too_late;
use crate::telemetry::log_assets;

/// Into how many parts a refused set is split. With four, one asset at fault
/// among a hundred is found with 24 requests at most; with two it takes up to 27.
const REFUSED_PARTS: usize = 4;

/// Assets with which something is wrong, as far as the service says.
#[derive(Debug)]
pub(super) struct Refusal {
    /// what of the call is not known otherwise
    attempt: Attempt,
    /// how many assets the call, or the 200's errors, had
    count: usize,
    /// whether a 200 names them, rather than their call being refused
    is_by_name: bool,
}

/// What is known of a project.
#[derive(Default)]
struct Project {
    /// what waits for a read
    refusals: Vec<Refusal>,
    is_being_read: bool,
    /// whether the service has shown that it exists
    exists: bool,
    /// the service's answer that it does not exist
    missing: Option<Failure>,
    /// the assets that any list of this invocation showed
    listed: BTreeSet<AssetId>,
}

/// What is known so far.
pub(super) struct State<'a> {
    pub(super) batches: &'a [Batch<'a>],
    /// for each batch and asset: final, or what is so if nothing more is found out
    outcomes: Vec<Vec<Outcome>>,
    projects: BTreeMap<ProjectId, Project>,
    /// shared calls that failed while the service answered nothing else
    pub(super) deferred: Vec<Attempt>,
    /// the batches of each asset that several have; found once a call has failed
    overlaps: Option<HashMap<(ProjectId, AssetId), Vec<usize>>>,
    /// calls that the service has accepted, or refused for their assets
    pub(super) answers: usize,
}

impl<'a> State<'a> {
    pub(super) fn new(batches: &'a [Batch<'a>]) -> Self {
        // What has no other outcome in the end panicked.
        let failure = Failure::new(code::INTERNAL_ERROR, "the function failed on this batch");
        let untried =
            |batch: &Batch<'_>| vec![Outcome::Unfinished(failure.clone()); batch.assets.len()];
        Self {
            batches,
            outcomes: batches.iter().map(untried).collect(),
            projects: BTreeMap::new(),
            deferred: Vec::new(),
            overlaps: None,
            answers: 0,
        }
    }

    /// Returns the final outcomes. An asset that one batch's call has taken out of
    /// the project is done for all batches.
    pub(super) fn into_outcomes(mut self) -> Vec<Vec<Outcome>> {
        for ((_, asset), batches) in self.overlaps.take().unwrap_or_default() {
            let mut outcomes = batches.iter().map(|batch| self.outcome(*batch, asset));
            if outcomes.any(|outcome| *outcome == Outcome::Disassociated) {
                for batch in batches {
                    self.conclude(batch, &[asset], &Outcome::Disassociated);
                }
            }
        }
        self.outcomes
    }

    fn outcome(&self, batch: usize, asset: AssetId) -> &Outcome {
        &self.outcomes[batch][self.batches[batch].position(asset)]
    }

    fn conclude(&mut self, batch: usize, assets: &[AssetId], outcome: &Outcome) {
        for asset in assets {
            let position = self.batches[batch].position(*asset);
            self.outcomes[batch][position] = outcome.clone();
        }
    }

    /// Logs what became of assets, and whether a list had shown all of them before.
    fn log(&self, batch: usize, assets: &[AssetId], outcome: &Outcome) {
        if assets.is_empty() {
            return;
        }
        let batch = &self.batches[batch];
        let project = self.projects.get(&batch.project);
        let are_listed = batch.is_whole_project()
            || project.is_some_and(|project| assets.iter().all(|one| project.listed.contains(one)));
        let message_ids = batch.message_ids(assets).into_iter();
        log_assets(outcome, batch.project, assets, are_listed, message_ids);
    }

    fn project(&mut self, attempt: &Attempt) -> &mut Project {
        let project = self.batches[attempt.batch].project;
        self.projects.entry(project).or_default()
    }

    /// Returns the batches that have an asset of this batch, if a call has failed
    /// and several have it.
    fn overlapping(&self, batch: usize, asset: AssetId) -> &[usize] {
        let overlaps = self.overlaps.as_ref();
        let batches = overlaps.and_then(|all| all.get(&(self.batches[batch].project, asset)));
        batches.map_or(&[], Vec::as_slice)
    }

    /// Notes the response to an accepted call, and returns what is to be tried
    /// next. `errors` are of the assets that the service could not disassociate.
    pub(super) fn accepted(
        &mut self,
        attempt: &Attempt,
        errors: Vec<(AssetId, Failure)>,
    ) -> Vec<Attempt> {
        self.project(attempt).exists = true;
        let mut named = BTreeSet::new();
        for (asset, failure) in errors {
            self.conclude(attempt.batch, &[asset], &Outcome::Unfinished(failure));
            named.insert(asset);
        }
        let removed = attempt.assets.iter().copied();
        let removed: Vec<AssetId> = removed.filter(|asset| !named.contains(asset)).collect();
        self.conclude(attempt.batch, &removed, &Outcome::Disassociated);
        self.log(attempt.batch, &removed, &Outcome::Disassociated);
        if !named.is_empty() {
            self.find_overlaps();
            self.refused(attempt.part(named.into_iter().collect()), true);
        }
        self.answered()
    }

    /// Notes that a call failed as a whole, and returns what is to be tried next.
    pub(super) fn failed(&mut self, attempt: Attempt, error: &CallFailure) -> Vec<Attempt> {
        self.find_overlaps();
        let is_late = error.failure.code() == code::DEADLINE_REACHED;
        if is_late && !attempt.is_whole {
            self.end_for_lack_of_time(&attempt);
        } else {
            let outcome = Outcome::Unfinished(error.failure.clone());
            self.conclude(attempt.batch, &attempt.assets, &outcome);
        }
        let is_shared = attempt.is_shared(&self.batches[attempt.batch]);
        match error.class {
            FailureClass::Refused => {
                self.refused(attempt, false);
                self.answered()
            }
            // It may be an asset of one of its requests that makes it fail: it is
            // split once the service answers something else.
            FailureClass::Transient | FailureClass::Unexpected if is_shared => {
                if self.answers > attempt.answers_before {
                    return self.isolate(&attempt);
                }
                self.deferred.push(attempt);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Ends an attempt before its pause, which there is no time for.
    pub(super) fn end_for_lack_of_time(&mut self, attempt: &Attempt) {
        for asset in &attempt.assets {
            if let Outcome::Unfinished(error) = self.outcome(attempt.batch, *asset) {
                let outcome = Outcome::Unfinished(too_late(Some(error)));
                self.conclude(attempt.batch, &[*asset], &outcome);
            }
        }
    }

    /// Concludes that assets are absent: in other batches too, where what is known
    /// is older.
    fn conclude_absent(&mut self, batch: usize, assets: &[AssetId]) {
        self.conclude(batch, assets, &Outcome::Absent);
        for asset in assets {
            for other in self.overlapping(batch, *asset).to_vec() {
                if *self.outcome(other, *asset) != Outcome::Disassociated {
                    self.conclude(other, &[*asset], &Outcome::Absent);
                }
            }
        }
    }

    /// Concludes what of an attempt needs no call or read, and takes it out: the
    /// assets that another batch's call has taken out of the project, and all
    /// assets of a project that does not exist.
    pub(super) fn conclude_known(&mut self, attempt: &mut Attempt) {
        let batch = attempt.batch;
        let is_removed = |asset: &AssetId| {
            let mut batches = self.overlapping(batch, *asset).iter();
            batches.any(|other| *self.outcome(*other, *asset) == Outcome::Disassociated)
        };
        let removed: Vec<AssetId> = attempt
            .assets
            .extract_if(.., |asset| is_removed(asset))
            .collect();
        self.conclude(batch, &removed, &Outcome::Disassociated);
        if let Some(failure) = self.project(attempt).missing.clone() {
            let assets = std::mem::take(&mut attempt.assets);
            self.conclude(batch, &assets, &Outcome::Rejected(failure));
        }
    }

    /// Keeps refused assets until their project is read, unless all is known.
    fn refused(&mut self, mut attempt: Attempt, is_by_name: bool) {
        let count = attempt.assets.len();
        self.conclude_known(&mut attempt);
        if !attempt.assets.is_empty() {
            let refusal = Refusal {
                attempt,
                count,
                is_by_name,
            };
            self.project(&refusal.attempt).refusals.push(refusal);
        }
    }

    fn find_overlaps(&mut self) {
        self.overlaps.get_or_insert_with(|| overlaps(self.batches));
    }

    /// Returns a project whose membership is to be read, once.
    pub(super) fn next_project_to_read(&mut self) -> Option<ProjectId> {
        let mut projects = self.projects.iter_mut();
        let (id, project) =
            projects.find(|(_, project)| !project.refusals.is_empty() && !project.is_being_read)?;
        project.is_being_read = true;
        Some(*id)
    }

    /// Returns whether a project's other batches wait for a read: without that, a
    /// project that does not exist would cost a call for each while it is read.
    pub(super) fn is_in_doubt(&self, project: ProjectId) -> bool {
        self.projects.get(&project).is_some_and(|project| {
            (project.is_being_read || !project.refusals.is_empty()) && !project.exists
        })
    }

    /// Takes what waits for a read of a project.
    pub(super) fn take_refusals(&mut self, project: ProjectId) -> Vec<Refusal> {
        let project = self.projects.entry(project).or_default();
        std::mem::take(&mut project.refusals)
    }

    /// Ends a read: decides by it what is refused, and returns what is to be tried
    /// again.
    pub(super) fn read(
        &mut self,
        id: ProjectId,
        mut refusals: Vec<Refusal>,
        membership: Result<BTreeSet<AssetId>, CallFailure>,
    ) -> Vec<Attempt> {
        let project = self.projects.entry(id).or_default();
        project.is_being_read = false;
        let error = match membership {
            Ok(listed) => {
                project.exists = true;
                let refusals = refusals.into_iter();
                let again = refusals.flat_map(|refusal| self.decide(refusal, &listed));
                let again = again.collect();
                self.projects.entry(id).or_default().listed.extend(listed);
                return again;
            }
            Err(error) => error,
        };
        if error.is_not_found() {
            project.missing = Some(error.failure.clone());
            refusals.extend(self.take_refusals(id));
        }
        for Refusal { mut attempt, .. } in refusals {
            self.conclude_known(&mut attempt);
            let outcome = Outcome::Unfinished(error.failure.clone());
            self.conclude(attempt.batch, &attempt.assets, &outcome);
        }
        Vec::new()
    }

    /// Decides a refusal by the membership that was read after it, and returns
    /// what is to be tried again.
    fn decide(&mut self, refusal: Refusal, listed: &BTreeSet<AssetId>) -> Vec<Attempt> {
        let Refusal {
            mut attempt,
            count,
            is_by_name,
        } = refusal;
        self.conclude_known(&mut attempt);
        let (listed, absent): (Vec<AssetId>, Vec<AssetId>) = attempt
            .assets
            .iter()
            .partition(|asset| listed.contains(asset));
        self.conclude_absent(attempt.batch, &absent);
        self.log(attempt.batch, &absent, &Outcome::Absent);
        let again = self.part(&attempt, listed);
        let are_all_listed = again.assets.len() == count;
        match again.assets.len() {
            0 => Vec::new(),
            1 if are_all_listed => self.next_round(again),
            _ if is_by_name => self.next_round(again),
            _ if are_all_listed => self.split(&again, REFUSED_PARTS),
            _ => vec![again],
        }
    }

    /// Makes an attempt with some of another's assets.
    pub(super) fn part(&self, attempt: &Attempt, assets: Vec<AssetId>) -> Attempt {
        Attempt {
            answers_before: self.answers,
            ..attempt.part(assets)
        }
    }

    pub(super) fn split(&self, attempt: &Attempt, parts: usize) -> Vec<Attempt> {
        let parts = attempt.split(&self.batches[attempt.batch], parts);
        let parts = parts.into_iter();
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
        for asset in attempt.assets {
            if let Outcome::Unfinished(error) = self.outcome(attempt.batch, asset) {
                let outcome = Outcome::Rejected(error.clone());
                self.conclude(attempt.batch, &[asset], &outcome);
            }
        }
        Vec::new()
    }
}

/// Finds the assets that several batches have.
fn overlaps(batches: &[Batch<'_>]) -> HashMap<(ProjectId, AssetId), Vec<usize>> {
    let mut places: Vec<(ProjectId, AssetId, usize)> = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        places.extend(
            batch
                .assets
                .iter()
                .map(|asset| (batch.project, *asset, index)),
        );
    }
    places.sort_unstable();
    places
        .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
        .filter(|same| same.len() > 1)
        .map(|same| {
            let batches = same.iter().map(|(.., batch)| *batch);
            ((same[0].0, same[0].1), batches.collect())
        })
        .collect()
}
