//! What AWS leaves undocumented.

use std::time::Duration;

use simulator::{Absent, MissingList, Names, Settings, Throttle, Tokens};
use tokio::time::Instant;

use crate::support::{Entry, Harness, Trouble, asset, assets, entry, project};

const MISSING: usize = 7;
const ELSEWHERE: usize = 8;

/// Project 1 has the assets 1 and 2; 8 is in no project; 7 does not exist.
fn harness(settings: Settings) -> Harness {
    let harness = Harness::new(settings).and_assets([1, 2]);
    harness.simulator.add_asset(&asset(ELSEWHERE));
    harness
}

fn asset_error() -> Absent {
    Absent::AssetError {
        code: "INTERNAL_FAILURE".to_owned(),
        message: "gone".to_owned(),
    }
}

/// The settings, and the asset they are for.
fn absences(absent: &Absent) -> [(Settings, usize); 2] {
    // The other setting differs, to see that it does not apply.
    let other = match absent {
        Absent::Ignore => Absent::NotFound,
        _ => Absent::Ignore,
    };
    [
        (
            Settings {
                asset_not_in_project: absent.clone(),
                unknown_asset: other.clone(),
                ..Settings::default()
            },
            ELSEWHERE,
        ),
        (
            Settings {
                asset_not_in_project: other,
                unknown_asset: absent.clone(),
                ..Settings::default()
            },
            MISSING,
        ),
    ]
}

async fn check_absence(
    absent: &Absent,
    expected: impl Fn(usize) -> Result<Vec<Entry>, Trouble>,
    ending: (Option<u16>, bool),
    remaining: &[usize],
) {
    for (settings, number) in absences(absent) {
        let harness = harness(settings);
        assert_eq!(harness.disassociate([1, number]).await, expected(number));
        assert_eq!(harness.endings(), [ending]);
        assert_eq!(harness.remaining(), remaining);
        assert_eq!(harness.only_call().invalid, None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_absent_asset_may_be_ignored() {
    check_absence(&Absent::Ignore, |_| Ok(vec![]), (Some(200), true), &[2]).await;
}

#[tokio::test(start_paused = true)]
async fn an_absent_asset_may_be_an_asset_error() {
    let expected = |number| Ok(vec![entry(number, "INTERNAL_FAILURE", "gone")]);
    check_absence(&asset_error(), expected, (Some(200), true), &[2]).await;
}

#[tokio::test(start_paused = true)]
async fn an_absent_asset_may_be_a_404_that_applies_nothing() {
    let expected = |number| {
        let message = format!("Asset {} can't be found.", asset(number));
        Err(Trouble::refused(404, "ResourceNotFoundException", &message))
    };
    check_absence(&Absent::NotFound, expected, (Some(404), false), &[1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn an_absent_asset_may_be_a_400_that_applies_nothing() {
    let expected = |number| {
        let message = format!("Asset {} can't be found.", asset(number));
        Err(Trouble::refused(400, "InvalidRequestException", &message))
    };
    check_absence(&Absent::Invalid, expected, (Some(400), false), &[1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn by_default_an_asset_elsewhere_is_ignored_and_an_unknown_one_is_an_error() {
    let harness = harness(Settings::default());
    assert_eq!(
        harness.disassociate([1, ELSEWHERE, MISSING]).await,
        Ok(vec![entry(
            MISSING,
            "INTERNAL_FAILURE",
            "The asset doesn't exist."
        )])
    );
    assert_eq!(harness.remaining(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_removed_asset_is_an_asset_elsewhere() {
    let harness = harness(Settings {
        asset_not_in_project: asset_error(),
        ..Settings::default()
    });
    assert_eq!(harness.disassociate([1]).await, Ok(vec![]));
    assert_eq!(
        harness.disassociate([1]).await,
        Ok(vec![entry(1, "INTERNAL_FAILURE", "gone")])
    );
}

#[tokio::test(start_paused = true)]
async fn messages_name_the_resource_the_project_or_nothing() {
    let nothing = "The requested resource can't be found.".to_owned();
    let table = [
        (
            Names::Resource,
            format!("Project {} can't be found.", project(9)),
            format!("Asset {} can't be found.", asset(MISSING)),
        ),
        (
            Names::Project,
            format!("Project {} can't be found.", project(9)),
            format!("Assets can't be found in project {}.", project(1)),
        ),
        (Names::Nothing, nothing.clone(), nothing),
    ];
    for (names, of_project, of_asset) in table {
        for (absent, status, code) in [
            (Absent::NotFound, 404, "ResourceNotFoundException"),
            (Absent::Invalid, 400, "InvalidRequestException"),
        ] {
            let harness = harness(Settings {
                unknown_asset: absent,
                not_found_names: names,
                ..Settings::default()
            });
            assert_eq!(
                harness.disassociate([1, MISSING]).await,
                Err(Trouble::refused(status, code, &of_asset)),
            );
            assert_eq!(
                harness.call(&project(9), assets([1]), None).await,
                Err(Trouble::refused(
                    404,
                    "ResourceNotFoundException",
                    &of_project
                )),
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_a_missing_project_may_be_a_404_a_400_or_empty() {
    let message = format!("Project {} can't be found.", project(1));
    let refused = |status, code| Err(Trouble::refused(status, code, &message));
    for (missing_list, expected) in [
        (
            MissingList::NotFound,
            refused(404, "ResourceNotFoundException"),
        ),
        (
            MissingList::Invalid,
            refused(400, "InvalidRequestException"),
        ),
        (MissingList::Empty, Ok(vec![])),
    ] {
        let harness = Harness::new(Settings {
            missing_list,
            ..Settings::default()
        });
        assert_eq!(listed(&harness).await, expected);
        assert_eq!(harness.only_call().invalid, None);
        // Whatever the list says, the project is missing.
        harness.describe().await.expect_err("a 404");
        harness.disassociate([1]).await.expect_err("a 404");
    }
}

/// What a list of project 1 shows.
async fn listed(harness: &Harness) -> Result<Vec<String>, Trouble> {
    match harness.list(None, None).await {
        Ok(page) => Ok(page.asset_ids),
        Err(error) => Err(Trouble::of(&error)),
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_asset_may_stay_listed_for_a_while() {
    let harness = harness(Settings {
        removed_stay_listed: Duration::from_secs(10),
        ..Settings::default()
    });
    tokio::time::advance(Duration::from_secs(60)).await;
    // An asset that was never in the project is never listed.
    harness.disassociate([1, ELSEWHERE]).await.expect("a 200");
    assert_eq!(harness.remaining(), [2]);
    assert_eq!(listed(&harness).await, Ok(assets([1, 2])));
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert_eq!(listed(&harness).await, Ok(assets([1, 2])));
    // Another try to remove it does not prolong the time.
    harness.disassociate([1]).await.expect("a 200");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(listed(&harness).await, Ok(assets([2])));
}

#[tokio::test(start_paused = true)]
async fn an_added_asset_may_be_unlisted_for_a_while() {
    let harness = harness(Settings {
        added_not_listed: Duration::from_secs(10),
        ..Settings::default()
    });
    // What is there before the first request is listed at once.
    tokio::time::advance(Duration::from_secs(60)).await;
    let harness = harness.and_assets([3]);
    assert_eq!(listed(&harness).await, Ok(assets([1, 2, 3])));
    let harness = harness.and_assets([3, 4]);
    assert_eq!(harness.remaining(), [1, 2, 3, 4]);
    assert_eq!(listed(&harness).await, Ok(assets([1, 2, 3])));
    tokio::time::advance(Duration::from_millis(9_999)).await;
    let harness = harness.and_assets([4]);
    assert_eq!(listed(&harness).await, Ok(assets([1, 2, 3])));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(listed(&harness).await, Ok(assets([1, 2, 3, 4])));
}

#[tokio::test(start_paused = true)]
async fn an_asset_added_back_is_unlisted_for_a_while_too() {
    let harness = harness(Settings {
        removed_stay_listed: Duration::from_secs(10),
        added_not_listed: Duration::from_secs(20),
        ..Settings::default()
    });
    harness.disassociate([1]).await.expect("a 200");
    let harness = harness.and_assets([1]);
    assert_eq!(listed(&harness).await, Ok(assets([2])));
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(listed(&harness).await, Ok(assets([1, 2])));
}

#[tokio::test(start_paused = true)]
async fn a_list_may_show_the_descendants_of_what_it_shows() {
    for lists_descendants in [false, true] {
        let harness = harness(Settings {
            lists_descendants,
            asset_not_in_project: asset_error(),
            ..Settings::default()
        });
        harness
            .simulator
            .add_descendants(&asset(1), assets([11, 12]));
        harness.simulator.add_descendants(&asset(1), assets([2]));
        harness.simulator.add_descendants(&asset(3), assets([13]));
        let with_descendants = if lists_descendants {
            assets([1, 2, 11, 12])
        } else {
            assets([1, 2])
        };
        assert_eq!(listed(&harness).await, Ok(with_descendants.clone()));

        // They exist, but are no members.
        assert_eq!(harness.remaining(), [1, 2]);
        assert_eq!(
            harness.disassociate([11]).await,
            Ok(vec![entry(11, "INTERNAL_FAILURE", "gone")])
        );
        assert_eq!(listed(&harness).await, Ok(with_descendants));

        harness.disassociate([1]).await.expect("a 200");
        assert_eq!(listed(&harness).await, Ok(assets([2])));
    }
}

fn with_tokens(tokens: Tokens) -> Harness {
    harness(Settings {
        tokens,
        ..Settings::default()
    })
}

#[tokio::test(start_paused = true)]
async fn an_ignored_token_removes_an_asset_added_back() {
    let harness = with_tokens(Tokens::Ignored);
    assert_eq!(harness.disassociate_as(1, [1]).await, Ok(vec![]));
    harness.simulator.add_project(&project(1), assets([1]));
    assert_eq!(harness.disassociate_as(1, [1]).await, Ok(vec![]));
    assert_eq!(harness.remaining(), [2]);
    assert_eq!(harness.endings(), [(Some(200), true); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_does_not_remove_an_asset_added_back() {
    for tokens in [Tokens::SuccessesReplayed, Tokens::AllReplayed] {
        let harness = with_tokens(tokens);
        assert_eq!(harness.disassociate_as(1, [1, 2]).await, Ok(vec![]));
        harness.simulator.add_project(&project(1), assets([1]));
        // The order of the assets makes no other request.
        assert_eq!(harness.disassociate_as(1, [2, 1]).await, Ok(vec![]));
        assert_eq!(harness.remaining(), [1]);
        assert_eq!(harness.endings(), [(Some(200), true), (Some(200), false)]);
        assert_eq!(harness.disassociate_as(2, [1]).await, Ok(vec![]));
        assert_eq!(harness.remaining(), [0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn another_request_with_a_known_token_is_refused_where_all_are_replayed() {
    let harness = with_tokens(Tokens::AllReplayed);
    harness.simulator.add_project(&project(2), assets([1]));
    assert_eq!(harness.disassociate_as(1, [1]).await, Ok(vec![]));
    let refused = Err(Trouble::refused(
        400,
        "InvalidRequestException",
        "The client token was used for another request.",
    ));
    assert_eq!(harness.disassociate_as(1, [2]).await, refused);
    let token = Some(crate::support::token(1));
    assert_eq!(harness.call(&project(2), assets([1]), token).await, refused);
    assert_eq!(harness.remaining(), [2]);
    assert_eq!(
        harness.endings(),
        [(Some(200), true), (Some(400), false), (Some(400), false)]
    );
}

#[tokio::test(start_paused = true)]
async fn another_request_with_a_known_token_is_worked_off_elsewhere() {
    for tokens in [Tokens::Ignored, Tokens::SuccessesReplayed] {
        let harness = with_tokens(tokens);
        assert_eq!(harness.disassociate_as(1, [1]).await, Ok(vec![]));
        assert_eq!(harness.disassociate_as(1, [2]).await, Ok(vec![]));
        assert_eq!(harness.remaining(), [0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn partial_failures_are_remembered_only_where_all_are_replayed() {
    let failure = entry(2, "INTERNAL_FAILURE", "Simulated failure.");
    for (tokens, second, remaining) in [
        (Tokens::Ignored, vec![], vec![]),
        (Tokens::SuccessesReplayed, vec![], vec![]),
        (Tokens::AllReplayed, vec![failure.clone()], vec![2]),
    ] {
        let harness = with_tokens(tokens).and_fault(&format!(
            "disassociate:asset={}:first=1:asset-error=INTERNAL_FAILURE",
            asset(2)
        ));
        assert_eq!(
            harness.disassociate_as(1, [1, 2]).await,
            Ok(vec![failure.clone()])
        );
        assert_eq!(harness.disassociate_as(1, [1, 2]).await, Ok(second));
        assert_eq!(harness.remaining(), remaining, "{tokens:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_not_remembered() {
    let harness = Harness::new(Settings {
        tokens: Tokens::AllReplayed,
        ..Settings::default()
    });
    harness
        .disassociate_as(1, [1])
        .await
        .expect_err("no project");
    harness.simulator.add_project(&project(1), assets([1]));
    assert_eq!(harness.disassociate_as(1, [1]).await, Ok(vec![]));
    assert_eq!(harness.remaining(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_bucket_lets_a_burst_through_and_refills_at_its_rate() {
    let harness = harness(Settings {
        throttle: Some(Throttle {
            rate: 2.0,
            burst: 3.0,
        }),
        ..Settings::default()
    });
    let throttled = Err(Trouble::refused(
        429,
        "ThrottlingException",
        "Rate exceeded",
    ));
    for _ in 0..3 {
        assert_eq!(harness.disassociate([1]).await, Ok(vec![]));
    }
    assert_eq!(harness.disassociate([2]).await, throttled);
    assert_eq!(harness.remaining(), [2]);
    assert_eq!(harness.endings()[3], (Some(429), false));

    tokio::time::advance(Duration::from_millis(499)).await;
    assert_eq!(harness.disassociate([2]).await, throttled);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(harness.disassociate([2]).await, Ok(vec![]));
    assert_eq!(harness.disassociate([2]).await, throttled);

    // No pause fills it above the burst.
    tokio::time::advance(Duration::from_secs(3600)).await;
    for _ in 0..3 {
        assert_eq!(harness.disassociate([1]).await, Ok(vec![]));
    }
    assert_eq!(harness.disassociate([1]).await, throttled);
}

#[tokio::test(start_paused = true)]
async fn reads_use_up_the_bucket_and_messages_do_not() {
    let harness = harness(Settings {
        throttle: Some(Throttle {
            rate: 1.0,
            burst: 2.0,
        }),
        ..Settings::default()
    });
    let url = harness.simulator.create_queue("q");
    harness.list(None, None).await.expect("a page");
    harness.describe().await.expect("a project");
    harness.disassociate([1]).await.expect_err("throttled");
    harness.list(None, None).await.expect_err("throttled");
    harness.describe().await.expect_err("throttled");
    harness.send(&url, "body").await.expect("sent");
    harness.send(&url, "body").await.expect("sent");
}

#[tokio::test(start_paused = true)]
async fn each_sitewise_call_takes_its_latency_and_no_message_does() {
    let harness = harness(Settings {
        latency: Duration::from_millis(250),
        ..Settings::default()
    });
    let url = harness.simulator.create_queue("q");
    let start = Instant::now();
    harness.disassociate([1]).await.expect("a 200");
    assert_eq!(start.elapsed(), Duration::from_millis(250));
    harness.list(None, None).await.expect("a page");
    assert_eq!(start.elapsed(), Duration::from_millis(500));
    harness.describe().await.expect("a project");
    assert_eq!(start.elapsed(), Duration::from_millis(750));
    harness.send(&url, "body").await.expect("sent");
    assert_eq!(start.elapsed(), Duration::from_millis(750));
    let arrivals: Vec<Duration> = harness
        .simulator
        .calls()
        .iter()
        .map(|call| call.at)
        .collect();
    assert_eq!(arrivals, [0, 250, 500, 750].map(Duration::from_millis));
}

#[tokio::test(start_paused = true)]
async fn settings_change_while_it_runs() {
    let harness = harness(Settings::default());
    let mut settings = harness.simulator.settings();
    assert_eq!(settings.asset_not_in_project, Absent::Ignore);
    settings.asset_not_in_project = Absent::NotFound;
    harness.simulator.set_settings(settings);
    harness.disassociate([ELSEWHERE]).await.expect_err("a 404");
}
