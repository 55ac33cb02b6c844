//! The time of the pure parts, from a payload to what becomes of each message, by size: is
//! the cost of an asset the same however many there are?
//!
//! `cargo bench` runs them; `cargo test --benches` runs each once.

mod shapes;

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sitewise_disassociator::input::event;
use sitewise_disassociator::input::id::AssetId;
use sitewise_disassociator::input::received::{Received, receive};
use sitewise_disassociator::outcome::{Failure, Outcome};
use sitewise_disassociator::output::dead_letter::Source;
use sitewise_disassociator::plan::{plan, scatter};
use sitewise_disassociator::settle::{Item, Queues, settle};

use shapes::{SHAPES, inputs, payload, requests};

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
        black_box(plan(&inputs(requests)));
    });
}

fn tokens(criterion: &mut Criterion) {
    let prepare = |messages, assets| plan(&inputs(requests(messages, assets).leak()));
    by_shape(criterion, "token", prepare, |batches| {
        for batch in batches {
            black_box(batch.token(&batch.assets, 0));
        }
    });
}

fn settling(criterion: &mut Criterion) {
    let prepare = |messages, assets| {
        let requests = &*requests(messages, assets).leak();
        let batches = plan(&inputs(requests));
        let outcomes: Vec<Vec<Outcome>> = batches
            .iter()
            .map(|batch| vec![Outcome::Disassociated; batch.assets.len()])
            .collect();
        (requests, batches, outcomes)
    };
    let payload = payload(1, 1);
    let event = event::read(&payload).expect("an event");
    by_shape(
        criterion,
        "settle",
        prepare,
        |(requests, batches, outcomes)| {
            let results = scatter(&inputs(requests), batches, outcomes);
            for (request, outcomes) in requests.iter().zip(results) {
                let received = Received {
                    message: &event.messages()[0],
                    id: "m".into(),
                    request: Ok(request.clone()),
                };
                let named = request.named().expect("named assets");
                let assets = named.valid.iter().copied().map(Item::Asset);
                black_box(settle(received, assets.zip(outcomes), Queues::Both));
            }
        },
    );
}

fn dead_letters(criterion: &mut Criterion) {
    let payload = payload(1, 1);
    let event = event::read(&payload).expect("an event");
    let received = receive(event.messages(), "");
    let source = Source {
        received: &received[0],
        request_id: "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_407_660),
    };
    let failure = Failure::new("INTERNAL_FAILURE", "Simulated failure.");
    by_shape(criterion, "dead letters", requests, |requests| {
        for request in requests {
            let named = request.named().expect("named assets");
            let mut assets = &named.valid[..];
            let named_by = |asset: &AssetId| (asset.to_string().into(), &failure);
            while let Some((dead_letter, count)) =
                source.of_assets(named.project, assets.iter().map(named_by))
            {
                black_box(dead_letter);
                assets = &assets[count..];
            }
        }
    });
}

criterion_group!(benches, reading, planning, tokens, settling, dead_letters);
criterion_main!(benches);
