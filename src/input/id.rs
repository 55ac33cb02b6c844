//! Identifiers and client tokens, valid by construction.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

/// Characters of a client token (service model, shape `ClientToken`).
const CLIENT_TOKEN_LENGTH: RangeInclusive<usize> = 36..=64;

/// The identifier of a SiteWise Monitor project.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ProjectId(Uuid);

/// The identifier of a SiteWise Monitor portal.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PortalId(Uuid);

/// The identifier of a SiteWise asset.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct AssetId(Uuid);

/// The UUID of zeros, which the pattern excludes.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// A text that is not an identifier by the pattern of the service model (IoT
/// SiteWise, API version 2019-12-02, shapes `ID` and `AssetID`),
/// `^(?!00000000-0000-0000-0000-000000000000)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`.
/// Its clones share the text.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("{}, found {}", self.expected(), excerpt(.0))]
pub struct InvalidId(Arc<str>);

impl InvalidId {
    /// Returns the text as it came.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns what was expected, without what was found.
    pub fn expected(&self) -> &'static str {
        match self.text() {
            NIL => "expected a UUID other than all zeros",
            _ => "expected a lowercase UUID such as 1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0",
        }
    }
}

fn parse_id(text: &str) -> Result<Uuid, InvalidId> {
    // `Uuid` reads several forms; it writes the one that the pattern has.
    let has_form = |id: &Uuid| id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text;
    let id = Uuid::try_parse(text).ok();
    id.filter(|id| has_form(id) && !id.is_nil())
        .ok_or_else(|| InvalidId(text.into()))
}

/// Quotes `text` for a message: escaped, and cut where it is long.
pub(super) fn excerpt(text: &str) -> String {
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

identifier!(PortalId);
identifier!(ProjectId);
identifier!(AssetId);

impl AssetId {
    /// Reads an asset id out of a response, where its letters may have either case.
    pub fn from_response(text: &str) -> Option<Self> {
        text.to_ascii_lowercase().parse().ok()
    }
}

/// A token that makes a call idempotent, `\S{36,64}`.
///
/// It is not shown by `Debug`: tokens do not belong in logs.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct ClientToken(String);

impl FromStr for ClientToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = CLIENT_TOKEN_LENGTH.into_inner();
        let length = text.chars().count();
        if length < least || length > most {
            return Err(format!(
                "expected {least} to {most} characters, found {length}"
            ));
        }
        match text.chars().find(|character| character.is_whitespace()) {
            Some(blank) => Err(format!("expected no white space, found {blank:?}")),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl ClientToken {
    /// Returns whether it has the form of a token that this function derives: 64
    /// hexadecimal digits.
    pub fn is_derived(&self) -> bool {
        self.0.len() == 64 && self.0.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

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
                Err(InvalidId(text.as_str().into())),
                "{reason}"
            );
        }
        let nil = NIL.parse::<AssetId>().expect_err("the pattern excludes it");
        assert_eq!(nil.expected(), "expected a UUID other than all zeros");
    }

    #[test]
    fn client_tokens_have_36_to_64_characters_without_white_space() {
        for (length, expected) in [
            (35, Err("expected 36 to 64 characters, found 35".to_owned())),
            (36, Ok(())),
            (64, Ok(())),
            (65, Err("expected 36 to 64 characters, found 65".to_owned())),
        ] {
            assert_eq!(
                "é".repeat(length).parse::<ClientToken>().map(drop),
                expected
            );
        }
        let blank = format!("{}\u{a0}{}", "x".repeat(20), "y".repeat(20));
        assert_eq!(
            blank.parse::<ClientToken>(),
            Err(r"expected no white space, found '\u{a0}'".to_owned())
        );
        let token: ClientToken = "secret-secret-secret-secret-secret-secret"
            .parse()
            .expect("a token");
        assert_eq!(format!("{token:?}"), "ClientToken(…)");
    }
}
