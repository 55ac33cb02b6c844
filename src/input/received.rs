//! A message with the request that was read from it.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::event::Message;
use super::request::{InvalidRequest, Request};

/// A message, and the request that was read from it.
#[derive(Debug)]
pub struct Received<'a> {
    /// The message.
    pub message: &'a Message<'a>,
    /// The message's id, or one derived from the invocation's: the same at every
    /// delivery.
    pub id: Cow<'a, str>,
    /// The request, or why there is none.
    pub request: Result<Request, ReadError>,
}

/// Why a message has no request.
#[derive(Debug)]
pub enum ReadError {
    /// It is no valid request.
    Malformed(InvalidRequest),
    /// A defect of this function: it panicked.
    Panicked,
}

impl<'a> Received<'a> {
    /// Makes a message that a defect kept from being processed.
    pub fn unread(message: &'a Message<'a>, id: &'a str) -> Self {
        Self {
            message,
            id: id.into(),
            request: Err(ReadError::Panicked),
        }
    }

    /// Returns whether the request asks for a dry run.
    pub fn is_dry_run(&self) -> bool {
        self.request.as_ref().is_ok_and(|request| request.dry_run)
    }

    /// Returns the project as the request gives it, valid or not.
    pub fn project(&self) -> Option<String> {
        match &self.request {
            Ok(request) => request.project().map(|project| project.to_string()),
            Err(ReadError::Malformed(error)) => error.project.clone(),
            Err(ReadError::Panicked) => None,
        }
    }
}

/// Reads the messages. Each gets an id that is the same at its every delivery:
/// its own, else one of the invocation's, which Lambda repeats when it retries an
/// event.
pub fn receive<'a>(messages: &'a [Message<'a>], request_id: &'a str) -> Vec<Received<'a>> {
    let read = |message: &Message<'_>| {
        let request = catch_unwind(AssertUnwindSafe(|| message.request()));
        (request.map_err(|_panic| ReadError::Panicked)?).map_err(ReadError::Malformed)
    };
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| Received {
            message,
            id: match &message.id {
                Some(id) => Cow::Borrowed(id.as_ref()),
                None if messages.len() == 1 => Cow::Borrowed(request_id),
                None => Cow::Owned(format!("{request_id}/{index}")),
            },
            request: read(message),
        })
        .collect()
}
