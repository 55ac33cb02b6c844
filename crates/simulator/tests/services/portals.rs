//! Which projects are in which portal.

use aws_sdk_iotsitewise::operation::list_projects::ListProjectsOutput;
use simulator::{MissingList, Operation, Settings, Throttle};

use crate::support::{Harness, Trouble, ending, portal, project, projects};

fn ids(page: &ListProjectsOutput) -> Vec<&str> {
    let summaries = page.project_summaries().iter();
    summaries.map(|summary| summary.id()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_list_of_projects_gives_pages_until_there_is_no_next_token() {
    let harness = Harness::with_projects(1..=5);
    harness.simulator.add_portal(&portal(1), projects([9]));
    let mut next = None;
    for expected in [&[1, 2][..], &[3, 4], &[5]] {
        let page = harness.list_projects(Some(2), next.as_deref()).await;
        let page = page.expect("a page");
        assert_eq!(ids(&page), projects(expected.iter().copied()));
        next = page.next_token().map(ToOwned::to_owned);
    }
    assert_eq!(next, None);
    assert_eq!(harness.endings(), [(Some(200), false); 3]);
}

#[tokio::test(start_paused = true)]
async fn the_record_of_a_list_of_projects_has_what_its_page_shows() {
    let harness = Harness::with_projects(1..=3);
    harness.list_projects(Some(2), None).await.expect("a page");
    let call = harness.only_call();
    assert_eq!(call.operation, Operation::ListProjects);
    assert_eq!((&call.portal, &call.project), (&Some(portal(2)), &None));
    assert_eq!((call.listed, call.invalid), (projects([1, 2]), None));
}

#[tokio::test(start_paused = true)]
async fn a_page_of_projects_is_as_large_as_one_of_assets() {
    let harness = Harness::with_projects(1..=251);
    for (size, expected) in [(0, None), (1, Some(1)), (250, Some(250)), (251, None)] {
        let page = harness.list_projects(Some(size), None).await;
        let found = page.ok().map(|page| page.project_summaries().len());
        assert_eq!(found, expected, "{size}");
    }
    let page = harness.list_projects(None, None).await.expect("a page");
    assert_eq!(page.project_summaries().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_portal_without_projects_exists_and_lists_nothing() {
    let harness = Harness::with_projects([]);
    let page = harness.list_projects(None, None).await.expect("a page");
    assert!(ids(&page).is_empty());
    let found = harness.describe_portal().await.expect("a portal");
    assert_eq!(found.portal_id(), portal(2));
    let call = harness.simulator.calls().swap_remove(1);
    assert_eq!(call.operation, Operation::DescribePortal);
    assert_eq!(call.portal, Some(portal(2)));
    assert_eq!(ending(&call), (Some(200), false));
}

#[tokio::test(start_paused = true)]
async fn a_project_of_a_portal_exists_and_names_it() {
    let harness = Harness::with_projects([1]);
    let found = harness.describe().await.expect("a project");
    assert_eq!(found.portal_id(), portal(2));
}

#[tokio::test(start_paused = true)]
async fn a_missing_portals_list_is_as_it_is_set_and_its_description_a_404() {
    for (missing_list, error) in [
        (
            MissingList::NotFound,
            Some((404, "ResourceNotFoundException")),
        ),
        (MissingList::Invalid, Some((400, "InvalidRequestException"))),
        (MissingList::Empty, None),
    ] {
        let harness = Harness::new(Settings {
            missing_list,
            ..Settings::default()
        });
        harness.simulator.add_project(&project(1), ["x"]);
        let message = format!("Portal {} can't be found.", portal(2));
        let page = harness.list_projects(None, None).await;
        let found = page.map(|page| ids(&page).len());
        let found = found.map_err(|error| Trouble::of(&error));
        let expected = error.map(|(status, code)| Trouble::refused(status, code, &message));
        assert_eq!(found, expected.map_or(Ok(0), Err), "{missing_list:?}");
        let error = harness.describe_portal().await.expect_err("no portal");
        assert_eq!(
            Trouble::of(&error),
            Trouble::refused(404, "ResourceNotFoundException", &message)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn requests_for_portals_are_throttled_with_all_others() {
    let harness = Harness::new(Settings {
        throttle: Some(Throttle {
            rate: 1.0,
            burst: 2.0,
        }),
        ..Settings::default()
    });
    harness.simulator.add_portal(&portal(2), projects([1]));
    harness.list_projects(None, None).await.expect("a page");
    harness.describe_portal().await.expect("a portal");
    harness.list_projects(None, None).await.expect_err("a list");
    harness.describe_portal().await.expect_err("a description");
    harness.list(None, None).await.expect_err("a list");
    let (ok, throttled) = ((Some(200), false), (Some(429), false));
    assert_eq!(harness.endings(), [ok, ok, throttled, throttled, throttled]);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_reads_is_one_of_portals_too() {
    let harness = Harness::with_projects([1]).and_fault("reads:throttle");
    harness.list_projects(None, None).await.expect_err("a list");
    harness.describe_portal().await.expect_err("a description");
    assert_eq!(harness.endings(), [(Some(429), false); 2]);
}
