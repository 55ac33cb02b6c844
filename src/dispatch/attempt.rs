//! An attempt: assets of one batch that go into one call, and how they are split
//! after it failed.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::input::id::AssetId;
use crate::plan::Batch;

/// Assets of one batch that go into one call.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) batch: usize,
    /// the assets' positions in the batch
    pub(super) positions: Vec<u8>,
    /// how often they were refused alone or named in a 200's errors
    pub(super) round: u32,
    /// whether it is the batch as it was planned
    pub(super) is_whole: bool,
    /// whether it is part of a call that failed, and may fail for as long: others
    /// go first
    pub(super) is_suspect: bool,
    /// when it may start, after the pause before a round
    pub(super) not_before: Option<Instant>,
    /// how many calls the service had answered when it was split off
    pub(super) answers_before: usize,
}

impl Attempt {
    /// Makes the first attempt of a planned batch.
    pub(super) fn whole(batches: &[Batch], batch: usize) -> Self {
        Self {
            batch,
            positions: (0..).take(batches[batch].assets.len()).collect(),
            round: 0,
            is_whole: true,
            is_suspect: false,
            not_before: None,
            answers_before: 0,
        }
    }

    /// Makes an attempt with some of this one's assets.
    pub(super) fn part(&self, positions: Vec<u8>) -> Self {
        Self {
            positions,
            is_whole: false,
            is_suspect: false,
            not_before: None,
            ..*self
        }
    }

    /// Returns its assets.
    pub(super) fn assets(&self, batch: &Batch) -> Vec<AssetId> {
        let positions = self.positions.iter();
        positions
            .map(|position| batch.assets[usize::from(*position)])
            .collect()
    }

    /// Returns whether several requests share it.
    pub(super) fn is_shared(&self, batch: &Batch) -> bool {
        self.by_request(batch).len() > 1
    }

    /// Splits its positions into up to so many parts: between the requests that
    /// share it, or else within its one request.
    pub(super) fn split(&self, batch: &Batch, parts: usize) -> Vec<Vec<u8>> {
        let requests = self.by_request(batch);
        if requests.len() > 1 {
            even(&requests, parts).map(<[Vec<u8>]>::concat).collect()
        } else {
            even(&self.positions, parts).map(<[u8]>::to_vec).collect()
        }
    }

    /// Parts its assets by the requests that named them.
    fn by_request(&self, batch: &Batch) -> Vec<Vec<u8>> {
        let mut requests: BTreeMap<Vec<usize>, Vec<u8>> = BTreeMap::new();
        for position in &self.positions {
            let shares = batch.shares.iter();
            let named_by = shares
                .filter(|share| share.positions.contains(position))
                .map(|share| share.request)
                .collect();
            requests.entry(named_by).or_default().push(*position);
        }
        requests.into_values().collect()
    }
}

/// Cuts a slice into so many parts of nearly the same length, or into as many
/// as it has items.
fn even<T>(items: &[T], parts: usize) -> impl Iterator<Item = &[T]> {
    let parts = parts.min(items.len());
    let end = move |part: usize| part * items.len() / parts;
    (0..parts).map(move |part| &items[end(part)..end(part + 1)])
}
