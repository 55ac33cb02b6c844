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
    /// sorted, like those of the batch
    pub(super) assets: Vec<AssetId>,
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
    pub(super) fn whole(batches: &[Batch<'_>], batch: usize) -> Self {
        Self {
            batch,
            assets: batches[batch].assets.clone(),
            round: 0,
            is_whole: true,
            is_suspect: false,
            not_before: None,
            answers_before: 0,
        }
    }

    /// Makes an attempt with some of this one's assets.
    pub(super) fn part(&self, mut assets: Vec<AssetId>) -> Self {
        assets.sort_unstable();
        Self {
            assets,
            is_whole: false,
            is_suspect: false,
            not_before: None,
            ..*self
        }
    }

    /// Returns whether several requests share it.
    pub(super) fn is_shared(&self, batch: &Batch<'_>) -> bool {
        self.by_request(batch).len() > 1
    }

    /// Splits its assets into up to so many parts: between the requests that
    /// share it, or else within its one request.
    pub(super) fn split(&self, batch: &Batch<'_>, parts: usize) -> Vec<Vec<AssetId>> {
        let requests = self.by_request(batch);
        if requests.len() > 1 {
            even(&requests, parts)
                .map(<[Vec<AssetId>]>::concat)
                .collect()
        } else {
            even(&self.assets, parts).map(<[AssetId]>::to_vec).collect()
        }
    }

    /// Groups its assets by the requests that named them.
    fn by_request(&self, batch: &Batch<'_>) -> Vec<Vec<AssetId>> {
        let mut named_by: BTreeMap<AssetId, Vec<usize>> = BTreeMap::new();
        for share in &batch.shares {
            for asset in share.assets {
                named_by.entry(*asset).or_default().push(share.request);
            }
        }
        let mut groups: BTreeMap<&[usize], Vec<AssetId>> = BTreeMap::new();
        for asset in &self.assets {
            groups.entry(&named_by[asset]).or_default().push(*asset);
        }
        groups.into_values().collect()
    }
}

/// Cuts a slice into so many parts of nearly the same length, or into as many
/// as it has items.
fn even<T>(items: &[T], parts: usize) -> impl Iterator<Item = &[T]> {
    let parts = parts.min(items.len());
    let end = move |part: usize| part * items.len() / parts;
    (0..parts).map(move |part| &items[end(part)..end(part + 1)])
}
