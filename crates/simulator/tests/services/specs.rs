//! Faults as texts.

use simulator::Fault;

use crate::support::{asset, project};

/// What `text` reads as, in `Debug`'s form.
fn read(text: &str) -> String {
    format!("{:?}", text.parse::<Fault>().expect(text))
}

#[test]
fn good_specs_are_read_in_full() {
    let with_an_asset = format!(
        "disassociate:project={}:asset={}:nth=3:asset-error=INTERNAL_FAILURE:heals=2",
        project(1),
        asset(2)
    );
    let of_an_asset = format!(
        "AssetErrors {{ code: \"INTERNAL_FAILURE\", message: \"Simulated failure.\", \
         assets: [{:?}], heals_after: Some(2) }}",
        asset(2)
    );
    let names = format!(
        "project: Some({:?}), asset: Some({:?})",
        project(1),
        asset(2)
    );
    let table: &[(&str, &[&str])] = &[
        (
            "disassociate:reset",
            &["[Disassociate]", "when: Always", "action: Reset,"],
        ),
        (
            "list:reset-after",
            &["[ListProjectAssets]", "action: ResetAfter"],
        ),
        ("describe:stall", &["[DescribeProject]", "action: Stall,"]),
        ("list-projects:stall", &["[ListProjects]", "action: Stall,"]),
        (
            "describe-portal:stall",
            &["[DescribePortal]", "action: Stall,"],
        ),
        (
            "reads:stall",
            &[
                "[ListProjectAssets, DescribeProject, ListProjects, DescribePortal]",
                "action: Stall,",
            ],
        ),
        (
            "sitewise:stall",
            &[
                "[ListProjectAssets, DescribeProject, ListProjects, DescribePortal, Disassociate]",
                "action: Stall,",
            ],
        ),
        (
            "sqs:stall-after",
            &["[SendMessage, SendMessageBatch]", "action: StallAfter"],
        ),
        (
            "sqs:queue=dead-letters:stall-body",
            &["queue: Some(\"dead-letters\")", "action: StallBody"],
        ),
        ("list:truncate", &["action: Truncate"]),
        (
            "list:garbage",
            &["action: Garbage(\"<html>this is not JSON</html>\")"],
        ),
        ("list:latency=1500ms", &["action: Latency(1.5s)"]),
        ("list:reset:nth=2", &["when: Nth(2)", "action: Reset,"]),
        ("list:first=2:reset", &["when: First(2)"]),
        ("list:after=0:reset", &["when: After(0)"]),
        ("list:probability=0.25:reset", &["when: Probability(0.25)"]),
        ("list:probability=0:reset", &["when: Probability(0.0)"]),
        ("list:probability=1:reset", &["when: Probability(1.0)"]),
        ("list:nth=1:first=2:reset", &["when: First(2)"]),
        (
            "list:status=200",
            &["Reply { status: 200, error_type: None, headers: [], body: \"\" }"],
        ),
        (
            "list:status=599:type=Odd",
            &["Reply { status: 599, error_type: Some(\"Odd\")"],
        ),
        (
            "list:throttle",
            &[
                "Refuse { status: 429, error_type: \"ThrottlingException\", message: \"Rate exceeded\" }",
            ],
        ),
        (
            "list:asset-error=X",
            &[
                "AssetErrors { code: \"X\", message: \"Simulated failure.\", assets: [], heals_after: None }",
            ],
        ),
        (&with_an_asset, &[&names, "when: Nth(3)", &of_an_asset]),
        (
            "sqs:fail-entries=InternalError:heals=1",
            &[
                "FailEntries { bodies_containing: \"\", code: \"InternalError\", sender_fault: false, heals_after: Some(1) }",
            ],
        ),
    ];
    for (text, parts) in table {
        let found = read(text);
        for part in *parts {
            assert!(found.contains(part), "{text}: {found} has no {part}");
        }
    }
}

#[test]
fn bad_specs_are_refused_with_what_was_expected() {
    let targets = "a fault such as disassociate:first=2:status=500, where the target is \
                   disassociate, list, describe, list-projects, describe-portal, reads, \
                   sitewise or sqs";
    let terms = "project=ID, asset=ID, queue=NAME; nth=N, first=N, after=N, probability=SHARE; \
                 throttle, status=CODE, type=NAME, latency=NUMBERms, stall, stall-after, \
                 stall-body, reset, reset-after, truncate, garbage, asset-error=CODE, heals=N or \
                 fail-entries=CODE";
    let an_action = "an action among its terms, such as status=500 or reset";
    let one_action = "one action only; another one is a fault of its own";
    for (text, found, expected) in [
        ("", "", targets),
        ("reset", "reset", targets),
        ("s3:reset", "s3:reset", targets),
        ("Disassociate:reset", "Disassociate:reset", targets),
        ("list", "list", an_action),
        ("list:nth=2", "list:nth=2", an_action),
        ("list:", "", terms),
        ("list:explode", "explode", terms),
        ("list: reset", " reset", terms),
        ("list:nth:reset", "nth", terms),
        ("list:nth=-1:reset", "nth=-1", terms),
        ("list:nth=0:reset", "nth=0", terms),
        ("list:project=:reset", "project=", terms),
        ("list:asset:reset", "asset", terms),
        ("sqs:queue=:reset", "queue=", terms),
        ("list:first=x:reset", "first=x", terms),
        ("list:after=1.5:reset", "after=1.5", terms),
        ("list:probability=x:reset", "probability=x", terms),
        ("list:probability=1.01:reset", "probability=1.01", terms),
        ("list:probability=-0.1:reset", "probability=-0.1", terms),
        ("list:probability=NaN:reset", "probability=NaN", terms),
        ("list:status=199", "status=199", terms),
        ("list:status=600", "status=600", terms),
        ("list:status", "status", terms),
        ("list:type=X:status=500", "type=X", terms),
        ("list:reset:type=X", "type=X", terms),
        ("list:reset:heals=1", "heals=1", terms),
        ("list:asset-error=X:heals=x", "heals=x", terms),
        ("list:asset-error", "asset-error", terms),
        ("sqs:fail-entries=", "fail-entries=", terms),
        ("list:latency=5", "latency=5", terms),
        ("list:latency=5s", "latency=5s", terms),
        ("list:latency=ms", "latency=ms", terms),
        ("list:reset=1", "reset=1", terms),
        ("list:throttle=5", "throttle=5", terms),
        (
            "list:latency=5ms:reset",
            "list:latency=5ms:reset",
            one_action,
        ),
        ("list:reset:reset", "list:reset:reset", one_action),
    ] {
        let error = text.parse::<Fault>().expect_err(text).to_string();
        assert_eq!(error, format!("{found:?}: expected {expected}"), "{text}");
    }
}
