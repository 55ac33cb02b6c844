//! A part: a request of at most `FAN_OUT_ASSETS` assets that this function
//! cut from a larger one, or that holds what an event left unfinished.
//!
//! Owns the part's form (contract, section 5). It must not decide what is cut,
//! and does not send it.

use serde::Serialize;

use super::Written;
use crate::aws::sqs::{OutgoingMessage, escape_refused};
use crate::input::id::{AssetId, ClientToken, ProjectId};
use crate::input::received::Received;
use crate::token::Derivation;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    project_id: &'a str,
    asset_ids: Vec<String>,
    client_token: &'a str,
    #[serde(rename = "sitewiseDisassociatorPart")]
    part: Marker<'a>,
}

#[derive(Serialize)]
struct Marker<'a> {
    of: &'a str,
    number: usize,
    count: usize,
}

/// Cuts `assets` of a request into parts of at most `size`. A repeated cut gives
/// the same parts with the same tokens.
pub fn cut(
    received: &Received<'_>,
    project: ProjectId,
    own_token: Option<&ClientToken>,
    assets: &[AssetId],
    size: usize,
) -> Vec<Written> {
    let project_id = &*project.to_string();
    let message_id = &*received.id;
    let group = received.message.fifo_group.as_deref().unwrap_or(project_id);
    let count = assets.len().div_ceil(size);
    let part = |(index, chunk): (usize, &[AssetId])| {
        let token = token(message_id, own_token, project, chunk);
        let body = Body {
            project_id,
            asset_ids: chunk.iter().map(AssetId::to_string).collect(),
            client_token: token.as_str(),
            part: Marker {
                of: message_id,
                number: index + 1,
                count,
            },
        };
        let body = serde_json::to_string(&body).expect("strings and numbers are JSON");
        Written {
            message: OutgoingMessage {
                body: escape_refused(body),
                attributes: Vec::new(),
                group: group.to_owned(),
                deduplication: token.as_str().to_owned(),
            },
            items: chunk.len(),
        }
    };
    assets.chunks(size).enumerate().map(part).collect()
}

/// Derives a part's token from the original's (its own, or else its message
/// id), the project and the part's assets as a set. Its number among the parts
/// does not count: what is left of an event may differ from one try to the next.
fn token(
    message_id: &str,
    own_token: Option<&ClientToken>,
    project: ProjectId,
    assets: &[AssetId],
) -> ClientToken {
    let (purpose, original) = match own_token {
        Some(token) => ("part of token", token.as_str()),
        None => ("part of message", message_id),
    };
    let mut derivation = Derivation::new(purpose);
    derivation.text(original);
    derivation.project(project);
    derivation.assets(assets);
    derivation.finish()
}
