//! Whole events in, exact answers and exact calls out: the contract, section
//! by section, through the real AWS SDK.

mod support;

mod answers;
mod attempts;
mod batches;
mod connections;
mod corpus;
mod dead_letters;
mod endpoints;
mod fan_out;
mod fifo;
mod logs;
mod narrowing;
mod outcomes;
mod pace;
mod panics;
mod poison;
mod requests;
mod returns;
mod samples;
mod upstream;
