//! Connections are used again and again, but no request is repeated over one
//! that may have died while the process was frozen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_http_client::Builder;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use futures_util::future::join_all;
use simulator::{Settings, Simulator};
use sitewise_disassociator::aws::connections::Connections;
use sitewise_disassociator::aws::sitewise::SiteWise;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

const PROJECT: &str = "aaaaaaaa-0000-4000-8000-000000000001";

#[derive(Default)]
struct Relay {
    opened: AtomicUsize,
    freezes: AtomicUsize,
}

impl Relay {
    /// Relays connections until the test is over.
    async fn run(self: Arc<Self>, listener: TcpListener, to: SocketAddr) {
        loop {
            let (client, _) = listener.accept().await.expect("a connection");
            self.opened.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(Arc::clone(&self).relay(client, to));
        }
    }

    /// Relays a connection until one end closes it. If the process was frozen
    /// since it was opened, it is dead, which shows at the next request.
    async fn relay(self: Arc<Self>, client: TcpStream, to: SocketAddr) {
        let freezes = self.freezes.load(Ordering::SeqCst);
        let server = TcpStream::connect(to).await.expect("the simulator");
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let requests = async {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from_client.read(&mut buffer).await
                && self.freezes.load(Ordering::SeqCst) == freezes
                && to_server.write_all(&buffer[..length]).await.is_ok()
            {}
        };
        tokio::select! {
            () = requests => {}
            _ = copy(&mut from_server, &mut to_client) => {}
        }
    }

    fn take_opened(&self) -> usize {
        self.opened.swap(0, Ordering::SeqCst)
    }
}

/// Makes calls, all at once.
async fn call(sitewise: &SiteWise, count: usize) {
    let project = PROJECT.parse().expect("an id");
    let assets = [PROJECT.parse().expect("an id")];
    let token = "t".repeat(40).parse().expect("a token");
    let calls = (0..count).map(|_| sitewise.disassociate(project, &assets, &token));
    for result in join_all(calls).await {
        assert_eq!(result.expect("a success"), []);
    }
}

#[tokio::test]
async fn connections_are_reused_but_never_for_a_repeated_request() {
    let simulator = Simulator::new(Settings::default());
    simulator.add_project(PROJECT, [PROJECT]);
    let server = simulator.serve(([127, 0, 0, 1], 0).into()).await;
    let server = server.expect("a free port");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let relay = Arc::<Relay>::default();
    tokio::spawn(Arc::clone(&relay).run(listener, server.addr()));
    let connections = Connections::new(|| Builder::new().build_http());
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(SharedHttpClient::new(connections))
        .endpoint_url(url)
        .build();
    let sitewise = SiteWise::new(&config);

    call(&sitewise, 4).await;
    assert_eq!(relay.take_opened(), 4);
    call(&sitewise, 4).await;
    assert_eq!(relay.take_opened(), 0);

    // More connections are dead than a request has attempts.
    relay.freezes.fetch_add(1, Ordering::SeqCst);
    call(&sitewise, 1).await;
    call(&sitewise, 1).await;
    assert_eq!(relay.take_opened(), 1);

    call(&sitewise, 4).await;
    assert_eq!(relay.take_opened(), 3);
    relay.freezes.fetch_add(1, Ordering::SeqCst);
    call(&sitewise, 4).await;
}
