//! What the pure parts allocate, from a payload to the calls' tokens, by asset.
//!
//! `cargo bench --bench allocated` prints a table.

mod shapes;

use std::hint::black_box;

use allocation_counter::{AllocationInfo, measure};
use sitewise_disassociator::input::event;
use sitewise_disassociator::plan::plan;

use shapes::{SHAPES, inputs, payload, requests};

#[expect(clippy::print_stdout, reason = "printing is what the program is for")]
fn row(part: &str, messages: usize, assets: usize, allocated: &AllocationInfo) {
    let count = (messages * assets) as u64;
    println!(
        "{part:<6} {messages:>5} x {assets:>6}: {:>8} allocations, {:>6.1} bytes an asset in all, \
         {:>6.1} at a time",
        allocated.count_total,
        allocated.bytes_total as f64 / count as f64,
        allocated.bytes_max as f64 / count as f64,
    );
}

fn main() {
    for (messages, assets) in SHAPES {
        let payload = payload(messages, assets);
        let read = measure(|| {
            let event = event::read(&payload).expect("an event");
            for message in event.messages() {
                black_box(message.request().expect("a request"));
            }
        });
        row("read", messages, assets, &read);

        let requests = requests(messages, assets);
        let planned = measure(|| {
            black_box(plan(&inputs(&requests)));
        });
        row("plan", messages, assets, &planned);

        let batches = plan(&inputs(&requests));
        let tokens = measure(|| {
            for batch in &batches {
                black_box(batch.token(&batch.assets, 0));
            }
        });
        row("token", messages, assets, &tokens);
    }
}
