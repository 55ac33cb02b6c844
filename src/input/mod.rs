//! The first stage: from a payload to the requests in it.
//!
//! [`event`] finds the messages in a payload and opens envelopes; [`request`]
//! judges what a message asks for, with the identifiers of [`id`].

pub mod event;
pub mod id;
mod json;
pub mod received;
pub mod request;
