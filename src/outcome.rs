//! What became of an asset, and why.
//!
//! Owns the words that reports and dead letters use for failures. It must not
//! know how a failure was found out.

use std::fmt;
use std::sync::Arc;

use crate::input::id::ProjectId;

/// Longest message kept of a failure, in bytes: what a service says of one
/// asset must not decide how many assets fit in a dead letter.
pub const MESSAGE_LIMIT: usize = 1024;

/// Longest code kept of a failure, in bytes.
const CODE_LIMIT: usize = 128;

/// The codes of failures that no service named.
pub mod code {
    /// The request is malformed and rejected whole.
    pub const INVALID_REQUEST: &str = "InvalidRequest";
    /// The asset id is refused by its pattern.
    pub const INVALID_ASSET_ID: &str = "InvalidAssetId";
    /// No answer came in time.
    pub const TIMEOUT: &str = "Timeout";
    /// The connection could not be made, or broke.
    pub const CONNECTION_FAILED: &str = "ConnectionFailed";
    /// The answer could not be read.
    pub const MALFORMED_RESPONSE: &str = "MalformedResponse";
    /// The time left before the Lambda deadline was too short to start.
    pub const DEADLINE_REACHED: &str = "DeadlineReached";
    /// A defect of this function: it panicked.
    pub const INTERNAL_ERROR: &str = "InternalError";
}

/// What became of one asset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was taken out of the project.
    Disassociated,
    /// The project does not list it. There is nothing left to do.
    Absent,
    /// It stays, and another try would not help.
    Rejected(Failure),
    /// It may still be there, and is worth another try later.
    Unfinished(Failure),
    /// It was not tried: its request is cut into parts.
    Deferred,
}

/// What a dry run found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DryRun {
    /// Assets of a project.
    Assets {
        /// those that would be disassociated
        would_disassociate: usize,
        /// those that the project does not list
        absent: usize,
    },
    /// Projects of a portal.
    Projects(Vec<DryRunProject>),
}

/// A project as the dry run of its portal found it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DryRunProject {
    /// The project.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// How many assets it lists, or why its list was not read.
    pub assets: Result<usize, Failure>,
}

/// Why an asset was not disassociated. Cheap to clone: the assets of a batch
/// mostly share one.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Failure(Arc<Text>);

#[derive(Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Text {
    code: String,
    message: String,
}

impl Failure {
    /// Makes a failure of a `code`, the service's own name or one of
    /// [`code`], and a message. What is too long is cut.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Arc::new(Text {
            code: cut(code.into(), CODE_LIMIT),
            message: cut(message.into(), MESSAGE_LIMIT),
        }))
    }

    /// Returns the code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// Returns the message, at most [`MESSAGE_LIMIT`] bytes.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.message())
    }
}

fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let failure = Failure::new("é".repeat(100), "é".repeat(600));
        assert_eq!(failure.code(), "é".repeat(64));
        assert_eq!(failure.message(), "é".repeat(512));
        assert_eq!(
            Failure::new("a", format!("x{}", "é".repeat(600)))
                .message()
                .len(),
            1023
        );
    }
}
