//! Removes assets from AWS IoT SiteWise Monitor projects, reliably and at
//! scale: the library behind the Lambda function.
//!
//! The way of the data, one direction, no way back up:
//!
//! ```text
//! payload ─ event ─► messages ─ request ─► requests ─ plan ─► batches ─ dispatch ─► outcomes ─ settle ─┬─► dead_letter, part ─ queue ─► SQS
//!                                                                       │                              └─► answer ─► Lambda
//!                                                                       └── sitewise (one API call)
//! ```
//!
//! - [`input`]: [`event`], what a payload is, and [`request`], what is asked for
//! - [`plan`]: which calls to make
//! - [`dispatch`]: runs them through [`sitewise`], as fast as the [`pace`]
//!   allows; [`sdk_error`]: what a failed call means; [`retry`]: what the SDK
//!   tries again; [`outcome`]: what became of an asset; [`connections`]: what the calls go over
//! - [`settle`]: what becomes of each message
//! - [`dead_letter`] and [`part`]: what is put in a [`queue`]
//! - [`answer`]: what Lambda is told
//! - [`handler`]: the order of all this; [`config`]: its setting; [`trust`]:
//!   the roots of its TLS
//! - [`telemetry`]: what is logged of it; [`metrics`]: its numbers;
//!   [`attempts`]: those of the calls
//!
//! Everything left of [`dispatch`], and [`settle`], is pure: no clock, no
//! network, no environment.

#[cfg(not(panic = "unwind"))]
compile_error!(
    "panics are contained by unwinding: build with panic = \"unwind\", also under Cargo Lambda, \
     whose own default for release builds is abort"
);

pub mod answer;
pub mod attempts;
pub mod config;
pub mod connections;
pub mod dead_letter;
pub mod dispatch;
pub mod handler;
pub mod input;
pub mod metrics;
pub mod outcome;
pub mod pace;
pub mod part;
pub mod plan;
pub mod queue;
pub mod retry;
pub mod sdk_error;
pub mod settle;
pub mod sitewise;
pub mod telemetry;
pub mod trust;

pub use input::{event, request};
