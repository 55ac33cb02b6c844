//! The simulator itself: it receives requests, applies faults and keeps the
//! record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::call::{Call, Operation};
use crate::fault::{Action, Fault, fails_again};
use crate::settings::{Settings, Throttle};
use crate::sitewise::{self, Answer, Disassociation, Page, SiteWise};
use crate::sqs::{self, Message, Sqs};

/// A request in plain terms.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// What the caller gets to see.
pub(crate) enum Reaction {
    Answer(Answer),
    /// the body's first half, then an end
    Truncated(Answer),
    /// the body's first half, then silence
    StalledBody(Answer),
    Silence,
    Reset,
    Panic(String),
}

struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

struct State {
    settings: Settings,
    sitewise: SiteWise,
    sqs: Sqs,
    /// by numbers that are not used again: a call under way may outlive its fault
    faults: BTreeMap<usize, Fault>,
    next_fault: usize,
    calls: Vec<Call>,
    seen: usize,
    watchers: Vec<UnboundedSender<Call>>,
    bucket: Option<Bucket>,
    dice: u64,
}

/// A simulated SiteWise Monitor and SQS. A clone is the same simulator.
#[derive(Clone)]
pub struct Simulator {
    state: Arc<Mutex<State>>,
    start: Instant,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator").finish_non_exhaustive()
    }
}

impl Simulator {
    /// Makes a simulator without projects and queues.
    pub fn new(settings: Settings) -> Self {
        let dice = settings.seed;
        Self {
            state: Arc::new(Mutex::new(State {
                settings,
                sitewise: SiteWise::default(),
                sqs: Sqs::new(dice),
                faults: BTreeMap::new(),
                next_fault: 0,
                calls: Vec::new(),
                seen: 0,
                watchers: Vec::new(),
                bucket: None,
                dice,
            })),
            start: Instant::now(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a project, or extends it.
    pub fn add_project(&self, project: &str, assets: impl IntoIterator<Item = impl Into<String>>) {
        let mut state = self.state();
        let added_at = (state.seen > 0).then(|| self.start.elapsed());
        let assets = assets.into_iter().map(Into::into);
        state.sitewise.add(project, assets, added_at);
    }

    /// Creates a portal with these projects, or extends it; the projects are created
    /// too.
    pub fn add_portal(&self, portal: &str, projects: impl IntoIterator<Item = impl Into<String>>) {
        let projects: Vec<String> = projects.into_iter().map(Into::into).collect();
        for project in &projects {
            self.add_project(project, [] as [&str; 0]);
        }
        let mut state = self.state();
        let known = state.sitewise.portals.entry(portal.to_owned());
        known.or_default().extend(projects);
    }

    /// Creates an asset that is in no project.
    pub fn add_asset(&self, asset: &str) {
        self.state().sitewise.assets.insert(asset.to_owned());
    }

    /// Creates assets below `root`; they are in no project themselves.
    pub fn add_descendants(
        &self,
        root: &str,
        descendants: impl IntoIterator<Item = impl Into<String>>,
    ) {
        let descendants = descendants.into_iter().map(Into::into);
        self.state().sitewise.add_descendants(root, descendants);
    }

    /// Creates every project that a request in `json` names, with its assets:
    /// wherever in it, also in strings that are JSON themselves. A whole project gets
    /// three assets of its own, a whole portal three such projects. Returns the ids
    /// of the projects that are named.
    pub fn seed_from_event(&self, json: &str) -> Vec<String> {
        let (mut found, mut portals) = (Vec::new(), Vec::new());
        if let Ok(value) = serde_json::from_str(json) {
            requests_in(&value, &mut found, &mut portals);
        }
        for (project, assets) in &found {
            self.add_project(project, assets);
        }
        for portal in portals {
            let projects = numbered(&portal, 35);
            for project in &projects {
                self.add_project(project, numbered(project, 0));
            }
            self.add_portal(&portal, projects);
        }
        let projects: BTreeSet<String> = found.into_iter().map(|(project, _)| project).collect();
        projects.into_iter().collect()
    }

    /// Returns every project with its assets.
    pub fn projects(&self) -> BTreeMap<String, BTreeSet<String>> {
        let state = self.state();
        let projects = state.sitewise.projects.iter();
        projects
            .map(|(id, project)| (id.clone(), project.assets.clone()))
            .collect()
    }

    /// Returns a project's assets; none where there is no such project.
    pub fn project_assets(&self, project: &str) -> BTreeSet<String> {
        let state = self.state();
        let project = state.sitewise.projects.get(project);
        project
            .map(|project| project.assets.clone())
            .unwrap_or_default()
    }

    /// Creates a queue, FIFO where the name ends with `.fifo`, and returns its
    /// URL. A request finds it by the URL's last part, whatever the host.
    pub fn create_queue(&self, name: &str) -> String {
        self.state().sqs.create(name);
        format!("http://simulator.invalid/000000000000/{name}")
    }

    /// Returns a queue's messages, the oldest first.
    pub fn messages(&self, queue: &str) -> Vec<Message> {
        let state = self.state();
        let queue = state.sqs.queues.get(queue);
        queue
            .map(|queue| queue.messages.clone())
            .unwrap_or_default()
    }

    /// Takes all messages out of a queue.
    pub fn take_messages(&self, queue: &str) -> Vec<Message> {
        let mut state = self.state();
        let queue = state.sqs.queues.get_mut(queue);
        queue
            .map(|queue| std::mem::take(&mut queue.messages))
            .unwrap_or_default()
    }

    /// Returns every request so far, in the order of their arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Forgets the requests so far.
    pub fn clear_calls(&self) {
        self.state().calls.clear();
    }

    /// Returns the settings.
    pub fn settings(&self) -> Settings {
        self.state().settings.clone()
    }

    /// Changes the settings, while running too.
    pub fn set_settings(&self, settings: Settings) {
        self.state().settings = settings;
    }

    /// Adds a fault. The first one that fires decides; latencies add up.
    pub fn fault(&self, fault: Fault) {
        let mut state = self.state();
        let number = state.next_fault;
        state.next_fault += 1;
        state.faults.insert(number, fault);
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Returns each request from now on, once it is over: answered, left without
    /// an answer, or given up by its caller.
    pub fn watch(&self) -> UnboundedReceiver<Call> {
        let (watcher, watched) = unbounded_channel();
        self.state().watchers.push(watcher);
        watched
    }

    /// Receives a request and works it off.
    pub(crate) async fn receive(&self, request: Request) -> Reaction {
        let (arrived, delay) = self.state().arrive(&request, self.start);
        let mut under_way = UnderWay {
            simulator: self,
            arrived,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let now = self.start.elapsed();
        let reaction = self.state().react(&mut under_way.arrived, now);
        // It locks the state for itself.
        drop(under_way);
        reaction
    }
}

/// What was decided when a request arrived.
struct Arrived {
    call: Call,
    fault: Option<usize>,
    is_throttled: bool,
    request: Parsed,
}

/// A request from its arrival to its end, which may be its caller's giving up.
struct UnderWay<'a> {
    simulator: &'a Simulator,
    arrived: Arrived,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let call = &self.arrived.call;
        let mut state = self.simulator.state();
        state
            .watchers
            .retain(|watcher| watcher.send(call.clone()).is_ok());
    }
}

/// What a request asks for.
enum Parsed {
    Disassociate(Disassociation),
    List(String, Page),
    Describe(String),
    ListProjects(String, Page),
    DescribePortal(String),
    Sqs(Value),
    /// refused by the service model, for this reason
    Invalid(String),
    Unknown,
}

impl State {
    /// Records a request, and decides what is to happen to it.
    fn arrive(&mut self, request: &Request, start: Instant) -> (Arrived, Duration) {
        let seq = self.seen;
        self.seen += 1;
        let mut call = Call {
            seq,
            at: start.elapsed(),
            operation: Operation::Other,
            method: request.method.clone(),
            host: request.host.clone(),
            path: request.path.clone(),
            headers: request.headers.clone(),
            project: None,
            portal: None,
            assets: Vec::new(),
            failed: Vec::new(),
            listed: Vec::new(),
            token: None,
            queue: None,
            bodies: Vec::new(),
            status: None,
            applied: false,
            invalid: None,
            body: request.body.clone(),
        };
        let parsed = parse(request, &mut call);

        let mut delay = Duration::ZERO;
        let is_sitewise = call.is_sitewise();
        if is_sitewise {
            delay += self.settings.latency;
        }
        let mut fired = None;
        let dice = &mut self.dice;
        let mut roll = || next_share(dice);
        for (&number, fault) in &mut self.faults {
            if !fault.fires(&call, &mut roll) {
                continue;
            }
            match fault.action {
                Action::Latency(latency) => delay += latency,
                _ => {
                    fired = Some(number);
                    break;
                }
            }
        }
        let action = fired
            .and_then(|number| self.faults.get(&number))
            .map(|fault| &fault.action);
        let reaches_service = action.is_none_or(Action::reaches_service);
        let is_throttled = is_sitewise && reaches_service && !self.take_token();
        self.calls.push(call.clone());
        let arrived = Arrived {
            call,
            fault: fired,
            is_throttled,
            request: parsed,
        };
        (arrived, delay)
    }

    fn take_token(&mut self) -> bool {
        let Some(Throttle { rate, burst }) = self.settings.throttle else {
            return true;
        };
        let now = Instant::now();
        let bucket = self.bucket.get_or_insert(Bucket {
            tokens: burst,
            filled_at: now,
        });
        let gained = now.duration_since(bucket.filled_at).as_secs_f64() * rate;
        bucket.tokens = (bucket.tokens + gained).min(burst);
        bucket.filled_at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    fn react(&mut self, arrived: &mut Arrived, now: Duration) -> Reaction {
        let reaction = self.reaction(arrived, now);
        arrived.call.status = match &reaction {
            Reaction::Answer(answer)
            | Reaction::Truncated(answer)
            | Reaction::StalledBody(answer) => Some(answer.status),
            Reaction::Silence | Reaction::Reset | Reaction::Panic(_) => None,
        };
        let call = &arrived.call;
        // The record may have been cleared while the call was under way.
        if let Some(recorded) = self.calls.iter_mut().rfind(|known| known.seq == call.seq) {
            recorded.clone_from(call);
        }
        reaction
    }

    fn reaction(&mut self, arrived: &mut Arrived, now: Duration) -> Reaction {
        let action = arrived
            .fault
            .and_then(|number| self.faults.get(&number))
            .map(|fault| fault.action.clone());
        let is_sqs = matches!(arrived.request, Parsed::Sqs { .. });
        match action {
            Some(Action::Reply {
                status,
                error_type,
                headers,
                body,
            }) => return Reaction::Answer(reply(status, error_type, headers, body, is_sqs)),
            Some(Action::Refuse {
                status,
                error_type,
                message,
            }) => {
                let body = json!({ "message": message }).to_string();
                let answer = reply(status, Some(error_type), Vec::new(), body, is_sqs);
                return Reaction::Answer(answer);
            }
            Some(Action::Stall) => return Reaction::Silence,
            Some(Action::Reset) => return Reaction::Reset,
            Some(Action::Panic(text)) => return Reaction::Panic(text),
            _ => {}
        }
        let answer = if arrived.is_throttled {
            Answer::error(429, "ThrottlingException", "Rate exceeded")
        } else {
            self.apply(arrived, now)
        };
        match action {
            Some(Action::StallAfter) => Reaction::Silence,
            Some(Action::ResetAfter) => Reaction::Reset,
            Some(Action::StallBody) => Reaction::StalledBody(answer),
            Some(Action::Truncate) => Reaction::Truncated(answer),
            Some(Action::Garbage(body)) if !arrived.is_throttled => Reaction::Answer(Answer {
                status: 200,
                headers: Vec::new(),
                body,
            }),
            _ => Reaction::Answer(answer),
        }
    }

    /// Does what the request asks for, with the fault's partial failures.
    fn apply(&mut self, arrived: &mut Arrived, now: Duration) -> Answer {
        let call = &mut arrived.call;
        let is_known = !matches!(arrived.request, Parsed::Unknown);
        let is_signed = call
            .headers
            .get("authorization")
            .is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 "));
        if is_known && !is_signed {
            call.invalid = Some("not signed".to_owned());
            return Answer::error(403, "MissingAuthenticationTokenException", "Not signed.");
        }
        let mut fault = arrived
            .fault
            .and_then(|number| self.faults.get_mut(&number));
        match &arrived.request {
            Parsed::Unknown => Answer {
                status: 404,
                headers: Vec::new(),
                body: String::new(),
            },
            Parsed::Invalid(reason) => Answer::error(400, "InvalidRequestException", reason),
            Parsed::Disassociate(request) => {
                let fails = |asset: &str| failing_asset(fault.as_deref_mut()?, asset);
                let (answer, applied) =
                    self.sitewise
                        .disassociate(request, &self.settings, now, fails);
                call.applied = applied;
                call.failed = sitewise::failed_assets(&answer);
                answer
            }
            Parsed::List(project, page) => {
                let (answer, listed) = self.sitewise.list(project, *page, &self.settings, now);
                call.listed = listed;
                answer
            }
            Parsed::Describe(project) => self.sitewise.describe(project, &self.settings),
            Parsed::ListProjects(portal, page) => {
                let (answer, listed) = self.sitewise.list_projects(portal, *page, &self.settings);
                call.listed = listed;
                answer
            }
            Parsed::DescribePortal(portal) => self.sitewise.describe_portal(portal, &self.settings),
            Parsed::Sqs(request) => {
                let fails = |body: &str| failing_entry(fault.as_deref_mut()?, body);
                let (answer, invalid) = match call.operation {
                    Operation::SendMessage => self.sqs.send(request, now),
                    _ => self.sqs.send_batch(request, now, fails),
                };
                call.applied = answer.status == 200;
                call.invalid = invalid;
                answer
            }
        }
    }
}

/// An answer that a fault gives. AWS JSON, which SQS speaks, has the error's
/// name in the body too.
fn reply(
    status: u16,
    error_type: Option<String>,
    mut headers: Vec<(String, String)>,
    mut body: String,
    is_sqs: bool,
) -> Answer {
    if let (true, Some(name)) = (is_sqs, &error_type) {
        let text = if body.is_empty() { "{}" } else { &body };
        if let Ok(Value::Object(mut fields)) = serde_json::from_str(text) {
            fields.entry("__type").or_insert_with(|| json!(name));
            body = Value::Object(fields).to_string();
        }
    }
    headers.extend(error_type.map(|name| ("x-amzn-errortype".to_owned(), name)));
    Answer {
        status,
        headers,
        body,
    }
}

fn failing_asset(fault: &mut Fault, asset: &str) -> Option<(String, String)> {
    let Action::AssetErrors {
        code,
        message,
        assets,
        heals_after,
    } = &fault.action
    else {
        return None;
    };
    let is_meant = assets.is_empty() || assets.iter().any(|meant| meant == asset);
    (is_meant && fails_again(&mut fault.failed, asset, *heals_after))
        .then(|| (code.clone(), message.clone()))
}

fn failing_entry(fault: &mut Fault, text: &str) -> Option<(String, bool)> {
    let Action::FailEntries {
        bodies_containing,
        code,
        sender_fault,
        heals_after,
    } = &fault.action
    else {
        return None;
    };
    (text.contains(bodies_containing) && fails_again(&mut fault.failed, text, *heals_after))
        .then(|| (code.clone(), *sender_fault))
}

/// Finds out what a request asks for, and notes it in the record.
fn parse(request: &Request, call: &mut Call) -> Parsed {
    if let Some(target) = request.headers.get("x-amz-target") {
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        call.queue = sqs::queue_name(&body);
        call.bodies = sqs::bodies(&body);
        call.operation = match target.as_str() {
            "AmazonSQS.SendMessage" => Operation::SendMessage,
            "AmazonSQS.SendMessageBatch" => Operation::SendMessageBatch,
            _ => return unknown(call, "no such operation"),
        };
        return Parsed::Sqs(body);
    }
    // An endpoint with a path of its own comes before the operation's.
    let parts: Vec<&str> = request.path.split('/').collect();
    if parts.iter().any(|part| [".", ".."].contains(part)) {
        return unknown(call, "the path has a . or ..");
    }
    let portal_of_list = sitewise::parameter(&request.query, "portalId");
    let (operation, id) = match (request.method.as_str(), parts.as_slice()) {
        ("POST", [.., "projects", project, "assets", "disassociate"]) => {
            (Operation::Disassociate, *project)
        }
        ("GET", [.., "projects", project, "assets"]) => (Operation::ListProjectAssets, *project),
        ("GET", [.., "projects", project]) => (Operation::DescribeProject, *project),
        ("GET", [.., "projects"]) => (Operation::ListProjects, portal_of_list.unwrap_or("")),
        ("GET", [.., "portals", portal]) => (Operation::DescribePortal, *portal),
        _ => return unknown(call, "no such operation"),
    };
    call.operation = operation;
    let is_portal = matches!(
        operation,
        Operation::ListProjects | Operation::DescribePortal
    );
    let named = if is_portal {
        &mut call.portal
    } else {
        &mut call.project
    };
    *named = Some(id.to_owned());
    let page =
        || sitewise::page(&request.query).ok_or_else(|| "maxResults or nextToken".to_owned());
    let parsed = match operation {
        Operation::Disassociate => {
            let (request, checked) = sitewise::parse(id, &request.body);
            call.assets.clone_from(&request.assets);
            call.token.clone_from(&request.token);
            if request.has_repeats() {
                // The model allows it; a well-behaved caller does not do it.
                call.invalid = Some("repeated asset ids".to_owned());
            }
            checked.map(|()| Parsed::Disassociate(request))
        }
        Operation::ListProjectAssets => page().map(|page| Parsed::List(id.to_owned(), page)),
        Operation::ListProjects => page().map(|page| Parsed::ListProjects(id.to_owned(), page)),
        Operation::DescribePortal => Ok(Parsed::DescribePortal(id.to_owned())),
        _ => Ok(Parsed::Describe(id.to_owned())),
    };
    let parsed = match sitewise::is_id(id) {
        true => parsed,
        false if is_portal => Err(format!("portalId {id:?}")),
        false => Err(format!("projectId {id:?}")),
    };
    parsed.unwrap_or_else(|reason| {
        call.invalid = Some(reason.clone());
        Parsed::Invalid(reason)
    })
}

fn unknown(call: &mut Call, reason: &str) -> Parsed {
    call.invalid = Some(reason.to_owned());
    Parsed::Unknown
}

/// Collects every request in a JSON value: its project and valid assets, or its
/// portal.
fn requests_in(value: &Value, found: &mut Vec<(String, Vec<String>)>, portals: &mut Vec<String>) {
    match value {
        Value::String(text) if text.trim_start().starts_with(['{', '[', '"']) => {
            if let Ok(inner) = serde_json::from_str(text) {
                requests_in(&inner, found, portals);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| requests_in(item, found, portals)),
        Value::Object(fields) => {
            let id = |name: &str| {
                let id = fields.get(name).and_then(Value::as_str);
                id.filter(|id| sitewise::is_id(id)).map(ToOwned::to_owned)
            };
            let assets = fields.get("assetIds").and_then(Value::as_array);
            if let (Some(project), Some(assets)) = (id("projectId"), assets) {
                let ids = assets.iter().filter_map(Value::as_str);
                let valid = ids.filter(|id| sitewise::is_id(id)).map(ToOwned::to_owned);
                found.push((project, valid.collect()));
            }
            if fields.get("allAssets") == Some(&json!(true)) {
                let project = id("projectId");
                found.extend(project.map(|project| (project.clone(), numbered(&project, 0))));
            }
            if fields.get("allProjects") == Some(&json!(true)) {
                portals.extend(id("portalId"));
            }
            let fields = fields.values();
            fields.for_each(|field| requests_in(field, found, portals));
        }
        _ => {}
    }
}

/// Returns three ids that differ from `id` in the digit at `position`.
fn numbered(id: &str, position: usize) -> Vec<String> {
    let (before, digit, after) = (
        &id[..position],
        &id[position..=position],
        &id[position + 1..],
    );
    let others = "0123".chars().filter(|other| digit != other.to_string());
    let ids = others.map(|other| format!("{before}{other}{after}"));
    ids.take(3).collect()
}

/// The next number from 0 to 1 of a splitmix64 sequence (public domain, by
/// Sebastiano Vigna).
fn next_share(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
    let share = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
    share
}
