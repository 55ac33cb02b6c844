//! What a message asks for: a project and the assets to disassociate from it.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;
use thiserror::Error;

use super::id::{AssetId, ClientToken, InvalidId, PortalId, ProjectId, excerpt};
use super::json::{self, Field, LISTED, Object, Text};

/// Longest `projectId` of a malformed request, in bytes, that its report repeats: a
/// longer one would leave no room for the report.
const PROJECT_LIMIT: usize = 1024;

/// A valid request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// What is to be disassociated.
    pub scope: Scope,
    /// The caller's own token.
    pub client_token: Option<ClientToken>,
    /// Whether nothing is to be changed, only reported.
    pub dry_run: bool,
    /// Whether this function cut the request from a larger one.
    pub is_part: bool,
}

/// What a request is for: one of its three forms.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Named assets of a project.
    Assets(NamedAssets),
    /// Every asset of a project.
    Project(ProjectId),
    /// Every project of a portal.
    Portal(PortalId),
}

/// The assets that a request names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedAssets {
    /// The project to disassociate them from.
    pub project: ProjectId,
    /// The valid ids, each once, in the order of their first mention.
    pub valid: Vec<AssetId>,
    /// The ids that the pattern refuses, each once.
    pub invalid: Vec<InvalidId>,
    /// How many ids repeat an earlier one.
    pub duplicates: usize,
}

impl Request {
    /// Reads a request from a JSON text. Fields it does not know are ignored,
    /// so that a dead letter is itself a request.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the request, not only the first thing. An
    /// asset id that the pattern refuses is no error of the request: it ends
    /// up in [`NamedAssets::invalid`].
    pub fn parse(text: &str) -> Result<Self, InvalidRequest> {
        Self::from_object(&Object::read(text)?)
    }

    /// Reads a request from an object; see [`Request::parse`].
    pub(super) fn from_object(object: &Object<'_>) -> Result<Self, InvalidRequest> {
        let mut problems = Problems(Vec::new());
        let scope = problems.scope(object);
        let client_token = object.get("clientToken");
        let client_token = match client_token.kind() {
            None | Some("null") => None,
            Some(_) => problems.check("clientToken", client_token.parse::<ClientToken>()),
        };
        let dry_run = problems.flag(object, "dryRun");
        for name in &object.misspelt_flags {
            problems.add(&excerpt(name), "expected dryRun, allAssets or allProjects");
        }
        match scope {
            Some(scope) if problems.0.is_empty() => Ok(Self {
                is_part: is_part(object, client_token.as_ref()),
                scope,
                client_token,
                dry_run,
            }),
            _ => Err(InvalidRequest {
                project: (object.get("projectId").text().ok())
                    .filter(|project| project.len() <= PROJECT_LIMIT)
                    .map(Cow::into_owned),
                problems: problems.0.join("; "),
            }),
        }
    }

    /// Returns the project that the request is for; `None` for a portal.
    pub fn project(&self) -> Option<ProjectId> {
        match &self.scope {
            Scope::Assets(assets) => Some(assets.project),
            Scope::Project(project) => Some(*project),
            Scope::Portal(_) => None,
        }
    }

    /// Returns the assets that the request names, if it names any.
    pub fn named(&self) -> Option<&NamedAssets> {
        match &self.scope {
            Scope::Assets(assets) => Some(assets),
            Scope::Project(_) | Scope::Portal(_) => None,
        }
    }
}

impl NamedAssets {
    fn new(project: ProjectId, texts: Vec<Text<'_>>) -> Self {
        let mut assets = Self {
            project,
            valid: Vec::with_capacity(texts.len()),
            invalid: Vec::new(),
            duplicates: 0,
        };
        let mut seen = HashSet::with_capacity(texts.len());
        let mut seen_invalid = HashSet::new();
        for Text(text) in texts {
            match text.parse::<AssetId>() {
                Ok(asset) if seen.insert(asset) => assets.valid.push(asset),
                Err(error) if seen_invalid.insert(text) => assets.invalid.push(error),
                _ => assets.duplicates += 1,
            }
        }
        assets
    }
}

/// What is wrong with a request.
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, field: &str, problem: &str) {
        self.0.push(format!("{field}: {problem}"));
    }

    /// Returns a field's value, or notes what is wrong with it.
    fn check<T>(&mut self, field: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|problem| self.add(field, &problem)).ok()
    }

    /// Returns whether a flag is set.
    fn flag(&mut self, object: &Object<'_>, name: &str) -> bool {
        let field = object.get(name);
        let value = match field.value().map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(field.expected("a boolean")),
        };
        self.check(name, value).unwrap_or_default()
    }

    /// Reads what a request is for: exactly one of the three forms.
    fn scope(&mut self, object: &Object<'_>) -> Option<Scope> {
        let all_assets = self.flag(object, "allAssets");
        let all_projects = self.flag(object, "allProjects");
        let portal = object.get("portalId");
        let project = object.get("projectId");
        let assets = object.get("assetIds");
        let names_assets = assets.is_present();
        if all_projects || (portal.is_present() && !project.is_present() && !names_assets) {
            if !all_projects {
                self.add(
                    "allProjects",
                    "expected true beside portalId without projectId",
                );
            }
            if project.is_present() || names_assets || all_assets {
                let problem = "expected no projectId, assetIds or allAssets beside it";
                self.add("allProjects", problem);
            }
            if project.is_present() {
                self.check("projectId", project.parse::<ProjectId>());
            }
            if names_assets {
                self.check("assetIds", asset_texts(assets));
            }
            return self.check("portalId", portal.parse()).map(Scope::Portal);
        }
        let project = self.check("projectId", project.parse());
        if all_assets {
            if names_assets {
                self.add("allAssets", "expected no assetIds beside it");
                self.check("assetIds", asset_texts(assets));
            }
            return project.map(Scope::Project);
        }
        let texts = self.check("assetIds", asset_texts(assets));
        Some(Scope::Assets(NamedAssets::new(project?, texts?)))
    }
}

/// Returns whether this function cut the request from a larger one. A sender's own
/// field of the marker's name changes nothing, unless it has all of the marker.
fn is_part(object: &Object<'_>, token: Option<&ClientToken>) -> bool {
    let marker = object.get("sitewiseDisassociatorPart").value();
    let marker = marker.map(Object::read_leniently).unwrap_or_default();
    let is_count = |name| {
        let value = marker.get(name).value().map(RawValue::get);
        value.is_some_and(|value| value.parse().is_ok_and(|count: u32| count > 0))
    };
    marker.get("of").text().is_ok()
        && is_count("number")
        && is_count("count")
        && token.is_some_and(ClientToken::is_derived)
}

/// Reads the elements of `assetIds`.
fn asset_texts(field: Field<'_>) -> Result<Vec<Text<'_>>, String> {
    let array = (field
        .value()
        .filter(|value| json::kind(value) == "an array"))
    .ok_or_else(|| field.expected("an array of strings"))?;
    let texts: Vec<Text<'_>> = serde_json::from_str(array.get())
        .map_err(|error| wrong_elements(array).unwrap_or_else(|| error.to_string()))?;
    if texts.is_empty() {
        return Err("expected at least one asset id, found none".to_owned());
    }
    Ok(texts)
}

/// Names the elements of an array that are not strings, if there are any.
fn wrong_elements(array: &RawValue) -> Option<String> {
    let elements = json::elements(array)?;
    let mut wrong = (elements.iter().enumerate())
        .map(|(position, element)| (position, json::kind(element)))
        .filter(|(_, kind)| *kind != "a string");
    let listed: Vec<String> = (wrong.by_ref().take(LISTED))
        .map(|(position, kind)| format!("found {kind} at [{position}]"))
        .collect();
    let listed = (!listed.is_empty()).then(|| listed.join(", "))?;
    Some(match wrong.count() {
        0 => format!("expected strings, {listed}"),
        more => format!("expected strings, {listed} and {more} more"),
    })
}

/// A request that is rejected whole, with every reason.
#[derive(Debug, Error)]
#[error("{problems}")]
pub struct InvalidRequest {
    /// The project id, if the request gives one that is at least a short string.
    pub project: Option<String>,
    /// Everything that is wrong with it.
    pub problems: String,
}

impl From<String> for InvalidRequest {
    /// Returns a request of which nothing could be read.
    fn from(problems: String) -> Self {
        Self {
            project: None,
            problems,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: &str = "1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0";
    const ASSET: &str = "a1b2c3d4-5678-4890-abcd-ef1234567890";

    fn invalid(text: &str) -> InvalidId {
        text.parse::<AssetId>().expect_err("not an id")
    }

    fn problems(text: &str) -> String {
        Request::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn every_problem_of_a_request_is_named() {
        assert_eq!(problems("{}"), "projectId: missing; assetIds: missing");
        assert_eq!(
            problems(r#"{"projectId":7,"assetIds":"x","clientToken":[]}"#),
            "projectId: expected a string, found a number; \
             assetIds: expected an array of strings, found a string; \
             clientToken: expected a string, found an array"
        );
        assert_eq!(
            problems(r#"{"projectId":"..","assetIds":[],"clientToken":"short"}"#),
            "projectId: expected a lowercase UUID such as \
             1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0, found \"..\"; \
             assetIds: expected at least one asset id, found none; \
             clientToken: expected 36 to 64 characters, found 5"
        );
        assert_eq!(
            problems(r#"{"projectId":null,"assetIds":[1,"a",null,[["b"]],{"c":{}}]}"#),
            "projectId: expected a string, found null; \
             assetIds: expected strings, found a number at [0], found null at [2], \
             found an array at [3], found an object at [4]"
        );
        assert_eq!(
            problems(r#"{"projectId":"\ud800","assetIds":["\udc00"]}"#),
            "projectId: unexpected end of hex escape at line 1 column 8; \
             assetIds: lone leading surrogate in hex escape at line 1 column 8"
        );
    }

    #[test]
    fn a_field_given_twice_is_named_and_an_unknown_one_ignored() {
        assert_eq!(
            problems(r#"{"projectId":"x","project\u0049d":"x"}"#),
            "expected a JSON object: duplicate field `projectId`"
        );
        let text = format!(r#"{{"x":1,"projectId":"{PROJECT}","assetIds":["{ASSET}"],"x":2}}"#);
        Request::parse(&text).expect("a request");
    }

    /// A request with the fields of `form`, in which P, A and T stand for a project,
    /// an asset and a token.
    fn form(form: &str) -> Result<Request, InvalidRequest> {
        let token = "0123456789abcdef".repeat(4);
        let form = form
            .replace(":P", &format!(":\"{PROJECT}\""))
            .replace(":A", &format!(":[\"{ASSET}\"]"))
            .replace(":T", &format!(":\"{token}\""));
        Request::parse(&format!("{{{form}}}"))
    }

    #[test]
    fn each_of_the_three_forms_is_read() {
        let project = Scope::Project(PROJECT.parse().expect("an id"));
        let portal = Scope::Portal(PROJECT.parse().expect("an id"));
        for (fields, scope, dry_run) in [
            (r#""projectId":P,"allAssets":true"#, &project, false),
            (
                r#""projectId":P,"allAssets":true,"allProjects":false,"dryRun":true"#,
                &project,
                true,
            ),
            // An unknown field of a project's request.
            (
                r#""projectId":P,"allAssets":true,"portalId":7"#,
                &project,
                false,
            ),
            (r#""portalId":P,"allProjects":true"#, &portal, false),
            (
                r#""portalId":P,"allProjects":true,"allAssets":false,"dryRun":false"#,
                &portal,
                false,
            ),
        ] {
            let request = form(fields).expect(fields);
            assert_eq!(
                (&request.scope, request.dry_run),
                (scope, dry_run),
                "{fields}"
            );
        }
        let named = form(r#""projectId":P,"assetIds":A,"allAssets":false,"portalId":P"#);
        assert!(named.expect("named assets").named().is_some());
    }

    #[test]
    fn mixed_forms_and_wrong_flags_are_malformed() {
        for (fields, expected) in [
            (r#""projectId":P"#, "assetIds: missing"),
            (r#""projectId":P,"allAssets":false"#, "assetIds: missing"),
            (r#""allAssets":true"#, "projectId: missing"),
            (r#""allProjects":true"#, "portalId: missing"),
            (
                r#""portalId":P"#,
                "allProjects: expected true beside portalId without projectId",
            ),
            (
                r#""projectId":P,"assetIds":A,"allAssets":true"#,
                "allAssets: expected no assetIds beside it",
            ),
            (
                r#""projectId":P,"assetIds":null,"allAssets":true"#,
                "allAssets: expected no assetIds beside it; \
                 assetIds: expected an array of strings, found null",
            ),
            (
                r#""portalId":7,"projectId":"..","assetIds":[],"allProjects":true"#,
                "allProjects: expected no projectId, assetIds or allAssets beside it; \
                 projectId: expected a lowercase UUID such as \
                 1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0, found \"..\"; \
                 assetIds: expected at least one asset id, found none; \
                 portalId: expected a string, found a number",
            ),
            (
                r#""portalId":P,"projectId":P,"allProjects":true"#,
                "allProjects: expected no projectId, assetIds or allAssets beside it",
            ),
            (
                r#""portalId":P,"allAssets":true,"allProjects":true"#,
                "allProjects: expected no projectId, assetIds or allAssets beside it",
            ),
            (
                r#""portalId":P,"assetIds":A,"allProjects":true"#,
                "allProjects: expected no projectId, assetIds or allAssets beside it",
            ),
            (
                r#""projectId":P,"assetIds":A,"allAssets":"true","dryRun":1"#,
                "allAssets: expected a boolean, found a string; \
                 dryRun: expected a boolean, found a number",
            ),
            (
                r#""projectId":P,"assetIds":A,"dryRun":null"#,
                "dryRun: expected a boolean, found null",
            ),
            (
                r#""projectId":P,"assetIds":A,"dry_run":true,"DryRun":false"#,
                "\"dry_run\": expected dryRun, allAssets or allProjects; \
                 \"DryRun\": expected dryRun, allAssets or allProjects",
            ),
        ] {
            let problems = form(fields).expect_err(fields).to_string();
            assert_eq!(problems, expected, "{fields}");
        }
    }

    #[test]
    fn only_a_whole_marker_beside_a_derived_token_marks_a_part() {
        let marker = r#""sitewiseDisassociatorPart":{"of":"m-1","number":2,"count":3}"#;
        let request = r#""projectId":P,"assetIds":A"#;
        let own_token = r#""clientToken":"an-own-token-of-forty-characters-12345678""#;
        for (fields, expected) in [
            (format!("{request},\"clientToken\":T,{marker}"), true),
            (
                format!(r#""projectId":P,"allAssets":true,"clientToken":T,{marker}"#),
                true,
            ),
            (format!("{request},{marker}"), false),
            (format!("{request},{own_token},{marker}"), false),
            (format!("{request},\"clientToken\":T"), false),
            (
                format!("{request},\"clientToken\":T,\"part\":{{\"of\":\"m-1\"}}"),
                false,
            ),
        ]
        .into_iter()
        .chain(
            [
                r#"{"of":"x"}"#,
                r#"{"of":"m","number":0,"count":3}"#,
                r#"{"of":"m","number":1.5,"count":3}"#,
                r#"{"of":"m","number":"1","count":3}"#,
                r#"{"of":7,"number":1,"count":3}"#,
                "[]",
                "true",
            ]
            .map(|other| {
                let other = format!("\"sitewiseDisassociatorPart\":{other}");
                (format!("{request},\"clientToken\":T,{other}"), false)
            }),
        ) {
            let request = form(&fields).expect("a request");
            assert_eq!(request.is_part, expected, "{fields}");
        }
    }

    #[test]
    fn many_wrong_elements_are_counted_and_the_first_listed() {
        let text = format!(
            r#"{{"projectId":"{PROJECT}","assetIds":[{}]}}"#,
            vec!["true"; 25].join(",")
        );
        let message = problems(&text);
        assert!(message.starts_with("assetIds: expected strings, found a boolean at [0]"));
        assert!(
            message.ends_with("found a boolean at [19] and 5 more"),
            "{message}"
        );
    }

    #[test]
    fn bad_asset_ids_are_kept_apart_and_repeats_are_counted() {
        let text = format!(
            r#"{{"projectId":"{PROJECT}","assetIds":["{ASSET}","nope","{ASSET}","nope","","{PROJECT}"],
                "clientToken":null,"errors":[{{"code":"X"}}]}}"#
        );
        let request = Request::parse(&text).expect("a request");
        assert_eq!(
            request,
            Request {
                scope: Scope::Assets(NamedAssets {
                    project: PROJECT.parse().expect("an id"),
                    valid: vec![
                        ASSET.parse().expect("an id"),
                        PROJECT.parse().expect("an id")
                    ],
                    invalid: ["nope", ""].map(invalid).into(),
                    duplicates: 2,
                }),
                client_token: None,
                dry_run: false,
                is_part: false,
            }
        );
    }

    #[test]
    fn a_long_bad_id_is_cut_in_messages() {
        let message = problems(&format!(
            r#"{{"projectId":"{}","assetIds":["{ASSET}"]}}"#,
            "ä".repeat(100_000)
        ));
        assert!(message.ends_with("ä\"… (200000 bytes)"), "{message}");
        assert!(message.len() < 400);
    }
}
