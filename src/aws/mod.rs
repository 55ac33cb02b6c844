//! The clients of SiteWise and SQS, and their setup of the AWS SDK.

pub mod attempts;
pub mod connections;
pub mod error;
pub mod retry;
pub mod sitewise;
pub mod sqs;
pub mod tls_roots;
