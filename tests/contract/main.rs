//! Whole events in, exact answers and exact calls out: the contract, section
//! by section, through the real AWS SDK.

mod support;

mod answers;
mod batches;
mod connections;
mod corpus;
mod dead_letters;
mod deadline;
mod dry_runs;
mod endpoints;
mod fan_out;
mod fifo;
mod isolation;
mod lists;
mod logs;
mod membership;
mod metrics;
mod narrowing;
mod outcomes;
mod pace;
mod panics;
mod portals;
mod reads;
mod requests;
mod retries;
mod samples;
mod stored;
mod upstream;
mod whole_projects;
