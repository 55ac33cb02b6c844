//! A part: a request of at most `FAN_OUT_ASSETS` assets that this function
//! cut from a larger one, or that holds what an event left unfinished.
//!
//! Owns the part's form (contract, section 5). It must not decide what is cut,
//! and does not send it.

use std::ops::Range;

use serde::Serialize;

use crate::event::Message;
use crate::plan::Derivation;
use crate::queue::Parcel;
use crate::request::{AssetId, ClientToken, DisassociateRequest};

/// A part, and which of the assets it was cut from it holds.
#[derive(Debug)]
pub struct Part {
    /// the message to store
    pub parcel: Parcel,
    /// the places of its assets
    pub holds: Range<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    project_id: String,
    asset_ids: Vec<String>,
    client_token: &'a str,
    part: Place<'a>,
}

/// The mark of a part, [`crate::request::PART_FIELD`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Place<'a> {
    of: &'a str,
    number: usize,
    count: usize,
}

/// Cuts `assets` of a request into parts of at most `size`.
///
/// `message_id` is the message's id, the same at every delivery: a repeated
/// cut gives the same parts with the same tokens.
pub fn cut(
    message: &Message<'_>,
    message_id: &str,
    request: &DisassociateRequest,
    assets: &[AssetId],
    size: usize,
) -> Vec<Part> {
    let project = request.project.to_string();
    let group = message.fifo_group.as_deref().unwrap_or(&project);
    let count = assets.len().div_ceil(size);
    assets
        .chunks(size)
        .enumerate()
        .map(|(index, chunk)| {
            let token = token(message_id, request, chunk);
            let body = Body {
                project_id: project.clone(),
                asset_ids: chunk.iter().map(AssetId::to_string).collect(),
                client_token: token.as_str(),
                part: Place {
                    of: message_id,
                    number: index + 1,
                    count,
                },
            };
            let body = serde_json::to_string(&body).expect("strings and numbers are JSON");
            let start = index * size;
            Part {
                parcel: Parcel {
                    body: crate::queue::escape_refused(body),
                    attributes: Vec::new(),
                    group: group.to_owned(),
                    deduplication: token.as_str().to_owned(),
                },
                holds: start..start + chunk.len(),
            }
        })
        .collect()
}

/// Derives a part's token from the original's (its own, or else its message
/// id), the project and the part's assets as a set. Its number among the parts
/// does not count: what is left of an event may differ from one try to the next.
fn token(message_id: &str, request: &DisassociateRequest, assets: &[AssetId]) -> ClientToken {
    let mut derivation = match &request.client_token {
        Some(token) => {
            let mut derivation = Derivation::new("part of token");
            derivation.text(token.as_str());
            derivation
        }
        None => {
            let mut derivation = Derivation::new("part of message");
            derivation.text(message_id);
            derivation
        }
    };
    derivation.project(request.project);
    derivation.assets(assets);
    derivation.finish()
}
