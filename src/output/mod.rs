//! What leaves the function: dead letters and parts through SQS, the response
//! through Lambda.

pub mod dead_letter;
#[cfg(test)]
mod fixtures;
pub mod outbox;
pub mod part;
pub mod report;
pub mod response;

use std::borrow::Cow;

use serde::Serialize;

use crate::input::id::ProjectId;
use crate::input::received::Received;
use crate::input::request::Scope;

/// The fields that say what a request is for (contract, section 1).
#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum ScopeBody<'a> {
    Assets {
        project_id: String,
        asset_ids: &'a [Cow<'a, str>],
    },
    Project {
        project_id: String,
        all_assets: bool,
    },
    Portal {
        portal_id: String,
        all_projects: bool,
    },
}

impl ScopeBody<'_> {
    fn project(project: ProjectId) -> Self {
        Self::Project {
            project_id: project.to_string(),
            all_assets: true,
        }
    }

    /// Returns the fields of a whole project or portal; `None` for named assets.
    fn whole(scope: &Scope) -> Option<Self> {
        match scope {
            Scope::Assets(_) => None,
            Scope::Project(project) => Some(Self::project(*project)),
            Scope::Portal(portal) => Some(Self::Portal {
                portal_id: portal.to_string(),
                all_projects: true,
            }),
        }
    }
}

/// Returns the group that a FIFO queue gets a message as a whole in.
fn group(received: &Received<'_>) -> String {
    let group = received.message.fifo_group.as_deref();
    group.unwrap_or("sitewise-disassociator").to_owned()
}
