//! Which assets are in which project.

use aws_sdk_iotsitewise::operation::batch_disassociate_project_assets::BatchDisassociateProjectAssetsError;
use simulator::{Names, Operation, Settings};

use crate::support::{Harness, Trouble, asset, assets, ending, project};

#[tokio::test(start_paused = true)]
async fn the_named_assets_leave_the_project_and_no_other_does() {
    let harness = Harness::with_assets(1..=4);
    harness.simulator.add_project(&project(2), assets(1..=4));
    assert_eq!(harness.disassociate([1, 3]).await, Ok(vec![]));
    assert_eq!(harness.remaining(), [2, 4]);
    assert_eq!(harness.simulator.project_assets(&project(2)).len(), 4);

    let call = harness.only_call();
    assert_eq!(ending(&call), (Some(200), true));
    assert_eq!(call.operation, Operation::Disassociate);
    assert_eq!(call.method, "POST");
    assert_eq!(call.host, "monitor.iotsitewise.eu-west-1.amazonaws.com");
    assert_eq!(
        call.path,
        format!("/projects/{}/assets/disassociate", project(1))
    );
    assert_eq!(call.project, Some(project(1)));
    assert_eq!(call.assets, assets([1, 3]));
    assert_eq!(call.invalid, None);
}

#[tokio::test(start_paused = true)]
async fn a_missing_project_is_a_404() {
    let harness = Harness::new(Settings::default());
    let error = harness
        .raw_call(&project(9), assets([1]), None)
        .await
        .expect_err("no project");
    assert_eq!(
        Trouble::of(&error),
        Trouble::refused(
            404,
            "ResourceNotFoundException",
            &format!("Project {} can't be found.", project(9)),
        )
    );
    assert!(matches!(
        error.into_service_error(),
        BatchDisassociateProjectAssetsError::ResourceNotFoundException(_)
    ));
    assert_eq!(harness.endings(), [(Some(404), false)]);
}

#[tokio::test(start_paused = true)]
async fn a_list_gives_pages_until_there_is_no_next_token() {
    let harness = Harness::with_assets(1..=5);
    let first = harness.list(Some(2), None).await.expect("a page");
    assert_eq!(first.asset_ids(), assets([1, 2]));
    let second = harness
        .list(Some(2), first.next_token())
        .await
        .expect("a page");
    assert_eq!(second.asset_ids(), assets([3, 4]));
    let third = harness
        .list(Some(2), second.next_token())
        .await
        .expect("a page");
    assert_eq!(third.asset_ids(), assets([5]));
    assert_eq!(third.next_token(), None);
    assert_eq!(harness.endings(), [(Some(200), false); 3]);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_ends_with_the_last_asset_has_no_next_token() {
    let harness = Harness::with_assets(1..=4);
    let page = harness.list(Some(4), None).await.expect("a page");
    assert_eq!(page.asset_ids(), assets(1..=4));
    assert_eq!(page.next_token(), None);
}

#[tokio::test(start_paused = true)]
async fn a_page_has_fifty_assets_unless_asked_otherwise() {
    let harness = Harness::with_assets(1..=51);
    let page = harness.list(None, None).await.expect("a page");
    assert_eq!(page.asset_ids(), assets(1..=50));
    assert_eq!(page.next_token(), Some("50"));
}

#[tokio::test(start_paused = true)]
async fn the_sdks_paginator_sees_every_asset_once() {
    let harness = Harness::with_assets(1..=120);
    let mut pages = harness
        .sitewise
        .list_project_assets()
        .project_id(project(1))
        .into_paginator()
        .items()
        .send();
    let mut found = Vec::new();
    while let Some(id) = pages.next().await {
        found.push(id.expect("an id"));
    }
    assert_eq!(found, assets(1..=120));
    assert_eq!(harness.endings(), [(Some(200), false); 3]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_project_lists_no_assets() {
    let harness = Harness::with_assets([]);
    let page = harness.list(None, None).await.expect("a page");
    assert_eq!(page.asset_ids(), assets([]));
    assert_eq!(page.next_token(), None);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_a_missing_project_is_a_404() {
    let harness = Harness::new(Settings::default());
    let error = harness.list(None, None).await.expect_err("no project");
    assert_eq!(
        Trouble::of(&error),
        Trouble::refused(
            404,
            "ResourceNotFoundException",
            &format!("Project {} can't be found.", project(1)),
        )
    );
    assert_eq!(harness.endings(), [(Some(404), false)]);
}

#[tokio::test(start_paused = true)]
async fn the_record_of_a_list_has_what_its_page_shows() {
    let harness = Harness::with_assets(1..=3);
    harness.list(Some(2), None).await.expect("a page");
    let call = harness.only_call();
    assert_eq!(call.operation, Operation::ListProjectAssets);
    assert_eq!(call.project, Some(project(1)));
    assert_eq!((call.listed, call.assets), (assets([1, 2]), vec![]));
}

#[tokio::test(start_paused = true)]
async fn entries_shift_between_the_pages_of_a_list_that_changes() {
    let harness = Harness::with_assets(1..=4);
    let first = harness.list(Some(2), None).await.expect("a page");
    harness.disassociate([1]).await.expect("a 200");
    let second = harness
        .list(Some(2), first.next_token())
        .await
        .expect("a page");
    assert_eq!(first.asset_ids(), assets([1, 2]));
    assert_eq!(second.asset_ids(), assets([4]));
}

#[tokio::test(start_paused = true)]
async fn a_project_is_described_as_long_as_it_exists_with_assets_or_without() {
    let harness = Harness::with_assets([1]);
    for _ in 0..2 {
        let found = harness.describe().await.expect("a project");
        assert_eq!(found.project_id(), project(1));
        harness.disassociate([1]).await.expect("a 200");
    }
    let call = harness.simulator.calls().swap_remove(0);
    assert_eq!(call.operation, Operation::DescribeProject);
    assert_eq!(call.method, "GET");
    assert_eq!(call.path, format!("/projects/{}", project(1)));
    assert_eq!(call.project, Some(project(1)));
    assert_eq!(call.invalid, None);
    assert_eq!(ending(&call), (Some(200), false));
}

#[tokio::test(start_paused = true)]
async fn a_description_of_a_missing_project_is_a_404() {
    for (names, message) in [
        (
            Names::Resource,
            format!("Project {} can't be found.", project(1)),
        ),
        (
            Names::Nothing,
            "The requested resource can't be found.".to_owned(),
        ),
    ] {
        let harness = Harness::new(Settings {
            not_found_names: names,
            ..Settings::default()
        });
        let error = harness.describe().await.expect_err("no project");
        assert_eq!(
            Trouble::of(&error),
            Trouble::refused(404, "ResourceNotFoundException", &message)
        );
        assert!(error.into_service_error().is_resource_not_found_exception());
        assert_eq!(harness.endings(), [(Some(404), false)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_next_token_that_is_none_is_refused() {
    let harness = Harness::with_assets([1]);
    let error = harness.list(None, Some("x")).await.expect_err("no token");
    assert_eq!(
        Trouble::of(&error),
        Trouble::refused(400, "InvalidRequestException", "maxResults or nextToken")
    );
}

#[tokio::test(start_paused = true)]
async fn adding_a_project_again_extends_it() {
    let harness = Harness::with_assets([1]).and_assets([2]);
    assert_eq!(harness.remaining(), [1, 2]);
    assert_eq!(
        harness.simulator.projects(),
        [(project(1), [asset(1), asset(2)].into())].into()
    );
}

#[tokio::test(start_paused = true)]
async fn the_record_keeps_counting_after_it_was_cleared() {
    let harness = Harness::with_assets([1, 2]);
    harness.disassociate([1]).await.expect("a 200");
    harness.simulator.clear_calls();
    assert_eq!(harness.endings(), []);
    harness.disassociate([2]).await.expect("a 200");
    let call = harness.only_call();
    assert_eq!(call.seq, 1);
    assert_eq!(call.assets, assets([2]));
}

#[tokio::test(start_paused = true)]
async fn a_clone_is_the_same_simulator() {
    let harness = Harness::with_assets([1, 2]);
    let clone = harness.simulator.clone();
    harness.disassociate([1]).await.expect("a 200");
    assert_eq!(clone.project_assets(&project(1)), [asset(2)].into());
    assert_eq!(clone.calls().len(), 1);
}
