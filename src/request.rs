//! What is asked for: a project and the assets to disassociate from it.
//!
//! Owns the validity of identifiers and requests; a value of a type of this
//! module is valid by construction, so nothing invalid can reach the wire. It
//! must not know where a request came from.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use crate::strict_json::{Element, Kind, NotAnObject, Object, Text};

/// Characters of an identifier (AWS service model of IoT SiteWise, API version
/// 2019-12-02, shapes `ID` and `AssetID`: length 36).
const ID_LENGTH: usize = 36;

/// Fewest characters of a client token (service model, shape `ClientToken`).
pub const CLIENT_TOKEN_MIN: usize = 36;

/// Most characters of a client token (service model, shape `ClientToken`).
pub const CLIENT_TOKEN_MAX: usize = 64;

/// Positions of wrong elements that a message lists before it only counts.
const LISTED_POSITIONS: usize = 20;

/// The identifier of a SiteWise Monitor project.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProjectId(Uuid);

/// The identifier of a SiteWise asset.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AssetId(Uuid);

/// A text that is not an identifier by the pattern of the service model,
/// `^(?!00000000-0000-0000-0000-000000000000)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum InvalidId {
    /// The text, shared by all that name it, has another form.
    #[error("{}, found {}", self.expected(), excerpt(.0))]
    Form(Arc<str>),
    /// The text is the UUID of zeros, which the pattern excludes.
    #[error("{}", self.expected())]
    Nil,
}

impl InvalidId {
    /// Returns the text as it came.
    pub fn text(&self) -> &str {
        match self {
            Self::Form(text) => text,
            Self::Nil => "00000000-0000-0000-0000-000000000000",
        }
    }

    /// Returns what was expected, the same for every text of one kind; what was
    /// found is for [`text`](Self::text) to tell.
    pub fn expected(&self) -> &'static str {
        match self {
            Self::Form(_) => {
                "expected a lowercase UUID such as 1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0"
            }
            Self::Nil => "expected a UUID other than all zeros",
        }
    }
}

fn parse_id(text: &str) -> Result<Uuid, InvalidId> {
    let refused = || InvalidId::Form(text.into());
    // The length leaves only the hyphenated form of the several that `Uuid` reads.
    if text.len() != ID_LENGTH || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(refused());
    }
    match Uuid::try_parse(text) {
        Ok(id) if id.is_nil() => Err(InvalidId::Nil),
        Ok(id) => Ok(id),
        Err(_) => Err(refused()),
    }
}

/// Quotes `text` for a message: escaped, and cut where it is long.
fn excerpt(text: &str) -> String {
    const LONGEST: usize = 64;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
    }
}

macro_rules! identifier {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_id(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl $name {
            /// Returns the identifier's 16 bytes.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }
    };
}

identifier!(ProjectId);
identifier!(AssetId);

impl AssetId {
    /// Reads an asset id out of an answer, where its letters may come in either case.
    pub fn from_answer(text: &str) -> Option<Self> {
        text.to_ascii_lowercase().parse().ok()
    }
}

/// A token that makes a call idempotent, `\S{36,64}`.
///
/// It is not shown by `Debug`: tokens do not belong in logs.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct ClientToken(String);

/// A text that is not a client token.
#[derive(Debug, Error, Eq, PartialEq)]
pub enum InvalidClientToken {
    /// The text is too short or too long.
    #[error("expected {CLIENT_TOKEN_MIN} to {CLIENT_TOKEN_MAX} characters, found {0}")]
    Length(usize),
    /// The text has white space in it.
    #[error("expected no white space, found {0:?}")]
    WhiteSpace(char),
}

impl FromStr for ClientToken {
    type Err = InvalidClientToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = text.chars().count();
        if !(CLIENT_TOKEN_MIN..=CLIENT_TOKEN_MAX).contains(&length) {
            return Err(InvalidClientToken::Length(length));
        }
        match text.chars().find(|character| character.is_whitespace()) {
            Some(blank) => Err(InvalidClientToken::WhiteSpace(blank)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl ClientToken {
    /// Returns the token as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientToken(…)")
    }
}

/// A valid request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DisassociateRequest {
    /// The project to take the assets out of.
    pub project: ProjectId,
    /// The valid asset ids, each once, in the order of their first mention.
    pub assets: Vec<AssetId>,
    /// The asset ids that the pattern refuses, each once.
    pub invalid: Vec<InvalidId>,
    /// How many ids repeat an earlier one.
    pub duplicates: usize,
    /// The caller's own token.
    pub client_token: Option<ClientToken>,
    /// Whether this function cut the request from a larger one: a part is
    /// never cut again.
    pub is_part: bool,
}

impl DisassociateRequest {
    /// Reads a request from a JSON text; see [`DisassociateRequest::from_object`].
    pub fn parse(text: &str) -> Result<Self, InvalidRequest> {
        Self::from_object(&Object::parse(text)?)
    }

    /// Reads a request from a JSON object. Fields it does not know are
    /// ignored, so that a dead letter is itself a request.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the request, not only the first thing. An
    /// asset id that the pattern refuses is no error of the request: it ends
    /// up in [`DisassociateRequest::invalid`].
    pub fn from_object(object: &Object<'_>) -> Result<Self, InvalidRequest> {
        let mut problems = Vec::new();
        let mut project_text = None;

        for key in object.repeated() {
            problems.push(Problem::Repeated(excerpt(key)));
        }
        let project = required_text(object, "projectId", &mut problems).and_then(|text| {
            let project = text
                .parse::<ProjectId>()
                .map_err(|error| problems.push(Problem::ProjectId(error)))
                .ok();
            project_text = Some(text.into_owned());
            project
        });
        let assets = read_assets(object, &mut problems);
        let client_token = object
            .get("clientToken")
            .filter(|value| Kind::of(value) != Kind::Null)
            .and_then(|value| text_of(value, "clientToken", &mut problems))
            .and_then(|text| {
                text.parse::<ClientToken>()
                    .map_err(|error| problems.push(Problem::ClientToken(error)))
                    .ok()
            });

        match (project, assets) {
            (Some(project), Some(assets)) if problems.is_empty() => Ok(Self {
                project,
                assets: assets.valid,
                invalid: assets.invalid,
                duplicates: assets.duplicates,
                client_token,
                is_part: object
                    .get(PART_FIELD)
                    .is_some_and(|value| Kind::of(value) == Kind::Object),
            }),
            _ => Err(InvalidRequest {
                project: project_text,
                problems,
            }),
        }
    }

    /// Returns how many distinct ids were asked for, valid or not.
    pub fn requested(&self) -> usize {
        self.assets.len() + self.invalid.len()
    }
}

/// The field that marks a part of a larger request.
pub const PART_FIELD: &str = "part";

struct Assets {
    valid: Vec<AssetId>,
    invalid: Vec<InvalidId>,
    duplicates: usize,
}

fn read_assets(object: &Object<'_>, problems: &mut Vec<Problem>) -> Option<Assets> {
    const FIELD: &str = "assetIds";
    let Some(value) = object.get(FIELD) else {
        problems.push(Problem::Missing(FIELD));
        return None;
    };
    if Kind::of(value) != Kind::Array {
        problems.push(Problem::WrongKind {
            field: FIELD,
            expected: "an array of strings",
            found: Kind::of(value),
        });
        return None;
    }
    let elements: Vec<Element<'_>> = match serde_json::from_str(value.get()) {
        Ok(elements) => elements,
        Err(error) => {
            problems.push(Problem::Unreadable {
                field: FIELD,
                error,
            });
            return None;
        }
    };
    if elements.is_empty() {
        problems.push(Problem::NoAssets);
        return None;
    }

    let mut wrong = WrongElements::default();
    let mut valid = Vec::with_capacity(elements.len());
    let mut seen = HashSet::with_capacity(elements.len());
    let mut invalid: Vec<InvalidId> = Vec::new();
    let mut seen_invalid: HashSet<Cow<'_, str>> = HashSet::new();
    let mut duplicates = 0;
    for (position, element) in elements.into_iter().enumerate() {
        match element {
            Element::Other(kind) => wrong.add(position, kind),
            Element::Text(text) => match text.parse::<AssetId>() {
                Ok(asset) if seen.insert(asset) => valid.push(asset),
                Err(error) if seen_invalid.insert(text) => invalid.push(error),
                _ => duplicates += 1,
            },
        }
    }
    if wrong.count > 0 {
        problems.push(Problem::WrongElements(wrong));
        return None;
    }
    Some(Assets {
        valid,
        invalid,
        duplicates,
    })
}

fn required_text<'a>(
    object: &Object<'a>,
    field: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Cow<'a, str>> {
    match object.get(field) {
        Some(value) => text_of(value, field, problems),
        None => {
            problems.push(Problem::Missing(field));
            None
        }
    }
}

/// Reads a field that must be a string; otherwise notes the problem.
pub(crate) fn text_of<'a>(
    value: &'a RawValue,
    field: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Cow<'a, str>> {
    match Kind::of(value) {
        Kind::String => serde_json::from_str(value.get())
            .map(|Text(text)| text)
            .map_err(|error| problems.push(Problem::Unreadable { field, error }))
            .ok(),
        found => {
            problems.push(Problem::WrongKind {
                field,
                expected: "a string",
                found,
            });
            None
        }
    }
}

/// A request that is rejected whole, with every reason.
#[derive(Debug, Error)]
#[error("{}", join(.problems))]
pub struct InvalidRequest {
    /// The project id, if the request gives one that is at least a string.
    pub project: Option<String>,
    /// Everything that is wrong with it, at least one thing.
    pub problems: Vec<Problem>,
}

impl InvalidRequest {
    /// Returns a request of which nothing could be read, for one `problem`.
    pub fn unreadable(problem: Problem) -> Self {
        Self {
            project: None,
            problems: vec![problem],
        }
    }
}

impl From<NotAnObject> for InvalidRequest {
    fn from(error: NotAnObject) -> Self {
        Self::unreadable(Problem::NotAnObject(error))
    }
}

fn join(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// One thing that is wrong with a request.
#[derive(Debug, Error)]
pub enum Problem {
    /// The text is not one JSON object.
    #[error(transparent)]
    NotAnObject(NotAnObject),
    /// The text is an object, but neither a request nor a known envelope of one.
    #[error(
        "expected a request (projectId, assetIds), an EventBridge event (source, detail-type, \
         detail) or an SNS notification (Type, TopicArn, Message), found none of their fields"
    )]
    UnknownForm,
    /// The record carries no text at all.
    #[error("body: expected a string that is not empty, found {0}")]
    NoBody(&'static str),
    /// A key is given more than once, so that its meaning is open.
    #[error("{0}: given more than once")]
    Repeated(String),
    /// A required field is not there.
    #[error("{0}: missing")]
    Missing(&'static str),
    /// A field has a value of the wrong kind.
    #[error("{field}: expected {expected}, found {found}")]
    WrongKind {
        /// the field's name
        field: &'static str,
        /// the kind it should have
        expected: &'static str,
        /// the kind it has
        found: Kind,
    },
    /// A field's value cannot be decoded.
    #[error("{field}: {error}")]
    Unreadable {
        /// the field's name
        field: &'static str,
        /// what the JSON reader says
        error: serde_json::Error,
    },
    /// Elements of `assetIds` are not strings.
    #[error("{0}")]
    WrongElements(WrongElements),
    /// `assetIds` is empty.
    #[error("assetIds: expected at least one asset id, found none")]
    NoAssets,
    /// `projectId` is refused by its pattern.
    #[error("projectId: {0}")]
    ProjectId(InvalidId),
    /// `clientToken` is refused by its pattern.
    #[error("clientToken: {0}")]
    ClientToken(InvalidClientToken),
}

/// Elements of `assetIds` that are not strings.
#[derive(Debug, Default)]
pub struct WrongElements {
    listed: Vec<(usize, Kind)>,
    count: usize,
}

impl WrongElements {
    fn add(&mut self, position: usize, kind: Kind) {
        self.count += 1;
        if self.listed.len() < LISTED_POSITIONS {
            self.listed.push((position, kind));
        }
    }
}

impl fmt::Display for WrongElements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("assetIds: expected strings")?;
        for (position, kind) in &self.listed {
            write!(f, ", found {kind} at [{position}]")?;
        }
        match self.count - self.listed.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: &str = "1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0";
    const ASSET: &str = "a1b2c3d4-5678-4890-abcd-ef1234567890";

    #[test]
    fn identifiers_are_what_the_pattern_says_and_nothing_else() {
        assert_eq!(
            PROJECT.parse::<ProjectId>().map(|id| id.to_string()),
            Ok(PROJECT.to_owned())
        );
        assert_eq!(
            ASSET.parse::<AssetId>().map(|id| id.to_string()),
            Ok(ASSET.to_owned())
        );
        for (reason, text) in [
            ("empty", String::new()),
            ("a path", "..".to_owned()),
            ("uppercase", ASSET.to_uppercase()),
            ("one letter uppercase", ASSET.replacen('a', "A", 1)),
            ("braces", format!("{{{ASSET}}}")),
            ("urn", format!("urn:uuid:{ASSET}")),
            ("no hyphens", ASSET.replace('-', "")),
            (
                "no hyphens, padded to the length",
                format!("{}0000", ASSET.replace('-', "")),
            ),
            (
                "hyphens elsewhere",
                "a1b2c3d-45678-4890-abcd-ef1234567890".to_owned(),
            ),
            ("a newline behind", format!("{ASSET}\n")),
            ("a blank before", format!(" {ASSET}")),
            ("one short", ASSET[..35].to_owned()),
            ("one long", format!("{ASSET}0")),
            ("not hexadecimal", ASSET.replacen('a', "g", 1)),
            (
                "full-width digits",
                "１1b2c3d4-5678-4890-abcd-ef12345678".to_owned(),
            ),
        ] {
            assert_eq!(
                text.parse::<AssetId>(),
                Err(InvalidId::Form(text.as_str().into())),
                "{reason}"
            );
        }
        assert_eq!(
            "00000000-0000-0000-0000-000000000000".parse::<AssetId>(),
            Err(InvalidId::Nil)
        );
    }

    #[test]
    fn client_tokens_have_36_to_64_characters_without_white_space() {
        for (length, expected) in [
            (35, Err(InvalidClientToken::Length(35))),
            (36, Ok(())),
            (64, Ok(())),
            (65, Err(InvalidClientToken::Length(65))),
        ] {
            assert_eq!(
                "é".repeat(length).parse::<ClientToken>().map(drop),
                expected
            );
        }
        let blank = format!("{}\u{a0}{}", "x".repeat(20), "y".repeat(20));
        assert_eq!(
            blank.parse::<ClientToken>(),
            Err(InvalidClientToken::WhiteSpace('\u{a0}'))
        );
        let token: ClientToken = "secret-secret-secret-secret-secret-secret"
            .parse()
            .expect("a token");
        assert_eq!(format!("{token:?}"), "ClientToken(…)");
    }

    fn problems(text: &str) -> String {
        DisassociateRequest::parse(text)
            .expect_err(text)
            .to_string()
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
            problems(
                r#"{"projectId":null,"projectId":"x","assetIds":[1,"a",null,[["b"]],{"c":{}}]}"#
            ),
            "\"projectId\": given more than once; \
             projectId: expected a string, found null; \
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
        let request = DisassociateRequest::parse(&text).expect("a request");
        assert_eq!(
            request,
            DisassociateRequest {
                project: PROJECT.parse().expect("an id"),
                assets: vec![
                    ASSET.parse().expect("an id"),
                    PROJECT.parse().expect("an id")
                ],
                invalid: vec![InvalidId::Form("nope".into()), InvalidId::Form("".into())],
                duplicates: 2,
                client_token: None,
                is_part: false,
            }
        );
        assert_eq!(request.requested(), 4);
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
