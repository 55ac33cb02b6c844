//! What happened, line by line, and the invariant that broke.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// The promises that every history is held against.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Invariant {
    /// I1: every asset of every message ends disassociated, or in a dead
    /// letter, or still in its queue.
    NothingIsLost,
    /// I2: a message not named in `batchItemFailures` had every asset
    /// disassociated or its dead letter, or its part, confirmed stored; what a
    /// report says is done is done.
    TheAnswerIsTrue,
    /// I3: SiteWise and SQS never receive an invalid call.
    NothingInvalidIsSent,
    /// I4: a redelivery does not remove again an asset that someone added back
    /// in between, where the service remembers client tokens.
    ReaddedAssetsStay,
    /// I5: once faults stop, everything drains within the redrive limit.
    EverythingDrains,
    /// I6: one request never changes another's fate, and does not keep another
    /// from being done for long.
    NeighboursAreUnharmed,
    /// I7: a dead letter that the function wrote names an asset only if its id
    /// or request is malformed, its project does not exist, or a list that was
    /// asked for after the last call with it still showed it.
    DeadLettersAreTrue,
    /// The function answers before its deadline.
    DeadlinesAreKept,
    /// Behind a failed record of a FIFO group the group's later ones fail too.
    GroupsKeepTheirOrder,
    /// The services see a bounded number of requests for each batch, and no part
    /// of a message whose dead letters are not stored.
    AmplificationIsBounded,
}

/// An invariant that does not hold.
#[derive(Debug)]
pub struct Broken {
    /// which
    pub invariant: Invariant,
    /// how it shows
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

impl Broken {
    pub(crate) fn new(invariant: Invariant, what: impl Into<String>) -> Self {
        Self {
            invariant,
            what: what.into(),
        }
    }
}

/// What happened in one run.
#[derive(Debug)]
pub struct History {
    start: Instant,
    lines: Vec<String>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            lines: Vec::new(),
        }
    }

    /// Returns how long the run has taken, by its own clock.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        let seconds = self.elapsed().as_secs_f64();
        self.lines.push(format!("{seconds:>10.3}  {what}"));
    }

    /// Returns the lines, each with its time in seconds.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
