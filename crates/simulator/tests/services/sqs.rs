//! The rules of SQS.

use std::time::Duration;

use aws_sdk_sqs::types::MessageAttributeValue;
use simulator::{BATCH_LIMIT, MESSAGE_LIMIT, Operation, Settings};

use crate::support::{Harness, Trouble, ending, message};

fn harness() -> (Harness, String) {
    let harness = Harness::new(Settings::default());
    let url = harness.simulator.create_queue("q");
    (harness, url)
}

fn attribute(value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder()
        .data_type("String")
        .string_value(value)
        .build()
        .expect("an attribute")
}

fn named(prefix: &str) -> Trouble {
    Trouble::refused(400, prefix, "")
}

/// The status and the code of a refusal, without its message.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Trouble>) -> Trouble {
    match answer.expect_err("a refusal") {
        Trouble::Refused { status, code, .. } => Trouble::Refused {
            status,
            code,
            message: String::new(),
        },
        other => other,
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_stored_with_all_that_it_has() {
    let (harness, url) = harness();
    let output = harness
        .sqs
        .send_message()
        .queue_url(&url)
        .message_body("body")
        .message_attributes("name", attribute("value"))
        .message_group_id("group")
        .send()
        .await
        .expect("sent");
    assert_eq!(
        output.md5_of_message_body(),
        Some("841a2d689ad86bd1611447453c22c6fc")
    );
    let [stored] = harness.simulator.messages("q").try_into().expect("one");
    assert_eq!(output.message_id(), Some(stored.id.as_str()));
    assert_eq!(stored.body, "body");
    assert_eq!(
        stored.attributes,
        [("name".to_owned(), "value".to_owned())].into()
    );
    assert_eq!(stored.group_id.as_deref(), Some("group"));
    assert_eq!(stored.deduplication_id, None);

    let call = harness.only_call();
    assert_eq!(call.operation, Operation::SendMessage);
    assert_eq!(ending(&call), (Some(200), true));
    assert_eq!(call.queue.as_deref(), Some("q"));
    assert_eq!(call.bodies, ["body"]);
    assert_eq!(call.invalid, None);
}

#[tokio::test(start_paused = true)]
async fn messages_come_out_in_their_order_and_are_taken_once() {
    let (harness, url) = harness();
    let first = harness.send(&url, "1").await.expect("sent");
    let batch = vec![message("a", "2"), message("b", "3")];
    harness.send_batch(&url, batch).await.expect("sent");
    let taken = harness.simulator.take_messages("q");
    let bodies: Vec<&str> = taken.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, ["1", "2", "3"]);
    assert_eq!(taken[0].id, first);
    assert_ne!(taken[1].id, taken[2].id);
    assert_eq!(harness.simulator.take_messages("q"), []);
    assert_eq!(harness.simulator.messages("no-queue"), []);
}

#[tokio::test(start_paused = true)]
async fn ten_entries_are_stored_and_eleven_refused() {
    let (harness, url) = harness();
    let entries = |count: usize| {
        (0..count)
            .map(|n| message(&n.to_string(), "body"))
            .collect()
    };
    let (sent, failed) = harness
        .send_batch(&url, entries(BATCH_LIMIT))
        .await
        .expect("sent");
    assert_eq!((sent.len(), failed.len()), (10, 0));
    assert_eq!(
        harness.send_batch(&url, entries(BATCH_LIMIT + 1)).await,
        Err(Trouble::refused(
            400,
            "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            "11 entries"
        ))
    );
    assert_eq!(harness.bodies("q").len(), 10);
    assert_eq!(harness.endings(), [(Some(200), true), (Some(400), false)]);
    assert_eq!(
        harness.simulator.calls()[1].invalid.as_deref(),
        Some("11 entries")
    );
}

#[tokio::test(start_paused = true)]
async fn the_sdk_knows_a_batchs_refusals_by_their_types() {
    let (harness, url) = harness();
    let send = async |entries| {
        let call = harness.sqs.send_message_batch().queue_url(&url);
        let call = call.set_entries(Some(entries));
        call.send().await.expect_err("refused").into_service_error()
    };
    let eleven = (0..11).map(|n| message(&n.to_string(), "body")).collect();
    assert!(send(eleven).await.is_too_many_entries_in_batch_request());
    assert!(send(vec![]).await.is_empty_batch_request());
    let twice = vec![message("a", "1"), message("a", "2")];
    assert!(send(twice).await.is_batch_entry_ids_not_distinct());
    for id in ["a b", "", "é", &"a".repeat(81)] {
        assert!(
            send(vec![message(id, "1")])
                .await
                .is_invalid_batch_entry_id()
        );
    }
    let half = "x".repeat(MESSAGE_LIMIT / 2 + 1);
    let long = vec![message("a", &half), message("b", &half)];
    assert!(send(long).await.is_batch_request_too_long());
    assert_eq!(harness.bodies("q"), [""; 0]);
    assert_eq!(harness.endings(), [(Some(400), false); 8]);
}

#[tokio::test(start_paused = true)]
async fn an_id_of_80_letters_digits_and_marks_is_allowed() {
    let (harness, url) = harness();
    let id = format!("{}-_9Z", "a".repeat(76));
    let sent = harness.send_batch(&url, vec![message(&id, "1")]).await;
    assert_eq!(sent, Ok((vec![id], vec![])));
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_is_refused_and_in_a_batch_its_entry_fails() {
    let (harness, url) = harness();
    assert_eq!(
        harness.send(&url, "").await,
        Err(Trouble::refused(
            400,
            "MissingParameter",
            "The body is empty."
        ))
    );
    assert_eq!(
        harness
            .send_batch(&url, vec![message("a", ""), message("b", "body")])
            .await,
        Ok((
            vec!["b".to_owned()],
            vec![("a".to_owned(), "MissingParameter".to_owned(), true)]
        ))
    );
    assert_eq!(harness.bodies("q"), ["body"]);
    for call in harness.simulator.calls() {
        assert_eq!(call.invalid.as_deref(), Some("The body is empty."));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_has_at_most_a_mebibyte_with_its_attributes() {
    let (harness, url) = harness();
    let send = async |body: usize| {
        let call = harness.sqs.send_message().queue_url(&url);
        let call = call.message_body("x".repeat(body));
        // name, type and value: 4 + 6 + 5
        let call = call.message_attributes("name", attribute("value"));
        call.send().await.map_err(|error| Trouble::of(&error))
    };
    send(MESSAGE_LIMIT - 15).await.expect("sent");
    assert_eq!(
        send(MESSAGE_LIMIT - 14).await.expect_err("too long"),
        Trouble::refused(400, "InvalidParameterValue", "The message is too long.")
    );
    assert_eq!(
        harness.send(&url, &"x".repeat(MESSAGE_LIMIT + 1)).await,
        Err(Trouble::refused(
            400,
            "InvalidParameterValue",
            "The message is too long."
        ))
    );
    // Bytes count, not characters.
    let wide = "é".repeat(MESSAGE_LIMIT / 2);
    harness.send(&url, &wide).await.expect("sent");
    harness
        .send(&url, &format!("{wide}."))
        .await
        .expect_err("too long");
    assert_eq!(harness.bodies("q").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_at_most_a_mebibyte() {
    let (harness, url) = harness();
    let half = "x".repeat(MESSAGE_LIMIT / 2);
    let fits = vec![message("a", &half), message("b", &half)];
    harness.send_batch(&url, fits).await.expect("sent");
    let over = vec![message("a", &half), message("b", &half), message("c", "x")];
    assert_eq!(
        harness.send_batch(&url, over).await,
        Err(Trouble::refused(
            400,
            "AWS.SimpleQueueService.BatchRequestTooLong",
            "The batch is too long."
        ))
    );
    assert_eq!(harness.bodies("q").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn characters_outside_the_allowed_ranges_are_refused() {
    let (harness, url) = harness();
    for character in [
        '\0', '\u{1}', '\u{8}', '\u{b}', '\u{1f}', '\u{fffe}', '\u{ffff}',
    ] {
        assert_eq!(
            harness.send(&url, &format!("text {character}")).await,
            Err(Trouble::refused(
                400,
                "InvalidMessageContents",
                "A character is not allowed."
            ))
        );
    }
    let allowed = "\t\n\r \u{7f}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}";
    harness.send(&url, allowed).await.expect("sent");
    assert_eq!(harness.bodies("q"), [allowed]);
}

#[tokio::test(start_paused = true)]
async fn an_attribute_without_value_is_refused() {
    let (harness, url) = harness();
    for (name, value) in [("name", ""), ("", "value"), ("name", "\u{1}")] {
        let call = harness
            .sqs
            .send_message()
            .queue_url(&url)
            .message_body("body");
        let call = call.message_attributes(name, attribute(value));
        let error = call.send().await.expect_err("refused");
        let message = format!("attribute {name:?}");
        assert_eq!(
            Trouble::of(&error),
            Trouble::refused(400, "InvalidParameterValue", &message)
        );
    }
    assert_eq!(harness.bodies("q"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_message_has_at_most_ten_attributes() {
    let (harness, url) = harness();
    for (count, is_sent) in [(10, true), (11, false)] {
        let mut call = harness
            .sqs
            .send_message()
            .queue_url(&url)
            .message_body("body");
        for number in 0..count {
            call = call.message_attributes(format!("name{number}"), attribute("value"));
        }
        assert_eq!(call.send().await.is_ok(), is_sent, "{count}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_queue_is_the_sdks_queue_does_not_exist() {
    let harness = Harness::new(Settings::default());
    let url = "http://simulator.invalid/000000000000/none";
    let call = harness
        .sqs
        .send_message()
        .queue_url(url)
        .message_body("body");
    let error = call.send().await.expect_err("no queue");
    assert_eq!(
        Trouble::of(&error),
        Trouble::refused(
            400,
            "AWS.SimpleQueueService.NonExistentQueue",
            "The queue \"none\" does not exist."
        )
    );
    assert!(error.into_service_error().is_queue_does_not_exist());

    // It is said before anything else, also of a batch without a valid entry.
    assert_eq!(
        refusal(harness.send(url, "").await),
        named("AWS.SimpleQueueService.NonExistentQueue")
    );
    assert_eq!(
        refusal(harness.send_batch(url, vec![message("a", "")]).await),
        named("AWS.SimpleQueueService.NonExistentQueue")
    );
    assert_eq!(harness.endings(), [(Some(400), false); 3]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_found_by_its_name_whatever_the_host() {
    let (harness, _) = harness();
    let url = "https://sqs.eu-west-1.amazonaws.com/123456789012/q";
    harness.send(url, "body").await.expect("sent");
    assert_eq!(harness.bodies("q"), ["body"]);
}

async fn send_fifo(
    harness: &Harness,
    url: &str,
    group: Option<&str>,
    deduplication: Option<&str>,
) -> Result<String, Trouble> {
    harness
        .sqs
        .send_message()
        .queue_url(url)
        .message_body("body")
        .set_message_group_id(group.map(ToOwned::to_owned))
        .set_message_deduplication_id(deduplication.map(ToOwned::to_owned))
        .send()
        .await
        .map(|output| output.message_id().expect("an id").to_owned())
        .map_err(|error| Trouble::of(&error))
}

#[tokio::test(start_paused = true)]
async fn a_fifo_queue_needs_a_group_and_a_deduplication_id() {
    let harness = Harness::new(Settings::default());
    let url = harness.simulator.create_queue("q.fifo");
    let no_group = Trouble::refused(
        400,
        "MissingParameter",
        "The request must contain the parameter MessageGroupId.",
    );
    let no_deduplication = Trouble::refused(
        400,
        "InvalidParameterValue",
        "The queue should either have ContentBasedDeduplication enabled or \
         MessageDeduplicationId provided explicitly",
    );
    for (group, deduplication, expected) in [
        (None, None, &no_group),
        (None, Some("d"), &no_group),
        (Some("g"), None, &no_deduplication),
    ] {
        let answer = send_fifo(&harness, &url, group, deduplication).await;
        assert_eq!(answer, Err(expected.clone()));
    }
    assert_eq!(
        harness.send_batch(&url, vec![message("a", "body")]).await,
        Ok((
            vec![],
            vec![("a".to_owned(), "MissingParameter".to_owned(), true)]
        ))
    );
    assert_eq!(harness.bodies("q.fifo"), [""; 0]);
    send_fifo(&harness, &url, Some("g"), Some("d"))
        .await
        .expect("sent");
    let [stored] = harness
        .simulator
        .messages("q.fifo")
        .try_into()
        .expect("one");
    assert_eq!(stored.group_id.as_deref(), Some("g"));
    assert_eq!(stored.deduplication_id.as_deref(), Some("d"));
}

#[tokio::test(start_paused = true)]
async fn group_and_deduplication_ids_have_1_to_128_visible_characters() {
    let harness = Harness::new(Settings::default());
    let url = harness.simulator.create_queue("q.fifo");
    let longest = "i".repeat(128);
    send_fifo(&harness, &url, Some(&longest), Some(&longest))
        .await
        .expect("sent");
    for bad in ["", "a b", "é", &"i".repeat(129)] {
        assert_eq!(
            send_fifo(&harness, &url, Some(bad), Some("d")).await,
            Err(Trouble::refused(
                400,
                "InvalidParameterValue",
                "MessageGroupId"
            ))
        );
        assert_eq!(
            send_fifo(&harness, &url, Some("g"), Some(bad)).await,
            Err(Trouble::refused(
                400,
                "InvalidParameterValue",
                "MessageDeduplicationId"
            ))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_fifo_queue_knows_a_deduplication_id_for_five_minutes() {
    let harness = Harness::new(Settings::default());
    let url = harness.simulator.create_queue("q.fifo");
    let send = async |id| {
        send_fifo(&harness, &url, Some("g"), Some(id))
            .await
            .expect("sent")
    };
    let first = send("d").await;
    assert_ne!(send("e").await, first);
    tokio::time::advance(Duration::from_millis(299_999)).await;
    assert_eq!(send("d").await, first);
    assert_eq!(harness.bodies("q.fifo").len(), 2);
    // A repeat does not prolong the window.
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_ne!(send("d").await, first);
    assert_eq!(harness.bodies("q.fifo").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fifo_queue_knows_a_deduplication_id_of_a_message_taken_out() {
    let harness = Harness::new(Settings::default());
    let url = harness.simulator.create_queue("q.fifo");
    let first = send_fifo(&harness, &url, Some("g"), Some("d")).await;
    assert_eq!(harness.simulator.take_messages("q.fifo").len(), 1);
    assert_eq!(send_fifo(&harness, &url, Some("g"), Some("d")).await, first);
    assert_eq!(harness.bodies("q.fifo"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_standard_queue_stores_every_repeat() {
    let (harness, url) = harness();
    for _ in 0..2 {
        send_fifo(&harness, &url, Some("g"), None)
            .await
            .expect("sent");
    }
    assert_eq!(harness.bodies("q"), ["body", "body"]);
}

#[tokio::test(start_paused = true)]
async fn a_standard_queue_refuses_a_deduplication_id() {
    let (harness, url) = harness();
    assert_eq!(
        refusal(send_fifo(&harness, &url, Some("g"), Some("d")).await),
        named("InvalidParameterValue")
    );
    assert_eq!(harness.bodies("q"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_attribute_is_a_string_or_a_number_with_a_label_at_will() {
    for (data_type, is_sent) in [
        ("String", true),
        ("Number", true),
        ("String.json", true),
        ("Strings", false),
        ("", false),
    ] {
        let (harness, url) = harness();
        let attribute = MessageAttributeValue::builder()
            .data_type(data_type)
            .string_value("1")
            .build()
            .expect("an attribute");
        let call = harness
            .sqs
            .send_message()
            .queue_url(&url)
            .message_body("body");
        let call = call.message_attributes("name", attribute);
        assert_eq!(call.send().await.is_ok(), is_sent, "{data_type}");
    }
}

#[tokio::test(start_paused = true)]
async fn message_ids_follow_from_the_seed_and_the_order() {
    let ids = async |seed| {
        let harness = Harness::new(Settings {
            seed,
            ..Settings::default()
        });
        let url = harness.simulator.create_queue("q");
        let first = harness.send(&url, "1").await.expect("sent");
        [first, harness.send(&url, "2").await.expect("sent")]
    };
    let [first, second] = ids(1).await;
    assert_ne!(first, second);
    assert_eq!(ids(1).await, [first.clone(), second.clone()]);
    let [other, _] = ids(2).await;
    assert!(![first, second].contains(&other));
}
