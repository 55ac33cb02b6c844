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
    let is_token_no_text = token.is_none() && !parsed["clientToken"].is_null();
    let distinct: BTreeSet<&String> = assets.iter().collect();
    let invalid = if !parsed.is_object() {
        Some("the body is no JSON object".to_owned())
    } else if !is_id(project) {
        Some(format!("projectId {project:?}"))
    } else if !ASSET_LIMIT.contains(&assets.len()) {
        Some(format!("{} asset ids", assets.len()))
    } else if let Some(bad) = assets.iter().find(|asset| !is_id(asset)) {
        Some(format!("asset id {bad:?}"))
    } else if is_token_no_text
        || token.as_ref().is_some_and(|token| {
            !TOKEN_LENGTH.contains(&token.chars().count()) || token.contains(char::is_whitespace)
        })
    {
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

/// A page of a list: from where, and how many.
#[derive(Clone, Copy)]
pub(crate) struct Page {
    start: usize,
    size: usize,
}

/// Reads `maxResults` and `nextToken`; `None` where the service model refuses
/// one of them. The page without `maxResults`, 50, and the token, a number, are
/// the simulator's own choice.
pub(crate) fn page(query: &str) -> Option<Page> {
    let parameter = |name: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.parse::<usize>().ok())
    };
    let size = parameter("maxResults").unwrap_or(Some(50))?;
    let start = parameter("nextToken").unwrap_or(Some(0))?;
    PAGE_LIMIT.contains(&size).then_some(Page { start, size })
}

impl SiteWise {
    /// Answers a valid disassociation, and tells whether it was applied. `fails`
    /// picks assets to fail inside a 200, with a code and a message; it is asked
    /// only about a call that gets that far, once for each asset.
    pub(crate) fn disassociate(
        &mut self,
        request: &Disassociation,
        settings: &Settings,
        mut fails: impl FnMut(&str) -> Option<(String, String)>,
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

        let mut absent = Vec::new();
        for asset in asset_set.difference(members) {
            let setting = if self.assets.contains(asset) {
                &settings.asset_not_in_project
            } else {
                &settings.unknown_asset
            };
            absent.push((asset, setting));
        }
        // Who refuses the whole call does so before anything is applied.
        for asset in &request.assets {
            let setting = absent.iter().find(|(absent, _)| *absent == asset);
            let (status, name) = match setting {
                Some((_, Absent::NotFound)) => (404, "ResourceNotFoundException"),
                Some((_, Absent::Invalid)) => (400, "InvalidRequestException"),
                _ => continue,
            };
            let message = match settings.not_found_names {
                Names::Resource => format!("Asset {asset} can't be found."),
                Names::Project => {
                    format!("Assets can't be found in project {}.", request.project)
                }
                Names::Nothing => "The requested resource can't be found.".to_owned(),
            };
            return (Answer::error(status, name, &message), false);
        }

        let mut errors = Vec::new();
        let mut removed = Vec::new();
        for asset in &request.assets {
            let setting = absent.iter().find(|(absent, _)| *absent == asset);
            match (fails(asset), setting) {
                (Some((code, message)), _) => errors.push(entry(asset, &code, &message)),
                (None, Some((_, Absent::AssetError { code, message }))) => {
                    errors.push(entry(asset, code, message));
                }
                (None, _) => removed.push(asset),
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
    pub(crate) fn list(&self, project: &str, page: Page) -> Answer {
        let Some(members) = self.projects.get(project) else {
            let message = format!("Project {project} can't be found.");
            return Answer::error(404, "ResourceNotFoundException", &message);
        };
        let assets: Vec<&String> = members.iter().skip(page.start).take(page.size).collect();
        let end = page.start + assets.len();
        let mut body = json!({ "assetIds": assets });
        if end < members.len() {
            body["nextToken"] = json!(end.to_string());
        }
        Answer::ok(&body)
    }
}

fn entry(asset: &str, code: &str, message: &str) -> Value {
    json!({ "assetId": asset, "code": code, "message": message })
}
