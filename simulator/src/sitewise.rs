//! SiteWise Monitor over plain data: projects, assets and client tokens.
//!
//! The rules are those of the service model (botocore, `iotsitewise`,
//! 2019-12-02): `BatchDisassociateProjectAssets` and `ListProjectAssets`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::settings::{Absent, Names, Settings, Tokens};

/// Assets in one call (shape `BatchDisassociateProjectAssetsRequest`).
pub const ASSET_LIMIT: RangeInclusive<usize> = 1..=100;

/// Characters of a client token (shape `ClientToken`, pattern `\S{36,64}`).
pub const TOKEN_LENGTH: RangeInclusive<usize> = 36..=64;

/// Assets on one page of a list (shape `MaxResults`).
const PAGE_LIMIT: RangeInclusive<usize> = 1..=250;

/// An answer in HTTP's terms.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn ok(body: &Value) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_string(),
        }
    }

    /// An error in the form of the REST JSON protocol.
    pub(crate) fn error(status: u16, error_type: &str, message: &str) -> Self {
        Self {
            status,
            headers: vec![("x-amzn-errortype".to_owned(), error_type.to_owned())],
            body: json!({ "message": message }).to_string(),
        }
    }
}

/// An asset that a fault fails inside a 200.
pub(crate) struct AssetFailure {
    pub(crate) asset: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// A disassociation, as it came over the wire.
pub(crate) struct Disassociation {
    pub(crate) project: String,
    pub(crate) assets: Vec<String>,
    pub(crate) token: Option<String>,
}

struct Remembered {
    project: String,
    assets: BTreeSet<String>,
    answer: Answer,
}

/// All projects and assets.
#[derive(Default)]
pub(crate) struct SiteWise {
    pub(crate) projects: BTreeMap<String, BTreeSet<String>>,
    pub(crate) assets: BTreeSet<String>,
    remembered: HashMap<String, Remembered>,
}

/// Tells whether a text is an identifier by the pattern of the service model.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().all(|byte| !byte.is_ascii_uppercase())
        && Uuid::try_parse(text).is_ok_and(|id| !id.is_nil())
}

/// Reads a disassociation and says what the service model has against it.
pub(crate) fn parse(project: &str, body: &str) -> (Disassociation, Option<String>) {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let assets: Vec<String> = parsed["assetIds"]
        .as_array()
        .map(|ids| {
            ids.iter()
                .map(|id| id.as_str().unwrap_or_default().to_owned())
                .collect()
        })
        .unwrap_or_default();
    let token = parsed["clientToken"].as_str().map(ToOwned::to_owned);
    let distinct: BTreeSet<&String> = assets.iter().collect();
    let invalid = if !parsed.is_object() {
        Some("the body is no JSON object".to_owned())
    } else if !is_id(project) {
        Some(format!("projectId {project:?}"))
    } else if !ASSET_LIMIT.contains(&assets.len()) {
        Some(format!("{} asset ids", assets.len()))
    } else if let Some(bad) = assets.iter().find(|asset| !is_id(asset)) {
        Some(format!("asset id {bad:?}"))
    } else if token.as_ref().is_some_and(|token| {
        !TOKEN_LENGTH.contains(&token.chars().count()) || token.contains(char::is_whitespace)
    }) {
        Some("clientToken".to_owned())
    } else if distinct.len() != assets.len() {
        // The model allows it; a well-behaved caller does not do it.
        Some("repeated asset ids".to_owned())
    } else {
        None
    };
    let request = Disassociation {
        project: project.to_owned(),
        assets,
        token,
    };
    (request, invalid)
}

impl SiteWise {
    /// Answers a valid disassociation, and tells whether it was applied.
    pub(crate) fn disassociate(
        &mut self,
        request: &Disassociation,
        failures: &[AssetFailure],
        settings: &Settings,
    ) -> (Answer, bool) {
        let asset_set: BTreeSet<String> = request.assets.iter().cloned().collect();
        if let Some(answer) = self.replay(request, &asset_set, settings.tokens) {
            return (answer, false);
        }
        let Some(members) = self.projects.get_mut(&request.project) else {
            let message = match settings.not_found_names {
                Names::Nothing => "The requested resource can't be found.".to_owned(),
                Names::Resource | Names::Project => {
                    format!("Project {} can't be found.", request.project)
                }
            };
            return (
                Answer::error(404, "ResourceNotFoundException", &message),
                false,
            );
        };

        let mut errors = Vec::new();
        let mut removed = Vec::new();
        for asset in &request.assets {
            if let Some(failure) = failures.iter().find(|failure| failure.asset == *asset) {
                errors.push(entry(asset, &failure.code, &failure.message));
                continue;
            }
            if members.contains(asset) {
                removed.push(asset);
                continue;
            }
            let absent = if self.assets.contains(asset) {
                &settings.asset_not_in_project
            } else {
                &settings.unknown_asset
            };
            let message = match settings.not_found_names {
                Names::Resource => format!("Asset {asset} can't be found."),
                Names::Project => {
                    format!("Assets can't be found in project {}.", request.project)
                }
                Names::Nothing => "The requested resource can't be found.".to_owned(),
            };
            match absent {
                Absent::Ignore => {}
                Absent::AssetError { code, message } => errors.push(entry(asset, code, message)),
                Absent::NotFound => {
                    return (
                        Answer::error(404, "ResourceNotFoundException", &message),
                        false,
                    );
                }
                Absent::Invalid => {
                    return (
                        Answer::error(400, "InvalidRequestException", &message),
                        false,
                    );
                }
            }
        }
        for asset in removed {
            members.remove(asset);
        }
        let is_remembered = match settings.tokens {
            Tokens::Ignored => false,
            Tokens::SuccessesReplayed => errors.is_empty(),
            Tokens::AllReplayed => true,
        };
        let answer = Answer::ok(&json!({ "errors": errors }));
        if let (true, Some(token)) = (is_remembered, &request.token) {
            self.remembered.entry(token.clone()).or_insert(Remembered {
                project: request.project.clone(),
                assets: asset_set,
                answer: answer.clone(),
            });
        }
        (answer, true)
    }

    fn replay(
        &self,
        request: &Disassociation,
        assets: &BTreeSet<String>,
        tokens: Tokens,
    ) -> Option<Answer> {
        if tokens == Tokens::Ignored {
            return None;
        }
        let known = self.remembered.get(request.token.as_ref()?)?;
        if known.project == request.project && known.assets == *assets {
            Some(known.answer.clone())
        } else if tokens == Tokens::AllReplayed {
            Some(Answer::error(
                400,
                "InvalidRequestException",
                "The client token was used for another request.",
            ))
        } else {
            None
        }
    }

    /// Answers a page of a project's assets.
    pub(crate) fn list(&self, project: &str, query: &str) -> Answer {
        let parameter = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let Some(members) = self.projects.get(project) else {
            let message = format!("Project {project} can't be found.");
            return Answer::error(404, "ResourceNotFoundException", &message);
        };
        let size = parameter("maxResults").map_or(Some(50), |text| text.parse().ok());
        let start = parameter("nextToken").map_or(Some(0), |text| text.parse::<usize>().ok());
        let (Some(size), Some(start)) = (size.filter(|n| PAGE_LIMIT.contains(n)), start) else {
            return Answer::error(400, "InvalidRequestException", "maxResults or nextToken");
        };
        let page: Vec<&String> = members.iter().skip(start).take(size).collect();
        let end = start + page.len();
        let mut body = json!({ "assetIds": page });
        if end < members.len() {
            body["nextToken"] = json!(end.to_string());
        }
        Answer::ok(&body)
    }
}

fn entry(asset: &str, code: &str, message: &str) -> Value {
    json!({ "assetId": asset, "code": code, "message": message })
}
