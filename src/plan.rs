//! Which calls to make: batches of at most 100 assets of one project.
//!
//! Owns full batches, shared tails and client tokens. Pure: the same requests
//! give the same plan. It must not await.

use std::collections::HashMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::request::{AssetId, ClientToken, DisassociateRequest, ProjectId};

/// Most assets in one call (service model, shape
/// `BatchDisassociateProjectAssetsRequest$assetIds`: 1 to 100 items).
pub const BATCH_LIMIT: usize = 100;

/// One request to plan for, with the id of the message that carried it: the
/// same id at every delivery of that message, so that its tokens are the same.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// what is asked for
    pub request: &'a DisassociateRequest,
    /// the id of the message it came in
    pub message_id: &'a str,
}

/// The input of one call, and whose assets are in it.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The project to take the assets out of.
    pub project: ProjectId,
    /// 1 to [`BATCH_LIMIT`] distinct assets.
    pub assets: Vec<AssetId>,
    /// The requests that asked for these assets, at least one. Each asset has
    /// at least one owner.
    pub owners: Vec<Owner>,
    own_token: Option<OwnToken>,
}

/// A request's share of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The request's place among those planned for.
    pub request: usize,
    /// The place of the share's first asset among the request's assets.
    pub first: usize,
    /// For each asset of the share, its place in the batch.
    pub places: Vec<u8>,
    message_id: String,
}

#[derive(Clone, Debug)]
struct OwnToken {
    token: ClientToken,
    is_whole_request: bool,
}

impl Batch {
    /// Returns the token for a call with `assets`, a subset of the batch, in
    /// the given retry round.
    ///
    /// The same messages, project, assets and round give the same token, so
    /// that a redelivery repeats it; anything else gives another one. AWS:
    /// "Don't reuse this client token if a new idempotent request is
    /// required."
    pub fn token(&self, assets: &[AssetId], round: u32) -> ClientToken {
        if let Some(own) = &self.own_token {
            if own.is_whole_request && round == 0 && assets.len() == self.assets.len() {
                return own.token.clone();
            }
            let mut derivation = Derivation::new("own token");
            derivation.text(own.token.as_str());
            return derivation.call(self.project, assets, round);
        }
        let mut messages: Vec<&str> = self
            .owners
            .iter()
            .filter(|owner| {
                assets.len() == self.assets.len()
                    || owner
                        .places
                        .iter()
                        .any(|place| assets.contains(&self.assets[usize::from(*place)]))
            })
            .map(|owner| owner.message_id.as_str())
            .collect();
        messages.sort_unstable();
        messages.dedup();
        let mut derivation = Derivation::new("messages");
        for message in messages {
            derivation.text(message);
        }
        derivation.call(self.project, assets, round)
    }
}

/// Derives a client token: SHA-256 over length-prefixed fields, in
/// hexadecimal, which is 64 characters, as long as a token may be.
pub(crate) struct Derivation(Sha256);

impl Derivation {
    pub(crate) fn new(purpose: &str) -> Self {
        let mut derivation = Self(Sha256::new());
        derivation.text(purpose);
        derivation
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text.as_bytes());
    }

    pub(crate) fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_be_bytes());
    }

    /// Adds assets as a set: their order makes no difference.
    pub(crate) fn assets(&mut self, assets: &[AssetId]) {
        let mut sorted = assets.to_vec();
        sorted.sort_unstable();
        self.number(sorted.len());
        for asset in sorted {
            self.0.update(asset.as_bytes());
        }
    }

    pub(crate) fn project(&mut self, project: ProjectId) {
        self.0.update(project.as_bytes());
    }

    fn call(mut self, project: ProjectId, assets: &[AssetId], round: u32) -> ClientToken {
        self.number(round as usize);
        self.project(project);
        self.assets(assets);
        self.finish()
    }

    pub(crate) fn finish(self) -> ClientToken {
        let mut token = String::with_capacity(64);
        for byte in self.0.finalize() {
            write!(token, "{byte:02x}").expect("writing to a String cannot fail");
        }
        token
            .parse()
            .expect("64 hexadecimal digits are a client token")
    }
}

/// Plans the calls for `asks`.
///
/// Each request's assets are cut into full batches of its own; what remains is
/// its tail. Tails for the same project share batches, first fit by decreasing
/// size, and are never split; an asset in two tails of one batch is sent once.
/// A request with its own client token shares nothing.
pub fn plan(asks: &[Ask<'_>]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut tails: Vec<Tail<'_>> = Vec::new();

    for (index, ask) in asks.iter().enumerate() {
        let request = ask.request;
        let chunks = request.assets.chunks(BATCH_LIMIT);
        let is_whole_request = chunks.len() == 1;
        for (number, assets) in chunks.enumerate() {
            let tail = Tail {
                ask: *ask,
                request: index,
                first: number * BATCH_LIMIT,
                assets,
            };
            if request.client_token.is_none() && assets.len() < BATCH_LIMIT {
                tails.push(tail);
                continue;
            }
            let mut batch = OpenBatch::new(request.project);
            batch.add(&tail);
            batches.push(Batch {
                own_token: request.client_token.clone().map(|token| OwnToken {
                    token,
                    is_whole_request,
                }),
                ..batch.batch
            });
        }
    }

    // A stable sort: of two tails of one size, the earlier request's comes first.
    tails.sort_by_key(|tail| std::cmp::Reverse(tail.assets.len()));
    let mut open: HashMap<ProjectId, Vec<OpenBatch>> = HashMap::new();
    let mut projects = Vec::new();
    for tail in &tails {
        let project = tail.ask.request.project;
        let candidates = open.entry(project).or_insert_with(|| {
            projects.push(project);
            Vec::new()
        });
        match candidates.iter_mut().find(|batch| batch.has_room_for(tail)) {
            Some(batch) => batch.add(tail),
            None => {
                let mut batch = OpenBatch::new(project);
                batch.add(tail);
                candidates.push(batch);
            }
        }
    }
    for project in projects {
        let shared = open.remove(&project).unwrap_or_default();
        batches.extend(shared.into_iter().map(|shared| shared.batch));
    }
    batches
}

/// Hands what became of each batch's assets back to those who asked: for each
/// ask one value for each of its assets, in their order.
///
/// `results` holds, for each batch, one value for each of its assets.
pub fn distribute<T: Clone>(
    asks: &[Ask<'_>],
    batches: &[Batch],
    results: &[Vec<T>],
) -> Vec<Vec<T>> {
    let mut shares: Vec<Vec<(usize, Vec<T>)>> = asks.iter().map(|_| Vec::new()).collect();
    for (batch, results) in batches.iter().zip(results) {
        for owner in &batch.owners {
            let share = owner
                .places
                .iter()
                .map(|place| results[usize::from(*place)].clone())
                .collect();
            shares[owner.request].push((owner.first, share));
        }
    }
    shares
        .into_iter()
        .map(|mut share| {
            share.sort_unstable_by_key(|(first, _)| *first);
            share.into_iter().flat_map(|(_, values)| values).collect()
        })
        .collect()
}

struct Tail<'a> {
    ask: Ask<'a>,
    request: usize,
    first: usize,
    assets: &'a [AssetId],
}

struct OpenBatch {
    batch: Batch,
    places: HashMap<AssetId, u8>,
}

impl OpenBatch {
    fn new(project: ProjectId) -> Self {
        Self {
            batch: Batch {
                project,
                assets: Vec::new(),
                owners: Vec::new(),
                own_token: None,
            },
            places: HashMap::new(),
        }
    }

    fn has_room_for(&self, tail: &Tail<'_>) -> bool {
        let room = BATCH_LIMIT - self.batch.assets.len();
        tail.assets.len() <= room
            || tail
                .assets
                .iter()
                .filter(|asset| !self.places.contains_key(asset))
                .nth(room)
                .is_none()
    }

    fn add(&mut self, tail: &Tail<'_>) {
        let assets = &mut self.batch.assets;
        let places = tail
            .assets
            .iter()
            .map(|asset| {
                *self.places.entry(*asset).or_insert_with(|| {
                    let place = u8::try_from(assets.len()).expect("a batch has at most 100 assets");
                    assets.push(*asset);
                    place
                })
            })
            .collect();
        self.batch.owners.push(Owner {
            request: tail.request,
            first: tail.first,
            places,
            message_id: tail.ask.message_id.to_owned(),
        });
    }
}
