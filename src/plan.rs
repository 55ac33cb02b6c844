//! Which calls to make: batches of at most 100 assets of one project.
//!
//! Owns full batches, shared tails and the order of first attempts. Pure: the
//! same requests give the same plan.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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
    /// whether they are what the project lists, which may differ from one delivery
    /// to the next
    pub is_whole_project: bool,
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
pub struct Batch<'a> {
    /// The project to take the assets out of.
    pub project: ProjectId,
    /// 1 to [`BATCH_LIMIT`] distinct assets, sorted: a repeated call is the same to
    /// the letter, whatever order the messages came in.
    pub assets: Vec<AssetId>,
    /// The requests that asked for these assets, at least one. Each asset has
    /// at least one share.
    pub shares: Vec<Share<'a>>,
    /// Whether the one request's own token is sent as it is.
    has_own_token: bool,
}

/// A request's share of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// The request's position among those planned for.
    pub request: usize,
    /// The request.
    pub input: PlanInput<'a>,
    /// Its assets in the batch.
    pub assets: &'a [AssetId],
}

impl Batch<'_> {
    /// Returns the token for a call with `assets`, a subset of the batch, in
    /// the given retry round.
    ///
    /// The same messages, project, assets and round give the same token, so
    /// that a redelivery repeats it; anything else gives another one. AWS:
    /// "Don't reuse this client token if a new idempotent request is
    /// required."
    pub fn token(&self, assets: &[AssetId], round: u32) -> ClientToken {
        let mut derivation;
        if let Some(own) = self.shares[0].input.client_token {
            if self.has_own_token && round == 0 && assets.len() == self.assets.len() {
                return own.clone();
            }
            derivation = Derivation::new("own token");
            derivation.text(own.as_str());
        } else {
            derivation = Derivation::new("messages");
            for message in self.message_ids(assets) {
                derivation.text(message);
            }
        }
        derivation.call(self.project, assets, round)
    }

    /// Returns the ids of the messages that asked for any of `assets`, a subset of
    /// the batch.
    pub fn message_ids(&self, assets: &[AssetId]) -> BTreeSet<&str> {
        let is_whole = assets.len() == self.assets.len();
        let has_any =
            |share: &&Share<'_>| is_whole || share.assets.iter().any(|own| assets.contains(own));
        let shares = self.shares.iter().filter(has_any);
        shares.map(|share| share.input.message_id).collect()
    }

    /// Returns whether the assets are those that the project listed.
    pub fn is_whole_project(&self) -> bool {
        self.shares.iter().all(|share| share.input.is_whole_project)
    }

    /// Returns how often the messages were delivered at most, this time included.
    pub fn receives(&self) -> u32 {
        let receives = self.shares.iter().map(|share| share.input.receives);
        receives.max().unwrap_or_default()
    }

    /// Returns an asset's position in the batch.
    ///
    /// # Panics
    ///
    /// If the batch does not have the asset.
    pub fn position(&self, asset: AssetId) -> usize {
        let found = self.assets.binary_search(&asset);
        found.expect("an attempt and a share have assets of their batch")
    }
}

/// Plans the calls for `inputs`.
///
/// Each request's assets are cut into full batches of its own; what remains is
/// its tail. Tails for the same project share batches, first fit by decreasing
/// size, and are never split; an asset in two tails of one batch is sent once.
/// A request for a whole project or with its own client token shares nothing.
pub fn plan<'a>(inputs: &[PlanInput<'a>]) -> Vec<Batch<'a>> {
    let mut batches = Vec::new();
    let mut tails: Vec<Share<'a>> = Vec::new();
    for (request, input) in inputs.iter().enumerate() {
        let shares_nothing = input.client_token.is_some() || input.is_whole_project;
        for assets in input.assets.chunks(BATCH_LIMIT) {
            let share = Share {
                request,
                input: *input,
                assets,
            };
            if !shares_nothing && assets.len() < BATCH_LIMIT {
                tails.push(share);
                continue;
            }
            batches.push(Batch {
                project: input.project,
                assets: assets.to_vec(),
                shares: vec![share],
                has_own_token: !input.is_whole_project && input.assets.len() <= BATCH_LIMIT,
            });
        }
    }

    // A stable sort: of two tails of one size, the earlier request's comes first.
    tails.sort_by_key(|tail| Reverse(tail.assets.len()));
    let mut shared: Vec<SharedBatches<'_>> = Vec::new();
    let mut indices: HashMap<ProjectId, usize> = HashMap::new();
    for tail in tails {
        let index = *indices.entry(tail.input.project).or_insert(shared.len());
        if index == shared.len() {
            shared.push(SharedBatches::default());
        }
        shared[index].add(tail);
    }
    batches.extend(shared.into_iter().flat_map(|shared| shared.batches));
    for batch in &mut batches {
        batch.assets.sort_unstable();
    }
    batches
}

/// Returns the batches in the order in which they are first tried.
///
/// The first batch of each message that is delivered for the first time comes
/// first, so that no message waits for all the others. The rest goes message by
/// message, those delivered most often first: where the time does not suffice
/// for all, each delivery finishes some.
pub fn first_attempts(batches: &[Batch<'_>]) -> Vec<usize> {
    let mut first_batches: HashMap<usize, usize> = HashMap::new();
    for (index, batch) in batches.iter().enumerate() {
        for share in &batch.shares {
            first_batches.entry(share.request).or_insert(index);
        }
    }
    let mut order: Vec<usize> = (0..batches.len()).collect();
    order.sort_by_cached_key(|index| {
        let batch = &batches[*index];
        let is_first_of_new = batch
            .shares
            .iter()
            .any(|share| share.input.receives <= 1 && first_batches[&share.request] == *index);
        let request = batch.shares.iter().map(|share| share.request).min();
        (!is_first_of_new, Reverse(batch.receives()), request)
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
    batches: &[Batch<'_>],
    results: &[Vec<T>],
) -> Vec<Vec<T>> {
    let mut scattered: Vec<Vec<T>> = inputs
        .iter()
        .map(|input| Vec::with_capacity(input.assets.len()))
        .collect();
    for (batch, results) in batches.iter().zip(results) {
        for share in &batch.shares {
            let assets = share.assets.iter();
            let results = assets.map(|asset| results[batch.position(*asset)].clone());
            scattered[share.request].extend(results);
        }
    }
    scattered
}

/// The batches that tails of one project share.
#[derive(Default)]
struct SharedBatches<'a> {
    batches: Vec<Batch<'a>>,
    /// the batches that have an asset
    with_asset: HashSet<(AssetId, usize)>,
    /// for each asset, the last batch that has it
    last_with: HashMap<AssetId, usize>,
    /// by their room, so that a batch is found without a look at each
    by_room: BTreeMap<usize, BTreeSet<usize>>,
}

impl<'a> SharedBatches<'a> {
    /// Adds a tail to a batch that has some of its assets and room for the
    /// others, else to the first with room for all, else to a new one.
    fn add(&mut self, tail: Share<'a>) {
        let last_with = |asset| self.last_with.get(asset).copied();
        let overlapping: BTreeSet<usize> = tail.assets.iter().filter_map(last_with).collect();
        let has_room = |index: &usize| {
            let is_new = |asset: &&AssetId| !self.with_asset.contains(&(**asset, *index));
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
            self.batches.push(Batch {
                project: tail.input.project,
                assets: Vec::new(),
                shares: Vec::new(),
                has_own_token: false,
            });
        }
        if let Some(same_room) = self.by_room.get_mut(&self.room(index)) {
            same_room.remove(&index);
        }
        for asset in tail.assets {
            self.last_with.insert(*asset, index);
            if self.with_asset.insert((*asset, index)) {
                self.batches[index].assets.push(*asset);
            }
        }
        self.batches[index].shares.push(tail);
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
        is_whole_project: bool,
        client_token: Option<ClientToken>,
    }

    impl Request {
        fn input<'a>(&'a self, message_id: &'a str) -> PlanInput<'a> {
            PlanInput {
                project: self.project,
                assets: &self.assets,
                is_whole_project: self.is_whole_project,
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
            is_whole_project: false,
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

    fn planned(requests: &[Request]) -> Vec<Batch<'static>> {
        let requests = Vec::leak(requests.to_vec());
        plan(&inputs(requests, Vec::leak(ids(requests.len()))))
    }

    fn sizes(batches: &[Batch<'_>]) -> Vec<usize> {
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
        let token =
            |batch: &Batch<'_>, round| batch.token(&batch.assets, round).as_str().to_owned();

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
        let request = with_token(request(0, 0..200));
        let elsewhere = plan(&[request.input("another message")]);
        assert_eq!(
            token(&elsewhere[0], 0),
            tokens[0],
            "it depends on the caller's token only"
        );
    }

    #[test]
    fn tokens_depend_on_messages_project_assets_and_round_only() {
        let base = planned(&[request(0, 0..100)]);
        let token = |batch: &Batch<'_>, round| batch.token(&batch.assets, round);
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

        let request_of_other = request(0, 0..100);
        let other_message = plan(&[request_of_other.input("message-7")]);
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
            let owned: BTreeSet<AssetId> = batch
                .shares
                .iter()
                .flat_map(|share| share.assets.iter().copied())
                .collect();
            assert_eq!(owned.len(), batch.assets.len(), "each asset has an share");
            for share in &batch.shares {
                assert_eq!(requests[share.request].project, batch.project);
                let shares = batch.shares.len() > 1;
                assert!(!(shares && requests[share.request].client_token.is_some()));
                let tail = requests[share.request].assets.len() % BATCH_LIMIT;
                assert!(
                    [BATCH_LIMIT, tail].contains(&share.assets.len()),
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
