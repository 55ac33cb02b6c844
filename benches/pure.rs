//! The pure parts, from a payload to what becomes of each message, by size: is
//! the cost of an asset the same however many there are?
//!
//! `cargo bench` runs them; `cargo test --benches` runs each once.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use serde_json::value::RawValue;
use sitewise_disassociator::dead_letter::{NamedAsset, Source, letters};
use sitewise_disassociator::event::{self, Origin};
use sitewise_disassociator::outcome::{Failure, Outcome};
use sitewise_disassociator::plan::{Ask, distribute, plan};
use sitewise_disassociator::request::DisassociateRequest;
use sitewise_disassociator::settle::{Available, Worked, settle};

/// Messages, and assets of each.
const SHAPES: [(usize, usize); 5] = [(1, 1), (1000, 1), (10, 250), (1, 25_000), (6, 25_000)];

const PROJECT: &str = "aaaaaaaa-0000-4000-8000-000000000001";

fn asset(number: usize) -> String {
    format!("bbbbbbbb-0000-4000-8000-{number:012x}")
}

fn body(message: usize, assets: usize) -> String {
    let ids: Vec<String> = (message * assets..(message + 1) * assets)
        .map(asset)
        .collect();
    json!({"projectId": PROJECT, "assetIds": ids}).to_string()
}

/// An SQS event, as the runtime hands it over.
fn payload(messages: usize, assets: usize) -> Box<RawValue> {
    let records: Vec<_> = (0..messages)
        .map(|number| {
            json!({"messageId": format!("m-{number}"), "eventSource": "aws:sqs",
                   "body": body(number, assets)})
        })
        .collect();
    RawValue::from_string(json!({ "Records": records }).to_string()).expect("JSON")
}

fn requests(messages: usize, assets: usize) -> Vec<DisassociateRequest> {
    (0..messages)
        .map(|number| DisassociateRequest::parse(&body(number, assets)).expect("a request"))
        .collect()
}

fn asks(requests: &[DisassociateRequest]) -> Vec<Ask<'_>> {
    requests
        .iter()
        .map(|request| Ask {
            request,
            message_id: "8f2d6c5e-0d0c-4f0e-9f0a-3a6c1a7f3b11",
            receives: 1,
        })
        .collect()
}

/// Measures `run` for each shape, by asset.
fn by_shape<T>(
    criterion: &mut Criterion,
    name: &str,
    prepare: impl Fn(usize, usize) -> T,
    run: impl Fn(&T),
) {
    let mut group = criterion.benchmark_group(name);
    for (messages, assets) in SHAPES {
        let input = prepare(messages, assets);
        group.throughput(Throughput::Elements((messages * assets) as u64));
        let id = BenchmarkId::from_parameter(format!("{messages} x {assets}"));
        group.bench_with_input(id, &input, |bencher, input| bencher.iter(|| run(input)));
    }
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    by_shape(criterion, "read", payload, |payload| {
        let event = event::read(payload).expect("an event");
        for message in event.messages() {
            black_box(message.request().expect("a request"));
        }
    });
}

fn planning(criterion: &mut Criterion) {
    by_shape(criterion, "plan", requests, |requests| {
        black_box(plan(&asks(requests)));
    });
}

fn tokens(criterion: &mut Criterion) {
    let prepare = |messages, assets| plan(&asks(&requests(messages, assets)));
    by_shape(criterion, "token", prepare, |batches| {
        for batch in batches {
            black_box(batch.token(&batch.assets, 0));
        }
    });
}

fn settling(criterion: &mut Criterion) {
    let prepare = |messages, assets| {
        let requests = requests(messages, assets);
        let batches = plan(&asks(&requests));
        let outcomes: Vec<Vec<Outcome>> = batches
            .iter()
            .map(|batch| vec![Outcome::Disassociated; batch.assets.len()])
            .collect();
        (requests, batches, outcomes)
    };
    let available = Available {
        dead_letter_queue: true,
        work_queue: true,
    };
    by_shape(
        criterion,
        "settle",
        prepare,
        |(requests, batches, outcomes)| {
            let told = distribute(&asks(requests), batches, outcomes);
            for (request, outcomes) in requests.iter().zip(told) {
                let worked = Worked::Dispatched(request, outcomes);
                black_box(settle(Origin::Sqs, worked, available));
            }
        },
    );
}

fn dead_letters(criterion: &mut Criterion) {
    let payload = payload(1, 1);
    let event = event::read(&payload).expect("an event");
    let source = Source {
        message: &event.messages()[0],
        request_id: "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_407_660),
    };
    let failure = Failure::new("INTERNAL_FAILURE", "Simulated failure.");
    let prepare = |messages, assets| (0..messages * assets).map(asset).collect::<Vec<_>>();
    by_shape(criterion, "dead letters", prepare, |assets| {
        let named: Vec<NamedAsset<'_>> = assets
            .iter()
            .map(|asset| NamedAsset {
                asset: asset.clone(),
                failure: &failure,
            })
            .collect();
        let project = PROJECT.parse().expect("an id");
        black_box(letters(source, project, &named));
    });
}

criterion_group!(benches, reading, planning, tokens, settling, dead_letters);
criterion_main!(benches);
