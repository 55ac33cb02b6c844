//! The function's configuration: every environment variable, read once.
//!
//! Owns the variables' names, defaults and limits. It must not be called per
//! invocation. The AWS SDK reads its own variables itself: of those the endpoints
//! are only checked here, and Region and credentials are read to save time.

use std::ops::RangeInclusive;

use http::Uri;
use http::uri::Scheme;
use thiserror::Error;
use tracing_subscriber::filter::Targets;

use crate::aws::tls_roots::{TlsRoots, have_amazon_roots};
use crate::telemetry::TelemetryConfig;
use crate::telemetry::levels;

/// Where dead letters go.
pub const DEAD_LETTER_QUEUE_URL: &str = "DEAD_LETTER_QUEUE_URL";
/// Where parts of large requests and unfinished work go.
pub const WORK_QUEUE_URL: &str = "WORK_QUEUE_URL";
/// The largest request processed at once.
pub const FAN_OUT_ASSETS: &str = "FAN_OUT_ASSETS";
/// Calls in flight in one invocation.
pub const CALL_CONCURRENCY: &str = "CALL_CONCURRENCY";

/// The `service` of log lines and metrics.
pub const SERVICE_NAME: &str = "POWERTOOLS_SERVICE_NAME";

/// The CloudWatch namespace of the metrics.
pub const METRICS_NAMESPACE: &str = "POWERTOOLS_METRICS_NAMESPACE";

/// Endpoints that the SDK calls instead of AWS's own.
const ENDPOINTS: [&str; 3] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_IOTSITEWISE",
    "AWS_ENDPOINT_URL_SQS",
];

/// The Region, the variable with the highest precedence first.
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// Credentials, both of them required.
const CREDENTIALS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// A file of root certificates that replaces all others: the variable of the AWS
/// CLI and most AWS SDKs ("General configuration settings", AWS SDKs and Tools
/// Reference Guide), though not of the SDK for Rust.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// Where the system's root certificates are, in OpenSSL's variables: a file and
/// directories. They are read together: it is enough that one has a root.
const SYSTEM_ROOTS: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The log level, the variable with the highest precedence first. Lambda sets the
/// first one to the level of its own filter.
const LAMBDA_LOG_LEVEL: &str = "AWS_LAMBDA_LOG_LEVEL";
const POWERTOOLS_LOG_LEVEL: &str = "POWERTOOLS_LOG_LEVEL";
const LOG_FILTER: &str = "RUST_LOG";

const DEFAULT_FAN_OUT_ASSETS: usize = 1_000;
const FAN_OUT_ASSETS_ALLOWED: RangeInclusive<usize> = 100..=25_000;

/// Calls in flight where nothing else is configured.
pub const DEFAULT_CALL_CONCURRENCY: usize = 8;
const CALL_CONCURRENCY_ALLOWED: RangeInclusive<usize> = 1..=64;

/// Longest namespace of CloudWatch metrics (`Namespace` of `PutMetricData`).
const NAMESPACE_LIMIT: usize = 255;

/// What the function itself is configured with.
#[derive(Clone, Debug)]
pub struct FunctionConfig {
    /// The URL of the queue for dead letters; without it failures are only
    /// returned.
    pub dead_letter_queue_url: Option<String>,
    /// The URL of the queue for parts of large requests and unfinished work;
    /// without it requests of any size are processed where they arrive. Requires
    /// a dead-letter queue.
    pub work_queue_url: Option<String>,
    /// The largest request, in assets, that is processed at once where there is a
    /// work queue.
    pub fan_out_assets: usize,
    /// Requests to SiteWise in flight in one invocation.
    pub call_concurrency: usize,
    /// The metrics' namespace; without one there are none.
    pub metrics_namespace: Option<String>,
}

impl Default for FunctionConfig {
    fn default() -> Self {
        Self {
            dead_letter_queue_url: None,
            work_queue_url: None,
            fan_out_assets: DEFAULT_FAN_OUT_ASSETS,
            call_concurrency: DEFAULT_CALL_CONCURRENCY,
            metrics_namespace: None,
        }
    }
}

/// The process's configuration.
#[derive(Debug)]
pub struct Config {
    /// What the function itself is configured with.
    pub function: FunctionConfig,
    /// The Region that the environment names.
    pub region: Option<String>,
    /// Whether the environment has credentials, as Lambda's does. They take
    /// precedence, so the SDK need not prepare its other sources, which costs time
    /// at the cold start.
    pub has_credentials: bool,
    /// The root certificates that TLS trusts.
    pub tls_roots: TlsRoots,
    /// The configuration of the log.
    pub telemetry: TelemetryConfig,
}

/// An environment variable whose value is not allowed.
#[derive(Debug, Error, Eq, PartialEq)]
#[error("{variable}: expected {expected}, found {value:?}")]
pub struct InvalidVariable {
    /// The variable's name.
    pub variable: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub expected: String,
}

impl Config {
    /// Reads the configuration from the process's environment.
    pub fn from_env() -> Result<Self, InvalidVariable> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the environment is read"
        )]
        Self::from_lookup(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into()))
    }

    /// Reads the configuration through `lookup`. An empty value counts as none.
    pub fn from_lookup(
        lookup: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, InvalidVariable> {
        let lookup = |name| lookup(name).filter(|value| !value.is_empty());
        let dead_letter_queue_url = url(DEAD_LETTER_QUEUE_URL, &lookup)?;
        let work_queue_url = url(WORK_QUEUE_URL, &lookup)?;
        if let Some(work_queue_url) = &work_queue_url {
            let refused = |expected| InvalidVariable {
                variable: WORK_QUEUE_URL,
                value: work_queue_url.clone(),
                expected,
            };
            let Some(dead_letter_queue_url) = &dead_letter_queue_url else {
                let expected = format!("{DEAD_LETTER_QUEUE_URL} beside it");
                return Err(refused(expected));
            };
            if work_queue_url == dead_letter_queue_url {
                let expected = format!("another queue than {DEAD_LETTER_QUEUE_URL}");
                return Err(refused(expected));
            }
        }
        let mut endpoints = Vec::new();
        for variable in ENDPOINTS {
            endpoints.extend(url(variable, &lookup)?);
        }
        let region = REGIONS.into_iter().find_map(&lookup);
        let metrics_namespace = metrics_namespace(&lookup)?;
        Ok(Self {
            telemetry: telemetry(metrics_namespace.is_some(), &lookup)?,
            function: FunctionConfig {
                dead_letter_queue_url,
                work_queue_url,
                fan_out_assets: number(
                    FAN_OUT_ASSETS,
                    DEFAULT_FAN_OUT_ASSETS,
                    FAN_OUT_ASSETS_ALLOWED,
                    &lookup,
                )?,
                call_concurrency: number(
                    CALL_CONCURRENCY,
                    DEFAULT_CALL_CONCURRENCY,
                    CALL_CONCURRENCY_ALLOWED,
                    &lookup,
                )?,
                metrics_namespace,
            },
            tls_roots: tls_roots(region.as_deref(), &endpoints, &lookup)?,
            region,
            has_credentials: CREDENTIALS
                .into_iter()
                .all(|variable| lookup(variable).is_some_and(|value| !value.trim().is_empty())),
        })
    }
}

/// Chooses the root certificates: the system's for an endpoint of the
/// operator's own, which may have any authority, and for Regions whose endpoints
/// are not known to have Amazon's.
fn tls_roots(
    region: Option<&str>,
    endpoints: &[String],
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<TlsRoots, InvalidVariable> {
    let invalid = |(variable, value), reason| InvalidVariable {
        variable,
        value,
        expected: format!("a path to root certificates in PEM format ({reason})"),
    };
    if let Some(file) = lookup(CA_BUNDLE) {
        return TlsRoots::from_file(&file).map_err(|reason| invalid((CA_BUNDLE, file), reason));
    }
    let named = SYSTEM_ROOTS
        .into_iter()
        .find_map(|variable| Some((variable, lookup(variable)?)));
    let is_https = |url: &String| {
        url.parse::<Uri>()
            .is_ok_and(|uri| uri.scheme() == Some(&Scheme::HTTPS))
    };
    if named.is_none() && region.is_none_or(have_amazon_roots) && !endpoints.iter().any(is_https) {
        return Ok(TlsRoots::Amazon);
    }
    let named = named.unwrap_or((SYSTEM_ROOTS[0], String::new()));
    TlsRoots::from_system().map_err(|reason| invalid(named, reason))
}

fn url(
    variable: &'static str,
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<Option<String>, InvalidVariable> {
    let Some(value) = lookup(variable) else {
        return Ok(None);
    };
    let is_valid = value.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if is_valid {
        Ok(Some(value))
    } else {
        Err(InvalidVariable {
            variable,
            value,
            expected: "a URL with http or https".to_owned(),
        })
    }
}

fn number(
    variable: &'static str,
    default: usize,
    allowed: RangeInclusive<usize>,
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<usize, InvalidVariable> {
    let Some(value) = lookup(variable) else {
        return Ok(default);
    };
    match value.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => Err(InvalidVariable {
            variable,
            value,
            expected: format!(
                "a whole number from {} to {}",
                allowed.start(),
                allowed.end()
            ),
        }),
    }
}

fn telemetry(
    has_metrics: bool,
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<TelemetryConfig, InvalidVariable> {
    let mut config = TelemetryConfig::default();
    if let Some(service) = lookup(SERVICE_NAME) {
        config.service = service;
    }
    if let Some(filter) = log_filter(lookup)? {
        config.filter = filter;
    }
    config.filter = levels::with_required(config.filter, has_metrics);
    if let Some(level) = lookup(LAMBDA_LOG_LEVEL) {
        config.metrics_level = levels::metrics_level(&level);
    }
    Ok(config)
}

fn metrics_namespace(
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<Option<String>, InvalidVariable> {
    let Some(value) = lookup(METRICS_NAMESPACE) else {
        return Ok(None);
    };
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || " .-_/#:".contains(letter);
    let is_valid = value.len() <= NAMESPACE_LIMIT
        && value.chars().all(is_allowed)
        && !value.trim().is_empty()
        && !value.starts_with(':')
        && !value.starts_with("AWS/");
    if is_valid {
        Ok(Some(value))
    } else {
        Err(InvalidVariable {
            variable: METRICS_NAMESPACE,
            value,
            expected: format!(
                "at most {NAMESPACE_LIMIT} letters, digits, blanks or .-_/#:, not beginning with \
                 : or AWS/"
            ),
        })
    }
}

/// Returns the log filter: Lambda's level, else Powertools', else `RUST_LOG`.
fn log_filter(
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<Option<Targets>, InvalidVariable> {
    for variable in [LAMBDA_LOG_LEVEL, POWERTOOLS_LOG_LEVEL] {
        if let Some(value) = lookup(variable) {
            let level = levels::level(&value).ok_or_else(|| InvalidVariable {
                variable,
                value,
                expected: "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL".to_owned(),
            })?;
            return Ok(Some(Targets::new().with_default(level)));
        }
    }
    let Some(value) = lookup(LOG_FILTER) else {
        return Ok(None);
    };
    let filter = value.parse().map_err(|error| InvalidVariable {
        variable: LOG_FILTER,
        value,
        expected: format!("a filter such as info or sitewise_disassociator=debug ({error})"),
    })?;
    Ok(Some(filter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn config(variables: &[(&'static str, &str)]) -> Result<Config, String> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Config::from_lookup(|name| variables.get(name).map(ToString::to_string))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_contracts() {
        for nothing in [
            &[][..],
            &[(DEAD_LETTER_QUEUE_URL, ""), (CALL_CONCURRENCY, "")],
        ] {
            let config = config(nothing).expect("the defaults");
            assert_eq!(config.function.dead_letter_queue_url, None);
            assert_eq!(config.function.work_queue_url, None);
            assert_eq!(config.function.fan_out_assets, 1000);
            assert_eq!(config.function.call_concurrency, 8);
            assert_eq!(config.telemetry.service, "sitewise-disassociator");
            assert_eq!(config.telemetry.metrics_level, "INFO");
            assert_eq!(config.function.metrics_namespace, None);
        }
    }

    #[test]
    fn values_are_taken_to_their_limits() {
        let config = config(&[
            (
                DEAD_LETTER_QUEUE_URL,
                "https://sqs.eu-west-1.amazonaws.com/1/dead",
            ),
            (WORK_QUEUE_URL, "http://127.0.0.1:9000/1/work.fifo"),
            (FAN_OUT_ASSETS, "25000"),
            (CALL_CONCURRENCY, "64"),
            (SERVICE_NAME, "decommissioning"),
            (METRICS_NAMESPACE, "Plant 7/SiteWise#1:a_b-c.d"),
        ])
        .expect("valid");
        assert_eq!(
            config.function.dead_letter_queue_url.as_deref(),
            Some("https://sqs.eu-west-1.amazonaws.com/1/dead")
        );
        assert_eq!(
            config.function.work_queue_url.as_deref(),
            Some("http://127.0.0.1:9000/1/work.fifo")
        );
        assert_eq!(
            (
                config.function.fan_out_assets,
                config.function.call_concurrency
            ),
            (25_000, 64)
        );
        assert_eq!(config.telemetry.service, "decommissioning");
        assert_eq!(
            config.function.metrics_namespace.as_deref(),
            Some("Plant 7/SiteWise#1:a_b-c.d")
        );
    }

    #[test]
    fn a_wrong_value_names_variable_value_and_what_is_allowed() {
        for (variable, value, expected) in [
            (FAN_OUT_ASSETS, "99", "a whole number from 100 to 25000"),
            (FAN_OUT_ASSETS, "25001", "a whole number from 100 to 25000"),
            (FAN_OUT_ASSETS, "1e3", "a whole number from 100 to 25000"),
            (CALL_CONCURRENCY, "0", "a whole number from 1 to 64"),
            (CALL_CONCURRENCY, "65", "a whole number from 1 to 64"),
            (CALL_CONCURRENCY, "-1", "a whole number from 1 to 64"),
            (
                DEAD_LETTER_QUEUE_URL,
                "arn:aws:sqs:eu-west-1:1:dead",
                "a URL with http or https",
            ),
            (WORK_QUEUE_URL, "/queue", "a URL with http or https"),
            (
                "AWS_ENDPOINT_URL",
                "localhost:9000",
                "a URL with http or https",
            ),
            (
                "AWS_ENDPOINT_URL_IOTSITEWISE",
                "ftp://x",
                "a URL with http or https",
            ),
            (
                "AWS_ENDPOINT_URL_SQS",
                "not a URL",
                "a URL with http or https",
            ),
            (
                "AWS_LAMBDA_LOG_LEVEL",
                "LOUD",
                "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL",
            ),
            (
                "POWERTOOLS_LOG_LEVEL",
                "LOUD",
                "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL",
            ),
        ] {
            assert_eq!(
                config(&[(variable, value)]).map(drop),
                Err(format!("{variable}: expected {expected}, found {value:?}"))
            );
        }
        let too_long = "n".repeat(256);
        for namespace in ["AWS/Lambda", ":a", "a\nb", "ä", " ", &too_long] {
            assert_eq!(
                config(&[(METRICS_NAMESPACE, namespace)]).map(drop),
                Err(format!(
                    "POWERTOOLS_METRICS_NAMESPACE: expected at most 255 letters, digits, blanks or \
                     .-_/#:, not beginning with : or AWS/, found {namespace:?}"
                ))
            );
        }
        let queue = "https://sqs.eu-west-1.amazonaws.com/1/one";
        assert_eq!(
            config(&[(DEAD_LETTER_QUEUE_URL, queue), (WORK_QUEUE_URL, queue)]).map(drop),
            Err(format!(
                "WORK_QUEUE_URL: expected another queue than DEAD_LETTER_QUEUE_URL, found {queue:?}"
            ))
        );
        for filter in ["a=b=c", "a=loud", "[span{field=1}]=debug"] {
            let error = config(&[("RUST_LOG", filter)])
                .map(drop)
                .expect_err("no filter");
            assert!(
                error.starts_with("RUST_LOG: expected a filter such as info"),
                "{error}"
            );
        }
    }

    #[test]
    fn lambdas_log_level_wins_over_powertools_over_rust_log() {
        let lambda = ("AWS_LAMBDA_LOG_LEVEL", "FATAL");
        let powertools = ("POWERTOOLS_LOG_LEVEL", "Warning");
        let rust = ("RUST_LOG", "sitewise_disassociator=trace");
        for (variables, filter) in [
            (&[][..], "info"),
            (&[rust], "sitewise_disassociator=trace"),
            (&[rust, powertools], "warn"),
            (&[rust, powertools, lambda], "error"),
        ] {
            let requested = filter.parse().expect("a filter");
            let config = config(variables).expect("valid");
            let expected = levels::with_required(requested, false);
            assert_eq!(config.telemetry.filter, expected, "{variables:?}");
        }
    }

    #[test]
    fn metrics_pass_both_filters() {
        let namespace = (METRICS_NAMESPACE, "Decommissioning");
        for (level, filter, metrics_level) in [
            ("AWS_LAMBDA_LOG_LEVEL", "error", "ERROR"),
            // Lambda's own filter is off.
            ("POWERTOOLS_LOG_LEVEL", "error", "INFO"),
        ] {
            let config = config(&[namespace, (level, "ERROR")]).expect("valid");
            let requested = filter.parse().expect("a filter");
            let expected = levels::with_required(requested, true);
            assert_eq!(config.telemetry.filter, expected);
            assert_eq!(config.telemetry.metrics_level, metrics_level);
        }
    }

    #[test]
    fn region_and_credentials_are_the_environments_as_the_sdk_reads_them() {
        let key = ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
        let secret = ("AWS_SECRET_ACCESS_KEY", "secret");
        for (variables, region, has_credentials) in [
            (&[][..], None, false),
            (&[key], None, false),
            (&[secret], None, false),
            (&[key, ("AWS_SECRET_ACCESS_KEY", " ")], None, false),
            (&[key, secret], None, true),
            (
                &[("AWS_DEFAULT_REGION", "eu-west-1")],
                Some("eu-west-1"),
                false,
            ),
            (
                &[
                    ("AWS_DEFAULT_REGION", "us-east-1"),
                    ("AWS_REGION", "eu-west-1"),
                ],
                Some("eu-west-1"),
                false,
            ),
        ] {
            let config = config(variables).expect("valid");
            let found = (config.region.as_deref(), config.has_credentials);
            assert_eq!(found, (region, has_credentials), "{variables:?}");
        }
    }

    #[test]
    fn tls_trusts_amazons_roots_unless_something_calls_for_others() {
        let here = ("AWS_REGION", "eu-west-1");
        let elsewhere = ("AWS_REGION", "cn-north-1");
        let plain = ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000");
        let has_amazons = |variables: &[(&'static str, &str)]| {
            let roots = config(variables).map(|config| config.tls_roots);
            roots == Ok(TlsRoots::Amazon)
        };
        for amazons in [
            &[][..],
            &[here],
            &[here, plain],
            &[here, ("SSL_CERT_FILE", ""), ("AWS_CA_BUNDLE", "")],
            &[("AWS_DEFAULT_REGION", "us-gov-west-1")],
            &[here, ("AWS_DEFAULT_REGION", "cn-north-1")],
        ] {
            assert!(has_amazons(amazons), "{amazons:?}");
        }
        for others in [
            &[elsewhere][..],
            &[elsewhere, ("AWS_DEFAULT_REGION", "eu-west-1")],
            &[here, ("AWS_ENDPOINT_URL", "https://localhost")],
            &[here, ("AWS_ENDPOINT_URL_SQS", "HTTPS://localhost"), plain],
            &[here, ("AWS_ENDPOINT_URL_IOTSITEWISE", "https://localhost")],
            &[here, ("SSL_CERT_FILE", "/roots.pem")],
            &[here, ("SSL_CERT_DIR", "/roots")],
            &[here, ("AWS_CA_BUNDLE", "/roots.pem")],
        ] {
            assert!(!has_amazons(others), "{others:?}");
        }
    }
}
