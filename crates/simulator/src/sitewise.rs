//! SiteWise Monitor over plain data: projects, assets and client tokens.
//!
//! The rules are those of the service model (botocore, `iotsitewise`,
//! 2019-12-02): `BatchDisassociateProjectAssets`, `ListProjectAssets`,
//! `DescribeProject`, `ListProjects` and `DescribePortal`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::settings::{Absent, MissingList, Names, Settings, Tokens};

/// Assets in one call (shape `BatchDisassociateProjectAssetsRequest`).
pub const ASSET_LIMIT: RangeInclusive<usize> = 1..=100;

/// Characters of a client token (shape `ClientToken`, pattern `\S{36,64}`).
pub const TOKEN_LENGTH: RangeInclusive<usize> = 36..=64;

/// Assets on one page of a list (shape `MaxResults`).
const PAGE_LIMIT: RangeInclusive<usize> = 1..=250;

/// The portal of a project that was added to no other.
const PORTAL: &str = "cccccccc-0000-4000-8000-000000000001";

/// When everything was created, in seconds since 1970.
const CREATED_AT: u64 = 1_700_000_000;

const NOT_FOUND: (u16, &str) = (404, "ResourceNotFoundException");
const INVALID: (u16, &str) = (400, "InvalidRequestException");

/// The message of a refusal that names nothing.
const NAMELESS: &str = "The requested resource can't be found.";

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

impl Disassociation {
    pub(crate) fn has_repeats(&self) -> bool {
        self.assets.iter().collect::<BTreeSet<_>>().len() < self.assets.len()
    }
}

struct Remembered {
    project: String,
    assets: BTreeSet<String>,
    answer: Answer,
}

/// What is in a project.
#[derive(Default)]
pub(crate) struct Project {
    pub(crate) assets: BTreeSet<String>,
    /// when an asset was last added or removed; what was added before the first
    /// request and never removed is missing here
    changed_at: BTreeMap<String, Duration>,
}

impl Project {
    /// Returns what a list shows at the time `now`.
    fn listed(&self, settings: &Settings, now: Duration) -> BTreeSet<&String> {
        let is_younger = |asset: &str, age: Duration| {
            let changed_at = self.changed_at.get(asset);
            changed_at.is_some_and(|at| now.saturating_sub(*at) < age)
        };
        let members = self.assets.iter();
        let removed = self.changed_at.keys();
        let removed = removed.filter(|asset| !self.assets.contains(*asset));
        members
            .filter(|asset| !is_younger(asset, settings.added_not_listed))
            .chain(removed.filter(|asset| is_younger(asset, settings.removed_stay_listed)))
            .collect()
    }
}

/// All projects and assets.
#[derive(Default)]
pub(crate) struct SiteWise {
    pub(crate) projects: BTreeMap<String, Project>,
    pub(crate) assets: BTreeSet<String>,
    /// the projects of each portal
    pub(crate) portals: BTreeMap<String, BTreeSet<String>>,
    /// by their roots
    descendants: BTreeMap<String, BTreeSet<String>>,
    remembered: HashMap<String, Remembered>,
}

/// Returns whether a text is an identifier by the pattern of the service model.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().all(|byte| !byte.is_ascii_uppercase())
        && Uuid::try_parse(text).is_ok_and(|id| !id.is_nil())
}

/// Reads a disassociation and says what the service model has against its body.
pub(crate) fn parse(project: &str, body: &str) -> (Disassociation, Result<(), String>) {
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
    let checked = if !parsed.is_object() {
        Err("the body is no JSON object".to_owned())
    } else if !ASSET_LIMIT.contains(&assets.len()) {
        Err(format!("{} asset ids", assets.len()))
    } else if let Some(bad) = assets.iter().find(|asset| !is_id(asset)) {
        Err(format!("asset id {bad:?}"))
    } else if is_token_no_text
        || token.as_ref().is_some_and(|token| {
            !TOKEN_LENGTH.contains(&token.chars().count()) || token.contains(char::is_whitespace)
        })
    {
        Err("clientToken".to_owned())
    } else {
        Ok(())
    };
    let request = Disassociation {
        project: project.to_owned(),
        assets,
        token,
    };
    (request, checked)
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
    let parameter = |name| parameter(query, name).map(|value| value.parse::<usize>().ok());
    let size = parameter("maxResults").unwrap_or(Some(50))?;
    let start = parameter("nextToken").unwrap_or(Some(0))?;
    PAGE_LIMIT.contains(&size).then_some(Page { start, size })
}

/// Returns a parameter of a query.
pub(crate) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(key, _)| *key == name);
    found.map(|(_, value)| value)
}

impl SiteWise {
    /// Creates a project, or extends it. `added_at` is `None` before the first
    /// request.
    pub(crate) fn add(
        &mut self,
        project: &str,
        assets: impl IntoIterator<Item = String>,
        added_at: Option<Duration>,
    ) {
        let project = self.projects.entry(project.to_owned()).or_default();
        for asset in assets {
            self.assets.insert(asset.clone());
            if project.assets.insert(asset.clone())
                && let Some(at) = added_at
            {
                project.changed_at.insert(asset, at);
            }
        }
    }

    pub(crate) fn add_descendants(
        &mut self,
        root: &str,
        descendants: impl IntoIterator<Item = String>,
    ) {
        let known = self.descendants.entry(root.to_owned()).or_default();
        for descendant in descendants {
            self.assets.insert(descendant.clone());
            known.insert(descendant);
        }
    }

    /// Answers a valid disassociation, and tells whether it was applied. `fails`
    /// picks assets to fail inside a 200, with a code and a message; it is asked
    /// only about a call that gets that far, once for each asset.
    pub(crate) fn disassociate(
        &mut self,
        request: &Disassociation,
        settings: &Settings,
        now: Duration,
        mut fails: impl FnMut(&str) -> Option<(String, String)>,
    ) -> (Answer, bool) {
        let asset_set: BTreeSet<String> = request.assets.iter().cloned().collect();
        if let Some(answer) = self.replay(request, &asset_set, settings.tokens) {
            return (answer, false);
        }
        let Some(project) = self.projects.get_mut(&request.project) else {
            let refusal = missing(NOT_FOUND, "Project", &request.project, settings);
            return (refusal, false);
        };

        let mut absent = Vec::new();
        for asset in asset_set.difference(&project.assets) {
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
                Some((_, Absent::NotFound)) => NOT_FOUND,
                Some((_, Absent::Invalid)) => INVALID,
                _ => continue,
            };
            let message = match settings.not_found_names {
                Names::Resource => format!("Asset {asset} can't be found."),
                Names::Project => {
                    format!("Assets can't be found in project {}.", request.project)
                }
                Names::Nothing => NAMELESS.to_owned(),
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
            if project.assets.remove(asset) {
                project.changed_at.insert(asset.clone(), now);
            }
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

    /// Answers a page of a project's assets, in the order of their ids, and
    /// returns what it shows.
    pub(crate) fn list(
        &self,
        project: &str,
        page: Page,
        settings: &Settings,
        now: Duration,
    ) -> (Answer, Vec<String>) {
        let mut listed = match self.projects.get(project) {
            Some(project) => project.listed(settings, now),
            None => match missing_list("Project", project, settings) {
                Ok(listed) => listed,
                Err(refusal) => return (refusal, Vec::new()),
            },
        };
        if settings.lists_descendants {
            for root in listed.clone() {
                listed.extend(self.descendants.get(root).into_iter().flatten());
            }
        }
        let (shown, next) = page.of(listed);
        (
            Answer::ok(&with_next(json!({ "assetIds": shown }), next)),
            shown,
        )
    }

    /// Answers a page of a portal's projects, in the order of their ids, and returns
    /// what it shows.
    pub(crate) fn list_projects(
        &self,
        portal: &str,
        page: Page,
        settings: &Settings,
    ) -> (Answer, Vec<String>) {
        let listed = match self.portals.get(portal) {
            Some(projects) => projects.iter().collect(),
            None => match missing_list("Portal", portal, settings) {
                Ok(listed) => listed,
                Err(refusal) => return (refusal, Vec::new()),
            },
        };
        let (shown, next) = page.of(listed);
        let summaries = shown.iter().map(|project| {
            json!({
                "id": project,
                "name": project_name(project),
                "creationDate": CREATED_AT,
                "lastUpdateDate": CREATED_AT,
            })
        });
        let summaries: Vec<Value> = summaries.collect();
        let body = json!({ "projectSummaries": summaries });
        (Answer::ok(&with_next(body, next)), shown)
    }

    /// Answers `DescribeProject`.
    pub(crate) fn describe(&self, project: &str, settings: &Settings) -> Answer {
        if !self.projects.contains_key(project) {
            return missing(NOT_FOUND, "Project", project, settings);
        }
        let mut portals = self.portals.iter();
        let portal = portals.find(|(_, projects)| projects.contains(project));
        Answer::ok(&json!({
            "projectId": project,
            "projectArn": format!("arn:aws:iotsitewise:eu-west-1:000000000000:project/{project}"),
            "projectName": project_name(project),
            "portalId": portal.map_or(PORTAL, |(portal, _)| portal),
            "projectCreationDate": CREATED_AT,
            "projectLastUpdateDate": CREATED_AT,
        }))
    }

    /// Answers `DescribePortal`.
    pub(crate) fn describe_portal(&self, portal: &str, settings: &Settings) -> Answer {
        if !self.portals.contains_key(portal) {
            return missing(NOT_FOUND, "Portal", portal, settings);
        }
        Answer::ok(&json!({
            "portalId": portal,
            "portalArn": format!("arn:aws:iotsitewise:eu-west-1:000000000000:portal/{portal}"),
            "portalName": "Simulated portal",
            "portalClientId": "simulated",
            "portalStartUrl": format!("https://{portal}.app.iotsitewise.aws"),
            "portalContactEmail": "nobody@example.com",
            "portalStatus": { "state": "ACTIVE" },
            "portalCreationDate": CREATED_AT,
            "portalLastUpdateDate": CREATED_AT,
        }))
    }
}

impl Page {
    /// Returns what the page shows of a list, and the token of the next one.
    fn of(self, listed: BTreeSet<&String>) -> (Vec<String>, Option<String>) {
        let count = listed.len();
        let shown = listed.into_iter().skip(self.start).take(self.size);
        let shown: Vec<String> = shown.cloned().collect();
        let end = self.start + shown.len();
        (shown, (end < count).then(|| end.to_string()))
    }
}

/// Adds the token of the next page to a list's body.
fn with_next(mut body: Value, next: Option<String>) -> Value {
    if let Some(next) = next {
        body["nextToken"] = json!(next);
    }
    body
}

fn project_name(project: &str) -> String {
    format!("Simulated project {}", project.get(..8).unwrap_or(project))
}

/// Answers the list of what does not exist: refused, or empty.
fn missing_list<'a>(
    kind: &str,
    id: &str,
    settings: &Settings,
) -> Result<BTreeSet<&'a String>, Answer> {
    let error = match settings.missing_list {
        MissingList::Empty => return Ok(BTreeSet::new()),
        MissingList::NotFound => NOT_FOUND,
        MissingList::Invalid => INVALID,
    };
    Err(missing(error, kind, id, settings))
}

/// Refuses a request for a project or portal that does not exist.
fn missing((status, name): (u16, &str), kind: &str, id: &str, settings: &Settings) -> Answer {
    let message = match settings.not_found_names {
        Names::Nothing => NAMELESS.to_owned(),
        Names::Resource | Names::Project => format!("{kind} {id} can't be found."),
    };
    Answer::error(status, name, &message)
}

/// Returns the assets that the errors of a disassociation's answer name.
pub(crate) fn failed_assets(answer: &Answer) -> Vec<String> {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let errors = body["errors"].as_array().into_iter().flatten();
    let failed = errors.filter_map(|error| error["assetId"].as_str());
    failed.map(ToOwned::to_owned).collect()
}

fn entry(asset: &str, code: &str, message: &str) -> Value {
    json!({ "assetId": asset, "code": code, "message": message })
}
