//! Which connection a request goes over.
//!
//! While a process is frozen its idle connections may die, and only a request
//! shows it. So when the SDK repeats a request, all idle connections are dropped:
//! the repeated request, and those after it, go over new ones.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

/// The header in which the SDK tells the service the number of the attempt.
const ATTEMPT: &str = "amz-sdk-request";

/// An HTTP client that repeats no request over a connection used before. Its
/// clones share their connections.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    make: Box<dyn Fn() -> SharedHttpClient + Send + Sync>,
    /// the client with the connections, replaced by a new one to drop them
    client: Mutex<SharedHttpClient>,
}

impl Connections {
    /// Makes a client out of those that `make` makes.
    pub fn new(make: impl Fn() -> SharedHttpClient + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            client: Mutex::new(make()),
            make: Box::new(make),
        }))
    }

    fn client(&self, is_repeated: bool) -> SharedHttpClient {
        let client = self.0.client.lock();
        let mut client = client.unwrap_or_else(PoisonError::into_inner);
        if is_repeated {
            *client = (self.0.make)();
        }
        client.clone()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl HttpClient for Connections {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            connections: self.clone(),
            settings: settings.clone(),
            components: components.clone(),
        })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.client(false).connector_metadata()
    }
}

#[derive(Debug)]
struct Connector {
    connections: Connections,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let attempt = request.headers().get(ATTEMPT);
        let is_first = attempt.is_some_and(|attempt| attempt.contains("attempt=1;"));
        self.connections
            .client(!is_first)
            .http_connector(&self.settings, &self.components)
            .call(request)
    }
}
