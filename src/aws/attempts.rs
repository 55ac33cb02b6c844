//! Counts the attempts of a client's requests, and takes their times. It must
//! not change a request.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use tokio::time::Instant;

use crate::aws::error::FailureClass;
use crate::aws::retry::{Metadata, class_of};

/// The attempts of some requests. The SDK makes several of a request that it
/// retries.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attempts {
    /// those after the first of their request
    pub retries: usize,
    /// those that were throttled
    pub throttled: usize,
    /// the time of each, from its start to its response or failure
    pub latencies: Vec<Duration>,
}

/// Counts the attempts of one client's requests. Its clones share the count.
#[derive(Clone)]
pub struct CountAttempts {
    counted: Arc<Mutex<Attempts>>,
    metadata: Metadata,
}

impl CountAttempts {
    pub(crate) fn new(metadata: Metadata) -> Self {
        Self {
            counted: Arc::default(),
            metadata,
        }
    }

    /// Returns the attempts since it was last called.
    pub fn take(&self) -> Attempts {
        std::mem::take(&mut self.counted())
    }

    fn counted(&self) -> MutexGuard<'_, Attempts> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CountAttempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CountAttempts")
            .field(&self.counted())
            .finish()
    }
}

/// When a request's current attempt started.
#[derive(Debug)]
struct Started(Instant);

impl Storable for Started {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for CountAttempts {
    fn name(&self) -> &'static str {
        "count attempts"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if config.load::<Started>().is_some() {
            self.counted().retries += 1;
        }
        config
            .interceptor_state()
            .store_put(Started(Instant::now()));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut counted = self.counted();
        if let Some(Started(at)) = config.load::<Started>() {
            counted.latencies.push(at.elapsed());
        }
        if class_of(context.inner(), self.metadata) == Some(FailureClass::Throttled) {
            counted.throttled += 1;
        }
        Ok(())
    }
}
