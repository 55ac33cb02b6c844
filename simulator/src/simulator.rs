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
use crate::sqs::{self, Message, Sqs, Visibility};

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
        let assets: Vec<String> = assets.into_iter().map(Into::into).collect();
        state.sitewise.assets.extend(assets.iter().cloned());
        state
            .sitewise
            .projects
            .entry(project.to_owned())
            .or_default()
            .extend(assets);
    }

    /// Creates an asset that is in no project.
    pub fn add_asset(&self, asset: &str) {
        self.state().sitewise.assets.insert(asset.to_owned());
    }

    /// Creates every project that a request in `json` names, with its assets:
    /// wherever in it, also in strings that are JSON themselves. Returns the
    /// projects' ids.
    pub fn seed_from_event(&self, json: &str) -> Vec<String> {
        let mut found = Vec::new();
        if let Ok(value) = serde_json::from_str(json) {
            requests_in(&value, &mut found);
        }
        for (project, assets) in &found {
            self.add_project(project, assets);
        }
        let projects: BTreeSet<String> = found.into_iter().map(|(project, _)| project).collect();
        projects.into_iter().collect()
    }

    /// Returns every project with its assets.
    pub fn projects(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.state().sitewise.projects.clone()
    }

    /// Returns a project's assets; none where there is no such project.
    pub fn project_assets(&self, project: &str) -> BTreeSet<String> {
        let state = self.state();
        state
            .sitewise
            .projects
            .get(project)
            .cloned()
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

    /// Returns the changes of visibility that a queue has taken, the oldest first.
    pub fn visibilities(&self, queue: &str) -> Vec<Visibility> {
        let state = self.state();
        let queue = state.sqs.queues.get(queue);
        queue
            .map(|queue| queue.visibilities.clone())
            .unwrap_or_default()
    }

    /// Takes all changes of visibility out of a queue.
    pub fn take_visibilities(&self, queue: &str) -> Vec<Visibility> {
        let mut state = self.state();
        let queue = state.sqs.queues.get_mut(queue);
        queue
            .map(|queue| std::mem::take(&mut queue.visibilities))
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

/// What is asked of SQS.
#[derive(Clone, Copy)]
enum SqsAction {
    Send,
    SendBatch,
    ChangeVisibilityBatch,
}

enum Parsed {
    Disassociate(Disassociation),
    List { project: String, page: Option<Page> },
    Sqs { request: Value, action: SqsAction },
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
            assets: Vec::new(),
            token: None,
            queue: None,
            bodies: Vec::new(),
            receipts: Vec::new(),
            status: None,
            applied: false,
            invalid: None,
            body: request.body.clone(),
        };
        let parsed = parse(request, &mut call);

        let mut delay = Duration::ZERO;
        let is_sitewise = matches!(
            call.operation,
            Operation::Disassociate | Operation::ListProjectAssets
        );
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
            Parsed::List { project, page } => match (&call.invalid, page) {
                (None, Some(page)) => self.sitewise.list(project, *page),
                (reason, _) => {
                    let reason = reason.as_deref().unwrap_or_default();
                    Answer::error(400, "InvalidRequestException", reason)
                }
            },
            Parsed::Disassociate(request) => {
                let is_repeat = |reason: &String| reason.starts_with("repeated");
                if let Some(reason) = call.invalid.as_ref().filter(|reason| !is_repeat(reason)) {
                    return Answer::error(400, "InvalidRequestException", reason);
                }
                let (answer, applied) =
                    self.sitewise
                        .disassociate(request, &self.settings, |asset| {
                            failing_asset(fault.as_deref_mut()?, asset)
                        });
                call.applied = applied;
                answer
            }
            Parsed::Sqs { request, action } => {
                let fails = |text: &str| failing_entry(fault.as_deref_mut()?, text);
                let (answer, invalid) = match action {
                    SqsAction::Send => self.sqs.send(request, now),
                    SqsAction::SendBatch => self.sqs.send_batch(request, now, fails),
                    SqsAction::ChangeVisibilityBatch => {
                        self.sqs.change_visibility_batch(request, now, fails)
                    }
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
        let (operation, action) = match target.as_str() {
            "AmazonSQS.SendMessage" => (Operation::SendMessage, SqsAction::Send),
            "AmazonSQS.SendMessageBatch" => (Operation::SendMessageBatch, SqsAction::SendBatch),
            "AmazonSQS.ChangeMessageVisibilityBatch" => (
                Operation::ChangeMessageVisibilityBatch,
                SqsAction::ChangeVisibilityBatch,
            ),
            _ => {
                call.invalid = Some("no such operation".to_owned());
                return Parsed::Unknown;
            }
        };
        call.operation = operation;
        let request: Value = serde_json::from_str(&request.body).unwrap_or_default();
        call.queue = sqs::queue_name(&request);
        call.bodies = sqs::bodies(&request);
        call.receipts = sqs::receipts(&request);
        return Parsed::Sqs { request, action };
    }
    // An endpoint with a path of its own comes before the operation's.
    let parts: Vec<&str> = request.path.split('/').collect();
    if parts.iter().any(|part| [".", ".."].contains(part)) {
        call.invalid = Some("the path has a . or ..".to_owned());
        return Parsed::Unknown;
    }
    match (request.method.as_str(), parts.as_slice()) {
        ("POST", [.., "projects", project, "assets", "disassociate"]) => {
            let (request, invalid) = sitewise::parse(project, &request.body);
            call.operation = Operation::Disassociate;
            call.project = Some(request.project.clone());
            call.assets.clone_from(&request.assets);
            call.token.clone_from(&request.token);
            call.invalid = invalid;
            Parsed::Disassociate(request)
        }
        ("GET", [.., "projects", project, "assets"]) => {
            call.operation = Operation::ListProjectAssets;
            call.project = Some((*project).to_owned());
            let page = sitewise::page(&request.query);
            call.invalid = if !sitewise::is_id(project) {
                Some(format!("projectId {project:?}"))
            } else if page.is_none() {
                Some("maxResults or nextToken".to_owned())
            } else {
                None
            };
            Parsed::List {
                project: (*project).to_owned(),
                page,
            }
        }
        _ => {
            call.invalid = Some("no such operation".to_owned());
            Parsed::Unknown
        }
    }
}

/// Collects every request in a JSON value: its project and valid assets.
fn requests_in(value: &Value, found: &mut Vec<(String, Vec<String>)>) {
    match value {
        Value::String(text) if text.trim_start().starts_with(['{', '[', '"']) => {
            if let Ok(inner) = serde_json::from_str(text) {
                requests_in(&inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| requests_in(item, found)),
        Value::Object(fields) => {
            let project = fields.get("projectId").and_then(Value::as_str);
            let assets = fields.get("assetIds").and_then(Value::as_array);
            if let (Some(project), Some(assets)) =
                (project.filter(|id| sitewise::is_id(id)), assets)
            {
                let ids = assets.iter().filter_map(Value::as_str);
                let valid = ids.filter(|id| sitewise::is_id(id)).map(ToOwned::to_owned);
                found.push((project.to_owned(), valid.collect()));
            }
            fields.values().for_each(|field| requests_in(field, found));
        }
        _ => {}
    }
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
