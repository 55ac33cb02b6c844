//! Finds out which assets a message is for.
//!
//! Owns what is known of a message before any call: what is malformed, and what
//! is cut into parts.

use std::collections::HashMap;

use crate::input::id::AssetId;
use crate::input::received::{ReadError, Received};
use crate::input::request::NamedAssets;
use crate::outcome::{Failure, Outcome, code};
use crate::settle::Item;

/// What a message comes to before any call.
#[derive(Debug)]
pub enum Resolution<'a> {
    /// These assets are to be disassociated now.
    Assets(&'a [AssetId]),
    /// These assets are to be put into parts.
    Parts(&'a [AssetId]),
    /// The message as a whole ends so.
    Whole(Outcome),
}

/// Resolves a message. A request of more than `fan_out_assets` is cut into parts,
/// where it may be.
pub fn resolve<'a>(received: &'a Received<'_>, fan_out_assets: Option<usize>) -> Resolution<'a> {
    let request = match &received.request {
        Ok(request) => request,
        Err(error) => return Resolution::Whole(unread(error)),
    };
    let Some(assets) = request.named() else {
        let failure = Failure::new(code::INVALID_REQUEST, "expected assetIds");
        return Resolution::Whole(Outcome::Rejected(failure));
    };
    let is_large = fan_out_assets.is_some_and(|most| assets.valid.len() > most);
    match is_large && !request.is_part {
        true => Resolution::Parts(&assets.valid),
        false => Resolution::Assets(&assets.valid),
    }
}

/// Returns what becomes of a message that has no request.
pub fn unread(error: &ReadError) -> Outcome {
    match error {
        ReadError::Malformed(error) => {
            Outcome::Rejected(Failure::new(code::INVALID_REQUEST, error.to_string()))
        }
        ReadError::Panicked => {
            let message = "the function failed on this message";
            Outcome::Unfinished(Failure::new(code::INTERNAL_ERROR, message))
        }
    }
}

/// Rejects the bad ids of a request. Those of one kind share one failure: a
/// message may carry some 175,000 of them.
pub fn invalid_ids(assets: &NamedAssets) -> Vec<(Item, Outcome)> {
    let mut failures: HashMap<&str, Failure> = HashMap::new();
    let invalid = assets.invalid.iter().map(|invalid| {
        let expected = invalid.expected();
        let failure = failures
            .entry(expected)
            .or_insert_with(|| Failure::new(code::INVALID_ASSET_ID, expected));
        let item = Item::InvalidId(invalid.clone());
        (item, Outcome::Rejected(failure.clone()))
    });
    invalid.collect()
}
