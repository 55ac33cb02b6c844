//! A part: a project of a portal, or at most `FAN_OUT_ASSETS` assets, that this
//! function cut from a larger request, or that an event left unfinished.
//!
//! Owns the part's form (contract, section 5). It must not decide what is cut,
//! and does not send it.

use serde_json::json;

use super::{group, whole_project};
use crate::aws::sqs::{OutgoingMessage, escape_refused};
use crate::input::id::{AssetId, ProjectId};
use crate::input::received::Received;
use crate::token::Derivation;

/// Writes part `number`, from 1, of `count`: of some assets of a project, or of
/// the whole project where there are none.
///
/// The token is derived from the original's (its own, or else its message id), the
/// project and the assets as a set. The number does not count: a list may differ
/// from one delivery to the next.
///
/// A FIFO queue gets the assets in the original's group, and a whole project, which
/// comes from a portal, in a group of its own.
pub fn part(
    received: &Received<'_>,
    project: ProjectId,
    assets: Option<&[AssetId]>,
    (number, count): (usize, usize),
) -> OutgoingMessage {
    let request = received.request.as_ref().ok();
    let (purpose, original) = match request.and_then(|request| request.client_token.as_ref()) {
        Some(token) => ("part of token", token.as_str()),
        None => ("part of message", &*received.id),
    };
    let mut token = Derivation::new(purpose);
    token.text(original);
    token.project(project);
    let project_id = project.to_string();
    let (mut body, group) = match assets {
        Some(assets) => {
            token.assets(assets);
            let ids: Vec<String> = assets.iter().map(AssetId::to_string).collect();
            let group = received.message.fifo_group.as_deref();
            let group = group.unwrap_or(&project_id).to_owned();
            (json!({"projectId": project_id, "assetIds": ids}), group)
        }
        None => (whole_project(project), project_id),
    };
    let token = token.finish();
    body["clientToken"] = token.as_str().into();
    body["sitewiseDisassociatorPart"] =
        json!({"of": received.id, "number": number, "count": count});
    OutgoingMessage {
        body: escape_refused(body.to_string()),
        attributes: Vec::new(),
        group,
        deduplication: token.as_str().to_owned(),
    }
}

/// Writes a request as it came, unmarked: one whose list could not be read.
pub fn as_it_came(received: &Received<'_>) -> OutgoingMessage {
    let body = received.message.as_it_came();
    let mut deduplication = Derivation::new("request as it came");
    deduplication.text(&received.id);
    deduplication.text(body);
    OutgoingMessage {
        body: escape_refused(body.to_owned()),
        attributes: Vec::new(),
        group: group(received),
        deduplication: deduplication.finish().as_str().to_owned(),
    }
}
