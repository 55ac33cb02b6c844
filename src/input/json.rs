//! JSON text that somebody else wrote, read one object at a time.
//!
//! A known field that is given twice is an error, an unknown field is ignored.
//! Values stay JSON text until they are needed, so that one bad value does not
//! hide another.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Reads `text` as one JSON object with the fields of `T`.
///
/// # Errors
///
/// What was found instead of an object, or which field is given twice.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    let unreadable = |error| format!("expected a JSON object: {error}");
    let found = match text.trim_ascii_start().chars().next() {
        Some('{') => return serde_json::from_str(text).map_err(unreadable),
        // RFC 8259, section 8.1: JSON has no byte-order mark.
        Some('\u{feff}') => "a byte-order mark before it",
        Some(_) => kind(serde_json::from_str(text).map_err(unreadable)?),
        None => "nothing",
    };
    Err(format!("expected a JSON object, found {found}"))
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

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}

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

/// The known fields of a request, an event and an envelope.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
pub(super) struct Object<'a> {
    // request
    pub(super) project_id: Field<'a>,
    pub(super) asset_ids: Field<'a>,
    pub(super) client_token: Field<'a>,
    #[serde(rename = "sitewiseDisassociatorPart")]
    pub(super) part: Field<'a>,
    // EventBridge event
    #[serde(rename = "detail-type")]
    pub(super) detail_type: Field<'a>,
    pub(super) source: Field<'a>,
    pub(super) id: Field<'a>,
    pub(super) detail: Field<'a>,
    // SNS notification
    #[serde(rename = "TopicArn")]
    pub(super) topic_arn: Field<'a>,
    #[serde(rename = "MessageId")]
    pub(super) message_id: Field<'a>,
    #[serde(rename = "Message")]
    pub(super) message: Field<'a>,
    // SQS or SNS event
    #[serde(rename = "Records")]
    pub(super) records: Field<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, bound(deserialize = "'de: 'a"))]
    struct Example<'a> {
        a: Field<'a>,
        b: Field<'a>,
        c: Field<'a>,
    }

    fn refusal(text: &str) -> String {
        object::<Example<'_>>(text).expect_err(text)
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
        assert_eq!(
            refusal(r#"{"a":1,"b":2,"\u0061":3}"#),
            "expected a JSON object: duplicate field `a` at line 1 column 21"
        );
        let example: Example<'_> = object(r#"{"x":1,"a":null,"x":2,"b":[{}]}"#).expect("an object");
        assert_eq!(example.a.value().map(RawValue::get), Some("null"));
        assert_eq!(example.b.value().map(RawValue::get), Some("[{}]"));
        assert!(!example.c.is_present());
    }

    #[test]
    fn nesting_is_read_to_any_depth() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let text = format!(r#"{{"a":{deep},"x":{deep}}}"#);
        let example: Example<'_> = object(&text).expect("an object");
        assert_eq!(example.a.value().map(RawValue::get), Some(deep.as_str()));
    }
}
