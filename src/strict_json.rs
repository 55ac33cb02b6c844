//! One JSON object read strictly, and the kind of each value in it.
//!
//! Owns what "strict" means for a text that somebody else wrote: one object,
//! nothing behind it, no byte-order mark, no key given twice, no nesting that
//! is deeper than [`MAX_DEPTH`]. It must not know what the keys mean.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

/// Levels of nesting that a text may have, as `serde_json` limits them for
/// typed values.
pub const MAX_DEPTH: usize = 128;

/// Reasons why a text is not one strict JSON object.
#[derive(Debug, Error)]
pub enum NotAnObject {
    /// The text starts with U+FEFF, which JSON does not allow (RFC 8259, section 8.1).
    #[error("expected a JSON object, found a byte-order mark before it")]
    ByteOrderMark,
    /// The text is empty, or white space alone.
    #[error("expected a JSON object, found nothing")]
    Empty,
    /// The text is JSON of another kind.
    #[error("expected a JSON object, found {0}")]
    OtherKind(Kind),
    /// The text is not JSON, or has something behind the object.
    #[error("expected a JSON object: {0}")]
    Syntax(serde_json::Error),
    /// The object nests deeper than [`MAX_DEPTH`].
    #[error("expected a JSON object at most {MAX_DEPTH} levels deep")]
    TooDeep,
}

/// The kinds of JSON values, displayed as a person would call them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// any number
    Number,
    /// a string
    String,
    /// an array
    Array,
    /// an object
    Object,
}

impl Kind {
    /// Returns the kind of `value`, which its first byte tells.
    pub fn of(value: &RawValue) -> Self {
        Self::of_text(value.get())
    }

    fn of_text(text: &str) -> Self {
        match text.as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::String,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// A JSON object whose values are still text.
#[derive(Debug)]
pub struct Object<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    repeated: BTreeSet<String>,
}

impl<'a> Object<'a> {
    /// Reads `text` as one JSON object.
    ///
    /// Keys that are given twice do not fail here: the first value stands, and
    /// [`Object::repeated`] names them, so that they can be reported beside
    /// every other problem of the same text.
    pub fn parse(text: &'a str) -> Result<Self, NotAnObject> {
        let trimmed = text.trim_ascii_start();
        if trimmed.is_empty() {
            return Err(NotAnObject::Empty);
        }
        if trimmed.starts_with('\u{feff}') {
            return Err(NotAnObject::ByteOrderMark);
        }
        if !trimmed.starts_with('{') {
            return Err(match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => NotAnObject::OtherKind(Kind::of_text(trimmed)),
                Err(error) => NotAnObject::Syntax(error),
            });
        }
        let object: Self = serde_json::from_str(text).map_err(NotAnObject::Syntax)?;
        if object.fields.values().any(|value| is_too_deep(value)) {
            return Err(NotAnObject::TooDeep);
        }
        Ok(object)
    }

    /// Returns the value of `key`, if it is there at all.
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.fields.get(key).copied()
    }

    /// Tells whether `key` is there.
    pub fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// Returns the keys that the text gives more than once.
    pub fn repeated(&self) -> &BTreeSet<String> {
        &self.repeated
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                let mut repeated = BTreeSet::new();
                while let Some(Text(key)) = map.next_key()? {
                    let value: &'de RawValue = map.next_value()?;
                    match fields.entry(key) {
                        Entry::Vacant(field) => {
                            field.insert(value);
                        }
                        Entry::Occupied(field) => {
                            repeated.insert(field.key().to_string());
                        }
                    }
                }
                Ok(Object { fields, repeated })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A JSON string, borrowed from the text wherever it has no escapes.
#[derive(Debug)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Element::deserialize(deserializer)? {
            Element::Text(text) => Ok(Self(text)),
            Element::Other(kind) => Err(serde::de::Error::custom(format_args!(
                "expected a string, found {kind}"
            ))),
        }
    }
}

/// An element of an array that should hold strings only: anything else is
/// skipped and remembered by its kind, so that one wrong element does not hide
/// the next.
#[derive(Debug)]
pub enum Element<'a> {
    /// a string
    Text(Cow<'a, str>),
    /// anything else
    Other(Kind),
}

impl<'de: 'a, 'a> Deserialize<'de> for Element<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl<'de> Visitor<'de> for AnyValue {
            type Value = Element<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Element::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Element::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Element::Other(Kind::Boolean))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Element::Other(Kind::Number))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Element::Other(Kind::Number))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Element::Other(Kind::Number))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Element::Other(Kind::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element::Other(Kind::Array))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Element::Other(Kind::Object))
            }
        }

        deserializer.deserialize_any(AnyValue)
    }
}

/// Tells whether `value` nests so deep that, one level below its object, it
/// passes [`MAX_DEPTH`]. `value` is known to be valid JSON.
fn is_too_deep(value: &RawValue) -> bool {
    let mut depth = 1;
    let mut in_string = false;
    let mut escaped = false;
    for byte in value.get().bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Object::parse(text).expect_err(text).to_string()
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
            ("array", "[]", "expected a JSON object, found an array"),
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
    fn nesting_is_allowed_to_the_limit_and_not_past_it() {
        let nested = |levels: usize| {
            let inner = levels - 1;
            format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner))
        };
        assert!(Object::parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(
            refusal(&nested(MAX_DEPTH + 1)),
            "expected a JSON object at most 128 levels deep"
        );
        assert_eq!(
            refusal(&nested(200_000)),
            "expected a JSON object at most 128 levels deep"
        );
        let brackets = format!("{{\"a\":\"{}\\\"[\"}}", "[".repeat(500));
        assert!(
            Object::parse(&brackets).is_ok(),
            "brackets in a string do not nest"
        );
    }

    #[test]
    fn repeated_keys_are_named_once_and_the_first_value_stands() {
        let object = Object::parse(r#"{"a":1,"b":2,"\u0061":3,"a":4}"#).expect("an object");
        assert!(object.repeated().iter().eq(["a"]));
        assert_eq!(object.get("a").map(RawValue::get), Some("1"));
        assert!(object.has("b"));
        assert!(!object.has("c"));
    }
}
