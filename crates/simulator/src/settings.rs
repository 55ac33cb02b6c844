//! How the simulated services behave where AWS does not say.

use std::time::Duration;

use clap::ValueEnum;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a call gets for an asset that exists but is not in the project.
    pub asset_not_in_project: Absent,
    /// What a call gets for an asset that does not exist at all.
    pub unknown_asset: Absent,
    /// What the list of a project or portal that does not exist is answered with.
    pub missing_list: MissingList,
    /// How long a list still shows an asset that was removed.
    pub removed_stay_listed: Duration,
    /// How long a list lacks an asset that was added; those added before the
    /// first request are listed from the start.
    pub added_not_listed: Duration,
    /// Whether a list that shows an asset shows the asset's descendants too.
    pub lists_descendants: bool,
    /// What is remembered of client tokens.
    pub tokens: Tokens,
    /// What the message of a 404 or 400 names.
    pub not_found_names: Names,
    /// How long each SiteWise call takes.
    pub latency: Duration,
    /// How many SiteWise calls are allowed.
    pub throttle: Option<Throttle>,
    /// Where faults of a probability start their dice.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            asset_not_in_project: Absent::Ignore,
            unknown_asset: Absent::AssetError {
                code: "INTERNAL_FAILURE".to_owned(),
                message: "The asset doesn't exist.".to_owned(),
            },
            missing_list: MissingList::NotFound,
            removed_stay_listed: Duration::ZERO,
            added_not_listed: Duration::ZERO,
            lists_descendants: false,
            tokens: Tokens::Ignored,
            not_found_names: Names::Resource,
            latency: Duration::ZERO,
            throttle: None,
            seed: 0,
        }
    }
}

/// What a call gets for an asset that is not there. AWS does not document it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Absent {
    /// Nothing: the call succeeds.
    Ignore,
    /// An entry in the 200's `errors`.
    AssetError {
        /// the entry's code
        code: String,
        /// the entry's message
        message: String,
    },
    /// 404 `ResourceNotFoundException` for the whole call; nothing is applied.
    NotFound,
    /// 400 `InvalidRequestException` for the whole call; nothing is applied.
    Invalid,
}

/// What the list of a project or portal that does not exist is answered with. AWS
/// does not document it, and the service model has no 404 for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum MissingList {
    /// 404 `ResourceNotFoundException`.
    NotFound,
    /// 400 `InvalidRequestException`.
    Invalid,
    /// An empty list.
    Empty,
}

/// What the message of a refused call names. AWS does not document it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Names {
    /// The missing project, or the first asset at fault.
    Resource,
    /// The project, whoever is at fault.
    Project,
    /// Nothing.
    Nothing,
}

/// What is remembered of client tokens. AWS does not document it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Tokens {
    /// Nothing.
    Ignored,
    /// Calls without errors: the same token with the same project and assets
    /// gets the same answer again, and nothing is applied.
    #[value(name = "successes")]
    SuccessesReplayed,
    /// Every 200, also with errors; the same token with another project or
    /// other assets is a 400.
    #[value(name = "all")]
    AllReplayed,
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    /// calls per second
    pub rate: f64,
    /// calls at once
    pub burst: f64,
}
