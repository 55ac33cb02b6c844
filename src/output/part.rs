//! A part: a request of at most `FAN_OUT_ASSETS` assets that this function
//! cut from a larger one, or that holds what an event left unfinished.
//!
//! Owns the part's form (contract, section 5). It must not decide what is cut,
//! and does not send it.

use serde::Serialize;

use crate::aws::sqs::OutgoingMessage;
use crate::input::received::Received;
use crate::request::{AssetId, ClientToken, DisassociateRequest};
use crate::token::Derivation;

/// A part, and which of the assets it was cut from it holds.
#[derive(Debug)]
pub struct Part {
    /// the message to store
    pub message: OutgoingMessage,
    /// how many assets it has: the next ones of those that were cut
    pub holds: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    project_id: String,
    asset_ids: Vec<String>,
    client_token: &'a str,
    part: Marker<'a>,
}

/// Marks a part, [`crate::request::PART_FIELD`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Marker<'a> {
    of: &'a str,
    number: usize,
    count: usize,
}

/// Cuts `assets` of a request into parts of at most `size`. A repeated cut gives
/// the same parts with the same tokens.
pub fn cut(
    received: &Received<'_>,
    request: &DisassociateRequest,
    assets: &[AssetId],
    size: usize,
) -> Vec<Part> {
    let project = request.project.to_string();
    let message_id = &*received.id;
    let group = received.message.fifo_group.as_deref().unwrap_or(&project);
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
                part: Marker {
                    of: message_id,
                    number: index + 1,
                    count,
                },
            };
            let body = serde_json::to_string(&body).expect("strings and numbers are JSON");
            Part {
                message: OutgoingMessage {
                    body: crate::aws::sqs::escape_refused(body),
                    attributes: Vec::new(),
                    group: group.to_owned(),
                    deduplication: token.as_str().to_owned(),
                },
                holds: chunk.len(),
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
