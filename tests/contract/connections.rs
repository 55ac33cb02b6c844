//! Few connections: those of an invocation are used again and again, and few
//! are kept when it is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_smithy_http_client::Builder;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use simulator::Settings;
use sitewise_disassociator::aws::connections::Connections;
use sitewise_disassociator::aws::sitewise::SiteWise;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::support::{Rig, assets, project, request, sdk_config};

/// Relays connections and counts them, those open now and all there were.
async fn relay(listener: TcpListener, to: SocketAddr, count: Arc<[AtomicUsize; 2]>) {
    loop {
        let (mut client, _) = listener.accept().await.expect("a connection");
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            let [open, all] = &*count;
            open.fetch_add(1, Ordering::SeqCst);
            all.fetch_add(1, Ordering::SeqCst);
            let mut server = TcpStream::connect(to).await.expect("the simulator");
            // Whoever ends it, it is over.
            let _ = copy_bidirectional(&mut client, &mut server).await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

#[tokio::test]
async fn an_invocation_opens_a_connection_for_each_call_at_a_time_and_few_are_kept() {
    let settings = Settings {
        latency: Duration::from_millis(5),
        ..Settings::default()
    };
    let mut rig = Rig::new(settings).without_work_queue();
    let server = rig.simulator.serve(([127, 0, 0, 1], 0).into()).await;
    let server = server.expect("a free port");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::<[AtomicUsize; 2]>::default();
    let relaying = tokio::spawn(relay(listener, server.addr(), Arc::clone(&count)));
    let connections = Connections::new(|most_idle| {
        let mut builder = Builder::new();
        builder.set_pool_max_idle_per_host(Some(most_idle));
        builder.build_http()
    });
    let config = sdk_config(SharedHttpClient::new(connections.clone()));
    rig.function.sitewise = SiteWise::new(&config.endpoint_url(&url).build());

    let mut opened = Vec::new();
    for number in 1..=3 {
        let ids = assets(number * 10_000..number * 10_000 + 5_000);
        rig.simulator.add_project(&project(number), &ids);
        let report = rig.answer(&request(number, &ids)).await;
        assert_eq!(report["status"], "succeeded", "{report}");
        connections.close_spare();
        let [open, all] = &*count;
        // Eight calls at a time; two connections are kept.
        let few = async {
            while open.load(Ordering::SeqCst) > 2 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(Duration::from_secs(10), few).await;
        waited.unwrap_or_else(|_| panic!("{open:?} are kept"));
        opened.push(all.swap(0, Ordering::SeqCst));
    }
    relaying.abort();
    // Fifty calls in each invocation.
    for (invocation, all) in opened.iter().enumerate() {
        let most = if invocation == 0 { 8 } else { 6 };
        // One more where an answer's end and the next call pass each other.
        assert!((most..=most + 2).contains(all), "{opened:?}");
    }
}
