//! Which connections a call goes over.
//!
//! Owns how many are kept between invocations, and how many while one is at
//! work. It must not know what is sent over them.
//!
//! While a process is frozen its idle connections may die, and only a try tells.
//! So fewer are kept than a call has attempts: the last one is over a new
//! connection. But an invocation makes more calls at a time than that, and would
//! open a connection for most of them, a TLS handshake each. So those beyond the
//! kept ones go over spare connections, which end with the invocation.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use crate::aws::retry::MOST_IDLE_CONNECTIONS;

/// Most spare connections that are idle at a time: as many as there may be
/// calls in flight.
const MOST_SPARE: usize = 64;

/// Makes an HTTP client that keeps at most so many idle connections to one host.
type Make = dyn Fn(usize) -> SharedHttpClient + Send + Sync;

/// An HTTP client of kept and spare connections. Its clones share them.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    make: Box<Make>,
    kept: SharedHttpClient,
    spare: Mutex<Option<SharedHttpClient>>,
    /// requests under way over the kept ones
    under_way: AtomicUsize,
}

impl Connections {
    /// Makes a client out of those that `make` makes: each keeps at most as many
    /// idle connections to one host as it is told.
    pub fn new(make: impl Fn(usize) -> SharedHttpClient + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            kept: make(MOST_IDLE_CONNECTIONS),
            make: Box::new(make),
            spare: Mutex::default(),
            under_way: AtomicUsize::new(0),
        }))
    }

    /// Closes the spare connections: an invocation is over, and the process may
    /// be frozen.
    pub fn close_spare(&self) {
        self.0.spare().take();
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Shared {
    fn spare(&self) -> MutexGuard<'_, Option<SharedHttpClient>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.0.kept.connector_metadata()
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
        let shared = &self.connections.0;
        let place = Place::take(shared);
        let client = if place.is_some() {
            shared.kept.clone()
        } else {
            let make = || (shared.make)(MOST_SPARE);
            shared.spare().get_or_insert_with(make).clone()
        };
        let connector = client.http_connector(&self.settings, &self.components);
        HttpConnectorFuture::new(async move {
            let answer = connector.call(request).await;
            drop(place);
            answer
        })
    }
}

/// A place among the requests over kept connections, until it is dropped.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let place = Self(Arc::clone(shared));
        let before = shared.under_way.fetch_add(1, Ordering::Relaxed);
        // A place too many is given back where it is dropped.
        (before < MOST_IDLE_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
