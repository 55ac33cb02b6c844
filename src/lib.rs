//! Disassociates assets from AWS IoT SiteWise Monitor projects, reliably and at
//! scale: the library behind the Lambda function.
//!
//! The flow of data, in one direction:
//!
//! ```text
//! payload ─ event ─► messages ─ request ─► requests ─ resolve ─► assets ─ plan ─► batches ─ dispatch ─► outcomes ─ settle ─┬─► outbox ─► SQS
//!                                                        │                                    │                            └─► response ─► Lambda
//!                                                        └───── session: list, disassociate ──┘
//! ```
//!
//! - [`handler`]: one invocation, the order of the steps; [`config`]: the
//!   environment; [`deadline`]: how the time is divided
//! - [`input`]: what a payload is, and what each of its messages asks for
//! - [`resolve`]: which assets a request is for; dry runs
//! - [`plan`]: which calls to make; [`token`]: their client tokens
//! - [`dispatch`]: makes them, and reads projects where a call fails; [`outcome`]:
//!   what became of an asset
//! - [`session`]: the requests of one invocation to SiteWise, at the rate that it
//!   accepts, and lists of several pages
//! - [`settle`]: where everything goes that is not done
//! - [`output`]: dead letters, parts and their way into the queues; the response
//! - [`aws`]: the clients of SiteWise and SQS, what their errors mean, what the
//!   SDK retries, its connections and root certificates
//! - [`telemetry`]: the log and the metrics
//!
//! [`input`], [`plan`] and [`settle`] are pure: no clock, no network, no
//! environment.

#[cfg(not(panic = "unwind"))]
compile_error!(
    "panics are contained by unwinding: build with panic = \"unwind\", also under Cargo Lambda, \
     whose own default for release builds is abort"
);

pub mod aws;
pub mod config;
pub mod deadline;
pub mod dispatch;
pub mod handler;
pub mod input;
pub mod outcome;
pub mod output;
pub mod plan;
pub mod resolve;
pub mod session;
pub mod settle;
pub mod telemetry;
pub mod token;
