//! The two AWS services that the function calls, and how the AWS SDK is set up
//! for them.

pub mod attempts;
pub mod connections;
pub mod error;
pub mod retry;
pub mod sitewise;
pub mod sqs;
pub mod tls_roots;
