//! What a caller of the simulator sees, through the real AWS SDK.

mod faults;
mod membership;
mod model;
mod portals;
mod program;
mod requests;
mod settings;
mod socket;
mod specs;
mod sqs;
mod support;
