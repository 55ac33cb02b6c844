//! AWS IoT SiteWise Monitor projects and SQS queues, simulated over HTTP.
//!
//! It stands in for SiteWise because nothing else does: real project
//! membership, requests checked by the service model, answers as the model
//! says, faults on request, and every behaviour that AWS leaves undocumented a
//! setting. Usable three ways:
//!
//! - [`Simulator::http_client`]: inside a test, without sockets, on tokio's
//!   clock, paused or not
//! - [`Simulator::serve`]: on loopback, inside a process
//! - the program `simulator`: on its own
//!
//! The rooms: [`settings`] and [`fault`] say how it behaves; `sitewise` and
//! `sqs` are the two services over plain data; `simulator` receives requests
//! and keeps their record, each a `call`; `client` and `server` are the ways in.

mod call;
mod client;
pub mod fault;
mod server;
pub mod settings;
mod simulator;
mod sitewise;
mod sqs;

pub use call::{Call, Operation};
pub use fault::{Action, Fault};
pub use server::Server;
pub use settings::{Absent, MissingList, Names, Settings, Throttle, Tokens};
pub use simulator::Simulator;
pub use sitewise::{ASSET_LIMIT, TOKEN_LENGTH};
pub use sqs::{BATCH_LIMIT, MESSAGE_LIMIT, Message};
