//! Which connection a request goes over.
//!
//! While a process is frozen its idle connections may die, and only a request
//! shows it. So when the SDK repeats a request, all idle connections are dropped:
//! the repeated request, and those after it, go over new ones.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

/// The header in which the SDK tells the service the number of the attempt.
const ATTEMPT: &str = "amz-sdk-request";

/// Makes an HTTP client, out of those that `make` makes, that repeats no request
/// over a connection used before. Its clones share their connections.
pub fn http_client(
    make: impl Fn() -> SharedHttpClient + Send + Sync + 'static,
) -> SharedHttpClient {
    let connections = Arc::new(Connections {
        client: Mutex::new(make()),
        make: Box::new(make),
    });
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(Connector {
            connections: Arc::clone(&connections),
            settings: settings.clone(),
            components: components.clone(),
        })
    })
}

struct Connections {
    make: Box<dyn Fn() -> SharedHttpClient + Send + Sync>,
    /// the client with the connections, replaced by a new one to drop them
    client: Mutex<SharedHttpClient>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Connector {
    connections: Arc<Connections>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let attempt = request.headers().get(ATTEMPT);
        let is_first = attempt.is_some_and(|attempt| attempt.contains("attempt=1;"));
        let client = {
            let client = self.connections.client.lock();
            let mut client = client.unwrap_or_else(PoisonError::into_inner);
            if !is_first {
                *client = (self.connections.make)();
            }
            client.clone()
        };
        let connector = client.http_connector(&self.settings, &self.components);
        connector.call(request)
    }
}
