//! Which calls to make: batches of at most 100 assets of one project.
//!
//! Owns full batches, shared tails and the order of first attempts. Pure: the
//! same requests give the same plan.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::input::id::{AssetId, ClientToken, ProjectId};
use crate::token::Derivation;

/// Most assets in one call (service model, shape
/// `BatchDisassociateProjectAssetsRequest$assetIds`: 1 to 100 items).
pub const BATCH_LIMIT: usize = 100;

/// Assets of one request to plan for.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// the project to disassociate them from
    pub project: ProjectId,
    /// the assets, each once
    pub assets: &'a [AssetId],
    /// the request's own token
    pub client_token: Option<&'a ClientToken>,
    /// the id of the message that the request came in: the same at every delivery
    /// of that message, so that its tokens are the same
    pub message_id: &'a str,
    /// how often that message was delivered, this time included
    pub receives: u32,
}

/// The input of one call, and whose assets are in it.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The project to take the assets out of.
    pub project: ProjectId,
    /// 1 to [`BATCH_LIMIT`] distinct assets.
    pub assets: Vec<AssetId>,
    /// The requests that asked for these assets, at least one. Each asset has
    /// at least one share.
    pub shares: Vec<Share>,
    own_token: Option<OwnToken>,
}

/// A request's share of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Share {
    /// The request's position among those planned for.
    pub request: usize,
    /// For each asset of the share, its position in the batch.
    pub positions: Vec<u8>,
    /// How often the request's message was delivered, this time included.
    pub receives: u32,
    message_id: String,
}

#[derive(Clone, Debug)]
struct OwnToken {
    token: ClientToken,
    is_whole_request: bool,
}

impl Batch {
    fn new(project: ProjectId) -> Self {
        Self {
            project,
            assets: Vec::new(),
            shares: Vec::new(),
            own_token: None,
        }
    }

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
            .shares
            .iter()
            .filter(|share| {
                assets.len() == self.assets.len()
                    || share
                        .positions
                        .iter()
                        .any(|position| assets.contains(&self.assets[usize::from(*position)]))
            })
            .map(|share| share.message_id.as_str())
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

/// Plans the calls for `inputs`.
///
/// Each request's assets are cut into full batches of its own; what remains is
/// its tail. Tails for the same project share batches, first fit by decreasing
/// size, and are never split; an asset in two tails of one batch is sent once.
/// A request with its own client token shares nothing.
pub fn plan(inputs: &[PlanInput<'_>]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut tails: Vec<Tail<'_>> = Vec::new();

    for (index, input) in inputs.iter().enumerate() {
        let chunks = input.assets.chunks(BATCH_LIMIT);
        let is_whole_request = chunks.len() == 1;
        for assets in chunks {
            let tail = Tail {
                input: *input,
                request: index,
                assets,
            };
            if input.client_token.is_none() && assets.len() < BATCH_LIMIT {
                tails.push(tail);
                continue;
            }
            let mut batch = Batch::new(input.project);
            batch.assets = assets.to_vec();
            batch.shares.push(tail.share((0..).take(assets.len())));
            batch.own_token = input.client_token.cloned().map(|token| OwnToken {
                token,
                is_whole_request,
            });
            batches.push(batch);
        }
    }

    // A stable sort: of two tails of one size, the earlier request's comes first.
    tails.sort_by_key(|tail| Reverse(tail.assets.len()));
    let mut shared: Vec<SharedBatches> = Vec::new();
    let mut indices: HashMap<ProjectId, usize> = HashMap::new();
    for tail in &tails {
        let index = *indices.entry(tail.input.project).or_insert(shared.len());
        if index == shared.len() {
            shared.push(SharedBatches::default());
        }
        shared[index].add(tail);
    }
    batches.extend(shared.into_iter().flat_map(|shared| shared.batches));
    batches
}

/// Returns the batches in the order in which they are first tried.
///
/// The first batch of each message that is delivered for the first time comes
/// first, so that no message waits for all the others. The rest goes message by
/// message, those delivered most often first: where the time does not suffice
/// for all, each delivery finishes some.
pub fn first_attempts(batches: &[Batch]) -> Vec<usize> {
    let mut first_batches: HashMap<usize, usize> = HashMap::new();
    for (index, batch) in batches.iter().enumerate() {
        for share in &batch.shares {
            first_batches.entry(share.request).or_insert(index);
        }
    }
    let mut order: Vec<usize> = (0..batches.len()).collect();
    order.sort_by_cached_key(|index| {
        let shares = &batches[*index].shares;
        let is_first_of_new = shares
            .iter()
            .any(|share| share.receives <= 1 && first_batches[&share.request] == *index);
        let receives = shares.iter().map(|share| share.receives).max();
        let request = shares.iter().map(|share| share.request).min();
        (!is_first_of_new, Reverse(receives), request)
    });
    order
}

/// Gives the results of each batch's assets back to the requests that share it:
/// for each input one result for each of its assets, in their order.
///
/// `batches` are in the order of [`plan`], which has a request's full batches
/// in their order and its tail behind them. `results` holds, for each batch,
/// one result for each of its assets.
pub fn scatter<T: Clone>(
    inputs: &[PlanInput<'_>],
    batches: &[Batch],
    results: &[Vec<T>],
) -> Vec<Vec<T>> {
    let mut scattered: Vec<Vec<T>> = inputs
        .iter()
        .map(|input| Vec::with_capacity(input.assets.len()))
        .collect();
    for (batch, results) in batches.iter().zip(results) {
        for share in &batch.shares {
            let positions = share.positions.iter();
            let results = positions.map(|position| results[usize::from(*position)].clone());
            scattered[share.request].extend(results);
        }
    }
    scattered
}

/// Assets of one request that go into one batch.
struct Tail<'a> {
    input: PlanInput<'a>,
    request: usize,
    assets: &'a [AssetId],
}

impl Tail<'_> {
    fn share(&self, positions: impl Iterator<Item = u8>) -> Share {
        Share {
            request: self.request,
            positions: positions.collect(),
            receives: self.input.receives,
            message_id: self.input.message_id.to_owned(),
        }
    }
}

/// The batches that tails of one project share.
#[derive(Default)]
struct SharedBatches {
    batches: Vec<Batch>,
    /// for each batch and asset, its position
    positions: HashMap<(usize, AssetId), u8>,
    /// by their room, so that a batch is found without a look at each
    by_room: BTreeMap<usize, BTreeSet<usize>>,
    /// for each asset, the last batch that has it
    last_with: HashMap<AssetId, usize>,
}

impl SharedBatches {
    /// Adds a tail to a batch that has some of its assets and room for the
    /// others, else to the first with room for all, else to a new one.
    fn add(&mut self, tail: &Tail<'_>) {
        let last_with = |asset| self.last_with.get(asset).copied();
        let overlapping: BTreeSet<usize> = tail.assets.iter().filter_map(last_with).collect();
        let has_room = |index: &usize| {
            let is_new = |asset: &&AssetId| !self.positions.contains_key(&(*index, **asset));
            tail.assets.iter().filter(is_new).count() <= self.room(*index)
        };
        let with_room = self.by_room.range(tail.assets.len()..);
        let index = overlapping
            .into_iter()
            .find(has_room)
            .or_else(|| {
                with_room
                    .filter_map(|(_, same)| same.first())
                    .min()
                    .copied()
            })
            .unwrap_or(self.batches.len());
        if index == self.batches.len() {
            self.batches.push(Batch::new(tail.input.project));
        }
        if let Some(same_room) = self.by_room.get_mut(&self.room(index)) {
            same_room.remove(&index);
        }
        let assets = &mut self.batches[index].assets;
        let share = tail.share(tail.assets.iter().map(|asset| {
            self.last_with.insert(*asset, index);
            *self.positions.entry((index, *asset)).or_insert_with(|| {
                assets.push(*asset);
                u8::try_from(assets.len() - 1).expect("a batch has at most 100 assets")
            })
        }));
        self.batches[index].shares.push(share);
        self.by_room
            .entry(self.room(index))
            .or_default()
            .insert(index);
    }

    fn room(&self, index: usize) -> usize {
        BATCH_LIMIT - self.batches[index].assets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asset(number: usize) -> AssetId {
        format!("00000000-0000-4000-8000-{:012x}", number + 1)
            .parse()
            .expect("an id")
    }

    fn project(number: usize) -> ProjectId {
        format!("00000000-0000-4000-9000-{:012x}", number + 1)
            .parse()
            .expect("an id")
    }

    #[derive(Clone, Debug)]
    struct Request {
        project: ProjectId,
        assets: Vec<AssetId>,
        client_token: Option<ClientToken>,
    }

    impl Request {
        fn input<'a>(&'a self, message_id: &'a str) -> PlanInput<'a> {
            PlanInput {
                project: self.project,
                assets: &self.assets,
                client_token: self.client_token.as_ref(),
                message_id,
                receives: 1,
            }
        }
    }

    fn request(project_number: usize, assets: impl IntoIterator<Item = usize>) -> Request {
        Request {
            project: project(project_number),
            assets: assets.into_iter().map(asset).collect(),
            client_token: None,
        }
    }

    fn with_token(request: Request) -> Request {
        Request {
            client_token: "the-callers-own-token-of-40-characters-x".parse().ok(),
            ..request
        }
    }

    fn inputs<'a>(requests: &'a [Request], ids: &'a [String]) -> Vec<PlanInput<'a>> {
        requests
            .iter()
            .zip(ids)
            .map(|(request, message_id)| request.input(message_id))
            .collect()
    }

    fn ids(count: usize) -> Vec<String> {
        (0..count)
            .map(|number| format!("message-{number}"))
            .collect()
    }

    fn planned(requests: &[Request]) -> Vec<Batch> {
        plan(&inputs(requests, &ids(requests.len())))
    }

    fn sizes(batches: &[Batch]) -> Vec<usize> {
        batches.iter().map(|batch| batch.assets.len()).collect()
    }

    #[test]
    fn a_request_alone_is_cut_at_a_hundred() {
        for (assets, expected) in [
            (0, vec![]),
            (1, vec![1]),
            (99, vec![99]),
            (100, vec![100]),
            (101, vec![100, 1]),
            (250, vec![100, 100, 50]),
        ] {
            assert_eq!(sizes(&planned(&[request(0, 0..assets)])), expected);
        }
    }

    #[test]
    fn a_thousand_messages_of_one_asset_cost_ten_calls() {
        let requests: Vec<_> = (0..1000).map(|number| request(0, [number])).collect();
        assert_eq!(sizes(&planned(&requests)), [100; 10]);
    }

    #[test]
    fn tails_of_a_project_share_first_fit_by_decreasing_size() {
        let requests = [
            request(0, 0..60),
            request(1, 0..10),
            request(0, 1000..1130),
            request(0, 2000..2040),
            request(0, 3000..3070),
        ];
        let batches = planned(&requests);
        // the full hundred; 70 + 30; 60 + 40; the other project
        assert_eq!(sizes(&batches), [100, 100, 100, 10]);
        let shares: Vec<Vec<usize>> = batches
            .iter()
            .map(|batch| batch.shares.iter().map(|share| share.request).collect())
            .collect();
        assert_eq!(shares, [vec![2], vec![4, 2], vec![0, 3], vec![1]]);
    }

    #[test]
    fn an_asset_in_two_tails_of_a_batch_is_sent_once_and_both_are_told() {
        let requests = [request(0, [1, 2, 3]), request(0, [3, 4])];
        let ids = ids(2);
        let inputs = inputs(&requests, &ids);
        let batches = plan(&inputs);
        assert_eq!(sizes(&batches), [4]);
        let results = vec![batches[0].assets.clone()];
        let results = scatter(&inputs, &batches, &results);
        assert_eq!(results[0], requests[0].assets);
        assert_eq!(results[1], requests[1].assets);
    }

    #[test]
    fn equal_tails_of_sixty_share_one_batch() {
        assert_eq!(
            sizes(&planned(&[request(0, 0..60), request(0, 0..60)])),
            [60]
        );
    }

    #[test]
    fn a_full_batch_is_its_requests_own_whatever_others_ask_for() {
        let alone = planned(&[request(0, 0..130)]);
        let among_others = planned(&[request(0, 0..130), request(0, 0..100)]);
        assert_eq!(sizes(&among_others), [100, 100, 30]);
        assert_eq!(
            among_others[0].token(&among_others[0].assets, 0),
            alone[0].token(&alone[0].assets, 0)
        );
    }

    #[test]
    fn a_request_with_its_own_token_shares_nothing() {
        let requests = [
            with_token(request(0, [1])),
            request(0, [2]),
            request(0, [3]),
        ];
        assert_eq!(sizes(&planned(&requests)), [1, 2]);
    }

    #[test]
    fn the_callers_token_is_sent_as_it_is_for_one_batch_and_derived_for_several() {
        let own = "the-callers-own-token-of-40-characters-x";
        let token = |batch: &Batch, round| batch.token(&batch.assets, round).as_str().to_owned();

        let one = planned(&[with_token(request(0, 0..100))]);
        assert_eq!(token(&one[0], 0), own);
        assert_ne!(
            token(&one[0], 1),
            own,
            "a retry of named assets has a new token"
        );
        let subset = one[0].token(&one[0].assets[..7], 0);
        assert_ne!(subset.as_str(), own, "a part of the batch is another call");

        let several = planned(&[with_token(request(0, 0..200))]);
        let tokens = [token(&several[0], 0), token(&several[1], 0)];
        assert_ne!(tokens[0], own);
        assert_ne!(tokens[0], tokens[1]);
        let elsewhere = plan(&[with_token(request(0, 0..200)).input("another message")]);
        assert_eq!(
            token(&elsewhere[0], 0),
            tokens[0],
            "it depends on the caller's token only"
        );
    }

    #[test]
    fn tokens_depend_on_messages_project_assets_and_round_only() {
        let base = planned(&[request(0, 0..100)]);
        let token = |batch: &Batch, round| batch.token(&batch.assets, round);
        let first = token(&base[0], 0);
        assert_eq!(first.as_str().len(), 64);

        let among_others = planned(&[request(0, 0..100), request(0, 200..250)]);
        assert_eq!(
            token(&among_others[0], 0),
            first,
            "neighbours make no difference"
        );
        let reversed = planned(&[request(0, (0..100).rev())]);
        assert_eq!(token(&reversed[0], 0), first, "the assets are a set");

        let other_message = plan(&[request(0, 0..100).input("message-7")]);
        let different = [
            token(&other_message[0], 0),
            token(&planned(&[request(1, 0..100)])[0], 0),
            token(&planned(&[request(0, 1..101)])[0], 0),
            token(&base[0], 1),
            token(&base[0], 2),
            base[0].token(&base[0].assets[1..], 0),
        ];
        let distinct: BTreeSet<&str> = different.iter().map(ClientToken::as_str).collect();
        assert_eq!(distinct.len(), different.len());
        assert!(!distinct.contains(first.as_str()));
    }

    #[test]
    fn a_part_of_a_shared_batch_has_the_token_of_its_own_messages() {
        let shared = planned(&[request(0, [1]), request(0, [2])]);
        let alone = planned(&[request(0, [1])]);
        assert_eq!(
            shared[0].token(&[asset(1)], 0),
            alone[0].token(&[asset(1)], 0)
        );
        assert_ne!(
            shared[0].token(&[asset(2)], 0),
            alone[0].token(&[asset(2)], 0)
        );
    }

    /// As first fit by decreasing size packs sizes that have nothing in common.
    fn packed(mut sizes: Vec<usize>) -> usize {
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let mut bins: Vec<usize> = Vec::new();
        for size in sizes {
            match bins.iter_mut().find(|bin| **bin + size <= BATCH_LIMIT) {
                Some(bin) => *bin += size,
                None => bins.push(size),
            }
        }
        bins.len()
    }

    fn any_requests(overlap: usize) -> impl Strategy<Value = Vec<Request>> {
        let one = (
            0..3_usize,
            0..3_usize,
            0..320_usize,
            0..overlap,
            any::<bool>(),
        );
        proptest::collection::vec(one, 0..25).prop_map(move |shapes| {
            shapes
                .into_iter()
                .enumerate()
                .map(|(index, (project, kind, size, offset, has_token))| {
                    let size = if kind == 0 { size } else { size % 40 };
                    let start = if overlap > 1 { offset } else { index * 1000 };
                    let request = request(project, start..start + size);
                    if kind == 2 && has_token {
                        with_token(request)
                    } else {
                        request
                    }
                })
                .collect()
        })
    }

    fn check(requests: &[Request]) {
        let ids = ids(requests.len());
        let inputs = inputs(requests, &ids);
        let batches = plan(&inputs);

        for batch in &batches {
            let distinct: BTreeSet<AssetId> = batch.assets.iter().copied().collect();
            assert_eq!(distinct.len(), batch.assets.len(), "no repeat");
            assert!((1..=BATCH_LIMIT).contains(&batch.assets.len()));
            let owned: BTreeSet<u8> = batch
                .shares
                .iter()
                .flat_map(|share| share.positions.iter().copied())
                .collect();
            assert_eq!(owned.len(), batch.assets.len(), "each asset has an share");
            for share in &batch.shares {
                assert_eq!(requests[share.request].project, batch.project);
                let shares = batch.shares.len() > 1;
                assert!(!(shares && requests[share.request].client_token.is_some()));
                let tail = requests[share.request].assets.len() % BATCH_LIMIT;
                assert!(
                    [BATCH_LIMIT, tail].contains(&share.positions.len()),
                    "full batches, and tails that are never split"
                );
            }
        }

        let results: Vec<Vec<(ProjectId, AssetId)>> = batches
            .iter()
            .map(|batch| {
                batch
                    .assets
                    .iter()
                    .map(|asset| (batch.project, *asset))
                    .collect()
            })
            .collect();
        let results = scatter(&inputs, &batches, &results);
        for (request, results) in requests.iter().zip(results) {
            let expected: Vec<_> = request
                .assets
                .iter()
                .map(|asset| (request.project, *asset))
                .collect();
            assert_eq!(
                results, expected,
                "every asset has the outcome of its own call"
            );
        }

        let tokens: BTreeSet<String> = batches
            .iter()
            .map(|batch| batch.token(&batch.assets, 0).as_str().to_owned())
            .collect();
        let again: BTreeSet<String> = plan(&inputs)
            .iter()
            .map(|batch| batch.token(&batch.assets, 0).as_str().to_owned())
            .collect();
        assert_eq!(tokens, again, "the same input gives the same tokens");
    }

    proptest! {
        #[test]
        fn every_plan_is_valid_whatever_overlaps(requests in any_requests(200)) {
            check(&requests);
        }

        #[test]
        fn calls_are_as_few_as_first_fit_decreasing_packs(requests in any_requests(1)) {
            check(&requests);
            let mut tails: BTreeMap<ProjectId, Vec<usize>> = BTreeMap::new();
            let mut expected = 0;
            for request in &requests {
                let size = request.assets.len();
                if request.client_token.is_some() {
                    expected += size.div_ceil(BATCH_LIMIT);
                } else {
                    expected += size / BATCH_LIMIT;
                    if size % BATCH_LIMIT > 0 {
                        tails.entry(request.project).or_default().push(size % BATCH_LIMIT);
                    }
                }
            }
            expected += tails.into_values().map(packed).sum::<usize>();
            prop_assert_eq!(planned(&requests).len(), expected);
        }
    }
}
