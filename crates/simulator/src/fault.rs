//! What goes wrong, and when.

use std::collections::HashMap;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::call::{Call, Operation};

/// A fault: which requests it is for, when it fires, and what happens then.
#[derive(Clone, Debug)]
pub struct Fault {
    operations: Vec<Operation>,
    project: Option<String>,
    asset: Option<String>,
    queue: Option<String>,
    during: Option<Range<Duration>>,
    when: When,
    pub(crate) action: Action,
    matched: usize,
    pub(crate) failed: HashMap<String, u32>,
}

#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    Nth(usize),
    First(usize),
    After(usize),
    Probability(f64),
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// This answer is given; nothing is applied.
    Reply {
        /// the HTTP status
        status: u16,
        /// the error's name, sent as `x-amzn-errortype`, and by SQS in the
        /// body's `__type` too where the body is empty or a JSON object
        error_type: Option<String>,
        /// more headers
        headers: Vec<(String, String)>,
        /// the body
        body: String,
    },
    /// An error answer in the services' form; nothing is applied.
    Refuse {
        /// the HTTP status
        status: u16,
        /// the error's name
        error_type: String,
        /// the error's message
        message: String,
    },
    /// The request takes longer; later faults may still fire.
    Latency(Duration),
    /// Never answered, not applied.
    Stall,
    /// Applied, never answered.
    StallAfter,
    /// Applied; the headers and half the body are sent, then nothing more.
    StallBody,
    /// The connection breaks before the request is applied.
    Reset,
    /// The connection breaks after the request is applied: the lost reply.
    ResetAfter,
    /// Applied; the body ends before its end.
    Truncate,
    /// Applied; a 200 with this text for its body.
    Garbage(String),
    /// Entries in a 200's `errors`; the other assets are removed. A replayed or
    /// refused call counts as no failure.
    AssetErrors {
        /// the entries' code
        code: String,
        /// the entries' message
        message: String,
        /// which assets; none: every asset of the call
        assets: Vec<String>,
        /// how often each asset fails before it succeeds; `None`: always
        heals_after: Option<u32>,
    },
    /// Entries in the `Failed` list of an SQS batch; the others are carried out.
    FailEntries {
        /// which entries: those whose body contains this; empty: all
        bodies_containing: String,
        /// the entries' code
        code: String,
        /// whether the sender is said to be at fault
        sender_fault: bool,
        /// how often each body fails before it is taken; `None`: always
        heals_after: Option<u32>,
    },
    /// The in-process client panics with this text; a socket is reset.
    Panic(String),
}

impl Action {
    /// Returns whether the request gets to the service, which may throttle it.
    pub(crate) fn reaches_service(&self) -> bool {
        !matches!(
            self,
            Self::Reply { .. } | Self::Refuse { .. } | Self::Stall | Self::Reset | Self::Panic(_)
        )
    }
}

/// The SiteWise operations that only read.
const READS: [Operation; 4] = [
    Operation::ListProjectAssets,
    Operation::DescribeProject,
    Operation::ListProjects,
    Operation::DescribePortal,
];

impl Fault {
    fn of(operations: &[Operation]) -> Self {
        Self {
            operations: operations.to_vec(),
            project: None,
            asset: None,
            queue: None,
            during: None,
            when: When::Always,
            action: Action::Latency(Duration::ZERO),
            matched: 0,
            failed: HashMap::new(),
        }
    }

    /// A fault of one operation.
    pub fn on(operation: Operation) -> Self {
        Self::of(&[operation])
    }

    /// A fault of the SiteWise operations that only read.
    pub fn reads() -> Self {
        Self::of(&READS)
    }

    /// A fault of every SiteWise operation.
    pub fn sitewise() -> Self {
        let mut fault = Self::reads();
        fault.operations.push(Operation::Disassociate);
        fault
    }

    /// A fault of every SQS operation.
    pub fn sqs() -> Self {
        Self::of(&[Operation::SendMessage, Operation::SendMessageBatch])
    }

    /// Only for calls of this project.
    #[must_use]
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// Only for calls with this asset.
    #[must_use]
    pub fn asset(mut self, asset: impl Into<String>) -> Self {
        self.asset = Some(asset.into());
        self
    }

    /// Only for this queue, by name.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Only for requests that arrive in this time, since the simulator was made.
    #[must_use]
    pub fn during(mut self, time: Range<Duration>) -> Self {
        self.during = Some(time);
        self
    }

    /// Fires for the `n`-th matching request only, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: usize) -> Self {
        self.when = When::Nth(n);
        self
    }

    /// Fires for the first `n` matching requests.
    #[must_use]
    pub fn first(mut self, n: usize) -> Self {
        self.when = When::First(n);
        self
    }

    /// Fires for all but the first `n` matching requests.
    #[must_use]
    pub fn after(mut self, n: usize) -> Self {
        self.when = When::After(n);
        self
    }

    /// Fires for this share of the matching requests, 0 to 1.
    #[must_use]
    pub fn probability(mut self, share: f64) -> Self {
        self.when = When::Probability(share);
        self
    }

    /// Sets what happens.
    #[must_use]
    pub fn action(mut self, action: Action) -> Self {
        self.action = action;
        self
    }

    /// Returns whether the fault fires for `call`; `dice` gives numbers from 0 to 1.
    pub(crate) fn fires(&mut self, call: &Call, dice: &mut impl FnMut() -> f64) -> bool {
        let is =
            |filter: &Option<String>, value: &Option<String>| filter.is_none() || filter == value;
        let concerns_an_asset = match &self.action {
            Action::AssetErrors { assets, .. } if !assets.is_empty() => {
                assets.iter().any(|asset| call.assets.contains(asset))
            }
            _ => true,
        };
        let matches = self.operations.contains(&call.operation)
            && is(&self.project, &call.project)
            && is(&self.queue, &call.queue)
            && self
                .during
                .as_ref()
                .is_none_or(|time| time.contains(&call.at))
            && self
                .asset
                .as_ref()
                .is_none_or(|asset| call.assets.contains(asset))
            && concerns_an_asset;
        if !matches {
            return false;
        }
        self.matched += 1;
        match self.when {
            When::Always => true,
            When::Nth(n) => self.matched == n,
            When::First(n) => self.matched <= n,
            When::After(n) => self.matched > n,
            When::Probability(share) => dice() < share,
        }
    }
}

/// Returns whether something that fails `heals_after` times fails once more, and
/// counts it.
pub(crate) fn fails_again(
    failed: &mut HashMap<String, u32>,
    key: &str,
    heals_after: Option<u32>,
) -> bool {
    let Some(limit) = heals_after else {
        return true;
    };
    let count = failed.entry(key.to_owned()).or_default();
    *count += 1;
    *count <= limit
}

/// A text that is no fault.
#[derive(Debug, Error, Eq, PartialEq)]
#[error("{found:?}: expected {expected}")]
pub struct InvalidFault {
    found: String,
    expected: &'static str,
}

const TARGETS: &str = "a fault such as disassociate:first=2:status=500, where the target is \
                       disassociate, list, describe, list-projects, describe-portal, reads, \
                       sitewise or sqs";
const TERMS: &str = "project=ID, asset=ID, queue=NAME; nth=N, first=N, after=N, probability=SHARE; \
                     throttle, status=CODE, type=NAME, latency=NUMBERms, stall, stall-after, \
                     stall-body, reset, reset-after, truncate, garbage, asset-error=CODE, \
                     heals=N or fail-entries=CODE";
const ONE_ACTION: &str = "one action only; another one is a fault of its own";
const AN_ACTION: &str = "an action among its terms, such as status=500 or reset";

impl FromStr for Fault {
    type Err = InvalidFault;

    /// Reads `target:term:term…`, where a term is a filter, a time or an action,
    /// such as `disassociate:first=2:status=500`, `sqs:queue=work:reset` or
    /// `disassociate:asset=ID:asset-error=INTERNAL_FAILURE:heals=2`.
    ///
    /// - target: `disassociate`, `list`, `describe`, `list-projects`,
    ///   `describe-portal`, `reads` (the four before), `sitewise` (all five), `sqs`
    /// - filters: `project=ID`, `asset=ID`, `queue=NAME`
    /// - one time, else always: `nth=N` from 1, `first=N`, `after=N`,
    ///   `probability=SHARE`; of several the last counts
    /// - one action: `status=CODE` and after it maybe `type=NAME`, `throttle`,
    ///   `latency=NUMBERms`, `stall`, `stall-after`, `stall-body`, `reset`,
    ///   `reset-after`, `truncate`, `garbage`; `asset-error=CODE` or
    ///   `fail-entries=CODE`, and after it maybe `heals=N`
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |found: &str, expected| InvalidFault {
            found: found.to_owned(),
            expected,
        };
        let mut terms = text.split(':');
        let mut fault = match terms.next() {
            Some("disassociate") => Self::on(Operation::Disassociate),
            Some("list") => Self::on(Operation::ListProjectAssets),
            Some("describe") => Self::on(Operation::DescribeProject),
            Some("list-projects") => Self::on(Operation::ListProjects),
            Some("describe-portal") => Self::on(Operation::DescribePortal),
            Some("reads") => Self::reads(),
            Some("sitewise") => Self::sitewise(),
            Some("sqs") => Self::sqs(),
            _ => return Err(wrong(text, TARGETS)),
        };
        let mut action = None;
        for term in terms {
            let (name, value) = term.split_once('=').unwrap_or((term, ""));
            let invalid = || wrong(term, TERMS);
            let number = || value.parse::<usize>().map_err(|_| invalid());
            match (name, &mut action) {
                ("project" | "asset" | "queue", _) if value.is_empty() => return Err(invalid()),
                ("nth", _) if number()? == 0 => return Err(invalid()),
                ("project", _) => fault = fault.project(value),
                ("asset", _) => fault = fault.asset(value),
                ("queue", _) => fault = fault.queue(value),
                ("nth", _) => fault = fault.nth(number()?),
                ("first", _) => fault = fault.first(number()?),
                ("after", _) => fault = fault.after(number()?),
                ("probability", _) => {
                    let share = value.parse().ok();
                    let share = share.filter(|share| (0.0..=1.0).contains(share));
                    fault = fault.probability(share.ok_or_else(invalid)?);
                }
                ("type", Some(Action::Reply { error_type, .. })) => {
                    *error_type = Some(value.to_owned());
                }
                (
                    "heals",
                    Some(
                        Action::AssetErrors { heals_after, .. }
                        | Action::FailEntries { heals_after, .. },
                    ),
                ) => {
                    *heals_after = Some(value.parse().map_err(|_| invalid())?);
                }
                _ => {
                    let named = named_action(name, value).ok_or_else(invalid)?;
                    if action.replace(named).is_some() {
                        return Err(wrong(text, ONE_ACTION));
                    }
                }
            }
        }
        let mut action = action.ok_or_else(|| wrong(text, AN_ACTION))?;
        if let (Action::AssetErrors { assets, .. }, Some(asset)) = (&mut action, &fault.asset) {
            assets.push(asset.clone());
        }
        Ok(fault.action(action))
    }
}

fn named_action(name: &str, value: &str) -> Option<Action> {
    let takes_a_value = matches!(name, "status" | "latency" | "asset-error" | "fail-entries");
    if takes_a_value == value.is_empty() {
        return None;
    }
    Some(match name {
        "throttle" => Action::Refuse {
            status: 429,
            error_type: "ThrottlingException".to_owned(),
            message: "Rate exceeded".to_owned(),
        },
        "status" => Action::Reply {
            status: value
                .parse()
                .ok()
                .filter(|code| (200..=599).contains(code))?,
            error_type: None,
            headers: Vec::new(),
            body: String::new(),
        },
        "latency" => {
            let milliseconds = value.strip_suffix("ms")?.parse().ok()?;
            Action::Latency(Duration::from_millis(milliseconds))
        }
        "stall" => Action::Stall,
        "stall-after" => Action::StallAfter,
        "stall-body" => Action::StallBody,
        "reset" => Action::Reset,
        "reset-after" => Action::ResetAfter,
        "truncate" => Action::Truncate,
        "garbage" => Action::Garbage("<html>this is not JSON</html>".to_owned()),
        "asset-error" => Action::AssetErrors {
            code: value.to_owned(),
            message: "Simulated failure.".to_owned(),
            assets: Vec::new(),
            heals_after: None,
        },
        "fail-entries" => Action::FailEntries {
            bodies_containing: String::new(),
            code: value.to_owned(),
            sender_fault: false,
            heals_after: None,
        },
        _ => return None,
    })
}
