//! Where every asset of every request is, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use simulator::{Absent, Message, Settings, Simulator, Tokens};
use sitewise_disassociator::dispatch::{ASSET_ATTEMPTS, PROBES};

use crate::history::{Broken, Invariant};
use crate::queue::{Held, Moved};
use crate::scenario::{Asset, HEALING_CODE, Kind, Planned, Scenario, Way};

/// An asset of a project, or what was sent as one.
pub(crate) type Named = (String, String);

/// What is in the dead-letter queue.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) body: String,
    pub(crate) group: Option<String>,
    named: Vec<Named>,
    /// what is said of each asset; nothing where it was not the function that wrote it
    reasons: Vec<(Named, Reason)>,
}

/// Why an asset is in a letter.
#[derive(Clone, Debug)]
struct Reason {
    code: String,
    /// whether it was refused only because others were
    is_presumed: bool,
}

impl Letter {
    /// One that the function wrote.
    pub(crate) fn written(message: &Message) -> Self {
        let named = named(&message.body);
        let body: Value = serde_json::from_str(&message.body).unwrap_or_default();
        let project = body["projectId"].as_str().unwrap_or_default();
        let errors = body["errors"].as_array();
        let reasons = errors.into_iter().flatten().map(|error| {
            let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
            let reason = Reason {
                code: text("code"),
                is_presumed: text("message").starts_with("not tried alone"),
            };
            ((project.to_owned(), text("assetId")), reason)
        });
        Self {
            reasons: reasons.collect(),
            named,
            body: message.body.clone(),
            group: message.group_id.clone(),
        }
    }

    /// One that SQS or Lambda put there, as it was.
    pub(crate) fn kept(body: &str) -> Self {
        Self {
            named: named(body),
            reasons: Vec::new(),
            body: body.to_owned(),
            group: Some("kept".to_owned()),
        }
    }
}

impl From<&Moved> for Letter {
    fn from(moved: &Moved) -> Self {
        Self::kept(&moved.body)
    }
}

/// Everything that is known of where assets are.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) simulator: Simulator,
    pub(crate) letters: Vec<Letter>,
    /// those that someone added back, to stay
    pub(crate) readded: BTreeSet<Named>,
    /// those that someone added back before this message asked for them again
    pub(crate) asked_again: BTreeMap<Named, String>,
    /// what events and callers still hold, by message
    pub(crate) pending: BTreeMap<String, Vec<Named>>,
    /// what a project has or had, or the service says nothing against, so that
    /// its absence there means that it was taken out
    pub(crate) assets: BTreeSet<Named>,
}

impl Ledger {
    /// Tells whether an asset is out of its project, or was before someone
    /// added it back, for all that `message` knows.
    fn is_gone(&self, projects: &Projects, named: &Named, message: &str) -> bool {
        let is_there = projects
            .get(&named.0)
            .is_some_and(|assets| assets.contains(&named.1));
        let is_excused = || {
            self.readded.contains(named)
                || self.asked_again.get(named).is_some_and(|by| by != message)
        };
        self.assets.contains(named) && (!is_there || is_excused())
    }

    /// Checks that each of `of`'s assets is disassociated, in a dead letter, or
    /// in the work queue in another message than `of`'s own.
    pub(crate) fn check_settled(
        &self,
        of: &Planned,
        assets: &[Named],
        message: &str,
        queue: &[Held],
        invariant: Invariant,
    ) -> Result<(), Broken> {
        let projects = self.simulator.projects();
        let elsewhere: BTreeSet<Named> = queue
            .iter()
            .filter(|held| held.id != message)
            .flat_map(|held| named(&held.body))
            .chain(self.letters.iter().flat_map(|letter| letter.named.clone()))
            .collect();
        for asset in assets {
            if !self.is_gone(&projects, asset, message) && !elsewhere.contains(asset) {
                return Err(Broken::new(
                    invariant,
                    format!(
                        "message {message} counts as done, but its asset {} is neither \
                         disassociated nor in a queue",
                        asset.1
                    ),
                ));
            }
        }
        if of.way == Way::Malformed && !self.holds_body(&of.payload(), queue, message) {
            return Err(Broken::new(
                invariant,
                format!("malformed message {message} counts as done, but is in no dead letter"),
            ));
        }
        Ok(())
    }

    fn holds_body(&self, body: &str, queue: &[Held], except: &str) -> bool {
        self.letters.iter().any(|letter| letter.body == body)
            || queue
                .iter()
                .any(|held| held.id != except && held.body == body)
    }

    /// Checks I1: each asset of the requests that have come is somewhere.
    pub(crate) fn check_nothing_is_lost(
        &self,
        requests: &[Planned],
        queue: &[Held],
    ) -> Result<(), Broken> {
        let projects = self.simulator.projects();
        let held: BTreeSet<Named> = queue
            .iter()
            .flat_map(|held| named(&held.body))
            .chain(self.letters.iter().flat_map(|letter| letter.named.clone()))
            .chain(self.pending.values().flatten().cloned())
            .collect();
        for request in requests {
            for asset in assets_of(request) {
                if !held.contains(&asset) && !self.is_gone(&projects, &asset, &request.message) {
                    return Err(Broken::new(
                        Invariant::NothingIsLost,
                        format!("asset {} of message {}", asset.1, request.message),
                    ));
                }
            }
            if request.way == Way::Malformed && !self.holds_body(&request.payload(), queue, "") {
                return Err(Broken::new(
                    Invariant::NothingIsLost,
                    format!("malformed message {}", request.message),
                ));
            }
        }
        Ok(())
    }

    /// Checks I4: what was added back is still there.
    pub(crate) fn check_readded(&self) -> Result<(), Broken> {
        let projects = self.simulator.projects();
        for (project, asset) in &self.readded {
            let is_there = projects
                .get(project)
                .is_some_and(|assets| assets.contains(asset));
            if !is_there {
                return Err(Broken::new(
                    Invariant::ReaddedAssetsStay,
                    format!("asset {asset}, added back to project {project}, was removed again"),
                ));
            }
        }
        Ok(())
    }

    /// Checks I6 when all is over: each asset's fate is the one that it would
    /// have had alone.
    pub(crate) fn check_fates(
        &self,
        requests: &[Planned],
        scenario: &Scenario,
    ) -> Result<(), Broken> {
        let projects = self.simulator.projects();
        let mut reasons: Reasons<'_> = BTreeMap::new();
        for (named, reason) in self.letters.iter().flat_map(|letter| &letter.reasons) {
            reasons.insert(named, reason);
        }
        // What SQS or Lambda gave up is whole in the dead-letter queue.
        let kept: BTreeSet<&Named> = self
            .letters
            .iter()
            .filter(|letter| letter.reasons.is_empty())
            .flat_map(|letter| &letter.named)
            .collect();
        for request in requests.iter().filter(|request| {
            request.way != Way::Malformed
                && !assets_of(request).iter().any(|asset| kept.contains(asset))
        }) {
            for bad in &request.bad_ids {
                let named = (request.project.clone(), bad.clone());
                expect_code(&reasons, &named, "InvalidAssetId")?;
            }
            // A message that comes again when its assets are gone may have most of
            // them refused; then the rest of it is presumed refused as well, though
            // it may be there still.
            let is_mostly_refused = requests.iter().any(|other| {
                other.project == request.project
                    && (other.message == request.message || request.is_shared)
                    && refused_alone(&reasons, other) >= PROBES
            });
            for asset in &request.assets {
                let named = (request.project.clone(), asset.id.clone());
                if request.project_is_missing {
                    expect_code(&reasons, &named, "ResourceNotFoundException")?;
                    continue;
                }
                let is_gone = self.is_gone(&projects, &named, &request.message);
                let reason = reasons.get(&named).copied();
                let is_presumed = reason.is_some_and(|reason| reason.is_presumed);
                if !(is_mostly_refused && is_presumed && may_be_presumed(asset, is_gone, scenario))
                {
                    check_fate(reason, asset, is_gone, scenario)?;
                }
            }
        }
        Ok(())
    }

    /// Picks an asset that someone could add back without harm to the check of
    /// I4: its message repeats its calls, and the service knows them again.
    pub(crate) fn readdable(
        &self,
        requests: &[Planned],
        settings: &Settings,
        place: usize,
    ) -> Option<Named> {
        if settings.tokens == Tokens::Ignored {
            return None;
        }
        let projects = self.simulator.projects();
        let candidates: Vec<Named> = requests
            .iter()
            .filter(|request| request.way.is_queued() && request.repeats_its_calls())
            .flat_map(assets_of)
            .filter(|named| self.is_gone(&projects, named, "") && !self.readded.contains(named))
            .collect();
        let count = candidates.len();
        candidates.into_iter().nth(place.checked_rem(count)?)
    }
}

/// Tells whether an asset may be refused only because others of its request are.
///
/// A letter that is sent back holds what was refused, and what failed otherwise,
/// or was out of the project by then, among it.
fn may_be_presumed(asset: &Asset, is_gone: bool, scenario: &Scenario) -> bool {
    match asset.kind {
        Kind::Foreign | Kind::Unknown => true,
        Kind::Healing if scenario.heals_after >= ASSET_ATTEMPTS => true,
        Kind::Good | Kind::Healing | Kind::Poison => {
            let absent = &scenario.settings.asset_not_in_project;
            is_gone || matches!(absent, Absent::NotFound | Absent::Invalid)
        }
    }
}

/// Checks the fate of an asset that has its own.
fn check_fate(
    reason: Option<&Reason>,
    asset: &Asset,
    is_gone: bool,
    scenario: &Scenario,
) -> Result<(), Broken> {
    let settings = &scenario.settings;
    let code = reason.map(|reason| reason.code.as_str());
    let broken = |what: String| {
        let text = format!("asset {} {what}", asset.id);
        Err(Broken::new(Invariant::NeighboursAreUnharmed, text))
    };
    let absent = match asset.kind {
        Kind::Good | Kind::Healing => {
            return match code {
                None if is_gone => Ok(()),
                None => broken("is still in its project, and nowhere".to_owned()),
                // A reply that was lost makes an asset absent for its retry.
                Some(_) if is_gone && code == code_of(&settings.asset_not_in_project) => Ok(()),
                Some(HEALING_CODE) if asset.kind == Kind::Healing => {
                    if scenario.heals_after < ASSET_ATTEMPTS && !is_gone {
                        return broken("was given up too early".to_owned());
                    }
                    Ok(())
                }
                Some(code) => broken(format!("was there, and is in a letter: {code}")),
            };
        }
        // All that the message had left is in the letter by which SQS gave it up.
        Kind::Poison => return broken("was given up by the function".to_owned()),
        Kind::Foreign => &settings.asset_not_in_project,
        Kind::Unknown => &settings.unknown_asset,
    };
    if code == code_of(absent) {
        return Ok(());
    }
    broken(format!(
        "belongs in a letter with {:?}, found {code:?}",
        code_of(absent)
    ))
}

type Projects = BTreeMap<String, BTreeSet<String>>;

type Reasons<'a> = BTreeMap<&'a Named, &'a Reason>;

/// The code of an absent asset; none where its absence is no failure.
fn code_of(absent: &Absent) -> Option<&str> {
    match absent {
        Absent::Ignore => None,
        Absent::AssetError { code, .. } => Some(code),
        Absent::NotFound => Some("ResourceNotFoundException"),
        Absent::Invalid => Some("InvalidRequestException"),
    }
}

/// How many of a request's assets were refused in a call of their own.
fn refused_alone(reasons: &Reasons<'_>, request: &Planned) -> usize {
    let refusals = [&Absent::NotFound, &Absent::Invalid].map(code_of);
    assets_of(request)
        .iter()
        .filter_map(|asset| reasons.get(asset))
        .filter(|reason| !reason.is_presumed && refusals.contains(&Some(&reason.code)))
        .count()
}

fn expect_code(reasons: &Reasons<'_>, named: &Named, expected: &str) -> Result<(), Broken> {
    let code = reasons.get(named).map(|reason| reason.code.as_str());
    if code == Some(expected) {
        return Ok(());
    }
    Err(Broken::new(
        Invariant::NeighboursAreUnharmed,
        format!(
            "asset {} belongs in a letter with {expected}, found {code:?}",
            named.1
        ),
    ))
}

/// Everything that a request names.
pub(crate) fn assets_of(request: &Planned) -> Vec<Named> {
    if request.way == Way::Malformed {
        return Vec::new();
    }
    let ids = request.assets.iter().map(|asset| &asset.id);
    ids.chain(&request.bad_ids)
        .map(|id| (request.project.clone(), id.clone()))
        .collect()
}

/// Everything that requests in a text name, however deep in it.
pub(crate) fn named(text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_str(text) {
        collect(&value, &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut Vec<Named>) {
    match value {
        Value::String(text) if text.starts_with('{') => found.extend(named(text)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => {
            if let (Some(Value::String(project)), Some(Value::Array(ids))) =
                (fields.get("projectId"), fields.get("assetIds"))
            {
                let ids = ids.iter().filter_map(Value::as_str);
                found.extend(ids.map(|id| (project.clone(), id.to_owned())));
            } else {
                fields.values().for_each(|field| collect(field, found));
            }
        }
        _ => {}
    }
}
