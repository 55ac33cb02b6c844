//! JSON text that somebody else wrote, read one object at a time.
//!
//! A known field that is given twice is an error, an unknown field is ignored.
//! Values stay JSON text until they are needed, so that one bad value does not
//! hide another.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::str::FromStr;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The fields of requests and of the envelopes around them.
const MESSAGE_FIELDS: [&str; 16] = [
    "projectId",
    "portalId",
    "assetIds",
    "allAssets",
    "allProjects",
    "dryRun",
    "clientToken",
    "sitewiseDisassociatorPart",
    "detail-type",
    "source",
    "id",
    "detail",
    "TopicArn",
    "MessageId",
    "Message",
    "Records",
];

/// The fields of records and their attributes, and of the marker of a part.
pub(super) const OTHER_FIELDS: [&str; 15] = [
    "EventSource",
    "Sns",
    "messageId",
    "eventSource",
    "eventSourceARN",
    "body",
    "attributes",
    "messageAttributes",
    "ApproximateReceiveCount",
    "MessageGroupId",
    "SentTimestamp",
    "SequenceNumber",
    "of",
    "number",
    "count",
];

/// Problems of a kind that a message lists before it only counts them.
pub(super) const LISTED: usize = 20;

/// The fields that no similar name may stand for.
const FLAGS: [&str; 3] = ["dryRun", "allAssets", "allProjects"];

/// An object's known fields.
#[derive(Debug, Default)]
pub(super) struct Object<'a> {
    fields: Vec<(&'static str, &'a RawValue)>,
    /// the known fields that are given twice; the first value counts
    duplicates: Vec<&'static str>,
    /// names that are a flag's but for case, `_` or `-`
    pub(super) misspelt_flags: Vec<String>,
}

impl<'a> Object<'a> {
    /// Reads `text` as one JSON object.
    ///
    /// # Errors
    ///
    /// What was found instead of an object, or which known field is given twice.
    pub(super) fn read(text: &'a str) -> Result<Self, String> {
        let unreadable = |error| format!("expected a JSON object: {error}");
        let found = match text.trim_ascii_start().chars().next() {
            Some('{') => {
                let object: Self = serde_json::from_str(text).map_err(unreadable)?;
                object.check(&MESSAGE_FIELDS)?;
                return Ok(object);
            }
            // RFC 8259, section 8.1: JSON has no byte-order mark.
            Some('\u{feff}') => "a byte-order mark before it",
            Some(_) => kind(serde_json::from_str(text).map_err(unreadable)?),
            None => "nothing",
        };
        Err(format!("expected a JSON object, found {found}"))
    }

    /// Reads what AWS wrote around a request: what is no object has no fields, and
    /// of a field that is given twice the first counts.
    pub(super) fn read_leniently(value: &'a RawValue) -> Self {
        serde_json::from_str(value.get()).unwrap_or_default()
    }

    /// Returns whether each of these fields is given once at most.
    pub(super) fn check(&self, fields: &[&str]) -> Result<(), String> {
        let mut duplicates = self.duplicates.iter();
        match duplicates.find(|field| fields.contains(field)) {
            Some(field) => Err(format!("expected a JSON object: duplicate field `{field}`")),
            None => Ok(()),
        }
    }

    /// Returns a known field.
    pub(super) fn get(&self, name: &str) -> Field<'a> {
        let mut fields = self.fields.iter();
        Field(
            fields
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value),
        )
    }

    /// Returns whether one of these fields is there.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_present())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<'a>(Object<'a>);

        impl<'de: 'a, 'a> Visitor<'de> for Fields<'a> {
            type Value = Object<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object<'a>, M::Error> {
                let Self(mut object) = self;
                while let Some(Text(name)) = map.next_key()? {
                    let mut known = MESSAGE_FIELDS.iter().chain(&OTHER_FIELDS);
                    let Some(known) = known.find(|known| **known == name) else {
                        map.next_value::<IgnoredAny>()?;
                        let plain = name.replace(['_', '-'], "");
                        let has_room = object.misspelt_flags.len() < LISTED;
                        if has_room && FLAGS.iter().any(|flag| flag.eq_ignore_ascii_case(&plain)) {
                            object.misspelt_flags.push(name.into_owned());
                        }
                        continue;
                    };
                    let value = map.next_value()?;
                    if !object.get(known).is_present() {
                        object.fields.push((known, value));
                    } else if !object.duplicates.contains(known) {
                        object.duplicates.push(known);
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Fields(Self::default()))
    }
}

/// Reads an array, if `value` is one.
pub(super) fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// Returns the kind of a value as a person would call it.
pub(super) fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// A field of an object. `null` is a value, unlike in an `Option`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Field<'a>(Option<&'a RawValue>);

impl<'a> Field<'a> {
    /// Returns the value, if the field is there.
    pub(super) fn value(self) -> Option<&'a RawValue> {
        self.0
    }

    /// Returns whether the field is there.
    pub(super) fn is_present(self) -> bool {
        self.0.is_some()
    }

    /// Returns the [`kind`] of the value, if the field is there.
    pub(super) fn kind(self) -> Option<&'static str> {
        self.0.map(kind)
    }

    /// Reads the value as a string.
    ///
    /// # Errors
    ///
    /// What is wrong with the field.
    pub(super) fn text(self) -> Result<Cow<'a, str>, String> {
        match self.0 {
            Some(value) if kind(value) == "a string" => serde_json::from_str(value.get())
                .map(|Text(text)| text)
                .map_err(|error| error.to_string()),
            _ => Err(self.expected("a string")),
        }
    }

    /// Reads the value from a string.
    pub(super) fn parse<T: FromStr<Err: Display>>(self) -> Result<T, String> {
        (self.text()?.parse()).map_err(|problem: T::Err| problem.to_string())
    }

    /// Says that the field should be there, with a value of another kind.
    pub(super) fn expected(self, expected: &str) -> String {
        match self.kind() {
            Some(found) => format!("expected {expected}, found {found}"),
            None => "missing".to_owned(),
        }
    }
}

/// A string, borrowed unless it has escapes.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Object::read(text).expect_err(text)
    }

    #[test]
    fn what_is_not_one_object_is_named() {
        for (reason, text, expected) in [
            ("nothing", "", "expected a JSON object, found nothing"),
            ("blanks", " \n", "expected a JSON object, found nothing"),
            (
                "mark",
                "\u{feff}{}",
                "expected a JSON object, found a byte-order mark before it",
            ),
            ("array", "[1, 2]", "expected a JSON object, found an array"),
            ("null", "null", "expected a JSON object, found null"),
            ("string", "\"{}\"", "expected a JSON object, found a string"),
            ("number", "-1.5", "expected a JSON object, found a number"),
            ("boolean", "true", "expected a JSON object, found a boolean"),
        ] {
            assert_eq!(refusal(text), expected, "{reason}");
        }
        assert_eq!(
            refusal("{} {}"),
            "expected a JSON object: trailing characters at line 1 column 4"
        );
        assert_eq!(
            refusal("{"),
            "expected a JSON object: EOF while parsing an object at line 1 column 1"
        );
        assert_eq!(
            refusal("hello"),
            "expected a JSON object: expected value at line 1 column 1"
        );
    }

    #[test]
    fn a_known_field_given_twice_is_refused_and_an_unknown_one_ignored() {
        let twice = r#"{"id":1,"body":2,"\u0069d":3}"#;
        assert_eq!(
            refusal(twice),
            "expected a JSON object: duplicate field `id`"
        );
        let twice = RawValue::from_string(twice.to_owned()).expect("JSON");
        let lenient = Object::read_leniently(&twice);
        assert_eq!(lenient.get("id").value().map(RawValue::get), Some("1"));
        let text = r#"{"x":1,"id":null,"x":2,"body":[{}],"body":1}"#;
        let object = Object::read(text).expect("an object");
        assert_eq!(object.get("id").value().map(RawValue::get), Some("null"));
        assert_eq!(object.get("body").value().map(RawValue::get), Some("[{}]"));
        assert!(!object.has_any(&["source", "x"]));
    }

    #[test]
    fn names_that_are_nearly_a_flags_are_kept() {
        let text = r#"{"dryRun":true,"dry_run":1,"DRYRUN":2,"all-\u0061ssets":3,
            "allprojects":4,"dryRuns":5,"ALL_ASSET":6}"#;
        let object = Object::read(text).expect("an object");
        let expected = ["dry_run", "DRYRUN", "all-assets", "allprojects"];
        assert_eq!(object.misspelt_flags, expected);
    }

    #[test]
    fn nesting_is_read_to_any_depth() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let text = format!(r#"{{"id":{deep},"x":{deep}}}"#);
        let object = Object::read(&text).expect("an object");
        assert_eq!(
            object.get("id").value().map(RawValue::get),
            Some(deep.as_str())
        );
    }
}
