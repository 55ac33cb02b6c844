//! What a seed stands for: requests, how the service behaves, what goes wrong
//! and when.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use simulator::{Absent, Action, Fault, MissingList, Names, Operation, Settings, Throttle, Tokens};

use crate::PANIC;
use crate::queue::{QueueSettings, dead_letter_queue};
use crate::sandbox::FunctionSettings;

/// The code that the simulator gives an absent asset inside a 200.
const ABSENT_CODE: &str = "NOT_THERE";

/// The code of an asset that fails a few times inside a 200.
pub(crate) const HEALING_CODE: &str = "INTERNAL_FAILURE";

/// Everything that one seed decides before the run starts.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) settings: Settings,
    pub(crate) queue: QueueSettings,
    /// the most records of one invocation
    pub(crate) batch_size: usize,
    pub(crate) sandboxes: usize,
    pub(crate) fan_out_assets: usize,
    pub(crate) call_concurrency: usize,
    pub(crate) requests: Vec<Planned>,
    pub(crate) storms: Vec<Storm>,
    /// the share of invocations whose process dies at some await point
    pub(crate) crashes: f64,
    /// the share of invocations whose answer never arrives
    pub(crate) lost_answers: f64,
    /// the share of invocations with very little time
    pub(crate) hurried: f64,
    /// whether someone adds assets back while messages are redelivered
    pub(crate) readds: bool,
    /// how often an asset fails that heals
    pub(crate) heals_after: u32,
    /// how calls fail that always do
    pub(crate) poison: Fault,
    pub(crate) poison_name: &'static str,
    /// when everything that goes wrong stops
    pub(crate) calm_at: Duration,
    /// whether an outage outlasts the redrive policy
    pub(crate) is_endless: bool,
    /// whether the dead letters are sent back once at the end
    pub(crate) redrives: bool,
}

/// A fault, and when it is in force.
#[derive(Clone, Debug)]
pub(crate) struct Storm {
    pub(crate) name: String,
    pub(crate) fault: Fault,
}

/// A request to come.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) message: String,
    pub(crate) form: Form,
    /// the project, or the portal
    pub(crate) project: String,
    pub(crate) project_is_missing: bool,
    pub(crate) assets: Vec<Asset>,
    pub(crate) bad_ids: Vec<String>,
    pub(crate) token: Option<String>,
    pub(crate) way: Way,
    pub(crate) group: String,
    pub(crate) arrives_at: Duration,
    /// whether another request names some of its assets as well
    pub(crate) is_shared: bool,
    /// whether someone adds its assets back right before it comes, for an
    /// earlier request was about the same ones
    pub(crate) asks_again: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Asset {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// when it is added to its project; before everything else where there is no
    /// time
    pub(crate) joins_at: Option<Duration>,
}

/// What a request is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// assets that it names
    Assets,
    /// a whole project, with the assets that it has
    Project,
    /// a whole portal
    Portal,
    /// a whole project of this portal: nobody sends it but the function
    ProjectOf(String),
}

/// What the service will say of an asset, once nothing else goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// It is in the project.
    Good,
    /// It is in the project, and fails a few times inside a 200.
    Healing,
    /// It is elsewhere.
    Foreign,
    /// There is no such asset.
    Unknown,
    /// It is below an asset of the project, and a list may show it for that.
    Descendant,
    /// It is in the project, and each call with it fails, always.
    Poison,
}

/// How a request comes to the function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// a message whose body is the request
    Body,
    /// a message whose body is an EventBridge event
    Envelope,
    /// a message whose body is no request
    Malformed,
    /// an EventBridge rule that invokes the function
    Rule,
    /// an SNS topic that invokes the function
    Topic,
    /// a caller who waits for the report
    Direct,
}

impl Way {
    pub(crate) fn is_queued(self) -> bool {
        matches!(self, Self::Body | Self::Envelope | Self::Malformed)
    }
}

impl Planned {
    fn request(&self) -> Value {
        let ids: Vec<&str> = self
            .assets
            .iter()
            .map(|asset| asset.id.as_str())
            .chain(self.bad_ids.iter().map(String::as_str))
            .collect();
        let mut request = match self.form {
            Form::Assets => json!({"projectId": self.project, "assetIds": ids}),
            Form::Portal => json!({"portalId": self.project, "allProjects": true}),
            _ => json!({"projectId": self.project, "allAssets": true}),
        };
        if let Some(token) = &self.token {
            request["clientToken"] = json!(token);
        }
        request
    }

    /// Returns the message's body, or the event that invokes the function.
    pub(crate) fn payload(&self) -> String {
        let request = self.request();
        match self.way {
            Way::Body | Way::Direct => request.to_string(),
            Way::Malformed => format!("{{\"message\": {:?}, ", self.message),
            Way::Envelope | Way::Rule => json!({
                "version": "0", "id": self.message, "detail-type": "Assets Decommissioned",
                "source": "com.example.maintenance", "detail": request,
            })
            .to_string(),
            Way::Topic => json!({"Records": [{"EventSource": "aws:sns", "Sns": {
                "Type": "Notification", "MessageId": self.message, "TopicArn": "arn:topic",
                "Message": request.to_string(),
            }}]})
            .to_string(),
        }
    }

    /// Returns the asset that its descendants are below.
    pub(crate) fn root(&self) -> Option<&Asset> {
        let mut assets = self.assets.iter();
        assets.find(|asset| asset.kind == Kind::Good)
    }

    /// Returns whether it can never be done.
    pub(crate) fn is_poison(&self) -> bool {
        self.assets.iter().any(|asset| asset.kind == Kind::Poison)
    }

    /// Returns whether every call for it is the same at every delivery: its
    /// tokens are its own, and no asset of it is ever tried apart from others.
    pub(crate) fn repeats_its_calls(&self) -> bool {
        self.token.is_some()
            && self.form == Form::Assets
            && !self.is_shared
            && !self.project_is_missing
            && self.assets.iter().all(|asset| asset.kind == Kind::Good)
    }
}

impl Scenario {
    pub(crate) fn draw(dice: &mut Rng) -> Self {
        let is_endless = dice.f64() < 0.1;
        let is_fifo = dice.f64() < 0.25;
        let calm_at = Duration::from_secs(if is_endless { 7200 } else { 2400 });
        let settings = settings(dice);
        let mut requests = requests(dice);
        // What stays for good holds up its FIFO group, as it must.
        if !is_fifo && !is_endless && dice.f64() < 0.2 {
            poison(&mut requests, calm_at, dice);
        }
        if dice.f64() < 0.5 {
            requests.push(whole_project(Form::Project, dice));
        }
        if dice.f64() < 0.4 {
            requests.extend(whole_portal(dice));
        }
        let (poison_name, poison) = poison_action(dice);
        let storms = if is_endless {
            vec![endless(dice, calm_at)]
        } else {
            (0..dice.usize(0..6))
                .map(|_| storm(dice, dead_letter_queue(is_fifo)))
                .collect()
        };
        let mut often = |shares: &[f64]| shares[dice.usize(0..shares.len())];
        Self {
            queue: QueueSettings {
                is_fifo,
                visibility: Duration::from_secs(420),
                max_receive_count: if is_endless { 5 } else { 30 },
                duplicates: often(&[0.0, 0.0, 0.1, 0.5]),
            },
            crashes: often(&[0.0, 0.0, 0.1, 0.4]),
            lost_answers: often(&[0.0, 0.0, 0.1, 0.4]),
            hurried: often(&[0.0, 0.0, 0.3]),
            readds: often(&[0.0, 1.0]) > 0.0,
            redrives: often(&[0.0, 1.0]) > 0.0,
            batch_size: dice.usize(1..=20),
            sandboxes: dice.usize(1..=3),
            fan_out_assets: [100, 150, 1000][dice.usize(0..3)],
            // One call at a time of a slow service is not enough for some
            // messages: see the limits in docs/guarantees.md.
            call_concurrency: dice.usize(1..=8).max(
                if settings.latency < Duration::from_millis(100) {
                    1
                } else {
                    2
                },
            ),
            heals_after: dice.u32(1..6),
            poison: Fault::on(Operation::Disassociate).action(poison),
            poison_name,
            settings,
            requests,
            storms,
            calm_at,
            is_endless,
        }
    }
}

impl Scenario {
    /// Returns how its functions are configured.
    pub(crate) fn function(&self) -> FunctionSettings {
        FunctionSettings {
            is_fifo: self.queue.is_fifo,
            fan_out_assets: self.fan_out_assets,
            call_concurrency: self.call_concurrency,
        }
    }

    /// Names the kinds of fault in it.
    pub(crate) fn faults(&self) -> Vec<String> {
        let storms = self.storms.iter().map(|storm| storm.name.clone());
        let settings = &self.settings;
        let others = [
            ("processes die", self.crashes > 0.0),
            ("answers get lost", self.lost_answers > 0.0),
            ("little time", self.hurried > 0.0),
            ("duplicate deliveries", self.queue.duplicates > 0.0),
            ("a rate limit", settings.throttle.is_some()),
            (
                "lists of what is gone",
                !settings.removed_stay_listed.is_zero(),
            ),
            (
                "lists without what is new",
                !settings.added_not_listed.is_zero(),
            ),
            ("lists of descendants", settings.lists_descendants),
            (
                self.poison_name,
                self.requests.iter().any(Planned::is_poison),
            ),
        ];
        let others = others.into_iter().filter(|(_, is_so)| *is_so);
        storms
            .chain(others.map(|(name, _)| name.to_owned()))
            .collect()
    }

    /// Says what it is in one line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{:?}; {:?}; up to {} record(s) at a time, {} process(es), fan-out {}, {} call(s) at \
             a time; faults: {}",
            self.settings,
            self.queue,
            self.batch_size,
            self.sandboxes,
            self.fan_out_assets,
            self.call_concurrency,
            self.faults().join(", ")
        )
    }
}

fn settings(dice: &mut Rng) -> Settings {
    Settings {
        asset_not_in_project: absent(dice),
        unknown_asset: absent(dice),
        tokens: [
            Tokens::Ignored,
            Tokens::SuccessesReplayed,
            Tokens::AllReplayed,
        ][dice.usize(0..3)],
        missing_list: [
            MissingList::NotFound,
            MissingList::Invalid,
            MissingList::Empty,
        ][dice.usize(0..3)],
        removed_stay_listed: rarely(dice, 0.3),
        added_not_listed: rarely(dice, 0.05),
        lists_descendants: dice.f64() < 0.3,
        not_found_names: [Names::Resource, Names::Project, Names::Nothing][dice.usize(0..3)],
        latency: Duration::from_millis(dice.u64(0..200)),
        throttle: (dice.f64() < 0.3).then(|| Throttle {
            rate: 2.0 + dice.f64() * 48.0,
            burst: 1.0 + dice.f64() * 19.0,
        }),
        seed: dice.u64(..),
    }
}

/// Draws how long a list is behind, where it is.
fn rarely(dice: &mut Rng, share: f64) -> Duration {
    if dice.f64() < share {
        Duration::from_millis([400, 5_000, 60_000, 900_000][dice.usize(0..4)])
    } else {
        Duration::ZERO
    }
}

fn absent(dice: &mut Rng) -> Absent {
    match dice.u8(0..4) {
        0 => Absent::Ignore,
        1 => Absent::AssetError {
            code: ABSENT_CODE.to_owned(),
            message: "The asset is not there.".to_owned(),
        },
        2 => Absent::NotFound,
        _ => Absent::Invalid,
    }
}

fn id(dice: &mut Rng) -> String {
    let [a, b] = [dice.u64(..), dice.u64(..)];
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a & 0xffff,
        (a >> 16) & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

fn requests(dice: &mut Rng) -> Vec<Planned> {
    let projects: Vec<(String, bool)> = (0..dice.usize(1..=3))
        .map(|_| (id(dice), dice.f64() < 0.15))
        .collect();
    // All at a few moments, so that they share events, or each at its own.
    let moments: Vec<u64> = (0..[3, 900][dice.usize(0..2)])
        .map(|_| dice.u64(0..900))
        .collect();
    let mut requests: Vec<Planned> = Vec::new();
    for _ in 0..dice.usize(1..=12) {
        let (project, project_is_missing) = projects[dice.usize(0..projects.len())].clone();
        let way = match dice.u8(0..20) {
            0..=10 => Way::Body,
            11..=12 => Way::Envelope,
            13..=14 => Way::Malformed,
            15..=16 => Way::Rule,
            17 => Way::Topic,
            _ => Way::Direct,
        };
        let size = [1, 1, 1, 2, 5, 30, 99, 100, 101, 150, 250][dice.usize(0..11)];
        let mut assets: Vec<Asset> = (0..size)
            .map(|_| Asset {
                id: id(dice),
                kind: Kind::Good,
                joins_at: None,
            })
            .collect();
        if dice.f64() < 0.4 {
            let kinds = [
                Kind::Foreign,
                Kind::Unknown,
                Kind::Healing,
                Kind::Descendant,
            ];
            let only = (dice.f64() < 0.5).then(|| kinds[dice.usize(0..4)]);
            // Many where it costs little: what is gone.
            let most = match only {
                Some(Kind::Foreign | Kind::Unknown) if dice.bool() => size,
                _ => 4,
            };
            for _ in 0..dice.usize(1..=most) {
                let kind = only.unwrap_or(kinds[dice.usize(0..4)]);
                let place = dice.usize(0..assets.len());
                assets[place].kind = kind;
            }
        }
        let mut is_shared = false;
        if dice.f64() < 0.1
            && let Some(other) = requests.last_mut()
            && other.project == project
            && other.way != Way::Malformed
        {
            other.is_shared = true;
            is_shared = true;
            assets.extend(other.assets.iter().take(20).cloned());
        }
        requests.push(Planned {
            message: id(dice),
            form: Form::Assets,
            project,
            project_is_missing,
            bad_ids: (0..dice.usize(0..8).saturating_sub(5))
                .map(|_| format!("bad-{}", dice.u32(..)))
                .collect(),
            token: (dice.f64() < 0.3).then(|| id(dice)),
            way,
            group: ["a", "b"][dice.usize(0..2)].to_owned(),
            arrives_at: Duration::from_secs(moments[dice.usize(0..moments.len())]),
            is_shared,
            asks_again: false,
            assets,
        });
    }
    if dice.f64() < 0.3 {
        let place = dice.usize(0..requests.len());
        let again = asked_again(&mut requests[place], dice);
        requests.extend(again);
    }
    if dice.f64() < 0.2 {
        let place = dice.usize(0..requests.len());
        let twin = twin(&mut requests[place], dice);
        requests.extend(twin);
    }
    requests
}

/// Draws a request for a whole project, with assets that join it around the time
/// when the request comes.
fn whole_project(form: Form, dice: &mut Rng) -> Planned {
    let arrives_at = Duration::from_secs(dice.u64(600..1200));
    let project_is_missing = form == Form::Project && dice.f64() < 0.15;
    let size = [0, 1, 1, 5, 100, 101, 300][dice.usize(0..7)];
    let mut assets = Vec::new();
    for number in 0..if project_is_missing { 0 } else { size } {
        let kind = match dice.u8(0..40) {
            0 => Kind::Healing,
            1 => Kind::Descendant,
            _ => Kind::Good,
        };
        let joins_after = [0, 300_000, 600_000, 601_000, 602_000, 900_000][dice.usize(0..6)];
        let joins_at = arrives_at + Duration::from_millis(joins_after + dice.u64(0..1000))
            - Duration::from_secs(600);
        let joins_late = number > 0 && kind == Kind::Good && dice.u8(0..10) == 0;
        assets.push(Asset {
            id: id(dice),
            kind,
            joins_at: joins_late.then_some(joins_at),
        });
    }
    Planned {
        message: id(dice),
        form,
        project: id(dice),
        project_is_missing,
        assets,
        bad_ids: Vec::new(),
        token: (dice.f64() < 0.3).then(|| id(dice)),
        way: [
            Way::Body,
            Way::Body,
            Way::Envelope,
            Way::Rule,
            Way::Topic,
            Way::Direct,
        ][dice.usize(0..6)],
        group: ["a", "b"][dice.usize(0..2)].to_owned(),
        arrives_at,
        is_shared: false,
        asks_again: false,
    }
}

/// Draws a request for a whole portal, and the projects that it has.
fn whole_portal(dice: &mut Rng) -> Vec<Planned> {
    let mut portal = whole_project(Form::Portal, dice);
    portal.assets.clear();
    portal.project_is_missing = dice.f64() < 0.15;
    let projects = if portal.project_is_missing {
        0
    } else {
        dice.usize(0..5)
    };
    let of_portal = Form::ProjectOf(portal.project.clone());
    let mut requests: Vec<Planned> = (0..projects)
        .map(|_| whole_project(of_portal.clone(), dice))
        .collect();
    for project in &mut requests {
        for asset in &mut project.assets {
            let joins_at = asset.joins_at.map(|at| at + portal.arrives_at);
            asset.joins_at = joins_at.map(|at| at.saturating_sub(project.arrives_at));
        }
        project.arrives_at = portal.arrives_at;
    }
    requests.push(portal);
    requests
}

/// Makes one asset of a message one that the service always fails on, and has
/// messages for the same project come with it: at times when nothing else is
/// wrong.
fn poison(requests: &mut [Planned], calm_at: Duration, dice: &mut Rng) {
    let mut plain: Vec<&mut Planned> = requests
        .iter_mut()
        .filter(|request| {
            matches!(request.way, Way::Body | Way::Envelope)
                && !request.is_shared
                && !request.project_is_missing
        })
        .collect();
    if plain.is_empty() {
        return;
    }
    let poisoned = plain.swap_remove(dice.usize(0..plain.len()));
    poisoned.token = None;
    if dice.bool() {
        poisoned.arrives_at = calm_at + Duration::from_secs(60);
    }
    let place = dice.usize(0..poisoned.assets.len());
    poisoned.assets[place].kind = Kind::Poison;
    for request in plain {
        if request.project == poisoned.project && dice.f64() < 0.5 {
            request.arrives_at = poisoned.arrives_at;
        }
    }
}

/// Draws how a call fails in which there is an asset that the service always
/// fails on.
fn poison_action(dice: &mut Rng) -> (&'static str, Action) {
    match dice.u8(0..10) {
        0..=3 => (
            "poison by statuses",
            status([500, 503, 409, 418][dice.usize(0..4)], None),
        ),
        4 => ("poison by garbage", garbage()),
        5 => ("poison by resets", Action::Reset),
        6 => ("poison by lost replies", Action::ResetAfter),
        7 => ("poison by bodies cut short", Action::Truncate),
        8 => ("poison by silence", Action::Stall),
        _ => ("poison by bodies that stall", Action::StallBody),
    }
}

fn garbage() -> Action {
    Action::Garbage("<html>no</html>".to_owned())
}

/// Makes a second message of the same text that comes with the first.
fn twin(first: &mut Planned, dice: &mut Rng) -> Option<Planned> {
    (first.way.is_queued() && first.way != Way::Malformed && !first.asks_again).then(|| {
        first.is_shared = true;
        Planned {
            message: id(dice),
            ..first.clone()
        }
    })
}

/// Makes a later request for all that an earlier one was about, and no other.
fn asked_again(earlier: &mut Planned, dice: &mut Rng) -> Option<Planned> {
    let is_plain = earlier.way == Way::Body
        && !earlier.is_shared
        && !earlier.project_is_missing
        && earlier.assets.len() <= 100
        && earlier.assets.iter().all(|asset| asset.kind == Kind::Good);
    is_plain.then(|| {
        earlier.is_shared = true;
        Planned {
            message: id(dice),
            token: None,
            arrives_at: earlier.arrives_at + Duration::from_secs(dice.u64(1..1800)),
            asks_again: true,
            ..earlier.clone()
        }
    })
}

/// Draws one of the things that go wrong for a while.
fn storm(dice: &mut Rng, dead_letter_queue: &str) -> Storm {
    let from = Duration::from_secs(dice.u64(0..1200));
    let time = from..from + Duration::from_secs(dice.u64(5..1200));
    let share = [1.0, 1.0, 0.5, 0.2][dice.usize(0..4)];
    let (name, fault) = match dice.u8(0..10) {
        0..=6 => sitewise_storm(dice),
        _ => sqs_storm(dice, dead_letter_queue),
    };
    Storm {
        name,
        fault: fault.probability(share).during(time),
    }
}

/// Draws which SiteWise operations something is wrong with.
fn target(dice: &mut Rng) -> (&'static str, Fault) {
    match dice.u8(0..4) {
        0..=1 => ("calls", Fault::on(Operation::Disassociate)),
        2 => ("reads", Fault::reads()),
        _ => ("calls and reads", Fault::sitewise()),
    }
}

fn sitewise_storm(dice: &mut Rng) -> (String, Fault) {
    if dice.u8(0..20) == 0 {
        let (code, name) = [
            (404, "ResourceNotFoundException"),
            (400, "InvalidRequestException"),
        ][dice.usize(0..2)];
        let fault = Fault::on(Operation::ListProjectAssets).action(status(code, Some(name)));
        return ("lists are refused".to_owned(), fault);
    }
    let (operations, fault) = target(dice);
    let (name, action) = match dice.u8(0..18) {
        0..=1 => ("throttling", status(429, Some("ThrottlingException"))),
        2 => ("throttling without a name", status(429, None)),
        3 => (
            "internal failures",
            status(500, Some("InternalFailureException")),
        ),
        4 => ("unavailable", status(503, None)),
        5 => ("resets", Action::Reset),
        6..=7 => ("lost replies", Action::ResetAfter),
        8 => ("silence", Action::Stall),
        9 => ("silence after the work is done", Action::StallAfter),
        10 => ("bodies that stall", Action::StallBody),
        11 => ("bodies cut short", Action::Truncate),
        12 => ("garbage", garbage()),
        13 => (
            "successes of an error's type",
            status(200, Some("InternalFailureException")),
        ),
        14 => (
            "expired credentials",
            status(403, Some("ExpiredTokenException")),
        ),
        15 => (
            "statuses nobody knows",
            status([302, 409, 418][dice.usize(0..3)], None),
        ),
        16 => (
            "slowness",
            Action::Latency(Duration::from_millis(dice.u64(1000..15_000))),
        ),
        _ => ("a defect", Action::Panic(PANIC.to_owned())),
    };
    (format!("{name} ({operations})"), fault.action(action))
}

fn sqs_storm(dice: &mut Rng, dead_letter_queue: &str) -> (String, Fault) {
    let dead_letters = || Fault::sqs().queue(dead_letter_queue);
    let (name, fault, action) = match dice.u8(0..7) {
        0 => ("SQS fails", Fault::sqs(), status(500, None)),
        1 => ("SQS is silent", Fault::sqs(), Action::Stall),
        2 => ("SQS loses its replies", Fault::sqs(), Action::ResetAfter),
        3 => (
            "entries fail inside a 200",
            Fault::sqs(),
            Action::FailEntries {
                bodies_containing: String::new(),
                code: "InternalError".to_owned(),
                sender_fault: false,
                heals_after: (dice.f64() < 0.5).then(|| dice.u32(1..4)),
            },
        ),
        4 => (
            "the dead-letter queue is gone",
            dead_letters(),
            status(400, Some("AWS.SimpleQueueService.NonExistentQueue")),
        ),
        5 => (
            "no right to the dead-letter queue",
            dead_letters(),
            status(403, Some("AccessDenied")),
        ),
        _ => (
            "a defect while sending",
            Fault::sqs(),
            Action::Panic(PANIC.to_owned()),
        ),
    };
    (name.to_owned(), fault.action(action))
}

/// An outage that outlasts the redrive policy.
fn endless(dice: &mut Rng, until: Duration) -> Storm {
    let (operations, fault) = target(dice);
    let action = status([403, 429, 500, 503][dice.usize(0..4)], None);
    Storm {
        name: format!("an endless outage ({operations})"),
        fault: fault.during(Duration::ZERO..until).action(action),
    }
}

/// Answers with a status and an error type, and does nothing.
pub(crate) fn status(status: u16, name: Option<&str>) -> Action {
    Action::Reply {
        status,
        error_type: name.map(ToOwned::to_owned),
        headers: Vec::new(),
        body: String::new(),
    }
}
