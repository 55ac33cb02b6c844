//! What leaves the function: dead letters and parts through SQS, the response
//! through Lambda.

pub mod dead_letter;
pub mod outbox;
pub mod part;
pub mod response;
