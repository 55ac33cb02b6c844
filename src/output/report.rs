//! The report: what became of one request.
//!
//! Owns its form (contract, sections 3 and 7). It must not decide what became of
//! anything.

use std::borrow::Cow;
use std::collections::HashMap;
use std::slice;

use serde::Serialize;
use serde_json::{Value, json};

use super::response::Counts;
use crate::input::request::{Request, Scope};
use crate::outcome::{DryRun, DryRunProject, Failure};
use crate::settle::{Destination, Item, Settlement, Unresolved};

/// Largest response, in bytes: Lambda's limit is 6 MB for a synchronous
/// invocation (Lambda quotas), and a larger one would be an error instead.
const RESPONSE_LIMIT: usize = 6_000_000;

/// What became of one request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    request_id: String,
    status: Status,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    /// The project or portal, and how much of it is done.
    #[serde(flatten)]
    results: Value,
    /// How many more projects there are, where the response has no room for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<usize>,
    /// Calls made, without the SDK's retries.
    calls: usize,
    failures: Vec<ReportedFailure>,
}

/// The state of a request as a whole.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// Every asset is disassociated or absent, or a dry run read everything.
    Succeeded,
    /// Nothing failed for good; some of the work is in the work queue.
    Accepted,
    /// Some of it failed.
    Partial,
    /// Nothing was achieved.
    Failed,
}

/// What failed for one reason.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportedFailure {
    /// The assets; none where the request failed as a whole.
    asset_ids: Vec<String>,
    code: String,
    message: String,
    /// Whether another try may help.
    retryable: bool,
    dead_lettered: bool,
    queued: bool,
    /// How many more assets failed so, where the response has no room for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<usize>,
}

impl Report {
    /// Reports a settlement that has been carried out. `calls` are those of the
    /// whole invocation.
    pub fn new(settlement: &Settlement<'_>, request_id: &str, calls: usize) -> Self {
        let mut report = Self {
            request_id: request_id.to_owned(),
            results: results(settlement),
            omitted: None,
            dry_run: settlement.received.is_dry_run(),
            status: Status::of(settlement),
            calls,
            failures: failures(settlement, Failure::message),
        };
        if report.size() > RESPONSE_LIMIT {
            // Failures of one code share the message of the first.
            report.failures = failures(settlement, |_| "");
        }
        while report.size() > RESPONSE_LIMIT && report.shorten() {}
        report
    }

    fn size(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |text| text.len())
    }

    /// Leaves out half of a list. Returns whether there was anything to
    /// leave out.
    fn shorten(&mut self) -> bool {
        let projects = (self.results.get_mut("projects")).and_then(Value::as_array_mut);
        if projects.is_some_and(|projects| halve(projects, &mut self.omitted)) {
            return true;
        }
        let failures = self.failures.iter_mut();
        let largest = failures.max_by_key(|failure| failure.asset_ids.len());
        largest.is_some_and(|failure| halve(&mut failure.asset_ids, &mut failure.omitted))
    }
}

impl Status {
    fn of(settlement: &Settlement<'_>) -> Self {
        let (read, unread) = match &settlement.dry_run {
            None => (0, 0),
            Some(DryRun::Assets {
                would_disassociate,
                absent,
            }) => (would_disassociate + absent, 0),
            Some(DryRun::Projects(projects)) => {
                let read = projects.iter().filter(|project| project.assets.is_ok());
                let read = read.count();
                (read, projects.len() - read)
            }
        };
        let unresolved = settlement.unresolved.iter();
        let queued = unresolved.filter(is_queued).count();
        let failed = settlement.unresolved.len() - queued + unread;
        let achieved = settlement.disassociated + settlement.absent + queued + read;
        match (achieved, failed, queued) {
            (_, 0, 0) => Self::Succeeded,
            (_, 0, _) => Self::Accepted,
            (0, ..) => Self::Failed,
            _ => Self::Partial,
        }
    }
}

/// Returns what a request was for, and how much of that is done.
fn results(settlement: &Settlement<'_>) -> Value {
    let request = settlement.received.request.as_ref().ok();
    let is_dry_run = settlement.received.is_dry_run();
    if let Some(Scope::Portal(portal)) = request.map(|request| &request.scope) {
        let projects = match &settlement.dry_run {
            Some(DryRun::Projects(projects)) => projects.iter().map(found_project).collect(),
            _ if is_dry_run => json!([]),
            _ => {
                let unresolved = settlement.unresolved.iter();
                let projects = unresolved.filter(|one| matches!(one.item, Item::Project(_)));
                let queued = projects.clone().filter(is_queued).count();
                json!({"listed": projects.count(), "queued": queued})
            }
        };
        return json!({"portalId": portal.to_string(), "projects": projects});
    }
    let assets = match is_dry_run {
        true => dry_run_counts(settlement),
        false => json!(Counts::of(slice::from_ref(settlement))),
    };
    json!({"projectId": settlement.received.project(), "assets": assets})
}

fn found_project(found: &DryRunProject) -> Value {
    let project = found.project.to_string();
    match &found.assets {
        Ok(assets) => json!({"projectId": project, "name": found.name, "assets": assets}),
        Err(failure) => {
            json!({"projectId": project, "name": found.name, "code": failure.code()})
        }
    }
}

fn dry_run_counts(settlement: &Settlement<'_>) -> Value {
    let request = settlement.received.request.as_ref().ok();
    let named = request.and_then(Request::named);
    let (would_disassociate, absent) = match settlement.dry_run {
        Some(DryRun::Assets {
            would_disassociate,
            absent,
        }) => (would_disassociate, absent),
        Some(DryRun::Projects(_)) | None => (0, 0),
    };
    let unresolved = settlement.unresolved.iter();
    let rejected = unresolved.filter(|one| one.item.asset_id().is_some() && !one.retryable);
    let rejected = rejected.count();
    let requested = match named {
        Some(named) => named.valid.len() + named.invalid.len(),
        None => would_disassociate + absent + rejected,
    };
    json!({
        "requested": requested,
        "duplicates": named.map_or(0, |named| named.duplicates),
        "wouldDisassociate": would_disassociate,
        "absent": absent,
        "rejected": rejected,
    })
}

fn is_queued(one: &&Unresolved) -> bool {
    one.is_stored_in(Destination::WorkQueue)
}

/// Groups what failed by its reason, in the order of first mention. `message`
/// returns what of a message makes it another reason.
fn failures(
    settlement: &Settlement<'_>,
    message: impl Fn(&Failure) -> &str,
) -> Vec<ReportedFailure> {
    let mut failures: Vec<ReportedFailure> = Vec::new();
    let mut indices = HashMap::new();
    for one in &settlement.unresolved {
        let Some(failure) = &one.failure else {
            continue;
        };
        let queued = one.is_stored_in(Destination::WorkQueue);
        let dead_lettered = one.is_stored_in(Destination::DeadLetterQueue);
        let reason = (failure.code(), message(failure));
        let index = *indices
            .entry((reason, one.retryable, dead_lettered, queued))
            .or_insert(failures.len());
        if index == failures.len() {
            failures.push(ReportedFailure {
                asset_ids: Vec::new(),
                code: failure.code().to_owned(),
                message: failure.message().to_owned(),
                retryable: one.retryable,
                dead_lettered,
                queued,
                omitted: None,
            });
        }
        let asset_id = one.item.asset_id().map(Cow::into_owned);
        failures[index].asset_ids.extend(asset_id);
    }
    failures
}

/// Leaves out the last half of a list and counts it. Returns whether there was
/// anything to leave out.
fn halve<T>(list: &mut Vec<T>, omitted: &mut Option<usize>) -> bool {
    let left_out = list.len().div_ceil(2);
    list.truncate(list.len() - left_out);
    if left_out > 0 {
        *omitted.get_or_insert_default() += left_out;
    }
    left_out > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::id::AssetId;
    use crate::output::fixtures::{
        asset, id, leak, named_assets, portal, project, settlement, whole_project,
    };
    use crate::output::response::{NoResponse, Response, reports, requests_unfinished};
    use Destination::{DeadLetterQueue, Source, WorkQueue};
    use serde_json::{Value, json};

    fn report(settlement: &Settlement<'_>) -> Value {
        serde_json::to_value(Report::new(settlement, "r-1", 3)).expect("JSON")
    }

    fn failure(asset_ids: &Value, queued: bool, dead_lettered: bool) -> Value {
        json!({
            "assetIds": asset_ids, "code": "CODE", "message": "message", "retryable": queued,
            "deadLettered": dead_lettered, "queued": queued,
        })
    }

    fn stored(mut settlement: Settlement<'static>) -> Settlement<'static> {
        for one in &mut settlement.unresolved {
            one.is_stored = true;
        }
        settlement
    }

    /// The dry run of a request of this scope: what it found, and what failed.
    fn dry_run(
        scope: Scope,
        found: Option<DryRun>,
        items: impl IntoIterator<Item = Item>,
    ) -> Settlement<'static> {
        let items = items.into_iter().map(|item| (item, Source));
        let mut settlement = settlement(scope, items);
        settlement
            .received
            .request
            .as_mut()
            .expect("a request")
            .dry_run = true;
        settlement.dry_run = found;
        settlement
    }

    fn found(number: usize, assets: Result<usize, Failure>) -> DryRunProject {
        DryRunProject {
            project: id(number).parse().expect("an id"),
            name: format!("Line {number}"),
            assets,
        }
    }

    fn bad_id() -> Item {
        Item::InvalidId("PUMP-7".parse::<AssetId>().expect_err("not an id"))
    }

    #[test]
    fn the_report_of_a_portal_counts_its_projects() {
        let projects = (1..=3).map(|number| (project(number), WorkQueue));
        let mut all = stored(settlement(portal(), projects));
        for one in &mut all.unresolved {
            one.failure = None;
        }
        let counted = |status: &str, queued: usize, failures: Value| {
            json!({
                "requestId": "r-1", "portalId": id(0), "status": status,
                "projects": {"listed": 3, "queued": queued}, "calls": 3, "failures": failures,
            })
        };
        assert_eq!(report(&all), counted("accepted", 3, json!([])));
        all.unresolved[1].is_stored = false;
        all.unresolved[1].failure = Some(Failure::new("CODE", "message"));
        let mut expected = failure(&json!([]), false, false);
        expected["retryable"] = json!(true);
        assert_eq!(report(&all), counted("partial", 2, json!([expected])));
        assert_eq!(Counts::of(slice::from_ref(&all)), Counts::default());
    }

    #[test]
    fn a_portal_or_project_that_lists_nothing_has_succeeded() {
        for scope in [portal(), whole_project()] {
            assert_eq!(report(&settlement(scope, []))["status"], "succeeded");
        }
    }

    #[test]
    fn a_request_whose_list_could_not_be_read_has_no_counts_and_one_failure() {
        for (scope, field, counted, zero) in [
            (
                portal(),
                "portalId",
                "projects",
                json!({"listed": 0, "queued": 0}),
            ),
            (
                whole_project(),
                "projectId",
                "assets",
                json!({"requested": 0, "duplicates": 0, "disassociated": 0, "absent": 0,
                       "rejected": 0, "unfinished": 0, "queued": 0}),
            ),
        ] {
            for (destination, status) in [(WorkQueue, "accepted"), (DeadLetterQueue, "failed")] {
                let unread = stored(settlement(scope.clone(), [(Item::Message, destination)]));
                let failure = failure(
                    &json!([]),
                    destination == WorkQueue,
                    destination == DeadLetterQueue,
                );
                assert_eq!(
                    report(&unread),
                    json!({
                        "requestId": "r-1", field: id(0), "status": status, counted: zero,
                        "calls": 3, "failures": [failure],
                    })
                );
            }
        }
    }

    #[test]
    fn a_list_that_ran_out_of_time_leaves_a_request_done_in_part() {
        let mut cut_short = settlement(whole_project(), [(Item::Message, DeadLetterQueue)]);
        cut_short.disassociated = 2;
        let report = report(&stored(cut_short));
        assert_eq!(report["status"], "partial");
        assert_eq!(report["assets"]["requested"], 2);
    }

    #[test]
    fn requests_are_unfinished_whose_assets_are_not_known() {
        let whole = |destination| settlement(portal(), [(Item::Message, destination)]);
        let retried = || {
            let mut unfinished = whole(Source);
            unfinished.unresolved[0].retryable = true;
            unfinished
        };
        let mut dry = retried();
        dry.received.request.as_mut().expect("a request").dry_run = true;
        for (expected, settlement) in [
            (1, whole(WorkQueue)),
            (1, stored(whole(WorkQueue))),
            (1, retried()),
            (0, whole(DeadLetterQueue)),
            (0, dry),
            (0, settlement(portal(), [(project(1), WorkQueue)])),
            (0, settlement(named_assets(), [(asset(1), WorkQueue)])),
            (0, settlement(whole_project(), [])),
        ] {
            assert_eq!(requests_unfinished(&[settlement]), expected);
        }
        assert_eq!(requests_unfinished(&[retried(), retried()]), 2);
    }

    #[test]
    fn the_dry_run_of_assets_tells_what_would_become_of_them() {
        let read = DryRun::Assets {
            would_disassociate: 4,
            absent: 2,
        };
        let Scope::Assets(mut named) = named_assets() else {
            unreachable!("named assets");
        };
        let valid = (1..=6).map(|number| id(number).parse().expect("an id"));
        named.valid = valid.collect();
        named.invalid = vec!["PUMP-7".parse::<AssetId>().expect_err("not an id")];
        named.duplicates = 3;
        let named = Scope::Assets(named);
        let invalid = failure(&json!(["PUMP-7"]), false, false);
        let unread = failure(&json!([]), false, false);
        for (
            scope,
            read,
            items,
            status,
            [requested, duplicates, would, absent, rejected],
            failures,
        ) in [
            (
                named.clone(),
                Some(read.clone()),
                vec![bad_id()],
                "partial",
                [7, 3, 4, 2, 1],
                json!([invalid]),
            ),
            (
                whole_project(),
                Some(read),
                vec![],
                "succeeded",
                [6, 0, 4, 2, 0],
                json!([]),
            ),
            (
                named,
                None,
                vec![Item::Message],
                "failed",
                [7, 3, 0, 0, 0],
                json!([unread]),
            ),
            (
                whole_project(),
                None,
                vec![Item::Message],
                "failed",
                [0; 5],
                json!([unread]),
            ),
        ] {
            assert_eq!(
                report(&dry_run(scope, read, items)),
                json!({
                    "requestId": "r-1", "projectId": id(0), "status": status, "dryRun": true,
                    "assets": {
                        "requested": requested, "duplicates": duplicates,
                        "wouldDisassociate": would, "absent": absent, "rejected": rejected,
                    },
                    "calls": 3, "failures": failures,
                })
            );
        }
    }

    #[test]
    fn the_dry_run_of_a_portal_names_its_projects() {
        let late = || Err(Failure::new("DeadlineReached", "not read"));
        let read = json!({"projectId": id(1), "name": "Line 1", "assets": 1});
        let unread = json!({"projectId": id(2), "name": "Line 2", "code": "DeadlineReached"});
        for (projects, status, expected) in [
            (vec![], "succeeded", json!([])),
            (vec![found(1, Ok(1))], "succeeded", json!([read])),
            (
                vec![found(1, Ok(1)), found(2, late())],
                "partial",
                json!([read, unread]),
            ),
            (vec![found(2, late())], "failed", json!([unread])),
        ] {
            assert_eq!(
                report(&dry_run(portal(), Some(DryRun::Projects(projects)), [])),
                json!({
                    "requestId": "r-1", "portalId": id(0), "status": status, "dryRun": true,
                    "projects": expected, "calls": 3, "failures": [],
                })
            );
        }
        let mut unread = dry_run(portal(), None, [Item::Message]);
        unread.unresolved[0].failure = Some(Failure::new("AccessDeniedException", "not allowed"));
        let unread = report(&unread);
        assert_eq!(unread["status"], "failed");
        assert_eq!(unread["projects"], json!([]));
        assert_eq!(unread["failures"][0]["code"], "AccessDeniedException");
        assert_eq!(unread["failures"][0]["message"], "not allowed");
    }

    #[test]
    fn projects_that_the_response_has_no_room_for_are_counted() {
        let projects = (1..=100_000).map(|number| found(number, Ok(1))).collect();
        let dry = dry_run(portal(), Some(DryRun::Projects(projects)), []);
        let report = Report::new(&dry, "r-1", 0);
        assert!(report.size() <= RESPONSE_LIMIT);
        let report = serde_json::to_value(report).expect("JSON");
        let listed = report["projects"].as_array().map_or(0, Vec::len);
        assert_eq!(report["omitted"], 100_000 - listed);
        assert!(listed > 25_000, "{listed}");
        assert_eq!(report["projects"][0]["projectId"], id(1));
    }

    #[test]
    fn a_dry_run_is_never_a_lambda_error_and_counts_in_no_metric() {
        let event = r#"{"detail-type":"t","source":"s","detail":{}}"#;
        let event = leak(event);
        let mut wet = settlement(whole_project(), [(asset(1), Source)]);
        wet.received.message = event;
        assert!(matches!(
            reports(&[wet], "r-1", 0),
            Err(NoResponse::NotStored { count: 1, .. })
        ));
        let mut dry = dry_run(whole_project(), None, [bad_id(), asset(1), Item::Message]);
        dry.received.message = event;
        assert_eq!(Counts::of(slice::from_ref(&dry)), Counts::default());
        assert!(matches!(reports(&[dry], "r-1", 0), Ok(Response::Report(_))));
    }
}
