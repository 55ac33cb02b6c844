//! Where every asset of every request is, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use simulator::{Absent, Message, Settings, Simulator, Tokens};
use sitewise_disassociator::aws::retry::ASSET_ROUNDS;

use crate::history::{Broken, Invariant};
use crate::queue::{Held, Moved};
use crate::scenario::{Form, HEALING_CODE, Kind, Planned, Scenario, Way};

/// An asset of a project, or what was sent as one; or [`ALL`] of a project or portal.
pub(crate) type Named = (String, String);

/// Stands for all assets of a project or portal.
pub(crate) const ALL: &str = "*";

/// What is in the dead-letter queue.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) body: String,
    pub(crate) group: Option<String>,
    pub(crate) named: Vec<Named>,
    /// the code that is given for each asset; nothing where it was not the
    /// function that wrote it
    pub(crate) codes: Vec<(Named, String)>,
}

impl Letter {
    /// One that the function wrote.
    pub(crate) fn written(message: &Message) -> Self {
        let body: Value = serde_json::from_str(&message.body).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let errors = body["errors"].as_array();
        let codes = errors.into_iter().flatten().map(|error| {
            let code = text(&error["code"]);
            let named = match named(&message.body).into_iter().next() {
                Some(all) if all.1 == ALL => all,
                _ => (text(&body["projectId"]), text(&error["assetId"])),
            };
            (named, code)
        });
        Self {
            codes: codes.collect(),
            group: message.group_id.clone(),
            ..Self::kept(&message.body)
        }
    }

    /// One that SQS or Lambda put there, as it was.
    pub(crate) fn kept(body: &str) -> Self {
        Self {
            named: named(body),
            codes: Vec::new(),
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
    /// when someone last added it, for each that was added while requests came
    pub(crate) added: BTreeMap<Named, Duration>,
    /// those that a list may have lacked for that reason; what becomes of them is
    /// outside I1 and I2
    pub(crate) unlisted: BTreeSet<Named>,
    /// those that someone added back before this message asked for them again
    pub(crate) asked_again: BTreeMap<Named, String>,
    /// what events and callers still hold, by message
    pub(crate) pending: BTreeMap<String, Vec<Named>>,
    /// what a project has or had, or the service says nothing against, so that
    /// its absence there means that it was taken out
    pub(crate) assets: BTreeSet<Named>,
    /// those that join a whole project, while no list that decides what its
    /// request is for has shown them; what becomes of them is open
    pub(crate) open: BTreeSet<Named>,
    /// what [`ALL`] of each project or portal stands for; itself where that does
    /// not exist
    pub(crate) members: BTreeMap<String, Vec<Named>>,
    /// the portal of each project that has one
    pub(crate) portals: BTreeMap<String, String>,
}

impl Ledger {
    /// Returns what is named, with the assets of whole projects and portals in
    /// their place.
    pub(crate) fn expanded(&self, named: Vec<Named>) -> Vec<Named> {
        let named = named.into_iter().flat_map(|one| match &*one.1 {
            ALL => self.members.get(&one.0).cloned().unwrap_or_default(),
            _ => vec![one],
        });
        named.filter(|one| !self.open.contains(one)).collect()
    }

    /// Returns whether an asset is among those that are held somewhere, by its name
    /// or with its whole project or portal.
    fn is_among(&self, held: &BTreeSet<Named>, named: &Named) -> bool {
        let has_all = |of: &String| held.contains(&(of.clone(), ALL.to_owned()));
        let portal = self.portals.get(&named.0);
        held.contains(named) || has_all(&named.0) || portal.is_some_and(has_all)
    }

    /// Returns whether an asset is out of its project, or was before someone
    /// added it back, for all that `message` knows.
    fn is_gone(&self, projects: &Projects, named: &Named, message: &str) -> bool {
        let is_there = projects
            .get(&named.0)
            .is_some_and(|assets| assets.contains(&named.1));
        let is_excused = || {
            self.readded.contains(named)
                || self.asked_again.get(named).is_some_and(|by| by != message)
        };
        self.assets.contains(named) && (!is_there || is_excused() || self.unlisted.contains(named))
    }

    /// Notes that a list of a project was asked for: it may lack what was added
    /// just before.
    pub(crate) fn note_list(&mut self, project: &str, at: Duration, settings: &Settings) {
        let lacking = self.added.iter().filter(|((of, _), added)| {
            of == project && (**added..**added + settings.added_not_listed).contains(&at)
        });
        self.unlisted
            .extend(lacking.map(|(named, _)| named.clone()));
    }

    /// Notes what joined a whole project and was shown by a list that decides what
    /// its request is for.
    pub(crate) fn note_decided(&mut self, is_decided: impl Fn(&Named) -> bool) {
        let decided = self.open.extract_if(.., |named| is_decided(named));
        decided.for_each(|named| _ = self.unlisted.remove(&named));
    }

    /// Returns those that were left in their project because a list lacked them.
    pub(crate) fn left_unlisted(&self) -> usize {
        let projects = self.simulator.projects();
        let is_there = |(project, id): &&Named| {
            let assets = projects.get(project);
            assets.is_some_and(|assets| assets.contains(id))
        };
        let left = self.unlisted.iter().filter(is_there);
        left.filter(|named| !self.readded.contains(*named)).count()
    }

    /// Checks that each of `of`'s assets is disassociated, in a dead letter, or
    /// in the work queue in another message than `of`'s own.
    pub(crate) fn check_settled(
        &self,
        of: &Planned,
        assets: Vec<Named>,
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
        for asset in &self.expanded(assets) {
            if !self.is_gone(&projects, asset, message) && !self.is_among(&elsewhere, asset) {
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
            for asset in self.expanded(assets_of(request)) {
                if !self.is_among(&held, &asset)
                    && !self.is_gone(&projects, &asset, &request.message)
                {
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
        let codes: BTreeMap<&Named, &str> = self
            .letters
            .iter()
            .flat_map(|letter| &letter.codes)
            .map(|(named, code)| (named, code.as_str()))
            .collect();
        // What SQS or Lambda gave up is whole in the dead-letter queue.
        let kept: BTreeSet<Named> = self
            .letters
            .iter()
            .filter(|letter| letter.codes.is_empty())
            .flat_map(|letter| letter.named.clone())
            .collect();
        for request in requests {
            if request.form == Form::Portal && !request.project_is_missing {
                // Its projects are requests of their own here.
                continue;
            }
            let assets = self.expanded(assets_of(request));
            if assets.iter().any(|asset| self.is_among(&kept, asset)) {
                continue;
            }
            let kinds = request.assets.iter().map(|asset| (&asset.id, asset.kind));
            let kinds: BTreeMap<&String, Kind> = kinds.collect();
            for named in &assets {
                let kind = kinds.get(&named.1).copied();
                let code = codes.get(named).copied();
                let is_gone = self.is_gone(&projects, named, &request.message);
                let is_so = match kind {
                    None if named.1 == ALL => code == Some("ResourceNotFoundException"),
                    None => code == Some("InvalidAssetId"),
                    Some(_) if request.project_is_missing => {
                        code == Some("ResourceNotFoundException")
                    }
                    Some(kind) => may_end(kind, is_gone, code, scenario),
                };
                if !is_so {
                    return Err(Broken::new(
                        Invariant::NeighboursAreUnharmed,
                        format!(
                            "asset {} ({kind:?}) of message {} is {}, and in a dead letter with: \
                             {code:?}",
                            named.1,
                            request.message,
                            if is_gone { "gone" } else { "in its project" },
                        ),
                    ));
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

/// Returns whether this may be an asset's fate, whatever else was asked for.
fn may_end(kind: Kind, is_gone: bool, code: Option<&str>, scenario: &Scenario) -> bool {
    let settings = &scenario.settings;
    // An asset that a list still shows is rejected as one that is not there.
    let is_rejected_as_absent = code.is_some() && code == code_of(&settings.asset_not_in_project);
    let is_stale = is_rejected_as_absent && !settings.removed_stay_listed.is_zero();
    match kind {
        Kind::Good => is_gone && (code.is_none() || is_stale),
        Kind::Healing if code == Some(HEALING_CODE) => scenario.heals_after >= ASSET_ROUNDS,
        Kind::Healing => is_gone && (code.is_none() || is_stale),
        Kind::Foreign | Kind::Unknown => code.is_none(),
        Kind::Descendant => code.is_none() || (is_rejected_as_absent && settings.lists_descendants),
        // Its message is what SQS gives up.
        Kind::Poison => false,
    }
}

type Projects = BTreeMap<String, BTreeSet<String>>;

/// The code of an absent asset; none where its absence is no failure.
fn code_of(absent: &Absent) -> Option<&str> {
    match absent {
        Absent::Ignore => None,
        Absent::AssetError { code, .. } => Some(code),
        Absent::NotFound => Some("ResourceNotFoundException"),
        Absent::Invalid => Some("InvalidRequestException"),
    }
}

/// Everything that a request names.
pub(crate) fn assets_of(request: &Planned) -> Vec<Named> {
    if request.way == Way::Malformed {
        return Vec::new();
    }
    if request.form != Form::Assets {
        return vec![(request.project.clone(), ALL.to_owned())];
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

/// Returns the project or portal that a request for the whole of one is about.
fn whole(fields: &serde_json::Map<String, Value>) -> Option<&str> {
    let forms = [("projectId", "allAssets"), ("portalId", "allProjects")];
    let mut forms = forms.iter();
    let is_all = |flag: &str| fields.get(flag) == Some(&Value::Bool(true));
    forms.find_map(|(id, flag)| fields.get(*id)?.as_str().filter(|_| is_all(flag)))
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
            } else if let Some(of) = whole(fields) {
                found.push((of.to_owned(), ALL.to_owned()));
            } else {
                fields.values().for_each(|field| collect(field, found));
            }
        }
        _ => {}
    }
}
