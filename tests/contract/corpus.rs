//! Sections 1 and 2: bad input of every kind that came to mind, and a million
//! ids. Whatever comes in, its neighbours are done, it is kept as it came, and
//! nothing invalid goes out.

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::thread;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use simulator::{Absent, Settings};
use sitewise_disassociator::aws::sqs::escape_refused;
use sitewise_disassociator::handler::Invocation;
use tokio::time::Instant;

use crate::support::{
    REQUEST_ID, Rig, asset, asset_ids, failed, project, record, records, request,
};

/// A bad message.
struct Bad {
    reason: &'static str,
    carried: Carried,
    end: End,
    /// the answer to it as a payload of its own, in short
    alone: &'static str,
}

/// How a record carries it.
enum Carried {
    /// As the text of the body.
    Text(String),
    /// As JSON in place of the body's string.
    Json(String),
    /// As JSON in place of the whole record.
    Record(String),
}

/// What becomes of it.
enum End {
    /// It is dead-lettered as it came, for this reason.
    Whole(&'static str),
    /// Only these ids are, and [`GOOD`] is disassociated.
    Ids(Vec<String>),
}

use Carried::{Json, Record, Text};
use End::{Ids, Whole};

/// The good asset of each bad message that has one; the neighbours have those
/// before it.
const GOOD: usize = 9;

const NO_UUID: &str =
    "expected a lowercase UUID such as 1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0, found";
const NO_FORM: &str = "expected a request (projectId, assetIds), an EventBridge event (source, \
                       detail-type, detail) or an SNS notification (Type, TopicArn, Message), \
                       found none of their fields";

/// Something that is not one JSON object.
fn text(reason: &'static str, body: impl Into<String>, problem: &'static str) -> Bad {
    Bad {
        reason,
        carried: Text(body.into()),
        end: Whole(problem),
        alone: "refused",
    }
}

/// An object that means to be a request; for what stands in it see [`filled`].
fn asked(reason: &'static str, body: &str, problem: &'static str) -> Bad {
    Bad {
        alone: "failed",
        ..text(reason, filled(body), problem)
    }
}

/// A request with this JSON for its project.
fn project_as(reason: &'static str, json: &str, problem: &'static str) -> Bad {
    let body = format!(r#"{{"projectId":{json},"assetIds":["_A_"]}}"#);
    asked(reason, &body, problem)
}

/// A request with this JSON for its assets.
fn assets_as(reason: &'static str, json: &str, problem: &'static str) -> Bad {
    let body = format!(r#"{{"projectId":"_P_","assetIds":{json}}}"#);
    asked(reason, &body, problem)
}

/// A request with this JSON for its token.
fn token_as(reason: &'static str, json: &str, problem: &'static str) -> Bad {
    let body = format!(r#"{{"projectId":"_P_","assetIds":["_A_"],"clientToken":{json}}}"#);
    asked(reason, &body, problem)
}

/// Something in an envelope, or what looks like one.
fn wrapped(reason: &'static str, body: &str, alone: &'static str, problem: &'static str) -> Bad {
    Bad {
        alone,
        ..text(reason, filled(body), problem)
    }
}

/// A request of a good asset and these.
fn ids<const N: usize>(reason: &'static str, bad: [&str; N]) -> Bad {
    let bad = bad.map(ToOwned::to_owned).to_vec();
    let mut all = bad.clone();
    all.insert(N / 2, asset(GOOD));
    Bad {
        reason,
        carried: Text(request(1, &all).to_string()),
        end: Ids(bad),
        alone: "partial",
    }
}

/// Puts in what is too long to repeat: a good request for `_R_`, the same as a
/// JSON string for `_S_`, its project for `_P_`, its asset for `_A_`, a token
/// for `_T_`; in problems, what is expected of ids and of messages.
fn filled(text: &str) -> String {
    let request = request(1, &[asset(GOOD)]).to_string();
    text.replace("_UUID_", NO_UUID)
        .replace("_NONE_", NO_FORM)
        .replace("_R_", &request)
        .replace("_S_", &json!(request).to_string())
        .replace("_P_", &project(1))
        .replace("_A_", &asset(GOOD))
        .replace("_T_", &"t".repeat(36))
}

/// `inner` in this many arrays.
fn nested(levels: usize, inner: &str) -> String {
    format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels))
}

/// Texts that are not one JSON object.
#[rustfmt::skip]
fn texts() -> Vec<Bad> {
    let good = filled("_R_");
    let half = &good[..good.len() / 2];
    vec![
        text("white space", " \r\n\t", "expected a JSON object, found nothing"),
        text("words", "please remove pump 7", "expected a JSON object: expected value at line 1 column 1"),
        text("a bracket", "{", "expected a JSON object: EOF while parsing an object at line 1 column 1"),
        text("cut in the middle", half,
            "expected a JSON object: EOF while parsing an object at line 1 column 52"),
        text("cut at the end", &good[..good.len() - 1],
            "expected a JSON object: EOF while parsing an object at line 1 column 103"),
        text("one bracket more", format!("{good}}}"),
            "expected a JSON object: trailing characters at line 1 column 105"),
        text("two requests", format!("{good}{good}"),
            "expected a JSON object: trailing characters at line 1 column 105"),
        text("two lines", format!("{good}\n{good}"),
            "expected a JSON object: trailing characters at line 2 column 1"),
        text("words behind", format!("{good} thanks"),
            "expected a JSON object: trailing characters at line 1 column 106"),
        text("words before", format!("request: {good}"),
            "expected a JSON object: expected value at line 1 column 1"),
        text("a comma too many", good.replace("]", ",]"),
            "expected a JSON object: expected value at line 1 column 53"),
        text("a comment", good.replace("}", "/* */}"),
            "expected a JSON object: expected `,` or `}` at line 1 column 104"),
        text("single quotes", good.replace('"', "'"),
            "expected a JSON object: key must be a string at line 1 column 2"),
        text("keys without quotes", good.replace("\"projectId\"", "projectId"),
            "expected a JSON object: key must be a string at line 1 column 54"),
        text("NaN", good.replace("}", ",\"x\":NaN}"),
            "expected a JSON object: expected value at line 1 column 109"),
        text("infinity", good.replace("}", ",\"x\":-Infinity}"),
            "expected a JSON object: invalid number at line 1 column 110"),
        text("a zero before a number", good.replace("}", ",\"x\":01}"),
            "expected a JSON object: invalid number at line 1 column 110"),
        text("a line break in a string", good.replace("bbbb-", "bbbb\n"),
            r#"expected a JSON object: control character (\u0000-\u001F) found while parsing a string at line 1 column 22"#),
        text("a zero byte in a string", good.replace("bbbb-", "bbbb\0"),
            r#"expected a JSON object: control character (\u0000-\u001F) found while parsing a string at line 1 column 22"#),
        text("a zero byte before", format!("\0{good}"),
            "expected a JSON object: expected value at line 1 column 1"),
        text("a zero byte behind", format!("{good}\0"),
            "expected a JSON object: trailing characters at line 1 column 105"),
        text("a byte-order mark", format!("\u{feff}{good}"),
            "expected a JSON object, found a byte-order mark before it"),
        text("a byte-order mark, blanks", format!(" \u{feff} {good}"),
            "expected a JSON object, found a byte-order mark before it"),
        text("a replacement character", format!("\u{fffd}{good}"),
            "expected a JSON object: expected value at line 1 column 1"),
        text("a noncharacter", format!("\u{ffff}{good}"),
            "expected a JSON object: expected value at line 1 column 1"),
        text("a control sequence", "\u{1b}[2J", "expected a JSON object: expected value at line 1 column 1"),
        text("an escape that is none", good.replace("bbbb-", "\\x41"),
            "expected a JSON object: invalid escape at line 1 column 20"),
        text("a string of it", json!(good).to_string(), "expected a JSON object, found a string"),
        text("a list of it", format!("[{good}]"), "expected a JSON object, found an array"),
        text("a list", r#"["PUMP-7"]"#, "expected a JSON object, found an array"),
        Bad { alone: "batch", ..text("an empty list", "[]", "expected a JSON object, found an array") },
        text("null", "null", "expected a JSON object, found null"),
        text("true", "true", "expected a JSON object, found a boolean"),
        text("a number", "-0.5e-7", "expected a JSON object, found a number"),
        text("a huge number", "1e999", "expected a JSON object, found a number"),
        text("a very long number", "9".repeat(100_000), "expected a JSON object, found a number"),
        text("lists, 200 deep", nested(200, ""), "expected a JSON object, found an array"),
        text("lists, 100,000 deep", nested(100_000, ""), "expected a JSON object, found an array"),
        text("brackets that never close", "[".repeat(500_000),
            "expected a JSON object: EOF while parsing a list at line 1 column 500000"),
        text("objects that never close", r#"{"a":"#.repeat(100_000),
            "expected a JSON object: EOF while parsing a value at line 1 column 500000"),
        text("one string of 1 MB", "x".repeat(1_000_000),
            "expected a JSON object: expected value at line 1 column 1"),
        text("base64", "eyJwcm9qZWN0SWQiOiIifQ==",
            "expected a JSON object: expected value at line 1 column 1"),
        text("a form", "projectId=1&assetIds=2", "expected a JSON object: expected value at line 1 column 1"),
        text("XML", "<request projectId=\"1\"/>",
            "expected a JSON object: expected value at line 1 column 1"),
        text("YAML", "projectId: 1\nassetIds:\n- 2\n",
            "expected a JSON object: expected value at line 1 column 1"),
    ]
}

/// Objects that mean to be requests.
#[rustfmt::skip]
fn requests() -> Vec<Bad> {
    vec![
        asked("no list", r#"{"projectId":"_P_"}"#, "assetIds: missing"),
        asked("no project", r#"{"assetIds":["_A_"]}"#, "projectId: missing"),
        assets_as("assets empty", "[]", "assetIds: expected at least one asset id, found none"),
        // kinds
        project_as("project null", "null", "projectId: expected a string, found null"),
        project_as("project number", "7", "projectId: expected a string, found a number"),
        project_as("project huge number", "1e999", "projectId: expected a string, found a number"),
        project_as("project boolean", "false", "projectId: expected a string, found a boolean"),
        project_as("project list", r#"["_P_"]"#, "projectId: expected a string, found an array"),
        project_as("project object", r#"{"id":"_P_"}"#, "projectId: expected a string, found an object"),
        assets_as("assets null", "null", "assetIds: expected an array of strings, found null"),
        assets_as("assets string", r#""_A_""#, "assetIds: expected an array of strings, found a string"),
        assets_as("assets number", "1", "assetIds: expected an array of strings, found a number"),
        assets_as("assets boolean", "true", "assetIds: expected an array of strings, found a boolean"),
        assets_as("assets object", r#"{"0":"_A_"}"#,
            "assetIds: expected an array of strings, found an object"),
        assets_as("asset null", r#"["_A_",null]"#, "assetIds: expected strings, found null at [1]"),
        assets_as("asset number", r#"[1,"_A_"]"#, "assetIds: expected strings, found a number at [0]"),
        assets_as("asset huge number", r#"["_A_",1e999]"#,
            "assetIds: expected strings, found a number at [1]"),
        assets_as("asset long number", "[123456789012345678901234567890]",
            "assetIds: expected strings, found a number at [0]"),
        assets_as("asset list", r#"[["_A_"]]"#, "assetIds: expected strings, found an array at [0]"),
        assets_as("asset object", r#"[{"id":"_A_"}]"#, "assetIds: expected strings, found an object at [0]"),
        assets_as("assets of all kinds", r#"[null,true,-1,"_A_",[],{}]"#,
            "assetIds: expected strings, found null at [0], found a boolean at [1], found a number at \
             [2], found an array at [4], found an object at [5]"),
        token_as("token number", "7", "clientToken: expected a string, found a number"),
        token_as("token list", r#"["_T_"]"#, "clientToken: expected a string, found an array"),
        token_as("token object", "{}", "clientToken: expected a string, found an object"),
        asked("everything wrong", r#"{"projectId":[],"assetIds":{},"clientToken":false}"#,
            "projectId: expected a string, found an array; assetIds: expected an array of strings, found \
             an object; clientToken: expected a string, found a boolean"),
        // tokens
        token_as("token empty", r#""""#, "clientToken: expected 36 to 64 characters, found 0"),
        token_as("token short by one", r#""12345678901234567890123456789012345""#,
            "clientToken: expected 36 to 64 characters, found 35"),
        token_as("token long by one", r#""12345678901234567890123456789012345678901234567890123456789012345""#,
            "clientToken: expected 36 to 64 characters, found 65"),
        token_as("token with a blank", r#""_T_ a""#, "clientToken: expected no white space, found ' '"),
        token_as("token with a tab", r#""_T_\t""#, r#"clientToken: expected no white space, found '\t'"#),
        token_as("token with a line break", r#""_T_\r\n""#,
            r#"clientToken: expected no white space, found '\r'"#),
        token_as("token with a wide blank", r#""_T_\u00a0""#,
            r#"clientToken: expected no white space, found '\u{a0}'"#),
        token_as("token of half a character", r#""_T_\udc00""#,
            "clientToken: lone leading surrogate in hex escape at line 1 column 43"),
        // project ids
        project_as("project empty", r#""""#, r#"projectId: _UUID_ """#),
        project_as("project upper case", r#""AAAAAAAA-0000-4000-8000-000000000001""#,
            r#"projectId: _UUID_ "AAAAAAAA-0000-4000-8000-000000000001""#),
        project_as("project nil", r#""00000000-0000-0000-0000-000000000000""#,
            "projectId: expected a UUID other than all zeros"),
        project_as("project no hyphens", r#""aaaaaaaa000040008000000000000001""#,
            r#"projectId: _UUID_ "aaaaaaaa000040008000000000000001""#),
        project_as("project in braces", r#""{_P_}""#, r#"projectId: _UUID_ "{_P_}""#),
        project_as("project URN", r#""urn:uuid:_P_""#, r#"projectId: _UUID_ "urn:uuid:_P_""#),
        project_as("project ARN", r#""arn:aws:iotsitewise:eu-west-1:123456789012:project/_P_""#,
            r#"projectId: _UUID_ "arn:aws:iotsitewise:eu-west-1:123456789012:project/aaaaaaaa-0000"… (87 bytes)"#),
        project_as("project parent", r#""..""#, r#"projectId: _UUID_ "..""#),
        project_as("project path", r#""../x""#, r#"projectId: _UUID_ "../x""#),
        project_as("project path in one", r#""_P_/../../portals""#,
            r#"projectId: _UUID_ "_P_/../../portals""#),
        project_as("project encoded", r#""%2e%2e%2f""#, r#"projectId: _UUID_ "%2e%2e%2f""#),
        project_as("project query", r#""_P_?x=""#, r#"projectId: _UUID_ "_P_?x=""#),
        project_as("project header", r#""_P_\r\nHost: example.com""#,
            r#"projectId: _UUID_ "_P_\r\nHost: example.com""#),
        project_as("project line break", r#""_P_\n""#, r#"projectId: _UUID_ "_P_\n""#),
        project_as("project blank", r#"" _P_""#, r#"projectId: _UUID_ " _P_""#),
        project_as("project zero byte", r#""_P_\u0000""#, r#"projectId: _UUID_ "_P_\0""#),
        project_as("project half a character", r#""\ud800""#,
            "projectId: unexpected end of hex escape at line 1 column 8"),
        project_as("project of other digits", r#""٠aaaaaa-0000-4000-8000-000000000001""#,
            r#"projectId: _UUID_ "٠aaaaaa-0000-4000-8000-000000000001""#),
        project_as("project of 1 MB", &format!("\"{}\"", "a".repeat(1_000_000)),
            r#"projectId: _UUID_ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"… (1000000 bytes)"#),
        // ids that cannot even be read
        assets_as("asset half a character", r#"["_A_","\ud83d"]"#,
            "assetIds: unexpected end of hex escape at line 1 column 48"),
        assets_as("asset half, upside down", r#"["\ude00\ud83d","_A_"]"#,
            "assetIds: lone leading surrogate in hex escape at line 1 column 8"),
        // keys
        asked("project twice", r#"{"projectId":"_P_","projectId":"_P_","assetIds":["_A_"]}"#,
            "expected a JSON object: duplicate field `projectId` at line 1 column 63"),
        asked("assets twice", r#"{"projectId":"_P_","assetIds":["_A_"],"assetIds":["_A_"]}"#,
            "expected a JSON object: duplicate field `assetIds` at line 1 column 114"),
        asked("token twice", r#"{"clientToken":"_T_","projectId":"_P_","assetIds":["_A_"],"clientToken":null}"#,
            "expected a JSON object: duplicate field `clientToken` at line 1 column 170"),
        asked("twice, once escaped", r#"{"projectId":"_P_","assetIds":["_A_"],"project\u0049d":"_P_"}"#,
            "expected a JSON object: duplicate field `projectId` at line 1 column 120"),
        asked("key half a character", r#"{"projectId":"_P_","assetIds":["_A_"],"\ud800":1}"#,
            "expected a JSON object: unexpected end of hex escape at line 1 column 112"),
        asked("project in capitals", r#"{"ProjectId":"_P_","assetIds":["_A_"]}"#, "projectId: missing"),
        asked("assets of the SDK for Python", r#"{"projectId":"_P_","asset_ids":["_A_"]}"#,
            "assetIds: missing"),
        // depth
        assets_as("assets, 200 deep", &nested(200, r#""_A_""#), "assetIds: expected strings, found an array at [0]"),
        project_as("project, 200 deep", &nested(200, ""), "projectId: expected a string, found an array"),
        // of a request and an envelope, the request counts
        asked("request around a request", r#"{"projectId":"_P_","detail-type":"t","source":"s","detail":_R_}"#,
            "assetIds: missing"),
        assets_as("request in its list", "[_R_]", "assetIds: expected strings, found an object at [0]"),
    ]
}

/// Envelopes, and what looks like one.
#[rustfmt::skip]
fn envelopes() -> Vec<Bad> {
    let rule = |detail: &str| format!(r#"{{"detail-type":"t","source":"s","id":"e","detail":{detail}}}"#);
    let topic = |message: &str| format!(r#"{{"Type":"Notification","TopicArn":"t","MessageId":"n","Message":{message}}}"#);
    let in_string = |text: &str| json!(filled(text)).to_string();
    let sns_record = |message: &str| format!(r#"{{"EventSource":"aws:sns","Sns":{}}}"#, topic(message));
    let sqs_record = r#"{"messageId":"m","eventSource":"aws:sqs","body":_S_}"#;
    vec![
        wrapped("an empty object", "{}", "refused", "_NONE_"),
        wrapped("other fields", r#"{"hello":"world"}"#, "refused", "_NONE_"),
        wrapped("other fields, twice", r#"{"a":1,"a":2}"#, "refused", "_NONE_"),
        wrapped("other fields, 200 deep", &format!(r#"{{"a":{}}}"#, nested(200, "")), "refused", "_NONE_"),
        wrapped("keys in capitals", r#"{"PROJECTID":"_P_","ASSETIDS":["_A_"]}"#, "refused", "_NONE_"),
        wrapped("a request in a field", r#"{"request":_R_}"#, "refused", "_NONE_"),
        wrapped("a bucket's test", r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#, "refused", "_NONE_"),
        wrapped("an invocation record", r#"{"version":"1.0","requestPayload":_R_}"#, "refused", "_NONE_"),
        // EventBridge
        wrapped("rule: no detail", r#"{"detail-type":"t","source":"s"}"#, "refused", "_NONE_"),
        wrapped("rule: no source", r#"{"detail-type":"t","detail":_R_}"#, "refused", "_NONE_"),
        wrapped("rule: null", &rule("null"), "failed", "expected a JSON object, found null"),
        wrapped("rule: text", &rule("_S_"), "failed", "expected a JSON object, found a string"),
        wrapped("rule: number", &rule("1e999"), "failed", "expected a JSON object, found a number"),
        wrapped("rule: list", &rule("[_R_]"), "failed", "expected a JSON object, found an array"),
        wrapped("rule: empty object", &rule("{}"), "failed", "projectId: missing; assetIds: missing"),
        wrapped("rule: no assets", &rule(r#"{"projectId":"_P_","assetIds":[]}"#), "failed",
            "assetIds: expected at least one asset id, found none"),
        wrapped("rule: half a character", &rule(r#"{"projectId":"\ud800","assetIds":["_A_"]}"#), "failed",
            "projectId: unexpected end of hex escape at line 1 column 8"),
        wrapped("rule: 200 deep", &rule(&nested(200, "")), "failed",
            "expected a JSON object, found an array"),
        wrapped("rule: twice", r#"{"detail-type":"t","source":"s","detail":_R_,"detail":_R_}"#, "failed",
            "expected a JSON object: duplicate field `detail` at line 1 column 154"),
        wrapped("rule in a rule", &rule(&rule("_R_")), "failed", "projectId: missing; assetIds: missing"),
        wrapped("topic in a rule", &rule(&topic("_S_")), "failed", "projectId: missing; assetIds: missing"),
        wrapped("queue in a rule", &rule(&format!(r#"{{"Records":[{sqs_record}]}}"#)), "failed",
            "projectId: missing; assetIds: missing"),
        // SNS
        wrapped("topic: no message", r#"{"Type":"Notification","TopicArn":"t"}"#, "refused", "_NONE_"),
        wrapped("topic: no ARN", r#"{"Type":"Notification","Message":_S_}"#, "refused", "_NONE_"),
        wrapped("topic: null", &topic("null"), "refused", "Message: expected a string, found null"),
        wrapped("topic: number", &topic("7"), "refused", "Message: expected a string, found a number"),
        wrapped("topic: object", &topic("_R_"), "refused", "Message: expected a string, found an object"),
        wrapped("topic: empty", &topic(r#""""#), "refused", "expected a JSON object, found nothing"),
        wrapped("topic: words", &topic(r#""hello""#), "refused",
            "expected a JSON object: expected value at line 1 column 1"),
        wrapped("topic: a string of it", &topic(&in_string("_S_")), "refused",
            "expected a JSON object, found a string"),
        wrapped("topic: no assets", &topic(r#""{\"projectId\":\"_P_\",\"assetIds\":[]}""#), "refused",
            "assetIds: expected at least one asset id, found none"),
        wrapped("topic: twice", &topic(r#"_S_,"Message":_S_"#), "failed",
            "expected a JSON object: duplicate field `Message` at line 1 column 188"),
        wrapped("rule in a topic", &topic(&in_string(&rule("_R_"))), "refused",
            "projectId: missing; assetIds: missing"),
        wrapped("topic in a topic", &topic(&in_string(&topic("_S_"))), "refused",
            "projectId: missing; assetIds: missing"),
        wrapped("topic: what Lambda keeps, twice", &format!(r#"{{"Records":[{0},{0}]}}"#, sns_record("_S_")),
            "succeeded, succeeded", "_NONE_"),
        wrapped("topic: what Lambda keeps, words", &format!(r#"{{"Records":[{}]}}"#, sns_record(r#""hello""#)), "failed",
            "expected a JSON object: expected value at line 1 column 1"),
        wrapped("topic: what Lambda keeps, null", r#"{"Records":[{"EventSource":"aws:sns","Sns":null}]}"#, "failed",
            "Sns: expected a JSON object, found null"),
        // SQS
        wrapped("queue in a queue", &format!(r#"{{"Records":[{sqs_record}]}}"#), "batch", "_NONE_"),
        wrapped("queue: no records", r#"{"Records":[]}"#, "batch", "_NONE_"),
        wrapped("queue: records of a bucket", r#"{"Records":[{"eventSource":"aws:s3"}]}"#, "refused",
            "_NONE_"),
        wrapped("queue: an object for the records", r#"{"Records":{}}"#, "refused", "_NONE_"),
        wrapped("pipe in a queue", &format!("[{sqs_record}]"), "batch",
            "expected a JSON object, found an array"),
        wrapped("topic: half a character", &topic(r#""\ud800""#), "refused",
            "Message: unexpected end of hex escape at line 1 column 8"),
    ]
}

/// Requests of which some ids are bad.
fn bad_ids() -> Vec<Bad> {
    let upper = asset(GOOD).to_uppercase();
    let hyphens = asset(GOOD).replace('-', "");
    let braces = format!("{{{}}}", asset(GOOD));
    let urn = format!("urn:uuid:{}", asset(GOOD));
    let behind = format!("{}\n", asset(GOOD));
    let before = format!(" {}", asset(GOOD));
    let zero = format!("{}\0", asset(GOOD));
    let path = format!("{}/../x", asset(GOOD));
    let list = format!("{0},{0}", asset(GOOD));
    let million = "x".repeat(1_000_000);
    let many: Vec<String> = (0..250).map(|number| format!("PUMP-{number}")).collect();
    vec![
        ids("id empty", [""]),
        ids("id blank", [" "]),
        ids("id words", ["PUMP-7"]),
        ids("id upper case", [&upper]),
        ids(
            "id one letter upper case",
            ["bbbBbbbb-0000-4000-8000-000000000009"],
        ),
        ids("id nil", ["00000000-0000-0000-0000-000000000000"]),
        ids("id ones", ["ffffffff-ffff-ffff-ffff-fffffffffffg"]),
        ids("id no hyphens", [&hyphens]),
        ids("id in braces", [&braces]),
        ids("id URN", [&urn]),
        ids("id external", ["externalId:pump-7"]),
        ids("id line break", [&behind]),
        ids("id blank before", [&before]),
        ids("id zero byte", [&zero, "\0"]),
        ids("id parent", ["..", "../x", "/", "%2e%2e"]),
        ids("id path", [&path]),
        ids("id list", [&list]),
        ids("id short by one", ["bbbbbbbb-0000-4000-8000-00000000000"]),
        ids("id long by one", ["bbbbbbbb-0000-4000-8000-0000000000090"]),
        ids("id hyphens moved", ["bbbbbbb-b0000-4000-8000-000000000009"]),
        ids("id other hyphens", ["bbbbbbbb‐0000‐4000‐8000‐000000000009"]),
        ids("id other digits", ["bbbbbbbb-٠٠-4000-8000-000000000009"]),
        ids("id other letters", ["аbbbbb-0000-4000-8000-000000000009"]),
        ids("id face", ["😀"]),
        ids("id quotes", ["\"", "\\", "'", "\u{2028}"]),
        ids(
            "id control characters",
            ["\u{1b}[31m", "\u{7f}", "\u{202e}"],
        ),
        ids("id noncharacters", ["\u{fffe}", "\u{ffff}"]),
        ids("id of 1 MB", [&million]),
        Bad {
            carried: Text(request(1, &[many.clone(), vec![asset(GOOD)]].concat()).to_string()),
            end: Ids(many),
            ..ids("250 ids", [])
        },
    ]
}

/// Records that are bad themselves.
#[rustfmt::skip]
fn bad_records() -> Vec<Bad> {
    let json = |reason, carried: &str, alone, problem| Bad {
        reason,
        carried: Json(carried.to_owned()),
        end: Whole(problem),
        alone,
    };
    let whole = |reason, carried: &str, problem| Bad {
        reason,
        carried: Record(filled(carried)),
        end: Whole(problem),
        alone: "refused",
    };
    vec![
        json("body empty", r#""""#, "refused",
            "body: expected a request, found an empty string"),
        json("body null", "null", "refused", "body: expected a string, found null"),
        json("body number", "1e999", "refused",
            "body: expected a string, found a number"),
        json("body boolean", "true", "refused",
            "body: expected a string, found a boolean"),
        json("body list", "[]", "batch",
            "body: expected a string, found an array"),
        json("body half a character", r#""\ud800""#, "refused",
            "body: unexpected end of hex escape at line 1 column 8"),
        json("body 200 deep", &nested(200, ""), "refused",
            "body: expected a string, found an array"),
        whole("body object", r#"{"messageId":"bad","eventSource":"aws:sqs","body":_R_}"#,
            "body: expected a string, found an object"),
        whole("body missing", r#"{"messageId":"bad","eventSource":"aws:sqs"}"#,
            "body: missing"),
        whole("body of Pipes", r#"{"messageId":"bad","eventSource":"aws:sqs","Body":_S_}"#,
            "body: missing"),
        whole("record empty", "{}", "body: missing"),
        whole("record null", "null",
            "record: expected a JSON object, found null"),
        whole("record number", "-1",
            "record: expected a JSON object, found a number"),
        whole("record text", "_S_",
            "record: expected a JSON object, found a string"),
        whole("record list", "[_R_]",
            "record: expected a JSON object, found an array"),
        whole("record of a stream", r#"{"eventSource":"aws:kinesis","kinesis":{"data":"e30="}}"#,
            "body: missing"),
        whole("record 200 deep", &nested(200, ""),
            "record: expected a JSON object, found an array"),
    ]
}

fn corpus() -> Vec<Bad> {
    let mut all = texts();
    all.extend(requests());
    all.extend(bad_ids());
    all.extend(bad_records());
    all.extend(envelopes());
    all
}

impl Bad {
    /// The record that carries it.
    fn record(&self) -> String {
        match &self.carried {
            Text(body) => record("bad", &json!(body)).to_string(),
            Json(body) => {
                format!(r#"{{"messageId":"bad","eventSource":"aws:sqs","body":{body}}}"#)
            }
            Record(record) => record.clone(),
        }
    }

    /// It as JSON: what is no JSON is a string.
    fn json(&self) -> String {
        match &self.carried {
            Text(body) => match RawValue::from_string(body.clone()) {
                Ok(value) => value.get().to_owned(),
                Err(_) => json!(body).to_string(),
            },
            Json(json) | Record(json) => json.clone(),
        }
    }

    /// It as the message of an SNS notification, if it can be one.
    fn message(&self) -> Option<String> {
        match &self.carried {
            Text(body) => Some(json!(body).to_string()),
            Json(json) => Some(json.clone()),
            Record(_) => None,
        }
    }

    /// The numbers of the assets that remain of it.
    fn remaining(&self) -> Vec<usize> {
        match self.end {
            Whole(_) => vec![GOOD],
            Ids(_) => vec![],
        }
    }

    /// Checks the one letter there is of it; `kept` is what came.
    fn check_letter(&self, rig: &Rig, kept: &str, source: Option<&str>) {
        let letters = rig.letters();
        assert_eq!(letters.len(), 1, "{}", self.reason);
        let letter = &letters[0];
        let message = &letter.attributes["ErrorMessage"];
        let mut attributes = json!({"RequestID": REQUEST_ID, "ErrorMessage": message});
        if let Some(source) = source {
            attributes["SourceMessageId"] = json!(source);
        }
        // A project that came as a string is named, good or bad.
        if let Some(project) = letter.attributes.get("ProjectId") {
            attributes["ProjectId"] = json!(project);
        }
        assert_ne!(message, "", "{}", self.reason);
        match &self.end {
            Whole(_) => {
                attributes["ErrorCode"] = json!("InvalidRequest");
                // A failure must not print a megabyte.
                assert!(
                    letter.body == escape_refused(kept.to_owned()),
                    "{}",
                    self.reason
                );
            }
            Ids(ids) => {
                attributes["ErrorCode"] = json!("InvalidAssetId");
                attributes["ProjectId"] = json!(project(1));
                let body: Value = serde_json::from_str(&letter.body).expect("JSON");
                assert!(body["assetIds"] == json!(ids), "{}", self.reason);
                let errors = body["errors"].as_array().expect("a list");
                assert_eq!(errors.len(), ids.len(), "{}", self.reason);
                for (id, error) in ids.iter().zip(errors) {
                    let id = &id[..id.len().min(128)];
                    assert_eq!(error["assetId"], id, "{}", self.reason);
                    assert_eq!(error["code"], "InvalidAssetId", "{}", self.reason);
                }
            }
        }
        assert_eq!(json!(letter.attributes), attributes, "{}", self.reason);
    }

    /// Checks a report on it.
    fn check_report(&self, rig: &Rig, mut report: Value) {
        let letter = &rig.letters()[0];
        // Whichever project was given is repeated; a bad one may be long.
        let given = escape_refused(
            report["projectId"]
                .take()
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        );
        let attribute = letter
            .attributes
            .get("ProjectId")
            .map_or("", String::as_str);
        assert!(
            given[..given.len().min(1024)] == *attribute,
            "{}",
            self.reason
        );
        let failure = |ids: &[&String], code: &str, message: &Value| {
            json!({"assetIds": ids, "code": code,
                   "message": message, "retryable": false, "deadLettered": true, "queued": false})
        };
        let (status, done, failures) = match &self.end {
            Whole(_) => {
                let message = json!(letter.attributes["ErrorMessage"]);
                ("failed", 0, vec![failure(&[], "InvalidRequest", &message)])
            }
            Ids(ids) => {
                let body: Value = serde_json::from_str(&letter.body).expect("JSON");
                let errors = body["errors"].as_array().expect("a list");
                let mut failures: Vec<(&Value, Vec<&String>)> = Vec::new();
                for (id, error) in ids.iter().zip(errors) {
                    let message = &error["message"];
                    match failures.iter_mut().find(|(known, _)| *known == message) {
                        Some((_, ids)) => ids.push(id),
                        None => failures.push((message, vec![id])),
                    }
                }
                let failures = failures
                    .iter()
                    .map(|(message, ids)| failure(ids, "InvalidAssetId", message));
                ("partial", 1, failures.collect())
            }
        };
        let rejected = match &self.end {
            Whole(_) => 0,
            Ids(ids) => ids.len(),
        };
        let expected = json!({
            "requestId": REQUEST_ID, "projectId": null, "status": status,
            "assets": {"requested": done + rejected, "duplicates": 0, "disassociated": done,
                       "absent": 0, "rejected": rejected, "unfinished": 0, "queued": 0},
            "calls": done, "failures": failures,
        });
        assert!(
            report == expected,
            "{}: {:.2000}",
            self.reason,
            report.to_string()
        );
    }
}

/// Handles an event that may have what a [`Value`] cannot hold.
async fn handle(rig: &Rig, event: &str) -> Result<Value, String> {
    let payload = RawValue::from_string(event.to_owned()).expect("JSON");
    let invocation = Invocation {
        request_id: rig.request_id,
        deadline: Instant::now() + rig.time_left,
        is_cold_start: true,
    };
    match rig.function.handle(&payload, invocation).await {
        Ok(answer) => Ok(serde_json::to_value(answer).expect("JSON")),
        Err(error) => Err(format!("{}: {error}", error.name())),
    }
}

#[test]
fn the_corpus_has_each_reason_once() {
    let reasons: Vec<&str> = corpus().iter().map(|bad| bad.reason).collect();
    let distinct: BTreeSet<&&str> = reasons.iter().collect();
    assert_eq!(reasons.len(), distinct.len());
}

#[tokio::test(start_paused = true)]
async fn a_bad_message_is_kept_as_it_came_and_its_nine_neighbours_are_done() {
    for bad in corpus() {
        for place in [0, 4, 9] {
            let rig = Rig::with_assets(0..=GOOD);
            let good = |number: usize| {
                record(&format!("m-{number}"), &request(1, &[asset(number)])).to_string()
            };
            let mut all: Vec<String> = (0..GOOD).map(good).collect();
            all.insert(place, bad.record());
            let event = format!(r#"{{"Records":[{}]}}"#, all.join(","));
            let answer = handle(&rig, &event).await;
            assert_eq!(answer, Ok(failed([])), "{} at {place}", bad.reason);
            assert_eq!(
                rig.remaining(),
                bad.remaining(),
                "{} at {place}",
                bad.reason
            );
            let calls = rig.calls().len();
            assert_eq!(calls, 1, "{} at {place}: one batch", bad.reason);
            rig.assert_nothing_invalid_was_sent();
            assert_eq!(rig.parts().len(), 0, "{}", bad.reason);

            let is_named = bad.record().contains(r#""messageId":"bad""#);
            let kept = match &bad.carried {
                Text(body) => body.clone(),
                Json(_) | Record(_) => bad.record(),
            };
            bad.check_letter(&rig, &kept, is_named.then_some("bad"));
            if let Whole(problem) = bad.end {
                let told = &rig.letters()[0].attributes["ErrorMessage"];
                assert_eq!(*told, filled(problem), "{}", bad.reason);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_event_is_kept_as_it_came_and_reported() {
    for bad in corpus() {
        let rig = Rig::with_assets([GOOD]);
        let event = format!(
            r#"{{"id":"e","detail-type":"t","source":"s","detail":{}}}"#,
            bad.json()
        );
        let report = handle(&rig, &event).await.expect(bad.reason);
        bad.check_letter(&rig, &event, Some("e"));
        bad.check_report(&rig, report);
        assert_eq!(rig.remaining(), bad.remaining(), "{}", bad.reason);
        rig.assert_nothing_invalid_was_sent();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_notification_is_kept_as_it_came_and_reported() {
    for bad in corpus() {
        let Some(message) = bad.message() else {
            continue;
        };
        let rig = Rig::with_assets([GOOD]);
        let notification = format!(r#"{{"MessageId":"n","TopicArn":"t","Message":{message}}}"#);
        let event = format!(r#"{{"Records":[{{"EventSource":"aws:sns","Sns":{notification}}}]}}"#);
        let report = handle(&rig, &event).await.expect(bad.reason);
        bad.check_letter(&rig, &notification, Some("n"));
        bad.check_report(&rig, report);
        assert_eq!(rig.remaining(), bad.remaining(), "{}", bad.reason);
        rig.assert_nothing_invalid_was_sent();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_payload_is_refused_or_reported() {
    for bad in corpus() {
        let rig = Rig::with_assets([GOOD]);
        let payload = bad.json();
        let answer = handle(&rig, &payload).await;
        assert_eq!(in_short(&answer), bad.alone, "{}", bad.reason);
        rig.assert_nothing_invalid_was_sent();
        match (bad.alone, answer) {
            ("refused", _) => {
                assert_eq!(rig.simulator.calls().len(), 0, "{}", bad.reason);
                assert_eq!(rig.remaining(), [GOOD], "{}", bad.reason);
            }
            // Where it is a request, or an envelope that is an event.
            ("failed" | "partial", Ok(report)) => {
                let source = match &bad.carried {
                    // SNS records: kept without what is around them.
                    Text(body) if body.starts_with(r#"{"Records""#) => continue,
                    Text(body) if body.contains(r#""detail-type":"t""#) => {
                        body.contains(r#""id":"e""#)
                    }
                    _ => false,
                };
                bad.check_letter(&rig, &payload, source.then_some("e"));
                bad.check_report(&rig, report);
                assert_eq!(rig.remaining(), bad.remaining(), "{}", bad.reason);
            }
            _ => {}
        }
    }
}

/// An answer in a word, or an error that is clear.
fn in_short(answer: &Result<Value, String>) -> String {
    match answer {
        Err(error) => {
            let is_clear =
                error.starts_with("UnrecognizedEvent: unrecognized event: expected an SQS event");
            if is_clear { "refused" } else { error }.to_owned()
        }
        Ok(Value::Array(reports)) => {
            let each = reports.iter().map(|report| in_short(&Ok(report.clone())));
            each.collect::<Vec<_>>().join(", ")
        }
        Ok(answer) if *answer == failed([]) => "batch".to_owned(),
        Ok(report) => report["status"].as_str().unwrap_or("?").to_owned(),
    }
}

/// The pattern of the service model for ids, a letter `h` for `[0-9a-f]`; the
/// one id that it excludes is [`NIL`].
const PATTERN: &str = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// Tells whether the service model takes `id`: read off the pattern, without
/// the code that is tested.
fn is_valid(id: &str) -> bool {
    let fits = |(byte, place): (u8, u8)| match place {
        b'h' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        hyphen => byte == hyphen,
    };
    id.len() == PATTERN.len() && id.bytes().zip(PATTERN.bytes()).all(fits) && id != NIL
}

#[test]
fn the_oracle_takes_what_the_pattern_takes() {
    for (id, expected) in [
        (asset(1).as_str(), true),
        ("01234567-89ab-cdef-0123-456789abcdef", true),
        ("00000000-0000-0000-0000-000000000001", true),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", true),
        (NIL, false),
        ("", false),
        ("0123456789abcdef0123456789abcdef", false),
        ("01234567-89AB-cdef-0123-456789abcdef", false),
        ("01234567-89ab-cdef-0123-456789abcdeg", false),
        ("01234567-89ab-cdef-0123-456789abcdef\n", false),
        ("0123456-789ab-cdef-0123-456789abcdef", false),
        ("٠1234567-9ab-cdef-0123-456789abcdef", false),
    ] {
        assert_eq!(is_valid(id), expected, "{id:?}");
    }
}

/// Numbers by SplitMix64, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    fn one_of(&mut self, texts: &[&'static str]) -> &'static str {
        texts[self.below(texts.len())]
    }

    /// An id that the pattern takes.
    fn good_id(&mut self) -> String {
        let (high, low) = (self.roll(), self.roll());
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    /// A good id with one thing done to it, which may leave it good.
    fn nearly_good_id(&mut self) -> String {
        let id = self.good_id();
        let place = self.below(id.len());
        let strange = self.one_of(STRANGE);
        match self.below(12) {
            0 => id.to_uppercase(),
            1 => format!(
                "{}{}{}",
                &id[..place],
                id[place..=place].to_uppercase(),
                &id[place + 1..]
            ),
            2 => format!("{}{}", &id[..place], &id[place + 1..]),
            3 => format!("{}{strange}{}", &id[..place], &id[place..]),
            // as many characters, then as many bytes
            4 => format!("{}{strange}{}", &id[..place], &id[place + 1..]),
            5 => format!(
                "{}{strange}{}",
                &id[..place],
                id.get(place + strange.len()..).unwrap_or_default()
            ),
            6 => id.replace('-', ""),
            7 => format!("{{{id}}}"),
            8 => format!("urn:uuid:{id}"),
            9 => format!("{id}{strange}"),
            10 => format!("{strange}{id}"),
            _ => format!("{}-{}", &id[..place], id[place..].replacen('-', "", 1)),
        }
    }

    /// Anything else.
    fn bad_id(&mut self) -> String {
        let pieces = 1 + self.below(12);
        (0..pieces).map(|_| self.one_of(STRANGE)).collect()
    }
}

/// What does not belong in an id, and some of what does.
const STRANGE: &[&str] = &[
    "a", "0", "-", "A", "F", "g", "z", "_", " ", "\t", "\n", "\r\n", "\0", "\u{1b}", "\u{7f}", "/",
    "..", "../", "\\", "\"", "'", "`", "%", "%2e", "%00", "?", "#", "&", "=", ";", ",", ":", "{",
    "}", "[", "]", "<", "é", "а", "٠", "０", "‐", "\u{a0}", "\u{200b}", "\u{202e}", "\u{2028}",
    "\u{feff}", "\u{fffd}", "\u{fffe}", "\u{ffff}", "😀", "00000000", NIL,
];

/// What becomes of a request's ids.
#[derive(Debug, Default)]
struct Fate {
    sent: BTreeSet<String>,
    lettered: BTreeSet<String>,
}

/// How many ids of each kind there were.
#[derive(Debug, Default, Eq, PartialEq)]
struct Tally {
    sent: usize,
    lettered: usize,
    repeated: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.lettered += other.lettered;
        self.repeated += other.repeated;
    }
}

/// Ids of one request.
const IDS: usize = 20_000;

/// The requests, by their numbers, which are the seeds too.
const REQUESTS: usize = 50;

const THREADS: usize = 2;

#[test]
fn of_a_million_ids_each_good_one_is_sent_once_and_each_bad_one_is_lettered() {
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let threads = (0..THREADS).map(|thread| {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .start_paused(true)
                    .build()
                    .expect("a runtime");
                let mut tally = Tally::default();
                for number in (thread..REQUESTS).step_by(THREADS) {
                    tally += runtime.block_on(generated_request(number));
                }
                tally
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            tally += thread.join().expect("every request as expected");
        }
    });
    let expected = Tally {
        sent: 518_391,
        lettered: 279_695,
        repeated: 201_914,
    };
    assert_eq!(tally, expected, "of {}", IDS * REQUESTS);
}

/// Generates a request, has it handled and checks what becomes of its ids.
async fn generated_request(number: usize) -> Tally {
    let mut dice = Dice(number as u64);
    let mut asked: Vec<String> = Vec::with_capacity(IDS);
    while asked.len() < IDS {
        let id = match dice.below(20) {
            0..=9 => dice.good_id(),
            10..=14 => dice.nearly_good_id(),
            15 => dice.bad_id(),
            _ if asked.is_empty() => continue,
            _ => asked[dice.below(asked.len())].clone(),
        };
        asked.push(id);
    }
    let distinct: BTreeSet<String> = asked.iter().cloned().collect();
    let (sent, lettered) = distinct.into_iter().partition(|id| is_valid(id));
    let expected = Fate { sent, lettered };
    let tally = Tally {
        sent: expected.sent.len(),
        lettered: expected.lettered.len(),
        repeated: IDS - expected.sent.len() - expected.lettered.len(),
    };

    // Assets that are not in the project are no failure here.
    let settings = Settings {
        unknown_asset: Absent::Ignore,
        ..Settings::default()
    };
    let rig = Rig::new(settings).without_work_queue();
    rig.simulator
        .add_project(&project(number), [] as [String; 0]);
    let request = request(number, &asked);
    if number.is_multiple_of(2) {
        let event = records([record("m-1", &request)]);
        let answer = rig.answer(&event).await;
        assert_eq!(answer, failed([]), "request {number}");
        check_fate(&rig, number, &expected);
    } else {
        let report = rig.answer(&request).await;
        check_fate(&rig, number, &expected);
        let counts = json!({
            "requested": tally.sent + tally.lettered, "duplicates": tally.repeated,
            "disassociated": tally.sent, "absent": 0, "rejected": tally.lettered,
            "unfinished": 0, "queued": 0,
        });
        assert_eq!(report["assets"], counts, "request {number}");
    }
    rig.assert_nothing_invalid_was_sent();
    tally
}

/// Checks that each id met its fate, and met it once.
fn check_fate(rig: &Rig, number: usize, expected: &Fate) {
    let mut found = Fate::default();
    for call in rig.calls() {
        assert_eq!(call.project, Some(project(number)));
        for id in call.assets {
            assert!(is_valid(&id), "request {number}: {id:?} was sent");
            assert!(found.sent.insert(id), "request {number}: sent twice");
        }
    }
    for letter in rig.letter_bodies() {
        assert_eq!(letter["projectId"], project(number));
        for id in asset_ids(&letter) {
            let is_new = found.lettered.insert(id);
            assert!(is_new, "request {number}: lettered twice");
        }
    }
    let sent = found.sent.symmetric_difference(&expected.sent);
    let lettered = found.lettered.symmetric_difference(&expected.lettered);
    // A failure need not print thousands.
    let wrong: Vec<&String> = sent.chain(lettered).take(10).collect();
    assert_eq!(wrong, [] as [&String; 0], "request {number}");
}
